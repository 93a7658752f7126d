//! The screen: one look at the daemon, and what changed since the look before.

use std::ops::Range;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, Widget as _};
use serde_json::Value;

use crate::diagnostic::neutralise;

/// Lines that are always there: the head, the foot, and of the windows their title and two of them.
const HEAD: u16 = 3;
const FOOT: u16 = 1;
const WINDOWS: u16 = 3;

/// Lines of the sources and of the alerts besides one for each: a title, and the names of columns.
const SOURCES: u16 = 2;
const ALERTS: u16 = 1;

/// Rows that a page goes on by.
const PAGE: usize = 10;

/// A look at the daemon.
pub(in crate::cli) struct Screen {
    now: Value,
    sources: Vec<Source>,
}

/// How a screen is shown, which the daemon does not know.
pub(in crate::cli) struct View {
    /// Whether there are colours.
    pub(in crate::cli) colour: bool,
    /// What stands below all of it.
    pub(in crate::cli) foot: &'static str,
    /// That the daemon does not answer, since when and why.
    pub(in crate::cli) silence: Option<String>,
    /// The list that keys move.
    focus: Part,
    /// Rows of each list that were scrolled away.
    above: [usize; Part::ALL.len()],
}

/// A list on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Sources,
    Alerts,
    Windows,
}

impl Part {
    const ALL: [Part; 3] = [Part::Sources, Part::Alerts, Part::Windows];
}

/// A source with its rates.
struct Source {
    name: String,
    state: String,
    fault: String,
    lag: String,
    queue: u64,
    frames: u64,
    samples: u64,
    rejects: u64,
    /// Since the look before, in each second.
    frame_rate: Option<f64>,
    sample_rate: Option<f64>,
}

impl Screen {
    /// A look, and the one before it with the time between them.
    pub(in crate::cli) fn of(before: Option<Screen>, now: Value, between: Duration) -> Screen {
        let mut sources: Vec<Source> = Vec::new();
        for (name, value) in now["daemon"]["sources"].as_object().into_iter().flatten() {
            let earlier = before.as_ref().and_then(|b| b.sources.iter().find(|s| s.name == *name));
            sources.push(Source::of(name, value, earlier, between.as_secs_f64()));
        }
        Screen { now, sources }
    }

    /// Draws it; lists that are longer than their place end with how many more there are.
    pub(in crate::cli) fn draw(&self, area: Rect, buf: &mut Buffer, view: &mut View) {
        let (sources, alerts) = share(area.height, self.sources.len(), self.list("alerts").len());
        let [head, sources, alerts, windows, foot] = Layout::vertical([
            Constraint::Length(HEAD),
            Constraint::Length(SOURCES + sources),
            Constraint::Length(ALERTS + alerts),
            Constraint::Min(WINDOWS),
            Constraint::Length(FOOT),
        ])
        .areas(area);
        self.head(view).render(head, buf);
        self.draw_sources(sources, buf, view);
        self.draw_alerts(alerts, buf, view);
        self.draw_windows(windows, buf, view);
        view.foot().render(foot, buf);
    }

