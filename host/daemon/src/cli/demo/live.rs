//! What whoever watches sees: the lines of the play, and on a terminal, below them, how far the plant is and what
//! `hb top` shows of the daemon.

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use indicatif::ProgressBar;
use ratatui::backend::IntoCrossterm as _;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};

use super::super::top::screen::{Screen, View};
use super::super::top::{Look, looks};
use super::super::{progress, session};
use crate::cli::socket::Unanswered;
use crate::cli::{Failure, Global};

/// Lines that the daemon gets of a terminal: enough for what fires and for some windows.
const HEIGHT: u16 = 16;

/// Lines that are left to the play; on a terminal with fewer than both the daemon is not shown.
const PLAY: u16 = 8;

/// Time between two looks at the daemon.
const EVERY: Duration = Duration::from_millis(500);

pub(super) struct Live {
    bar: ProgressBar,
    top: Option<RefCell<Top>>,
}

/// The daemon as it was seen last.
struct Top {
    looks: Receiver<Look>,
    screen: Option<Screen>,
    looked: Instant,
    view: View,
}

impl Live {
    /// A play of so many steps, with the daemon that will run on this state.
    pub(super) fn start(global: &Global, state: &Path, steps: u64) -> Result<Live, Failure> {
        let bar = progress::steps_and_more("plant", steps);
        let is_tall = size().is_some_and(|(_, height)| height >= HEIGHT + PLAY);
        let top = if bar.is_hidden() || !is_tall {
            None
        } else {
            let view = View::new(global.coloured(), "Ctrl-C ends the demo");
            let looks = looks(state, global, EVERY)?;
            Some(RefCell::new(Top { looks, screen: None, looked: Instant::now(), view }))
        };
        Ok(Live { bar, top })
    }

    /// A line of the play, or several: they go by above what stays.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| session::say(session::Stream::Out, text));
    }

    /// The plant has made a step.
    pub(super) fn step(&self) {
        self.bar.inc(1);
    }

    /// Shows what the daemon has answered since the last time.
    pub(super) fn look(&self) {
        let (Some(top), Some((width, _))) = (&self.top, size()) else { return };
        let mut top = top.borrow_mut();
        if top.look() {
            self.bar.set_message(top.lines(width));
        }
    }

    /// Takes away what stays; from here on there are only lines.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

impl Top {
    /// Whether there is something new.
    fn look(&mut self) -> bool {
        let Some(look) = self.looks.try_iter().last() else { return false };
        match look {
            Ok(now) => {
                self.screen = Some(Screen::of(self.screen.take(), now, self.looked.elapsed()));
                (self.looked, self.view.silence) = (Instant::now(), None);
            }
            Err(Unanswered::Gone) => self.view.silence = Some("the daemon does not run".to_owned()),
            Err(Unanswered::Silent(why)) => self.view.silence = Some(why),
        }
        true
    }

    /// The screen as lines for a terminal of this width; none before the first answer.
    fn lines(&mut self, width: u16) -> String {
        let Some(screen) = &self.screen else { return String::new() };
        let area = Rect::new(0, 0, width, HEIGHT);
        let mut buffer = Buffer::empty(area);
        screen.draw(area, &mut buffer, &mut self.view);
        written(&buffer)
    }
}

/// Columns and lines of the terminal.
fn size() -> Option<(u16, u16)> {
    terminal_size::terminal_size().map(|(width, height)| (width.0, height.0))
}

/// What is drawn, as text with the escapes of a terminal.
fn written(buffer: &Buffer) -> String {
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(buffer.area.width).max(1)) {
        let blank = |cell: &Cell| cell.symbol() == " ";
        let end = row.iter().rposition(|cell| !blank(cell)).map_or(0, |at| at + 1);
        for part in row[..end].chunk_by(|a, b| (a.fg, a.modifier) == (b.fg, b.modifier)) {
            let plain: String = part.iter().map(Cell::symbol).collect();
            let (colour, modifier) = (part[0].fg, part[0].modifier);
            if colour == Color::Reset && modifier.is_empty() {
                text.push_str(&plain);
                continue;
            }
            let style = Style::new().add_modifier(modifier);
            let style = if colour == Color::Reset { style } else { style.fg(colour) };
            text.push_str(&style.into_crossterm().apply(plain).to_string());
        }
        text.push('\n');
    }
    text.trim_end_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use ratatui::style::Modifier;

    use super::*;

    #[test]
    fn what_is_drawn_is_written_with_its_colours() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 3));
        buffer.set_string(0, 0, "plain", Style::new());
        buffer.set_string(6, 0, "up", Style::new().fg(Color::Green).add_modifier(Modifier::BOLD));
        buffer.set_string(2, 1, "dim", Style::new().add_modifier(Modifier::DIM));
        let text = written(&buffer);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("plain \u{1b}[") && lines[0].contains("up\u{1b}["), "{lines:?}");
        assert!(lines[1].starts_with("  \u{1b}[2mdim\u{1b}[") && lines.len() == 2, "{lines:?}");
    }
}
