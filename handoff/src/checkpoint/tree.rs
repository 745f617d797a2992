//! The Merkle tree of RFC 9162 section 2.1 (the one of RFC 6962): roots, proofs that a leaf
//! is in a tree and that one tree is the beginning of another, and their verification. The
//! leaf and node prefixes keep a node from passing for a leaf. A log appends through its
//! [`Frontier`], whose size is logarithmic, so that no leaf is ever read again.

use crate::audit::Hash;

/// Hash of a leaf (RFC 9162 section 2.1.1).
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    Hash::of(&[&[0x00], bytes])
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash::of(&[&[0x01], left.as_bytes(), right.as_bytes()])
}

/// Root of a tree over leaf hashes; of the empty tree, the digest of nothing.
pub fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

/// The right edge of a tree: one root per perfect subtree, the largest first. It is all that
/// is needed to append and to compute the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// A frontier as it was kept. `None` where a tree of `size` leaves has another number of
    /// perfect subtrees; that they are the right ones, the root of a note says.
    pub fn from_parts(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (usize::try_from(size.count_ones()) == Ok(peaks.len())).then_some(Self { size, peaks })
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The perfect subtrees, the largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// The perfect subtree over the leaves from `from` to before `to`, where it is one of the
    /// peaks.
    fn peak(&self, from: u64, to: u64) -> Option<Hash> {
        let mut begin = 0;
        for (peak, bit) in self.peaks.iter().zip((0..u64::BITS).rev().filter(|bit| self.size >> bit & 1 == 1))
        {
            let end = begin + (1 << bit);
            if (begin, end) == (from, to) {
                return Some(*peak);
            }
            begin = end;
        }
        None
    }

    /// Root of the whole tree.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return Hash::of(&[]) };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The proof that leaf `index` is in the tree over `leaves` (RFC 9162 section 2.1.3.1).
/// `None` where there is no such leaf.
pub fn inclusion_proof(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let mut proof;
    if index < left.len() {
        proof = inclusion_proof(left, index)?;
        proof.push(root(right));
    } else {
        proof = inclusion_proof(right, index - left.len())?;
        proof.push(root(left));
    }
    Some(proof)
}

/// The proof that leaf `index` of `leaves` is in the tree that begins with what `before` stands
/// for and ends with `leaves`: what is left of them is needed by its peaks alone. `None` where
/// there is no such leaf.
pub fn inclusion_behind(before: &Frontier, leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let count = |len: usize| u64::try_from(len).ok();
    let wanted = before.size.checked_add(count(index)?)?;
    let (mut from, mut to) = (0, before.size.checked_add(count(leaves.len())?)?);
    let mut proof = Vec::new();
    while to - from > 1 {
        let middle = from + split_at(to - from);
        let (sibling_from, sibling_to) = if wanted < middle { (middle, to) } else { (from, middle) };
        proof.push(root_between(before, leaves, sibling_from, sibling_to)?);
        (from, to) = if wanted < middle { (from, middle) } else { (middle, to) };
    }
    proof.reverse();
    Some(proof)
}

/// Root of the leaves from `from` to before `to`. `None` where only a part of a peak is asked
/// for, which no path past the frontier does.
fn root_between(before: &Frontier, leaves: &[Hash], from: u64, to: u64) -> Option<Hash> {
    if let Some(peak) = before.peak(from, to) {
        return Some(peak);
    }
    if to - from == 1 {
        let index = usize::try_from(from.checked_sub(before.size)?).ok()?;
        return leaves.get(index).copied();
    }
    let middle = from + split_at(to - from);
    let left = root_between(before, leaves, from, middle)?;
    Some(node_hash(&left, &root_between(before, leaves, middle, to)?))
}

/// The largest power of two below `len`, which is at least 2.
const fn split_at(len: u64) -> u64 {
    1 << (u64::BITS - 1 - (len - 1).leading_zeros())
}

/// The proof that the tree over the first `first` leaves is the beginning of the tree over
/// all of them (RFC 9162 section 2.1.4.1). `None` where `first` is 0 or more than there are.
pub fn consistency_proof(leaves: &[Hash], first: usize) -> Option<Vec<Hash>> {
    if first == 0 || first > leaves.len() { None } else { subproof(leaves, first, true) }
}

fn subproof(leaves: &[Hash], first: usize, whole: bool) -> Option<Vec<Hash>> {
    if first == leaves.len() {
        return Some(if whole { Vec::new() } else { vec![root(leaves)] });
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let mut proof;
    if first <= left.len() {
        proof = subproof(left, first, whole)?;
        proof.push(root(right));
    } else {
        proof = subproof(right, first - left.len(), false)?;
        proof.push(root(left));
    }
    Some(proof)
}

/// The largest power of two below `len`, which is at least 2.
const fn split(len: usize) -> usize {
    1 << (usize::BITS - 1 - (len - 1).leading_zeros())
}

/// Whether `proof` shows that `leaf` is leaf `index` of the tree of `size` leaves with `root`
/// (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut position, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if position & 1 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree of `first` leaves with `first_root` is the beginning of
/// the tree of `second` leaves with `second_root` (RFC 9162 section 2.1.4.2).
pub fn verify_consistency(
    first: u64,
    first_root: &Hash,
    second: u64,
    second_root: &Hash,
    proof: &[Hash],
) -> bool {
    if first == 0 || first > second {
        return false;
    }
    if first == second {
        return proof.is_empty() && first_root == second_root;
    }
    // A first tree that is one perfect subtree is its own beginning of the path.
    let (start, path) = if first.is_power_of_two() {
        (*first_root, proof)
    } else {
        let Some((start, path)) = proof.split_first() else { return false };
        (*start, path)
    };
    let (mut position, mut last) = (first - 1, second - 1);
    while position & 1 == 1 {
        position >>= 1;
        last >>= 1;
    }
    let (mut first_hash, mut second_hash) = (start, start);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if position & 1 == 1 || position == last {
            first_hash = node_hash(sibling, &first_hash);
            second_hash = node_hash(sibling, &second_hash);
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            second_hash = node_hash(&second_hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && first_hash == *first_root && second_hash == *second_root
}
