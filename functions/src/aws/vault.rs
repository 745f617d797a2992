//! Data keys, payloads and transcripts in the cloud. Keys are drawn here and wrapped by the
//! stack's key in KMS, bound to tenant and call; destroying a call's keys erases what they
//! sealed. The edge seals with a key of its own, so that neither waits for the other.

use aws_sdk_kms::primitives::Blob;
use handoff::id::{CallId, PayloadId, TenantId};
use handoff::seal::{DataKey, KEY_LEN, NONCE_LEN, SealKey};
use zeroize::Zeroizing;

use super::erase::Done;
use super::{Cloud, Item, binary, binary_of, code_of, damaged, failed, number, number_of, text, text_of};
use crate::ports::{GetPayload, GetTranscript, Keys, PortError, PutPayload, PutTranscript, StoredPayload};

/// The number of the key that the edge seals a call's texts with.
pub const EDGE_KEY: u32 = 1;

/// The number of the key that the functions seal a call's payloads and transcript with.
pub(crate) const FUNCTIONS_KEY: u32 = 2;

/// Longest sealed payload that lies in its row; a row takes 400 KB in all.
const IN_ROW_MAX: usize = 300 * 1024;

/// A destroyed key's state.
pub(crate) const DESTROYED: &str = "destroyed";

pub(crate) fn key_name(number: u32) -> String {
    format!("dek-{number}")
}

/// The key of a call's data keys.
pub(crate) fn keys_of(tenant: &TenantId, call: &CallId) -> String {
    format!("T#{tenant}#C#{call}")
}

fn payload_place(payload: &StoredPayload) -> String {
    format!("{}|{}|{}|{}", payload.tenant, payload.call, payload.payload, payload.revision)
}

fn transcript_place(tenant: &TenantId, call: &CallId) -> String {
    format!("{tenant}|{call}|transcript")
}

fn random<const N: usize>() -> Result<[u8; N], PortError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|_| PortError::Transient("the system gives no randomness".to_owned()))?;
    Ok(bytes)
}

impl Keys for Cloud {
    async fn data_key(&self, tenant: &TenantId, call: &CallId) -> Result<DataKey, PortError> {
        if let Some(key) = self.find_key(tenant, call, FUNCTIONS_KEY).await? {
            return Ok(key);
        }
        let bytes = Zeroizing::new(random::<KEY_LEN>()?);
        if self.keep_key(tenant, call, FUNCTIONS_KEY, &bytes).await? {
            return Ok(DataKey { id: key_name(FUNCTIONS_KEY), key: SealKey::new(*bytes) });
        }
        // Another run of the function was first.
        let theirs = self.find_key(tenant, call, FUNCTIONS_KEY).await?;
        theirs.ok_or_else(|| damaged("a call's data key"))
    }

    async fn destroy(&self, tenant: &TenantId, call: &CallId) -> Result<Vec<String>, PortError> {
        self.destroy_keys(tenant, call, &Done::now(self.wall(), "asked", "functions")).await
    }
}

impl Cloud {
    /// A call's data key of a number, where it exists; an error where it was destroyed.
    pub(crate) async fn find_key(
        &self,
        tenant: &TenantId,
        call: &CallId,
        n: u32,
    ) -> Result<Option<DataKey>, PortError> {
        let item = self.item(&self.names.keys(), &keys_of(tenant, call), &format!("DEK#{n}")).await?;
        let Some(item) = item else { return Ok(None) };
        let Some(wrapped) = binary_of(&item, "wrapped_dek") else {
            return Err(PortError::Permanent("the data key of this call is destroyed".to_owned()));
        };
        let answer = self
            .kms()
            .decrypt()
            .ciphertext_blob(Blob::new(wrapped))
            .encryption_context("tenant", tenant.as_str())
            .encryption_context("call", call.as_str())
            .send()
            .await
            .map_err(|error| failed("the key service", error))?;
        let plain = answer.plaintext.map(|blob| Zeroizing::new(blob.into_inner()));
        let key = plain.and_then(|bytes| SealKey::from_slice(&bytes).ok());
        Ok(Some(DataKey { id: key_name(n), key: key.ok_or_else(|| damaged("a wrapped data key"))? }))
    }

