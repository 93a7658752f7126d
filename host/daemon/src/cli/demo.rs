//! `hb demo`: a plant, a broker and a daemon on one machine, six acts, and an account of what came of it.
//!
//! Nothing in it is made for the demo but the plant: the daemon is the one that runs as a service, with the plugins and
//! policies that come with it, and every command shown is run as it is shown; only the daemon, which goes on behind the
//! others, is started without a shell.

mod account;
mod live;
mod player;
mod stage;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::simulate::Pace;
use super::{Done, Failure, Global};
use crate::clock;
use crate::diagnostic::exit;
use crate::plant::{Fault, Kind};

use account::Account;
use player::Player;
use stage::Stage;

/// A Monday.
const START: &str = "2026-03-02";

/// Time between two reports of a machine.
const STEP_NS: i64 = 60 * hb_engine::NS_PER_SEC;

const HOUR_NS: i64 = 3_600 * hb_engine::NS_PER_SEC;

/// Hours of the plant at which something happens.
const LEARNED: i64 = 24;
const WELL_UNTIL: i64 = 36;
const EDITED: i64 = 41;
const KILLED: i64 = 42;
const END: i64 = 45;

/// Longest wait for a command to end, and for the daemon to be ready, to have stored what was sent, or to end: many times
/// what it takes.
const PATIENCE: Duration = Duration::from_mins(2);

/// Arguments of `hb demo`.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// The same seed is the same plant with the same faults.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Seconds of the plant's time in one second; 0 as fast as it goes.
    #[arg(long, value_name = "X", default_value_t = 2_400.0, allow_negative_numbers = true)]
    speed: f64,
    /// Play in this directory, which must be empty or not there. Default: a new one below the temporary directory, which
    /// stays for a look.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Play without faults: nothing may be found.
    #[arg(long)]
    expect_quiet: bool,
}

/// Plays all acts and answers for each line of the account.
pub(crate) fn demo(global: &Global, args: &DemoArgs) -> Done {
    Pace::check(args.speed, "as --speed 2400, an hour in 1.5 s")?;
    let begin = Instant::now();
    let start_ns = clock::parse(START).map_err(Failure::data)?;
    let faults = if args.expect_quiet { Vec::new() } else { faults(args.seed) };
    let mut stage = Stage::build(global, args.keep.as_deref())?;
    let mut player = Player::new(&stage, args.seed, start_ns, args.speed, faults)?;
    let mut show = Show { stage: &mut stage, player: &mut player, wrong: Vec::new() };
    show.learn()?;
    show.stay_quiet()?;
    show.fall_ill()?;
    show.change_the_rules()?;
    show.die_and_resume()?;
    let account = Account::draw(show.stage, show.player, args.expect_quiet)?;
    show.prove(&account)?;
    let wrong = show.wrong;
    stage.live().say(&account.table(&player, &wrong, begin.elapsed()));
    stage.live().say(&stage.look_further(account.case()));
    Ok(if wrong.is_empty() && account.is_right() { exit::OK } else { exit::GATE_FAIL })
}

/// What goes on, and what did not go as it should.
struct Show<'a> {
    stage: &'a mut Stage,
    player: &'a mut Player,
    wrong: Vec<String>,
}

