//! Judges the values of a configuration. Nothing stops at the first fault: each value that
//! cannot be used is named with its line, and the configuration exists only when there is
//! none. Files that hold secrets are read here, once.

mod people;
mod trunk;
mod values;
mod webhook;

use core::ops::{Range, RangeInclusive};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use handoff::call::OnVoiceAgentBye;
use handoff::call::media::ClipId;
use handoff::dial;
use handoff::message;
use hyper::Uri;
use toml::Spanned;

use super::document::{
    AuditTable, AwsTable, Document, EdgeTable, OperatorTable, PolicyTable, PollyTable, VoiceAgentTable,
};
use super::{
    Agent, Audit, Aws, Config, Edge, HoldSignalling, Operator, OperatorRole, Polly, Problem, Secret,
    VoiceAgent, within,
};
use crate::io::tls::{Pem, Tls, TlsError};
use crate::sip::SrtpPolicy;
use values::{NAME_LEN_MAX, SecretSource, is_language_tag, literal_ip};

/// The key of phones, which may come over WebSockets as well.
const PHONES_SRTP: &str = "phones_srtp";
/// Longest name of a stack: the service's limit.
const STACK_LEN_MAX: usize = 128;
/// What Polly calls its engines.
const POLLY_ENGINES: [&str; 4] = ["standard", "neural", "long-form", "generative"];
/// Within the time that a ringing telephone gives, the best of them.
const POLLY_ENGINE_DEFAULT: &str = "neural";
/// Polly has about 40 languages and variants.
const POLLY_VOICES_MAX: usize = 64;

/// Collects what is wrong while it turns tables into values.
pub(super) struct Checker<'a> {
    text: &'a str,
    read: &'a dyn Fn(&Path) -> io::Result<String>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// The functions run in the cloud.
    in_cloud: bool,
    /// SIP is spoken over TCP.
    has_tcp: bool,
    /// SIP is spoken over TLS.
    has_tls: bool,
    /// The only ranges of numbers that may be dialled, where there are any.
    dial_allow: Option<Vec<dial::Range>>,
    /// Phones have a way in that is TLS: that one, or WebSockets inside TLS.
    has_secure_phones: bool,
    /// There are authorities that vouch for trunks.
    knows_certificates: bool,
}

impl<'a> Checker<'a> {
    pub(super) const fn new(text: &'a str, read: &'a dyn Fn(&Path) -> io::Result<String>) -> Self {
        Self {
            text,
            read,
            problems: Vec::new(),
            warnings: Vec::new(),
            in_cloud: false,
            has_tcp: false,
            has_tls: false,
            dial_allow: None,
            has_secure_phones: false,
            knows_certificates: false,
        }
    }

    /// The configuration, or everything that is wrong with it, in the order of the file.
    pub(super) fn run(mut self, document: Document) -> Result<Config, Vec<Problem>> {
        self.bounded("trunk", document.trunk.len(), 1..=TRUNKS_MAX);
        self.bounded("agent", document.agent.len(), 1..=AGENTS_MAX);
        self.bounded("queue", document.queue.len(), 1..=QUEUES_MAX);
        self.bounded("webhook", document.webhook.len(), 0..=WEBHOOKS_MAX);
        self.bounded("operator", document.operator.len(), 0..=OPERATORS_MAX);

        self.in_cloud = document.aws.is_some();
        self.has_tcp = document.edge.sip_tcp.is_some();
        self.has_tls = document.edge.sip_tls.is_some();
        self.dial_allow = self.dial_ranges(document.edge.dial_allow.as_ref());
        self.knows_certificates = document.edge.tls_client_ca_file.is_some();
        self.has_secure_phones = self.has_tls || document.edge.sip_wss.is_some();
        let loopback = document.edge.allow_loopback.as_ref().is_some_and(|allow| *allow.get_ref());
        let edge = self.edge(&document.edge);
        let trunks = self.trunks(&document.trunk, loopback);
        let voice_agent = self.voice_agent(&document.voice_agent);
        let agents = self.agents(&document.agent);
        let webhooks = self.webhooks(&document.webhook, loopback);
        let queues = self.queues(&document.queue, &document.agent, &document.webhook);
        let operators = self.operators(&document.operator);
        let data_dir = document.edge.data_dir.as_deref().unwrap_or_else(|| Path::new(DATA_DIR));
        let audit = self.audit(&document.audit, data_dir);
        let aws = document.aws.as_ref().and_then(|table| self.aws(table));
        if let (Some(folder), true) = (&document.audit.checkpoints, aws.is_some()) {
            self.refuse(&folder.span(), "checkpoints beside [aws]: the stack makes its own");
        }
        let policy_file = self.policy_file(&document.policy);
        self.distinct_tokens(&agents, &operators);

        let order = |problem: &Problem| problem.line.unwrap_or(usize::MAX);
        self.problems.sort_by_key(order);
        self.warnings.sort_by_key(order);
        match (edge, voice_agent) {
            (Some(edge), Some(voice_agent)) if self.problems.is_empty() => Ok(Config {
                edge,
                trunks,
                voice_agent,
                agents,
                queues,
                policy_file,
                payload: document.payload,
                webhooks,
                audit,
                aws,
                operators,
                warnings: self.warnings,
            }),
            (Some(_) | None, Some(_) | None) => Err(self.problems),
        }
    }

