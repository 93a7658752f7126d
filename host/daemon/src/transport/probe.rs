//! What health and metrics ask of an open transport, from any thread, without waiting for it.

use crate::telemetry::{Id, Probe, Reading};
use crate::transport::Transport;
use crate::transport::exec::ExecStatus;
use crate::transport::mqtt::{MqttLink, MqttStatus};
use crate::transport::socket::SocketCounters;

impl Transport {
    /// How to ask it; a file has nothing to say.
    pub fn probe(&self) -> Option<Probe> {
        match self {
            Transport::File(_) => None,
            Transport::Socket(socket) => {
                let counters = socket.counters();
                Some(Box::new(move || of_socket(&counters)))
            }
            Transport::Exec(exec) => {
                let counters = exec.counters();
                Some(Box::new(move || of_command(counters.status())))
            }
            Transport::Mqtt(mqtt) => {
                let handle = mqtt.0.handle();
                Some(Box::new(move || of_subscription(&handle.status())))
            }
        }
    }
}

fn of_socket(counters: &SocketCounters) -> Reading {
    let status = counters.status();
    let mut counts = vec![
        (Id::TransportFrames, status.frames),
        (Id::TransportBytes, status.bytes),
        (Id::TransportOversize, status.oversize),
    ];
    if status.max_connections > 0 {
        counts.extend([
            (Id::TransportConnections, status.connections),
            (Id::TransportAccepted, status.connections_total),
            (Id::TransportTurnedAway, status.refused),
            (Id::TransportBadFraming, status.bad_framing),
        ]);
    } else {
        counts.push((Id::TransportTruncated, status.truncated));
    }
    if let Some(drops) = counters.kernel_drops() {
        counts.extend([(Id::TransportKernelDrops, drops), (Id::TransportReceiveBuffer, status.receive_buffer_bytes)]);
    }
    Reading { counts, ..Reading::default() }
}

fn of_command(status: ExecStatus) -> Reading {
    let counts = vec![
        (Id::TransportFrames, status.frames),
        (Id::TransportBytes, status.bytes),
        (Id::TransportOversize, status.oversize),
        (Id::TransportTorn, status.torn),
        (Id::TransportRestarts, status.restarts),
        (Id::TransportConnected, status.is_running.into()),
    ];
    let fault = (!status.is_running).then(|| match status.last_error.as_str() {
        "" => "the command does not run".to_owned(),
        said => format!("the command does not run; it said last: {said}"),
    });
    Reading { fault, counts, ..Reading::default() }
}

fn of_subscription(status: &MqttStatus) -> Reading {
    let MqttStatus { link, error, counters, unacknowledged, window, .. } = status;
    let counts = vec![
        (Id::TransportMessages, counters.received),
        (Id::TransportOversize, counters.oversize),
        (Id::TransportDuplicates, counters.duplicates),
        (Id::TransportDropped, counters.dropped_qos0),
        (Id::TransportReconnects, counters.reconnects),
        (Id::TransportSessionsLost, counters.sessions_lost),
        (Id::TransportUnacknowledged, (*unacknowledged).into()),
        (Id::TransportWindow, (*window).into()),
        (Id::TransportConnected, (*link == MqttLink::Subscribed).into()),
    ];
    let said = error.as_deref();
    let fault = match link {
        MqttLink::Subscribed => None,
        MqttLink::Connected => Some("the broker has not confirmed the topics yet".to_owned()),
        MqttLink::Down => Some(format!("no connection to the MQTT broker: {}", said.unwrap_or("not connected yet"))),
        MqttLink::Refused => Some(said.unwrap_or("the broker refused topics").to_owned()),
    };
    Reading { fault, counts, ..Reading::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{SocketOptions, SocketTransport};

    fn listening(listen: &str) -> Reading {
        let options = SocketOptions::new(listen.parse().unwrap(), 1_024, 16);
        Transport::Socket(SocketTransport::open(options, None).unwrap()).probe().unwrap()()
    }

    #[test]
    fn sockets_show_what_they_can_count() {
        let ids = |reading: Reading| reading.counts.into_iter().map(|c| c.0).collect::<Vec<_>>();
        let udp = ids(listening("udp://127.0.0.1:0"));
        assert!(udp.contains(&Id::TransportKernelDrops) && !udp.contains(&Id::TransportConnections), "{udp:?}");
        let tcp = ids(listening("tcp://127.0.0.1:0"));
        assert!(tcp.contains(&Id::TransportConnections) && !tcp.contains(&Id::TransportKernelDrops), "{tcp:?}");
    }

    #[test]
    fn a_command_that_does_not_run_says_why() {
        assert_eq!(of_command(ExecStatus { is_running: true, ..ExecStatus::default() }).fault, None);
        let over = ExecStatus { last_error: "no journal".to_owned(), ..ExecStatus::default() };
        assert_eq!(of_command(over).fault.as_deref(), Some("the command does not run; it said last: no journal"));
    }
}
