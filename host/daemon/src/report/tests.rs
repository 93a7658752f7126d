use hb_engine::NS_PER_SEC;
use hb_engine::decision::{BaselineRef, Counts, Finding, InputsRef, Mode};
use hb_engine::series::SeriesKind;

use super::*;

/// 2026-01-01T00:00:00Z.
const T0: i64 = 1_767_225_600 * NS_PER_SEC;

fn series(metric: &str, asset: &str) -> SeriesDef {
    SeriesDef::new(metric, "V", SeriesKind::Gauge, [("asset".to_owned(), asset.to_owned())]).unwrap()
}

fn finding(series: &SeriesDef, status: Status, value: f64, contribution: f64) -> Finding {
    Finding {
        series: series.clone(),
        rule: "drift.robust_z".into(),
        status,
        value: Some(value),
        limit: Some(8.0),
        margin: Some(value.abs() - 8.0),
        contribution,
        observed: Some(26.1),
        expected: Some(28.0),
        reason: format!("z {value} beyond 8"),
    }
}

/// The decision of a window that ends `minute` minutes after T0.
fn decision(asset: &str, minute: i64, status: Status, findings: Vec<Finding>) -> Decision {
    Decision {
        v: Decision::V,
        engine: "1".into(),
        program: "default".into(),
        lane: "live".into(),
        asset: asset.into(),
        check: "quick".into(),
        start_ns: T0 + (minute - 5) * 60 * NS_PER_SEC,
        end_ns: T0 + minute * 60 * NS_PER_SEC,
        status,
        previous: Status::Pass,
        severity: None,
        mode: Mode::Nominal,
        baseline: Some(BaselineRef { tag: "golden".into(), version: 3, hash: Hash::of(b"b") }),
        findings,
        findings_hash: Hash::of(b""),
        counts: Counts { series: 2, samples: 600, ..Counts::default() },
        generations: Vec::new(),
        inputs: InputsRef { snapshot: Hash::of(b""), journal: Hash::of(b""), inputs: 1 },
    }
}

fn build(decisions: &[Decision]) -> Report {
    let ids: Vec<String> = (0..decisions.len()).map(|i| format!("d{i}")).collect();
    let judged: Vec<Judged<'_>> = decisions.iter().zip(&ids).map(|(decision, id)| Judged { id, decision }).collect();
    Report::build(&ReportInput {
        run_id: "run-7",
        correlation_id: "c-1",
        made_at_ns: T0 + 7_200 * NS_PER_SEC,
        decisions: &judged,
        baseline_made_at_ns: Some(T0 - 86_400 * NS_PER_SEC),
        artifact_ref: "normalized_metrics.csv",
        report_ref: "drift_report.html",
    })
}

/// Two series of one of two assets leave their baseline; bus_voltage first and farther.
fn story() -> Vec<Decision> {
    let (bus, cpu) = (series("bus_voltage", "p1"), series("cpu_temp", "p1"));
    (5..60)
        .flat_map(|m| {
            let (status, findings) = match m {
                20..=24 => (Status::Drift, vec![finding(&bus, Status::Drift, -5.0, 1.0)]),
                25..=40 => (
                    Status::Fail,
                    vec![
                        finding(&bus, Status::Fail, -9.0 - m as f64 / 10.0, 0.75),
                        finding(&cpu, Status::Drift, 4.5, 0.25),
                    ],
                ),
                _ => (Status::Pass, vec![]),
            };
            [decision("p1", m, status, findings), decision("p2", m, Status::Pass, vec![])]
        })
        .collect()
}

fn track(label: &SeriesDef, spans: Vec<FlaggedSpan>) -> SeriesTrack {
    SeriesTrack {
        label: label.to_string(),
        unit: label.unit.clone(),
        points: (5..60)
            .map(|m| {
                let mean = if (20..=40).contains(&m) { 26.1 } else { 28.0 } + f64::from(m % 7) * 0.05;
                TrackPoint { end_ns: T0 + i64::from(m) * 60 * NS_PER_SEC, mean, min: mean - 0.4, max: mean + 0.4 }
            })
            .collect(),
        flagged: spans,
        band: Some(Band { p05: 27.2, median: 28.0, p95: 28.9 }),
    }
}

