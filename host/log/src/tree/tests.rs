//! The tree against a literal transcription of RFC 6962 section 2.1, and against published vectors.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Past the sizes where every shape of right edge up to height 6 has occurred.
const LARGEST: usize = 70;

// RFC 6962 section 2.1, word for word, on lists of entries.

fn reference_root(entries: &[Vec<u8>]) -> Hash {
    match entries {
        [] => empty_root(),
        [one] => leaf_hash(one),
        many => {
            let (left, right) = many.split_at(reference_split(many.len()));
            node_hash(&reference_root(left), &reference_root(right))
        }
    }
}

fn reference_path(index: usize, entries: &[Vec<u8>]) -> Vec<Hash> {
    if entries.len() == 1 {
        return Vec::new();
    }
    let split = reference_split(entries.len());
    let (left, right) = entries.split_at(split);
    let (mut path, sibling) = if index < split {
        (reference_path(index, left), reference_root(right))
    } else {
        (reference_path(index - split, right), reference_root(left))
    };
    path.push(sibling);
    path
}

fn reference_subproof(old: usize, entries: &[Vec<u8>], whole: bool) -> Vec<Hash> {
    if old == entries.len() {
        return if whole { Vec::new() } else { vec![reference_root(entries)] };
    }
    let split = reference_split(entries.len());
    let (left, right) = entries.split_at(split);
    let (mut proof, sibling) = if old <= split {
        (reference_subproof(old, left, whole), reference_root(right))
    } else {
        (reference_subproof(old - split, right, false), reference_root(left))
    };
    proof.push(sibling);
    proof
}

fn reference_split(len: usize) -> usize {
    let mut split = 1;
    while split * 2 < len {
        split *= 2;
    }
    split
}

fn entries(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| format!("entry {i}").into_bytes()).collect()
}

struct Grown {
    nodes: BTreeMap<(u8, u64), Hash>,
    roots: Vec<Hash>,
}

fn grow(entries: &[Vec<u8>]) -> Grown {
    let mut frontier = Frontier::new();
    let mut grown = Grown { nodes: BTreeMap::new(), roots: vec![frontier.root()] };
    for entry in entries {
        for node in frontier.append(leaf_hash(entry)) {
            let twice = grown.nodes.insert((node.level, node.index), node.hash);
            assert!(twice.is_none(), "a node is completed once");
        }
        assert!(frontier.is_valid());
        grown.roots.push(frontier.root());
    }
    grown
}

#[test]
fn every_root_and_proof_to_70_equals_the_rfc() {
    let entries = entries(LARGEST);
    let Grown { nodes, roots } = grow(&entries);
    let nodes = |level: u8, index: u64| nodes.get(&(level, index)).copied();
    for size in 0..=LARGEST {
        assert_eq!(roots[size], reference_root(&entries[..size]));
        assert_eq!(root_at(size as u64, &nodes), Ok(roots[size]));
        for index in 0..size {
            let proof = inclusion_proof(index as u64, size as u64, &nodes).unwrap();
            assert_eq!(proof, reference_path(index, &entries[..size]), "{index} in {size}");
            let leaf = leaf_hash(&entries[index]);
            assert_eq!(verify_inclusion(&leaf, index as u64, size as u64, &proof, &roots[size]), Ok(()));
        }
        for old in 1..=size {
            let proof = consistency_proof(old as u64, size as u64, &nodes).unwrap();
            assert_eq!(proof, reference_subproof(old, &entries[..size], true), "{old} to {size}");
            assert_eq!(verify_consistency(old as u64, size as u64, &roots[old], &roots[size], &proof), Ok(()));
        }
        assert_eq!(consistency_proof(0, size as u64, &nodes), Ok(Vec::new()));
        assert_eq!(verify_consistency(0, size as u64, &empty_root(), &roots[size], &[]), Ok(()));
    }
}

