//! The engine's contract, through its public doors: the same journal gives the same bytes, bad time is data, and a
//! recovered engine goes on as if it had never stopped.

#![allow(clippy::unwrap_used, reason = "a test that unwraps too much fails, as it should")]

use std::collections::BTreeMap;
use std::sync::Arc;

use hb_engine::NS_PER_SEC;
use hb_engine::baseline::{Baseline, Builder};
use hb_engine::decision::{Decision, Severity, Status};
use hb_engine::engine::{Effect, Engine, Input, Refusal, Samples};
use hb_engine::judge::{Ask, Judge, Presence, RuleUse, Verdict};
use hb_engine::partition::{Partition, World};
use hb_engine::series::{SeriesDef, SeriesKind};
use hb_engine::spec::{Caps, CheckSpec, EngineSpec, LatePolicy};
use hb_log::hash::Hash;
use proptest::prelude::*;

mod reload;
mod series;

const SEC: i64 = NS_PER_SEC;

/// DRIFT when the mean is more than 3 raw MADs off, FAIL in the second such window in a row; absence is DRIFT.
struct Simple;

impl Judge for Simple {
    fn judge(&mut self, ask: &Ask<'_>) -> Vec<Verdict> {
        ask.rows
            .iter()
            .map(|row| {
                let z = (row.window[1] - row.baseline[5]) / row.baseline[6].max(1e-9);
                // Without a baseline there is no z.
                let off = row.presence != Presence::Present || z.is_nan() || z.abs() > 3.0;
                let streak = if off { row.state[0] + 1.0 } else { 0.0 };
                let status = match streak {
                    0.0 => Status::Pass,
                    1.0 => Status::Drift,
                    _ => Status::Fail,
                };
                let reason = match (row.presence, row.renamed) {
                    (p, Some(other)) => format!("{p:?} renamed {other}"),
                    (p, None) => format!("{p:?}"),
                };
                Verdict { status, value: z, limit: 3.0, reason, state: vec![streak] }
            })
            .collect()
    }

    fn severity(&mut self, decision: &Decision) -> Option<Severity> {
        (decision.status == Status::Fail).then_some(Severity::Fail)
    }
}

fn def(metric: &str, asset: &str) -> SeriesDef {
    SeriesDef::new(metric, "V", SeriesKind::Gauge, [("asset".to_owned(), asset.to_owned())]).unwrap()
}

fn spec() -> EngineSpec {
    let rule = RuleUse {
        rule: "simple".into(),
        version: "1".into(),
        source: Hash::of(b"simple"),
        applies_to: vec!["*".into()],
        params: BTreeMap::new(),
        state: vec![("streak".into(), 0.0)],
    };
    let check = |id: &str, window: i64, every: i64| CheckSpec {
        id: id.into(),
        window_ns: window * SEC,
        every_ns: every * SEC,
        baseline: Some("golden".into()),
        metrics: vec!["*".into()],
        except: vec![],
        assets: vec!["*".into()],
        min_samples: 1,
        rules: vec![rule.clone()],
    };
    EngineSpec { checks: vec![check("fast", 20, 10), check("slow", 60, 20)], ..EngineSpec::default() }
}

fn golden(assets: &[&str]) -> Arc<Baseline> {
    let mut b = Builder::new();
    for asset in assets {
        for t in 0..600 {
            b.push(&def("volt", asset), t * SEC, (t % 7) as f64);
            b.push(&def("amp", asset), t * SEC, 10.0 + (t % 5) as f64);
        }
    }
    Arc::new(b.build(vec!["clean".into()]))
}

fn engine(spec: &EngineSpec, assets: &[&str]) -> Engine {
    let mut engine = Engine::new("default", "live");
    engine.define(0, def("volt", "a"));
    engine.define(1, def("amp", "a"));
    engine.define(2, def("volt", "b"));
    engine.define(3, def("other", "a"));
    engine.define(4, def("clock", "c"));
    engine.step(Input::Generation(Arc::new(spec.clone())), &mut Simple);
    engine.step(Input::Baseline { tag: "golden", baseline: Some((1, golden(assets))) }, &mut Simple);
    engine
}

/// (frame ordinal, series, time, value)
type Row = (u64, u32, i64, f64);

