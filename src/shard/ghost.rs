//! Memory of entries that are gone: four bytes each, never a key, and it may be wrong.

use std::iter;

use crate::{
    hash::KeyHash,
    processor::{equal_numbers, prefetch},
};

const WAYS: usize = 8;

/// How far the wanted life may drift from the built one, in percent, before the table is rebuilt.
const DRIFT_PERCENT: u64 = 10;

/// Slots of a ghost's first table.
const SLOTS_MIN: u64 = 64;

/// By what a young ghost's table grows: each time brings copies into wrong buckets.
const GROWTH: u64 = 4;

/// Puts until a table has to grow that has all the slots it will ever need: nobody puts so many.
const GROWN: u64 = u64::MAX;

/// Stamps an entry's life is measured in: fine enough for "near", and few enough that a slot is
/// long overwritten before its 12-bit stamp comes round again.
const STAMPS_A_LIFE: u64 = 512;

const STAMP_BITS: u32 = 12;
const STAMP_MASK: u16 = (1 << STAMP_BITS) - 1;

const _: () = assert!(STAMP_BITS + Trace::FREQ_BITS + 1 == u16::BITS);
const _: () = assert!(STAMPS_A_LIFE * 4 <= 1 << STAMP_BITS);

/// `stamp 12 | freq 3 | live 1`. All zeroes is a free place.
#[derive(Clone, Copy, Debug, Default)]
struct Trace(u16);

impl Trace {
    const FREQ_BITS: u32 = 3;
    const LIVE: u16 = 1;

    fn new(stamp: u16, freq: u8) -> Trace {
        debug_assert!(freq < 1 << Trace::FREQ_BITS);
        Trace((stamp & STAMP_MASK) << 4 | u16::from(freq) << 1 | Trace::LIVE)
    }

    fn is_live(self) -> bool {
        self.0 & Trace::LIVE != 0
    }

    fn stamp(self) -> u16 {
        self.0 >> 4
    }

    fn freq(self) -> u8 {
        (self.0 >> 1) as u8 & 7
    }
}

/// Traces, youngest first, and free places behind them. Half a cache line, so that a probe touches one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
struct Bucket {
    fingerprints: [u16; WAYS],
    traces: [Trace; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 32);

impl Bucket {
    /// The ways whose fingerprint is this one, free places and dead traces included.
    #[inline]
    fn ways_of(&self, fingerprint: u16) -> impl Iterator<Item = usize> + use<> {
        let mut ways = equal_numbers(self.fingerprints, fingerprint);
        iter::from_fn(move || {
            let way = (ways != 0).then(|| ways.trailing_zeros() as usize)?;
            ways &= ways - 1;
            Some(way)
        })
    }

    /// Puts a trace in front of those from `way` on; the last falls out.
    #[inline]
    fn insert(&mut self, way: usize, fingerprint: u16, trace: Trace) {
        self.fingerprints.copy_within(way..WAYS - 1, way + 1);
        self.traces.copy_within(way..WAYS - 1, way + 1);
        (self.fingerprints[way], self.traces[way]) = (fingerprint, trace);
    }

    fn remove(&mut self, way: usize) -> Trace {
        let trace = self.traces[way];
        self.fingerprints.copy_within(way + 1.., way);
        self.traces.copy_within(way + 1.., way);
        (self.fingerprints[WAYS - 1], self.traces[WAYS - 1]) = (0, Trace::default());
        trace
    }
}

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
///
/// A young ghost has memory for a few times as many as were put, so that a stripe which hardly ever
/// evicts pays for hardly any.
#[derive(Debug)]
pub(super) struct Ghost {
    buckets: Box<[Bucket]>,
    life: u64,
    /// So many puts until the table has to be larger; `GROWN` once it has a slot for each of its life.
    puts_left: u64,
    /// Puts a stamp: `life` is `STAMPS_A_LIFE` stamps, or one put is one stamp where it is short.
    stamp_puts: u64,
    life_stamps: u16,
    /// The last put's stamp, which wraps, and how many puts it is until the next one begins.
    stamp: u16,
    stamp_puts_left: u64,
}

impl Ghost {
    /// A ghost that remembers nothing and has no memory.
    pub(super) fn new() -> Ghost {
        Ghost {
            buckets: Box::new([]),
            life: 0,
            puts_left: 0,
            stamp_puts: 1,
            life_stamps: 0,
            stamp: 0,
            stamp_puts_left: 1,
        }
    }

