//! The audit chain of a call: envelope, canonical bytes, domain-separated hashes, and the
//! outcome of an append. It stores nothing: an adapter reads the head and the idempotency
//! row, asks [`append`], and writes what it says in one transaction. No plain digest of
//! personal data ever enters an envelope; `sealed` covers ciphertext only.
//! Verification is in [`verify`], the mapping of facts to entries in [`entry`].

pub mod entry;
pub mod feed;
pub mod retention;
pub mod verify;

use core::fmt;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::canonical;
use crate::clock::Timestamp;
use crate::id::{CallId, EdgeId, TenantId, derived_text};
use crate::seal::hex;

/// The envelope's version, which is also the domain of every hash.
pub const VERSION: &str = "warmbridge-audit/v1";

/// Type of the record that closes a chain.
pub const CHAIN_CLOSED: &str = "chain.closed";

/// Type of the first record of a side chain; it cites the closed head.
pub const LATE_OPENED: &str = "late.opened";

/// Type of a stream producer's last record.
pub const PRODUCER_FINAL: &str = "producer.final";

/// Where a sealed text lies when it is stored beside its record.
pub const CIPHERTEXT_BESIDE: &str = "ct";

/// Largest canonical body, in bytes. Facts measure about 250; the largest legitimate one is
/// a snapshot with full lists.
pub const BODY_LEN_MAX: usize = 16 * 1024;

/// Largest ciphertext beside a record, in bytes: a turn has at most 8 000 characters of up
/// to 4 bytes, and a database item must hold it.
pub const CIPHERTEXT_LEN_MAX: usize = 64 * 1024;

/// Longest record type, in bytes.
const KIND_LEN_MAX: usize = 64;

/// Longest producer id, in bytes: it is part of a database key.
const PRODUCER_LEN_MAX: usize = 80;

/// Why an entry cannot become a record. None of these is cured by a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// The message is not the JSON of an entry.
    #[error("audit message does not parse at line {line}, column {column}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A float, a large integer or a key outside printable ASCII.
    #[error("audit entry is outside the canonical profile")]
    NotCanonical,
    /// `body` is not an object, or too long.
    #[error("audit body is not an object of at most {BODY_LEN_MAX} bytes")]
    BadBody,
    /// The type is empty, too long, or has characters outside `a-z0-9._`.
    #[error("audit type is not a dotted lower-case name")]
    BadKind,
    /// Ciphertext and `sealed` do not belong together.
    #[error("ciphertext does not match what the entry says of it")]
    BadCiphertext,
    /// A side chain can hold only what came after a close.
    #[error("a producer names a side chain, which only the ledger may do")]
    SideChain,
}

/// The text is not a hash, a chain or a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct BadName(&'static str);

/// A SHA-256 digest, printed as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Parses 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bad = BadName("hash");
        if text.len() != 64 {
            return Err(bad);
        }
        let mut bytes = [0_u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |c: u8| match c {
                b'0'..=b'9' => Ok(c - b'0'),
                b'a'..=b'f' => Ok(c - b'a' + 10),
                _ => Err(bad),
            };
            let [high, low] = pair else { return Err(bad) };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(bytes))
    }

    /// The digest of `parts` without a domain; for ciphertext and queue keys only.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part);
        }
        Self(digest.finalize().into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From the 32 bytes of a digest that something else computed.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn in_domain(domain: &str, parts: &[&[u8]]) -> Self {
        let prefix = format!("{VERSION}\0{domain}\0");
        let mut all = vec![prefix.as_bytes()];
        all.extend_from_slice(parts);
        Self::of(&all)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Which chain: a call's, its side chain for what comes after the close, or the tenant's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ChainId(String);

impl ChainId {
    /// The chain of `call`.
    pub fn of(call: &CallId) -> Self {
        Self(call.as_str().to_owned())
    }

    /// The tenant's chain, for what outlives a call.
    pub fn tenant() -> Self {
        Self(TENANT_CHAIN.to_owned())
    }

    /// Parses any of the three forms.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let call = text.strip_suffix(LATE_SUFFIX).unwrap_or(text);
        if text == TENANT_CHAIN || CallId::parse(call).is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName("chain"))
        }
    }

    /// The chain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The call, for a call's chain and its side chain.
    pub fn call(&self) -> Option<CallId> {
        CallId::parse(self.0.strip_suffix(LATE_SUFFIX).unwrap_or(&self.0)).ok()
    }

    /// It takes what comes after the close of its main chain.
    pub fn is_side(&self) -> bool {
        self.0.ends_with(LATE_SUFFIX)
    }

    /// The side chain of this chain; a side chain is its own.
    #[must_use]
    pub fn side(&self) -> Self {
        if self.is_side() { self.clone() } else { Self(format!("{}{LATE_SUFFIX}", self.0)) }
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ChainId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Who numbers entries. A stream producer (an edge) numbers all its facts of a call and ends
/// with `producer.final`; a job producer (one attempt of one function run) sends its entries
/// in one message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ProducerId(String);

impl ProducerId {
    /// The stream of an edge.
    pub fn edge(edge: &EdgeId) -> Self {
        Self(edge.as_str().to_owned())
    }

    /// One attempt at one job of a function. `job` may be any text; it is digested.
    pub fn job(function: &str, job: &str, attempt: u32) -> Self {
        Self(format!("{function}:{}:{attempt}", derived_text(&[job])))
    }

    /// Parses `[A-Za-z0-9_.:-]{1,80}`.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let fits = (1..=PRODUCER_LEN_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
        if fits { Ok(Self(text.to_owned())) } else { Err(BadName("producer")) }
    }

    /// The producer as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// It must end with `producer.final`.
    pub fn is_stream(&self) -> bool {
        !self.0.contains(':')
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ProducerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// What kind of party did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// The voice agent.
    Ai,
    /// The person who called.
    Caller,
    /// A human agent.
    Agent,
    /// This product.
    System,
    /// An operator.
    Admin,
}

/// Who did it. The id is never personal: a directory id, a leg, a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// What kind.
    pub kind: ActorKind,
    /// Which.
    pub id: String,
}

