//! What a world starts from: the people and how their phones behave, the queue's rules, how
//! hold is told, and the cloud. Whatever a test does not name is as a healthy system has it.

use std::sync::Arc;
use std::time::Duration;

use edge_media::edge::EdgeConfig;
use edge_media::edge::directory::Members;
use handoff::call::{CallRules, Fallback, OnVoiceAgentBye, QueueRules, Survivor};
use handoff::event::Mode;
use handoff::id::QueueId;

use crate::phone::Habit;
use crate::world::Cloud;

/// The second queue of a setting that has one.
pub const SECOND_QUEUE: &str = "front_desk";

/// A human agent.
#[derive(Clone, Copy, Debug)]
pub struct Someone {
    /// How their phone behaves.
    pub habit: Habit,
    /// How long it rings.
    pub ring: Duration,
    /// They are known to be a person.
    pub trusted: bool,
    /// A page of theirs is open.
    pub desktop: bool,
    /// Their phone registers.
    pub present: bool,
}

impl Someone {
    /// A trusted person with a page, whose phone rings for 20 s.
    pub const fn new(habit: Habit) -> Self {
        Self { habit, ring: Duration::from_secs(20), trusted: true, desktop: true, present: true }
    }

    /// The same, with another ring time.
    #[must_use]
    pub const fn ring(self, ring: Duration) -> Self {
        Self { ring, ..self }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The people of the one queue, in order.
    pub people: Vec<Someone>,
    /// How many of them, the last, are in a second queue, `front_desk`, instead.
    pub second_queue: usize,
    /// The cloud.
    pub cloud: Cloud,
    /// Where the caller goes when nobody takes the call.
    pub fallback: Vec<Fallback>,
    /// Most people tried.
    pub attempts_max: u32,
    /// Hold is told to the caller's trunk.
    pub hold_by_reinvite: bool,
    /// The voice agent goes on hearing a waiting caller.
    pub cancel_while_waiting: bool,
    /// What people are told before they are connected.
    pub mode: Mode,
    /// Every leg is recorded.
    pub recording: bool,
    /// A person hangs up after the bridge.
    pub on_agent_bye: Survivor,
    /// A person's leg is lost after the bridge.
    pub on_agent_lost: Survivor,
    /// The voice agent hangs up by itself.
    pub on_voice_agent_bye: OnVoiceAgentBye,
}

impl Setting {
    /// These people, and everything else healthy.
    pub fn new(people: &[Someone]) -> Self {
        Self {
            people: people.to_vec(),
            second_queue: 0,
            cloud: Cloud::Decides(Duration::from_millis(40)),
            fallback: vec![Fallback::VoiceAgent],
            attempts_max: 3,
            hold_by_reinvite: true,
            cancel_while_waiting: false,
            mode: Mode::Warm,
            recording: false,
            on_agent_bye: Survivor::End,
            on_agent_lost: Survivor::Reoffer,
            on_voice_agent_bye: OnVoiceAgentBye::TransferDefault,
        }
    }

    /// Writes what differs into the edge's configuration.
    pub(crate) fn apply(&self, config: &mut EdgeConfig) {
        let mut rules: CallRules = (*config.rules).clone();
        rules.hold_by_reinvite = self.hold_by_reinvite;
        rules.cancel_while_waiting = self.cancel_while_waiting;
        rules.on_voice_agent_bye = self.on_voice_agent_bye;
        for queue in &mut rules.queues {
            queue.fallback.clone_from(&self.fallback);
            queue.attempts_max = self.attempts_max;
            queue.mode = self.mode;
            queue.on_agent_bye = self.on_agent_bye;
            queue.on_agent_lost = self.on_agent_lost;
        }
        if self.second_queue > 0 {
            self.divide(config, &mut rules);
        }
        config.rules = Arc::new(rules);
        for trunk in &mut config.sip.trunks {
            trunk.hold_by_reinvite = self.hold_by_reinvite;
        }
        for (person, someone) in config.people.iter_mut().zip(&self.people) {
            person.ring_timeout = someone.ring;
            person.trusted = someone.trusted;
        }
    }

    /// The last people leave the first queue for the second.
    fn divide(&self, config: &mut EdgeConfig, rules: &mut CallRules) {
        let Some((members, first)) = config.queues.first_mut().zip(rules.queues.first()) else { return };
        let queue = QueueId::parse(SECOND_QUEUE).expect("a valid id");
        let people = members.people.split_off(self.people.len() - self.second_queue);
        let second = QueueRules { id: queue.clone(), spoken: "dest.support".to_owned(), ..first.clone() };
        rules.queues.push(second);
        config.queues.push(Members { queue, people });
    }
}
