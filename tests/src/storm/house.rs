//! What the edge of a storm is configured with, and the few values of the product that the
//! world has to make itself: a payload, an order of a page, a registration.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use edge_media::edge::directory::{Dial, Members};
use edge_media::edge::{Edge, EdgeConfig, EdgeInput, EdgeOutput};
use edge_media::sip::{Destination, Flow, SipCommand, SipConfig, SipOutput, Stack, Transport};
use handoff::call::{DesktopPush, Fallback, OnVoiceAgentBye, PayloadAck, QueueRules};
use handoff::clock::{Moment, Now, Timestamp};
use handoff::conversation::Context;
use handoff::event::{DeclineReason, Means, StoredRecording};
use handoff::id::{CallId, DestinationId, HumanAgentId, LegId, QueueId, TenantId, TransferId};
use handoff::payload::{self, BuildInput, Catalog, Payload};
use handoff::pii::Pii;
use handoff::policy::{Decision, Origin, Policy};

use super::plan::{Link, Plan};

/// The destination whose acknowledgement may open the barrier.
pub(super) const CRM: &str = "crm";

/// Most people of a plan.
const PEOPLE_MAX: usize = 4;

/// Sessions are refreshed at half of this: the only sign of life of a caller who is held by
/// their own side, and short enough that the end of every call lies within the storm's limit.
const SESSION_SECS: u32 = 240;

/// Calls at once; more than any plan has.
const CALLS_MAX: usize = 50;

/// A person's name.
pub(super) fn person_name(place: usize) -> String {
    format!("agent_{place}")
}

/// A person's id.
pub(super) fn person_id(place: usize) -> HumanAgentId {
    HumanAgentId::parse(&person_name(place)).expect("a valid id")
}

/// Where a person's phone is.
pub(super) fn person_address(place: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10 + place as u8)), 5_060)
}

/// Where a caller's trunk is: one address, and a port for each call.
pub(super) fn caller_address(place: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 6_000 + place as u16)
}

/// The policy of the house.
pub(super) fn policy() -> &'static Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    POLICY.get_or_init(Policy::default)
}

thread_local! {
    /// Reading the policy takes longer than a whole seed, so the base is made once.
    static BASE: RefCell<Option<EdgeConfig>> = const { RefCell::new(None) };
}

/// The edge's configuration for a plan; `extra` attempts more than the plan says, and phones
/// that ring `ring_factor` times as long, are planted bugs.
pub(super) fn edge_config(plan: &Plan, extra: u32, ring_factor: u32) -> EdgeConfig {
    BASE.with_borrow_mut(|base| {
        let base = base.get_or_insert_with(|| {
            let names: Vec<String> = (0..PEOPLE_MAX).map(person_name).collect();
            crate::world::edge_config(&names, false)
        });
        built(base, plan, extra, ring_factor)
    })
}

fn built(base: &EdgeConfig, plan: &Plan, extra: u32, ring_factor: u32) -> EdgeConfig {
    let house = &plan.house;
    let mut rules = (*base.rules).clone();
    rules.hold_by_reinvite = house.hold_by_reinvite;
    rules.cancel_while_waiting = house.cancel_while_waiting;
    rules.recording = house.recording;
    rules.on_voice_agent_bye =
        if house.voice_bye_ends { OnVoiceAgentBye::Hangup } else { OnVoiceAgentBye::TransferDefault };
    for queue in &mut rules.queues {
        queue.attempts_max = house.attempts_max + extra;
        queue.fallback = house.chain.iter().map(|link| fallback(*link)).collect();
        queue.on_agent_bye = house.on_agent_bye;
        queue.on_agent_lost = house.on_agent_lost;
        if house.crm_acknowledges {
            queue.payload_ack = PayloadAck::Destination(DestinationId::parse(CRM).expect("a valid id"));
        }
    }
    if house.chain.contains(&Link::Queue)
        && let Some(first) = rules.queues.first().cloned()
    {
        rules.queues.push(QueueRules { id: second_queue(), ..first });
    }
    let mut sip = base.sip.clone();
    sip.users.truncate(plan.people.len());
    sip.session_expires_secs = SESSION_SECS;
    let mut people = base.people.clone();
    people.truncate(plan.people.len());
    for (place, (person, planned)) in people.iter_mut().zip(&plan.people).enumerate() {
        person.ring_timeout = Duration::from_secs(planned.ring_s) * ring_factor;
        person.trusted = planned.trusted;
        person.accept_on_answer = planned.accept_on_answer;
        if !planned.registers {
            let uri = format!("sip:{}@{}", person_name(place), person_address(place));
            person.dial = Dial::Fixed(Destination::Uri(Pii::new(uri)));
        }
    }
    let mut queues = base.queues.clone();
    for members in &mut queues {
        members.people.truncate(plan.people.len());
    }
    if let Some(first) = queues.first().cloned() {
        queues.push(Members { queue: second_queue(), ..first });
    }
    EdgeConfig {
        rules: Arc::new(rules),
        media_ip: base.media_ip,
        sip,
        call_types: base.call_types.clone(),
        people,
        queues,
        tag_key: base.tag_key.clone(),
        calls_max: CALLS_MAX,
        commands: String::new(),
    }
}

