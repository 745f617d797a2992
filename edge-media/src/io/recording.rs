//! Recordings, one per leg: what it said and what it heard, in sealed pieces of ten seconds.
//! Keyed by leg, a recording knows nothing of transfers and spans all of them; the whisper is
//! in the human's recording and in no other. Each piece is sealed with the call's own key, so
//! destroying the key erases the recording. Without a key nothing is written. Media threads
//! hand frames over without waiting; what finds no room is lost, counted, and visible as a gap.
//! When a leg is over, its digest is reported, so that the call's record can name it.

pub mod read;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use handoff::clock::Now;
use handoff::event::StoredRecording;
use handoff::id::{CallId, LegId};
use handoff::seal::{NONCE_LEN, SealError, SealKey};
use sha2::{Digest, Sha256};

use crate::media::engine::RecordedFrame;
use crate::media::{FRAME_SAMPLES, TICK};

/// The folder of the recordings in the data folder.
pub const RECORDINGS: &str = "recordings";

/// Frames that may wait for the disk: four seconds of a hundred recorded legs.
const QUEUE_MAX: usize = 20_000;
/// Frames of one piece: ten seconds. Longer pieces lose more in a crash, shorter ones make
/// more files.
const PIECE_FRAMES: usize = 500;
/// Legs that are recorded at a time; more are refused and counted.
const LEGS_MAX: usize = 8_192;
/// A step between two frames beyond this is a gap, and begins a new piece with its own time.
const GAP: Duration = Duration::from_millis(60);
/// The layout of a piece: version, start in microseconds, then what was said, then heard.
const VERSION: u8 = 1;
const HEADER_LEN: usize = 9;

/// Takes the news that the recording of a leg lies on disk. It must not wait.
pub type Stored = Box<dyn Fn(CallId, LegId, StoredRecording) + Send>;

/// Why a piece cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// Another key, another place, or changed bytes.
    #[error("the recording does not open with this key")]
    Sealed(#[from] SealError),
    /// It opened, and is not a piece of a recording.
    #[error("the recording has an unknown layout")]
    Layout,
}

/// One piece of a recording, opened. Both sides are µ-law and equally long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// When its first sample was.
    pub start: Now,
    /// What the leg said.
    pub said: Vec<u8>,
    /// What the leg heard.
    pub heard: Vec<u8>,
}

/// The thread that writes recordings.
#[derive(Debug)]
pub struct Recorder {
    queue: RecordingQueue,
    thread: JoinHandle<()>,
}

/// A media thread's way to the recorder.
#[derive(Clone, Debug)]
pub struct RecordingQueue {
    queue: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "almost every item is a frame, and a box would be one more allocation"
)]
enum Item {
    Begin { call: CallId, leg: LegId, key: SealKey },
    Discard { call: CallId },
    Frame { at: Now, call: CallId, leg: LegId, said: [u8; FRAME_SAMPLES], heard: [u8; FRAME_SAMPLES] },
    End { call: CallId, leg: LegId },
    Stop,
}

impl Recorder {
    /// Starts a recorder that writes below `folder`, which is made with the first piece.
    pub fn start(folder: PathBuf, stored: Stored) -> io::Result<Self> {
        let (queue, items) = sync_channel(QUEUE_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let mut writer = Writer { folder, stored, legs: BTreeMap::new(), lost: Arc::clone(&lost) };
        let thread =
            std::thread::Builder::new().name("recording".to_owned()).spawn(move || writer.run(&items))?;
        Ok(Self { queue: RecordingQueue { queue, lost }, thread })
    }

    /// A way in for a media thread.
    pub fn queue(&self) -> RecordingQueue {
        self.queue.clone()
    }

    /// Frames that were not written: no room, no key, or no disk.
    pub fn lost(&self) -> u64 {
        self.queue.lost.load(Ordering::Relaxed)
    }

    /// Writes what is queued and ends.
    pub fn stop(self) {
        // The one place that may wait: the disk has the rest of the process' life.
        let _ = self.queue.queue.send(Item::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the recorder panicked");
        }
    }
}

impl RecordingQueue {
    /// The leg is recorded from now on, sealed with its call's key. Comes before its first
    /// frame; a second one changes nothing.
    pub fn begin(&self, call: CallId, leg: LegId, key: SealKey) {
        self.give(Item::Begin { call, leg, key });
    }

