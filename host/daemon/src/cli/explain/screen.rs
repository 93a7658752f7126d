//! A decision on a terminal: as wide as it is, in colours where there are some, and never by colour alone.

use std::cmp::Ordering;

use hb_engine::decision::{Mode, Status};
use hb_log::pack::root_name;

use super::super::screen::Screen;
use super::{Explained, Point, Told};
use crate::diagnostic::neutralise;
use crate::report::{Range, age, moment, moments, short};

/// Column in which what is said of a name begins.
const INDENT: usize = 14;

/// Levels of a sparkline, the lowest first.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The whole of it.
pub(super) fn draw(e: &Explained, screen: Screen) -> String {
    let mut page = Page { screen, text: String::new() };
    let (check, asset) = (neutralise(&e.check), neutralise(&e.asset));
    let window = moments(&e.window.start, &e.window.end);
    page.headed(e.status, &format!("check {check} on {asset}, {window}"));
    page.row("decision", &e.decision);
    page.row("before", &format!("{} in the window before", e.previous));
    if let Some(severity) = e.severity {
        page.row("severity", severity.as_str());
    }
    if e.mode != Mode::Nominal {
        page.row("mode", e.mode.as_str());
    }
    let c = &e.counts;
    page.row("judged", &format!("{} series, {} samples", c.series, c.samples));
    if e.findings.is_empty() {
        page.row("found", "nothing: every series was within limits");
    }
    for told in &e.findings {
        page.blank();
        finding(&mut page, told);
    }
    if e.findings_left_out > 0 {
        page.row(
            "left out",
            &format!("{} more findings; `--json` has no more either, the log has all", e.findings_left_out),
        );
    }
    page.blank();
    proof(&mut page, e);
    page.text
}

fn finding(page: &mut Page, told: &Told) {
    let f = &told.finding;
    let share = short((f.contribution * 1000.0).round() / 10.0);
    page.headed(f.status, &format!("{}, {share} % of what was found", neutralise(&told.label)));
    if !f.reason.is_empty() {
        page.row("why", &neutralise(&f.reason));
    }
    let version = told.rule_version.as_ref().map_or(String::new(), |v| format!(" {}", neutralise(v)));
    let source = told.rule_source.map_or(String::new(), |s| format!(", source {}", s.short()));
    page.row("rule", &format!("{}{version}{source}", neutralise(&f.rule)));
    if let Some(value) = f.value {
        let limit = f.limit.map_or(String::new(), |limit| format!(", limit {}", short(limit)));
        let margin = f.margin.map_or(String::new(), |m| match m.total_cmp(&0.0) {
            Ordering::Greater => format!(", {} beyond it", short(m)),
            Ordering::Equal => ", just at it".into(),
            Ordering::Less => format!(", {} within it", short(-m)),
        });
        page.row("value", &format!("{}{limit}{margin}", short(value)));
    }
    let unit = if f.series.unit.is_empty() { String::new() } else { format!(" {}", neutralise(&f.series.unit)) };
    let observed = f.observed.map_or("no samples".into(), |v| format!("{}{unit}", short(v)));
    let expected = f.expected.map_or("no baseline".into(), |v| format!("normal {}{unit}", short(v)));
    page.row("observed", &format!("{observed}, {expected}"));
    if let Some(b) = &told.band {
        page.row("baseline", &format!("nine of ten values from {} to {}{unit}", short(b.p05), short(b.p95)));
    }
    let limit = |word: &str, r: Option<Range>| {
        r.map(|r| format!("{word} below {} and above {}{unit}", short(r.low), short(r.high)))
    };
    let limits = [limit("DRIFT", told.limits.drift), limit("FAIL", told.limits.fail)];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    if !limits.is_empty() {
        page.row("limits", &limits.join("; "));
    }
    values(page, &told.points, &unit);
}

/// The series over time, one sign a window, and below it which windows were flagged.
fn values(page: &mut Page, points: &[Point], unit: &str) {
    let [first, .., last] = points else { return };
    let room = page.screen.columns.saturating_sub(INDENT).max(1);
    let cells: Vec<Cell> = points.chunks(points.len().div_ceil(room).max(1)).map(Cell::of).collect();
    let means = points.iter().filter_map(|p| p.mean);
    let low = means.clone().fold(f64::INFINITY, f64::min);
    let high = means.fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return;
    }
    let line: String = cells.iter().map(|c| page.painted(c.status, &c.sign(low, high).to_string())).collect();
    page.line(&format!("  {:width$}{line}", "values", width = INDENT - 2));
    if cells.iter().any(|c| c.status != Status::Pass) {
        let marks: String = cells.iter().map(|c| page.painted(c.status, mark(c.status))).collect();
        page.line(format!("  {:width$}{marks}", "flagged", width = INDENT - 2).trim_end());
        page.row("", "^ FAIL  ~ DRIFT  ! ERROR  ? NO_DATA");
    }
    let windows = if cells.len() == points.len() { "one sign a window" } else { "several windows a sign" };
    let time = if first.end_ns == last.end_ns { moment(&last.end) } else { moments(&first.end, &last.end) };
    page.row("", &format!("from {} to {}{unit}, {windows}, {time}", short(low), short(high)));
}