#[test]
fn a_proof_holds_for_nothing_else() {
    let entries = entries(40);
    let Grown { nodes, roots } = grow(&entries);
    let nodes = |level: u8, index: u64| nodes.get(&(level, index)).copied();
    for size in 1..=40_u64 {
        let root = &roots[size as usize];
        for index in 0..size {
            let proof = inclusion_proof(index, size, &nodes).unwrap();
            let leaf = leaf_hash(&entries[index as usize]);
            for other in (0..size).filter(|other| *other != index) {
                assert!(verify_inclusion(&leaf, other, size, &proof, root).is_err(), "{index} as {other} in {size}");
            }
            for damaged in damages(&proof) {
                assert!(verify_inclusion(&leaf, index, size, &damaged, root).is_err());
            }
            assert!(verify_inclusion(&Hash::ZERO, index, size, &proof, root).is_err());
            assert!(verify_inclusion(&leaf, size, size, &proof, root).is_err());
        }
        for old in 1..=size {
            let proof = consistency_proof(old, size, &nodes).unwrap();
            for damaged in damages(&proof) {
                assert!(verify_consistency(old, size, &roots[old as usize], root, &damaged).is_err(), "{old} {size}");
            }
            assert!(verify_consistency(old, size, &Hash::ZERO, root, &proof).is_err());
            assert!(verify_consistency(old, size, &roots[old as usize], &Hash::ZERO, &proof).is_err());
            assert!(verify_consistency(size + 1, size, root, root, &[]).is_err());
        }
    }
}

fn damages(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for at in 0..proof.len() {
        let mut changed = proof.to_vec();
        changed[at] = Hash::ZERO;
        all.push(changed);
        let mut shorter = proof.to_vec();
        shorter.remove(at);
        all.push(shorter);
    }
    let mut longer = proof.to_vec();
    longer.push(Hash::ZERO);
    all.push(longer.clone());
    longer.rotate_right(1);
    all.push(longer);
    all
}

/// The vectors of the Certificate Transparency reference implementation for the eight-leaf tree of RFC 6962.
#[test]
fn published_vectors() {
    let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
    let hash = |text: &str| text.parse::<Hash>().unwrap();
    let leaves =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"].map(hex);
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    .map(hash);
    let grown = grow(&leaves);
    assert_eq!(grown.roots, roots);
    let nodes = |level: u8, index: u64| grown.nodes.get(&(level, index)).copied();
    let path = [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    .map(hash);
    assert_eq!(inclusion_proof(5, 8, &nodes).unwrap(), path);
    let consistency = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    .map(hash);
    assert_eq!(consistency_proof(6, 8, &nodes).unwrap(), consistency);
}

#[test]
fn missing_nodes_and_sizes_are_said() {
    let none = |_: u8, _: u64| None;
    assert_eq!(root_at(3, &none), Err(TreeError::MissingNode { level: 1, index: 0 }));
    assert!(matches!(inclusion_proof(3, 3, &none), Err(TreeError::OutOfRange { .. })));
    assert!(matches!(consistency_proof(4, 3, &none), Err(TreeError::OutOfRange { .. })));
    assert_eq!(verify_consistency(0, 0, &Hash::ZERO, &Hash::ZERO, &[]), Err(TreeError::WrongRoot));
    // The largest sizes there are: no overflow.
    let all = |_: u8, _: u64| Some(Hash::ZERO);
    for size in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) + 1] {
        let proof = inclusion_proof(size - 1, size, &all).unwrap();
        assert!(proof.len() <= MAX_PROOF_HASHES);
        let root = root_at(size, &all).unwrap();
        let _ = verify_inclusion(&Hash::ZERO, size - 1, size, &proof, &root);
        let proof = consistency_proof(size - 1, size, &all).unwrap();
        assert!(proof.len() <= MAX_PROOF_HASHES);
        let _ = verify_consistency(size - 1, size, &root, &root, &proof);
    }
}

#[test]
fn a_frontier_is_stored_and_read_back() {
    let mut frontier = Frontier::new();
    for entry in entries(21) {
        frontier.append(leaf_hash(&entry));
    }
    let bytes = crate::cbor::encode(&frontier);
    let mut back: Frontier = crate::cbor::decode(&bytes).unwrap();
    assert_eq!(back, frontier);
    assert_eq!(back.append(Hash::ZERO), frontier.append(Hash::ZERO));
    back.edge.pop();
    assert!(!back.is_valid());
}

proptest! {
    #[test]
    fn hostile_proofs_never_panic(
        a in any::<u64>(), b in any::<u64>(), shift in 0_u32..64,
        bytes in proptest::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let proof: Vec<Hash> = bytes.into_iter().map(Hash::from_bytes).collect();
        let (a, b) = (a >> shift, b >> shift);
        prop_assert!(verify_inclusion(&Hash::ZERO, a, b, &proof, &Hash::ZERO).is_err());
        let _ = verify_consistency(a, b, &Hash::ZERO, &Hash::ZERO, &proof);
    }
}
