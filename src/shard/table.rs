//! The hash table under [`Hot`](super::hot::Hot): from a hash to the slots that may hold its key.
//!
//! One bucket is one cache line of twelve lanes. A one-byte tag a lane filters out nearly all
//! entries of other keys before a slot number, let alone an entry, is looked at.
//!
//! ```text
//!   0        8    12     16                                              64
//!  +--------+----+------+------------------------------------------------+
//!  | tags 0..12  | pas- | twelve slot numbers plus one, 0 where empty    |
//!  |             | sed  |                                                |
//!  +--------+----+------+------------------------------------------------+
//! ```
//!
//! A bucket that is full sends a newcomer to the next one and counts it in `passed`, by three bits of
//! its tag; a probe stops at the first bucket that nobody with these bits passed. So a look-up that
//! finds nothing rarely goes on, though a bucket in two was passed by somebody. Entries are never
//! moved from lane to lane, so a bucket's count may only fall when an entry that passed it leaves.
//!
//! One writer changes a table at a time; any number of readers probe it meanwhile. What a reader
//! may see of a change in progress is argued in [`hot`](super::hot).

use std::{array, ptr, sync::Arc};

use super::{
    arena::{Arena, Array},
    entry::SlotId,
};
use crate::{
    hash::KeyHash,
    processor::{equal_bytes, prefetch},
    sync::{
        AtomicPtr, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
        lock_free::{AtomicU32, AtomicU64},
    },
};

/// Slots in a bucket: as many as one cache line takes.
const LANES: usize = 12;
/// What a count of those that passed a bucket reaches at most, to stay there: how many more there
/// were is not known any more.
const PASSED_MAX: u64 = 0xf;
/// Entries for each bucket, in the mean, at which a table is full: above this, chains grow fast.
const ENTRIES_PER_BUCKET_MAX: usize = 10;

/// # Invariants
///
/// 1. A lane's tag is 0 exactly if its slot word is 0 (between two changes).
/// 2. A bucket's `passed` has for each class of tags the number of entries whose chain, from their
///    home to where they lie, goes past it; or [`PASSED_MAX`], if they ever were as many.
/// 3. There is a bucket and, with `is_full` heeded, some lane is empty.
#[derive(Debug)]
pub(crate) struct Table {
    buckets: Array<Bucket>,
}

/// All stores are made by the one writer; it reads its own values, whatever the ordering.
#[derive(Debug)]
#[repr(C, align(64))]
struct Bucket {
    /// The tags of lanes 0..8, lane 0 lowest; and of 8..12, with the eight counts of `passed` above them, four
    /// bits each, that of tags that end in 0 lowest. Relaxed: a tag is a hint that a reader checks against the
    /// entry, and who must see it is ordered behind its store by other means; an entry whose insertion happened
    /// before a probe is counted in every value that the probe can read, as coherence forbids older ones.
    words: [AtomicU64; 2],
    /// A lane's slot number plus one, so that zeroed memory is an empty bucket. This word is what
    /// links an entry: stored with Release, it publishes the entry and its chunk to the Acquire
    /// in [`Bucket::slot`].
    slots: [AtomicU32; LANES],
}

// Loom's atomics are numbers of what it keeps elsewhere.
#[cfg(not(all(test, loom)))]
const _: () = assert!(size_of::<Bucket>() == 64);

impl Table {
    pub(crate) fn new(arena: &Arc<Arena>, buckets: usize) -> Table {
        assert!((1..1 << 32).contains(&(buckets as u64)), "{buckets} buckets");
        Table { buckets: Array::new(arena, buckets, Bucket::new) }
    }

    /// An empty table that is larger. `expected` is how many entries there will be in the end, by a guess.
    pub(crate) fn new_larger(&self, expected: usize, arena: &Arc<Arena>) -> Table {
        Table::new(arena, larger(self.buckets.len(), expected))
    }

