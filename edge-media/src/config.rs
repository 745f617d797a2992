//! The configuration of one edge, read from TOML and checked whole before a port is bound.
//! An unknown key is refused by name and line; every other fault is collected, so that one
//! run of `warmbridge check` names them all. Secrets never appear in a message, a log or a
//! `Debug` line. Nothing here opens a socket or looks a name up.

mod check;
mod document;

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use handoff::call::{Fallback, OnVoiceAgentBye, PayloadAck, QueueRules, Survivor, Target};
use handoff::event::{Mode, WebhookKind};
use handoff::id::{DestinationId, EdgeId, HumanAgentId, QueueId, TenantId};
use handoff::pii::Pii;
use ipnet::IpNet;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::io::tls::Tls;
use crate::sip::{Rel100, Server, SrtpPolicy, Transport};

/// A configuration in which every value has been checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// This edge.
    pub edge: Edge,
    /// Where calls come from.
    pub trunks: Vec<Trunk>,
    /// The machine that answers first.
    pub voice_agent: VoiceAgent,
    /// The people who take over.
    pub agents: Vec<Agent>,
    /// Groups of people; the first is the default.
    pub queues: Vec<Queue>,
    /// The file with the rules that decide transfers.
    pub policy_file: PathBuf,
    /// `[payload]`: intents, actions and CRM fields, in the form that the catalogue parses.
    pub payload: toml::Table,
    /// Receivers of webhooks.
    pub webhooks: Vec<Webhook>,
    /// Keys of the audit trail.
    pub audit: Audit,
    /// The stack whose functions serve this edge; in this process where it is left out.
    pub aws: Option<Aws>,
    /// People and programs that may ask the HTTP API.
    pub operators: Vec<Operator>,
    warnings: Vec<Problem>,
}

/// `[edge]`.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Its id: the `source` of every event.
    pub id: EdgeId,
    /// Whose calls it carries.
    pub tenant: TenantId,
    /// SIP over UDP listens here.
    pub sip_udp: Option<SocketAddr>,
    /// SIP over TCP listens here.
    pub sip_tcp: Option<SocketAddr>,
    /// SIP over TLS listens here.
    pub sip_tls: Option<SocketAddr>,
    /// SIP over WebSocket listens here.
    pub sip_ws: Option<SocketAddr>,
    /// The same inside TLS listens here.
    pub sip_wss: Option<SocketAddr>,
    /// The edge's certificate, and whom it trusts.
    pub tls: Option<Tls>,
    /// Whether audio with phones is encrypted.
    pub phones_srtp: SrtpPolicy,
    /// The desktop page and the API listen here.
    pub http: SocketAddr,
    /// The address that SDP and Contact advertise.
    pub public_ip: IpAddr,
    /// Base of the links in a payload, without a trailing slash.
    pub public_url: String,
    /// First and last RTP port (both even; RTCP is the next one).
    pub rtp_ports: (u16, u16),
    /// Where the embedded store lives.
    pub data_dir: PathBuf,
    /// Accept loopback addresses in SDP and webhooks.
    pub allow_loopback: bool,
    /// Tell the caller's trunk about hold.
    pub hold_signalling: HoldSignalling,
    /// The caller may cancel a transfer by key or word while waiting.
    pub cancel_while_waiting: bool,
    /// How long nothing may come from a leg that is not held before it counts as lost.
    pub rtp_timeout: Duration,
    /// How long calls may go on after the edge was told to stop; then they are ended.
    pub drain_max: Duration,
    /// BCP 47 language of prompts.
    pub lang: String,
    /// Clip and text id of the AI and recording disclosure.
    pub disclosure: String,
    /// Record the legs.
    pub recording: bool,
}

/// How the caller's trunk learns of hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldSignalling {
    /// Re-INVITE with `sendonly`.
    #[default]
    Reinvite,
    /// Not at all: the caller's audio keeps coming.
    None,
}

/// `[[trunk]]`: a peer that may send calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Trunk {
    /// Its name in records.
    pub name: String,
    /// Its source addresses. None where it registers and is known by its servers.
    pub addresses: Vec<IpNet>,
    /// The type of its calls, for routing rules.
    pub call_type: Option<String>,
    /// The name that its certificate must show.
    pub certificate: Option<String>,
    /// Calls from it at once.
    pub calls_max: Option<u32>,
    /// Calls from it that arrive in a second.
    pub calls_per_s: Option<u32>,
    /// Reliable provisional responses, to it and from it.
    pub rel100: Rel100,
    /// Whether its audio is encrypted.
    pub srtp: SrtpPolicy,
    /// What is kept up with it.
    pub uplink: Option<TrunkUplink>,
}

