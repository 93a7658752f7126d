//! One living guest: its store, its limits, the imports it may call, and its rebirth after a fault.

use wasmtime::component::{Instance as Component, InstancePre};
use wasmtime::{ResourceLimiter, Store};

use super::bindings::hb::plugin as wit;
use super::fault::{PluginFault, Raised, classify, neutral, reason};
use super::host::TICK_MS;
use super::limits::{
    CONFIGURE_FUEL, LOG_LINES_PER_CALL, MAX_CORE_INSTANCES, MAX_IMPORT_BYTES_PER_CALL, MAX_LOG_LINE_BYTES,
    MAX_MEMORIES_AND_TABLES, MAX_OUTPUT_BYTES, MAX_TABLE_ELEMENTS,
};
use super::load::Loaded;
use super::manifest::Kind;
use super::{Attribute, SeriesKind};

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
}

/// What happened to an instance so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls into the guest.
    pub calls: u64,
    /// Calls that ended in a fault.
    pub faults: u64,
    /// Fresh instances after the first.
    pub rebuilds: u64,
    /// Fuel units spent (normalizers).
    pub fuel: u64,
    /// Log lines not passed on because of the cap per call.
    pub log_lines_dropped: u64,
}

/// The store's data: what one guest may reach and how far.
pub(super) struct Guest {
    calls: Box<dyn HostCalls>,
    // Series this guest was given; it may write to no other. Survives a rebuild, as the ids do.
    known_series: Bits,
    meter: Meter,
    counters: Counters,
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
}

/// What one call may spend.
#[derive(Clone, Copy)]
pub(super) enum Budget {
    /// Fuel units: normalizers.
    Fuel(u64),
    /// Milliseconds: sources and sinks.
    Ms(u32),
}

/// The interface a kind exports, found in a fresh instance.
pub(super) trait Exports: Sized {
    fn find(store: &mut Store<Guest>, instance: &Component, pre: &InstancePre<Guest>) -> wasmtime::Result<Self>;
    fn configure(&self, store: &mut Store<Guest>, settings: &str) -> Answer<()>;
}

/// What a call gives: a trap, or the guest's own answer.
pub(super) type Answer<R> = wasmtime::Result<Result<R, wit::types::Fault>>;

/// An instance with its exported interface `E`.
pub(super) struct Instance<E> {
    loaded: Loaded,
    settings: String,
    // None only while a rebuild carries the guest's data into the next store.
    store: Option<Store<Guest>>,
    // None after a trap: the component model forbids to enter such an instance again.
    exports: Option<E>,
}

impl<E: Exports> Instance<E> {
    /// Starts an instance and hands it its settings (JSON).
    pub(super) fn start(loaded: &Loaded, settings: &str, calls: Box<dyn HostCalls>) -> Result<Self, PluginFault> {
        let guest =
            Guest { calls, known_series: Bits::default(), meter: Meter::default(), counters: Counters::default() };
        let store = Store::new(loaded.inner.pre.engine(), guest);
        let mut instance =
            Instance { loaded: loaded.clone(), settings: settings.to_owned(), store: Some(store), exports: None };
        instance.rebuild()?;
        if let Some(counters) = instance.counters_mut() {
            counters.rebuilds = 0;
        }
        Ok(instance)
    }

    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Rebuilds the instance if the last call ended in a trap or it was retired.
    pub(super) fn ensure_alive(&mut self) -> Result<(), PluginFault> {
        if self.exports.is_some() { Ok(()) } else { self.rebuild() }
    }

    /// Makes the next call start on a fresh instance.
    pub(super) fn retire(&mut self) {
        self.exports = None;
    }

    /// Replaces the instance by a fresh, configured one; ids of series and counters are kept.
    pub(super) fn rebuild(&mut self) -> Result<(), PluginFault> {
        self.exports = None;
        let Some(old) = self.store.take() else { return Err(lost()) };
        let mut guest = old.into_data();
        guest.counters.rebuilds += 1;
        guest.meter = Meter { memory_limit: self.loaded.inner.limits.memory_bytes, ..Meter::default() };
        let store = self.store.insert(Store::new(self.loaded.inner.pre.engine(), guest));
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(MAX_OUTPUT_BYTES);
        let pre = &self.loaded.inner.pre;
        let budget = match self.loaded.inner.manifest.kind {
            Kind::Normalizer => Budget::Fuel(CONFIGURE_FUEL),
            Kind::Source | Kind::Sink => Budget::Ms(self.loaded.inner.limits.deadline_ms),
        };
        let exports = guarded(store, budget, |store| {
            let instance = pre.instantiate(&mut *store)?;
            E::find(store, &instance, pre).map(Ok)
        })?;
        guarded(store, budget, |store| exports.configure(store, &self.settings))?;
        self.exports = Some(exports);
        Ok(())
    }