impl Actor {
    /// A part of this product.
    pub fn system(id: &str) -> Self {
        Self { kind: ActorKind::System, id: id.to_owned() }
    }
}

/// What is said of a ciphertext that belongs to a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// `A256GCM`.
    pub alg: String,
    /// The key that opens it.
    pub dek_id: String,
    /// Digest of the ciphertext, never of the text.
    pub ct_sha256: Hash,
    /// Where it lies.
    pub ct_ref: String,
    /// Its length.
    pub len: u64,
}

impl Sealed {
    /// What is said of `ciphertext`, stored beside its record.
    pub fn beside(dek_id: &str, ciphertext: &[u8]) -> Self {
        Self {
            alg: "A256GCM".to_owned(),
            dek_id: dek_id.to_owned(),
            ct_sha256: Hash::of(&[ciphertext]),
            ct_ref: CIPHERTEXT_BESIDE.to_owned(),
            len: u64::try_from(ciphertext.len()).unwrap_or(u64::MAX),
        }
    }
}

/// An earlier record that this one corrects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amends {
    /// In the same chain.
    Seq(u64),
    /// In another chain.
    Elsewhere {
        /// Which.
        chain: ChainId,
        /// Which record.
        seq: u64,
    },
}

/// References out of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refs {
    /// The record that this one corrects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amends: Option<Amends>,
    /// Keyed digest of a payload; see `seal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_mac: Option<String>,
    /// Digest of a fixed, non-personal text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_sha256: Option<Hash>,
}

/// What a producer sends: an event without its place in the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// Whose.
    pub tenant: TenantId,
    /// Which chain.
    pub chain: ChainId,
    /// Who numbers it.
    pub producer: ProducerId,
    /// From 0, contiguous per producer and call.
    pub pseq: u64,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// When; fixed when the event was made, so that a retry has identical bytes.
    pub occurred_at: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// Details: an object without personal data and without fractions.
    pub body: Value,
    /// What is said of the ciphertext beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// References.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refs: Option<Refs>,
}

impl AuditEntry {
    /// Digest of what the producer determines. Equal for a duplicate, different for another
    /// event under the same number.
    pub fn body_digest(&self) -> Result<Hash, BadEntry> {
        let mut members = self.members()?;
        for placed in ["tenant", "chain"] {
            members.remove(placed);
        }
        let bytes = canonical::to_bytes(&Value::Object(members)).map_err(|_| BadEntry::NotCanonical)?;
        Ok(Hash::in_domain("body", &[&bytes]))
    }

    /// Key under which a queue may drop an identical second copy. It holds the digest, so
    /// that a conflicting duplicate still reaches the ledger.
    pub fn deduplication_id(&self) -> Result<String, BadEntry> {
        let digest = self.body_digest()?.to_string();
        let pseq = self.pseq.to_string();
        let parts = [self.tenant.as_str(), self.chain.as_str(), self.producer.as_str(), &pseq, &digest];
        Ok(Hash::of(&parts.map(|part| [part.as_bytes(), b"\0"].concat()).each_ref().map(Vec::as_slice))
            .to_string())
    }

