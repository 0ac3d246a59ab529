//! Memory of entries that are gone: four bytes each, never a key, and it may be wrong.

use crate::{hash::KeyHash, processor::prefetch};

const WAYS: usize = 8;

/// How far the wanted life may drift from the built one, in percent, before the table is rebuilt.
const DRIFT_PERCENT: u64 = 10;

/// Stamps an entry's life is measured in: fine enough for "near", and few enough that a slot is
/// long overwritten before its 12-bit stamp comes round again.
const STAMPS_A_LIFE: u64 = 512;

const STAMP_BITS: u32 = 12;
const STAMP_MASK: u32 = (1 << STAMP_BITS) - 1;

const _: () = assert!(Trace::FINGERPRINT_BITS + STAMP_BITS + Trace::FREQ_BITS + 1 == u32::BITS);
const _: () = assert!(STAMPS_A_LIFE * 4 <= 1 << STAMP_BITS);

/// `fingerprint 16 | stamp 12 | freq 3 | live 1`. All zeroes is a free slot.
#[derive(Clone, Copy, Debug, Default)]
struct Trace(u32);

impl Trace {
    const FINGERPRINT_BITS: u32 = 16;
    const FREQ_BITS: u32 = 3;
    const LIVE: u32 = 1;

    fn new(fingerprint: u32, stamp: u32, freq: u8) -> Trace {
        debug_assert!(freq < 1 << Trace::FREQ_BITS);
        Trace(fingerprint << 16 | (stamp & STAMP_MASK) << 4 | u32::from(freq) << 1 | Trace::LIVE)
    }

    fn is_live(self) -> bool {
        self.0 & Trace::LIVE != 0
    }

    fn fingerprint(self) -> u32 {
        self.0 >> 16
    }

    fn stamp(self) -> u32 {
        self.0 >> 4 & STAMP_MASK
    }

    fn freq(self) -> u8 {
        (self.0 >> 1) as u8 & 7
    }
}

/// Half a cache line, so that a probe touches one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
struct Bucket([Trace; WAYS]);

const _: () = assert!(size_of::<Bucket>() == 32);

/// What a ghost knows about an entry that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    /// Its frequency when it left.
    pub(super) freq: u8,
    /// How many have been put since, to the accuracy of a stamp.
    pub(super) age: u64,
}

/// Remembers the hashes that were put last: one slot each for `life` of them, so that a bucket that
/// is asked for more than its share drops its oldest a little early. Its clock counts its own puts:
/// an idle ghost forgets nothing.
///
/// A fingerprint may stand for another key: once in some thousand takes, a key is treated as
/// returned that never was here. That costs a little of the hit ratio and nothing else.
#[derive(Debug)]
pub(super) struct Ghost {
    buckets: Box<[Bucket]>,
    life: u64,
    /// Puts a stamp: `life` is `STAMPS_A_LIFE` stamps, or one put is one stamp where it is short.
    stamp_puts: u64,
    life_stamps: u32,
    /// The last put's stamp, which wraps, and how many puts it is until the next one begins.
    stamp: u32,
    stamp_puts_left: u64,
}

impl Ghost {
    /// A ghost that remembers nothing and has no memory until it is [`fit`](Ghost::fit).
    pub(super) fn new() -> Ghost {
        Ghost { buckets: Box::new([]), life: 0, stamp_puts: 1, life_stamps: 0, stamp: 0, stamp_puts_left: 1 }
    }

    /// Makes the ghost remember `life` puts, and rebuilds the table if that is far from the
    /// present size. Callers say what they want before each put: the drift is what pays for the
    /// rebuild.
    #[inline]
    pub(super) fn fit(&mut self, life: u64) {
        if life.abs_diff(self.life) * 100 > self.life * DRIFT_PERCENT {
            self.rebuild(life);
        }
    }

    /// Remembers an entry, in the place of a dead one or else of the oldest in its bucket.
    pub(super) fn put(&mut self, hash: KeyHash, freq: u8) {
        if self.buckets.is_empty() {
            return;
        }
        self.stamp_puts_left -= 1;
        if self.stamp_puts_left == 0 {
            self.stamp = (self.stamp + 1) & STAMP_MASK;
            self.stamp_puts_left = self.stamp_puts;
        }
        let trace = Trace::new(fingerprint(hash), self.stamp, freq);
        self.store(bucket(spread(hash), self.buckets.len()), trace);
    }