fn proof(page: &mut Page, e: &Explained) {
    if let Some(b) = &e.baseline {
        let span = b.span.as_ref().map_or(String::new(), |s| format!(", of {}", moments(&s.start, &s.end)));
        let old = b.age_sec.map_or(String::new(), |sec| format!(", {} old", age(sec)));
        page.row("baseline", &format!("{} v{} {}{span}{old}", neutralise(&b.tag), b.version, b.hash.short()));
    } else {
        page.row("baseline", "none");
    }
    if let Some(frames) = &e.inputs.frames {
        for (source, r) in frames {
            let source = neutralise(source);
            page.row("frames", &format!("{} of source {source}, from #{} to #{}", r.count, r.first, r.last));
        }
    }
    let (n, snapshot, journal) = (e.inputs.inputs, e.inputs.snapshot.short(), e.inputs.journal.short());
    page.row("inputs", &format!("{n} since snapshot {snapshot}, journal {journal}"));
    if let Some(hash) = e.generation {
        let others = match e.generations.len() - 1 {
            0 => String::new(),
            others => format!(", {others} before it fed the window"),
        };
        page.row("generation", &format!("{}{others}, engine {}", hash.short(), neutralise(&e.engine)));
    }
    match &e.log {
        Some(log) => {
            page.row("log", &format!("entry {} of {}; `hb log verify` checks all of them", log.entry, log.size));
        }
        None => page.row("log", "no entry of its own: an unchanged PASS is there by its hash"),
    }
    if let Some(alert) = &e.alert {
        let until = alert.ends_at.as_ref().map_or("it still fires".into(), |end| format!("until {}", moment(end)));
        let (severity, start) = (alert.severity.as_str(), moment(&alert.starts_at));
        page.row("alert", &format!("{} {severity} since {start}, {until}", alert.fingerprint));
    }
    if let Some(case) = &e.case {
        let id = neutralise(&case.id);
        page.row("case", &format!("{id}{}", if case.packed { ", its evidence is packed" } else { "" }));
        if let Some(pack) = &e.pack {
            page.row("", &format!("hb replay {}", neutralise(pack)));
        } else {
            page.row("", &format!("hb export evidence-pack --case {id} --out packs"));
            page.row("", &format!("hb replay packs/{}", root_name(&id)));
        }
    }
    if let Some(why) = &e.no_values {
        page.row("no values", &neutralise(why));
    }
}

/// Windows that share one sign.
struct Cell {
    mean: Option<f64>,
    status: Status,
}

impl Cell {
    fn of(points: &[Point]) -> Cell {
        let means: Vec<f64> = points.iter().filter_map(|p| p.mean).collect();
        let mean = (!means.is_empty()).then(|| means.iter().sum::<f64>() / means.len() as f64);
        Cell { mean, status: points.iter().map(|p| p.status).max().unwrap_or(Status::Pass) }
    }

    /// Its sign between the lowest and the highest mean; a space where there were no samples.
    fn sign(&self, low: f64, high: f64) -> char {
        let Some(mean) = self.mean else { return ' ' };
        if high <= low {
            return LEVELS[LEVELS.len() / 2];
        }
        let share = (mean / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
        LEVELS[((share * LEVELS.len() as f64) as usize).min(LEVELS.len() - 1)]
    }
}

fn mark(status: Status) -> &'static str {
    match status {
        Status::Pass => " ",
        Status::Drift => "~",
        Status::Fail => "^",
        Status::NoData => "?",
        Status::Error => "!",
    }
}

/// What is drawn on.
struct Page {
    screen: Screen,
    text: String,
}

impl Page {
    /// A line that begins with a status; what does not fit is indented.
    fn headed(&mut self, status: Status, text: &str) {
        let word = self.painted(status, &format!("{:7}", status.as_str()));
        for (i, part) in wrapped(text, self.screen.columns.saturating_sub(8)).into_iter().enumerate() {
            let lead = if i == 0 { format!("{word} ") } else { " ".repeat(8) };
            let part = self.styled("1", &part);
            self.line(&format!("{lead}{part}"));
        }
    }

    /// A name and what is said of it.
    fn row(&mut self, name: &str, text: &str) {
        for (i, part) in wrapped(text, self.screen.columns.saturating_sub(INDENT)).into_iter().enumerate() {
            let name = if i == 0 { name } else { "" };
            let lead = self.styled("2", &format!("{name:width$}", width = INDENT - 2));
            self.line(&format!("  {lead}{part}"));
        }
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    fn painted(&self, status: Status, text: &str) -> String {
        let code = match status {
            Status::Pass => "32",
            Status::Drift => "33",
            Status::Fail => "31",
            Status::NoData => "36",
            Status::Error => "35",
        };
        self.styled(code, text)
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.screen.colour && !text.trim().is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Text in lines of at most so many characters, broken between words where that is possible.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(8);
    let (mut lines, mut line, mut length) = (Vec::new(), String::new(), 0);
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + word.len() > columns {
            lines.push(std::mem::take(&mut line));
            length = 0;
        } else if length > 0 {
            line.push(' ');
            length += 1;
        }
        while word.len() > columns {
            let rest = word.split_off(columns);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        length += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_no_line_is_too_long() {
        for (text, columns, want) in [
            ("one two three", 8, vec!["one two", "three"]),
            ("one", 8, vec!["one"]),
            ("", 8, vec![""]),
            ("a 123456789012 b", 8, vec!["a", "12345678", "9012 b"]),
            ("größe größe", 8, vec!["größe", "größe"]),
        ] {
            assert_eq!(wrapped(text, columns), want, "{text}");
        }
    }

    #[test]
    fn signs_follow_the_mean_and_odd_shorts_have_one_too() {
        let sign = |mean: Option<f64>, low, high| Cell { mean, status: Status::Pass }.sign(low, high);
        let line: String = (0..8).map(|i| sign(Some(f64::from(i)), 0.0, 7.0)).collect();
        assert_eq!(line, "▁▂▃▄▅▆▇█");
        assert_eq!((sign(None, 0.0, 1.0), sign(Some(5.0), 5.0, 5.0)), (' ', '▅'));
        assert_eq!((sign(Some(-1e308), -1e308, 1e308), sign(Some(1e308), -1e308, 1e308)), ('▁', '█'));
    }
}
