//! The resident entries of one stripe, which readers find without a lock.
//!
//! A [`Table`] leads from a hash to slot numbers, a [`Slab`] from a slot number to the entry. Both
//! are changed by whoever holds the stripe's lock, shown as a [`HotWriter`]; readers bring an
//! epoch guard instead. An entry is in one of four states:
//!
//! ```text
//!            insert              remove, replace         hand_over           all guards of then gone
//!    vacant ---------> resident -----------------> retired ---------> limbo -----------------------> vacant
//! ```
//!
//! # What a reader may see
//!
//! `find` must not return a wrong value, nor one whose overwrite or removal was completed before
//! it began. It may miss a key that is being moved, since a miss in RAM goes on under the lock.
//!
//! 1. *An entry it returns is whole.* Its number was read with Acquire from the lane that a
//!    Release store had linked it in, after it (and its chunk) was written. Hash and key are
//!    compared on the entry itself and never change in its life, so tags and lanes that change
//!    under a probe can lead it past an entry, never to a wrong one.
//! 2. *An entry it returns is alive as long as the guard.* A slot is emptied by a function that is
//!    deferred after the slot was unlinked. If this guard was pinned before that, the function
//!    waits for it. If after, pinning's fence follows the deferral's, so this reader can no longer
//!    read the store that linked the slot, nor a table in which it is still linked.
//! 3. *A completed change is seen.* Its stores happened before the probe's loads, so by coherence
//!    these return them or later ones. A removed slot's lane is then empty or another entry's; its
//!    number cannot have come back for another entry before a grace period (2). `replace` is one
//!    store to one lane: no probe sees both or neither.
//! 4. *Growth.* The new table is complete before it is published, the old one frozen from then on.
//!    A probe of the old one began before the publication did reach it, and answers as of then.
//! 5. *What stays is found.* An entry never changes its lane, and is counted in `overflow` by each
//!    bucket on its way, so no other key's change can hide it. Only remove and insert of this very
//!    key, in two lanes, can both be missed by one probe.
//!
//! # What may not happen under the lock
//!
//! K and V are dropped by deferred functions, which crossbeam runs in `pin` and `flush`. So a
//! caller pins before it locks and passes the guard in, and neither is called here; `defer` itself
//! runs nothing.

use std::{
    borrow::Borrow,
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::Arc,
};

use crossbeam_epoch::Guard;
use crossbeam_utils::CachePadded;

