//! The half of the hot table that changes it: in the stripe's lock.

use std::{borrow::Borrow, collections::VecDeque, fmt, mem, ptr, sync::Arc};

use crossbeam_epoch::Guard;

use super::{Hot, drop_gone, may_drop, owe_flush};
use crate::{
    hash::KeyHash,
    shard::{
        entry::{Arrival, Entry, Flags, SlotId},
        slot_set::SlotSet,
        table::Table,
    },
    sync::{
        AtomicPtr,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
        assert_ours,
    },
};

/// For so many retired entries a function is deferred: enough to make the deferral's cost
/// negligible, few enough not to matter to a stripe of some hundred entries.
const BATCH_ENTRIES: u64 = 32;
/// So many of the entries that are out of reach are dropped by each operation.
const DROPS: usize = 2;

/// What may be displaced and not yet dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// More than this, and the epoch is asked to move on.
    pub(crate) limbo_weight: u64,
    /// More than this is not left to the operations that come after: large values do not wait for them.
    pub(crate) line_weight: u64,
    /// More than this, and whoever displaces gives way to the reader that it waits for.
    pub(crate) crowd_weight: u64,
}

/// The writer's half of a [`Hot`], kept in the stripe's lock: having it mutably is being the one
/// writer, having it shared is keeping every writer out.
///
/// # Invariants
///
/// 1. `resident` has the slots that are linked in the table, all below `fresh`.
/// 2. Each slot below `fresh` is resident, in `free`, in `line`, handed over or in `Rest::freed`.
/// 3. `line` has the entries retired since the first `departed`, in that order, and they weigh
///    `Rest::line_weight`. Functions that say when they are out of reach are deferred for the
///    first `announced`.
pub(crate) struct HotWriter<K, V> {
    hot: Arc<Hot<K, V>>,
    len: usize,
    resident: SlotSet,
    /// Vacant slots below `fresh`.
    free: Vec<SlotId>,
    /// The lowest slot that was never used.
    fresh: SlotId,
    /// Unlinked and still filled.
    line: VecDeque<SlotId>,
    departed: u64,
    announced: u64,
    /// Weight of what is retired and not announced.
    unannounced_weight: u64,
    patience: Patience,
}

/// Looks at what is there.
impl<K, V> HotWriter<K, V> {
    /// Of a table that has no other writer.
    pub(super) fn new(hot: Arc<Hot<K, V>>, patience: Patience) -> HotWriter<K, V> {
        HotWriter {
            hot,
            len: 0,
            resident: SlotSet::default(),
            free: Vec::new(),
            fresh: SlotId(0),
            line: VecDeque::new(),
            departed: 0,
            announced: 0,
            unannounced_weight: 0,
            patience,
        }
    }

    /// The entry in a resident slot.
    ///
    /// # Panics
    ///
    /// If the slot is not resident.
    #[inline]
    pub(crate) fn entry(&self, slot: SlotId) -> &Entry<K, V> {
        assert!(self.is_resident(slot), "{slot:?} is not resident");
        // SAFETY: resident, so linked (invariant 1) and filled (the table's invariant 2), by this
        // very writer, whose lock we are behind. While it is borrowed nobody can unlink the slot,
        // and only unlinked slots are emptied.
        unsafe { self.hot.slab.get(slot) }
    }

