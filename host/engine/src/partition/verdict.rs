//! Judging one closed window: rows from cells and baseline, verdicts from the rules, a decision from the verdicts.

use std::sync::Arc;

use hb_log::hash::{Hash, Hasher};

use crate::ENGINE_VERSION;
use crate::baseline::Baseline;
use crate::decision::{Decision, Finding, InputsRef, Status};
use crate::engine::Effect;
use crate::judge::{
    Ask, BASELINE_FIELDS, BaselineRow, Judge, Presence, Row, RuleUse, Verdict, WINDOW_FIELDS, WindowRow,
};
use crate::series::{SeriesDef, glob};
use crate::spec::CheckSpec;

use super::{Partition, World};

/// Pairs of missing and new series that are compared to find a renamed one; more would cost more than the hint is
/// worth.
const RENAME_PAIRS_MAX: usize = 10_000;

/// Which series a check judges, sorted by definition, with their baselines.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Index into the spec's checks.
    check: usize,
    rows: Vec<PlanRow>,
    /// Whether there is a baseline: without one nothing is new, and what was seen once is expected.
    is_learned: bool,
}

#[derive(Debug)]
struct PlanRow {
    local: usize,
    /// Of the series' definition.
    hash: Hash,
    baseline: BaselineRow,
    has_baseline: bool,
}

/// One series of a window with its numbers.
struct Judged {
    plan: usize,
    presence: Presence,
    window: WindowRow,
}

impl Partition {
    /// Works out again which series each check judges; called when series, generation or baselines change.
    pub(super) fn plan(&mut self, world: &World) {
        let spec = Arc::clone(&self.spec);
        let wanted: Vec<(usize, &CheckSpec)> =
            spec.checks.iter().enumerate().filter(|(_, c)| c.wants_asset(&self.key.asset)).collect();
        // Of all checks before the first plan: a series has its number for every check, whichever expects it.
        for (_, check) in &wanted {
            self.number_expected(check, world);
        }
        let mut plans = Vec::with_capacity(wanted.len());
        for (check, c) in wanted {
            let baseline = self.baseline_of(c, world);
            let mut rows: Vec<PlanRow> = (0..self.series.len())
                .filter(|&i| c.wants(&self.series[i].def.metric))
                .map(|local| {
                    let found = baseline.and_then(|b| b.find(&self.series[local].def));
                    PlanRow {
                        local,
                        hash: self.series[local].def.hash(),
                        baseline: found.map_or([f64::NAN; BASELINE_FIELDS.len()], |s| s.values),
                        has_baseline: found.is_some(),
                    }
                })
                .collect();
            rows.sort_by(|a, b| self.series[a.local].def.cmp(&self.series[b.local].def));
            plans.push(Plan { check, rows, is_learned: baseline.is_some() });
        }
        self.plans = plans;
        let series = self.series.len();
        for state in &mut self.checks {
            let Some(check) = spec.checks.iter().find(|c| c.id == state.id) else { continue };
            for (rule, used) in state.rules.iter_mut().zip(&check.rules) {
                while rule.values.len() < series * rule.slots.len() {
                    rule.values.extend(used.state.iter().map(|s| s.1));
                }
            }
        }
    }

    /// Gives a number to the series that the check's baseline expects of this asset, so that their absence can be judged.
    fn number_expected(&mut self, check: &CheckSpec, world: &World) {
        let Some(baseline) = self.baseline_of(check, world) else { return };
        for expected in &baseline.series {
            if expected.series.asset(&self.spec.asset_label) == self.key.asset
                && check.wants(&expected.series.metric)
                && !self.is_full()
                && self.find_series(&expected.series).is_none()
            {
                self.series.push(super::Series { def: expected.series.clone(), seen: false });
            }
        }
    }