    /// The slots whose entries may have this hash: all that do, and one in 255 of the others that
    /// the chain passes.
    #[inline]
    pub(crate) fn probe(&self, hash: KeyHash) -> Probe<'_> {
        let index = self.home(hash);
        let (bucket, tag) = (&self.buckets[index], tag(hash));
        Probe { table: self, bucket, index, left: self.buckets.len() - 1, tag, lanes: bucket.lanes(tag) }
    }

    /// Has the bucket where a probe for this hash starts brought near.
    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        prefetch(&raw const self.buckets[self.home(hash)]);
    }

    /// Links a filled slot. The hash may be there already, the slot may not.
    #[inline]
    pub(crate) fn link(&self, hash: KeyHash, slot: SlotId) {
        let mut index = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[index];
            if let Some(lane) = bucket.vacant_lane() {
                bucket.set_slot(lane, Some(slot));
                bucket.set_tag(lane, tag(hash));
                return;
            }
            bucket.count_in(tag(hash));
            index = self.after(index);
        }
        unreachable!("a table grows before its last lane is taken (invariant 3)");
    }

    /// Puts `new` in `old`'s lane by one store: a probe meets the one or the other.
    pub(crate) fn relink(&self, hash: KeyHash, old: SlotId, new: SlotId) {
        let (index, lane) = self.locate(hash, old);
        self.buckets[index].set_slot(lane, Some(new));
    }

    /// Takes a slot out.
    #[inline]
    pub(crate) fn unlink(&self, hash: KeyHash, slot: SlotId) {
        let (found, lane) = self.locate(hash, slot);
        self.buckets[found].set_tag(lane, 0);
        self.buckets[found].set_slot(lane, None);
        let mut index = self.home(hash);
        while index != found {
            self.buckets[index].count_out(tag(hash));
            index = self.after(index);
        }
    }

    /// Whether a table of this size has to grow before it takes `entries`.
    #[inline]
    pub(crate) fn is_full(&self, entries: usize) -> bool {
        entries > self.buckets.len() * ENTRIES_PER_BUCKET_MAX
    }

    /// Every linked slot.
    pub(crate) fn slots(&self) -> impl Iterator<Item = SlotId> {
        self.buckets.iter().flat_map(|bucket| (0..LANES).filter_map(|lane| bucket.slot(lane)))
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<Table>() + self.buckets.bytes()
    }

    /// Re-derives invariants 1 and 2 from the hashes of the linked slots.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check(&self, hash_of: impl Fn(SlotId) -> KeyHash) {
        let mut passed = vec![[0; 8]; self.buckets.len()];
        for (index, bucket) in self.buckets.iter().enumerate() {
            for lane in 0..LANES {
                let Some(slot) = bucket.slot(lane) else {
                    assert_eq!(bucket.tag(lane), 0, "an empty lane has a tag (invariant 1)");
                    continue;
                };
                let hash = hash_of(slot);
                assert_eq!(bucket.tag(lane), tag(hash), "{slot:?} has another hash's tag");
                let mut at = self.home(hash);
                while at != index {
                    passed[at][usize::from(tag(hash) % 8)] += 1;
                    at = (at + 1) % self.buckets.len();
                }
            }
        }
        for (bucket, passed) in self.buckets.iter().zip(passed) {
            for (class, passed) in (0..).zip(passed) {
                let counted = bucket.passed(class);
                assert!(counted == passed || counted == PASSED_MAX, "a count is wrong (invariant 2)");
            }
        }
    }

    /// The bucket and the lane of a slot that was linked for this hash.
    #[inline]
    fn locate(&self, hash: KeyHash, slot: SlotId) -> (usize, usize) {
        let mut index = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[index];
            let mut lanes = bucket.lanes(tag(hash));
            while lanes != 0 {
                let lane = lanes.trailing_zeros() as usize;
                if bucket.slot(lane) == Some(slot) {
                    return (index, lane);
                }
                lanes &= lanes - 1;
            }
            index = self.after(index);
        }
        unreachable!("the writer unlinks only what it linked");
    }

    /// The bucket that a chain goes on to.
    #[inline]
    fn after(&self, index: usize) -> usize {
        if index + 1 == self.buckets.len() { 0 } else { index + 1 }
    }

    #[inline]
    fn home(&self, hash: KeyHash) -> usize {
        home(hash, self.buckets.len())
    }
}

/// How many buckets follow on so many that are full: those that `expected` entries fill in the end, or a half of
/// them, a fourth and so on, but a quarter more at least. So each entry is linked twice in all, the last table
/// is full, and those that it outgrew, whose memory hardly anything else fits in, are small.
fn larger(buckets: usize, expected: usize) -> usize {
    let least = buckets + (buckets / 4).max(1);
    // A little more, for what leaves while others come.
    let mut wanted = expected.saturating_add(expected / 64).div_ceil(ENTRIES_PER_BUCKET_MAX);
    while wanted / 2 >= least {
        wanted = wanted.div_ceil(2);
    }
    wanted.max(least)
}

