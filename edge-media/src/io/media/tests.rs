//! The media threads on real sockets: two legs, their ports, and who hears whom.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use handoff::call::media::{MediaPlan, MediaReport, Source};
use handoff::id::{Epoch, LegId};

use super::*;
use crate::media::hold::HoldBed;
use crate::media::rtp::RtpPacket;
use crate::media::tone;
use crate::sip::{Codec, Direction, RemoteMedia};

fn config(ports: RangeInclusive<u16>) -> MediaConfig {
    MediaConfig { ip: Ipv4Addr::LOCALHOST.into(), ports, threads: 2, real_time: false, polly: None }
}

fn plan(call: &CallId, epoch: u64, egress: &[(LegId, Source)]) -> MediaCommand {
    MediaCommand::Apply(MediaPlan {
        call: call.clone(),
        epoch: Epoch(epoch),
        egress: egress.iter().cloned().collect(),
        prompts: BTreeMap::new(),
    })
}

#[tokio::test]
async fn a_phone_on_a_real_socket_hears_the_hold_bed_and_the_stream_hears_the_phone() {
    let (media, mut events) =
        MediaHandle::start(&config(46_000..=46_199), ClipStore::empty(HoldBed::tones()), Clock::start())
            .unwrap();
    let call = CallId::parse("call_1").unwrap();
    let port = media.take_ports(1).unwrap()[0];
    let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
    phone.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (_speech, mut frames) = media.open_stream(StreamKey(9));
    let (caller, agent) = (LegId::CALLER, LegId::VOICE_AGENT);
    let open = |leg, carrier| MediaCommand::Open { call: call.clone(), leg, carrier };
    media.command(open(caller, Carrier::Rtp(port)));
    media.command(open(agent, Carrier::Stream(StreamKey(9))));
    let remote = RemoteMedia {
        rtp: phone.local_addr().unwrap(),
        codec: Codec::Pcmu,
        telephone_event: None,
        direction: Direction::SendRecv,
        srtp: None,
    };
    media.command(MediaCommand::Remote { call: call.clone(), leg: caller, remote });
    media.command(plan(&call, 1, &[(caller, Source::HoldBed), (agent, Source::Leg(caller))]));

    let tones: Vec<u8> =
        tone::sine(450, 8_000, 160).iter().map(|s| crate::media::codec::encode(Codec::Pcmu, *s)).collect();
    let mut sequences = Vec::new();
    for sequence in 0..25_u16 {
        let mut bytes = [0; 200];
        let length = phone.recv(&mut bytes).unwrap();
        let packet = RtpPacket::parse(&bytes[..length]).unwrap();
        sequences.push(packet.sequence);
        let samples: Vec<_> =
            packet.payload.iter().map(|b| crate::media::codec::decode(Codec::Pcmu, *b)).collect();
        assert!(tone::level(&samples, 850) > -20.0);
        let timestamp = u32::from(sequence) * 160;
        let reply =
            RtpPacket { marker: false, payload_type: 0, sequence, timestamp, ssrc: 5, payload: &tones };
        phone.send_to(reply.write(&mut [0; 200]).unwrap(), ("127.0.0.1", port.0)).unwrap();
    }
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{sequences:?}");

    let mut loud = 0;
    while let Ok(frame) = frames.try_recv() {
        if let StreamOut::Frame(bytes) = frame {
            let samples = bytes.map(|b| crate::media::codec::decode(Codec::Pcmu, b));
            loud += usize::from(tone::level(&samples, 450) > -20.0);
        }
    }
    assert!(loud >= 10, "the stream heard the phone in {loud} frames");
    let mut reports = Vec::new();
    while let Ok(event) = events.try_recv() {
        reports.push(event.report);
    }
    assert!(reports.contains(&MediaReport::Applied { epoch: Epoch(1), egress: caller }));
    assert!(reports.contains(&MediaReport::FirstRtp { leg: caller }));
    assert!(reports.contains(&MediaReport::AudioSeen { leg: caller, epoch: Epoch(1) }));
    media.stop();
}

