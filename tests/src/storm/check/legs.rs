//! Legs from their first to their last moment. I4: a human agent has one call at a time. I5:
//! audio goes only where it was negotiated. I7: a caller who is gone leaves nobody behind. I8:
//! a leg ends once. I10: no port is used twice, and none is kept. I20: what is billed is what
//! was used.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use edge_media::media::{Carrier, MediaCommand};
use handoff::clock::Now;
use handoff::event::{Fact, Role};
use handoff::id::{CallId, HumanAgentId, LegId};

use super::{Findings, Seen, Watch, short};
use crate::storm::wire::Message;

/// A caller who is gone leaves no leg behind for longer.
const ALL_GONE: Duration = Duration::from_secs(1);
/// But who was being briefed is told so first.
const FAREWELL: Duration = Duration::from_secs(5);
/// What is billed may differ by so much, ms.
const BILLING_MS: u64 = 1_000;

/// One leg.
#[derive(Clone, Copy, Debug, Default)]
struct Leg {
    role: Option<Role>,
    answered: Option<Now>,
    ended: Option<Now>,
    recorded: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Legs {
    legs: BTreeMap<(CallId, LegId), Leg>,
    /// Ports in use, and the peer behind each.
    ports: BTreeMap<u16, (CallId, LegId)>,
    behind: BTreeMap<u16, usize>,
    /// Addresses that each peer named.
    named: BTreeMap<usize, BTreeSet<SocketAddr>>,
    /// Which leg an INVITE of ours is, by Call-ID.
    dialled: BTreeMap<String, (CallId, LegId)>,
    /// The CSeq of the INVITE of a caller that the edge answered, by Call-ID.
    accepted: BTreeMap<String, u32>,
    busy: BTreeMap<HumanAgentId, (CallId, LegId)>,
    /// Calls whose caller is gone, and until when nobody may be left.
    gone: BTreeMap<CallId, Now>,
    briefed: BTreeSet<CallId>,
}

impl Legs {
    fn leg(&mut self, call: &CallId, leg: LegId) -> &mut Leg {
        self.legs.entry((call.clone(), leg)).or_default()
    }

    fn fact(&mut self, at: Now, call: &CallId, fact: &Fact, findings: &mut Findings) {
        match fact {
            Fact::LegOpened { leg, role } => {
                let known = self.leg(call, *leg);
                if known.role.replace(*role).is_some() {
                    findings.add("I8", at, format!("{leg} of {} was opened twice", short(call)));
                }
            }
            Fact::LegClosed { leg, billed_ms, role, .. } => {
                self.closed(at, call, *leg, *role, *billed_ms, findings)
            }
            Fact::AgentOffered { agent_id, leg, .. } => {
                if let Some((other, busy)) = self.busy.insert(agent_id.clone(), (call.clone(), *leg)) {
                    let what = format!("{agent_id} is offered a call and has {busy} of {}", short(&other));
                    findings.add("I4", at, what);
                }
            }
            Fact::AgentAnswered { .. } => drop(self.briefed.insert(call.clone())),
            Fact::BridgeCompleted { .. } => drop(self.briefed.remove(call)),
            _ => {}
        }
    }

    fn closed(
        &mut self,
        at: Now,
        call: &CallId,
        leg: LegId,
        role: Role,
        billed_ms: u64,
        findings: &mut Findings,
    ) {
        let known = self.leg(call, leg);
        if std::mem::replace(&mut known.recorded, true) {
            findings.add("I8", at, format!("{leg} of {} ended twice", short(call)));
            return;
        }
        if known.role != Some(role) {
            findings.add("I8", at, format!("{leg} of {} ended and was not opened", short(call)));
        }
        let ended = *known.ended.get_or_insert(at);
        let used = known.answered.map_or(0, |answered| ended.since(answered).as_millis() as u64);
        let fits = match known.answered {
            None => billed_ms == 0,
            Some(_) => billed_ms.abs_diff(used) <= BILLING_MS,
        };
        if !fits {
            let what = format!("{leg} of {} is billed {billed_ms} ms and was used {used} ms", short(call));
            findings.add("I20", at, what);
        }
        self.free(call, leg);
        if leg == LegId::CALLER {
            let farewell = if self.briefed.contains(call) { FAREWELL } else { Duration::ZERO };
            self.gone.insert(call.clone(), at + ALL_GONE + farewell);
        }
    }

    fn free(&mut self, call: &CallId, leg: LegId) {
        self.busy.retain(|_, (of, which)| !(of == call && *which == leg));
    }

    fn ended(&mut self, at: Now, call: &CallId, leg: LegId) {
        self.leg(call, leg).ended.get_or_insert(at);
    }