/// The low half as a fraction of all buckets: the top bits are equal in all hashes of a stripe.
#[inline]
fn home(hash: KeyHash, buckets: usize) -> usize {
    (((hash.0 & 0xffff_ffff) * buckets as u64) >> 32) as usize
}

/// Where a table's buckets were when somebody looked, for those whom no guard lets look at the table. Both
/// Relaxed, and not one change: at worst a bucket is brought near that nobody asks for.
#[derive(Debug)]
pub(crate) struct Whereabouts {
    first: AtomicPtr<Bucket>,
    buckets: AtomicUsize,
}

impl Whereabouts {
    pub(crate) fn of(table: &Table) -> Whereabouts {
        let here = Whereabouts { first: AtomicPtr::new(ptr::null_mut()), buckets: AtomicUsize::new(0) };
        here.follow(table);
        here
    }

    /// The table is another one now.
    pub(crate) fn follow(&self, table: &Table) {
        self.first.store(table.buckets.as_ptr().cast_mut(), Relaxed);
        self.buckets.store(table.buckets.len(), Relaxed);
    }

    /// As [`Table::prefetch`].
    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        let index = home(hash, self.buckets.load(Relaxed));
        prefetch(self.first.load(Relaxed).wrapping_add(index));
    }
}

/// Eight bits that choose neither the stripe (top 16 at most) nor the home; never 0, which marks an
/// empty lane.
#[inline]
fn tag(hash: KeyHash) -> u8 {
    ((hash.0 >> 40) as u8).max(1)
}

/// Where the count of a tag's class is in the second of [`Bucket::words`].
#[inline]
fn passed_shift(tag: u8) -> u32 {
    32 + u32::from(tag % 8) * 4
}

/// See [`Table::probe`].
#[derive(Debug)]
pub(crate) struct Probe<'t> {
    table: &'t Table,
    bucket: &'t Bucket,
    index: usize,
    /// Buckets not yet visited: a bound, should counts that change under a reader lead it round.
    left: usize,
    tag: u8,
    /// Lanes of `bucket` that are still to be offered, a bit each.
    lanes: u32,
}

impl Iterator for Probe<'_> {
    type Item = SlotId;

    #[inline]
    fn next(&mut self) -> Option<SlotId> {
        loop {
            while self.lanes != 0 {
                let lane = self.lanes.trailing_zeros() as usize;
                self.lanes &= self.lanes - 1;
                if let Some(slot) = self.bucket.slot(lane) {
                    return Some(slot);
                }
            }
            if self.left == 0 || self.bucket.passed(self.tag) == 0 {
                return None;
            }
            self.left -= 1;
            self.index = self.table.after(self.index);
            self.bucket = &self.table.buckets[self.index];
            self.lanes = self.bucket.lanes(self.tag);
        }
    }
}

impl Bucket {
    fn new() -> Bucket {
        Bucket { words: array::from_fn(|_| AtomicU64::new(0)), slots: array::from_fn(|_| AtomicU32::new(0)) }
    }

    /// The lanes whose tag this is, a bit each.
    #[inline]
    fn lanes(&self, tag: u8) -> u32 {
        equal_bytes(self.words[0].load(Relaxed), self.words[1].load(Relaxed) as u32, tag)
    }

    #[inline]
    fn vacant_lane(&self) -> Option<usize> {
        let lanes = self.lanes(0);
        (lanes != 0).then(|| lanes.trailing_zeros() as usize)
    }

    #[inline]
    fn slot(&self, lane: usize) -> Option<SlotId> {
        // Acquire pairs with the Release in `set_slot`: the entry in the slot is whole.
        self.slots[lane].load(Acquire).checked_sub(1).map(SlotId)
    }

    #[inline]
    fn set_slot(&self, lane: usize, slot: Option<SlotId>) {
        // Release pairs with the Acquire in `slot`.
        self.slots[lane].store(slot.map_or(0, |slot| slot.0 + 1), Release);
    }

    #[cfg(any(test, feature = "testing"))]
    fn tag(&self, lane: usize) -> u8 {
        (self.words[lane / 8].load(Relaxed) >> (lane % 8 * 8)) as u8
    }

    /// Other lanes' tags share the word; the one writer makes the read and the store one step.
    #[inline]
    fn set_tag(&self, lane: usize, tag: u8) {
        let (word, shift) = (&self.words[lane / 8], lane % 8 * 8);
        let others = word.load(Relaxed) & !(0xff << shift);
        word.store(others | u64::from(tag) << shift, Relaxed);
    }

