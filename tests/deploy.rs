//! hb as a service: what the installer leaves behind, what systemd says of the unit, and the unit in a real systemd.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::hb::{Output, note, repository, surround};
use crate::support::machine::{GIVEN, Machine};

/// Highest exposure that `systemd-analyze security` may find, times ten as its `--threshold` has it.
const EXPOSURE_MAX: &str = "15";

/// Entries of the journal while hb is away: more than `journalctl --follow` begins with by itself.
const ENTRIES_AWAY: usize = 20;

/// A source tree with a build in it, as somebody has who installs hb.
pub(crate) fn lay_out(tree: &Path) {
    let repository = repository();
    let target = repository.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    for folder in ["examples/deploy", "examples/plant", "policies"] {
        copy(&repository.join(folder), &tree.join(folder));
    }
    copy(&target.join("plugins"), &tree.join("target/plugins"));
    fs::create_dir_all(tree.join("target/debug")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_hb"), tree.join("target/debug/hb")).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A tree to install from, and a root to install into.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { dir: tempfile::Builder::new().prefix("hb-install-").tempdir().unwrap() };
        lay_out(&place.tree());
        place
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn root(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn install(&self, args: &[&str]) -> Output {
        let mut command = Command::new("sh");
        command.arg(self.tree().join("examples/deploy/install.sh")).arg("--root").arg(self.root("")).args(args);
        surround(&mut command);
        command.env_remove("CARGO_TARGET_DIR").env_remove("HB_PLUGINS_DIR").env_remove("HB_POLICIES_DIR");
        Output::of(&mut command)
    }

    fn installed(&self, args: &[&str]) -> Output {
        let output = self.install(args);
        assert_eq!(output.code, 0, "{output:#?}");
        output
    }

    /// Every path below the root with its mode, its time of change and its content.
    fn content(&self) -> BTreeMap<PathBuf, (u32, i64, i64, String)> {
        let mut found = BTreeMap::new();
        let mut left = vec![self.root("")];
        while let Some(path) = left.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let text = if meta.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                String::new()
            } else {
                data_encoding::HEXLOWER.encode(&Sha256::digest(fs::read(&path).unwrap()))
            };
            found.insert(path, (meta.mode() & 0o7777, meta.ctime(), meta.ctime_nsec(), text));
        }
        found
    }

    /// What `find` finds below the root.
    fn find(&self, args: &[&str]) -> String {
        Output::of(Command::new("find").arg(self.root("")).args(args)).stdout
    }
}