fn feed(engine: &mut Engine, rows: &[Row], batch: usize) -> Vec<Effect> {
    let mut effects = Vec::new();
    for chunk in rows.chunks(batch) {
        let ordinal: Vec<u64> = chunk.iter().map(|r| r.0).collect();
        let series: Vec<u32> = chunk.iter().map(|r| r.1).collect();
        let time_ns: Vec<i64> = chunk.iter().map(|r| r.2).collect();
        let value: Vec<f64> = chunk.iter().map(|r| r.3).collect();
        let samples = Samples { source: "s", ordinal: &ordinal, series: &series, time_ns: &time_ns, value: &value };
        effects.extend(engine.step(Input::Samples(samples), &mut Simple));
    }
    effects
}

fn decisions(effects: &[Effect]) -> Vec<&Decision> {
    effects
        .iter()
        .filter_map(|e| match e {
            Effect::Decision { decision, .. } => Some(&**decision),
            _ => None,
        })
        .collect()
}

fn bytes(effects: &[Effect]) -> Vec<Vec<u8>> {
    decisions(effects).iter().map(|d| d.to_bytes()).collect()
}

fn refused(effects: &[Effect], why: Refusal) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Refused { why: w, .. } if *w == why)).count()
}

/// Clean rows of two series for `n` seconds from `from`.
fn clean(from: i64, n: i64) -> Vec<Row> {
    (from..from + n)
        .flat_map(|t| [(t as u64, 0, t * SEC, (t % 7) as f64), (t as u64, 1, t * SEC, 10.0 + (t % 5) as f64)])
        .collect()
}

#[test]
fn clean_rows_pass_and_a_shift_drifts_then_fails() {
    let mut rows = clean(0, 300);
    for r in rows.iter_mut().filter(|r| r.1 == 0 && r.2 >= 100 * SEC && r.2 < 200 * SEC) {
        r.3 += 50.0;
    }
    let effects = feed(&mut engine(&spec(), &["a"]), &rows, 10);
    let fast: Vec<_> = decisions(&effects).into_iter().filter(|d| d.check == "fast").collect();
    let of = |s: Status| fast.iter().filter(|d| d.status == s).map(|d| d.end_ns / SEC).collect::<Vec<_>>();
    assert_eq!(of(Status::Drift), [110]);
    assert_eq!(of(Status::Fail), (120..=210).step_by(10).collect::<Vec<_>>());
    let worst = fast.iter().find(|d| d.status == Status::Fail).unwrap();
    assert_eq!(worst.findings.len(), 1);
    assert_eq!(worst.findings[0].series, def("volt", "a"));
    assert_eq!((worst.severity, worst.findings[0].contribution), (Some(Severity::Fail), 1.0));
    assert_eq!(worst.previous, Status::Drift);
    // The first window that starts at the first sample is the first judged.
    assert_eq!(fast[0].end_ns, 20 * SEC);
}

#[test]
fn batch_size_does_not_matter() {
    let mut rows = clean(0, 2_000);
    rows[700].3 = 1e6;
    rows[900].2 -= 500 * SEC;
    let want = bytes(&feed(&mut engine(&spec(), &["a"]), &rows, 1));
    assert!(want.len() > 280);
    for batch in [2, 64, 4_096] {
        assert_eq!(bytes(&feed(&mut engine(&spec(), &["a"]), &rows, batch)), want, "batches of {batch}");
    }
}

#[test]
fn interned_ids_do_not_matter() {
    let rows = clean(0, 500);
    let want = bytes(&feed(&mut engine(&spec(), &["a"]), &rows, 64));
    let mut other = Engine::new("default", "live");
    other.define(77, def("volt", "a"));
    other.define(5, def("amp", "a"));
    other.step(Input::Generation(Arc::new(spec())), &mut Simple);
    other.step(Input::Baseline { tag: "golden", baseline: Some((1, golden(&["a"]))) }, &mut Simple);
    let renumbered: Vec<Row> = rows.iter().map(|r| (r.0, if r.1 == 0 { 77 } else { 5 }, r.2, r.3)).collect();
    assert_eq!(bytes(&feed(&mut other, &renumbered, 64)), want);
}