    fn check(&self) -> Result<(), BadEntry> {
        let kind_fits = (1..=KIND_LEN_MAX).contains(&self.kind.len())
            && self.kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b));
        if !kind_fits {
            return Err(BadEntry::BadKind);
        }
        let body = canonical::to_bytes(&self.body).map_err(|_| BadEntry::NotCanonical)?;
        if !self.body.is_object() || body.len() > BODY_LEN_MAX { Err(BadEntry::BadBody) } else { Ok(()) }
    }

    fn members(&self) -> Result<Map<String, Value>, BadEntry> {
        match serde_json::to_value(self) {
            Ok(Value::Object(members)) => Ok(members),
            Ok(_) | Err(_) => Err(BadEntry::NotCanonical),
        }
    }
}

/// An entry on its way to the ledger, with its ciphertext beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditMessage {
    /// The entry.
    pub entry: AuditEntry,
    /// What `entry.sealed` speaks of.
    pub ciphertext: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditMessageJson {
    entry: AuditEntry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ct: Option<String>,
}

impl AuditMessage {
    /// An entry without ciphertext.
    pub const fn plain(entry: AuditEntry) -> Self {
        Self { entry, ciphertext: None }
    }

    /// The bytes that cross the queue.
    pub fn to_json(&self) -> Vec<u8> {
        let ct = self.ciphertext.as_ref().map(|bytes| STANDARD.encode(bytes));
        // Text and integers only: nothing in these types can fail.
        serde_json::to_vec(&AuditMessageJson { entry: self.entry.clone(), ct }).unwrap_or_default()
    }

    /// Reads and checks what a producer sent.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BadEntry> {
        let json: AuditMessageJson = serde_json::from_slice(bytes)
            .map_err(|error| BadEntry::Malformed { line: error.line(), column: error.column() })?;
        let ciphertext =
            json.ct.map(|ct| STANDARD.decode(ct)).transpose().map_err(|_| BadEntry::BadCiphertext)?;
        let message = Self { entry: json.entry, ciphertext };
        message.check()?;
        Ok(message)
    }

    fn check(&self) -> Result<(), BadEntry> {
        self.entry.check()?;
        if self.entry.chain.is_side() {
            return Err(BadEntry::SideChain);
        }
        let fits = match (&self.entry.sealed, &self.ciphertext) {
            (None, None) => true,
            (Some(sealed), Some(ct)) => {
                ct.len() <= CIPHERTEXT_LEN_MAX && *sealed == Sealed::beside(&sealed.dek_id, ct)
            }
            (Some(sealed), None) => sealed.ct_ref != CIPHERTEXT_BESIDE,
            (None, Some(_)) => false,
        };
        if fits { Ok(()) } else { Err(BadEntry::BadCiphertext) }
    }
}

/// An entry in its place: the hashed envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// The event.
    pub entry: AuditEntry,
    /// Ledger order, from 1, contiguous.
    pub seq: u64,
    /// Hash of the preceding record, or genesis.
    pub prev: Hash,
}

impl AuditRecord {
    /// The bytes that are hashed and stored.
    pub fn canonical(&self) -> Result<Vec<u8>, BadEntry> {
        let mut members = self.entry.members()?;
        members.insert("v".to_owned(), json!(VERSION));
        members.insert("seq".to_owned(), json!(self.seq));
        members.insert("prev".to_owned(), json!(self.prev));
        canonical::to_bytes(&Value::Object(members)).map_err(|_| BadEntry::NotCanonical)
    }

    /// Reads canonical bytes; `None` where they are not an envelope of this version. That
    /// they are canonical is for the caller to check, by encoding again.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let Ok(Value::Object(mut members)) = canonical::parse_strict(bytes) else { return None };
        if members.remove("v")? != json!(VERSION) {
            return None;
        }
        let seq = members.remove("seq")?.as_u64()?;
        let prev = Hash::parse(members.remove("prev")?.as_str()?).ok()?;
        let entry = serde_json::from_value(Value::Object(members)).ok()?;
        Some(Self { entry, seq, prev })
    }
}

/// Hash of a record, over its canonical bytes.
pub fn record_hash(canonical: &[u8]) -> Hash {
    Hash::in_domain("event", &[canonical])
}

/// What stands before the first record of a chain.
pub fn genesis(tenant: &TenantId, chain: &ChainId) -> Hash {
    Hash::in_domain("genesis", &[tenant.as_str().as_bytes(), b"\0", chain.as_str().as_bytes()])
}