    fn media(&mut self, at: Now, command: &MediaCommand, findings: &mut Findings) {
        match command {
            MediaCommand::Open { call, leg, carrier: Carrier::Rtp(port) } => {
                if self.ports.insert(port.0, (call.clone(), *leg)).is_some() {
                    findings.add("I10", at, format!("port {} is used by two legs", port.0));
                }
                self.behind.remove(&port.0);
            }
            MediaCommand::Close { call, leg } => {
                self.ended(at, call, *leg);
                self.free(call, *leg);
                self.ports.retain(|_, (of, which)| !(of == call && which == leg));
            }
            MediaCommand::Remote { call, leg, remote } => {
                let port = self.ports.iter().find(|(_, (of, which))| of == call && which == leg);
                let peer = port.and_then(|(port, _)| self.behind.get(port));
                let fits = match peer {
                    Some(peer) => self.named.get(peer).is_some_and(|named| named.contains(&remote.rtp)),
                    None => self.named.values().any(|named| named.contains(&remote.rtp)),
                };
                if !fits {
                    findings.add("I5", at, format!("audio of {leg} goes to {}", remote.rtp));
                }
            }
            _ => {}
        }
    }

    fn sent(&mut self, at: Now, peer: usize, message: &Message<'_>) {
        if let Some(audio) = message.audio() {
            let port = audio.address.port();
            self.behind.insert(port, peer);
            // Our offer to a human agent, or our answer to a caller.
            if let Some(leg) = self.ports.get(&port).cloned() {
                self.dialled.insert(message.call_id.to_owned(), leg);
            }
        }
        if message.status == Some(200)
            && message.method == "INVITE"
            && let Some((call, leg)) = self.dialled.get(message.call_id).cloned()
        {
            // Who is granted a change of media has seen the 200 before, with an ACK or without.
            let before = self.accepted.insert(message.call_id.to_owned(), message.cseq);
            if before.is_some_and(|before| before < message.cseq) {
                self.answered(at, &call, leg);
            }
        }
        if message.status.is_none()
            && message.method == "BYE"
            && let Some((call, leg)) = self.dialled.get(message.call_id).cloned()
        {
            // A second phone that answered is not the leg.
            if self.legs.get(&(call.clone(), leg)).is_some_and(|known| known.ended.is_some()) {
                self.ended(at, &call, leg);
            }
        }
    }

    fn received(&mut self, at: Now, peer: usize, message: &Message<'_>) {
        if let Some(audio) = message.audio() {
            self.named.entry(peer).or_default().insert(audio.address);
        }
        let Some((call, leg)) = self.dialled.get(message.call_id).cloned() else { return };
        // A human is answered when the 200 is there, the caller when the ACK of ours is.
        let acknowledges = self.accepted.get(message.call_id) == Some(&message.cseq);
        match (message.status, message.method) {
            (Some(200), "INVITE") if leg != LegId::CALLER => self.answered(at, &call, leg),
            (None, "ACK") if leg == LegId::CALLER && acknowledges => self.answered(at, &call, leg),
            _ => {}
        }
    }

    fn answered(&mut self, at: Now, call: &CallId, leg: LegId) {
        let known = self.leg(call, leg);
        if known.ended.is_none() {
            known.answered.get_or_insert(at);
        }
    }
}

impl Watch for Legs {
    fn see(&mut self, at: Now, seen: &Seen<'_>, findings: &mut Findings) {
        match seen {
            Seen::Fact(event) => self.fact(at, &event.call, &event.fact, findings),
            Seen::Media(command) => self.media(at, command, findings),
            Seen::Out(Some(peer), message) => self.sent(at, *peer, message),
            Seen::In(peer, message) => self.received(at, *peer, message),
            Seen::Door(call, open) => {
                // The latest voice leg: an earlier one is over.
                let latest = self
                    .legs
                    .iter_mut()
                    .filter(|((of, _), leg)| of == *call && leg.role == Some(Role::VoiceAgent))
                    .filter(|(_, leg)| leg.ended.is_none())
                    .last();
                if let Some((_, leg)) = latest {
                    if *open {
                        leg.answered.get_or_insert(at);
                    } else {
                        leg.ended.get_or_insert(at);
                    }
                }
            }
            Seen::Refused(what) => {
                let invariant = if what.contains("port") { "I10" } else { "I5" };
                findings.add(invariant, at, *what);
            }
            Seen::Forgotten(call) => {
                self.gone.remove(*call);
                for ((of, leg), known) in &self.legs {
                    if of == *call && !known.recorded {
                        findings.add("I8", at, format!("{leg} of {} never ended", short(call)));
                    }
                }
                for (port, (of, leg)) in &self.ports {
                    if of == *call {
                        findings.add("I10", at, format!("{leg} keeps port {port} after the call"));
                    }
                }
                self.legs.retain(|(of, _), _| of != *call);
            }
            _ => {}
        }
    }

    fn pass(&mut self, at: Now, findings: &mut Findings) {
        let due: Vec<CallId> =
            self.gone.iter().filter(|(_, due)| at > **due).map(|(call, _)| call.clone()).collect();
        for call in due {
            self.gone.remove(&call);
            for ((of, leg), known) in &self.legs {
                if *of == call && known.role.is_some() && !known.recorded {
                    findings.add("I7", at, format!("the caller is gone, and {leg} is still there"));
                }
            }
        }
    }
}
