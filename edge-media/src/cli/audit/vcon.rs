//! `warmbridge audit export CALL --vcon`: a call for other systems. Its export is recorded
//! before a byte leaves; where it cannot be, nothing leaves. What cannot be read any more, since
//! the call was erased, is left out.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use functions::audit_read::{Reader, Shown};
use functions::ports::Outgoing;
use functions::sqlite;
use handoff::audit::{AuditMessage, AuditRecord};
use handoff::id::{CallId, TenantId, TransferId};
use handoff::payload::Payload;
use handoff::pii::Pii;
use handoff::redact::Level;
use handoff::vcon::signed::Signer;
use handoff::vcon::{self, Material, Turn};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::{account, exported, print_line};

/// Which draft of the format.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum VconVersion {
    /// draft-ietf-vcon-vcon-core-03.
    #[value(name = "core-03")]
    Core03,
}

/// How much is taken out.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum Redaction {
    /// Payment and authentication data.
    Pci,
    /// Texts, summaries and payloads too.
    Pii,
    /// The same, under the name for health information.
    Phi,
}

impl Redaction {
    const fn level(self) -> Level {
        match self {
            Self::Pci => Level::R1Pci,
            Self::Pii => Level::R2Pii,
            Self::Phi => Level::R3Phi,
        }
    }
}

/// How a call is exported as a vCon.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct VconOptions {
    /// As a vCon (IETF draft) instead of a bundle.
    #[arg(long)]
    pub(super) vcon: bool,
    /// The draft that the export follows.
    #[arg(long, value_enum, default_value = "core-03", requires = "vcon")]
    vcon_version: VconVersion,
    /// What is taken out of the export.
    #[arg(long, value_enum, default_value = "pci", requires = "vcon")]
    redact: Redaction,
    /// Who exports, as the audit trail will name it; the account of this machine where it is
    /// left out.
    #[arg(long, requires = "vcon")]
    actor: Option<String>,
    /// Sign the vCon (JWS, EdDSA): a PEM file with an Ed25519 private key and its certificate,
    /// and those behind it.
    #[arg(long, value_name = "FILE", requires = "vcon")]
    sign: Option<PathBuf>,
}

/// What an export is made of, from wherever it was read.
pub(super) struct Parts {
    pub(super) tenant: TenantId,
    pub(super) call: CallId,
    pub(super) records: Vec<AuditRecord>,
    pub(super) shown: Vec<Shown>,
    pub(super) jsonl: Vec<u8>,
    pub(super) payloads: Vec<Payload>,
}

impl Parts {
    /// What somebody who reads the export should know of it.
    fn note(&self) -> Option<&'static str> {
        let erased = self.shown.iter().any(|shown| shown.erased);
        erased.then_some("the call was erased: its words and payloads are not in the export")
    }
}

impl VconOptions {
    /// The record of the export.
    pub(super) fn entry(&self, tenant: &TenantId, call: &CallId) -> AuditMessage {
        // The drafts differ in names; there is one so far.
        let VconVersion::Core03 = self.vcon_version;
        let level = json!(self.redact.level());
        let fields = [level.as_str().unwrap_or_default().to_owned()];
        let actor = self.actor.clone().unwrap_or_else(account);
        exported::entry(tenant, call, &actor, "vcon", &fields)
    }

    /// Who signs, where somebody is to: to be asked for before the export is recorded, because
    /// with a file that cannot sign nothing leaves.
    pub(super) fn signer(&self) -> Result<Option<Signer>> {
        let Some(file) = &self.sign else { return Ok(None) };
        let text = std::fs::read_to_string(file).map(Zeroizing::new);
        let text = text.with_context(|| format!("{}", file.display()))?;
        Signer::from_pem(&text).with_context(|| format!("{} cannot sign", file.display())).map(Some)
    }

    /// Prints the vCon, by `signer` in its signed form.
    pub(super) fn print(&self, parts: &Parts, signer: Option<&Signer>) -> Result<ExitCode> {
        let value = self.made_of(parts)?;
        let faults = vcon::check::faults(&value);
        if !faults.is_empty() {
            bail!("the records of this call make no vCon: {}", faults.join("; "));
        }
        if let Some(note) = parts.note() {
            // Beside the export, which may be a file by now.
            let _ = writeln!(std::io::stderr().lock(), "{note}");
        }
        let value = signer.map_or_else(|| value.clone(), |signer| signer.sign(value.clone()));
        print_line(&format!("{value:#}"));
        Ok(ExitCode::SUCCESS)
    }

    fn made_of(&self, parts: &Parts) -> Result<Value> {
        let jsonl = std::str::from_utf8(&parts.jsonl).context("the records are not text")?;
        let turns: Vec<Turn> = parts.shown.iter().filter_map(turn).collect();
        let payloads = parts.payloads.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        Ok(vcon::export(&Material {
            tenant: &parts.tenant,
            call: &parts.call,
            at: sqlite::wall_clock(),
            level: self.redact.level(),
            records: &parts.records,
            jsonl,
            turns: &turns,
            payloads: &payloads,
        }))
    }
}

fn turn(shown: &Shown) -> Option<Turn> {
    let speaker = shown.body.get("speaker")?.as_str()?.to_owned();
    let text = Pii::new(shown.text.as_ref()?.expose().clone());
    Some(Turn { at: shown.occurred_at, speaker, text })
}

