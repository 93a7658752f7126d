//! One chart: a series over time as inline SVG, with its baseline band and the times in which it was flagged.
//!
//! The picture has a title, a description and patterns beside colours; the numbers stand in a table below it.

use std::fmt::Write as _;

use hb_engine::decision::Status;
use maud::{Markup, PreEscaped, html};

use super::{FlaggedSpan, Range, SeriesTrack, TrackPoint, number, short, time};
use crate::diagnostic::{clip, neutralise};

/// Most points drawn: the plot is 770 units wide, more would fall on each other. Beyond it neighbours are joined.
pub(super) const MAX_POINTS: usize = 600;

/// Most flagged times drawn: narrower ones could not be told apart. The longest are drawn.
pub(super) const MAX_SPANS: usize = 100;

/// The drawing, in its own units.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 126.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 32.0;

/// Height of the strip above the plot that repeats the flagged times in patterns.
const STRIP: f64 = 8.0;

/// A gap in the line where the distance of two points is more than this many times the usual one.
const GAP: f64 = 2.5;

/// Least distance of two labels beside the plot.
const LABEL_STEP: f64 = 14.0;

/// Characters of a unit that the axis shows.
const UNIT_CHARS: usize = 24;

/// Limits are drawn while they make the plot at most so many times higher than the values and the band need.
const LIMITS_STRETCH: f64 = 3.0;

/// Steps between ticks of the value axis, per power of ten.
const STEPS: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

/// Steps between ticks of the time axis, seconds.
const TIME_STEPS: [i64; 22] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
    2_419_200, 31_536_000,
];

/// Most ticks of the time axis.
const TIME_TICKS: i128 = 8;

/// A day.
const DAY_SEC: i64 = 86_400;

/// The chart of one series. `id` makes the ids inside unique in the page.
pub(super) fn chart(track: &SeriesTrack, id: &str) -> Markup {
    let points = joined(&track.points);
    let spans = drawn(&track.flagged);
    let Some(frame) = Frame::of(track, &points, &spans) else {
        return html! { p.empty { "No samples to draw." } };
    };
    let unit = if track.unit.is_empty() { String::new() } else { format!(" in {}", neutralise(&track.unit)) };
    let places: Vec<(f64, f64, Status)> = spans.iter().map(|s| frame.flagged(s, &points)).collect();
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby=(format!("{id}-t {id}-d")) {
            title id=(format!("{id}-t")) { (neutralise(&track.label)) (unit) " over time" }
            desc id=(format!("{id}-d")) { (describe(track, &points)) }
            clipPath id=(format!("{id}-c")) {
                @for (x, w, _) in &places { rect x=(u(*x)) y="0" width=(u(*w)) height=(u(HEIGHT)) {} }
            }
            @for (x, w, status) in &places {
                rect class=(format!("flag {}", class(*status))) x=(u(*x)) y=(u(TOP)) width=(u(*w))
                    height=(u(HEIGHT - TOP - BOTTOM)) {}
                rect class=(format!("strip {}", class(*status))) x=(u(*x)) y=(u(TOP - STRIP - 1.0)) width=(u(*w))
                    height=(u(STRIP)) {}
            }
            (axes(&frame, track))
            @if let Some(band) = track.band {
                @let (high, low) = (frame.y(band.p95), frame.y(band.p05));
                rect.band x=(u(LEFT)) y=(u(high)) width=(u(WIDTH - LEFT - RIGHT)) height=(u((low - high).max(1.0))) {}
                (level("median", frame.y(band.median)))
            }
            @for (value, kind) in frame.limits(track) { (level(kind, frame.y(value))) }
            (lines(&points, &frame, &format!("{id}-c")))
            (labels(track, &frame))
        }
    }
}

/// Patterns the charts of a page share.
pub(super) fn patterns() -> Markup {
    // Fixed text: patterns for DRIFT, NO_DATA and ERROR; FAIL is solid.
    PreEscaped(
        "<svg width=\"0\" height=\"0\" aria-hidden=\"true\" focusable=\"false\" class=\"defs\"><defs>\
         <pattern id=\"p-drift\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><rect class=\"p-drift\" width=\"3\" height=\"6\"/></pattern>\
         <pattern id=\"p-no-data\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
         <circle class=\"p-no-data\" cx=\"3\" cy=\"3\" r=\"1.5\"/></pattern>\
         <pattern id=\"p-error\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
         <path class=\"p-error\" d=\"M0 0L6 6M6 0L0 6\"/></pattern></defs></svg>"
            .to_owned(),
    )
}

