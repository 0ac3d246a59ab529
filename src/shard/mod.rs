//! One stripe of the key space: where each key is, and every legal move between the tiers.
//!
//! ```text
//!            insert          evict           commit(loc)
//!    Absent --------> Hot --------> Leaving -----------> Cold
//!                     ^ ^---insert-----'                  |
//!                     '---------- promote(loc) -----------'     remove, forget(loc): -> Absent
//! ```
//!
//! A key that was promoted, or copied by write-behind, is hot and cold at once: the entry in RAM is
//! marked `ON_DISK` and the cold index goes on naming its copy, so that to evict it costs nothing.
//!
//! A move decided outside the lock (`commit`, `promote`, `forget`) names the place that it was
//! decided on and does nothing if the key has moved since. That one comparison is all the
//! coordination that RAM, log and reclaim need: a slow reader cannot bring a removed value back.
//!
//! A shard does no I/O, calls no user code but `K::eq`, and takes no lock but, for a moment, the
//! hot table's list of freed slots and, when it grows, the arena's. Entries that it displaces are
//! dropped once no reader can reach them, after the lock is gone.

pub(crate) mod admission;
pub(crate) mod arena;
pub(crate) mod cold;
mod copies;
pub(crate) mod counts;
pub(crate) mod duet;
pub(crate) mod entry;
pub(crate) mod expiry;
mod ghost;
pub(crate) mod hot;
pub(crate) mod loads;
mod moves;
pub(crate) mod pending;
mod places;
mod ring;
mod slab;
mod slot_set;
mod table;

#[cfg(test)]
mod replay;

use std::{borrow::Borrow, sync::Arc};

use crossbeam_epoch::Guard;

pub(crate) use self::copies::Queued;
use self::{
    admission::{Gate, Readmission},
    arena::Arena,
    cold::Cold,
    counts::Counts,
    duet::{Duet, Residents},
    entry::{Meta, Resident, SlotId},
    expiry::Expiry,
    hot::{Gone, Hot, HotWriter, Patience},
    loads::{Flight, Load, LoadId, Loads, Turn},
    pending::PendingCopies,
};
use crate::{
    budget::Budget,
    hash::KeyHash,
    location::{JournalEnd, Location},
    sync::{
        AtomicBool, Mutex, MutexGuard,
        Ordering::{Acquire, Release},
        hint,
    },
};

/// What a key or value must be to live in a table that any thread reads and drops from.
pub(crate) trait Held: Send + Sync + 'static {}
impl<T: Send + Sync + 'static> Held for T {}

/// How often a taken lock is tried before the thread sleeps.
const LOCK_TRIES: usize = 64;

/// One stripe: a table that readers search without a lock, and the lock for everything else.
pub(crate) struct Stripe<K, V> {
    pub(crate) hot: Arc<Hot<K, V>>,
    /// Guards every change to a key of this stripe, in either tier. Under it: no I/O but the
    /// journal's append, no other stripe's lock, no user code but `K::eq`; pin before, never under it.
    state: Mutex<State<K, V>>,
    /// Whether the cold index has been loaded. Acquire; pairs with the Release in `set_loaded`.
    /// The cold tier means nothing before.
    loaded: AtomicBool,
}

/// A stripe under its lock, and an epoch guard that was pinned before.
pub(crate) struct Shard<'g, K, V> {
    hot: &'g Hot<K, V>,
    guard: &'g Guard,
    state: MutexGuard<'g, State<K, V>>,
    /// The weight of what waits for the epoch, when the present operation began.
    limbo: u64,
}

