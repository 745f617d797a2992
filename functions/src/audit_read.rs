//! Reading the embedded store for the command line and for reports: list, show, verify,
//! export. It opens the database read-only and returns data; printing is somebody else's.
//! Sealed texts are opened for `show` only, where the store's key file can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use handoff::audit::feed;
use handoff::audit::verify::checkpoints::TrailPolicy;
use handoff::audit::verify::{
    Class, Finding, NO_CHECKPOINTS, Report, Source, StoredChain, StoredRecord, Verifier, verify,
};
use handoff::audit::{Actor, AuditRecord, ChainId, record_hash};
use handoff::checkpoint::keyring::Keyring;
use handoff::checkpoint::proof::Proof;
use handoff::clock::Timestamp;
use handoff::id::{CallId, PayloadId, TenantId, TransferId};
use handoff::payload::Payload;
use handoff::pii::Pii;
use handoff::seal::{SealKey, place};
use rusqlite::Connection;
use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::folder::CheckpointFolder;
use crate::sqlite::{self, DATABASE, StoreError, ledger, vault, wall_clock};

/// Largest bundle that is read: a chain has at most thousands of records of at most 20 KiB.
const BUNDLE_LEN_MAX: u64 = 512 * 1024 * 1024;

/// One chain in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Whose.
    pub tenant: String,
    /// Its name: the call's id, with `#late` for a side chain.
    pub chain: String,
    /// Its records.
    pub records: u64,
    /// `open` or `closed`.
    pub state: String,
    /// When its first record was written.
    pub started_at: Timestamp,
}

/// One record, to be shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// In which chain: the call's or its side chain.
    pub chain: String,
    /// Its number there.
    pub seq: u64,
    /// What happened.
    pub kind: String,
    /// When.
    pub occurred_at: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// Who recorded it, under which number.
    pub producer: String,
    /// The producer's number.
    pub pseq: u64,
    /// Details.
    pub body: Value,
    /// A sealed text lies beside it.
    pub sealed: bool,
    /// What was sealed, where the store's key and the call's open it.
    pub text: Option<Pii<String>>,
    /// The key of what was sealed is destroyed: nobody can read it again.
    pub erased: bool,
}

impl Shown {
    /// A record, with its text where it could be opened.
    pub(crate) fn of(record: AuditRecord, text: Option<Pii<String>>) -> Self {
        Self {
            chain: record.entry.chain.to_string(),
            seq: record.seq,
            kind: record.entry.kind,
            occurred_at: record.entry.occurred_at,
            actor: record.entry.actor,
            producer: record.entry.producer.to_string(),
            pseq: record.entry.pseq,
            body: record.entry.body,
            sealed: record.entry.sealed.is_some(),
            text,
            erased: false,
        }
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        let members = self.body.as_object().into_iter().flatten();
        let details: Vec<String> = members
            .filter(|(name, _)| *name != "mono_us")
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let text = match &self.text {
            Some(text) => format!("  “{}”", text.expose()),
            None if self.erased => " [erased]".to_owned(),
            None if self.sealed => " [sealed]".to_owned(),
            None => String::new(),
        };
        format!(
            "{:>5}  {}  {:<24} {:<26} {}{text}",
            self.seq,
            self.occurred_at,
            self.kind,
            self.actor.id,
            details.join(" ").replace('"', "")
        )
    }
}

/// One webhook message to one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// Message id.
    pub message_id: String,
    /// To whom.
    pub destination: String,
    /// CloudEvents type.
    pub kind: String,
    /// Status of the last answer.
    pub status: Option<u16>,
    /// Tries so far.
    pub attempts: u32,
    /// `pending`, `delivered`, `failed`.
    pub state: String,
}

/// An exported chain: what the verifier needs, and what a store knows beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// One canonical envelope per line, the exact bytes.
    pub jsonl: Vec<u8>,
    /// One `{seq, hash, recorded_at}` per line.
    pub meta: Vec<u8>,
}

