//! `hb completions` and `hb man`: what the command line says of itself, for shells, for `man` and for the reference.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;

use super::session::{self, Stream};
use super::{Cli, Done, Failure};
use crate::diagnostic::exit;

/// Columns of the reference: what a terminal of usual width shows without scrolling.
const PAGE_COLUMNS: usize = 100;

const PAGE_HEAD: &str = "\
# Command line

<!-- Made by `hb man --markdown` of the program itself; change it in host/daemon/src/cli. -->

What stands here is what `--help` says.
Data goes to stdout, talk goes to stderr; `--json` makes the data JSON.
[Exit codes](exit-codes.md) say who must act.
Every verb takes `--log-format text` or `json` too, or `HB_LOG_FORMAT`, for the form of its lines on stderr; no help repeats it.
";

/// Arguments of `hb completions`.
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// The shell: bash, zsh, fish.
    #[arg(value_parser = ["bash", "zsh", "fish"], hide_possible_values = true)]
    shell: String,
}

/// Arguments of `hb man`.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ManArgs {
    /// Directory that gets a page for each verb.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print all verbs as one page in Markdown.
    #[arg(long)]
    markdown: bool,
}

/// Prints a shell's completions.
pub(crate) fn completions(args: &CompletionsArgs) -> Done {
    let shell: Shell = args.shell.parse().map_err(|e: String| Failure::usage(e, "bash, zsh and fish are known"))?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hb", &mut script);
    session::say(Stream::Out, &String::from_utf8_lossy(&script));
    Ok(exit::OK)
}

/// Writes the man pages, or prints the reference.
pub(crate) fn man(args: &ManArgs) -> Done {
    match args.out.as_deref().map(session::path) {
        Some(dir) => std::fs::create_dir_all(&dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &dir))
            .map_err(|e| Failure::io(&dir, &e))?,
        None => session::say(Stream::Out, &markdown()),
    }
    Ok(exit::OK)
}

/// One page with a section for each verb, hidden ones included, as its help shows it.
fn markdown() -> String {
    let mut command = Cli::command().term_width(PAGE_COLUMNS);
    command.build();
    let mut page = PAGE_HEAD.to_owned();
    section(command, 2, &mut page);
    page
}

/// A verb, and behind it its own verbs.
fn section(command: Command, level: usize, page: &mut String) {
    // What this machine's environment says belongs to nobody else's page.
    let mut command = command.mut_args(|arg| arg.hide_env_values(true));
    let help = command.render_long_help().to_string();
    let name = command.get_bin_name().unwrap_or(command.get_name());
    page.push_str(&format!("\n{} {name}\n\n```text\n{}\n```\n", "#".repeat(level), trimmed(&help)));
    // Verbs within verbs are verbs for a reader: no third depth of headings.
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        // Flags that every verb understands stand in the first section.
        let inner = inner.clone().mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
        section(inner.term_width(PAGE_COLUMNS), 3, page);
    }
}

/// Without blanks at ends of lines, which no page has.
fn trimmed(help: &str) -> String {
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned()
}
