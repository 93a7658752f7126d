//! What a normalizer made of a batch, and what the contract demands of it.

use hb_engine::TIME_MAX_NS;

use super::bindings::exports::hb::plugin::normalize;
use super::fault::{PluginFault, reason};
use super::{Event, Reject};

/// What a batch became. Rows, events, rejects and faults are in the order of their frames.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Row `k` came from frame `frame[k]`; never falls.
    pub frame: Vec<u32>,
    /// Its series.
    pub series: Vec<u32>,
    /// Its event time, nanoseconds since the Unix epoch.
    pub time_ns: Vec<i64>,
    /// Its value; never NaN or infinite.
    pub value: Vec<f64>,
    /// Events.
    pub events: Vec<Event>,
    /// Frames the plugin could not read, with its reason (neutralised).
    pub rejects: Vec<Reject>,
    /// Frames that meant nothing to the plugin.
    pub ignored: u32,
    /// Guilty frames: for the dead-letter store.
    pub faults: Vec<(u32, PluginFault)>,
}

impl Outcome {
    /// Adds a checked answer whose frame 0 is frame `offset` here.
    pub(super) fn append(&mut self, answer: normalize::Outcome, offset: u32) {
        let s = answer.samples;
        let mut frame = s.frame;
        if offset > 0 {
            for f in &mut frame {
                *f += offset;
            }
        }
        join(&mut self.frame, frame);
        join(&mut self.series, s.series);
        join(&mut self.time_ns, s.time_ns);
        join(&mut self.value, s.value);
        self.events.extend(answer.events.into_iter().map(|e| Event { frame: e.frame + offset, ..e }));
        self.rejects
            .extend(answer.rejects.into_iter().map(|r| Reject { frame: r.frame + offset, reason: reason(&r.reason) }));
        self.ignored += answer.ignored;
    }

    /// Takes away what frame `i` gave: what a frame gave that a plugin failed on is not to be believed.
    pub(crate) fn condemn(&mut self, i: u32, fault: PluginFault) {
        let rows = self.frame.partition_point(|&f| f < i)..self.frame.partition_point(|&f| f <= i);
        let given = (rows.len(), self.events.len(), self.rejects.len());
        self.series.drain(rows.clone());
        self.time_ns.drain(rows.clone());
        self.value.drain(rows.clone());
        self.frame.drain(rows);
        self.events.retain(|e| e.frame != i);
        self.rejects.retain(|r| r.frame != i);
        if given == (0, self.events.len(), self.rejects.len()) {
            // It gave nothing, and was counted as such.
            self.ignored = self.ignored.saturating_sub(1);
        }
        let at = self.faults.partition_point(|f| f.0 < i);
        self.faults.insert(at, (i, fault));
    }

    /// How `alone` (frame 0 of its own batch) differs from frame `i` here.
    pub(super) fn difference(&self, alone: &Outcome, i: u32) -> Option<String> {
        let from = self.frame.partition_point(|&f| f < i);
        let to = self.frame.partition_point(|&f| f <= i);
        if to - from != alone.frame.len() {
            return Some(format!("{} samples in its batch, {} alone", to - from, alone.frame.len()));
        }
        for (k, row) in (from..to).enumerate() {
            let (a, b) = ((self.series[row], self.time_ns[row]), (alone.series[k], alone.time_ns[k]));
            if a != b {
                return Some(format!(
                    "sample {k} is (series {}, time {}) in its batch, ({}, {}) alone",
                    a.0, a.1, b.0, b.1
                ));
            }
            let (a, b) = (self.value[row], alone.value[k]);
            if a.to_bits() != b.to_bits() {
                return Some(format!("sample {k} is {a} in its batch, {b} alone"));
            }
        }
        let events = self.events.iter().filter(|e| e.frame == i);
        if !events.map(content).eq(alone.events.iter().map(content)) {
            return Some("its events differ".into());
        }
        let rejects = self.rejects.iter().filter(|r| r.frame == i).map(|r| &r.reason);
        (!rejects.eq(alone.rejects.iter().map(|r| &r.reason))).then(|| "its reject differs".into())
    }
}