#[test]
fn nothing_that_is_installed_is_writable_by_others() {
    let place = Place::new();
    // Whoever built it was careless.
    fs::set_permissions(place.tree().join("target/debug/hb"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(place.tree().join("policies/drift/missing.luau"), fs::Permissions::from_mode(0o666)).unwrap();
    let said = place.installed(&[]).stdout;
    assert!(said.contains("installed hb "), "{said}");
    assert_eq!(place.find(&["-perm", "/022"]), "", "writable by the group or by others");
    // Others cannot even read what is hb's own.
    for part in ["opt/hb", "etc/hb", "var/lib/hb"] {
        let part = place.root(part);
        let open = Output::of(Command::new("find").arg(&part).args(["-perm", "/007"])).stdout;
        assert_eq!(open, "", "open to others");
    }
    assert_eq!(place.find(&["-name", "*.key"]), "", "a secret key was installed");
    for (path, mode) in [
        ("opt/hb/bin/hb", 0o750),
        ("opt/hb/lib/hb/plugins/schema-map/plugin.wasm", 0o640),
        ("opt/hb/share/hb/policies/drift/missing.luau", 0o640),
        ("opt/hb/share/man/man1/hb.1", 0o640),
        ("opt/hb/share/man/man1/hb-daemon.1", 0o640),
        ("opt/hb/share/bash-completion/completions/hb", 0o640),
        ("etc/hb/hb.yaml", 0o640),
        ("etc/hb/publisher.pub", 0o640),
        ("etc/systemd/system/hb-daemon.service", 0o644),
        ("var/lib/hb", 0o700),
    ] {
        assert_eq!(fs::metadata(place.root(path)).unwrap().mode() & 0o7777, mode, "{path}");
    }
}

#[test]
fn a_second_run_changes_nothing_and_says_so() {
    let place = Place::new();
    place.installed(&[]);
    let before = place.content();
    let said = place.installed(&[]).stdout;
    assert!(said.starts_with("nothing to change: hb ") && said.lines().count() == 1, "{said}");
    assert_eq!(before, place.content());
    // What somebody opened is closed again.
    fs::set_permissions(place.root("opt/hb/bin/hb"), fs::Permissions::from_mode(0o777)).unwrap();
    place.installed(&[]);
    assert_eq!(place.find(&["-perm", "/022"]), "");
}

#[test]
fn a_config_that_was_changed_here_stays() {
    let place = Place::new();
    place.installed(&[]);
    let (config, schema) = (place.root("etc/hb/hb.yaml"), place.root("etc/hb/telemetry_schema.yaml"));
    let ours = fs::read_to_string(&config).unwrap().replace("default  ", "plant  ");
    fs::write(&config, &ours).unwrap();
    let before = place.content();
    place.installed(&[]);
    assert_eq!(before, place.content(), "the same version has nothing to say about a changed config");

    // A new version has other templates, a policy less and another program.
    let tree = place.tree();
    for name in ["hb.yaml", "telemetry_schema.yaml"] {
        let template = tree.join("examples/deploy").join(name);
        fs::write(&template, fs::read_to_string(&template).unwrap() + "# newer\n").unwrap();
    }
    fs::remove_file(tree.join("policies/drift/stuck.luau")).unwrap();
    fs::remove_file(tree.join("policies/drift/stuck.test.luau")).unwrap();
    let said = place.installed(&[]).stdout;
    assert!(said.contains("which was changed here"), "{said}");
    assert_eq!(fs::read_to_string(&config).unwrap(), ours);
    assert!(fs::read_to_string(place.root("etc/hb/hb.yaml.new")).unwrap().ends_with("# newer\n"));
    assert!(fs::read_to_string(&schema).unwrap().ends_with("# newer\n"), "nobody had changed it");
    assert!(!place.root("opt/hb/share/hb/policies/drift/stuck.luau").exists(), "an old policy stayed");
    assert!(place.installed(&[]).stdout.starts_with("nothing to change"));
}

#[test]
fn what_does_not_pass_the_check_is_not_installed() {
    let place = Place::new();
    place.installed(&[]);
    // Somebody else's plugins, or damaged ones.
    let wasm = place.tree().join("target/plugins/schema-map/plugin.wasm");
    let mut bytes = fs::read(&wasm).unwrap();
    bytes.push(0);
    fs::write(&wasm, bytes).unwrap();
    fs::write(place.tree().join("policies/drift/new.luau"), "return 1").unwrap();
    let before = place.content();
    let output = place.install(&[]);
    assert_eq!(output.code, 78, "{output:#?}");
    assert!(output.stderr.contains("signature") && output.stderr.contains("nothing was changed"), "{output:#?}");
    assert_eq!(before, place.content());
}

#[test]
fn uninstalling_keeps_the_state_until_it_is_purged() {
    let place = Place::new();
    place.installed(&["--prefix", "/srv/hb"]);
    let unit = fs::read_to_string(place.root("etc/systemd/system/hb-daemon.service")).unwrap();
    assert!(unit.contains("ExecStart=/srv/hb/bin/hb ") && !unit.contains("/opt/hb"), "{unit}");
    fs::write(place.root("var/lib/hb/hb.redb"), "state").unwrap();
    fs::write(place.root("srv/hb/lib/hb/plugins/ours"), "a file of the site").unwrap();

    let said = place.installed(&["--uninstall", "--prefix", "/srv/hb"]).stdout;
    assert!(said.contains("removed hb from") && said.contains("kept"), "{said}");
    let left = place.find(&["-type", "f", "-printf", "%P\n"]);
    let mut left: Vec<&str> = left.lines().collect();
    left.sort_unstable();
    let kept = ["etc/hb/hb.yaml", "etc/hb/publisher.pub", "etc/hb/telemetry_schema.yaml"];
    assert_eq!(left, [&kept[..], &["srv/hb/lib/hb/plugins/ours", "var/lib/hb/hb.redb"]].concat());
    let said = place.installed(&["--uninstall", "--prefix", "/srv/hb"]).stdout;
    assert!(said.starts_with("nothing to remove"), "{said}");

    fs::remove_dir_all(place.root("srv")).unwrap();
    place.installed(&[]);
    assert_eq!(fs::read_to_string(place.root("var/lib/hb/hb.redb")).unwrap(), "state");
    place.installed(&["--uninstall", "--purge"]);
    assert_eq!(place.find(&["-type", "f"]), "");
    assert!(!place.root("var/lib/hb").exists() && !place.root("etc/hb").exists() && !place.root("opt/hb").exists());
}

#[test]
fn wrong_arguments_are_answered_with_help() {
    let place = Place::new();
    for args in [
        &["--bogus"][..],
        &["--prefix"],
        &["--prefix", ""],
        &["--prefix", "opt/hb"],
        &["--prefix", "/"],
        &["--prefix", "/opt/h b"],
        &["--prefix", "/opt/../hb"],
        &["--prefix", "/opt/hb;id"],
        &["--root", "/"],
        &["--purge"],
        &["install"],
    ] {
        let output = place.install(args);
        assert_eq!(output.code, 64, "{args:?}: {output:#?}");
        assert!(
            output.stderr.contains("usage: install.sh") && output.stderr.starts_with("install.sh: "),
            "{output:#?}"
        );
    }
    assert!(place.installed(&["--help"]).stdout.starts_with("usage: install.sh"));
    for (args, word) in [(["--from", "/nowhere"], "program"), (["--publisher", "/nowhere.pub"], "public key")] {
        let output = place.install(&args);
        assert_eq!(output.code, 66, "{args:?}: {output:#?}");
        assert!(output.stderr.contains(word) && output.stderr.contains("help: "), "{output:#?}");
    }
    assert!(!place.root("opt").exists(), "wrong arguments changed something");
    fs::create_dir_all(place.root("usr/local/bin")).unwrap();
    let output = place.install(&["--prefix", "/usr/local"]);
    assert_eq!(output.code, 66, "a prefix that is shared would be closed to others: {output:#?}");
}

#[test]
fn only_root_installs_into_the_machine_itself() {
    let script = fs::File::open(repository().join("examples/deploy/install.sh")).unwrap();
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups sh -s";
    let words: Vec<&str> = if is_root { nobody } else { "sh -s" }.split(' ').collect();
    let output = Output::of(Command::new(words[0]).args(&words[1..]).stdin(script));
    assert_eq!(output.code, 77, "{output:#?}");
    assert!(output.stderr.contains("only root") && output.stderr.contains("--root DIR"), "{output:#?}");
}

#[test]
fn systemd_finds_the_unit_sound_and_little_exposed() {
    const MISSING: &str = "this test needs systemd-analyze: apt-get install systemd, or cargo xtask test";
    let place = Place::new();
    place.installed(&[]);
    let analyze = |args: &[&str], unit: &Path| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).arg(unit).env("SYSTEMD_COLORS", "0");
        Output { code: command.status().expect(MISSING).code().unwrap(), ..Output::of(&mut command) }
    };
    let unit = place.root("etc/systemd/system/hb-daemon.service");
    // Its program lies in another root; everything else is as it will be.
    let here = unit.with_file_name("hb-here.service");
    let text = fs::read_to_string(&unit).unwrap();
    fs::write(&here, text.replace("/opt/hb/bin/hb", place.root("opt/hb/bin/hb").to_str().unwrap())).unwrap();
    let sound = analyze(&["verify", "--man=no", "--recursive-errors=no"], &here);
    assert_eq!((sound.code, sound.stderr.as_str()), (0, ""), "{sound:#?}");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let security = analyze(&["security", "--offline=true", "--no-pager", &threshold], &unit);
    assert_eq!(security.code, 0, "{}", security.stdout);
    let level = security.stdout.lines().rev().find(|l| l.contains("exposure level")).unwrap();
    println!("{level}");
}

