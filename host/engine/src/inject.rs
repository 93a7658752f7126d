//! Damage done on purpose: faults on a stream of normalized records, repeatable by seed.

use std::collections::BTreeMap;

use crate::series::glob;
use crate::{NS_PER_SEC, TIME_MAX_NS};

/// One normalized record: a row of `metrics.csv`.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Event time, ns since the epoch.
    pub time_ns: i64,
    /// Metric name.
    pub metric: String,
    /// Value in `unit`.
    pub value: f64,
    /// Unit.
    pub unit: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// What is done to the records.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Event times of records in the span move later by `delay_ms`, as if they had waited in a queue, but not beyond the
    /// times that hb reads.
    LatencySpike {
        /// Delay in ms.
        delay_ms: f64,
    },
    /// Records vanish.
    PacketLoss {
        /// Share that vanishes, 0 to 1.
        rate: f64,
    },
    /// A metric gets another name, or none: an empty name drops it.
    SchemaChange {
        /// New name.
        rename_to: String,
    },
    /// Values get an offset, a factor and noise; what becomes too large for a number becomes the largest one.
    ValueCorruption {
        /// Added, in the record's unit.
        offset: f64,
        /// Multiplied first.
        factor: f64,
        /// Half width of uniform noise, in the record's unit.
        noise: f64,
    },
}

/// Which records are hit.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Metric pattern.
    pub metric: String,
    /// Share of the input's time span after which it starts, 0 to 1.
    pub from: f64,
    /// Share of the input's time span at which it ends, 0 to 1.
    pub to: f64,
}

impl Fault {
    /// Names of all faults.
    pub const NAMES: [&'static str; 4] = ["latency_spike", "packet_loss", "schema_change", "value_corruption"];

    /// Builds a fault and its target from `name` and `k=v` parameters. Every parameter has a default.
    ///
    /// # Errors
    /// A sentence naming the unknown fault or parameter and what is known instead.
    pub fn parse(name: &str, params: &[(String, String)]) -> Result<(Fault, Target), String> {
        let mut given: BTreeMap<&str, &str> = params.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut number = |key: &str, default: f64, low: f64, high: f64| -> Result<f64, String> {
            let Some(text) = given.remove(key) else { return Ok(default) };
            match text.parse::<f64>() {
                Ok(v) if v >= low && v <= high => Ok(v),
                _ => Err(format!("parameter {key} is `{text}`; it must be a number from {low} to {high}")),
            }
        };
        let (from, to) = (number("from", 0.0, 0.0, 1.0)?, number("to", 1.0, 0.0, 1.0)?);
        if from > to {
            return Err(format!(
                "parameter from is {from} and to is {to}: nothing lies between; from must not be above to"
            ));
        }
        let any = f64::MAX;
        let mut fault = match name {
            "latency_spike" => Fault::LatencySpike { delay_ms: number("delay_ms", 500.0, 0.0, 1e12)? },
            "packet_loss" => Fault::PacketLoss { rate: number("rate", 0.1, 0.0, 1.0)? },
            "schema_change" => Fault::SchemaChange { rename_to: String::new() },
            "value_corruption" => Fault::ValueCorruption {
                offset: number("offset", 0.0, -any, any)?,
                factor: number("factor", 1.0, -any, any)?,
                noise: number("noise", 0.0, 0.0, any)?,
            },
            _ => return Err(format!("unknown fault `{name}`; known: {}", Fault::NAMES.join(", "))),
        };
        if let Fault::SchemaChange { rename_to } = &mut fault {
            given.remove("rename_to").unwrap_or_default().clone_into(rename_to);
        }
        let metric = given.remove("metric").unwrap_or("*").to_owned();
        if let Some(unknown) = given.keys().next() {
            return Err(format!("{name} has no parameter `{unknown}`; see `hb inject --help`"));
        }
        Ok((fault, Target { metric, from, to }))
    }

    /// Applies the fault to time-ordered records and returns them in time order again.
    pub fn apply(&self, target: &Target, records: Vec<Record>, seed: u64) -> Vec<Record> {
        let start = records.iter().map(|r| r.time_ns).min().unwrap_or(0);
        let span = (records.iter().map(|r| r.time_ns).max().unwrap_or(0) - start) as f64;
        let mut random = SplitMix(seed);
        let mut out = Vec::with_capacity(records.len());
        for mut record in records {
            let at = if span > 0.0 { (record.time_ns - start) as f64 / span } else { 0.0 };
            if !glob(&target.metric, &record.metric) || at < target.from || at > target.to {
                out.push(record);
                continue;
            }
            match self {
                Fault::LatencySpike { delay_ms } => {
                    let delay_ns = (delay_ms * 1e-3 * NS_PER_SEC as f64) as i64;
                    // What lies beyond already stays where it is.
                    record.time_ns = record.time_ns.saturating_add(delay_ns).min(TIME_MAX_NS.max(record.time_ns));
                }
                Fault::PacketLoss { rate } if random.unit() < *rate => continue,
                Fault::PacketLoss { .. } => {}
                Fault::SchemaChange { rename_to } if rename_to.is_empty() => continue,
                Fault::SchemaChange { rename_to } => rename_to.clone_into(&mut record.metric),
                Fault::ValueCorruption { offset, factor, noise } => {
                    let damaged = record.value * factor + offset + noise * (2.0 * random.unit() - 1.0);
                    record.value = damaged.clamp(f64::MIN, f64::MAX);
                }
            }
            out.push(record);
        }
        out.sort_by_key(|r| r.time_ns);
        out
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): small, seeded, the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        (0..1_000)
            .map(|i| Record {
                time_ns: i * NS_PER_SEC,
                metric: if i % 2 == 0 { "a" } else { "b" }.into(),
                value: 1.0,
                unit: "V".into(),
                labels: BTreeMap::new(),
            })
            .collect()
    }

