//! The stage of a demo call: it sets up every outside party and the edge between them,
//! gives the script its verbs (`caller_says`, `whisper_ended`, …), prints what happens, and
//! at the end collects what each party heard and what the store holds.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use functions::local::Workers;
use handoff::call::media::ClipId;
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::cli::Scenario;
use crate::config::Config;
use crate::demo::crm::Crm;
use crate::demo::desktop::{Desktop, Seen};
use crate::demo::figures::{self, Evidence};
use crate::demo::idle::IdleClock;
use crate::demo::phone::{Phone, PhoneOrder};
use crate::demo::recorded::{self, Recorded};
use crate::demo::report::Report;
use crate::demo::scenario::Plan;
use crate::demo::timeline::Timeline;
use crate::demo::voice_agent::{Cue, Told, VoiceAgent};
use crate::io::Server;
use crate::io::clock::Clock;
use crate::media::prompt::ClipStore;
use crate::sip::{
    Caller, Destination, DialogKey, Direction, Rel100, SipCommand, SipConfig, SipEvent, SrtpPolicy,
    TrunkConfig,
};

/// Nothing in a call takes longer: a machine that answered has 20 s to accept, after the whisper.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// After the call: queues empty, webhooks delivered, chain closed.
const SETTLE_MAX: Duration = Duration::from_secs(15);

/// The carrier's address. Each party has one of its own, since a trunk is known by address.
const CARRIER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// The human agent's address.
const DESK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// The edge's id: that of a stack's first slot, whose command queue every stack has.
const EDGE: &str = "edge-1";

/// The human agent of the configuration below.
const AGENT: &str = "dana_nurse";
/// Softphone password and page token: this store lives for one demo on loopback.
const PASSWORD: &str = "demo-softphone-password";
/// Opens the human agent's page.
const PAGE_TOKEN: &str = "demo-desktop-token-0123456789";
/// Signing secret of the demo's CRM.
const CRM_SECRET: &str = "whsec_ZGVtby1zaWduaW5nLXNlY3JldC0wMTIzNDU2Nzg5";

/// The parties and the edge.
#[derive(Debug)]
pub struct Stage {
    /// The edge under test.
    pub server: Server,
    /// The caller's phone, behind the carrier `demo`.
    pub caller: Phone,
    /// The human agent's softphone.
    pub human: Phone,
    /// The human agent's page.
    pub desktop: Desktop,
    /// The bot.
    pub voice_agent: VoiceAgent,
    /// The CRM.
    pub crm: Crm,
    clock: Clock,
    clips: Arc<ClipStore>,
    timeline: Timeline,
    seen: Vec<Seen>,
    data: PathBuf,
    stack: Option<(String, String)>,
    idle: IdleClock,
}

impl Stage {
    /// Sets the stage: parties first, since the configuration names their addresses.
    /// `stack` names a deployed stack and its bucket, where the functions are not this process's.
    pub async fn set(data: Option<PathBuf>, plan: &Plan, stack: Option<(String, String)>) -> Result<Self> {
        let clock = Clock::start();
        let data = match data {
            Some(data) => data,
            None => std::env::temp_dir().join(format!("warmbridge-demo-{}", clock.wall().unix_millis())),
        };
        std::fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
        let data = data.canonicalize()?;
        let voice_agent = VoiceAgent::start().await?;
        let crm = Crm::start(plan.crm, CRM_SECRET.to_owned()).await?;
        let config = data.join("warmbridge.toml");
        std::fs::write(data.join("policy.toml"), handoff::policy::DEFAULT_TOML)?;
        std::fs::write(&config, configuration(&data, &voice_agent.url, &crm.url, plan, stack.as_ref()))?;
        let config = Config::load(&config).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let server = Server::start(config).await?;
        let caller = Phone::start("caller", CARRIER, clock, 0x5eed_ca11, outside)?;
        let mut human = Phone::start("human", DESK, clock, 0x5eed_0a0e, outside)?;
        human.order(PhoneOrder::Sip(SipCommand::Register {
            user: AGENT.to_owned(),
            password: PASSWORD.to_owned().into(),
            registrar: server.sip,
            domain: server.sip.ip().to_string(),
            expires_secs: 300,
        }));
        registered(&mut human).await?;
        let desktop = Desktop::connect(server.http, PAGE_TOKEN, clock).await?;
        let facts = server.shown();
        let started_ms = clock.wall().unix_millis();
        Ok(Self {
            clips: Arc::new(ClipStore::embedded()),
            server,
            caller,
            human,
            desktop,
            voice_agent,
            crm,
            clock,
            timeline: Timeline::follow(started_ms, facts),
            seen: Vec::new(),
            data,
            stack,
            idle: IdleClock::start(),
        })
    }