/// The class of a status in the style sheet.
pub(super) fn class(status: Status) -> &'static str {
    match status {
        Status::Pass => "pass",
        Status::Drift => "drift",
        Status::Fail => "fail",
        Status::NoData => "no-data",
        Status::Error => "error",
    }
}

/// Maps time and value to the drawing.
struct Frame {
    start_ns: i64,
    end_ns: i64,
    low: f64,
    high: f64,
    step: f64,
    has_limits: bool,
}

impl Frame {
    fn of(track: &SeriesTrack, points: &[TrackPoint], spans: &[&FlaggedSpan]) -> Option<Frame> {
        let ends = points.iter().map(|p| p.end_ns);
        // Flagged times are drawn from the window before, so that they begin where the line does.
        let flagged = spans.iter().flat_map(|s| [s.first_end_ns, s.end_ns]);
        let start_ns = ends.clone().chain(flagged.clone()).min()?;
        let end_ns = ends.chain(flagged).max()?;
        let band = track.band.iter().flat_map(|b| [b.p05, b.p95]);
        let values = points.iter().flat_map(|p| [p.min, p.max, p.mean]).chain(band);
        let limits = [track.limits.drift, track.limits.fail].into_iter().flatten().flat_map(|r| [r.low, r.high]);
        let tight = reach(values.clone());
        let wide = reach(values.chain(limits));
        let has_limits = wide.1 - wide.0 <= (tight.1 - tight.0) * LIMITS_STRETCH;
        let (low, high) = if has_limits { wide } else { tight };
        let room = ((high - low) * 0.06).max(high.abs().max(low.abs()) * 1e-6).max(1e-12);
        let (low, high) = (low - room, high + room);
        Some(Frame {
            start_ns,
            end_ns: end_ns.max(start_ns.saturating_add(1)),
            low,
            high,
            step: tick_step((high - low) / 4.0),
            has_limits,
        })
    }

    fn x(&self, ns: i64) -> f64 {
        let share = (ns as f64 - self.start_ns as f64) / (self.end_ns as f64 - self.start_ns as f64);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }

    /// Left edge, width and status of a flagged time: from the point before its first to its last; a short one is
    /// still seen.
    fn flagged(&self, span: &FlaggedSpan, points: &[TrackPoint]) -> (f64, f64, Status) {
        let before = points.partition_point(|p| p.end_ns < span.first_end_ns);
        let start_ns = before.checked_sub(1).map_or(span.first_end_ns, |i| points[i].end_ns);
        let width = (self.x(span.end_ns) - self.x(start_ns)).max(2.0);
        (self.x(start_ns).min(WIDTH - RIGHT - width), width, span.status)
    }

    /// The limits that lie in the plot, with their class.
    fn limits(&self, track: &SeriesTrack) -> Vec<(f64, &'static str)> {
        let kinds = [(track.limits.drift, "limit-drift"), (track.limits.fail, "limit-fail")];
        let ends = |(range, kind): (Option<Range>, &'static str)| {
            range.into_iter().flat_map(move |r| [(r.low, kind), (r.high, kind)])
        };
        let inside = |l: &(f64, &str)| self.has_limits && l.0 > self.low && l.0 < self.high;
        kinds.into_iter().flat_map(ends).filter(inside).collect()
    }
}