    /// Remembers an entry for `life` puts, in the place of a dead one or else of the oldest in its
    /// bucket. The table is built anew where `life` is far from what it was made for, or where it is
    /// still to grow: the drift, or the puts since the last time, pay for that.
    pub(super) fn put(&mut self, hash: KeyHash, freq: u8, life: u64) {
        if life == 0 {
            return;
        }
        if self.puts_left == 0 || life.abs_diff(self.life) * 100 > self.life * DRIFT_PERCENT {
            self.rebuild(life);
        }
        self.puts_left -= 1;
        self.stamp_puts_left -= 1;
        if self.stamp_puts_left == 0 {
            self.stamp = (self.stamp + 1) & STAMP_MASK;
            self.stamp_puts_left = self.stamp_puts;
        }
        let index = bucket(spread(hash), self.buckets.len());
        self.buckets[index].insert(0, fingerprint(hash), Trace::new(self.stamp, freq));
    }

    /// Whether an entry is remembered. It goes on being so.
    pub(super) fn knows(&self, hash: KeyHash) -> bool {
        let Some(index) = self.index(hash) else { return false };
        let Bucket { traces, .. } = self.buckets[index];
        self.buckets[index].ways_of(fingerprint(hash)).any(|way| self.age_stamps(traces[way]).is_some())
    }

    /// Has the bucket of an entry brought near.
    #[inline]
    pub(super) fn prefetch(&self, hash: KeyHash) {
        if let Some(index) = self.index(hash) {
            prefetch(&raw const self.buckets[index]);
        }
    }

    /// Forgets an entry and tells what was known about it, if it is remembered.
    #[inline]
    pub(super) fn take(&mut self, hash: KeyHash) -> Option<Returned> {
        let index = self.index(hash)?;
        let mut ways = self.buckets[index].ways_of(fingerprint(hash)).peekable();
        // Nearly always there is none.
        ways.peek()?;
        self.take_one_of(index, ways)
    }

    /// The same, of the first of these ways that is alive.
    fn take_one_of(&mut self, index: usize, mut ways: impl Iterator<Item = usize>) -> Option<Returned> {
        let age_of = |way: usize| self.age_stamps(self.buckets[index].traces[way]);
        let (way, age) = ways.find_map(|way| Some((way, age_of(way)?)))?;
        let freq = self.buckets[index].remove(way).freq();
        Some(Returned { freq, age: u64::from(age) * self.stamp_puts })
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
        let (slots, puts_left) = self.next_size(life);
        let buckets = slots.div_ceil(WAYS as u64) as usize;
        let stamp_puts = (life / STAMPS_A_LIFE).max(1);
        let mut rebuilt = Ghost {
            buckets: vec![Bucket::default(); buckets].into_boxed_slice(),
            life,
            puts_left,
            stamp_puts,
            life_stamps: (life / stamp_puts) as u16,
            stamp: self.stamp,
            stamp_puts_left: stamp_puts,
        };
        for (index, old) in self.buckets.iter().enumerate() {
            let first = bucket(lowest(index, self.buckets.len()), buckets);
            let last = bucket(lowest(index + 1, self.buckets.len()) - 1, buckets);
            // The oldest first, so that nearly all come in front.
            for (&fingerprint, &trace) in old.fingerprints.iter().zip(&old.traces).rev() {
                let Some(age) = self.age_stamps(trace) else { continue };
                let age = u64::from(age) * self.stamp_puts;
                if age > life {
                    continue;
                }
                let stamp = rebuilt.stamp.wrapping_sub((age / rebuilt.stamp_puts) as u16);
                let trace = Trace::new(stamp, trace.freq());
                for index in first..=last {
                    rebuilt.insert_by_age(index, fingerprint, trace);
                }
            }
        }
        *self = rebuilt;
    }

    /// The slots of a table for `life`, and how many puts it will take before it has to grow. One that
    /// grows is half full at the most, so that its traces' copies in wrong buckets displace few others.
    fn next_size(&self, life: u64) -> (u64, u64) {
        let slots = (self.buckets.len() * WAYS) as u64;
        let (slots, puts_left) = match self.puts_left {
            0 if slots == 0 => (SLOTS_MIN, SLOTS_MIN / 2),
            0 => (slots * GROWTH, slots * GROWTH / 2 - slots / 2),
            puts_left => (slots, puts_left),
        };
        if puts_left > life || slots >= life { (life.max(1), GROWN) } else { (slots, puts_left) }
    }

    /// Puts a trace of any age where it belongs, unless the bucket is full of younger ones.
    fn insert_by_age(&mut self, index: usize, fingerprint: u16, trace: Trace) {
        let age = self.age_stamps(trace);
        let is_older = |&held: &Trace| self.age_stamps(held).is_none_or(|held| Some(held) >= age);
        if let Some(way) = self.buckets[index].traces.iter().position(is_older) {
            self.buckets[index].insert(way, fingerprint, trace);
        }
    }

    /// The bucket of an entry, once there are any.
    #[inline]
    fn index(&self, hash: KeyHash) -> Option<usize> {
        (!self.buckets.is_empty()).then(|| bucket(spread(hash), self.buckets.len()))
    }