use super::{
    arena::Arena,
    entry::{Entry, SlotId},
    slab::Slab,
    table::{Probe, Table},
};
use crate::{
    hash::KeyHash,
    sync::{
        AtomicPtr, AtomicU64, AtomicUsize, Mutex,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

/// Retired entries that are handed to the epoch at once: enough to make the deferral's cost
/// negligible, few enough not to matter to a stripe of some hundred entries.
const BATCH_ENTRIES: usize = 32;
/// What they may weigh: large values do not wait for thirty-one others.
const BATCH_WEIGHT: u64 = 64 << 10;

/// # Invariants
///
/// 1. `table` is a leaked `Box<Table>`; a table that is replaced is freed through the epoch.
/// 2. A slot that is linked in `table` is filled. So is a retired one (in the writer's list, in
///    limbo or in `orphans`), and in exactly one of these places.
/// 3. A filled slot is emptied by a function deferred after its unlinking, or by `drop`.
/// 4. There is one [`HotWriter`], made with the table; it alone links, unlinks and fills.
pub(crate) struct Hot<K, V> {
    /// Acquire loads pair with the AcqRel swap in `grow`.
    table: AtomicPtr<Table>,
    slab: Slab<Entry<K, V>>,
    /// On lines of its own, since every eviction writes it and every hit reads the fields above.
    rest: CachePadded<Rest>,
}

/// What the functions behind the epoch give back to the writer.
#[derive(Debug, Default)]
struct Rest {
    /// Slots emptied and not yet taken back into the writer's free list. Held for a few moves of
    /// numbers; nothing else is called under it, so it may be taken under the stripe's lock.
    freed: Mutex<Vec<SlotId>>,
    /// What a dropped writer had retired and not handed over, for `drop`.
    orphans: Mutex<Vec<SlotId>>,
    /// Weight of entries retired and not yet dropped. Relaxed: a figure for the budget; an entry's
    /// addition happens before its subtraction through the deferral, so it never wraps.
    limbo_weight: AtomicU64,
    /// Bytes of tables and slab chunks. Relaxed: a figure for the budget.
    bytes: AtomicUsize,
}

/// The writer's half of a [`Hot`], kept in the stripe's lock: having it mutably is being the one
/// writer, having it shared is keeping every writer out.
///
/// # Invariants
///
/// 1. `resident` has a bit for each slot below `fresh`, set exactly for those linked in the table.
/// 2. Each slot below `fresh` is resident, in `free`, in `retired`, in limbo or in `Rest::freed`.
pub(crate) struct HotWriter<K, V> {
    hot: Arc<Hot<K, V>>,
    len: usize,
    resident: Vec<u64>,
    /// Vacant slots below `fresh`.
    free: Vec<SlotId>,
    /// The lowest slot that was never used.
    fresh: u32,
    /// Unlinked, still filled, not yet handed to the epoch.
    retired: Vec<SlotId>,
    retired_weight: u64,
}

impl<K, V> Hot<K, V> {
    pub(crate) fn new(arena: &Arc<Arena>) -> (Arc<Hot<K, V>>, HotWriter<K, V>) {
        let table = Box::new(Table::new(arena, 1));
        let rest = Rest { bytes: AtomicUsize::new(table.bytes()), ..Rest::default() };
        let hot = Arc::new(Hot {
            table: AtomicPtr::new(Box::into_raw(table)),
            slab: Slab::new(Arc::clone(arena)),
            rest: CachePadded::new(rest),
        });
        let writer = HotWriter {
            hot: Arc::clone(&hot),
            len: 0,
            resident: Vec::new(),
            free: Vec::new(),
            fresh: 0,
            retired: Vec::new(),
            retired_weight: 0,
        };
        (hot, writer)
    }

    /// The entry of a key, without a lock. See the module's text for what that means.
    #[inline]
    pub(crate) fn find<'g, Q>(&'g self, hash: KeyHash, key: &Q, guard: &'g Guard) -> Option<&'g Entry<K, V>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        for slot in self.probe(hash, guard) {
            // SAFETY: the number was read, under `guard`, from a lane of a table that was published
            // under it: the slot was filled before (its Release store, our Acquire load), and is
            // emptied only by a function that waits for `guard` (invariant 3, point 2 above). The
            // reference lives no longer than `guard` and `self`.
            let entry = unsafe { self.slab.get(slot) };
            if entry.meta.hash == hash && entry.key.borrow() == key {
                return Some(entry);
            }
        }
        None
    }

    /// The entry in a resident slot.
    ///
    /// # Panics
    ///
    /// If the slot is not resident.
    #[inline]
    pub(crate) fn entry<'w>(&'w self, writer: &'w HotWriter<K, V>, slot: SlotId) -> &'w Entry<K, V> {
        self.assert_resident(writer, slot);
        // SAFETY: resident, so linked (writer's invariant 1) and filled (invariant 2), by this very
        // writer, whose lock we are behind. While it is borrowed nobody can unlink the slot, and
        // only unlinked slots are emptied.
        unsafe { self.slab.get(slot) }
    }

    /// As [`Hot::entry`], but the reference outlives the stripe's lock: what needs time or runs
    /// user code (encoding) looks at the entry after the lock is gone.
    pub(crate) fn entry_pinned<'g>(
        &'g self,
        writer: &HotWriter<K, V>,
        slot: SlotId,
        guard: &'g Guard,
    ) -> &'g Entry<K, V> {
        assert_ours(guard);
        self.assert_resident(writer, slot);
        // SAFETY: resident and therefore filled, as in `entry`. Should the slot be unlinked after
        // the lock is gone, the function that empties it is deferred later than `guard` was
        // pinned and waits for it; the reference lives no longer than `guard` and `self`.
        unsafe { self.slab.get(slot) }
    }

    /// The slot of a key.
    pub(crate) fn slot_of<Q>(&self, writer: &HotWriter<K, V>, hash: KeyHash, key: &Q) -> Option<SlotId>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.slots_with_hash(writer, hash).find(|&slot| self.entry(writer, slot).key.borrow() == key)
    }

    /// The slots of all keys with this hash: one, but for a collision of all 64 bits.
    pub(crate) fn slots_with_hash<'w>(
        &'w self,
        writer: &'w HotWriter<K, V>,
        hash: KeyHash,
    ) -> impl Iterator<Item = SlotId> + 'w {
        let probe = self.table_locked(writer).probe(hash);
        probe.filter(move |&slot| self.entry(writer, slot).meta.hash == hash)
    }

    /// The first resident slot at or above `from`, for sweeps in bounded steps.
    pub(crate) fn next_resident(&self, writer: &HotWriter<K, V>, from: SlotId) -> Option<SlotId> {
        self.assert_writer(writer);
        let first = from.0 as usize / 64;
        let mut below = (1 << (from.0 % 64)) - 1;
        for (word, bits) in writer.resident.iter().enumerate().skip(first) {
            let left = bits & !mem::take(&mut below);
            if left != 0 {
                return Some(SlotId(word as u32 * 64 + left.trailing_zeros()));
            }
        }
        None
    }

    pub(crate) fn len(&self, writer: &HotWriter<K, V>) -> usize {
        self.assert_writer(writer);
        writer.len
    }

    /// Bytes of the table and of the slab, with those of tables that wait for the epoch.
    pub(crate) fn bytes(&self) -> usize {
        self.rest.bytes.load(Relaxed)
    }

    /// Weight of entries that were removed or replaced and are not yet dropped.
    pub(crate) fn limbo_weight(&self) -> u64 {
        self.rest.limbo_weight.load(Relaxed)
    }

    #[inline]
    fn probe<'g>(&'g self, hash: KeyHash, guard: &'g Guard) -> Probe<'g> {
        self.table(guard).probe(hash)
    }

    /// The present table, for as long as the guard.
    #[inline]
    fn table<'g>(&'g self, guard: &'g Guard) -> &'g Table {
        debug_assert_ours(guard);
        // Acquire pairs with the swap in `grow`: the table's lanes are as the writer left them.
        let table = self.table.load(Acquire);
        // SAFETY: a live table (invariant 1). If it is replaced from now on, its freeing is
        // deferred later than `guard` was pinned and waits for it; if it had been before, pinning
        // came after that deferral and the load would not have returned it.
        unsafe { &*table }
    }

    /// The present table, for as long as writers are kept out.
    fn table_locked<'w>(&'w self, writer: &'w HotWriter<K, V>) -> &'w Table {
        self.assert_writer(writer);
        let table = self.table.load(Acquire);
        // SAFETY: a live table (invariant 1), which only the writer, borrowed here, could replace.
        unsafe { &*table }
    }

    #[inline]
    fn assert_resident(&self, writer: &HotWriter<K, V>, slot: SlotId) {
        self.assert_writer(writer);
        assert!(writer.is_resident(slot), "{slot:?} is not resident");
    }

    /// Another stripe's writer would prove nothing about this table.
    #[inline]
    fn assert_writer(&self, writer: &HotWriter<K, V>) {
        assert!(ptr::eq(self, &*writer.hot), "a stripe's table was used with another one's writer");
    }
}

