//! A scripted telephone: one SIP user agent and one RTP stream on real loopback sockets. It
//! stands for the caller behind a carrier and for the human agent's softphone, and it is an
//! outside party: it shares the SIP stack's code with the edge, never its state. What it
//! hears is kept packet by packet with kernel receive times.

use std::collections::VecDeque;
use std::io::{IoSliceMut, Result};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use handoff::clock::Now;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt};

use crate::demo::hearing::Heard;
use crate::io::clock::Clock;
use crate::media::codec::{self, Frame};
use crate::media::dtmf::KeySender;
use crate::media::rtp::RtpPacket;
use crate::sip::{
    Codec, Direction, Flow, LocalMedia, RemoteMedia, SipCommand, SipConfig, SipEvent, SipOutput, Stack,
    Transport,
};

/// Speech waiting to be said: one minute. A script that says more has a loop in it.
const SPEECH_MAX: usize = 8_000 * 60;

/// Packets kept per phone: an hour of audio.
const HEARD_MAX: usize = 180_000;

/// Orders to a phone.
#[derive(Debug)]
pub enum PhoneOrder {
    /// Any SIP order, given to the stack as it is.
    Sip(SipCommand),
    /// Say this (µ-law, 8 kHz).
    Say(Vec<u8>),
    /// Press this key (RFC 4733).
    Press(char),
    /// Leave: the thread ends.
    Leave,
}

/// A phone's thread and its channels.
#[derive(Debug)]
pub struct Phone {
    orders: SyncSender<PhoneOrder>,
    events: tokio::sync::mpsc::Receiver<SipEvent>,
    thread: JoinHandle<Vec<Heard>>,
    local: LocalMedia,
    /// Where it receives SIP.
    pub sip_address: SocketAddr,
}

impl Phone {
    /// Binds its sockets and starts its thread.
    pub fn start(
        name: &str,
        ip: IpAddr,
        clock: Clock,
        seed: u64,
        config: impl FnOnce(SocketAddr) -> SipConfig,
    ) -> Result<Self> {
        let sip = UdpSocket::bind((ip, 0))?;
        let rtp = UdpSocket::bind((ip, 0))?;
        sip.set_nonblocking(true)?;
        rtp.set_nonblocking(true)?;
        setsockopt(&rtp, ReceiveTimestampns, &true)?;
        let sip_address = sip.local_addr()?;
        let rtp_address = rtp.local_addr()?;
        let local =
            LocalMedia { ip: rtp_address.ip(), port: rtp_address.port(), direction: Direction::SendRecv };
        let (orders, order_queue) = sync_channel(256);
        let (event_sender, events) = tokio::sync::mpsc::channel(256);
        let mut line = Line {
            stack: Stack::new(config(sip_address), seed.into()),
            clock,
            sip,
            rtp,
            events: event_sender,
            stream: Stream::new(seed),
            heard: Vec::new(),
        };
        let thread =
            std::thread::Builder::new().name(format!("demo-{name}")).spawn(move || line.run(&order_queue))?;
        Ok(Self { orders, events, thread, local, sip_address })
    }

    /// This phone's media, for offers and answers.
    pub fn local(&self) -> LocalMedia {
        self.local
    }

    /// Gives an order. A phone that has left ignores it.
    pub fn order(&self, order: PhoneOrder) {
        let _ = self.orders.send(order);
    }

    /// The next event of the phone's SIP stack.
    pub async fn event(&mut self) -> Option<SipEvent> {
        self.events.recv().await
    }

    /// Ends the thread and returns everything that the phone heard.
    pub fn leave(self) -> Vec<Heard> {
        let _ = self.orders.send(PhoneOrder::Leave);
        self.thread.join().unwrap_or_default()
    }
}

/// The thread's own state.
struct Line {
    stack: Stack,
    clock: Clock,
    sip: UdpSocket,
    rtp: UdpSocket,
    events: tokio::sync::mpsc::Sender<SipEvent>,
    stream: Stream,
    heard: Vec<Heard>,
}

/// The outgoing RTP stream.
struct Stream {
    remote: Option<RemoteMedia>,
    speech: VecDeque<u8>,
    keys: KeySender,
    ssrc: u32,
    seq: u16,
    timestamp: u32,
}

impl Stream {
    fn new(seed: u64) -> Self {
        Self {
            remote: None,
            speech: VecDeque::new(),
            keys: KeySender::default(),
            ssrc: (seed >> 16) as u32 | 1,
            seq: seed as u16,
            timestamp: seed as u32,
        }
    }

    /// The packet of the next 20 ms.
    fn next_packet(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let remote = self.remote?;
        let may_send = matches!(remote.direction, Direction::SendRecv | Direction::SendOnly);
        let timestamp = self.timestamp;
        self.timestamp = self.timestamp.wrapping_add(160);
        if !may_send {
            return None;
        }
        self.seq = self.seq.wrapping_add(1);
        let key = remote.telephone_event.and_then(|payload_type| {
            let key = self.keys.tick()?;
            Some((payload_type, key))
        });
        let mut buffer = [0_u8; 256];
        let bytes = match &key {
            Some((payload_type, key)) => {
                // All packets of a key carry the timestamp at which it began.
                let began = timestamp.wrapping_sub(u32::from(key.age_ticks) * 160);
                self.write(*payload_type, key.first, began, &key.payload, &mut buffer)?
            }
            None => {
                let mut frame: Vec<u8> = self.speech.drain(..self.speech.len().min(160)).collect();
                frame.resize(160, codec::ULAW_SILENCE);
                let coded = Frame::ulaw(&frame).coded(remote.codec);
                self.write(codec::payload_type(remote.codec), false, timestamp, &coded, &mut buffer)?
            }
        };
        Some((remote.rtp, bytes))
    }

