//! The 64-bit hash that stands for a key everywhere behind the typed API.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// xxh3 of a key's encoded bytes under the directory's random seed.
///
/// The seed is drawn once a directory and kept in STATE: nobody who does not know it can choose
/// keys that collide, and a hash on disk means the same key after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyHash(pub(crate) u64);

impl KeyHash {
    #[inline]
    pub(crate) fn of(encoded_key: &[u8], seed: u64) -> KeyHash {
        KeyHash(xxh3_64_with_seed(encoded_key, seed))
    }

    /// The stripe that owns this hash, of `1 << stripe_bits`: its top bits, so that a snapshot
    /// taken with another number of stripes still splits and joins by contiguous ranges.
    #[inline]
    pub(crate) fn stripe(self, stripe_bits: u32) -> usize {
        // Two shifts, since a shift by 64 (one stripe) would be an overflow.
        ((self.0 >> 1) >> (63 - stripe_bits)) as usize
    }

    /// By this the hashes of a stripe are ordered, in its index and in the snapshot: with the halves swapped,
    /// since the top bits are equal in all of them.
    #[inline]
    pub(crate) fn order(self) -> u64 {
        self.0.rotate_left(32)
    }
}

/// A map by key hashes, which are not hashed again.
pub(crate) type HashMapByKeyHash<T> = HashMap<KeyHash, T, BuildHasherDefault<AlreadyHashed>>;

/// Passes a [`KeyHash`] on, with the halves swapped: the map takes the top bits for a tag, and those
/// are equal in all hashes of a stripe.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a key hash is one u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash.rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_are_ranges_of_the_hash() {
        assert_eq!(KeyHash(u64::MAX).stripe(0), 0);
        assert_eq!(KeyHash(u64::MAX).stripe(6), 63);
        assert_eq!(KeyHash(1 << 58).stripe(6), 1);
        assert_eq!(KeyHash((1 << 58) - 1).stripe(6), 0);
    }
}