/// The smallest and the largest of all numbers among these.
fn reach(values: impl Iterator<Item = f64>) -> (f64, f64) {
    // Beyond it even the distance of two values is no number any more.
    let values = values.filter(|v| v.is_finite()).map(|v| v.clamp(-1e300, 1e300));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    // Without any number there are still the flagged times to show.
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

/// The flagged times that are drawn, in the order of time.
fn drawn(spans: &[FlaggedSpan]) -> Vec<&FlaggedSpan> {
    let mut spans: Vec<&FlaggedSpan> = spans.iter().collect();
    if spans.len() > MAX_SPANS {
        spans.sort_by_key(|s| std::cmp::Reverse(s.end_ns.saturating_sub(s.start_ns)));
        spans.truncate(MAX_SPANS);
        spans.sort_by_key(|s| s.start_ns);
    }
    spans
}

/// A line across the plot.
fn level(kind: &str, y: f64) -> Markup {
    html! { line class=(kind) x1=(u(LEFT)) x2=(u(WIDTH - RIGHT)) y1=(u(y)) y2=(u(y)) {} }
}

fn axes(frame: &Frame, track: &SeriesTrack) -> Markup {
    let first = (frame.low / frame.step).ceil();
    // A range of four steps has at most ten ticks, whatever rounding does.
    let values = (0..10).map(|i| (first + f64::from(i)) * frame.step).take_while(|v| *v <= frame.high);
    let unit = if track.unit.is_empty() { "value".into() } else { clip(&track.unit, UNIT_CHARS) };
    let day = time(frame.start_ns);
    let day = day.split_once('T').map_or(day.as_str(), |(day, _)| day);
    html! {
        text.axis x=(u(LEFT - 8.0)) y=(u(TOP - 18.0)) text-anchor="end" { (unit) }
        @for value in values {
            @let y = frame.y(value);
            line.grid x1=(u(LEFT)) x2=(u(WIDTH - RIGHT)) y1=(u(y)) y2=(u(y)) {}
            text.tick x=(u(LEFT - 8.0)) y=(u(y + 4.0)) text-anchor="end" { (number(rounded(value, frame.step))) }
        }
        line.base x1=(u(LEFT)) x2=(u(WIDTH - RIGHT)) y1=(u(HEIGHT - BOTTOM)) y2=(u(HEIGHT - BOTTOM)) {}
        @for (ns, text) in times(frame) {
            @let x = frame.x(ns);
            line.base x1=(u(x)) x2=(u(x)) y1=(u(HEIGHT - BOTTOM)) y2=(u(HEIGHT - BOTTOM + 4.0)) {}
            text.tick x=(u(x)) y=(u(HEIGHT - BOTTOM + 18.0)) text-anchor="middle" { (text) }
        }
        text.axis x=(u(WIDTH - RIGHT + 10.0)) y=(u(HEIGHT - BOTTOM + 18.0)) { "UTC, " (day) }
    }
}

/// Round times on the axis.
fn times(frame: &Frame) -> Vec<(i64, String)> {
    let span = i128::from(frame.end_ns) - i128::from(frame.start_ns);
    let second = i128::from(hb_engine::NS_PER_SEC);
    let mut step = TIME_STEPS[TIME_STEPS.len() - 1];
    if let Some(fits) = TIME_STEPS.iter().find(|s| span / (i128::from(**s) * second) <= TIME_TICKS) {
        step = *fits;
    }
    while span / (i128::from(step) * second) > TIME_TICKS {
        step *= 10;
    }
    let step_ns = i128::from(step) * second;
    let first = i128::from(frame.start_ns).div_euclid(step_ns) + 1;
    let ticks = (first..=first + TIME_TICKS).map(|n| n * step_ns).take_while(|ns| *ns < i128::from(frame.end_ns));
    let ticks: Vec<i64> = ticks.filter_map(|ns| i64::try_from(ns).ok()).collect();
    ticks.into_iter().map(|ns| (ns, clock(ns, step))).collect()
}

/// What stands beside the plot: the levels by name and value, none on another.
fn labels(track: &SeriesTrack, frame: &Frame) -> Markup {
    let mut labels: Vec<(f64, String, &str)> = Vec::new();
    if let Some(band) = track.band {
        labels.push((frame.y(band.median), format!("normal {}", short(band.median)), "normal"));
    }
    for (value, kind) in frame.limits(track) {
        let word = if kind == "limit-fail" { "FAIL" } else { "DRIFT" };
        labels.push((frame.y(value), format!("{word} {}", short(value)), kind));
    }
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    // First apart downwards, then back into the plot from below.
    for i in 1..labels.len() {
        labels[i].0 = labels[i].0.max(labels[i - 1].0 + LABEL_STEP);
    }
    let mut floor = HEIGHT - BOTTOM - 4.0;
    for label in labels.iter_mut().rev() {
        label.0 = label.0.min(floor);
        floor = label.0 - LABEL_STEP;
    }
    html! {
        @for (y, text, kind) in &labels {
            text class=(format!("label {kind}")) x=(u(WIDTH - RIGHT + 10.0)) y=(u(y + 4.0)) { (text) }
        }
    }
}

/// The envelope from smallest to largest value and the line of the means, broken where there were no samples; what lies
/// in `clip` is drawn once more as flagged.
fn lines(points: &[TrackPoint], frame: &Frame, clip: &str) -> Markup {
    let usual = usual_distance(points);
    let mut pieces: Vec<Vec<&TrackPoint>> = Vec::new();
    let mut before: Option<&TrackPoint> = None;
    for point in points.iter().filter(|p| p.mean.is_finite()) {
        let gap = before.is_none_or(|b| point.end_ns as f64 - b.end_ns as f64 > usual * GAP);
        match pieces.last_mut() {
            Some(piece) if !gap => piece.push(point),
            _ => pieces.push(vec![point]),
        }
        before = Some(point);
    }
    html! {
        @for piece in &pieces {
            @if let [only] = piece.as_slice() {
                circle.dot cx=(u(frame.x(only.end_ns))) cy=(u(frame.y(only.mean))) r="2.5" {}
            } @else {
                @let mean = path(piece.iter().map(|p| (frame.x(p.end_ns), frame.y(p.mean))));
                path.range d=(envelope(piece, frame)) {}
                path.mean d=(mean) {}
                path.mean.hot d=(mean) clip-path=(format!("url(#{clip})")) {}
            }
        }
    }
}

fn envelope(piece: &[&TrackPoint], frame: &Frame) -> String {
    let or_mean = |v: f64, p: &TrackPoint| if v.is_finite() { v } else { p.mean };
    let upper = piece.iter().map(|p| (frame.x(p.end_ns), frame.y(or_mean(p.max, p))));
    let lower = piece.iter().rev().map(|p| (frame.x(p.end_ns), frame.y(or_mean(p.min, p))));
    path(upper.chain(lower)) + "Z"
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut d = String::new();
    for (i, (x, y)) in points.enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(d, "{}{} {}", if i == 0 { 'M' } else { 'L' }, u(x), u(y));
    }
    d
}

