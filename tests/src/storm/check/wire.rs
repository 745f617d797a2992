//! I7 on the wire: the first copy of every answer to an INVITE of ours is acknowledged at
//! once, with its own tag and number. That nobody is left with a dialog or an answer that
//! nobody acknowledged is asked of the phones themselves, at the end.

use std::collections::BTreeSet;

use handoff::clock::Now;

use super::{Findings, Seen, Watch};

/// Call-ID, tag and CSeq of an answer.
type Answer = (String, String, u32);

/// See the module.
#[derive(Default)]
pub(super) struct Wire {
    known: BTreeSet<Answer>,
    waiting: BTreeSet<Answer>,
}

impl Watch for Wire {
    fn see(&mut self, _: Now, seen: &Seen<'_>, _: &mut Findings) {
        match seen {
            Seen::In(_, message)
                if message.method == "INVITE"
                    && message.status.is_some_and(|status| (200..300).contains(&status)) =>
            {
                let answer = (message.call_id.to_owned(), message.to_tag().to_owned(), message.cseq);
                if self.known.insert(answer.clone()) {
                    self.waiting.insert(answer);
                }
            }
            Seen::Out(_, message) if message.status.is_none() && message.method == "ACK" => {
                let answer = (message.call_id.to_owned(), message.to_tag().to_owned(), message.cseq);
                self.waiting.remove(&answer);
            }
            _ => {}
        }
    }

    fn pass(&mut self, at: Now, findings: &mut Findings) {
        for (_, tag, cseq) in std::mem::take(&mut self.waiting) {
            findings.add("I7", at, format!("an answer ({tag}, cseq {cseq}) is not acknowledged"));
        }
    }
}
