//! Known answers that were computed elsewhere (the leaves of RFC 6962's reference tests, and
//! a note signed by another library), and every pair of sizes proved and refuted.

use ed25519_dalek::{Signer, SigningKey};

use super::keyring::{Keyring, NoteFault, NoteKey, TrustedKey};
use super::note::{NoteBody, SignedNote};
use super::tree::*;
use super::*;
use crate::clock::Timestamp;

const NOTE: &str = include_str!("../../tests/golden/checkpoint-1.note");
const LEAVES: &[u8] = include_bytes!("../../tests/golden/checkpoint-1.leaves");
const VKEY: &str = include_str!("../../tests/golden/checkpoint-1.vkey");

/// The eight inputs of the reference tests of RFC 6962.
const REFERENCE: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

/// Roots over the first 0 to 8 of them.
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn reference() -> Vec<Hash> {
    REFERENCE.iter().map(|leaf| leaf_hash(&bytes(leaf))).collect()
}

fn hashes(texts: &[&str]) -> Vec<Hash> {
    texts.iter().map(|text| Hash::parse(text).unwrap()).collect()
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn ring(from: &str, until: Option<&str>) -> Keyring {
    let key = NoteKey::parse(VKEY.trim_end()).unwrap();
    Keyring::new(vec![TrustedKey { key, from: at(from), until: until.map(at) }])
}

#[test]
fn roots_are_those_of_the_reference_vectors() {
    for (size, expected) in ROOTS.iter().enumerate() {
        assert_eq!(root(&reference()[..size]).to_string(), *expected, "size {size}");
    }
}

#[test]
fn proofs_are_those_of_an_independent_implementation() {
    let inclusion = [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ];
    assert_eq!(inclusion_proof(&reference(), 5).unwrap(), hashes(&inclusion));
    let consistency = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ];
    assert_eq!(consistency_proof(&reference(), 6).unwrap(), hashes(&consistency));
}

#[test]
fn every_leaf_of_every_tree_is_proved_and_no_other() {
    let leaves: Vec<Hash> = (0..40_u8).map(|n| leaf_hash(&[n])).collect();
    for size in 1..=leaves.len() {
        let tree = &leaves[..size];
        let whole = root(tree);
        for (index, leaf) in tree.iter().enumerate() {
            let proof = inclusion_proof(tree, index).unwrap();
            let (index, size) = (index as u64, size as u64);
            assert!(verify_inclusion(leaf, index, size, &proof, &whole));
            assert!(!verify_inclusion(&leaf_hash(b"other"), index, size, &proof, &whole));
            assert!(!verify_inclusion(leaf, index, size, &proof, &leaf_hash(b"other")));
            assert!(!verify_inclusion(leaf, size, size, &proof, &whole));
            let longer = [proof.as_slice(), &[whole]].concat();
            assert!(!verify_inclusion(leaf, index, size, &longer, &whole));
            if let Some((_, shorter)) = proof.split_last() {
                assert!(!verify_inclusion(leaf, index, size, shorter, &whole));
            }
        }
        assert_eq!(inclusion_proof(tree, size), None);
    }
}

#[test]
fn every_tree_is_the_beginning_of_every_later_one_and_of_no_other() {
    let leaves: Vec<Hash> = (0..40_u8).map(|n| leaf_hash(&[n])).collect();
    let mut changed = leaves.clone();
    changed[0] = leaf_hash(b"other");
    for second in 1..=leaves.len() {
        for first in 1..=second {
            let (begin, end) = (root(&leaves[..first]), root(&leaves[..second]));
            let other = root(&changed[..first]);
            let proof = consistency_proof(&leaves[..second], first).unwrap();
            let (first, second) = (first as u64, second as u64);
            assert!(verify_consistency(first, &begin, second, &end, &proof), "{first} {second}");
            assert!(!verify_consistency(first, &other, second, &end, &proof), "{first} {second}");
            assert!(!verify_consistency(first, &begin, second, &other, &proof), "{first} {second}");
            assert!(!verify_consistency(second + 1, &begin, second, &end, &proof));
        }
        assert_eq!(consistency_proof(&leaves[..second], 0), None);
        assert_eq!(consistency_proof(&leaves[..second], second + 1), None);
    }
}

#[test]
fn a_frontier_that_was_kept_goes_on_where_it_was() {
    let leaves = reference();
    for kept in 0..leaves.len() {
        let mut before = Frontier::default();
        leaves[..kept].iter().for_each(|leaf| before.push(*leaf));
        let mut again = Frontier::from_parts(before.size(), before.peaks().to_vec()).unwrap();
        leaves[kept..].iter().for_each(|leaf| again.push(*leaf));
        assert_eq!(again.root().to_string(), ROOTS[8]);
    }
    assert_eq!(Frontier::from_parts(3, leaves[..1].to_vec()), None);
}

