//! The log of checkpoints in the cloud: notes, leaves and frontiers as objects of a bucket that
//! keeps what it has, signed by a key that never leaves the key service. The bucket has the
//! layout of a folder of checkpoints, so that a copy of it is one. Chains that moved since the
//! last note are those with a mark in the table of heads: an index that holds nothing else.

use std::collections::BTreeMap;

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use handoff::audit::{ChainId, Hash};
use handoff::checkpoint::keyring::{Keyring, NoteKey, TrustedKey};
use handoff::checkpoint::{LEAVES_MAX, Leaf, origin};
use handoff::id::TenantId;

use super::ledger::{head_in, head_key};
use super::{Cloud, code_of, damaged, failed, number, text, text_of};
use crate::checkpoint::folder::{KEYRING, name};
use crate::checkpoint::{Made, handle};
use crate::clock::SystemClock;
use crate::ports::{Checkpoints, LastCheckpoint, NewCheckpoint, PortError, ReadHeads, SignNote};

/// The index of heads that no note covers.
const UNSIGNED_INDEX: &str = "unsigned";

/// The mark of such a head, which is the index's key, and the record at which it was set last.
pub(crate) const UNSIGNED: &str = "unsigned";
pub(crate) const UNSIGNED_SEQ: &str = "unsigned_seq";

/// The size of the log whose note signed a head first: which of the bucket's objects to look at.
pub(crate) const SIGNED_IN: &str = "signed_in";

/// The row of the lease.
const LEASE: &str = "LOCK#checkpoint";

/// How long a lease holds: twice the function's time, so that whoever has it is gone by then.
const LEASE_MS: i64 = 240_000;

/// The largest log whose name has twelve digits.
const SIZE_MAX: u64 = 999_999_999_999;

/// Most marks that one pass looks at. Passes follow each other until nothing is left.
const MARKS_MAX: usize = 8 * LEAVES_MAX;

/// An Ed25519 public key as the key service gives it: the last 32 bytes of 44 (RFC 8410).
const SPKI_LEN: usize = 44;

impl Cloud {
    /// One pass over every tenant whose chains moved. `size` of what it made is that of the
    /// largest log.
    pub async fn checkpoint(&self, clock: SystemClock) -> Result<Made, PortError> {
        self.lease().await?;
        let made = self.checkpoint_all(clock).await;
        // A lease that cannot be given back ends by itself.
        if let Err(error) = self.release().await {
            tracing::warn!(%error, "the next checkpoint has to wait");
        }
        made
    }

    async fn checkpoint_all(&self, clock: SystemClock) -> Result<Made, PortError> {
        let mut made = Made::default();
        for tenant in self.marks().await?.into_keys() {
            let own = handle(self, self, self, &clock, &tenant).await?;
            made.checkpoints += own.checkpoints;
            made.leaves += own.leaves;
            made.size = made.size.max(own.size);
        }
        Ok(made)
    }

    /// The marked chains by tenant: keys of heads.
    async fn marks(&self) -> Result<BTreeMap<TenantId, Vec<String>>, PortError> {
        let mut marks: BTreeMap<TenantId, Vec<String>> = BTreeMap::new();
        let (mut from, mut seen) = (None, 0);
        loop {
            let answer = self
                .dynamodb()
                .scan()
                .table_name(self.names.heads())
                .index_name(UNSIGNED_INDEX)
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(|error| failed("the index of unsigned chains", error))?;
            for row in answer.items() {
                seen += 1;
                let key = text_of(row, "PK").unwrap_or_default();
                let tenant = key.strip_prefix("HEAD#T#").and_then(|rest| rest.split_once("#C#"));
                match tenant.and_then(|(tenant, _)| TenantId::parse(tenant).ok()) {
                    Some(tenant) => marks.entry(tenant).or_default().push(key.to_owned()),
                    // The verifier's business; the others are not to blame.
                    None => tracing::error!("a head with a damaged key is in no checkpoint"),
                }
            }
            from = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() || seen >= MARKS_MAX {
                return Ok(marks);
            }
        }
    }

    /// The newest note of a tenant. Names are numbers of twelve digits, so that the bucket finds
    /// it in forty questions however many notes there are. What has no note was never made.
    async fn newest(&self, tenant: &TenantId) -> Result<Option<(u64, Vec<u8>)>, PortError> {
        let mut high = SIZE_MAX;
        loop {
            let (mut low, mut top) = (0, high);
            while low < top {
                let middle = top - (top - low) / 2;
                match self.size_from(tenant, middle).await?.filter(|size| *size <= high) {
                    Some(size) => low = size,
                    None => top = middle - 1,
                }
            }
            if low == 0 {
                return Ok(None);
            }
            let note = self.object(&self.names.checkpoints, &object_of(tenant, low, "note")).await?;
            if let Some(note) = note {
                return Ok(Some((low, note)));
            }
            high = low - 1;
        }
    }