#[tokio::test]
async fn a_closed_leg_keeps_its_port_bound_and_sends_no_more() {
    let (media, _events) =
        MediaHandle::start(&config(46_200..=46_399), ClipStore::empty(HoldBed::tones()), Clock::start())
            .unwrap();
    let call = CallId::parse("call_2").unwrap();
    let port = media.take_ports(1).unwrap()[0];
    let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
    phone.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let leg = LegId::CALLER;
    let rtp = phone.local_addr().unwrap();
    let remote = RemoteMedia {
        rtp,
        codec: Codec::Pcma,
        telephone_event: None,
        direction: Direction::SendRecv,
        srtp: None,
    };
    media.command(MediaCommand::Open { call: call.clone(), leg, carrier: Carrier::Rtp(port) });
    media.command(MediaCommand::Remote { call: call.clone(), leg, remote });
    media.command(plan(&call, 1, &[(leg, Source::Silence)]));
    phone.recv(&mut [0; 200]).unwrap();
    media.command(MediaCommand::Close { call, leg });
    phone.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut rest = 0;
    while phone.recv(&mut [0; 200]).is_ok() {
        rest += 1;
    }
    assert!(rest < 5, "{rest} packets after the end");
    assert!(UdpSocket::bind(("127.0.0.1", port.0)).is_err(), "the port rests");
    media.stop();
    assert!(UdpSocket::bind(("127.0.0.1", port.0)).is_ok(), "stopping releases it");
}

#[tokio::test]
async fn two_bridged_phones_get_each_others_packets_in_one_timeline() {
    let (media, _events) =
        MediaHandle::start(&config(46_400..=46_599), ClipStore::empty(HoldBed::tones()), Clock::start())
            .unwrap();
    let call = CallId::parse("call_3").unwrap();
    let ports = media.take_ports(2).unwrap();
    let phones = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let legs = [LegId::CALLER, LegId::FIRST_HUMAN];
    for ((leg, port), phone) in legs.iter().zip(&ports).zip(&phones) {
        phone.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let rtp = phone.local_addr().unwrap();
        let remote = RemoteMedia {
            rtp,
            codec: Codec::Pcmu,
            telephone_event: None,
            direction: Direction::SendRecv,
            srtp: None,
        };
        let carrier = Carrier::Rtp(*port);
        media.command(MediaCommand::Open { call: call.clone(), leg: *leg, carrier });
        media.command(MediaCommand::Remote { call: call.clone(), leg: *leg, remote });
    }
    media.command(plan(&call, 1, &[(legs[0], Source::Leg(legs[1])), (legs[1], Source::Leg(legs[0]))]));
    let clock = Clock::start();
    let start = clock.now();
    let (mut sequences, mut own, mut delays) = (Vec::new(), 0, Vec::new());
    for number in 0..100_u16 {
        let sent_at = clock.now();
        // The payload names its packet, so that it is recognised when it comes out.
        let payload = [number as u8 | 0x80; 160];
        let timestamp = u32::from(number) * 160;
        let packet = RtpPacket {
            marker: false,
            payload_type: 0,
            sequence: number,
            timestamp,
            ssrc: 3,
            payload: &payload,
        };
        phones[1].send_to(packet.write(&mut [0; 200]).unwrap(), ("127.0.0.1", ports[1].0)).unwrap();
        let due = start + Duration::from_millis(u64::from(number + 1) * 20);
        while clock.now() < due {
            let mut bytes = [0; 200];
            let Ok(length) = phones[0].recv(&mut bytes) else { continue };
            let heard = RtpPacket::parse(&bytes[..length]).unwrap();
            sequences.push(heard.sequence);
            if heard.payload == payload {
                own += 1;
                delays.push(clock.now().since(sent_at).as_micros());
            }
        }
    }
    media.stop();
    delays.sort_unstable();
    println!("relayed {own} of 100, median {:?} µs, worst {:?} µs", delays.get(own / 2), delays.last());
    assert!(sequences.windows(2).all(|pair| pair[1] > pair[0]), "{sequences:?}");
    assert!(own >= 50, "{own} packets were relayed before the next one was sent");
}

#[test]
fn a_range_that_is_nearly_used_up_gives_what_is_left() {
    let clips = ClipStore::embedded();
    let (media, _reports) = MediaHandle::start(&config(46_200..=46_215), clips, Clock::start()).unwrap();
    let ports = media.take_ports(64).unwrap();
    assert!((1..=8).contains(&ports.len()), "{ports:?}");
    assert!(matches!(media.take_ports(1), Err(PortError::Exhausted)));
    media.stop();
}