impl Bundle {
    /// Adds the record behind those that are there.
    pub(crate) fn push(&mut self, record: &StoredRecord) {
        self.jsonl.extend_from_slice(&record.canonical);
        self.jsonl.push(b'\n');
        let StoredRecord { seq, hash, recorded_at, .. } = record;
        let meta = serde_json::json!({"seq": seq, "hash": hash, "recorded_at": recorded_at});
        self.meta.extend_from_slice(meta.to_string().as_bytes());
        self.meta.push(b'\n');
    }
}

/// What lies outside the store and vouches for it.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    /// The folder of checkpoints.
    pub checkpoints: Option<PathBuf>,
    /// The keyring to go by instead of the folder's own.
    pub keyring: Option<PathBuf>,
    /// What is asked of the trail.
    pub policy: TrailPolicy,
}

impl Witness {
    /// Tenants of whom there is a log.
    pub(crate) fn tenants(&self) -> std::io::Result<Vec<TenantId>> {
        let folder = self.checkpoints.as_deref().map(CheckpointFolder::new);
        Ok(folder.map(|folder| folder.tenants()).transpose()?.unwrap_or_default())
    }

    /// A verifier of a tenant's chains that knows what this witness knows. What is said of a
    /// tenant without a name is said of its chains.
    pub(crate) fn verifier(&self, tenant: &str) -> std::io::Result<Verifier> {
        let parsed = TenantId::parse(tenant).ok();
        let folder = self.checkpoints.as_deref().map(CheckpointFolder::new);
        let evidence = match (&folder, &parsed) {
            (Some(folder), Some(tenant)) => Some(folder.evidence(tenant, self.keyring.as_deref())?),
            _ => None,
        };
        let unknown = || TenantId::parse("unknown").map_err(|_| std::io::ErrorKind::InvalidData);
        let label = parsed.map_or_else(unknown, Ok)?;
        Ok(Verifier::new(&label, Source::Store, wall_clock(), evidence.as_ref(), &self.policy))
    }
}

/// A read-only view of an embedded store.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    conn: Connection,
}

