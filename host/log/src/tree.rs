//! The log is a Merkle tree (RFC 6962, SHA-256): one root names every entry, and short proofs show that an entry is
//! in it and that a later root only added to an earlier one.
//!
//! ```text
//!  level 2             n(2,0)                 complete nodes are stored once, when their last leaf arrives;
//!  level 1      n(1,0)      n(1,1)            (level, index) covers leaves index << level .. (index + 1) << level
//!  level 0     d0    d1    d2    d3    d4     with d4 the root of size 5 is H(n(2,0), d4)
//! ```
//!
//! [`Frontier`] is all a writer must keep (one hash per set bit of the size). Proofs are built from stored complete
//! nodes through a closure, and checked with nothing but the proof itself.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hash::Hash;

/// Longest proof of any kind: an inclusion path has at most 64 hashes, a consistency proof one more.
pub const MAX_PROOF_HASHES: usize = 65;

/// Looks up the hash of a complete node by level and index; `None` when it is not at hand.
pub type Nodes<'a> = dyn Fn(u8, u64) -> Option<Hash> + 'a;

/// Why a proof cannot be built or does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The asked index or size is outside of the tree.
    #[error("{what} {value} is outside of a tree of {size} entries")]
    OutOfRange {
        /// What was asked for.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Entries in the tree.
        size: u64,
    },
    /// A node needed for the proof is not stored.
    #[error("node {index} of level {level} is missing")]
    MissingNode {
        /// Height above the leaves.
        level: u8,
        /// Position within the level.
        index: u64,
    },
    /// The proof has too many or too few hashes for these sizes.
    #[error("the proof has the wrong length")]
    WrongLength,
    /// The proof leads to another root.
    #[error("the proof leads to another root")]
    WrongRoot,
}

/// A complete node: the root of `2^level` leaves starting at `index << level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Height above the leaves; 0 is a leaf.
    pub level: u8,
    /// Position within the level.
    pub index: u64,
    /// The node's hash.
    pub hash: Hash,
}

/// The hash of a leaf: a prefix byte keeps leaves and inner nodes apart.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut sha = Sha256::new();
    sha.update([0]);
    sha.update(entry);
    Hash::from_bytes(sha.finalize().into())
}

/// The hash of an inner node.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut sha = Sha256::new();
    sha.update([1]);
    sha.update(left.as_bytes());
    sha.update(right.as_bytes());
    Hash::from_bytes(sha.finalize().into())
}

/// The root of a tree without entries.
pub fn empty_root() -> Hash {
    Hash::of(b"")
}

/// The right edge of a growing tree: enough to append and to know the root, nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frontier {
    /// Number of leaves so far.
    pub size: u64,
    /// Roots of the complete subtrees from left (largest) to right, one per set bit of `size`.
    pub edge: Vec<Hash>,
}

impl Frontier {
    /// An empty tree.
    pub fn new() -> Frontier {
        Frontier::default()
    }

    /// True when the edge fits the size; to be asked after reading a frontier back.
    pub fn is_valid(&self) -> bool {
        self.edge.len() == self.size.count_ones() as usize
    }

    /// Adds a leaf (a [`leaf_hash`]) and returns every node it completes, the leaf first, each above the one before.
    pub fn append(&mut self, leaf: Hash) -> Vec<Node> {
        self.append_node(0, leaf)
    }

    /// Adds the `2^level` leaves that a complete node stands for, where such a node can stand: behind a multiple of
    /// that many. Returns every node it completes, itself first.
    pub fn append_node(&mut self, level: u8, hash: Hash) -> Vec<Node> {
        assert!(self.is_valid(), "frontier of size {} has {} hashes", self.size, self.edge.len());
        assert_eq!(self.size >> level << level, self.size, "a node of level {level} does not stand there");
        let width = 1 << level;
        let completed = level + (self.size >> level).trailing_ones() as u8;
        let mut node = Node { level, index: self.size >> level, hash };
        let mut nodes = vec![node];
        for level in level + 1..=completed {
            if let Some(left) = self.edge.pop() {
                node = Node { level, index: node.index >> 1, hash: node_hash(&left, &node.hash) };
                nodes.push(node);
            }
        }
        self.edge.push(node.hash);
        self.size += width;
        nodes
    }

