//! The checkpointer over an embedded store and a folder.

use std::fs;

use handoff::audit::verify::Report;
use handoff::audit::{Actor, AuditEntry, AuditMessage, ChainId, ProducerId};
use handoff::checkpoint::note::SignedNote;
use handoff::id::CallId;
use serde_json::json;

use super::folder::{CheckpointFolder, KEYRING};
use super::local_key::LocalKey;
use super::*;
use crate::audit_read::{Reader, Witness};
use crate::ports::AppendAudit;
use crate::testing::Bench;

fn tenant() -> TenantId {
    TenantId::parse("t_acme").unwrap()
}

struct Notary {
    bench: Bench,
    outside: tempfile::TempDir,
    folder: CheckpointFolder,
    key: LocalKey,
}

impl Notary {
    async fn new() -> Self {
        let bench = Bench::new();
        let outside = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::new(outside.path());
        let key = LocalKey::open(bench.store.dir()).unwrap();
        folder.trust(&key.note_key(&tenant()).await.unwrap(), bench.clock.wall()).unwrap();
        Self { bench, outside, folder, key }
    }

    async fn record(&self, call: &str, pseq: u64) {
        let entry = AuditEntry {
            tenant: tenant(),
            chain: ChainId::of(&CallId::parse(call).unwrap()),
            producer: ProducerId::parse("job:test:1").unwrap(),
            pseq,
            kind: "fallback.taken".to_owned(),
            occurred_at: self.bench.clock.wall(),
            actor: Actor::system("test"),
            body: json!({"kind": "closing", "reason": "none"}),
            sealed: None,
            refs: None,
        };
        self.bench.store.append(AuditMessage::plain(entry)).await.unwrap();
    }

    async fn make(&self) -> Result<Made, PortError> {
        handle(&self.bench.store, &self.folder, &self.key, &self.bench.clock, &tenant()).await
    }

    fn verify(&self) -> Report {
        let witness = Witness { checkpoints: Some(self.outside.path().to_owned()), ..Witness::default() };
        let mut report = Reader::open(self.bench.store.dir()).unwrap().verify_with(None, &witness).unwrap();
        // The clock of the bench stands still in the past.
        report.findings.retain(|finding| finding.text != "the chain is open");
        report
    }
}

#[tokio::test]
async fn what_moved_is_signed_once_and_again_when_it_moves_again() {
    let notary = Notary::new().await;
    assert_eq!(notary.make().await, Ok(Made::default()), "nothing to sign");
    notary.record("call_0001", 0).await;
    notary.record("call_0002", 0).await;
    assert_eq!(notary.make().await, Ok(Made { checkpoints: 1, leaves: 2, size: 2 }));
    assert_eq!(notary.make().await, Ok(Made::default()), "nothing moved");
    notary.record("call_0001", 1).await;
    assert_eq!(notary.make().await, Ok(Made { checkpoints: 1, leaves: 1, size: 3 }));
    let report = notary.verify();
    assert_eq!(report.exit_code(), 0, "{:?}", report.findings);
    assert_eq!(report.notes, ["checked against checkpoints of 3 leaves"]);
}

#[tokio::test]
async fn more_chains_than_one_checkpoint_holds_make_several_in_one_pass() {
    let notary = Notary::new().await;
    let calls = LEAVES_MAX as u64 + 1;
    let hash = handoff::audit::Hash::of(&[b"any"]).to_string();
    let heads = notary.bench.store.run(move |tx| {
        for call in 0..calls {
            tx.conn.execute(
                "INSERT INTO audit_head (tenant, chain, seq, hash, state, started_at) VALUES ('t_acme', ?1, 1, ?2, 'open', 0)",
                (format!("call_{call:06}"), &hash),
            )?;
        }
        Ok(())
    });
    heads.committed().await.unwrap();
    assert_eq!(notary.make().await, Ok(Made { checkpoints: 2, leaves: calls, size: calls }));
    assert_eq!(notary.make().await, Ok(Made::default()));
}

#[tokio::test]
async fn a_crash_between_leaves_and_note_or_before_the_mark_costs_leaves_and_no_verdict() {
    let notary = Notary::new().await;
    notary.record("call_0001", 0).await;
    notary.make().await.unwrap();
    let folder = notary.outside.path().join("t_acme");
    // Leaves without a note: the process died before it made them count.
    fs::write(folder.join("000000000002.leaves"), b"half a").unwrap();
    notary.record("call_0002", 0).await;
    notary.make().await.unwrap();
    assert_eq!(notary.verify().exit_code(), 0);
    // Marks lost: everything is signed again.
    notary
        .bench
        .store
        .run(|tx| Ok(tx.conn.execute("DELETE FROM signed_heads", [])?))
        .committed()
        .await
        .unwrap();
    assert_eq!(notary.make().await, Ok(Made { checkpoints: 1, leaves: 2, size: 4 }));
    assert_eq!(notary.verify().exit_code(), 0);
}

#[tokio::test]
async fn a_log_that_somebody_else_continued_is_not_forked() {
    let notary = Notary::new().await;
    notary.record("call_0001", 0).await;
    notary.make().await.unwrap();
    let late = NewCheckpoint {
        tenant: tenant(),
        previous: 0,
        size: 2,
        note: String::new(),
        leaves: Vec::new(),
        peaks: Vec::new(),
    };
    assert!(matches!(notary.folder.put(late).await, Err(PortError::Transient(_))));
}

#[tokio::test]
async fn a_frontier_that_is_not_the_notes_is_refused() {
    let notary = Notary::new().await;
    notary.record("call_0001", 0).await;
    notary.make().await.unwrap();
    let frontier = notary.outside.path().join("t_acme/000000000001.frontier");
    fs::write(frontier, format!("{}\n", handoff::audit::Hash::of(&[b"other"]))).unwrap();
    notary.record("call_0002", 0).await;
    assert!(matches!(notary.make().await, Err(PortError::Permanent(_))));
}

#[tokio::test]
async fn a_new_key_ends_the_old_one_and_notes_of_both_hold() {
    let mut notary = Notary::new().await;
    notary.record("call_0001", 0).await;
    notary.make().await.unwrap();
    fs::remove_file(notary.bench.store.dir().join(local_key::KEY_FILE)).unwrap();
    notary.key = LocalKey::open(notary.bench.store.dir()).unwrap();
    notary.bench.clock.pass(1_000);
    let key = notary.key.note_key(&tenant()).await.unwrap();
    notary.folder.trust(&key, notary.bench.clock.wall()).unwrap();
    notary.folder.trust(&key, notary.bench.clock.wall().plus_millis(5)).unwrap();
    notary.record("call_0002", 0).await;
    notary.make().await.unwrap();
    let report = notary.verify();
    assert_eq!(report.exit_code(), 0, "{:?}", report.findings);
    let ring = fs::read_to_string(notary.outside.path().join(KEYRING)).unwrap();
    assert_eq!((ring.matches("[[key]]").count(), ring.matches("until").count()), (2, 1));
}

#[tokio::test]
async fn a_note_holds_names_and_digests_only_and_the_private_key_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let notary = Notary::new().await;
    notary.record("call_0001", 0).await;
    notary.make().await.unwrap();
    let note = fs::read_to_string(notary.outside.path().join("t_acme/000000000001.note")).unwrap();
    let note = SignedNote::parse(&note).unwrap();
    assert_eq!((note.body.size, note.body.origin.as_str()), (1, "warmbridge-audit/v1/t_acme"));
    let key = notary.bench.store.dir().join(local_key::KEY_FILE);
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!format!("{:?}", notary.key).contains(char::is_numeric));
}
