//! The numbers of one source, and what its transport says of itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::json;

use super::metric::{Kind, Scrape};
use super::table::{Id, METRICS};
use crate::clock;

/// What a transport says of itself at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Why nothing comes through it, in words.
    pub fault: Option<String>,
    /// Its counts since it was opened.
    pub counts: Vec<(Id, u64)>,
    /// Frames that it handed out and that nobody has taken yet.
    pub waiting: u64,
}

/// Asks a transport, from any thread and without waiting for it.
pub type Probe = Box<dyn Fn() -> Reading + Send + Sync>;

/// What one batch of a source came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Samples made of them.
    pub samples: u64,
    /// Events made of them.
    pub events: u64,
    /// Frames that meant nothing.
    pub ignored: u64,
    /// Frames and lines that transport or plugins refused.
    pub rejects: u64,
    /// Frames that a plugin failed on.
    pub faults: u64,
    /// Samples that the engine refused.
    pub refused: u64,
    /// Where the source's clock stands, ns.
    pub clock_ns: Option<i64>,
}

/// What is counted of a source.
const TAKEN: [Id; 8] =
    [Id::Frames, Id::FrameBytes, Id::Samples, Id::Events, Id::Ignored, Id::Rejects, Id::Faults, Id::Refused];

impl Taken {
    /// In the order of `TAKEN`.
    fn numbers(&self) -> [u64; TAKEN.len()] {
        let Taken { frames, bytes, samples, events, ignored, rejects, faults, refused, .. } = *self;
        [frames, bytes, samples, events, ignored, rejects, faults, refused]
    }
}

/// One source.
#[derive(Debug)]
pub(super) struct SourceVitals {
    totals: [AtomicU64; TAKEN.len()],
    queued: AtomicU64,
    /// `i64::MIN` before there is one.
    clock_ns: AtomicI64,
    /// It failed, and nothing has come from it since.
    unproven: AtomicBool,
    link: Mutex<Link>,
}

/// How a source stands; it changes seldom.
struct Link {
    state: State,
    since: Instant,
    starts: u64,
    failures: BTreeMap<&'static str, u64>,
    last_error: Option<String>,
    probe: Option<Probe>,
    /// Totals of transports that were closed.
    closed: BTreeMap<Id, u64>,
}

/// States of a source's circuit breaker.
const BREAKER: [&str; 3] = ["closed", "open", "trying"];

/// How a source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Up,
    Down,
    Ended,
}

impl SourceVitals {
    pub(super) fn new() -> Self {
        let link = Link {
            state: State::Starting,
            since: Instant::now(),
            starts: 0,
            failures: BTreeMap::new(),
            last_error: None,
            probe: None,
            closed: BTreeMap::new(),
        };
        SourceVitals {
            totals: std::array::from_fn(|_| AtomicU64::new(0)),
            queued: AtomicU64::new(0),
            clock_ns: AtomicI64::new(i64::MIN),
            unproven: AtomicBool::new(false),
            link: Mutex::new(link),
        }
    }

    pub(super) fn took(&self, taken: &Taken) {
        for (total, n) in self.totals.iter().zip(taken.numbers()) {
            total.fetch_add(n, Relaxed);
        }
        self.queued.fetch_add(taken.frames, Relaxed);
        self.unproven.store(false, Relaxed);
        if let Some(ns) = taken.clock_ns {
            self.clock_ns.store(ns, Relaxed);
        }
    }

    /// Everything that was taken is durable.
    pub(super) fn durable(&self) {
        self.queued.store(0, Relaxed);
    }

    pub(super) fn up(&self, probe: Option<Probe>) {
        let mut link = self.link();
        link.close();
        link.turn(State::Up);
        link.starts += 1;
        link.probe = probe;
    }

    pub(super) fn down(&self, kind: &'static str, why: &str) {
        let mut link = self.link();
        link.close();
        link.turn(State::Down);
        self.unproven.store(true, Relaxed);
        *link.failures.entry(kind).or_default() += 1;
        link.last_error = Some(why.to_owned());
    }

    pub(super) fn ended(&self) {
        let mut link = self.link();
        link.close();
        link.turn(State::Ended);
    }

