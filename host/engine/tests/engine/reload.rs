//! A new generation gives a check longer or shorter windows.

use super::*;

/// One check with windows of so many seconds, every 10 s.
fn window_of(sec: i64) -> EngineSpec {
    let mut spec = spec();
    spec.checks.truncate(1);
    spec.checks[0].window_ns = sec * SEC;
    spec
}

fn states(engine: &mut Engine) -> Vec<Vec<u8>> {
    let of = |e: Effect| if let Effect::Snapshot { bytes, .. } = e { Some(bytes) } else { None };
    engine.checkpoint().into_iter().filter_map(of).collect()
}

#[test]
fn a_longer_window_is_judged_once_it_is_whole() {
    let mut e = engine(&window_of(30), &["a"]);
    feed(&mut e, &clean(0, 500), 16);
    e.step(Input::Generation(Arc::new(window_of(200))), &mut Simple);
    let effects = feed(&mut e, &clean(500, 300), 16);
    let all = decisions(&effects);
    // Of the seconds before the reload 470 to 499 are kept.
    assert_eq!(all[0].end_ns, 670 * SEC);
    assert!(all.iter().all(|d| d.counts.samples == 2 * 200 && d.status == Status::Pass), "{:#?}", all[0]);
    // A window on the same grid that was as long before goes on.
    let mut both = window_of(30);
    both.checks.push(CheckSpec { id: "long".into(), window_ns: 60 * SEC, ..both.checks[0].clone() });
    let mut e = engine(&both, &["a"]);
    feed(&mut e, &clean(0, 500), 16);
    both.checks[1].window_ns = 200 * SEC;
    e.step(Input::Generation(Arc::new(both)), &mut Simple);
    let effects = feed(&mut e, &clean(500, 300), 16);
    let first = |id: &str| decisions(&effects).iter().find(|d| d.check == id).unwrap().end_ns / SEC;
    assert_eq!((first("fast"), first("long")), (500, 640));
}

#[test]
fn a_shorter_window_lets_go_of_what_the_long_one_kept() {
    let mut e = engine(&window_of(3_600), &["a"]);
    feed(&mut e, &clean(0, 4_000), 64);
    let long = states(&mut e)[0].len();
    e.step(Input::Generation(Arc::new(window_of(60))), &mut Simple);
    let short = states(&mut e)[0].len();
    assert!(short < long / 10, "{short} bytes of {long} are left");
    let effects = feed(&mut e, &clean(4_000, 100), 64);
    let all = decisions(&effects);
    assert_eq!(all[0].end_ns, 4_000 * SEC, "and no window is lost");
    assert!(all.iter().all(|d| d.counts.samples == 2 * 60 && d.status == Status::Pass), "{:#?}", all[0]);
}