    /// The slot of a key.
    #[inline]
    pub(crate) fn slot_of<Q>(&self, hash: KeyHash, key: &Q) -> Option<SlotId>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.slots_with_hash(hash).find(|&slot| self.entry(slot).key.borrow() == key)
    }

    /// The slots of all keys with this hash: one, but for a collision of all 64 bits.
    #[inline]
    pub(crate) fn slots_with_hash(&self, hash: KeyHash) -> impl Iterator<Item = SlotId> + '_ {
        self.table().probe(hash).filter(move |&slot| self.entry(slot).meta.hash == hash)
    }

    /// The first resident slot at or above `from`, for sweeps in bounded steps.
    pub(crate) fn next_resident(&self, from: SlotId) -> Option<SlotId> {
        self.resident.next(from)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_resident(&self, slot: SlotId) -> bool {
        self.resident.contains(slot)
    }

    /// Whether this is the writer of that table.
    #[inline]
    pub(super) fn is_of(&self, hot: &Hot<K, V>) -> bool {
        ptr::eq(hot, &*self.hot)
    }

    /// Has a slot brought near, resident or not.
    #[inline]
    pub(crate) fn prefetch_slot(&self, slot: SlotId) {
        self.hot.slab.prefetch(slot);
    }

    /// Has the bucket where a look-up of this hash starts brought near.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: KeyHash) {
        self.table().prefetch(hash);
    }

    /// Has the entries that `take_gone` takes next brought near.
    #[inline]
    pub(crate) fn prefetch_gone(&self) {
        for at in 0..DROPS {
            if let Some(&slot) = self.line.get(at) {
                self.hot.slab.prefetch(slot);
            }
        }
    }

    /// How many entries were retired so far.
    #[inline]
    fn retired(&self) -> u64 {
        self.departed + self.line.len() as u64
    }

    /// The present table, for as long as writers are kept out.
    #[inline]
    fn table(&self) -> &Table {
        let table = self.hot.table.load(Acquire);
        // SAFETY: a live table (the table's invariant 1), which only the writer, borrowed here,
        // could replace.
        unsafe { &*table }
    }
}

