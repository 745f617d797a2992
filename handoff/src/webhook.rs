//! Outgoing webhooks as bytes: a CloudEvents 1.0 body under Standard Webhooks 1.0.0 headers,
//! signed with HMAC-SHA-256. It sends nothing; when to send is decided by `delivery`. The
//! body is frozen when the message is written to the queue, so that every retry, the
//! signature and the audit record speak of the same bytes.

use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::event::{WebhookKind, sequence_text};
use crate::id::{TenantId, derived_text};
use crate::seal::hmac_sha256;

/// How far a receiver lets `webhook-timestamp` differ from its clock, in seconds. Higher
/// widens the replay window, lower refuses receivers with a poor clock.
pub const TOLERANCE_SECS: i64 = 300;

/// The media type of the body.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// A key outside these lengths (bytes) is guessable or not a Standard Webhooks key.
const SECRET_LEN: core::ops::RangeInclusive<usize> = 24..=64;

/// Most signatures that are tried in one header: two while a key rotates, with room.
const SIGNATURES_MAX: usize = 8;

/// A webhook is not genuine, or a secret is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// Not `whsec_` and base64 of 24 to 64 bytes.
    #[error("a webhook secret is `whsec_` and the base64 of 24 to 64 bytes")]
    BadSecret,
    /// Too old or from the future.
    #[error("webhook timestamp is more than {TOLERANCE_SECS} s away")]
    Stale,
    /// No signature in the header fits.
    #[error("webhook signature does not match")]
    BadSignature,
}

impl WebhookKind {
    /// The CloudEvents `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decided => "warmbridge.transfer.decided.v1",
            Self::Offered => "warmbridge.transfer.offered.v1",
            Self::Accepted => "warmbridge.transfer.accepted.v1",
            Self::Bridged => "warmbridge.transfer.bridged.v1",
            Self::Abandoned => "warmbridge.transfer.abandoned.v1",
            Self::Failed => "warmbridge.transfer.failed.v1",
            Self::Fallback => "warmbridge.transfer.fallback.v1",
            Self::VoicemailLeft => "warmbridge.voicemail.left.v1",
            Self::CallbackRequested => "warmbridge.callback.requested.v1",
            Self::PayloadRevised => "warmbridge.payload.revised.v1",
            Self::CallClosed => "warmbridge.call.closed.v1",
        }
    }
}

/// The signing key of one endpoint.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Parses `whsec_…`.
    pub fn parse(text: &str) -> Result<Self, WebhookError> {
        let encoded = text.strip_prefix("whsec_").ok_or(WebhookError::BadSecret)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| WebhookError::BadSecret)?;
        Self::from_bytes(&Zeroizing::new(bytes))
    }

    /// Takes a decoded key of 24 to 64 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WebhookError> {
        let fits = SECRET_LEN.contains(&bytes.len());
        if fits { Ok(Self(Zeroizing::new(bytes.to_vec()))) } else { Err(WebhookError::BadSecret) }
    }

    /// The value of `webhook-signature` for one attempt.
    pub fn sign(&self, id: &str, unix_secs: i64, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.mac(id, unix_secs, body)))
    }

    /// Checks age and signature of a message that came in; see [`verify`].
    pub fn verify(
        &self,
        id: &str,
        timestamp: i64,
        body: &[u8],
        signature_header: &str,
        now_secs: i64,
    ) -> Result<(), WebhookError> {
        if now_secs.abs_diff(timestamp) > TOLERANCE_SECS.unsigned_abs() {
            return Err(WebhookError::Stale);
        }
        let expected = self.mac(id, timestamp, body);
        let genuine = signature_header
            .split(' ')
            .take(SIGNATURES_MAX)
            .filter_map(|part| part.strip_prefix("v1,"))
            .filter_map(|encoded| STANDARD.decode(encoded).ok())
            .any(|given| bool::from(given.as_slice().ct_eq(expected.as_slice())));
        if genuine { Ok(()) } else { Err(WebhookError::BadSignature) }
    }

    fn mac(&self, id: &str, unix_secs: i64, body: &[u8]) -> [u8; 32] {
        hmac_sha256(&self.0, &[id.as_bytes(), b".", unix_secs.to_string().as_bytes(), b".", body])
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// What a receiver does: checks age and signature of the raw body. While a key rotates the
/// header holds several signatures; one that fits is enough. The comparison takes the same
/// time wherever the signatures differ.
pub fn verify(
    secret: &str,
    id: &str,
    timestamp: i64,
    body: &[u8],
    signature_header: &str,
    now_secs: i64,
) -> Result<(), WebhookError> {
    Secret::parse(secret)?.verify(id, timestamp, body, signature_header, now_secs)
}

/// The id of a message, which is its idempotency key: equal on every retry and whoever
/// derives it. It holds no `.`, which separates the parts that are signed.
pub fn message_id(subject: &str, kind: WebhookKind, sequence: u64) -> String {
    format!("msg_{}", derived_text(&["webhook", subject, kind.as_str(), &sequence.to_string()]))
}

/// What `data` follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSchema {
    /// Ids, a headline and a link.
    Thin,
    /// The whole payload, as far as the destination may see it.
    Full,
}

