//! What happens in one seed, drawn before anything runs: the house and its rules, the people
//! and how their phones behave, the callers, the network, and the deeds that come in between.
//! A plan is plain data, so a failing one can be made smaller by leaving parts out of it.

use handoff::call::Survivor;
use handoff::call::outcome::LegCause;

use super::chance::Chance;

/// Everything of one seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which seed it was drawn from; chance that is left (the network's) follows from it too.
    pub seed: u64,
    /// The network between the edge and everybody.
    pub net: Net,
    /// The rules.
    pub house: House,
    /// The human agents.
    pub people: Vec<Someone>,
    /// The calls.
    pub calls: Vec<Caller>,
    /// What comes in between.
    pub deeds: Vec<Deed>,
}

/// How datagrams travel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Net {
    /// Lost, per mille.
    pub lost_pm: u64,
    /// Delivered twice, per mille.
    pub twice_pm: u64,
    /// Least delay, ms.
    pub delay_ms: u64,
    /// What chance adds to it, ms: above a few it reorders.
    pub jitter_ms: u64,
}

/// The rules of the one queue and of the edge.
#[derive(Clone, Debug)]
pub struct House {
    /// Most people tried.
    pub attempts_max: u32,
    /// The fallback chain, before the closing message.
    pub chain: Vec<Link>,
    /// Hold is told to the caller's trunk.
    pub hold_by_reinvite: bool,
    /// The voice agent goes on hearing a waiting caller.
    pub cancel_while_waiting: bool,
    /// Legs are recorded.
    pub recording: bool,
    /// A voice agent that leaves ends the call.
    pub voice_bye_ends: bool,
    /// The barrier opens by the CRM's acknowledgement, not the desktop's.
    pub crm_acknowledges: bool,
    /// Where the caller goes when a human agent hangs up.
    pub on_agent_bye: Survivor,
    /// Where the caller goes when a human agent's leg is lost.
    pub on_agent_lost: Survivor,
    /// How late the media plane's reports reach the router, ms.
    pub reports_ms: u64,
    /// Length of a clip, ms.
    pub clip_ms: u64,
    /// Length of synthesised speech, ms.
    pub speech_ms: u64,
}

/// A link of the fallback chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A second queue with the same people.
    Queue,
    /// Back to the voice agent.
    VoiceAgent,
    /// A message.
    Voicemail,
    /// A call back.
    Callback,
}

/// A human agent.
#[derive(Clone, Debug)]
pub struct Someone {
    /// How their phone behaves, call by call; the last holds for all that follow.
    pub habits: Vec<Habit>,
    /// How long it rings, s.
    pub ring_s: u64,
    /// Known to be a person.
    pub trusted: bool,
    /// Answering is accepting.
    pub accept_on_answer: bool,
    /// The phone registers; otherwise it has a fixed address.
    pub registers: bool,
    /// A page of theirs is open.
    pub desktop: bool,
    /// The page paints after this long, ms; `None` paints nothing.
    pub paints_ms: Option<u64>,
}

/// What a phone does with one call.
#[derive(Clone, Copy, Debug)]
pub struct Habit {
    /// What becomes of the INVITE.
    pub first: First,
    /// What comes after the answer.
    pub then: Then,
    /// It answers an INVITE that is being cancelled.
    pub late: bool,
    /// A second phone answers the same INVITE.
    pub forks: bool,
}

/// What becomes of an INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Nothing at all comes back.
    Dead,
    /// 100, and nothing more.
    Trying,
    /// It rings for ever.
    Rings,
    /// It rings, and answers after this long, ms.
    Answers(u64),
    /// It refuses after this long, ms.
    Refuses(u16, u64),
}

/// What a person (or a machine) does after the answer. Times count from the answer, ms.
#[derive(Clone, Copy, Debug, Default)]
pub struct Then {
    /// Says yes, and how; repeated until it helps.
    pub yes: Option<(u64, Yes)>,
    /// Says no.
    pub no: Option<(u64, Yes)>,
    /// Hangs up.
    pub bye: Option<u64>,
    /// The phone vanishes: nothing comes from it any more, and it answers nothing.
    pub vanishes: Option<u64>,
    /// No audio comes from it for so long, from then on.
    pub mute: Option<(u64, u64)>,
    /// Holds the call for so long.
    pub hold: Option<(u64, u64)>,
    /// Gives the caller back to the voice agent.
    pub hand_back: Option<u64>,
}