    /// Prints and keeps one line of the timeline.
    pub fn say(&self, event: &str) {
        self.timeline.say(self.clock.wall().unix_millis(), event);
    }

    /// Opens the human agent's page in this machine's browser.
    pub fn open_page(&mut self) {
        let url = format!("http://{}/desktop/#token={PAGE_TOKEN}", self.server.http);
        if std::process::Command::new("xdg-open").arg(&url).spawn().is_err() {
            self.say(&format!("no browser could be opened; the page is at {url}"));
        }
    }

    /// The caller dials the number of the voice agent.
    pub fn dial(&self) {
        let to = format!("sip:+18005550100@{}", self.server.sip);
        self.caller.order(PhoneOrder::Sip(SipCommand::Dial {
            dialog: DialogKey(1),
            to: Destination::Uri(to.into()),
            local: self.caller.local(),
            from: Caller { user: "+15555550142".to_owned().into(), domain: None, restricted: false },
            credentials: None,
        }));
    }

    /// Waits for an event of the caller's phone.
    pub async fn caller_event(&mut self, wanted: impl Fn(&SipEvent) -> bool) -> Result<SipEvent> {
        event_of(&mut self.caller, "the caller's phone", wanted).await
    }

    /// Waits until the human agent's phone rings, and returns its dialog.
    pub async fn human_rings(&mut self) -> Result<DialogKey> {
        let rings = |event: &SipEvent| matches!(event, SipEvent::Invited { .. });
        let event = event_of(&mut self.human, "the human agent's phone", rings).await?;
        let SipEvent::Invited { dialog, .. } = event else { bail!("the human agent's phone did not ring") };
        self.human.order(PhoneOrder::Sip(SipCommand::Ring(dialog)));
        Ok(dialog)
    }

    /// Waits until the edge has opened the voice agent's stream.
    pub async fn voice_agent_started(&mut self) -> Result<()> {
        match tokio::time::timeout(WAIT_MAX, self.voice_agent.told()).await {
            Ok(Some(Told::Started)) => Ok(()),
            other => bail!("the voice agent's stream did not start: {other:?}"),
        }
    }

    /// Waits for the disclosure's last sample.
    pub async fn disclosed(&mut self) -> Result<()> {
        self.fact("disclosure.ai_identity").await
    }

    /// Waits until the edge has changed the direction of the caller's audio, as the caller's
    /// phone was told.
    pub async fn caller_directed(&mut self, direction: Direction) -> Result<()> {
        let told =
            |event: &SipEvent| matches!(event, SipEvent::PeerMedia(_, media) if media.direction == direction);
        self.caller_event(told).await.map(drop)
    }

    /// Waits until the human agent's phone is released: cancelled or hung up by the edge.
    pub async fn human_released(&mut self) -> Result<()> {
        let over = |event: &SipEvent| matches!(event, SipEvent::Ended { .. });
        event_of(&mut self.human, "the human agent's phone", over).await.map(drop)
    }

    /// Waits until nobody is tried any more.
    pub async fn returned(&mut self) -> Result<()> {
        self.fact("fallback.taken").await
    }