/// What the picture shows, for those who do not see it.
fn describe(track: &SeriesTrack, points: &[TrackPoint]) -> String {
    // Writing to a String cannot fail.
    let means = points.iter().map(|p| p.mean).filter(|m| m.is_finite());
    let low = means.clone().fold(f64::INFINITY, f64::min);
    let high = means.fold(f64::NEG_INFINITY, f64::max);
    let mut text = format!("Window means lie between {} and {}.", number(low), number(high));
    if let Some(b) = track.band {
        let (low, high) = (number(b.p05), number(b.p95));
        let _ = write!(
            text,
            " Normal is {}; nine of ten values of the baseline lie from {low} to {high}.",
            number(b.median)
        );
    }
    for (range, word) in [(track.limits.drift, "DRIFT"), (track.limits.fail, "FAIL")] {
        if let Some(r) = range {
            let _ = write!(text, " {word} begins below {} and above {}.", number(r.low), number(r.high));
        }
    }
    match track.flagged.as_slice() {
        [] => text.push_str(" Nothing was flagged."),
        [first, rest @ ..] => {
            let _ = write!(text, " Flagged {} from {} to {}", first.status, time(first.start_ns), time(first.end_ns));
            let _ = match rest.len() {
                0 => write!(text, "."),
                1 => write!(text, " and once more."),
                n => write!(text, " and {n} more times."),
            };
        }
    }
    text
}

/// At most [`MAX_POINTS`] points: neighbours become one with their mean, smallest and largest value.
fn joined(points: &[TrackPoint]) -> Vec<TrackPoint> {
    let per = points.len().div_ceil(MAX_POINTS).max(1);
    points.chunks(per).map(join).collect()
}