/// A change is made by the stripe's writer. What it retires is dropped by any thread, whence the bounds.
impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Hot<K, V> {
    /// Adds an entry whose key is not there.
    pub(crate) fn insert(&self, writer: &mut HotWriter<K, V>, entry: Entry<K, V>, guard: &Guard) -> SlotId {
        self.assert_writer(writer);
        if self.table(guard).is_full(writer.len + 1) {
            self.grow(writer, guard);
        }
        let hash = entry.meta.hash;
        let slot = self.fill(writer, entry);
        self.table(guard).link(hash, slot);
        writer.len += 1;
        slot
    }

    /// Puts an entry in the place of another one of the same key. A reader finds the old one or
    /// the new one; the old one is retired.
    pub(crate) fn replace(
        &self,
        writer: &mut HotWriter<K, V>,
        old: SlotId,
        entry: Entry<K, V>,
        guard: &Guard,
    ) -> SlotId {
        let hash = self.entry(writer, old).meta.hash;
        assert_eq!(entry.meta.hash, hash, "only an entry of the same key may replace one");
        let slot = self.fill(writer, entry);
        self.table(guard).relink(hash, old, slot);
        self.retire(writer, old, guard);
        slot
    }

    /// Takes an entry out and retires it.
    pub(crate) fn remove(&self, writer: &mut HotWriter<K, V>, slot: SlotId, guard: &Guard) {
        let hash = self.entry(writer, slot).meta.hash;
        self.table(guard).unlink(hash, slot);
        writer.len -= 1;
        self.retire(writer, slot, guard);
    }

    /// Hands what was retired to the epoch without waiting for the batch to fill: after a clear or
    /// a large eviction, or when the stripe may rest for long.
    pub(crate) fn seal_retired(&self, writer: &mut HotWriter<K, V>, guard: &Guard) {
        self.assert_writer(writer);
        if !writer.retired.is_empty() {
            self.hand_over(writer, guard);
        }
    }

    /// Fills a vacant slot with an entry that no reader can reach yet.
    fn fill(&self, writer: &mut HotWriter<K, V>, entry: Entry<K, V>) -> SlotId {
        let slot = writer.take_vacant();
        let grown = self.slab.reserve(slot);
        self.rest.bytes.fetch_add(grown, Relaxed);
        // SAFETY: reserved above. Vacant (writer's invariant 2): never used, or emptied by a
        // deferred function that passed the number on through the lock of `freed`. It is linked
        // nowhere and no guard can have seen it linked, so only this writer knows it; linking it
        // is a Release store.
        unsafe { self.slab.write(slot, entry) };
        writer.set_resident(slot, true);
        slot
    }

    /// Books an unlinked slot out, to be emptied when no reader can hold its entry.
    fn retire(&self, writer: &mut HotWriter<K, V>, slot: SlotId, guard: &Guard) {
        let weight = u64::from(self.entry(writer, slot).meta.weight);
        writer.set_resident(slot, false);
        writer.retired.push(slot);
        writer.retired_weight += weight;
        self.rest.limbo_weight.fetch_add(weight, Relaxed);
        if writer.retired.len() >= BATCH_ENTRIES || writer.retired_weight >= BATCH_WEIGHT {
            self.hand_over(writer, guard);
        }
    }

    fn hand_over(&self, writer: &mut HotWriter<K, V>, guard: &Guard) {
        assert_ours(guard);
        let batch = mem::take(&mut writer.retired);
        writer.retired_weight = 0;
        let hot = Arc::clone(&writer.hot);
        guard.defer(move || {
            for &slot in &batch {
                // SAFETY: filled by this `Hot`'s writer, unlinked under its lock before this
                // function was deferred, and every guard of that time is gone: no reader has the
                // entry or can still find it. The batch was taken out of `retired` and is given to
                // this function alone, so nothing else empties the slot.
                let weight = unsafe { hot.empty(slot) };
                hot.rest.limbo_weight.fetch_sub(weight, Relaxed);
            }
            hot.rest.freed.lock().extend(batch);
        });
    }

    /// Publishes a larger table and retires the present one.
    fn grow(&self, writer: &HotWriter<K, V>, guard: &Guard) {
        let larger = Box::new(self.table(guard).new_larger(self.slab.arena()));
        let mut from = SlotId(0);
        while let Some(slot) = self.next_resident(writer, from) {
            larger.link(self.entry(writer, slot).meta.hash, slot);
            from = SlotId(slot.0 + 1);
        }
        self.rest.bytes.fetch_add(larger.bytes(), Relaxed);
        // AcqRel: Release pairs with the Acquire loads of `table`; Acquire for the freeing below.
        let old = self.table.swap(Box::into_raw(larger), AcqRel);
        let (hot, old) = (Arc::clone(&writer.hot), AtomicPtr::new(old));
        assert_ours(guard);
        guard.defer(move || {
            // SAFETY: `old` came from `Box::into_raw` (invariant 1) and was swapped out by the one
            // writer, so this is its only freeing; every guard under which it was loaded is gone.
            let old = unsafe { Box::from_raw(old.into_inner()) };
            hot.rest.bytes.fetch_sub(old.bytes(), Relaxed);
        });
    }
}