    /// Destroys what was recorded of a call; frames that are still on their way go too.
    pub fn discard(&self, call: CallId) {
        self.give(Item::Discard { call });
    }

    /// Hands over 20 ms; never waits.
    pub fn frame(&self, frame: &RecordedFrame<'_>) {
        let item = Item::Frame {
            at: frame.at,
            call: frame.call.clone(),
            leg: frame.leg,
            said: *frame.said,
            heard: *frame.heard,
        };
        if self.queue.try_send(item).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn give(&self, item: Item) {
        if self.queue.try_send(item).is_err() {
            tracing::error!("the recorder is behind: an order was dropped");
        }
    }

    /// The leg is over.
    pub fn end(&self, call: CallId, leg: LegId) {
        // Without room, the piece is written when the recorder stops.
        let _ = self.queue.try_send(Item::End { call, leg });
    }
}

/// The file of a piece below the recorder's folder. Ids have no character that a path minds.
pub fn piece_path(folder: &Path, call: &CallId, leg: LegId, number: u32) -> PathBuf {
    folder.join(call.as_str()).join(format!("{leg}-{number:06}.sealed"))
}

/// Opens a piece with the key of its call.
pub fn open_piece(
    key: &SealKey,
    call: &CallId,
    leg: LegId,
    number: u32,
    sealed: &[u8],
) -> Result<Piece, RecordingError> {
    let plain = key.open(&place(call, leg, number), sealed)?;
    let (&[version, start @ ..], audio) =
        plain.split_first_chunk::<HEADER_LEN>().ok_or(RecordingError::Layout)?;
    if version != VERSION || !audio.len().is_multiple_of(2 * FRAME_SAMPLES) {
        return Err(RecordingError::Layout);
    }
    let (said, heard) = audio.split_at(audio.len() / 2);
    Ok(Piece {
        start: Now::from_micros(u64::from_le_bytes(start)),
        said: said.to_vec(),
        heard: heard.to_vec(),
    })
}

/// Binds the ciphertext to its place, so that pieces cannot be exchanged.
fn place(call: &CallId, leg: LegId, number: u32) -> String {
    format!("recording|{call}|{leg}|{number}")
}

struct Writer {
    folder: PathBuf,
    stored: Stored,
    legs: BTreeMap<(CallId, LegId), Open>,
    lost: Arc<AtomicU64>,
}

/// The piece of one leg that is being filled.
struct Open {
    key: SealKey,
    /// Of the next piece; so many are written.
    number: u32,
    digest: Sha256,
    frames: u64,
    frames_lost: u64,
    start: Now,
    last: Now,
    said: Vec<u8>,
    heard: Vec<u8>,
}

impl Writer {
    fn run(&mut self, items: &Receiver<Item>) {
        while let Ok(item) = items.recv() {
            match item {
                Item::Begin { call, leg, key } => self.begin(call, leg, key),
                Item::Frame { at, call, leg, said, heard } => self.frame(at, call, leg, &said, &heard),
                Item::End { call, leg } => {
                    if let Some(open) = self.legs.remove(&(call.clone(), leg)) {
                        self.finish(call, leg, open);
                    }
                }
                Item::Discard { call } => self.discard(&call),
                Item::Stop => break,
            }
        }
        for ((call, leg), open) in core::mem::take(&mut self.legs) {
            self.finish(call, leg, open);
        }
    }