#[test]
fn missing_new_and_renamed_series_are_findings() {
    let mut rows = clean(0, 100);
    // `amp` becomes `other` half-way: silent, new, and one the other's new name. `volt` stays.
    for r in rows.iter_mut().filter(|r| r.1 == 1 && r.2 >= 40 * SEC) {
        r.1 = 3;
    }
    let effects = feed(&mut engine(&spec(), &["a"]), &rows, 7);
    let d = decisions(&effects).into_iter().find(|d| d.check == "fast" && d.end_ns == 60 * SEC).unwrap();
    let reasons: Vec<_> = d.findings.iter().map(|f| (f.series.metric.as_str(), f.reason.as_str())).collect();
    assert!(reasons.contains(&("amp", "Silent renamed other{asset=a}")), "{reasons:?}");
    assert!(reasons.contains(&("other", "New renamed amp{asset=a}")), "{reasons:?}");
    // A series that never came at all.
    let only_volt: Vec<Row> = clean(0, 100).into_iter().filter(|r| r.1 == 0).collect();
    let effects = feed(&mut engine(&spec(), &["a"]), &only_volt, 7);
    assert!(decisions(&effects).iter().all(|d| d.findings.iter().any(|f| f.reason == "Missing")));
}

#[test]
fn one_wild_time_is_held_and_refused() {
    for jump in [-370 * 86_400, 370 * 86_400] {
        let mut rows = clean(0, 200);
        rows[100].2 += jump * SEC;
        let effects = feed(&mut engine(&spec(), &["a"]), &rows, 16);
        assert_eq!(refused(&effects, Refusal::Jumped), 1);
        let normal = decisions(&effects).into_iter().filter(|d| d.check == "fast").count();
        assert_eq!(normal, 18, "windows go on as before");
        assert_eq!(decisions(&effects).iter().map(|d| d.counts.jumped).sum::<u64>(), 1);
    }
}

#[test]
fn a_clock_that_stays_elsewhere_is_believed() {
    for jump in [-370 * 86_400, 370 * 86_400] {
        let mut rows = clean(0, 200);
        rows.extend(clean(0, 200).into_iter().map(|r| (r.0 + 200, r.1, r.2 + (200 + jump) * SEC, r.3)));
        let effects = feed(&mut engine(&spec(), &["a"]), &rows, 16);
        assert_eq!(refused(&effects, Refusal::Jumped) + refused(&effects, Refusal::Late), 0, "jump {jump}");
        let there = decisions(&effects).iter().filter(|d| (d.end_ns / SEC - jump).abs() < 1_000).count();
        assert!(there >= 15, "{there} decisions on the new clock after a jump of {jump}");
    }
}

#[test]
fn a_wrong_clock_of_one_asset_is_its_own_affair() {
    // Asset b joins at 100 s, for 10 or for all following seconds, with a clock that is a year off; a keeps time.
    for (jump, until) in [-370, 370].into_iter().flat_map(|j| [(j * 86_400, 110), (j * 86_400, 400)]) {
        let mut rows: Vec<Row> = Vec::new();
        for t in 0..400 {
            rows.push((t, 0, t as i64 * SEC, (t % 7) as f64));
            rows.push((t, 1, t as i64 * SEC, 10.0 + (t % 5) as f64));
            if (100..until).contains(&t) {
                rows.push((t, 2, (t as i64 + jump) * SEC, (t % 7) as f64));
            }
        }
        let mut e = engine(&spec(), &["a", "b"]);
        let effects = feed(&mut e, &rows, 16);
        let lost = |r: &&Effect| matches!(r, Effect::Refused { series, .. } if series == &def("volt", "a"));
        assert_eq!(effects.iter().filter(lost).count(), 0, "jump {jump} until {until}");
        let of_a = decisions(&effects).into_iter().filter(|d| d.asset == "a" && d.check == "fast").count();
        assert_eq!(of_a, 38, "jump {jump} until {until}: windows of a go on");
        assert_eq!(e.core().ticks["s"], 399 * SEC);
    }
}

#[test]
fn the_ends_of_time_are_times_like_others() {
    for t in [i64::MAX, i64::MIN, hb_engine::TIME_MAX_NS, -hb_engine::TIME_MAX_NS] {
        for lateness_ns in [0, 86_400 * SEC] {
            let spec = EngineSpec { lateness_ns, ..spec() };
            let mut e = engine(&spec, &["a"]);
            let mut rows = vec![(0, 0, t, 1.0)];
            rows.extend(clean(1, 50));
            rows.extend([(51, 0, t, 1.0), (52, 1, t - t.signum(), 1.0), (53, 1, t, 1.0)]);
            feed(&mut e, &rows, 4);
            e.step(Input::Seal { source: "s" }, &mut Simple);
        }
    }
}

