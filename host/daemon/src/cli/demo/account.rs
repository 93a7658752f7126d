//! The account: each fault with what found it and how late, what was found without a fault, and whether each sample is
//! there once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hb_engine::decision::{Decision, Finding, Status};
use hb_engine::series::SeriesDef;
use hb_log::cbor;
use serde_json::Value;

use super::player::Player;
use super::stage::Stage;
use crate::cli::Failure;
use crate::clock;
use crate::pipeline::journal::{self, Row};
use crate::pipeline::record::LIVE;
use crate::plant::{Fault, Kind, Metric};
use crate::state::{DecisionFilter, Options, Reader, State};

/// Name of the program in `examples/plant/hb.yaml`.
const PROGRAM: &str = "plant";

/// Label that names the machine, and the metric that counts its reports.
const MACHINE: &str = "machine";
const SEQUENCE: &str = "sequence";

/// False alarms shown; more say nothing more.
const SHOWN: usize = 20;

/// Samples of one report: what is measured, and its number.
const SAMPLES: u64 = Metric::ALL.len() as u64 + 1;

pub(super) struct Account {
    faults: Vec<Found>,
    /// Findings on machines that are well: machine, check, metric.
    false_alarms: BTreeSet<(String, String, String)>,
    fails: u64,
    errors: u64,
    decisions: u64,
    samples: Samples,
    is_quiet: bool,
}

/// What became of one fault.
struct Found {
    fault: Fault,
    /// The first decision that saw it.
    first: Option<First>,
    /// Whether its alert came to the sink, and how bad it became.
    alert: Option<String>,
    case: Option<String>,
}

struct First {
    check: String,
    rule: String,
    late_ns: i64,
}

#[derive(Default)]
struct Samples {
    sent: u64,
    stored: u64,
    lost: u64,
    doubled: u64,
}

impl Account {
    /// Reads the state that the daemon has left.
    pub(super) fn draw(stage: &Stage, player: &Player, is_quiet: bool) -> Result<Account, Failure> {
        let state = State::open(&stage.path("state"), Options::default())?;
        let reader = state.reader()?;
        let faults = player.faults().iter();
        let mut account = Account {
            faults: faults.map(|f| Found { fault: f.clone(), first: None, alert: None, case: None }).collect(),
            false_alarms: BTreeSet::new(),
            fails: 0,
            errors: 0,
            decisions: 0,
            samples: samples(&reader, player)?,
            is_quiet,
        };
        for row in reader.decisions(PROGRAM, LIVE, DecisionFilter::default())? {
            let row = row?;
            let decision: Decision = cbor::decode(&row.bytes).map_err(|e| Failure::data(e.to_string()))?;
            account.take(&decision, &format!("case-{}", row.id.short()), player.start_ns());
        }
        let alerts = stage.alerts();
        for found in &mut account.faults {
            found.alert = worst(&alerts, &found.fault.machine, found.first.as_ref().map(|f| f.check.as_str()));
        }
        Ok(account)
    }

    /// Whether each line is as it should be.
    pub(super) fn is_right(&self) -> bool {
        let all_found = self.faults.iter().all(Found::is_right);
        let is_quiet = !self.is_quiet || self.fails == 0;
        let whole = self.samples.lost == 0 && self.samples.doubled == 0 && self.samples.stored == self.samples.sent;
        all_found && is_quiet && whole && self.false_alarms.is_empty() && self.errors == 0
    }

    /// A case to prove.
    pub(super) fn case(&self) -> Option<&str> {
        self.faults.iter().find_map(|found| found.case.as_deref())
    }

