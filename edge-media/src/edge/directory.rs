//! Who can take a call, and how long it takes: the directory of human agents with their
//! presence, and the measured waits of each queue. It picks a person (longest idle first)
//! and reserves them, so that no one is offered two calls; it never dials.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use handoff::call::Target;
use handoff::clock::Now;
use handoff::id::{HumanAgentId, QueueId};

use crate::sip::Destination;

/// Waits kept per queue. Enough for a stable p80, few enough to follow the hour of day.
const WAITS_MAX: usize = 200;

/// Fewer bridges than this say nothing about the next; the queue's configured wait is told.
const WAITS_MIN: usize = 30;

/// One person of the configuration.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who.
    pub id: HumanAgentId,
    /// How to reach them.
    pub dial: Dial,
    /// How long their phone rings.
    pub ring_timeout: Duration,
    /// See [`Target::accept_timeout`].
    pub accept_timeout: Duration,
    /// BCP 47 language of the whisper.
    pub lang: String,
    /// See [`Target::trusted`].
    pub trusted: bool,
    /// See [`Target::accept_on_answer`].
    pub accept_on_answer: bool,
}

/// How a person is reached.
#[derive(Clone, Debug)]
pub enum Dial {
    /// A softphone that registers under this user name; present while it is registered.
    Registered(String),
    /// A fixed phone; always present.
    Fixed(Destination),
}

/// A queue and its people, in the order of the configuration.
#[derive(Clone, Debug)]
pub struct Members {
    /// Which queue.
    pub queue: QueueId,
    /// Who is in it.
    pub people: Vec<HumanAgentId>,
}

/// The directory with live presence.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    people: BTreeMap<HumanAgentId, Presence>,
    queues: Vec<Members>,
    waits: BTreeMap<QueueId, VecDeque<u32>>,
}

/// The people of one queue now, and its measured wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Staffing {
    /// In the queue by the configuration.
    pub people: usize,
    /// Of these, reachable.
    pub present: usize,
    /// Of these, without a call.
    pub available: usize,
    /// See [`Directory::estimate_s`].
    pub estimate_s: Option<u32>,
}

#[derive(Clone, Debug)]
struct Presence {
    person: Person,
    contacts: usize,
    reserved: bool,
    idle_since: Now,
}

impl Directory {
    /// A directory in which nobody is present yet, but those with fixed phones.
    pub fn new(people: Vec<Person>, queues: Vec<Members>) -> Self {
        let people = people
            .into_iter()
            .map(|person| {
                (person.id.clone(), Presence { person, contacts: 0, reserved: false, idle_since: Now::ZERO })
            })
            .collect();
        Self { people, queues, waits: BTreeMap::new() }
    }

    /// Takes over people and queues of a new configuration; presence, reservations and
    /// measured waits of those who stay are kept.
    pub fn reload(&mut self, people: Vec<Person>, queues: Vec<Members>) {
        let fresh = Self::new(people, queues);
        let mut old = std::mem::replace(&mut self.people, fresh.people);
        self.queues = fresh.queues;
        for (id, presence) in &mut self.people {
            if let Some(before) = old.remove(id) {
                presence.contacts = before.contacts;
                presence.reserved = before.reserved;
                presence.idle_since = before.idle_since;
            }
        }
    }

    /// A softphone registered or left.
    pub fn registered(&mut self, user: &str, contacts: usize) {
        for presence in self.people.values_mut() {
            if matches!(&presence.person.dial, Dial::Registered(name) if name == user) {
                presence.contacts = contacts;
            }
        }
    }

    /// Finds the present, free person of `queue` who has been idle longest, and reserves
    /// them until [`Self::release`]. Equal idle times follow the order of the configuration.
    pub fn reserve(
        &mut self,
        queue: &QueueId,
        exclude: &[HumanAgentId],
        desktop: impl Fn(&HumanAgentId) -> bool,
    ) -> Option<Target> {
        let members = self.queues.iter().find(|members| &members.queue == queue)?;
        let chosen = members
            .people
            .iter()
            .filter(|id| !exclude.contains(id))
            .filter_map(|id| self.people.get(id))
            .filter(|presence| presence.is_present() && !presence.reserved)
            .min_by_key(|presence| presence.idle_since)?
            .person
            .id
            .clone();
        let presence = self.people.get_mut(&chosen)?;
        presence.reserved = true;
        Some(Target {
            desktop: desktop(&chosen),
            agent: chosen,
            ring_timeout: presence.person.ring_timeout,
            accept_timeout: presence.person.accept_timeout,
            lang: presence.person.lang.clone(),
            trusted: presence.person.trusted,
            accept_on_answer: presence.person.accept_on_answer,
        })
    }

    /// The person is free again.
    pub fn release(&mut self, now: Now, agent: &HumanAgentId) {
        if let Some(presence) = self.people.get_mut(agent) {
            presence.reserved = false;
            presence.idle_since = now;
        }
    }

