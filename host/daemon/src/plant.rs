//! A simulated plant: machines of three vendors that report as real ones do, and fall ill on demand.
//!
//! A pure function of seed and time, so that the same plant can be asked anywhere in its life, and says the same each
//! time. All machines share the load of the plant, which follows the day and the week; each has a pace and a noise of
//! its own. What a machine measures is in one unit in here; what it sends is in its vendor's words and units.

mod fault;
mod vendor;

use std::f64::consts::TAU;

use fastrand::Rng;

pub use fault::{Fault, FaultError, Kind};

/// Machines of a plant when nothing else is said.
pub const MACHINES: usize = 20;

/// Most machines: names have two digits, and a thousand messages per step are load enough.
pub const MACHINES_MAX: usize = 99;

const NS_PER_SEC: f64 = 1e9;
const HOUR_SEC: f64 = 3_600.0;
const DAY_SEC: f64 = 24.0 * HOUR_SEC;
const WEEK_SEC: f64 = 7.0 * DAY_SEC;

/// The epoch was a Thursday; weeks are counted from Monday.
const EPOCH_SEC: f64 = 3.0 * DAY_SEC;

/// Numbers of one machine's numbers: each has a noise of its own.
const NOISES: u64 = 8;

/// A quantity that every machine measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// degC.
    MotorTemperature,
    /// degC.
    BearingTemperature,
    /// mm/s.
    Vibration,
    /// 1/min.
    Speed,
    /// kW.
    Power,
    /// Time the controller takes to answer, s.
    ResponseTime,
}

impl Metric {
    /// All of them.
    pub const ALL: [Metric; 6] = [
        Metric::MotorTemperature,
        Metric::BearingTemperature,
        Metric::Vibration,
        Metric::Speed,
        Metric::Power,
        Metric::ResponseTime,
    ];

    /// As `examples/plant/telemetry_schema.yaml` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Metric::MotorTemperature => "motor_temperature",
            Metric::BearingTemperature => "bearing_temperature",
            Metric::Vibration => "vibration",
            Metric::Speed => "speed",
            Metric::Power => "power",
            Metric::ResponseTime => "response_time",
        }
    }
}

/// What one machine reports at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Report<'a> {
    /// Event time, ns since the epoch.
    pub time_ns: i64,
    /// Whose.
    pub machine: &'a str,
    /// Counts the reports of the machine.
    pub sequence: u64,
    vendor: vendor::Vendor,
    /// In the order of [`Metric::ALL`].
    values: [f64; Metric::ALL.len()],
    /// Whether the vibration goes by a name that nobody announced.
    is_renamed: bool,
}

impl Report<'_> {
    /// MQTT topic: `plant/VENDOR/MACHINE`.
    pub fn topic(&self) -> String {
        format!("plant/{}/{}", self.vendor.name(), self.machine)
    }

    /// JSON or key=value, as the vendor does it.
    pub fn payload(&self) -> String {
        vendor::write(self, false)
    }

    /// A line of JSON that also names the machine, for files.
    pub fn line(&self) -> String {
        vendor::write(self, true)
    }

    /// A syslog message of RFC 5424 from the machine, the payload as its text.
    pub fn syslog(&self) -> String {
        // Facility local0, severity informational.
        format!("<134>1 {} {} {} - - - {}", vendor::time(self), self.machine, self.vendor.name(), self.payload())
    }
}

/// The plant.
#[derive(Clone, Debug)]
pub struct Plant {
    machines: Vec<Machine>,
    faults: Vec<Fault>,
    start_ns: i64,
    step_ns: i64,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Machine {
    name: String,
    vendor: vendor::Vendor,
    /// At full load: kW, 1/min, mm/s, s.
    power: f64,
    speed: f64,
    vibration: f64,
    response: f64,
    /// Its temperatures above those of others, K.
    warmth: f64,
    /// Periods, h, and phases of its own pace.
    pace: [(f64, f64); 2],
}

impl Plant {
    /// A plant that reports every `step_ns` from `start_ns` on, both ns.
    ///
    /// # Errors
    /// A fault of a machine that there is not.
    pub fn new(
        seed: u64,
        machines: usize,
        start_ns: i64,
        step_ns: i64,
        faults: Vec<Fault>,
    ) -> Result<Plant, FaultError> {
        let machines: Vec<Machine> = (0..machines.min(MACHINES_MAX)).map(|n| Machine::new(seed, n, machines)).collect();
        for fault in &faults {
            if machines.iter().all(|m| m.name != fault.machine) {
                let known = machines.iter().map(|m| m.name.clone()).collect();
                return Err(FaultError::Machine { name: fault.machine.clone(), known });
            }
        }
        Ok(Plant { machines, faults, start_ns, step_ns: step_ns.max(1), seed })
    }

