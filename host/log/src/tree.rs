//! The log is a Merkle tree (RFC 6962, SHA-256): one hash names all entries, a short proof shows that one is in it.
//!
//! Leaves are hashed with a 0 byte before them and nodes with a 1 byte, so neither passes for the other. A node is
//! named by its level (0 = leaf) and its index on that level; only nodes of complete subtrees are ever stored, because
//! they never change again.

use serde::{Deserialize, Serialize};

use crate::hash::{Hash, Hasher};

/// Longest proof there can be, hashes: two for each level of a tree of 2^64 leaves.
pub const MAX_PROOF: usize = 128;

/// Why a proof cannot be made or does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Asked for something beyond the tree's end.
    #[error("{0} lies beyond a tree of {1} leaves")]
    OutOfRange(u64, u64),
    /// The store does not hold a node that the proof needs.
    #[error("node {index} of level {level} is missing")]
    MissingNode {
        /// Its level, 0 = leaf.
        level: u8,
        /// Its position on that level.
        index: u64,
    },
    /// The proof has too few or too many hashes for these sizes.
    #[error("the proof has the wrong length")]
    WrongLength,
    /// The proof leads to another root.
    #[error("the proof leads to another root")]
    WrongRoot,
}

/// Where a node's hash is looked up: by level and index.
pub type Nodes<'a> = &'a dyn Fn(u8, u64) -> Option<Hash>;

/// The hash of an entry's bytes as a leaf.
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    let mut hasher = Hasher::new();
    hasher.update(&[0]);
    hasher.update(bytes);
    hasher.finalize()
}

/// The hash of the node above two nodes.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left.as_bytes());
    bytes[33..].copy_from_slice(right.as_bytes());
    Hash::of(&bytes)
}

/// The root of a tree without leaves.
pub fn empty_root() -> Hash {
    Hash::of(b"")
}

/// A node of a complete subtree: it never changes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Height above the leaves.
    pub level: u8,
    /// Position on that level.
    pub index: u64,
    /// Hash of all leaves below.
    pub hash: Hash,
}

/// All that appending needs: the roots of the complete subtrees along the right edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawFrontier")]
pub struct Frontier {
    /// Number of leaves.
    pub size: u64,
    /// Roots of complete subtrees, the largest (leftmost) first: one for each 1 bit of `size`.
    pub edge: Vec<Hash>,
}

impl Frontier {
    /// Appends a leaf's hash and returns every node it completes, the leaf first.
    pub fn append(&mut self, leaf: Hash) -> Vec<Node> {
        let mut node = Node { level: 0, index: self.size, hash: leaf };
        let mut finished = vec![node];
        while node.index & 1 == 1 {
            let left = self.edge.pop().expect("the edge has one hash for each 1 bit of the size");
            node = Node { level: node.level + 1, index: node.index >> 1, hash: node_hash(&left, &node.hash) };
            finished.push(node);
        }
        self.edge.push(node.hash);
        self.size += 1;
        finished
    }

    /// The root of the tree as it stands.
    pub fn root(&self) -> Hash {
        fold(self.edge.iter().rev().copied()).unwrap_or_else(empty_root)
    }
}

/// What is read; becomes a [`Frontier`] when size and edge agree.
#[derive(Deserialize)]
struct RawFrontier {
    size: u64,
    edge: Vec<Hash>,
}

impl TryFrom<RawFrontier> for Frontier {
    type Error = &'static str;

    fn try_from(raw: RawFrontier) -> Result<Self, Self::Error> {
        if raw.edge.len() == raw.size.count_ones() as usize {
            Ok(Frontier { size: raw.size, edge: raw.edge })
        } else {
            Err("the edge of a tree needs one hash for each 1 bit of its size")
        }
    }
}

/// The root the tree had when it held `size` leaves.
pub fn root_at(size: u64, nodes: Nodes<'_>) -> Result<Hash, TreeError> {
    if size == 0 { Ok(empty_root()) } else { range_hash(0, size, nodes) }
}