fn join(chunk: &[TrackPoint]) -> TrackPoint {
    let finite = || chunk.iter().filter(|p| p.mean.is_finite());
    let n = finite().count();
    TrackPoint {
        end_ns: chunk.last().map_or(0, |p| p.end_ns),
        count: chunk.iter().map(|p| p.count).sum(),
        mean: if n == 0 { f64::NAN } else { finite().map(|p| p.mean).sum::<f64>() / n as f64 },
        min: finite().map(|p| p.min).fold(f64::NAN, f64::min),
        max: finite().map(|p| p.max).fold(f64::NAN, f64::max),
    }
}

/// The median distance of two points in time.
fn usual_distance(points: &[TrackPoint]) -> f64 {
    let mut steps: Vec<i64> = points.windows(2).map(|w| w[1].end_ns.saturating_sub(w[0].end_ns)).collect();
    steps.sort_unstable();
    steps.get(steps.len() / 2).map_or(f64::INFINITY, |s| *s as f64)
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `least`.
fn tick_step(least: f64) -> f64 {
    let power = 10_f64.powi(least.log10().floor() as i32);
    STEPS.iter().map(|s| s * power).find(|s| *s >= least).unwrap_or(10.0 * power)
}

/// Removes what adding up steps left behind: 0.30000000000000004 is 0.3.
fn rounded(value: f64, step: f64) -> f64 {
    if (value / step).abs() < 1e-9 { 0.0 } else { value }
}

/// A time on the axis, in UTC: the day at midnight, seconds only where ticks are that close.
fn clock(ns: i64, step_sec: i64) -> String {
    let text = time(ns);
    match (text.get(..10), text.get(11..19)) {
        (Some(day), Some("00:00:00")) if text.contains('T') => day[5..].to_owned(),
        (Some(day), Some(_)) if step_sec >= DAY_SEC => day.to_owned(),
        (Some(_), Some(clock)) if text.contains('T') => clock[..if step_sec < 60 { 8 } else { 5 }].to_owned(),
        _ => text,
    }
}

/// A length in the drawing, as short as it may be.
fn u(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::Band;
    use super::*;

    const SEC: i64 = hb_engine::NS_PER_SEC;

    fn point(sec: i64, mean: f64) -> TrackPoint {
        TrackPoint { end_ns: sec * SEC, count: 10, mean, min: mean - 1.0, max: mean + 1.0 }
    }

    fn span(start_ns: i64, end_ns: i64) -> FlaggedSpan {
        FlaggedSpan { start_ns, first_end_ns: start_ns, end_ns, status: Status::Fail, reason: String::new() }
    }

    #[test]
    fn the_line_breaks_where_samples_are_missing() {
        let mut points: Vec<TrackPoint> = (0..10).map(|i| point(i * 60, 5.0)).collect();
        points.extend((20..30).map(|i| point(i * 60, 6.0)));
        points.push(point(6_000, 7.0));
        points[3].mean = f64::NAN;
        let track = SeriesTrack { label: "a".into(), points, ..SeriesTrack::default() };
        let svg = chart(&track, "c1").into_string();
        assert_eq!(svg.matches("class=\"mean\"").count(), 2, "{svg}");
        assert_eq!(svg.matches("class=\"dot\"").count(), 1);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn odd_numbers_still_give_a_chart() {
        for values in [vec![], vec![f64::NAN], vec![0.0], vec![1e300, -1e300], vec![1e-300; 3], vec![5.0; 2_000]] {
            let points = values.iter().enumerate().map(|(i, v)| point(i as i64, *v)).collect();
            let flagged = vec![span(i64::MIN, i64::MAX)];
            let band = Some(Band { p05: 1.0, median: 1.0, p95: 1.0 });
            for track in [
                SeriesTrack { points, flagged, band, ..SeriesTrack::default() },
                SeriesTrack { points: values.iter().map(|v| point(7, *v)).collect(), ..SeriesTrack::default() },
            ] {
                let svg = chart(&track, "c").into_string();
                assert!(!svg.contains("NaN") && !svg.contains("=\"inf"), "{svg}");
                assert!(svg.len() < 60_000, "{}", svg.len());
            }
        }
    }

    #[test]
    fn ticks_are_round_numbers() {
        for (least, want) in [(0.03, 0.05), (1.0, 1.0), (1.1, 2.0), (230.0, 500.0), (7.0, 10.0)] {
            assert!((tick_step(least) - want).abs() < want * 1e-9, "{least}: {}", tick_step(least));
        }
    }
}