    /// Names of the machines.
    pub fn machines(&self) -> impl Iterator<Item = &str> {
        self.machines.iter().map(|m| m.name.as_str())
    }

    /// What is wrong with it, and when.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// When step `n` is reported, ns since the epoch.
    pub fn time_ns(&self, n: u64) -> i64 {
        self.start_ns.saturating_add(self.step_ns.saturating_mul(i64::try_from(n).unwrap_or(i64::MAX)))
    }

    /// What the machines report in step `n`, one after the other; a machine that has fallen silent reports nothing.
    pub fn step(&self, n: u64) -> impl Iterator<Item = Report<'_>> {
        self.machines.iter().enumerate().filter_map(move |(number, machine)| self.report(number, machine, n))
    }

    fn report<'a>(&self, number: usize, machine: &'a Machine, n: u64) -> Option<Report<'a>> {
        let time_ns = self.time_ns(n);
        let ill = |kind| {
            self.faults.iter().find(|f| f.kind == kind && f.machine == machine.name && f.is_on(time_ns, self.start_ns))
        };
        if ill(Kind::Silent).is_some() {
            return None;
        }
        let mut values = Metric::ALL.map(|metric| self.value(number, machine, metric, n));
        let value = |metric: Metric| metric as usize;
        if let Some(fault) = ill(Kind::Drift) {
            let hours = fault.since_ns(time_ns, self.start_ns) as f64 / NS_PER_SEC / HOUR_SEC;
            values[value(Metric::MotorTemperature)] += fault::DRIFT_K_PER_HOUR * hours;
        }
        if let Some(fault) = ill(Kind::Spike)
            && fault::is_spike(fault.since_ns(time_ns, self.start_ns), self.step_ns)
        {
            values[value(Metric::Vibration)] *= fault::SPIKE_FACTOR;
        }
        if let Some(fault) = ill(Kind::Stuck) {
            let began = fault.from_ns.div_euclid(self.step_ns).unsigned_abs();
            values[value(Metric::Speed)] = self.value(number, machine, Metric::Speed, began);
        }
        if ill(Kind::Latency).is_some() {
            values[value(Metric::ResponseTime)] *= fault::LATENCY_FACTOR;
        }
        let is_renamed = ill(Kind::Rename).is_some();
        let (machine, vendor) = (machine.name.as_str(), machine.vendor);
        Some(Report { time_ns, machine, sequence: n, vendor, values, is_renamed })
    }

    /// What the machine measures in step `n` when it is well.
    fn value(&self, number: usize, machine: &Machine, metric: Metric, n: u64) -> f64 {
        let time_sec = self.time_ns(n) as f64 / NS_PER_SEC;
        let noise = self.noise(number, metric, n);
        let load = |lag_sec: f64| machine.load(time_sec - lag_sec);
        match metric {
            // Iron warms up and cools down slowly: it shows the load of a while ago.
            Metric::MotorTemperature => 38.0 + machine.warmth + 12.0 * load(20.0 * 60.0) + 0.4 * noise,
            Metric::BearingTemperature => 34.0 + machine.warmth + 8.0 * load(30.0 * 60.0) + 0.3 * noise,
            Metric::Vibration => machine.vibration * (0.8 + 0.3 * load(0.0)) * (1.0 + 0.05 * noise),
            Metric::Speed => machine.speed * (0.97 + 0.03 * load(0.0) + 0.002 * noise),
            Metric::Power => machine.power * (0.25 + 0.75 * load(0.0) + 0.02 * noise),
            Metric::ResponseTime => machine.response * (0.95 + 0.1 * load(0.0)) * (0.1 * noise).exp(),
        }
    }

    /// About normal, within three deviations: the sum of three even ones.
    fn noise(&self, number: usize, metric: Metric, n: u64) -> f64 {
        let place = (n * MACHINES_MAX as u64 + number as u64) * NOISES + metric as u64;
        let mut rng = rng(self.seed, place);
        (0..3).map(|_| 2.0 * rng.f64() - 1.0).sum()
    }
}

impl Machine {
    fn new(seed: u64, number: usize, of: usize) -> Machine {
        let mut rng = rng(seed, u64::MAX - number as u64);
        let mut between = |low: f64, high: f64| low + (high - low) * rng.f64();
        // A third of the machines from each vendor, who each build one kind.
        let vendor = vendor::Vendor::ALL[(3 * number / of.max(1)).min(2)];
        Machine {
            name: format!("{}-{:02}", vendor.machine(), number + 1),
            vendor,
            power: between(8.0, 45.0),
            speed: between(900.0, 2_900.0),
            vibration: between(1.2, 3.5),
            response: between(0.008, 0.02),
            warmth: between(-3.0, 3.0),
            pace: [(between(5.0, 9.0), between(0.0, TAU)), (between(11.0, 17.0), between(0.0, TAU))],
        }
    }

