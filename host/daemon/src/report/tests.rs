use hb_engine::NS_PER_SEC;
use hb_engine::decision::{BaselineRef, Counts, Finding, InputsRef, Mode};
use hb_engine::series::SeriesKind;

use crate::case::Case;

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
        // The rule's value follows the mean.
        observed: Some(28.0 + value / 5.0),
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
    build_with(decisions, &[], &[])
}

fn build_with(decisions: &[Decision], tracks: &[SeriesTrack], cases: &[Case]) -> Report {
    let mut tally = Tally::default();
    for (i, decision) in decisions.iter().enumerate() {
        tally.add(format!("d{i}"), decision.clone());
    }
    report_of(&tally, tracks, cases, ReportKind::Run)
}

fn report_of(tally: &Tally, tracks: &[SeriesTrack], cases: &[Case], kind: ReportKind) -> Report {
    let facts = BaselineFacts {
        start_ns: T0 - 90_000 * NS_PER_SEC,
        end_ns: T0 - 86_400 * NS_PER_SEC,
        series: 4,
        sources: vec!["clean".into()],
    };
    Report::build(&ReportInput {
        kind,
        run_id: "run-7",
        correlation_id: "c-1",
        made_at_ns: T0 + 7_200 * NS_PER_SEC,
        decisions: tally,
        tracks,
        undrawn: 0,
        baselines: &BTreeMap::from([(Hash::of(b"b"), facts)]),
        cases,
        files: &[("normalized_metrics.csv", "the numbers of all series")],
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
                        finding(&cpu, Status::Drift, 4.5 + (m % 3) as f64 / 10.0, 0.25),
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
        check: "quick".into(),
        label: label.to_string(),
        unit: label.unit.clone(),
        points: (5..60)
            .map(|m| {
                let mean = if (20..=40).contains(&m) { 26.1 } else { 28.0 } + f64::from(m % 7) * 0.05;
                let end_ns = T0 + i64::from(m) * 60 * NS_PER_SEC;
                TrackPoint { end_ns, count: 300, mean, min: mean - 0.4, max: mean + 0.4 }
            })
            .collect(),
        flagged: spans,
        band: Some(Band { p05: 27.2, median: 28.0, p95: 28.9 }),
        limits: Limits { drift: Some(Range { low: 26.5, high: 29.5 }), fail: None },
    }
}

#[test]
fn the_report_names_the_worst_series_first_and_says_where_to_look() {
    let decisions = story();
    let case = Case::open(Hash::of(b"d"), &decisions[60], 7);
    let spans = |def: &SeriesDef| {
        let judged: Vec<Judged<'_>> = decisions.iter().map(|decision| Judged { id: "", decision }).collect();
        flagged_spans(&judged, def)
    };
    let (bus, idle) = (series("bus_voltage", "p1"), series("idle", "p2"));
    let tracks = [track(&bus, spans(&bus)), track(&idle, vec![])];
    let r = build_with(&decisions, &tracks, std::slice::from_ref(&case));
    assert_eq!(
        r.status_sentence,
        "FAIL: 2 of 4 series drifted on p1 from 2026-01-01 00:15 to 00:40 UTC; worst: bus_voltage{asset=p1}: z -13 \
         beyond 8."
    );
    assert_eq!(r.windows, WindowCounts { total: 110, pass: 89, drift: 5, fail: 16, ..WindowCounts::default() });
    assert_eq!((r.primary_issue.as_deref(), r.assets.len(), r.decisions.len()), (Some("bus_voltage"), 2, 21));
    let labels: Vec<(&str, Status, u64)> =
        r.series.iter().map(|s| (s.label.as_str(), s.status, s.windows_flagged)).collect();
    assert_eq!(labels, [("bus_voltage{asset=p1}", Status::Fail, 21), ("cpu_temp{asset=p1}", Status::Drift, 16)]);
    let worst = &r.series[0];
    assert!((worst.contribution - 17.0 / 21.0).abs() < 1e-12);
    assert_eq!((worst.worst.value, worst.worst.at.as_str()), (Some(-13.0), "2026-01-01T00:40:00Z"));
    assert_eq!(worst.onset, Some(Onset { sudden: false, took_sec: 480 }));
    assert_eq!(r.series[1].onset, Some(Onset { sudden: true, took_sec: 0 }));
    assert_eq!((worst.case.as_ref(), worst.band, worst.limits), (Some(&case.id), tracks[0].band, tracks[0].limits));
    let times: Vec<(&str, Status)> = worst.flagged.iter().map(|f| (f.end.as_str(), f.status)).collect();
    assert_eq!(times, [("2026-01-01T00:24:00Z", Status::Drift), ("2026-01-01T00:40:00Z", Status::Fail)]);
    let baseline = r.baseline.as_ref().unwrap();
    assert_eq!((baseline.age_sec, baseline.series), (Some(86_400 + 59 * 60), Some(4)));
    assert_eq!(r.evidence_links[0].report_ref, "drift_report.html#series-1");
    assert_eq!(r.cases[0].commands[1], format!("hb export evidence-pack --case {} --out packs", case.id));
    assert_eq!(
        r.investigation_hints,
        [
            "bus_voltage{asset=p1} was flagged first, from 2026-01-01 00:15 UTC; cpu_temp{asset=p1} followed from \
             2026-01-01 00:20 UTC.",
            "Only asset p1 of 2 is affected: compare it with the others.",
            "bus_voltage{asset=p1} moved away over 8 min: look for wear, fouling, load or a sensor that drifts.",
            "cpu_temp{asset=p1} jumped within one window: look for what was changed or failed at about 2026-01-01 00:20 \
             UTC.",
            "bus_voltage{asset=p1} makes up 81 % of all that was found: begin there.",
            "All series have been within limits again since 2026-01-01 00:40 UTC.",
        ]
    );
    let back: Report = serde_json::from_str(&r.to_json()).unwrap();
    assert_eq!(back, r);
}

#[test]
fn what_still_drifts_is_told_in_the_present() {
    let bus = series("bus_voltage", "p1");
    let bad = |asset: &str, status| decision(asset, 5, status, vec![finding(&series("x", asset), status, 9.0, 1.0)]);
    for (decisions, want) in [
        (vec![bad("p1", Status::Drift)], "DRIFT: 1 of 2 series drifts on p1 since 2026-01-01 00:00 UTC; worst: "),
        (
            vec![bad("p1", Status::Fail), bad("p2", Status::Fail)],
            "FAIL: 2 of 4 series drift on p1 and p2 since 2026-01-01 00:00 UTC; worst: ",
        ),
        (
            (0..5).map(|i| bad(&format!("p{i}"), Status::Fail)).collect(),
            "FAIL: 5 of 10 series drift on all 5 assets since 2026-01-01 00:00 UTC; worst: ",
        ),
        (
            vec![bad("p1", Status::Error)],
            "ERROR: 1 of 2 series could not be judged on p1 because a rule failed since 2026-01-01 00:00 UTC; worst: ",
        ),
        (
            vec![bad("p1", Status::NoData)],
            "NO_DATA: 1 of 2 series could not be judged on p1 for want of data since 2026-01-01 00:00 UTC; worst: ",
        ),
        (
            vec![decision(
                "p1",
                5,
                Status::Fail,
                vec![
                    finding(&bus, Status::Fail, 9.0, 0.5),
                    finding(&series("b", "p1"), Status::Error, 1.0, 0.2),
                    finding(&series("c", "p1"), Status::NoData, 1.0, 0.2),
                ],
            )],
            "FAIL: 1 of 3 series drifts on p1 since 2026-01-01 00:00 UTC; 2 more could not be judged; worst: ",
        ),
    ] {
        let sentence = build(&decisions).status_sentence;
        assert!(sentence.starts_with(want), "{sentence}");
    }
}

#[test]
fn what_is_over_is_not_told_as_present() {
    let bad = |name: &str, minute, status| {
        decision("p1", minute, status, vec![finding(&series(name, "p1"), status, 9.0, 0.5)])
    };
    let gone = bad("c", 30, Status::NoData);
    for (decisions, want) in [
        (
            vec![bad("a", 5, Status::Drift), bad("b", 30, Status::Drift)],
            "DRIFT: 1 of 2 series drifts on p1 since 2026-01-01 00:25 UTC; 1 more drifted earlier; worst: ",
        ),
        (
            vec![bad("a", 5, Status::Fail), bad("b", 6, Status::Drift), gone],
            "FAIL: 2 of 3 series drifted on p1 from 2026-01-01 00:00 to 00:06 UTC; 1 more could not be judged; worst: ",
        ),
        (
            vec![bad("a", 5, Status::Fail), bad("a", 6, Status::NoData)],
            "FAIL: 1 of 2 series drifted on p1 from 2026-01-01 00:00 to 00:06 UTC; worst: ",
        ),
    ] {
        let r = build(&decisions);
        assert!(r.status_sentence.starts_with(want), "{}", r.status_sentence);
    }
}

#[test]
fn what_began_before_the_first_window_has_no_beginning_here() {
    let bus = series("bus_voltage", "p1");
    let fails = |m: i64| decision("p1", m, Status::Fail, vec![finding(&bus, Status::Fail, -9.0 - m as f64, 0.5)]);
    let mut seen: Vec<Decision> = (5..9).map(fails).collect();
    let whole = build(&seen);
    assert_eq!(whole.series[0].onset.as_ref().map(|o| o.sudden), Some(true));
    seen[0].previous = Status::Drift;
    let cut = build(&seen);
    let s = &cut.series[0];
    assert_eq!((s.began_before, &s.onset, s.first_flagged.as_str()), (true, &None, "2026-01-01T00:00:00Z"));
    let want = "FAIL: 1 of 2 series drifts on p1 since before 2026-01-01 00:00 UTC; worst: ";
    assert!(cut.status_sentence.starts_with(want), "{}", cut.status_sentence);
    let hints = cut.investigation_hints.join("\n");
    assert!(!hints.contains("jumped") && !hints.contains("moved away"), "{hints}");
    assert!(render(&cut, &[]).contains("since before 00:00<"));
    // What could not be judged before may have begun then or not: the first window says nothing of it.
    seen[0].previous = Status::NoData;
    assert!(!build(&seen).series[0].began_before);
}

#[test]
fn only_a_value_that_follows_the_mean_tells_how_a_series_left_its_baseline() {
    let speed = series("speed", "p1");
    let stuck = |m: i64, hits: f64| Finding {
        rule: "drift.stuck".into(),
        value: Some(hits),
        limit: Some(3.0),
        observed: Some(2_950.0),
        ..finding(&speed, Status::Drift, hits, 0.5 + m as f64 / 1e3)
    };
    let counted: Vec<Decision> =
        (5..9).map(|m| decision("p1", m, Status::Drift, vec![stuck(m, (m - 4) as f64)])).collect();
    assert_eq!(build(&counted).series[0].onset, None, "a count of windows grows by itself");
    // Two rules in the same windows: the path is that of the worse one alone, and two windows are no path.
    let two: Vec<Decision> = (5..7)
        .map(|m| {
            let far = finding(&speed, Status::Fail, 20.0 + m as f64, 0.5);
            decision("p1", m, Status::Fail, vec![far, stuck(m, (m - 4) as f64)])
        })
        .collect();
    assert_eq!(build(&two).series[0].onset, None);
}

#[test]
fn readings_say_what_their_mean_does_not() {
    let vibration = series("vibration", "p1");
    let flagged = [decision("p1", 20, Status::Fail, vec![finding(&vibration, Status::Fail, 12.0, 1.0)])];
    let mut flat = finding(&vibration, Status::Fail, 3.0, 1.0);
    flat.observed = Some(28.3);
    let still = [decision("p1", 20, Status::Fail, vec![flat])];
    let with = |decisions: &[Decision], min: f64, max: f64, count: u64| {
        let mut seen = track(&vibration, vec![]);
        let point = seen.points.iter_mut().find(|p| p.end_ns == decisions[0].end_ns).unwrap();
        (point.min, point.max, point.count) = (min, max, count);
        let r = build_with(decisions, &[seen], &[]);
        (r.series[0].readings, r.investigation_hints.join("\n"))
    };
    let (found, hints) = with(&flagged, 27.5, 40.0, 10);
    assert!(found == Some(Readings::Single) && hints.contains("single readings far out"), "{hints}");
    let (found, hints) = with(&still, 28.3, 28.3, 10);
    assert!(found == Some(Readings::Still) && hints.contains("does not move at all"), "{hints}");
    // A reading within noise, a mean that moved as far, and a window of one reading say nothing of the kind.
    for (min, max, count) in [(27.5, 29.5, 10), (30.0, 31.0, 10), (28.3, 28.3, 1)] {
        let (found, hints) = with(&flagged, min, max, count);
        assert!(found.is_none() && hints.contains("was flagged in one window only"), "{min}..{max}: {found:?} {hints}");
    }
}

#[test]
fn a_status_outlives_the_lists_that_are_full() {
    let fails = [3_i64, 4];
    let mut tally = Tally::keeping(5);
    for m in 0..40 {
        let status = if fails.contains(&m) { Status::Fail } else { Status::Drift };
        let name = format!("m{m:02}");
        tally.add(m.to_string(), decision("a", m, status, vec![finding(&series(&name, "a"), status, 9.0, 1.0)]));
        tally.add(format!("p{m}"), decision("b", m, Status::Pass, vec![]));
    }
    let r = report_of(&tally, &[], &[], ReportKind::Run);
    assert_eq!(r.status, Status::Fail);
    assert_eq!(r.windows, WindowCounts { total: 80, pass: 40, drift: 38, fail: 2, ..WindowCounts::default() });
    let kept: Vec<&str> = r.decisions.iter().map(|d| d.id.as_str()).collect();
    assert_eq!(kept, ["3", "4", "37", "38", "39"], "the worst, and of the rest the newest");
    assert_eq!((r.left_out.decisions, r.left_out.unsummed, r.series_flagged), (35, 35, 40));
    assert!(render(&r, &[]).contains("<li>35 decisions are counted and described nowhere;"));
    let none = report_of(&Tally::keeping(0), &[], &[], ReportKind::Run);
    assert_eq!(none.status, Status::NoData);
}

#[test]
fn a_page_in_a_pack_speaks_of_the_pack() {
    let decisions = story();
    let case = Case::open(Hash::of(b"d"), &decisions[60], 7);
    let mut tally = Tally::default();
    for d in &decisions {
        tally.add(Hash::of(b"d").to_string(), d.clone());
    }
    let r = report_of(&tally, &[], std::slice::from_ref(&case), ReportKind::Case);
    let pack = root_name(&case.id);
    let want =
        [format!("hb explain --pack {pack}"), format!("hb verify {pack} --key hb.pub"), format!("hb replay {pack}")];
    assert_eq!(r.cases[0].commands, want);
    let page = render(&r, &[]);
    assert!(page.contains("<a href=\"normalized_metrics.csv\">") && !page.contains("hb export"), "{page}");
}

#[test]
fn the_order_of_the_decisions_does_not_matter() {
    let ordered = story();
    let mut shuffled = story();
    shuffled.reverse();
    // The ids follow the decisions, only their order differs.
    let strip = |mut r: Report| {
        r.decisions.iter_mut().for_each(|d| d.id.clear());
        r.series.iter_mut().for_each(|s| s.worst.decision.clear());
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

/// Names that would be something else than text where text is not made harmless.
const NAUGHTY: &[&str] = &[
    "<script>alert(1)</script>\u{202e}\x1b[31m\"'&",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)' x='",
    "</title></style></svg><style>*{display:none}</style>",
    "--><!-- ]]><![CDATA[ <?xml ?>",
    "&lt;script&gt;&#60;b&#62;",
    "javascript:alert(1)",
    "<a href=\"https://example.invalid\">here</a>",
    "{{7*7}} ${7*7} <%= 7*7 %>",
    "Ω≈ç√ 田中さん \u{202b}test\u{feff} é\u{301}\u{301}\u{301}",
    "\u{0}\u{8}\u{9f}\r\n\t",
];

/// The page of a report in which every text from outside is this one.
fn page_of(text: &str) -> String {
    let def = SeriesDef::new(text, text, SeriesKind::Gauge, [("asset".to_owned(), text.to_owned())]).unwrap();
    let mut decisions: Vec<Decision> = (5..9)
        .map(|m| {
            let mut bad = finding(&def, Status::Fail, 9.0, 1.0);
            (bad.reason, bad.rule) = (text.into(), text.into());
            let mut d = decision(text, m, Status::Fail, vec![bad]);
            d.check = text.into();
            d
        })
        .collect();
    decisions[0].baseline.as_mut().unwrap().tag = text.into();
    let case = Case::open(Hash::of(b"d"), &decisions[0], 7);
    let span = FlaggedSpan {
        start_ns: T0,
        first_end_ns: T0,
        end_ns: T0 + NS_PER_SEC,
        status: Status::Fail,
        reason: text.into(),
    };
    let mut tracks = [track(&def, vec![span]), track(&series(text, "other"), vec![])];
    for t in &mut tracks {
        (t.check, t.unit) = (text.into(), text.into());
    }
    render(&build_with(&decisions, &tracks, &[case]), &tracks)
}

/// Every tag of a page with the names of its attributes.
fn skeleton(page: &str) -> Vec<String> {
    let tags = page.split('<').skip(1).map(|rest| rest.split_once('>').unwrap().0);
    tags.map(|tag| {
        // Between quotes lie values; what is left are names.
        let names: Vec<&str> = tag.split('"').step_by(2).collect();
        names.join("\"\"")
    })
    .collect()
}

#[test]
fn the_page_is_one_file_in_which_foreign_text_does_nothing() {
    let harmless = skeleton(&page_of("flow"));
    assert!(harmless.len() > 150 && harmless.iter().any(|tag| tag.starts_with("path class")), "{harmless:?}");
    for text in NAUGHTY {
        let page = page_of(text);
        assert_eq!(skeleton(&page), harmless, "{text}");
        let places = ["href", "src", "url", "xlink"].map(|word| format!("{word}=\""));
        let links = places.iter().flat_map(|p| page.split(p.as_str()).skip(1));
        let is_known = |l: &str| l.starts_with('#') || l.starts_with("normalized_metrics.csv\"");
        assert!(links.clone().count() > 0 && links.into_iter().all(is_known), "{text}");
        for banned in ["<script", "\u{202e}", "\u{202b}", "\x1b", "\u{0}", "NaN", "=\"'"] {
            assert!(!page.contains(banned), "{banned} of {text}");
        }
    }
    let page = page_of(NAUGHTY[0]);
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
    let order: Vec<usize> =
        ["Flagged series<", "id=\"series-1\"", "id=\"series-2\"", "as expected<", "<h3>flow{asset=p2}"]
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
    assert_eq!((r.decisions.len(), r.left_out.decisions, r.series.len()), (MAX_LISTED_DECISIONS, 200, 300));
    let tracks: Vec<SeriesTrack> = many.iter().map(|s| track(s, vec![])).collect();
    let page = render(&r, &tracks);
    assert_eq!(page.matches("role=\"img\"").count(), html::MAX_FLAGGED_CHARTS);
    for left_out in [
        "<li>200 flagged series are not in the table;",
        "<li>260 flagged series have no chart;",
        "<li>1000 decisions are not listed;",
    ] {
        assert!(page.contains(left_out), "{left_out}");
    }
    assert!(page.len() < 3_000_000, "{}", page.len());
}

#[test]
fn the_page_of_reports_has_the_limits_that_hold() {
    let page = include_str!("../../../../docs/reference/reports.md");
    for (what, most) in [
        ("Flagged series with a chart", html::MAX_FLAGGED_CHARTS),
        ("Series as expected with a chart", html::MAX_OTHER_CHARTS),
        ("Flagged series in the table", html::MAX_SERIES_ROWS),
        ("Points of a chart", chart::MAX_POINTS),
        ("Flagged times of a chart", chart::MAX_SPANS),
        ("Rows of numbers below a chart", html::MAX_TABLE_ROWS),
        ("Decisions", html::MAX_DECISION_ROWS),
        ("Cases", MAX_LISTED_CASES),
        ("Decisions that series are summed up from", tally::KEPT_MAX),
        ("Windows of series that charts are drawn from", WINDOWS_MAX),
    ] {
        let digits = most.to_string();
        let grouped = match digits.len() {
            0..=3 => digits,
            n => format!("{},{}", &digits[..n - 3], &digits[n - 3..]),
        };
        assert!(page.contains(&format!("\n| {what} | {grouped} |")), "{what}: {grouped}");
    }
    assert!(page.contains("the JSON lists 1,000") && MAX_LISTED_DECISIONS == 1_000 && MAX_LISTED_SERIES == 1_000);
    let headings = page.lines().filter(|l| l.starts_with("| ") && l.matches('|').count() == 4).count();
    assert_eq!(headings, 11, "a limit that nothing holds");
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
    for (value, want) in
        [(66.641, "66.64"), (0.764_596, "0.7646"), (2_949.9, "2950"), (123_456.7, "123457"), (-1.0, "-1")]
    {
        assert_eq!(short(value), want);
    }
}