#[test]
fn a_real_systemd_starts_watches_reloads_and_stops_it() {
    let Some(machine) = machine("the service in a real systemd") else { return };
    install(&machine);
    // What takes seconds to show with the shipped numbers.
    machine.done(
        "mkdir -p /etc/systemd/system/hb-daemon.service.d && printf '[Service]\\nWatchdogSec=2s\\nTimeoutAbortSec=1s\\nRestartSec=100ms\\n\
         Environment=RUST_LOG=hb=debug\\n' \
         >/etc/systemd/system/hb-daemon.service.d/fast.conf && systemctl daemon-reload",
    );
    // `start` returns when hb has said that it is ready.
    machine.done("systemctl start hb-daemon");
    let property = |name: &str| machine.property("hb-daemon", name);
    assert_eq!(property("ActiveState"), "active");
    assert_eq!(property("StatusText"), "reading 2 sources");
    let pid = property("MainPID");
    assert_eq!(machine.done(&format!("stat -c %U:%G /proc/{pid}")), "hb:hb\n");
    assert_eq!(machine.done("stat -c '%U:%G %a' /var/lib/hb"), "hb:hb 700\n");

    // It takes telemetry, as it does anywhere else.
    machine.done("logger --server 127.0.0.1 --port 5514 --tcp --tag pump-1 'temp=61.2 rpm=2950'");
    machine.wait_for("journalctl --no-pager --unit hb-daemon | grep -E 'committing.*samples=2'");
    // A reload does not end it.
    machine.done("systemctl reload hb-daemon");
    machine.wait_for("journalctl --no-pager --unit hb-daemon | grep ' reloaded '");
    machine.wait_for("test $(systemctl show --value --property ActiveState hb-daemon) = active");
    assert_eq!((property("MainPID"), property("NRestarts")), (pid.clone(), "0".to_owned()));

    // Only the pipeline stands still; every other thread of the process goes on, and no ping comes.
    hold(&machine, &pid);
    machine.wait_for("test $(systemctl show --value --property NRestarts hb-daemon) = 1");
    machine.wait_for("systemctl is-active --quiet hb-daemon");
    assert_ne!(property("MainPID"), pid);
    machine.done("journalctl --no-pager --unit hb-daemon | grep 'Watchdog timeout'");

    // The new one lives on, longer than two pulses apart: a pipeline without work still turns.
    let since: u64 = property("ActiveEnterTimestampMonotonic").parse().unwrap();
    machine.wait_for(&format!("test $(cut -d. -f1 /proc/uptime) -gt {}", since / 1_000_000 + 5));
    assert_eq!((property("ActiveState").as_str(), property("NRestarts").as_str()), ("active", "1"));

    machine.done("systemctl stop hb-daemon");
    assert_eq!([property("ActiveState"), property("Result")], ["inactive", "success"]);
    // It ended by itself: what it took is there, and the log tells of both starts and of the end.
    machine.done("hb log verify --config /etc/hb/hb.yaml --key /var/lib/hb/keys/host.pub");
    let entries = |kind: &str| machine.done(&format!("hb log show --config /etc/hb/hb.yaml --kind {kind}"));
    assert_eq!(entries("start").matches("generation").count(), 2, "{}", entries("start"));
    assert!(entries("stop").contains("asked to by SIGTERM"), "{}", entries("stop"));
    let status = machine.done("hb status --config /etc/hb/hb.yaml");
    assert!(status.contains("samples 2"), "{status}");
}

