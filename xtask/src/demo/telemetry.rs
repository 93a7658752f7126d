//! Telemetry of four simulated presses: the same bytes in each run, because the noise starts from a fixed seed.

use std::fmt::Write as _;

/// The machines.
const MACHINES: [&str; 4] = ["press-1", "press-2", "press-3", "press-4"];

/// The one that falls ill.
pub(super) const FAULTY: &str = "press-3";

/// Seconds between two lines of a machine.
const STEP_SEC: u32 = 10;

const HOUR_SEC: u32 = 3_600;

/// Lines of one hour without the broken ones.
pub(super) const LINES_PER_HOUR: u64 = (HOUR_SEC / STEP_SEC) as u64 * MACHINES.len() as u64;

/// Second of the faulty hour at which the drift begins.
const FAULT_SEC: u32 = 1_500;

/// How much more the faulty machine draws each second, as a share of its power: a third within an hour.
const DRIFT_PER_SEC: f64 = 1.0e-4;

/// What real links do to telemetry: cut, garbled, mistyped and unknown lines.
pub(super) const BROKEN: [&str; 5] = [
    r#"{"timestamp":"2026-01-01T09:10:00Z","machine":"press-1","power_w":50"#,
    "\u{fffd}\u{fffd}~ modem noise ~",
    r#"{"machine":"press-2","power_w":5000.0}"#,
    r#"{"timestamp":"2026-01-01T09:20:00Z","machine":"press-4","power_w":"high"}"#,
    r#"{"timestamp":"2026-01-01T09:30:00Z","machine":"press-2","pressure_psi":88.1}"#,
];

/// One hour in which all is well.
pub(super) fn clean_hour() -> String {
    hour(8, 1, None, &[])
}

/// The hour after it: one machine drifts, five lines are broken.
pub(super) fn faulty_hour() -> String {
    hour(9, 2, Some(FAULT_SEC), &BROKEN)
}

/// When the drift begins.
pub(super) fn fault_began() -> String {
    time(9, FAULT_SEC)
}

fn hour(hour: u32, seed: u64, fault: Option<u32>, broken: &[&str]) -> String {
    let mut noise = Noise(seed);
    let mut text = String::new();
    let steps = HOUR_SEC / STEP_SEC;
    for step in 0..steps {
        let sec = step * STEP_SEC;
        for (m, machine) in MACHINES.iter().enumerate() {
            let ill = fault.filter(|_| *machine == FAULTY).map_or(0, |from| sec.saturating_sub(from));
            let power = (5_000.0 + 150.0 * m as f64 + 60.0 * noise.next()) * (1.0 + DRIFT_PER_SEC * f64::from(ill));
            let temp = 140.0 + 2.0 * m as f64 + 1.5 * noise.next();
            let cycle = 800.0 + 10.0 * m as f64 + 12.0 * noise.next();
            let time = time(hour, sec);
            let _ = writeln!(
                text,
                r#"{{"timestamp":"{time}","machine":"{machine}","power_w":{power:.1},"temp_f":{temp:.2},"cycle_ms":{cycle:.1}}}"#
            );
        }
        // The broken lines lie evenly among the good ones.
        let share = steps as usize / (broken.len() + 1);
        if step as usize % share == share - 1
            && let Some(line) = broken.get(step as usize / share)
        {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn time(hour: u32, sec: u32) -> String {
    format!("2026-01-01T{hour:02}:{:02}:{:02}Z", sec / 60, sec % 60)
}

/// Splitmix64, summed to nearly normal noise of spread 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        // Twelve uniform numbers have a variance of 1 and a mean of 6.
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_its_lines_and_repeats_to_the_byte() {
        assert_eq!(clean_hour().lines().count() as u64, LINES_PER_HOUR);
        assert_eq!(faulty_hour().lines().count() as u64, LINES_PER_HOUR + BROKEN.len() as u64);
        assert_eq!(faulty_hour(), faulty_hour());
    }
}