/// What the edge keeps up with a trunk.
#[derive(Clone, Debug, PartialEq)]
pub struct TrunkUplink {
    /// The account that it registers.
    pub account: Option<TrunkAccount>,
    /// Its servers in the order in which they are tried.
    pub servers: Vec<Server>,
    /// How they are spoken to.
    pub transport: Transport,
    /// How often its server is asked with OPTIONS.
    pub options: Option<Duration>,
}

/// An account at a carrier.
#[derive(Clone, Debug, PartialEq)]
pub struct TrunkAccount {
    /// The user part of its address of record.
    pub user: String,
    /// The registrar's domain.
    pub domain: String,
    /// The registrar's port, where it is given.
    pub port: Option<u16>,
    /// The digest user name.
    pub auth_user: String,
    /// The digest password.
    pub password: Secret,
    /// How long a registration is asked for.
    pub expires_s: u32,
}

/// `[voice_agent]`: the WebSocket that the edge dials for each call.
#[derive(Clone)]
pub struct VoiceAgent {
    /// `ws://` or `wss://`.
    pub url: String,
    /// Key of the signature over the URL; no header is sent without it.
    pub auth_token: Option<Secret>,
    /// Bearer token with which the voice agent may post signals over HTTP.
    pub signal_token: Option<Secret>,
    /// What happens when it leaves by itself.
    pub on_bye: OnVoiceAgentBye,
}

impl fmt::Debug for VoiceAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VoiceAgent")
            .field("url", &Origin(&self.url))
            .field("auth_token", &self.auth_token)
            .field("signal_token", &self.signal_token)
            .field("on_bye", &self.on_bye)
            .finish()
    }
}

/// A URL without its path and query: providers put tokens there.
struct Origin<'a>(&'a str);

impl fmt::Debug for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.0.find("://").map_or(0, |at| at + "://".len());
        let rest = self.0.get(start..).unwrap_or_default();
        let end = rest.find(['/', '?', '#']).map_or(self.0.len(), |at| start + at);
        write!(f, "{}/…", self.0.get(..end).unwrap_or_default())
    }
}

/// How an agent's phone is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum Phone {
    /// A softphone that registers with this user name and password.
    Registered {
        /// User part of its address of record.
        user: String,
        /// Digest password.
        password: Secret,
        /// The phone knows MD5 only (RFC 2617): the challenge is weaker for its sake.
        allow_md5: bool,
    },
    /// A fixed address.
    Fixed(FixedPhone),
}

/// A phone that does not register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedPhone {
    /// Its `sip:` URI.
    pub uri: Pii<String>,
    /// The host of the URI: an address, or a name that somebody has to look up.
    pub host: String,
    /// Where the file names it, for what is found out about the host later.
    pub line: usize,
}

/// `[[agent]]`: a person who takes calls.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Who.
    pub id: HumanAgentId,
    /// As shown on the desktop.
    pub name: Pii<String>,
    /// Their phone.
    pub phone: Phone,
    /// BCP 47 language of the whisper.
    pub lang: String,
    /// How long the phone rings.
    pub ring_timeout: Duration,
    /// How long this person may take to accept after the whisper.
    pub accept_timeout: Duration,
    /// Answering the phone counts as accepting.
    pub accept_on_answer: bool,
    /// Presence is proven by registration, so the whisper may be personal at once.
    pub trusted: bool,
    /// Opens this person's desktop.
    pub desktop_token: Option<Secret>,
}

/// `[[queue]]`: a group of people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its id.
    pub id: QueueId,
    /// Its name on screens.
    pub label: String,
    /// The clip that names it to the caller.
    pub spoken: String,
    /// Its members, in the order in which ties are broken: those named, then those with all of
    /// the skills that it wants.
    pub agents: Vec<HumanAgentId>,
    /// Most people tried in one transfer.
    pub attempts_max: u32,
    /// How long its people may be rung in all.
    pub patience: Option<Duration>,
    /// Whose acknowledgement opens the barrier.
    pub payload_ack: PayloadAck,
    /// What happens when nobody takes the call, in order.
    pub fallback: Vec<Fallback>,
    /// Where the caller goes when the human agent hangs up after the bridge.
    pub on_agent_bye: Survivor,
    /// Where the caller goes when the human agent's leg is lost after the bridge.
    pub on_agent_lost: Survivor,
    /// Seconds to announce until there is a history to measure.
    pub wait_default_s: u32,
    /// What its people are told before they are connected.
    pub mode: Mode,
}

