//! What is compared with what, and which rules judge it.

use std::collections::BTreeMap;

use hb_engine::judge::Param;
use hb_engine::series::MAX_NAME_BYTES;
use hb_engine::spec::LatePolicy;
use hb_engine::{NS_PER_SEC, spec::Caps};
use serde::Serialize;

use crate::config::name::Name;
use crate::config::read::{Fields, FromNode, Reader};
use crate::config::schedule::ScheduleConfig;
use crate::config::yaml::{Node, Value};

/// Shortest distance of two windows, ns: below it decisions cost more than the samples they speak of.
pub const MIN_EVERY_NS: i64 = NS_PER_SEC / 100;

/// Longest window, ns: 31 days; what is longer belongs into a baseline.
pub const MAX_WINDOW_NS: i64 = 31 * 86_400 * NS_PER_SEC;

/// Most rules of one check.
pub const MAX_RULES: usize = 64;

/// One check: which series, which window, which rules, compared with which baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckConfig {
    /// Unique among checks; decisions and alerts carry it. Example: `quick`.
    pub id: Name,
    /// `window_sec`: length of a window, a multiple of `every_sec`; fractions allowed, 0.01 s to 31 days. Example:
    /// `300`. In ns here.
    pub window_ns: i64,
    /// `every_sec`: distance of two windows, 0.01 s to 31 days. Default: `schedule.interval_sec`, else `window_sec`.
    /// Example: `60`. In ns here.
    pub every_ns: i64,
    /// Baseline tag, as `golden`. Default: that of the schedule; without one it is compared with nothing, for rules
    /// that need no baseline. Example: `golden`.
    pub baseline: Option<Name>,
    /// Metric patterns with `*`; a series is in when one matches. Default: `["*"]`. Example: `["temp*", "power"]`.
    pub metrics: Vec<Pattern>,
    /// Metric patterns that are left out. Default: none. Example: `["*_debug"]`.
    pub except: Vec<Pattern>,
    /// Asset patterns. Default: `["*"]`. Example: `["press-*"]`.
    pub assets: Vec<Pattern>,
    /// A series with fewer samples in the window is not judged, 1 to 1,000,000. Default: 3. Example: `15`.
    pub min_samples: u32,
    /// Rules in order, 1 to 64, each at most once.
    pub rules: Vec<RuleConfig>,
}

/// A rule and what it is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleConfig {
    /// Rule id, as `drift.robust_z`. Example: `drift.robust_z`.
    pub rule: Name,
    /// Overrides of the policy's parameters: switches, numbers or words. Default: none. Example: `{"warn": 4, "fail":
    /// 8}`.
    pub params: BTreeMap<String, Param>,
}

/// A pattern in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Pattern(pub String);

/// How event time is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventTimeConfig {
    /// `lateness_sec`: how late a sample may be against the newest of its source, 0 to 86,400 s. Default: 0. Example:
    /// `30`. In ns here.
    pub lateness_ns: i64,
    /// `late_event_policy`: what becomes of a sample that is later still, one of `drop`, `buffer`, `side_output`.
    /// Default: `drop`. Example: `buffer`.
    pub late: LatePolicy,
    /// `max_jump_sec`: how far ahead a time may jump before it must be confirmed, 1 s to 31 days. Default: 7 days.
    /// Example: `3600`. In ns here.
    pub max_jump_ns: i64,
    /// `idle_sec`: after this long without a sample windows close by the clock, 1 to 86,400 s. Default: 60 s. Example:
    /// `120`. In ns here.
    pub idle_ns: i64,
}

impl Default for EventTimeConfig {
    fn default() -> Self {
        EventTimeConfig {
            lateness_ns: 0,
            late: LatePolicy::Drop,
            max_jump_ns: 7 * 86_400 * NS_PER_SEC,
            idle_ns: 60 * NS_PER_SEC,
        }
    }
}

/// What checks leave to the schedule.
pub(crate) fn fill_in(checks: &mut [CheckConfig], schedule: &ScheduleConfig, root: &Node, reader: &mut Reader<'_>) {
    let rolling = schedule.rolling_baseline.as_ref().and_then(|_| Name::parse(ROLLING_TAG));
    let tag = schedule.baseline_tag.clone().or(rolling);
    for (i, check) in checks.iter_mut().enumerate() {
        check.baseline = check.baseline.take().or_else(|| tag.clone());
        let says = root.find(&format!("checks[{i}].every_sec")).is_some_and(|n| !matches!(n.value, Value::Null));
        let Some(interval) = schedule.interval_ns.filter(|_| !says) else { continue };
        if check.window_ns % interval == 0 {
            check.every_ns = interval;
            continue;
        }
        let (w, e) = (check.window_ns as f64 / 1e9, interval as f64 / 1e9);
        let d = reader.error(format!("`window_sec` {w} is not a multiple of `schedule.interval_sec` {e}"));
        let at = root.find(&format!("checks[{i}].window_sec")).map_or(root.at, |n| n.at);
        reader.push(at, d.help("give this check an `every_sec` of its own"));
    }
}

/// Tag of the rolling baseline.
const ROLLING_TAG: &str = "rolling";

