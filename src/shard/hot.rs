//! The resident entries of one stripe, which readers find without a lock.
//!
//! A [`Table`] leads from a hash to slot numbers, a [`Slab`] from a slot number to the entry. Both
//! are changed by whoever holds the stripe's lock, shown as a [`HotWriter`]; readers bring an
//! epoch guard instead. An entry is in one of three states:
//!
//! ```text
//!            insert              remove, replace         all guards of then gone, take_gone
//!    vacant ---------> resident -----------------> retired --------------------------------> vacant
//! ```
//!
//! # What a reader may see
//!
//! `find` must not return a wrong value, nor one whose overwrite or removal was completed before it began. It may
//! miss a key that is being moved: with a disk tier the look-up goes on under the lock, and in RAM alone the cache
//! may forget.
//!
//! 1. *An entry it returns is whole.* Its number was read with Acquire from the lane that a
//!    Release store had linked it in, after it (and its chunk) was written. Hash and key are
//!    compared on the entry itself and never change in its life, so tags and lanes that change
//!    under a probe can lead it past an entry, never to a wrong one.
//! 2. *An entry it returns is alive as long as the guard.* A slot is emptied by a function that was
//!    deferred after the slot was unlinked, or after such a function has run. If this guard was
//!    pinned before the deferral, the function waits for it. If after, pinning's fence follows the
//!    deferral's, so this reader can no longer read the store that linked the slot, nor a table in
//!    which it is still linked.
//! 3. *A completed change is seen.* Its stores happened before the probe's loads, so by coherence
//!    these return them or later ones. A removed slot's lane is then empty or another entry's; its
//!    number cannot have come back for another entry before a grace period (2). `replace` is one
//!    store to one lane: no probe sees both or neither.
//! 4. *Growth.* The new table is complete before it is published, the old one frozen from then on.
//!    A probe of the old one began before the publication did reach it, and answers as of then.
//! 5. *What stays is found.* An entry never changes its lane, and is counted in `passed` by each bucket
//!    on its way, so no other key's change can hide it. Only remove and insert of this very key, in two
//!    lanes, can both be missed by one probe.
//!
//! `model.rs` has loom look for what this argument overlooks.
//!
//! # Who drops what has left
//!
//! Retired entries wait in line. A function that is deferred for each few of them says up to where
//! they are out of reach, and does nothing else: were it to drop them, some unlucky look-up would
//! drop thousands. They are dropped by the operations that come after, two by each, which is more
//! than come in ([`HotWriter::take_gone`]). Only what is heavy, or whose stripe may rest for long, is
//! handed over to be dropped by a deferred function itself.
//!
//! All that waits for the slowest reader. One that lost its core while it was pinned would have the others displace
//! as much as they can in a slice of its time, which was as much again as the budget: they give way to it.
//!
//! K and V run user code when they are dropped. Deferred functions are run by crossbeam in `pin` and
//! `flush`, so a caller pins before it locks and passes the guard in, and neither is called here
//! (`defer` itself runs nothing); what `take_gone` returns is dropped after the lock is gone. Such a drop may
//! insert, which drops two more: deep within each other they drop none and flush nothing, or all that waits would be
//! dropped on one stack.

mod writer;

