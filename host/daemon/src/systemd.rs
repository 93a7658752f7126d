//! Tells the service manager how this process stands, by systemd's protocol. Where none asked to be told, nothing happens.
//!
//! The watchdog's pulse is a turn of the pipeline's loop and nothing else. No thread and no timer sends one, so a
//! pipeline that hangs, whatever the rest of the process does, misses it and is started again.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// What a start may take at least, whatever lies in the state.
const RECOVERY_BASE: Duration = Duration::from_mins(1);

/// Bytes of a state that are recovered in a second at least: each page is read once where the machine went down under
/// it, and a worn memory card reads no faster.
const RECOVERY_BYTES_PER_SEC: u64 = 4 << 20;

/// Longest status line in bytes; systemd shows one line and takes 4 KiB for all of a message.
const STATUS_BYTES_MAX: usize = 1_024;

/// The line to the service manager.
#[derive(Debug, Default)]
pub struct Systemd {
    socket: Option<UnixDatagram>,
    /// How long the service manager waits for a pulse; none when it does not wait.
    watchdog: Option<Duration>,
    pulse: Option<Instant>,
    ready: bool,
}

impl Systemd {
    /// The line that the service manager of this process listens on, if there is one.
    pub fn of_process() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").map(connect).transpose();
        let socket = socket.unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager cannot be told how hb stands");
            None
        });
        Systemd { socket, watchdog: sd_notify::watchdog_enabled(), ..Systemd::default() }
    }

    /// Says that a state of so many bytes is recovered now, and asks for the time that may take.
    pub fn recovering(&self, state_bytes: u64) {
        let time = RECOVERY_BASE + Duration::from_secs(state_bytes / RECOVERY_BYTES_PER_SEC);
        let time_us = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::ExtendTimeoutUsec(time_us), NotifyState::Status("recovering the state")]);
    }

    /// Says that the pipeline's loop has really gone round: the first time that it is ready, later that it lives.
    pub fn turn(&mut self, now: Instant) {
        if !self.ready {
            self.ready();
        }
        let Some(watchdog) = self.watchdog else { return };
        // Twice as often as it is waited for, as systemd advises.
        if self.pulse.is_none_or(|last| now.saturating_duration_since(last) >= watchdog / 2) {
            self.pulse = Some(now);
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    /// Says that it is up, after a start or a reload.
    pub fn ready(&mut self) {
        self.ready = true;
        self.tell(&[NotifyState::Ready]);
    }

    /// Says in one line what it does.
    pub fn status(&self, text: &str) {
        let line = text.lines().next().unwrap_or_default();
        self.tell(&[NotifyState::Status(&line[..line.floor_char_boundary(STATUS_BYTES_MAX)])]);
    }

    /// Says that the configuration is read again; [`Systemd::ready`] ends that, however it went.
    pub fn reloading(&self) {
        // The time tells this reload from an earlier one.
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.tell(&[NotifyState::Reloading, now]);
        }
    }

    /// Says that it ends: from here on no pulse is expected.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let mut message = String::new();
        for state in states {
            // Writing to a String cannot fail.
            let _ = writeln!(message, "{state}");
        }
        // A service manager that does not listen now stops no pipeline; a pulse comes again with a later turn.
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

/// A path, or behind an `@` a name that lies in no file system.
fn connect(place: OsString) -> io::Result<UnixDatagram> {
    let address = match place.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&place)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service manager's end of the line.
    struct Manager {
        socket: UnixDatagram,
        _dir: tempfile::TempDir,
    }

    fn line(watchdog: Option<Duration>) -> (Manager, Systemd) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let systemd = Systemd { socket: Some(connect(path.into()).unwrap()), watchdog, ..Systemd::default() };
        (Manager { socket, _dir: dir }, systemd)
    }

    impl Manager {
        /// What came since it was asked last.
        fn heard(&self) -> Vec<String> {
            let mut buffer = [0; 4_096];
            let one = || self.socket.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned());
            std::iter::from_fn(one).collect()
        }
    }

    #[test]
    fn turns_are_the_pulse_at_half_the_interval() {
        let (manager, mut systemd) = line(Some(Duration::from_secs(4)));
        let begin = Instant::now();
        let mut beat = |ms: u64| {
            systemd.turn(begin + Duration::from_millis(ms));
            manager.heard().concat()
        };
        assert_eq!(beat(0), "READY=1\nWATCHDOG=1\n");
        for (ms, heard) in
            [(1_999, ""), (2_000, "WATCHDOG=1\n"), (2_001, ""), (9_000, "WATCHDOG=1\n"), (10_999, ""), (1, "")]
        {
            assert_eq!(beat(ms), heard, "{ms} ms");
        }
    }

    #[test]
    fn without_a_watchdog_there_is_no_pulse() {
        let (manager, mut systemd) = line(None);
        let begin = Instant::now();
        (0..100).for_each(|s| systemd.turn(begin + Duration::from_secs(s)));
        assert_eq!(manager.heard(), ["READY=1\n"]);
    }

    #[test]
    fn a_life_is_told_in_the_words_of_systemd() {
        let (manager, mut systemd) = line(None);
        systemd.recovering(1 << 30);
        systemd.ready();
        systemd.status("one\ntwo");
        systemd.status(&"ä".repeat(STATUS_BYTES_MAX));
        systemd.reloading();
        systemd.stopping();
        let heard = manager.heard();
        assert_eq!(heard[0], "EXTEND_TIMEOUT_USEC=316000000\nSTATUS=recovering the state\n");
        assert_eq!(heard[1..3], ["READY=1\n", "STATUS=one\n"]);
        assert_eq!(heard[3].len(), "STATUS=\n".len() + STATUS_BYTES_MAX);
        let time = heard[4].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(time.trim_end().parse::<u64>().unwrap() > 0, "{time}");
        assert_eq!(heard[5], "STOPPING=1\nSTATUS=stopping\n");
    }

    #[test]
    fn a_manager_that_does_not_listen_stops_nobody() {
        let (manager, mut systemd) = line(Some(Duration::ZERO));
        let begin = Instant::now();
        // More than its queue holds.
        (0..1_000).for_each(|ms| systemd.turn(begin + Duration::from_millis(ms)));
        assert!(manager.heard().len() < 1_000);
        systemd.turn(begin + Duration::from_secs(2));
        assert_eq!(manager.heard(), ["WATCHDOG=1\n"]);
        drop(manager);
        systemd.turn(begin + Duration::from_secs(3));
    }

    #[test]
    fn names_in_no_file_system_are_connected_to() {
        let name = format!("hb-systemd-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        connect(format!("@{name}").into()).unwrap().send(b"READY=1\n").unwrap();
        assert_eq!(manager.recv(&mut [0; 64]).unwrap(), 8);
        assert!(connect("/nowhere/notify".into()).is_err());
    }
}
