//! xtask runs the project's chores: `cargo xtask <task>`.

mod bench;
mod browser;
mod demo;
mod machine;
mod plugins;
mod test;
mod tidy;

use anyhow::{Result, bail};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <task>

  demo [ARGS]        build hb and play `hb demo ARGS`: a plant falls ill, hb finds it, survives a kill, and proves it
  plugins            build, encode and sign all guests
  plugin DIR [--out DIR]
                     build, encode and sign the plugin of a crate anywhere, into a folder of its name in the other
                     DIR, or in `plugins` beside the crate
  test [-- FILTER]   all a fresh machine needs, then every test; FILTER picks tests by name
  bench [NAME...]    what the optimised build promises, measured; `bench --help` lists the cases
  tidy               the rules no compiler knows: floors, purity, links, manifests, text, stale pages
  generate           write anew the pages that repeat what the source says
  setup              install and fetch what the build and the tests use; `test` does it by itself
  help               this text";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A finding or a failed step is for the reader of this terminal: the reasons, no stack.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    // The workspace root lies above this crate.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    match args {
        ["bench", args @ ..] => bench::run(root, args),
        ["demo", args @ ..] => demo::run(root, args),
        ["plugins"] => {
            let built = plugins::build(root)?;
            eprintln!("{} plugins in {}", built.plugins.len(), built.dir.display());
            Ok(())
        }
        ["plugin", dir] => plugin(root, Path::new(dir), &Path::new(dir).join("../plugins")),
        ["plugin", dir, "--out", out] => plugin(root, Path::new(dir), Path::new(out)),
        ["test"] => test::run(root, &[]),
        ["test", "--", filter @ ..] => test::run(root, filter),
        ["tidy"] => tidy::run(root),
        ["generate"] => tidy::generate(root),
        ["setup"] => machine::ensure_packages(machine::Need::Test).and_then(|()| browser::ensure(root)),
        ["help" | "--help" | "-h"] | [] => {
            eprintln!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown task `{}`\n\n{USAGE}", other.join(" ")),
    }
}

fn plugin(root: &Path, source: &Path, out: &Path) -> Result<()> {
    // The build runs in the crate's own folder.
    let place = std::path::absolute(out)?;
    let built = plugins::build_one(root, &std::path::absolute(source)?, &place)?;
    let name = built.file_name().unwrap_or_default();
    eprintln!("{} is signed with {}", out.join(name).display(), out.join("dev-publisher.pub").display());
    Ok(())
}
