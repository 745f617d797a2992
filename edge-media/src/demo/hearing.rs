//! What a party really heard, measured on its own receiving socket: gaps between kernel
//! receive times, silence, breaks of the RTP timeline, and whether a given piece of speech
//! is in it. Pure arithmetic over recorded packets; it trusts nothing that the edge says.

use std::time::Duration;

/// One RTP packet as a party received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Kernel receive time, nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// RTP sequence number.
    pub seq: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// Audio as linear samples, 8 kHz; empty for telephone events.
    pub samples: Vec<i16>,
}

/// A window of time, in the clock of [`Heard::at_ns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First nanosecond.
    pub from_ns: u64,
    /// First nanosecond after.
    pub to_ns: u64,
}

/// −50 dBFS as a root mean square over 16-bit samples: below this a frame counts as silent.
const SILENT_RMS: f64 = 32_768.0 * 0.003_162_277_66;

/// Length of a frame.
const FRAME_NS: u64 = 20_000_000;

/// Largest difference between the receive times of neighbouring packets in `window`.
pub fn longest_gap(packets: &[Heard], window: Window) -> Duration {
    let inside: Vec<u64> = packets
        .iter()
        .map(|packet| packet.at_ns)
        .filter(|at| (window.from_ns..window.to_ns).contains(at))
        .collect();
    let gap =
        inside.iter().zip(inside.iter().skip(1)).map(|(first, second)| second.saturating_sub(*first)).max();
    Duration::from_nanos(gap.unwrap_or_else(|| window.to_ns.saturating_sub(window.from_ns)))
}

/// Longest run of silent or missing 20 ms frames in `window`. The frames are laid on the
/// stream's own timeline, so a late packet is no silence, and a missing one is.
pub fn longest_silence(packets: &[Heard], window: Window) -> Duration {
    let inside: Vec<&Heard> =
        packets.iter().filter(|packet| (window.from_ns..window.to_ns).contains(&packet.at_ns)).collect();
    let Some(first) = inside.first() else {
        return Duration::from_nanos(window.to_ns.saturating_sub(window.from_ns));
    };
    let mut longest = 0_u64;
    let mut run = 0_u64;
    let mut expected = first.timestamp;
    for packet in inside {
        let missing = u64::from(packet.timestamp.wrapping_sub(expected)) / 160;
        // A jump of more than ten minutes is a new timeline, not missing audio.
        let missing = if missing > 30_000 { 0 } else { missing };
        run += missing;
        longest = longest.max(run);
        run = if !packet.samples.is_empty() && rms(&packet.samples) < SILENT_RMS { run + 1 } else { 0 };
        longest = longest.max(run);
        expected = packet.timestamp.wrapping_add(160);
    }
    Duration::from_nanos(longest * FRAME_NS)
}

/// How often the stream broke: another source, a sequence number that is not the next, or a
/// timestamp that does not grow by the packet's length. One continuous stream has none.
pub fn sequence_breaks(packets: &[Heard]) -> u64 {
    packets
        .iter()
        .zip(packets.iter().skip(1))
        .filter(|(first, second)| {
            let same_source = first.ssrc == second.ssrc;
            let next = second.seq == first.seq.wrapping_add(1);
            let step = second.timestamp.wrapping_sub(first.timestamp);
            // Telephone events repeat the timestamp of their start.
            let in_time = step == 160 || second.samples.is_empty() || first.samples.is_empty();
            !(same_source && next && in_time)
        })
        .count() as u64
}

/// All that was heard, in order, missing frames as silence.
pub fn recording(packets: &[Heard]) -> Vec<i16> {
    let mut samples = Vec::with_capacity(packets.len() * 160);
    let mut expected: Option<u32> = None;
    for packet in packets.iter().filter(|packet| !packet.samples.is_empty()) {
        if let Some(expected) = expected {
            let missing = packet.timestamp.wrapping_sub(expected);
            if missing < 8_000 * 600 {
                samples.extend(std::iter::repeat_n(0, missing as usize));
            }
        }
        samples.extend_from_slice(&packet.samples);
        expected = Some(packet.timestamp.wrapping_add(packet.samples.len() as u32));
    }
    samples
}

fn rms(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (energy / samples.len().max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(n: u16, level: i16) -> Heard {
        Heard {
            at_ns: u64::from(n) * FRAME_NS,
            seq: n,
            timestamp: u32::from(n) * 160,
            ssrc: 7,
            samples: vec![level; 160],
        }
    }

    const ALL: Window = Window { from_ns: 0, to_ns: u64::MAX };

    #[test]
    fn a_continuous_stream_has_no_break_and_gaps_of_one_frame() {
        let packets: Vec<Heard> = (0..50).map(|n| packet(n, 1_000)).collect();
        assert_eq!(sequence_breaks(&packets), 0);
        assert_eq!(longest_gap(&packets, ALL), Duration::from_millis(20));
        assert_eq!(longest_silence(&packets, ALL), Duration::ZERO);
        assert_eq!(recording(&packets).len(), 50 * 160);
    }

    #[test]
    fn quiet_and_missing_frames_are_silence_and_a_late_packet_is_not() {
        let mut packets: Vec<Heard> =
            (0..50).map(|n| packet(n, if (10..15).contains(&n) { 3 } else { 900 })).collect();
        packets.drain(15..20);
        if let Some(late) = packets.get_mut(30) {
            late.at_ns += FRAME_NS / 2;
        }
        assert_eq!(longest_silence(&packets, ALL), Duration::from_millis(200));
        assert_eq!(longest_gap(&packets, ALL), Duration::from_millis(120));
        assert_eq!(sequence_breaks(&packets), 1);
        assert_eq!(recording(&packets).len(), 50 * 160, "missing frames are silence in the recording");
    }

    #[test]
    fn another_source_or_a_jump_of_the_timestamp_is_a_break() {
        let mut packets: Vec<Heard> = (0..5).map(|n| packet(n, 900)).collect();
        packets[2].ssrc = 8;
        packets[4].timestamp += 1;
        assert_eq!(sequence_breaks(&packets), 3);
    }
}
