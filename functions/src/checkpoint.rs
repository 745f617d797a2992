//! The checkpointer: takes the ends of chains that moved, appends them to the tenant's log,
//! and has the new root signed. One at a time makes a log; a second one that races it loses
//! and begins again from what the first has made. It never looks into a record.

pub mod folder;
pub mod local_key;

use handoff::checkpoint::note::{NoteBody, SignedNote};
use handoff::checkpoint::tree::Frontier;
use handoff::checkpoint::{LEAVES_MAX, Leaf, origin};
use handoff::id::TenantId;

use crate::ports::{Checkpoints, Clock, NewCheckpoint, PortError, ReadHeads, SignNote};

/// Most checkpoints that one pass makes, so that a pass ends: 4 million chains.
const PASS_MAX: usize = 1_024;

/// What a pass has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Checkpoints.
    pub checkpoints: u64,
    /// Leaves in them.
    pub leaves: u64,
    /// Leaves of the whole log afterwards; 0 where nothing was to be signed.
    pub size: u64,
}

/// Signs everything that moved since the last checkpoint. Nothing moved: nothing is made.
pub async fn handle<H, L, S, C>(
    heads: &H,
    log: &L,
    signer: &S,
    clock: &C,
    tenant: &TenantId,
) -> Result<Made, PortError>
where
    H: ReadHeads,
    L: Checkpoints,
    S: SignNote,
    C: Clock,
{
    let mut made = Made::default();
    for _ in 0..PASS_MAX {
        let leaves = heads.unsigned_heads(tenant, LEAVES_MAX).await?;
        if leaves.is_empty() {
            break;
        }
        made.size = append(log, signer, clock, tenant, &leaves).await?;
        made.checkpoints += 1;
        made.leaves += leaves.len() as u64;
        let full = leaves.len() == LEAVES_MAX;
        heads.mark_signed(tenant, leaves, made.size).await?;
        if !full {
            break;
        }
    }
    Ok(made)
}

/// Makes one checkpoint and returns the size of the log.
async fn append<L, S, C>(
    log: &L,
    signer: &S,
    clock: &C,
    tenant: &TenantId,
    leaves: &[Leaf],
) -> Result<u64, PortError>
where
    L: Checkpoints,
    S: SignNote,
    C: Clock,
{
    let mut frontier = frontier_of(log, tenant).await?;
    let previous = frontier.size();
    for leaf in leaves {
        frontier.push(leaf.tree_hash());
    }
    let key = signer.note_key(tenant).await?;
    let body =
        NoteBody { origin: origin(tenant), size: frontier.size(), root: frontier.root(), at: clock.wall() };
    let text = body.text();
    let signature = signer.sign(text.clone()).await?;
    if !key.verifies(text.as_bytes(), &signature) {
        return Err(PortError::Permanent("the signature is not by the key that was named".to_owned()));
    }
    let note = SignedNote { body, text, signatures: vec![key.signature(signature)] };
    log.put(NewCheckpoint {
        tenant: tenant.clone(),
        previous,
        size: frontier.size(),
        note: note.print(),
        leaves: leaves.to_vec(),
        peaks: frontier.peaks().to_vec(),
    })
    .await?;
    Ok(frontier.size())
}

/// Where the log ends. A frontier that is not the note's would fork the log, so it is refused.
async fn frontier_of<L: Checkpoints>(log: &L, tenant: &TenantId) -> Result<Frontier, PortError> {
    let Some(last) = log.last(tenant).await? else { return Ok(Frontier::default()) };
    let note = SignedNote::parse(&last.note).map_err(|error| PortError::Permanent(error.to_string()))?;
    if note.body.origin != origin(tenant) {
        return Err(PortError::Permanent("the last note is of another log".to_owned()));
    }
    Frontier::from_parts(note.body.size, last.peaks)
        .filter(|frontier| frontier.root() == note.body.root)
        .ok_or_else(|| PortError::Permanent("the frontier is not that of the last note".to_owned()))
}

#[cfg(test)]
mod tests;
