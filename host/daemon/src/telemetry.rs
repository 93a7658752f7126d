//! What a running daemon knows of itself: numbers for metrics, reasons for health, lines for the log.
//!
//! [`Vitals`] is shared by all threads. Whoever works tells it what happened, which costs some atomic additions for
//! each batch and commit; whoever asks reads it without holding up the work. It knows no floor above it: a transport is
//! asked through a [`Probe`].

mod latency;
pub mod log;
mod metric;
mod process;
mod source;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use hb_engine::decision::Status;
use serde::Serialize;
use serde_json::json;

pub use metric::{Format, Kind, Metric};
pub use source::{Probe, Reading, Taken};
pub use table::{Id, METRICS};

use latency::Latency;
use metric::Scrape;
use source::SourceVitals;

use crate::clock;
use crate::diagnostic::neutralise;

/// A loop that has not gone round for this long hangs: it turns ten times a second, and no commit of an honest disk
/// takes as long.
pub const LIVE_MAX: Duration = Duration::from_secs(30);

/// Shortest time between two lines that say what was refused.
const SUMMARY_EVERY: Duration = Duration::from_mins(1);

/// In the order of their numbers.
const STATUSES: [Status; 5] = [Status::Pass, Status::NoData, Status::Drift, Status::Error, Status::Fail];

/// What a daemon is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It opens what it needs.
    Starting,
    /// It rebuilds its engine from the state.
    Recovering,
    /// It reads, judges and records.
    Running,
    /// It makes durable what it took, and ends.
    Stopping,
}

/// Why a daemon is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What is not as it should be, as `source plant` or `disk`.
    pub what: String,
    /// Why.
    pub why: String,
    /// For how long.
    pub since_sec: u64,
}

/// What one commit made durable.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// How long it took.
    pub took: Duration,
    /// Decisions: when the newest frame behind them was received, their status, their number.
    pub decided: Vec<(Instant, Status, u64)>,
    /// Cases opened.
    pub cases: u64,
    /// Frames and samples put aside.
    pub dead: u64,
    /// Entries of the log now.
    pub log_entries: u64,
    /// What became of alerts: `firing`, `resolved`.
    pub alerts: Vec<&'static str>,
    /// Alerts that fire now, when something became of one.
    pub firing: Option<u64>,
}

/// The numbers and reasons of one daemon.
#[derive(Debug)]
pub struct Vitals {
    begin: Instant,
    start_ns: i64,
    phase: AtomicU8,
    /// When the loop went round last, ms since `begin`.
    turned_ms: AtomicU64,
    sources: RwLock<BTreeMap<String, Arc<SourceVitals>>>,
    decisions: [AtomicU64; STATUSES.len()],
    decision_latency: Latency,
    commit_latency: Latency,
    reload_stall: Latency,
    commits: AtomicU64,
    commit_failures: AtomicU64,
    cases: AtomicU64,
    dead_letters: AtomicU64,
    log_entries: AtomicU64,
    shed_samples: AtomicU64,
    seldom: Mutex<Seldom>,
}

/// What changes seldom.
#[derive(Debug, Default)]
struct Seldom {
    /// Files whose bytes on disk are the state's.
    state_files: Vec<PathBuf>,
    /// What holds the daemon up beside its sources, since when.
    held: BTreeMap<&'static str, (String, Instant)>,
    alerts: BTreeMap<&'static str, u64>,
    alerts_firing: u64,
    outbox: BTreeMap<String, u64>,
    /// What became of documents, by sink.
    documents: BTreeMap<String, Documents>,
    reloads: BTreeMap<&'static str, u64>,
    /// Bytes of the log, what it is allowed, and whether nothing of it may go.
    log: (u64, u64, bool),
    /// What was told of refused telemetry, and when.
    told: BTreeMap<String, [u64; 4]>,
    told_at: Option<Instant>,
}

/// What became of the documents of one sink since the process began.
#[derive(Debug, Default)]
struct Documents {
    delivered: u64,
    dead: u64,
    /// As the state counts them: when it was looked at first, and now.
    dropped: (Option<u64>, u64),
}