/// The hashes beside the way from leaf `index` up to the root of the first `size` leaves, the lowest first.
pub fn inclusion_proof(index: u64, size: u64, nodes: Nodes<'_>) -> Result<Vec<Hash>, TreeError> {
    if index >= size {
        return Err(TreeError::OutOfRange(index, size));
    }
    let (mut lo, mut hi) = (0, size);
    let mut proof = Vec::new();
    while hi - lo > 1 {
        let middle = lo + split(hi - lo);
        if index < middle {
            proof.push(range_hash(middle, hi, nodes)?);
            hi = middle;
        } else {
            proof.push(range_hash(lo, middle, nodes)?);
            lo = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The hashes that show that the first `old` leaves of a tree of `new` leaves are those of the older tree.
pub fn consistency_proof(old: u64, new: u64, nodes: Nodes<'_>) -> Result<Vec<Hash>, TreeError> {
    if old > new {
        return Err(TreeError::OutOfRange(old, new));
    }
    let mut proof = Vec::new();
    if old == 0 || old == new {
        return Ok(proof);
    }
    let (mut lo, mut hi) = (0, new);
    while old != hi {
        let middle = lo + split(hi - lo);
        if old <= middle {
            proof.push(range_hash(middle, hi, nodes)?);
            hi = middle;
        } else {
            proof.push(range_hash(lo, middle, nodes)?);
            lo = middle;
        }
    }
    // A reader of the proof has the old root already when it is the node the walk ends at.
    if lo > 0 {
        proof.push(range_hash(lo, hi, nodes)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that leaf `index` is in the tree of `size` leaves with this root.
pub fn verify_inclusion(leaf: Hash, index: u64, size: u64, proof: &[Hash], root: Hash) -> Result<(), TreeError> {
    if index >= size {
        return Err(TreeError::OutOfRange(index, size));
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for beside in proof {
        if last == 0 {
            return Err(TreeError::WrongLength);
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(beside, &hash);
            skip_lone(&mut at, &mut last);
        } else {
            hash = node_hash(&hash, beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last != 0 {
        return Err(TreeError::WrongLength);
    }
    if hash == root { Ok(()) } else { Err(TreeError::WrongRoot) }
}

/// Checks that the tree of `new` leaves begins with the tree of `old` leaves: nothing was changed or removed.
pub fn verify_consistency(old: u64, new: u64, old_root: Hash, new_root: Hash, proof: &[Hash]) -> Result<(), TreeError> {
    if old > new {
        return Err(TreeError::OutOfRange(old, new));
    }
    if old == 0 || old == new {
        let holds = if old == new { old_root == new_root } else { old_root == empty_root() };
        return match (proof.is_empty(), holds) {
            (false, _) => Err(TreeError::WrongLength),
            (true, false) => Err(TreeError::WrongRoot),
            (true, true) => Ok(()),
        };
    }
    let (mut at, mut last) = (old - 1, new - 1);
    let mut rest = proof.iter();
    let start = if old.is_power_of_two() { old_root } else { *rest.next().ok_or(TreeError::WrongLength)? };
    let levels = at.trailing_ones();
    (at, last) = (at.checked_shr(levels).unwrap_or(0), last.checked_shr(levels).unwrap_or(0));
    let (mut old_hash, mut new_hash) = (start, start);
    for beside in rest {
        if last == 0 {
            return Err(TreeError::WrongLength);
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(beside, &old_hash);
            new_hash = node_hash(beside, &new_hash);
            skip_lone(&mut at, &mut last);
        } else {
            new_hash = node_hash(&new_hash, beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last != 0 {
        return Err(TreeError::WrongLength);
    }
    if old_hash == old_root && new_hash == new_root { Ok(()) } else { Err(TreeError::WrongRoot) }
}

/// Climbs past the levels where the last node has no partner: it moves up unhashed.
fn skip_lone(at: &mut u64, last: &mut u64) {
    while *at & 1 == 0 && *at != 0 {
        *at >>= 1;
        *last >>= 1;
    }
}

/// How many of `len` > 1 leaves go to the left: the largest power of two below `len`.
fn split(len: u64) -> u64 {
    1 << (len - 1).ilog2()
}

/// The hash of leaves `lo..hi`, not empty, from the complete subtrees they are made of.
///
/// `lo` comes from splitting, so it is a multiple of every power of two up to the range's length.
fn range_hash(lo: u64, hi: u64, nodes: Nodes<'_>) -> Result<Hash, TreeError> {
    let mut parts = Vec::new();
    let mut at = lo;
    while at < hi {
        let level = (hi - at).ilog2() as u8;
        let index = at >> level;
        parts.push(nodes(level, index).ok_or(TreeError::MissingNode { level, index })?);
        at += 1 << level;
    }
    Ok(fold(parts.into_iter().rev()).unwrap_or_else(empty_root))
}

/// Joins subtree roots given from the right; the smallest are joined first.
fn fold(from_the_right: impl Iterator<Item = Hash>) -> Option<Hash> {
    from_the_right.reduce(|right, left| node_hash(&left, &right))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The definition of RFC 6962, section 2.1, word by word.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            _ => {
                let k = (1..leaves.len()).rev().find(|k| k.is_power_of_two()).unwrap();
                node_hash(&by_definition(&leaves[..k]), &by_definition(&leaves[k..]))
            }
        }
    }

    struct Tree {
        leaves: Vec<Hash>,
        nodes: BTreeMap<(u8, u64), Hash>,
        frontier: Frontier,
    }

    fn tree(leaves: &[&[u8]]) -> Tree {
        let mut tree = Tree {
            leaves: leaves.iter().map(|l| leaf_hash(l)).collect(),
            nodes: BTreeMap::new(),
            frontier: Frontier::default(),
        };
        for leaf in &tree.leaves {
            for node in tree.frontier.append(*leaf) {
                assert_eq!(tree.nodes.insert((node.level, node.index), node.hash), None, "a node is finished once");
            }
        }
        tree
    }

    fn numbered(count: u8) -> Tree {
        let leaves: Vec<[u8; 1]> = (0..count).map(|i| [i]).collect();
        tree(&leaves.iter().map(<[u8; 1]>::as_slice).collect::<Vec<_>>())
    }

    fn hash(hex: &str) -> Hash {
        hex.parse().unwrap()
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        // The test vectors of the reference implementation of RFC 6962.
        let leaves: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
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
        ];
        let all = tree(&leaves);
        for (size, root) in roots.iter().enumerate() {
            assert_eq!(root_at(size as u64, &|l, i| all.nodes.get(&(l, i)).copied()), Ok(hash(root)));
            assert_eq!(tree(&leaves[..size]).frontier.root(), hash(root));
        }
        let proof = inclusion_proof(0, 8, &|l, i| all.nodes.get(&(l, i)).copied()).unwrap();
        assert_eq!(
            proof,
            [
                hash("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"),
                hash("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"),
                hash("6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
            ]
        );
    }

    #[test]
    fn every_size_to_70_gives_the_defined_root() {
        let all = numbered(70);
        for size in 0..=70 {
            let part = numbered(size);
            let root = by_definition(&all.leaves[..usize::from(size)]);
            assert_eq!(part.frontier.root(), root);
            assert_eq!(part.frontier.size, u64::from(size));
            assert_eq!(root_at(size.into(), &|l, i| all.nodes.get(&(l, i)).copied()), Ok(root));
        }
        assert_eq!(
            root_at(71, &|l, i| all.nodes.get(&(l, i)).copied()),
            Err(TreeError::MissingNode { level: 0, index: 70 })
        );
    }

    #[test]
    fn every_inclusion_proof_to_70_holds_and_no_other() {
        let all = numbered(70);
        let nodes: Nodes<'_> = &|l, i| all.nodes.get(&(l, i)).copied();
        for size in 1..=70 {
            let root = root_at(size, nodes).unwrap();
            for index in 0..size {
                let leaf = all.leaves[index as usize];
                let proof = inclusion_proof(index, size, nodes).unwrap();
                assert_eq!(verify_inclusion(leaf, index, size, &proof, root), Ok(()));
                assert!(verify_inclusion(Hash::ZERO, index, size, &proof, root).is_err());
                assert!(verify_inclusion(leaf, index, size, &proof, Hash::ZERO).is_err());
                let elsewhere = (index + 1) % size;
                assert!(elsewhere == index || verify_inclusion(leaf, elsewhere, size, &proof, root).is_err());
                for bad in damaged(&proof) {
                    assert!(verify_inclusion(leaf, index, size, &bad, root).is_err());
                }
            }
            assert_eq!(inclusion_proof(size, size, nodes), Err(TreeError::OutOfRange(size, size)));
        }
    }

    #[test]
    fn every_consistency_proof_to_70_holds_and_no_other() {
        let all = numbered(70);
        let nodes: Nodes<'_> = &|l, i| all.nodes.get(&(l, i)).copied();
        let roots: Vec<Hash> = (0..=70).map(|size| root_at(size, nodes).unwrap()).collect();
        for new in 0..=70 {
            for old in 0..=new {
                let (before, after) = (roots[old as usize], roots[new as usize]);
                let proof = consistency_proof(old, new, nodes).unwrap();
                assert_eq!(verify_consistency(old, new, before, after, &proof), Ok(()), "{old} {new}");
                assert!(verify_consistency(old, new, Hash::ZERO, after, &proof).is_err());
                assert!(old == 0 || verify_consistency(old, new, before, Hash::ZERO, &proof).is_err());
                for bad in damaged(&proof) {
                    assert!(verify_consistency(old, new, before, after, &bad).is_err(), "{old} {new}");
                }
            }
        }
        assert_eq!(consistency_proof(2, 1, nodes), Err(TreeError::OutOfRange(2, 1)));
    }

    /// The proof with each hash changed, one missing, one too many.
    fn damaged(proof: &[Hash]) -> Vec<Vec<Hash>> {
        let mut all: Vec<Vec<Hash>> = Vec::new();
        for i in 0..proof.len() {
            let mut changed = proof.to_vec();
            changed[i] = Hash::ZERO;
            let mut missing = proof.to_vec();
            missing.remove(i);
            all.extend([changed, missing]);
        }
        all.push([proof, &[Hash::ZERO]].concat());
        all
    }

    #[test]
    fn a_frontier_comes_back_only_whole() {
        let frontier = numbered(13).frontier;
        let bytes = crate::cbor::encode(&frontier);
        assert_eq!(crate::cbor::decode::<Frontier>(&bytes), Ok(frontier.clone()));
        let bytes = crate::cbor::encode(&Frontier { size: 14, edge: frontier.edge[1..].to_vec() });
        assert!(crate::cbor::decode::<Frontier>(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn hostile_proofs_never_panic(old in any::<u64>(), new in any::<u64>(), count in 0..MAX_PROOF) {
            let proof = vec![Hash::ZERO; count];
            prop_assert!(verify_inclusion(Hash::ZERO, old, new, &proof, Hash::of(b"x")).is_err());
            prop_assert!(verify_consistency(old, new, Hash::ZERO, Hash::of(b"x"), &proof).is_err());
            prop_assert!(verify_consistency(u64::MAX, u64::MAX, Hash::ZERO, Hash::of(b"x"), &proof).is_err());
            let _ = inclusion_proof(old, new, &|_, _| Some(Hash::ZERO));
            let _ = consistency_proof(old, new, &|_, _| Some(Hash::ZERO));
        }
    }
}
