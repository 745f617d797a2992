//! Holds a caller's turn back while it may be the beginning of a card number: by the time
//! the rest of the number is heard, the first part must not have gone out. A pure machine
//! between the transcript tap and everything that reads it. It keeps the order of turns,
//! holds for seconds at most, and cannot bring back what it has released: up to three
//! leading digits of a number can escape outside a payment.

use core::time::Duration;
use std::collections::VecDeque;

use super::{Class, Level, PriorTurns, redact_joined, rules};
use crate::clock::Now;
use crate::conversation::Turn;
use crate::pii::Pii;
use crate::signal::Speaker;
use crate::words;

/// Longest wait for the rest of a number. Longer delays triggers, shorter lets a caller who
/// pauses to turn the card over speak past it.
pub const HOLD_MAX: Duration = Duration::from_secs(8);

/// Longest payment. A voice agent that forgets to end it must not stop the transcript, and no
/// recording may be paused for more than 180 s; the rest is for a timer that fires late.
pub const PAYMENT_MAX: Duration = Duration::from_secs(175);

/// Digits at the end of the caller's words from which on a turn is held. Lower holds every
/// house number, higher lets more of a card number escape.
pub const HELD_DIGITS_MIN: usize = 4;

/// Caller's turns over which a number is joined.
pub const JOINED_TURNS: usize = 4;

/// Turns held at most, the voice agent's in between included. At this many all are released,
/// so that a caller who only ever says numbers cannot fill memory.
pub const HELD_MAX: usize = 16;

/// The voice agent's turns in which a question still counts: it may be followed by "pardon?".
const QUESTION_TURNS: usize = 2;

/// What the voice agent says between two parts of a number without ending it.
const ENCOURAGEMENTS: [&str; 28] = [
    "okay", "ok", "yes", "yeah", "mhm", "mm", "hm", "uh", "huh", "right", "sure", "go", "on", "ahead", "got",
    "it", "and", "the", "next", "rest", "then", "more", "continue", "please", "thanks", "thank", "you",
    "great",
];

/// What can happen to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A finished turn, as it was heard. One with the segment of a turn that is held replaces
    /// it.
    Turn(Turn),
    /// Something in what is held cannot wait: all of it goes out now, without its numbers.
    Hurry,
    /// The voice agent's tool or the policy says that a payment begins.
    PaymentStarted,
    /// The payment is over.
    PaymentEnded,
    /// `next_timeout` has come.
    Timeout,
    /// The call or its transcript ends: nothing more will come.
    Flush,
}

/// What it lets out.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A turn, redacted, in the order in which the turns came.
    Release {
        /// The turn.
        turn: Turn,
        /// What was taken out of it and of the turns released with it; on the first of them.
        counts: Vec<(Class, u32)>,
    },
    /// The payment state begins or ends: pause or resume the recorder.
    Payment {
        /// It begins.
        on: bool,
    },
}

/// The machine; one per call.
#[derive(Clone, Debug)]
pub struct HoldBack {
    level: Level,
    held: VecDeque<Held>,
    release_at: Option<Now>,
    payment_until: Option<Now>,
    /// A number that was hurried out may go on: its rest is masked as in a payment.
    masked_until: Option<Now>,
    /// Last words of the voice agent, newest last.
    questions: VecDeque<Pii<String>>,
    /// Redacted texts of the caller's last released turns, while each ends in a digit.
    released: VecDeque<Pii<String>>,
}

#[derive(Clone, Debug)]
struct Held {
    turn: Turn,
    question: Pii<String>,
    payment: bool,
}

impl HoldBack {
    /// A machine that redacts at `level`, at least `R1_pci`: what it feeds leaves the process.
    pub fn new(level: Level) -> Self {
        Self {
            level: level.max(Level::R1Pci),
            held: VecDeque::new(),
            release_at: None,
            payment_until: None,
            masked_until: None,
            questions: VecDeque::new(),
            released: VecDeque::new(),
        }
    }

