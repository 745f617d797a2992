//! What a destination may see of a payload. Both projections are allow-lists: a member that
//! is not named here does not pass. Since an item does not say how sensitive it is, its
//! payload's class decides, and doubt keeps it back.

use serde::{Deserialize, Serialize};

use super::{
    Availability, Caller, Classification, Generator, Grounding, IntentView, Item, Masking, Match, NextAction,
    Payload, Structured, Summary, Transcript, TriggerView, Verification, catalog,
};
use crate::clock::Timestamp;
use crate::id::{CallId, HumanAgentId, PayloadId, TenantId, TransferId};
use crate::pii::Pii;

/// What a destination may receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Personal data.
    pub pii: bool,
    /// Health information.
    pub phi: bool,
}

/// The thin message: ids, one line, and where to look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThinPayload {
    /// Whose.
    pub tenant_id: TenantId,
    /// The call.
    pub call_id: CallId,
    /// The transfer.
    pub transfer_id: TransferId,
    /// The payload.
    pub payload_id: PayloadId,
    /// Which revision.
    pub revision: u32,
    /// Who takes the call, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<HumanAgentId>,
    /// One line, where the grants allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headline: Option<Pii<String>>,
    /// Where the payload is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pop_url: Option<String>,
    /// When that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// The thin message of `payload` for a destination with `grants`.
pub fn thin(
    payload: &Payload,
    agent: Option<&HumanAgentId>,
    pop_url: Option<&str>,
    grants: Grants,
) -> ThinPayload {
    let hidden = Hidden::of(payload, grants);
    let headline = match (hidden.phi, hidden.pii) {
        (true, _) => None,
        // The label is the catalogue's, so it names nobody.
        (false, true) => Some(Pii::new(payload.structured.intent.label.clone())),
        (false, false) => payload.summary.headline.clone(),
    };
    ThinPayload {
        tenant_id: payload.tenant_id.clone(),
        call_id: payload.call_id.clone(),
        transfer_id: payload.transfer_id.clone(),
        payload_id: payload.payload_id.clone(),
        revision: payload.revision,
        agent_id: agent.cloned(),
        headline,
        pop_url: pop_url.map(str::to_owned),
        expires_at: payload.expires_at,
    }
}

/// What must be kept from a destination.
#[derive(Clone, Copy)]
struct Hidden {
    pii: bool,
    phi: bool,
}

impl Hidden {
    fn of(payload: &Payload, grants: Grants) -> Self {
        let classed = |class| payload.classification.contains(&class);
        Self {
            pii: classed(Classification::Pii) && !grants.pii,
            phi: classed(Classification::Phi) && !grants.phi,
        }
    }

    const fn any(self) -> bool {
        self.pii || self.phi
    }
}

/// The whole payload as far as `grants` reach: the minimum that a destination needs.
pub fn project(payload: &Payload, grants: Grants) -> Payload {
    let hidden = Hidden::of(payload, grants);
    if !hidden.any() {
        return payload.clone();
    }
    Payload {
        schema: payload.schema,
        payload_id: payload.payload_id.clone(),
        revision: payload.revision,
        tenant_id: payload.tenant_id.clone(),
        call_id: payload.call_id.clone(),
        transfer_id: payload.transfer_id.clone(),
        created_at: payload.created_at,
        expires_at: payload.expires_at,
        locale: payload.locale.clone(),
        classification: payload
            .classification
            .iter()
            .copied()
            .filter(|class| match class {
                Classification::Phi => !hidden.phi,
                // What is left names nobody only where personal data was taken out.
                Classification::Pii => !hidden.pii,
                Classification::Internal | Classification::PciScope | Classification::FinComm => true,
            })
            .chain(payload.classification.iter().all(is_hidden(hidden)).then_some(Classification::Internal))
            .collect(),
        summary: neutral_summary(),
        structured: structured(&payload.structured, hidden),
        transcript: Transcript {
            // Its link leads to everything that was taken out here.
            availability: match payload.transcript.availability {
                Availability::ConsentWithheld => Availability::ConsentWithheld,
                Availability::OnDemand | Availability::Unavailable => Availability::Unavailable,
            },
            url: None,
            partial: payload.transcript.partial,
            segments: payload.transcript.segments,
            last_seq: payload.transcript.last_seq,
            sha512: None,
            redaction_level: None,
        },
        disclosure: payload.disclosure.clone(),
        redaction: payload.redaction.clone(),
        audit: payload.audit.clone(),
    }
}