    /// Why nothing comes from it, and for how many seconds it has stood so.
    pub(super) fn fault(&self) -> Option<(String, u64)> {
        let link = self.link();
        let why = match link.state {
            State::Starting => Some("it has not started yet".to_owned()),
            State::Up => link.probe.as_ref().and_then(|probe| probe().fault),
            State::Down => Some(link.last_error.clone().unwrap_or_default()),
            State::Ended => None,
        };
        why.map(|why| (why, link.since.elapsed().as_secs()))
    }

    /// What was refused, failed on or meant nothing so far, for summaries.
    pub(super) fn losses(&self) -> [u64; 4] {
        [Id::Rejects, Id::Faults, Id::Refused, Id::Ignored].map(|id| self.total(id))
    }

    fn total(&self, id: Id) -> u64 {
        TAKEN.iter().position(|&t| t == id).map_or(0, |at| self.totals[at].load(Relaxed))
    }

    pub(super) fn add(&self, name: &str, scrape: &mut Scrape) {
        for (id, total) in TAKEN.iter().zip(&self.totals) {
            scrape.count(*id, &[name], total.load(Relaxed));
        }
        if let Some(lag_sec) = self.lag_sec() {
            scrape.number(Id::Lag, &[name], lag_sec);
        }
        let link = self.link();
        let reading = link.read();
        scrape.count(Id::QueueDepth, &[name], self.queued.load(Relaxed) + reading.waiting);
        let up = link.state == State::Up && reading.fault.is_none();
        scrape.count(Id::SourceUp, &[name], up.into());
        let breaker = self.breaker(&link, &reading);
        for state in BREAKER {
            scrape.count(Id::SourceBreaker, &[name, state], (state == breaker).into());
        }
        scrape.count(Id::SourceRestarts, &[name], link.starts.saturating_sub(1));
        for (kind, n) in &link.failures {
            scrape.count(Id::SourceFailures, &[name, kind], *n);
        }
        for (id, n) in link.counts(&reading) {
            scrape.count(id, &[name], n);
        }
    }

    pub(super) fn detail(&self) -> serde_json::Value {
        let link = self.link();
        let reading = link.read();
        let by_name = |counts: BTreeMap<Id, u64>| -> serde_json::Map<String, serde_json::Value> {
            counts.into_iter().map(|(id, n)| (id.short().to_owned(), n.into())).collect()
        };
        json!({
            "state": match link.state {
                State::Starting => "starting",
                State::Up if reading.fault.is_some() => "waiting",
                State::Up => "up",
                State::Down => "down",
                State::Ended => "ended",
            },
            "breaker": self.breaker(&link, &reading),
            "since_sec": link.since.elapsed().as_secs(),
            "fault": reading.fault,
            "restarts": link.starts.saturating_sub(1),
            "failures": link.failures,
            "last_error": link.last_error,
            "lag_sec": self.lag_sec(),
            "queue_depth": self.queued.load(Relaxed) + reading.waiting,
            "taken": by_name(TAKEN.iter().map(|&id| (id, self.total(id))).collect()),
            "transport": by_name(link.counts(&reading)),
        })
    }

    /// Whether it is read: `open` while it rests after a failure, `trying` until something comes again.
    fn breaker(&self, link: &Link, reading: &Reading) -> &'static str {
        let [closed, open, trying] = BREAKER;
        match link.state {
            State::Down => open,
            State::Up if reading.fault.is_some() || self.unproven.load(Relaxed) => trying,
            State::Starting | State::Up | State::Ended => closed,
        }
    }

    fn lag_sec(&self) -> Option<f64> {
        let ns = self.clock_ns.load(Relaxed);
        (ns != i64::MIN).then(|| clock::now_ns().saturating_sub(ns) as f64 / 1e9)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        // It is whole after every statement.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn turn(&mut self, state: State) {
        if self.state != state {
            (self.state, self.since) = (state, Instant::now());
        }
    }

    fn read(&self) -> Reading {
        self.probe.as_ref().map(|probe| probe()).unwrap_or_default()
    }

    /// Lets a transport go and keeps what it counted.
    fn close(&mut self) {
        for (id, n) in self.probe.take().map(|probe| probe()).unwrap_or_default().counts {
            if is_total(id) {
                *self.closed.entry(id).or_default() += n;
            }
        }
    }

    /// Totals over all transports the source had.
    fn counts(&self, reading: &Reading) -> BTreeMap<Id, u64> {
        let mut counts = self.closed.clone();
        for &(id, n) in &reading.counts {
            *counts.entry(id).or_default() += n;
        }
        counts
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("state", &self.state).field("last_error", &self.last_error).finish_non_exhaustive()
    }
}

