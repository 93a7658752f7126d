//! One living guest: its store, its budget per call, and its rebirth after a fault.

use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::{Instance as Component, InstancePre};

use super::bindings::hb::plugin as wit;
use super::fault::{PluginFault, classify};
use super::guest::{Counters, Guest, HostCalls};
use super::host::{Engines, TICK_MS};
use super::limits::{Budget, CONFIGURE_FUEL, MAX_OUTPUT_BYTES};
use super::load::Loaded;
use super::manifest::Kind;

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
        let store = Store::new(loaded.inner.pre.engine(), Guest::new(calls));
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
        guest.start_over(self.loaded.inner.limits.memory_bytes);
        let store = self.store.insert(Store::new(self.loaded.inner.pre.engine(), guest));
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(MAX_OUTPUT_BYTES);
        let pre = &self.loaded.inner.pre;
        let budget = match self.loaded.inner.manifest.kind {
            Kind::Normalizer => Budget::Fuel(CONFIGURE_FUEL),
            Kind::Source | Kind::Sink => Budget::Ms(self.loaded.inner.limits.deadline_ms),
        };
        let engines = &self.loaded.inner.engines;
        let exports = guarded(engines, store, budget, |store| {
            let instance = pre.instantiate(&mut *store)?;
            E::find(store, &instance, pre).map(Ok)
        })?;
        guarded(engines, store, budget, |store| exports.configure(store, &self.settings))?;
        store.data_mut().let_send();
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
        let answer = guarded(&self.loaded.inner.engines, store, budget, |store| f(exports, store));
        let spent = store.data().counters.fuel - before;
        // Words of the guest leave it whole; whatever else went wrong ends it.
        if !matches!(answer, Ok(_) | Err(PluginFault::Returned { .. })) {
            self.exports = None;
        }
        (answer, spent)
    }

    /// Whether the guest was given this series.
    pub(super) fn knows_series(&self, id: u32) -> bool {
        self.store.as_ref().is_some_and(|s| s.data().knows_series(id))
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
    engines: &Engines,
    store: &mut Store<Guest>,
    budget: Budget,
    f: impl FnOnce(&mut Store<Guest>) -> Answer<R>,
) -> Result<R, PluginFault> {
    let deadline = match budget {
        Budget::Fuel(_) => None,
        Budget::Ms(ms) => Some(Instant::now() + Duration::from_millis(ms.into())),
    };
    let _watched = deadline.map(|_| engines.watch());
    store.data_mut().begin_call(deadline);
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
        Err(error) => Err(classify(&error, budget, guest.last_words().as_deref())),
    };
    guest.counters.faults += u64::from(answer.is_err());
    answer
}
