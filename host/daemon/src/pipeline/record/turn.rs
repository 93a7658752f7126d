//! What the recorder compares with and judges by: generations and baselines as they become active.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hb_engine::engine::Input;

use super::{LIVE, Recorder, Step, text_map};
use crate::generation::history::Swap;
use crate::generation::{Generation, policies_of};
use crate::pipeline::journal::Other;
use crate::pipeline::recover::load_baseline;
use crate::pipeline::retain::Compared;
use crate::pipeline::{PipelineError, news};

impl Recorder {
    /// Lets another generation judge from the next input on; the log tells who wanted it, and why.
    pub fn turn_to(&mut self, generation: &Generation, author: &str, reason: &str) -> Result<(), PipelineError> {
        let before = self.engine.core().generation;
        // Before anything else: when they do not open, nothing has changed.
        self.judge = policies_of(&generation.spec, &|hash| generation.blob(hash))?;
        self.alerting.iter_mut().for_each(|alerting| alerting.routes.clone_from(&generation.routes));
        self.pending.blobs.extend(generation.blobs.iter().cloned());
        self.log("generation", generation.entry(before, author, reason));
        self.remember(Swap::active(generation.hash, before, author, reason));
        news::tell_swap(generation.hash, &self.lane, author, reason);
        if before != Some(generation.hash) {
            self.other(Input::Generation(Arc::clone(&generation.spec)), &Other::Generation(generation.hash));
        }
        self.spec = Arc::clone(&generation.spec);
        self.retire_alerts();
        Ok(())
    }

    /// Notes a generation that was to take over and did not.
    pub fn refuse(&mut self, author: &str, reason: &str, why: &str) {
        self.log("generation.refused", text_map(&[("author", author), ("reason", reason), ("why", why)]));
        self.remember(Swap::refused(author, reason, why));
        let [author, reason, why] = [author, reason, why].map(str::to_owned);
        self.keep(|| Step::Refused { author, reason, why });
    }

    fn remember(&mut self, swap: Swap) {
        // What runs offline is no history of this host.
        if self.lane == LIVE {
            self.history.push(swap);
            let meta = self.history.to_meta();
            self.pending.meta.retain(|m| m.0 != meta.0);
            self.pending.meta.push(meta);
        }
    }

    /// Makes the baselines active that the tags of the checks name now.
    pub fn refresh_baselines(&mut self) -> Result<(), PipelineError> {
        let (reader, spec) = (self.state.reader()?, Arc::clone(&self.spec));
        let tags: BTreeMap<String, u32> = reader.tags(&self.program)?.into_iter().collect();
        let wanted: BTreeSet<&String> = spec.checks.iter().filter_map(|c| c.baseline.as_ref()).collect();
        for tag in wanted {
            let now = self.engine.core().baselines.get(tag).map(|b| b.version);
            let target = tags.get(tag).copied();
            if now == target {
                continue;
            }
            let baseline = target.map(|version| load_baseline(&reader, &self.program, version)).transpose()?;
            let baseline = target.zip(baseline);
            let named = baseline.as_ref().map(|(version, b)| hb_engine::decision::BaselineRef {
                tag: tag.clone(),
                version: *version,
                hash: b.hash(),
            });
            let shown = target.map_or_else(|| "none".to_owned(), |v| v.to_string());
            self.log("baseline.active", text_map(&[("tag", tag), ("version", &shown), ("lane", &self.lane.clone())]));
            self.compared.add(named.as_ref());
            self.other(Input::Baseline { tag, baseline }, &Other::Baseline(tag.clone(), named));
            self.pending.compared = Some(Compared::now(self.engine.core()));
        }
        Ok(())
    }
}