    /// The same for a pipe.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n", self.status());
        for s in &self.sources {
            let Source { name, state, lag, queue, frames, samples, rejects, .. } = s;
            text.push_str(&format!(
                "source {name}: {state}, lag {lag}, queue {queue}, {frames} frames, {samples} samples, {rejects} rejects\n"
            ));
        }
        for a in self.list("alerts") {
            text.push_str(&format!(
                "alert {} {} {} {}\n",
                of(a, "severity"),
                of(a, "asset"),
                of(a, "check"),
                of(a, "reason")
            ));
        }
        for w in self.list("windows") {
            let names = ["end", "status", "check", "asset", "decision", "reason"].map(|key| of(w, key));
            text.push_str(&format!("window {}\n", names.join(" ").trim_end()));
        }
        text
    }

    /// One sentence.
    fn status(&self) -> String {
        let daemon = &self.now["daemon"];
        let reasons: Vec<String> =
            array(&daemon["reasons"]).iter().map(|r| format!("{}: {}", of(r, "what"), of(r, "why"))).collect();
        let ready = if reasons.is_empty() { "ready".to_owned() } else { format!("not ready, {}", reasons.join("; ")) };
        format!("program {}, generation {}, {ready}", of(&self.now, "program"), of(&self.now["generation"], "name"))
    }

    fn head(&self, view: &View) -> Paragraph<'_> {
        let daemon = &self.now["daemon"];
        let is_ready = daemon["ready"] == true;
        let status = view.paint(if is_ready { Color::Green } else { Color::Yellow }).add_modifier(Modifier::BOLD);
        let count = |status: &str| daemon["decisions"][status].as_u64().unwrap_or_default();
        let counts = ["PASS", "NO_DATA", "DRIFT", "ERROR", "FAIL"].map(|s| format!("{s} {}", count(s))).join("  ");
        let quantile =
            |of: &str| daemon[of]["0.99"].as_f64().map_or_else(|| "-".to_owned(), |sec| format!("{:.0} ms", sec * 1e3));
        let latency = format!(
            "decisions  {counts}   p99 {}   commits p99 {}",
            quantile("decision_latency_sec"),
            quantile("commit_latency_sec")
        );
        let generation = &self.now["generation"];
        let since =
            format!("since {} by {}: {}", of(generation, "since"), of(generation, "by"), of(generation, "reason"));
        let facts = format!(
            "up {}   log {}   state {:.1} MB   {since}",
            span(daemon["uptime_sec"].as_u64().unwrap_or_default()),
            daemon["log_entries"].as_u64().unwrap_or_default(),
            daemon["state_bytes"].as_f64().unwrap_or_default() / 1e6,
        );
        Paragraph::new(vec![Line::styled(self.status(), status), Line::raw(latency), Line::styled(facts, dim())])
    }

    fn draw_sources(&self, area: Rect, buf: &mut Buffer, view: &mut View) {
        let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |r| format!("{r:.0}"));
        let row = |s: &Source| {
            let state = view.paint(if s.state == "up" { Color::Green } else { Color::Yellow });
            Row::new([
                Cell::new(s.name.clone()),
                Cell::new(Span::styled(s.state.clone(), state)),
                Cell::new(s.lag.clone()),
                Cell::new(s.queue.to_string()),
                Cell::new(rate(s.frame_rate)),
                Cell::new(rate(s.sample_rate)),
                Cell::new(s.rejects.to_string()),
                Cell::new(s.fault.clone()),
            ])
        };
        let rows = self.sources.iter().map(row).collect();
        let names = ["", "state", "lag", "queue", "frames/s", "samples/s", "rejects", ""];
        let widths = [16, 9, 10, 7, 9, 10, 8].map(Constraint::Length).into_iter().chain([Constraint::Min(0)]);
        let table = List { part: Part::Sources, title: "sources", names: Some(Row::new(names)), rows };
        table.draw(widths, area, buf, view);
    }

    fn draw_alerts(&self, area: Rect, buf: &mut Buffer, view: &mut View) {
        let row = |a: &Value| {
            let severity = of(a, "severity");
            let style = view.paint(colour(&severity));
            Row::new([
                Cell::new(Span::styled(severity, style)),
                Cell::new(of(a, "asset")),
                Cell::new(of(a, "check")),
                Cell::new(span(a["age_sec"].as_u64().unwrap_or_default())),
                Cell::new(of(a, "reason")),
            ])
        };
        let rows = self.list("alerts").iter().map(row).collect();
        let widths = [9, 16, 12, 9].map(Constraint::Length).into_iter().chain([Constraint::Min(0)]);
        let table = List { part: Part::Alerts, title: "firing alerts", names: None, rows };
        table.draw(widths, area, buf, view);
    }

    fn draw_windows(&self, area: Rect, buf: &mut Buffer, view: &mut View) {
        let row = |w: &Value| {
            let status = of(w, "status");
            let style = view.paint(colour(&status));
            Row::new([
                Cell::new(of(w, "end")),
                Cell::new(Span::styled(status, style)),
                Cell::new(of(w, "asset")),
                Cell::new(of(w, "check")),
                Cell::new(of(w, "decision")),
                Cell::new(of(w, "reason")),
            ])
        };
        let rows = self.list("windows").iter().map(row).collect();
        let widths = [20, 8, 16, 12, 13].map(Constraint::Length).into_iter().chain([Constraint::Min(0)]);
        let table = List { part: Part::Windows, title: "windows with findings, newest first", names: None, rows };
        table.draw(widths, area, buf, view);
    }

    fn list(&self, key: &str) -> &[Value] {
        array(&self.now[key])
    }
}

