//! What one plugin instance may use: every limit with its unit, its default and the reason for it.

use std::time::Duration;

use serde::Deserialize;

/// Bytes of linear memory of one instance, all its memories together: a parser of telemetry needs a few MiB; 64 leaves
/// room for a batch with its output and still lets a small machine run a dozen plugins.
pub const DEFAULT_MEMORY_BYTES: usize = 64 << 20;

/// Most a manifest may ask for, in MiB: guests of languages with a runtime of their own need more than the default,
/// but one plugin must not be able to take a 4 GiB machine.
pub const MAX_MEMORY_MIB: u32 = 1024;

/// Elements of all tables of one instance: the function table of a large guest has some 10,000.
pub const MAX_TABLE_ELEMENTS: usize = 100_000;

/// Core instances of one component: a component with adapters has fewer than ten.
pub const MAX_CORE_INSTANCES: usize = 32;

/// Memories and tables of one component, each.
pub const MAX_MEMORIES_AND_TABLES: usize = 16;

/// Bytes of wasm stack: enough for several thousand frames of a recursive parser, far below a thread's 2 MiB.
pub const WASM_STACK_BYTES: usize = 512 << 10;

/// Fuel units a normalizer may spend on one frame, whatever its length: about 1 ms (measured: 20 to 30 units per ns),
/// some thousand times what a JSON line of 100 bytes costs.
pub const DEFAULT_FUEL_PER_FRAME: u64 = 20_000_000;

/// Fuel units on top for each byte of a frame: a JSON parser in a guest spends 20 to 60.
pub const FUEL_PER_BYTE: u64 = 500;

/// Most fuel a manifest may ask for, per frame: about half a second; one hostile frame must not stop the others longer.
pub const MAX_FUEL_PER_FRAME: u64 = 10_000_000_000;

/// Fuel units for starting an instance and reading its settings: about 0.2 s, it happens once per instance.
pub const CONFIGURE_FUEL: u64 = 4_000_000_000;

/// Milliseconds one call into a source or sink may take.
pub const DEFAULT_DEADLINE_MS: u32 = 2_000;

/// Most a manifest may ask for, in milliseconds: a plugin that hangs is noticed within a minute.
pub const MAX_DEADLINE_MS: u32 = 60_000;

/// What of a call's deadline is kept for the guest's answer: a request that waits in vain ends so long before.
pub const ANSWER_RESERVE: Duration = Duration::from_millis(250);

/// Rows (samples plus events) from one frame: a status page yields hundreds; more is a bomb.
pub const DEFAULT_ROWS_PER_FRAME: u32 = 10_000;

/// Most a manifest may ask for, rows from one frame: columns of a million rows still fit the default memory.
pub const MAX_ROWS_PER_FRAME: u32 = 1_000_000;

/// Bytes a guest may hand to the host in one go (a call's result, or one import's arguments).
pub const MAX_OUTPUT_BYTES: usize = 32 << 20;

/// Bytes of text and stream output a guest may hand to imports during one call; `log` in a loop is bounded by it.
pub const MAX_IMPORT_BYTES_PER_CALL: usize = 8 << 20;

/// Bytes of frames put into one call: input, output and working copies of a batch stay below the default memory.
pub const MAX_CALL_BYTES: usize = 4 << 20;

/// Log lines passed on per call; one more says that the rest is left out. A plugin with one line per frame would drown
/// the log.
pub const LOG_LINES_PER_CALL: u32 = 32;

/// Bytes of one log line; what is longer is cut.
pub const MAX_LOG_LINE_BYTES: usize = 4 << 10;

/// Bytes of a reason or a fault's text; what is longer is cut. It stands in tables and dead letters.
pub const MAX_REASON_BYTES: usize = 1 << 10;

/// What one call may spend.
#[derive(Clone, Copy)]
pub(super) enum Budget {
    /// Fuel units: normalizers.
    Fuel(u64),
    /// Milliseconds: sources and sinks.
    Ms(u32),
}

/// What one instance may use; the defaults, changed by the manifest's `resource_limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory.
    pub memory_bytes: usize,
    /// Fuel units per frame, without the part that grows with its length.
    pub fuel_per_frame: u64,
    /// Milliseconds per call of a source or sink.
    pub deadline_ms: u32,
    /// Samples plus events from one frame.
    pub rows_per_frame: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: DEFAULT_MEMORY_BYTES,
            fuel_per_frame: DEFAULT_FUEL_PER_FRAME,
            deadline_ms: DEFAULT_DEADLINE_MS,
            rows_per_frame: DEFAULT_ROWS_PER_FRAME,
        }
    }
}

impl Limits {
    /// Fuel for a frame of `len` bytes.
    pub(crate) fn frame_fuel(&self, len: usize) -> u64 {
        self.fuel_per_frame.saturating_add(FUEL_PER_BYTE.saturating_mul(len as u64))
    }
}

/// The manifest's `resource_limits`; what is absent keeps its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedLimits {
    /// Linear memory in MiB.
    pub memory_mib: Option<u32>,
    /// Fuel units per frame (normalizers).
    pub fuel_per_frame: Option<u64>,
    /// Milliseconds per call (sources, sinks).
    pub deadline_ms: Option<u32>,
    /// Samples plus events from one frame (normalizers).
    pub rows_per_frame: Option<u32>,
}

impl AskedLimits {
    /// The limits that hold, or a sentence naming the value that is out of bounds.
    pub fn resolve(&self) -> Result<Limits, String> {
        let d = Limits::default();
        let memory_mib = bounded("memory_mib", self.memory_mib, (DEFAULT_MEMORY_BYTES >> 20) as u32, MAX_MEMORY_MIB)?;
        Ok(Limits {
            memory_bytes: (memory_mib as usize) << 20,
            fuel_per_frame: bounded("fuel_per_frame", self.fuel_per_frame, d.fuel_per_frame, MAX_FUEL_PER_FRAME)?,
            deadline_ms: bounded("deadline_ms", self.deadline_ms, d.deadline_ms, MAX_DEADLINE_MS)?,
            rows_per_frame: bounded("rows_per_frame", self.rows_per_frame, d.rows_per_frame, MAX_ROWS_PER_FRAME)?,
        })
    }
}

fn bounded<T: Copy + PartialOrd + From<u8> + std::fmt::Display>(
    name: &str,
    asked: Option<T>,
    default: T,
    max: T,
) -> Result<T, String> {
    match asked {
        None => Ok(default),
        Some(v) if v >= T::from(1) && v <= max => Ok(v),
        Some(v) => Err(format!("resource_limits.{name} is {v}; allowed is 1 to {max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_limits_replace_defaults_and_are_bounded() {
        let asked = AskedLimits { memory_mib: Some(16), ..AskedLimits::default() };
        let limits = asked.resolve().unwrap();
        assert_eq!(limits.memory_bytes, 16 << 20);
        assert_eq!(limits.deadline_ms, DEFAULT_DEADLINE_MS);
        let asked = AskedLimits { memory_mib: Some(4096), ..AskedLimits::default() };
        assert_eq!(asked.resolve().unwrap_err(), "resource_limits.memory_mib is 4096; allowed is 1 to 1024");
        let asked = AskedLimits { deadline_ms: Some(0), ..AskedLimits::default() };
        assert!(asked.resolve().unwrap_err().contains("deadline_ms is 0"));
    }
}
