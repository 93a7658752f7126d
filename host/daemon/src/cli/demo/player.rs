//! The plant at play: publishes what its machines report, in step with a clock that runs faster than ours, and shows
//! what the daemon makes of it meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::simulate::Pace;
use super::STEP_NS;
use super::stage::Stage;
use crate::cli::Failure;
use crate::diagnostic::neutralise;
use crate::plant::{self, Fault, Plant};
use crate::transport::mqtt::publish::Publisher;

/// How often it is looked at what the daemon does.
const LOOK: Duration = Duration::from_millis(250);

/// Longest wait for the broker, which runs in this process.
const PATIENCE: Duration = Duration::from_mins(1);

/// Alerts shown of one look; more would push the rest off the screen.
const SHOWN: usize = 40;

pub(super) struct Player {
    plant: Plant,
    publisher: Publisher,
    speed: f64,
    start_ns: i64,
    /// The next step.
    next: u64,
    sent: BTreeMap<String, u64>,
    looked: Instant,
    alerts_shown: usize,
}

impl Player {
    pub(super) fn new(
        stage: &Stage,
        seed: u64,
        start_ns: i64,
        speed: f64,
        faults: Vec<Fault>,
    ) -> Result<Player, Failure> {
        let plant = Plant::new(seed, plant::MACHINES, start_ns, STEP_NS, faults);
        let plant = plant.map_err(|e| Failure::data(e.to_string()))?;
        let publisher = Publisher::start(&stage.broker().ip().to_string(), stage.broker().port(), "hb-demo-plant")?;
        Ok(Player {
            plant,
            publisher,
            speed,
            start_ns,
            next: 0,
            sent: BTreeMap::new(),
            looked: Instant::now(),
            alerts_shown: 0,
        })
    }

    pub(super) fn faults(&self) -> &[Fault] {
        self.plant.faults()
    }

    /// When the plant began, ns.
    pub(super) fn start_ns(&self) -> i64 {
        self.start_ns
    }

    /// Reports by machine; their sequence numbers are those below.
    pub(super) fn sent(&self) -> &BTreeMap<String, u64> {
        &self.sent
    }

    /// All reports.
    pub(super) fn reports(&self) -> u64 {
        self.sent.values().sum()
    }

    /// Goes on until the plant is so old, ns, at its speed.
    pub(super) fn play(&mut self, stage: &Stage, until_ns: i64) -> Result<(), Failure> {
        let from_ns = self.plant.time_ns(self.next);
        let mut pace = Pace { begin: Instant::now(), speed: self.speed };
        while self.plant.time_ns(self.next) - self.start_ns < until_ns {
            pace.wait(self.plant.time_ns(self.next) - from_ns, || false);
            self.step(stage)?;
            if self.looked.elapsed() >= LOOK {
                self.looked = Instant::now();
                self.tell(stage);
            }
        }
        self.tell(stage);
        Ok(())
    }

    /// So many steps at once.
    pub(super) fn rush(&mut self, stage: &Stage, steps: u64) -> Result<(), Failure> {
        (0..steps).try_for_each(|_| self.step(stage))
    }

    /// Waits until the daemon has stored everything.
    pub(super) fn settle(&mut self, stage: &Stage, patience: Duration) -> Result<(), Failure> {
        self.publisher.finish(PATIENCE)?;
        let deadline = Instant::now() + patience;
        loop {
            let stored = stage.stored()?;
            self.tell(stage);
            if stored >= self.reports() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let message =
                    format!("{stored} of {} reports are stored after {} s", self.reports(), patience.as_secs());
                return Err(Failure::data(format!("{message}; {} says why", stage.log().display())));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn step(&mut self, stage: &Stage) -> Result<(), Failure> {
        for report in self.plant.step(self.next) {
            self.publisher.publish(&report.topic(), report.payload(), PATIENCE)?;
            *self.sent.entry(report.machine.to_owned()).or_default() += 1;
        }
        self.next += 1;
        stage.live().step();
        Ok(())
    }

    /// Shows alerts that have come to the sink since the last look, and what the daemon does.
    fn tell(&mut self, stage: &Stage) {
        let alerts = stage.alerts();
        let new = alerts.get(self.alerts_shown..).unwrap_or_default();
        if !new.is_empty() {
            let lines: String = new.iter().take(SHOWN).map(line).collect();
            stage.live().say(&lines);
        }
        self.alerts_shown = alerts.len();
        stage.live().look();
    }
}

/// An alert for a person.
fn line(event: &Value) -> String {
    let text = |value: &Value| neutralise(value.as_str().unwrap_or_default()).into_owned();
    let is_over = event["state"] == "resolved";
    let (what, reason) = if is_over {
        ("resolved".to_owned(), String::new())
    } else {
        (text(&event["severity"]), text(&event["drift_metrics"][0]["reason"]))
    };
    let line =
        format!("{}  {what:8}  {:8}  {:5}  {reason}", text(&event["ts"]), text(&event["asset"]), text(&event["check"]));
    format!("{}\n", line.trim_end())
}