/// How a person says yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yes {
    /// A key, in RTP.
    Key,
    /// A key, in INFO.
    Info,
    /// A button.
    Button,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Caller {
    /// When it comes, ms.
    pub at_ms: u64,
    /// The caller hangs up at the latest this long after that, ms.
    pub patience_ms: u64,
    /// The INVITE has an offer.
    pub offers: bool,
    /// Our 200 is acknowledged.
    pub acks: bool,
    /// What becomes of a re-INVITE.
    pub reinvite: Reinvite,
    /// The voice agent's link opens after this long, ms; `None` never does.
    pub voice_ms: Option<u64>,
    /// How long queued speech of the voice agent takes to drain, ms.
    pub drain_ms: u64,
    /// The cloud.
    pub cloud: Cloud,
}

/// What a caller's trunk does with a re-INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reinvite {
    /// Answers.
    Answers,
    /// Refuses with this status.
    Refuses(u16),
    /// Says nothing at all.
    Ignores,
}

/// The functions and the CRM.
#[derive(Clone, Copy, Debug)]
pub struct Cloud {
    /// Decides after this long, ms; `None` is down.
    pub decides_ms: Option<u64>,
    /// Each command comes so many times.
    pub copies: u64,
    /// A payload follows a decision after this long, ms.
    pub payload_ms: Option<u64>,
    /// The CRM reports after this long, ms, that it has the payload or missed it.
    pub crm: Option<(u64, bool)>,
}

/// One thing that somebody does.
#[derive(Clone, Debug)]
pub struct Deed {
    /// In which call (by its place in the plan).
    pub call: usize,
    /// When.
    pub when: When,
    /// What.
    pub what: What,
}

/// When a deed is done.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// After this fact was recorded; empty is the INVITE.
    pub fact: &'static str,
    /// Which of them, from 1.
    pub nth: u32,
    /// How much later, ms.
    pub after_ms: u64,
}

/// What somebody does.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// The caller hangs up (CANCEL before the answer).
    CallerLeaves,
    /// The caller's phone vanishes.
    CallerVanishes,
    /// The caller's side holds us, for so long (ms).
    CallerHolds(u64),
    /// No audio comes from the caller for so long (ms).
    CallerMute(u64),
    /// The caller presses a key.
    CallerKey(char),
    /// The voice agent says something.
    VoiceSays(Say),
    /// Its link closes.
    VoiceGone(LegCause),
    /// The cloud takes the transfer back.
    CloudCancels,
    /// The queue delivers every command of the call again.
    CloudRepeats,
    /// Somebody presses accept for a transfer that is not theirs.
    StrayAccept,
    /// A page goes, and comes back after so long (ms).
    PageGone(usize, u64),
    /// The edge takes its configuration anew.
    Reload,
    /// The edge takes no new calls.
    Drain,
    /// The edge ends every call.
    Stop,
}

/// What a voice agent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// It asks for a person.
    Request,
    /// It asks again with the id of its first request.
    RequestAgain,
    /// It takes its request back.
    Cancel,
    /// The caller asks for a person, in words.
    CallerAsks,
    /// The caller is in danger.
    Danger,
    /// The caller says something.
    SmallTalk,
    /// It is not confident.
    LowConfidence,
    /// A tool failed.
    ToolFails,
    /// It reports a fault of its own.
    Fault,
    /// A payment begins.
    PaymentBegins,
    /// A payment ends.
    PaymentEnds,
    /// The caller refuses to be recorded.
    RefusesRecording,
    /// It collected a fact.
    Field,
}

/// Moments at which a deed hits something worth hitting.
const MOMENTS: [&str; 16] = [
    "",
    "disclosure.ai_identity",
    "transfer.decided",
    "transition.played",
    "hold.started",
    "agent.offered",
    "agent.ringing",
    "agent.answered",
    "whisper.started",
    "whisper.ended",
    "agent.accepted",
    "bridge.completed",
    "agent.no_answer",
    "agent.declined",
    "fallback.taken",
    "transfer.ended",
];