    /// How many stamps have been begun since, or `None` for a free place or a dead entry.
    #[inline]
    fn age_stamps(&self, trace: Trace) -> Option<u16> {
        let stamps = self.stamp.wrapping_sub(trace.stamp()) & STAMP_MASK;
        (trace.is_live() && stamps <= self.life_stamps).then_some(stamps)
    }
}

fn fingerprint(hash: KeyHash) -> u16 {
    hash.0 as u16
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

    fn put(ghost: &mut Ghost, keys: std::ops::Range<u64>, life: u64) {
        keys.for_each(|key| ghost.put(hash(key), 3, life));
    }

    fn known(ghost: &mut Ghost, keys: std::ops::Range<u64>) -> usize {
        keys.filter(|&key| ghost.take(hash(key)).is_some()).count()
    }

    #[test]
    fn a_return_tells_frequency_and_age_once() {
        let mut ghost = Ghost::new();
        ghost.put(hash(1), 5, 100);
        put(&mut ghost, 2..12, 100);
        assert_eq!(ghost.take(hash(1)), Some(Returned { freq: 5, age: 10 }));
        assert_eq!(ghost.take(hash(1)), None);
        assert_eq!(ghost.take(hash(99)), None, "never put");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut ghost = Ghost::new();
        put(&mut ghost, 0..40_000, 10_000);
        assert!(known(&mut ghost, 38_000..40_000) > 1950, "young");
        assert!(known(&mut ghost, 0..28_000) < 50, "past their life");
    }

    #[test]
    fn buckets_have_their_youngest_first() {
        let mut ghost = Ghost::new();
        for (round, life) in [900, 5_000, 40_000, 2_000, 9_000].into_iter().enumerate() {
            let first = round as u64 * 10_000;
            put(&mut ghost, first..first + 10_000, life);
            assert!(known(&mut ghost, first + 9_900..first + 9_950) > 20, "round {round}");
            put(&mut ghost, first + 9_900..first + 9_950, life);
            for bucket in &ghost.buckets {
                let ages = bucket.traces.map(|trace| ghost.age_stamps(trace).unwrap_or(u16::MAX));
                assert!(ages.is_sorted(), "{ages:?} in round {round}");
            }
        }
    }

    #[test]
    fn a_dead_entry_gives_its_slot_before_a_live_one() {
        let mut ghost = Ghost::new();
        put(&mut ghost, 1..103, 100);
        assert_eq!(ghost.take(hash(1)), None, "101 puts old");
    }

    #[test]
    fn a_young_ghost_takes_little_memory_and_forgets_little() {
        for puts in [10, 100, 1000, 5000] {
            let mut ghost = Ghost::new();
            put(&mut ghost, 0..puts, 100_000);
            assert!(ghost.overhead_bytes() as u64 <= 4 * SLOTS_MIN.max(2 * GROWTH * puts), "{puts} puts");
            let known = known(&mut ghost, 0..puts) as u64;
            // Copies in wrong buckets push out some of the oldest.
            assert!(known >= puts * 4 / 5, "{known} of {puts}");
        }
    }

    #[test]
    fn memory_follows_the_life_and_history_survives() {
        let mut ghost = Ghost::new();
        put(&mut ghost, 0..8_000, 10_000);
        put(&mut ghost, 8_000..8_001, 10_900);
        assert_eq!(ghost.life, 10_000, "too little drift to rebuild");
        put(&mut ghost, 8_001..8_002, 20_000);
        assert_eq!(ghost.overhead_bytes(), 4 * 20_000);
        let returned = ghost.take(hash(7_000)).expect("remembered");
        assert_eq!(returned.freq, 3);
        assert!(returned.age.abs_diff(1001) <= 60, "age {}", returned.age);
        put(&mut ghost, 8_002..8_003, 3_000);
        assert_eq!(ghost.overhead_bytes(), 4 * 3_000);
        assert!(known(&mut ghost, 7_800..8_000) > 190, "the youngest survive");
        assert!(known(&mut ghost, 0..4_900) < 20, "older than the new life");
    }

    #[test]
    fn a_much_shorter_life_does_not_make_the_old_young() {
        let mut ghost = Ghost::new();
        put(&mut ghost, 0..8_000, 80_000);
        put(&mut ghost, 8_000..8_001, 500);
        assert!(known(&mut ghost, 3_400..3_900) < 5, "4096 stamps old, and stamps wrap there");
    }

    #[test]
    fn hashes_of_one_stripe_spread_over_all_buckets() {
        let mut ghost = Ghost::new();
        let of_a_stripe = |key| KeyHash(hash(key).0 >> 8);
        (0..8_000).for_each(|key| ghost.put(of_a_stripe(key), 0, 8_000));
        let empty = ghost.buckets.iter().filter(|bucket| !bucket.traces.iter().any(|trace| trace.is_live()));
        assert!(empty.count() < 10);
    }
}