    /// Calls into the guest, on a fresh instance if the last call ended in a trap. Also returns the fuel spent.
    pub(super) fn call<R>(
        &mut self,
        budget: Budget,
        f: impl FnOnce(&E, &mut Store<Guest>) -> Answer<R>,
    ) -> (Result<R, PluginFault>, u64) {
        if let Err(fault) = self.ensure_alive() {
            return (Err(fault), 0);
        }
        let (Some(exports), Some(store)) = (&self.exports, &mut self.store) else { return (Err(lost()), 0) };
        let before = store.data().counters.fuel;
        let answer = guarded(store, budget, |store| f(exports, store));
        let spent = store.data().counters.fuel - before;
        // Words of the guest leave it whole; whatever else went wrong ends it.
        if !matches!(answer, Ok(_) | Err(PluginFault::Returned { .. })) {
            self.exports = None;
        }
        (answer, spent)
    }

    /// Whether the guest was given this series.
    pub(super) fn knows_series(&self, id: u32) -> bool {
        self.store.as_ref().is_some_and(|s| s.data().known_series.has(id))
    }

    pub(super) fn counters(&self) -> Counters {
        self.store.as_ref().map(|s| s.data().counters).unwrap_or_default()
    }

    /// Counts a fault that was found in the guest's answer after the call.
    pub(super) fn count_fault(&mut self) {
        if let Some(counters) = self.counters_mut() {
            counters.faults += 1;
        }
    }

    fn counters_mut(&mut self) -> Option<&mut Counters> {
        self.store.as_mut().map(|s| &mut s.data_mut().counters)
    }
}

// Cannot happen: `rebuild` always puts a store back. A fault of the plugin is still better than a panic of the host.
fn lost() -> PluginFault {
    PluginFault::Trap("its store is gone".into())
}

// Runs `f` under a budget and turns what comes out into a fault or an answer.
fn guarded<R>(
    store: &mut Store<Guest>,
    budget: Budget,
    f: impl FnOnce(&mut Store<Guest>) -> Answer<R>,
) -> Result<R, PluginFault> {
    store.data_mut().begin_call();
    match budget {
        // Fails only on an engine without fuel, which `Engines::of` rules out.
        Budget::Fuel(units) => _ = store.set_fuel(units),
        // One tick more: the first may be due at once.
        Budget::Ms(ms) => store.set_epoch_deadline(u64::from(ms.div_ceil(TICK_MS)) + 1),
    }
    let answer = f(store);
    let spent = match budget {
        Budget::Fuel(units) => units.saturating_sub(store.get_fuel().unwrap_or(0)),
        Budget::Ms(_) => 0,
    };
    let guest = store.data_mut();
    guest.counters.fuel += spent;
    let answer = match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(fault)) => Err(fault.into()),
        Err(error) => {
            let last_log = guest.meter.last_log.take().map(|t| reason(&t));
            Err(classify(&error, budget, last_log.as_deref()))
        }
    };
    guest.counters.faults += u64::from(answer.is_err());
    answer
}

impl Guest {
    fn begin_call(&mut self) {
        self.counters.calls += 1;
        self.meter.log_lines = 0;
        self.meter.import_bytes = 0;
        self.meter.last_log = None;
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
}

impl wit::types::Host for Guest {}

impl wit::log::Host for Guest {
    fn write(&mut self, level: u8, text: String) -> wasmtime::Result<()> {
        self.charge(text.len())?;
        if self.meter.log_lines < LOG_LINES_PER_CALL {
            self.meter.log_lines += 1;
            self.calls.log(level, &neutral(&text, MAX_LOG_LINE_BYTES));
        } else {
            self.counters.log_lines_dropped += 1;
        }
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