impl Plan {
    /// The plan of a seed. Which kinds of trouble there are is drawn first, so that a seed has
    /// a few of them in strength and not all of them weakly.
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let chance = &mut chance;
        let net = net(chance);
        let mut house = house(chance);
        let people = (0..chance.between(1, 3)).map(|_| someone(chance)).collect();
        let calls: Vec<Caller> = (0..1 + chance.below(5) / 2).map(|_| caller(chance)).collect();
        let mut deeds = Vec::new();
        for call in 0..calls.len() {
            // What nearly every call has: a reason for a person.
            if !chance.one_in(12) {
                let say =
                    chance.pick(&[Say::Request, Say::Request, Say::CallerAsks, Say::Danger, Say::Fault]);
                let fact = chance.pick(&["disclosure.ai_identity", "disclosure.ai_identity", ""]);
                let when = When { fact, nth: 1, after_ms: chance.between(50, 4_000) };
                deeds.push(Deed { call, when, what: What::VoiceSays(say) });
            }
            for _ in 0..chance.below(5) {
                deeds.push(deed(chance, call));
            }
        }
        // Drawn last, so that seeds whose chain is short are what they were before.
        if chance.one_in(3) {
            house.chain = chain(chance);
        }
        Self { seed, net, house, people, calls, deeds }
    }
}

fn net(chance: &mut Chance) -> Net {
    match chance.below(4) {
        0 => Net { delay_ms: chance.between(1, 40), ..Net::default() },
        1 => Net { delay_ms: 5, jitter_ms: chance.between(5, 120), ..Net::default() },
        2 => Net {
            lost_pm: chance.between(5, 200),
            twice_pm: chance.between(0, 100),
            delay_ms: 10,
            jitter_ms: chance.between(0, 60),
        },
        _ => Net { twice_pm: chance.between(0, 300), delay_ms: 20, jitter_ms: 10, ..Net::default() },
    }
}

fn house(chance: &mut Chance) -> House {
    let survivors = [Survivor::End, Survivor::Reoffer, Survivor::VoiceAgent, Survivor::Closing];
    let hold_by_reinvite = !chance.one_in(4);
    House {
        attempts_max: chance.between(1, 4) as u32,
        chain: if chance.one_in(3) { Vec::new() } else { vec![Link::VoiceAgent] },
        hold_by_reinvite,
        cancel_while_waiting: !hold_by_reinvite && chance.one_in(2),
        recording: chance.one_in(2),
        voice_bye_ends: chance.one_in(3),
        crm_acknowledges: chance.one_in(4),
        on_agent_bye: chance.pick(&survivors),
        on_agent_lost: chance.pick(&survivors),
        reports_ms: chance.pick(&[0, 1, 20, 60]),
        clip_ms: chance.between(400, 2_500),
        speech_ms: chance.between(1_000, 9_000),
    }
}

/// One to four different links in any order.
fn chain(chance: &mut Chance) -> Vec<Link> {
    let mut chain = Vec::new();
    for _ in 0..chance.between(1, 4) {
        let link = chance.pick(&[Link::Queue, Link::VoiceAgent, Link::Voicemail, Link::Callback]);
        if !chain.contains(&link) {
            chain.push(link);
        }
    }
    chain
}

fn someone(chance: &mut Chance) -> Someone {
    let trusted = !chance.one_in(4);
    Someone {
        habits: (0..chance.between(1, 3)).map(|_| habit(chance)).collect(),
        ring_s: chance.pick(&[3, 5, 8, 20]),
        trusted,
        accept_on_answer: chance.one_in(5),
        registers: chance.one_in(12),
        desktop: !chance.one_in(4),
        paints_ms: (!chance.one_in(6)).then(|| chance.pick(&[5, 40, 200, 900, 4_000])),
    }
}

