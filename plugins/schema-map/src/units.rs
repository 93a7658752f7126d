//! Units that convert into each other, with factors as exact fractions.

/// Turns a value of one unit into another: `(x + before) * numerator / denominator + after`.
///
/// A fraction instead of a factor: dividing by 1,000 rounds once, multiplying by 0.001 would round twice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Convert {
    before: f64,
    numerator: f64,
    denominator: f64,
    after: f64,
    identity: bool,
}

impl Convert {
    pub(crate) const IDENTITY: Self =
        Self { before: 0.0, numerator: 1.0, denominator: 1.0, after: 0.0, identity: true };

    #[inline]
    pub(crate) fn apply(&self, x: f64) -> f64 {
        if self.identity { x } else { (x + self.before) * self.numerator / self.denominator + self.after }
    }

    /// How to get from one unit to another. The error names the units that would do.
    pub(crate) fn between(from: &str, to: &str) -> Result<Self, String> {
        if from == to {
            return Ok(Self::IDENTITY);
        }
        let find = |name: &str| UNITS.iter().find(|u| u.names.contains(&name));
        let (Some(f), Some(t)) = (find(from), find(to)) else {
            let (unknown, other) = if find(from).is_none() { (from, find(to)) } else { (to, find(from)) };
            let known = match other {
                Some(unit) => format!("known units of {}: {}", unit.quantity, units_of(unit.quantity)),
                None => format!("known units: {}", all_units()),
            };
            return Err(format!("unknown unit `{unknown}`; {known}"));
        };
        if f.quantity != t.quantity {
            return Err(format!(
                "`{from}` is {} and `{to}` is {}; known units of {}: {}",
                f.quantity,
                t.quantity,
                t.quantity,
                units_of(t.quantity)
            ));
        }
        if f.names == t.names {
            return Ok(Self::IDENTITY);
        }
        if f.quantity == "temperature" {
            return Ok(temperature(f.names[0], t.names[0]));
        }
        let (n, d) = (f.numerator * t.denominator, f.denominator * t.numerator);
        let common = gcd(n, d);
        let (numerator, denominator) = ((n / common) as f64, (d / common) as f64);
        Ok(Self { before: 0.0, numerator, denominator, after: 0.0, identity: false })
    }
}

struct Unit {
    quantity: &'static str,
    /// The first one is its usual name.
    names: &'static [&'static str],
    /// One of it is numerator/denominator of the quantity's base unit. Temperatures have formulas instead.
    numerator: u128,
    denominator: u128,
}