// What the contract demands of an answer about `n` frames.
pub(super) fn check(
    answer: &normalize::Outcome,
    n: u32,
    rows_per_frame: u32,
    knows_series: impl Fn(u32) -> bool,
) -> Result<(), String> {
    let s = &answer.samples;
    let rows = s.frame.len();
    if s.series.len() != rows || s.time_ns.len() != rows || s.value.len() != rows {
        return Err(format!(
            "columns of unequal length: {rows} frames, {} series, {} times, {} values",
            s.series.len(),
            s.time_ns.len(),
            s.value.len()
        ));
    }
    if let Some(k) = s.frame.windows(2).position(|w| w[0] > w[1]) {
        return Err(format!("row {}: the frame falls from {} to {}", k + 1, s.frame[k], s.frame[k + 1]));
    }
    if let Some(&frame) = s.frame.last().filter(|&&f| f >= n) {
        return Err(format!("a sample names frame {frame} of {n}"));
    }
    if let Some(k) = s.value.iter().position(|v| !v.is_finite()) {
        return Err(format!("row {k}: the value is {}", s.value[k]));
    }
    let wild = |time_ns: i64| time_ns.unsigned_abs() > TIME_MAX_NS.unsigned_abs();
    if let Some(k) = s.time_ns.iter().position(|&t| wild(t)) {
        return Err(format!("row {k}: the time {} ns lies outside of the years 1678 to 2261", s.time_ns[k]));
    }
    if let Some(e) = answer.events.iter().find(|e| wild(e.time_ns)) {
        return Err(format!("an event's time {} ns lies outside of the years 1678 to 2261", e.time_ns));
    }
    if let Some(k) = s.series.iter().position(|&id| !knows_series(id)) {
        return Err(format!("row {k}: series {} was not defined by this plugin", s.series[k]));
    }
    if let Some(w) = answer.events.windows(2).find(|w| w[0].frame > w[1].frame) {
        return Err(format!("the frame of the events falls from {} to {}", w[0].frame, w[1].frame));
    }
    if let Some(w) = answer.rejects.windows(2).find(|w| w[0].frame > w[1].frame) {
        return Err(format!("the frame of the rejects falls from {} to {}", w[0].frame, w[1].frame));
    }
    account(answer, n, rows_per_frame)
}

// Each frame ends as rows (samples, events), or as one reject, or is counted as ignored.
fn account(answer: &normalize::Outcome, n: u32, rows_per_frame: u32) -> Result<(), String> {
    const REJECTED: u32 = u32::MAX;
    let mut rows = vec![0u32; n as usize];
    for &frame in &answer.samples.frame {
        rows[frame as usize] += 1;
    }
    for event in &answer.events {
        let count = rows.get_mut(event.frame as usize).ok_or(format!("an event names frame {} of {n}", event.frame))?;
        *count += 1;
    }
    if let Some(i) = rows.iter().position(|&r| r > rows_per_frame) {
        return Err(format!("frame {i} gave {} rows; at most {rows_per_frame} are allowed", rows[i]));
    }
    for reject in &answer.rejects {
        match rows.get_mut(reject.frame as usize) {
            None => return Err(format!("a reject names frame {} of {n}", reject.frame)),
            Some(r @ 0) => *r = REJECTED,
            Some(&mut REJECTED) => return Err(format!("frame {} is rejected twice", reject.frame)),
            Some(_) => return Err(format!("frame {} is rejected and also gave rows", reject.frame)),
        }
    }
    let unaccounted = rows.iter().filter(|&&r| r == 0).count();
    if unaccounted != answer.ignored as usize {
        return Err(format!(
            "{unaccounted} frames gave neither rows nor a reject, but {} count as ignored",
            answer.ignored
        ));
    }
    Ok(())
}

// The first part is moved: most batches are one call.
fn join<T: Copy>(to: &mut Vec<T>, from: Vec<T>) {
    if to.is_empty() {
        *to = from;
    } else {
        to.extend_from_slice(&from);
    }
}