    /// A listener for TLS has a certificate and a key that can be read.
    fn tls(&mut self, table: &EdgeTable) -> Option<Tls> {
        let Some(listener) = table.sip_tls.as_ref().or(table.sip_wss.as_ref()) else {
            let files =
                [&table.tls_cert_file, &table.tls_key_file, &table.tls_ca_file, &table.tls_client_ca_file];
            if let Some(file) = files.into_iter().flatten().next() {
                self.refuse(&file.span(), "a file for TLS without sip_tls or sip_wss: nothing would listen");
            }
            return None;
        };
        let (Some(cert), Some(key)) = (&table.tls_cert_file, &table.tls_key_file) else {
            self.refuse(&listener.span(), "sip_tls and sip_wss need tls_cert_file and tls_key_file");
            return None;
        };
        let clients_required = self.client_certificates(table)?;
        let files = [Some(cert), Some(key), table.tls_ca_file.as_ref(), table.tls_client_ca_file.as_ref()];
        let mut texts: [Option<String>; 4] = Default::default();
        for (file, text) in files.into_iter().zip(&mut texts) {
            if let Some(file) = file {
                *text = Some(self.text_of(file)?);
            }
        }
        let [certificate, key, roots, clients] = &texts;
        let pem = Pem {
            certificate: certificate.as_deref()?,
            key: key.as_deref()?,
            roots: roots.as_deref(),
            clients: clients.as_deref(),
            clients_required,
        };
        match Tls::of_pem(pem) {
            Ok(tls) => Some(tls),
            Err(error) => {
                let place = match error {
                    TlsError::Clients(_) => table.tls_client_ca_file.as_ref().unwrap_or(cert),
                    TlsError::Missing(_) | TlsError::Unusable(_) => cert,
                };
                self.refuse(&place.span(), error.to_string());
                None
            }
        }
    }

    fn text_of(&mut self, file: &Spanned<PathBuf>) -> Option<String> {
        match (self.read)(file.get_ref()) {
            Ok(text) => Some(text),
            Err(error) => {
                self.refuse(&file.span(), format!("{}: {error}", file.get_ref().display()));
                None
            }
        }
    }

    /// Whether everybody who connects over TLS shows a certificate.
    fn client_certificates(&mut self, table: &EdgeTable) -> Option<bool> {
        let choices = [("optional", false), ("required", true)];
        let required = self.choice(table.tls_client_certificate.as_ref(), "tls_client_certificate", &choices);
        if let (Some(field), None) = (&table.tls_client_certificate, &table.tls_client_ca_file) {
            let why = "tls_client_certificate needs tls_client_ca_file: nobody could vouch for one";
            self.refuse(&field.span(), why);
        }
        if let (Some(file), None) = (&table.tls_client_ca_file, &table.sip_tls) {
            let why = "tls_client_ca_file needs sip_tls: browsers are not asked for certificates";
            self.refuse(&file.span(), why);
        }
        required
    }

    /// Where one of SIP's listeners is, where there is one.
    fn listener(&mut self, field: Option<&Spanned<String>>, key: &str) -> Option<SocketAddr> {
        field.and_then(|field| self.parsed::<SocketAddr>(field, key))
    }

