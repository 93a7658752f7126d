//! `hb inject`: damages a metrics.csv on purpose.

use std::fs;
use std::io::BufWriter;
use std::path::PathBuf;

use clap::Args;
use hb_engine::inject::Fault;
use serde_json::json;

use super::{Done, Failure, Global};
use crate::artifact::{self, ReadError};
use crate::diagnostic::exit;

/// Arguments of `hb inject`.
#[derive(Args)]
pub(crate) struct InjectArgs {
    /// latency_spike, packet_loss, schema_change or value_corruption.
    #[arg(long)]
    fault: String,
    /// A metrics.csv.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the damaged one goes.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Parameters: metric, from and to (shares of the time span) for each; delay_ms, rate, rename_to, offset, factor,
    /// noise for the fault.
    #[arg(long = "param", value_name = "K=V")]
    params: Vec<String>,
    /// Random numbers start here: the same seed does the same damage.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Reads, damages, writes.
pub(crate) fn inject(global: &Global, args: &InjectArgs) -> Done {
    let mut params = Vec::new();
    for p in &args.params {
        let (k, v) = p.split_once('=').ok_or_else(|| {
            Failure::usage(format!("`{p}` is no parameter"), "write it as name=value, as --param delay_ms=500")
        })?;
        params.push((k.to_owned(), v.to_owned()));
    }
    let (fault, target) =
        Fault::parse(&args.fault, &params).map_err(|e| Failure::usage(e, "see `hb inject --help`"))?;
    let mut records = Vec::new();
    artifact::read_metrics(&args.input, |r| records.push(r)).map_err(|e| match &e {
        ReadError::Io { path, source } => Failure::io(path, source),
        ReadError::Line { .. } => Failure::artifact(&e),
    })?;
    let before = records.len();
    let damaged = fault.apply(&target, records, args.seed);
    let file = fs::File::create(&args.output).map_err(|e| Failure::io(&args.output, &e))?;
    let mut out = BufWriter::new(file);
    artifact::write_metrics(&mut out, &damaged).map_err(|e| Failure::io(&args.output, &e))?;
    std::io::Write::flush(&mut out).map_err(|e| Failure::io(&args.output, &e))?;
    let done = json!({
        "fault": args.fault, "input": args.input, "output": args.output, "seed": args.seed,
        "records_in": before, "records_out": damaged.len(),
    });
    global.print(&done, |_| format!("{}: {before} records in, {} out\n", args.output.display(), damaged.len()));
    Ok(exit::OK)
}