impl Reader {
    /// Opens the store in `dir`. The store may be in use.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        if !dir.join(DATABASE).is_file() {
            return Err(
                std::io::Error::new(std::io::ErrorKind::NotFound, "no store in this directory").into()
            );
        }
        let conn = sqlite::open_for_reading(dir)?;
        Ok(Self { dir: dir.to_owned(), conn })
    }

    /// All chains, newest first.
    pub fn list(&self) -> Result<Vec<Chain>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT tenant, chain, seq, state, started_at FROM audit_head ORDER BY started_at DESC, chain",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Chain {
                tenant: row.get(0)?,
                chain: row.get(1)?,
                records: row.get(2)?,
                state: row.get(3)?,
                started_at: Timestamp::from_unix_millis(row.get(4)?),
            })
        })?;
        rows.collect::<Result<_, _>>().map_err(StoreError::from)
    }

    /// The records of a call, those of its side chain behind them.
    pub fn show(&self, chain: &str) -> Result<Vec<Shown>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT cj, ct FROM audit WHERE chain = ?1 OR chain = ?1 || '#late' ORDER BY tenant, chain, seq",
        )?;
        let rows = statement
            .query_map([chain], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<Vec<u8>>>(1)?)))?;
        let key = sqlite::read_key(&self.dir).ok();
        let mut shown = Vec::new();
        for row in rows {
            let (canonical, ciphertext) = row?;
            // A record that no longer parses is the verifier's business.
            let Some(record) = AuditRecord::parse(&canonical) else { continue };
            let text = ciphertext.zip(key.as_ref()).and_then(|(text, key)| self.opened(&record, &text, key));
            let erased = record.entry.sealed.is_some() && self.is_erased(&record)?;
            shown.push(Shown { erased, ..Shown::of(record, text) });
        }
        Ok(shown)
    }

    /// The records of a call and of its side chain, as they are, sealed texts sealed.
    pub fn records(&self, tenant: &str, call: &CallId) -> Result<Vec<AuditRecord>, StoreError> {
        ledger::records(&self.conn, tenant, call)
    }

    /// At most `max` rows for a warehouse that were recorded after `cursor`, in the order in
    /// which they were recorded, each with its own cursor. A record that no longer parses is
    /// left out.
    pub fn feed(&self, cursor: i64, max: usize) -> Result<Vec<(i64, Value)>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT rowid, cj, recorded_at FROM audit WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
        )?;
        let rows = statement.query_map((cursor, max), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, String>(2)?))
        })?;
        let mut fed = Vec::new();
        for row in rows {
            let (cursor, canonical, recorded_at) = row?;
            let recorded_at = Timestamp::parse(&recorded_at).ok();
            let told = AuditRecord::parse(&canonical)
                .map_or(Value::Null, |record| feed::row(&record, &record_hash(&canonical), recorded_at));
            fed.push((cursor, told));
        }
        Ok(fed)
    }

    fn is_erased(&self, record: &AuditRecord) -> Result<bool, StoreError> {
        let (tenant, chain) = (record.entry.tenant.as_str(), record.entry.chain.as_str());
        vault::is_erased(&self.conn, tenant, main_name(chain))
    }

    fn opened(&self, record: &AuditRecord, ciphertext: &[u8], key: &SealKey) -> Option<Pii<String>> {
        let entry = &record.entry;
        let call = entry.chain.call()?;
        let dek = vault::find_key(&self.conn, key, &entry.tenant, &call).ok()??;
        let place = place(&entry.tenant, call.as_str(), entry.producer.as_str(), entry.pseq);
        let plain = dek.key.open(&place, ciphertext).ok()?;
        Some(Pii::new(String::from_utf8_lossy(&plain).into_owned()))
    }

    /// Verifies one call with its side chain, or everything, one call at a time.
    pub fn verify(&self, chain: Option<&str>) -> Result<Report, StoreError> {
        self.verify_with(chain, &Witness::default())
    }

    /// The same, against what a witness outside the store knows.
    pub fn verify_with(&self, chain: Option<&str>, witness: &Witness) -> Result<Report, StoreError> {
        let wanted = chain.map(main_name);
        let mut by_tenant: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tenant, name) in self.names()? {
            by_tenant.entry(tenant).or_default().push(name);
        }
        let known = by_tenant.values().flatten().any(|name| Some(name.as_str()) == wanted);
        // A tenant of which nothing is left but its log is missing as a whole.
        for tenant in witness.tenants()? {
            by_tenant.entry(tenant.to_string()).or_default();
        }
        let (mut report, mut expired) = (Report::default(), false);
        if by_tenant.is_empty() && witness.checkpoints.is_none() {
            report.notes.push(NO_CHECKPOINTS.to_owned());
        }
        for (tenant, names) in &by_tenant {
            let (own, told) = self.verify_tenant(tenant, names, wanted, witness)?;
            report.absorb(own);
            expired |= told;
        }
        let named = report.findings.iter().any(|finding| Some(main_name(&finding.chain)) == wanted);
        if let (Some(chain), false) = (chain, known || named || expired) {
            return Ok(Report::unreadable(&format!("no chain {chain} in this store")));
        }
        Ok(report)
    }

    /// The verdict on a tenant's chains, and whether the wanted one is gone for its age.
    fn verify_tenant(
        &self,
        tenant: &str,
        names: &[String],
        wanted: Option<&str>,
        witness: &Witness,
    ) -> Result<(Report, bool), StoreError> {
        let mut verifier = witness.verifier(tenant)?;
        for name in names.iter().filter(|name| wanted.is_none_or(|wanted| wanted == name.as_str())) {
            match ledger::stored_call(&self.conn, tenant, name) {
                Ok((main, side)) => verifier.chain(&main, side.as_ref()),
                // Rows that contradict each other were not written by this program.
                Err(StoreError::Damaged(what)) => verifier.damaged(name, what),
                Err(error) => return Err(error),
            }
        }
        let only = wanted.and_then(|wanted| ChainId::parse(wanted).ok());
        if only.is_some() {
            let own = ChainId::tenant();
            match ledger::stored_chain(&self.conn, tenant, own.as_str()) {
                Ok(own) => verifier.know_expired(&own),
                Err(StoreError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let expired = only.as_ref().is_some_and(|only| verifier.is_expired(only));
        Ok((verifier.finish(only.as_ref()), expired))
    }

    /// One call's chain (or side chain) as a bundle.
    pub fn export(&self, chain: &str) -> Result<Bundle, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT seq, cj, hash, recorded_at FROM audit WHERE chain = ?1 ORDER BY seq")?;
        let rows = statement.query_map([chain], |row| {
            Ok((
                row.get::<_, u64>(0)?,
                row.get::<_, Vec<u8>>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, String>(3)?,
            ))
        })?;
        let mut bundle = Bundle { jsonl: Vec::new(), meta: Vec::new() };
        for row in rows {
            let (seq, canonical, hash, recorded_at) = row?;
            let recorded_at = Timestamp::parse(&recorded_at).ok();
            bundle.push(&StoredRecord { seq, canonical, hash: Some(hash), recorded_at, ciphertext: None });
        }
        Ok(bundle)
    }

    /// The highest revision of a transfer's payload.
    pub fn payload(&self, transfer: &TransferId) -> Result<Option<Payload>, StoreError> {
        let payload = PayloadId::of(transfer);
        let tenant: Option<String> = {
            let mut statement =
                self.conn.prepare_cached("SELECT tenant FROM payloads WHERE payload = ?1 LIMIT 1")?;
            let mut rows = statement.query([payload.as_str()])?;
            rows.next()?.map(|row| row.get(0)).transpose()?
        };
        let Some(tenant) = tenant.and_then(|tenant| TenantId::parse(&tenant).ok()) else { return Ok(None) };
        let key = sqlite::read_key(&self.dir)?;
        let stored = vault::find_payload(&self.conn, &key, &tenant, &payload, None)?;
        stored
            .map(|stored| {
                serde_json::from_slice(&stored.bytes)
                    .map_err(|_| StoreError::Damaged("a payload does not parse"))
            })
            .transpose()
    }

    /// The webhooks of a call.
    pub fn webhooks(&self, call: &CallId) -> Result<Vec<Webhook>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT message_id, destination, kind, status, attempts, state FROM webhooks WHERE call = ?1 ORDER BY rowid",
        )?;
        let rows = statement.query_map([call.as_str()], |row| {
            Ok(Webhook {
                message_id: row.get(0)?,
                destination: row.get(1)?,
                kind: row.get(2)?,
                status: row.get(3)?,
                attempts: row.get(4)?,
                state: row.get(5)?,
            })
        })?;
        rows.collect::<Result<_, _>>().map_err(StoreError::from)
    }

    /// Tenant and main chain of everything of which there is any trace.
    fn names(&self) -> Result<BTreeSet<(String, String)>, StoreError> {
        let mut statement = self
            .conn
            .prepare("SELECT tenant, chain FROM audit_head UNION SELECT DISTINCT tenant, chain FROM audit")?;
        // A name that is no text was not written by this program; it is judged like any other.
        let name = |row: &rusqlite::Row<'_>, column| -> rusqlite::Result<String> {
            Ok(String::from_utf8_lossy(row.get_ref(column)?.as_bytes()?).into_owned())
        };
        let rows = statement.query_map([], |row| Ok((name(row, 0)?, name(row, 1)?)))?;
        let mut names = BTreeSet::new();
        for row in rows {
            let (tenant, chain) = row?;
            names.insert((tenant, main_name(&chain).to_owned()));
        }
        Ok(names)
    }
}