impl Documents {
    fn outcomes(&self) -> [(&'static str, u64); 3] {
        let (first, now) = self.dropped;
        let dropped = first.map_or(0, |first| now.saturating_sub(first));
        [("delivered", self.delivered), ("dead", self.dead), ("dropped", dropped)]
    }
}

impl Default for Vitals {
    fn default() -> Self {
        Vitals::new()
    }
}

impl Vitals {
    /// Those of a process that starts now.
    pub fn new() -> Self {
        Vitals {
            begin: Instant::now(),
            start_ns: clock::now_ns(),
            phase: AtomicU8::new(Phase::Starting as u8),
            turned_ms: AtomicU64::new(0),
            sources: RwLock::default(),
            decisions: std::array::from_fn(|_| AtomicU64::new(0)),
            decision_latency: Latency::new(),
            commit_latency: Latency::new(),
            reload_stall: Latency::new(),
            commits: AtomicU64::new(0),
            commit_failures: AtomicU64::new(0),
            cases: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            log_entries: AtomicU64::new(0),
            shed_samples: AtomicU64::new(0),
            seldom: Mutex::default(),
        }
    }

    /// What the daemon does from now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.turn();
    }

    /// The loop goes round once more.
    pub fn turn(&self) {
        self.turned_ms.store(self.begin.elapsed().as_millis() as u64, Relaxed);
    }

    /// A source belongs to the daemon and has not started yet.
    pub fn source_known(&self, name: &str) {
        let mut sources = self.sources.write().unwrap_or_else(PoisonError::into_inner);
        sources.entry(name.to_owned()).or_insert_with(|| Arc::new(SourceVitals::new()));
    }

    /// A source is read; `probe` asks its transport.
    pub fn source_up(&self, name: &str, probe: Option<Probe>) {
        self.source(name).up(probe);
    }

    /// A source failed, and is started again after a while. `kind` is a word for who failed.
    pub fn source_down(&self, name: &str, kind: &'static str, why: &str) {
        self.source(name).down(kind, why);
    }

    /// A source has come to its end, as a file does.
    pub fn source_ended(&self, name: &str) {
        self.source(name).ended();
    }