/// What a stripe's lock guards: its keys in both tiers.
///
/// # Invariants
///
/// 1. A resident entry is in the policy's rings, or it is marked `LEAVING`.
/// 2. A resident entry is marked `PENDING` exactly if `copies` has its hash and names its slot.
///    `LEAVING` implies `PENDING`.
/// 3. A resident entry marked `ON_DISK` has its hash in `cold`, and the record there holds its
///    value. At most one resident of a hash is. `on_disk` counts them. One is `PENDING` as well while a copy that
///    ends before it is renewed.
/// 4. Whatever the disk holds of a key and recovery would find is either named by `cold`, or in
///    flight in `copies`, or what reclaim writes again of a record that `cold` named when it was accepted, and
///    else older than an invalidation in the journal (R6).
/// 5. `leaving` with what `copies` counts, and `borrowed`, are this stripe's parts of the budget's sums.
struct State<K, V> {
    writer: HotWriter<K, V>,
    policy: Duet,
    gate: Gate,
    readmission: Readmission,
    cold: Cold,
    copies: PendingCopies,
    loads: Loads<K, V>,
    counts: Counts,
    budget: Arc<Budget>,
    expiry: Arc<Expiry>,
    /// Scratch: slots that the policy has evicted and `settle` has not yet seen off.
    victims: Vec<SlotId>,
    on_disk: u64,
    leaving: u64,
    borrowed: u64,
    disk: DiskState,
    /// Every insert is copied to disk at once.
    writes_through: bool,
    /// Where `sweep_on_insert` goes on.
    sweep_from: SlotId,
    /// The journal's end after the last invalidation of a key of this stripe.
    journaled: JournalEnd,
    closed: bool,
}

/// What the shard may ask of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskState {
    /// There is none: what leaves RAM is forgotten.
    Absent,
    /// It is only read: what leaves RAM without a copy is forgotten.
    ReadOnly,
    /// It refused the last write: what leaves RAM is forgotten, and counted as that.
    Failing,
    /// It takes what leaves RAM.
    Filling,
    /// It does, and has been full once, so that a write costs another entry its place.
    Wrapped,
}

/// What may be displaced in a stripe and wait to be dropped: seldom enough asked for to cost little,
/// and little enough where weights are bytes, which it takes from the budget.
fn patience(budget: &Budget) -> Patience {
    let capacity = budget.capacity(0);
    // Not for less than the least, or tiny caches would ask each time.
    if budget.is_in_bytes() {
        let limbo_weight = (capacity / 128).max(4 << 10);
        Patience {
            limbo_weight,
            line_weight: limbo_weight.min(64 << 10),
            crowd_weight: (capacity / 16).max(32 << 10),
        }
    } else {
        Patience {
            limbo_weight: (capacity / 32).max(64),
            line_weight: 64 << 10,
            crowd_weight: (capacity / 16).max(128),
        }
    }
}

/// How an insert or a promotion of a large entry concerns the other stripes.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loan {
    None,
    /// They have less than before and must evict.
    Taken,
}

/// What a look-up under the lock finds.
pub(crate) enum Found<'g, K, V> {
    Hot(Resident<'g, K, V>),
    Cold(Location),
    Nothing,
}

impl<K: Eq + Held, V: Held> Stripe<K, V> {
    pub(crate) fn new(
        arena: &Arc<Arena>,
        budget: Arc<Budget>,
        expiry: Arc<Expiry>,
        gate: Gate,
        writes_through: bool,
    ) -> Self {
        let (hot, writer) = Hot::new(arena, patience(&budget));
        let copies = if writes_through && budget.is_in_bytes() {
            PendingCopies::counted_in(Arc::clone(&budget))
        } else {
            PendingCopies::default()
        };
        let cold = Cold::new();
        budget.resize_index(0, cold.bytes());
        let state = State {
            writer,
            policy: Duet::new(budget.capacity(0)),
            gate,
            readmission: Readmission::new(),
            cold,
            copies,
            loads: Loads::new(),
            counts: Counts::default(),
            budget,
            expiry,
            victims: Vec::new(),
            on_disk: 0,
            leaving: 0,
            borrowed: 0,
            disk: DiskState::Absent,
            writes_through,
            sweep_from: SlotId(0),
            journaled: JournalEnd::START,
            closed: false,
        };
        Stripe { hot, state: Mutex::new(state), loaded: AtomicBool::new(false) }
    }

    /// Takes the lock. The guard was pinned before, since to pin may run deferred drops.
    #[inline]
    pub(crate) fn lock<'g>(&'g self, guard: &'g Guard) -> Shard<'g, K, V> {
        let state = self.state.try_lock().unwrap_or_else(|| self.lock_contended());
        Shard { hot: &self.hot, guard, state, limbo: 0 }
    }