impl<K, V> Hot<K, V> {
    /// Drops the entry in a slot and returns what it weighed. A panic of the user's `drop` has been
    /// reported by the panic hook and ends here: what it left undropped leaks, and neither the
    /// batch nor the thread that happened to pin suffers for it.
    ///
    /// # Safety
    ///
    /// As for [`Slab::drop_in_place`].
    unsafe fn empty(&self, slot: SlotId) -> u64 {
        // SAFETY: filled by contract; the reference is gone before the entry is dropped.
        let weight = unsafe { self.slab.get(slot) }.meta.weight;
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: passed on to the caller.
            unsafe { self.slab.drop_in_place(slot) }
        }));
        if let Err(payload) = dropped {
            // The payload is the user's too, and may panic as it is dropped.
            mem::forget(payload);
        }
        weight.into()
    }

    /// Re-derives every count, and finds every entry as a reader would.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check(&self, writer: &HotWriter<K, V>)
    where
        K: Eq,
    {
        let table = self.table_locked(writer);
        table.check(|slot| self.entry(writer, slot).meta.hash);
        let mut linked: Vec<SlotId> = table.slots().collect();
        linked.sort_unstable();
        let resident: Vec<SlotId> =
            (0..writer.fresh).map(SlotId).filter(|&slot| writer.is_resident(slot)).collect();
        assert_eq!(linked, resident, "linked and resident slots differ (writer's invariant 1)");
        assert_eq!(linked.len(), writer.len);
        for &slot in &linked {
            let entry = self.entry(writer, slot);
            assert_eq!(
                self.slot_of(writer, entry.meta.hash, &entry.key),
                Some(slot),
                "not found, or twice there"
            );
        }
        let mut known = linked;
        known.extend(&writer.free);
        known.extend(&writer.retired);
        known.extend(&*self.rest.freed.lock());
        let count = known.len();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), count, "a slot is in two places (writer's invariant 2)");
        assert!(known.last().is_none_or(|slot| slot.0 < writer.fresh));
        let weights = writer.retired.iter().map(|&slot| {
            // SAFETY: retired and not handed over, so still filled (invariant 2); the writer is
            // borrowed, so it stays so.
            u64::from(unsafe { self.slab.get(slot) }.meta.weight)
        });
        assert_eq!(weights.sum::<u64>(), writer.retired_weight);
        assert!(self.limbo_weight() >= writer.retired_weight);
    }
}