/// Changes. What is retired is dropped by any thread, whence the bounds.
impl<K: Send + Sync + 'static, V: Send + Sync + 'static> HotWriter<K, V> {
    /// Adds an entry whose key is not there. Where the table has to grow, `expected` guesses how many entries it
    /// will have in the end.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        arrival: Arrival<K, V>,
        expected: impl FnOnce() -> usize,
        guard: &Guard,
    ) -> SlotId {
        if self.table().is_full(self.len + 1) {
            self.grow(expected(), guard);
        }
        let hash = arrival.entry.meta.hash;
        let slot = self.fill(arrival);
        self.table().link(hash, slot);
        self.len += 1;
        slot
    }

    /// Puts an entry in the place of another one of the same key. A reader finds the old one or
    /// the new one; the old one is retired.
    pub(crate) fn replace(&mut self, old: SlotId, arrival: Arrival<K, V>, guard: &Guard) -> SlotId {
        let hash = arrival.entry.meta.hash;
        assert_eq!(self.entry(old).meta.hash, hash, "only an entry of the same key may replace one");
        let slot = self.fill(arrival);
        self.table().relink(hash, old, slot);
        self.retire(old, guard);
        slot
    }

    /// Takes an entry out that has this hash, and retires it.
    #[inline]
    pub(crate) fn remove(&mut self, slot: SlotId, hash: KeyHash, guard: &Guard) {
        self.table().unlink(hash, slot);
        self.len -= 1;
        self.retire(slot, guard);
    }

    /// Entries that no reader can reach any more, oldest first; none where that would be one drop too many within
    /// others. The caller drops them when the stripe's lock is gone.
    #[inline]
    pub(crate) fn take_gone(&mut self) -> Gone<K, V> {
        Gone([self.take_next_gone(), self.take_next_gone()])
    }

    /// Empties the slot that is first in line, if no reader can reach it any more.
    #[inline]
    fn take_next_gone(&mut self) -> Option<Entry<K, V>> {
        // Acquire pairs with the Release in `announce`.
        if self.departed >= self.hot.rest.out_of_reach.load(Acquire) {
            return None;
        }
        if mem::needs_drop::<Entry<K, V>>() && !may_drop() {
            return None;
        }
        let slot = self.line.pop_front()?;
        self.departed += 1;
        self.free.push(slot);
        // SAFETY: it was in the line, so it is filled, by this writer under whose lock we are.
        let weight = unsafe { self.hot.slab.get(slot) }.meta.weight();
        let line_weight = &self.hot.rest.line_weight;
        line_weight.store(line_weight.load(Relaxed) - weight, Relaxed);
        // SAFETY: filled, as above. The function that announced it was deferred after it was
        // unlinked and has run: every guard of that time is gone, and no reader has the entry or can
        // still find it. It left the line just now, so nothing else empties it.
        Some(unsafe { self.hot.slab.take(slot) })
    }

    /// Has all that is retired dropped as soon as no reader can reach it, by whoever runs the
    /// epoch's functions then: after a clear or a large eviction, or when the stripe may rest for
    /// long.
    pub(crate) fn hand_over(&mut self, guard: &Guard) {
        if self.line.is_empty() {
            return;
        }
        assert_ours(guard);
        let batch = mem::take(&mut self.line);
        self.departed += batch.len() as u64;
        self.announced = self.departed;
        self.unannounced_weight = 0;
        let rest = &self.hot.rest;
        let weight = rest.line_weight.load(Relaxed);
        rest.line_weight.store(0, Relaxed);
        rest.handed_weight.fetch_add(weight, Relaxed);
        owe_flush();
        let hot = Arc::clone(&self.hot);
        guard.defer(move || {
            for &slot in &batch {
                // SAFETY: filled by this `Hot`'s writer, unlinked under its lock before this
                // function was deferred, and every guard of that time is gone: no reader has the
                // entry or can still find it. The batch was taken out of the line and is given to
                // this function alone, so nothing else empties the slot.
                drop_gone(unsafe { hot.slab.take(slot) });
            }
            hot.rest.handed_weight.fetch_sub(weight, Relaxed);
            hot.rest.freed.lock().extend(batch);
        });
    }

    /// Fills a vacant slot with an entry that no reader can reach yet.
    #[inline]
    fn fill(&mut self, arrival: Arrival<K, V>) -> SlotId {
        let slot = self.take_vacant();
        let Arrival { entry, times } = arrival;
        if let Some(times) = times {
            entry.meta.set(Flags::TIMED);
            let grown = self.hot.times.reserve(slot);
            self.hot.rest.bytes.fetch_add(grown, Relaxed);
            // SAFETY: as below; and where it was filled before, that was for an entry which is
            // gone (the table's invariant 5), and times need no drop.
            unsafe { self.hot.times.write(slot, times) };
        }
        // SAFETY: reserved by `take_vacant`. Vacant (invariant 2): never used, or emptied by
        // `take_gone` under this lock, or by a deferred function that passed the number on through
        // the lock of `freed`. It is linked nowhere and no guard can have seen it linked, so only
        // this writer knows it; linking it is a Release store.
        unsafe { self.hot.slab.write(slot, entry) };
        self.resident.insert(slot);
        slot
    }

    /// Books an unlinked slot out, to be emptied when no reader can hold its entry.
    #[inline]
    fn retire(&mut self, slot: SlotId, guard: &Guard) {
        self.resident.remove(slot);
        // SAFETY: it was resident until now, so it is filled (the table's invariant 2), and it stays so
        // while we are behind the writer's lock: it is not even in the line yet.
        let weight = unsafe { self.hot.slab.get(slot) }.meta.weight();
        self.line.push_back(slot);
        let line_weight = self.hot.rest.line_weight.load(Relaxed) + weight;
        self.hot.rest.line_weight.store(line_weight, Relaxed);
        self.unannounced_weight += weight;
        let unannounced = self.retired() - self.announced;
        if line_weight > self.patience.line_weight {
            self.hand_over(guard);
        } else if unannounced >= BATCH_ENTRIES || self.unannounced_weight > self.patience.limbo_weight {
            self.announce(guard);
        }
    }

    /// Defers the word that all that is retired now is out of reach.
    #[cold]
    fn announce(&mut self, guard: &Guard) {
        assert_ours(guard);
        self.announced = self.retired();
        self.unannounced_weight = 0;
        if self.hot.limbo_weight() > self.patience.limbo_weight {
            owe_flush();
        }
        let (hot, announced) = (Arc::clone(&self.hot), self.announced);
        guard.defer(move || {
            // Release pairs with the Acquire in `take_gone`. A later announcement may be first: it
            // waits for every guard that this one waits for, so it speaks for these entries too.
            hot.rest.out_of_reach.fetch_max(announced, Release);
        });
    }

    /// Publishes a larger table and retires the present one.
    #[cold]
    fn grow(&mut self, expected: usize, guard: &Guard) {
        assert_ours(guard);
        let larger = Box::new(self.table().new_larger(expected, self.hot.slab.arena()));
        let mut from = SlotId(0);
        while let Some(slot) = self.next_resident(from) {
            larger.link(self.entry(slot).meta.hash, slot);
            from = slot.successor();
        }
        self.hot.rest.bytes.fetch_add(larger.bytes(), Relaxed);
        self.hot.whereabouts.follow(&larger);
        // AcqRel: Release pairs with the Acquire loads of `table`; Acquire for the freeing below.
        let old = self.hot.table.swap(Box::into_raw(larger), AcqRel);
        // The outgrown table is memory that the next ones need.
        owe_flush();
        let (hot, old) = (Arc::clone(&self.hot), AtomicPtr::new(old));
        guard.defer(move || {
            // SAFETY: `old` came from `Box::into_raw` (the table's invariant 1) and was swapped out
            // by the one writer, so this is its only freeing; every guard under which it was loaded
            // is gone.
            let old = unsafe { Box::from_raw(old.into_inner()) };
            hot.rest.bytes.fetch_sub(old.bytes(), Relaxed);
        });
    }

    /// A vacant slot, whose memory is there.
    #[inline]
    fn take_vacant(&mut self) -> SlotId {
        if self.free.is_empty() {
            mem::swap(&mut self.free, &mut self.hot.rest.freed.lock());
        }
        self.free.pop().unwrap_or_else(|| self.take_fresh())
    }

    #[cold]
    fn take_fresh(&mut self) -> SlotId {
        let slot = self.fresh;
        assert!(slot <= SlotId::LAST, "a stripe has no slot left");
        self.fresh = slot.next();
        self.resident.reserve(slot);
        let grown = self.hot.slab.reserve(slot);
        self.hot.rest.bytes.fetch_add(grown, Relaxed);
        slot
    }
}