    /// Whether an entry is remembered. It goes on being so.
    pub(super) fn knows(&self, hash: KeyHash) -> bool {
        if self.buckets.is_empty() {
            return false;
        }
        let traces = &self.buckets[bucket(spread(hash), self.buckets.len())].0;
        let known =
            |&trace: &Trace| trace.fingerprint() == fingerprint(hash) && self.age_stamps(trace).is_some();
        traces.iter().any(known)
    }

    /// Has the bucket of an entry brought near.
    #[inline]
    pub(super) fn prefetch(&self, hash: KeyHash) {
        if !self.buckets.is_empty() {
            prefetch(&raw const self.buckets[bucket(spread(hash), self.buckets.len())]);
        }
    }

    /// Forgets an entry and tells what was known about it, if it is remembered.
    pub(super) fn take(&mut self, hash: KeyHash) -> Option<Returned> {
        if self.buckets.is_empty() {
            return None;
        }
        let fingerprint = fingerprint(hash);
        let index = bucket(spread(hash), self.buckets.len());
        let traces = self.buckets[index].0;
        // All eight at once, which takes a few instructions; nearly always it is none.
        if !traces.iter().fold(false, |known, trace| known | (trace.fingerprint() == fingerprint)) {
            return None;
        }
        let known = (0..WAYS).filter(|&way| traces[way].fingerprint() == fingerprint);
        let (way, age) = known.filter_map(|way| self.age_stamps(traces[way]).map(|age| (way, age))).next()?;
        self.buckets[index].0[way] = Trace::default();
        Some(Returned { freq: traces[way].freq(), age: u64::from(age) * self.stamp_puts })
    }

    pub(super) fn clear(&mut self) {
        *self = Ghost::new();
    }

    pub(super) fn overhead_bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// A slot does not hold enough of its hash to say in which of the new buckets that share the
    /// old one's range it belongs, so it goes to each: a copy in the wrong one is never found, and
    /// ages like any other.
    #[cold]
    fn rebuild(&mut self, life: u64) {
        let buckets = life.div_ceil(WAYS as u64).max(1) as usize;
        let stamp_puts = (life / STAMPS_A_LIFE).max(1);
        let mut rebuilt = Ghost {
            buckets: vec![Bucket::default(); buckets].into_boxed_slice(),
            life,
            stamp_puts,
            life_stamps: (life / stamp_puts) as u32,
            stamp: self.stamp,
            stamp_puts_left: stamp_puts,
        };
        for (index, old) in self.buckets.iter().enumerate() {
            let first = bucket(lowest(index, self.buckets.len()), buckets);
            let last = bucket(lowest(index + 1, self.buckets.len()) - 1, buckets);
            for &trace in &old.0 {
                let Some(age) = self.age_stamps(trace) else { continue };
                let age = u64::from(age) * self.stamp_puts;
                if age > life {
                    continue;
                }
                let stamp = rebuilt.stamp.wrapping_sub((age / rebuilt.stamp_puts) as u32);
                let trace = Trace::new(trace.fingerprint(), stamp, trace.freq());
                for index in first..=last {
                    rebuilt.store(index, trace);
                }
            }
        }
        *self = rebuilt;
    }

    fn store(&mut self, index: usize, trace: Trace) {
        // Age above way, in numbers that a processor compares eight at a time.
        let rank = |way: usize, held: Trace| {
            let age = self.age_stamps(held).unwrap_or(STAMP_MASK + 1);
            (age * WAYS as u32) as i32 + way as i32
        };
        let traces = &self.buckets[index].0;
        let oldest = (0..WAYS).fold(0, |oldest, way| rank(way, traces[way]).max(oldest));
        self.buckets[index].0[oldest as usize % WAYS] = trace;
    }