impl DataSchema {
    const fn url(self) -> &'static str {
        match self {
            Self::Thin => "https://schemas.warmbridge.example/handoff-thin/1-0.json",
            Self::Full => "https://schemas.warmbridge.example/handoff/1-0.json",
        }
    }
}

/// A message before it is frozen.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// What happened.
    pub kind: WebhookKind,
    /// The transfer's id, or the call's for `call.closed`.
    pub subject: &'a str,
    /// Per subject; the number of the call event that caused this.
    pub sequence: u64,
    /// When it happened.
    pub time: Timestamp,
    /// The payload revision it speaks of, where there is one.
    pub revision: Option<u32>,
    /// What `data` follows.
    pub schema: DataSchema,
    /// The content.
    pub data: Value,
}

impl Message<'_> {
    /// Its idempotency key.
    pub fn id(&self) -> String {
        message_id(self.subject, self.kind, self.sequence)
    }

    /// The body, byte for byte as it is signed and sent.
    pub fn body(self) -> Vec<u8> {
        let mut body = json!({
            "specversion": "1.0",
            "id": self.id(),
            "source": format!("urn:warmbridge:{}", self.tenant),
            "type": self.kind.as_str(),
            "subject": self.subject,
            "time": self.time,
            "datacontenttype": "application/json",
            "dataschema": self.schema.url(),
            "sequence": sequence_text(self.sequence),
            "partitionkey": self.subject,
            "data": self.data,
        });
        if let (Some(revision), Some(members)) = (self.revision, body.as_object_mut()) {
            members.insert("warmbridgerevision".to_owned(), json!(revision));
        }
        body.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxLek";
    const TIME: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,enRLSa8SQq0bjzfA39jRvVHj4kmZBoO5m8PEGpuQ5q0=";

    fn hmac_by_the_book(key: &[u8], text: &[u8]) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        let mut block = [0_u8; 64];
        block[..key.len()].copy_from_slice(key);
        let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(text).finalize();
        Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
    }

    #[test]
    fn the_published_vector_is_reproduced() {
        let secret = Secret::parse(SECRET).unwrap();
        assert_eq!(secret.sign(ID, TIME, BODY), SIGNATURE);
        assert_eq!(verify(SECRET, ID, TIME, BODY, SIGNATURE, TIME + 300), Ok(()));
    }

    #[test]
    fn the_mac_is_hmac_by_its_definition() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let text = [ID.as_bytes(), b".1614265330.", BODY].concat();
        assert_eq!(Secret::parse(SECRET).unwrap().mac(ID, TIME, BODY), hmac_by_the_book(&key, &text));
    }

    #[test]
    fn anything_altered_or_old_is_refused() {
        assert_eq!(verify(SECRET, ID, TIME, BODY, SIGNATURE, TIME + 301), Err(WebhookError::Stale));
        assert_eq!(verify(SECRET, ID, TIME, BODY, SIGNATURE, TIME - 301), Err(WebhookError::Stale));
        assert_eq!(verify(SECRET, ID, TIME, b"{}", SIGNATURE, TIME), Err(WebhookError::BadSignature));
        assert_eq!(verify(SECRET, "msg_x", TIME, BODY, SIGNATURE, TIME), Err(WebhookError::BadSignature));
        for header in ["", "v1", "v1,", "v1,!!", "v1a,enRLSa8SQq0bjzfA39jRvVHj4kmZBoO5m8PEGpuQ5q0="] {
            assert_eq!(verify(SECRET, ID, TIME, BODY, header, TIME), Err(WebhookError::BadSignature));
        }
    }

    #[test]
    fn during_a_rotation_either_key_verifies() {
        let old = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let header = format!("{SIGNATURE} {}", Secret::parse(old).unwrap().sign(ID, TIME, BODY));
        assert_eq!(verify(SECRET, ID, TIME, BODY, &header, TIME), Ok(()));
        assert_eq!(verify(old, ID, TIME, BODY, &header, TIME), Ok(()));
    }

    #[test]
    fn a_short_or_foreign_secret_is_refused_and_none_is_printed() {
        for text in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%"] {
            assert_eq!(Secret::parse(text).err(), Some(WebhookError::BadSecret), "{text}");
        }
        assert_eq!(format!("{:?}", Secret::parse(SECRET).unwrap()), "Secret([redacted])");
    }

    #[test]
    fn a_message_names_itself_the_same_way_every_time() {
        let tenant = TenantId::parse("t_acme").unwrap();
        let message = Message {
            tenant: &tenant,
            kind: WebhookKind::Offered,
            subject: "xfer_01JDA3W1",
            sequence: 4,
            time: Timestamp::parse("2026-11-22T07:01:35.000Z").unwrap(),
            revision: Some(2),
            schema: DataSchema::Thin,
            data: json!({"call_id": "call_1"}),
        };
        let id = message.id();
        assert!(id.starts_with("msg_") && id.len() == 30 && !id.contains('.'));
        let first = message.clone().body();
        assert_eq!(first, message.body());
        let body: Value = serde_json::from_slice(&first).unwrap();
        assert_eq!(body["id"], id);
        assert_eq!(body["sequence"], "00000000000000000004");
        assert_eq!(body["warmbridgerevision"], 2);
        assert_ne!(id, message_id("xfer_01JDA3W1", WebhookKind::Offered, 5));
        assert_ne!(id, message_id("xfer_01JDA3W1", WebhookKind::Accepted, 4));
    }
}
