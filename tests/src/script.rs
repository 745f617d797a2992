//! The verbs of a test's script: what callers, people and the voice agent do in most calls,
//! so that a test says only what is special about it.

use std::time::Duration;

use edge_media::edge::EdgeInput;
use handoff::event::{DeclineReason, Means};
use handoff::id::{HumanAgentId, TransferId};

use crate::setting::Setting;
use crate::world::World;

/// No step of a script takes longer.
const STEP_MAX: Duration = Duration::from_secs(40);

/// The caller asks for a person.
const ASKED: &str = r#"{"v":1,"id":"s-asked","type":"transfer.request","data":{"reason":"caller_request"}}"#;

/// The caller has thought better of it.
const CALLED_OFF: &str = r#"{"v":1,"id":"s-off","type":"transfer.cancel","data":{}}"#;

impl World {
    /// A call of this setting in which the caller has heard the disclosure.
    pub fn talking(setting: &Setting) -> Self {
        let mut world = Self::of(setting);
        world.call_and_disclose();
        world
    }

    /// A call of this setting in which the caller has just asked for a person.
    pub fn asked(setting: &Setting) -> Self {
        let mut world = Self::talking(setting);
        world.pass(Duration::from_secs(1));
        world.asks();
        world
    }

    /// A call of this setting in which the first phone rings and the caller is on hold.
    pub fn waiting(setting: &Setting) -> Self {
        let mut world = Self::asked(setting);
        world.until("hold.started", STEP_MAX);
        world
    }

    /// A call of this setting in which a whisper has begun.
    pub fn briefed(setting: &Setting) -> Self {
        let mut world = Self::asked(setting);
        world.until("whisper.started", STEP_MAX);
        world
    }

    /// A call of this setting that was bridged three seconds ago.
    pub fn bridged(setting: &Setting) -> Self {
        let mut world = Self::briefed(setting);
        world.until("whisper.ended", STEP_MAX);
        world.everybody_accepts();
        world.pass(Duration::from_secs(3));
        world
    }

    /// The caller asks for a person.
    pub fn asks(&mut self) {
        self.signal(ASKED);
    }

    /// The voice agent hears that the caller has changed their mind.
    pub fn calls_off(&mut self) {
        self.signal(CALLED_OFF);
    }

    /// Every phone that is in a call presses 1, and the bridge is made.
    pub fn everybody_accepts(&mut self) {
        let before = self.count("bridge.completed");
        for human in &mut self.humans {
            human.press('1');
        }
        self.until_nth("bridge.completed", before + 1, STEP_MAX);
    }

    /// A person presses a key.
    pub fn presses(&mut self, index: usize, key: char) {
        if let Some(human) = self.humans.get_mut(index) {
            human.press(key);
        }
    }

    /// A person clicks "accept" on their page.
    pub fn clicks_accept(&mut self, index: usize) {
        let (agent, transfer) = self.offer_of(index);
        self.give(EdgeInput::Accept(agent, transfer, Means::Ui));
    }

    /// A person clicks "decline" on their page.
    pub fn clicks_decline(&mut self, index: usize) {
        let (agent, transfer) = self.offer_of(index);
        self.give(EdgeInput::Decline(agent, transfer, Means::Ui, DeclineReason::Declined));
    }

    /// The caller hangs up, and everything that holds for any call is judged.
    pub fn ends_well(&mut self) {
        self.caller_hangs_up();
        self.judge();
    }

    /// The id of a person by their place in the setting.
    pub fn agent(index: usize) -> HumanAgentId {
        HumanAgentId::parse(&format!("agent_{index}")).expect("a valid id")
    }

    fn offer_of(&self, index: usize) -> (HumanAgentId, TransferId) {
        let call = self.facts.first().map(|event| event.call.clone()).expect("there is a call");
        let ordinal = u32::try_from(self.count("transfer.decided")).unwrap_or(1);
        (Self::agent(index), TransferId::of(&call, ordinal))
    }
}