fn fallback(link: Link) -> Fallback {
    match link {
        Link::Queue => Fallback::Queue(second_queue()),
        Link::VoiceAgent => Fallback::VoiceAgent,
        Link::Voicemail => Fallback::Voicemail,
        Link::Callback => Fallback::Callback,
    }
}

fn second_queue() -> QueueId {
    QueueId::parse("front_desk").expect("a valid id")
}

/// The phones that register do so before the storm begins, over a perfect network, with the
/// product's own stack as the phone: what is tested of REGISTER is tested elsewhere.
pub(super) fn register(plan: &Plan, now: Now, edge: &mut Edge) {
    let edge_sip: SocketAddr = crate::storm::peer::EDGE.parse().expect("a valid address");
    for (place, _) in plan.people.iter().enumerate().filter(|(_, person)| person.registers) {
        let own = person_address(place);
        let mut phone =
            Stack::new(SipConfig::new(own, &own.ip().to_string()), u128::from(plan.seed ^ place as u64));
        let order = SipCommand::Register {
            user: person_name(place),
            password: Pii::new(crate::world::PASSWORD.to_owned()),
            registrar: edge_sip,
            domain: edge_sip.ip().to_string(),
            expires_secs: 3_600,
        };
        let flow = |peer| Flow { transport: Transport::Udp, peer, connection: 0 };
        let at = Moment { now, wall: Timestamp::default() };
        let mut to_edge = sent(phone.command(now, order));
        // A challenge and its answer: two rounds.
        for _ in 0..2 {
            let mut to_phone = Vec::new();
            for bytes in to_edge.drain(..) {
                for output in edge.handle(at, EdgeInput::Bytes(flow(own), bytes)) {
                    if let EdgeOutput::Send(_, bytes) = output {
                        to_phone.push(bytes);
                    }
                }
            }
            for bytes in to_phone {
                to_edge.extend(sent(phone.receive(now, flow(edge_sip), &bytes)));
            }
        }
    }
}

fn sent(outputs: Vec<SipOutput>) -> Vec<Vec<u8>> {
    let bytes = outputs.into_iter().filter_map(|output| match output {
        SipOutput::Send(_, bytes) => Some(bytes),
        SipOutput::Close(_) | SipOutput::Event(_) => None,
    });
    bytes.collect()
}

/// The payload of the functions for a transfer.
pub(super) fn payload(call: &CallId, decision: &Decision, at: Timestamp, revision: u32) -> Payload {
    static TENANT: OnceLock<TenantId> = OnceLock::new();
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    payload::bare_template(&BuildInput {
        tenant: TENANT.get_or_init(|| TenantId::parse("t_world").expect("a valid id")),
        call,
        transfer: &decision.transfer_id,
        trigger: &decision.trigger,
        policy_version: &decision.policy_version,
        origin: Origin::Function,
        context: &Context::default(),
        catalog: CATALOG.get_or_init(Catalog::default),
        queue: None,
        revision,
        created_at: at,
        fired_at: at,
        public_url: "https://warmbridge.example",
        audit_head: None,
        classification: &[],
    })
}

/// The recording of a leg lies on disk.
pub(super) fn stored(call: CallId, leg: LegId) -> EdgeInput {
    let recording = StoredRecording { pieces: 1, duration_ms: 1_000, lost_ms: 0, sha256: "0".repeat(64) };
    EdgeInput::RecordingStored(call, leg, recording)
}

/// A page says no.
pub(super) fn decline(agent: HumanAgentId, transfer: TransferId) -> EdgeInput {
    EdgeInput::Decline(agent, transfer, Means::Ui, DeclineReason::WrongTeam)
}

/// What a push is, without what is in it.
pub(super) const fn push_name(push: &DesktopPush) -> &'static str {
    match push {
        DesktopPush::Incoming { .. } => "incoming",
        DesktopPush::Card { .. } => "card",
        DesktopPush::Caption { .. } => "caption",
        DesktopPush::Accepted { .. } => "accepted",
        DesktopPush::Bridged { .. } => "bridged",
        DesktopPush::Ended { .. } => "ended",
    }
}
