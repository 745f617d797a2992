//! `warmbridge recording`: takes a call's recordings out of the sealed store, as audio that any
//! player reads. The entry of the export for the call's audit trail is stored before a byte
//! leaves; where it cannot be, nothing leaves. What lies on disk is held against the digest that
//! the trail names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use functions::audit_read::{Reader, Shown};
use functions::ports::Outgoing;
use functions::sqlite;
use handoff::id::{CallId, LegId, TenantId};
use handoff::seal::SealKey;
use serde::Serialize;
use serde_json::{Value, json};

use super::{account, exported, print_line};
use crate::io::recording::{RECORDINGS, read};

/// What to do with recordings.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Write one WAV file per leg: what it said on the left, what it heard on the right.
    Export {
        /// The call.
        call: String,
        /// The folder for the files.
        #[arg(long, default_value = ".")]
        out: PathBuf,
        /// Who exports, as the audit trail will name it; the account of this machine where it
        /// is left out.
        #[arg(long)]
        actor: Option<String>,
    },
}

/// One exported leg.
#[derive(Debug, PartialEq, Serialize)]
struct Line {
    leg: LegId,
    role: String,
    file: PathBuf,
    pieces: u32,
    duration_ms: u64,
    /// What lies on disk is what the trail names; absent where the trail names nothing.
    intact: Option<bool>,
}

