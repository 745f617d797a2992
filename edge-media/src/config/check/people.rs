//! Agents and queues: who can be reached how, and what the caller hears of it.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeSet;

use handoff::call::{Fallback, PayloadAck, Survivor};
use handoff::dial;
use handoff::event::Mode;
use handoff::id::{DestinationId, HumanAgentId, QueueId};
use handoff::message;
use handoff::pii::Pii;
use toml::Spanned;

use super::Checker;
use super::values::SecretSource;
use crate::config::document::{AgentTable, QueueTable, WebhookTable};
use crate::config::{Agent, FixedPhone, Phone, Queue};
use crate::sip::Transport;

impl Checker<'_> {
    pub(super) fn agents(&mut self, tables: &[AgentTable]) -> Vec<Agent> {
        let mut ids = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut users = BTreeSet::new();
        let mut agents = Vec::new();
        for table in tables {
            self.unique(&mut ids, &table.id, "agent id");
            if !names.insert(table.name.get_ref().clone()) {
                // The name itself is personal and stays out of the message.
                let why = format!("agent \"{}\" has the name of another agent", table.id.get_ref());
                self.refuse(&table.name.span(), why);
            }
            if let Some(user) = &table.user {
                self.unique(&mut users, user, "agent user");
            }
            if let Some(agent) = self.agent(table) {
                agents.push(agent);
            }
        }
        agents
    }

    fn agent(&mut self, table: &AgentTable) -> Option<Agent> {
        let id = self.parsed::<HumanAgentId>(&table.id, "id");
        let name = self.display_name(&table.name);
        let phone = self.phone(table);
        let lang = self.lang(table.lang.as_ref(), "en");
        let ring = self.in_range(
            table.ring_timeout_s.as_ref(),
            "ring_timeout_s",
            RING_TIMEOUT_S,
            RING_TIMEOUT_DEFAULT_S,
        );
        let accept = self.in_range(
            table.accept_timeout_s.as_ref(),
            "accept_timeout_s",
            ACCEPT_TIMEOUT_S,
            ACCEPT_TIMEOUT_DEFAULT_S,
        );
        let registered = table.user.is_some();
        let trusted = table.trusted.as_ref().map_or(registered, |trusted| *trusted.get_ref());
        if let (Some(field), true, false) = (&table.trusted, trusted, registered) {
            let why = "trusted, but nobody registers at a fixed uri: whoever answers hears caller data";
            self.warn(&field.span(), why);
        }
        let accept_on_answer = table.accept_on_answer.as_ref().is_some_and(|accept| *accept.get_ref());
        if let (Some(field), true, false) = (&table.accept_on_answer, accept_on_answer, registered) {
            let why =
                "accept_on_answer needs a registered user: a voicemail behind a uri would take the caller";
            self.refuse(&field.span(), why);
        }
        let desktop_token = self.token(SecretSource {
            key: "desktop_token",
            inline: table.desktop_token.as_ref(),
            file: table.desktop_token_file.as_ref(),
        });
        if table.desktop_token.is_none() && table.desktop_token_file.is_none() {
            let why = format!(
                "agent \"{}\" has no desktop_token: no card, and degraded transfers",
                table.id.get_ref()
            );
            self.warn(&table.id.span(), why);
        }
        Some(Agent {
            id: id?,
            name: name?,
            phone: phone?,
            lang: lang?,
            ring_timeout: Duration::from_secs(ring?.into()),
            accept_timeout: Duration::from_secs(accept?.into()),
            accept_on_answer,
            trusted,
            desktop_token,
        })
    }

    fn display_name(&mut self, field: &Spanned<String>) -> Option<Pii<String>> {
        let name = field.get_ref().trim();
        if name.is_empty()
            || name.chars().count() > DISPLAY_NAME_LEN_MAX
            || name.chars().any(char::is_control)
        {
            self.refuse(
                &field.span(),
                format!("name must be 1 to {DISPLAY_NAME_LEN_MAX} printable characters"),
            );
            return None;
        }
        Some(Pii::new(name.to_owned()))
    }

    fn phone(&mut self, table: &AgentTable) -> Option<Phone> {
        let source = SecretSource {
            key: "password",
            inline: table.password.as_ref(),
            file: table.password_file.as_ref(),
        };
        match (&table.user, &table.uri) {
            (Some(_), Some(uri)) => {
                self.refuse(&uri.span(), "an agent has a user that registers or a fixed uri, not both");
                None
            }
            (None, None) => {
                let why = format!("agent \"{}\" needs user and password_file, or uri", table.id.get_ref());
                self.refuse(&table.id.span(), why);
                None
            }
            (None, Some(uri)) => {
                if source.is_given() {
                    self.refuse(&uri.span(), "a fixed uri does not register: it has no password");
                }
                self.dial_uri(uri).map(Phone::Fixed)
            }
            (Some(user), None) => {
                let (given, place) = (source.is_given(), source.place());
                let password = self.secret(source);
                if !given {
                    self.refuse(&user.span(), "a user needs password_file (or password)");
                } else if password.as_ref().is_some_and(|password| password.reveal().len() < PASSWORD_LEN_MIN)
                {
                    self.refuse(&place, format!("password must have at least {PASSWORD_LEN_MIN} characters"));
                }
                let plain = user.get_ref().bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b));
                if user.get_ref().is_empty() || user.get_ref().len() > USER_LEN_MAX || !plain {
                    let why = format!("user must be 1 to {USER_LEN_MAX} letters, digits or . _ - +");
                    self.refuse(&user.span(), why);
                    return None;
                }
                let allow_md5 = table.allow_md5.as_ref().is_some_and(|allow| *allow.get_ref());
                if let (Some(field), true) = (&table.allow_md5, allow_md5) {
                    let why = "allow_md5: the digest of this phone is weak; keep it on a network of your own";
                    self.warn(&field.span(), why);
                }
                Some(Phone::Registered { user: user.get_ref().clone(), password: password?, allow_md5 })
            }
        }
    }

    /// The ranges of numbers that may be dialled: no list is every country, an empty one none.
    pub(super) fn dial_ranges(
        &mut self,
        list: Option<&Spanned<Vec<Spanned<String>>>>,
    ) -> Option<Vec<dial::Range>> {
        let list = list?;
        if list.get_ref().len() > dial::RANGES_MAX {
            self.refuse(&list.span(), format!("dial_allow has at most {} ranges", dial::RANGES_MAX));
        }
        let mut ranges = Vec::new();
        for field in list.get_ref() {
            match dial::Range::parse(field.get_ref()) {
                Some(range) => ranges.push(range),
                None => {
                    self.refuse(&field.span(), "a range is + and the first digits of its numbers, as +49")
                }
            }
        }
        Some(ranges)
    }

    /// A URI that the operator wrote; numbers from outside never reach a phone.
    fn dial_uri(&mut self, field: &Spanned<String>) -> Option<FixedPhone> {
        let uri = field.get_ref();
        let plain = uri.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte));
        let host = crate::sip::host_of(uri).filter(|_| plain && uri.len() <= DIAL_URI_LEN_MAX);
        let Some(host) = host else {
            let why = "uri must be a sip: URI without spaces, quotes, brackets or headers";
            self.refuse(&field.span(), why);
            return None;
        };
        let user = crate::sip::user_of(uri).unwrap_or_default();
        if let Err(why) = dial::judge(&user, self.dial_allow.as_deref()) {
            self.refuse(&field.span(), format!("the number in uri may not be dialled: {why}"));
        }
        let over = crate::sip::dialled_over(uri);
        if over == Some(Transport::Tls) && !self.has_tls {
            let why = "transport=tls needs [edge] sip_tls: the edge would have no certificate to show";
            self.refuse(&field.span(), why);
        }
        if over.is_some_and(Transport::is_opened_by_peer) {
            let why =
                "a phone on a WebSocket cannot be dialled: give it user and password_file, and it registers";
            self.refuse(&field.span(), why);
        }
        Some(FixedPhone { uri: Pii::new(uri.clone()), host, line: self.line(&field.span()) })
    }

    pub(super) fn queues(
        &mut self,
        tables: &[QueueTable],
        agents: &[AgentTable],
        webhooks: &[WebhookTable],
    ) -> Vec<Queue> {
        self.skills(tables, agents);
        let mut ids = BTreeSet::new();
        let mut queues = Vec::new();
        for table in tables {
            self.unique(&mut ids, &table.id, "queue");
            let id = self.parsed(&table.id, "id");
            let label = self.name(Some(&table.label), "label", "");
            let spoken = self.spoken(&table.spoken);
            let members = self.members(table, agents);
            let attempts =
                self.in_range(table.attempts_max.as_ref(), "attempts_max", ATTEMPTS, *ATTEMPTS.end());
            let patience = table.overflow_after_s.as_ref().map(|field| {
                self.in_range(Some(field), "overflow_after_s", OVERFLOW_AFTER_S, *OVERFLOW_AFTER_S.end())
            });
            let payload_ack = self.payload_ack(table.payload_ack.as_ref(), webhooks);
            let fallback = self.fallback(table, tables);
            let on_agent_bye = self.choice(table.on_agent_bye.as_ref(), "on_agent_bye", &SURVIVORS_OF_BYE);
            let on_agent_lost =
                self.choice(table.on_agent_lost.as_ref(), "on_agent_lost", &SURVIVORS_OF_LOSS);
            let survivors = on_agent_bye.zip(on_agent_lost);
            let mode = self.choice(table.mode.as_ref(), "mode", &MODES);
            let wait = self.in_range(
                table.wait_default_s.as_ref(),
                "wait_default_s",
                WAIT_DEFAULT_S,
                WAIT_DEFAULT_DEFAULT_S,
            );
            if let (
                Some(id),
                Some(label),
                Some(spoken),
                Some(attempts_max),
                Some(payload_ack),
                Some(wait),
                Some(mode),
                Some((on_agent_bye, on_agent_lost)),
            ) = (id, label, spoken, attempts, payload_ack, wait, mode, survivors)
            {
                queues.push(Queue {
                    id,
                    label,
                    spoken,
                    agents: members,
                    attempts_max,
                    patience: patience.flatten().map(|secs| Duration::from_secs(secs.into())),
                    payload_ack,
                    fallback,
                    on_agent_bye,
                    on_agent_lost,
                    wait_default_s: wait,
                    mode,
                });
            }
        }
        queues
    }

    fn spoken(&mut self, field: &Spanned<String>) -> Option<String> {
        let spoken = field.get_ref();
        if message::is_destination(spoken) {
            return Some(spoken.clone());
        }
        let known: BTreeSet<&str> = message::catalogue()
            .keys()
            .filter_map(|clip| clip.0.rsplit_once('.'))
            .map(|(name, _lang)| name)
            .collect();
        let known: Vec<&str> = known.into_iter().filter(|name| message::is_destination(name)).collect();
        self.refuse(
            &field.span(),
            format!("spoken: there is no clip \"{spoken}\"; known: {}", known.join(", ")),
        );
        None
    }

    /// Skills are plain names, and one that no queue wants is a mistake on one side.
    fn skills(&mut self, queues: &[QueueTable], agents: &[AgentTable]) {
        let wanted: BTreeSet<&str> =
            queues.iter().flat_map(|queue| &queue.skills).map(|skill| skill.get_ref().as_str()).collect();
        for skill in queues.iter().flat_map(|queue| &queue.skills) {
            self.name(Some(skill), "skill", "");
        }
        for skill in agents.iter().flat_map(|agent| &agent.skills) {
            self.name(Some(skill), "skill", "");
            if !wanted.contains(skill.get_ref().as_str()) {
                self.warn(&skill.span(), format!("no queue wants the skill \"{}\"", skill.get_ref()));
            }
        }
    }

    /// Those named, then those who have every skill that the queue wants.
    fn members(&mut self, table: &QueueTable, agents: &[AgentTable]) -> Vec<HumanAgentId> {
        let queue = table.id.get_ref();
        let mut seen = BTreeSet::new();
        let mut members = Vec::new();
        for field in &table.agents {
            self.unique(&mut seen, field, "queue member");
            if !agents.iter().any(|agent| agent.id.get_ref() == field.get_ref()) {
                let why = format!("queue \"{queue}\": there is no agent \"{}\"", field.get_ref());
                self.refuse(&field.span(), why);
            } else if let Ok(id) = HumanAgentId::parse(field.get_ref()) {
                members.push(id);
            }
        }
        let has = |agent: &AgentTable, skill: &Spanned<String>| {
            agent.skills.iter().any(|own| own.get_ref() == skill.get_ref())
        };
        let skilled = |agent: &&AgentTable| {
            !table.skills.is_empty() && table.skills.iter().all(|skill| has(agent, skill))
        };
        let mut nobody = true;
        for agent in agents.iter().filter(skilled) {
            nobody = false;
            let id = HumanAgentId::parse(agent.id.get_ref()).ok();
            members.extend(id.filter(|id| !members.contains(id)));
        }
        if let (Some(skill), true) = (table.skills.first(), nobody) {
            self.refuse(&skill.span(), format!("queue \"{queue}\": no agent has all of its skills"));
        } else if table.agents.is_empty() && table.skills.is_empty() {
            self.refuse(&table.id.span(), format!("queue \"{queue}\" has nobody in it"));
        }
        members
    }

    fn payload_ack(
        &mut self,
        field: Option<&Spanned<String>>,
        webhooks: &[WebhookTable],
    ) -> Option<PayloadAck> {
        let Some(field) = field else { return Some(PayloadAck::Desktop) };
        let name = field.get_ref();
        if name == "desktop" {
            return Some(PayloadAck::Desktop);
        }
        if !webhooks.iter().any(|webhook| webhook.id.get_ref() == name) {
            self.refuse(
                &field.span(),
                format!("payload_ack: \"{name}\" is neither \"desktop\" nor a webhook"),
            );
            return None;
        }
        DestinationId::parse(name).ok().map(PayloadAck::Destination)
    }

    /// The links in their order. `others` are the ids of all queues, this one's among them.
    fn fallback(&mut self, table: &QueueTable, others: &[QueueTable]) -> Vec<Fallback> {
        let mut chain = Vec::new();
        for field in &table.fallback {
            let name = field.get_ref().as_str();
            let link = match (name, name.strip_prefix(QUEUE_LINK)) {
                ("voice_agent", _) => Some(Fallback::VoiceAgent),
                ("voicemail", _) => Some(Fallback::Voicemail),
                ("callback", _) => Some(Fallback::Callback),
                ("closing", _) => Some(Fallback::Closing),
                (_, Some(id)) => self.other_queue(field, id, table, others),
                (_, None) => {
                    let why = format!(
                        "fallback is \"{name}\": choose \"queue:ID\" or \"voice_agent\" or \"voicemail\" or \
                         \"callback\" or \"closing\""
                    );
                    self.refuse(&field.span(), why);
                    None
                }
            };
            let Some(link) = link else { continue };
            if chain.contains(&link) || chain.contains(&Fallback::Closing) {
                self.refuse(&field.span(), format!("fallback: \"{name}\" could never be reached"));
            }
            chain.push(link);
        }
        chain
    }

    /// A link to another queue.
    fn other_queue(
        &mut self,
        field: &Spanned<String>,
        id: &str,
        table: &QueueTable,
        others: &[QueueTable],
    ) -> Option<Fallback> {
        if id == table.id.get_ref() {
            self.refuse(&field.span(), format!("fallback: queue \"{id}\" is this queue itself"));
            return None;
        }
        if !others.iter().any(|other| other.id.get_ref() == id) {
            self.refuse(&field.span(), format!("fallback: there is no queue \"{id}\""));
            return None;
        }
        QueueId::parse(id).ok().map(Fallback::Queue)
    }
}

