//! Receivers of webhooks. An address inside our own network is refused unless this file
//! names it; names are resolved, and judged again, at every send.

use std::collections::BTreeSet;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use handoff::event::WebhookKind;
use ipnet::IpNet;
use toml::Spanned;

use super::Checker;
use super::values::{SecretSource, literal_ip};
use crate::config::document::WebhookTable;
use crate::config::{Grant, Secret, Webhook, WebhookMode};

impl Checker<'_> {
    pub(super) fn webhooks(&mut self, tables: &[WebhookTable], allow_loopback: bool) -> Vec<Webhook> {
        let mut ids = BTreeSet::new();
        let mut webhooks = Vec::new();
        for table in tables {
            self.unique(&mut ids, &table.id, "webhook");
            if table.id.get_ref() == "desktop" {
                self.refuse(
                    &table.id.span(),
                    "a webhook cannot be called \"desktop\": payload_ack means the page",
                );
            }
            if let Some(webhook) = self.webhook(table, allow_loopback) {
                webhooks.push(webhook);
            }
        }
        webhooks
    }

    fn webhook(&mut self, table: &WebhookTable, allow_loopback: bool) -> Option<Webhook> {
        let id = self.parsed(&table.id, "id");
        let mut allow_private = Vec::new();
        for field in &table.allow_private {
            let Some(net) = self.network(field) else { continue };
            if net.addr().is_loopback() && !allow_loopback {
                self.refuse(&field.span(), format!("{net} is loopback without [edge] allow_loopback"));
            }
            allow_private.push(net);
        }
        let url = self.webhook_url(&table.url, &allow_private);
        let source =
            SecretSource { key: "secret", inline: table.secret.as_ref(), file: table.secret_file.as_ref() };
        // In the cloud the function that signs has the key, and the edge needs none.
        if !source.is_given() && !self.in_cloud {
            self.refuse(
                &table.id.span(),
                format!("webhook \"{}\" needs secret_file (or secret)", table.id.get_ref()),
            );
        }
        let secret = if source.is_given() { Some(self.signing_secret(source)?) } else { None };
        let source = SecretSource {
            key: "old_secret",
            inline: table.old_secret.as_ref(),
            file: table.old_secret_file.as_ref(),
        };
        let old_secret = if source.is_given() { Some(self.signing_secret(source)?) } else { None };
        let events =
            table.events.as_ref().map_or_else(|| KINDS.into_iter().collect(), |named| self.kinds(named));
        let modes = [("thin", WebhookMode::Thin), ("full", WebhookMode::Full)];
        let mode = self.choice(table.mode.as_ref(), "mode", &modes);
        let grants = [("pii", Grant::Pii), ("phi", Grant::Phi)];
        let grants =
            table.grants.iter().filter_map(|field| self.choice(Some(field), "grants", &grants)).collect();
        Some(Webhook {
            id: id?,
            url: url?,
            secret,
            old_secret,
            events,
            mode: mode?,
            required: table.required,
            allow_private,
            grants,
        })
    }

    fn webhook_url(&mut self, field: &Spanned<String>, allow_private: &[IpNet]) -> Option<String> {
        let uri = self.url(field, "url")?;
        let ip = uri.host().and_then(literal_ip);
        let excepted = ip.is_some_and(|ip| allow_private.iter().any(|net| net.contains(&ip)));
        let mut refuse = |why: &str| self.refuse(&field.span(), why);
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if excepted => {}
            Some("http") => {
                refuse("url must begin with https://; http:// is for addresses in allow_private only")
            }
            Some(_) | None => refuse("url must begin with https://"),
        }
        if ip.is_some_and(|ip| is_internal(ip) && !excepted) {
            refuse("url is inside a private network: name it in allow_private if that is meant");
        }
        if !excepted && uri.port_u16().is_some_and(|port| port != 443) {
            refuse("url must use port 443; other ports are for addresses in allow_private only");
        }
        Some(field.get_ref().clone())
    }

    /// Standard Webhooks form: `whsec_` and 24 to 64 bytes in base64.
    fn signing_secret(&mut self, source: SecretSource<'_>) -> Option<Secret> {
        let (place, key) = (source.place(), source.key);
        let written = self.secret(source)?;
        let decoded = written
            .reveal()
            .strip_prefix(b"whsec_")
            .and_then(|encoded| BASE64.decode(encoded).ok())
            .map(Secret::new);
        match decoded {
            Some(secret) if (24..=64).contains(&secret.reveal().len()) => Some(secret),
            Some(_) | None => {
                self.refuse(&place, format!("{key} must be whsec_ followed by 24 to 64 bytes in base64"));
                None
            }
        }
    }

    fn kinds(&mut self, fields: &[Spanned<String>]) -> BTreeSet<WebhookKind> {
        let named = KINDS.map(|kind| (serde_json::to_value(kind).unwrap_or_default(), kind));
        let mut kinds = BTreeSet::new();
        for field in fields {
            match named.iter().find(|(name, _)| name.as_str() == Some(field.get_ref())) {
                Some((_, kind)) => {
                    kinds.insert(*kind);
                }
                None => {
                    let why = format!(
                        "events: there is no \"{}\" (such as warmbridge.call.closed.v1)",
                        field.get_ref()
                    );
                    self.refuse(&field.span(), why);
                }
            }
        }
        kinds
    }
}

/// Addresses that no receiver outside our own network has.
fn is_internal(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    match ip {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && (64..128).contains(&second);
            v4.is_private()
                || v4.is_link_local()
                || v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || shared
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.segments().starts_with(&NAT64)
        }
    }
}

/// 64:ff9b::/96 and its siblings lead to any IPv4 address, ours included (RFC 6052).
const NAT64: [u16; 2] = [0x64, 0xff9b];

/// Every kind, for a receiver that names none.
const KINDS: [WebhookKind; 11] = [
    WebhookKind::Decided,
    WebhookKind::Offered,
    WebhookKind::Accepted,
    WebhookKind::Bridged,
    WebhookKind::Abandoned,
    WebhookKind::Failed,
    WebhookKind::Fallback,
    WebhookKind::VoicemailLeft,
    WebhookKind::CallbackRequested,
    WebhookKind::PayloadRevised,
    WebhookKind::CallClosed,
];
