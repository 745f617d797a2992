//! What a plan has in store: deeds that wait for a fact of their call.

use edge_media::edge::EdgeInput;
use edge_media::media::MediaEvent;
use handoff::call::media::MediaReport;
use handoff::command::CommandBody;
use handoff::event::Means;
use handoff::id::{CallId, LegId, TransferId};

use super::super::check::Seen;
use super::super::peer::Effects;
use super::super::plan::{Deed, Say, What};
use super::super::{house, voice};
use super::{Event, World};

impl World<'_> {
    pub(super) fn trigger(&mut self, call: &CallId, fact: &'static str, nth: u32) {
        let Some(place) = self.calls.get(call).map(|known| known.place) else { return };
        let plan = self.plan;
        for (index, deed) in plan.deeds.iter().enumerate() {
            if deed.call == place && deed.when.fact == fact && deed.when.nth == nth {
                self.after(deed.when.after_ms, Event::Deed(index));
            }
        }
    }

    pub(super) fn act(&mut self, deed: &Deed) {
        let place = deed.call;
        self.trace(|| format!("deed {:?}", deed.what));
        let call = self.calls.iter().find(|(_, known)| known.place == place).map(|(call, _)| call.clone());
        let mut effects = Effects::default();
        match deed.what {
            What::CallerLeaves => self.caller_leaves(place),
            What::CallerVanishes => self.peers[place].vanish(&mut effects),
            What::CallerHolds(ms) => {
                self.peers[place].hold(0, true, &mut effects);
                self.after(ms, Event::Unhold(place, 0));
            }
            What::CallerMute(ms) => {
                self.mute(place, 0, true);
                self.after(ms, Event::Unmute(place, 0));
            }
            What::CallerKey(digit) => {
                if let Some(call) = call {
                    let report = MediaReport::Digit { leg: LegId::CALLER, digit };
                    self.give(EdgeInput::Media(MediaEvent { at: self.now, call, report }));
                }
            }
            What::VoiceSays(say) => self.voice_says(call, say),
            What::VoiceGone(cause) => {
                let stream = call.and_then(|call| self.calls.get(&call)?.stream);
                if let Some(stream) = stream {
                    self.at(self.now, Event::DoorGone(stream, cause));
                }
            }
            What::CloudCancels => {
                if let Some((call, transfer_id)) =
                    call.and_then(|call| Some((call.clone(), self.calls.get(&call)?.transfer.clone()?)))
                {
                    self.order(0, 2, &call, CommandBody::TransferCancel { transfer_id }, self.now.micros());
                }
            }
            What::CloudRepeats => {
                let orders = call.and_then(|call| Some(self.calls.get(&call)?.orders.clone()));
                for command in orders.unwrap_or_default() {
                    self.order_arrives(command);
                }
            }
            What::StrayAccept => self.stray_accept(),
            What::PageGone(place, ms) => {
                if self.plan.people.get(place).is_some_and(|person| person.desktop) {
                    self.at(self.now, Event::Page(place, false));
                    self.after(ms, Event::Page(place, true));
                }
            }
            What::Reload => self.reload(false),
            What::Drain => self.give(EdgeInput::Drain),
            What::Stop => {
                self.see(&Seen::Operator);
                self.give(EdgeInput::Stop);
            }
        }
        self.effects(place, effects);
    }

    /// Everybody presses accept for a transfer that is over or never was.
    pub(super) fn stray_accept(&mut self) {
        for agent in self.ids.clone() {
            let transfer = TransferId::of(&CallId::from_random(1), 1);
            self.give(EdgeInput::Accept(agent, transfer, Means::Api));
        }
    }

    pub(super) fn voice_says(&mut self, call: Option<CallId>, say: Say) {
        let Some(known) = call.and_then(|call| self.calls.get_mut(&call)) else { return };
        known.signals += 1;
        let (stream, signal) = (known.stream, voice::signal(say, known.signals));
        if let Some(stream) = stream {
            self.give(EdgeInput::DoorSignal(stream, Box::new(signal)));
        }
    }

    /// The configuration is read anew; `careless` forgets who is busy.
    pub(super) fn reload(&mut self, careless: bool) {
        let mut configs = vec![house::edge_config(self.plan, 0, 1)];
        if careless {
            let mut nobody = house::edge_config(self.plan, 0, 1);
            nobody.people.clear();
            configs.insert(0, nobody);
        }
        for config in configs {
            self.give(EdgeInput::Reload(Box::new(config)));
        }
    }
}