fn is_hidden(hidden: Hidden) -> impl Fn(&Classification) -> bool {
    move |class| match class {
        Classification::Phi => hidden.phi,
        Classification::Pii => hidden.pii,
        Classification::Internal | Classification::PciScope | Classification::FinComm => false,
    }
}

/// A summary that is true of every transfer.
fn neutral_summary() -> Summary {
    Summary {
        text: Pii::new(
            "A caller is being transferred to a person. The details are shown to the person who takes the call."
                .to_owned(),
        ),
        sentence_count: 2,
        headline: None,
        whisper_text: None,
        generator: Generator::TemplateFallback,
        model_ref: None,
        grounding: Grounding { verified: true, segments: None, unsupported_claims: None },
    }
}

fn structured(all: &Structured, hidden: Hidden) -> Structured {
    let intent = if hidden.phi {
        IntentView {
            category: catalog::OTHER.to_owned(),
            label: "a question".to_owned(),
            confidence_pm: 0,
            secondary: None,
            sentiment: None,
        }
    } else {
        all.intent.clone()
    };
    // Rules and their evidence can name a diagnosis; the category cannot.
    let trigger = TriggerView {
        rule_id: all.trigger.rule_id.clone().filter(|_| !hidden.phi),
        explanation: all.trigger.explanation.clone().filter(|_| !hidden.phi),
        also: all.trigger.also.clone().filter(|_| !hidden.phi),
        code: all.trigger.code,
        ruleset: all.trigger.ruleset.clone(),
        fired_at: all.trigger.fired_at,
        mandatory: all.trigger.mandatory,
    };
    let caller = if hidden.pii {
        Caller {
            ani: super::Ani {
                e164: None,
                presentation: all.caller.ani.presentation,
                stir: all.caller.ani.stir.clone(),
            },
            matched: Match {
                status: all.caller.matched.status,
                method: all.caller.matched.method,
                candidates: None,
            },
            verification: Verification { level: all.caller.verification.level, methods: None, at: None },
        }
    } else {
        Caller {
            verification: Verification {
                level: all.caller.verification.level,
                methods: all.caller.verification.methods.clone().filter(|_| !hidden.phi),
                at: all.caller.verification.at,
            },
            ..all.caller.clone()
        }
    };
    Structured {
        caller,
        intent,
        trigger,
        collected: if hidden.phi { Vec::new() } else { all.collected.iter().map(removed).collect() },
        next_action: NextAction {
            code: if hidden.phi { catalog::ASSIST.to_owned() } else { all.next_action.code.clone() },
            text: Pii::new("Open the transfer to see what to do first.".to_owned()),
            script_ref: all.next_action.script_ref.clone().filter(|_| !hidden.phi),
            do_not: None,
        },
        actions_taken: if hidden.phi { None } else { all.actions_taken.clone().map(without_references) },
        unresolved: None,
        // A queue's name can be a department's.
        routing: all.routing.clone().filter(|_| !hidden.phi),
        crm: all.crm.as_ref().map(|crm| super::CrmView {
            system: crm.system,
            screen_pop: None,
            prefill: None,
        }),
        completeness: all.completeness.clone().filter(|_| !hidden.phi),
    }
}

/// An item without its value.
fn removed(item: &Item) -> Item {
    Item { value: None, redacted: Some(Masking::Removed), ..item.clone() }
}

fn without_references(actions: Vec<super::ActionTaken>) -> Vec<super::ActionTaken> {
    actions.into_iter().map(|action| super::ActionTaken { reference: None, ..action }).collect()
}
