//! What people and their phones do with a call: ring, answer, press, mute, hold, leave.

use edge_media::edge::EdgeInput;
use edge_media::media::MediaEvent;
use handoff::call::media::MediaReport;
use handoff::event::Means;
use handoff::id::{CallId, LegId, TransferId};

use super::super::check::Seen;
use super::super::house;
use super::super::media::Follows;
use super::super::peer::{Effects, News, Stand};
use super::super::plan::{First, Habit, Then, Yes};
use super::{Act, Event, World};

impl World<'_> {
    pub(super) fn effects(&mut self, peer: usize, effects: Effects) {
        let Effects { sent, timers, news } = effects;
        for bytes in sent {
            self.travel(Event::ToEdge(peer, bytes));
        }
        for (after, timer) in timers {
            let at = self.now + after;
            self.at(at, Event::PeerTimer(peer, timer));
        }
        for news in news {
            match news {
                News::Invited(dialog) => self.invited(peer, dialog),
                News::Answered(dialog) | News::Flow(dialog) => self.flow(peer, dialog),
                News::Cancelled(_) => {}
            }
        }
    }

    pub(super) fn flow(&mut self, peer: usize, dialog: usize) {
        let Some(known) = self.peers[peer].dialogs.get(dialog) else { return };
        let (Some(port), flows) = (known.edge_port, known.flows()) else { return };
        let mut follows = Follows::default();
        let call = self.plane.leg_of(port).map(|(call, _)| call.clone());
        self.plane.flow(self.now, port, flows, &mut follows);
        self.follow(follows);
        if let Some(call) = call {
            self.wake(call);
        }
    }

    pub(super) fn invited(&mut self, peer: usize, dialog: usize) {
        let Some(place) = peer.checked_sub(self.plan.calls.len()) else { return };
        let habit = habit_of(&self.plan.people[place].habits, dialog);
        let mut effects = Effects::default();
        match habit.first {
            First::Dead => {}
            First::Trying => self.peers[peer].provisional(dialog, 100, &mut effects),
            First::Rings => self.after(30, Event::Human(peer, dialog, Act::Ring)),
            First::Answers(ms) => {
                self.peers[peer].provisional(dialog, 180, &mut effects);
                self.after(ms.max(1), Event::Human(peer, dialog, Act::Answer));
            }
            First::Refuses(status, ms) => {
                self.peers[peer].provisional(dialog, 100, &mut effects);
                self.after(ms, Event::Human(peer, dialog, Act::Refuse(status)));
            }
        }
        self.effects(peer, effects);
    }

    pub(super) fn human(&mut self, peer: usize, dialog: usize, act: Act) {
        let place = peer - self.plan.calls.len();
        let habit = habit_of(&self.plan.people[place].habits, dialog);
        let mut effects = Effects::default();
        let up = self.peers[peer].dialogs.get(dialog).is_some_and(|known| known.stand == Stand::Up);
        let live = up && !self.peers[peer].vanished;
        match act {
            Act::Ring => self.peers[peer].provisional(dialog, 180, &mut effects),
            Act::Answer => {
                let early = self.peers[peer].dialogs.get(dialog).map(|known| known.stand);
                if early == Some(Stand::Early) && !self.peers[peer].vanished {
                    if self.plan.people[place].accept_on_answer && self.plan.people[place].trusted {
                        self.says_yes(peer, dialog, place);
                    }
                    let phones = if habit.forks { 2 } else { 1 };
                    self.peers[peer].answer(dialog, phones, &mut effects);
                    self.acts_after_answer(peer, dialog, habit);
                }
            }
            Act::Refuse(status) => self.peers[peer].refuse(dialog, status, &mut effects),
            Act::Yes(way, left) if live => {
                self.says_yes(peer, dialog, place);
                self.say(peer, dialog, place, way, '1', &mut effects);
                if left > 0 {
                    self.after(2_500, Event::Human(peer, dialog, Act::Yes(way, left - 1)));
                }
            }
            Act::No(way) if live => self.say(peer, dialog, place, way, '2', &mut effects),
            Act::Bye if live => self.peers[peer].hang_up(dialog, &mut effects),
            Act::Vanish => {
                self.trace(|| "a human agent's phone vanishes".to_owned());
                self.peers[peer].vanish(&mut effects);
            }
            Act::Mute(ms) => {
                self.mute(peer, dialog, true);
                self.after(ms, Event::Unmute(peer, dialog));
            }
            Act::Hold(ms) if live => {
                self.peers[peer].hold(dialog, true, &mut effects);
                self.after(ms, Event::Unhold(peer, dialog));
            }
            Act::HandBack if live => {
                if let Some(transfer) = self.transfer_of(peer, dialog) {
                    self.give(EdgeInput::HandBack(self.ids[place].clone(), transfer));
                }
            }
            Act::Yes(..) | Act::No(_) | Act::Bye | Act::Hold(_) | Act::HandBack => {}
        }
        self.effects(peer, effects);
    }

    pub(super) fn acts_after_answer(&mut self, peer: usize, dialog: usize, habit: Habit) {
        let then = habit.then;
        let acts = [
            then.yes.map(|(ms, way)| (ms, Act::Yes(way, 4))),
            then.no.map(|(ms, way)| (ms, Act::No(way))),
            then.bye.map(|ms| (ms, Act::Bye)),
            then.vanishes.map(|ms| (ms, Act::Vanish)),
            then.mute.map(|(ms, long)| (ms, Act::Mute(long))),
            then.hold.map(|(ms, long)| (ms, Act::Hold(long))),
            then.hand_back.map(|ms| (ms, Act::HandBack)),
            // Nobody stays on a telephone for ever.
            Some((90_000, Act::Bye)),
        ];
        for (ms, act) in acts.into_iter().flatten() {
            self.after(ms.max(1), Event::Human(peer, dialog, act));
        }
    }

    pub(super) fn leg_of(&self, peer: usize, dialog: usize) -> Option<(CallId, LegId)> {
        let port = self.peers[peer].dialogs.get(dialog)?.edge_port?;
        self.plane.leg_of(port).cloned()
    }

    pub(super) fn transfer_of(&self, peer: usize, dialog: usize) -> Option<TransferId> {
        let (call, _) = self.leg_of(peer, dialog)?;
        self.calls.get(&call)?.transfer.clone()
    }

    pub(super) fn says_yes(&mut self, peer: usize, dialog: usize, place: usize) {
        let leg = self.leg_of(peer, dialog);
        let transfer = self.transfer_of(peer, dialog);
        let agent = self.ids[place].clone();
        let leg = leg.as_ref().map(|(call, leg)| (call, *leg));
        self.trace(|| format!("{agent} says yes"));
        self.see(&Seen::Yes(&agent, leg, transfer.as_ref()));
    }

    /// A yes or a no reaches the edge by key or button.
    pub(super) fn say(
        &mut self,
        peer: usize,
        dialog: usize,
        place: usize,
        way: Yes,
        key: char,
        out: &mut Effects,
    ) {
        match way {
            Yes::Info => self.peers[peer].info(dialog, key, out),
            Yes::Key => {
                if let Some((call, leg)) = self.leg_of(peer, dialog) {
                    let report = MediaReport::Digit { leg, digit: key };
                    let event = MediaEvent { at: self.now, call, report };
                    self.give(EdgeInput::Media(event));
                }
            }
            Yes::Button => {
                let agent = self.ids[place].clone();
                if let Some(transfer) = self.transfer_of(peer, dialog) {
                    let input = if key == '1' {
                        EdgeInput::Accept(agent, transfer, Means::Ui)
                    } else {
                        house::decline(agent, transfer)
                    };
                    self.give(input);
                }
            }
        }
    }

    pub(super) fn mute(&mut self, peer: usize, dialog: usize, mute: bool) {
        let vanished = self.peers[peer].vanished;
        if let Some(known) = self.peers[peer].dialogs.get_mut(dialog) {
            known.mute = mute || vanished;
        }
        self.flow(peer, dialog);
    }

    pub(super) fn caller_leaves(&mut self, place: usize) {
        self.trace(|| format!("caller {place} leaves"));
        let mut effects = Effects::default();
        if !self.peers[place].dialogs.is_empty() {
            self.peers[place].hang_up(0, &mut effects);
        }
        self.effects(place, effects);
    }
}

/// The habit for a phone's n-th call.
pub(super) fn habit_of(habits: &[Habit], nth: usize) -> Habit {
    let last = habits.len().saturating_sub(1);
    habits.get(nth.min(last)).copied().unwrap_or_else(|| Habit {
        first: First::Rings,
        then: Then::default(),
        late: false,
        forks: false,
    })
}