/// A list in its place.
struct List<'a> {
    part: Part,
    title: &'a str,
    names: Option<Row<'a>>,
    rows: Vec<Row<'a>>,
}

impl List<'_> {
    fn draw(self, widths: impl IntoIterator<Item = Constraint>, area: Rect, buf: &mut Buffer, view: &mut View) {
        let count = self.rows.len();
        let room = area.height.saturating_sub(1 + u16::from(self.names.is_some()));
        let shown = view.shown(self.part, count, room.into());
        let from = if shown.start > 0 { format!(", from {}", shown.start + 1) } else { String::new() };
        let title = Span::styled(format!(" {}: {count}{from} ", self.title), view.title(self.part));
        let block = Block::new().borders(Borders::TOP).title(title);
        let inside = block.inner(area);
        let left = count - shown.end;
        let mut table = Table::new(self.rows.into_iter().skip(shown.start).take(shown.len()), widths).block(block);
        if let Some(names) = self.names {
            table = table.header(names.style(dim()));
        }
        table.render(area, buf);
        if left > 0 && inside.height > 0 {
            let last = Rect { y: inside.bottom() - 1, height: 1, ..inside };
            Line::styled(format!("and {left} more"), dim()).render(last, buf);
        }
    }
}

impl View {
    pub(in crate::cli) fn new(colour: bool, foot: &'static str) -> View {
        View { colour, foot, silence: None, focus: Part::Windows, above: [0; Part::ALL.len()] }
    }

    /// Moves a list, or goes to the next one.
    pub(super) fn press(&mut self, key: KeyCode) {
        let above = &mut self.above[self.focus as usize];
        match key {
            KeyCode::Tab => {
                self.focus = Part::ALL[(self.focus as usize + 1) % Part::ALL.len()];
            }
            KeyCode::Down => *above += 1,
            KeyCode::Up => *above = above.saturating_sub(1),
            KeyCode::PageDown => *above += PAGE,
            KeyCode::PageUp => *above = above.saturating_sub(PAGE),
            KeyCode::Home => *above = 0,
            _ => {}
        }
    }

    /// The rows of a list for which there is room; where not all of the rest are, the last line tells how many more.
    fn shown(&mut self, part: Part, count: usize, room: usize) -> Range<usize> {
        let above = &mut self.above[part as usize];
        *above = (*above).min(count.saturating_sub(room));
        let rest = count - *above;
        *above..*above + if rest > room { room.saturating_sub(1) } else { rest }
    }

    fn title(&self, part: Part) -> Style {
        if self.focus == part { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() }
    }

    fn foot(&self) -> Line<'_> {
        match &self.silence {
            Some(why) => Line::styled(why.as_str(), self.paint(Color::Yellow).add_modifier(Modifier::BOLD)),
            None => Line::styled(self.foot, dim()),
        }
    }

    /// A colour, where there are any.
    fn paint(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}

/// Lines for sources and for alerts on a screen of this height: what the one does not need the other may have.
fn share(height: u16, sources: usize, alerts: usize) -> (u16, u16) {
    let room = height.saturating_sub(HEAD + FOOT + SOURCES + ALERTS + WINDOWS);
    let [sources, alerts] = [sources, alerts].map(|rows| u16::try_from(rows).unwrap_or(room).min(room));
    let sources = sources.min((room / 2).max(room - alerts));
    (sources, alerts.min(room - sources))
}