    fn baseline_of<'w>(&self, check: &CheckSpec, world: &'w World) -> Option<&'w Arc<Baseline>> {
        let named = check.baseline.as_ref().and_then(|tag| self.baselines.get(tag))?;
        world.baselines.get(&named.hash)
    }

    /// Judges the windows of all checks on the grid of `step_ns` that end at `end`.
    pub(super) fn judge_windows(
        &mut self,
        step_ns: i64,
        end: i64,
        first_ns: i64,
        judge: &mut dyn Judge,
        out: &mut Vec<Effect>,
    ) {
        let spec = Arc::clone(&self.spec);
        let plans = std::mem::take(&mut self.plans);
        for (state, plan) in plans.iter().enumerate() {
            let check = &spec.checks[plan.check];
            // An asset without any series that the check looks at is none of its business.
            if check.every_ns != step_ns || end.saturating_sub(check.window_ns) < first_ns || plan.rows.is_empty() {
                continue;
            }
            let decision = self.judge_check(check, state, plan, end, judge);
            let bytes = decision.to_bytes();
            let fails = decision.status == Status::Fail && decision.previous != Status::Fail;
            let trace = (fails || self.is_traced).then(|| self.range.trace.inputs());
            let (hash, decision) = (Hash::of(&bytes), Box::new(decision));
            // Whoever feeds the partition knows the number.
            out.push(Effect::Decision { seq: 0, hash, decision, bytes, trace });
        }
        self.plans = plans;
    }

    fn judge_check(
        &mut self,
        check: &CheckSpec,
        state: usize,
        plan: &Plan,
        end: i64,
        judge: &mut dyn Judge,
    ) -> Decision {
        let start = end.saturating_sub(check.window_ns);
        let (judged, samples) = self.gather(check, plan, start, end);
        let renamed = self.find_renamed(plan, &judged);
        let mut digest = Hasher::new();
        let mut findings: Vec<Finding> = Vec::new();
        // Samples that no rule was asked about are as good as none.
        let (mut status, mut is_judged) = (Status::Pass, false);
        for (nth, rule) in check.rules.iter().enumerate() {
            let asked: Vec<usize> = (0..judged.len())
                .filter(|&i| applies(rule, &self.series[plan.rows[judged[i].plan].local].def))
                .collect();
            is_judged |= asked.iter().any(|&i| judged[i].window[0] > 0.0);
            let slots = rule.state.len();
            let rows: Vec<Row<'_>> = asked
                .iter()
                .map(|&i| {
                    let j = &judged[i];
                    let planned = &plan.rows[j.plan];
                    Row {
                        series: &self.series[planned.local].def,
                        presence: j.presence,
                        renamed: renamed[i].map(|other| &self.series[plan.rows[judged[other].plan].local].def),
                        window: j.window,
                        baseline: planned.baseline,
                        state: &self.checks[state].rules[nth].values[planned.local * slots..][..slots],
                    }
                })
                .collect();
            let ask = Ask {
                check: &check.id,
                rule,
                asset: &self.key.asset,
                start_ns: start,
                end_ns: end,
                now_ns: self.now_ns,
                mode: self.mode,
                rows,
            };
            let verdicts = complete(judge.judge(&ask), &ask);
            for ((row, verdict), &i) in ask.rows.iter().zip(&verdicts).zip(&asked) {
                digest_row(&mut digest, &plan.rows[judged[i].plan].hash, row, verdict);
                status = status.max(verdict.status);
                if verdict.status != Status::Pass {
                    findings.push(finding(rule, row, verdict));
                }
            }
            drop(ask);
            for (&i, verdict) in asked.iter().zip(verdicts) {
                let local = plan.rows[judged[i].plan].local;
                self.checks[state].rules[nth].values[local * slots..][..slots].copy_from_slice(&verdict.state);
            }
        }
        if !is_judged {
            status = status.max(Status::NoData);
        }
        rank(&mut findings);
        let mut counts = std::mem::take(&mut self.counts);
        counts.series = judged.len() as u32;
        counts.samples = samples;
        let mut decision = Decision {
            v: Decision::V,
            engine: ENGINE_VERSION.to_owned(),
            program: self.key.program.clone(),
            lane: self.key.lane.clone(),
            asset: self.key.asset.clone(),
            check: check.id.clone(),
            start_ns: start,
            end_ns: end,
            status,
            previous: std::mem::replace(&mut self.checks[state].status, status),
            severity: None,
            mode: self.mode,
            baseline: check.baseline.as_ref().and_then(|t| self.baselines.get(t)).cloned(),
            findings,
            findings_hash: digest.finalize(),
            counts,
            generations: self.range.generations.clone(),
            inputs: InputsRef {
                snapshot: self.range.snapshot,
                journal: self.range.hasher.so_far(),
                inputs: self.range.inputs,
            },
        };
        if status != Status::Pass {
            decision.severity = judge.severity(&decision);
        }
        decision
    }

    /// The rows of one window and the number of samples in it.
    fn gather(&self, check: &CheckSpec, plan: &Plan, start: i64, end: i64) -> (Vec<Judged>, u64) {
        let grid = self.grids.iter().find(|w| w.grid.step_ns() == check.every_ns);
        let mut samples = 0;
        let mut judged = Vec::with_capacity(plan.rows.len());
        let mut keys = Vec::new();
        for (i, row) in plan.rows.iter().enumerate() {
            let Some(windows) = grid else { break };
            let window = windows.grid.row(row.local, start, end, &mut keys);
            samples += window[0] as u64;
            let enough = window[0] >= f64::from(check.min_samples);
            let is_expected = row.has_baseline || (!plan.is_learned && self.series[row.local].seen);
            let presence = match (window[0] > 0.0, is_expected) {
                (true, true) if enough => Presence::Present,
                (true, true) => Presence::Sparse,
                (true, false) if enough => Presence::New,
                (false, true) if self.series[row.local].seen => Presence::Silent,
                (false, true) => Presence::Missing,
                // Not expected, and too little of it to speak of.
                (_, false) => continue,
            };
            judged.push(Judged { plan: i, presence, window });
        }
        (judged, samples)
    }

    /// For each judged row the index of its other name: a series that is gone and a new one of the same unit, or of none
    /// that is known, whose level lies where the baseline of the gone one expects it.
    fn find_renamed(&self, plan: &Plan, judged: &[Judged]) -> Vec<Option<usize>> {
        let mut pairs = vec![None; judged.len()];
        let of = |p: Presence| (0..judged.len()).filter(move |&i| judged[i].presence == p);
        let gone: Vec<usize> = of(Presence::Missing).chain(of(Presence::Silent)).collect();
        let new: Vec<usize> = of(Presence::New).collect();
        if gone.len() * new.len() > RENAME_PAIRS_MAX {
            return pairs;
        }
        let def = |i: usize| &self.series[plan.rows[judged[i].plan].local].def;
        for &g in &gone {
            let b = &plan.rows[judged[g].plan].baseline;
            let (median, p01, p99) = (b[5], b[7], b[10]);
            let reach = (p99 - p01).max(f64::EPSILON * median.abs());
            let distance = |n: usize| (judged[n].window[5] - median).abs();
            let best = new
                .iter()
                .copied()
                .filter(|&n| pairs[n].is_none() && def(n).labels == def(g).labels)
                .filter(|&n| def(n).unit.is_empty() || def(n).unit == def(g).unit)
                .filter(|&n| distance(n) <= reach)
                .min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
            if let Some(n) = best {
                pairs[g] = Some(n);
                pairs[n] = Some(g);
            }
        }
        pairs
    }
}

