//! The words around a transfer: the payload that the edge builds itself, the private
//! briefing, and what the conversation is told of what was played. The only file of the
//! call machine that knows how a payload looks.

use crate::call::core::Core;
use crate::call::media::{ClipId, Part, Prompt};
use crate::call::transfer::Transfer;
use crate::conversation::{Conversation, Disclosed, DisclosureKind};
use crate::message;
use crate::payload::{self, BuildInput, Payload};
use crate::pii::Pii;

/// Revision of the payload that the edge builds; those of the functions are higher.
const TEMPLATE_REVISION: u32 = 1;

/// The payload from what the edge knows itself.
pub(super) fn template(core: &Core, transfer: &Transfer) -> Payload {
    let context = core.conversation.context();
    let queue = core.queue(transfer.queue).map(|queue| (&queue.id, queue.id.as_str()));
    payload::template(&BuildInput {
        tenant: &core.rules.tenant,
        call: &core.arrival.call,
        transfer: &transfer.id,
        trigger: &transfer.decision.trigger,
        policy_version: &transfer.decision.policy_version,
        origin: transfer.decision.origin,
        context: &context,
        catalog: &core.rules.catalog,
        queue,
        revision: TEMPLATE_REVISION,
        created_at: core.at.wall,
        fired_at: transfer.decided_at.wall,
        public_url: &core.rules.public_url,
        audit_head: None,
        classification: &[],
    })
}

/// The bytes that the record's MAC is taken over.
pub(super) fn canonical(payload: &Payload) -> Option<Pii<Vec<u8>>> {
    payload.canonical_bytes().ok().map(Pii::new)
}

/// The briefing as text, for the desktop.
pub(super) fn caption(payload: Option<&Payload>, lang: &str) -> Pii<String> {
    let spoken = payload.and_then(Payload::whisper_text).cloned();
    spoken.unwrap_or_else(|| Pii::new(message::text_of(&message::generic_whisper(lang))))
}

/// The briefing as a prompt. Where there is no text the generic clip is played; `ask` adds
/// how to accept.
pub(super) fn whisper(payload: Option<&Payload>, lang: &str, ask: bool) -> Prompt {
    let generic = message::generic_whisper(lang);
    let fallback = generic.parts.iter().find_map(|part| match part {
        Part::Clip(clip) => Some(clip.clone()),
        Part::Say { .. } => None,
    });
    let mut parts = match payload.and_then(Payload::whisper_text) {
        Some(text) => vec![Part::Say {
            text: text.clone(),
            lang: lang.to_owned(),
            fallback: fallback.unwrap_or_else(|| ClipId(String::new())),
        }],
        None => generic.parts,
    };
    if ask {
        parts.extend(message::press_to_accept(lang).parts);
    }
    Prompt { parts }
}

/// The disclosure was played, so far as `disclosed` says.
pub(super) fn disclosed(conversation: &mut Conversation, disclosed: Disclosed, recording: bool) {
    if recording {
        conversation.record_disclosure(DisclosureKind::Recording, disclosed.clone());
    }
    conversation.record_disclosure(DisclosureKind::Ai, disclosed);
}

/// The transition message was played, so far as `disclosed` says.
pub(super) fn announced(conversation: &mut Conversation, disclosed: Disclosed) {
    conversation.record_disclosure(DisclosureKind::Transition, disclosed);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::conversation::Context;
    use crate::id::{CallId, TenantId, TransferId};
    use crate::payload::Catalog;
    use crate::policy::{Category, Origin, Trigger};

    /// A payload of the functions for the first transfer of the bench's call.
    pub(in crate::call) fn revision(revision: u32) -> Payload {
        let call = CallId::from_random(7);
        let trigger = Trigger {
            category: Category::CallerRequest,
            rule_id: "asked".to_owned(),
            evidence: String::new(),
            mandatory: true,
            waives_waits: false,
            also: Vec::new(),
        };
        payload::build(&BuildInput {
            tenant: &TenantId::parse("t_acme").unwrap(),
            call: &call,
            transfer: &TransferId::of(&call, 1),
            trigger: &trigger,
            policy_version: "rules@0",
            origin: Origin::Function,
            context: &Context::default(),
            catalog: &Catalog::default(),
            queue: None,
            revision,
            created_at: Timestamp::from_unix_millis(1_795_330_895_000),
            fired_at: Timestamp::from_unix_millis(1_795_330_895_000),
            public_url: "https://warmbridge.example",
            audit_head: None,
            classification: &[],
        })
    }
}