    /// Tries again for some microseconds, longer than stays under the lock take: to sleep and be woken
    /// takes ten times as long.
    #[cold]
    fn lock_contended(&self) -> MutexGuard<'_, State<K, V>> {
        for _ in 0..LOCK_TRIES {
            (0..4).for_each(|_| hint::spin_loop());
            if let Some(state) = self.state.try_lock() {
                return state;
            }
        }
        self.state.lock()
    }

    #[inline]
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load(Acquire)
    }

    /// The cold index holds all that was found on disk.
    pub(crate) fn set_loaded(&self) {
        self.loaded.store(true, Release);
    }
}

/// Look-ups.
impl<'g, K: Eq + Held, V: Held> Shard<'g, K, V> {
    /// Whether a copy of a key with this hash may be on disk, so that an invalidation must be journaled (R3).
    pub(crate) fn may_be_on_disk(&self, hash: KeyHash) -> bool {
        self.state.cold.get(hash).is_some()
            || self.state.copies.get(hash).is_some_and(|copy| copy.in_flight.is_some())
    }

    /// An invalidation of a key of this stripe was journaled, the journal ending at `end` then.
    pub(crate) fn note_journaled(&mut self, end: JournalEnd) {
        self.state.journaled = self.state.journaled.max(end);
    }

    /// What an acknowledgement waits for. Not only an operation's own entry: one that finds no copy on
    /// disk writes none, and yet relies on that of whoever made the copy void.
    pub(crate) fn journaled(&self) -> JournalEnd {
        self.state.journaled
    }

    pub(crate) fn is_resident(&self, hash: KeyHash) -> bool {
        self.state.writer.slots_with_hash(hash).next().is_some()
    }

    pub(crate) fn location(&self, hash: KeyHash) -> Option<Location> {
        self.state.cold.get(hash)
    }

    pub(crate) fn is_at(&self, hash: KeyHash, location: Location) -> bool {
        self.location(hash) == Some(location)
    }

    pub(crate) fn is_marked_read(&self, hash: KeyHash) -> bool {
        self.state.cold.marks(hash) > 0
    }

    pub(crate) fn counts(&mut self) -> &mut Counts {
        &mut self.state.counts
    }

    /// The index, for the snapshot.
    pub(crate) fn index(&self) -> &Cold {
        &self.state.cold
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.closed
    }

    /// Keys in either tier.
    pub(crate) fn len(&self) -> u64 {
        self.resident_len() + self.state.cold.len() as u64 - self.state.on_disk
    }

    pub(crate) fn resident_len(&self) -> u64 {
        self.state.writer.len() as u64
    }

    /// What the table, the slab, the rings and the ghosts have allocated.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        let state = &*self.state;
        let ghosts_bytes = state.gate.overhead_bytes() + state.readmission.overhead_bytes();
        (self.hot.bytes() + state.policy.overhead_bytes() + ghosts_bytes) as u64
    }

    /// Entries that the policy's hands have looked at and spared.
    pub(crate) fn clock_steps(&self) -> u64 {
        self.state.policy.steps()
    }

    /// The weight of all resident entries; in bytes, also of those that wait for the last reader to leave, and of the
    /// copies of a cache that writes through.
    pub(crate) fn resident_weight(&self) -> u64 {
        let limbo = if self.state.budget.is_in_bytes() { self.hot.limbo_weight() } else { 0 };
        self.state.policy.weight() + self.state.leaving + self.state.copies.counted_bytes() + limbo
    }

    /// Has what was displaced dropped as soon as nobody can see it.
    pub(crate) fn hand_over_retired(&mut self) {
        self.state.writer.hand_over(self.guard);
    }

    /// What was displaced earlier and nobody can see any more, to be dropped outside the lock.
    pub(crate) fn take_gone(&mut self) -> Gone<K, V> {
        self.state.writer.take_gone()
    }

    #[inline]
    fn resident(&self, slot: SlotId) -> Resident<'g, K, V> {
        self.hot.resident(&self.state.writer, slot, self.guard)
    }

    #[inline]
    fn meta(&self, slot: SlotId) -> &'g Meta {
        &self.resident(slot).entry.meta
    }

    fn has_expired(&self, resident: Resident<'g, K, V>) -> bool {
        self.state.expiry.has_expired(resident.times)
    }
}

