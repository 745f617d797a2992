//! G.711 by table, µ-law and A-law, and the 20 ms frame that travels through the media
//! plane. A frame stays in the form in which it arrived until somebody needs another one,
//! so audio between two legs of the same codec passes without a single changed bit.
//! It resamples nothing and knows no other codec. ITU-T G.711, RFC 3551.

use super::FRAME_SAMPLES;
use crate::sip::Codec;

/// µ-law silence.
pub const ULAW_SILENCE: u8 = 0xff;
/// A-law silence.
pub const ALAW_SILENCE: u8 = 0xd5;

/// 20 ms of audio at 8 kHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nothing is said.
    Silence,
    /// As it came from the wire or from a clip.
    Coded(Codec, [u8; FRAME_SAMPLES]),
    /// The result of arithmetic: a mix, a concealment, a tone.
    Linear([i16; FRAME_SAMPLES]),
}

impl Frame {
    /// The samples.
    pub fn linear(&self) -> [i16; FRAME_SAMPLES] {
        match self {
            Self::Silence => [0; FRAME_SAMPLES],
            Self::Coded(codec, bytes) => bytes.map(|byte| decode(*codec, byte)),
            Self::Linear(samples) => *samples,
        }
    }

    /// The payload in `codec`; unchanged where the frame already is in it.
    pub fn coded(&self, codec: Codec) -> [u8; FRAME_SAMPLES] {
        match self {
            Self::Silence => [silence(codec); FRAME_SAMPLES],
            Self::Coded(own, bytes) if *own == codec => *bytes,
            Self::Coded(own, bytes) => bytes.map(|byte| encode(codec, decode(*own, byte))),
            Self::Linear(samples) => samples.map(|sample| encode(codec, sample)),
        }
    }

    /// A µ-law frame of `bytes`, filled up with silence.
    pub fn ulaw(bytes: &[u8]) -> Self {
        let mut frame = [ULAW_SILENCE; FRAME_SAMPLES];
        for (slot, byte) in frame.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        Self::Coded(Codec::Pcmu, frame)
    }
}

/// The byte that means silence.
pub const fn silence(codec: Codec) -> u8 {
    match codec {
        Codec::Pcmu => ULAW_SILENCE,
        Codec::Pcma => ALAW_SILENCE,
    }
}

/// The static RTP payload type (RFC 3551, table 4).
pub const fn payload_type(codec: Codec) -> u8 {
    match codec {
        Codec::Pcmu => 0,
        Codec::Pcma => 8,
    }
}

/// One byte to one sample.
pub const fn decode(codec: Codec, byte: u8) -> i16 {
    match codec {
        Codec::Pcmu => ULAW_TO_LINEAR[byte as usize],
        Codec::Pcma => ALAW_TO_LINEAR[byte as usize],
    }
}

/// One sample to one byte.
pub const fn encode(codec: Codec, sample: i16) -> u8 {
    // Both codes drop at least the two lowest bits, so the upper fourteen index the table.
    let index = (sample >> 2) as u16 as usize & 0x3fff;
    match codec {
        Codec::Pcmu => LINEAR_TO_ULAW[index],
        Codec::Pcma => LINEAR_TO_ALAW[index],
    }
}

static ULAW_TO_LINEAR: [i16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = ulaw_expand(byte as u8);
        byte += 1;
    }
    table
};

static ALAW_TO_LINEAR: [i16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = alaw_expand(byte as u8);
        byte += 1;
    }
    table
};

static LINEAR_TO_ULAW: [u8; 16_384] = {
    let mut table = [0; 16_384];
    let mut index = 0;
    while index < 16_384 {
        table[index] = ulaw_compress(((index as u16) << 2) as i16);
        index += 1;
    }
    table
};

static LINEAR_TO_ALAW: [u8; 16_384] = {
    let mut table = [0; 16_384];
    let mut index = 0;
    while index < 16_384 {
        table[index] = alaw_compress(((index as u16) << 2) as i16);
        index += 1;
    }
    table
};

const fn ulaw_expand(byte: u8) -> i16 {
    let code = !byte;
    let exponent = (code >> 4 & 7) as i32;
    let magnitude = (((((code & 15) as i32) << 3) + 132) << exponent) - 132;
    (if code & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

const fn ulaw_compress(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let wide = if sample < 0 { -(sample as i32) } else { sample as i32 };
    let magnitude = (if wide > 32_635 { 32_635 } else { wide }) + 132;
    // 132..=32767: the leading one is at bit 7 to 14.
    let exponent = 24 - magnitude.leading_zeros() as i32;
    let mantissa = magnitude >> (exponent + 3) & 15;
    !(sign | (exponent << 4) as u8 | mantissa as u8)
}

const fn alaw_expand(byte: u8) -> i16 {
    let code = byte ^ 0x55;
    let exponent = (code >> 4 & 7) as i32;
    let step = ((code & 15) as i32) << 4;
    let magnitude = if exponent == 0 { step + 8 } else { (step + 0x108) << (exponent - 1) };
    (if code & 0x80 == 0 { -magnitude } else { magnitude }) as i16
}

const fn alaw_compress(sample: i16) -> u8 {
    let (sign, magnitude) = if sample < 0 { (0, -(sample as i32) - 1) } else { (0x80_u8, sample as i32) };
    let code = if magnitude < 256 {
        magnitude >> 4
    } else {
        let exponent = 24 - magnitude.leading_zeros() as i32;
        exponent << 4 | magnitude >> (exponent + 3) & 15
    };
    (sign | code as u8) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_round_trip() {
        for byte in 0..=255 {
            assert_eq!(encode(Codec::Pcma, decode(Codec::Pcma, byte)), byte);
            // µ-law has two zeros; both decode to 0.
            let expected = if byte == 0x7f { 0xff } else { byte };
            assert_eq!(encode(Codec::Pcmu, decode(Codec::Pcmu, byte)), expected);
        }
    }

    #[test]
    fn the_reference_points_of_g711_hold() {
        for (byte, sample) in [(0x00, -32_124), (0x80, 32_124), (0xff, 0), (0xf0, 120), (0x70, -120)] {
            assert_eq!(decode(Codec::Pcmu, byte), sample, "µ-law {byte:#x}");
        }
        for (byte, sample) in [(0x2a, -32_256), (0xaa, 32_256), (0xd5, 8), (0x55, -8)] {
            assert_eq!(decode(Codec::Pcma, byte), sample, "A-law {byte:#x}");
        }
    }

    #[test]
    fn encoding_errs_by_at_most_one_step() {
        for sample in (i16::MIN..=i16::MAX).step_by(7) {
            for codec in [Codec::Pcmu, Codec::Pcma] {
                let back = i32::from(decode(codec, encode(codec, sample)));
                let error = (back - i32::from(sample)).abs();
                let allowed = (i32::from(sample).abs() / 16).max(16) + 4;
                assert!(error <= allowed, "{codec:?} {sample} became {back}");
            }
        }
    }

    #[test]
    fn the_same_codec_passes_bit_for_bit() {
        let mut bytes = [0_u8; FRAME_SAMPLES];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = index as u8;
        }
        for codec in [Codec::Pcmu, Codec::Pcma] {
            assert_eq!(Frame::Coded(codec, bytes).coded(codec), bytes);
        }
    }
}
