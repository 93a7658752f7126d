//! When a fault becomes an alert: one fault is one alert, from the first window that deserves one to the window that
//! passes.
//!
//! ```text
//! ok --bad window with a severity--> firing --PASS--> resolved --bad window with a severity--> firing
//!                                    firing --check removed--> resolved
//! ```
//!
//! A bad window is one of status DRIFT, FAIL or ERROR. While an alert fires, further bad windows of the same asset and
//! check are the same alert; only a higher severity is worth another word. A window without data says nothing of the
//! fault: it neither resolves an alert nor fires one. That telemetry is gone is a finding of rules, and their DRIFT or
//! FAIL fires as any other.

use hb_log::cbor;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::decision::{Decision, Severity, Status};

/// Resolved alerts that are remembered, for whoever asks what was; those that ended first go first.
pub const RESOLVED_MAX: usize = 1_000;

/// Why an alert is resolved whose check no generation has any more.
pub const CHECK_REMOVED: &str = "check removed";

/// Hex digits of a fingerprint: 64 bits tell the alerts of any plant apart, and fit a line.
const FINGERPRINT_DIGITS: usize = 16;

/// Whether an alert is still true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// The fault is there.
    Firing,
    /// A window passed, or nobody judges any more whether one does.
    Resolved,
}

impl AlertState {
    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertState::Firing => "firing",
            AlertState::Resolved => "resolved",
        }
    }
}

/// One fault of one asset, as it was told last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Schema version of this structure.
    pub v: u8,
    /// What it is about, in 16 hex digits: the same fault has the same fingerprint each time, on any machine.
    pub fingerprint: String,
    /// Tenant.
    pub program: String,
    /// `live` or a run id.
    pub lane: String,
    /// Asset.
    pub asset: String,
    /// Check.
    pub check: String,
    /// Whether it is still true.
    pub state: AlertState,
    /// The highest severity since it fired.
    pub severity: Severity,
    /// Status of the decision that was told last.
    pub status: Status,
    /// Metric that most deserves a look, of the decision that fired it or made it worse; none without findings.
    pub issue: Option<String>,
    /// Why, for a person; empty without findings.
    pub reason: String,
    /// Start of the first window it fired for, ns.
    pub starts_at_ns: i64,
    /// End of the window that passed, or when its check was removed, ns.
    pub ends_at_ns: Option<i64>,
    /// The decision that was told last.
    pub decision: Hash,
    /// The newest case that was opened while it fired.
    pub case: Option<String>,
}

impl Alert {
    /// Version of the structure written now.
    pub const V: u8 = 1;

    /// Name of what it says now: whoever was told it once need not be told again.
    pub fn event_id(&self) -> Hash {
        Hash::of(&cbor::encode(&(&self.fingerprint, self.state, self.severity, self.decision)))
    }

    fn fire(decision: &Decision, hash: Hash, severity: Severity) -> Alert {
        let mut alert = Alert {
            v: Alert::V,
            fingerprint: fingerprint(&decision.program, &decision.lane, &decision.asset, &decision.check),
            program: decision.program.clone(),
            lane: decision.lane.clone(),
            asset: decision.asset.clone(),
            check: decision.check.clone(),
            state: AlertState::Firing,
            severity,
            status: decision.status,
            issue: None,
            reason: String::new(),
            starts_at_ns: decision.start_ns,
            ends_at_ns: None,
            decision: hash,
            case: None,
        };
        alert.tell(decision, hash, severity);
        alert
    }

    fn tell(&mut self, decision: &Decision, hash: Hash, severity: Severity) {
        (self.status, self.severity, self.decision) = (decision.status, severity, hash);
        let worst = decision.findings.first();
        self.issue = worst.map(|f| f.series.metric.clone());
        self.reason = worst.map(|f| f.reason.clone()).unwrap_or_default();
    }
}

/// What an alert is about, by content alone.
pub fn fingerprint(program: &str, lane: &str, asset: &str, check: &str) -> String {
    let mut digits = Hash::of(&cbor::encode(&[program, lane, asset, check])).to_string();
    digits.truncate(FINGERPRINT_DIGITS);
    digits
}

