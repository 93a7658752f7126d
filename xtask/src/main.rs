//! xtask runs the project's chores: `cargo xtask <task>`.

mod plugins;

use anyhow::{Result, bail};
use std::path::Path;

fn main() -> Result<()> {
    // The workspace root lies above this crate.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let task = std::env::args().nth(1);
    match task.as_deref() {
        Some("plugins") => {
            let built = plugins::build(root)?;
            eprintln!("{} plugins in {}", built.plugins.len(), built.dir.display());
            Ok(())
        }
        Some(other) => bail!("unknown task {other:?}; known: plugins"),
        None => bail!("usage: cargo xtask plugins"),
    }
}
