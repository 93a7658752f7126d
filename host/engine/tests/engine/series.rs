//! Which series a check judges, whoever brings them: telemetry, a baseline or a new generation.

use hb_engine::partition::{Names, PartitionInput};

use super::*;

/// Two checks of the same series: `alive` compares with nothing, `drift` with golden.
fn two_checks() -> EngineSpec {
    let mut spec = spec();
    spec.checks[0].id = "alive".into();
    spec.checks[0].baseline = None;
    spec.checks[1] = CheckSpec { id: "drift".into(), baseline: Some("golden".into()), ..spec.checks[0].clone() };
    spec
}

/// The engine from a checkpoint that it makes now.
fn recovered(whole: &mut Engine, world: World) -> Engine {
    let (mut core, mut states) = (Vec::new(), Vec::new());
    for effect in whole.checkpoint() {
        match effect {
            Effect::Snapshot { bytes, .. } => states.push(bytes),
            Effect::Checkpoint { bytes, .. } => core = bytes,
            _ => {}
        }
    }
    let mut again = Engine::restore("default", "live", &core, &states, world).unwrap();
    for (id, metric) in [(0, "volt"), (1, "amp"), (3, "other")] {
        again.define(id, def(metric, "a"));
    }
    again
}

fn world(spec: &EngineSpec, bases: &[&Arc<Baseline>]) -> World {
    let baselines = bases.iter().map(|b| (b.hash(), Arc::clone(b))).collect();
    World { specs: [(spec.hash(), Arc::new(spec.clone()))].into(), baselines }
}

#[test]
fn a_check_without_a_baseline_sees_what_the_baseline_of_another_expects() {
    let spec = two_checks();
    let mut whole = engine(&spec, &["a"]);
    let first = feed(&mut whole, &clean(0, 100), 16);
    let of = |id: &str| decisions(&first).iter().filter(|d| d.check == id).count();
    assert_eq!((of("alive"), of("drift")), (8, 8));
    assert!(decisions(&first).iter().all(|d| d.counts.series == 2 && d.status != Status::NoData));
    // Whoever recovers goes on with the same decisions.
    let mut again = recovered(&mut whole, world(&spec, &[&golden(&["a"])]));
    let want = bytes(&feed(&mut whole, &clean(100, 100), 16));
    assert_eq!(want.len(), 20);
    assert_eq!(bytes(&feed(&mut again, &clean(100, 100), 7)), want);
}

/// Golden with one series more.
fn golden_with_other() -> Arc<Baseline> {
    let mut b = Builder::new();
    for t in 0..600 {
        b.push(&def("volt", "a"), t * SEC, (t % 7) as f64);
        b.push(&def("amp", "a"), t * SEC, 10.0 + (t % 5) as f64);
        b.push(&def("other", "a"), t * SEC, (t % 3) as f64);
    }
    Arc::new(b.build(vec!["cleaner".into()]))
}

#[test]
fn a_series_that_a_new_baseline_brings_has_its_name_in_the_range() {
    let (spec, before, after) = (two_checks(), golden(&["a"]), golden_with_other());
    let mut whole = engine(&spec, &["a"]);
    whole.trace("a");
    feed(&mut whole, &clean(0, 100), 16);
    let snapshot = whole.checkpoint().into_iter().find_map(|e| match e {
        Effect::Snapshot { bytes, .. } => Some(bytes),
        _ => None,
    });
    let snapshot = snapshot.unwrap();
    whole.step(Input::Baseline { tag: "golden", baseline: Some((2, Arc::clone(&after))) }, &mut Simple);
    let mut rows = clean(100, 50);
    rows.extend((100..150).map(|t| (t as u64, 3, t * SEC, (t % 3) as f64)));
    rows.sort_by_key(|r| r.0);
    let last = feed(&mut whole, &rows, 16).into_iter().rev().find_map(|e| match e {
        Effect::Decision { decision, bytes, trace, .. } if decision.check == "alive" => Some((decision, bytes, trace)),
        _ => None,
    });
    let (decision, want, trace) = last.unwrap();
    assert_eq!(decision.counts.series, 3, "the check without a baseline sees it too");
    // Nothing but the baseline gave it its number.
    let inputs = trace.unwrap();
    assert!(!inputs.iter().any(|i| matches!(i, PartitionInput::Series(_))));
    let named = Names::baselines(&snapshot, &inputs).unwrap();
    assert_eq!(named, [before.hash(), after.hash()]);
    let world = world(&spec, &[&before, &after]);
    let told = Names::of_range(&snapshot, &inputs, &world).unwrap();
    let samples = inputs.iter().filter_map(|i| if let PartitionInput::Sample(s) = i { Some(s) } else { None });
    assert_eq!(samples.filter(|s| told.series[s.series as usize] == def("other", "a")).count(), 40);
    assert_eq!(told.sources, ["s"]);
    let mut alone = Partition::restore(&snapshot, &world).unwrap();
    let mut out = Vec::new();
    for input in inputs {
        alone.apply(input, &world, &mut Simple, &mut out);
    }
    assert!(bytes(&out).contains(&want));
}

