//! Every metric of hb: name, labels and meaning. The registry, the page of the reference and the tests are made of it.
//!
//! Names follow the conventions of Prometheus: base units, `_total` for what only grows.

use super::metric::Kind::{Counter, Gauge, Histogram, Info};
use super::metric::{Kind, Metric};

/// What a metric measures; a transport names its own counts by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table says what each means")]
pub enum Id {
    Frames,
    FrameBytes,
    Samples,
    Events,
    Ignored,
    Rejects,
    Faults,
    Refused,
    Lag,
    QueueDepth,
    SourceUp,
    SourceBreaker,
    SourceRestarts,
    SourceFailures,
    TransportFrames,
    TransportBytes,
    TransportMessages,
    TransportOversize,
    TransportConnections,
    TransportAccepted,
    TransportTurnedAway,
    TransportBadFraming,
    TransportTruncated,
    TransportKernelDrops,
    TransportReceiveBuffer,
    TransportTorn,
    TransportRestarts,
    TransportConnected,
    TransportDuplicates,
    TransportDropped,
    TransportReconnects,
    TransportSessionsLost,
    TransportUnacknowledged,
    TransportWindow,
    Decisions,
    Cases,
    DecisionLatency,
    DecisionLatencyQuantile,
    Commits,
    CommitFailures,
    CommitLatency,
    CommitLatencyQuantile,
    LogEntries,
    LogBytes,
    LogCapBytes,
    LogFull,
    StateBytes,
    DeadLetters,
    ShedSamples,
    Alerts,
    AlertsFiring,
    OutboxDepth,
    Documents,
    Reloads,
    ReloadStall,
    Ready,
    LoopAge,
    Build,
    ProcessCpu,
    ProcessResident,
    ProcessVirtual,
    ProcessOpenFds,
    ProcessMaxFds,
    ProcessThreads,
    ProcessStart,
}

const SOURCE: &[&str] = &["source"];