    fn write(
        &self,
        payload_type: u8,
        marker: bool,
        timestamp: u32,
        payload: &[u8],
        buffer: &mut [u8],
    ) -> Option<Vec<u8>> {
        let packet =
            RtpPacket { payload_type, marker, sequence: self.seq, timestamp, ssrc: self.ssrc, payload };
        packet.write(buffer).map(<[u8]>::to_vec)
    }
}

impl Line {
    fn run(&mut self, orders: &Receiver<PhoneOrder>) -> Vec<Heard> {
        let mut next_tick = self.clock.now() + Duration::from_millis(20);
        loop {
            if !self.obey(orders) {
                return std::mem::take(&mut self.heard);
            }
            self.receive_sip();
            self.receive_rtp();
            let now = self.clock.now();
            if self.stack.next_timeout().is_some_and(|due| due <= now) {
                let outputs = self.stack.handle_timeout(now);
                self.carry(outputs);
            }
            if now >= next_tick {
                next_tick = next_tick + Duration::from_millis(20);
                if let Some((to, packet)) = self.stream.next_packet() {
                    // A full socket buffer loses the frame, as a network would.
                    let _ = self.rtp.send_to(&packet, to);
                }
            }
            self.wait(next_tick);
        }
    }

    /// Waits for a datagram, the next frame, or an order: orders have no descriptor, and ten
    /// milliseconds of latency are nothing to a person's finger.
    fn wait(&self, next_tick: Now) {
        let until = next_tick.since(self.clock.now()).min(Duration::from_millis(10));
        let mut sockets = [&self.sip, &self.rtp].map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        // A wait that fails is a shorter wait.
        let _ = ppoll(&mut sockets, Some(until.into()), None);
    }

    fn obey(&mut self, orders: &Receiver<PhoneOrder>) -> bool {
        loop {
            match orders.try_recv() {
                Ok(PhoneOrder::Sip(command)) => {
                    let outputs = self.stack.command(self.clock.now(), command);
                    self.carry(outputs);
                }
                Ok(PhoneOrder::Say(speech)) => {
                    if self.stream.speech.len() + speech.len() <= SPEECH_MAX {
                        self.stream.speech.extend(speech);
                    }
                }
                Ok(PhoneOrder::Press(key)) => {
                    self.stream.keys.send(&key.to_string());
                }
                Ok(PhoneOrder::Leave) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn receive_sip(&mut self) {
        let mut buffer = [0_u8; 65_535];
        while let Ok((length, peer)) = self.sip.recv_from(&mut buffer) {
            let flow = Flow { transport: Transport::Udp, peer, connection: 0 };
            let bytes = buffer.get(..length).unwrap_or_default();
            let outputs = self.stack.receive(self.clock.now(), flow, bytes);
            self.carry(outputs);
        }
    }

    fn receive_rtp(&mut self) {
        let mut buffer = [0_u8; 2_048];
        loop {
            let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let received = recvmsg::<SockaddrIn>(
                self.rtp.as_raw_fd(),
                &mut slices,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            );
            let Ok(message) = received else { return };
            let length = message.bytes;
            let at_ns = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|control| {
                    let ControlMessageOwned::ScmTimestampns(at) = control else { return None };
                    Some(at.tv_sec() as u64 * 1_000_000_000 + at.tv_nsec() as u64)
                })
            });
            if let (Some(at_ns), Some(bytes)) = (at_ns, buffer.get(..length)) {
                self.hear(at_ns, bytes);
            }
        }
    }

    fn hear(&mut self, at_ns: u64, bytes: &[u8]) {
        let Ok(packet) = RtpPacket::parse(bytes) else { return };
        let samples = match packet.payload_type {
            0 => packet.payload.iter().map(|b| codec::decode(Codec::Pcmu, *b)).collect(),
            8 => packet.payload.iter().map(|b| codec::decode(Codec::Pcma, *b)).collect(),
            _ => Vec::new(),
        };
        if self.heard.len() < HEARD_MAX {
            self.heard.push(Heard {
                at_ns,
                seq: packet.sequence,
                timestamp: packet.timestamp,
                ssrc: packet.ssrc,
                samples,
            });
        }
    }

    fn carry(&mut self, outputs: Vec<SipOutput>) {
        for output in outputs {
            match output {
                SipOutput::Send(flow, bytes) => {
                    // A lost datagram is what retransmission is for.
                    let _ = self.sip.send_to(&bytes, flow.peer);
                }
                SipOutput::Close(_) => {}
                SipOutput::Event(event) => {
                    match &event {
                        SipEvent::Answered(_, remote)
                        | SipEvent::Reinvited(_, remote)
                        | SipEvent::PeerMedia(_, remote)
                        | SipEvent::Confirmed(_, Some(remote))
                        | SipEvent::Invited { remote: Some(remote), .. } => {
                            self.stream.remote = Some(*remote)
                        }
                        SipEvent::Ended { .. } => self.stream.remote = None,
                        SipEvent::Confirmed(_, None)
                        | SipEvent::Invited { remote: None, .. }
                        | SipEvent::Ringing(_)
                        | SipEvent::Digit(..)
                        | SipEvent::ReinviteFailed(..)
                        | SipEvent::Registered { .. }
                        | SipEvent::RegisterResult { .. } => {}
                    }
                    // The script reads events promptly; a full queue means that it is gone.
                    let _ = self.events.try_send(event);
                }
            }
        }
    }
}