    fn begin(&mut self, call: CallId, leg: LegId, key: SealKey) {
        if self.legs.len() >= LEGS_MAX {
            tracing::error!(call_id = %call, leg_id = %leg, "too many legs: this one is not recorded");
            return;
        }
        self.legs.entry((call, leg)).or_insert_with(|| Open {
            key,
            number: 0,
            digest: Sha256::new(),
            frames: 0,
            frames_lost: 0,
            start: Now::default(),
            last: Now::default(),
            said: Vec::new(),
            heard: Vec::new(),
        });
    }

    fn frame(
        &mut self,
        at: Now,
        call: CallId,
        leg: LegId,
        said: &[u8; FRAME_SAMPLES],
        heard: &[u8; FRAME_SAMPLES],
    ) {
        let place = (call, leg);
        let Some(mut open) = self.legs.remove(&place) else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if at.since(open.last) > GAP {
            self.write(&place.0, leg, &mut open);
        }
        if open.said.is_empty() {
            open.start = at;
        }
        open.last = at;
        open.said.extend_from_slice(said);
        open.heard.extend_from_slice(heard);
        if open.said.len() >= PIECE_FRAMES * FRAME_SAMPLES {
            self.write(&place.0, leg, &mut open);
        }
        self.legs.insert(place, open);
    }

    /// The leg is over: the last piece is written, and what lies there is said.
    fn finish(&self, call: CallId, leg: LegId, mut open: Open) {
        self.write(&call, leg, &mut open);
        let frame_ms = u64::try_from(TICK.as_millis()).unwrap_or_default();
        let recording = StoredRecording {
            pieces: open.number,
            duration_ms: open.frames * frame_ms,
            lost_ms: open.frames_lost * frame_ms,
            sha256: read::hex(&open.digest.finalize()),
        };
        (self.stored)(call, leg, recording);
    }

    fn discard(&mut self, call: &CallId) {
        self.legs.retain(|(whose, _), _| whose != call);
        match fs::remove_dir_all(self.folder.join(call.as_str())) {
            Ok(()) => {}
            // Nothing was written yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(call_id = %call, %error, "a recording is not destroyed"),
        }
    }

