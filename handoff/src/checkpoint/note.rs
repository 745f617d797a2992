//! The signed note of a checkpoint (C2SP tlog-checkpoint and signed-note): origin, size and
//! root of a log and the time of signing, one line each, an empty line, and one line per
//! signature. The time is an extension line, so that it is signed too: without it nobody
//! could say whether a key was valid. This file parses and prints; it judges no signature.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::audit::Hash;
use crate::clock::Timestamp;

/// Longest note, in bytes. Ours have about 250; the rest is room for witnesses' lines.
pub const NOTE_LEN_MAX: usize = 16 * 1024;

/// Most signatures that a note may have: our own, a key in rotation, and witnesses.
const SIGNATURES_MAX: usize = 16;

/// Before each signature: an em dash and a space.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// First word of the extension line with the time of signing.
const TIME: &str = "time ";

/// Why a text is not a note of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the signed note of a checkpoint: {0}")]
pub struct BadNote(&'static str);

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteBody {
    /// The log.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
    /// When it was signed.
    pub at: Timestamp,
}

impl NoteBody {
    /// The bytes that are signed.
    pub fn text(&self) -> String {
        let root = STANDARD.encode(self.root.as_bytes());
        format!("{}\n{}\n{root}\n{TIME}{}\n", self.origin, self.size, self.at)
    }

    fn parse(text: &str) -> Result<Self, BadNote> {
        let mut lines = text.lines();
        let mut line = || lines.next().filter(|line| !line.is_empty());
        let origin = line().ok_or(BadNote("no origin"))?.to_owned();
        let size = line().ok_or(BadNote("no size"))?;
        let plain = size == "0" || !size.starts_with('0') && size.bytes().all(|b| b.is_ascii_digit());
        let size = size.parse().ok().filter(|_| plain).ok_or(BadNote("the size is no number"))?;
        let root = line().and_then(|root| STANDARD.decode(root).ok());
        let root: [u8; 32] =
            root.and_then(|root| root.try_into().ok()).ok_or(BadNote("the root is no digest"))?;
        let times = lines.filter_map(|line| line.strip_prefix(TIME)).collect::<Vec<_>>();
        let [at] = times.as_slice() else { return Err(BadNote("not one time of signing")) };
        let at = Timestamp::parse(at).map_err(|_| BadNote("the time of signing is no time"))?;
        Ok(Self { origin, size, root: Hash::from_bytes(root), at })
    }
}

/// One signature of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// Name of the key.
    pub name: String,
    /// The key among those of this name.
    pub key_id: [u8; 4],
    /// What the key's algorithm made.
    pub bytes: Vec<u8>,
}

/// A note with its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    /// What it says.
    pub body: NoteBody,
    /// The bytes that are signed: those of `body`, and extension lines of others.
    pub text: String,
    /// Whose word it is.
    pub signatures: Vec<NoteSignature>,
}

impl SignedNote {
    /// Reads a note. A line that is not as the format wants it refuses the whole.
    pub fn parse(note: &str) -> Result<Self, BadNote> {
        if note.len() > NOTE_LEN_MAX {
            return Err(BadNote("too long"));
        }
        if note.chars().any(|c| c.is_control() && c != '\n') {
            return Err(BadNote("control characters"));
        }
        // The signatures follow the last empty line; the text ends with its own line feed.
        let end = note.rfind("\n\n").ok_or(BadNote("no empty line before the signatures"))?;
        let (text, signatures) = note.split_at(end + 1);
        let signatures = signatures.strip_prefix('\n').unwrap_or_default();
        let signatures =
            signatures.strip_suffix('\n').ok_or(BadNote("the last line does not end"))?.split('\n');
        let signatures = signatures.map(signature_of).collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(BadNote("too many signatures"));
        }
        Ok(Self { body: NoteBody::parse(text)?, text: text.to_owned(), signatures })
    }

    /// The note as it is kept.
    pub fn print(&self) -> String {
        let mut note = format!("{}\n", self.text);
        for signature in &self.signatures {
            let bytes = [signature.key_id.as_slice(), &signature.bytes].concat();
            note.push_str(&format!("{SIGNATURE_MARK}{} {}\n", signature.name, STANDARD.encode(bytes)));
        }
        note
    }
}

fn signature_of(line: &str) -> Result<NoteSignature, BadNote> {
    let bad = BadNote("a signature line");
    let (name, encoded) =
        line.strip_prefix(SIGNATURE_MARK).and_then(|rest| rest.split_once(' ')).ok_or(bad)?;
    if name.is_empty() || name.contains('+') || encoded.contains(' ') {
        return Err(bad);
    }
    let bytes = STANDARD.decode(encoded).map_err(|_| bad)?;
    let (key_id, bytes) = bytes.split_first_chunk::<4>().ok_or(bad)?;
    Ok(NoteSignature { name: name.to_owned(), key_id: *key_id, bytes: bytes.to_vec() })
}
