//! A number beside its limit.

/// One line of a table.
pub(super) struct Row {
    what: String,
    measured: String,
    /// The limit in words, and whether it was kept; none for what is only told.
    pub(super) limit: Option<(String, bool)>,
    /// A line that stands as it is, for tables of another shape.
    verbatim: bool,
}

impl Row {
    /// Something that must be below a limit.
    pub(super) fn below(what: &str, measured: f64, limit: f64, unit: &str) -> Row {
        // What could not be measured is not below anything.
        let kept = measured < limit;
        Row::new(what, number(measured, unit), Some((format!("below {}", number(limit, unit)), kept)))
    }

    /// Something that must be a limit at least.
    pub(super) fn at_least(what: &str, measured: f64, limit: f64, unit: &str) -> Row {
        let kept = measured >= limit;
        Row::new(what, number(measured, unit), Some((format!("at least {}", number(limit, unit)), kept)))
    }

    /// A count that must be this one.
    pub(super) fn exactly(what: &str, measured: u64, limit: u64) -> Row {
        Row::new(what, grouped(measured), Some((grouped(limit), measured == limit)))
    }

    /// Something to know, without a limit.
    pub(super) fn told(what: &str, measured: String) -> Row {
        Row::new(what, measured, None)
    }

    /// A line of a table of another shape.
    pub(super) fn verbatim(line: String) -> Row {
        Row { verbatim: true, ..Row::new("", line, None) }
    }

    fn new(what: &str, measured: String, limit: Option<(String, bool)>) -> Row {
        Row { what: what.to_owned(), measured, limit, verbatim: false }
    }

    /// As a line of a table.
    pub(super) fn line(&self) -> String {
        let Row { what, measured, limit, verbatim } = self;
        match limit {
            _ if *verbatim => measured.clone(),
            Some((limit, true)) => format!("| {what} | {measured} | {limit} |"),
            Some((limit, false)) => format!("| {what} | **{measured}** | {limit}: MISSED |"),
            None => format!("| {what} | {measured} | |"),
        }
    }

    /// Whether it brings a table of its own.
    pub(super) fn is_verbatim(&self) -> bool {
        self.verbatim
    }

    /// Whether its limit was missed.
    pub(super) fn is_missed(&self) -> bool {
        self.limit.as_ref().is_some_and(|limit| !limit.1)
    }

    /// As a sentence.
    pub(super) fn words(&self) -> String {
        let limit = self.limit.as_ref().map_or("none", |limit| limit.0.as_str());
        format!("{} is {}, the limit is {limit}", self.what, self.measured)
    }
}

/// With as many digits as mean something.
pub(super) fn number(n: f64, unit: &str) -> String {
    let digits = match n.abs() {
        n if n >= 100.0 => 0,
        n if n >= 10.0 => 1,
        n if n >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{n:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if unit.is_empty() { text.to_owned() } else { format!("{text} {unit}") }
}

/// With a comma before each three digits.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The value below which this share of them lies; not a number when there are none.
pub(super) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil().max(1.0) as usize;
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_missed_by_what_is_not_below_it() {
        assert!(!Row::below("stall", 19.9, 20.0, "ms").is_missed());
        for measured in [20.0, f64::NAN] {
            assert!(Row::below("stall", measured, 20.0, "ms").is_missed());
        }
        assert!(Row::exactly("lost", 1, 0).is_missed() && Row::at_least("alerts", 99.0, 100.0, "").is_missed());
        let words = Row::below("stall", 34.25, 20.0, "ms").words();
        assert_eq!(words, "stall is 34.2 ms, the limit is below 20 ms");
    }

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        assert_eq!([0.1234, 1.5, 20.0, 1234.5].map(|n| number(n, "")), ["0.123", "1.5", "20", "1234"]);
        assert_eq!([7, 1_000, 12_345_678].map(grouped), ["7", "1,000", "12,345,678"]);
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.99), 3.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }
}
