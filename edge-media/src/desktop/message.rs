//! What a desktop page may say, as typed values. Messages are closed: an unknown, missing
//! or unfit member is refused by its name, and nothing of its contents is repeated.

use handoff::call::Input;
use handoff::event::{DeclineReason, Means};
use handoff::id::{HumanAgentId, TransferId};
use serde_json::{Map, Value, json};

/// What a page says about a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DesktopInput {
    /// The card is painted.
    Acked {
        /// Which transfer.
        transfer: TransferId,
        /// Which revision.
        revision: u32,
    },
    /// Yes.
    Accept {
        /// Which transfer.
        transfer: TransferId,
    },
    /// No.
    Decline {
        /// Which transfer.
        transfer: TransferId,
        /// Why.
        reason: DeclineChoice,
    },
    /// Give the caller back to the voice agent.
    HandBack {
        /// Which transfer.
        transfer: TransferId,
    },
}

/// Why a person declines, as the page lets them choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeclineChoice {
    /// Occupied with something else.
    Busy,
    /// It belongs to another team.
    WrongTeam,
    /// No reason given.
    #[default]
    Other,
}

impl DeclineChoice {
    /// The choice by its name in messages.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "busy" => Some(Self::Busy),
            "wrong_team" => Some(Self::WrongTeam),
            "other" => Some(Self::Other),
            _unknown => None,
        }
    }
}

impl From<DeclineChoice> for DeclineReason {
    fn from(choice: DeclineChoice) -> Self {
        match choice {
            DeclineChoice::Busy => Self::Busy,
            DeclineChoice::WrongTeam => Self::WrongTeam,
            DeclineChoice::Other => Self::Declined,
        }
    }
}

impl DesktopInput {
    /// The transfer that it is about.
    pub const fn transfer(&self) -> &TransferId {
        match self {
            Self::Acked { transfer, .. }
            | Self::Accept { transfer }
            | Self::Decline { transfer, .. }
            | Self::HandBack { transfer } => transfer,
        }
    }

    /// The same as an input of the call machine.
    pub fn into_input(self, agent: HumanAgentId, means: Means) -> Input {
        match self {
            Self::Acked { transfer, revision } => Input::DesktopAcked { agent, transfer, revision },
            Self::Accept { transfer } => Input::Accept { agent, transfer, means },
            Self::Decline { transfer, reason } => {
                Input::Decline { agent, transfer, means, reason: reason.into() }
            }
            Self::HandBack { .. } => Input::HandBack { agent },
        }
    }
}

/// Why a message of a page has no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Larger than [`MESSAGE_BYTES_MAX`].
    #[error("message: too large")]
    TooLarge,
    /// Not a JSON object.
    #[error("message: not a JSON object")]
    NotAnObject,
    /// This member is unknown, missing or unfit.
    #[error("{0}: unknown, missing or unfit")]
    Field(String),
    /// The transfer is not offered to this person.
    #[error("transfer: not offered to you")]
    NotYours,
    /// Nothing can be handed back before there is a bridge.
    #[error("type: not connected yet")]
    TooEarly,
    /// A yes was given already: there is nothing left to accept or decline.
    #[error("type: accepted already")]
    TooLate,
}

impl Refusal {
    /// The answer to the page.
    pub fn to_message(&self) -> String {
        let reason = self.to_string();
        let field = reason.split(':').next().unwrap_or_default();
        json!({ "type": "refused", "field": field, "reason": reason }).to_string()
    }
}

/// Reads one message.
pub(super) fn parse(text: &str) -> Result<DesktopInput, Refusal> {
    if text.len() > MESSAGE_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let Ok(Value::Object(members)) = serde_json::from_str(text) else { return Err(Refusal::NotAnObject) };
    let kind = members.get("type").and_then(Value::as_str).ok_or_else(|| field("type"))?;
    let transfer = || {
        let id = members.get("transfer").and_then(Value::as_str);
        id.and_then(|id| TransferId::parse(id).ok()).ok_or_else(|| field("transfer"))
    };
    match kind {
        "ack" => {
            only(&members, &["type", "transfer", "revision"])?;
            let revision =
                members.get("revision").and_then(Value::as_u64).and_then(|r| u32::try_from(r).ok());
            Ok(DesktopInput::Acked {
                transfer: transfer()?,
                revision: revision.ok_or_else(|| field("revision"))?,
            })
        }
        "accept" => {
            only(&members, &["type", "transfer"])?;
            Ok(DesktopInput::Accept { transfer: transfer()? })
        }
        "decline" => {
            only(&members, &["type", "transfer", "reason"])?;
            let reason = match members.get("reason") {
                None => DeclineChoice::Other,
                Some(name) => name.as_str().and_then(DeclineChoice::parse).ok_or_else(|| field("reason"))?,
            };
            Ok(DesktopInput::Decline { transfer: transfer()?, reason })
        }
        "hand_back" => {
            only(&members, &["type", "transfer"])?;
            Ok(DesktopInput::HandBack { transfer: transfer()? })
        }
        _unknown => Err(field("type")),
    }
}

fn only(members: &Map<String, Value>, allowed: &[&str]) -> Result<(), Refusal> {
    members.keys().find(|name| !allowed.contains(&name.as_str())).map_or(Ok(()), |name| Err(field(name)))
}

/// Names come from the page too: only what looks like one is repeated.
fn field(name: &str) -> Refusal {
    let plain = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(FIELD_LEN_MAX).collect();
    Refusal::Field(plain)
}

/// The largest message that a page has to send is a tenth of this.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Longer than any name that there is.
const FIELD_LEN_MAX: usize = 48;
