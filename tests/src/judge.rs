//! What must be true of any call, whatever happened in it: the ledger balances, the record is
//! whole, nobody is left ringing, the caller was never in silence and never heard a whisper.

use std::time::Duration;

use edge_media::media::prompt::ClipStore;
use edge_media::media::tone;
use edge_media::sip::SipEvent;
use handoff::clock::Now;
use handoff::event::Fact;

use crate::phone::{Phone, tones};
use crate::world::World;

/// The longest silence that a caller may hear.
pub const SILENCE_MAX: Duration = Duration::from_millis(500);

/// One frame.
const FRAME: Duration = Duration::from_millis(20);

/// A tone alone for a fifth of a second is its source; a vowel holds any tone for a moment.
const FRAMES_OF_A_SOURCE: usize = 10;

impl Phone {
    /// The longest time without an audible frame between two moments.
    pub fn longest_silence(&self, from: Now, to: Now) -> Duration {
        let inside = self.loud.iter().copied().filter(|at| (from..to).contains(at));
        let edges: Vec<Now> = std::iter::once(from).chain(inside).chain([to]).collect();
        let gaps = edges.iter().zip(edges.iter().skip(1)).map(|(one, next)| next.since(*one));
        gaps.max().unwrap_or_default().saturating_sub(FRAME)
    }

    /// Whether this tone, and no other, was heard for a fifth of a second between two moments.
    pub fn heard_alone(&self, hz: u32, from: Now, to: Now) -> bool {
        let inside = self.heard.iter().filter(|(at, _)| (from..to).contains(at));
        let alone: Vec<bool> = inside.map(|(_, tones)| tones == &[hz]).collect();
        alone.windows(FRAMES_OF_A_SOURCE).any(|run| run.iter().all(|alone| *alone))
    }

    /// Whether the words of this clip were heard.
    pub fn heard_clip(&self, clip: &str) -> bool {
        tone::correlates(&ClipStore::embedded().samples(clip), &self.sound)
    }

    /// Calls that reached this phone or left it, and those of them that are over.
    fn calls(&self) -> (usize, usize) {
        let begun = self.events.iter().filter(|event| matches!(event, SipEvent::Invited { .. })).count();
        let over = self.events.iter().filter(|event| matches!(event, SipEvent::Ended { .. })).count();
        (begun, over)
    }
}

impl World {
    /// Lets a finished call settle, then judges everything that holds for any call.
    pub fn judge(&mut self) {
        self.until("producer.final", Duration::from_secs(60));
        // The far sides answer our last requests.
        self.pass(Duration::from_secs(1));
        self.judge_record();
        for (index, human) in self.humans.iter().enumerate() {
            let (begun, over) = human.calls();
            assert_eq!(begun, over, "agent_{index} is left with a call: {:?}", self.kinds());
        }
        assert_eq!(self.caller.calls().1, 1, "the caller's call is over, once");
        self.judge_whisper();
    }

    /// The record is whole.
    pub fn judge_record(&self) {
        let seqs: Vec<u64> = self.facts.iter().map(|event| event.seq).collect();
        assert!(seqs.iter().zip(0..).all(|(seq, n)| *seq == n), "numbers of facts: {seqs:?}");
        assert_eq!(self.count("leg.opened"), self.count("leg.closed"), "{:?}", self.kinds());
        assert_eq!(self.count("transfer.decided"), self.count("transfer.ended"), "{:?}", self.kinds());
        assert_eq!(self.count("hold.started"), self.count("hold.ended"), "{:?}", self.kinds());
        assert_eq!(self.count("producer.final"), 1);
        assert_eq!(self.facts.last().map(|event| event.fact.kind()), Some("producer.final"));
    }

    /// No whisper ever reached the caller.
    pub fn judge_whisper(&self) {
        let whole = (Now::ZERO, Now::from_millis(u64::MAX / 2_000));
        assert!(!self.caller.heard_alone(tones::WHISPER, whole.0, whole.1), "the caller heard the whisper");
    }

    /// The caller was never in silence, from the disclosure to the last frame.
    pub fn judge_silence(&self) {
        let (Some(first), Some(last)) = (self.caller.loud.first(), self.caller.loud.last()) else {
            panic!("the caller heard nothing at all")
        };
        let silence = self.caller.longest_silence(*first, *last);
        assert!(silence <= SILENCE_MAX, "the caller was in silence for {silence:?}");
    }

    /// How each transfer of the call ended: its outcome's name and where the caller went.
    pub fn outcomes(&self) -> Vec<(&'static str, handoff::call::outcome::FallbackTaken)> {
        let ends = self.facts.iter().filter_map(|event| {
            let Fact::TransferEnded { outcome, fallback, .. } = &event.fact else { return None };
            Some((outcome.name(), *fallback))
        });
        ends.collect()
    }

    /// When the `nth` fact of this type was recorded, counted from 1.
    pub fn nth(&self, kind: &str, nth: usize) -> Now {
        let mut facts = self.facts.iter().filter(|event| event.fact.kind() == kind);
        let fact = facts.nth(nth - 1);
        let Some(fact) = fact else { panic!("no {nth}. `{kind}`: {:?}", self.kinds()) };
        Now::from_micros(fact.mono_us)
    }

    /// The state of the one call, and its phase.
    pub fn stands(&self) -> String {
        let Some((_, standing)) = self.edge.standings().next() else { return "finished".to_owned() };
        let phase = standing.phase.map(|phase| format!("/{}", phase.as_str())).unwrap_or_default();
        format!("{}{phase}", standing.state)
    }

    /// Where the call stands, for a message of a failed test.
    pub fn standing(&self) -> String {
        let standings: Vec<String> =
            self.edge.standings().map(|(_, standing)| format!("{standing:?}")).collect();
        standings.join("; ")
    }
}