impl<K, V> Drop for Hot<K, V> {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw` (invariant 1), and `&mut self` leaves no reader.
        let table = unsafe { Box::from_raw(*self.table.get_mut()) };
        let orphans = mem::take(self.rest.orphans.get_mut());
        for slot in table.slots().chain(orphans) {
            // SAFETY: linked or retired, so filled, and in one of the two only (invariant 2). No
            // reference to an entry outlives a borrow of `self`, and no deferred function that
            // could empty the slot is left, as each of them owns an `Arc` of `self`.
            unsafe { self.empty(slot) };
        }
    }
}

impl<K, V> fmt::Debug for Hot<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hot").field("rest", &*self.rest).finish_non_exhaustive()
    }
}

impl<K, V> HotWriter<K, V> {
    fn take_vacant(&mut self) -> SlotId {
        if self.free.is_empty() {
            mem::swap(&mut self.free, &mut self.hot.rest.freed.lock());
        }
        self.free.pop().unwrap_or_else(|| {
            let slot = SlotId(self.fresh);
            assert!(slot <= Slab::<Entry<K, V>>::LAST, "a stripe holds at most 2^32 entries");
            self.fresh += 1;
            if self.resident.len() * 64 < self.fresh as usize {
                self.resident.push(0);
            }
            slot
        })
    }

    #[inline]
    fn is_resident(&self, slot: SlotId) -> bool {
        self.resident.get(slot.0 as usize / 64).is_some_and(|word| word >> (slot.0 % 64) & 1 == 1)
    }

    fn set_resident(&mut self, slot: SlotId, resident: bool) {
        let (word, bit) = (&mut self.resident[slot.0 as usize / 64], 1 << (slot.0 % 64));
        assert_eq!(*word & bit == 0, resident, "{slot:?} is in that state already");
        *word ^= bit;
    }
}

impl<K, V> Drop for HotWriter<K, V> {
    fn drop(&mut self) {
        // Readers may still hold these entries, so they go when the table does.
        self.hot.rest.orphans.lock().append(&mut self.retired);
    }
}

impl<K, V> fmt::Debug for HotWriter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HotWriter { len, fresh, retired_weight, .. } = self;
        write!(f, "HotWriter {{ len: {len}, fresh: {fresh}, retired_weight: {retired_weight}, .. }}")
    }
}

/// A guard of another collector, or of none, would protect nothing here and defer nothing.
fn assert_ours(guard: &Guard) {
    assert_eq!(guard.collector(), Some(crossbeam_epoch::default_collector()), "pinned elsewhere");
}

/// As [`assert_ours`], for the path of a hit: a crate that pins in one place only need not pay.
#[inline]
fn debug_assert_ours(guard: &Guard) {
    if cfg!(debug_assertions) {
        assert_ours(guard);
    }
}

#[cfg(test)]
mod tests;