const fn unit(quantity: &'static str, names: &'static [&'static str], numerator: u128, denominator: u128) -> Unit {
    Unit { quantity, names, numerator, denominator }
}

const UNITS: &[Unit] = &[
    unit("power", &["W", "watt", "watts"], 1, 1),
    unit("power", &["mW"], 1, 1_000),
    unit("power", &["kW"], 1_000, 1),
    unit("power", &["MW"], 1_000_000, 1),
    unit("power", &["GW"], 1_000_000_000, 1),
    unit("power", &["hp"], 745_699_871_582, 1_000_000_000),
    unit("energy", &["J", "Ws"], 1, 1),
    unit("energy", &["kJ"], 1_000, 1),
    unit("energy", &["MJ"], 1_000_000, 1),
    unit("energy", &["Wh"], 3_600, 1),
    unit("energy", &["kWh"], 3_600_000, 1),
    unit("energy", &["MWh"], 3_600_000_000, 1),
    unit("time", &["s", "sec", "seconds"], 1, 1),
    unit("time", &["ms", "msec"], 1, 1_000),
    unit("time", &["us", "µs", "μs"], 1, 1_000_000),
    unit("time", &["ns"], 1, 1_000_000_000),
    unit("time", &["min"], 60, 1),
    unit("time", &["h"], 3_600, 1),
    unit("time", &["d"], 86_400, 1),
    unit("temperature", &["degC", "°C", "C", "celsius"], 1, 1),
    unit("temperature", &["degF", "°F", "F", "fahrenheit"], 1, 1),
    unit("temperature", &["K", "kelvin"], 1, 1),
    unit("length", &["m"], 1, 1),
    unit("length", &["nm"], 1, 1_000_000_000),
    unit("length", &["um", "µm", "μm"], 1, 1_000_000),
    unit("length", &["mm"], 1, 1_000),
    unit("length", &["cm"], 1, 100),
    unit("length", &["km"], 1_000, 1),
    unit("length", &["in"], 254, 10_000),
    unit("length", &["ft"], 3_048, 10_000),
    unit("length", &["yd"], 9_144, 10_000),
    unit("length", &["mi"], 1_609_344, 1_000),
    unit("pressure", &["Pa"], 1, 1),
    unit("pressure", &["hPa", "mbar"], 100, 1),
    unit("pressure", &["kPa"], 1_000, 1),
    unit("pressure", &["MPa"], 1_000_000, 1),
    unit("pressure", &["bar"], 100_000, 1),
    unit("pressure", &["psi"], 6_894_757_293_168, 1_000_000_000),
    unit("pressure", &["atm"], 101_325, 1),
    unit("pressure", &["Torr"], 101_325, 760),
    unit("pressure", &["mmHg"], 133_322_387_415, 1_000_000_000),
    unit("mass", &["kg"], 1, 1),
    unit("mass", &["mg"], 1, 1_000_000),
    unit("mass", &["g"], 1, 1_000),
    unit("mass", &["t"], 1_000, 1),
    unit("mass", &["lb"], 45_359_237, 100_000_000),
    unit("mass", &["oz"], 45_359_237, 1_600_000_000),
    unit("frequency", &["Hz"], 1, 1),
    unit("frequency", &["mHz"], 1, 1_000),
    unit("frequency", &["kHz"], 1_000, 1),
    unit("frequency", &["MHz"], 1_000_000, 1),
    unit("frequency", &["GHz"], 1_000_000_000, 1),
    unit("rotation", &["rpm", "1/min"], 1, 60),
    unit("rotation", &["rps", "1/s"], 1, 1),
    unit("ratio", &["ratio", "1"], 1, 1),
    unit("ratio", &["%", "percent"], 1, 100),
    unit("ratio", &["permille", "‰"], 1, 1_000),
    unit("ratio", &["ppm"], 1, 1_000_000),
    unit("data", &["B", "bytes"], 1, 1),
    unit("data", &["bit"], 1, 8),
    unit("data", &["kB", "KB"], 1_000, 1),
    unit("data", &["MB"], 1_000_000, 1),
    unit("data", &["GB"], 1_000_000_000, 1),
    unit("data", &["TB"], 1_000_000_000_000, 1),
    unit("data", &["KiB"], 1 << 10, 1),
    unit("data", &["MiB"], 1 << 20, 1),
    unit("data", &["GiB"], 1 << 30, 1),
    unit("data", &["TiB"], 1 << 40, 1),
    unit("voltage", &["V"], 1, 1),
    unit("voltage", &["uV", "µV", "μV"], 1, 1_000_000),
    unit("voltage", &["mV"], 1, 1_000),
    unit("voltage", &["kV"], 1_000, 1),
    unit("current", &["A"], 1, 1),
    unit("current", &["uA", "µA", "μA"], 1, 1_000_000),
    unit("current", &["mA"], 1, 1_000),
    unit("current", &["kA"], 1_000, 1),
    unit("flow", &["m3/s", "m³/s"], 1, 1),
    unit("flow", &["m3/h", "m³/h"], 1, 3_600),
    unit("flow", &["L/s", "l/s"], 1, 1_000),
    unit("flow", &["L/min", "l/min"], 1, 60_000),
    unit("speed", &["m/s"], 1, 1),
    unit("speed", &["mm/s"], 1, 1_000),
    unit("speed", &["in/s"], 254, 10_000),
    unit("speed", &["km/h"], 1_000, 3_600),
    unit("speed", &["mph"], 1_609_344, 3_600_000),
    unit("acceleration", &["m/s2", "m/s²"], 1, 1),
    unit("acceleration", &["g0", "gn"], 980_665, 100_000),
];

fn temperature(from: &str, to: &str) -> Convert {
    let (before, numerator, denominator, after) = match (from, to) {
        ("degC", "K") => (273.15, 1.0, 1.0, 0.0),
        ("K", "degC") => (-273.15, 1.0, 1.0, 0.0),
        ("degF", "degC") => (-32.0, 5.0, 9.0, 0.0),
        ("degC", "degF") => (0.0, 9.0, 5.0, 32.0),
        ("degF", "K") => (459.67, 5.0, 9.0, 0.0),
        _ => (0.0, 9.0, 5.0, -459.67),
    };
    Convert { before, numerator, denominator, after, identity: false }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn units_of(quantity: &str) -> String {
    let names: Vec<_> = UNITS.iter().filter(|u| u.quantity == quantity).map(|u| u.names[0]).collect();
    names.join(", ")
}

fn all_units() -> String {
    let names: Vec<_> = UNITS.iter().map(|u| u.names[0]).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(x: f64, from: &str, to: &str) -> f64 {
        Convert::between(from, to).unwrap().apply(x)
    }

    #[test]
    fn conversions_are_as_exact_as_a_float_allows() {
        for (x, from, to, y) in [
            (1_234.5, "W", "kW", 1.2345),
            (12.25, "ms", "s", 0.012_25),
            (0.1, "kW", "W", 100.0),
            (3.0, "min", "s", 180.0),
            (50.0, "%", "ratio", 0.5),
            (212.0, "degF", "degC", 100.0),
            (-40.0, "°F", "°C", -40.0),
            (25.0, "C", "F", 77.0),
            (0.0, "degC", "K", 273.15),
            (1.0, "bar", "kPa", 100.0),
            (1.0, "in", "mm", 25.4),
            (3_000.0, "rpm", "rps", 50.0),
            (1.0, "MiB", "KiB", 1_024.0),
            (8.0, "bit", "B", 1.0),
            (36.0, "km/h", "m/s", 10.0),
            (1.0, "kWh", "MJ", 3.6),
            (1.0, "psi", "Pa", 6_894.757_293_168),
            (760.0, "Torr", "atm", 1.0),
            (5.0, "µs", "us", 5.0),
        ] {
            assert_eq!(convert(x, from, to), y, "{x} {from} in {to}");
        }
    }

    #[test]
    fn every_pair_of_a_quantity_goes_there_and_back() {
        for a in UNITS {
            for b in UNITS.iter().filter(|b| b.quantity == a.quantity) {
                let back = convert(convert(123.456, a.names[0], b.names[0]), b.names[0], a.names[0]);
                assert!((back - 123.456).abs() < 1e-9, "{} {}", a.names[0], b.names[0]);
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = UNITS.iter().flat_map(|u| u.names).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(Convert::between("widgets", "widgets"), Ok(Convert::IDENTITY));
        let text = Convert::between("kWh", "W").unwrap_err();
        assert!(text.contains("`kWh` is energy and `W` is power") && text.contains("W, mW, kW"), "{text}");
        let text = Convert::between("furlong", "m").unwrap_err();
        assert!(text.starts_with("unknown unit `furlong`; known units of length: m, nm"), "{text}");
        assert!(Convert::between("a", "b").unwrap_err().contains("known units: W"));
    }
}
