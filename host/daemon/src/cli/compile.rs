//! `hb compile`: what a process of hb does that another one starts to compile a plugin.

use std::io::{Read as _, Write as _};

use clap::Args;

use super::{Done, Failure};
use crate::diagnostic::exit;
use crate::plugin::{Kind, compiler};

/// What is compiled.
#[derive(Args)]
pub(crate) struct CompileArgs {
    /// Kind of plugin.
    #[arg(value_parser = ["source", "normalizer", "sink"])]
    kind: String,
}

/// Reads a component on stdin and writes its machine code to stdout.
pub(crate) fn compile(args: &CompileArgs) -> Done {
    let kind = match args.kind.as_str() {
        "source" => Kind::Source,
        "normalizer" => Kind::Normalizer,
        _ => Kind::Sink,
    };
    let mut wasm = Vec::new();
    std::io::stdin().read_to_end(&mut wasm).map_err(|e| Failure::io("stdin".as_ref(), &e))?;
    let code = compiler::code_of(kind, &wasm).map_err(|e| Failure::data(format!("{e:#}")))?;
    let mut stdout = std::io::stdout();
    stdout.write_all(&code).and_then(|()| stdout.flush()).map_err(|e| Failure::io("stdout".as_ref(), &e))?;
    Ok(exit::OK)
}