#[test]
fn the_report_names_the_worst_series_first_and_says_where_to_look() {
    let r = build(&story());
    assert_eq!(
        r.status_sentence,
        "FAIL: bus_voltage{asset=p1} was flagged in 21 windows from 2026-01-01T00:15:00Z to 2026-01-01T00:40:00Z: z -13 \
         beyond 8. 1 more series was flagged."
    );
    assert_eq!(r.windows, WindowCounts { total: 110, pass: 89, drift: 5, fail: 16, ..WindowCounts::default() });
    assert_eq!((r.primary_issue.as_deref(), r.assets.len(), r.decisions.len()), (Some("bus_voltage"), 2, 21));
    let labels: Vec<(&str, Status, u64)> =
        r.series.iter().map(|s| (s.label.as_str(), s.status, s.windows_flagged)).collect();
    assert_eq!(labels, [("bus_voltage{asset=p1}", Status::Fail, 21), ("cpu_temp{asset=p1}", Status::Drift, 16)]);
    assert!((r.series[0].contribution - 17.0 / 21.0).abs() < 1e-12);
    assert_eq!((r.series[0].worst.value, r.series[0].worst.at.as_str()), (Some(-13.0), "2026-01-01T00:40:00Z"));
    assert_eq!(r.baseline.as_ref().unwrap().age_sec, Some(93_600));
    assert_eq!(r.evidence_links[0].report_ref, "drift_report.html#series-1");
    assert_eq!(
        r.investigation_hints,
        [
            "bus_voltage{asset=p1} was flagged first, from 2026-01-01T00:15:00Z; cpu_temp{asset=p1} followed from \
             2026-01-01T00:20:00Z.",
            "Only asset p1 of 2 is affected: compare it with the others.",
            "bus_voltage{asset=p1} makes up 81 % of all that was found: begin there.",
            "All series have been within limits again since 2026-01-01T00:40:00Z.",
        ]
    );
    let back: Report = serde_json::from_str(&r.to_json()).unwrap();
    assert_eq!(back, r);
}

#[test]
fn the_order_of_the_decisions_does_not_matter() {
    let ordered = story();
    let mut shuffled = story();
    shuffled.reverse();
    // The ids follow the decisions, only their order differs.
    let strip = |mut r: Report| {
        r.decisions.iter_mut().for_each(|d| d.id.clear());
        r
    };
    assert_eq!(strip(build(&ordered)), strip(build(&shuffled)));
}

#[test]
fn quiet_and_empty_runs_say_so() {
    for (decisions, want) in [
        (vec![], "NO_DATA: no window was judged."),
        (vec![decision("a", 5, Status::Pass, vec![])], "PASS: the one window was within limits."),
        (
            vec![decision("a", 5, Status::Pass, vec![]), decision("a", 6, Status::Pass, vec![])],
            "PASS: all 2 windows were within limits.",
        ),
        (
            vec![decision("a", 5, Status::NoData, vec![])],
            "NO_DATA: 1 window without anything to judge, and no series says why.",
        ),
    ] {
        let r = build(&decisions);
        assert_eq!(r.status_sentence, want);
        assert!(render(&r, &[]).ends_with("</html>"));
    }
}

#[test]
fn lost_samples_and_missing_series_become_hints() {
    let gone = Finding { observed: None, ..finding(&series("flow", "a"), Status::Drift, 1.0, 1.0) };
    let mut d = decision("a", 5, Status::Drift, vec![gone]);
    d.counts.late = 3;
    d.counts.shed = 1;
    d.baseline = None;
    let hints = build(&[d]).investigation_hints.join("\n");
    for want in
        ["flow{asset=a} gave no samples", "3 samples too late", "1 sample refused at a cap", "Nothing was compared"]
    {
        assert!(hints.contains(want), "{want}\n{hints}");
    }
}

