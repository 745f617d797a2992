//! Who receives webhooks, and what of a payload each may see.

use std::collections::BTreeSet;

use handoff::event::WebhookKind;
use handoff::id::DestinationId;
use handoff::webhook::Secret;
use ipnet::IpNet;

/// One receiver.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its id in the configuration, in records and in acknowledgements.
    pub id: DestinationId,
    /// Where to.
    pub url: String,
    /// Signing key.
    pub secret: Secret,
    /// What it receives; empty is everything.
    pub kinds: BTreeSet<WebhookKind>,
    /// The whole payload, not just ids and a link.
    pub full: bool,
    /// A transfer that it missed counts as degraded.
    pub required: bool,
    /// Private addresses that this destination alone may have.
    pub allow_private: Vec<IpNet>,
    /// It may receive personal data.
    pub pii: bool,
    /// It may receive health information.
    pub phi: bool,
}

impl Destination {
    /// It asked for this kind.
    pub fn wants(&self, kind: WebhookKind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }
}