use std::{
    borrow::Borrow,
    cell::Cell,
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crossbeam_epoch::Guard;
use crossbeam_utils::CachePadded;

use super::{
    arena::Arena,
    entry::{Entry, Flags, Resident, SlotId, Times},
    slab::Slab,
    table::{Probe, Table, Whereabouts},
};
use crate::{
    hash::KeyHash,
    sync::{
        AtomicU64, AtomicUsize, Mutex,
        Ordering::{Acquire, Relaxed},
        assert_ours,
        lock_free::AtomicPtr,
        thread, thread_local,
    },
};

pub(crate) use writer::{Gone, HotWriter, Patience};

/// How often in a row a thread gives way, before it goes on in spite of a reader that takes its time.
const YIELDS_MAX: usize = 8;

/// # Invariants
///
/// 1. `table` is a leaked `Box<Table>`; a table that is replaced is freed through the epoch.
/// 2. A slot that is linked in `table` is filled. So is a retired one (in the writer's line, handed
///    over or in `orphans`), and in exactly one of these places.
/// 3. A filled slot is emptied by a function deferred after its unlinking, by `take_gone` after such
///    a function has run, or by `drop`.
/// 4. There is one [`HotWriter`], made with the table; it alone links, unlinks and fills.
/// 5. A filled slot whose entry is marked `TIMED` is filled in `times` too, for as long.
pub(crate) struct Hot<K, V> {
    /// Acquire loads pair with the AcqRel swap in `grow`.
    table: AtomicPtr<Table>,
    whereabouts: Whereabouts,
    slab: Slab<Entry<K, V>>,
    /// The times of those entries in the slab that have any.
    times: Slab<Times>,
    crowd_weight: u64,
    /// On lines of its own, since every eviction writes it and every hit reads the fields above.
    rest: CachePadded<Rest>,
}

/// What evictions write, and the functions that they leave to the epoch.
#[derive(Debug, Default)]
struct Rest {
    /// Slots emptied and not yet taken back into the writer's free list. Held for a few moves of
    /// numbers; nothing else is called under it, so it may be taken under the stripe's lock.
    freed: Mutex<Vec<SlotId>>,
    /// What a dropped writer had retired and not handed over, for `drop`.
    orphans: Mutex<Vec<SlotId>>,
    /// Of the entries retired so far, in the order in which they were, so many are out of every
    /// reader's reach. Release, where it is raised, pairs with the Acquire in `take_gone`: the
    /// epoch's passing happens before the slot's emptying.
    out_of_reach: AtomicU64,
    /// Weight of the entries in the writer's line, stored by the writer alone. Relaxed: a figure for
    /// the budget.
    line_weight: AtomicU64,
    /// Weight of entries handed over and not yet dropped. Relaxed: a figure for the budget; an
    /// entry's addition happens before its subtraction through the deferral, so it never wraps.
    handed_weight: AtomicU64,
    /// Bytes of tables and slab chunks. Relaxed: a figure for the budget.
    bytes: AtomicUsize,
}

impl<K, V> Hot<K, V> {
    /// An empty table.
    pub(crate) fn new(arena: &Arc<Arena>, patience: Patience) -> (Arc<Hot<K, V>>, HotWriter<K, V>) {
        let table = Box::new(Table::new(arena, 1));
        let rest = Rest { bytes: AtomicUsize::new(table.bytes()), ..Rest::default() };
        let hot = Arc::new(Hot {
            whereabouts: Whereabouts::of(&table),
            table: AtomicPtr::new(Box::into_raw(table)),
            times: Slab::new(Arc::clone(arena)),
            slab: Slab::new(Arc::clone(arena)),
            crowd_weight: patience.crowd_weight,
            rest: CachePadded::new(rest),
        });
        (Arc::clone(&hot), HotWriter::new(hot, patience))
    }

    /// The entry of a key, without a lock. See the module's text for what that means.
    #[inline]
    pub(crate) fn find<'g, Q>(
        &'g self,
        hash: KeyHash,
        key: &Q,
        guard: &'g Guard,
    ) -> Option<Resident<'g, K, V>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let mut candidates = self.probe(hash, guard).map(|slot| Candidate { hot: self, slot });
        candidates.find_map(|candidate| candidate.resident(hash, key))
    }

    /// Has the bucket where a look-up of this hash starts brought near. Before the thread is pinned: pinning's
    /// fence waits for all loads before it, and those of the next look-up wait for the fence; but not this.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: KeyHash) {
        self.whereabouts.prefetch(hash);
    }

    /// The first entry that may have this hash, which is brought near, at the cost of a look at its bucket.
    #[inline]
    pub(crate) fn candidate<'g>(&'g self, hash: KeyHash, guard: &'g Guard) -> Option<Candidate<'g, K, V>> {
        let slot = self.probe(hash, guard).next()?;
        self.slab.prefetch(slot);
        Some(Candidate { hot: self, slot })
    }

    /// The times of an entry that was just found in `slot`; the entry's borrow says for how long.
    #[inline]
    fn times_of<'g>(&'g self, slot: SlotId, entry: &'g Entry<K, V>) -> Option<&'g Times> {
        // SAFETY: `TIMED` was set before the entry was published and never changes, so the slot is
        // filled here as long as there (invariant 5): for the lifetime of `entry` at least.
        entry.meta.has(Flags::TIMED).then(|| unsafe { self.times.get(slot) })
    }

    /// As [`HotWriter::entry`], but the references outlive the stripe's lock: what needs time or runs
    /// user code (encoding) looks at the entry after the lock is gone.
    #[inline]
    pub(crate) fn resident<'g>(
        &'g self,
        writer: &HotWriter<K, V>,
        slot: SlotId,
        guard: &'g Guard,
    ) -> Resident<'g, K, V> {
        debug_assert_ours(guard);
        assert!(writer.is_of(self), "a stripe's table was used with another one's writer");
        assert!(writer.is_resident(slot), "{slot:?} is not resident");
        // SAFETY: resident and therefore filled, as in `HotWriter::entry`. Should the slot be unlinked after
        // the lock is gone, whatever empties it waits for a function deferred later than `guard`
        // was pinned, and that waits for `guard`; the reference lives no longer than `guard` and
        // `self`.
        let entry = unsafe { self.slab.get(slot) };
        Resident { entry, times: self.times_of(slot, entry) }
    }

    /// Bytes of the table and of the slab, with those of tables that wait for the epoch.
    pub(crate) fn bytes(&self) -> usize {
        self.rest.bytes.load(Relaxed)
    }

    /// Weight of entries that were removed or replaced and are not yet dropped.
    pub(crate) fn limbo_weight(&self) -> u64 {
        self.rest.line_weight.load(Relaxed) + self.rest.handed_weight.load(Relaxed)
    }

    /// Lets other threads run on if so much waits to be dropped that one of them must have lost its core while it
    /// was pinned: until it has run, more is displaced and nothing is freed. No guard of the caller's may be in
    /// the way, and none of its locks.
    #[inline]
    pub(crate) fn give_way(&self) {
        for _ in 0..YIELDS_MAX {
            if self.limbo_weight() <= self.crowd_weight {
                break;
            }
            thread::yield_now();
        }
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
}

