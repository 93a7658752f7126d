//! The demo with many seeds: each ends well, with faults and without, and in time.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::ground::Ground;
use super::row::Row;

/// Seeds with faults, and seeds without.
const SEEDS: u64 = 10;

/// Longest wall time of a demo that is built, s: a stranger's patience.
const WALL_SEC: f64 = 300.0;

/// Plays all seeds as fast as they go, and one as a user would.
pub(super) fn run(ground: &Ground) -> Result<Vec<Row>> {
    let fast = |seed: u64| vec!["--seed".to_owned(), seed.to_string(), "--speed".to_owned(), "0".to_owned()];
    let quiet = |seed: u64| [fast(seed), vec!["--expect-quiet".to_owned()]].concat();
    let with_faults = played(ground, (1..=SEEDS).map(fast))?;
    let without = played(ground, (1..=SEEDS).map(quiet))?;
    let as_it_is = played(ground, [Vec::new()])?;
    Ok(vec![
        Row::exactly("seeds with faults that end well", with_faults.well, SEEDS),
        Row::below("slowest of them, as fast as it goes", with_faults.slowest.as_secs_f64(), WALL_SEC, "s"),
        Row::exactly("seeds without faults that end well", without.well, SEEDS),
        Row::below("slowest of them, as fast as it goes", without.slowest.as_secs_f64(), WALL_SEC, "s"),
        Row::exactly("demos at the default speed that end well", as_it_is.well, 1),
        Row::below("wall time at the default speed", as_it_is.slowest.as_secs_f64(), WALL_SEC, "s"),
    ])
}

/// What came of some demos.
#[derive(Default)]
struct Played {
    well: u64,
    slowest: Duration,
}

/// Plays a demo with each of these arguments; of one that does not end well it shows what it said last.
fn played(ground: &Ground, demos: impl IntoIterator<Item = Vec<String>>) -> Result<Played> {
    let mut played = Played::default();
    for args in demos {
        let dir = ground.dir("demo")?;
        let (begin, keep) = (Instant::now(), dir.join("play"));
        let output = ground.hb(&dir).arg("demo").args(&args).arg("--keep").arg(&keep).output()?;
        let took = begin.elapsed();
        eprintln!("bench: demo {}: {}, {:.0} s", args.join(" "), output.status, took.as_secs_f64());
        if output.status.success() {
            played.well += 1;
        } else {
            eprintln!("{}", last(&output.stdout, &output.stderr, &keep));
        }
        played.slowest = played.slowest.max(took);
    }
    Ok(played)
}

/// The account of a demo, or whatever it ended with.
fn last(out: &[u8], err: &[u8], keep: &Path) -> String {
    let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    let account = out.split("\nAccount\n").nth(1).unwrap_or_default();
    let log = std::fs::read_to_string(keep.join("daemon.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    format!("{account}{err}{}", lines[lines.len().saturating_sub(5)..].join("\n"))
}
