//! Makes the reference of the metrics from the table that the registry is made of.

use super::tree::Tree;

/// The page.
pub(super) const PAGE: &str = "docs/reference/metrics.md";

/// The table.
const TABLE: &str = "host/daemon/src/telemetry/table.rs";

const HEAD: &str = "\
# Health, metrics and log lines

<!-- Made by `cargo xtask generate` of host/daemon/src/telemetry/table.rs; change it there. -->

`hb daemon` answers over HTTP where `http` in the [configuration](config.md#http) says; the address in use stands in its log and in `http.addr` of the state directory.

| Path | Aliases | Answer |
|---|---|---|
| `/live` | `/livez`, `/healthz`, `/health` | 200 while the process and its loop are alive, else 503: restart it. A start, a recovery and an end count as alive. |
| `/ready` | `/readyz` | 200 when it can do its work, else 503 with every reason: a source that is down and why, a recovery, a full disk. |
| `/metrics` | | OpenMetrics 1.0 for whoever prefers it by `Accept`, else the text format of Prometheus 0.0.4. |
| `/health/detailed` | | Everything at once as JSON, for a person who looks for what is wrong. |

`/live` and `/ready` answer in JSON, and in text where `Accept` prefers `text/plain` or `text/html`.
At most 32 connections are served at a time, the oldest gives way to the newest; a request has at most 16 KiB, and a connection without an answer for 30 s is shut.

Lines on stderr are text by default, in the journal with their level in front; `--log-format json`, or `HB_LOG_FORMAT=json`, makes each of them a JSON object with `timestamp`, `level`, `target`, `message` and the fields of the event.
All lines of one decision share its `correlation_id`, those of its alert and of what sinks were told of it too; `txn` is the commit that made it durable.
`RUST_LOG` chooses what is shown, as `RUST_LOG=hb=debug`; a daemon shows `info`, other verbs and `--once` show `warn`.

## Metrics

What is labelled with a source is shown once the source is known; what a kind of transport does not count is not shown for it.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
";

/// The page as it should be now; nothing in a tree without the table.
pub(super) fn page(tree: &Tree) -> Option<String> {
    let table = tree.file(TABLE)?;
    let rows = table.text.split_once("pub const METRICS")?.1.split_once("\n];")?.0;
    let rows = rows.split("metric(").skip(1).filter_map(row);
    Some(rows.fold(HEAD.to_owned(), |page, row| page + &row))
}

/// `Id::X, Counter, "name", SOURCE, "Meaning."`, on one line or on several.
fn row(call: &str) -> Option<String> {
    // What stands between quotes is every second part; no text of the table holds a quote.
    let parts: Vec<&str> = call.split('"').collect();
    let kind = parts.first()?.split(',').nth(1)?.trim().to_lowercase();
    let name = parts.get(1)?;
    let meaning = parts.get(parts.len().checked_sub(2)?)?;
    let labels: Vec<String> = match parts.get(2)? {
        words if words.contains("SOURCE") => vec!["`source`".to_owned()],
        _ => parts[3..parts.len() - 2].iter().step_by(2).map(|label| format!("`{label}`")).collect(),
    };
    // A bar would end the cell.
    Some(format!("| `{name}` | {kind} | {} | {} |\n", labels.join(", "), meaning.replace('|', "\\|")))
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    const SOURCE: &str = r#"
pub const METRICS: &[Metric] = &[
    metric(Id::A, Counter, "hb_a_total", SOURCE, "One | two; `x`."),
    metric(
        Id::B,
        Gauge,
        "hb_b",
        &["source", "kind"],
        "Three.",
    ),
    metric(Id::C, Histogram, "hb_c_seconds", &[], "Four."),
];

const fn metric(id: Id) {}
"#;

    #[test]
    fn a_row_for_each_metric_of_the_table() {
        let page = page(&tree::fixture::tree(&[(TABLE, SOURCE)])).unwrap();
        let expected = "| `hb_a_total` | counter | `source` | One \\| two; `x`. |\n\
                        | `hb_b` | gauge | `source`, `kind` | Three. |\n\
                        | `hb_c_seconds` | histogram |  | Four. |\n";
        assert_eq!(page.strip_prefix(HEAD), Some(expected));
    }
}