    /// The account for a person.
    pub(super) fn table(&self, player: &Player, wrong: &[String], took: Duration) -> String {
        let mut text = String::from("\nAccount\n\n");
        if !self.faults.is_empty() {
            let head = ["fault", "machine", "since", "found by", "late", "alert", "case", ""];
            let rows = self.faults.iter().map(|found| found.row(player.start_ns()));
            text.push_str(&aligned(std::iter::once(head.map(str::to_owned)).chain(rows)));
            text.push('\n');
        }
        let mark = |is_right: bool| if is_right { "ok" } else { "WRONG" };
        let Samples { sent, stored, lost, doubled } = self.samples;
        text.push_str(&format!(
            "false alarms     {}  {}\n",
            self.false_alarms.len(),
            mark(self.false_alarms.is_empty())
        ));
        for (machine, check, metric) in self.false_alarms.iter().take(SHOWN) {
            text.push_str(&format!("                 {machine} {check} {metric}\n"));
        }
        if self.is_quiet {
            text.push_str(&format!("decisions FAIL   {}  {}\n", self.fails, mark(self.fails == 0)));
        }
        text.push_str(&format!("samples lost     {lost}  {}\n", mark(lost == 0)));
        text.push_str(&format!("samples doubled  {doubled}  {}\n", mark(doubled == 0)));
        text.push_str(&format!("samples stored   {stored} of {sent}  {}\n", mark(stored == sent)));
        text.push_str(&format!(
            "decisions        {}, {} without an answer  {}\n",
            self.decisions,
            self.errors,
            mark(self.errors == 0)
        ));
        for what in wrong {
            text.push_str(&format!("WRONG            {what}\n"));
        }
        let all = self.is_right() && wrong.is_empty();
        text.push_str(&format!(
            "\n{} in {:.0} s\n",
            if all { "All is right" } else { "Something is WRONG" },
            took.as_secs_f64()
        ));
        text
    }

    fn take(&mut self, decision: &Decision, case: &str, start_ns: i64) {
        self.decisions += 1;
        self.fails += u64::from(decision.status == Status::Fail);
        self.errors += u64::from(decision.status == Status::Error);
        for finding in decision.findings.iter().filter(|f| matches!(f.status, Status::Drift | Status::Fail)) {
            let of_machine = |found: &&mut Found| found.explains(decision, finding, start_ns);
            let Some(found) = self.faults.iter_mut().find(of_machine) else {
                let what = (decision.asset.clone(), decision.check.clone(), finding.series.metric.clone());
                self.false_alarms.insert(what);
                continue;
            };
            let late_ns = decision.end_ns - start_ns - found.fault.from_ns;
            found.first.get_or_insert_with(|| First {
                check: decision.check.clone(),
                rule: finding.rule.clone(),
                late_ns,
            });
            // A case is opened when a check begins to fail.
            if decision.status == Status::Fail && decision.previous != Status::Fail && finding.status == Status::Fail {
                found.case.get_or_insert_with(|| case.to_owned());
            }
        }
    }
}

impl Found {
    fn is_right(&self) -> bool {
        self.first.is_some() && self.alert.is_some() && self.case.is_some()
    }

    /// Whether the fault is the reason of a finding.
    fn explains(&self, decision: &Decision, finding: &Finding, start_ns: i64) -> bool {
        if decision.asset != self.fault.machine || decision.end_ns <= start_ns + self.fault.from_ns {
            return false;
        }
        let metric = finding.series.metric.as_str();
        match self.fault.kind {
            Kind::Drift => metric == Metric::MotorTemperature.name(),
            Kind::Spike => metric == Metric::Vibration.name(),
            Kind::Stuck => metric == Metric::Speed.name(),
            Kind::Latency => metric == Metric::ResponseTime.name(),
            Kind::Rename => metric.eq_ignore_ascii_case("vibration_rms") || metric == Metric::Vibration.name(),
            Kind::Silent => true,
        }
    }

    fn row(&self, start_ns: i64) -> [String; 8] {
        let dash = || "-".to_owned();
        let since = clock::rfc3339(start_ns + self.fault.from_ns).replace(":00Z", "Z").replace('T', " ");
        let by = self.first.as_ref().map_or_else(dash, |f| format!("{} ({})", f.rule, f.check));
        let late = self.first.as_ref().map_or_else(dash, |f| span(f.late_ns));
        [
            self.fault.kind.name().to_owned(),
            self.fault.machine.clone(),
            since,
            by,
            late,
            self.alert.clone().unwrap_or_else(dash),
            self.case.clone().unwrap_or_else(dash),
            if self.is_right() { "ok" } else { "WRONG" }.to_owned(),
        ]
    }
}