    fn edge(&mut self, table: &EdgeTable) -> Option<Edge> {
        let id = self.parsed(&table.id, "id");
        let tenant = self.parsed(&table.tenant, "tenant");
        let sip_udp = self.listener(table.sip_udp.as_ref(), "sip_udp");
        let sip_tcp = self.listener(table.sip_tcp.as_ref(), "sip_tcp");
        let sip_tls = self.listener(table.sip_tls.as_ref(), "sip_tls");
        let sip_ws = self.listener(table.sip_ws.as_ref(), "sip_ws");
        let sip_wss = self.listener(table.sip_wss.as_ref(), "sip_wss");
        let tls = self.tls(table);
        let http = self.parsed::<SocketAddr>(&table.http, "http");
        if table.sip_udp.is_none() {
            self.refuse(
                &table.id.span(),
                "[edge] needs sip_udp: phones are dialled over it (sip_tcp is beside it)",
            );
        }
        let allow_loopback = table.allow_loopback.as_ref().is_some_and(|allow| *allow.get_ref());
        let listeners = [sip_udp, sip_tcp, sip_tls, sip_ws, sip_wss, http];
        let open = listeners.iter().flatten().find(|address| !address.ip().is_loopback());
        if let (Some(allow), true, Some(open)) = (&table.allow_loopback, allow_loopback, open) {
            let why =
                format!("allow_loopback beside the listener {open}: strangers could reach local services");
            self.refuse(&allow.span(), why);
        }
        if http.is_some_and(|address| !address.ip().is_loopback()) {
            let why = "http is not a loopback address: put a TLS proxy before it, tokens travel in it";
            self.warn(&table.http.span(), why);
        }
        let public_ip = self.public_ip(&table.public_ip, allow_loopback);
        let public_url = self.public_url(&table.public_url);
        let rtp_ports = self.rtp_ports(table.rtp_ports.as_ref());
        let phones_srtp = self.srtp(table.phones_srtp.as_ref(), PHONES_SRTP);
        let (hold_signalling, cancel_while_waiting) = self.hold(table);
        let rtp_timeout_s = self.in_range(
            table.rtp_timeout_s.as_ref(),
            "rtp_timeout_s",
            RTP_TIMEOUT_S,
            RTP_TIMEOUT_DEFAULT_S,
        );
        let drain_max_s =
            self.in_range(table.drain_max_s.as_ref(), "drain_max_s", DRAIN_MAX_S, DRAIN_MAX_DEFAULT_S);
        let lang = self.lang(table.lang.as_ref(), "en");
        let disclosure = self.name(table.disclosure.as_ref(), "disclosure", "disclosure.ai_recording");
        if let (Some(lang), Some(disclosure)) = (&lang, &disclosure) {
            let place = table.disclosure.as_ref().or(table.lang.as_ref()).unwrap_or(&table.id).span();
            self.spoken_in(&place, disclosure, lang);
        }
        Some(Edge {
            id: id?,
            tenant: tenant?,
            sip_udp,
            sip_tcp,
            sip_tls,
            sip_ws,
            sip_wss,
            tls,
            phones_srtp: phones_srtp?,
            http: http?,
            public_ip: public_ip?,
            public_url: public_url?,
            rtp_ports: rtp_ports?,
            data_dir: table.data_dir.clone().unwrap_or_else(|| PathBuf::from(DATA_DIR)),
            allow_loopback,
            hold_signalling: hold_signalling?,
            cancel_while_waiting,
            rtp_timeout: Duration::from_secs(rtp_timeout_s?.into()),
            drain_max: Duration::from_secs(drain_max_s?.into()),
            lang: lang?,
            disclosure: disclosure?,
            recording: table.recording,
        })
    }

    /// The first thing that a caller hears must exist in the language of the prompts.
    fn spoken_in(&mut self, place: &Range<usize>, disclosure: &str, lang: &str) {
        let primary = lang.split('-').next().unwrap_or(lang);
        if !message::catalogue().contains_key(&ClipId(format!("{disclosure}.{primary}"))) {
            self.refuse(place, format!("there is no clip \"{disclosure}\" in the language \"{primary}\""));
        }
    }

