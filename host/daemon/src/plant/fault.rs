//! What can be wrong with a machine.

use std::str::FromStr;

use crate::clock::parse_span;

/// A sensor that drifts: K per hour on the motor's temperature.
pub(super) const DRIFT_K_PER_HOUR: f64 = 3.0;

/// A shock: times the vibration.
pub(super) const SPIKE_FACTOR: f64 = 5.0;

/// Steps of one shock, and steps from one to the next.
const SPIKE_STEPS: (i64, i64) = (2, 45);

/// A controller that is too busy: times its response time.
pub(super) const LATENCY_FACTOR: f64 = 6.0;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The sensor of the motor's temperature drifts away, slowly.
    Drift,
    /// Shocks: vibration jumps for a moment, again and again.
    Spike,
    /// The speed stays at its last value.
    Stuck,
    /// The controller answers late.
    Latency,
    /// New firmware calls the vibration by another name.
    Rename,
    /// The machine reports nothing any more.
    Silent,
}

impl Kind {
    /// All of them, with their names.
    pub const ALL: [(Kind, &'static str); 6] = [
        (Kind::Drift, "drift"),
        (Kind::Spike, "spike"),
        (Kind::Stuck, "stuck"),
        (Kind::Latency, "latency"),
        (Kind::Rename, "rename"),
        (Kind::Silent, "silent"),
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        Kind::ALL[self as usize].1
    }
}

/// One fault of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// Whose.
    pub machine: String,
    /// Since when, ns after the plant began.
    pub from_ns: i64,
    /// For how long, ns; none for good.
    pub for_ns: Option<i64>,
}

impl Fault {
    pub(super) fn is_on(&self, time_ns: i64, start_ns: i64) -> bool {
        let since = self.since_ns(time_ns, start_ns);
        since >= 0 && self.for_ns.is_none_or(|whole| since < whole)
    }

    pub(super) fn since_ns(&self, time_ns: i64, start_ns: i64) -> i64 {
        time_ns - start_ns - self.from_ns
    }
}

/// Written as `KIND:MACHINE:FROM[:FOR]`, as `drift:press-03:36h` or `stuck:pump-09:90m:2h`.
impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Fault, FaultError> {
        let shape = || FaultError::Shape(text.to_owned());
        let parts: Vec<&str> = text.split(':').collect();
        let (kind, machine, from, span) = match parts[..] {
            [kind, machine, from] => (kind, machine, from, None),
            [kind, machine, from, span] => (kind, machine, from, Some(span)),
            _ => return Err(shape()),
        };
        let known = Kind::ALL.iter().find(|(_, name)| *name == kind);
        let (kind, _) = known.ok_or_else(|| FaultError::Kind(kind.to_owned()))?;
        let time = |text: &str| parse_span(text).map_err(|e| FaultError::Time(text.to_owned(), e));
        let for_ns = span.map(time).transpose()?;
        Ok(Fault { kind: *kind, machine: machine.to_owned(), from_ns: time(from)?, for_ns })
    }
}

/// A fault that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// Not three or four parts.
    #[error("`{0}` is no fault; write KIND:MACHINE:FROM or KIND:MACHINE:FROM:FOR, as stuck:pump-09:90m:2h")]
    Shape(String),
    /// Unknown.
    #[error("`{0}` is no kind of fault; there are drift, spike, stuck, latency, rename, silent")]
    Kind(String),
    /// No time.
    #[error("`{0}`: {1}")]
    Time(String, String),
    /// Unknown.
    #[error("there is no machine `{name}`; there are {}", .known.join(", "))]
    Machine {
        /// As it was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
}

/// Whether a shock is on so long after they began.
pub(super) fn is_spike(since_ns: i64, step_ns: i64) -> bool {
    let (long, apart) = SPIKE_STEPS;
    since_ns.div_euclid(step_ns).rem_euclid(apart) < long
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_written_in_one_word() {
        let fault: Fault = "stuck:pump-09:90m:2h".parse().unwrap();
        let hour = 3_600_000_000_000;
        assert_eq!((fault.kind, fault.machine.as_str()), (Kind::Stuck, "pump-09"));
        assert_eq!((fault.from_ns, fault.for_ns), (hour * 3 / 2, Some(2 * hour)));
        assert!(Kind::ALL.iter().all(|(kind, name)| kind.name() == *name));
    }

    #[test]
    fn a_mistake_is_named_with_the_way_out() {
        let error = |text: &str| text.parse::<Fault>().unwrap_err().to_string();
        assert!(error("drift").contains("KIND:MACHINE:FROM"));
        assert!(error("rust:press-01:1h").contains("there are drift, spike"));
        assert!(error("drift:press-01:soon").starts_with("`soon`: "));
    }
}