    /// A source belongs to the daemon no more.
    pub fn source_gone(&self, name: &str) {
        self.sources.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// A batch of a source was taken.
    pub fn took(&self, source: &str, taken: &Taken) {
        self.source(source).took(taken);
    }

    /// Everything taken so far is durable.
    pub fn committed(&self, durable: &Durable) {
        let now = Instant::now();
        self.commits.fetch_add(1, Relaxed);
        self.commit_latency.add(durable.took, 1);
        for &(received, status, n) in &durable.decided {
            self.decision_latency.add(now.saturating_duration_since(received), n);
            if let Some(at) = STATUSES.iter().position(|&s| s == status) {
                self.decisions[at].fetch_add(n, Relaxed);
            }
        }
        self.cases.fetch_add(durable.cases, Relaxed);
        self.dead_letters.fetch_add(durable.dead, Relaxed);
        self.log_entries.store(durable.log_entries, Relaxed);
        if let Some(firing) = durable.firing {
            let mut seldom = self.seldom();
            durable.alerts.iter().for_each(|status| *seldom.alerts.entry(status).or_default() += 1);
            seldom.alerts_firing = firing;
        }
        for source in self.sources().values() {
            source.durable();
        }
        self.tell_losses(now);
    }

    /// The store refused a transaction.
    pub fn commit_failed(&self) {
        self.commit_failures.fetch_add(1, Relaxed);
    }

    /// Samples were let go since the state had reached its limit.
    pub fn shed(&self, samples: u64) {
        self.shed_samples.fetch_add(samples, Relaxed);
    }

    /// The daemon is not ready as long as this holds: the disk is full, the log is full.
    pub fn hold(&self, what: &'static str, why: &str) {
        let mut seldom = self.seldom();
        let held = seldom.held.entry(what).or_insert_with(|| (String::new(), Instant::now()));
        why.clone_into(&mut held.0);
    }

    /// This holds the daemon up no longer.
    pub fn release(&self, what: &str) {
        self.seldom().held.remove(what);
    }

    /// This many alerts fire, as a new daemon finds them.
    pub fn firing(&self, firing: u64) {
        self.seldom().alerts_firing = firing;
    }

    /// This many documents wait for a sink, and so many were ever dropped since its queue was full.
    pub fn outbox(&self, sink: &str, waiting: u64, dropped: u64) {
        let mut seldom = self.seldom();
        seldom.outbox.insert(sink.to_owned(), waiting);
        let documents = seldom.documents.entry(sink.to_owned()).or_default();
        documents.dropped = (documents.dropped.0.or(Some(dropped)), dropped);
    }

    /// A sink took so many documents more, and so many more were given up.
    pub fn settled(&self, sink: &str, delivered: u64, dead: u64) {
        let mut seldom = self.seldom();
        let documents = seldom.documents.entry(sink.to_owned()).or_default();
        documents.delivered += delivered;
        documents.dead += dead;
    }

    /// The log needs so many bytes of what it is allowed; `is_full` when it takes nothing more.
    pub fn log(&self, bytes: u64, cap_bytes: u64, is_full: bool) {
        self.seldom().log = (bytes, cap_bytes, is_full);
    }

    /// Somebody asked for another generation, and this came of it: `active`, `refused`, `rolled_back`.
    pub fn reloaded(&self, outcome: &'static str) {
        *self.seldom().reloads.entry(outcome).or_default() += 1;
    }

    /// Another generation took over, and for this long no source was served.
    pub fn swapped(&self, stalled: Duration) {
        self.reload_stall.add(stalled, 1);
    }

    /// Files whose bytes on disk are shown as those of the state.
    pub fn state_files(&self, files: Vec<PathBuf>) {
        self.seldom().state_files = files;
    }

    /// How long ago the loop went round.
    pub fn loop_age(&self) -> Duration {
        self.begin.elapsed().saturating_sub(Duration::from_millis(self.turned_ms.load(Relaxed)))
    }

    /// Whether the process does what it should: a start, a recovery and an end take their time, and the service manager
    /// limits it; a loop turns.
    pub fn is_live(&self) -> bool {
        self.phase() != Phase::Running || self.loop_age() <= LIVE_MAX
    }

    /// Why the daemon is not ready; nothing when it is. Text from outside is harmless here.
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut add = |what: &str, why: &str, since_sec: u64| {
            let (what, why) = (neutralise(what).into_owned(), neutralise(why).into_owned());
            reasons.push(Reason { what, why, since_sec });
        };
        let up_sec = self.begin.elapsed().as_secs();
        match self.phase() {
            Phase::Starting => add("daemon", "it is starting", up_sec),
            Phase::Recovering => add("daemon", "it is recovering its engine from the state", up_sec),
            Phase::Stopping => add("daemon", "it is stopping", self.loop_age().as_secs()),
            Phase::Running if !self.is_live() => add("daemon", "its loop hangs", self.loop_age().as_secs()),
            Phase::Running => {}
        }
        for (what, (why, since)) in &self.seldom().held {
            add(what, why, since.elapsed().as_secs());
        }
        for (name, source) in self.sources().iter() {
            if let Some((why, since_sec)) = source.fault() {
                add(&format!("source {name}"), &why, since_sec);
            }
        }
        reasons
    }

    /// All metrics.
    pub fn metrics(&self, format: Format) -> String {
        self.scrape().text(format)
    }