    /// The root of the tree as it stands.
    pub fn root(&self) -> Hash {
        let mut hashes = self.edge.iter().rev();
        match hashes.next() {
            None => empty_root(),
            Some(last) => hashes.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

/// The root the tree had when it held `size` entries.
pub fn root_at(size: u64, nodes: &Nodes) -> Result<Hash, TreeError> {
    if size == 0 { Ok(empty_root()) } else { range_root(0, size, nodes) }
}

/// The hashes beside the path from leaf `index` up to the root of size `size`, lowest first.
pub fn inclusion_proof(index: u64, size: u64, nodes: &Nodes) -> Result<Vec<Hash>, TreeError> {
    if index >= size {
        return Err(TreeError::OutOfRange { what: "entry", value: index, size });
    }
    let mut proof = Vec::new();
    let (mut start, mut len) = (0, size);
    // Down from the root: each step writes the sibling and enters the half that holds the leaf.
    while len > 1 {
        let left = left_len(len);
        if index - start < left {
            proof.push(range_root(start + left, len - left, nodes)?);
            len = left;
        } else {
            proof.push(range_root(start, left, nodes)?);
            start += left;
            len -= left;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Shows that the tree of size `new` begins with the tree of size `old`. Empty when the sizes are equal or `old` is 0.
pub fn consistency_proof(old: u64, new: u64, nodes: &Nodes) -> Result<Vec<Hash>, TreeError> {
    if old > new {
        return Err(TreeError::OutOfRange { what: "old size", value: old, size: new });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let mut proof = Vec::new();
    let (mut start, mut len) = (0, new);
    // Down to the largest subtree that the old tree ends with; RFC 6962 section 2.1.2, as a loop.
    while start + len != old {
        let left = left_len(len);
        if old - start <= left {
            proof.push(range_root(start + left, len - left, nodes)?);
            len = left;
        } else {
            proof.push(range_root(start, left, nodes)?);
            start += left;
            len -= left;
        }
    }
    // The old root itself is known to the verifier when the old tree is that one subtree.
    if start != 0 {
        proof.push(range_root(start, len, nodes)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that `leaf` stands at `index` in the tree of `size` entries with this `root` (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), TreeError> {
    if index >= size {
        return Err(TreeError::OutOfRange { what: "entry", value: index, size });
    }
    let (mut here, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(TreeError::WrongLength);
        }
        if here & 1 == 1 || here == last {
            hash = node_hash(sibling, &hash);
            skip_lone_levels(&mut here, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        here >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(TreeError::WrongLength);
    }
    if hash == *root { Ok(()) } else { Err(TreeError::WrongRoot) }
}

/// Checks that the tree (`new`, `new_root`) begins with the tree (`old`, `old_root`) (RFC 9162 section 2.1.4.2).
/// Every tree begins with the empty one.
pub fn verify_consistency(
    old: u64,
    new: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), TreeError> {
    if old > new {
        return Err(TreeError::OutOfRange { what: "old size", value: old, size: new });
    }
    if old == 0 || old == new {
        if !proof.is_empty() {
            return Err(TreeError::WrongLength);
        }
        let expected = if old == new { *new_root } else { empty_root() };
        // A tree without entries has one root, also when both sides agree on another.
        let empty_lie = new == 0 && *new_root != empty_root();
        return if *old_root == expected && !empty_lie { Ok(()) } else { Err(TreeError::WrongRoot) };
    }
    let (mut here, mut last) = (old - 1, new - 1);
    while here & 1 == 1 {
        here >>= 1;
        last >>= 1;
    }
    // When the old tree is one complete subtree its root is where both paths start.
    let (first, rest) =
        if old.is_power_of_two() { (old_root, proof) } else { proof.split_first().ok_or(TreeError::WrongLength)? };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(TreeError::WrongLength);
        }
        if here & 1 == 1 || here == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            skip_lone_levels(&mut here, &mut last);
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        here >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(TreeError::WrongLength);
    }
    if old_hash == *old_root && new_hash == *new_root { Ok(()) } else { Err(TreeError::WrongRoot) }
}

/// On the right edge a node without a sibling moves up unchanged; go to the level where it is a right child.
fn skip_lone_levels(here: &mut u64, last: &mut u64) {
    while *here & 1 == 0 && *here != 0 {
        *here >>= 1;
        *last >>= 1;
    }
}

/// The root of `len` leaves from `start`; `start` is a multiple of the largest power of two not above `len`.
fn range_root(start: u64, len: u64, nodes: &Nodes) -> Result<Hash, TreeError> {
    if len.is_power_of_two() {
        let level = len.trailing_zeros() as u8;
        let index = start >> level;
        return nodes(level, index).ok_or(TreeError::MissingNode { level, index });
    }
    let left = left_len(len);
    Ok(node_hash(&range_root(start, left, nodes)?, &range_root(start + left, len - left, nodes)?))
}

/// The largest power of two below `len`, for `len` of 2 and more: where RFC 6962 splits a tree.
fn left_len(len: u64) -> u64 {
    1 << (len - 1).ilog2()
}

#[cfg(test)]
mod tests;
