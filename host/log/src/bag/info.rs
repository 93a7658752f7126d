//! `bag-info.txt`: one `Label: value` per line, the last of them the count of the payload.

use std::fmt::Write as _;

use super::{BAG_INFO, CHANGED, Files, PAYLOAD_OXUM, Problem, payload_of};

/// Reads our own `bag-info.txt` back, in order; `None` when it is not one.
pub fn info(text: &str) -> Option<Vec<(String, String)>> {
    let lines = text.strip_suffix('\n')?.split('\n');
    let pairs: Option<Vec<(String, String)>> =
        lines.map(|line| line.split_once(": ").map(|(label, value)| (label.to_owned(), value.to_owned()))).collect();
    pairs.filter(|pairs| pairs.iter().all(|(label, value)| is_label(label) && is_value(value)))
}

/// The count that BagIt calls `Payload-Oxum`: bytes of the payload, a dot, number of files.
pub fn oxum(files: &Files) -> String {
    let (bytes, count) = payload_of(files).fold((0_u64, 0_u64), |(b, c), (_, file)| (b + file.len() as u64, c + 1));
    format!("{bytes}.{count}")
}

/// A value as it stands in `bag-info.txt`: a line break would make a label of what follows it.
pub(crate) fn clean_value(value: &str) -> String {
    let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let value = value.trim();
    if value.is_empty() { "-".to_owned() } else { value.to_owned() }
}

pub(super) fn render(pairs: &[(String, String)], oxum: &str) -> String {
    let mut text = String::new();
    for (label, value) in pairs {
        assert!(is_label(label) && label != PAYLOAD_OXUM, "not a label for bag-info.txt: {label:?}");
        let _ = writeln!(text, "{label}: {}", clean_value(value));
    }
    let _ = writeln!(text, "{PAYLOAD_OXUM}: {oxum}");
    text
}

pub(super) fn check(files: &Files, problems: &mut Vec<Problem>) {
    let Some(bytes) = files.get(BAG_INFO) else {
        problems.push(Problem::missing(BAG_INFO));
        return;
    };
    let Some(pairs) = std::str::from_utf8(bytes).ok().and_then(info) else {
        problems.push(Problem::new(BAG_INFO, "not plain `Label: value` lines", CHANGED));
        return;
    };
    let oxums: Vec<usize> = (0..pairs.len()).filter(|at| pairs[*at].0 == PAYLOAD_OXUM).collect();
    let expected = oxum(files);
    if oxums != [pairs.len() - 1] {
        problems.push(Problem::new(BAG_INFO, format!("{PAYLOAD_OXUM} does not stand last, once"), CHANGED));
    } else if pairs[oxums[0]].1 != expected {
        let what = format!("{PAYLOAD_OXUM} is {:?}, the payload has {expected}", pairs[oxums[0]].1);
        problems.push(Problem::new(BAG_INFO, what, "payload files are missing, added or of another length"));
    }
}

fn is_label(label: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    !label.is_empty() && label.bytes().all(word)
}

fn is_value(value: &str) -> bool {
    !value.is_empty() && value.trim() == value && !value.chars().any(char::is_control)
}