    fn public_ip(&mut self, field: &Spanned<String>, allow_loopback: bool) -> Option<IpAddr> {
        let ip = self.parsed::<IpAddr>(field, "public_ip")?;
        if ip.is_unspecified() || ip.is_multicast() {
            self.refuse(&field.span(), "public_ip must be an address that peers can send to");
        } else if ip.is_loopback() && !allow_loopback {
            self.refuse(&field.span(), "public_ip is a loopback address without allow_loopback");
        }
        Some(ip)
    }

    fn public_url(&mut self, field: &Spanned<String>) -> Option<String> {
        let url = field.get_ref().trim_end_matches('/').to_owned();
        let uri = self.url(field, "public_url")?;
        if uri.scheme_str() != Some("https") {
            self.refuse(&field.span(), "public_url must begin with https://: its links carry callers' data");
        }
        if uri.query().is_some() || url.len() > PUBLIC_URL_LEN_MAX {
            let why = format!("public_url has a query, or more than {PUBLIC_URL_LEN_MAX} characters");
            self.refuse(&field.span(), why);
        }
        Some(url)
    }

    fn rtp_ports(&mut self, field: Option<&Spanned<(u16, u16)>>) -> Option<(u16, u16)> {
        let Some(field) = field else { return Some(RTP_PORTS_DEFAULT) };
        let (low, high) = *field.get_ref();
        if low < 1024 || low % 2 != 0 || high % 2 != 0 || low >= high {
            self.refuse(&field.span(), "rtp_ports must be two even ports from 1024 on, the lower one first");
            return None;
        }
        if (high - low) / 2 < RTP_PAIRS_MIN {
            let why = format!(
                "rtp_ports hold fewer than {RTP_PAIRS_MIN} pairs: not enough for quarantine and calls"
            );
            self.refuse(&field.span(), why);
        }
        Some((low, high))
    }

    /// Whose audio is encrypted: by default that of whoever speaks TLS.
    fn srtp(&mut self, field: Option<&Spanned<String>>, key: &str) -> Option<SrtpPolicy> {
        let (secure, listener) = if key == PHONES_SRTP {
            (self.has_secure_phones, "sip_tls or sip_wss")
        } else {
            (self.has_tls, "sip_tls")
        };
        let Some(field) = field else { return Some(SrtpPolicy::default()) };
        let choices = [
            ("required", SrtpPolicy::Required),
            ("preferred", SrtpPolicy::Preferred),
            ("off", SrtpPolicy::Off),
        ];
        let policy = self.choice(Some(field), key, &choices);
        if matches!(policy, Some(SrtpPolicy::Required | SrtpPolicy::Preferred)) && !secure {
            let why = format!("{key} needs [edge] {listener}: keys for audio are given inside TLS alone");
            self.refuse(&field.span(), why);
        }
        policy
    }

    fn hold(&mut self, table: &EdgeTable) -> (Option<HoldSignalling>, bool) {
        let choices = [("reinvite", HoldSignalling::Reinvite), ("none", HoldSignalling::None)];
        let hold = self.choice(table.hold_signalling.as_ref(), "hold_signalling", &choices);
        let cancel = table.cancel_while_waiting.as_ref();
        let cancels = cancel.is_some_and(|cancel| *cancel.get_ref());
        if let (Some(cancel), true, Some(HoldSignalling::Reinvite)) = (cancel, cancels, hold) {
            let why = "cancel_while_waiting needs hold_signalling = \"none\": a held caller may stop sending";
            self.refuse(&cancel.span(), why);
        }
        (hold, cancels)
    }

