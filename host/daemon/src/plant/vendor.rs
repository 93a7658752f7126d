//! Three vendors: each has its own names, units and way to write a message.

use std::fmt::Write as _;

use super::{Metric, Report};

/// Who built a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vendor {
    /// Presses. JSON in camel case with units of the imperial kind.
    Acme,
    /// Pumps. JSON with short names, times in milliseconds since the epoch.
    Borga,
    /// Mills. Pairs of `key=value`.
    Corvus,
}

/// A field of a message: its name, digits behind the point, and how its value is made of the canonical one.
type Field = (&'static str, usize, fn(f64) -> f64);

impl Vendor {
    pub(super) const ALL: [Vendor; 3] = [Vendor::Acme, Vendor::Borga, Vendor::Corvus];

    pub(super) fn name(self) -> &'static str {
        match self {
            Vendor::Acme => "acme",
            Vendor::Borga => "borga",
            Vendor::Corvus => "corvus",
        }
    }

    /// What it builds.
    pub(super) fn machine(self) -> &'static str {
        match self {
            Vendor::Acme => "press",
            Vendor::Borga => "pump",
            Vendor::Corvus => "mill",
        }
    }

    /// In the order of [`Metric::ALL`].
    fn fields(self) -> [Field; Metric::ALL.len()] {
        let fahrenheit = |c: f64| c * 9.0 / 5.0 + 32.0;
        match self {
            Vendor::Acme => [
                ("motorTempF", 2, fahrenheit),
                ("bearingTempF", 2, fahrenheit),
                ("vibInS", 4, |mm| mm / 25.4),
                ("speedRpm", 1, |x| x),
                ("powerW", 0, |kw| kw * 1e3),
                ("plcMs", 2, |s| s * 1e3),
            ],
            Vendor::Borga => [
                ("t_motor", 2, |x| x),
                ("t_bearing", 2, |x| x),
                ("vib", 3, |x| x),
                ("rev_s", 3, |rpm| rpm / 60.0),
                ("kw", 3, |x| x),
                ("rtt", 5, |x| x),
            ],
            Vendor::Corvus => [
                ("MOT_T", 2, |x| x),
                ("BRG_T", 2, |x| x),
                ("VIB_MM_S", 3, |x| x),
                ("RPM", 1, |x| x),
                ("PWR_HP", 3, |kw| kw / 0.745_699_871_582),
                ("LAT_US", 0, |s| s * 1e6),
            ],
        }
    }

    /// Vibration after an update that nobody announced.
    fn new_name(self) -> &'static str {
        match self {
            Vendor::Acme => "vibrationRms",
            Vendor::Borga => "vibration_rms",
            Vendor::Corvus => "VIBRATION_RMS",
        }
    }
}

/// The event time as text.
pub(super) fn time(report: &Report<'_>) -> String {
    crate::clock::rfc3339(report.time_ns)
}

/// A report as its vendor writes it, or as a line of JSON that names the machine.
pub(super) fn write(report: &Report<'_>, as_line: bool) -> String {
    let Report { vendor, machine, sequence, .. } = *report;
    let is_json = as_line || vendor != Vendor::Corvus;
    let mut text = String::with_capacity(192);
    let mut field = |name: &str, value: std::fmt::Arguments<'_>, quote: &str| {
        let between = match (text.is_empty(), is_json) {
            (true, true) => "{",
            (true, false) => "",
            (false, true) => ",",
            (false, false) => " ",
        };
        // Writing to a text cannot fail.
        let _ = if is_json {
            write!(text, r#"{between}"{name}":{quote}{value}{quote}"#)
        } else {
            write!(text, "{between}{name}={value}")
        };
    };
    match vendor {
        Vendor::Borga => field("ts", format_args!("{}", report.time_ns.div_euclid(1_000_000)), ""),
        Vendor::Acme | Vendor::Corvus => field("ts", format_args!("{}", time(report)), "\""),
    }
    if as_line {
        field("machine", format_args!("{machine}"), "\"");
    }
    field("seq", format_args!("{sequence}"), "");
    for (i, ((name, digits, from), value)) in vendor.fields().into_iter().zip(report.values).enumerate() {
        let is_renamed = report.is_renamed && i == Metric::Vibration as usize;
        let name = if is_renamed { vendor.new_name() } else { name };
        field(name, format_args!("{:.digits$}", from(value)), "");
    }
    if is_json {
        text.push('}');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vendor_speaks_its_own_language() {
        let report = |vendor, is_renamed| Report {
            time_ns: 1_772_409_600_000_000_000,
            machine: "m-01",
            sequence: 7,
            vendor,
            values: [40.0, 36.0, 2.54, 1_500.0, 7.5, 0.012],
            is_renamed,
        };
        insta::assert_snapshot!(report(Vendor::Acme, false).payload(), @r#"{"ts":"2026-03-02T00:00:00Z","seq":7,"motorTempF":104.00,"bearingTempF":96.80,"vibInS":0.1000,"speedRpm":1500.0,"powerW":7500,"plcMs":12.00}"#);
        insta::assert_snapshot!(report(Vendor::Borga, false).payload(), @r#"{"ts":1772409600000,"seq":7,"t_motor":40.00,"t_bearing":36.00,"vib":2.540,"rev_s":25.000,"kw":7.500,"rtt":0.01200}"#);
        insta::assert_snapshot!(report(Vendor::Corvus, false).payload(), @"ts=2026-03-02T00:00:00Z seq=7 MOT_T=40.00 BRG_T=36.00 VIB_MM_S=2.540 RPM=1500.0 PWR_HP=10.058 LAT_US=12000");
        assert!(report(Vendor::Corvus, true).payload().contains(" VIBRATION_RMS=2.540 "));
        let line = report(Vendor::Corvus, true).line();
        assert!(line.starts_with(r#"{"ts":"2026-03-02T00:00:00Z","machine":"m-01","seq":7,"MOT_T":40.00,"#), "{line}");
        let syslog = report(Vendor::Corvus, false).syslog();
        assert!(syslog.starts_with("<134>1 2026-03-02T00:00:00Z m-01 corvus - - - ts=2026"), "{syslog}");
    }
}
