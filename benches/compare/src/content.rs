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

/// 100 bytes. An `Arc` for all, since a cache's value has to be cheap to clone. What it costs beyond the 100
/// is nobody's doing: 36 bytes, of the allocator, the two counts and the pointer in the entry.
impl Payload for Arc<[u8]> {
    const PAYLOAD_BYTES: u64 = 108;

    fn of(key: u64) -> Arc<[u8]> {
        bytes(key, 0, 100).into()
    }

    fn is_of(&self, key: u64) -> bool {
        self.len() == 100 && are_of(self, key, 0)
    }
}

/// 100 bytes in the entry itself.
impl Payload for [u8; 100] {
    const PAYLOAD_BYTES: u64 = 108;

    fn of(key: u64) -> [u8; 100] {
        let mut value = [0; 100];
        fill(&mut value, key, 0);
        value
    }

    fn is_of(&self, key: u64) -> bool {
        are_of(self, key, 0)
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
    let first = first_word(key, version);
    let (words, rest) = value.as_chunks_mut::<8>();
    for (word, at) in words.iter_mut().zip(0..) {
        *word = first.wrapping_add(at).to_le_bytes();
    }
    let last = first.wrapping_add(words.len() as u64).to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
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

/// An endless sequence of keys below `count`, drawn with probabilities like 1 / rank^exponent; the ranks
/// lie anywhere among the keys.
pub struct Zipf {
    /// At each rank the sum of the weights up to it.
    cumulative: Vec<f64>,
    key_of_rank: Vec<u64>,
    random: Random,
}

impl Zipf {
    /// The sequence is the same for the same `seed`.
    pub fn new(count: u64, exponent: f64, seed: u64) -> Zipf {
        let mut sum = 0.0;
        let mut weigh = |rank: u64| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        let cumulative = (1..=count).map(&mut weigh).collect();
        Zipf { cumulative, key_of_rank: shuffled(count), random: Random(SEED ^ mix(seed + 1)) }
    }

    pub fn next_key(&mut self) -> u64 {
        let sum = self.cumulative[self.cumulative.len() - 1];
        let drawn = (self.random.next() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        let rank = self.cumulative.partition_point(|&bound| bound <= drawn);
        self.key_of_rank[rank.min(self.key_of_rank.len() - 1)]
    }

    /// All keys, the most probable first.
    pub fn by_rank(&self) -> &[u64] {
        &self.key_of_rank
    }

    /// The next `len` keys.
    pub fn take(&mut self, len: usize) -> Vec<u64> {
        (0..len).map(|_| self.next_key()).collect()
    }
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
    #[test]
    fn the_kinds_of_values_tell_keys_apart() {
        fn tells<V: Payload>() {
            assert!(V::of(7).is_of(7) && !V::of(8).is_of(7));
        }
        tells::<u64>();
        tells::<Arc<[u8]>>();
        tells::<[u8; 100]>();
    }

    #[test]
    fn zipf_draws_by_rank_and_goes_on() {
        const DRAWN: usize = 200_000;
        let (mut zipf, mut again) = (Zipf::new(1_000, 1.0, 0), Zipf::new(1_000, 1.0, 0));
        let keys = zipf.take(DRAWN);
        let parts = [again.take(DRAWN / 2), again.take(DRAWN / 2)].concat();
        assert_eq!(keys, parts, "a continuation, not the same again");
        assert_ne!(keys, Zipf::new(1_000, 1.0, 1).take(DRAWN));

        let mut counts = vec![0_u32; 1_000];
        keys.iter().for_each(|&key| counts[key as usize] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // The harmonic number of 1,000 is 7.485, so the first rank has 13.36 % and the second half as many.
        let share = |rank: usize| f64::from(counts[rank - 1]) / DRAWN as f64;
        assert!((share(1) - 0.1336).abs() < 0.005, "{}", share(1));
        assert!((share(2) - 0.0668).abs() < 0.005, "{}", share(2));
        assert!((share(10) - 0.0134).abs() < 0.003, "{}", share(10));
    }

    #[test]
    fn shuffled_keys_are_each_there_once() {
        let mut keys = shuffled(1_000);
        assert!(!keys.is_sorted());
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..1_000));
    }
}
