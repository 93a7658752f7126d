//! Health and metrics of a running daemon, and the file that says where they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Failure, STATE_FILE};
use crate::api::Api;
use crate::config::ConfigFile;
use crate::diagnostic::{Area, Diagnostic, chain, exit};
use crate::telemetry::Vitals;

/// The file of the state directory that says where the server listens.
const ADDRESS_FILE: &str = "http.addr";

/// A server at work; the file goes with it.
pub(crate) struct Served {
    _api: Api,
    path: PathBuf,
}

impl Drop for Served {
    fn drop(&mut self) {
        // Whoever finds it later finds nobody there.
        let _ = fs::remove_file(&self.path);
    }
}

/// Serves `vitals` where the config says, if it does. The state must be locked: the file beside it is of one daemon.
pub(crate) fn serve(file: &ConfigFile, vitals: &Arc<Vitals>) -> Result<Option<Served>, Failure> {
    let state = &file.config.state;
    vitals.state_files(vec![state.join(STATE_FILE)]);
    let path = state.join(ADDRESS_FILE);
    // A daemon that was killed left it.
    let _ = fs::remove_file(&path);
    let Some(http) = &file.config.http else { return Ok(None) };
    let api = Api::start(http.listen, Arc::clone(vitals)).map_err(|e| {
        let d = Diagnostic::error(Area::Io, chain(&e)).at(file.place("http.listen")).help(e.help());
        Failure::new(exit::IO, d)
    })?;
    write_whole(&path, &format!("{}\n", api.address())).map_err(|e| Failure::io(&path, &e))?;
    tracing::info!(address = api.address().to_string(), "serving health and metrics");
    Ok(Some(Served { _api: api, path }))
}

/// Whoever waits for the file finds all of it.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("addr.new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
