//! How a transfer and a leg end, and whose doing it was. Every ending is one of these
//! typed values: the caller's line, the retry rule and the alarm follow from the value,
//! never from a string.

use serde::{Deserialize, Serialize};

/// The phase of a transfer in which something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The transition message plays (a human may be dialled already).
    Announcing,
    /// A human agent's phone rings, or one is being looked for.
    Offering,
    /// A human agent hears the whisper.
    Briefing,
    /// Accepted; waiting for message and acknowledgement.
    Barrier,
    /// Voice agent introduces both.
    Introducing,
    /// Connected.
    Bridged,
}

impl Phase {
    /// The name used in contracts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Announcing => "announcing",
            Self::Offering => "offering",
            Self::Briefing => "briefing",
            Self::Barrier => "barrier",
            Self::Introducing => "introducing",
            Self::Bridged => "bridged",
        }
    }
}

/// Why a transfer failed for a reason of ours or of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCause {
    /// Nobody in the queue could be offered the call.
    NobodyAvailable,
    /// The SIP peer refused in a way that says nothing about the person (4xx, 5xx).
    SignallingRefused,
    /// The SIP peer never answered at all.
    Unreachable,
    /// No two-way audio within two seconds of the bridge.
    OneWayAudio,
    /// We ran out of a bounded resource.
    NoResources,
    /// The edge drained.
    Drained,
}

/// How a transfer ended. Names are those of the report and the audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Outcome {
    /// Accepted, two-way audio seen, payload acknowledged.
    Completed,
    /// Bridged, but something required was missing.
    CompletedDegraded {
        /// What was missing.
        reason: DegradedReason,
    },
    /// The caller left before the bridge.
    AbandonedByCaller {
        /// When.
        phase: Phase,
    },
    /// The ring timer expired.
    NoAnswer,
    /// Busy or unavailable.
    Busy,
    /// A person said no.
    Declined,
    /// Answered, but never accepted.
    Voicemail,
    /// The human agent vanished.
    AgentLost {
        /// When.
        phase: Phase,
    },
    /// Nobody was tried; the voice agent has the caller again.
    ReturnedToVoiceAgent,
    /// Nobody was tried; a call-back is arranged.
    CallbackScheduled,
    /// Taken back before anybody accepted.
    Cancelled,
    /// Ours or the network's fault.
    Failed {
        /// What.
        cause: FailureCause,
    },
}

impl Outcome {
    /// The bare name, as in the report and the audit record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::CompletedDegraded { .. } => "completed_degraded",
            Self::AbandonedByCaller { .. } => "abandoned_by_caller",
            Self::NoAnswer => "no_answer",
            Self::Busy => "busy",
            Self::Declined => "declined",
            Self::Voicemail => "voicemail",
            Self::AgentLost { .. } => "agent_lost",
            Self::ReturnedToVoiceAgent => "returned_to_voice_agent",
            Self::CallbackScheduled => "callback_scheduled",
            Self::Cancelled => "cancelled",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whose doing it was.
    pub const fn class(self) -> OutcomeClass {
        match self {
            Self::Completed | Self::CompletedDegraded { .. } => OutcomeClass::Success,
            Self::AbandonedByCaller { .. } | Self::Cancelled => OutcomeClass::ClientError,
            Self::NoAnswer | Self::Busy | Self::Declined | Self::Voicemail | Self::AgentLost { .. } => {
                OutcomeClass::UpstreamError
            }
            Self::ReturnedToVoiceAgent | Self::CallbackScheduled => OutcomeClass::Indeterminate,
            Self::Failed { cause } => match cause {
                FailureCause::SignallingRefused | FailureCause::Unreachable => OutcomeClass::UpstreamError,
                FailureCause::NobodyAvailable | FailureCause::NoResources | FailureCause::Drained => {
                    OutcomeClass::ServerError
                }
                FailureCause::OneWayAudio => OutcomeClass::Indeterminate,
            },
        }
    }

    /// The next person is tried after an attempt that ended so.
    pub const fn is_retried(self) -> bool {
        match self {
            Self::NoAnswer | Self::Busy | Self::Declined | Self::Voicemail | Self::AgentLost { .. } => true,
            Self::Failed { cause } => {
                matches!(cause, FailureCause::SignallingRefused | FailureCause::Unreachable)
            }
            Self::Completed
            | Self::CompletedDegraded { .. }
            | Self::AbandonedByCaller { .. }
            | Self::ReturnedToVoiceAgent
            | Self::CallbackScheduled
            | Self::Cancelled => false,
        }
    }

