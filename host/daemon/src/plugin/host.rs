//! The wasmtime engines: one that counts fuel for normalizers, one that watches the clock for sources and sinks.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wasmtime::{Config, Engine};

use super::limits::WASM_STACK_BYTES;
use super::manifest::Kind;

/// Milliseconds between two ticks of the deadline clock: a deadline is kept within one tick, and while a call runs a
/// hundred wake-ups a second cost nothing that can be measured. While none runs there are none.
pub const TICK_MS: u32 = 10;

/// How a [`Host`] is set up.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Where compiled components are kept; without it each start compiles again (some 100 ms per plugin).
    pub cache_dir: Option<PathBuf>,
    /// This program, to compile in a process of its own; without it that is done here. See [`super::compiler`].
    pub compiler: Option<PathBuf>,
}

/// Owns the engines; made once per process.
pub struct Host {
    pub(super) options: HostOptions,
    pub(super) engines: Arc<Engines>,
}

impl Host {
    /// Sets up the engines and starts the deadline clock.
    pub fn new(options: HostOptions) -> wasmtime::Result<Host> {
        Ok(Host { options, engines: Arc::new(Engines::new()?) })
    }
}

/// Both engines and the clock; it is there until the last plugin loaded from here is gone.
pub(super) struct Engines {
    fuel: Engine,
    epoch: Engine,
    ticker: Ticker,
}

impl Engines {
    fn new() -> wasmtime::Result<Self> {
        let fuel = Engine::new(&config_of(Kind::Normalizer))?;
        let epoch = Engine::new(&config_of(Kind::Source))?;
        let watched = epoch.clone();
        let ticker = Ticker::start(move || watched.increment_epoch())?;
        Ok(Engines { fuel, epoch, ticker })
    }

    /// Lets the clock tick for a call with a deadline, as long as what is returned lives.
    pub(super) fn watch(&self) -> Watched<'_> {
        self.ticker.watch()
    }

    pub(super) fn of(&self, kind: Kind) -> &Engine {
        match kind {
            Kind::Normalizer => &self.fuel,
            Kind::Source | Kind::Sink => &self.epoch,
        }
    }
}

/// The settings of the engine for plugins of a kind.
pub(super) fn config_of(kind: Kind) -> Config {
    let mut config = common();
    match kind {
        Kind::Normalizer => config.consume_fuel(true),
        Kind::Source | Kind::Sink => config.epoch_interruption(true),
    };
    config
}

// What both engines share. Changes here change the fingerprint of the compiled-code cache by themselves: it is taken
// from the engine.
fn common() -> Config {
    let mut c = Config::new();
    c.wasm_component_model(true)
        // Only synchronous calls are made; without it a call costs a third.
        .concurrency_support(false)
        // The same input gives the same bytes on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        // A trap's place in the guest's machine code tells an operator nothing; the panic text is carried by `log`.
        .wasm_backtrace_max_frames(None);
    c
}

/// A thread that advances the epoch every [`TICK_MS`] while calls run that have a deadline, and sleeps while none does;
/// dropping this ends and joins it.
struct Ticker {
    calls: Arc<Calls>,
    thread: Option<JoinHandle<()>>,
}

/// The calls that run now, as the ticker sees them.
#[derive(Default)]
struct Calls {
    running: AtomicUsize,
    /// The ticker sleeps, or is about to: whoever clears this wakes it.
    is_asleep: AtomicBool,
    is_over: AtomicBool,
}

/// A call whose deadline the clock watches, until this is dropped.
pub(super) struct Watched<'e>(&'e Ticker);

impl Ticker {
    fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let calls = Arc::new(Calls::default());
        let seen = Arc::clone(&calls);
        let thread = std::thread::Builder::new().name("hb-plugin-clock".into());
        let thread = thread.spawn(move || {
            while !seen.is_over.load(SeqCst) {
                if seen.running.load(SeqCst) > 0 {
                    pause(&seen);
                    tick();
                } else {
                    seen.sleep();
                }
            }
        })?;
        Ok(Ticker { calls, thread: Some(thread) })
    }

    fn watch(&self) -> Watched<'_> {
        self.calls.running.fetch_add(1, SeqCst);
        self.wake();
        Watched(self)
    }

    fn wake(&self) {
        if self.calls.is_asleep.swap(false, SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Calls {
    /// Returns when a call runs, or at the end.
    fn sleep(&self) {
        self.is_asleep.store(true, SeqCst);
        // A call that began before it could see that this sleeps is seen here; one that begins later wakes.
        while self.is_asleep.load(SeqCst) && self.running.load(SeqCst) == 0 && !self.is_over.load(SeqCst) {
            std::thread::park();
        }
        self.is_asleep.store(false, SeqCst);
    }
}

/// Waits for a whole tick: a wake-up that is left over from a sleep shortens none.
fn pause(calls: &Calls) {
    let until = Instant::now() + Duration::from_millis(TICK_MS.into());
    while !calls.is_over.load(SeqCst) {
        match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return,
            left => std::thread::park_timeout(left),
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.calls.running.fetch_sub(1, SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.calls.is_over.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread only ever waits; a panic there would already have been reported.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for something that another thread does.
    fn until(is: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_clock_ticks_while_a_call_runs_and_sleeps_otherwise() {
        let ticks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ticks);
        let ticker = Ticker::start(move || _ = counted.fetch_add(1, SeqCst)).unwrap();
        let sleeps = || ticker.calls.is_asleep.load(SeqCst);
        for _ in 0..20 {
            until(sleeps);
            let before = ticks.load(SeqCst);
            let calls = (ticker.watch(), ticker.watch());
            drop(calls.0);
            until(|| ticks.load(SeqCst) > before + 1);
            drop(calls.1);
        }
        // Calls that are over before the clock has woken up leave it able to sleep, and to wake.
        for _ in 0..10_000 {
            drop(ticker.watch());
        }
        until(sleeps);
        let (before, _call) = (ticks.load(SeqCst), ticker.watch());
        until(|| ticks.load(SeqCst) > before);
    }

    #[test]
    fn a_host_starts_and_stops_its_clock() {
        let host = Host::new(HostOptions::default()).unwrap();
        let engines = Arc::downgrade(&host.engines);
        drop(host);
        assert!(engines.upgrade().is_none());
    }
}