#[test]
fn two_sources_of_one_asset_wait_for_each_other() {
    let source = |name: &'static str, series: u32, from: i64, to: i64| (name, series, from, to);
    let mut e = engine(&spec(), &["a"]);
    let mut effects = Vec::new();
    // The second one is up to 15 s behind, and ends first.
    let turns = [source("s", 0, 0, 15), source("u", 1, 0, 14), source("s", 0, 15, 31), source("u", 1, 14, 25)];
    for (name, series, from, to) in turns {
        let times: Vec<i64> = (from..to).map(|t| t * SEC).collect();
        let n = times.len();
        let value: Vec<f64> =
            (from..to).map(|t| if series == 0 { (t % 7) as f64 } else { 10.0 + (t % 5) as f64 }).collect();
        let ordinal: Vec<u64> = (from as u64..to as u64).collect();
        let columns =
            Samples { source: name, ordinal: &ordinal, series: &vec![series; n], time_ns: &times, value: &value };
        effects.extend(e.step(Input::Samples(columns), &mut Simple));
    }
    // A window that ended before anybody knew of the second source waited for nobody; from then on none is late.
    assert_eq!(refused(&effects, Refusal::Late), 10);
    assert_eq!(decisions(&effects).iter().map(|d| d.end_ns).max(), Some(20 * SEC));
    // When it has ended, nobody waits for it any more.
    let after = e.step(Input::Seal { source: "u" }, &mut Simple);
    assert_eq!(decisions(&after).iter().map(|d| d.end_ns).max(), Some(30 * SEC));
    assert!(decisions(&after).iter().all(|d| d.counts.samples > 30), "both sources are in it");
    // What came at the very end closes no window, and nothing is judged twice.
    assert!(decisions(&e.step(Input::Seal { source: "s" }, &mut Simple)).is_empty());
}

#[test]
fn too_few_samples_are_neither_a_pass_nor_silence() {
    let mut spec = spec();
    spec.checks.iter_mut().for_each(|c| c.min_samples = 5);
    let mut rows = clean(0, 100);
    rows.retain(|r| r.1 == 1 || r.2 < 60 * SEC || r.2 % (10 * SEC) == 0);
    let effects = feed(&mut engine(&spec, &["a"]), &rows, 16);
    let last = decisions(&effects).into_iter().rfind(|d| d.check == "fast").unwrap();
    assert!(last.findings.iter().any(|f| f.series.metric == "volt" && f.reason == "Sparse"), "{last:#?}");
}

#[test]
fn a_check_says_nothing_of_assets_it_does_not_look_at() {
    let mut spec = spec();
    spec.checks[0].metrics = vec!["amp".into()];
    let rows: Vec<Row> = (0..100).map(|t| (t, 2, t as i64 * SEC, (t % 7) as f64)).collect();
    let effects = feed(&mut engine(&spec, &["a"]), &rows, 16);
    assert!(decisions(&effects).iter().all(|d| d.check == "slow"));
    assert!(!decisions(&effects).is_empty());
}

#[test]
fn the_kind_of_a_series_is_no_part_of_its_name() {
    let mut e = engine(&spec(), &["a"]);
    e.define(0, SeriesDef { kind: SeriesKind::Counter, ..def("volt", "a") });
    let effects = feed(&mut e, &clean(0, 100), 16);
    assert!(decisions(&effects).iter().all(|d| d.status == Status::Pass), "{:#?}", decisions(&effects)[0]);
}

#[test]
fn late_samples_follow_the_policy() {
    let mut rows = clean(0, 100);
    rows.push((100, 0, 75 * SEC, 1_000.0));
    rows.extend(clean(100, 30));
    for (late, want) in [(LatePolicy::Drop, 0), (LatePolicy::Buffer, 2), (LatePolicy::SideOutput, 0)] {
        let spec = EngineSpec { late, ..spec() };
        let effects = feed(&mut engine(&spec, &["a"]), &rows, 16);
        assert_eq!(refused(&effects, Refusal::Late), usize::from(late != LatePolicy::Buffer));
        let hit = decisions(&effects).iter().filter(|d| d.status != Status::Pass).count();
        assert_eq!(hit > 0, want > 0, "{late:?}");
    }
    // Within the allowed lateness nothing is late.
    let spec = EngineSpec { lateness_ns: 60 * SEC, ..spec() };
    assert_eq!(refused(&feed(&mut engine(&spec, &["a"]), &rows, 16), Refusal::Late), 0);
}