/// Loads under way: see [`Loads`]. What they return is to be dropped outside the lock.
impl<'g, K: Eq + Held, V: Held> Shard<'g, K, V> {
    pub(crate) fn join_load<Q: Eq + ?Sized>(
        &mut self,
        hash: KeyHash,
        key: &Q,
        owned: &mut Option<K>,
    ) -> Turn<V>
    where
        K: Borrow<Q>,
    {
        self.state.loads.join(hash, key, owned)
    }

    pub(crate) fn lease<Q: Eq + ?Sized>(
        &mut self,
        hash: KeyHash,
        key: &Q,
        owned: &mut Option<K>,
    ) -> Option<LoadId>
    where
        K: Borrow<Q>,
    {
        self.state.loads.lease(hash, key, owned)
    }

    /// Whether what this load brings may be stored, which the caller does then.
    pub(crate) fn fill_load(&mut self, hash: KeyHash, id: LoadId) -> bool {
        self.state.loads.fill(hash, id)
    }

    #[must_use]
    pub(crate) fn release_load(
        &mut self,
        hash: KeyHash,
        id: LoadId,
        led: Option<&Arc<Flight<V>>>,
    ) -> Option<Load<K, V>> {
        self.state.loads.release(hash, id, led)
    }

    #[must_use]
    pub(crate) fn kill_loads(&mut self, hash: KeyHash) -> Option<Load<K, V>> {
        self.state.loads.kill(hash)
    }

    pub(crate) fn kill_all_loads(&mut self) -> impl Iterator<Item = Load<K, V>> + use<K, V> {
        self.state.loads.kill_all()
    }
}

/// The entries as the policy sees them.
impl<K, V> Residents for HotWriter<K, V> {
    #[inline]
    fn meta(&self, slot: SlotId) -> &Meta {
        &self.entry(slot).meta
    }

    #[inline]
    fn prefetch(&self, slot: SlotId) {
        self.prefetch_slot(slot);
    }
}

/// Re-deriving what is counted.
#[cfg(any(test, feature = "testing"))]
impl<K: Eq + Held, V: Held> Shard<'_, K, V> {
    /// Checks every invariant; panics where one does not hold.
    pub(crate) fn check(&self) {
        use entry::Flags;

        let state = &*self.state;
        state.writer.check();
        state.policy.check(&state.writer);
        state.cold.check();
        let (mut in_rings, mut on_disk, mut pending) = (0, 0, 0);
        let (mut leaving, mut borrowed) = (0, 0);
        let mut next = SlotId(0);
        while let Some(slot) = state.writer.next_resident(next) {
            next = slot.successor();
            let meta = self.meta(slot);
            let weight = meta.weight();
            in_rings += usize::from(!meta.has(Flags::LEAVING));
            leaving += if meta.has(Flags::LEAVING) { weight } else { 0 };
            borrowed += if meta.has(Flags::BORROWED) { weight } else { 0 };
            if meta.has(Flags::ON_DISK) {
                on_disk += 1;
                assert!(state.cold.get(meta.hash).is_some(), "marked ON_DISK and not in the index");
            }
            let copy = state.copies.get(meta.hash).filter(|copy| copy.slot == slot);
            assert_eq!(meta.has(Flags::PENDING), copy.is_some(), "PENDING is not what `copies` says");
            assert!(meta.has(Flags::PENDING) || !meta.has(Flags::LEAVING), "leaving to nowhere");
            pending += usize::from(copy.is_some());
        }
        assert_eq!(in_rings, state.policy.len(), "invariant 1: resident, in no ring and not leaving");
        assert_eq!(pending, state.copies.len(), "invariant 2: a copy of nothing");
        assert_eq!(on_disk, state.on_disk, "invariant 3");
        assert_eq!((leaving, borrowed), (state.leaving, state.borrowed), "invariant 5");
    }
}