/// The worst severity of the alerts that came for a machine and a check.
fn worst(alerts: &[Value], machine: &str, check: Option<&str>) -> Option<String> {
    let of_it = alerts.iter().filter(|a| a["asset"] == machine && a["check"].as_str() == check);
    let rank = |severity: &str| ["WARN", "FAIL", "CRITICAL"].iter().position(|s| *s == severity);
    of_it.filter_map(|a| a["severity"].as_str()).max_by_key(|severity| rank(severity)).map(str::to_owned)
}

/// Compares what is stored with what was sent, series by series and time by time.
fn samples(reader: &Reader, player: &Player) -> Result<Samples, Failure> {
    let mut machines: BTreeMap<u32, (String, bool)> = BTreeMap::new();
    for (id, bytes) in reader.series(PROGRAM)? {
        let def: SeriesDef = cbor::decode(&bytes).map_err(|e| Failure::data(e.to_string()))?;
        let machine = def.labels.get(MACHINE).cloned().unwrap_or_default();
        machines.insert(id, (machine, def.metric == SEQUENCE));
    }
    let mut stored = 0;
    let mut times: BTreeSet<(u32, i64)> = BTreeSet::new();
    let mut numbers: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for row in reader.journal(PROGRAM, LIVE, 0)? {
        let Some(Row::Samples(columns)) = journal::decode(&row?.bytes) else { continue };
        for (i, series) in columns.series.iter().enumerate() {
            stored += 1;
            times.insert((*series, columns.time_ns[i]));
            if let Some((machine, true)) = machines.get(series) {
                numbers.entry(machine).or_default().insert(columns.value[i] as u64);
            }
        }
    }
    let missing = |(machine, count): (&String, &u64)| {
        let there = numbers.get(machine.as_str()).map_or(0, |n| n.range(..count).count() as u64);
        (count - there) * SAMPLES
    };
    let sent = player.reports() * SAMPLES;
    let lost: u64 = player.sent().iter().map(missing).sum();
    Ok(Samples { sent, stored, lost, doubled: stored - times.len() as u64 })
}

fn span(ns: i64) -> String {
    let minutes = ns / hb_engine::NS_PER_SEC / 60;
    format!("{} h {:02} min", minutes / 60, minutes % 60)
}

fn aligned<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.collect();
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An account in which all is right.
    fn right() -> Account {
        let fault: Fault = "stuck:press-03:1h".parse().unwrap();
        let first = First { check: "shock".into(), rule: "drift.stuck".into(), late_ns: 600_000_000_000 };
        Account {
            faults: vec![Found { fault, first: Some(first), alert: Some("FAIL".into()), case: Some("case-1".into()) }],
            false_alarms: BTreeSet::new(),
            fails: 1,
            errors: 0,
            decisions: 100,
            samples: Samples { sent: 700, stored: 700, lost: 0, doubled: 0 },
            is_quiet: false,
        }
    }

    #[test]
    fn each_line_can_be_wrong_alone() {
        assert!(right().is_right());
        let spoil: [fn(&mut Account); 8] = [
            |a| a.faults[0].first = None,
            |a| a.faults[0].alert = None,
            |a| a.faults[0].case = None,
            |a| a.errors = 1,
            |a| a.samples.lost = 7,
            |a| a.samples.doubled = 1,
            |a| a.is_quiet = true,
            |a| a.false_alarms = BTreeSet::from([("m".into(), "c".into(), "x".into())]),
        ];
        for (nth, spoil) in spoil.iter().enumerate() {
            let mut account = right();
            spoil(&mut account);
            assert!(!account.is_right(), "{nth}");
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "bc", ""], ["def", "g", "ok"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(rows.into_iter()), "a    bc\ndef  g   ok\n");
    }
}