/// A slot that was read under an epoch guard from a lane of a table that was published under it. It lives no
/// longer than that guard, and what it answers is as of the probe.
pub(crate) struct Candidate<'g, K, V> {
    hot: &'g Hot<K, V>,
    slot: SlotId,
}

impl<'g, K, V> Candidate<'g, K, V> {
    /// The entry, if it is this key's.
    #[inline]
    pub(crate) fn resident<Q>(self, hash: KeyHash, key: &Q) -> Option<Resident<'g, K, V>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let Candidate { hot, slot } = self;
        // SAFETY: the number was read, under a guard that lives for `'g`, from a lane of a table that was
        // published under it: the slot was filled before (its Release store, our Acquire load), and is
        // emptied only by a function that waits for the guard (invariant 3, point 2 above). The
        // reference lives no longer than the guard and `hot`.
        let entry = unsafe { hot.slab.get(slot) };
        let is_its = entry.meta.hash == hash && entry.key.borrow() == key;
        is_its.then(|| Resident { entry, times: hot.times_of(slot, entry) })
    }
}

impl<K, V> Drop for Hot<K, V> {
    fn drop(&mut self) {
        // Relaxed: with `&mut self` there is no other thread.
        let table = self.table.load(Relaxed);
        // SAFETY: from `Box::into_raw` (invariant 1), and `&mut self` leaves no reader.
        let table = unsafe { Box::from_raw(table) };
        let orphans = mem::take(self.rest.orphans.get_mut());
        for slot in table.slots().chain(orphans) {
            // SAFETY: linked or retired, so filled, and in one of the two only (invariant 2). No
            // reference to an entry outlives a borrow of `self`, and no deferred function that
            // could empty the slot is left, as each of them owns an `Arc` of `self`.
            drop_quietly(unsafe { self.slab.take(slot) });
        }
    }
}

thread_local! {
    /// Whether this thread has deferred what should not wait until it has deferred as much as the epoch waits
    /// for. Functions that were deferred lie with their thread until then or a flush: nobody else can flush them.
    static OWES_FLUSH: Cell<bool> = const { Cell::new(false) };

    /// How many drops of what went this thread is in, each within another: users' drops use caches.
    static DROPS_ENTERED: Cell<u32> = const { Cell::new(0) };
}

/// So many drops of what went may be within each other; the innermost insert drops nothing. Each drops two, whose
/// drops may insert, and so much may have waited for one long look-up that to go on would take the whole stack.
/// What is left waits for an operation that is not as deep.
const DROPS_ENTERED_MAX: u32 = 4;

/// Whether this thread may drop what went, here and now.
#[inline]
fn may_drop() -> bool {
    DROPS_ENTERED.with(Cell::get) < DROPS_ENTERED_MAX
}

/// As [`drop_quietly`], for what went.
#[inline]
fn drop_gone<T>(gone: T) {
    if !mem::needs_drop::<T>() {
        return;
    }
    DROPS_ENTERED.with(|entered| entered.set(entered.get() + 1));
    drop_quietly(gone);
    DROPS_ENTERED.with(|entered| entered.set(entered.get() - 1));
}

/// Notes that this thread has to flush.
fn owe_flush() {
    OWES_FLUSH.with(|owes| owes.set(true));
}

/// Whether this thread has to flush, and may: that is the end of the debt.
#[inline]
fn take_debt() -> bool {
    OWES_FLUSH.with(Cell::get) && may_drop() && OWES_FLUSH.with(Cell::take)
}

/// Has what this thread has displaced dropped as soon as nobody can see it, if it is much. No lock is held, since
/// to flush may drop it.
#[inline]
pub(crate) fn collect(guard: &Guard) {
    if take_debt() {
        guard.flush();
    }
}

/// The same for a caller who looks at nothing any more, so that what this thread alone still stood in the way
/// of is dropped at once.
#[inline]
pub(crate) fn collect_now(mut guard: Guard) {
    if take_debt() {
        guard.flush();
        guard.repin();
        guard.flush();
    }
}

/// Drops what is the user's. A panic of its `drop` has been reported by the panic hook and ends here:
/// what it left undropped leaks, and neither other entries nor the thread that happened to come by
/// suffers for it.
pub(crate) fn drop_quietly<T>(users: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(users))) {
        // The payload is the user's too, and may panic as it is dropped.
        mem::forget(payload);
    }
}

impl<K, V> fmt::Debug for Hot<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hot").field("rest", &*self.rest).finish_non_exhaustive()
    }
}

/// As [`assert_ours`], for the path of a hit: a crate that pins in one place only need not pay.
#[inline]
fn debug_assert_ours(guard: &Guard) {
    if cfg!(debug_assertions) {
        assert_ours(guard);
    }
}

#[cfg(loom)]
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