impl Agent {
    /// This person as a target of one attempt.
    pub fn target(&self, desktop: bool) -> Target {
        Target {
            agent: self.id.clone(),
            ring_timeout: self.ring_timeout,
            accept_timeout: self.accept_timeout,
            lang: self.lang.clone(),
            trusted: self.trusted,
            accept_on_answer: self.accept_on_answer,
            desktop,
        }
    }
}

impl Queue {
    /// The rules that a call is pinned to.
    pub fn rules(&self) -> QueueRules {
        QueueRules {
            id: self.id.clone(),
            spoken: self.spoken.clone(),
            attempts_max: self.attempts_max,
            patience: self.patience,
            payload_ack: self.payload_ack.clone(),
            fallback: self.fallback.clone(),
            on_agent_bye: self.on_agent_bye,
            on_agent_lost: self.on_agent_lost,
            wait_default_s: self.wait_default_s,
            mode: self.mode,
        }
    }
}

/// How much a webhook carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebhookMode {
    /// Ids, headline and link.
    #[default]
    Thin,
    /// The payload, projected by the destination's grants.
    Full,
}

/// A class of data that a destination may receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// Personal data.
    Pii,
    /// Health information.
    Phi,
}

/// `[[webhook]]`: a receiver.
#[derive(Clone)]
pub struct Webhook {
    /// Its id in records and in `payload_ack`.
    pub id: DestinationId,
    /// Where to.
    pub url: String,
    /// Signing key, decoded: 24 to 64 bytes.
    pub secret: Option<Secret>,
    /// The key before it: both sign until it is removed.
    pub old_secret: Option<Secret>,
    /// What it receives.
    pub events: BTreeSet<WebhookKind>,
    /// How much.
    pub mode: WebhookMode,
    /// A transfer that it missed counts as degraded.
    pub required: bool,
    /// Private addresses that this destination alone may have.
    pub allow_private: Vec<IpNet>,
    /// What it may receive.
    pub grants: BTreeSet<Grant>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("id", &self.id)
            .field("url", &Origin(&self.url))
            .field("secret", &self.secret)
            .field("old_secret", &self.old_secret)
            .field("events", &self.events)
            .field("mode", &self.mode)
            .field("required", &self.required)
            .field("allow_private", &self.allow_private)
            .field("grants", &self.grants)
            .finish()
    }
}

/// Whether `path` is `dir` or lies in it, with links followed as far as the path exists.
pub(crate) fn within(path: &Path, dir: &Path) -> bool {
    let real = |path: &Path| {
        let mut real = PathBuf::new();
        for part in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
            match part {
                Component::ParentDir => drop(real.pop()),
                Component::CurDir => {}
                Component::Prefix(_) | Component::RootDir | Component::Normal(_) => real.push(part),
            }
            real = real.canonicalize().unwrap_or(real);
        }
        real
    };
    real(path).starts_with(real(dir))
}

/// `[audit]`.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Key of the pseudonym of callers' numbers; without it the edge makes one in its data
    /// directory.
    pub tag_key: Option<Secret>,
    /// The folder of signed checkpoints, outside the data directory; without it none are made.
    pub checkpoints: Option<PathBuf>,
    /// From one checkpoint to the next.
    pub checkpoint_every: Duration,
}

/// `[aws]`: the functions run in the cloud, not in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aws {
    /// Name of the deployed stack; its queues and tables follow from it.
    pub stack: String,
    /// The stack's bucket of settings and transcripts, an output of its deployment.
    pub media_bucket: String,
    /// Voices of Polly for free text; without them it is never asked.
    pub polly: Option<Polly>,
}

/// `[aws.polly]`: who speaks free text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polly {
    /// The engine of all voices, by Polly's name for it.
    pub engine: &'static str,
    /// A voice for each language, by Polly's name for it; the keys are BCP 47 tags in lower
    /// case, whole or of the language alone.
    pub voices: BTreeMap<String, String>,
}

impl Polly {
    /// The voice for a BCP 47 tag: that of the tag, else that of its language.
    pub fn voice(&self, tag: &str) -> Option<&str> {
        let tag = tag.to_ascii_lowercase();
        let primary = tag.split('-').next().unwrap_or_default();
        self.voices.get(&tag).or_else(|| self.voices.get(primary)).map(String::as_str)
    }
}

/// What an operator's token opens. Agents have their own tokens and their own transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorRole {
    /// Lists of calls, without personal data.
    Monitor,
    /// Also payloads and transcripts; each look is recorded.
    Supervisor,
}