impl Show<'_> {
    fn learn(&mut self) -> Result<(), Failure> {
        self.act("1", "Learn", "a day in which all is well becomes the baseline `golden`");
        self.expect(&["keys", "init"], 0)?;
        self.expect(&["check"], 0)?;
        self.stage.start()?;
        self.player.play(self.stage, LEARNED * HOUR_NS)?;
        self.player.settle(self.stage, PATIENCE)?;
        self.expect(&["baseline", "create", "--window", "24h"], 0)?;
        self.expect(&["baseline", "promote", "--version", "1", "--tag", "golden"], 0)?;
        Ok(())
    }

    fn stay_quiet(&mut self) -> Result<(), Failure> {
        self.act("2", "Watch", "half a day in which all is well: nothing may be found");
        self.player.play(self.stage, WELL_UNTIL * HOUR_NS)?;
        self.player.settle(self.stage, PATIENCE)?;
        let alerts = self.stage.json(&["alert", "list", "--all"])?.as_array().map_or(0, Vec::len);
        self.check(alerts == 0, &format!("{alerts} alerts while all was well"));
        self.stage.live().say(&format!("{alerts} alerts\n"));
        Ok(())
    }

    fn fall_ill(&mut self) -> Result<(), Failure> {
        if self.player.faults().is_empty() {
            self.act("3", "Find", "no faults this time: nothing may be found either");
        } else {
            self.act("3", "Find", "six machines fall ill, each in its own way, an hour apart");
        }
        self.player.play(self.stage, EDITED * HOUR_NS)
    }

    fn change_the_rules(&mut self) -> Result<(), Failure> {
        self.act("4", "Change", "a tighter limit goes live under full load; a broken policy does not");
        let before = self.stage.generation()?;
        let edited = self.stage.edit_limit()?;
        self.check(edited == 0, "the policy could not be edited");
        self.expect(&["reload", "--reason", "tighter limits after last week"], 0)?;
        let tighter = self.stage.generation()?;
        self.check(before != tighter, "the tighter limit did not become active");
        let broken = self.stage.break_policy()?;
        self.check(broken == 0, "the policy could not be edited");
        self.expect(&["reload", "--reason", "a slip of the hand"], i32::from(exit::CONFIG))?;
        let mended = self.stage.mend_policy()?;
        self.check(mended == 0, "the policy could not be put back");
        self.check(self.stage.generation()? == tighter, "the broken policy changed what runs");
        self.expect(&["generation", "list"], 0)?;
        self.player.play(self.stage, KILLED * HOUR_NS)
    }

    fn die_and_resume(&mut self) -> Result<(), Failure> {
        self.act("5", "Survive", "the daemon is killed in the middle of its work, and starts again");
        // No wait: what is under way is under way.
        let killed = self.stage.kill()?;
        self.check(killed == 0, "the daemon could not be killed");
        self.player.rush(self.stage, 20)?;
        self.stage.start()?;
        self.player.play(self.stage, END * HOUR_NS)?;
        self.player.settle(self.stage, PATIENCE)?;
        // From here on there is no daemon to be seen.
        self.stage.live().end();
        self.stage.stop()
    }

    fn prove(&mut self, account: &Account) -> Result<(), Failure> {
        self.act(
            "6",
            "Prove",
            "whoever doubts needs the pack, the host's public key, and tools that know nothing of hb",
        );
        if let Some(case) = account.case() {
            let pack = format!("evidence_packs/evidence_{case}");
            let key = "../../state/keys/host.pub";
            let sealed = format!("tagmanifest-sha256.txt.minisig -p {key}");
            let signed = format!("cd {pack} && minisign -Vm tagmanifest-sha256.txt -x {sealed}");
            let whole = "sha256sum --check --strict --quiet tagmanifest-sha256.txt manifest-sha256.txt";
            let done = self.stage.shell(&format!("{signed} && {whole} && echo every file is as signed"))?;
            self.check(done == 0, "stock tools do not verify the pack");
            self.expect(&["verify", &pack, "--key", "state/keys/host.pub"], 0)?;
            self.expect(&["replay", &pack], 0)?;
        }
        self.expect(&["log", "verify", "--key", "state/keys/host.pub"], 0)
    }

    fn act(&self, number: &str, name: &str, what: &str) {
        self.stage.live().say(&format!("\nAct {number}. {name}: {what}\n\n"));
    }

    /// Types a command and shows its answer.
    fn expect(&mut self, args: &[&str], code: i32) -> Result<(), Failure> {
        let ended = self.stage.type_in(args)?;
        self.check(ended == code, &format!("`hb {}` ended with {ended} instead of {code}", args.join(" ")));
        Ok(())
    }

    fn check(&mut self, holds: bool, what: &str) {
        if !holds {
            self.stage.live().say(&format!("WRONG: {what}\n"));
            self.wrong.push(what.to_owned());
        }
    }
}

/// One fault of each kind, an hour apart, each on a machine of its own that the seed chooses.
fn faults(seed: u64) -> Vec<Fault> {
    let mut rng = fastrand::Rng::with_seed(seed);
    // New firmware comes to mills alone: they are the last ones.
    let mut mills = ["mill-15", "mill-16", "mill-17", "mill-18", "mill-19", "mill-20"];
    rng.shuffle(&mut mills);
    let mut others: Vec<String> = (1..=7).map(|n| format!("press-{n:02}")).collect();
    others.extend((8..=14).map(|n| format!("pump-{n:02}")));
    others.extend(mills[1..].iter().map(|&name| name.to_owned()));
    rng.shuffle(&mut others);
    let mut others = others.into_iter();
    let fault = |(hour, (kind, _)): (i64, (Kind, &str))| {
        let machine = if kind == Kind::Rename { Some(mills[0].to_owned()) } else { others.next() };
        let from_ns = (WELL_UNTIL + hour) * HOUR_NS;
        machine.map(|machine| Fault { kind, machine, from_ns, for_ns: None })
    };
    (0..).zip(Kind::ALL).filter_map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_fault_hits_a_machine_of_its_own() {
        for seed in 0..50 {
            let faults = faults(seed);
            let machines: std::collections::BTreeSet<&str> = faults.iter().map(|f| f.machine.as_str()).collect();
            assert_eq!((faults.len(), machines.len()), (Kind::ALL.len(), Kind::ALL.len()), "{faults:?}");
        }
    }
}