    /// How many with a tag of this class have passed, up to [`PASSED_MAX`].
    #[inline]
    fn passed(&self, tag: u8) -> u64 {
        self.words[1].load(Relaxed) >> passed_shift(tag) & PASSED_MAX
    }

    #[inline]
    fn count_in(&self, tag: u8) {
        if self.passed(tag) < PASSED_MAX {
            self.words[1].store(self.words[1].load(Relaxed) + (1 << passed_shift(tag)), Relaxed);
        }
    }

    #[inline]
    fn count_out(&self, tag: u8) {
        let passed = self.passed(tag);
        assert!(passed > 0, "what leaves was counted (invariant 2)");
        if passed < PASSED_MAX {
            self.words[1].store(self.words[1].load(Relaxed) - (1 << passed_shift(tag)), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    fn found(table: &Table, hash: KeyHash) -> Vec<u32> {
        table.probe(hash).map(|slot| slot.0).collect()
    }

    #[test]
    fn a_chain_wraps_and_shortens_again() {
        let table = Table::new(&Arc::default(), 4);
        let hash = KeyHash(3 << 30);
        let all = || (0..26).collect::<Vec<u32>>();
        all().into_iter().for_each(|id| table.link(hash, SlotId(id)));
        assert_eq!(found(&table, hash), all(), "12 at home, the others behind the wrap");
        assert_eq!(found(&table, KeyHash(2 << 30)), Vec::new(), "nobody passed its home");
        table.check(|_| hash);

        table.relink(hash, SlotId(25), SlotId(99));
        assert_eq!(found(&table, hash).last(), Some(&99));
        table.unlink(hash, SlotId(99));
        (0..12).for_each(|id| table.unlink(hash, SlotId(id)));
        assert_eq!(found(&table, hash), all()[12..25], "still found past an empty home");
        (12..25).for_each(|id| table.unlink(hash, SlotId(id)));
        table.check(|_| hash);
        assert_eq!(table.probe(hash).left, 3);
        assert!(table.buckets.iter().all(|bucket| (0..8).all(|class| bucket.passed(class) == 0)));
    }

    #[test]
    fn a_table_grows_by_halves_to_what_is_expected() {
        let sizes = |expected: usize| {
            let grown = iter::successors(Some(1), move |&buckets| Some(larger(buckets, expected)));
            grown.take_while(|&buckets| buckets < 5_000).collect::<Vec<_>>()
        };
        let (grown, guessed) = (sizes(0), sizes(31_250));
        assert_eq!(grown[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(
            grown.windows(2).skip(8).all(|pair| pair[1] == pair[0] + pair[0] / 4),
            "by quarters: {grown:?}"
        );
        let end = guessed.iter().position(|&buckets| buckets * 10 >= 31_250).unwrap();
        assert_eq!(guessed[end], 3_174, "31,250 and a 64th more, by tens");
        assert!(
            guessed[..=end].windows(2).skip(4).all(|pair| pair[0] * 2 - pair[1] <= 1),
            "doubled: {guessed:?}"
        );
        assert_eq!(guessed[end + 1], 3_174 + 3_174 / 4, "more came than were expected");
        assert!(larger(100, usize::MAX) <= 2 * 125 && larger(100, 1_200) == 125);
    }

    #[test]
    fn a_probe_stops_where_none_of_its_class_went_on() {
        let table = Table::new(&Arc::default(), 4);
        let hash = |tag: u64| KeyHash(tag << 40);
        (0..13).for_each(|id| table.link(hash(9), SlotId(id)));
        let visited = |tag| {
            let mut probe = table.probe(hash(tag));
            assert_eq!(probe.find(|slot| slot.0 > 12), None);
            3 - probe.left
        };
        assert_eq!([visited(9), visited(17), visited(10)], [1, 1, 0], "buckets beyond home");
    }

    #[test]
    fn more_than_can_be_counted_are_found() {
        let table = Table::new(&Arc::default(), 4);
        let hash = KeyHash(5 << 40);
        (0..40).for_each(|id| table.link(hash, SlotId(id)));
        table.check(|_| hash);
        (0..39).for_each(|id| table.unlink(hash, SlotId(id)));
        table.check(|_| hash);
        assert_eq!(found(&table, hash), [39], "15 were counted, more than 15 have left since");
    }
}
