//! The packets of MQTT 5.

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, ConnectReturnCode, Filter, Login, Packet, PubAck, PubComp, PubRec, RetainForwardRule,
    Subscribe, SubscribeReasonCode, Unsubscribe,
};
use rumqttc::v5::mqttbytes::{Error, QoS};

use super::super::delivery::{Ack, Incoming, Sent};
use super::super::{MqttOptions, Qos};
use super::{CLOSED, CREDENTIALS, DISCONNECT, Happening, MAX_PACKET_BYTES, NotTaken, digest, refused, words};

pub(super) fn connect(options: &MqttOptions, out: &mut BytesMut) -> Result<(), NotTaken> {
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(options.session_expiry_s);
    properties.max_packet_size = Some(MAX_PACKET_BYTES);
    // No topic aliases are asked for: the library hands such messages out without their topic.
    let connect = Connect {
        keep_alive: options.keep_alive_s,
        client_id: options.client_id.clone(),
        clean_start: false,
        properties: Some(properties),
    };
    let password = || options.password.clone().unwrap_or_default();
    let login = options.user.as_ref().map(|user| Login { username: user.clone(), password: password() });
    write(&Packet::Connect(connect, None, login), out)
}

pub(super) fn acknowledge(ack: Ack, out: &mut BytesMut) -> Result<(), NotTaken> {
    let packet = if ack.exactly_once {
        Packet::PubRec(PubRec::new(ack.packet_id, None))
    } else {
        Packet::PubAck(PubAck::new(ack.packet_id, None))
    };
    write(&packet, out)
}

pub(super) fn complete(packet_id: u16, out: &mut BytesMut) -> Result<(), NotTaken> {
    write(&Packet::PubComp(PubComp::new(packet_id, None)), out)
}

pub(super) fn subscribe(packet_id: u16, topics: &[String], qos: Qos, out: &mut BytesMut) -> Result<(), NotTaken> {
    let qos = match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce | Qos::ExactlyOnce => QoS::AtLeastOnce,
    };
    let filter = |topic: &String| {
        let mut filter = Filter::new(topic, qos);
        // Retained messages would double at every connection; MQTT 3.1.1 cannot ask for this.
        filter.retain_forward_rule = RetainForwardRule::OnNewSubscribe;
        filter
    };
    let filters = topics.iter().map(filter).collect();
    write(&Packet::Subscribe(Subscribe { pkid: packet_id, filters, properties: None }), out)
}

pub(super) fn unsubscribe(packet_id: u16, topic: &str, out: &mut BytesMut) -> Result<(), NotTaken> {
    let filters = vec![topic.to_owned()];
    write(&Packet::Unsubscribe(Unsubscribe { pkid: packet_id, filters, properties: None }), out)
}

fn write(packet: &Packet, out: &mut BytesMut) -> Result<(), NotTaken> {
    packet.write(out, Some(MAX_PACKET_BYTES)).map(drop).map_err(|_| NotTaken)
}

/// The next packet, if all of it is there. An error's text holds no content.
pub(super) fn read(bytes: &mut BytesMut) -> Result<Option<Happening>, String> {
    // Without a reason: the library takes it for a mistake.
    if bytes.starts_with(&DISCONNECT) {
        return Err(CLOSED.to_owned());
    }
    match Packet::read(bytes, Some(MAX_PACKET_BYTES)) {
        Ok(packet) => happening(packet).map(Some),
        Err(Error::InsufficientBytes(_)) => Ok(None),
        Err(e) => Err(format!("MQTT failed: {e}")),
    }
}

fn happening(packet: Packet) -> Result<Happening, String> {
    Ok(match packet {
        Packet::ConnAck(ack) => match ack.code {
            ConnectReturnCode::Success => {
                let keep_alive_s = ack.properties.and_then(|p| p.server_keep_alive);
                Happening::Connected { session_present: ack.session_present, keep_alive_s }
            }
            ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
                return Err(refused("it does not speak MQTT 5"));
            }
            ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword => {
                return Err(refused(CREDENTIALS));
            }
            other => return Err(refused(&words(&other))),
        },
        Packet::Publish(publish) => {
            let sent = (publish.qos != QoS::AtMostOnce).then(|| Sent {
                packet_id: publish.pkid,
                dup: publish.dup,
                exactly_once: publish.qos == QoS::ExactlyOnce,
                hash: digest(&publish.topic, &publish.payload),
            });
            // A topic that is no UTF-8 is the broker's fault; the message is still somebody's.
            let topic = String::from_utf8_lossy(&publish.topic).into();
            Happening::Message(Incoming { topic, payload: publish.payload, retained: publish.retain, sent })
        }
        Packet::PubRel(release) => Happening::Released(release.pkid),
        Packet::SubAck(ack) => Happening::Subscribed(ack.return_codes.into_iter().map(granted).collect()),
        Packet::UnsubAck(_) => Happening::Unsubscribed,
        Packet::Disconnect(farewell) => return Err(format!("{CLOSED}: {}", words(&farewell.reason_code))),
        _ => Happening::Nothing,
    })
}

fn granted(code: SubscribeReasonCode) -> Result<Qos, String> {
    match code {
        SubscribeReasonCode::Success(QoS::AtMostOnce) => Ok(Qos::AtMostOnce),
        SubscribeReasonCode::Success(_) => Ok(Qos::AtLeastOnce),
        refused => Err(words(&refused)),
    }
}
