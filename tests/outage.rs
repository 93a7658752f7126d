//! A daemon whose disk is full or fails: it waits, loses nothing that it has taken, and goes on when there is room again.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::reload::{Live, send_mqtt, send_tcp, values};
use crate::support::hb::{Hb, PROGRAM, Plant, Running, note, telemetry};

/// Size of the disk: a state and some seconds of telemetry.
const DISK_MB: u32 = 24;

/// How long a daemon that waits for room may take to end: its drain, and what ending takes besides.
const END: Duration = Duration::from_secs(20);

const BEGINS: &str = "the state store failed";
const IS_OVER: &str = "the state store works again";

/// EXT4_IOC_SHUTDOWN, without what waits to be written.
const BREAK_DOWN: &str =
    "open(my $d, '<', $ARGV[0]) or die; my $how = pack('L', 2); ioctl($d, 0x8004587d, $how) or die";

/// A file system of its own, as small as a forgotten partition.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts an empty one in `at`; none where that is not allowed.
    fn mount(image: &Path, at: PathBuf) -> Option<Disk> {
        std::fs::create_dir_all(&at).unwrap();
        let done = |program: &str, args: &[&str]| {
            Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
        };
        let (file, place) = (image.to_str().unwrap(), at.to_str().unwrap());
        File::create(image).unwrap().set_len(u64::from(DISK_MB) << 20).unwrap();
        let loop_works = done("mkfs.ext4", &["-q", "-m", "0", file]) && done("mount", &["-o", "loop", file, place]);
        let size = format!("size={DISK_MB}m");
        // A folder of packs holds packs alone.
        let _ = std::fs::remove_dir(at.join("lost+found"));
        (loop_works || done("mount", &["-t", "tmpfs", "-o", &size, "none", place])).then_some(Disk { at })
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        let block = vec![0x55; 64 << 10];
        for size in [block.len(), 4 << 10, 1] {
            while ballast.write_all(&block[..size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    /// Shuts the file system down as a device does that is gone: from here on whoever reads or writes gets EIO, and what
    /// was not durable is lost. Not every file system can.
    fn break_down(&self) -> bool {
        let shut = Command::new("perl").args(["-e", BREAK_DOWN]).arg(&self.at).status();
        shut.is_ok_and(|status| status.success())
    }

    /// Mounts it again after that.
    fn mend(&self, image: &Path) {
        for command in
            [Command::new("umount").arg(&self.at), Command::new("mount").args(["-o", "loop"]).arg(image).arg(&self.at)]
        {
            assert!(command.status().unwrap().success(), "{command:?}");
        }
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there ends by itself.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// A daemon whose state lies on a small disk.
fn daemon() -> Option<(Live, Disk)> {
    let hb = Hb::new();
    let Some(disk) = Disk::mount(&hb.path("disk.img"), hb.path("state")) else {
        note("skipped: a full disk, since no file system can be mounted here");
        return None;
    };
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&disk.at, std::fs::Permissions::from_mode(0o700)).unwrap();
    Some((Live::start_in(hb, &[]), disk))
}

#[test]
fn a_full_disk_is_outlasted_and_nothing_is_lost_or_doubled() {
    let Some((mut live, disk)) = daemon() else { return };
    let (port, publisher, done) = (live.port, live.broker.publisher("plant/m"), AtomicBool::new(false));
    let (tcp, mqtt) = std::thread::scope(|threads| {
        let tcp = threads.spawn(|| send_tcp(port, "tcp", &done));
        let mqtt = threads.spawn(|| send_mqtt(publisher, &done));
        for _ in 0..2 {
            live.running.wait_for("committed", 3);
            disk.fill();
            live.running.wait_for(BEGINS, 1);
            // Some attempts: the first may be the one that would have worked.
            live.running.wait_for("recovering lane", 3);
            disk.free();
            live.running.wait_for(IS_OVER, 1);
        }
        live.running.wait_for("committed", 3);
        done.store(true, Ordering::Relaxed);
        (tcp.join().unwrap(), mqtt.join().unwrap())
    });
    live.wait_for_samples(tcp + mqtt);
    live.running.end();
    for told in [BEGINS, IS_OVER] {
        let times = live.running.said().iter().filter(|line| line.contains(told)).count();
        assert_eq!(times, 2, "`{told}` once per outage and not per attempt");
    }
    let values = values(&live.hb);
    let whole = |n: u64| (0..n).collect::<Vec<u64>>();
    assert_eq!(values["mqtt"], whole(mqtt), "each message once, in order");
    assert_eq!(values["tcp"], whole(tcp), "each line of the stream once, in order");
    live.hb.done(&["log", "verify", "--key", "state/keys/host.pub"]);
    drop(disk);
}

#[test]
fn a_disk_that_fails_costs_nothing_that_was_acknowledged() {
    let Some((mut live, disk)) = daemon() else { return };
    let (publisher, done) = (live.broker.publisher("plant/m"), AtomicBool::new(false));
    let mqtt = std::thread::scope(|threads| {
        let mqtt = threads.spawn(|| send_mqtt(publisher, &done));
        live.running.wait_for("committed", 3);
        let is_broken = disk.break_down();
        if is_broken {
            live.running.wait_for_line(|line| line.contains(BEGINS) && line.contains("Input/output error"));
            live.running.signal("TERM");
            let code = live.running.ended();
            assert_eq!(code, Some(74), "{:#?}", live.running.said());
            disk.mend(&live.hb.path("disk.img"));
            live.running = Running::start(live.hb.command(&["daemon"]).env("RUST_LOG", "hb::pipeline=debug"));
            live.running.wait_for("committed", 5);
        } else {
            note("skipped: a disk that fails, since the file system here cannot be shut down");
        }
        done.store(true, Ordering::Relaxed);
        mqtt.join().unwrap()
    });
    live.wait_for_samples(mqtt);
    live.running.end();
    assert_eq!(values(&live.hb)["mqtt"], (0..mqtt).collect::<Vec<u64>>(), "each message once, in order");
    live.hb.done(&["log", "verify", "--key", "state/keys/host.pub"]);
    drop(disk);
}

#[test]
fn a_stop_while_the_disk_is_full_says_what_is_not_stored() {
    let Some((mut live, disk)) = daemon() else { return };
    let (port, done) = (live.port, AtomicBool::new(false));
    std::thread::scope(|threads| {
        let sender = threads.spawn(|| send_tcp(port, "tcp", &done));
        live.running.wait_for("committed", 2);
        disk.fill();
        live.running.wait_for(BEGINS, 1);
        // What does not fit any more waits in the sender.
        done.store(true, Ordering::Relaxed);
        sender.join().unwrap();
    });
    let asked = Instant::now();
    live.running.signal("TERM");
    let code = live.running.ended();
    assert!(asked.elapsed() < END, "it took {:?}", asked.elapsed());
    let said = live.running.said().join("\n");
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("asked to by SIGTERM while the state store failed"), "{said}");
    assert!(said.contains("are not stored"), "{said}");
    assert!(said.contains("the disk is full: free space first"), "{said}");
    disk.free();
    live.hb.done(&["log", "verify", "--key", "state/keys/host.pub"]);
}

#[test]
fn a_full_disk_for_evidence_stops_no_judging() {
    let plant = |telemetry: &str| Hb::plant(Plant { evidence: true, ..Plant::default() }, telemetry);
    let fed = telemetry(4, 480);
    let (roomy, tight) = (plant(&fed), plant(&fed));
    roomy.done(&["daemon"]);
    let Some(disk) = Disk::mount(&tight.path("disk.img"), tight.path("evidence_packs")) else {
        note("skipped: a full disk for evidence, since no file system can be mounted here");
        return;
    };
    disk.fill();
    let full = tight.run(&["daemon"]);
    assert_eq!(full.code, 74, "{full:#?}");
    assert!(full.stderr.contains("case") && full.stderr.contains("No space left"), "{full:#?}");
    assert_eq!(tight.decisions(PROGRAM), roomy.decisions(PROGRAM), "the full disk changed decisions");

    disk.free();
    tight.done(&["daemon"]);
    let packs = |hb: &Hb| std::fs::read_dir(hb.path("evidence_packs")).unwrap().count();
    assert!(packs(&roomy) > 0);
    assert_eq!(packs(&tight), packs(&roomy), "what had no room is packed later");
}