/// `[[operator]]`: a person or a program that may ask the API.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Who, as written into the access record.
    pub id: String,
    /// What the token opens.
    pub role: OperatorRole,
    /// Bearer token.
    pub token: Secret,
}

/// A secret: compared in constant time, wiped when dropped, never printed.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes of a secret.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The secret itself. Each use is a decision; search for `reveal()` to audit them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// Compares without telling by its duration where the difference is.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.ct_eq(presented).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// One thing that is wrong, or doubtful, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the file, from 1; `None` where it concerns the file as a whole.
    pub line: Option<usize>,
    /// What, in words an operator understands.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Why a configuration was refused: every problem, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {problem}", self.path.display())?;
        }
        Ok(())
    }
}

/// What `warmbridge check` says about a configuration that loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Doubtful, but allowed.
    pub warnings: Vec<Problem>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        f.write_str("ok")
    }
}

impl Config {
    /// Reads and checks a configuration with the files that it names.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = read_bounded(path).map_err(|error| ConfigErrors {
            path: path.to_owned(),
            problems: vec![Problem { line: None, message: format!("cannot be read: {error}") }],
        })?;
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(&text, &|file| read_bounded(&base.join(file)))
            .map(|config| config.in_directory(base))
            .map_err(|problems| ConfigErrors { path: path.to_owned(), problems })
    }

    /// Checks the text of a configuration. `read` yields the files that it names, by the
    /// path as written.
    pub fn parse(text: &str, read: &dyn Fn(&Path) -> io::Result<String>) -> Result<Self, Vec<Problem>> {
        let document = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_at(text, span.start));
            vec![Problem { line, message: without_value(error.message()) }]
        })?;
        check::Checker::new(text, read).run(document)
    }

    /// What is allowed but doubtful: secrets written into the file itself, unencrypted
    /// links, people without a desktop, no speech synthesis for the whisper.
    pub fn check(&self) -> Report {
        let mut warnings = self.warnings.clone();
        let polly = self.aws.as_ref().and_then(|aws| aws.polly.as_ref());
        let spoken = |agent: &Agent| polly.is_some_and(|polly| polly.voice(&agent.lang).is_some());
        if !synthesis_installed() && !self.agents.iter().all(spoken) {
            let message =
                "espeak-ng is not installed: the whisper is a generic clip beside the card".to_owned();
            warnings.push(Problem { line: None, message });
        }
        Report { warnings }
    }

    /// The agent whose desktop this token opens. Every token is compared, so that the time
    /// taken does not tell whose it resembles.
    pub fn agent_by_token(&self, presented: &[u8]) -> Option<&Agent> {
        let mut found = None;
        for agent in &self.agents {
            if agent.desktop_token.as_ref().is_some_and(|token| token.matches(presented)) {
                found = Some(agent);
            }
        }
        found
    }

    /// The operator to whom this token belongs; compared like [`Config::agent_by_token`].
    pub fn operator_by_token(&self, presented: &[u8]) -> Option<&Operator> {
        let mut found = None;
        for operator in &self.operators {
            if operator.token.matches(presented) {
                found = Some(operator);
            }
        }
        found
    }

    /// The phones that do not register.
    pub fn fixed_phones(&self) -> impl Iterator<Item = &FixedPhone> {
        self.agents.iter().filter_map(|agent| match &agent.phone {
            Phone::Fixed(phone) => Some(phone),
            Phone::Registered { .. } => None,
        })
    }

    fn in_directory(mut self, base: &Path) -> Self {
        self.policy_file = base.join(&self.policy_file);
        self.edge.data_dir = base.join(&self.edge.data_dir);
        self
    }
}

/// Reads a file of at most [`FILE_BYTES_MAX`] bytes.
fn read_bounded(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {FILE_BYTES_MAX} bytes"),
        ));
    }
    std::fs::read_to_string(path)
}

/// The line, from 1, on which a byte offset lies.
fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// What the TOML reader says, without the value that it quotes: that may be a password.
fn without_value(message: &str) -> String {
    match message.split_once(": ") {
        Some((fault @ ("invalid type" | "invalid value" | "invalid length"), rest)) => {
            let expected = rest.rfind("expected ").and_then(|at| rest.get(at..)).unwrap_or_default();
            format!("{fault}, {expected}")
        }
        Some(_) | None => message.replace('\n', ", "),
    }
}

fn synthesis_installed() -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("espeak-ng").is_file()))
}

/// Largest file read: a thousand agents fit into a fifth of it, and a wrong path to a disk
/// image does not fill the memory.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests;
