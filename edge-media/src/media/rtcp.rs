//! RTCP, as little as is useful: our sender and receiver reports with a CNAME, a check of what
//! arrives, and what it says of our stream. Nothing that arrives steers anything: a BYE ends no
//! call, because anybody who guesses a port could send it. RFC 3550 section 6.

use handoff::clock::Now;

/// Room for one compound packet of ours.
pub const REPORT_LEN_MAX: usize = 128;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;

/// What we say about our own stream and about the one that we receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Our SSRC.
    pub ssrc: u32,
    /// When the report is made.
    pub now: Now,
    /// The RTP timestamp at that moment.
    pub timestamp: u32,
    /// Packets sent so far; without any the report is a receiver report.
    pub packets: u32,
    /// Payload bytes sent so far.
    pub octets: u32,
    /// The stream that we receive, if there is one.
    pub heard: Option<Heard>,
}

/// Reception of the far end's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Its SSRC.
    pub ssrc: u32,
    /// Lost since the last report, of 256.
    pub fraction_lost: u8,
    /// Lost in all.
    pub lost: u32,
    /// Highest sequence number, with its cycles.
    pub highest: u32,
    /// Interarrival jitter in samples.
    pub jitter: u32,
    /// Its last sender report, by the middle of its time stamp; 0 without one.
    pub last_report: u32,
    /// How long ago that was, in units of 1/65536 s.
    pub since_report: u32,
}

/// What the far end says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The middle of the time stamp of its sender report, if it is one.
    pub stamp: Option<u32>,
    /// What it says of our stream, if anything; the SSRC is ours.
    pub heard: Option<Heard>,
}

/// A moment as reports carry it: the middle 32 bits of its time stamp (section 6.4.1).
pub const fn middle(now: Now) -> u32 {
    let micros = now.micros();
    ((micros / 1_000_000) as u32) << 16 | (((micros % 1_000_000) << 16) / 1_000_000) as u32
}

/// What the first report of a compound packet says of the stream `ours`.
pub fn told(bytes: &[u8], ours: u32) -> Told {
    let word = |at: usize| {
        let bytes = bytes.get(at..)?.first_chunk()?;
        Some(u32::from_be_bytes(*bytes))
    };
    let Some(&[flags, kind, ..]) = bytes.first_chunk::<4>() else { return Told::default() };
    let (stamp, mut at) = match (kind, word(8), word(12)) {
        (SENDER_REPORT, Some(seconds), Some(fraction)) => (Some(seconds << 16 | fraction >> 16), 28),
        _ => (None, 8),
    };
    let mut heard = None;
    for _ in 0..flags & 0x1f {
        let block = (word(at), word(at + 4), word(at + 8), word(at + 12), word(at + 16), word(at + 20));
        let (Some(ssrc), Some(lost), Some(highest), Some(jitter), Some(last), Some(since)) = block else {
            break;
        };
        if ssrc == ours {
            // A number of 24 bits with a sign: doubled packets make it negative.
            let lost_all = if lost & 0x0080_0000 == 0 { lost & 0x007f_ffff } else { 0 };
            heard = Some(Heard {
                ssrc,
                fraction_lost: (lost >> 24) as u8,
                lost: lost_all,
                highest,
                jitter,
                last_report: last,
                since_report: since,
            });
        }
        at += 24;
    }
    Told { stamp, heard }
}

impl Report {
    /// Writes SR or RR and an SDES with a CNAME into `buffer`.
    pub fn write<'b>(&self, buffer: &'b mut [u8; REPORT_LEN_MAX]) -> &'b [u8] {
        let mut bytes = Writer { buffer, used: 0 };
        let blocks = u8::from(self.heard.is_some());
        let kind = if self.packets > 0 { SENDER_REPORT } else { RECEIVER_REPORT };
        let words = if self.packets > 0 { 6 } else { 1 } + u16::from(blocks) * 6;
        bytes.put(&[0x80 | blocks, kind]);
        bytes.put(&words.to_be_bytes());
        bytes.put(&self.ssrc.to_be_bytes());
        if self.packets > 0 {
            // Section 6.4.1 allows time since start where the sender has no wall clock.
            let micros = self.now.micros();
            let seconds = (micros / 1_000_000) as u32;
            let fraction = ((micros % 1_000_000) << 32) / 1_000_000;
            bytes.put(&seconds.to_be_bytes());
            bytes.put(&(fraction as u32).to_be_bytes());
            for word in [self.timestamp, self.packets, self.octets] {
                bytes.put(&word.to_be_bytes());
            }
        }
        if let Some(heard) = self.heard {
            let lost = u32::from(heard.fraction_lost) << 24 | heard.lost & 0x00ff_ffff;
            for word in [heard.ssrc, lost, heard.highest, heard.jitter, heard.last_report, heard.since_report]
            {
                bytes.put(&word.to_be_bytes());
            }
        }
        // The CNAME names the stream, not a person or a machine: eight hexadecimal digits.
        bytes.put(&[0x81, SOURCE_DESCRIPTION, 0, 4]);
        bytes.put(&self.ssrc.to_be_bytes());
        bytes.put(&[1, 8]);
        for nibble in (0..8).rev() {
            let digit = char::from_digit(self.ssrc >> (nibble * 4) & 15, 16).unwrap_or('0');
            bytes.put(&[digit as u8]);
        }
        bytes.put(&[0, 0]);
        let used = bytes.used;
        buffer.get(..used).unwrap_or_default()
    }
}