/// In the order in which they are shown.
pub const METRICS: &[Metric] = &[
    metric(Id::Frames, Counter, "hb_frames_total", SOURCE, "Frames taken from a source."),
    metric(Id::FrameBytes, Counter, "hb_frame_bytes_total", SOURCE, "Bytes of the frames taken from a source."),
    metric(Id::Samples, Counter, "hb_samples_total", SOURCE, "Samples that frames were normalized to."),
    metric(Id::Events, Counter, "hb_events_total", SOURCE, "Events that frames were normalized to."),
    metric(Id::Ignored, Counter, "hb_ignored_total", SOURCE, "Frames that mean nothing to the normalizer."),
    metric(
        Id::Rejects,
        Counter,
        "hb_rejects_total",
        SOURCE,
        "Frames and lines that transport or plugins refused; `hb quarantine list` shows why.",
    ),
    metric(Id::Faults, Counter, "hb_faults_total", SOURCE, "Frames that a plugin failed on."),
    metric(
        Id::Refused,
        Counter,
        "hb_refused_total",
        SOURCE,
        "Samples that the engine refused: too late, too far ahead, or beyond a limit.",
    ),
    metric(
        Id::Lag,
        Gauge,
        "hb_lag_seconds",
        SOURCE,
        "Wall clock minus event clock of a source: its age of what was taken last, silence included.",
    ),
    metric(
        Id::QueueDepth,
        Gauge,
        "hb_queue_depth",
        SOURCE,
        "Frames that a source has cut and that are not durable yet: in queues, at the normalizers, in the next commit.",
    ),
    metric(Id::SourceUp, Gauge, "hb_source_up", SOURCE, "1 when a source is read and its transport stands, else 0."),
    metric(
        Id::SourceBreaker,
        Gauge,
        "hb_source_breaker",
        &["source", "state"],
        "1 for the state of a source's circuit breaker: closed, open (it failed and rests), trying (until something comes).",
    ),
    metric(Id::SourceRestarts, Counter, "hb_source_restarts_total", SOURCE, "Starts of a source after its first."),
    metric(
        Id::SourceFailures,
        Counter,
        "hb_source_failures_total",
        &["source", "kind"],
        "Failures that ended a source until its next start, by who failed: transport, plugin, policy or stored data.",
    ),
    metric(
        Id::TransportFrames,
        Counter,
        "hb_transport_frames_total",
        SOURCE,
        "Frames that a socket or command handed out.",
    ),
    metric(
        Id::TransportBytes,
        Counter,
        "hb_transport_bytes_total",
        SOURCE,
        "Bytes of the frames that a socket or command handed out.",
    ),
    metric(
        Id::TransportMessages,
        Counter,
        "hb_transport_messages_total",
        SOURCE,
        "Messages that came from a broker, repeated and dropped ones too.",
    ),
    metric(
        Id::TransportOversize,
        Counter,
        "hb_transport_oversize_total",
        SOURCE,
        "Frames and messages that were longer than allowed.",
    ),
    metric(Id::TransportConnections, Gauge, "hb_transport_connections", SOURCE, "Connections to a socket now."),
    metric(
        Id::TransportAccepted,
        Counter,
        "hb_transport_connections_total",
        SOURCE,
        "Connections that a socket accepted.",
    ),
    metric(
        Id::TransportTurnedAway,
        Counter,
        "hb_transport_connections_refused_total",
        SOURCE,
        "Connections that a socket refused since there were too many, or no more files could be opened.",
    ),
    metric(
        Id::TransportBadFraming,
        Counter,
        "hb_transport_bad_framing_total",
        SOURCE,
        "Connections that were closed since what came was cut off or broke the framing.",
    ),
    metric(
        Id::TransportTruncated,
        Counter,
        "hb_transport_truncated_total",
        SOURCE,
        "Datagrams that were longer than allowed.",
    ),
    metric(
        Id::TransportKernelDrops,
        Counter,
        "hb_transport_kernel_drops_total",
        SOURCE,
        "Datagrams that the kernel dropped at a UDP socket: its receive buffer was full, or a checksum was wrong.",
    ),
    metric(
        Id::TransportReceiveBuffer,
        Gauge,
        "hb_transport_receive_buffer_bytes",
        SOURCE,
        "Room that the kernel gave a UDP socket; `net.core.rmem_max` limits it.",
    ),
    metric(
        Id::TransportTorn,
        Counter,
        "hb_transport_torn_total",
        SOURCE,
        "Last lines of a command without line feed that were passed over, since its next run brings them whole.",
    ),
    metric(
        Id::TransportRestarts,
        Counter,
        "hb_transport_restarts_total",
        SOURCE,
        "How often a command was started again, or was tried to be.",
    ),
    metric(
        Id::TransportConnected,
        Gauge,
        "hb_transport_connected",
        SOURCE,
        "1 when a broker is connected and all topics are subscribed, or a command runs, else 0.",
    ),
    metric(
        Id::TransportDuplicates,
        Counter,
        "hb_transport_duplicates_total",
        SOURCE,
        "Repetitions of a broker that were recognised and taken once.",
    ),
    metric(
        Id::TransportDropped,
        Counter,
        "hb_transport_dropped_total",
        SOURCE,
        "Messages of QoS 0 that found the queue full.",
    ),
    metric(
        Id::TransportReconnects,
        Counter,
        "hb_transport_reconnects_total",
        SOURCE,
        "Connections to a broker after the first.",
    ),
    metric(
        Id::TransportSessionsLost,
        Counter,
        "hb_transport_sessions_lost_total",
        SOURCE,
        "Sessions that a broker no longer knew: messages may be missing or doubled.",
    ),
    metric(
        Id::TransportUnacknowledged,
        Gauge,
        "hb_transport_unacknowledged",
        SOURCE,
        "Messages whose acknowledgement a broker waits for.",
    ),
    metric(
        Id::TransportWindow,
        Gauge,
        "hb_transport_window",
        SOURCE,
        "Messages that a broker sends before it waits for acknowledgements, as configured.",
    ),
    metric(Id::Decisions, Counter, "hb_decisions_total", &["status"], "Durable decisions by status."),
    metric(Id::Cases, Counter, "hb_cases_total", &[], "Cases that were opened."),
    metric(
        Id::DecisionLatency,
        Histogram,
        "hb_decision_latency_seconds",
        &[],
        "From the newest frame of the batch that closed a window being received to the decision being durable.",
    ),
    metric(
        Id::DecisionLatencyQuantile,
        Gauge,
        "hb_decision_latency_quantile_seconds",
        &["quantile"],
        "Quantiles of the decision latency over the last five minutes, at most a quarter too high.",
    ),
    metric(Id::Commits, Counter, "hb_commits_total", &[], "Transactions that became durable."),
    metric(Id::CommitFailures, Counter, "hb_commit_failures_total", &[], "Transactions that the store refused."),
    metric(
        Id::CommitLatency,
        Histogram,
        "hb_commit_latency_seconds",
        &[],
        "How long transactions took to become durable.",
    ),
    metric(
        Id::CommitLatencyQuantile,
        Gauge,
        "hb_commit_latency_quantile_seconds",
        &["quantile"],
        "Quantiles of the commit latency over the last five minutes, at most a quarter too high.",
    ),
    metric(Id::LogEntries, Gauge, "hb_log_entries", &[], "Entries of the signed log."),
    metric(Id::LogBytes, Gauge, "hb_log_bytes", &[], "Bytes that the signed log needs of the state."),
    metric(Id::LogCapBytes, Gauge, "hb_log_cap_bytes", &[], "Bytes that it is allowed: `limits.max_audit_log_mb`."),
    metric(
        Id::LogFull,
        Gauge,
        "hb_log_full",
        &[],
        "1 when the log needs more than it is allowed and nothing of it may go: sources wait until then, else 0.",
    ),
    metric(Id::StateBytes, Gauge, "hb_state_bytes", &[], "Bytes that the state takes on disk."),
    metric(
        Id::DeadLetters,
        Counter,
        "hb_dead_letters_total",
        &[],
        "Frames and late samples that were put aside with their cause.",
    ),
    metric(
        Id::ShedSamples,
        Counter,
        "hb_shed_samples_total",
        &[],
        "Samples that were let go since the state had reached its limit.",
    ),
    metric(Id::Alerts, Counter, "hb_alerts_total", &["status"], "Alerts that began to fire or were resolved."),
    metric(Id::AlertsFiring, Gauge, "hb_alerts_firing", &[], "Alerts that fire now."),
    metric(Id::OutboxDepth, Gauge, "hb_outbox_depth", &["sink"], "Documents that wait for a sink."),
    metric(
        Id::Documents,
        Counter,
        "hb_documents_total",
        &["sink", "outcome"],
        "Documents that wait for a sink no more: delivered, dead (given up), or dropped (too many waited).",
    ),
    metric(Id::Reloads, Counter, "hb_reloads_total", &["outcome"], "Asked changes of the generation, by outcome."),
    metric(
        Id::ReloadStall,
        Histogram,
        "hb_reload_stall_seconds",
        &[],
        "For how long no source was served while another generation took over.",
    ),
    metric(Id::Ready, Gauge, "hb_ready", &[], "1 when the daemon is ready, 0 when `/ready` has a reason why not."),
    metric(Id::LoopAge, Gauge, "hb_loop_age_seconds", &[], "Time since the daemon's loop went round last."),
    metric(Id::Build, Info, "hb_build_info", &["version"], "This build."),
    metric(
        Id::ProcessCpu,
        Counter,
        "process_cpu_seconds_total",
        &[],
        "User and system CPU time of the process in seconds.",
    ),
    metric(Id::ProcessResident, Gauge, "process_resident_memory_bytes", &[], "Resident memory of the process."),
    metric(Id::ProcessVirtual, Gauge, "process_virtual_memory_bytes", &[], "Virtual memory of the process."),
    metric(Id::ProcessOpenFds, Gauge, "process_open_fds", &[], "Open files of the process."),
    metric(Id::ProcessMaxFds, Gauge, "process_max_fds", &[], "Most files the process may open."),
    metric(Id::ProcessThreads, Gauge, "process_threads", &[], "Threads of the process."),
    metric(
        Id::ProcessStart,
        Gauge,
        "process_start_time_seconds",
        &[],
        "When the process started, in seconds since the Unix epoch.",
    ),
];

const fn metric(id: Id, kind: Kind, name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { id, kind, name, labels, help }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut names = BTreeSet::new();
        for m in METRICS {
            assert!(names.insert(m.name) && m.name.starts_with("hb_") || m.name.starts_with("process_"), "{}", m.name);
            assert!(m.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", m.name);
            assert_eq!(m.kind == Counter, m.name.ends_with("_total"), "{}", m.name);
            assert_eq!(m.kind == Info, m.name.ends_with("_info"), "{}", m.name);
            assert!(m.kind != Histogram || m.name.ends_with("_seconds"), "{}", m.name);
            assert!(m.help.ends_with('.') && !m.help.contains(['\n', '\\']), "{}", m.name);
        }
        let ids: BTreeSet<Id> = METRICS.iter().map(|m| m.id).collect();
        assert_eq!(ids.len(), METRICS.len());
    }
}