/// Whether a chain takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadState {
    /// It does.
    Open,
    /// What comes now goes to the side chain.
    Closed,
}

/// The end of a chain: what the next record is linked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// Number of the last record; 0 before the first.
    pub seq: u64,
    /// Its hash, or genesis.
    pub hash: Hash,
    /// Whether it takes more.
    pub state: HeadState,
}

impl ChainHead {
    /// The head of a chain without records.
    pub fn genesis(tenant: &TenantId, chain: &ChainId) -> Self {
        Self { seq: 0, hash: genesis(tenant, chain), state: HeadState::Open }
    }
}

/// What the ledger holds already under an entry's (producer, pseq).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prior {
    /// Its record.
    pub seq: u64,
    /// Its body digest.
    pub body_digest: Hash,
}

/// A record ready to be stored, with all that is stored beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRecord {
    /// The record.
    pub record: AuditRecord,
    /// Its canonical bytes.
    pub canonical: Vec<u8>,
    /// Their hash.
    pub hash: Hash,
    /// For the idempotency row.
    pub body_digest: Hash,
    /// The head afterwards.
    pub head: ChainHead,
}

/// What an append comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Appended {
    /// Store this, if the head is still the one that was given.
    Recorded(Box<NewRecord>),
    /// The ledger has it: success, nothing to do.
    Duplicate {
        /// The record that it has.
        seq: u64,
    },
    /// The ledger has another event under the same number: never stored, an alarm.
    Conflict {
        /// The record that it has.
        seq: u64,
    },
    /// The chain is closed: append the same entry to its side chain, which is named here.
    Late(ChainId),
}

/// Decides what becomes of `entry` on a chain that ends with `head` and holds `prior` under
/// the entry's producer and number. The chain is `chain`: the entry's own, or its side chain
/// after a [`Appended::Late`].
pub fn append(
    chain: &ChainId,
    head: &ChainHead,
    prior: Option<Prior>,
    entry: &AuditEntry,
) -> Result<Appended, BadEntry> {
    entry.check()?;
    let body_digest = entry.body_digest()?;
    if let Some(prior) = prior {
        let seq = prior.seq;
        let equal = prior.body_digest == body_digest;
        return Ok(if equal { Appended::Duplicate { seq } } else { Appended::Conflict { seq } });
    }
    if head.state == HeadState::Closed {
        return Ok(Appended::Late(chain.side()));
    }
    let entry = AuditEntry { chain: chain.clone(), ..entry.clone() };
    let state = if entry.kind == CHAIN_CLOSED { HeadState::Closed } else { HeadState::Open };
    let record = AuditRecord { entry, seq: head.seq + 1, prev: head.hash };
    let canonical = record.canonical()?;
    let hash = record_hash(&canonical);
    let head = ChainHead { seq: record.seq, hash, state };
    Ok(Appended::Recorded(Box::new(NewRecord { record, canonical, hash, body_digest, head })))
}

/// The entry that closes a chain whose last record is `head`. `counts` are the records of
/// each producer so far.
pub fn closing(
    tenant: &TenantId,
    call: &CallId,
    head: &ChainHead,
    counts: &BTreeMap<ProducerId, u64>,
    at: Timestamp,
) -> AuditEntry {
    let producer_counts: Map<String, Value> =
        counts.iter().map(|(producer, count)| (producer.to_string(), json!(count))).collect();
    AuditEntry {
        tenant: tenant.clone(),
        chain: ChainId::of(call),
        producer: ProducerId("write-audit:close:0".to_owned()),
        pseq: 0,
        kind: CHAIN_CLOSED.to_owned(),
        occurred_at: at,
        actor: Actor::system("write-audit"),
        body: json!({"event_count": head.seq + 1, "producer_counts": producer_counts}),
        sealed: None,
        refs: None,
    }
}

/// The first entry of a side chain: it cites the closed head of the main chain, so that
/// neither can be exchanged without the other.
pub fn late_opening(entry: &AuditEntry, closed: &ChainHead) -> AuditEntry {
    AuditEntry {
        tenant: entry.tenant.clone(),
        chain: entry.chain.side(),
        producer: ProducerId("write-audit:late:0".to_owned()),
        pseq: 0,
        kind: LATE_OPENED.to_owned(),
        occurred_at: entry.occurred_at,
        actor: Actor::system("write-audit"),
        body: json!({"closed_seq": closed.seq, "closed_hash": closed.hash}),
        sealed: None,
        refs: None,
    }
}

const LATE_SUFFIX: &str = "#late";
const TENANT_CHAIN: &str = "#tenant";

#[cfg(test)]
mod tests;