const LATE_SUFFIX: &str = "#late";

/// The main chain of a call, by the name of either of its chains.
pub(crate) fn main_name(chain: &str) -> &str {
    chain.strip_suffix(LATE_SUFFIX).unwrap_or(chain)
}

/// Verifies the store in `dir`. What cannot be read at all is a finding too, with its own
/// exit code.
pub fn verify_store(dir: &Path, chain: Option<&str>) -> Report {
    let verified = Reader::open(dir).and_then(|reader| reader.verify(chain));
    verified.unwrap_or_else(|error| Report::unreadable(&error.to_string()))
}

/// Verifies an exported bundle: one envelope per line.
pub fn verify_bundle(path: &Path, vouched: Option<&Vouched>) -> Report {
    let too_large = fs::metadata(path).is_ok_and(|meta| meta.len() > BUNDLE_LEN_MAX);
    if too_large {
        return Report::unreadable("the bundle is larger than any chain");
    }
    match fs::read(path) {
        Ok(bytes) => verify_lines(&bytes, vouched),
        Err(error) => Report::unreadable(&error.to_string()),
    }
}

/// What vouches for a bundle away from any log: a proof, and the keys that it is held to.
#[derive(Clone, Debug)]
pub struct Vouched {
    proof: Proof,
    keyring: Keyring,
}