/// The transfers of a call.
pub(super) fn transfers(records: &[AuditRecord]) -> Vec<TransferId> {
    let decided = records.iter().filter(|record| record.entry.kind == "transfer.decided");
    decided
        .filter_map(|record| TransferId::parse(record.entry.body.get("transfer_id")?.as_str()?).ok())
        .collect()
}

/// Exports a call of the embedded store.
pub(super) fn export(data: &Path, call: &str, options: &VconOptions) -> Result<ExitCode> {
    let call = CallId::parse(call).context("this is not the id of a call")?;
    let reader = Reader::open(data).with_context(|| format!("{}", data.display()))?;
    let chain = reader.list()?.into_iter().find(|chain| chain.chain == call.as_str());
    let Some(chain) = chain else {
        bail!("the store holds no such call; `warmbridge audit list` names those it holds")
    };
    let tenant = TenantId::parse(&chain.tenant).context("the tenant of the call")?;
    let signer = options.signer()?;
    let entry = Outgoing::audit(&options.entry(&tenant, &call))?;
    sqlite::recorded_export(data, &entry).context("the export cannot be recorded, so nothing leaves")?;
    let records = reader.records(tenant.as_str(), &call)?;
    // Where the call was erased there is no payload to be read.
    let payloads = transfers(&records).iter().filter_map(|transfer| reader.payload(transfer).ok()?).collect();
    let shown = reader.show(call.as_str())?;
    let jsonl = reader.export(call.as_str())?.jsonl;
    options.print(&Parts { tenant, call, records, shown, jsonl, payloads }, signer.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use functions::ports::{AppendAudit, Keys};
    use functions::sqlite::Store;
    use functions::sqlite::erase::{Deed, execute};
    use handoff::audit::{Actor, AuditEntry, ChainId, ProducerId, Sealed};
    use handoff::seal::place;

    fn options(redact: Redaction) -> VconOptions {
        let (vcon_version, actor) = (VconVersion::Core03, Some("dpo".to_owned()));
        VconOptions { vcon: true, vcon_version, redact, actor, sign: None }
    }

    fn parts(data: &Path, call: &CallId, tenant: &TenantId) -> Parts {
        let reader = Reader::open(data).unwrap();
        Parts {
            tenant: tenant.clone(),
            call: call.clone(),
            records: reader.records(tenant.as_str(), call).unwrap(),
            shown: reader.show(call.as_str()).unwrap(),
            jsonl: reader.export(call.as_str()).unwrap().jsonl,
            payloads: Vec::new(),
        }
    }

    #[tokio::test]
    async fn an_export_is_recorded_and_an_erased_call_has_no_words() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (tenant, call) = (TenantId::parse("t_acme").unwrap(), CallId::parse("call_0001").unwrap());
        let dek = store.data_key(&tenant, &call).await.unwrap();
        let ct = dek.key.seal([1; 12], &place(&tenant, call.as_str(), "edge-1", 0), b"my knee hurts");
        let said = AuditEntry {
            tenant: tenant.clone(),
            chain: ChainId::of(&call),
            producer: ProducerId::parse("edge-1").unwrap(),
            pseq: 0,
            kind: "utterance.ref".to_owned(),
            occurred_at: sqlite::wall_clock(),
            actor: Actor::system("edge-1"),
            body: json!({"segment": 1, "speaker": "caller", "offset_ms": 5}),
            sealed: Some(Sealed::beside(&dek.id, &ct)),
            refs: None,
        };
        store.append(AuditMessage { entry: said, ciphertext: Some(ct) }).await.unwrap();
        let whole = options(Redaction::Pci).made_of(&parts(dir.path(), &call, &tenant)).unwrap();
        assert!(whole.to_string().contains("my knee hurts"));
        let redacted = options(Redaction::Pii).made_of(&parts(dir.path(), &call, &tenant)).unwrap();
        assert!(!redacted.to_string().contains("my knee hurts"));
        assert_eq!(store.depth(functions::ports::AUDIT).unwrap(), 0);
        export(dir.path(), call.as_str(), &options(Redaction::Pii)).unwrap();
        assert_eq!(
            store.depth(functions::ports::AUDIT).unwrap(),
            1,
            "the export is on its way into the trail"
        );
        let unsigned = VconOptions { sign: Some(dir.path().join("no.pem")), ..options(Redaction::Pii) };
        assert!(export(dir.path(), call.as_str(), &unsigned).is_err());
        std::fs::write(dir.path().join("no.pem"), "no key").unwrap();
        let why = format!("{:#}", export(dir.path(), call.as_str(), &unsigned).unwrap_err());
        assert!(why.contains("no.pem cannot sign: it must hold one private key"), "{why}");
        assert_eq!(store.depth(functions::ports::AUDIT).unwrap(), 1, "nothing left, nothing is recorded");
        assert_eq!(parts(dir.path(), &call, &tenant).note(), None);
        execute(dir.path(), &call, Deed::Erase, "GDPR 17", "dpo").unwrap();
        let parts = parts(dir.path(), &call, &tenant);
        assert!(parts.note().is_some_and(|note| note.contains("erased")));
        let erased = options(Redaction::Pci).made_of(&parts).unwrap();
        assert!(!erased.to_string().contains("my knee hurts"));
        assert!(export(dir.path(), "call_0002", &options(Redaction::Pci)).is_err());
    }
}
