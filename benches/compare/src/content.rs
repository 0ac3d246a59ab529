//! Keys, and values that can be derived from their key, so that every value read can be verified.

use std::sync::Arc;

/// Fixed, so that two runs do the same.
const SEED: u64 = 0x0005_ea50_04ab_1e00;

/// SplitMix64's finalizer.
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// A value of a cache in RAM.
pub trait Payload: embercache::Value {
    /// Bytes of payload, the key's included.
    const PAYLOAD_BYTES: u64;

    /// The one right value for `key`.
    fn of(key: u64) -> Self;

    /// Whether this is it; looks at every byte.
    fn is_of(&self, key: u64) -> bool;
}

impl Payload for u64 {
    const PAYLOAD_BYTES: u64 = 16;

    fn of(key: u64) -> u64 {
        mix(!key)
    }

    fn is_of(&self, key: u64) -> bool {
        *self == mix(!key)
    }
}

/// 100 bytes. An `Arc` for all, since a cache's value has to be cheap to clone.
impl Payload for Arc<[u8]> {
    const PAYLOAD_BYTES: u64 = 108;

    fn of(key: u64) -> Arc<[u8]> {
        bytes(key, 0, 100).into()
    }

    fn is_of(&self, key: u64) -> bool {
        self.len() == 100 && are_of(self, key, 0)
    }
}

/// The value of `key` after `version` overwrites.
pub fn bytes(key: u64, version: u64, len: usize) -> Vec<u8> {
    let mut value = vec![0; len];
    fill(&mut value, key, version);
    value
}

/// The same into a buffer.
pub fn fill(value: &mut [u8], key: u64, version: u64) {
    let mut word = first_word(key, version);
    for chunk in value.chunks_mut(8) {
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        word = word.wrapping_add(1);
    }
}

/// Whether every byte is that of `key` after `version` overwrites. Without a branch for each word,
/// so that verifying costs no more than reading.
pub fn are_of(value: &[u8], key: u64, version: u64) -> bool {
    let first = first_word(key, version);
    let (words, rest) = value.as_chunks::<8>();
    let differences = words
        .iter()
        .enumerate()
        .fold(0, |found, (at, word)| found | (u64::from_le_bytes(*word) ^ first.wrapping_add(at as u64)));
    let last = first.wrapping_add(words.len() as u64).to_le_bytes();
    differences == 0 && *rest == last[..rest.len()]
}

fn first_word(key: u64, version: u64) -> u64 {
    mix(key ^ mix(version.wrapping_add(SEED)))
}

/// The keys below `count`, each once, in random order.
pub fn shuffled(count: u64) -> Vec<u64> {
    let mut random = Random(SEED);
    let mut keys: Vec<u64> = (0..count).collect();
    for end in (1..keys.len()).rev() {
        keys.swap(end, (random.next() % (end as u64 + 1)) as usize);
    }
    keys
}

/// `len` keys below `count`, drawn with probabilities like 1 / rank^exponent; the ranks lie anywhere
/// among the keys.
pub fn zipf(count: u64, exponent: f64, len: usize) -> Vec<u64> {
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let key_of_rank = shuffled(count);
    let mut random = Random(SEED ^ 1);
    (0..len)
        .map(|_| {
            let drawn = (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
            let rank = cumulative.partition_point(|&bound| bound <= drawn);
            key_of_rank[rank.min(key_of_rank.len() - 1)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_of_its_key_and_version_only() {
        for len in [1, 8, 100, 4096] {
            let mut value = bytes(7, 1, len);
            assert!(are_of(&value, 7, 1));
            assert!(!are_of(&value, 8, 1) && !are_of(&value, 7, 0));
            value[len - 1] ^= 1;
            assert!(!are_of(&value, 7, 1));
        }
    }
}