    fn voice_agent(&mut self, table: &VoiceAgentTable) -> Option<VoiceAgent> {
        let uri = self.url(&table.url, "url");
        match uri.as_ref().and_then(Uri::scheme_str) {
            Some("wss") | None => {}
            Some("ws") => {
                let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
                if host != "localhost" && !literal_ip(host).is_some_and(|ip| ip.is_loopback()) {
                    self.warn(&table.url.span(), "ws:// carries the caller's voice unencrypted: use wss://");
                }
            }
            Some(_) => self.refuse(&table.url.span(), "[voice_agent] url must begin with ws:// or wss://"),
        }
        let auth_token = self.secret(SecretSource {
            key: "auth_token",
            inline: table.auth_token.as_ref(),
            file: table.auth_token_file.as_ref(),
        });
        let signal_token = self.token(SecretSource {
            key: "signal_token",
            inline: table.signal_token.as_ref(),
            file: table.signal_token_file.as_ref(),
        });
        let choices =
            [("transfer_default", OnVoiceAgentBye::TransferDefault), ("hangup", OnVoiceAgentBye::Hangup)];
        let on_bye = self.choice(table.on_bye.as_ref(), "on_bye", &choices);
        uri?;
        Some(VoiceAgent { url: table.url.get_ref().clone(), auth_token, signal_token, on_bye: on_bye? })
    }

    fn operators(&mut self, tables: &[OperatorTable]) -> Vec<Operator> {
        let mut ids = BTreeSet::new();
        let mut operators = Vec::new();
        for table in tables {
            self.unique(&mut ids, &table.id, "operator");
            let id = self.name(Some(&table.id), "id", "");
            let choices = [("monitor", OperatorRole::Monitor), ("supervisor", OperatorRole::Supervisor)];
            let role = self.choice(Some(&table.role), "role", &choices);
            let source =
                SecretSource { key: "token", inline: table.token.as_ref(), file: table.token_file.as_ref() };
            let given = source.is_given();
            let token = self.token(source);
            if !given {
                self.refuse(&table.id.span(), "an operator needs token_file (or token)");
            }
            if let (Some(id), Some(role), Some(token)) = (id, role, token) {
                operators.push(Operator { id, role, token });
            }
        }
        operators
    }

    fn audit(&mut self, table: &AuditTable, data_dir: &Path) -> Audit {
        let tag_key = self.key(SecretSource {
            key: "tag_key",
            inline: table.tag_key.as_ref(),
            file: table.tag_key_file.as_ref(),
        });
        let every = self.in_range(
            table.checkpoint_every_s.as_ref(),
            "checkpoint_every_s",
            CHECKPOINT_EVERY_S,
            handoff::checkpoint::EVERY_S,
        );
        if let (Some(every), None) = (&table.checkpoint_every_s, &table.checkpoints) {
            self.refuse(&every.span(), "checkpoint_every_s without checkpoints: nothing would be made");
        }
        if let Some(folder) = table.checkpoints.as_ref().filter(|folder| within(folder.get_ref(), data_dir)) {
            let why = "checkpoints lie inside data_dir: whoever can change the records could change them too";
            self.refuse(&folder.span(), why);
        }
        Audit {
            tag_key,
            checkpoints: table.checkpoints.as_ref().map(|folder| folder.get_ref().clone()),
            checkpoint_every: Duration::from_secs(every.unwrap_or(handoff::checkpoint::EVERY_S).into()),
        }
    }

    /// A stack's name and its bucket, as the cloud takes them.
    fn aws(&mut self, table: &AwsTable) -> Option<Aws> {
        if !cfg!(feature = "aws") {
            let why = "[aws] needs a build with the cloud's adapters: cargo build --release --features aws";
            self.refuse(&table.stack.span(), why);
        }
        let (stack, bucket) = (table.stack.get_ref(), table.media_bucket.get_ref());
        let named = |text: &str, len: RangeInclusive<usize>, also: &[u8]| {
            len.contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
        };
        if !named(stack, 1..=STACK_LEN_MAX, b"-") {
            self.refuse(&table.stack.span(), "stack is not the name of a stack: letters, digits and hyphens");
            return None;
        }
        if !named(bucket, 3..=63, b"-.") {
            self.refuse(&table.media_bucket.span(), "media_bucket is not the name of a bucket");
            return None;
        }
        let polly = match &table.polly {
            Some(polly) => Some(self.polly(polly)?),
            None => None,
        };
        Some(Aws { stack: stack.clone(), media_bucket: bucket.clone(), polly })
    }