impl Source {
    fn of(name: &str, value: &Value, before: Option<&Source>, between_sec: f64) -> Source {
        let taken = |key: &str| value["taken"][key].as_u64().unwrap_or_default();
        let (frames, samples) = (taken("frames"), taken("samples"));
        let rate = |now: u64, then: fn(&Source) -> u64| {
            let then = before.filter(|_| between_sec > 0.0).map(then)?;
            Some(now.saturating_sub(then) as f64 / between_sec)
        };
        Source {
            name: neutralise(name).into_owned(),
            state: of(value, "state"),
            fault: of(value, "fault"),
            lag: value["lag_sec"].as_f64().map_or_else(|| "-".to_owned(), lag),
            queue: value["queue_depth"].as_u64().unwrap_or_default(),
            frames,
            samples,
            rejects: taken("rejects"),
            frame_rate: rate(frames, |s| s.frames),
            sample_rate: rate(samples, |s| s.samples),
        }
    }
}

/// A text of telemetry or of a person: without what would move the cursor.
fn of(value: &Value, key: &str) -> String {
    neutralise(value[key].as_str().unwrap_or_default()).into_owned()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// Colour is never the only sign: the word stands beside it.
fn colour(word: &str) -> Color {
    match word {
        "CRITICAL" | "FAIL" | "ERROR" => Color::Red,
        "WARN" | "DRIFT" => Color::Yellow,
        _ => Color::Reset,
    }
}

/// A lag that is fine has tenths of a second; recorded telemetry may lag by months.
fn lag(sec: f64) -> String {
    if sec < 60.0 { format!("{sec:.1} s") } else { span(sec as u64) }
}

fn span(sec: u64) -> String {
    match sec {
        0..60 => format!("{sec} s"),
        60..3_600 => format!("{} min", sec / 60),
        3_600..86_400 => format!("{} h", sec / 3_600),
        _ => format!("{} d", sec / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now(frames: u64) -> Value {
        json!({
            "program": "plant",
            "generation": { "name": "483a447c086b", "since": "2026-03-02T00:00:00Z", "by": "hb", "reason": "start" },
            "daemon": {
                "ready": true, "reasons": [], "uptime_sec": 95, "log_entries": 12, "state_bytes": 2_500_000,
                "decisions": { "PASS": 7, "DRIFT": 1, "FAIL": 2 },
                "decision_latency_sec": { "0.99": 0.0123 }, "commit_latency_sec": {},
                "sources": { "machines": {
                    "state": "up", "lag_sec": 1.25, "queue_depth": 3,
                    "taken": { "frames": frames, "samples": 7 * frames, "rejects": 0 },
                } },
            },
            "alerts": [{ "severity": "FAIL", "asset": "press-03", "check": "shock", "age_sec": 7_300,
                "reason": "speed is stuck at 2094 1/min\u{1b}[2J" }],
            "windows": [{ "end": "2026-03-03T14:10:00Z", "status": "DRIFT", "check": "shock", "asset": "press-03",
                "decision": "9f05d3dbc131", "reason": "speed is stuck" }],
        })
    }

    fn drawn(screen: &Screen) -> String {
        shown(screen, &mut View::new(true, "q ends"), 24)
    }

    fn shown(screen: &Screen, view: &mut View, height: u16) -> String {
        let area = Rect::new(0, 0, 110, height);
        let mut buffer = Buffer::empty(area);
        screen.draw(area, &mut buffer, view);
        let line = |y| (0..110).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_screen_says_what_runs_what_comes_and_what_is_wrong() {
        let screen = Screen::of(Some(Screen::of(None, now(100), Duration::ZERO)), now(600), Duration::from_secs(2));
        let shown = drawn(&screen);
        for expected in [
            "program plant, generation 483a447c086b, ready",
            "PASS 7  NO_DATA 0  DRIFT 1  ERROR 0  FAIL 2   p99 12 ms   commits p99 -",
            "up 1 min   log 12   state 2.5 MB   since 2026-03-02T00:00:00Z by hb: start",
            "machines         up        1.2 s      3       250       1750       0",
            " firing alerts: 1 ",
            "FAIL      press-03         shock        2 h       speed is stuck at 2094 1/min",
            "2026-03-03T14:10:00Z DRIFT    press-03         shock        9f05d3dbc131  speed is stuck",
        ] {
            assert!(shown.contains(expected), "`{expected}` is not in\n{shown}");
        }
        assert!(!shown.contains('\u{1b}') && !screen.text().contains('\u{1b}'), "escapes of telemetry");
    }

    #[test]
    fn a_lag_fits_its_column_whatever_it_is() {
        assert_eq!([0.04, 59.96, 60.0, 22_849_485.0].map(lag), ["0.0 s", "60.0 s", "1 min", "264 d"]);
    }

    #[test]
    fn a_small_terminal_breaks_nothing() {
        let screen = Screen::of(None, now(1), Duration::ZERO);
        for (width, height) in [(0, 0), (1, 1), (20, 4), (80, 8)] {
            let area = Rect::new(0, 0, width, height);
            screen.draw(area, &mut Buffer::empty(area), &mut View::new(true, ""));
        }
        assert!(drawn(&Screen::of(None, Value::Null, Duration::ZERO)).contains("firing alerts: 0"));
    }
    /// Many sources, alerts and windows, numbered.
    fn many() -> Screen {
        let mut now = now(1);
        let source = now["daemon"]["sources"]["machines"].take();
        now["daemon"]["sources"] = (0..14).map(|n| (format!("source-{n:02}"), source.clone())).collect();
        for (list, count) in [("alerts", 14), ("windows", 30)] {
            let one = now[list][0].take();
            let numbered = |n| {
                let mut one = one.clone();
                one["asset"] = format!("{list}-{n:02}").into();
                one
            };
            now[list] = (0..count).map(numbered).collect();
        }
        Screen::of(None, now, Duration::ZERO)
    }

    #[test]
    fn what_has_no_room_is_counted_and_keys_reach_it() {
        let (screen, mut view) = (many(), View::new(true, "q ends"));
        let first = shown(&screen, &mut view, 24);
        for expected in ["source-00", "alerts-00", "windows-00", "and 8 more", "and 29 more", "q ends"] {
            assert!(first.contains(expected), "`{expected}` is not in\n{first}");
        }
        assert_eq!(first.matches(" more").count(), 3, "{first}");
        // To the end of each list, which is not gone beyond.
        for name in ["windows-29", "source-13", "alerts-13"] {
            (0..40).for_each(|_| view.press(KeyCode::Down));
            let last = shown(&screen, &mut view, 24);
            assert!(last.contains(name) && last.contains(", from "), "`{name}` is not in\n{last}");
            view.press(KeyCode::Up);
            assert!(!shown(&screen, &mut view, 24).contains(name), "a key up moves at once");
            view.press(KeyCode::Home);
            view.press(KeyCode::Tab);
        }
        assert_eq!(shown(&screen, &mut view, 24), first);
        assert!(!shown(&screen, &mut view, 80).contains(" more"), "there is room for all");
    }

    #[test]
    fn without_colours_nothing_is_painted() {
        let (screen, area) = (many(), Rect::new(0, 0, 110, 24));
        for colour in [true, false] {
            let (mut buffer, mut view) = (Buffer::empty(area), View::new(colour, ""));
            view.silence = Some("no answer for 3 s".to_owned());
            screen.draw(area, &mut buffer, &mut view);
            let is_painted = buffer.content().iter().any(|cell| cell.fg != Color::Reset);
            assert_eq!(is_painted, colour);
        }
    }
}