#[test]
fn flagged_windows_that_touch_are_one_span() {
    let decisions = story();
    let judged: Vec<Judged<'_>> = decisions.iter().map(|decision| Judged { id: "", decision }).collect();
    let spans = flagged_spans(&judged, &series("bus_voltage", "p1"));
    let short: Vec<(i64, i64, Status)> = spans
        .iter()
        .map(|s| ((s.start_ns - T0) / NS_PER_SEC / 60, (s.end_ns - T0) / NS_PER_SEC / 60, s.status))
        .collect();
    assert_eq!(short, [(15, 24, Status::Drift), (20, 40, Status::Fail)]);
}

#[test]
fn the_page_is_one_file_in_which_foreign_text_does_nothing() {
    let evil = "<script>alert(1)</script>\u{202e}\x1b[31m\"'&";
    let def = series(evil, evil);
    let mut bad = finding(&def, Status::Fail, 9.0, 1.0);
    bad.reason = evil.into();
    bad.rule = evil.into();
    let mut d = decision(evil, 5, Status::Fail, vec![bad]);
    d.check = evil.into();
    let r = build(&[d]);
    let span = FlaggedSpan { start_ns: T0, end_ns: T0 + NS_PER_SEC, status: Status::Fail, reason: evil.into() };
    let mut t = track(&def, vec![span]);
    t.unit = evil.into();
    let page = render(&r, &[t, track(&series(evil, "other"), vec![])]);
    for banned in ["<script", "\u{202e}", "\x1b", "http://", "https://", "NaN", "=\"'"] {
        assert!(!page.contains(banned), "{banned}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}\\u{1b}[31m&quot;'&amp;"));
}

#[test]
fn the_same_case_gives_the_same_page_with_a_table_behind_each_chart() {
    let (bus, cpu, flow) = (series("bus_voltage", "p1"), series("cpu_temp", "p1"), series("flow", "p2"));
    let decisions = story();
    let judged: Vec<Judged<'_>> = decisions.iter().map(|decision| Judged { id: "", decision }).collect();
    let tracks =
        [track(&flow, vec![]), track(&cpu, flagged_spans(&judged, &cpu)), track(&bus, flagged_spans(&judged, &bus))];
    let page = render(&build(&decisions), &tracks);
    assert_eq!(page, render(&build(&decisions), &tracks));
    assert_eq!(page.matches("role=\"img\"").count(), 3);
    assert_eq!(page.matches("<summary>Numbers of").count(), 3);
    let order: Vec<usize> = ["Flagged series<", "id=\"series-1\"", "id=\"series-2\"", "as expected<", "flow{asset=p2}"]
        .map(|text| page.find(text).unwrap())
        .to_vec();
    assert!(order.is_sorted(), "{order:?}");
    if let Some(path) = std::env::var_os("HB_WRITE_REPORT") {
        std::fs::write(path, &page).unwrap();
    }
}

#[test]
fn large_reports_stay_small() {
    let many: Vec<SeriesDef> = (0..300).map(|i| series(&format!("m{i:03}"), "a")).collect();
    let decisions: Vec<Decision> = (0..1_200)
        .map(|m| decision("a", m, Status::Drift, vec![finding(&many[m as usize % 300], Status::Drift, 5.0, 1.0)]))
        .collect();
    let r = build(&decisions);
    assert_eq!((r.decisions.len(), r.decisions_left_out, r.series.len()), (MAX_LISTED_DECISIONS, 200, 300));
    let tracks: Vec<SeriesTrack> = many.iter().map(|s| track(s, vec![])).collect();
    let page = render(&r, &tracks);
    assert_eq!(page.matches("role=\"img\"").count(), html::MAX_FLAGGED_CHARTS);
    assert!(page.contains("260 more flagged series are not shown"), "{}", page.len());
}

#[test]
fn numbers_are_short() {
    for (value, want) in [
        (0.0, "0"),
        (-0.0, "0"),
        (26.1, "26.1"),
        (28.000_04, "28"),
        (123_456.7, "123457"),
        (0.012_345, "0.012345"),
        (-1e-9, "-1.0000e-9"),
        (2.5e12, "2.5000e12"),
        (1e-7, "1.0000e-7"),
        (f64::NAN, "–"),
    ] {
        assert_eq!(number(value), want);
    }
}