#[test]
fn drop_ins_open_what_they_say_and_no_more() {
    let Some(machine) = machine("the drop-ins in a real systemd") else { return };
    install(&machine);
    // The source is the one that the drop-in shows.
    let shown = fs::read_to_string(repository().join("examples/deploy/drop-ins/journal.conf")).unwrap();
    let reader: String =
        shown.lines().filter_map(|line| line.strip_prefix("#   ")).map(|l| format!("  {l}\n")).collect();
    assert!(reader.contains("cursor_field: __CURSOR") && reader.contains("my-program"), "{reader}");
    let reader = reader.replace("my-program", "pump-2");
    let config = fs::read_to_string(repository().join("examples/deploy/hb.yaml")).unwrap();
    let config =
        config.replace("127.0.0.1:5514", "127.0.0.1:514").replace("\nnormalizers:", &format!("{reader}\nnormalizers:"));
    fs::write(machine.given().join("hb.yaml"), config).unwrap();
    machine.done(&format!(
        "cp {GIVEN}/hb.yaml /etc/hb/hb.yaml
         drop_ins=/etc/systemd/system/hb-daemon.service.d
         install -D -m 644 -t $drop_ins /opt/hb/share/hb/drop-ins/syslog-port.conf /opt/hb/share/hb/drop-ins/journal.conf
         printf '[Service]\\nEnvironment=RUST_LOG=hb=debug\\n' >$drop_ins/log.conf
         systemctl daemon-reload
         # What a machine does at its boot, so that the group may read the journal.
         systemd-tmpfiles --create --prefix /run/log/journal
         systemctl start hb-daemon"
    ));
    machine.done("logger --server 127.0.0.1 --port 514 --tcp --tag pump-1 'temp=61.2 rpm=2950'");
    machine.wait_for("journalctl --no-pager --unit hb-daemon | grep -E 'committing.*samples=2'");
    // Entries from before the first start, while it runs, while it is away, and after that: each comes once.
    let samples = |n: usize| {
        machine.wait_for(&format!("hb status --config /etc/hb/hb.yaml | grep -w 'samples {n}'"));
    };
    machine.done("systemd-cat --identifier pump-2 echo temp=61.2 rpm=2950 flow=7");
    samples(4);
    machine.done("systemctl stop hb-daemon");
    machine.done(&format!(
        "for n in $(seq {ENTRIES_AWAY}); do systemd-cat --identifier pump-2 echo temp=$n.5 rpm=2950; done
         journalctl --sync
         systemctl start hb-daemon"
    ));
    samples(4 + 2 * ENTRIES_AWAY);
    machine.done("systemd-cat --identifier pump-2 echo temp=99.5 rpm=2950");
    samples(4 + 2 * ENTRIES_AWAY + 2);
    let pid = machine.property("hb-daemon", "MainPID");
    // CAP_NET_BIND_SERVICE is bit 10, and nothing else is there.
    let held = machine.done(&format!("grep -E '^Cap(Eff|Bnd)' /proc/{pid}/status | cut -f2 | sort -u"));
    assert_eq!(held, "0000000000000400\n");
    machine.done("systemctl stop hb-daemon");
    let status = machine.done("hb status --config /etc/hb/hb.yaml");
    assert!(status.contains(&format!("samples {}", 4 + 2 * ENTRIES_AWAY + 2)), "each entry once: {status}");
}