/// What one decision changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The alert as it is now.
    pub alert: Alert,
    /// Whether somebody must be told: it fired, got worse or resolved.
    pub is_told: bool,
    /// Fingerprint of a resolved alert that is forgotten for it.
    pub forgotten: Option<String>,
}

/// The alerts of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertBook {
    // Invariant: sorted by asset and check, each there once; at most RESOLVED_MAX are resolved.
    alerts: Vec<Alert>,
    resolved: usize,
}

impl AlertBook {
    /// A book with these alerts, in any order.
    pub fn restore(mut alerts: Vec<Alert>) -> AlertBook {
        alerts.sort_by(|a, b| place(a).cmp(&place(b)));
        alerts.dedup_by(|a, b| place(a) == place(b));
        let resolved = alerts.iter().filter(|a| a.state == AlertState::Resolved).count();
        AlertBook { alerts, resolved }
    }

    /// All alerts, by asset and check.
    pub fn alerts(&self) -> &[Alert] {
        &self.alerts
    }

    /// Takes the next decision of the lane, and the case that was opened for it.
    pub fn step(&mut self, decision: &Decision, hash: Hash, case: Option<&str>) -> Option<Step> {
        let at = self.alerts.binary_search_by(|a| place(a).cmp(&(&decision.asset, &decision.check)));
        let firing = at.ok().filter(|&i| self.alerts[i].state == AlertState::Firing);
        match (decision.status, firing) {
            (Status::NoData, _) | (Status::Pass, None) => None,
            (Status::Pass, Some(i)) => Some(self.resolve(i, decision, hash)),
            (Status::Drift | Status::Error | Status::Fail, Some(i)) => {
                worsen(&mut self.alerts[i], decision, hash, case)
            }
            (Status::Drift | Status::Error | Status::Fail, None) => {
                let mut alert = Alert::fire(decision, hash, decision.severity?);
                alert.case = case.map(str::to_owned);
                match at {
                    Ok(i) => {
                        self.alerts[i] = alert.clone();
                        self.resolved -= 1;
                    }
                    Err(i) => self.alerts.insert(i, alert.clone()),
                }
                Some(Step { alert, is_told: true, forgotten: None })
            }
        }
    }

    /// Resolves what fires for checks that are not there any more: nothing will ever judge whether the fault is over.
    /// Its last decision stands; `now_ns` is the time of the lane, if it has one.
    pub fn retire(&mut self, has_check: impl Fn(&str) -> bool, now_ns: Option<i64>) -> Vec<Step> {
        let is_gone = |a: &&Alert| a.state == AlertState::Firing && !has_check(&a.check);
        let gone: Vec<(String, String)> =
            self.alerts.iter().filter(is_gone).map(|a| (a.asset.clone(), a.check.clone())).collect();
        let mut steps = Vec::new();
        for (asset, check) in gone {
            let Ok(i) = self.alerts.binary_search_by(|a| place(a).cmp(&(&asset, &check))) else { continue };
            let alert = &mut self.alerts[i];
            alert.reason = CHECK_REMOVED.to_owned();
            let ends_at_ns = now_ns.unwrap_or(alert.starts_at_ns).max(alert.starts_at_ns);
            steps.push(self.end(i, ends_at_ns));
        }
        steps
    }

    fn resolve(&mut self, i: usize, decision: &Decision, hash: Hash) -> Step {
        let alert = &mut self.alerts[i];
        (alert.status, alert.decision) = (Status::Pass, hash);
        self.end(i, decision.end_ns)
    }

    fn end(&mut self, i: usize, ends_at_ns: i64) -> Step {
        let alert = &mut self.alerts[i];
        (alert.state, alert.ends_at_ns) = (AlertState::Resolved, Some(ends_at_ns));
        let alert = alert.clone();
        self.resolved += 1;
        let forgotten = if self.resolved > RESOLVED_MAX { self.forget(&alert.fingerprint) } else { None };
        Step { alert, is_told: true, forgotten }
    }

    /// Forgets the alert that ended first, but not the one that has just ended: it is being told.
    fn forget(&mut self, but: &str) -> Option<String> {
        let resolved = self.alerts.iter().enumerate().filter(|(_, a)| a.state == AlertState::Resolved);
        let others = resolved.filter(|(_, a)| a.fingerprint != but);
        let (i, _) = others.min_by_key(|(_, a)| a.ends_at_ns)?;
        self.resolved -= 1;
        Some(self.alerts.remove(i).fingerprint)
    }
}