pub(super) fn run(data: &Path, as_json: bool, what: What) -> ExitCode {
    let exported = taken_out(data, as_json, what);
    exported.unwrap_or_else(|error| {
        print_line(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn taken_out(data: &Path, as_json: bool, what: What) -> Result<ExitCode> {
    let What::Export { call, out, actor } = what;
    let actor = actor.unwrap_or_else(account);
    Ok(told(&export(data, &call, &out, &actor)?, as_json))
}

/// The same for an edge whose functions run in a stack: key and trail are there.
#[cfg(feature = "aws")]
pub(super) async fn run_of_stack(
    table: String,
    data: PathBuf,
    as_json: bool,
    what: What,
) -> Result<ExitCode> {
    use functions::ports::Enqueue as _;

    let What::Export { call, out, actor } = what;
    let actor = actor.unwrap_or_else(account);
    let reader = functions::aws::read::TableReader::open(&table).await;
    let (tenant, call, cloud) = super::audit::table::found(&reader, &table, &call).await?;
    let records = reader.show(call.as_str()).await?;
    let folder = data.join(RECORDINGS);
    let legs = legs_of(&folder, &call)?;
    let key = reader.edge_key(&tenant, &call).await?.context("the stack has no key of this call")?;
    cloud.enqueue(vec![entry_of(&tenant, &call, &actor, &legs)?]).await.context("nothing is exported")?;
    Ok(told(&written(&folder, &key.key, &call, &records, &legs, &out)?, as_json))
}

fn told(lines: &[Line], as_json: bool) -> ExitCode {
    let mut intact = true;
    for line in lines {
        intact &= line.intact != Some(false);
        if as_json {
            print_line(&json!(line).to_string());
            continue;
        }
        let verdict = match line.intact {
            Some(true) => "as recorded",
            Some(false) => "NOT as recorded: pieces are missing or changed",
            None => "the trail names no digest",
        };
        let Line { leg, role, file, duration_ms, .. } = line;
        print_line(&format!("{leg}  {role:<12} {duration_ms:>8} ms  {verdict}  {}", file.display()));
    }
    if intact { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn export(data: &Path, call: &str, out: &Path, actor: &str) -> Result<Vec<Line>> {
    let call = CallId::parse(call).context("this is not the id of a call")?;
    let reader = Reader::open(data).with_context(|| format!("{}", data.display()))?;
    let chain = reader.list()?.into_iter().find(|chain| chain.chain == call.as_str());
    let Some(chain) = chain else {
        bail!("the store holds no such call; `warmbridge audit list` names those it holds")
    };
    let tenant = TenantId::parse(&chain.tenant).context("the tenant of the call")?;
    let records = reader.show(call.as_str())?;
    let folder = data.join(RECORDINGS);
    let legs = legs_of(&folder, &call)?;
    let key = sqlite::recorded_access(data, &tenant, &call, &entry_of(&tenant, &call, actor, &legs)?)
        .context("the key of the call is not given, so nothing is exported")?
        .key;
    written(&folder, &key, &call, &records, &legs, out)
}

type Legs = BTreeMap<LegId, Vec<u32>>;

fn legs_of(folder: &Path, call: &CallId) -> Result<Legs> {
    let legs = read::legs(folder, call)?;
    if legs.is_empty() {
        bail!("nothing was recorded of this call")
    }
    Ok(legs)
}

fn entry_of(tenant: &TenantId, call: &CallId, actor: &str, legs: &Legs) -> Result<Outgoing> {
    let fields: Vec<String> = legs.keys().map(LegId::to_string).collect();
    Ok(Outgoing::audit(&exported::entry(tenant, call, actor, "recording", &fields))?)
}

/// Writes one file for each leg.
fn written(
    folder: &Path,
    key: &SealKey,
    call: &CallId,
    records: &[Shown],
    legs: &Legs,
    out: &Path,
) -> Result<Vec<Line>> {
    let origin = read::origin(folder, key, call, legs)?.context("nothing was recorded of this call")?;
    std::fs::create_dir_all(out).with_context(|| format!("{}", out.display()))?;
    let mut lines = Vec::new();
    for (leg, numbers) in legs {
        let role = role_of(records, *leg);
        let file = out.join(format!("{call}-{leg}-{role}.wav"));
        let read = read::export(folder, key, call, *leg, numbers, origin, &file)
            .with_context(|| format!("{}", file.display()))?;
        let intact = digest_of(records, *leg).map(|digest| digest == read.sha256);
        let read::Exported { pieces, duration_ms, .. } = read;
        lines.push(Line { leg: *leg, role, file, pieces, duration_ms, intact });
    }
    Ok(lines)
}

fn role_of(records: &[Shown], leg: LegId) -> String {
    body_of(records, "leg.opened", leg)
        .and_then(|body| body.get("role")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn digest_of(records: &[Shown], leg: LegId) -> Option<String> {
    body_of(records, "recording.stored", leg)?.get("sha256")?.as_str().map(str::to_owned)
}

fn body_of<'r>(records: &'r [Shown], kind: &str, leg: LegId) -> Option<&'r Value> {
    let leg = json!(leg);
    let of_leg = |record: &&Shown| record.kind == kind && record.body.get("leg") == Some(&leg);
    records.iter().find(of_leg).map(|record| &record.body)
}

#[cfg(test)]
mod tests {
    use functions::ports::{AUDIT, AppendAudit, Keys};
    use functions::sqlite::Store;
    use handoff::clock::Now;
    use handoff::event::{CallEvent, Fact, Role, StoredRecording};
    use handoff::id::EdgeId;

    use super::*;
    use crate::io::recording::Recorder;
    use crate::media::FRAME_SAMPLES;
    use crate::media::engine::RecordedFrame;

    fn tenant() -> TenantId {
        TenantId::parse("t_acme").unwrap()
    }

    fn call() -> CallId {
        CallId::parse("call_0001").unwrap()
    }

    async fn fact(store: &Store, seq: u64, fact: Fact) {
        let dek = store.data_key(&tenant(), &call()).await.unwrap();
        let event = CallEvent {
            edge: EdgeId::parse("edge-1").unwrap(),
            tenant: tenant(),
            call: call(),
            seq,
            time: store.wall(),
            mono_us: seq,
            commands: String::new(),
            fact,
            evaluable: None,
        };
        store.append(handoff::audit::entry::entry_of(&event, &dek, [0; 12])).await.unwrap();
    }

    /// A call with one recorded second of its caller, as the edge leaves it.
    async fn recorded(data: &Path) {
        let store = Store::open(data).unwrap();
        let key = store.data_key(&tenant(), &call()).await.unwrap().key;
        let (stored, digests) = std::sync::mpsc::channel();
        let report = move |_, _, recording: StoredRecording| stored.send(recording).unwrap();
        let recorder = Recorder::start(data.join(RECORDINGS), Box::new(report)).unwrap();
        let queue = recorder.queue();
        queue.begin(call(), LegId::CALLER, key);
        for frame in 0..50 {
            queue.frame(&RecordedFrame {
                at: Now::from_millis(20 * frame),
                call: &call(),
                leg: LegId::CALLER,
                said: &[1; FRAME_SAMPLES],
                heard: &[2; FRAME_SAMPLES],
            });
        }
        queue.end(call(), LegId::CALLER);
        recorder.stop();
        fact(&store, 0, Fact::LegOpened { leg: LegId::CALLER, role: Role::Caller }).await;
        let recording = digests.recv().unwrap();
        fact(&store, 1, Fact::RecordingStored { leg: LegId::CALLER, recording }).await;
        fact(&store, 2, Fact::ProducerFinal { count: 3 }).await;
    }

    /// Entries on their way to the trail.
    fn exports(data: &Path) -> u64 {
        Store::open(data).unwrap().depth(AUDIT).unwrap()
    }

    #[tokio::test]
    async fn an_export_gives_audio_and_is_itself_recorded() {
        let data = tempfile::tempdir().unwrap();
        recorded(data.path()).await;
        let out = data.path().join("out");
        for times in 1..=2 {
            let lines = export(data.path(), "call_0001", &out, "uid:0").unwrap();
            let expected = Line {
                leg: LegId::CALLER,
                role: "caller".to_owned(),
                file: out.join("call_0001-leg-0-caller.wav"),
                pieces: 1,
                duration_ms: 1_000,
                intact: Some(true),
            };
            assert_eq!(lines, [expected]);
            assert_eq!(exports(data.path()), times);
        }
        let wav = hound::WavReader::open(out.join("call_0001-leg-0-caller.wav")).unwrap();
        assert_eq!((wav.spec().channels, wav.duration()), (2, 8_000));
    }

    #[tokio::test]
    async fn a_recording_that_was_cut_is_not_as_recorded() {
        let data = tempfile::tempdir().unwrap();
        recorded(data.path()).await;
        let folder = data.path().join(RECORDINGS).join("call_0001");
        // A second piece from elsewhere cannot be opened; a copy under the same name can.
        let piece = folder.join("leg-0-000000.sealed");
        let store = Store::open(data.path()).unwrap();
        let key = store.data_key(&tenant(), &call()).await.unwrap().key;
        let plain = key.open("recording|call_0001|leg-0|0", &std::fs::read(&piece).unwrap()).unwrap();
        std::fs::write(&piece, key.seal([3; 12], "recording|call_0001|leg-0|0", &plain)).unwrap();
        drop(store);
        let lines = export(data.path(), "call_0001", data.path(), "uid:0").unwrap();
        assert_eq!(lines[0].intact, Some(false));
    }

    #[tokio::test]
    async fn destroying_the_calls_key_erases_its_recording() {
        let data = tempfile::tempdir().unwrap();
        recorded(data.path()).await;
        let store = Store::open(data.path()).unwrap();
        assert_eq!(store.destroy(&tenant(), &call()).await.unwrap().len(), 1);
        drop(store);
        assert!(export(data.path(), "call_0001", data.path(), "uid:0").is_err());
        assert_eq!(exports(data.path()), 0, "nothing left, so nothing is recorded as having left");
    }

    #[tokio::test]
    async fn a_call_that_is_not_there_or_was_not_recorded_says_so() {
        let data = tempfile::tempdir().unwrap();
        recorded(data.path()).await;
        let out = data.path();
        let unknown = export(data.path(), "call_0002", out, "uid:0").unwrap_err();
        assert!(unknown.to_string().contains("no such call"), "{unknown}");
        std::fs::remove_dir_all(data.path().join(RECORDINGS)).unwrap();
        let nothing = export(data.path(), "call_0001", out, "uid:0").unwrap_err();
        assert!(nothing.to_string().contains("nothing was recorded"), "{nothing}");
    }
}
