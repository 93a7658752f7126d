//! A strict reader of metrics: it accepts what the two formats demand, and nothing that only some readers forgive.

use std::collections::{BTreeMap, BTreeSet};

/// Reads OpenMetrics 1.0; all series with their values.
pub(super) fn open_metrics(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("the end is not marked: {text}"));
    assert!(!body.contains("# EOF"), "more than one end");
    read(body, true)
}

/// Reads the text format 0.0.4.
pub(super) fn prometheus(text: &str) -> BTreeMap<String, f64> {
    read(text, false)
}

/// A family whose lines are being read.
#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    has_help: bool,
    samples: usize,
    /// Upper bounds and counts so far.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    has_sum: bool,
}

fn read(text: &str, open: bool) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n') && !text.contains('\r') && !text.contains("\n\n"), "{text}");
    let (mut values, mut seen, mut family) = (BTreeMap::new(), BTreeSet::new(), Family::default());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            finish(&family);
            assert!(seen.insert(name.to_owned()), "two families `{name}`");
            assert!(!help.is_empty(), "{line}");
            family = Family { name: name.to_owned(), has_help: true, ..Family::default() };
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert!(family.has_help && family.name == name && family.kind.is_empty() && family.samples == 0, "{line}");
            let known: &[&str] =
                if open { &["counter", "gauge", "histogram", "info"] } else { &["counter", "gauge", "histogram"] };
            assert!(known.contains(&kind), "{line}");
            kind.clone_into(&mut family.kind);
        } else {
            assert!(!line.starts_with('#'), "{line}");
            let (name, labels, value) = sample(line);
            belongs(&mut family, &name, &labels, value, open, line);
            let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
            let series = if labels.is_empty() { name } else { format!("{name}{{{}}}", labels.join(",")) };
            assert!(values.insert(series, value).is_none(), "twice: {line}");
        }
    }
    finish(&family);
    values
}

/// The suffix fits the kind, and the value what the suffix means.
fn belongs(family: &mut Family, name: &str, labels: &[(String, String)], value: f64, open: bool, line: &str) {
    let suffix = name.strip_prefix(&family.name).unwrap_or_else(|| panic!("`{line}` in family `{}`", family.name));
    let has_le = labels.iter().any(|l| l.0 == "le");
    match (family.kind.as_str(), suffix) {
        ("counter", suffix) => {
            assert_eq!(suffix, if open { "_total" } else { "" }, "{line}");
            assert!(name.ends_with("_total"), "{line}");
        }
        ("info", "_info") => assert!((value - 1.0).abs() < f64::EPSILON, "{line}"),
        ("gauge", "") => {}
        ("histogram", "_bucket") => {
            let le = labels
                .iter()
                .find(|l| l.0 == "le")
                .map(|l| if l.1 == "+Inf" { f64::INFINITY } else { l.1.parse().unwrap() });
            let le = le.unwrap_or_else(|| panic!("no bound: {line}"));
            assert!(family.buckets.last().is_none_or(|last| last.0 < le && last.1 <= value), "not in order: {line}");
            family.buckets.push((le, value));
        }
        ("histogram", "_count") => family.count = Some(value),
        ("histogram", "_sum") => family.has_sum = true,
        other => panic!("{other:?}: {line}"),
    }
    assert!(!has_le || suffix == "_bucket", "{line}");
    assert!(value.is_finite() && (family.kind == "gauge" || value >= 0.0), "{line}");
    family.samples += 1;
}

fn finish(family: &Family) {
    if family.name.is_empty() {
        return;
    }
    assert!(!family.kind.is_empty() && family.samples > 0, "`{}` has no type or no series", family.name);
    if family.kind == "histogram" {
        let last = family.buckets.last().copied();
        assert_eq!(last.map(|b| b.0), Some(f64::INFINITY), "{}", family.name);
        assert!(family.has_sum && last.map(|b| b.1) == family.count, "{}", family.name);
    }
}

/// Name, labels and value of `name{a="b"} 1`.
fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let name = &line[..end];
    assert!(is_name(name), "{line}");
    let (labels, rest) = match line[end..].strip_prefix('{') {
        Some(rest) => labels(rest, line),
        None => (Vec::new(), &line[end..]),
    };
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    assert!(!value.contains(' '), "a time or more: {line}");
    (name.to_owned(), labels, value.parse().unwrap_or_else(|e| panic!("{e}: {line}")))
}

/// Labels up to the brace that ends them, and what stands behind it.
fn labels<'a>(mut rest: &'a str, line: &str) -> (Vec<(String, String)>, &'a str) {
    let mut labels: Vec<(String, String)> = Vec::new();
    loop {
        let (key, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(key) && !key.contains(':') && labels.iter().all(|l| l.0 != key), "{line}");
        let mut value = String::new();
        let mut letters = behind.char_indices();
        let end = loop {
            match letters.next() {
                Some((at, '"')) => break at,
                Some((_, '\\')) => match letters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    other => panic!("{other:?}: {line}"),
                },
                Some((_, c)) => value.push(c),
                None => panic!("{line}"),
            }
        };
        labels.push((key.to_owned(), value));
        rest = &behind[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (labels, rest.strip_prefix('}').unwrap_or_else(|| panic!("{line}"))),
        }
    }
}

fn is_name(text: &str) -> bool {
    let is = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | ':');
    text.starts_with(is) && text.chars().all(|c| is(c) || c.is_ascii_digit())
}

#[test]
fn the_reader_is_strict() {
    let good = "# HELP a A.\n# TYPE a counter\na_total{x=\"1\\\"\"} 2\n# HELP h H.\n# TYPE h histogram\nh_sum 1\nh_count 3\n\
                h_bucket{le=\"1.0\"} 2\nh_bucket{le=\"+Inf\"} 3\n# EOF\n";
    assert_eq!(open_metrics(good).len(), 5);
    for (from, to) in [
        ("# EOF\n", ""),
        ("a_total{", "a{"),
        ("a counter", "a gauge"),
        ("le=\"+Inf\"} 3", "le=\"+Inf\"} 4"),
        ("le=\"1.0\"} 2", "le=\"1.0\"} 4"),
        ("x=\"1\\\"\"", "x=\"1\\t\""),
        ("x=\"1\\\"\"", "x=\"1\",x=\"2\""),
        ("# HELP h H.\n", ""),
        ("a_total{x=\"1\\\"\"} 2\n", ""),
        ("} 2\n#", "} two\n#"),
        ("h_sum 1\n", "h_sum 1\nh_sum 1\n"),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replacen(from, to, 1);
        assert!(std::panic::catch_unwind(|| open_metrics(&bad)).is_err(), "{bad}");
    }
}