/// Re-deriving what is counted.
#[cfg(any(test, feature = "testing"))]
impl<K: Eq, V> HotWriter<K, V> {
    /// Re-derives every count, and finds every entry as a reader would.
    pub(crate) fn check(&self) {
        let table = self.table();
        table.check(|slot| self.entry(slot).meta.hash);
        let mut linked: Vec<SlotId> = table.slots().collect();
        linked.sort_unstable();
        let slots = std::iter::successors(Some(SlotId(0)), |slot| Some(slot.next()));
        let used = slots.take_while(|&slot| slot < self.fresh);
        let resident: Vec<SlotId> = used.filter(|&slot| self.is_resident(slot)).collect();
        assert_eq!(linked, resident, "linked and resident slots differ (invariant 1)");
        assert_eq!(linked.len(), self.len);
        for &slot in &linked {
            let entry = self.entry(slot);
            assert_eq!(self.slot_of(entry.meta.hash, &entry.key), Some(slot), "not found, or twice there");
        }
        let mut known = linked;
        known.extend(&self.free);
        known.extend(&self.line);
        known.extend(&*self.hot.rest.freed.lock());
        let count = known.len();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), count, "a slot is in two places (invariant 2)");
        assert!(known.last().is_none_or(|&slot| slot < self.fresh));
        let weights = self.line.iter().map(|&slot| {
            // SAFETY: retired and not handed over, so still filled (the table's invariant 2); the
            // writer is borrowed, so it stays so.
            unsafe { self.hot.slab.get(slot) }.meta.weight()
        });
        assert_eq!(weights.sum::<u64>(), self.hot.rest.line_weight.load(Relaxed), "weight of the line");
        let retired = self.retired();
        assert!(self.announced <= retired && retired < self.announced + BATCH_ENTRIES);
    }
}

impl<K, V> Drop for HotWriter<K, V> {
    fn drop(&mut self) {
        // Readers may still hold these entries, so they go when the table does.
        self.hot.rest.orphans.lock().extend(self.line.drain(..));
    }
}

impl<K, V> fmt::Debug for HotWriter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HotWriter { len, fresh, departed, announced, .. } = self;
        write!(
            f,
            "HotWriter {{ len: {len}, fresh: {fresh:?}, departed: {departed}, announced: {announced}, .. }}"
        )
    }
}

/// Entries that have left for good, for the caller to drop outside the stripe's lock.
#[must_use = "dropped at once, they run user code under the lock"]
#[derive(Debug)]
pub(crate) struct Gone<K, V>([Option<Entry<K, V>>; DROPS]);

impl<K, V> Drop for Gone<K, V> {
    #[inline]
    fn drop(&mut self) {
        for place in &mut self.0 {
            if let Some(entry) = place.take() {
                drop_gone(entry);
            }
        }
    }
}