fn habit(chance: &mut Chance) -> Habit {
    let first = match chance.below(16) {
        0 => First::Dead,
        1 => First::Trying,
        2 | 3 => First::Rings,
        4 => {
            let status = chance.pick(&[486, 480, 603, 500, 503, 404, 302, 408, 600, 488]);
            First::Refuses(status, chance.between(10, 3_000))
        }
        _ => First::Answers(chance.pick(&[0, 200, 700, 2_000, 3_000, 5_000, 7_900])),
    };
    let mut then = Then::default();
    let way = chance.pick(&[Yes::Key, Yes::Key, Yes::Info, Yes::Button, Yes::Button]);
    match chance.below(12) {
        // A machine.
        0 => {}
        1 => then.no = Some((chance.between(100, 8_000), way)),
        _ => then.yes = Some((chance.between(0, 12_000), way)),
    }
    let after = chance.between(50, 30_000);
    match chance.below(9) {
        0 | 1 => then.bye = Some(after),
        2 => then.vanishes = Some(after),
        3 => then.mute = Some((after, chance.pick(&[300, 800, 5_000, 60_000]))),
        4 => then.hold = Some((after, chance.between(200, 9_000))),
        5 => then.hand_back = Some(after),
        _ => {}
    }
    Habit { first, then, late: chance.one_in(4), forks: chance.one_in(10) }
}

fn caller(chance: &mut Chance) -> Caller {
    Caller {
        at_ms: chance.between(0, 15_000),
        patience_ms: chance.between(4_000, 70_000),
        offers: !chance.one_in(10),
        acks: !chance.one_in(40),
        reinvite: match chance.below(12) {
            0 => Reinvite::Refuses(chance.pick(&[488, 491, 481, 500, 408])),
            1 => Reinvite::Ignores,
            _ => Reinvite::Answers,
        },
        voice_ms: (!chance.one_in(20)).then(|| chance.pick(&[1, 30, 400, 2_000, 4_990])),
        drain_ms: chance.pick(&[0, 0, 300, 1_500, 9_000]),
        cloud: Cloud {
            decides_ms: (!chance.one_in(4)).then(|| chance.pick(&[5, 40, 300, 799, 800, 801, 3_000])),
            copies: chance.pick(&[1, 1, 2, 3]),
            payload_ms: (!chance.one_in(3)).then(|| chance.pick(&[20, 300, 900, 4_000])),
            crm: (!chance.one_in(3)).then(|| (chance.pick(&[50, 700, 2_500, 6_000]), !chance.one_in(3))),
        },
    }
}

fn deed(chance: &mut Chance, call: usize) -> Deed {
    let when = When {
        fact: chance.pick(&MOMENTS),
        nth: chance.pick(&[1, 1, 1, 2]),
        after_ms: chance.pick(&[0, 0, 1, 15, 60, 250, 499, 800, 2_000, 6_000]),
    };
    let what = match chance.below(44) {
        0..=5 => What::CallerLeaves,
        6 | 7 => What::CallerVanishes,
        8 | 9 => What::CallerHolds(chance.between(20, 6_000)),
        10 => What::CallerMute(chance.pick(&[300, 2_000, 40_000])),
        11 | 12 => What::CallerKey(chance.pick(&['*', '0', '1', '2', '#'])),
        13..=24 => What::VoiceSays(chance.pick(&[
            Say::Request,
            Say::Request,
            Say::RequestAgain,
            Say::Cancel,
            Say::CallerAsks,
            Say::Danger,
            Say::SmallTalk,
            Say::LowConfidence,
            Say::ToolFails,
            Say::Fault,
            Say::PaymentBegins,
            Say::PaymentEnds,
            Say::RefusesRecording,
            Say::Field,
        ])),
        25..=28 => What::VoiceGone(chance.pick(&[LegCause::RemoteHangUp, LegCause::Lost])),
        29..=31 => What::CloudCancels,
        32..=34 => What::CloudRepeats,
        35 | 36 => What::StrayAccept,
        37 | 38 => What::PageGone(chance.below(3) as usize, chance.between(10, 5_000)),
        39 => What::Reload,
        40 => What::Drain,
        41 => What::Stop,
        _ => What::CallerLeaves,
    };
    Deed { call, when, what }
}