    /// How many stamps have been begun since, or `None` for a free slot or a dead entry.
    #[inline]
    fn age_stamps(&self, trace: Trace) -> Option<u32> {
        let stamps = self.stamp.wrapping_sub(trace.stamp()) & STAMP_MASK;
        (trace.is_live() && stamps <= self.life_stamps).then_some(stamps)
    }
}

fn fingerprint(hash: KeyHash) -> u32 {
    hash.0 as u32 & 0xffff
}

/// All of a stripe's hashes begin with the same bits, so a bucket is chosen by bits that depend on
/// the lower ones.
fn spread(hash: KeyHash) -> u64 {
    hash.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// Bucket `i` of `n` has the hashes from `lowest(i, n)` to `lowest(i + 1, n) - 1`: any number of
/// buckets will do, not only powers of two.
fn bucket(spread: u64, buckets: usize) -> usize {
    ((spread * buckets as u64) >> 32) as usize
}

fn lowest(bucket: usize, buckets: usize) -> u64 {
    ((bucket as u64) << 32).div_ceil(buckets as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> KeyHash {
        KeyHash::of(&key.to_le_bytes(), 1)
    }

    fn ghost(life: u64) -> Ghost {
        let mut ghost = Ghost::new();
        ghost.fit(life);
        ghost
    }

    fn known(ghost: &mut Ghost, keys: std::ops::Range<u64>) -> usize {
        keys.filter(|&key| ghost.take(hash(key)).is_some()).count()
    }

    #[test]
    fn a_return_tells_frequency_and_age_once() {
        let mut ghost = ghost(100);
        ghost.put(hash(1), 5);
        (2..12).for_each(|key| ghost.put(hash(key), 0));
        assert_eq!(ghost.take(hash(1)), Some(Returned { freq: 5, age: 10 }));
        assert_eq!(ghost.take(hash(1)), None);
        assert_eq!(ghost.take(hash(99)), None, "never put");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut ghost = ghost(10_000);
        (0..40_000).for_each(|key| ghost.put(hash(key), 0));
        assert!(known(&mut ghost, 38_000..40_000) > 1950, "young");
        assert!(known(&mut ghost, 0..28_000) < 50, "past their life");
    }

    #[test]
    fn a_dead_entry_gives_its_slot_before_a_live_one() {
        let mut ghost = ghost(100);
        ghost.put(hash(1), 0);
        (2..103).for_each(|key| ghost.put(hash(key), 0));
        assert_eq!(ghost.take(hash(1)), None, "101 puts old");
    }

    #[test]
    fn memory_follows_the_life_and_history_survives() {
        let mut ghost = ghost(10_000);
        (0..5_000).for_each(|key| ghost.put(hash(key), 3));
        ghost.fit(10_900);
        assert_eq!(ghost.life, 10_000, "too little drift to rebuild");
        ghost.fit(20_000);
        assert_eq!(ghost.overhead_bytes(), 4 * 20_000);
        let returned = ghost.take(hash(4_000)).expect("remembered");
        assert_eq!(returned.freq, 3);
        assert!(returned.age.abs_diff(999) <= 60, "age {}", returned.age);
        ghost.fit(3_000);
        assert_eq!(ghost.overhead_bytes(), 4 * 3_000);
        assert!(known(&mut ghost, 4_800..5_000) > 190, "the youngest survive");
        assert!(known(&mut ghost, 0..1_900) < 20, "older than the new life");
    }

    #[test]
    fn a_much_shorter_life_does_not_make_the_old_young() {
        let mut ghost = ghost(80_000);
        (0..8_000).for_each(|key| ghost.put(hash(key), 0));
        ghost.fit(500);
        assert!(known(&mut ghost, 3_400..3_900) < 5, "4096 stamps old, and stamps wrap there");
    }

    #[test]
    fn hashes_of_one_stripe_spread_over_all_buckets() {
        let mut ghost = ghost(8_000);
        let of_a_stripe = |key| KeyHash(hash(key).0 >> 8);
        (0..8_000).for_each(|key| ghost.put(of_a_stripe(key), 0));
        let empty = ghost.buckets.iter().filter(|bucket| !bucket.0.iter().any(|t| t.is_live()));
        assert!(empty.count() < 10);
    }
}
