//! What is told of all decisions, however many there are, and those of them that a report speaks of one by one.
//!
//! Status, counts and dates of a report are folded over every decision; only what has no room in lists may be dropped,
//! and that is counted.

use std::collections::{BTreeMap, BTreeSet};

use hb_engine::decision::{Decision, Status};
use hb_engine::series::SeriesDef;
use hb_log::hash::Hash;

use super::{Judged, SampleCounts, WindowCounts};

/// Decisions that are kept at most: at about 1 kB each some 200 MB, and more than anybody reads.
pub(super) const KEPT_MAX: usize = 200_000;

/// All decisions that a report is made of.
#[derive(Clone, Debug)]
pub struct Tally {
    max: usize,
    /// The worst status; none without decisions.
    pub(super) status: Option<Status>,
    pub(super) windows: WindowCounts,
    pub(super) samples: SampleCounts,
    pub(super) engines: BTreeSet<String>,
    pub(super) programs: BTreeSet<String>,
    pub(super) assets: BTreeSet<String>,
    /// Start of the first window and end of the last, ns.
    pub(super) span: Option<(i64, i64)>,
    /// Tag, version and hash of each baseline, and how many decisions were compared with it.
    pub(super) baselines: BTreeMap<(String, u32, Hash), u64>,
    /// First and last window of each check and asset.
    pub(super) ends: BTreeMap<(String, String), Ends>,
    /// Series with a finding that is not PASS.
    pub(super) flagged: BTreeSet<SeriesDef>,
    /// Decisions with such findings, the mildest and oldest first, by the order in which they came.
    kept: BTreeMap<(Status, i64, u64), (String, Decision)>,
    /// Decisions with such findings that are not kept.
    pub(super) dropped: u64,
}

/// The first and the last window of a check on an asset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// End of the first, ns.
    pub(super) first_ns: i64,
    /// The status of the window before the first.
    pub(super) before: Status,
    /// End of the last, ns.
    pub(super) last_ns: i64,
    /// Most series that one window judged.
    pub(super) series: u32,
}

impl Default for Tally {
    fn default() -> Self {
        Tally::keeping(KEPT_MAX)
    }
}

impl Tally {
    /// Keeps at most so many decisions one by one: the worst, and of equally bad ones the newest.
    pub fn keeping(max: usize) -> Tally {
        Tally {
            max,
            status: None,
            windows: WindowCounts::default(),
            samples: SampleCounts::default(),
            engines: BTreeSet::new(),
            programs: BTreeSet::new(),
            assets: BTreeSet::new(),
            span: None,
            baselines: BTreeMap::new(),
            ends: BTreeMap::new(),
            flagged: BTreeSet::new(),
            kept: BTreeMap::new(),
            dropped: 0,
        }
    }

    /// Adds a decision with its id in the log.
    pub fn add(&mut self, id: String, decision: Decision) {
        self.status = self.status.max(Some(decision.status));
        self.windows.add(decision.status);
        self.samples.add(&decision.counts);
        for (names, name) in [
            (&mut self.engines, &decision.engine),
            (&mut self.programs, &decision.program),
            (&mut self.assets, &decision.asset),
        ] {
            if !names.contains(name) {
                names.insert(name.clone());
            }
        }
        let (start, end) = self.span.unwrap_or((decision.start_ns, decision.end_ns));
        self.span = Some((start.min(decision.start_ns), end.max(decision.end_ns)));
        if let Some(b) = &decision.baseline {
            *self.baselines.entry((b.tag.clone(), b.version, b.hash)).or_default() += 1;
        }
        self.ends.entry((decision.check.clone(), decision.asset.clone())).or_insert(Ends::of(&decision)).add(&decision);
        if decision.status == Status::Pass && decision.findings.is_empty() {
            return;
        }
        for finding in decision.findings.iter().filter(|f| f.status != Status::Pass) {
            if !self.flagged.contains(&finding.series) {
                self.flagged.insert(finding.series.clone());
            }
        }
        let nth = self.dropped + self.kept.len() as u64;
        self.kept.insert((decision.status, decision.end_ns, nth), (id, decision));
        if self.kept.len() > self.max {
            self.kept.pop_first();
            self.dropped += 1;
        }
    }

    /// How many windows had which status.
    pub fn windows(&self) -> WindowCounts {
        self.windows
    }

    /// End of the last window, ns; 0 without one.
    pub fn end_ns(&self) -> i64 {
        self.span.map_or(0, |span| span.1)
    }

    /// The baselines that the decisions name.
    pub fn baselines(&self) -> BTreeSet<Hash> {
        self.baselines.keys().map(|b| b.2).collect()
    }

    /// The decisions that are kept, in the order of time.
    pub fn kept(&self) -> Vec<Judged<'_>> {
        let mut kept: Vec<Judged<'_>> = self.kept.values().map(|(id, decision)| Judged { id, decision }).collect();
        kept.sort_by(|a, b| order(a).cmp(&order(b)));
        kept
    }

    /// The windows of a decision's check and asset.
    pub(super) fn ends_of(&self, decision: &Decision) -> Option<&Ends> {
        self.ends.get(&(decision.check.clone(), decision.asset.clone()))
    }
}

impl Ends {
    fn of(d: &Decision) -> Ends {
        Ends { first_ns: d.end_ns, before: d.previous, last_ns: d.end_ns, series: 0 }
    }

    fn add(&mut self, d: &Decision) {
        if d.end_ns < self.first_ns {
            (self.first_ns, self.before) = (d.end_ns, d.previous);
        }
        self.last_ns = self.last_ns.max(d.end_ns);
        self.series = self.series.max(d.counts.series);
    }
}

fn order<'a>(j: &Judged<'a>) -> (i64, i64, &'a str, &'a str, &'a str) {
    (j.decision.start_ns, j.decision.end_ns, &j.decision.asset, &j.decision.check, j.id)
}