    fn run(name: &str, params: &[(&str, &str)]) -> Vec<Record> {
        let params: Vec<_> = params.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let (fault, target) = Fault::parse(name, &params).unwrap();
        fault.apply(&target, records(), 7)
    }

    #[test]
    fn each_fault_does_what_it_says() {
        let late = run("latency_spike", &[("delay_ms", "500"), ("metric", "a")]);
        assert!(late.iter().filter(|r| r.metric == "a").all(|r| r.time_ns % NS_PER_SEC == NS_PER_SEC / 2));
        let lost = run("packet_loss", &[("rate", "0.25")]).len();
        assert!((700..800).contains(&lost), "{lost} of 1000 left");
        assert_eq!(run("schema_change", &[("metric", "a")]).len(), 500);
        assert!(run("schema_change", &[("metric", "a"), ("rename_to", "c")]).iter().any(|r| r.metric == "c"));
        let half = run("value_corruption", &[("offset", "2"), ("from", "0.5")]);
        assert_eq!(half.iter().filter(|r| r.value == 3.0).count(), 500);
        assert_eq!(run("value_corruption", &[("noise", "1")]), run("value_corruption", &[("noise", "1")]));
    }

    #[test]
    fn what_is_damaged_stays_readable() {
        let huge = run("value_corruption", &[("factor", "1e308"), ("offset", "1e308")]);
        assert!(huge.iter().all(|r| r.value == f64::MAX));
        let low = run("value_corruption", &[("factor", "-1e308"), ("offset", "-1e308"), ("noise", "1e308")]);
        assert!(low.iter().all(|r| r.value.is_finite() && r.value < -9e307));
        // A year before the end of time, moved by 31 years.
        let (fault, target) = Fault::parse("latency_spike", &[("delay_ms".into(), "1e12".into())]).unwrap();
        let mut last = records();
        for record in &mut last {
            record.time_ns += TIME_MAX_NS - 365 * 86_400 * NS_PER_SEC;
        }
        let moved = fault.apply(&target, last, 7);
        assert!(moved.len() == 1_000 && moved.iter().all(|r| r.time_ns == TIME_MAX_NS));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(Fault::parse("melt", &[]).unwrap_err().contains("latency_spike"));
        assert!(Fault::parse("packet_loss", &[("rate".into(), "2".into())]).unwrap_err().contains("from 0 to 1"));
        assert!(Fault::parse("packet_loss", &[("rat".into(), "1".into())]).unwrap_err().contains("`rat`"));
        let nothing = [("from".into(), "0.8".into()), ("to".into(), "0.2".into())];
        assert!(Fault::parse("packet_loss", &nothing).unwrap_err().contains("from is 0.8 and to is 0.2"));
    }
}
