//! Meaning by topic: patterns with `+` for one level and `#` for the rest.

use crate::plan::{Metric, metric};
use crate::schema::Topic;
use std::collections::BTreeMap;

/// A topic pattern and what it means.
struct Entry {
    pattern: String,
    metric: Option<Metric>,
    labels: Vec<(String, String)>,
}

/// All patterns; the most exact one that matches counts.
pub(crate) struct Topics {
    entries: Vec<Entry>,
}

/// What the topic of a frame means.
#[derive(Debug, PartialEq)]
pub(crate) struct Hit {
    /// Index for [`Topics::metric`].
    entry: usize,
    /// With wildcards filled in.
    pub(crate) labels: Vec<(String, String)>,
}

impl Topics {
    pub(crate) fn compile(map: &BTreeMap<String, Topic>) -> Result<Self, String> {
        let mut entries = Vec::new();
        for (pattern, topic) in map {
            let place = format!("sources.mqtt.topic_map.{pattern}");
            check(pattern).map_err(|e| format!("{place}: {e}"))?;
            let metric = match &topic.metric {
                Some(name) => Some(metric(&place, name, &topic.unit, topic.from.as_deref(), topic.kind)?),
                None if topic.labels.is_empty() => return Err(format!("{place}: needs a `metric` or `labels`")),
                None => None,
            };
            let wildcards = pattern.split('/').filter(|level| matches!(*level, "+" | "#")).count();
            for value in topic.labels.values() {
                if let Some(n) = references(value).find(|&n| n == 0 || n > wildcards) {
                    return Err(format!("{place}: `${n}` in a label, but there are {wildcards} wildcards"));
                }
            }
            let labels = topic.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            entries.push(Entry { pattern: pattern.clone(), metric, labels });
        }
        // Exact levels before `+` before `#`, from the left: the first match is the most exact one.
        let rank = |level: &str| match level {
            "#" => 2,
            "+" => 1,
            _ => 0,
        };
        entries.sort_by_key(|e| e.pattern.split('/').map(rank).collect::<Vec<_>>());
        Ok(Self { entries })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn find(&self, topic: &str) -> Option<Hit> {
        self.entries.iter().enumerate().find_map(|(entry, e)| {
            let wild = matches(&e.pattern, topic)?;
            let labels = e.labels.iter().map(|(key, value)| (key.clone(), fill(value, &wild))).collect();
            Some(Hit { entry, labels })
        })
    }

    pub(crate) fn metric(&self, hit: &Hit) -> Option<&Metric> {
        self.entries[hit.entry].metric.as_ref()
    }
}

/// What the wildcards matched, if the topic matches.
fn matches<'t>(pattern: &str, topic: &'t str) -> Option<Vec<&'t str>> {
    let mut wild = Vec::new();
    let mut rest = Some(topic);
    for level in pattern.split('/') {
        if level == "#" {
            wild.push(rest.unwrap_or(""));
            return Some(wild);
        }
        let text = rest?;
        let (head, tail) = text.split_once('/').map_or((text, None), |(head, tail)| (head, Some(tail)));
        match level {
            "+" => wild.push(head),
            _ if level == head => {}
            _ => return None,
        }
        rest = tail;
    }
    rest.is_none().then_some(wild)
}

fn check(pattern: &str) -> Result<(), String> {
    let levels: Vec<&str> = pattern.split('/').collect();
    for (i, level) in levels.iter().enumerate() {
        if level.contains(['+', '#']) && level.len() > 1 {
            return Err(format!("`{level}`: a wildcard stands alone between slashes"));
        }
        if *level == "#" && i + 1 < levels.len() {
            return Err("`#` must be the last level".to_owned());
        }
    }
    Ok(())
}

/// The numbers behind `$` in a template.
fn references(template: &str) -> impl Iterator<Item = usize> + '_ {
    let bytes = template.as_bytes();
    bytes.windows(2).filter(|w| w[0] == b'$' && w[1].is_ascii_digit()).map(|w| usize::from(w[1] - b'0'))
}

fn fill(template: &str, wild: &[&str]) -> String {
    let mut filled = String::new();
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek().and_then(|d| d.to_digit(10)) {
            Some(n) if c == '$' => {
                chars.next();
                filled.push_str(wild.get((n as usize).wrapping_sub(1)).unwrap_or(&""));
            }
            _ => filled.push(c),
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_levels() {
        assert_eq!(matches("plant/+/temp", "plant/m1/temp"), Some(vec!["m1"]));
        assert_eq!(matches("plant/+/temp", "plant/m1/x/temp"), None);
        assert_eq!(matches("plant/+/temp", "plant/m1/temp/x"), None);
        assert_eq!(matches("plant/+", "plant"), None);
        assert_eq!(matches("plant/+", "plant/"), Some(vec![""]));
        assert_eq!(matches("plant/#", "plant/a/b"), Some(vec!["a/b"]));
        assert_eq!(matches("plant/#", "plant"), Some(vec![""]));
        assert_eq!(matches("#", "a/b"), Some(vec!["a/b"]));
        assert_eq!(matches("a/b", "a/b"), Some(vec![]));
    }

    #[test]
    fn the_most_exact_pattern_counts() {
        let topic = |metric: &str| Topic {
            metric: Some(metric.to_owned()),
            unit: String::new(),
            from: None,
            kind: None,
            labels: BTreeMap::from([("asset".to_owned(), "line-$1".to_owned())]),
        };
        let map = BTreeMap::from([
            ("#".to_owned(), topic("any")),
            ("p/+/t".to_owned(), topic("plus")),
            ("p/+/#".to_owned(), topic("rest")),
        ]);
        let topics = Topics::compile(&map).unwrap();
        let name = |t: &str| topics.find(t).map(|hit| topics.metric(&hit).unwrap().name.clone());
        assert_eq!(name("p/m1/t").as_deref(), Some("plus"));
        assert_eq!(name("p/m1/u").as_deref(), Some("rest"));
        assert_eq!(name("q").as_deref(), Some("any"));
        assert_eq!(topics.find("p/m1/t").unwrap().labels, [("asset".to_owned(), "line-m1".to_owned())]);
    }

    #[test]
    fn mistakes_are_named() {
        let compile = |pattern: &str, label: &str| {
            let labels = BTreeMap::from([("asset".to_owned(), label.to_owned())]);
            let topic = Topic { metric: None, unit: String::new(), from: None, kind: None, labels };
            Topics::compile(&BTreeMap::from([(pattern.to_owned(), topic)])).map(|_| ()).unwrap_err()
        };
        assert!(compile("a/#/b", "x").contains("`#` must be the last level"));
        assert!(compile("a+/b", "x").contains("stands alone"));
        assert!(compile("a/+", "$2").contains("`$2` in a label, but there are 1 wildcards"));
    }
}
