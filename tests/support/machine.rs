//! A machine of its own inside this one: namespaces with a real systemd as process 1, that end with the test.
//!
//! It has this machine's programs and libraries, copies of `/etc`, and nothing in `/opt`, `/var/lib`, `/run`, `/tmp` and
//! among the units, so that whatever is installed in it is gone with it. It needs root and a kernel that lets it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::hb::{Output, surround};

/// Where the folder that the machine is given lies inside of it.
pub(crate) const GIVEN: &str = "/run/given";

/// How long anything in it may take before a test gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at it.
const POLL: Duration = Duration::from_millis(20);

/// Makes the namespaces' own view of the file system and becomes process 1. `$1` is the folder to give, `$2` the name of
/// a control group of its own.
const BOOT: &str = r#"
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/given /run/etc /run/units /run/systemd/system
mount --bind "$1" /run/given
mount -t tmpfs -o mode=755 etc /run/etc
cp -a /etc/. /run/etc
rm -rf /run/etc/systemd/system /run/etc/hb
mkdir /run/etc/systemd/system
mount --move /run/etc /etc
for folder in /opt /var/lib /var/log; do mount -t tmpfs -o mode=755 own $folder; done
for folder in /tmp /var/tmp; do mount -t tmpfs -o mode=1777 own $folder; done
units=/lib/systemd/system
cp $units/systemd-journald.service $units/systemd-journald.socket /run/units
mount -t tmpfs -o mode=755 own $units
mount -t tmpfs -o mode=755 own /lib/systemd/system-generators
cp /run/units/* $units
for target in sysinit basic multi-user network-online time-sync shutdown umount; do
    printf '[Unit]\nDefaultDependencies=no\n' >$units/$target.target
done
printf '[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\n' >$units/boot.target
umount -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$2"
echo 0 >"/sys/fs/cgroup/$2/cgroup.procs"
exec unshare --cgroup sh -euc '
    umount /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=boot.target'
"#;

/// Ends the control groups that a dead machine left behind; `$1` is their name.
const SWEEP: &str = r#"
mount --make-rprivate /
umount -l /sys/fs/cgroup 2>/dev/null
mount -t cgroup2 cgroup2 /sys/fs/cgroup && find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +
"#;

/// A machine that runs.
pub(crate) struct Machine {
    given: TempDir,
    namespaces: Child,
    /// Its process 1, as this machine counts.
    init: u32,
    group: String,
}

impl Machine {
    /// Boots one, or says why this machine cannot.
    pub(crate) fn boot() -> Result<Machine, String> {
        for program in ["/lib/systemd/systemd", "/usr/bin/systemctl", "/usr/bin/unshare", "/usr/bin/nsenter"] {
            if !Path::new(program).exists() {
                return Err(format!("there is no {program}: apt-get install systemd util-linux, or cargo xtask test"));
            }
        }
        let given = tempfile::Builder::new().prefix("hb-machine-").tempdir().unwrap();
        let group = given.path().file_name().unwrap().to_string_lossy().into_owned();
        let log = given.path().join("boot.log");
        let told = fs::File::create(&log).unwrap();
        // Killed with this thread, whatever ends it; its own child with it.
        let mut unshare = Command::new("setpriv");
        unshare
            .args("--pdeathsig KILL unshare --pid --fork --mount --uts --ipc --net --kill-child sh -c".split(' '))
            .args([BOOT, "boot"]);
        unshare.arg(given.path()).arg(&group).stdin(Stdio::null());
        unshare.stdout(told.try_clone().unwrap()).stderr(told);
        let mut machine =
            Machine { given, namespaces: unshare.spawn().map_err(|e| format!("unshare: {e}"))?, init: 0, group };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if machine.namespaces.try_wait().unwrap().is_some() {
                break;
            }
            let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", machine.namespaces.id()));
            machine.init = child.unwrap_or_default().trim().parse().unwrap_or(0);
            // Until then its process 1 is the shell that makes the namespaces.
            let comm = fs::read_to_string(format!("/proc/{}/comm", machine.init)).unwrap_or_default();
            if comm.trim() == "systemd"
                && machine.shell("systemctl is-active --quiet boot.target systemd-journald.service").code == 0
            {
                return Ok(machine);
            }
            pause();
        }
        Err(format!("no systemd came up: {}", fs::read_to_string(&log).unwrap_or_default().trim()))
    }

    /// The folder that it sees as [`GIVEN`].
    pub(crate) fn given(&self) -> PathBuf {
        self.given.path().to_owned()
    }

    /// A command inside of it, as root.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let init = self.init.to_string();
        command.args(["--target", &init, "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--", program]);
        surround(&mut command);
        // What is installed finds its own parts.
        command.env_remove("HB_PLUGINS_DIR").env_remove("HB_POLICIES_DIR").env_remove("CARGO_TARGET_DIR");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/opt/hb/bin").env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Runs a line of shell inside of it to its end.
    pub(crate) fn shell(&self, line: &str) -> Output {
        Output::of(self.command("sh").args(["-c", line]))
    }

    /// Runs a line of shell, which must succeed, and returns what it says.
    pub(crate) fn done(&self, line: &str) -> String {
        let output = self.shell(line);
        assert_eq!(output.code, 0, "{line}: {output:#?}\n{}", self.journal());
        output.stdout
    }

    /// Waits until a line of shell succeeds.
    pub(crate) fn wait_for(&self, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.shell(line);
            if output.code == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{line}: {output:#?}\n{}", self.journal());
            pause();
        }
    }

    /// What a property of a unit is now.
    pub(crate) fn property(&self, unit: &str, name: &str) -> String {
        self.done(&format!("systemctl show --value --property {name} {unit}")).trim().to_owned()
    }

    /// The last lines of its journal, for whoever must know why.
    fn journal(&self) -> String {
        self.shell("journalctl --no-pager --output=cat --lines=60 _TRANSPORT=stdout + _PID=1").stdout
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.namespaces.kill();
        let _ = self.namespaces.wait();
        let mut sweep = Command::new("unshare");
        sweep.args(["--mount", "sh", "-c", SWEEP, "sweep", &self.group]).stdout(Stdio::null()).stderr(Stdio::null());
        // Its processes are gone soon; a group that is left is empty and harms nobody.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !sweep.status().is_ok_and(|status| status.success()) && Instant::now() < deadline {
            pause();
        }
    }
}

/// Nothing says when the machine has changed, so it is looked at again and again, up to a deadline.
fn pause() {
    std::thread::park_timeout(POLL);
}
