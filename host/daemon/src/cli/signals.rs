//! Signals as orders: SIGTERM and SIGINT ask for the end, a second one ends the process, SIGHUP asks for a reload.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Sender, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_default, register_usize};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, signal_name};

use crate::daemon::Order;
use crate::daemon::reload::Reloader;
use crate::systemd::Systemd;

/// Whether somebody wants the end, for a run that looks from time to time.
#[derive(Clone, Default)]
pub(super) struct Flag(Arc<AtomicUsize>);

impl Flag {
    /// The name of the signal that asked for the end.
    pub(super) fn name(&self) -> Option<&'static str> {
        let signal = i32::try_from(self.0.load(Ordering::Relaxed)).ok().filter(|&signal| signal != 0)?;
        signal_name(signal)
    }
}

/// Notes a first SIGTERM or SIGINT; a second one ends the process.
pub(super) fn flag() -> std::io::Result<Flag> {
    let flag = Flag::default();
    for signal in [SIGTERM, SIGINT] {
        let is_ending = Arc::new(AtomicBool::new(false));
        register_conditional_default(signal, Arc::clone(&is_ending))?;
        register(signal, is_ending)?;
        register_usize(signal, Arc::clone(&flag.0), signal as usize)?;
    }
    Ok(flag)
}

/// Obeys signals from now on. Reloads have a thread of their own: whoever asks for the end need not wait for plugins
/// that are being compiled.
pub(super) fn listen(reloader: Arc<Reloader>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let orders = reloader.orders().clone();
    let is_ending = Arc::new(AtomicBool::new(false));
    let reload = start_reloads(reloader, Arc::clone(&is_ending))?;
    std::thread::Builder::new().name("hb-signals".into()).spawn(move || {
        let systemd = Systemd::of_process();
        for signal in signals.forever() {
            let name = signal_name(signal).unwrap_or("a signal");
            if signal == SIGHUP {
                tracing::info!(signal = name, "asked to reload");
                // One that waits already stands for all: it reads what is there when its turn comes.
                let _ = reload.try_send(());
                continue;
            }
            if is_ending.swap(true, Ordering::Relaxed) {
                // Whoever asks twice does not want to wait; the next start goes on from the last commit.
                let _ = emulate_default_handler(signal);
            }
            systemd.stopping();
            // A loop that has ended already needs no order.
            let _ = orders.send(Order::Stop(format!("asked to by {name}")));
        }
    })?;
    Ok(())
}

/// Reloads when asked to, one after the other; a daemon that ends reloads no more.
fn start_reloads(reloader: Arc<Reloader>, is_ending: Arc<AtomicBool>) -> std::io::Result<Sender<()>> {
    let (ask, asked) = bounded(1);
    std::thread::Builder::new().name("hb-reload".into()).spawn(move || {
        let mut systemd = Systemd::of_process();
        for () in asked {
            if is_ending.load(Ordering::Relaxed) {
                return;
            }
            systemd.reloading();
            match reloader.reload("SIGHUP", "asked to by a signal") {
                Ok(done) => tracing::info!(signal = "SIGHUP", ?done, "reloaded"),
                Err(found) => tracing::warn!("{}", found.render(false)),
            }
            // Behind the news of its end a service manager must not hear that it is ready.
            if !is_ending.load(Ordering::Relaxed) {
                systemd.ready();
            }
        }
    })?;
    Ok(ask)
}
