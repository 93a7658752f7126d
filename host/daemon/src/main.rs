//! The `hb` binary: everything is in the library, so that tests and other faces can use it.

use std::process::ExitCode;

fn main() -> ExitCode {
    hb::cli::main()
}