    /// Keeps a call's new key, wrapped. A key that is there stays, and so does its absence;
    /// `false` says so.
    pub(crate) async fn keep_key(
        &self,
        tenant: &TenantId,
        call: &CallId,
        n: u32,
        key: &[u8; KEY_LEN],
    ) -> Result<bool, PortError> {
        let answer = self
            .kms()
            .encrypt()
            .key_id(&self.names.data_key)
            .plaintext(Blob::new(key.as_slice()))
            .encryption_context("tenant", tenant.as_str())
            .encryption_context("call", call.as_str())
            .send()
            .await
            .map_err(|error| failed("the key service", error))?;
        let wrapped = answer.ciphertext_blob.ok_or_else(|| damaged("the key service's answer"))?;
        let item = Item::from([
            ("PK".to_owned(), text(keys_of(tenant, call))),
            ("SK".to_owned(), text(format!("DEK#{n}"))),
            ("wrapped_dek".to_owned(), binary(wrapped.as_ref())),
            ("kms_key".to_owned(), text(answer.key_id.unwrap_or_default())),
            ("state".to_owned(), text("live")),
        ]);
        self.put_once(&self.names.keys(), item).await
    }

    /// Puts a row unless its key is taken; `false` where it is.
    pub(crate) async fn put_once(&self, table: &str, item: Item) -> Result<bool, PortError> {
        let put = self
            .dynamodb()
            .put_item()
            .table_name(table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(PK)")
            .send()
            .await;
        match put {
            Ok(_) => Ok(true),
            Err(error) if code_of(&error) == Some("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(failed("a table", error)),
        }
    }

    /// Whether a call's keys were destroyed.
    pub(crate) async fn is_erased(&self, tenant: &TenantId, call: &CallId) -> Result<bool, PortError> {
        let rows = self.partition(&self.names.keys(), &keys_of(tenant, call), "DEK#", None).await?;
        Ok(rows.iter().any(|row| text_of(row, "state") == Some(DESTROYED)))
    }

    /// Stores a revision under the key of a number; returns what is stored.
    pub(crate) async fn put_payload_under(
        &self,
        payload: StoredPayload,
        n: u32,
        key: &SealKey,
    ) -> Result<Vec<u8>, PortError> {
        let sealed = key.seal(random::<NONCE_LEN>()?, &payload_place(&payload), &payload.bytes);
        let mut item = Item::from([
            ("PK".to_owned(), text(payloads_of(&payload.tenant, &payload.payload))),
            ("SK".to_owned(), text(format!("R#{:06}", payload.revision))),
            ("revision".to_owned(), number(payload.revision)),
            ("call".to_owned(), text(payload.call.as_str())),
            ("dek".to_owned(), number(n)),
            ("created_at".to_owned(), text(self.wall().to_string())),
        ]);
        if sealed.len() <= IN_ROW_MAX {
            item.insert("body".to_owned(), binary(&sealed));
        } else {
            let name =
                format!("t/{}/{}/{}-{}", payload.tenant, payload.call, payload.payload, payload.revision);
            self.put_object(&self.names.media, &name, sealed).await?;
            item.insert("object".to_owned(), text(name));
        }
        if self.put_once(&self.names.payloads, item).await? {
            return Ok(payload.bytes);
        }
        let stored = self.find_payload(&payload.tenant, &payload.payload, Some(payload.revision)).await?;
        stored.map(|stored| stored.bytes).ok_or_else(|| damaged("a payload"))
    }

    async fn find_payload(
        &self,
        tenant: &TenantId,
        payload: &PayloadId,
        revision: Option<u32>,
    ) -> Result<Option<StoredPayload>, PortError> {
        let pk = payloads_of(tenant, payload);
        let item = match revision {
            Some(revision) => self.item(&self.names.payloads, &pk, &format!("R#{revision:06}")).await?,
            None => self.partition(&self.names.payloads, &pk, "R#", None).await?.pop(),
        };
        let Some(item) = item else { return Ok(None) };
        let revision = number_of(&item, "revision").ok_or_else(|| damaged("a payload's revision"))?;
        let n = number_of(&item, "dek").ok_or_else(|| damaged("a payload's key"))?;
        let call = text_of(&item, "call").and_then(|call| CallId::parse(call).ok());
        let call = call.ok_or_else(|| damaged("the call of a payload"))?;
        let sealed = match (binary_of(&item, "body"), text_of(&item, "object")) {
            (Some(sealed), _) => sealed,
            (None, Some(name)) => {
                self.object(&self.names.media, name).await?.ok_or_else(|| damaged("a payload"))?
            }
            (None, None) => return Err(damaged("a payload")),
        };
        let key = self.find_key(tenant, &call, n).await?.ok_or_else(|| damaged("a payload's key"))?;
        let mut stored = StoredPayload {
            tenant: tenant.clone(),
            call,
            payload: payload.clone(),
            revision,
            bytes: Vec::new(),
        };
        let plain =
            key.key.open(&payload_place(&stored), &sealed).map_err(|_| damaged("a sealed payload"))?;
        stored.bytes = plain.to_vec();
        Ok(Some(stored))
    }

    /// Stores an object, replacing an earlier one.
    pub(crate) async fn put_object(&self, bucket: &str, name: &str, bytes: Vec<u8>) -> Result<(), PortError> {
        let body = aws_sdk_s3::primitives::ByteStream::from(bytes);
        let put = self.s3().put_object().bucket(bucket).key(name).body(body).send().await;
        put.map(drop).map_err(|error| failed("a bucket", error))
    }

    /// An object's bytes.
    pub(crate) async fn object(&self, bucket: &str, name: &str) -> Result<Option<Vec<u8>>, PortError> {
        match self.s3().get_object().bucket(bucket).key(name).send().await {
            Ok(answer) => {
                let body = answer.body.collect().await;
                let bytes = body.map_err(|_| PortError::Transient("an object was cut off".to_owned()))?;
                Ok(Some(bytes.to_vec()))
            }
            Err(error) if code_of(&error) == Some("NoSuchKey") => Ok(None),
            Err(error) => Err(failed("a bucket", error)),
        }
    }
}

fn payloads_of(tenant: &TenantId, payload: &PayloadId) -> String {
    format!("T#{tenant}#X#{payload}")
}

impl PutPayload for Cloud {
    async fn put_payload(&self, payload: StoredPayload) -> Result<Vec<u8>, PortError> {
        let key = self.data_key(&payload.tenant, &payload.call).await?;
        self.put_payload_under(payload, FUNCTIONS_KEY, &key.key).await
    }
}

impl GetPayload for Cloud {
    async fn payload(
        &self,
        tenant: &TenantId,
        payload: &PayloadId,
        revision: Option<u32>,
    ) -> Result<Option<StoredPayload>, PortError> {
        self.find_payload(tenant, payload, revision).await
    }
}

impl PutTranscript for Cloud {
    async fn put_transcript(&self, tenant: &TenantId, call: &CallId, text: Vec<u8>) -> Result<(), PortError> {
        let key = self.data_key(tenant, call).await?;
        let sealed = key.key.seal(random::<NONCE_LEN>()?, &transcript_place(tenant, call), &text);
        self.put_object(&self.names.media, &transcript_name(tenant, call), sealed).await
    }
}

impl GetTranscript for Cloud {
    async fn transcript(&self, tenant: &TenantId, call: &CallId) -> Result<Option<Vec<u8>>, PortError> {
        let sealed = self.object(&self.names.media, &transcript_name(tenant, call)).await?;
        let Some(sealed) = sealed else { return Ok(None) };
        let key = self.find_key(tenant, call, FUNCTIONS_KEY).await?;
        let key = key.ok_or_else(|| damaged("a transcript's key"))?;
        let plain = key.key.open(&transcript_place(tenant, call), &sealed);
        Ok(Some(plain.map_err(|_| damaged("a sealed transcript"))?.to_vec()))
    }
}

fn transcript_name(tenant: &TenantId, call: &CallId) -> String {
    format!("t/{tenant}/{call}/transcript")
}
