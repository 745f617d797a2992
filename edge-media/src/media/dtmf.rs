//! Keys as telephone events: each press received once, however often its packets are
//! repeated, and keys sent as events with their own timestamps. A key belongs to the leg it
//! was pressed on or is sent to; nothing here knows another leg. RFC 4733.

use std::collections::VecDeque;
use std::time::Duration;

use handoff::clock::Now;

/// Keys per second that a leg may report. Nobody types faster; a flood of forged or broken
/// events must not become a flood of work.
const KEYS_PER_SECOND_MAX: u8 = 12;
/// Keys that may wait to be sent on one leg. A conference code with pauses is shorter.
pub const KEYS_QUEUED_MAX: usize = 64;
/// Ticks that a key sounds: 100 ms, above the 40 ms that receivers require.
const KEY_TICKS: u16 = 5;
/// Packets that carry the end bit (RFC 4733 section 2.5.1.4: three in all).
const END_PACKETS: u16 = 3;
/// Ticks between two keys, counted from the first end packet: 100 ms.
const GAP_TICKS: u16 = 5;
/// Ticks of the pause that `,` stands for: half a second.
const PAUSE_TICKS: u16 = 25;
/// −10 dBm0, a usual level of keys.
const VOLUME: u8 = 10;

const KEYS: &[u8; 16] = b"0123456789*#ABCD";

/// The receiving half.
#[derive(Clone, Debug, Default)]
pub struct KeyReceiver {
    last: Option<u32>,
    window: Option<Now>,
    in_window: u8,
}

impl KeyReceiver {
    /// The key that this event packet presses, if it is a new press of one of the 16 keys.
    /// It is reported at the first packet that arrives of it: accept must not wait for the
    /// key to be released.
    pub fn receive(&mut self, now: Now, timestamp: u32, payload: &[u8]) -> Option<char> {
        let &[event, _flags, _, _] = payload.first_chunk()?;
        let key = *KEYS.get(usize::from(event))?;
        // All packets of one press carry the timestamp of its start.
        if self.last.is_some_and(|last| timestamp.wrapping_sub(last) as i32 <= 0) {
            return None;
        }
        self.last = Some(timestamp);
        let fresh = self.window.is_none_or(|start| now.since(start) >= Duration::from_secs(1));
        if fresh {
            self.window = Some(now);
            self.in_window = 0;
        }
        self.in_window = self.in_window.saturating_add(1);
        (self.in_window <= KEYS_PER_SECOND_MAX).then_some(char::from(key))
    }

    /// Forgets the timeline, because a new one begins (a new SDP or sender).
    pub fn restart(&mut self) {
        self.last = None;
    }
}

/// One packet of a key, to be sent instead of audio in its tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPacket {
    /// First packet of the key.
    pub first: bool,
    /// Ticks since the key began; its timestamp lies that far back.
    pub age_ticks: u16,
    /// The event payload.
    pub payload: [u8; 4],
    /// Which key, for a far end that takes tones only.
    pub key: char,
    /// The key sounds in this tick (it does not in repeated end packets).
    pub sounds: bool,
}

/// The sending half: keys in order, one packet per tick.
#[derive(Clone, Debug, Default)]
pub struct KeySender {
    queue: VecDeque<char>,
    current: Option<(char, u16)>,
}

impl KeySender {
    /// Queues keys; gives the number that was refused (not a key, or the queue is full).
    pub fn send(&mut self, keys: &str) -> usize {
        let mut refused = 0;
        for key in keys.chars().map(|key| key.to_ascii_uppercase()) {
            let known = key == ',' || u8::try_from(key).is_ok_and(|byte| KEYS.contains(&byte));
            if known && self.queue.len() < KEYS_QUEUED_MAX {
                self.queue.push_back(key);
            } else {
                refused += 1;
            }
        }
        refused
    }

    /// Whether keys are being sent or wait to be.
    pub fn is_busy(&self) -> bool {
        self.current.is_some() || !self.queue.is_empty()
    }

