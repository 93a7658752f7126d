//! The screen: one look at the daemon, and what changed since the look before.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};
use serde_json::Value;

use crate::diagnostic::neutralise;

/// Lines of sources and alerts before the windows get the rest.
const SOURCES_MAX: u16 = 12;
const ALERTS_MAX: u16 = 10;

pub(super) struct Screen {
    now: Value,
    sources: Vec<Source>,
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
    pub(super) fn of(before: Option<Screen>, now: Value, between: Duration) -> Screen {
        let mut sources: Vec<Source> = Vec::new();
        for (name, value) in now["daemon"]["sources"].as_object().into_iter().flatten() {
            let earlier = before.as_ref().and_then(|b| b.sources.iter().find(|s| s.name == *name));
            sources.push(Source::of(name, value, earlier, between.as_secs_f64()));
        }
        Screen { now, sources }
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let rows = |n: usize, most: u16| (u16::try_from(n).unwrap_or(most)).min(most) + 2;
        let alerts = self.list("alerts").len().max(1);
        let [head, sources, firing, windows, foot] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Length(rows(self.sources.len(), SOURCES_MAX)),
            Constraint::Length(rows(alerts, ALERTS_MAX)),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(), head);
        self.draw_sources(frame, sources);
        self.draw_alerts(frame, firing);
        self.draw_windows(frame, windows);
        frame.render_widget(Paragraph::new("q ends").style(dim()), foot);
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

    fn head(&self) -> Paragraph<'_> {
        let daemon = &self.now["daemon"];
        let is_ready = daemon["ready"] == true;
        let status = Style::new().fg(if is_ready { Color::Green } else { Color::Yellow }).add_modifier(Modifier::BOLD);
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

    fn draw_sources(&self, frame: &mut Frame<'_>, area: Rect) {
        let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |r| format!("{r:.0}"));
        let rows = self.sources.iter().map(|s| {
            let colour = if s.state == "up" { Color::Green } else { Color::Yellow };
            Row::new([
                Cell::new(s.name.clone()),
                Cell::new(Span::styled(s.state.clone(), Style::new().fg(colour))),
                Cell::new(s.lag.clone()),
                Cell::new(s.queue.to_string()),
                Cell::new(rate(s.frame_rate)),
                Cell::new(rate(s.sample_rate)),
                Cell::new(s.rejects.to_string()),
                Cell::new(s.fault.clone()),
            ])
        });
        let head = ["source", "state", "lag", "queue", "frames/s", "samples/s", "rejects", ""];
        let widths = [16, 9, 10, 7, 9, 10, 8].map(Constraint::Length).into_iter().chain([Constraint::Min(0)]);
        let table =
            Table::new(rows, widths).header(Row::new(head).style(dim())).block(Block::new().borders(Borders::TOP));
        frame.render_widget(table, area);
    }

    fn draw_alerts(&self, frame: &mut Frame<'_>, area: Rect) {
        let alerts = self.list("alerts");
        let rows = alerts.iter().map(|a| {
            let severity = of(a, "severity");
            let style = Style::new().fg(colour(&severity));
            let issue = of(a, "reason");
            Row::new([
                Cell::new(Span::styled(severity, style)),
                Cell::new(of(a, "asset")),
                Cell::new(of(a, "check")),
                Cell::new(span(a["age_sec"].as_u64().unwrap_or_default())),
                Cell::new(issue),
            ])
        });
        let title = format!(" {} alerts fire ", alerts.len());
        let widths = [9, 16, 12, 9].map(Constraint::Length).into_iter().chain([Constraint::Min(0)]);
        frame.render_widget(Table::new(rows, widths).block(Block::new().borders(Borders::TOP).title(title)), area);
    }

    fn draw_windows(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.list("windows").iter().map(|w| {
            let status = of(w, "status");
            let style = Style::new().fg(colour(&status));
            Row::new([
                Cell::new(of(w, "end")),
                Cell::new(Span::styled(status, style)),
                Cell::new(of(w, "asset")),
                Cell::new(of(w, "check")),
                Cell::new(of(w, "decision")),
                Cell::new(of(w, "reason")),
            ])
        });
        let widths = [24, 8, 16, 12, 13].map(Constraint::Length).into_iter().chain([Constraint::Min(0)]);
        let block = Block::new().borders(Borders::TOP).title(" windows with findings, newest first ");
        frame.render_widget(Table::new(rows, widths).block(block), area);
    }

    fn list(&self, key: &str) -> &[Value] {
        array(&self.now[key])
    }
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
            lag: value["lag_sec"].as_f64().map_or_else(|| "-".to_owned(), |sec| format!("{sec:.1} s")),
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
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
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
        let mut terminal = Terminal::new(TestBackend::new(110, 20)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..110).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..20).map(line).collect::<Vec<_>>().join("\n")
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
            " 1 alerts fire ",
            "FAIL      press-03         shock        2 h       speed is stuck at 2094 1/min",
            "2026-03-03T14:10:00Z     DRIFT    press-03         shock        9f05d3dbc131  speed is stuck",
        ] {
            assert!(shown.contains(expected), "`{expected}` is not in\n{shown}");
        }
        assert!(!shown.contains('\u{1b}') && !screen.text().contains('\u{1b}'), "escapes of telemetry");
    }

    #[test]
    fn a_small_terminal_breaks_nothing() {
        let screen = Screen::of(None, now(1), Duration::ZERO);
        for (width, height) in [(1, 1), (20, 4), (80, 8)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| screen.draw(frame)).unwrap();
        }
        assert!(drawn(&Screen::of(None, Value::Null, Duration::ZERO)).contains("0 alerts fire"));
    }
}
