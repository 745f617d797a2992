//! The shape of the file: what TOML must look like before any value is judged. Every table
//! is closed, so a misspelt key is refused by name. Values that are judged later carry
//! their place in the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) edge: EdgeTable,
    #[serde(default)]
    pub(super) trunk: Vec<TrunkTable>,
    pub(super) voice_agent: VoiceAgentTable,
    #[serde(default)]
    pub(super) agent: Vec<AgentTable>,
    #[serde(default)]
    pub(super) queue: Vec<QueueTable>,
    pub(super) policy: PolicyTable,
    #[serde(default)]
    pub(super) payload: toml::Table,
    #[serde(default)]
    pub(super) webhook: Vec<WebhookTable>,
    #[serde(default)]
    pub(super) audit: AuditTable,
    #[serde(default)]
    pub(super) operator: Vec<OperatorTable>,
    pub(super) aws: Option<AwsTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EdgeTable {
    pub(super) id: Spanned<String>,
    pub(super) tenant: Spanned<String>,
    pub(super) sip_udp: Option<Spanned<String>>,
    pub(super) sip_tcp: Option<Spanned<String>>,
    pub(super) sip_tls: Option<Spanned<String>>,
    pub(super) sip_ws: Option<Spanned<String>>,
    pub(super) sip_wss: Option<Spanned<String>>,
    pub(super) tls_cert_file: Option<Spanned<PathBuf>>,
    pub(super) tls_key_file: Option<Spanned<PathBuf>>,
    pub(super) tls_ca_file: Option<Spanned<PathBuf>>,
    pub(super) tls_client_ca_file: Option<Spanned<PathBuf>>,
    pub(super) tls_client_certificate: Option<Spanned<String>>,
    pub(super) phones_srtp: Option<Spanned<String>>,
    pub(super) http: Spanned<String>,
    pub(super) public_ip: Spanned<String>,
    pub(super) public_url: Spanned<String>,
    pub(super) rtp_ports: Option<Spanned<(u16, u16)>>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) allow_loopback: Option<Spanned<bool>>,
    pub(super) hold_signalling: Option<Spanned<String>>,
    pub(super) cancel_while_waiting: Option<Spanned<bool>>,
    pub(super) rtp_timeout_s: Option<Spanned<i64>>,
    pub(super) drain_max_s: Option<Spanned<i64>>,
    pub(super) lang: Option<Spanned<String>>,
    pub(super) disclosure: Option<Spanned<String>>,
    pub(super) dial_allow: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    pub(super) recording: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrunkTable {
    pub(super) name: Spanned<String>,
    pub(super) addresses: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) certificate: Option<Spanned<String>>,
    pub(super) call_type: Option<Spanned<String>>,
    pub(super) register: Option<Spanned<String>>,
    pub(super) auth_user: Option<Spanned<String>>,
    pub(super) password: Option<Spanned<String>>,
    pub(super) password_file: Option<Spanned<PathBuf>>,
    pub(super) expires_s: Option<Spanned<i64>>,
    pub(super) transport: Option<Spanned<String>>,
    pub(super) proxies: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) options_s: Option<Spanned<i64>>,
    #[serde(rename = "100rel")]
    pub(super) rel100: Option<Spanned<String>>,
    pub(super) calls_max: Option<Spanned<i64>>,
    pub(super) calls_per_s: Option<Spanned<i64>>,
    pub(super) srtp: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VoiceAgentTable {
    pub(super) url: Spanned<String>,
    pub(super) auth_token: Option<Spanned<String>>,
    pub(super) auth_token_file: Option<Spanned<PathBuf>>,
    pub(super) signal_token: Option<Spanned<String>>,
    pub(super) signal_token_file: Option<Spanned<PathBuf>>,
    pub(super) on_bye: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentTable {
    pub(super) id: Spanned<String>,
    pub(super) name: Spanned<String>,
    pub(super) user: Option<Spanned<String>>,
    pub(super) password: Option<Spanned<String>>,
    pub(super) password_file: Option<Spanned<PathBuf>>,
    pub(super) allow_md5: Option<Spanned<bool>>,
    pub(super) uri: Option<Spanned<String>>,
    pub(super) lang: Option<Spanned<String>>,
    pub(super) ring_timeout_s: Option<Spanned<i64>>,
    pub(super) accept_timeout_s: Option<Spanned<i64>>,
    pub(super) accept_on_answer: Option<Spanned<bool>>,
    pub(super) trusted: Option<Spanned<bool>>,
    pub(super) desktop_token: Option<Spanned<String>>,
    pub(super) desktop_token_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) skills: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueTable {
    pub(super) id: Spanned<String>,
    pub(super) label: Spanned<String>,
    pub(super) spoken: Spanned<String>,
    #[serde(default)]
    pub(super) agents: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) skills: Vec<Spanned<String>>,
    pub(super) attempts_max: Option<Spanned<i64>>,
    pub(super) overflow_after_s: Option<Spanned<i64>>,
    pub(super) payload_ack: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) fallback: Vec<Spanned<String>>,
    pub(super) on_agent_bye: Option<Spanned<String>>,
    pub(super) on_agent_lost: Option<Spanned<String>>,
    pub(super) wait_default_s: Option<Spanned<i64>>,
    pub(super) mode: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyTable {
    pub(super) file: Spanned<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookTable {
    pub(super) id: Spanned<String>,
    pub(super) url: Spanned<String>,
    pub(super) secret: Option<Spanned<String>>,
    pub(super) secret_file: Option<Spanned<PathBuf>>,
    pub(super) old_secret: Option<Spanned<String>>,
    pub(super) old_secret_file: Option<Spanned<PathBuf>>,
    pub(super) events: Option<Vec<Spanned<String>>>,
    pub(super) mode: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) required: bool,
    #[serde(default)]
    pub(super) allow_private: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) grants: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditTable {
    pub(super) tag_key: Option<Spanned<String>>,
    pub(super) tag_key_file: Option<Spanned<PathBuf>>,
    pub(super) checkpoints: Option<Spanned<PathBuf>>,
    pub(super) checkpoint_every_s: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AwsTable {
    pub(super) stack: Spanned<String>,
    pub(super) media_bucket: Spanned<String>,
    pub(super) polly: Option<PollyTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PollyTable {
    pub(super) engine: Option<Spanned<String>>,
    pub(super) voices: Spanned<BTreeMap<String, Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperatorTable {
    pub(super) id: Spanned<String>,
    pub(super) role: Spanned<String>,
    pub(super) token: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<PathBuf>>,
}
