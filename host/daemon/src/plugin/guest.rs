//! What a guest may reach: the imports it calls, and the memory it takes, both metered.

use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

use super::bindings::hb::plugin as wit;
use super::fault::{PluginFault, Raised, neutral, reason};
use super::limits::{
    ANSWER_RESERVE, LOG_LINES_PER_CALL, MAX_CORE_INSTANCES, MAX_IMPORT_BYTES_PER_CALL, MAX_LOG_LINE_BYTES,
    MAX_MEMORIES_AND_TABLES, MAX_TABLE_ELEMENTS,
};
use super::{Attribute, Failure, Request, Response, SeriesKind};

/// What a guest's imports ask of the host. The composition implements it; tests use a fake.
pub trait HostCalls: Send {
    /// A line for the log; `text` is cut and neutralised already. Levels: 0 error, 1 warn, 2 info, 3 debug, 4 trace.
    fn log(&mut self, level: u8, text: &str);

    /// The id of a series; the same definition always gives the same id. An error goes to the guest.
    fn define_series(
        &mut self,
        metric: &str,
        unit: &str,
        kind: SeriesKind,
        labels: &[Attribute],
    ) -> Result<u32, String>;

    /// The code of a text value of a state series; the same text always gives the same code.
    fn state_code(&mut self, series: u32, text: &str) -> Result<f64, String>;

    /// Bytes for the stream that was opened for this plugin.
    fn output(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// Sends a request if it is granted, within `time_left`.
    fn http(&mut self, _request: &Request, _time_left: Duration) -> Result<Response, Failure> {
        Err(Failure::Refused(NO_WORLD.into()))
    }

    /// Whether a request would be sent; the text names what is granted.
    fn http_granted(&mut self, _method: &str, _url: &str, _sign_with: Option<&str>) -> Result<(), String> {
        Err(NO_WORLD.into())
    }

    /// Sends bytes to an address if it is granted, within `time_left`.
    fn socket(&mut self, _address: &str, _bytes: &[u8], _time_left: Duration) -> Result<(), Failure> {
        Err(Failure::Refused(NO_WORLD.into()))
    }

    /// Whether bytes would be sent there; the text names what is granted.
    fn socket_granted(&mut self, _address: &str) -> Result<(), String> {
        Err(NO_WORLD.into())
    }
}

/// What plugins hear that act on no world outside.
const NO_WORLD: &str = "nothing outside is granted";

/// What happened to an instance so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls into the guest, starting and configuring it included.
    pub calls: u64,
    /// Calls that ended in a fault.
    pub faults: u64,
    /// Fresh instances after the first.
    pub rebuilds: u64,
    /// Fuel units spent (normalizers).
    pub fuel: u64,
}

/// The store's data: what one guest may reach and how far.
pub(super) struct Guest {
    calls: Box<dyn HostCalls>,
    // Series this guest was given; it may write to no other. Survives a rebuild, as the ids do.
    known_series: Bits,
    meter: Meter,
    pub(super) counters: Counters,
}

/// What the current call and the current instance have used.
#[derive(Default)]
struct Meter {
    memory_limit: usize,
    memory: usize,
    tables: usize,
    log_lines: u32,
    import_bytes: usize,
    last_log: Option<String>,
    /// When the current call must have answered; none for calls that count fuel.
    deadline: Option<Instant>,
    /// Whether the instance is configured: before that it acts on no world outside.
    may_send: bool,
}

impl Guest {
    pub(super) fn new(calls: Box<dyn HostCalls>) -> Self {
        Guest { calls, known_series: Bits::default(), meter: Meter::default(), counters: Counters::default() }
    }

    /// A fresh instance begins with nothing used.
    pub(super) fn start_over(&mut self, memory_limit: usize) {
        self.meter = Meter { memory_limit, ..Meter::default() };
    }

    /// From now on it may act on the worlds it was granted.
    pub(super) fn let_send(&mut self) {
        self.meter.may_send = true;
    }

    /// What counts per call begins anew.
    pub(super) fn begin_call(&mut self, deadline: Option<Instant>) {
        self.meter.deadline = deadline;
        self.counters.calls += 1;
        self.meter.log_lines = 0;
        self.meter.import_bytes = 0;
        self.meter.last_log = None;
    }

    /// Whether this guest was given the series.
    pub(super) fn knows_series(&self, id: u32) -> bool {
        self.known_series.has(id)
    }

    /// The last line it logged in this call, safe to print: a panic's text, if it panicked.
    pub(super) fn last_words(&mut self) -> Option<String> {
        self.meter.last_log.take().map(|text| reason(&text))
    }

    // Copying text out of the guest costs it no fuel, so it is bounded here.
    fn charge(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.meter.import_bytes = self.meter.import_bytes.saturating_add(bytes);
        if self.meter.import_bytes > MAX_IMPORT_BYTES_PER_CALL {
            let text = format!("it handed more than {MAX_IMPORT_BYTES_PER_CALL} bytes to imports in one call");
            return Err(Raised(PluginFault::Denied(text)).into());
        }
        Ok(())
    }