    /// The smallest size of at least `size` of which the bucket has anything.
    async fn size_from(&self, tenant: &TenantId, size: u64) -> Result<Option<u64>, PortError> {
        let folder = format!("{tenant}/");
        let answer = self
            .s3()
            .list_objects_v2()
            .bucket(&self.names.checkpoints)
            .prefix(&folder)
            .start_after(format!("{folder}{size:012}"))
            .max_keys(1)
            .send()
            .await
            .map_err(|error| failed("the bucket of checkpoints", error))?;
        let found = answer.contents().first().and_then(|object| object.key());
        let size = found.map(|key| {
            let name = key.strip_prefix(&folder).and_then(|name| name.split_once('.'));
            name.and_then(|(size, _)| size.parse().ok()).ok_or_else(|| damaged("the name of a note"))
        });
        size.transpose()
    }

    /// One checkpointer at a time makes a log. Whoever dies with the lease is waited for.
    async fn lease(&self) -> Result<(), PortError> {
        let now_ms = self.wall().unix_millis();
        let leased = self
            .dynamodb()
            .update_item()
            .table_name(&self.names.transfers)
            .key("PK", text(LEASE))
            .key("SK", text(LEASE))
            .update_expression("SET until_ms = :until")
            .condition_expression("attribute_not_exists(until_ms) OR until_ms < :now")
            .expression_attribute_values(":until", number(now_ms + LEASE_MS))
            .expression_attribute_values(":now", number(now_ms))
            .send()
            .await;
        match leased {
            Ok(_) => Ok(()),
            Err(error) if code_of(&error) == Some("ConditionalCheckFailedException") => {
                Err(PortError::Transient("another checkpointer is at work".to_owned()))
            }
            Err(error) => Err(failed("the lease", error)),
        }
    }

    async fn release(&self) -> Result<(), PortError> {
        let released = self
            .dynamodb()
            .update_item()
            .table_name(&self.names.transfers)
            .key("PK", text(LEASE))
            .key("SK", text(LEASE))
            .update_expression("REMOVE until_ms")
            .send()
            .await;
        released.map(drop).map_err(|error| failed("the lease", error))
    }

    /// Puts an object that must not be there; a transient error where it is.
    async fn put_new(&self, key: &str, bytes: Vec<u8>) -> Result<(), PortError> {
        let body = aws_sdk_s3::primitives::ByteStream::from(bytes);
        let put =
            self.s3().put_object().bucket(&self.names.checkpoints).key(key).body(body).if_none_match("*");
        match put.send().await {
            Ok(_) => Ok(()),
            Err(error) if code_of(&error) == Some("PreconditionFailed") => {
                Err(PortError::Transient("another checkpointer was first".to_owned()))
            }
            Err(error) => Err(failed("the bucket of checkpoints", error)),
        }
    }

    /// Enters the key into the bucket's keyring, where it is not in it. The ring that is there
    /// stays as an older version of the object.
    async fn trust(&self, key: &NoteKey) -> Result<(), PortError> {
        let bucket = &self.names.checkpoints;
        let ring =
            self.object(bucket, KEYRING).await?.map(|ring| String::from_utf8_lossy(&ring).into_owned());
        let ring = ring.map(|ring| Keyring::parse(&ring)).transpose();
        let ring = ring.map_err(|_| damaged("the keyring"))?.unwrap_or_default();
        if ring.keys().iter().any(|trusted| trusted.key == *key) {
            return Ok(());
        }
        let at = self.wall();
        let mut keys: Vec<TrustedKey> = ring.keys().to_vec();
        for trusted in keys.iter_mut().filter(|trusted| trusted.key.name() == key.name()) {
            trusted.until = trusted.until.or(Some(at));
        }
        keys.push(TrustedKey { key: key.clone(), from: at, until: None });
        self.put_object(bucket, KEYRING, Keyring::new(keys).print().into_bytes()).await
    }
}

