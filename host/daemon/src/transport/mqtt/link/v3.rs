//! The packets of MQTT 3.1.1.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{
    Connect, ConnectReturnCode, Login, Packet, PubAck, PubComp, PubRec, Subscribe, SubscribeFilter,
    SubscribeReasonCode, Unsubscribe,
};
use rumqttc::mqttbytes::{Error, QoS};

use super::super::delivery::{Ack, Incoming, Sent};
use super::super::{MqttOptions, Qos};
use super::{CLOSED, CREDENTIALS, Happening, MAX_PACKET_BYTES, NotTaken, digest, refused, words};

pub(super) fn connect(options: &MqttOptions, out: &mut BytesMut) -> Result<(), NotTaken> {
    let mut connect = Connect::new(&options.client_id);
    connect.keep_alive = options.keep_alive_s;
    connect.clean_session = false;
    let password = || options.password.clone().unwrap_or_default();
    connect.login = options.user.as_ref().map(|user| Login::new(user, password()));
    write(&Packet::Connect(connect), out)
}

pub(super) fn acknowledge(ack: Ack, out: &mut BytesMut) -> Result<(), NotTaken> {
    let packet = if ack.exactly_once {
        Packet::PubRec(PubRec::new(ack.packet_id))
    } else {
        Packet::PubAck(PubAck::new(ack.packet_id))
    };
    write(&packet, out)
}

pub(super) fn complete(packet_id: u16, out: &mut BytesMut) -> Result<(), NotTaken> {
    write(&Packet::PubComp(PubComp::new(packet_id)), out)
}

pub(super) fn subscribe(packet_id: u16, topics: &[String], qos: Qos, out: &mut BytesMut) -> Result<(), NotTaken> {
    let qos = match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce | Qos::ExactlyOnce => QoS::AtLeastOnce,
    };
    let filters = topics.iter().map(|topic| SubscribeFilter::new(topic.clone(), qos)).collect();
    write(&Packet::Subscribe(Subscribe { pkid: packet_id, filters }), out)
}

pub(super) fn unsubscribe(packet_id: u16, topic: &str, out: &mut BytesMut) -> Result<(), NotTaken> {
    write(&Packet::Unsubscribe(Unsubscribe { pkid: packet_id, topics: vec![topic.to_owned()] }), out)
}

fn write(packet: &Packet, out: &mut BytesMut) -> Result<(), NotTaken> {
    packet.write(out, MAX_PACKET_BYTES as usize).map(drop).map_err(|_| NotTaken)
}

/// The next packet, if all of it is there. An error's text holds no content.
pub(super) fn read(bytes: &mut BytesMut) -> Result<Option<Happening>, String> {
    match Packet::read(bytes, MAX_PACKET_BYTES as usize) {
        Ok(packet) => happening(packet).map(Some),
        Err(Error::InsufficientBytes(_)) => Ok(None),
        Err(e) => Err(format!("MQTT failed: {e}")),
    }
}

fn happening(packet: Packet) -> Result<Happening, String> {
    Ok(match packet {
        Packet::ConnAck(ack) => match ack.code {
            ConnectReturnCode::Success => {
                Happening::Connected { session_present: ack.session_present, keep_alive_s: None }
            }
            ConnectReturnCode::RefusedProtocolVersion => return Err(refused("it does not speak MQTT 3.1.1")),
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
                hash: digest(publish.topic.as_bytes(), &publish.payload),
            });
            let topic = publish.topic.into();
            Happening::Message(Incoming { topic, payload: publish.payload, retained: publish.retain, sent })
        }
        Packet::PubRel(release) => Happening::Released(release.pkid),
        Packet::SubAck(ack) => Happening::Subscribed(ack.return_codes.into_iter().map(granted).collect()),
        Packet::UnsubAck(_) => Happening::Unsubscribed,
        Packet::Disconnect => return Err(CLOSED.to_owned()),
        _ => Happening::Nothing,
    })
}

fn granted(code: SubscribeReasonCode) -> Result<Qos, String> {
    match code {
        SubscribeReasonCode::Success(QoS::AtMostOnce) => Ok(Qos::AtMostOnce),
        SubscribeReasonCode::Success(_) => Ok(Qos::AtLeastOnce),
        SubscribeReasonCode::Failure => Err("no reason given".to_owned()),
    }
}
