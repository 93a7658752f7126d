//! Measures the optimised build as an operator would see it, and compares with what is promised.
//!
//! The cases of throughput run the way of telemetry inside one process; the live ones run the real `hb daemon` as a
//! child, with a real broker and real sockets. Each number is shown beside its limit; the bench ends with an error that
//! names every limit that was missed.

mod broker;
mod burst;
mod daemon;
mod day;
mod demo;
mod ground;
mod idle;
mod latency;
mod load;
mod process;
mod receiver;
mod reload;
mod restart;
mod row;
mod stored;
mod throughput;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use ground::Ground;
use row::Row;

/// What is asked for on the command line.
struct Asked {
    cases: Vec<&'static Case>,
    /// How much faster than time a day goes by.
    speed: u32,
    /// Measure what was built before.
    is_built: bool,
}

/// Something to measure.
struct Case {
    name: &'static str,
    about: &'static str,
    run: fn(&Ground, &Asked) -> Result<Vec<Row>>,
}

const CASES: &[Case] = &[
    Case {
        name: "throughput",
        about: "records per second inside one process: plugins, plugins and store, neither; about 2 minutes",
        run: |ground, _| throughput::run(ground),
    },
    Case {
        name: "reload",
        about: "50 changes while 20,000 records/s come over TCP, UDP and MQTT; 3 minutes",
        run: |ground, _| reload::run(ground),
    },
    Case {
        name: "burst",
        about: "1,000,000 messages as fast as they go, with a slow disk; some minutes",
        run: |ground, _| burst::run(ground),
    },
    Case {
        name: "idle",
        about: "memory and CPU of a daemon that waits; 5 minutes",
        run: |ground, _| idle::run(ground),
    },
    Case {
        name: "day",
        about: "a day of telemetry with small caps; a quarter of an hour at the default speed",
        run: |ground, asked| day::run(ground, asked.speed),
    },
    Case {
        name: "latency",
        about: "from a window's end to its decision, and from the decision to the alert; 2 minutes",
        run: |ground, _| latency::run(ground),
    },
    Case {
        name: "restart",
        about: "from kill -9 under load to the next record stored, 20 times; 3 minutes",
        run: |ground, _| restart::run(ground),
    },
    Case {
        name: "demo",
        about: "ten seeds with faults, ten without, and one demo at its own speed; a quarter of an hour",
        run: |ground, _| demo::run(ground),
    },
];

/// Builds with optimisation and measures what is asked for.
pub(crate) fn run(root: &Path, args: &[&str]) -> Result<()> {
    let asked = match args {
        ["--help" | "-h" | "help"] => {
            eprint!("{}", usage());
            return Ok(());
        }
        args => Asked::parse(args)?,
    };
    let ground = Ground::prepare(root, asked.is_built)?;
    let mut missed = Vec::new();
    for case in &asked.cases {
        eprintln!("bench: {}: {}", case.name, case.about);
        let rows = (case.run)(&ground, &asked).with_context(|| format!("case `{}`", case.name))?;
        let mut out = std::io::stdout();
        if !rows.first().is_some_and(Row::is_verbatim) {
            writeln!(out, "\n| {} | measured | limit |\n|---|---:|---:|", case.name)?;
        }
        for row in &rows {
            writeln!(out, "{}", row.line())?;
        }
        out.flush()?;
        missed.extend(rows.iter().filter(|row| row.is_missed()).map(|row| format!("{}: {}", case.name, row.words())));
    }
    ensure!(missed.is_empty(), "{} limits were missed\n  {}", missed.len(), missed.join("\n  "));
    Ok(())
}

impl Asked {
    fn parse(args: &[&str]) -> Result<Asked> {
        let mut asked = Asked { cases: Vec::new(), speed: day::SPEED, is_built: false };
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            if arg == "--speed" {
                let speed = args.next().and_then(|n| n.parse().ok()).filter(|n| day::SPEEDS.contains(n));
                asked.speed = speed.with_context(|| format!("`--speed` takes a number in {:?}", day::SPEEDS))?;
                continue;
            }
            if arg == "--built" {
                asked.is_built = true;
                continue;
            }
            match CASES.iter().find(|case| case.name == arg) {
                Some(case) => asked.cases.push(case),
                None => bail!("no case is named `{arg}`\n\n{}", usage()),
            }
        }
        if asked.cases.is_empty() {
            asked.cases = CASES.iter().collect();
        }
        Ok(asked)
    }
}

fn usage() -> String {
    let mut text = "usage: cargo xtask bench [NAME...] [--speed N] [--built]\n\n".to_owned();
    for case in CASES {
        let _ = writeln!(text, "  {:<11} {}", case.name, case.about);
    }
    text + &format!(
        "\nWithout a name all of them. `--speed` is for `day`: {} by default. `--built` builds nothing anew.\n",
        day::SPEED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_cases_and_wrong_ones_are_told() {
        let names = |args: &[&str]| -> Vec<&str> { Asked::parse(args).unwrap().cases.iter().map(|c| c.name).collect() };
        assert_eq!(names(&["idle", "burst"]), ["idle", "burst"]);
        assert_eq!(names(&[]).len(), CASES.len());
        assert_eq!(Asked::parse(&["day", "--speed", "100"]).unwrap().speed, 100);
        for wrong in [&["ilde"][..], &["day", "--speed"], &["day", "--speed", "0"]] {
            assert!(Asked::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