    /// Names only: which voices and engines go together is the service's to say, and changes.
    fn polly(&mut self, table: &PollyTable) -> Option<Polly> {
        let before = self.problems.len();
        let asked = table.engine.as_ref().map_or(POLLY_ENGINE_DEFAULT, |engine| engine.get_ref());
        let engine = POLLY_ENGINES.into_iter().find(|engine| *engine == asked);
        if let (None, Some(field)) = (engine, &table.engine) {
            self.refuse(&field.span(), format!("engine must be one of {}", POLLY_ENGINES.join(", ")));
        }
        let mut voices = BTreeMap::new();
        for (tag, voice) in table.voices.get_ref() {
            let name = voice.get_ref();
            if !is_language_tag(tag) {
                self.refuse(&voice.span(), format!("\"{tag}\" is not a BCP 47 tag such as en or en-US"));
            }
            if name.is_empty()
                || name.len() > NAME_LEN_MAX
                || !name.bytes().all(|b| b.is_ascii_alphanumeric())
            {
                self.refuse(&voice.span(), "a voice of Polly is one word such as \"Matthew\"");
            }
            voices.insert(tag.to_ascii_lowercase(), name.clone());
        }
        if voices.is_empty() || voices.len() > POLLY_VOICES_MAX {
            self.refuse(&table.voices.span(), format!("[aws.polly] voices: 1 to {POLLY_VOICES_MAX}"));
        }
        engine.filter(|_| self.problems.len() == before).map(|engine| Polly { engine, voices })
    }

    /// The file must be there; its rules are judged by the policy itself.
    fn policy_file(&mut self, table: &PolicyTable) -> PathBuf {
        let file = table.file.get_ref();
        if let Err(error) = (self.read)(file) {
            self.refuse(
                &table.file.span(),
                format!("[policy] file {} cannot be read: {error}", file.display()),
            );
        }
        file.clone()
    }

    /// A token names one person: two equal ones would open somebody else's desktop.
    fn distinct_tokens(&mut self, agents: &[Agent], operators: &[Operator]) {
        let of_agents = agents.iter().filter_map(|agent| {
            agent.desktop_token.as_ref().map(|token| (agent.id.as_str().to_owned(), token))
        });
        let of_operators = operators.iter().map(|operator| (operator.id.clone(), &operator.token));
        let tokens: Vec<(String, &Secret)> = of_agents.chain(of_operators).collect();
        for (index, (holder, token)) in tokens.iter().enumerate() {
            if let Some((other, _)) = tokens.iter().take(index).find(|(_, other)| other == token) {
                let message = format!("\"{other}\" and \"{holder}\" have the same token: each needs its own");
                self.problems.push(Problem { line: None, message });
            }
        }
    }
}

/// A trunk stands for one network; more are better described by fewer, wider ones.
const TRUNKS_MAX: usize = 64;
/// A team of this size needs several edges long before; it bounds the directory's scans.
const AGENTS_MAX: usize = 1_000;
/// Each queue has a spoken name, and no catalogue has more.
const QUEUES_MAX: usize = 100;
/// Every event is projected and signed per receiver: more belong behind one of them.
const WEBHOOKS_MAX: usize = 32;
/// Every request compares all tokens.
const OPERATORS_MAX: usize = 64;
/// The payload allows 512 characters for a link; paths and ids need the rest.
const PUBLIC_URL_LEN_MAX: usize = 384;
/// Oftener, and signing is most of what the store does; more rarely, and what can be rewritten
/// unseen is more than a working day.
const CHECKPOINT_EVERY_S: RangeInclusive<u32> = 10..=86_400;
/// Where the store is when nothing else is said.
const DATA_DIR: &str = "warmbridge-data";
/// Shorter, and a walk through a tunnel ends the call; longer, and a person talks to nobody.
const RTP_TIMEOUT_S: RangeInclusive<u32> = 5..=300;
/// Long enough for a network to find another way, short enough to wait for.
const RTP_TIMEOUT_DEFAULT_S: u32 = 20;
/// Shorter, and a stop is a hang-up; the longest is what a group of instances waits for at most.
const DRAIN_MAX_S: RangeInclusive<u32> = 10..=172_800;
/// Most calls end by themselves within it; longer holds up whoever restarts an edge by hand.
const DRAIN_MAX_DEFAULT_S: u32 = 900;
/// Outside the range that systems use for outbound connections on their own.
const RTP_PORTS_DEFAULT: (u16, u16) = (20_000, 29_998);
/// Four legs, each with its port and one in quarantine.
const RTP_PAIRS_MIN: u16 = 8;
