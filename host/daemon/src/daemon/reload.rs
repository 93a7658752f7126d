//! Builds and checks the next generation beside the running one, and brings it to the loop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use hb_log::hash::Hash;

use super::{Built, Generations, Order, Swap, Swapped};
use crate::config::ConfigFile;
use crate::diagnostic::{Area, Diagnostic, Diagnostics, chain};
use crate::dispatch::Sinks;
use crate::generation::Generation;
use crate::pipeline::PipelineError;
use crate::pipeline::feed::Prepared;
use crate::pipeline::series::SeriesBook;

/// Longest wait for the loop to let a generation take over, s: a commit on a bad disk takes seconds, more is a loop that
/// hangs, and what then happens is not known.
const ANSWER_SEC: u64 = 60;

/// Brings generations to a running daemon; any thread may ask, one at a time is served.
pub struct Reloader {
    load: Box<dyn Fn() -> Result<ConfigFile, Diagnostics> + Send + Sync>,
    book: SeriesBook,
    orders: Sender<Order>,
    generations: Arc<Generations>,
    /// What was read from disk last. Held while a generation is brought.
    seen: Mutex<Option<Arc<Built>>>,
}

/// What a reload came to when nothing was wrong.
#[derive(Debug)]
pub enum Reloaded {
    /// It is active.
    Swapped(Swapped),
    /// What lies on disk is what runs.
    Unchanged(Hash),
}

impl Reloader {
    /// For a daemon that obeys `orders`; `load` reads the config as it is now.
    pub fn new(
        load: impl Fn() -> Result<ConfigFile, Diagnostics> + Send + Sync + 'static,
        book: SeriesBook,
        orders: Sender<Order>,
        generations: Arc<Generations>,
    ) -> Self {
        Reloader { load: Box::new(load), book, orders, generations, seen: Mutex::new(None) }
    }

    /// The generations it knows.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Where orders go.
    pub fn orders(&self) -> &Sender<Order> {
        &self.orders
    }

    /// Reads everything again and lets it take over. When something is wrong nothing changes.
    pub fn reload(&self, author: &str, reason: &str) -> Result<Reloaded, Diagnostics> {
        self.read(author, reason, |_| false)
    }

    /// Like [`Reloader::reload`], unless this was read before: news of a file may come late, and must not undo that
    /// somebody went back.
    pub fn reload_if_new(&self, author: &str, reason: &str) -> Result<Reloaded, Diagnostics> {
        self.read(author, reason, |was_seen| was_seen)
    }

    fn read(&self, author: &str, reason: &str, skips: impl Fn(bool) -> bool) -> Result<Reloaded, Diagnostics> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let candidate = (self.load)().and_then(|file| self.build(file));
        let candidate = Arc::new(candidate.inspect_err(|found| self.note_refused(author, reason, found))?);
        let was_seen = seen.replace(Arc::clone(&candidate)).is_some_and(|before| is_same(&before, &candidate));
        let active = self.generations.active();
        if is_same(&active, &candidate) || skips(was_seen) {
            return Ok(Reloaded::Unchanged(active.generation.hash));
        }
        self.bring(candidate, author, reason).map(Reloaded::Swapped)
    }

    /// Goes back to a generation that ran before: the newest one, or the one whose name begins like this. It stays until
    /// the next reload; the files on disk stay as they are.
    pub fn go_back(&self, to: Option<&str>, author: &str, reason: &str) -> Result<Swapped, Diagnostics> {
        let _one = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.generations.kept();
        let found = kept.iter().find(|b| to.is_none_or(|to| b.generation.hash.to_string().starts_with(to)));
        let Some(built) = found else {
            let what = to.map_or_else(String::new, |to| format!(" `{to}`"));
            let d = Diagnostic::error(Area::Config, format!("there is no generation{what} to go back to"));
            let help = "`hb generation list` shows those that ran since the daemon started and are kept";
            return Err(d.help(help).into());
        };
        self.bring(Arc::clone(built), author, reason)
    }

    fn build(&self, file: ConfigFile) -> Result<Built, Diagnostics> {
        let active = self.generations.active();
        let (now, next) = (&active.file.config, &file.config);
        // What was settled when the state and the port were opened.
        let fixed = [
            ("program", now.program == next.program),
            ("state", now.state == next.state),
            ("http", now.http == next.http),
        ];
        let mut found = Diagnostics::new();
        for (key, _) in fixed.iter().filter(|(_, same)| !same) {
            let d = Diagnostic::error(Area::Config, format!("`{key}` cannot change while the daemon runs"));
            found.push(d.at(file.place(key)).help("change it back, or restart the daemon"));
        }
        if found.has_errors() {
            return Err(found);
        }
        let generation = Generation::build(&file)?;
        Ok(Built::new(file, generation, Arc::clone(&active.key)))
    }

    /// Prepares what can be prepared, hands it to the loop, and waits for what comes of it.
    fn bring(&self, built: Arc<Built>, author: &str, reason: &str) -> Result<Swapped, Diagnostics> {
        let prepare = || {
            let sinks = Sinks::open(&built.file)?;
            let units = built.generation.units.iter();
            let prepared = units.map(|unit| Prepared::new(unit, &self.book)).collect::<Result<Vec<_>, _>>();
            Ok((sinks, prepared.map_err(plugin_problem)?))
        };
        let (sinks, prepared) = prepare().inspect_err(|found| self.note_refused(author, reason, found))?;
        let (reply, answer) = bounded(1);
        let (author, reason) = (author.to_owned(), reason.to_owned());
        let swap = Swap { built: Arc::clone(&built), prepared, sinks, author, reason, reply };
        let gone = || Diagnostics::from(Diagnostic::error(Area::Config, "the daemon is about to stop"));
        self.orders.send(Order::Swap(Box::new(swap))).map_err(|_| gone())?;
        match answer.recv_timeout(Duration::from_secs(ANSWER_SEC)) {
            Ok(answer) => answer.map_err(Into::into),
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => Err(gone()),
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                let d = Diagnostic::error(Area::Config, format!("the daemon did not answer within {ANSWER_SEC} s"));
                Err(d.help("whether the generation is active is not known; `hb generation list` tells").into())
            }
        }
    }

    fn note_refused(&self, author: &str, reason: &str, found: &Diagnostics) {
        let why = found.iter().map(|d| d.message.as_str()).collect::<Vec<_>>().join("; ");
        tracing::warn!(author, why, "the generation is refused; the one before goes on");
        // When the loop has ended there is no log to note it in.
        let _ = self.orders.send(Order::Refused { author: author.to_owned(), reason: reason.to_owned(), why });
    }
}

/// Whether nothing would change: what judges is named by its hash, the rest stands in the config or is referred to by it.
fn is_same(active: &Built, candidate: &Built) -> bool {
    active.generation.hash == candidate.generation.hash
        && active.file.config == candidate.file.config
        && active.has_secrets_of(candidate)
}

fn plugin_problem(e: PipelineError) -> Diagnostics {
    Diagnostic::error(Area::Plugin, chain(&e)).into()
}