    /// Somebody who runs the system has to look at it.
    pub const fn alarms(self) -> bool {
        match self {
            Self::Failed { .. } => true,
            Self::CompletedDegraded { reason } => matches!(reason, DegradedReason::OneWayAudio),
            Self::Completed
            | Self::AbandonedByCaller { .. }
            | Self::NoAnswer
            | Self::Busy
            | Self::Declined
            | Self::Voicemail
            | Self::AgentLost { .. }
            | Self::ReturnedToVoiceAgent
            | Self::CallbackScheduled
            | Self::Cancelled => false,
        }
    }
}

/// Why a transfer that bridged is not simply `completed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DegradedReason {
    /// Nobody was connected who could acknowledge.
    NoDesktop,
    /// The desktop did not acknowledge within the barrier's limit.
    AckTimeout,
    /// A destination configured as required missed its budget.
    DestinationMissed,
    /// Two-way audio was not seen in time.
    OneWayAudio,
}

impl DegradedReason {
    /// The name used in contracts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoDesktop => "no_desktop",
            Self::AckTimeout => "ack_timeout",
            Self::DestinationMissed => "destination_missed",
            Self::OneWayAudio => "one_way_audio",
        }
    }
}

/// Whose doing an outcome was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeClass {
    /// It worked.
    Success,
    /// The caller's doing.
    ClientError,
    /// The human agent's or the peer's doing.
    UpstreamError,
    /// Ours.
    ServerError,
    /// Cannot be told.
    Indeterminate,
}

impl OutcomeClass {
    /// The name used in contracts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ClientError => "client_error",
            Self::UpstreamError => "upstream_error",
            Self::ServerError => "server_error",
            Self::Indeterminate => "indeterminate",
        }
    }
}

/// Where the caller went when no human agent took the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FallbackTaken {
    /// Nowhere: there was no need.
    #[default]
    None,
    /// To the people of another queue; never the last word of a transfer.
    Queue,
    /// Back to the voice agent.
    VoiceAgent,
    /// Voicemail.
    Voicemail,
    /// A call-back.
    Callback,
    /// The closing message, then the end.
    Closing,
}

/// Why a leg ended. Exactly one per leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegCause {
    /// The far end hung up.
    RemoteHangUp,
    /// We hung up, as planned.
    LocalHangUp,
    /// We took the offer back before it was answered.
    Cancelled,
    /// Ring timer.
    NoAnswer,
    /// 486, 600, 480.
    Busy,
    /// 603.
    Declined,
    /// Any other final refusal before the answer.
    Refused,
    /// Never answered at all, or the transport failed.
    Unreachable,
    /// An answered leg went silent or its transaction timed out.
    Lost,
    /// The edge drained.
    Drained,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Outcome> {
        let failed = [
            FailureCause::NobodyAvailable,
            FailureCause::SignallingRefused,
            FailureCause::Unreachable,
            FailureCause::OneWayAudio,
            FailureCause::NoResources,
            FailureCause::Drained,
        ];
        let degraded = [
            DegradedReason::NoDesktop,
            DegradedReason::AckTimeout,
            DegradedReason::DestinationMissed,
            DegradedReason::OneWayAudio,
        ];
        let phase = Phase::Briefing;
        let mut all = vec![
            Outcome::Completed,
            Outcome::AbandonedByCaller { phase },
            Outcome::NoAnswer,
            Outcome::Busy,
            Outcome::Declined,
            Outcome::Voicemail,
            Outcome::AgentLost { phase },
            Outcome::ReturnedToVoiceAgent,
            Outcome::CallbackScheduled,
            Outcome::Cancelled,
        ];
        all.extend(failed.map(|cause| Outcome::Failed { cause }));
        all.extend(degraded.map(|reason| Outcome::CompletedDegraded { reason }));
        all
    }

    #[test]
    fn names_are_those_of_the_record() {
        for outcome in all() {
            let value = serde_json::to_value(outcome).unwrap();
            assert_eq!(value["name"], outcome.name());
            assert_eq!(serde_json::to_value(outcome.class()).unwrap(), outcome.class().as_str());
            if let Outcome::CompletedDegraded { reason } = outcome {
                assert_eq!(value["reason"], reason.as_str());
            }
            if let Outcome::AgentLost { phase } | Outcome::AbandonedByCaller { phase } = outcome {
                assert_eq!(value["phase"], phase.as_str());
            }
        }
    }

    #[test]
    fn what_is_retried_was_no_success_and_nobody_is_retried_without_the_caller() {
        for outcome in all().into_iter().filter(|outcome| outcome.is_retried()) {
            assert_eq!(outcome.class(), OutcomeClass::UpstreamError, "{outcome:?}");
        }
        assert!(!Outcome::AbandonedByCaller { phase: Phase::Barrier }.is_retried());
    }
}