struct Writer<'b> {
    buffer: &'b mut [u8; REPORT_LEN_MAX],
    used: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.buffer.get_mut(self.used..self.used + bytes.len()) {
            room.copy_from_slice(bytes);
            self.used += bytes.len();
        }
    }
}

/// Whether `bytes` are a well-formed compound packet (RFC 3550 appendix A.2): a report first,
/// version 2 throughout, lengths that add up, padding in the last packet only.
pub fn is_compound(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut first = true;
    while !rest.is_empty() {
        let Some(&[flags, kind, high, low]) = rest.first_chunk() else { return false };
        let length = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
        let Some(after) = rest.get(length..) else { return false };
        let padded = flags & 0x20 != 0;
        let report = matches!(kind, SENDER_REPORT | RECEIVER_REPORT);
        if flags >> 6 != 2 || !(192..=223).contains(&kind) || (padded && !after.is_empty()) {
            return false;
        }
        if first && (!report || padded && !after.is_empty()) {
            return false;
        }
        first = false;
        rest = after;
    }
    !first
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEARD: Heard =
        Heard { ssrc: 1, fraction_lost: 2, lost: 3, highest: 4, jitter: 5, last_report: 6, since_report: 7 };

    #[test]
    fn a_report_says_to_its_reader_what_its_author_heard() {
        for packets in [0, 1] {
            let mut buffer = [0; REPORT_LEN_MAX];
            let bytes = report(packets, Some(HEARD)).write(&mut buffer);
            let stamp = (packets > 0).then_some(middle(Now::from_millis(1_500)));
            assert_eq!(told(bytes, 1), Told { stamp, heard: Some(HEARD) });
            assert_eq!(told(bytes, 2), Told { stamp, heard: None }, "of another stream");
        }
        assert_eq!(middle(Now::from_millis(1_500)), 0x0001_8000);
    }

    fn report(packets: u32, heard: Option<Heard>) -> Report {
        let now = Now::from_millis(1_500);
        Report { ssrc: 0xdead_beef, now, timestamp: 160, packets, octets: 160, heard }
    }

    #[test]
    fn our_reports_pass_our_own_check() {
        for packets in [0, 1] {
            for heard in [None, Some(HEARD)] {
                let mut buffer = [0; REPORT_LEN_MAX];
                let bytes = report(packets, heard).write(&mut buffer);
                assert!(is_compound(bytes), "{bytes:x?}");
                assert_eq!(bytes.len() % 4, 0);
            }
        }
    }

    #[test]
    fn the_fraction_of_a_second_is_binary() {
        let mut buffer = [0; REPORT_LEN_MAX];
        let bytes = report(1, None).write(&mut buffer);
        assert_eq!(bytes[8..16], [0, 0, 0, 1, 0x80, 0, 0, 0]);
    }

    #[test]
    fn a_lone_bye_or_a_wrong_length_is_not_a_compound() {
        assert!(!is_compound(&[]));
        assert!(!is_compound(&[0x81, 203, 0, 1, 0, 0, 0, 9]));
        assert!(!is_compound(&[0x80, 201, 0, 9, 0, 0, 0, 9]));
        assert!(is_compound(&[0x80, 201, 0, 1, 0, 0, 0, 9, 0x81, 203, 0, 1, 0, 0, 0, 9]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_check_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (is_compound(&bytes), told(&bytes, 1));
        }
    }
}