    /// Logs a line, unless this call has had its share.
    fn say(&mut self, level: u8, text: &str) {
        if self.meter.log_lines < LOG_LINES_PER_CALL {
            self.calls.log(level, &neutral(text, MAX_LOG_LINE_BYTES));
        } else if self.meter.log_lines == LOG_LINES_PER_CALL {
            self.calls.log(level, "further lines of this call are left out");
        }
        self.meter.log_lines = self.meter.log_lines.saturating_add(1);
    }

    /// Tells the operator what was refused: a guest may keep it to itself.
    fn tell<T>(&mut self, answer: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(Failure::Refused(why)) = &answer {
            self.say(1, &format!("refused: {why}"));
        }
        answer
    }

    /// How long a send may take, so that the guest can still answer for it.
    fn time_to_send(&self) -> Result<Duration, Failure> {
        if !self.meter.may_send {
            return Err(Failure::Refused("nothing is sent during `configure`".into()));
        }
        let left = self.meter.deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let left = left.unwrap_or_default().saturating_sub(ANSWER_RESERVE);
        let none = || Failure::Unreachable("no time is left in this call: the deadline of the plugin is near".into());
        if left.is_zero() { Err(none()) } else { Ok(left) }
    }
}

impl wit::types::Host for Guest {}

impl wit::log::Host for Guest {
    fn write(&mut self, level: u8, text: String) -> wasmtime::Result<()> {
        self.charge(text.len())?;
        self.say(level, &text);
        self.meter.last_log = Some(text);
        Ok(())
    }
}

impl wit::series::Host for Guest {
    fn define(
        &mut self,
        metric: String,
        unit: String,
        kind: SeriesKind,
        labels: Vec<Attribute>,
    ) -> wasmtime::Result<Result<u32, String>> {
        self.charge(labels.iter().map(|l| l.key.len() + l.value.len()).sum::<usize>() + metric.len() + unit.len())?;
        Ok(self.calls.define_series(&metric, &unit, kind, &labels).inspect(|&id| self.known_series.set(id)))
    }

    fn state_code(&mut self, series: u32, text: String) -> wasmtime::Result<Result<f64, String>> {
        self.charge(text.len())?;
        if !self.known_series.has(series) {
            return Ok(Err(format!("series {series} was not defined by this plugin")));
        }
        Ok(self.calls.state_code(series, &text))
    }
}

impl wit::output::Host for Guest {
    fn write(&mut self, bytes: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        self.charge(bytes.len())?;
        Ok(self.calls.output(&bytes))
    }
}

impl wit::http::Host for Guest {
    fn send(&mut self, request: Request) -> wasmtime::Result<Result<Response, Failure>> {
        let headers: usize = request.headers.iter().map(|h| h.name.len() + h.value.len()).sum();
        self.charge(request.method.len() + request.url.len() + headers + request.body.len())?;
        let answer = self.time_to_send().and_then(|left| self.calls.http(&request, left));
        Ok(self.tell(answer))
    }

    fn granted(
        &mut self,
        method: String,
        url: String,
        sign_with: Option<String>,
    ) -> wasmtime::Result<Result<(), String>> {
        self.charge(method.len() + url.len() + sign_with.as_ref().map_or(0, String::len))?;
        Ok(self.calls.http_granted(&method, &url, sign_with.as_deref()))
    }
}

impl wit::socket::Host for Guest {
    fn send(&mut self, address: String, bytes: Vec<u8>) -> wasmtime::Result<Result<(), Failure>> {
        self.charge(address.len() + bytes.len())?;
        let answer = self.time_to_send().and_then(|left| self.calls.socket(&address, &bytes, left));
        Ok(self.tell(answer))
    }

    fn granted(&mut self, address: String) -> wasmtime::Result<Result<(), String>> {
        self.charge(address.len())?;
        Ok(self.calls.socket_granted(&address))
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let grown = self.meter.memory.saturating_add(desired.saturating_sub(current));
        if grown > self.meter.memory_limit {
            return Err(self.exhausted());
        }
        self.meter.memory = grown;
        Ok(true)
    }

    // The machine is out of memory or address space: for the guest the same as its own limit.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(self.exhausted())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let grown = self.meter.tables.saturating_add(desired.saturating_sub(current));
        if grown > MAX_TABLE_ELEMENTS {
            return Err(self.exhausted());
        }
        self.meter.tables = grown;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_MEMORIES_AND_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES_AND_TABLES
    }
}

impl Guest {
    fn exhausted(&self) -> wasmtime::Error {
        Raised(PluginFault::Memory(self.meter.memory_limit)).into()
    }
}

/// A set of small numbers. Ids of series are given out from zero up, so a bit each is the densest form.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, id: u32) -> bool {
        self.0.get((id / 64) as usize).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    fn set(&mut self, id: u32) {
        let word = (id / 64) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (id % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_remember_what_was_set() {
        let mut bits = Bits::default();
        assert!(!bits.has(0) && !bits.has(1_000_000));
        bits.set(0);
        bits.set(63);
        bits.set(64);
        assert!(bits.has(0) && bits.has(63) && bits.has(64));
        assert!(!bits.has(1) && !bits.has(65) && !bits.has(128));
    }
}