/// A window must fit into the buckets the engine keeps.
pub(crate) fn check_against(checks: &[CheckConfig], caps: &Caps, root: &Node, reader: &mut Reader<'_>) {
    for (i, check) in checks.iter().enumerate() {
        let buckets = check.window_ns / check.every_ns;
        if buckets > i64::from(caps.max_buckets) {
            let d = reader.error(format!("a window of {buckets} steps; `limits.max_buckets` is {}", caps.max_buckets));
            let at = root.find(&format!("checks[{i}].window_sec")).map_or(root.at, |n| n.at);
            reader.push(at, d.help("make `every_sec` longer, or raise `limits.max_buckets`"));
        }
    }
}

impl FromNode for CheckConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "a check", reader)?;
        let id = f.need("id", reader);
        let spans = MIN_EVERY_NS..=MAX_WINDOW_NS;
        let window_ns = f.seconds("window_sec", None, &spans, reader);
        let every_ns = f.seconds("every_sec", window_ns.or(Some(MAX_WINDOW_NS)), &spans, reader);
        if let (Some(window), Some(every)) = (window_ns, every_ns)
            && window % every != 0
        {
            let (w, e) = (window as f64 / 1e9, every as f64 / 1e9);
            let d = reader.error(format!("`window_sec` {w} is not a multiple of `every_sec` {e}"));
            let near = ((window + every / 2) / every).max(1) * every;
            reader.push(f.span("window_sec"), d.help(format!("the nearest multiple is {}", near as f64 / 1e9)));
        }
        let baseline = f.optional("baseline", reader);
        let all = || vec![Pattern("*".into())];
        let metrics = f.or("metrics", all(), reader);
        let except = f.or("except", Vec::new(), reader);
        let assets = f.or("assets", all(), reader);
        let min_samples = f.whole("min_samples", 3, &(1..=1_000_000), reader);
        let rules: Option<Vec<RuleConfig>> = f.need("rules", reader);
        if let Some(rules) = &rules {
            check_rules(rules, &f, node, reader);
        }
        f.close(reader);
        Some(CheckConfig {
            id: id?,
            window_ns: window_ns?,
            every_ns: every_ns?,
            baseline: baseline?,
            metrics: metrics?,
            except: except?,
            assets: assets?,
            min_samples: min_samples?,
            rules: rules?,
        })
    }
}

fn check_rules(rules: &[RuleConfig], fields: &Fields<'_>, check: &Node, reader: &mut Reader<'_>) {
    if rules.is_empty() || rules.len() > MAX_RULES {
        let d = reader.error(format!("a check has 1 to {MAX_RULES} rules, found {}", rules.len()));
        reader.push(fields.span("rules"), d);
    }
    for (i, rule) in rules.iter().enumerate() {
        if rules[..i].iter().any(|r| r.rule == rule.rule) {
            let d = reader.error(format!("rule `{}` is listed twice in this check", rule.rule));
            let at = check.find(&format!("rules[{i}].rule")).map_or(check.at, |n| n.at);
            reader.push(at, d.help("use a second check for other parameters"));
        }
    }
}

impl FromNode for RuleConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "a rule", reader)?;
        let rule = f.need("rule", reader);
        let params = f.or("params", BTreeMap::new(), reader);
        f.close(reader);
        Some(RuleConfig { rule: rule?, params: params? })
    }
}

impl FromNode for Param {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Bool(b) => Some(Param::Bool(*b)),
            Value::Int(i) => Some(Param::Number(*i as f64)),
            Value::Float(f) => Some(Param::Number(*f)),
            Value::Text(t) => Some(Param::Text(t.clone())),
            Value::Null | Value::Refused | Value::List(_) | Value::Map(_) => {
                reader.expected(node, "true, false, a number or a word");
                None
            }
        }
    }
}

impl FromNode for Pattern {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::from_node(node, reader)?;
        if text.len() > MAX_NAME_BYTES {
            let d = reader.error(format!("a pattern of {} bytes; at most {MAX_NAME_BYTES} are allowed", text.len()));
            reader.push(node.at, d);
            return None;
        }
        Some(Pattern(text))
    }
}

impl FromNode for EventTimeConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        const DAY_NS: i64 = 86_400 * NS_PER_SEC;
        let default = EventTimeConfig::default();
        let words =
            [("drop", LatePolicy::Drop), ("buffer", LatePolicy::Buffer), ("side_output", LatePolicy::SideOutput)];
        let mut f = Fields::open(node, "event_time", reader)?;
        let lateness_ns = f.seconds("lateness_sec", Some(default.lateness_ns), &(0..=DAY_NS), reader);
        let late = f.choice("late_event_policy", default.late, &words, reader);
        let jumps = NS_PER_SEC..=31 * DAY_NS;
        let max_jump_ns = f.seconds("max_jump_sec", Some(default.max_jump_ns), &jumps, reader);
        let idle_ns = f.seconds("idle_sec", Some(default.idle_ns), &(NS_PER_SEC..=DAY_NS), reader);
        f.close(reader);
        Some(EventTimeConfig { lateness_ns: lateness_ns?, late: late?, max_jump_ns: max_jump_ns?, idle_ns: idle_ns? })
    }
}