#[test]
fn a_gap_is_judged_a_few_times_and_then_passed_over() {
    let mut rows = clean(0, 100);
    rows.extend(clean(100_000, 100));
    let effects = feed(&mut engine(&spec(), &["a"]), &rows, 16);
    let all = decisions(&effects);
    assert!(all.len() < 100, "{} decisions for a gap of 9,990 windows", all.len());
    assert!(all.iter().map(|d| d.counts.skipped_windows).sum::<u64>() > 9_000);
    assert!(all.iter().any(|d| d.counts.samples == 0 && d.status != Status::Pass));
    assert_eq!(all.last().unwrap().status, Status::Pass);
}

#[test]
fn an_asset_that_falls_silent_is_judged_by_the_clock_of_its_source() {
    // Asset b stops at 100 s, a goes on.
    let mut rows: Vec<Row> = Vec::new();
    for t in 0..400 {
        rows.push((t, 0, t as i64 * SEC, (t % 7) as f64));
        if t < 100 {
            rows.push((t, 2, t as i64 * SEC, (t % 7) as f64));
        }
    }
    let effects = feed(&mut engine(&spec(), &["a", "b"]), &rows, 16);
    let silent: Vec<_> = decisions(&effects)
        .into_iter()
        .filter(|d| d.asset == "b" && d.findings.iter().any(|f| f.series.metric == "volt"))
        .collect();
    assert!(silent.iter().any(|d| d.status == Status::Fail));
    // 60 s of patience, then the window that ended at 120 s is due: its 20 s hold no sample of b.
    assert_eq!(silent[0].end_ns, 120 * SEC);
}

#[test]
fn caps_shed_and_count() {
    let caps = Caps { max_series: 2, max_buckets: 4_096, max_assets: 1 };
    let spec = EngineSpec { caps, ..spec() };
    let rows: Vec<Row> = (0..50).flat_map(|t| (0..4).map(move |s| (t, s, t as i64 * SEC, 1.0))).collect();
    let effects = feed(&mut engine(&spec, &["a"]), &rows, 16);
    // Series 3 is a third of asset a, series 2 belongs to a second asset.
    assert_eq!(refused(&effects, Refusal::Cap), 100);
}

#[test]
fn a_recovered_engine_goes_on_with_the_same_bytes() {
    // Asset b comes before a, against the alphabet, and both fall silent now and then, so that a clock closes windows.
    let mut rows: Vec<Row> = Vec::new();
    for t in 0..6_000 {
        if t % 1_000 < 700 {
            rows.push((t, 2, t as i64 * SEC, (t % 7) as f64));
            rows.push((t, 0, t as i64 * SEC, (t % 7) as f64));
        }
        rows.push((t, 4, t as i64 * SEC, 1.0));
    }
    let mut whole = engine(&spec(), &["a"]);
    let effects = feed(&mut whole, &rows, 97);
    let (mut core, mut snapshots) = (None, BTreeMap::new());
    let mut checkpoints = Vec::new();
    for effect in &effects {
        match effect {
            Effect::Snapshot { asset, seq, bytes, .. } => {
                snapshots.insert(asset.clone(), (*seq, bytes.clone()));
            }
            Effect::Checkpoint { seq, bytes } => {
                core = Some(bytes.clone());
                checkpoints.push((*seq, bytes.clone(), snapshots.clone()));
            }
            _ => {}
        }
    }
    let end = end_state(&mut whole);
    assert!(core.is_some() && checkpoints.len() >= 3, "{} checkpoints", checkpoints.len());
    let spec = spec();
    let base = golden(&["a"]);
    let world =
        World { specs: [(spec.hash(), Arc::new(spec.clone()))].into(), baselines: [(base.hash(), base)].into() };
    for (seq, core, snapshots) in checkpoints {
        let states: Vec<Vec<u8>> = snapshots.into_values().filter(|s| s.0 <= seq).map(|s| s.1).collect();
        let mut again = Engine::restore("default", "live", &core, &states, world.clone()).unwrap();
        for (id, metric, asset) in [(0, "volt", "a"), (2, "volt", "b"), (4, "clock", "c")] {
            again.define(id, def(metric, asset));
        }
        // Inputs 1 and 2 were generation and baseline.
        let rest = feed(&mut again, &rows[seq as usize - 2..], 13);
        let want = bytes(&effects);
        let got = bytes(&rest);
        assert_eq!(got, want[want.len() - got.len()..]);
        assert!(!got.is_empty() || seq as usize >= rows.len());
        assert_eq!(end_state(&mut again), end, "the states are equal, too");
    }
}

/// Hashes of the snapshots of a checkpoint now.
fn end_state(engine: &mut Engine) -> Vec<Hash> {
    let hash = |e: Effect| if let Effect::Snapshot { hash, .. } = e { Some(hash) } else { None };
    engine.checkpoint().into_iter().filter_map(hash).collect()
}