    /// Waits until the edge has told the voice agent this status of its transfer.
    pub async fn voice_agent_told(&mut self, status: &str) -> Result<()> {
        let wait = async {
            loop {
                match self.voice_agent.told().await {
                    Some(Told::Status(told)) if told == status => return Ok(()),
                    Some(Told::Status(_) | Told::Started) => {}
                    Some(Told::Stopped) | None => bail!("the voice agent's stream is over"),
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, wait)
            .await
            .with_context(|| format!("the voice agent was never told `{status}`"))?
    }

    /// The functions, to be stopped and started.
    pub fn functions(&self) -> Result<&Workers> {
        self.server.control().workers().context("the demo's functions run in this process")
    }

    /// Waits for the whisper's last sample.
    pub async fn whisper_ended(&mut self) -> Result<()> {
        self.fact("whisper.ended").await
    }

    /// Waits for the bridge.
    pub async fn bridged(&mut self, transfer: &str) -> Result<()> {
        self.fact("bridge.completed").await?;
        self.painted("bridged", transfer).await.map(|_| ())
    }

    /// Waits for the end of the call's facts.
    pub async fn finished(&mut self) -> Result<()> {
        self.fact("producer.final").await
    }

    /// The voice agent says a line of the script and reports it as a turn.
    pub async fn voice_agent_says(&mut self, line: &str) -> Result<()> {
        let (audio, text) = self.line_of(line)?;
        self.voice_agent.say(audio).await;
        self.voice_agent.cue(Cue::Signal("turn", json!({"speaker": "agent", "text": text}))).await;
        Ok(())
    }

    /// The caller says a line; the voice agent recognises it, with what else it makes of it.
    pub async fn caller_says(&mut self, line: &str, understood: Value) -> Result<()> {
        let (audio, text) = self.line_of(line)?;
        let length = Duration::from_millis(audio.len() as u64 / 8);
        self.caller.order(PhoneOrder::Say(audio));
        tokio::time::sleep(length + Duration::from_millis(200)).await;
        self.voice_agent
            .cue(Cue::Signal("turn", json!({"speaker": "caller", "text": text, "confidence": 0.94})))
            .await;
        let confidence = &understood["confidence"];
        for kind in ["intent", "topic"] {
            if let Some(name) = understood[kind].as_str() {
                let data = json!({"name": name, "confidence": confidence, "regulated": understood["regulated"] == true});
                let data =
                    if kind == "intent" { json!({"name": name, "confidence": confidence}) } else { data };
                self.voice_agent.cue(Cue::Signal(kind, data)).await;
            }
        }
        Ok(())
    }

    /// The human agent says a line.
    pub async fn human_says(&mut self, line: &str) -> Result<()> {
        let (audio, _) = self.line_of(line)?;
        let length = Duration::from_millis(audio.len() as u64 / 8);
        self.human.order(PhoneOrder::Say(audio));
        tokio::time::sleep(length + Duration::from_millis(200)).await;
        Ok(())
    }

    /// Waits until a card is painted, and returns its transfer.
    pub async fn card_shown(&mut self) -> Result<String> {
        let seen = self.painted("card", "").await?;
        Ok(seen.transfer)
    }

    async fn painted(&mut self, kind: &str, transfer: &str) -> Result<Seen> {
        let wait = async {
            loop {
                let Some(seen) = self.desktop.seen().await else {
                    bail!("the human agent's page lost its connection")
                };
                self.seen.push(seen.clone());
                if seen.kind == kind && (transfer.is_empty() || seen.transfer == transfer) {
                    return Ok(seen);
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, wait)
            .await
            .with_context(|| format!("the page never showed `{kind}`"))?
    }

    async fn fact(&mut self, wanted: &str) -> Result<()> {
        self.timeline.fact(wanted, WAIT_MAX).await
    }

    fn line_of(&self, line: &str) -> Result<(Vec<u8>, String)> {
        let text = LINES.get(line).with_context(|| format!("the demo has no line `{line}`"))?;
        let audio =
            self.clips.clip(&ClipId(line.to_owned())).context("a line of the demo was not rendered")?;
        Ok((audio.bytes().to_vec(), text.clone()))
    }

    /// Lets the functions finish, then takes every figure; none where they do not finish.
    pub async fn measure(mut self, scenario: Scenario) -> Result<(Report, bool)> {
        // Figures of a store that still changes would be figures of nothing.
        tokio::time::timeout(SETTLE_MAX, self.server.control().idle())
            .await
            .context("the queues did not empty in time, so there is no report")??;
        // The verdict on the chain takes the checkpoint into account.
        if let Err(error) = self.server.control().checkpoint().await {
            self.say(&format!("no checkpoint was made: {error:#}"));
        }
        while let Ok(Some(seen)) = tokio::time::timeout(Duration::from_millis(1), self.desktop.seen()).await {
            self.seen.push(seen);
        }
        let host_stall = self.idle.stop();
        let clips = Arc::clone(&self.clips);
        let evidence = Evidence {
            scenario: scenario.name(),
            caller: self.caller.leave(),
            human: self.human.leave(),
            voice_agent: self.voice_agent.leave().await,
            seen: self.seen,
            timeline: self.timeline.steps(),
            host_stall,
            data: self.data.clone(),
        };
        drop(self.desktop);
        let recorded = recorded(self.stack.as_ref(), &self.data, &self.crm).await;
        let report =
            recorded.and_then(|recorded| figures::report(evidence, recorded, &clips, self.server.media()));
        self.server.stop().await;
        report
    }
}

/// What was recorded of the call: in the store of this process, or in the stack's tables.
#[cfg(feature = "aws")]
async fn recorded(stack: Option<&(String, String)>, data: &Path, crm: &Crm) -> Result<Recorded> {
    match stack {
        Some((stack, bucket)) => recorded::by_stack(stack, bucket, crm).await,
        None => recorded::by_store(data, crm),
    }
}

/// What was recorded of the call. Without the cloud's adapters no stage has a stack: its
/// configuration is refused.
#[cfg(not(feature = "aws"))]
async fn recorded(_stack: Option<&(String, String)>, data: &Path, crm: &Crm) -> Result<Recorded> {
    std::future::ready(recorded::by_store(data, crm)).await
}

/// The lines of the script, by name.
static LINES: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    #[derive(serde::Deserialize)]
    struct Script {
        lines: BTreeMap<String, String>,
    }
    let script: Result<Script, _> = toml::from_str(include_str!("../../clips/demo.toml"));
    script.map(|script| script.lines).unwrap_or_default()
});

/// An outside SIP party: it knows the edge by its address and nothing else of it.
fn outside(own: SocketAddr) -> SipConfig {
    let edge = TrunkConfig {
        name: "edge".to_owned(),
        addresses: vec![IpNet::from(IpAddr::V4(Ipv4Addr::LOCALHOST))],
        call_type: None,
        hold_by_reinvite: false,
        port: None,
        credentials: None,
        rel100: Rel100::default(),
        srtp: SrtpPolicy::default(),
    };
    SipConfig { trunks: vec![edge], allow_loopback: true, ..SipConfig::new(own, &own.ip().to_string()) }
}

/// Where the demo keeps its checkpoints: beside its data, never in it.
pub fn checkpoints_of(data: &Path) -> PathBuf {
    let mut beside = data.as_os_str().to_owned();
    beside.push(".checkpoints");
    beside.into()
}

/// The configuration of the demo: a file like any other.
fn configuration(
    data: &Path,
    voice_agent: &str,
    crm: &str,
    plan: &Plan,
    stack: Option<&(String, String)>,
) -> String {
    // A stack has a checkpointer of its own.
    let trail = stack.map_or_else(
        || format!("[audit]\ncheckpoints = \"{}\"\n", checkpoints_of(data).display()),
        |(stack, bucket)| format!("[aws]\nstack = \"{stack}\"\nmedia_bucket = \"{bucket}\"\n"),
    );
    format!(
        r#"# Written by `warmbridge demo`. Every listener is on loopback, every port is the system's choice.
[edge]
id = "{EDGE}"
tenant = "t_demo"
sip_udp = "127.0.0.1:0"
http = "127.0.0.1:0"
public_ip = "127.0.0.1"
public_url = "https://warmbridge.localhost"
rtp_ports = [40000, 48998]
data_dir = "{data}"
allow_loopback = true
recording = true

[[trunk]]
name = "demo"
addresses = ["127.0.0.2/32"]

[voice_agent]
url = "{voice_agent}"

[[agent]]
id = "{AGENT}"
name = "Dana"
user = "{AGENT}"
password = "{PASSWORD}"
desktop_token = "{PAGE_TOKEN}"
trusted = true
ring_timeout_s = {ring}
accept_timeout_s = {accept}

[[queue]]
id = "nurse_line"
label = "nurse line"
spoken = "dest.nurse"
agents = ["{AGENT}"]
fallback = ["voice_agent"]
wait_default_s = 30

[policy]
file = "policy.toml"

[[webhook]]
id = "crm"
url = "{crm}"
secret = "{CRM_SECRET}"
mode = "full"
required = {required}
allow_private = ["127.0.0.1/32"]
grants = ["pii", "phi"]

{trail}"#,
        data = data.display(),
        ring = plan.ring_timeout_s,
        accept = plan.accept_timeout_s,
        required = plan.crm_required,
    )
}

async fn registered(phone: &mut Phone) -> Result<()> {
    let done = |event: &SipEvent| matches!(event, SipEvent::RegisterResult { .. });
    let event = event_of(phone, "the human agent's softphone", done).await?;
    let ok = matches!(event, SipEvent::RegisterResult { ok: true, .. });
    if ok { Ok(()) } else { bail!("the softphone could not register: {event:?}") }
}

async fn event_of(phone: &mut Phone, whose: &str, wanted: impl Fn(&SipEvent) -> bool) -> Result<SipEvent> {
    let wait = async {
        loop {
            let Some(event) = phone.event().await else { bail!("{whose} is gone") };
            if wanted(&event) {
                return Ok(event);
            }
            if let SipEvent::Ended { cause, status, .. } = event {
                bail!("{whose} lost its call: {cause:?}, status {status:?}");
            }
        }
    };
    tokio::time::timeout(WAIT_MAX, wait).await.with_context(|| format!("{whose} waited in vain"))?
}