    /// How to dial a person.
    pub fn destination(&self, agent: &HumanAgentId) -> Option<Destination> {
        self.people.get(agent).map(|presence| match &presence.person.dial {
            Dial::Registered(user) => Destination::User(user.clone()),
            Dial::Fixed(destination) => destination.clone(),
        })
    }

    /// The handle in the INVITE's headers goes to registered softphones only: a fixed phone
    /// may lie behind a carrier.
    pub fn takes_handle(&self, agent: &HumanAgentId) -> bool {
        self.people.get(agent).is_some_and(|presence| matches!(presence.person.dial, Dial::Registered(_)))
    }

    /// A bridge of `queue` came so many seconds after its decision.
    pub fn learn(&mut self, queue: &QueueId, waited_s: u32) {
        let waits = self.waits.entry(queue.clone()).or_default();
        if waits.len() == WAITS_MAX {
            waits.pop_front();
        }
        waits.push_back(waited_s);
    }

    /// The wait that 80 % of the recent bridges stayed below, once there are enough.
    pub fn estimate_s(&self, queue: &QueueId) -> Option<u32> {
        let waits = self.waits.get(queue).filter(|waits| waits.len() >= WAITS_MIN)?;
        let mut sorted: Vec<u32> = waits.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get((sorted.len() * 4).div_ceil(5).saturating_sub(1)).copied()
    }

    /// The people of a queue, counted.
    pub fn staffing(&self, queue: &QueueId) -> Option<Staffing> {
        let members = self.queues.iter().find(|members| &members.queue == queue)?;
        let people = || members.people.iter().filter_map(|id| self.people.get(id));
        let present = || people().filter(|presence| presence.is_present());
        Some(Staffing {
            people: people().count(),
            present: present().count(),
            available: present().filter(|presence| !presence.reserved).count(),
            estimate_s: self.estimate_s(queue),
        })
    }

    /// People who could be offered a call now.
    pub fn available(&self) -> usize {
        self.people.values().filter(|presence| presence.is_present() && !presence.reserved).count()
    }
}

impl Presence {
    fn is_present(&self) -> bool {
        self.contacts > 0 || matches!(self.person.dial, Dial::Fixed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured() -> (Vec<Person>, Vec<Members>) {
        let person = |id: &str| Person {
            id: HumanAgentId::parse(id).unwrap(),
            dial: Dial::Registered(id.to_owned()),
            ring_timeout: Duration::from_secs(20),
            accept_timeout: Duration::from_secs(20),
            lang: "en".to_owned(),
            trusted: true,
            accept_on_answer: false,
        };
        let members = Members {
            queue: QueueId::parse("nurse").unwrap(),
            people: ["dana", "eli"].map(|id| HumanAgentId::parse(id).unwrap()).to_vec(),
        };
        (vec![person("dana"), person("eli")], vec![members])
    }

    fn directory() -> Directory {
        let (people, queues) = configured();
        Directory::new(people, queues)
    }

    #[test]
    fn the_longest_idle_present_person_is_reserved_once() {
        let mut directory = directory();
        let queue = QueueId::parse("nurse").unwrap();
        assert_eq!(directory.reserve(&queue, &[], |_| true), None, "nobody is registered");
        directory.registered("dana", 1);
        directory.registered("eli", 2);
        let first = directory.reserve(&queue, &[], |_| true).unwrap().agent;
        assert_eq!(first.as_str(), "dana");
        let staffing = Staffing { people: 2, present: 2, available: 1, estimate_s: None };
        assert_eq!(directory.staffing(&queue), Some(staffing));
        let second = directory.reserve(&queue, &[], |_| false).unwrap();
        assert_eq!((second.agent.as_str(), second.desktop), ("eli", false));
        assert_eq!(directory.reserve(&queue, &[], |_| true), None, "both are reserved");
        directory.release(Now::from_millis(9), &first);
        directory.release(Now::from_millis(5), &second.agent);
        assert_eq!(directory.reserve(&queue, &[], |_| true).unwrap().agent.as_str(), "eli");
        assert_eq!(
            directory.reserve(&queue, &[first], |_| true),
            None,
            "excluded: had this transfer already"
        );
    }

    #[test]
    fn a_wait_is_estimated_only_from_enough_bridges() {
        let mut directory = directory();
        let queue = QueueId::parse("nurse").unwrap();
        for waited in 1..30 {
            directory.learn(&queue, waited);
        }
        assert_eq!(directory.estimate_s(&queue), None);
        directory.learn(&queue, 30);
        assert_eq!(directory.estimate_s(&queue), Some(24));
    }

    #[test]
    fn a_reload_keeps_presence_and_reservations() {
        let mut directory = directory();
        let queue = QueueId::parse("nurse").unwrap();
        directory.registered("dana", 1);
        let taken = directory.reserve(&queue, &[], |_| true).unwrap().agent;
        let (people, queues) = configured();
        directory.reload(people, queues);
        assert_eq!(directory.reserve(&queue, &[], |_| true), None);
        directory.release(Now::ZERO, &taken);
        assert_eq!(directory.reserve(&queue, &[], |_| true).unwrap().agent, taken);
    }
}