    /// Share of full load: that of the plant, a few percent more or less.
    fn load(&self, time_sec: f64) -> f64 {
        let pace: f64 =
            self.pace.iter().map(|(hours, phase)| (TAU * time_sec / (hours * HOUR_SEC) + phase).sin()).sum();
        plant_load(time_sec) * (1.0 + 0.015 * pace)
    }
}

/// Load of the plant: least at four in the morning, most at four in the afternoon, less at the weekend.
fn plant_load(time_sec: f64) -> f64 {
    let in_week = (time_sec + EPOCH_SEC).rem_euclid(WEEK_SEC);
    let day = 0.5 - 0.5 * (TAU * (in_week - 4.0 * HOUR_SEC) / DAY_SEC).cos();
    // Saturday and Sunday, with two hours to slow down and two to speed up.
    let (down, up) = (5.0 * DAY_SEC, 2.0 * HOUR_SEC);
    let weekend = ((in_week - down) / up).clamp(0.0, 1.0).min(((WEEK_SEC - in_week) / up).clamp(0.0, 1.0));
    0.5 + 0.35 * day - 0.15 * weekend
}

/// Random numbers of one place: neighbours have nothing in common.
fn rng(seed: u64, place: u64) -> Rng {
    // The generator starts close to its seed; a first number of a first generator is far enough away.
    let mut first = Rng::with_seed(seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Rng::with_seed(first.u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_NS: i64 = 60_000_000_000;
    /// A Monday.
    const START_NS: i64 = 1_772_409_600_000_000_000;

    fn plant(seed: u64, faults: &[&str]) -> Plant {
        let faults = faults.iter().map(|text| text.parse().unwrap()).collect();
        Plant::new(seed, MACHINES, START_NS, MINUTE_NS, faults).unwrap()
    }

    fn day(plant: &Plant, machine: usize, metric: Metric, day: u64) -> Vec<f64> {
        (0..1_440).map(|n| plant.value(machine, &plant.machines[machine], metric, day * 1_440 + n)).collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn the_same_seed_is_the_same_plant() {
        let all =
            |p: &Plant| (0..100).flat_map(|n| p.step(n).map(|r| r.payload()).collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(all(&plant(1, &[])), all(&plant(1, &[])));
        assert_ne!(all(&plant(1, &[])), all(&plant(2, &[])));
        assert_eq!(all(&plant(1, &[])).len(), 100 * MACHINES);
    }

    #[test]
    fn the_load_follows_the_day_and_the_week() {
        let plant = plant(3, &[]);
        let monday = day(&plant, 0, Metric::Power, 0);
        assert!(mean(&monday[14 * 60..18 * 60]) > 1.2 * mean(&monday[2 * 60..6 * 60]));
        let saturday = day(&plant, 0, Metric::Power, 5);
        assert!(mean(&monday) > 1.1 * mean(&saturday));
        // One load for all: two machines of different vendors rise and fall together.
        let (a, b) = (monday, day(&plant, 19, Metric::Power, 0));
        let (ma, mb) = (mean(&a), mean(&b));
        let product =
            |x: &[f64], mx: f64, y: &[f64], my: f64| -> f64 { x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum() };
        let r = product(&a, ma, &b, mb) / (product(&a, ma, &a, ma) * product(&b, mb, &b, mb)).sqrt();
        assert!(r > 0.8, "{r}");
    }

    #[test]
    fn a_fault_begins_and_ends_when_it_is_told() {
        let well = plant(5, &[]);
        let ill = plant(5, &["stuck:press-01:10m:20m", "silent:mill-20:1h"]);
        let changed = |n: u64| {
            let (a, b): (Vec<_>, Vec<_>) = (well.step(n).collect(), ill.step(n).collect());
            a.iter().filter(|m| !b.contains(m)).map(Report::topic).collect::<Vec<_>>()
        };
        assert!(changed(9).is_empty());
        assert_eq!(changed(11), ["plant/acme/press-01"]);
        assert!(changed(30).is_empty());
        assert_eq!(changed(60), ["plant/corvus/mill-20"]);
        assert_eq!(ill.step(60).count(), MACHINES - 1);
    }

    #[test]
    fn a_machine_that_is_not_there_cannot_fall_ill() {
        let faults = vec!["drift:press-77:1h".parse().unwrap()];
        let error = Plant::new(1, MACHINES, START_NS, MINUTE_NS, faults).unwrap_err().to_string();
        assert!(error.starts_with("there is no machine `press-77`; there are press-01, press-02"), "{error}");
    }
}