fn applies(rule: &RuleUse, def: &SeriesDef) -> bool {
    rule.applies_to.iter().any(|p| glob(p, &def.metric))
}

/// Makes sure that there is one verdict per row with a whole state: a judge that answers too little is an ERROR.
fn complete(mut verdicts: Vec<Verdict>, ask: &Ask<'_>) -> Vec<Verdict> {
    verdicts.truncate(ask.rows.len());
    for (verdict, row) in verdicts.iter_mut().zip(&ask.rows) {
        if verdict.state.len() != row.state.len() {
            verdict.status = Status::Error;
            verdict.reason = format!("rule {} returned {} state values", ask.rule.rule, verdict.state.len());
            verdict.state = row.state.to_vec();
        }
    }
    for row in &ask.rows[verdicts.len()..] {
        verdicts.push(Verdict {
            status: Status::Error,
            value: f64::NAN,
            limit: f64::NAN,
            reason: format!("rule {} gave no verdict", ask.rule.rule),
            state: row.state.to_vec(),
        });
    }
    verdicts
}

fn digest_row(digest: &mut Hasher, series: &Hash, row: &Row<'_>, verdict: &Verdict) {
    digest.update(series.as_bytes());
    digest.update(&[row.presence.code(), verdict.status as u8]);
    let mut numbers = [0_u8; 8 * (WINDOW_FIELDS.len() + BASELINE_FIELDS.len() + 2)];
    let all = row.window.iter().chain(&row.baseline).chain([&verdict.value, &verdict.limit]);
    for (place, number) in numbers.as_chunks_mut::<8>().0.iter_mut().zip(all) {
        // One NaN, whatever its payload.
        let number = if number.is_nan() { f64::NAN } else { *number };
        *place = number.to_bits().to_le_bytes();
    }
    digest.update(&numbers);
}

fn finding(rule: &RuleUse, row: &Row<'_>, verdict: &Verdict) -> Finding {
    let number = |v: f64| v.is_finite().then_some(v);
    let (value, limit) = (number(verdict.value), number(verdict.limit));
    Finding {
        series: row.series.clone(),
        rule: rule.rule.clone(),
        status: verdict.status,
        value,
        limit,
        margin: value.zip(limit).map(|(v, l)| v.abs() - l),
        contribution: 0.0,
        observed: number(row.window[1]),
        expected: number(row.baseline[5]),
        reason: verdict.reason.clone(),
    }
}

/// Sets contributions and puts the worst finding first.
fn rank(findings: &mut [Finding]) {
    // A finding without numbers weighs as much as one exactly at its limit.
    let weight = |f: &Finding| match (f.value, f.limit) {
        (Some(v), Some(l)) if l != 0.0 => v.abs() / l.abs(),
        _ => 1.0,
    };
    let total: f64 = findings.iter().map(weight).sum();
    for f in findings.iter_mut() {
        f.contribution = if total > 0.0 { weight(f) / total } else { 0.0 };
    }
    findings.sort_by(|a, b| {
        b.status.cmp(&a.status).then(b.contribution.total_cmp(&a.contribution)).then(a.series.cmp(&b.series))
    });
}
