//! The wasmtime engines: one that counts fuel for normalizers, one that watches the clock for sources and sinks.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, Engine};

use super::limits::WASM_STACK_BYTES;
use super::manifest::Kind;

/// Milliseconds between two ticks of the deadline clock: a deadline is kept within one tick, and a hundred wake-ups a
/// second cost nothing that can be measured.
pub const TICK_MS: u32 = 10;

/// How a [`Host`] is set up.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Where compiled components are kept; without it each start compiles again (some 100 ms per plugin).
    pub cache_dir: Option<PathBuf>,
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

/// Both engines and the clock; it ticks until the last plugin loaded from here is gone.
pub(super) struct Engines {
    fuel: Engine,
    epoch: Engine,
    _ticker: Ticker,
}

impl Engines {
    fn new() -> wasmtime::Result<Self> {
        let fuel = Engine::new(common().consume_fuel(true))?;
        let epoch = Engine::new(common().epoch_interruption(true))?;
        let ticker = Ticker::start(epoch.clone())?;
        Ok(Engines { fuel, epoch, _ticker: ticker })
    }

    pub(super) fn of(&self, kind: Kind) -> &Engine {
        match kind {
            Kind::Normalizer => &self.fuel,
            Kind::Source | Kind::Sink => &self.epoch,
        }
    }
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

/// A thread that advances the epoch every [`TICK_MS`]; dropping this ends and joins it.
struct Ticker {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel::<()>(0);
        let thread = std::thread::Builder::new().name("hb-plugin-clock".into()).spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(TICK_MS.into())) == Err(RecvTimeoutError::Timeout) {
                engine.increment_epoch();
            }
        })?;
        Ok(Ticker { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread only ever waits; a panic there would already have been reported.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_starts_and_stops_its_clock() {
        let host = Host::new(HostOptions::default()).unwrap();
        let engines = Arc::downgrade(&host.engines);
        drop(host);
        assert!(engines.upgrade().is_none());
    }
}
