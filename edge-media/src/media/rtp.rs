//! RTP packets: a checked view of the bytes, and a writer. Padding, header extensions and
//! contributing sources are skipped; a packet whose lengths do not add up is refused, never
//! repaired. RFC 3550 section 5.

/// Longest datagram that is looked at. A G.711 packet of 60 ms has 492 bytes; more than an
/// Ethernet frame can only be junk.
pub const DATAGRAM_LEN_MAX: usize = 1_500;
/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 12;

/// One parsed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpPacket<'a> {
    /// First packet of a talkspurt, or of an event.
    pub marker: bool,
    /// What the payload is.
    pub payload_type: u8,
    /// Counts packets.
    pub sequence: u16,
    /// Counts samples.
    pub timestamp: u32,
    /// Who sends.
    pub ssrc: u32,
    /// Never empty.
    pub payload: &'a [u8],
}

/// Why bytes are not an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// Shorter than its own header says, or longer than any packet.
    #[error("the length of the datagram does not fit its RTP header")]
    Length,
    /// Another version than 2.
    #[error("not RTP version 2")]
    Version,
    /// A payload type that RFC 5761 leaves to RTCP.
    #[error("an RTCP packet on the RTP port")]
    Rtcp,
}

impl<'a> RtpPacket<'a> {
    /// Checks `bytes` and gives a view of them.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtpError> {
        if bytes.len() > DATAGRAM_LEN_MAX {
            return Err(RtpError::Length);
        }
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(RtpError::Length)?;
        let [flags, kind, s0, s1, t0, t1, t2, t3, x0, x1, x2, x3] = *header;
        if flags >> 6 != 2 {
            return Err(RtpError::Version);
        }
        // RFC 5761 section 4: 64 to 95 are RTCP packet types on a shared port.
        if (64..96).contains(&(kind & 0x7f)) {
            return Err(RtpError::Rtcp);
        }
        let sources = usize::from(flags & 0x0f) * 4;
        let mut payload = rest.get(sources..).ok_or(RtpError::Length)?;
        if flags & 0x10 != 0 {
            let (&[_, _, high, low], after) = payload.split_first_chunk().ok_or(RtpError::Length)?;
            let words = usize::from(u16::from_be_bytes([high, low]));
            payload = after.get(words * 4..).ok_or(RtpError::Length)?;
        }
        if flags & 0x20 != 0 {
            let padding = usize::from(*payload.last().ok_or(RtpError::Length)?);
            let kept = payload.len().checked_sub(padding).filter(|_| padding > 0).ok_or(RtpError::Length)?;
            payload = payload.get(..kept).ok_or(RtpError::Length)?;
        }
        if payload.is_empty() {
            return Err(RtpError::Length);
        }
        Ok(Self {
            marker: kind & 0x80 != 0,
            payload_type: kind & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([x0, x1, x2, x3]),
            payload,
        })
    }

    /// Writes the packet into `buffer` and gives the bytes written; `None` when it does not fit.
    pub fn write<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let bytes = buffer.get_mut(..HEADER_LEN + self.payload.len())?;
        let (header, body) = bytes.split_first_chunk_mut::<HEADER_LEN>()?;
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [x0, x1, x2, x3] = self.ssrc.to_be_bytes();
        let kind = self.payload_type & 0x7f | u8::from(self.marker) << 7;
        *header = [0x80, kind, s0, s1, t0, t1, t2, t3, x0, x1, x2, x3];
        body.copy_from_slice(self.payload);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(payload: &[u8]) -> RtpPacket<'_> {
        RtpPacket { marker: true, payload_type: 8, sequence: 65_535, timestamp: 7, ssrc: 9, payload }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut buffer = [0; 64];
        let bytes = packet(&[1, 2, 3]).write(&mut buffer).unwrap();
        assert_eq!(RtpPacket::parse(bytes), Ok(packet(&[1, 2, 3])));
    }

    #[test]
    fn sources_extension_and_padding_are_skipped() {
        let mut bytes = vec![0b1011_0001, 0x88, 0xff, 0xff, 0, 0, 0, 7, 0, 0, 0, 9];
        bytes.extend([0; 4]); // one contributing source
        bytes.extend([0xbe, 0xde, 0, 1, 1, 1, 1, 1]); // one word of extension
        bytes.extend([1, 2, 3, 0, 0, 3]); // payload and three bytes of padding
        assert_eq!(RtpPacket::parse(&bytes), Ok(packet(&[1, 2, 3])));
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let whole = packet(&[1, 2, 3]).write(&mut [0; 64]).unwrap().to_vec();
        for length in 0..=HEADER_LEN {
            assert_eq!(RtpPacket::parse(&whole[..length]), Err(RtpError::Length));
        }
        for (flags, payload) in [(0x8f, &[0; 8][..]), (0x90, &[0, 0, 255, 255]), (0xa0, &[9]), (0xa0, &[0])] {
            let mut bytes = vec![flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(payload);
            assert_eq!(RtpPacket::parse(&bytes), Err(RtpError::Length), "{flags:#x}");
        }
        assert_eq!(RtpPacket::parse(&[0x40; 172]), Err(RtpError::Version));
        assert_eq!(RtpPacket::parse(&[0x80, 200, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(RtpError::Rtcp));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = RtpPacket::parse(&bytes);
        }
    }
}