#[test]
fn the_golden_note_is_read_and_printed_and_its_signature_holds() {
    let note = SignedNote::parse(NOTE).unwrap();
    assert_eq!(note.print(), NOTE);
    let leaves = Leaf::read_lines(LEAVES).unwrap();
    assert_eq!(Leaf::lines(&leaves), LEAVES);
    let tree: Vec<Hash> = leaves.iter().map(Leaf::tree_hash).collect();
    let tenant = TenantId::parse("t_acme").unwrap();
    let body =
        NoteBody { origin: origin(&tenant), size: 3, root: root(&tree), at: at("2026-11-23T09:00:00.000Z") };
    assert_eq!(note.body, body);
    assert_eq!(note.text, body.text());
    let ring = ring("2026-01-01T00:00:00.000Z", None);
    assert_eq!(ring.verify(&note), Ok(()));
    // The same key signs the same bytes: Ed25519 is deterministic.
    let key = SigningKey::from_bytes(&core::array::from_fn(|n| n as u8));
    let line = ring.keys()[0].key.signature(key.sign(note.text.as_bytes()).to_bytes());
    assert_eq!(note.signatures, [line]);
}

#[test]
fn a_changed_note_an_unknown_key_and_a_key_out_of_its_time_are_told_apart() {
    let ring_2026 = ring("2026-01-01T00:00:00.000Z", Some("2027-01-01T00:00:00.000Z"));
    let note = SignedNote::parse(NOTE).unwrap();
    assert_eq!(ring_2026.verify(&note), Ok(()));
    let changed = SignedNote::parse(&NOTE.replace("\n3\n", "\n4\n")).unwrap();
    assert_eq!(ring_2026.verify(&changed), Err(NoteFault::BadSignature));
    let later = ring("2026-12-01T00:00:00.000Z", None);
    assert_eq!(later.verify(&note), Err(NoteFault::KeyNotValid));
    let earlier = ring("2026-01-01T00:00:00.000Z", Some("2026-11-23T09:00:00.000Z"));
    assert_eq!(earlier.verify(&note), Err(NoteFault::KeyNotValid));
    let other = SigningKey::from_bytes(&[9; 32]);
    let key = NoteKey::new(&note.body.origin, other.verifying_key().to_bytes());
    let stranger = Keyring::new(vec![TrustedKey { key, from: at("2026-01-01T00:00:00.000Z"), until: None }]);
    assert_eq!(stranger.verify(&note), Err(NoteFault::UnknownKey));
    // A witness beside the log's own signature neither helps nor harms.
    let mut witnessed = note;
    witnessed.signatures.insert(0, stranger.keys()[0].key.signature([0; 64]));
    let witnessed = SignedNote::parse(&witnessed.print()).unwrap();
    assert_eq!(ring_2026.verify(&witnessed), Ok(()));
}

#[test]
fn a_keyring_is_read_as_it_is_printed() {
    let ring = ring("2026-01-01T00:00:00.000Z", Some("2027-01-01T00:00:00.000Z"));
    assert_eq!(Keyring::parse(&ring.print()), Ok(ring.clone()));
    assert!(Keyring::parse("").is_err());
    assert!(
        Keyring::parse(&ring.print().replace("vkey = \"w", "vkey = \"x")).is_err(),
        "the id is of the name"
    );
    assert!(Keyring::parse("[[key]]\nvkey = \"a+b\"\nfrom = \"2026-01-01T00:00:00.000Z\"").is_err());
}

#[test]
fn what_is_not_quite_a_note_is_refused() {
    let bad = [
        "".to_owned(),
        "\n\n".to_owned(),
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("\n3\n", "\n03\n"),
        NOTE.replace("\n3\n", "\n+3\n"),
        NOTE.replace("time ", "when "),
        NOTE.replace("time ", "time 2026-11-23T09:00:00.000Z\ntime "),
        NOTE.replace('\u{2014}', "-"),
        NOTE.replace("09:00", "09:\u{0}00"),
        NOTE.trim_end().to_owned(),
        format!("{NOTE}\n"),
        format!("{NOTE}{}", "\u{2014} a AAAAAAA=\n".repeat(20)),
        NOTE.replace("\n3\n", &format!("\n3{}\n", "0".repeat(note::NOTE_LEN_MAX))),
    ];
    for (number, text) in bad.iter().enumerate() {
        assert!(SignedNote::parse(text).is_err(), "{number}");
    }
    for length in 0..NOTE.len() {
        if let Some(text) = NOTE.get(..length) {
            assert!(SignedNote::parse(text).is_err(), "cut at {length}");
        }
    }
}

#[test]
fn only_canonical_leaves_are_leaves() {
    let line = LEAVES.split(|byte| *byte == b'\n').next().unwrap();
    assert!(Leaf::parse(line).is_some());
    let text = String::from_utf8(line.to_vec()).unwrap();
    for bad in [text.replace(':', ": "), text.replace("seq", "nr"), text.replace('6', "-6"), "{}".to_owned()]
    {
        assert_eq!(Leaf::parse(bad.as_bytes()), None, "{bad}");
    }
}