    /// Takes one input in.
    #[must_use = "outputs are the only effect of the machine"]
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Turn(turn) => self.turn(now, turn, &mut out),
            Input::Hurry => {
                for held in &mut self.held {
                    held.payment = true;
                }
                self.masked_until = Some(now + HOLD_MAX);
                self.release(&mut out);
            }
            // A second one does not prolong the first.
            Input::PaymentStarted => {
                if self.payment_until.is_none() {
                    self.payment_until = Some(now + PAYMENT_MAX);
                    out.push(Output::Payment { on: true });
                }
            }
            Input::PaymentEnded => self.end_payment(&mut out),
            Input::Timeout => {
                if self.release_at.is_some_and(|due| due <= now) {
                    self.release(&mut out);
                }
                if self.payment_until.is_some_and(|due| due <= now) {
                    self.end_payment(&mut out);
                }
            }
            Input::Flush => {
                self.release(&mut out);
                self.end_payment(&mut out);
            }
        }
        out
    }

    /// The next time at which `handle(now, Input::Timeout)` has something to do.
    pub fn next_timeout(&self) -> Option<Now> {
        self.release_at.into_iter().chain(self.payment_until).min()
    }

    fn turn(&mut self, now: Now, turn: Turn, out: &mut Vec<Output>) {
        if self.held.back().is_some_and(|last| last.turn.segment == turn.segment) {
            self.held.pop_back();
        } else if let Some(held) = self.held.iter_mut().find(|held| held.turn.segment == turn.segment) {
            held.turn = turn;
            return;
        }
        let question = self.question();
        let masked = self.masked_until.is_some_and(|until| now < until);
        let payment = masked || self.payment_until.is_some();
        let caller = turn.speaker == Speaker::Caller;
        if !caller {
            self.questions.push_back(turn.text.clone());
            if self.questions.len() > QUESTION_TURNS {
                self.questions.pop_front();
            }
        }
        let encourages = !caller && encourages(turn.text.expose());
        let keeps = if caller {
            self.keeps_waiting(&turn, &question, payment)
        } else {
            !self.held.is_empty() && encourages
        };
        if masked && keeps {
            self.masked_until = Some(now + HOLD_MAX);
        }
        self.held.push_back(Held { turn, question: Pii::new(question), payment });
        if !keeps || self.held.len() >= HELD_MAX {
            self.release(out);
        } else if caller {
            self.release_at = Some(now + HOLD_MAX);
        }
    }

    /// Whether a caller's turn may be followed by the rest of its number.
    fn keeps_waiting(&self, turn: &Turn, question: &str, payment: bool) -> bool {
        let text = turn.text.expose();
        let trailing = trailing_digits(text);
        if trailing == 0 {
            return false;
        }
        if payment || rules::asks_for_code(question) {
            return true;
        }
        // The number may have begun in the caller's turns directly before this one.
        let mut joined = trailing;
        let mut whole = all_digits(text);
        let held = self.held.iter().rev().filter(|held| held.turn.speaker == Speaker::Caller);
        let before =
            held.map(|held| held.turn.text.expose()).chain(self.released.iter().rev().map(Pii::expose));
        for earlier in before.take(JOINED_TURNS - 1) {
            let digits = trailing_digits(earlier);
            if !whole || digits == 0 {
                break;
            }
            joined += digits;
            whole = all_digits(earlier);
        }
        joined >= HELD_DIGITS_MIN
    }

    fn question(&self) -> String {
        self.questions.iter().map(|turn| turn.expose().as_str()).collect::<Vec<_>>().join(". ")
    }

    fn end_payment(&mut self, out: &mut Vec<Output>) {
        if self.payment_until.take().is_some() {
            // What was said during the payment goes out under its rules.
            self.release(out);
            out.push(Output::Payment { on: false });
        }
    }

    /// Redacts everything held as one text, speaker by speaker, and lets it go.
    fn release(&mut self, out: &mut Vec<Output>) {
        self.release_at = None;
        if self.held.is_empty() {
            return;
        }
        let payment = self.held.iter().any(|held| held.payment);
        let question = self
            .held
            .iter()
            .find(|held| held.turn.speaker == Speaker::Caller)
            .map(|held| held.question.expose().clone())
            .unwrap_or_default();
        // What went out already can no longer change, but a number may have begun there.
        let escaped = self.released.len();
        let mut caller: Vec<String> = self.released.drain(..).map(Pii::into_exposed).collect();
        caller.extend(texts(&self.held, true));
        let mut counts =
            redact_joined(&mut caller, self.level, &PriorTurns { question: Some(&question), payment });
        let mut others: Vec<String> = texts(&self.held, false).collect();
        // Only a payment changes what the voice agent's own numbers mean: it reads them back.
        for other in &mut others {
            let prior = PriorTurns { question: None, payment };
            for (class, count) in redact_joined(core::slice::from_mut(other), self.level, &prior) {
                match counts.iter_mut().find(|(known, _)| *known == class) {
                    Some((_, sum)) => *sum = sum.saturating_add(count),
                    None => counts.push((class, count)),
                }
            }
        }
        let mut caller = caller.into_iter().skip(escaped);
        let mut others = others.into_iter();
        for Held { mut turn, question, payment } in core::mem::take(&mut self.held) {
            let by_caller = turn.speaker == Speaker::Caller;
            let text = if by_caller { caller.next() } else { others.next() };
            let mut pieces = [text.unwrap_or_default()];
            if by_caller {
                // Each answer is also judged by the question that it answers itself.
                let prior = PriorTurns { question: Some(question.expose()), payment };
                counts.extend(redact_joined(&mut pieces, self.level, &prior));
            }
            let [text] = pieces;
            turn.text = Pii::new(text);
            if by_caller {
                self.remember(&turn.text);
            }
            out.push(Output::Release { turn, counts: core::mem::take(&mut counts) });
        }
    }

    /// Keeps what the next number may have begun with: an unbroken row of turns that end in
    /// digits.
    fn remember(&mut self, text: &Pii<String>) {
        if trailing_digits(text.expose()) == 0 {
            self.released.clear();
            return;
        }
        self.released.push_back(text.clone());
        if self.released.len() >= JOINED_TURNS {
            self.released.pop_front();
        }
    }
}

