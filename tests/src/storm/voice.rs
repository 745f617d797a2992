//! What the voice agents of a storm say, as the signals that their door would give.

use handoff::pii::Pii;
use handoff::signal::{
    ConfidenceOf, PAYMENT_BEGINS, PAYMENT_ENDS, PiiClass, RequestReason, Signal, SignalBody, Speaker,
    TransferRequest,
};

use super::plan::Say;

/// The signal; `number` makes its id.
pub(super) fn signal(say: Say, number: u32) -> Signal {
    let id = match say {
        Say::Request | Say::RequestAgain => "request".to_owned(),
        _ => format!("s{number}"),
    };
    // The first request has an id that a second may repeat; later ones have their own.
    let id = if say == Say::Request && number > 1 { format!("s{number}") } else { id };
    Signal { id, at_ms: None, body: body(say) }
}

fn turn(text: &str) -> SignalBody {
    SignalBody::Turn {
        speaker: Speaker::Caller,
        text: Pii::new(text.to_owned()),
        turn: None,
        confidence_pm: None,
        interrupted: false,
    }
}

fn tool(name: &str, ok: bool) -> SignalBody {
    SignalBody::Tool { name: name.to_owned(), ok: Some(ok) }
}

fn body(say: Say) -> SignalBody {
    match say {
        Say::Request | Say::RequestAgain => SignalBody::TransferRequest(TransferRequest {
            reason: RequestReason::CallerRequest,
            queue: None,
            target: None,
            summary: None,
            next_action: None,
            caller_message: None,
            whisper: None,
            on_fail: None,
            fields: Vec::new(),
        }),
        Say::Cancel => SignalBody::TransferCancel,
        Say::CallerAsks => turn("I want to speak to a human"),
        Say::Danger => turn("this is a medical emergency"),
        Say::SmallTalk => turn("it was on Tuesday"),
        Say::LowConfidence => SignalBody::Confidence { value_pm: 120, of: ConfidenceOf::Resolution },
        Say::ToolFails => tool("lookup", false),
        Say::Fault => SignalBody::Error { message: None },
        Say::PaymentBegins => tool(PAYMENT_BEGINS, true),
        Say::PaymentEnds => tool(PAYMENT_ENDS, true),
        Say::RefusesRecording => SignalBody::Consent { value: "refused".to_owned() },
        Say::Field => SignalBody::Field {
            name: "callback_time".to_owned(),
            value: Pii::new("noon".to_owned()),
            confidence_pm: Some(900),
            verified: true,
            class: PiiClass::None,
        },
    }
}