#[test]
fn a_wrong_config_is_not_started_again_and_again() {
    let Some(machine) = machine("a wrong config in a real systemd") else { return };
    install(&machine);
    machine.done("echo 'nonsense: yes' >>/etc/hb/hb.yaml");
    assert_ne!(machine.shell("systemctl start hb-daemon").code, 0);
    let property = |name: &str| machine.property("hb-daemon", name);
    assert_eq!([property("ActiveState"), property("ExecMainStatus"), property("NRestarts")], ["failed", "78", "0"]);
    machine.done("journalctl --no-pager --unit hb-daemon | grep nonsense");
}

/// A machine, or a note that this was skipped and why.
pub(crate) fn machine(what: &str) -> Option<Machine> {
    match Machine::boot() {
        Ok(machine) => Some(machine),
        Err(why) => {
            note(&format!("skipped: {what}: {why}"));
            None
        }
    }
}

/// Installs hb on it, as its root would.
fn install(machine: &Machine) {
    lay_out(&machine.given().join("tree"));
    let said = machine.done(&format!("sh {GIVEN}/tree/examples/deploy/install.sh"));
    assert!(said.contains("made user hb"), "{said}");
    let owners = machine.done("find /opt/hb /etc/hb ! -user root -o ! -group hb -o -perm /022");
    assert_eq!(owners, "", "not root's, or writable by the service");
}

/// Stops the thread of the pipeline, which is the first of the process, and no other: by a frozen control group of its
/// own.
fn hold(machine: &Machine, pid: &str) {
    machine.done(&format!(
        "set -eu
         group=/sys/fs/cgroup/system.slice/hb-daemon.service/held
         mkdir $group
         echo threaded >$group/cgroup.type
         test $(ls /proc/{pid}/task | wc -l) -gt 1
         echo {pid} >$group/cgroup.threads
         echo 1 >$group/cgroup.freeze"
    ));
    machine.wait_for("grep -q 'frozen 1' /sys/fs/cgroup/system.slice/hb-daemon.service/held/cgroup.events");
}