impl Id {
    /// Its name without what all names have.
    fn short(self) -> &'static str {
        let name = METRICS.iter().find(|m| m.id == self).map_or("", |m| m.name);
        let name = name.trim_end_matches("_total").trim_start_matches("hb_");
        name.trim_start_matches("transport_")
    }
}

fn is_total(id: Id) -> bool {
    METRICS.iter().any(|m| m.id == id && m.kind == Kind::Counter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Format;

    fn probe(frames: u64, connections: u64, fault: Option<&str>) -> Probe {
        let counts = vec![(Id::TransportFrames, frames), (Id::TransportConnections, connections)];
        let reading = Reading { fault: fault.map(str::to_owned), counts, waiting: 0 };
        Box::new(move || reading.clone())
    }

    fn text(source: &SourceVitals) -> String {
        let mut scrape = Scrape::default();
        source.add("s", &mut scrape);
        scrape.text(Format::Prometheus)
    }

    #[test]
    fn totals_outlive_transports_and_what_goes_up_and_down_does_not() {
        let source = SourceVitals::new();
        assert_eq!(source.fault().unwrap().0, "it has not started yet");
        source.up(Some(probe(5, 2, None)));
        assert_eq!(source.fault(), None);
        source.down("transport", "gone");
        assert_eq!(source.fault().unwrap().0, "gone");
        let down = text(&source);
        assert!(down.contains("hb_source_up{source=\"s\"} 0\n"), "{down}");
        assert!(down.contains("hb_transport_frames_total{source=\"s\"} 5\n"), "{down}");
        assert!(!down.contains("hb_transport_connections{"), "{down}");
        source.up(Some(probe(3, 1, Some("no broker"))));
        assert_eq!(source.fault().unwrap().0, "no broker");
        let waiting = text(&source);
        for line in [
            "hb_source_up{source=\"s\"} 0",
            "hb_source_restarts_total{source=\"s\"} 1",
            "hb_source_failures_total{source=\"s\",kind=\"transport\"} 1",
            "hb_transport_frames_total{source=\"s\"} 8",
            "hb_transport_connections{source=\"s\"} 1",
        ] {
            assert!(waiting.contains(&format!("{line}\n")), "{line}: {waiting}");
        }
        source.ended();
        assert_eq!(source.fault(), None);
    }

    #[test]
    fn the_breaker_opens_with_a_failure_and_closes_with_what_comes() {
        let source = SourceVitals::new();
        let is = |state: &str| {
            let text = text(&source);
            for each in BREAKER {
                let line = format!("hb_source_breaker{{source=\"s\",state=\"{each}\"}} {}\n", u8::from(each == state));
                assert!(text.contains(&line), "{line}: {text}");
            }
            assert_eq!(source.detail()["breaker"], state);
        };
        source.up(None);
        is("closed");
        source.down("plugin", "it fails");
        is("open");
        source.up(None);
        is("trying");
        source.took(&Taken::default());
        is("closed");
        source.up(Some(probe(0, 0, Some("no broker"))));
        is("trying");
    }

    #[test]
    fn what_was_taken_waits_until_it_is_durable() {
        let source = SourceVitals::new();
        assert!(!text(&source).contains("hb_lag_seconds"));
        let taken = Taken { frames: 7, bytes: 70, samples: 14, refused: 1, clock_ns: Some(0), ..Taken::default() };
        source.took(&taken);
        source.took(&taken);
        let before = text(&source);
        assert!(before.contains("hb_queue_depth{source=\"s\"} 14\n") && before.contains("hb_lag_seconds"), "{before}");
        source.up(Some(Box::new(|| Reading { waiting: 5, ..Reading::default() })));
        let more = text(&source);
        assert!(more.contains("hb_queue_depth{source=\"s\"} 19\n"), "what waits in front counts too: {more}");
        assert_eq!(source.detail()["queue_depth"], 19);
        source.up(None);
        source.durable();
        let after = text(&source);
        for line in [
            "hb_queue_depth{source=\"s\"} 0",
            "hb_frame_bytes_total{source=\"s\"} 140",
            "hb_refused_total{source=\"s\"} 2",
        ] {
            assert!(after.contains(&format!("{line}\n")), "{line}: {after}");
        }
        assert_eq!(source.detail()["taken"]["samples"], 28);
    }
}