    /// Seals what is filled and makes room for the next piece.
    fn write(&self, call: &CallId, leg: LegId, open: &mut Open) {
        let said = core::mem::take(&mut open.said);
        let heard = core::mem::take(&mut open.heard);
        if said.is_empty() {
            return;
        }
        let frames = (said.len() / FRAME_SAMPLES) as u64;
        let mut plain = vec![VERSION];
        plain.extend(open.start.micros().to_le_bytes());
        plain.extend(said);
        plain.extend(heard);
        let mut nonce = [0; NONCE_LEN];
        let drawn = getrandom::fill(&mut nonce).map_err(|_| io::Error::other("no randomness"));
        let written = drawn.and_then(|()| {
            let sealed = open.key.seal(nonce, &place(call, leg, open.number), &plain);
            store(&piece_path(&self.folder, call, leg, open.number), &sealed)?;
            Ok(sealed)
        });
        match written {
            Ok(sealed) => {
                open.digest.update(&sealed);
                open.number += 1;
                open.frames += frames;
            }
            Err(error) => {
                tracing::error!(call_id = %call, leg_id = %leg, %error, "a recording is not written");
                open.frames_lost += frames;
                self.lost.fetch_add(frames, Ordering::Relaxed);
            }
        }
    }
}

/// Writes the whole file or none of it, readable for nobody else.
fn store(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension("part");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const LEG: LegId = LegId::CALLER;

    fn call() -> CallId {
        CallId::parse("call_1").unwrap()
    }

    fn key() -> SealKey {
        SealKey::new([7; 32])
    }

    /// A recorder in a folder of its own, and what it says is stored.
    fn recorder() -> (tempfile::TempDir, Recorder, Arc<Mutex<Vec<StoredRecording>>>) {
        let folder = tempfile::tempdir().unwrap();
        let reports: Arc<Mutex<Vec<StoredRecording>>> = Arc::default();
        let said = Arc::clone(&reports);
        let stored = move |_, _, recording| said.lock().unwrap().push(recording);
        let recorder = Recorder::start(folder.path().to_owned(), Box::new(stored)).unwrap();
        (folder, recorder, reports)
    }

    fn record(recorder: &Recorder, from_ms: u64, frames: u64, said: u8) {
        let queue = recorder.queue();
        for frame in 0..frames {
            let at = Now::from_millis(from_ms + frame * 20);
            queue.frame(&RecordedFrame {
                at,
                call: &call(),
                leg: LEG,
                said: &[said; FRAME_SAMPLES],
                heard: &[said + 1; FRAME_SAMPLES],
            });
        }
    }

    fn read(folder: &Path, number: u32) -> Piece {
        let sealed = fs::read(piece_path(folder, &call(), LEG, number)).unwrap();
        open_piece(&key(), &call(), LEG, number, &sealed).unwrap()
    }

    #[test]
    fn every_frame_is_kept_across_pieces_and_gaps() {
        let (folder, recorder, reports) = recorder();
        recorder.queue().begin(call(), LEG, key());
        record(&recorder, 1_000, 600, 1);
        // A pause begins anew, and beginning anew changes nothing.
        recorder.queue().begin(call(), LEG, SealKey::new([9; 32]));
        record(&recorder, 60_000, 10, 5);
        recorder.queue().end(call(), LEG);
        recorder.stop();
        let pieces = [0, 1, 2].map(|number| read(folder.path(), number));
        let lengths = pieces.each_ref().map(|piece| piece.said.len() / FRAME_SAMPLES);
        assert_eq!(lengths, [500, 100, 10]);
        assert_eq!(pieces.each_ref().map(|piece| piece.start.millis()), [1_000, 11_000, 60_000]);
        assert!(pieces[2].said.iter().all(|b| *b == 5) && pieces[2].heard.iter().all(|b| *b == 6));
        let mut files = Sha256::new();
        for number in 0..3 {
            files.update(fs::read(piece_path(folder.path(), &call(), LEG, number)).unwrap());
        }
        let stored = StoredRecording {
            pieces: 3,
            duration_ms: 12_200,
            lost_ms: 0,
            sha256: read::hex(&files.finalize()),
        };
        assert_eq!(*reports.lock().unwrap(), [stored]);
    }

    #[test]
    fn a_piece_opens_with_its_key_at_its_place_only() {
        let (folder, recorder, _) = recorder();
        recorder.queue().begin(call(), LEG, key());
        record(&recorder, 0, 5, 1);
        recorder.stop();
        let sealed = fs::read(piece_path(folder.path(), &call(), LEG, 0)).unwrap();
        assert!(!sealed.windows(20).any(|bytes| bytes == [1; 20]), "no audio in the clear");
        let wrong = SealKey::new([8; 32]);
        assert!(open_piece(&wrong, &call(), LEG, 0, &sealed).is_err());
        assert!(open_piece(&key(), &call(), LEG, 1, &sealed).is_err());
        assert!(open_piece(&key(), &call(), LegId::FIRST_HUMAN, 0, &sealed).is_err());
    }

    #[test]
    fn without_a_key_nothing_is_written() {
        let (folder, recorder, reports) = recorder();
        record(&recorder, 0, 5, 1);
        recorder.queue().end(call(), LEG);
        let queue = recorder.queue();
        recorder.stop();
        assert_eq!(queue.lost.load(Ordering::Relaxed), 5);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(reports.lock().unwrap().is_empty());
    }

    #[test]
    fn a_refused_recording_is_destroyed_with_the_frames_that_come_late() {
        let (folder, recorder, reports) = recorder();
        recorder.queue().begin(call(), LEG, key());
        record(&recorder, 0, 600, 1);
        recorder.queue().discard(call());
        record(&recorder, 12_000, 5, 1);
        recorder.queue().end(call(), LEG);
        recorder.stop();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(reports.lock().unwrap().is_empty());
    }
}