#[test]
fn samples_that_no_rule_was_asked_about_are_no_data() {
    let mut spec = spec();
    spec.checks[0].rules[0].applies_to = vec!["temp*".into()];
    let effects = feed(&mut engine(&spec, &["a"]), &clean(0, 100), 16);
    let of = |id: &str, status: Status| {
        let is_so = |d: &&&Decision| d.check == id && d.status == status;
        decisions(&effects).iter().filter(is_so).count()
    };
    assert_eq!((of("fast", Status::NoData), of("fast", Status::Pass)), (8, 0));
    assert_eq!((of("slow", Status::NoData), of("slow", Status::Pass)), (0, 2));
    // One of two rules is enough, and so is one of two series.
    let rule = RuleUse { applies_to: vec!["amp".into()], ..spec.checks[0].rules[0].clone() };
    spec.checks[0].rules.push(rule);
    let effects = feed(&mut engine(&spec, &["a"]), &clean(0, 100), 16);
    assert!(decisions(&effects).iter().all(|d| d.status == Status::Pass));
}

#[test]
fn what_one_grid_refuses_is_told_even_if_another_takes_it() {
    // A window of a second and one of an hour look at the same series; a sample is 10 s late.
    let mut spec = spec();
    (spec.checks[0].window_ns, spec.checks[0].every_ns) = (SEC, SEC);
    (spec.checks[1].window_ns, spec.checks[1].every_ns) = (3_600 * SEC, 3_600 * SEC);
    let mut rows = clean(0, 100);
    rows.push((100, 0, 89 * SEC, 1.0));
    rows.extend(clean(101, 20));
    for late in [LatePolicy::Drop, LatePolicy::SideOutput, LatePolicy::Buffer] {
        let effects = feed(&mut engine(&EngineSpec { late, ..spec.clone() }, &["a"]), &rows, 16);
        assert_eq!(refused(&effects, Refusal::Late), 1, "{late:?}: the window of a second is over");
        assert_eq!(decisions(&effects).iter().map(|d| d.counts.late).sum::<u64>(), 1, "{late:?}");
    }
    // The same of a cap: 4 buckets are seconds for the one, hours for the other.
    let caps = Caps { max_buckets: 4, ..Caps::default() };
    let spec = EngineSpec { caps, lateness_ns: 60 * SEC, ..spec };
    let effects = feed(&mut engine(&spec, &["a"]), &clean(0, 10), 16);
    assert_eq!(refused(&effects, Refusal::Cap), 12, "seconds 4 to 9 of two series");
}

#[test]
fn a_decision_names_the_input_that_closed_its_window_in_any_batching() {
    let seqs = |batch: usize| -> Vec<u64> {
        let effects = feed(&mut engine(&spec(), &["a"]), &clean(0, 100), batch);
        effects.iter().filter_map(|e| if let Effect::Decision { seq, .. } = e { Some(*seq) } else { None }).collect()
    };
    let one = seqs(1);
    // Inputs 1 and 2 are generation and baseline; the first sample at 20 s is the 41st.
    assert_eq!(one[0], 43);
    assert!(one.is_sorted() && one.len() == 10, "{one:?}");
    assert_eq!(seqs(64), one);
    assert_eq!(seqs(4_096), one);
}