    /// Everything a person may want to know who looks for what is wrong.
    pub fn detail(&self) -> serde_json::Value {
        let reasons = self.reasons();
        let sources: serde_json::Map<_, _> =
            self.sources().iter().map(|(name, source)| (name.clone(), source.detail())).collect();
        let decisions: serde_json::Map<_, _> =
            STATUSES.iter().zip(&self.decisions).map(|(s, n)| (s.to_string(), n.load(Relaxed).into())).collect();
        let quantiles =
            |latency: &Latency| -> BTreeMap<&'static str, f64> { latency.quantiles().into_iter().collect() };
        let seldom = self.seldom();
        let documents: BTreeMap<&String, BTreeMap<&str, u64>> =
            seldom.documents.iter().map(|(sink, d)| (sink, d.outcomes().into_iter().collect())).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started": clock::rfc3339(self.start_ns),
            "uptime_sec": self.begin.elapsed().as_secs(),
            "phase": self.phase(),
            "live": self.is_live(),
            "loop_age_sec": self.loop_age().as_secs_f64(),
            "ready": reasons.is_empty(),
            "reasons": reasons,
            "sources": sources,
            "decisions": decisions,
            "cases": self.cases.load(Relaxed),
            "decision_latency_sec": quantiles(&self.decision_latency),
            "commits": self.commits.load(Relaxed),
            "commit_failures": self.commit_failures.load(Relaxed),
            "commit_latency_sec": quantiles(&self.commit_latency),
            "log_entries": self.log_entries.load(Relaxed),
            "log": { "bytes": seldom.log.0, "cap_bytes": seldom.log.1, "full": seldom.log.2 },
            "state_bytes": disk_bytes(&seldom.state_files),
            "dead_letters": self.dead_letters.load(Relaxed),
            "shed_samples": self.shed_samples.load(Relaxed),
            "alerts_firing": seldom.alerts_firing,
            "outbox": seldom.outbox,
            "documents": documents,
            "reloads": seldom.reloads,
        })
    }

    fn scrape(&self) -> Scrape {
        let mut scrape = Scrape::default();
        for (name, source) in self.sources().iter() {
            source.add(name, &mut scrape);
        }
        for (status, n) in STATUSES.iter().zip(&self.decisions) {
            scrape.count(Id::Decisions, &[status.as_str()], n.load(Relaxed));
        }
        let latencies = [
            (&self.decision_latency, Id::DecisionLatency, Id::DecisionLatencyQuantile),
            (&self.commit_latency, Id::CommitLatency, Id::CommitLatencyQuantile),
        ];
        for (latency, id, quantile_id) in latencies {
            scrape.add(id, &[], latency.buckets());
            for (quantile, sec) in latency.quantiles() {
                scrape.number(quantile_id, &[quantile], sec);
            }
        }
        let totals = [
            (Id::Cases, &self.cases),
            (Id::Commits, &self.commits),
            (Id::CommitFailures, &self.commit_failures),
            (Id::LogEntries, &self.log_entries),
            (Id::DeadLetters, &self.dead_letters),
            (Id::ShedSamples, &self.shed_samples),
        ];
        for (id, n) in totals {
            scrape.count(id, &[], n.load(Relaxed));
        }
        self.add_seldom(&mut scrape);
        scrape.add(Id::ReloadStall, &[], self.reload_stall.buckets());
        scrape.count(Id::Ready, &[], self.reasons().is_empty().into());
        scrape.number(Id::LoopAge, &[], self.loop_age().as_secs_f64());
        scrape.count(Id::Build, &[env!("CARGO_PKG_VERSION")], 1);
        process::add(&mut scrape, self.start_ns);
        scrape
    }

    fn add_seldom(&self, scrape: &mut Scrape) {
        let seldom = self.seldom();
        scrape.count(Id::StateBytes, &[], disk_bytes(&seldom.state_files));
        // What did not happen yet is 0, so that a rate can be taken of its first time.
        for status in ["firing", "resolved"] {
            scrape.count(Id::Alerts, &[status], seldom.alerts.get(status).copied().unwrap_or(0));
        }
        scrape.count(Id::AlertsFiring, &[], seldom.alerts_firing);
        let (bytes, cap_bytes, is_full) = seldom.log;
        scrape.count(Id::LogBytes, &[], bytes);
        scrape.count(Id::LogCapBytes, &[], cap_bytes);
        scrape.count(Id::LogFull, &[], is_full.into());
        for (sink, waiting) in &seldom.outbox {
            scrape.count(Id::OutboxDepth, &[sink], *waiting);
        }
        for (sink, documents) in &seldom.documents {
            for (outcome, n) in documents.outcomes() {
                scrape.count(Id::Documents, &[sink, outcome], n);
            }
        }
        let usual = ["active", "refused", "rolled_back"];
        let outcomes: BTreeSet<&str> = usual.into_iter().chain(seldom.reloads.keys().copied()).collect();
        for outcome in outcomes {
            scrape.count(Id::Reloads, &[outcome], seldom.reloads.get(outcome).copied().unwrap_or(0));
        }
    }

    /// Says once in a while what was refused, and never for each piece of telemetry.
    fn tell_losses(&self, now: Instant) {
        // Only a daemon that goes on has a reader of its lines; other verbs print what was refused.
        if self.phase() != Phase::Running {
            return;
        }
        let mut seldom = self.seldom();
        if seldom.told_at.is_some_and(|at| now.saturating_duration_since(at) < SUMMARY_EVERY) {
            return;
        }
        let mut is_told = false;
        for (name, source) in self.sources().iter() {
            let losses = source.losses();
            let told = seldom.told.insert(name.clone(), losses).unwrap_or_default();
            let more: Vec<u64> = losses.iter().zip(told).map(|(n, before)| n - before).collect();
            if let [rejects, faults, refused, ignored] = more[..]
                && rejects + faults + refused > 0
            {
                is_told = true;
                tracing::warn!(
                    source = name.as_str(),
                    rejects,
                    faults,
                    refused,
                    ignored,
                    "telemetry was refused; `hb quarantine list` shows why"
                );
            }
        }
        // The first is told at once.
        if is_told {
            seldom.told_at = Some(now);
        }
    }

    fn phase(&self) -> Phase {
        let all = [Phase::Starting, Phase::Recovering, Phase::Running, Phase::Stopping];
        all.into_iter().find(|&p| p as u8 == self.phase.load(Relaxed)).unwrap_or(Phase::Starting)
    }

    fn source(&self, name: &str) -> Arc<SourceVitals> {
        if let Some(source) = self.sources().get(name) {
            return Arc::clone(source);
        }
        self.source_known(name);
        self.sources().get(name).map_or_else(|| Arc::new(SourceVitals::new()), Arc::clone)
    }

    fn sources(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<SourceVitals>>> {
        self.sources.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn seldom(&self) -> MutexGuard<'_, Seldom> {
        // It is whole after every statement.
        self.seldom.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the files take on disk; one that cannot be looked at counts nothing.
fn disk_bytes(files: &[PathBuf]) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    /// Unit of `blocks`, whatever the file system's own block size.
    const BLOCK_BYTES: u64 = 512;
    let blocks = |path: &PathBuf| std::fs::metadata(Path::new(path)).map_or(0, |meta| meta.blocks());
    files.iter().map(blocks).sum::<u64>() * BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_all_reasons_and_neutralises_them() {
        let vitals = Vitals::new();
        vitals.source_known("a");
        let whats = || vitals.reasons().into_iter().map(|r| r.what).collect::<Vec<_>>();
        assert_eq!(whats(), ["daemon", "source a"]);
        vitals.enter(Phase::Running);
        vitals.source_down("a", "transport", "no\u{1b}[2J way");
        vitals.hold("disk", "it is full");
        vitals.hold("disk", "it is still full");
        let reasons = vitals.reasons();
        assert_eq!(reasons[0].why, "it is still full");
        assert_eq!(reasons[1].why, "no\\u{1b}[2J way");
        vitals.release("disk");
        vitals.source_up("a", None);
        assert_eq!(whats(), [""; 0]);
        vitals.source_down("a", "transport", "x");
        vitals.source_gone("a");
        assert_eq!(whats(), [""; 0]);
    }

    #[test]
    fn a_loop_that_hangs_is_not_live_and_a_long_recovery_is() {
        let mut vitals = Vitals::new();
        vitals.begin = Instant::now().checked_sub(LIVE_MAX * 2).unwrap();
        vitals.phase.store(Phase::Recovering as u8, Relaxed);
        assert!(vitals.is_live());
        vitals.phase.store(Phase::Running as u8, Relaxed);
        assert!(!vitals.is_live());
        assert_eq!(vitals.reasons()[0].why, "its loop hangs");
        vitals.turn();
        assert!(vitals.is_live() && vitals.reasons().is_empty());
    }

    #[test]
    fn every_metric_of_the_table_is_shown() {
        let vitals = Vitals::new();
        vitals.outbox("hook", 2, 40);
        vitals.settled("hook", 0, 1);
        vitals.reloaded("active");
        vitals.committed(&Durable { alerts: vec!["firing"], firing: Some(1), ..Durable::default() });
        let counts = METRICS.iter().filter(|m| m.name.starts_with("hb_transport_")).map(|m| (m.id, 1)).collect();
        let reading = Reading { counts, ..Reading::default() };
        vitals.source_down("s", "plugin", "x");
        vitals.source_up("s", Some(Box::new(move || reading.clone())));
        vitals.took("s", &Taken { frames: 1, clock_ns: Some(1), ..Taken::default() });
        vitals.committed(&Durable { decided: vec![(Instant::now(), Status::Fail, 3)], ..Durable::default() });
        let text = vitals.metrics(Format::Prometheus);
        for metric in METRICS {
            assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{} is not shown: {text}", metric.name);
        }
        assert!(text.contains("hb_decisions_total{status=\"FAIL\"} 3\n"), "{text}");
        assert!(text.contains("hb_decision_latency_seconds_count 3\n"), "{text}");
        assert!(vitals.detail()["sources"]["s"]["transport"]["kernel_drops"] == 1);
        // What was dropped before this process is not its own.
        vitals.outbox("hook", 2, 47);
        let documents = serde_json::json!({ "hook": { "delivered": 0, "dead": 1, "dropped": 7 } });
        assert_eq!(vitals.detail()["documents"], documents);
    }
}