/// A further bad window of a firing alert: only a higher severity is worth a word. A case is noted in silence.
fn worsen(alert: &mut Alert, decision: &Decision, hash: Hash, case: Option<&str>) -> Option<Step> {
    let worse = decision.severity.filter(|severity| *severity > alert.severity);
    if worse.is_none() && case.is_none() {
        return None;
    }
    if let Some(severity) = worse {
        alert.tell(decision, hash, severity);
    }
    if let Some(case) = case {
        alert.case = Some(case.to_owned());
    }
    Some(Step { alert: alert.clone(), is_told: worse.is_some(), forgotten: None })
}

fn place(alert: &Alert) -> (&String, &String) {
    (&alert.asset, &alert.check)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decision::{Counts, InputsRef, Mode};

    fn decision(asset: &str, n: i64, status: Status, severity: Option<Severity>) -> Decision {
        Decision {
            v: Decision::V,
            engine: "1".into(),
            program: "p".into(),
            lane: "live".into(),
            asset: asset.into(),
            check: "c".into(),
            start_ns: n * 10,
            end_ns: n * 10 + 10,
            status,
            previous: Status::Pass,
            severity,
            mode: Mode::Nominal,
            baseline: None,
            findings: vec![],
            findings_hash: Hash::ZERO,
            counts: Counts::default(),
            generations: vec![],
            inputs: InputsRef { snapshot: Hash::ZERO, journal: Hash::ZERO, inputs: 0 },
        }
    }

    /// Steps through windows written as letters, and writes what was told: `f` fired or worse, `r` resolved, `n` a
    /// case was noted, `.` nothing.
    fn told(windows: &str) -> String {
        let mut book = AlertBook::default();
        let step = |(n, letter): (usize, char)| {
            let (status, severity) = match letter {
                'P' => (Status::Pass, None),
                'N' => (Status::NoData, Some(Severity::Warn)),
                'D' => (Status::Drift, Some(Severity::Warn)),
                'd' => (Status::Drift, None),
                'E' => (Status::Error, Some(Severity::Warn)),
                'e' => (Status::Error, None),
                'C' => (Status::Fail, Some(Severity::Critical)),
                _ => (Status::Fail, Some(Severity::Fail)),
            };
            let d = decision("a", n as i64, status, severity);
            let case = (letter == 'c').then_some("case-1");
            match book.step(&d, Hash::of(&d.to_bytes()), case) {
                None => '.',
                Some(s) if !s.is_told => 'n',
                Some(s) if s.alert.state == AlertState::Firing => 'f',
                Some(_) => 'r',
            }
        };
        windows.chars().enumerate().map(step).collect()
    }

    #[test]
    fn one_fault_is_one_alert() {
        for (windows, expected) in [
            ("PPP", "..."),
            ("PDDDP", ".f..r"),
            ("DPDP", "frfr"),
            ("DFFDFP", "ff...r"),
            ("DFCFDP", "fff..r"),
            ("NNDNNP", "..f..r"),
            ("EEP", "f.r"),
            ("dePd", "...."),
            ("FdeP", "f..r"),
            ("FcP", "fnr"),
            ("cP", "fr"),
        ] {
            assert_eq!(told(windows), expected, "{windows}");
        }
    }

    #[test]
    fn a_fingerprint_has_no_seams_and_an_event_has_a_name_of_its_own() {
        assert_eq!(fingerprint("p", "live", "a", "c").len(), FINGERPRINT_DIGITS);
        assert_ne!(fingerprint("p", "live", "ab", "c"), fingerprint("p", "live", "a", "bc"));
        let mut book = AlertBook::default();
        let mut ids = Vec::new();
        for (n, status) in [Status::Drift, Status::Pass, Status::Drift, Status::Pass].into_iter().enumerate() {
            let d = decision("a", n as i64, status, Some(Severity::Warn));
            ids.push(book.step(&d, Hash::of(&d.to_bytes()), None).unwrap().alert.event_id());
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 4);
    }

    #[test]
    fn what_nothing_judges_any_more_is_resolved_once() {
        let mut book = AlertBook::default();
        for asset in ["a", "b"] {
            let d = decision(asset, 1, Status::Fail, Some(Severity::Fail));
            book.step(&d, Hash::of(&d.to_bytes()), None).unwrap();
        }
        let passed = decision("b", 2, Status::Pass, None);
        book.step(&passed, Hash::of(&passed.to_bytes()), None).unwrap();
        assert_eq!(book.retire(|check| check == "c", Some(50)), []);
        let steps = book.retire(|_| false, Some(50));
        let [Step { alert, is_told: true, forgotten: None }] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!((alert.asset.as_str(), alert.state, alert.ends_at_ns), ("a", AlertState::Resolved, Some(50)));
        assert_eq!((alert.status, alert.reason.as_str()), (Status::Fail, CHECK_REMOVED));
        assert_eq!(book.retire(|_| false, Some(60)), []);
        // A check that comes back begins anew.
        let d = decision("a", 9, Status::Fail, Some(Severity::Fail));
        let again = book.step(&d, Hash::of(&d.to_bytes()), None).unwrap().alert;
        assert_eq!((again.state, again.starts_at_ns, again.reason.as_str()), (AlertState::Firing, 90, ""));
    }

    #[test]
    fn what_ended_first_is_forgotten_first() {
        let mut book = AlertBook::default();
        for n in 0..=RESOLVED_MAX as i64 {
            let asset = format!("a{n:05}");
            for status in [Status::Fail, Status::Pass] {
                let d = decision(&asset, n, status, Some(Severity::Fail));
                let step = book.step(&d, Hash::of(&d.to_bytes()), None).unwrap();
                let last = status == Status::Pass && n == RESOLVED_MAX as i64;
                assert_eq!(step.forgotten, last.then(|| fingerprint("p", "live", "a00000", "c")));
            }
        }
        assert_eq!(book.alerts().len(), RESOLVED_MAX);
    }

    fn windows() -> impl Strategy<Value = Vec<(u8, Status, Option<Severity>)>> {
        use Status::{Drift, Error, Fail, NoData, Pass};
        let status = prop::sample::select(vec![Pass, NoData, Drift, Error, Fail]);
        let severities = [None, Some(Severity::Warn), Some(Severity::Fail), Some(Severity::Critical)];
        prop::collection::vec((0..3_u8, status, prop::sample::select(severities.to_vec())), 0..200)
    }

    proptest! {
        /// Whatever comes: what is told is one alternation of firing (with rising severity) and resolved per asset,
        /// and a book that was written down and read goes on as if it had not been.
        #[test]
        fn told_alternates_and_survives_a_restart(windows in windows(), restart in 0..200_usize) {
            let mut book = AlertBook::default();
            let mut last: [Option<Severity>; 3] = [None; 3];
            for (n, (asset, status, severity)) in windows.into_iter().enumerate() {
                if n == restart {
                    let rows = book.alerts().iter().rev().map(cbor::encode);
                    let read = rows.map(|bytes| cbor::decode::<Alert>(&bytes).unwrap()).collect();
                    let again = AlertBook::restore(read);
                    prop_assert_eq!(&again, &book);
                    book = again;
                }
                let severity = severity.filter(|_| status != Status::Pass);
                let d = decision(&format!("a{asset}"), n as i64, status, severity);
                let firing = &mut last[usize::from(asset)];
                let bad = matches!(status, Status::Drift | Status::Error | Status::Fail);
                match book.step(&d, Hash::of(&d.to_bytes()), None) {
                    Some(step) if step.alert.state == AlertState::Firing => {
                        prop_assert!(bad && severity > *firing);
                        *firing = severity;
                    }
                    Some(_) => {
                        prop_assert!(status == Status::Pass && firing.is_some());
                        *firing = None;
                    }
                    None => prop_assert!(!bad || severity <= *firing),
                }
                if status == Status::Pass {
                    prop_assert!(firing.is_none());
                }
            }
            let firing = book.alerts().iter().filter(|a| a.state == AlertState::Firing).count();
            prop_assert_eq!(firing, last.iter().flatten().count());
        }
    }
}
