//! A small mutator: an input of the corpus in, a hostile relative of it out. It knows bytes,
//! lines, numbers and the words of a target, and nothing of any format. The same seed gives the
//! same inputs; it reads no clock and no randomness of the system.

/// SplitMix64: small, fast, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`; 0 where there is nothing below.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % limit).unwrap_or_default()
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

/// Changes `bytes` in a few places. `others` are further inputs, to take pieces from.
pub(crate) fn mutate(random: &mut Random, bytes: &mut Vec<u8>, others: &[Vec<u8>], words: &[&str]) {
    // Mostly one or two changes: more leave nothing that a parser would look into.
    for _ in 0..=random.below(4).min(random.below(8)) {
        change(random, bytes, others, words);
    }
    bytes.truncate(INPUT_BYTES_MAX);
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, others: &[Vec<u8>], words: &[&str]) {
    let at = random.below(bytes.len() + 1);
    match random.below(13) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            let odd = *random.pick(&ODD_BYTES).unwrap_or(&0);
            match bytes.get_mut(at) {
                Some(byte) => *byte = odd,
                None => bytes.push(odd),
            }
        }
        2 => insert(bytes, at, &[*random.pick(&ODD_BYTES).unwrap_or(&0)]),
        3 => drop(bytes.drain(at..end(random, bytes.len(), at))),
        4 => {
            let piece = piece(random, bytes, at);
            let to = random.below(bytes.len() + 1);
            insert(bytes, to, &piece);
        }
        5 => {
            // A short piece many times over: depth, width and length limits.
            let piece = piece(random, bytes, at);
            let times = 1 << random.below(11);
            insert(bytes, at, &piece.repeat(times.min(REPEATED_BYTES_MAX / piece.len().max(1))));
        }
        6 | 7 => {
            if let Some(word) = random.pick(words) {
                let to = if random.below(2) == 0 { at } else { end(random, bytes.len(), at) };
                bytes.splice(at..to, word.bytes());
            }
        }
        8 => number(random, bytes, at),
        9 => bytes.truncate(at),
        10 => line(random, bytes),
        11 => {
            if let Some(other) = random.pick(others) {
                let from = random.below(other.len() + 1);
                let piece = other.get(from..end(random, other.len(), from)).unwrap_or_default().to_vec();
                insert(bytes, at, &piece);
            }
        }
        _ => {
            // The head of one and the tail of another.
            if let Some(other) = random.pick(others) {
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(other.get(from..).unwrap_or_default());
            }
        }
    }
}

/// A place after `at`: near it more often than far.
fn end(random: &mut Random, len: usize, at: usize) -> usize {
    let reach = 1 << random.below(9);
    (at + 1 + random.below(reach)).min(len).max(at.min(len))
}

fn piece(random: &mut Random, bytes: &[u8], at: usize) -> Vec<u8> {
    bytes.get(at..end(random, bytes.len(), at)).unwrap_or_default().to_vec()
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let at = at.min(bytes.len());
    bytes.splice(at..at, piece.iter().copied());
}

/// Puts an odd number in the place of one that is written there.
fn number(random: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(from) = bytes.iter().skip(at).position(is_digit).map(|found| at + found) else { return };
    let digits = bytes.iter().skip(from).take_while(|byte| is_digit(byte)).count();
    let odd = random.pick(&ODD_NUMBERS).copied().unwrap_or_default();
    bytes.splice(from..from + digits, odd.bytes());
}

/// Doubles, drops or moves a line.
fn line(random: &mut Random, bytes: &mut Vec<u8>) {
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if lines.is_empty() {
        return;
    }
    let (from, to) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(3) {
        0 => lines.insert(to, lines[from].clone()),
        1 => drop(lines.remove(from)),
        _ => lines.swap(from, to),
    }
    *bytes = lines.concat();
}

/// Bytes that mean something to some parser.
const ODD_BYTES: [u8; 33] = *b"\0\t\n\r !\"#$%&'()*+,-./:;<=>?@[\\]{}\xff";
/// Numbers at the edges of their types, and some that are none.
const ODD_NUMBERS: [&str; 24] = [
    "0",
    "1",
    "-1",
    "2",
    "16",
    "63",
    "64",
    "65",
    "99",
    "127",
    "128",
    "255",
    "256",
    "999",
    "1000",
    "32768",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "1e309",
];
/// Twice the largest datagram: what is larger is refused by its length alone.
const INPUT_BYTES_MAX: usize = 128 * 1024;
/// A repeated piece alone reaches every limit of a line, a header or a depth.
const REPEATED_BYTES_MAX: usize = 80 * 1024;