fn texts(held: &VecDeque<Held>, caller: bool) -> impl Iterator<Item = String> {
    held.iter()
        .filter(move |held| (held.turn.speaker == Speaker::Caller) == caller)
        .map(|held| held.turn.text.expose().clone())
}

/// Digits of the number with which a text ends; 0 where words follow it.
fn trailing_digits(text: &str) -> usize {
    let tokens = words::tokens(text);
    let runs = words::runs(&tokens);
    let Some(last) = runs.last() else { return 0 };
    let rest = tokens.get(last.tokens.end..).unwrap_or_default();
    if rest.iter().all(|token| words::is_filler(&token.folded)) { last.digits.len() } else { 0 }
}

/// Nothing but one number and fillers.
fn all_digits(text: &str) -> bool {
    let tokens = words::tokens(text);
    let runs = words::runs(&tokens);
    let [only] = runs.as_slice() else { return false };
    let lead = tokens.get(..only.tokens.start).unwrap_or_default();
    trailing_digits(text) > 0 && lead.iter().all(|token| words::is_filler(&token.folded))
}

/// A word that only asks the caller to go on, or digits that are read back.
fn encourages(text: &str) -> bool {
    let tokens = words::tokens(text);
    let runs = words::runs(&tokens);
    tokens.iter().enumerate().all(|(index, token)| {
        ENCOURAGEMENTS.contains(&token.folded.as_str())
            || words::is_filler(&token.folded)
            || matches!(token.folded.as_str(), "digits" | "numbers" | "number" | "what" | "s")
            || runs.iter().any(|run| run.tokens.contains(&index))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Now {
        Now::from_millis(millis)
    }

    fn turn(segment: u32, speaker: Speaker, text: &str) -> Input {
        Input::Turn(Turn { segment, speaker, text: Pii::new(text.to_owned()), at_ms: 0 })
    }

    fn caller(segment: u32, text: &str) -> Input {
        turn(segment, Speaker::Caller, text)
    }

    fn agent(segment: u32, text: &str) -> Input {
        turn(segment, Speaker::Agent, text)
    }

    fn shown(outputs: &[Output]) -> Vec<String> {
        outputs
            .iter()
            .map(|output| match output {
                Output::Release { turn, .. } => format!("{} {}", turn.segment, turn.text.expose()),
                Output::Payment { on } => format!("payment {on}"),
            })
            .collect()
    }

    fn feed(machine: &mut HoldBack, inputs: Vec<Input>) -> Vec<String> {
        inputs.into_iter().flat_map(|input| shown(&machine.handle(at(0), input))).collect()
    }

    #[test]
    fn turns_without_numbers_pass_at_once() {
        let mut machine = HoldBack::new(Level::R1Pci);
        assert_eq!(shown(&machine.handle(at(0), agent(0, "How can I help?"))), ["0 How can I help?"]);
        assert_eq!(
            shown(&machine.handle(at(1), caller(1, "I live at number 12"))),
            ["1 I live at number 12"]
        );
        assert_eq!(machine.next_timeout(), None);
    }

    #[test]
    fn a_card_number_over_three_turns_goes_out_redacted_when_words_follow() {
        let mut machine = HoldBack::new(Level::R1Pci);
        assert!(
            feed(
                &mut machine,
                vec![
                    caller(0, "it's four one one one"),
                    agent(1, "Mhm, go on."),
                    caller(2, "1111 1111"),
                    agent(3, "And the rest?"),
                    caller(4, "one one one one"),
                ]
            )
            .is_empty()
        );
        let released = machine.handle(at(5), agent(5, "Thank you, I have charged the card."));
        assert_eq!(
            shown(&released),
            [
                "0 it's [PAN]",
                "1 Mhm, go on.",
                "2 [PAN]",
                "3 And the rest?",
                "4 [PAN]",
                "5 Thank you, I have charged the card."
            ]
        );
        let Some(Output::Release { counts, .. }) = released.first() else { panic!("nothing was released") };
        assert_eq!(counts, &[(Class::Pan, 1)]);
    }

    #[test]
    fn a_harmless_number_goes_out_whole_after_eight_seconds() {
        let mut machine = HoldBack::new(Level::R1Pci);
        assert!(machine.handle(at(1_000), caller(0, "order 88417")).is_empty());
        assert_eq!(machine.next_timeout(), Some(at(9_000)));
        assert!(machine.handle(at(8_999), Input::Timeout).is_empty());
        assert_eq!(shown(&machine.handle(at(9_000), Input::Timeout)), ["0 order 88417"]);
        assert_eq!(machine.next_timeout(), None);
    }

    #[test]
    fn each_further_group_of_digits_gets_its_own_eight_seconds() {
        let mut machine = HoldBack::new(Level::R1Pci);
        let _ = machine.handle(at(0), caller(0, "4111 1111"));
        let _ = machine.handle(at(7_000), caller(1, "1111"));
        assert_eq!(machine.next_timeout(), Some(at(15_000)));
        let _ = machine.handle(at(14_000), caller(2, "1111"));
        assert_eq!(shown(&machine.handle(at(22_000), Input::Timeout)), ["0 [PAN]", "1 [PAN]", "2 [PAN]"]);
    }

    #[test]
    fn at_most_three_leading_digits_escape() {
        let mut machine = HoldBack::new(Level::R1Pci);
        assert_eq!(shown(&machine.handle(at(0), caller(0, "411"))), ["0 411"]);
        assert!(machine.handle(at(1), caller(1, "11111 1111")).is_empty());
        assert!(machine.handle(at(2), caller(2, "1111")).is_empty());
        assert_eq!(shown(&machine.handle(at(3), Input::Flush)), ["1 [PAN]", "2 [PAN]"]);
    }

    #[test]
    fn a_bare_answer_to_a_question_for_a_code_is_held_from_its_first_digit() {
        let mut machine = HoldBack::new(Level::R1Pci);
        let _ = machine.handle(at(0), agent(0, "What is the security code on the back?"));
        assert!(machine.handle(at(1), caller(1, "one")).is_empty());
        assert!(machine.handle(at(2), agent(2, "Okay")).is_empty());
        assert!(machine.handle(at(3), caller(3, "two three")).is_empty());
        assert_eq!(
            shown(&machine.handle(at(4), caller(4, "that is all"))),
            ["1 [CVV]", "2 Okay", "3 [CVV]", "4 that is all"]
        );
    }

    #[test]
    fn a_payment_holds_from_the_first_digit_and_ends_by_itself() {
        let mut machine = HoldBack::new(Level::R1Pci);
        assert_eq!(shown(&machine.handle(at(0), Input::PaymentStarted)), ["payment true"]);
        assert_eq!(machine.next_timeout(), Some(at(175_000)));
        assert!(machine.handle(at(0), Input::PaymentStarted).is_empty());
        assert!(machine.handle(at(1), caller(0, "4")).is_empty());
        assert!(machine.handle(at(2), caller(1, "111 1111")).is_empty());
        let released = machine.handle(at(3), agent(2, "I read back four one one one, one one one one"));
        assert_eq!(shown(&released), ["0 [PAN]", "1 [PAN]", "2 I read back [PAN]"]);
        assert_eq!(shown(&machine.handle(at(175_000), Input::Timeout)), ["payment false"]);
        assert!(machine.handle(at(175_001), Input::PaymentEnded).is_empty());
    }

    #[test]
    fn what_was_said_during_a_payment_is_released_under_its_rules() {
        let mut machine = HoldBack::new(Level::R1Pci);
        let _ = machine.handle(at(0), Input::PaymentStarted);
        let _ = machine.handle(at(1), caller(0, "1 2 3"));
        assert_eq!(shown(&machine.handle(at(2), Input::PaymentEnded)), ["0 [CVV]", "payment false"]);
    }

    #[test]
    fn what_cannot_wait_goes_out_without_its_numbers_and_so_does_their_rest() {
        let mut machine = HoldBack::new(Level::R1Pci);
        let _ = machine.handle(at(0), caller(0, "give me a person, it's 4111 1111"));
        assert_eq!(shown(&machine.handle(at(1), Input::Hurry)), ["0 give me a person, it's [PAN]"]);
        assert!(machine.handle(at(5_000), caller(1, "1111")).is_empty());
        assert!(machine.handle(at(10_000), caller(2, "11")).is_empty());
        let released = machine.handle(at(10_001), caller(3, "hello?"));
        assert!(!shown(&released).concat().contains('1'.to_string().repeat(2).as_str()), "{released:?}");
        assert_eq!(machine.next_timeout(), None);
    }

    #[test]
    fn a_corrected_turn_replaces_the_one_that_is_held() {
        let mut machine = HoldBack::new(Level::R1Pci);
        assert!(machine.handle(at(0), caller(0, "4111 111")).is_empty());
        assert!(machine.handle(at(1), caller(0, "4111 1111")).is_empty());
        assert!(machine.handle(at(2), caller(1, "1111 111")).is_empty());
        assert!(machine.handle(at(3), caller(0, "4111 1111")).is_empty());
        assert!(machine.handle(at(3), caller(1, "1111 1111")).is_empty());
        assert_eq!(shown(&machine.handle(at(4), Input::Flush)), ["0 [PAN]", "1 [PAN]"]);
    }

    #[test]
    fn a_caller_who_only_says_numbers_cannot_fill_memory() {
        let mut machine = HoldBack::new(Level::R1Pci);
        let mut most = 0;
        for segment in 0..1_000 {
            let _ = machine.handle(at(u64::from(segment)), caller(segment, "1234"));
            most = most.max(machine.held.len() + machine.released.len());
        }
        assert!(most <= HELD_MAX + JOINED_TURNS, "{most}");
    }

    proptest! {
        #[test]
        fn a_card_cut_anywhere_into_turns_never_goes_out(
            cuts in prop::collection::vec(4_usize..8, 1..4),
            spoken in any::<bool>(),
        ) {
            const WORDS: [&str; 10] =
                ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
            let mut rest = "5555555555554444";
            let mut machine = HoldBack::new(Level::R1Pci);
            let mut out = Vec::new();
            for (segment, cut) in (0_u32..).zip(cuts.iter().copied().chain([16])) {
                let (group, tail) = rest.split_at(cut.min(rest.len()));
                rest = tail;
                if group.is_empty() {
                    break;
                }
                let text = if spoken {
                    group.bytes().map(|digit| WORDS[usize::from(digit - b'0')]).collect::<Vec<_>>().join(" ")
                } else {
                    group.to_owned()
                };
                out.extend(shown(&machine.handle(at(0), caller(segment, &text))));
            }
            out.extend(shown(&machine.handle(at(1), Input::Flush)));
            for line in out {
                let text = line.split_once(' ').map_or("", |(_, text)| text);
                prop_assert_eq!(text, "[PAN]");
            }
        }

        #[test]
        fn every_turn_comes_out_once_and_in_order(
            turns in prop::collection::vec((any::<bool>(), "[0-9a-z ]{0,12}", 0_u64..12_000), 0..40),
        ) {
            let mut machine = HoldBack::new(Level::R1Pci);
            let mut now = 0;
            let mut out = Vec::new();
            let mut last = 0;
            for (segment, (by_caller, text, wait)) in (0_u32..).zip(turns) {
                now += wait;
                while let Some(due) = machine.next_timeout().filter(|due| *due <= at(now)) {
                    out.extend(machine.handle(due, Input::Timeout));
                }
                let input = if by_caller { caller(segment, &text) } else { agent(segment, &text) };
                out.extend(machine.handle(at(now), input));
                last = segment + 1;
            }
            out.extend(machine.handle(at(now), Input::Flush));
            let order: Vec<u32> = out
                .iter()
                .filter_map(|output| match output {
                    Output::Release { turn, .. } => Some(turn.segment),
                    Output::Payment { .. } => None,
                })
                .collect();
            prop_assert_eq!(order, (0..last).collect::<Vec<_>>());
        }
    }
}