/// Stands before the id of another queue in a fallback chain.
const QUEUE_LINK: &str = "queue:";
/// The first is what the product is for.
const MODES: [(&str, Mode); 2] = [("warm", Mode::Warm), ("cold", Mode::Cold)];
/// Who hangs up has usually said goodbye. The first is the default.
const SURVIVORS_OF_BYE: [(&str, Survivor); 4] = [
    ("end", Survivor::End),
    ("reoffer", Survivor::Reoffer),
    ("voice_agent", Survivor::VoiceAgent),
    ("closing", Survivor::Closing),
];
/// Who is lost has not; the caller still needs a person.
const SURVIVORS_OF_LOSS: [(&str, Survivor); 4] = [
    ("reoffer", Survivor::Reoffer),
    ("voice_agent", Survivor::VoiceAgent),
    ("closing", Survivor::Closing),
    ("end", Survivor::End),
];
/// Shorter, and nobody reaches the phone; longer, and the caller waits two minutes for one
/// person.
const RING_TIMEOUT_S: RangeInclusive<u32> = 5..=120;
/// Four rings.
const RING_TIMEOUT_DEFAULT_S: u32 = 20;
/// Shorter, and a person who reads first is taken for a machine; longer, and the caller waits
/// for a machine.
const ACCEPT_TIMEOUT_S: RangeInclusive<u32> = 5..=30;
/// Time to read a card.
const ACCEPT_TIMEOUT_DEFAULT_S: u32 = 20;
/// Every attempt costs the caller a ring timeout, and a trunk may bill it.
const ATTEMPTS: RangeInclusive<u32> = 1..=3;
/// Shorter than a ring time, and nobody of the queue is ever reached; longer, and the people
/// who may be tried are through before.
const OVERFLOW_AFTER_S: RangeInclusive<u32> = 10..=300;
/// What the catalogue can say: five seconds to ten minutes.
const WAIT_DEFAULT_S: RangeInclusive<u32> = 5..=600;
/// A usual ring and a usual whisper.
const WAIT_DEFAULT_DEFAULT_S: u32 = 30;
/// Fits the desktop's header.
const DISPLAY_NAME_LEN_MAX: usize = 80;
/// Digest does not slow guessing down, so the password must.
const PASSWORD_LEN_MIN: usize = 8;
/// Fits a SIP line with its domain.
const USER_LEN_MAX: usize = 64;
/// Fits a SIP request line.
const DIAL_URI_LEN_MAX: usize = 256;
