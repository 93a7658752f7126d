//! What data is shown on: how wide it is, and whether it has colours.

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};

use super::{Global, session};

/// Columns of a file or a pipe, unless `COLUMNS` says otherwise.
const COLUMNS: usize = 100;

/// Narrower nothing can be drawn.
const COLUMNS_MIN: usize = 40;

/// Wider nobody reads.
const COLUMNS_MAX: usize = 160;

/// What data is shown on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Screen {
    /// How wide it is, characters.
    pub(crate) columns: usize,
    /// Whether it has colours.
    pub(crate) colour: bool,
}

impl Global {
    /// The screen of whoever asked.
    pub(super) fn screen(&self) -> Screen {
        let screen = session::screen().unwrap_or_else(|| self.own_screen());
        Screen { columns: screen.columns.clamp(COLUMNS_MIN, COLUMNS_MAX), ..screen }
    }

    fn own_screen(&self) -> Screen {
        let is_terminal = std::io::stdout().is_terminal();
        let size = terminal_size::terminal_size().filter(|_| is_terminal).map(|(width, _)| usize::from(width.0));
        let told = || std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        let colour = match self.color.as_str() {
            "always" => true,
            "never" => false,
            _ => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        Screen { columns: size.or_else(told).unwrap_or(COLUMNS), colour }
    }
}