    /// What this tick sends instead of audio; `None` leaves the tick to the audio.
    pub fn tick(&mut self) -> Option<KeyPacket> {
        let (key, tick) = match self.current.take() {
            Some(current) => current,
            None => (self.queue.pop_front()?, 0),
        };
        let length = if key == ',' { PAUSE_TICKS } else { KEY_TICKS + GAP_TICKS };
        if tick + 1 < length {
            self.current = Some((key, tick + 1));
        }
        let event = KEYS.iter().position(|known| char::from(*known) == key)?;
        let sounding = tick < KEY_TICKS;
        let last_end = KEY_TICKS - 1 + END_PACKETS;
        if tick >= last_end {
            return None;
        }
        let end = tick + 1 >= KEY_TICKS;
        let duration = (tick + 1).min(KEY_TICKS) * 160;
        let [high, low] = duration.to_be_bytes();
        let flags = VOLUME | if end { 0x80 } else { 0 };
        Some(KeyPacket {
            first: tick == 0,
            age_ticks: tick,
            payload: [event as u8, flags, high, low],
            key,
            sounds: sounding,
        })
    }
}

/// The two frequencies of a key in Hz (ITU-T Q.23).
pub fn key_tones(key: char) -> Option<(u32, u32)> {
    let rows = [697, 770, 852, 941];
    let columns = [1_209, 1_336, 1_477, 1_633];
    let position = "123A456B789C*0#D".find(key)?;
    Some((*rows.get(position / 4)?, *columns.get(position % 4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_press_is_reported_once_however_often_it_is_repeated() {
        let mut keys = KeyReceiver::default();
        let mut heard = String::new();
        for timestamp in [1_000, 3_000] {
            for (end, duration) in [(0, 160_u16), (0, 320), (0x80, 480), (0x80, 480), (0x80, 480)] {
                let [high, low] = duration.to_be_bytes();
                heard.extend(keys.receive(Now::ZERO, timestamp, &[1, end | 10, high, low]));
            }
        }
        assert_eq!(heard, "11");
    }

    #[test]
    fn a_reordered_or_foreign_event_presses_nothing() {
        let mut keys = KeyReceiver::default();
        assert_eq!(keys.receive(Now::ZERO, 2_000, &[10, 10, 0, 160]), Some('*'));
        assert_eq!(keys.receive(Now::ZERO, 1_000, &[5, 10, 0, 160]), None, "older than the last");
        assert_eq!(keys.receive(Now::ZERO, 4_000, &[16, 10, 0, 160]), None, "a flash, not a key");
        assert_eq!(keys.receive(Now::ZERO, 5_000, &[1, 10]), None, "too short");
    }

    #[test]
    fn a_flood_of_events_is_cut() {
        let mut keys = KeyReceiver::default();
        let heard = (1..200).filter_map(|n| keys.receive(Now::ZERO, n * 160, &[1, 10, 0, 160])).count();
        assert_eq!(heard, usize::from(KEYS_PER_SECOND_MAX));
        let later = Now::from_millis(1_000);
        assert_eq!(keys.receive(later, 200 * 160, &[2, 10, 0, 160]), Some('2'));
    }

    #[test]
    fn a_sent_key_has_growing_durations_and_three_ends() {
        let mut sender = KeySender::default();
        assert_eq!(sender.send("7x"), 1);
        let packets: Vec<_> = (0..12).filter_map(|_| sender.tick()).collect();
        let durations: Vec<_> =
            packets.iter().map(|p| u16::from_be_bytes([p.payload[2], p.payload[3]])).collect();
        assert_eq!(durations, [160, 320, 480, 640, 800, 800, 800]);
        let ends: Vec<_> = packets.iter().map(|p| p.payload[1] & 0x80 != 0).collect();
        assert_eq!(ends, [false, false, false, false, true, true, true]);
        assert!(packets[0].first && packets.iter().skip(1).all(|p| !p.first));
    }

    #[test]
    fn what_is_sent_is_what_is_received() {
        let mut sender = KeySender::default();
        sender.send("12,*#d0");
        let mut receiver = KeyReceiver::default();
        let mut heard = String::new();
        for tick in 0..200_u32 {
            if let Some(packet) = sender.tick() {
                let timestamp = 5_000 + (tick - u32::from(packet.age_ticks)) * 160;
                let now = Now::from_millis(u64::from(tick) * 20);
                heard.extend(receiver.receive(now, timestamp, &packet.payload));
            }
        }
        assert_eq!(heard, "12*#D0");
    }
}