impl Vouched {
    /// Reads both files. The error says which of them cannot be read, and why.
    pub fn read(proof: &Path, keyring: &Path) -> Result<Self, String> {
        let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let named = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let ring = String::from_utf8_lossy(&read(keyring)?).into_owned();
        Ok(Self {
            proof: Proof::parse(&read(proof)?).map_err(|error| named(proof, &error))?,
            keyring: Keyring::parse(&ring).map_err(|error| named(keyring, &error))?,
        })
    }

    /// Whether the chain holds the record that was signed, and the signature is good.
    fn judge(&self, chain: &StoredChain, report: &mut Report) {
        let leaf = &self.proof.leaf;
        let mut tamper = |text: String| {
            let chain = chain.chain.to_string();
            report.findings.push(Finding { class: Class::Tamper, chain, seq: Some(leaf.seq), text });
        };
        if let Err(fault) = self.proof.verify(&chain.tenant, &self.keyring) {
            return tamper(fault.to_string());
        }
        let signed = chain.records.iter().find(|stored| stored.seq == leaf.seq);
        match signed.map(|stored| record_hash(&stored.canonical)) {
            _ if leaf.chain != chain.chain => tamper(format!("the proof is of {}", leaf.chain)),
            None => tamper("the chain is shorter than its proof".to_owned()),
            Some(hash) if hash != leaf.hash => {
                tamper("the chain was rewritten: its proof has another hash of this record".to_owned());
            }
            Some(_) => report.notes.push(format!("a signed tree holds the chain up to record {}", leaf.seq)),
        }
    }
}

fn verify_lines(bytes: &[u8], vouched: Option<&Vouched>) -> Report {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let Some(named) = lines.iter().find_map(|line| AuditRecord::parse(line)) else {
        return Report::unreadable("the file holds no audit record");
    };
    let records = (1..)
        .zip(lines)
        .map(|(seq, line)| StoredRecord {
            seq,
            canonical: line.to_vec(),
            hash: Some(record_hash(line).to_string()),
            ..StoredRecord::default()
        })
        .collect();
    let chain = StoredChain {
        tenant: named.entry.tenant,
        chain: named.entry.chain,
        records,
        head: None,
        erased: false,
    };
    let mut report = verify(&chain, None, Source::Bundle, wall_clock());
    if let Some(vouched) = vouched {
        report.notes.retain(|note| note != NO_CHECKPOINTS);
        vouched.judge(&chain, &mut report);
    }
    report
}
