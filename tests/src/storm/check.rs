//! Who judges a storm. Each watch sees what crosses the edge's border and what the world
//! knows and the edge does not (who pressed what, whose audio flows), and holds it to the
//! invariants that it is named after. Watches share no state with each other, with the world
//! or with the product; a violation names its invariant, its moment and its call.

mod hearing;
mod legs;
mod offers;
mod record;
mod wire;

use std::fmt;

use edge_media::media::MediaCommand;
use handoff::call::DesktopPush;
use handoff::clock::Now;
use handoff::event::CallEvent;
use handoff::id::{CallId, HumanAgentId, LegId, PlayId, TransferId};

use super::media::Ear;
use super::plan::Plan;
use super::wire::Message;

/// What a watch sees.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A fact left the edge.
    Fact(&'a CallEvent),
    /// An order to the media plane.
    Media(&'a MediaCommand),
    /// Something for a page.
    Push(&'a HumanAgentId, &'a DesktopPush),
    /// A SIP message leaves the edge for this peer (`None`: an address that nobody has).
    Out(Option<usize>, &'a Message<'a>),
    /// A SIP message of this peer reaches the edge.
    In(usize, &'a Message<'a>),
    /// What a leg hears changes.
    Hears(&'a CallId, LegId, &'a Ear),
    /// A prompt was heard so far, in truth.
    Played(&'a CallId, PlayId, u16),
    /// A person says yes: on this leg, or for this transfer.
    Yes(&'a HumanAgentId, Option<(&'a CallId, LegId)>, Option<&'a TransferId>),
    /// A page has painted this revision, and says so to the edge.
    Painted(&'a HumanAgentId, &'a TransferId, u32),
    /// The CRM has, or missed, the payload of this transfer.
    Crm(&'a TransferId),
    /// The voice agent's link of a call is open; or is over.
    Door(&'a CallId, bool),
    /// The edge forgot a call.
    Forgotten(&'a CallId),
    /// The edge refused an order of its own, or gave one that nothing fits.
    Refused(&'a str),
    /// The operator ended every call, or the configuration was read anew.
    Operator,
}

/// One broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// When.
    pub at: Now,
    /// In words and numbers.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms: {}", self.invariant, self.at.millis(), self.what)
    }
}

/// Where watches write what they found.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Violation>);

impl Findings {
    /// One more.
    pub fn add(&mut self, invariant: &'static str, at: Now, what: impl Into<String>) {
        self.0.push(Violation { invariant, at, what: what.into() });
    }
}

/// One judge.
pub trait Watch {
    /// Something happened.
    fn see(&mut self, at: Now, seen: &Seen<'_>, findings: &mut Findings);
    /// Time has passed up to `at`; called before anything that happens then.
    fn pass(&mut self, _at: Now, _findings: &mut Findings) {}
    /// Nothing follows.
    fn end(&mut self, _at: Now, _findings: &mut Findings) {}
}

/// All of them.
pub fn watches(plan: &Plan) -> Vec<Box<dyn Watch>> {
    vec![
        Box::new(hearing::Hearing::new(plan)),
        Box::new(legs::Legs::default()),
        Box::new(offers::Offers::new(plan)),
        Box::new(record::Record::new(plan)),
        Box::new(wire::Wire::default()),
    ]
}

/// A call's id as a trace shows it.
pub fn short(call: &CallId) -> &str {
    call.as_str().get(..10).unwrap_or("")
}