impl ReadHeads for Cloud {
    async fn unsigned_heads(&self, tenant: &TenantId, max: usize) -> Result<Vec<Leaf>, PortError> {
        let keys = self.marks().await?.remove(tenant).unwrap_or_default();
        let mut leaves = Vec::new();
        for key in keys.iter().take(max) {
            let Some(row) = self.item(&self.names.heads(), key, "HEAD").await? else { continue };
            // The index is behind the table: a mark that is gone was dealt with.
            if !row.contains_key(UNSIGNED) {
                continue;
            }
            let chain = text_of(&row, "chain").and_then(|chain| ChainId::parse(chain).ok());
            match (chain, head_in(&row)) {
                (Some(chain), Ok(head)) => leaves.push(Leaf { chain, seq: head.seq, hash: head.hash }),
                // A head that is damaged is the verifier's business; the others are not to blame.
                _ => tracing::error!(%tenant, "a damaged head is in no checkpoint"),
            }
        }
        leaves.sort();
        Ok(leaves)
    }

    async fn mark_signed(&self, tenant: &TenantId, leaves: Vec<Leaf>, size: u64) -> Result<(), PortError> {
        for leaf in leaves {
            let taken = self
                .dynamodb()
                .update_item()
                .table_name(self.names.heads())
                .key("PK", text(head_key(tenant, &leaf.chain)))
                .key("SK", text("HEAD"))
                .update_expression("SET #in = :size REMOVE #mark, #seq")
                .condition_expression("#seq = :signed")
                .expression_attribute_names("#in", SIGNED_IN)
                .expression_attribute_names("#mark", UNSIGNED)
                .expression_attribute_names("#seq", UNSIGNED_SEQ)
                .expression_attribute_values(":signed", number(leaf.seq))
                .expression_attribute_values(":size", number(size))
                .send()
                .await;
            match taken {
                Ok(_) => {}
                // The chain has moved meanwhile: its mark is for the next one.
                Err(error) if code_of(&error) == Some("ConditionalCheckFailedException") => {}
                Err(error) => return Err(failed("the table of heads", error)),
            }
        }
        Ok(())
    }
}

impl Checkpoints for Cloud {
    async fn last(&self, tenant: &TenantId) -> Result<Option<LastCheckpoint>, PortError> {
        let Some((size, note)) = self.newest(tenant).await? else { return Ok(None) };
        let frontier = self.object(&self.names.checkpoints, &object_of(tenant, size, "frontier")).await?;
        let frontier = String::from_utf8(frontier.unwrap_or_default()).unwrap_or_default();
        let peaks = frontier.lines().map(Hash::parse).collect::<Result<_, _>>();
        let note = String::from_utf8(note).map_err(|_| damaged("a note"))?;
        Ok(Some(LastCheckpoint { note, peaks: peaks.map_err(|_| damaged("a frontier"))? }))
    }

    async fn put(&self, checkpoint: NewCheckpoint) -> Result<(), PortError> {
        let NewCheckpoint { tenant, size, note, leaves, peaks, .. } = checkpoint;
        let bucket = &self.names.checkpoints;
        let peaks: String = peaks.iter().map(|peak| format!("{peak}\n")).collect();
        self.put_object(bucket, &object_of(&tenant, size, "leaves"), Leaf::lines(&leaves)).await?;
        self.put_object(bucket, &object_of(&tenant, size, "frontier"), peaks.into_bytes()).await?;
        self.put_new(&object_of(&tenant, size, "note"), note.into_bytes()).await
    }
}

impl SignNote for Cloud {
    async fn note_key(&self, tenant: &TenantId) -> Result<NoteKey, PortError> {
        let answer = self.kms().get_public_key().key_id(&self.names.signing_key).send().await;
        let answer = answer.map_err(|error| failed("the signing key", error))?;
        let spki = answer.public_key.map(Blob::into_inner).unwrap_or_default();
        let public = spki.last_chunk::<32>().filter(|_| spki.len() == SPKI_LEN);
        let public = public.ok_or_else(|| damaged("the signing key, which is to be an Ed25519 key,"))?;
        let key = NoteKey::new(&origin(tenant), *public);
        self.trust(&key).await?;
        Ok(key)
    }

    async fn sign(&self, text: String) -> Result<[u8; 64], PortError> {
        let answer = self
            .kms()
            .sign()
            .key_id(&self.names.signing_key)
            .message(Blob::new(text))
            .message_type(MessageType::Raw)
            .signing_algorithm(SigningAlgorithmSpec::Ed25519Sha512)
            .send()
            .await
            .map_err(|error| failed("the signing key", error))?;
        let signature = answer.signature.map(Blob::into_inner).unwrap_or_default();
        signature.as_slice().try_into().map_err(|_| damaged("a signature"))
    }
}

/// The name of one of a checkpoint's objects.
pub(crate) fn object_of(tenant: &TenantId, size: u64, what: &str) -> String {
    format!("{tenant}/{}", name(size, what))
}