fn content(e: &Event) -> (&str, i64, &[u8], Vec<(&str, &str)>) {
    let attributes = e.attributes.iter().map(|a| (a.key.as_str(), a.value.as_str())).collect();
    (&e.kind, e.time_ns, &e.body, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Frames 0 and 1 give samples, 2 an event, 3 a reject, 4 is ignored.
    fn good() -> normalize::Outcome {
        normalize::Outcome {
            samples: normalize::Samples {
                frame: vec![0, 0, 1],
                series: vec![7, 8, 7],
                time_ns: vec![1, 2, 3],
                value: vec![1.0, 2.0, 3.0],
            },
            events: vec![event(2)],
            rejects: vec![reject(3)],
            ignored: 1,
        }
    }

    fn event(frame: u32) -> Event {
        Event { frame, kind: "k".into(), time_ns: 0, body: vec![], attributes: vec![] }
    }

    fn reject(frame: u32) -> Reject {
        Reject { frame, reason: "r\u{7}".into() }
    }

    fn complaint(spoil: impl FnOnce(&mut normalize::Outcome)) -> String {
        let mut answer = good();
        spoil(&mut answer);
        check(&answer, 5, 2, |id| id == 7 || id == 8).unwrap_err()
    }

    #[test]
    fn a_good_answer_passes() {
        assert_eq!(check(&good(), 5, 2, |id| id == 7 || id == 8), Ok(()));
        let mut edge = good();
        edge.samples.time_ns = vec![-TIME_MAX_NS, 0, TIME_MAX_NS];
        assert_eq!(check(&edge, 5, 2, |id| id == 7 || id == 8), Ok(()));
    }

    #[test]
    fn each_breach_is_named() {
        assert!(complaint(|a| a.samples.value.truncate(2)).contains("unequal length: 3 frames, 3 series, 3 times, 2"));
        assert!(complaint(|a| a.samples.frame[0] = 1).contains("row 1: the frame falls from 1 to 0"));
        assert!(complaint(|a| a.samples.frame[2] = 5).contains("a sample names frame 5 of 5"));
        assert!(complaint(|a| a.samples.value[1] = f64::INFINITY).contains("row 1: the value is inf"));
        for wild in [i64::MIN, -TIME_MAX_NS - 1, TIME_MAX_NS + 1, i64::MAX] {
            let outside = format!("time {wild} ns lies outside of the years 1678 to 2261");
            assert!(complaint(|a| a.samples.time_ns[1] = wild).contains(&format!("row 1: the {outside}")));
            assert!(complaint(|a| a.events[0].time_ns = wild).contains(&format!("an event's {outside}")));
        }
        assert!(complaint(|a| a.samples.series[1] = 9).contains("series 9 was not defined"));
        assert!(complaint(|a| a.events[0].frame = 9).contains("an event names frame 9 of 5"));
        assert!(complaint(|a| a.events.push(event(1))).contains("events falls from 2 to 1"));
        assert!(complaint(|a| a.rejects[0].frame = 9).contains("a reject names frame 9 of 5"));
        assert!(complaint(|a| a.rejects.push(reject(3))).contains("frame 3 is rejected twice"));
        assert!(complaint(|a| a.rejects.push(reject(0))).contains("rejects falls from 3 to 0"));
        assert!(complaint(|a| a.rejects.insert(0, reject(0))).contains("frame 0 is rejected and also gave rows"));
        assert!(complaint(|a| a.ignored = 2).contains("1 frames gave neither rows nor a reject, but 2"));
        assert!(
            complaint(|a| a.events.splice(..0, [event(0)]).for_each(drop)).contains("frame 0 gave 3 rows; at most 2")
        );
    }

    #[test]
    fn parts_are_joined_in_the_order_of_frames() {
        let mut out = Outcome::default();
        out.append(good(), 0);
        out.append(good(), 5);
        assert_eq!(out.frame, [0, 0, 1, 5, 5, 6]);
        assert_eq!(
            out.rejects.iter().map(|r| (r.frame, r.reason.as_str())).collect::<Vec<_>>(),
            [(3, "r\\u{7}"), (8, "r\\u{7}")]
        );
        assert_eq!((out.events[1].frame, out.ignored), (7, 2));
    }

    #[test]
    fn a_condemned_frame_leaves_nothing_but_its_fault() {
        // Samples, samples, an event, a reject, nothing.
        for frame in 0..5 {
            let mut out = Outcome::default();
            out.append(good(), 0);
            out.append(good(), 5);
            out.condemn(frame, PluginFault::Impure(String::new()));
            assert_eq!((out.faults.len(), out.faults[0].0), (1, frame));
            let mut frames: Vec<u32> = out.frame.clone();
            frames.extend(out.events.iter().map(|e| e.frame).chain(out.rejects.iter().map(|r| r.frame)));
            assert!(!frames.contains(&frame), "frame {frame}");
            frames.sort_unstable();
            frames.dedup();
            let rows = out.frame.len();
            assert_eq!([out.series.len(), out.time_ns.len(), out.value.len()], [rows; 3]);
            assert_eq!(frames.len() + out.ignored as usize + out.faults.len(), 10, "the sums agree");
        }
    }

    #[test]
    fn a_difference_is_found_to_the_last_bit() {
        let mut whole = Outcome::default();
        whole.append(good(), 0);
        let one = |value: f64| Outcome {
            frame: vec![0],
            series: vec![7],
            time_ns: vec![3],
            value: vec![value],
            ..Outcome::default()
        };
        assert_eq!(whole.difference(&one(3.0), 1), None);
        assert!(whole.difference(&one(3.000_000_000_000_000_4), 1).is_some());
        assert!(whole.difference(&one(3.0), 0).unwrap().contains("2 samples in its batch, 1 alone"));
        assert!(whole.difference(&Outcome::default(), 2).unwrap().contains("events"));
        assert!(whole.difference(&Outcome::default(), 3).unwrap().contains("reject"));
        assert_eq!(whole.difference(&Outcome { ignored: 1, ..Outcome::default() }, 4), None);
    }
}
