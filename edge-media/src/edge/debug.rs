//! What may be printed of the router's inputs and outputs. Bytes of the network are never shown,
//! only how many they are: a SIP message holds numbers and names, and a list of its octets is
//! the message. Everything else redacts itself.

use std::fmt;

use super::{EdgeInput, EdgeOutput};

impl fmt::Debug for EdgeInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(flow, bytes) => write!(f, "Bytes({flow:?}, {} bytes)", bytes.len()),
            Self::ConnectionClosed(flow) => f.debug_tuple("ConnectionClosed").field(flow).finish(),
            Self::Media(event) => f.debug_tuple("Media").field(event).finish(),
            Self::DoorOpened(stream) => f.debug_tuple("DoorOpened").field(stream).finish(),
            Self::DoorSignal(stream, signal) => {
                f.debug_tuple("DoorSignal").field(stream).field(signal).finish()
            }
            Self::CallSignal(call, signal) => f.debug_tuple("CallSignal").field(call).field(signal).finish(),
            Self::DoorSilent(stream, silent) => {
                f.debug_tuple("DoorSilent").field(stream).field(silent).finish()
            }
            Self::DoorClosed(stream, cause) => {
                f.debug_tuple("DoorClosed").field(stream).field(cause).finish()
            }
            Self::DesktopPresence(agent, open) => {
                f.debug_tuple("DesktopPresence").field(agent).field(open).finish()
            }
            Self::DesktopAcked(agent, transfer, revision) => {
                f.debug_tuple("DesktopAcked").field(agent).field(transfer).field(revision).finish()
            }
            Self::Accept(agent, transfer, means) => {
                f.debug_tuple("Accept").field(agent).field(transfer).field(means).finish()
            }
            Self::Decline(agent, transfer, means, reason) => {
                f.debug_tuple("Decline").field(agent).field(transfer).field(means).field(reason).finish()
            }
            Self::HandBack(agent, transfer) => {
                f.debug_tuple("HandBack").field(agent).field(transfer).finish()
            }
            Self::Command(command) => f.debug_tuple("Command").field(command).finish(),
            Self::Ports(ports) => f.debug_tuple("Ports").field(ports).finish(),
            Self::Reload(_) => f.write_str("Reload"),
            Self::Resolved(hosts) => write!(f, "Resolved({} names)", hosts.len()),
            Self::Servers(servers) => write!(f, "Servers({} trunks)", servers.len()),
            Self::RecordingStored(call, leg, recording) => {
                f.debug_tuple("RecordingStored").field(call).field(leg).field(recording).finish()
            }
            Self::Timeout => f.write_str("Timeout"),
            Self::Drain => f.write_str("Drain"),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

impl fmt::Debug for EdgeOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(flow, bytes) => write!(f, "Send({flow:?}, {} bytes)", bytes.len()),
            Self::Close(flow) => f.debug_tuple("Close").field(flow).finish(),
            Self::Media(command) => f.debug_tuple("Media").field(command).finish(),
            Self::PrepareSpeech { text, lang } => {
                f.debug_struct("PrepareSpeech").field("text", text).field("lang", lang).finish()
            }
            Self::OpenDoor { stream, call } => {
                f.debug_struct("OpenDoor").field("stream", stream).field("call", call).finish()
            }
            Self::DoorStatus { stream, status, eta_s } => {
                let mut shown = f.debug_struct("DoorStatus");
                shown.field("stream", stream).field("status", status).field("eta_s", eta_s).finish()
            }
            Self::CloseDoor(stream) => f.debug_tuple("CloseDoor").field(stream).finish(),
            Self::Desktop(agent, push) => f.debug_tuple("Desktop").field(agent).field(push).finish(),
            Self::Fact(event) => f.debug_tuple("Fact").field(event).finish(),
            Self::Decision(evaluable, decision, seq) => {
                f.debug_tuple("Decision").field(evaluable).field(decision).field(seq).finish()
            }
            Self::DiscardRecordings(call) => f.debug_tuple("DiscardRecordings").field(call).finish(),
            Self::NeedPorts(count) => f.debug_tuple("NeedPorts").field(count).finish(),
            Self::Forget(call) => f.debug_tuple("Forget").field(call).finish(),
        }
    }
}
