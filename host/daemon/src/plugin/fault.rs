//! What a guest did wrong, as a value: sorted by cause, worded for the operator who must judge the plugin.

use std::fmt;

use wasmtime::Trap;

use super::bindings::hb::plugin::types::Fault;
use super::limits::{Budget, MAX_REASON_BYTES, WASM_STACK_BYTES};

/// A guest's fault. The host goes on; the frames it concerns go to the dead-letter store with this text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginFault {
    /// The guest crashed: the trap, and the last line it logged before (a panic's text).
    Trap(String),
    /// One call spent its fuel; the number is the budget.
    OutOfFuel(u64),
    /// One call ran longer than this many milliseconds.
    Deadline(u32),
    /// The guest wanted more linear memory than this many bytes, or more tables or instances than allowed.
    Memory(usize),
    /// The guest recursed too deeply.
    Stack,
    /// The guest called an import that refused it: the import and the reason.
    Denied(String),
    /// The guest's answer breaks the contract.
    BadOutput(String),
    /// The guest said so itself: its text, with a wish to be called again after some milliseconds if it has one.
    Returned {
        /// The guest's own words.
        text: String,
        /// When it wants to be called again.
        retry_after_ms: Option<u32>,
    },
    /// The output depends on more than settings, series table and the frame: the first difference.
    Impure(String),
}

impl PluginFault {
    /// A short name for counters and labels.
    pub fn kind(&self) -> &'static str {
        match self {
            PluginFault::Trap(_) => "trap",
            PluginFault::OutOfFuel(_) => "fuel",
            PluginFault::Deadline(_) => "deadline",
            PluginFault::Memory(_) => "memory",
            PluginFault::Stack => "stack",
            PluginFault::Denied(_) => "denied",
            PluginFault::BadOutput(_) => "bad-output",
            PluginFault::Returned { .. } => "returned",
            PluginFault::Impure(_) => "impure",
        }
    }
}

impl fmt::Display for PluginFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PluginFault::Trap(text) => write!(f, "the plugin crashed: {text}"),
            PluginFault::OutOfFuel(budget) => write!(f, "the plugin spent its fuel of {budget} units"),
            PluginFault::Deadline(ms) => write!(f, "the plugin did not answer within {ms} ms"),
            PluginFault::Memory(bytes) => {
                write!(f, "the plugin wanted more than its {} MiB of memory (or its tables)", bytes >> 20)
            }
            PluginFault::Stack => {
                write!(f, "the plugin recursed too deeply: its stack of {} KiB is full", WASM_STACK_BYTES >> 10)
            }
            PluginFault::Denied(text) => write!(f, "the plugin was refused: {text}"),
            PluginFault::BadOutput(text) => write!(f, "the plugin's answer breaks the contract: {text}"),
            PluginFault::Returned { text, .. } => write!(f, "the plugin reports: {text}"),
            PluginFault::Impure(text) => {
                write!(f, "the plugin is not a function of the frame: {text}")
            }
        }
    }
}

impl std::error::Error for PluginFault {}

impl From<Fault> for PluginFault {
    fn from(fault: Fault) -> Self {
        let (text, retry_after_ms) = match fault {
            Fault::RetryAfterMs((ms, text)) => (text, Some(ms)),
            Fault::BadSettings(text) => (format!("bad settings: {text}"), None),
            Fault::Fatal(text) => (text, None),
        };
        PluginFault::Returned { text: reason(&text), retry_after_ms }
    }
}

/// Raised inside a host call to end the guest with a fault that is no trap of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Raised(pub(crate) PluginFault);

/// Sorts what wasmtime reports. `budget` is that of the call, `last_log` the guest's last words.
pub(super) fn classify(error: &wasmtime::Error, budget: Budget, last_log: Option<&str>) -> PluginFault {
    if let Some(raised) = error.downcast_ref::<Raised>() {
        return raised.0.clone();
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel | Trap::Interrupt) => match budget {
            Budget::Fuel(units) => PluginFault::OutOfFuel(units),
            Budget::Ms(ms) => PluginFault::Deadline(ms),
        },
        Some(Trap::StackOverflow) => PluginFault::Stack,
        // Lifting the answer failed: strings and lists that do not lie in the guest's memory, unknown variants.
        Some(
            t @ (Trap::StringOutOfBounds
            | Trap::ListOutOfBounds
            | Trap::InvalidDiscriminant
            | Trap::UnalignedPointer
            | Trap::InvalidChar),
        ) => PluginFault::BadOutput(t.to_string()),
        Some(trap) => PluginFault::Trap(match last_log {
            Some(text) => format!("{trap}; its last log line: {text}"),
            None => trap.to_string(),
        }),
        // No trap, no fault raised by an import: the answer could not be lifted (size, encoding).
        None => PluginFault::BadOutput(reason(&error.root_cause().to_string())),
    }
}

/// A reason of a guest, safe to print and at most [`MAX_REASON_BYTES`] long.
pub(crate) fn reason(text: &str) -> String {
    neutral(text, MAX_REASON_BYTES)
}

/// Makes text of a guest safe to print: cut to `cap` bytes, control and direction characters written out,
/// a line break as a blank.
pub(crate) fn neutral(text: &str, cap: usize) -> String {
    let mut out = String::with_capacity(text.len().min(cap));
    for c in text.chars() {
        if out.len() >= cap {
            out.push('…');
            break;
        }
        if c == '\n' {
            out.push(' ');
        } else if is_harmful(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

// C0, C1, DEL; marks and overrides of writing direction; line and paragraph separators; byte order mark.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_guest_is_cut_and_neutralised() {
        assert_eq!(reason("a\x1b[31mb\nc\r"), "a\\u{1b}[31mb c\\u{d}");
        assert_eq!(reason("\u{202e}evil"), "\\u{202e}evil");
        let long = neutral(&"ä".repeat(2_000), 100);
        assert!(long.len() <= 100 + "ä…".len() && long.ends_with('…'));
    }

    #[test]
    fn traps_are_sorted_by_cause() {
        let of = |t: Trap| classify(&wasmtime::Error::new(t), Budget::Fuel(7), Some("boom"));
        assert_eq!(of(Trap::OutOfFuel), PluginFault::OutOfFuel(7));
        let late = classify(&wasmtime::Error::new(Trap::Interrupt), Budget::Ms(9), None);
        assert_eq!(late, PluginFault::Deadline(9));
        assert_eq!(of(Trap::StackOverflow), PluginFault::Stack);
        assert!(of(Trap::UnreachableCodeReached).to_string().contains("boom"));
        let raised = Raised(PluginFault::Memory(1 << 20));
        assert_eq!(classify(&wasmtime::Error::new(raised), Budget::Ms(0), None).kind(), "memory");
    }
}