#[test]
fn a_new_fail_carries_what_reproduces_it_alone() {
    let mut rows = clean(0, 3_000);
    for r in rows.iter_mut().filter(|r| r.2 >= 2_500 * SEC) {
        r.3 += 50.0;
    }
    let mut whole = engine(&spec(), &["a"]);
    let mut snapshots: BTreeMap<Hash, Vec<u8>> = BTreeMap::new();
    let mut found = None;
    'rows: for row in rows.chunks(1) {
        for effect in feed(&mut whole, row, 1) {
            match effect {
                Effect::Snapshot { hash, bytes, .. } => {
                    snapshots.insert(hash, bytes);
                }
                Effect::Decision { decision, bytes, trace, .. } if decision.status == Status::Fail => {
                    found = Some((decision, bytes, trace.expect("a new FAIL is traced")));
                    break 'rows;
                }
                _ => {}
            }
        }
    }
    let (decision, want, inputs) = found.expect("a FAIL");
    assert_eq!(inputs.len() as u64, decision.inputs.inputs);
    let (spec, base) = (spec(), golden(&["a"]));
    let world = World { specs: [(spec.hash(), Arc::new(spec))].into(), baselines: [(base.hash(), base)].into() };
    let mut alone = Partition::restore(&snapshots[&decision.inputs.snapshot], &world).unwrap();
    let mut out = Vec::new();
    for input in inputs {
        alone.apply(input, &world, &mut Simple, &mut out);
    }
    assert!(bytes(&out).contains(&want));
}

#[test]
fn a_new_generation_keeps_what_has_the_same_shape() {
    let mut e = engine(&spec(), &["a"]);
    feed(&mut e, &clean(0, 100), 16);
    let mut changed = spec();
    changed.checks[0].min_samples = 2;
    changed.checks.pop();
    e.step(Input::Generation(Arc::new(changed.clone())), &mut Simple);
    let effects = feed(&mut e, &clean(100, 100), 16);
    let after = decisions(&effects);
    assert!(after.iter().all(|d| d.check == "fast" && d.status == Status::Pass));
    assert_eq!(after[0].end_ns, 100 * SEC, "no window is lost in the swap");
    assert_eq!(after[0].generations, [spec().hash(), changed.hash()]);
}

#[test]
fn no_baseline_is_never_pass_unless_the_rule_says_so() {
    let mut e = engine(&spec(), &["a"]);
    e.step(Input::Baseline { tag: "golden", baseline: None }, &mut Simple);
    let effects = feed(&mut e, &clean(0, 60), 16);
    assert!(decisions(&effects).iter().all(|d| d.baseline.is_none() && d.status != Status::Pass));
}

#[test]
fn without_a_baseline_what_was_seen_once_is_expected_and_nothing_is_new() {
    let mut e = engine(&spec(), &["a"]);
    e.step(Input::Baseline { tag: "golden", baseline: None }, &mut Simple);
    // Two series; one of them stops at half-time.
    let rows: Vec<Row> = clean(0, 200).into_iter().filter(|row| row.1 == 0 || row.2 < 100 * SEC).collect();
    let effects = feed(&mut e, &rows, 16);
    let reasons = |d: &Decision| d.findings.iter().map(|f| f.reason.clone()).collect::<Vec<_>>();
    let all = decisions(&effects);
    assert!(all.iter().all(|d| !reasons(d).iter().any(|r| r.starts_with("New"))), "{:?}", all[0]);
    let first = all.iter().find(|d| reasons(d).iter().any(|r| r == "Silent")).expect("a series that stopped is silent");
    assert!(first.start_ns >= 100 * SEC, "{first:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_times_in_any_batching_give_the_same_bytes(
        rows in prop::collection::vec((0..4_u32, prop_oneof![0..2_000_i64, -1_000_000_000..1_000_000_000_i64], -10.0..10.0_f64), 1..400),
        batch in 1..50_usize,
    ) {
        let rows: Vec<Row> = rows.iter().enumerate().map(|(i, r)| (i as u64, r.0, r.1 * SEC, r.2)).collect();
        let one = feed(&mut engine(&spec(), &["a", "b"]), &rows, 1);
        let other = feed(&mut engine(&spec(), &["a", "b"]), &rows, batch);
        prop_assert_eq!(bytes(&one), bytes(&other));
    }
}
