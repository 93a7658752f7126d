//! Killed at fifty moments and started again each time, a daemon ends with the same decisions as one never killed.

use std::collections::BTreeMap;
use std::time::Duration;

use hb::pipeline::journal::{self, Row};
use hb::state::{Options, State};
use hb_log::sign::PublicKey;

use crate::support::hb::{Dice, Hb, PROGRAM, Plant, Running, telemetry};

/// Kills altogether at least.
const KILLS: usize = 50;

/// Kills in each place at least.
const KILLS_EACH: usize = 10;

/// Starts at most: the places are hit by chance, and a slow machine misses more often.
const STARTS_MAX: usize = 200;

/// Simulated seconds: enough commits for every start that gets on.
const SECONDS: u64 = 3_500;

/// A kill comes this long behind its line at most, us; a commit takes some thousands.
const DELAY_US_MAX: u64 = 1_500;

/// Small commits, so that there are many moments around them.
const PLANT: Plant = Plant { batch_frames: 64, workers: 1, commit_samples: 200, evidence: false };

/// Where a child was when it was killed, by its last line and what was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// It was rebuilding its engine.
    Recovering,
    /// A commit had begun and is not durable.
    BeforeCommit,
    /// A commit is durable and nothing came behind it.
    AfterCommit,
}

#[test]
fn fifty_kills_lose_nothing_and_double_nothing() {
    let telemetry = telemetry(2, SECONDS);
    let calm = Hb::plant(PLANT, &telemetry);
    calm.done(&["daemon", "--once"]);
    let hb = Hb::plant(PLANT, &telemetry);

    let mut dice = Dice(7);
    let mut kills: BTreeMap<Place, usize> = BTreeMap::new();
    let (mut starts, mut killed) = (0, 0);
    let enough = |kills: &BTreeMap<Place, usize>, killed: usize| {
        killed >= KILLS && PLACES.iter().all(|p| kills.get(p).is_some_and(|&n| n >= KILLS_EACH))
    };
    while !enough(&kills, killed) {
        starts += 1;
        assert!(starts <= STARTS_MAX, "{starts} starts, killed {kills:?}");
        // The place that was hit least is aimed at next.
        let aim = *PLACES.iter().min_by_key(|p| kills.get(p).copied().unwrap_or(0)).unwrap();
        let before = commits(&hb);
        let last = kill_once(&hb, aim, &mut dice);
        killed += 1;
        // Looked at in a copy: the next start finds the state exactly as the kill left it.
        let after = commits(&hb);
        if let Some(place) = last.place(before, after) {
            *kills.entry(place).or_default() += 1;
        }
    }
    println!("{killed} kills: {kills:?}");

    let output = hb.done(&["daemon", "--once"]);
    assert!(output.stdout.contains("frames"), "{output:#?}");
    assert!(hb.decisions(PROGRAM) == calm.decisions(PROGRAM), "the decisions differ");
    assert_eq!(hb.counters(PROGRAM), calm.counters(PROGRAM));
    assert!(samples(&hb) == samples(&calm), "the samples of the journals differ");
    hb.done(&["log", "verify"]);
}

const PLACES: [Place; 3] = [Place::Recovering, Place::BeforeCommit, Place::AfterCommit];

/// What the lines say that tell where a child is.
const WORDS: [&str; 4] = ["recovering lane", "lane recovered", "committing", "committed"];

/// What a killed child said last.
struct Last {
    line: String,
    /// The last commit it reported.
    reported: Option<u64>,
}

impl Last {
    /// Where it was, given the commits that were durable before it started and after it died.
    fn place(&self, before: u64, after: u64) -> Option<Place> {
        let known = self.reported.unwrap_or(before);
        assert!(after >= known && after <= known + 1, "{after} commits are durable, {known} were reported");
        if self.line.contains("recovering lane") {
            return Some(Place::Recovering);
        }
        let committing = self.line.contains("committing");
        if self.line.contains("committed") || (committing && after > known) {
            return Some(Place::AfterCommit);
        }
        committing.then_some(Place::BeforeCommit)
    }
}

/// Starts the daemon, and kills it at a moment chosen by the dice.
fn kill_once(hb: &Hb, aim: Place, dice: &mut Dice) -> Last {
    let mut command = hb.command(&["daemon", "--once"]);
    command.env("RUST_LOG", "hb::pipeline::record=debug").env("NO_COLOR", "1");
    let mut running = Running::start(&mut command);
    let (word, nth) = match aim {
        Place::Recovering => ("recovering lane", 1),
        // The first commit of a start only notes that it recovered; later ones bring telemetry.
        Place::BeforeCommit => ("committing", 1 + dice.below(3)),
        Place::AfterCommit => ("committed", 1 + dice.below(3)),
    };
    running.wait_for(word, nth as usize);
    // A little later, unless something else happens first.
    let delay = Duration::from_micros(dice.below(DELAY_US_MAX));
    if aim != Place::Recovering {
        running.wait_for_any(delay);
    }
    let mut seen = running.kill();
    seen.retain(|line| WORDS.iter().any(|word| line.contains(word)));
    let number = |line: &String| line.split("txn=").nth(1).and_then(|n| n.trim().parse().ok());
    Last { reported: seen.iter().rev().find_map(number), line: seen.pop().unwrap() }
}

/// Commits that are durable, after the whole log was verified; in a copy, so that the state stays as it was left.
pub(crate) fn commits(hb: &Hb) -> u64 {
    let copy = tempfile::tempdir().unwrap();
    let state = hb.path("state");
    std::fs::copy(state.join("hb.redb"), copy.path().join("hb.redb")).unwrap();
    let key = PublicKey::parse(&std::fs::read_to_string(state.join("keys/host.pub")).unwrap()).unwrap();
    let reader = State::open(copy.path(), Options::default()).unwrap().reader().unwrap();
    reader.verify_log(&key).unwrap();
    reader.commits().unwrap()
}

/// Every sample of the journal in order: frame, series, time, bits.
fn samples(hb: &Hb) -> Vec<(u64, u32, i64, u64)> {
    let reader = State::open(&hb.path("state"), Options::default()).unwrap().reader().unwrap();
    let mut all = Vec::new();
    for row in reader.journal(PROGRAM, "live", 0).unwrap() {
        if let Row::Samples(c) = journal::decode(&row.unwrap().bytes).unwrap() {
            all.extend((0..c.len()).map(|i| (c.ordinal[i], c.series[i], c.time_ns[i], c.value[i].to_bits())));
        }
    }
    all
}
