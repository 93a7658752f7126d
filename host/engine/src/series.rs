//! What is measured: a series is a metric with its labels and unit; an asset is the thing that can fail.

use std::collections::BTreeMap;
use std::fmt;

use hb_log::cbor;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

/// Host-wide number of a series; given out once, never reused, without meaning to compute with.
pub type SeriesId = u32;

/// Longest metric, unit, label name or label value in bytes: names are for people and index keys.
pub const MAX_NAME_BYTES: usize = 256;

/// Most labels of one series: beyond that a label holds data that belongs into an event.
pub const MAX_LABELS: usize = 16;

/// How the values of a series behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeriesKind {
    /// A level that goes up and down.
    #[default]
    Gauge,
    /// A total that only rises between restarts.
    Counter,
    /// 0 or 1.
    Boolean,
    /// A code of the host's dictionary of texts.
    State,
}

/// A metric with sorted labels and a unit: the identity of a series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesDef {
    /// Canonical metric name.
    pub metric: String,
    /// Canonical unit, empty for a bare number.
    pub unit: String,
    /// Kind of the values.
    pub kind: SeriesKind,
    /// Labels, sorted by name.
    pub labels: BTreeMap<String, String>,
}

impl SeriesDef {
    /// Checks the size limits and builds a definition.
    ///
    /// # Errors
    /// A sentence naming the limit that was exceeded.
    pub fn new(
        metric: &str,
        unit: &str,
        kind: SeriesKind,
        labels: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let labels: BTreeMap<String, String> = labels.into_iter().collect();
        if metric.is_empty() {
            return Err("the metric name is empty".into());
        }
        if labels.len() > MAX_LABELS {
            return Err(format!("{} labels; at most {MAX_LABELS} are allowed", labels.len()));
        }
        let names = labels.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()]).chain([metric, unit]);
        if let Some(long) = names.into_iter().find(|n| n.len() > MAX_NAME_BYTES) {
            let shown: String = long.chars().take(32).collect();
            return Err(format!("name `{shown}...` has {} bytes; at most {MAX_NAME_BYTES} are allowed", long.len()));
        }
        Ok(SeriesDef { metric: metric.to_owned(), unit: unit.to_owned(), kind, labels })
    }

    /// Whether both name the same series. The kind says how its values behave, not which series it is; files of
    /// samples do not carry it.
    pub fn names_same(&self, other: &SeriesDef) -> bool {
        self.metric == other.metric && self.unit == other.unit && self.labels == other.labels
    }

    /// SHA-256 of the canonical CBOR of the definition.
    pub fn hash(&self) -> Hash {
        Hash::of(&cbor::encode(self))
    }

    /// The asset this series belongs to: the value of `asset_label`, or [`DEFAULT_ASSET`].
    pub fn asset<'a>(&'a self, asset_label: &str) -> &'a str {
        self.labels.get(asset_label).map_or(DEFAULT_ASSET, String::as_str)
    }
}

/// The asset of a series that carries no asset label.
pub const DEFAULT_ASSET: &str = "default";

impl fmt::Display for SeriesDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.metric)?;
        if self.labels.is_empty() {
            return Ok(());
        }
        let body: Vec<String> = self.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        write!(f, "{{{}}}", body.join(","))
    }
}

/// Whose state it is: the tenant, the lane (the live daemon or one offline run) and the asset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionKey {
    /// Tenant.
    pub program: String,
    /// `live`, or the id of an offline run, whose event time must not meet the live one's.
    pub lane: String,
    /// The thing that can fail.
    pub asset: String,
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.program, self.lane, self.asset)
    }
}

/// Matches `pattern`, in which `*` stands for any run of characters, against `text`.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (p, t) = (pattern.as_bytes(), text.as_bytes());
    let (mut pi, mut ti, mut star, mut mark) = (0, 0, None, 0);
    while ti < t.len() {
        if pi < p.len() && p[pi] == b'*' {
            star = Some(pi);
            mark = ti;
            pi += 1;
        } else if pi < p.len() && p[pi] == t[ti] {
            pi += 1;
            ti += 1;
        } else if let Some(s) = star {
            pi = s + 1;
            mark += 1;
            ti = mark;
        } else {
            return false;
        }
    }
    p[pi..].iter().all(|&c| c == b'*')
}

/// Whether some text matches both patterns.
pub fn globs_meet(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // `next[j]`: whether what is left of `a` behind its byte `i` meets `b[j..]`; filled from the ends.
    let mut next = vec![false; b.len() + 1];
    for i in (0..=a.len()).rev() {
        let mut here = vec![false; b.len() + 1];
        for j in (0..=b.len()).rev() {
            let (x, y) = (a.get(i), b.get(j));
            here[j] = match (x, y) {
                (None, None) => true,
                // A star stands for nothing, or for what the other one begins with.
                (Some(b'*'), _) => next[j] || (y.is_some() && here[j + 1]),
                (_, Some(b'*')) => here[j + 1] || (x.is_some() && next[j]),
                _ => x == y && next[j + 1],
            };
        }
        next = here;
    }
    next[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_matches_like_a_shell() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("*", "cpu", true),
            ("cpu*", "cpu_power", true),
            ("*power", "cpu_power", true),
            ("c*p*r", "cpu_power", true),
            ("c*x", "cpu_power", false),
            ("cpu", "cpu_power", false),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn patterns_meet_where_a_name_matches_both() {
        for (a, b, want) in [
            ("temp*", "rpm", false),
            ("temp*", "temp_inlet", true),
            ("temp*", "*_inlet", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b", "b*a", false),
            ("a*b*", "*b", true),
            ("a*c", "ab", false),
            ("**", "x*y", true),
        ] {
            assert_eq!(globs_meet(a, b), want, "{a} {b}");
            assert_eq!(globs_meet(b, a), want, "{b} {a}");
        }
    }

    #[test]
    fn a_definition_refuses_what_is_too_large() {
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        assert!(SeriesDef::new(&long, "", SeriesKind::Gauge, []).unwrap_err().contains("257 bytes"));
        assert!(SeriesDef::new("", "", SeriesKind::Gauge, []).is_err());
        let many = (0..=MAX_LABELS).map(|i| (format!("l{i}"), String::new()));
        assert!(SeriesDef::new("m", "", SeriesKind::Gauge, many).unwrap_err().contains("17 labels"));
    }
}
