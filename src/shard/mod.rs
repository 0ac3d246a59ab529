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
//! A shard does no I/O, calls no user code but `K::eq`, and takes no second lock. Entries that it
//! displaces are dropped through the epoch, after the lock is gone.

pub(crate) mod admission;
pub(crate) mod clock;
pub(crate) mod cold;
pub(crate) mod counts;
pub(crate) mod entry;
pub(crate) mod expiry;
mod ghost;
pub(crate) mod hot;
pub(crate) mod loads;
pub(crate) mod pending;
mod ring;
mod slab;
mod table;

#[cfg(test)]
mod replay;

use std::{
    borrow::Borrow,
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crossbeam_epoch::Guard;

use self::{
    admission::{Admission, Gate},
    clock::{Clock, Residents},
    cold::{Cold, Packed},
    counts::Counts,
    entry::{Entry, Flags, Meta, SlotId},
    expiry::Expiry,
    hot::{Hot, HotWriter},
    loads::{Load, LoadId, Loads, Turn},
    pending::{Pending, PendingCopies},
};
use crate::{
    budget::Budget,
    hash::KeyHash,
    location::Location,
    sync::{AtomicBool, Mutex, MutexGuard, Ordering::Acquire, Ordering::Release},
};

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
}

/// What a stripe's lock guards: its keys in both tiers.
///
/// # Invariants
///
/// 1. A resident entry is in the clock's rings, or it is marked `LEAVING`.
/// 2. A resident entry is marked `PENDING` exactly if `copies` has its hash and names its slot.
///    `LEAVING` implies `PENDING`.
/// 3. A resident entry marked `ON_DISK` has its hash in `cold`, and the record there holds its
///    value. At most one resident of a hash is. `on_disk` counts them.
/// 4. Whatever the disk holds of a key and recovery would find is either named by `cold`, or in
///    flight in `copies`, or older than an invalidation in the journal (R6).
/// 5. `leaving` and `borrowed` are this stripe's parts of the budget's sums.
struct State<K, V> {
    writer: HotWriter<K, V>,
    clock: Clock,
    gate: Gate,
    cold: Cold,
    copies: PendingCopies,
    loads: Loads<K, V>,
    counts: Counts,
    budget: Arc<Budget>,
    expiry: Arc<Expiry>,
    /// Scratch: slots that the clock has evicted and `settle` has not yet seen off.
    victims: Vec<SlotId>,
    on_disk: u64,
    leaving: u64,
    borrowed: u64,
    disk: DiskState,
    closed: bool,
}

/// What the shard may ask of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskState {
    /// There is none, or it fails: what leaves RAM is forgotten.
    Absent,
    Failing,
    /// It takes what leaves RAM.
    Filling,
    /// It does, and has been full once, so that a write costs another entry its place.
    Wrapped,
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
    Hot(&'g Entry<K, V>),
    Cold(Location),
    Nothing,
}

impl<K, V> Stripe<K, V>
where
    K: Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(budget: Arc<Budget>, expiry: Arc<Expiry>, admission: Admission, seed: u64) -> Self {
        let (hot, writer) = Hot::new();
        let cold = Cold::new();
        budget.resize_index(0, cold.bytes());
        let state = State {
            writer,
            clock: Clock::new(budget.capacity(0)),
            gate: Gate::new(admission, seed),
            cold,
            copies: PendingCopies::default(),
            loads: Loads::new(),
            counts: Counts::default(),
            budget,
            expiry,
            victims: Vec::new(),
            on_disk: 0,
            leaving: 0,
            borrowed: 0,
            disk: DiskState::Absent,
            closed: false,
        };
        Stripe { hot, state: Mutex::new(state), loaded: AtomicBool::new(false) }
    }

    /// Takes the lock. The guard was pinned before, since to pin may run deferred drops.
    pub(crate) fn lock<'g>(&'g self, guard: &'g Guard) -> Shard<'g, K, V> {
        Shard { hot: &self.hot, guard, state: self.state.lock() }
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load(Acquire)
    }

    /// The cold index holds all that was found on disk.
    pub(crate) fn set_loaded(&self) {
        self.loaded.store(true, Release);
    }
}

/// Look-ups.
impl<'g, K, V> Shard<'g, K, V>
where
    K: Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Where a key is. What has expired in RAM is dropped on the way.
    pub(crate) fn find<Q>(&mut self, hash: KeyHash, key: &Q) -> Found<'g, K, V>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        if let Some(slot) = self.hot.slot_of(&self.state.writer, hash, key) {
            let entry = self.entry(slot);
            if !self.state.expiry.has_expired(&entry.meta) {
                return Found::Hot(entry);
            }
            self.expire(slot);
            return Found::Nothing;
        }
        match self.state.cold.get(hash) {
            Some(location) => Found::Cold(location),
            None => Found::Nothing,
        }
    }

    /// Whether a copy of a key with this hash may be on disk, so that an invalidation must be journaled (R3).
    pub(crate) fn may_be_on_disk(&self, hash: KeyHash) -> bool {
        self.state.cold.get(hash).is_some()
            || self.state.copies.get(hash).is_some_and(|copy| copy.in_flight.is_some())
    }

    pub(crate) fn is_resident(&self, hash: KeyHash) -> bool {
        self.hot.slots_with_hash(&self.state.writer, hash).next().is_some()
    }

    pub(crate) fn location(&self, hash: KeyHash) -> Option<Location> {
        self.state.cold.get(hash)
    }

    pub(crate) fn is_at(&self, hash: KeyHash, location: Location) -> bool {
        self.location(hash) == Some(location)
    }

    /// Notes that the copy on disk was read: reclaim keeps it.
    pub(crate) fn mark_read(&mut self, hash: KeyHash) {
        self.state.cold.mark_read(hash);
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
        self.hot.len(&self.state.writer) as u64
    }

    /// The weight of all resident entries, and of those that wait for the last reader to leave.
    pub(crate) fn resident_weight(&self) -> u64 {
        self.state.clock.bytes() + self.state.leaving + self.hot.limbo_weight()
    }
}

/// Moves that an operation makes.
impl<'g, K, V> Shard<'g, K, V>
where
    K: Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Stores an entry over whatever its key had. The caller has journaled what may be on disk.
    pub(crate) fn insert(&mut self, entry: Entry<K, V>) -> Loan {
        let hash = entry.meta.hash;
        self.forget_copies(hash);
        let loan = self.borrow_for(&entry.meta);
        match self.hot.slot_of(&self.state.writer, hash, &entry.key) {
            Some(old) => self.replace(old, entry),
            None => self.add(entry),
        }
        self.state.counts.inserts += 1;
        self.settle();
        loan
    }

    /// Brings an entry that was read from `location` back into RAM, unless the key has moved since.
    pub(crate) fn promote(&mut self, location: Location, entry: Entry<K, V>) -> Loan {
        let hash = entry.meta.hash;
        let moved = !self.is_at(hash, location) || self.is_resident(hash);
        if moved || self.state.closed {
            return Loan::None;
        }
        let loan = self.borrow_for(&entry.meta);
        entry.meta.set(Flags::ON_DISK);
        entry.meta.set(Flags::FROM_DISK);
        self.state.on_disk += 1;
        self.add(entry);
        self.settle();
        loan
    }

    /// A batch that held this copy was not written: it is not wanted any more. Whether it was.
    pub(crate) fn forget_in_flight(&mut self, hash: KeyHash, location: Location) -> bool {
        let copy = self.state.copies.get(hash).filter(|copy| copy.in_flight == Some(location));
        copy.is_some_and(|copy| self.cancel(hash, copy))
    }

    /// Takes a key out of both tiers; whether it was in RAM. The caller has journaled what may be on disk.
    pub(crate) fn remove<Q>(&mut self, hash: KeyHash, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.forget_copies(hash);
        let Some(slot) = self.hot.slot_of(&self.state.writer, hash, key) else { return false };
        let was_alive = !self.state.expiry.has_expired(self.meta(slot));
        self.take_out(slot);
        was_alive
    }

    /// Takes everything out. The caller has written the barrier, and nothing is in flight.
    pub(crate) fn clear(&mut self) {
        self.state.copies.clear();
        let mut next = SlotId(0);
        while let Some(slot) = self.hot.next_resident(&self.state.writer, next) {
            next = SlotId(slot.0 + 1);
            let meta = self.meta(slot);
            meta.clear(Flags::ON_DISK);
            meta.clear(Flags::PENDING);
            self.take_out(slot);
        }
        self.state.on_disk = 0;
        self.state.clock.clear();
        self.state.gate.clear();
        self.change_index(Cold::clear);
        self.seal_retired();
    }

    /// Hands what was displaced to the epoch.
    pub(crate) fn seal_retired(&mut self) {
        self.hot.seal_retired(&mut self.state.writer, self.guard);
    }

    /// Ends the stripe: nothing is found, stored or promoted any more.
    pub(crate) fn close(&mut self) {
        self.clear();
        self.state.closed = true;
    }

    /// No change is taken any more, while look-ups go on.
    pub(crate) fn refuse_changes(&mut self) {
        self.state.closed = true;
    }

    pub(crate) fn set_disk(&mut self, disk: DiskState) {
        self.state.disk = disk;
    }

    /// Evicts down to a capacity that has shrunk.
    pub(crate) fn shrink(&mut self) {
        self.settle();
    }
}

/// Copies on their way to disk.
impl<'g, K, V> Shard<'g, K, V>
where
    K: Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The next queued copy and the entry to encode.
    pub(crate) fn next_copy(&mut self) -> Option<(KeyHash, Pending, &'g Entry<K, V>)> {
        let (hash, copy) = self.state.copies.pop_queued()?;
        Some((hash, copy, self.entry(copy.slot)))
    }

    /// Whether this copy is still wanted: the check of R2, in one step with `accept`.
    pub(crate) fn is_wanted(&self, hash: KeyHash, copy: Pending) -> bool {
        self.state.copies.get(hash) == Some(copy)
    }

    /// The log has taken the record of a wanted copy.
    pub(crate) fn accept(&mut self, hash: KeyHash, location: Location) {
        self.state.copies.accept(hash, location);
    }

    /// The record at `location` can be read from now on: its entry is cold, unless the key has
    /// moved since. `Err` if another key of the same hash holds the index's place; the caller
    /// journals the hash and forgets both.
    pub(crate) fn commit(&mut self, hash: KeyHash, location: Location) -> Result<(), Collision> {
        let Some(copy) = self.state.copies.get(hash).filter(|copy| copy.in_flight == Some(location)) else {
            return Ok(());
        };
        if self.state.cold.get(hash).is_some() {
            return Err(Collision);
        }
        self.state.copies.take(hash);
        self.change_index(|cold| cold.insert(hash, location, 0));
        let state = &mut *self.state;
        state.gate.set_disk_entries(state.cold.len() as u64);
        let meta = self.meta(copy.slot);
        meta.clear(Flags::PENDING);
        if meta.has(Flags::LEAVING) {
            self.state.counts.spills += 1;
            if meta.refs.load(Relaxed) > 0 {
                self.state.cold.mark_read(hash);
            }
            self.take_out(copy.slot);
        } else {
            self.state.counts.write_behinds += 1;
            meta.set(Flags::ON_DISK);
            self.state.on_disk += 1;
        }
        Ok(())
    }

    /// A copy that will not be written after all, if it is still wanted. What was leaving is
    /// forgotten. The caller has seen to it that nothing of it can come back from disk.
    pub(crate) fn cancel(&mut self, hash: KeyHash, copy: Pending) -> bool {
        let wanted = self.state.copies.get(hash).is_some_and(|pending| pending.ticket == copy.ticket);
        if wanted {
            self.state.copies.take(hash);
            self.end_copy(copy.slot);
        }
        wanted
    }

    /// Gives up what is queued, for a disk that fails; how many copies that were.
    pub(crate) fn drop_queued(&mut self) -> u64 {
        let mut dropped = 0;
        while let Some((hash, copy)) = self.state.copies.pop_queued() {
            self.cancel(hash, copy);
            dropped += 1;
        }
        dropped
    }

    /// Queues a copy of every resident entry from `from` on that `due` wants and that has none,
    /// and drops what has expired. At most `steps` entries are looked at; the next one to look at
    /// is returned.
    pub(crate) fn sweep(
        &mut self,
        from: SlotId,
        steps: usize,
        mut due: impl FnMut(&Meta) -> bool,
    ) -> Option<SlotId> {
        let mut next = from;
        for _ in 0..steps {
            let slot = self.hot.next_resident(&self.state.writer, next)?;
            next = SlotId(slot.0 + 1);
            let meta = self.meta(slot);
            if meta.has(Flags::PENDING) {
                continue;
            }
            if self.state.expiry.has_expired(meta) {
                self.expire(slot);
            } else if !meta.has(Flags::ON_DISK) && due(meta) {
                self.queue_copy(slot);
            }
        }
        Some(next)
    }
}

/// Loads under way: see [`Loads`]. What they return is to be dropped outside the lock.
impl<'g, K, V> Shard<'g, K, V>
where
    K: Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn join_load<Q: Eq + ?Sized>(&mut self, hash: KeyHash, key: &Q, owned: K) -> Turn<V>
    where
        K: Borrow<Q>,
    {
        let turn = self.state.loads.join(hash, key, owned);
        self.state.counts.loads += u64::from(!matches!(turn, Turn::Wait(_)));
        turn
    }

    pub(crate) fn lease<Q: Eq + ?Sized>(&mut self, hash: KeyHash, key: &Q, owned: K) -> Option<LoadId>
    where
        K: Borrow<Q>,
    {
        self.state.loads.lease(hash, key, owned)
    }

    pub(crate) fn is_load_alive(&self, hash: KeyHash, id: LoadId) -> bool {
        self.state.loads.is_alive(hash, id)
    }

    #[must_use]
    pub(crate) fn release_load(&mut self, hash: KeyHash, id: LoadId, led: bool) -> Option<Load<K, V>> {
        self.state.loads.release(hash, id, led)
    }

    #[must_use]
    pub(crate) fn kill_loads(&mut self, hash: KeyHash) -> Option<Load<K, V>> {
        self.state.loads.kill(hash)
    }

    #[must_use]
    pub(crate) fn kill_all_loads(&mut self) -> impl Sized + use<K, V> {
        self.state.loads.kill_all()
    }
}

/// What an operation on the log does to the index.
impl<'g, K, V> Shard<'g, K, V>
where
    K: Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Forgets the copy at `location`, unless the key has moved since; whether it had not. The
    /// caller has made sure that the copy cannot come back (R6).
    pub(crate) fn forget(&mut self, hash: KeyHash, location: Location) -> bool {
        let forgotten = self.is_at(hash, location);
        if forgotten {
            self.change_index(|cold| cold.remove(hash));
            self.unmark_on_disk(hash);
        }
        forgotten
    }

    /// Drops everything that leads to a copy of this hash on disk: the index's, and one on its
    /// way. Residents stay, but for those that were leaving.
    pub(crate) fn forget_copies(&mut self, hash: KeyHash) {
        if let Some(copy) = self.state.copies.take(hash) {
            self.end_copy(copy.slot);
        }
        if self.state.cold.get(hash).is_some() {
            self.change_index(|cold| cold.remove(hash));
            self.unmark_on_disk(hash);
        }
    }

    /// A live record was written again elsewhere.
    pub(crate) fn relocate(&mut self, hash: KeyHash, from: Location, to: Location) -> bool {
        self.state.cold.replace_if(hash, from, to)
    }

    /// Adds what was found on disk at open. Newest first: what is there already is newer.
    pub(crate) fn load(&mut self, hash: KeyHash, location: Location) -> bool {
        self.change_index(|cold| cold.insert_if_absent(hash, location))
    }

    /// Adds what a snapshot says, marks included.
    pub(crate) fn load_packed(&mut self, slots: &[(KeyHash, u64)]) {
        self.change_index(|cold| {
            cold.reserve(slots.len());
            for &(hash, bits) in slots {
                if let Some(packed) = Packed::from_bits(bits) {
                    cold.insert_packed(hash, packed);
                }
            }
        });
    }

    fn change_index<R>(&mut self, change: impl FnOnce(&mut Cold) -> R) -> R {
        let old_bytes = self.state.cold.bytes();
        let result = change(&mut self.state.cold);
        if self.state.cold.bytes() != old_bytes {
            self.state.budget.resize_index(old_bytes, self.state.cold.bytes());
        }
        result
    }
}

/// The two hashes are the same, the keys are not.
#[derive(Debug)]
pub(crate) struct Collision;

/// The paragraphs of the moves above.
impl<'g, K, V> Shard<'g, K, V>
where
    K: Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn add(&mut self, entry: Entry<K, V>) {
        let slot = self.hot.insert(&mut self.state.writer, entry, self.guard);
        let state = &mut *self.state;
        state.clock.set_capacity(state.budget.capacity(state.borrowed));
        let view = View { hot: self.hot, writer: &state.writer, replaced: None };
        state.clock.insert(&view, slot, &mut state.victims);
    }

    /// An overwrite in RAM. `old` is in the rings: had it been leaving, `forget_copies` would have
    /// taken it out.
    fn replace(&mut self, old: SlotId, entry: Entry<K, V>) {
        let old_meta = self.meta(old);
        self.give_back(old_meta);
        let new = self.hot.replace(&mut self.state.writer, old, entry, self.guard);
        let state = &mut *self.state;
        state.clock.set_capacity(state.budget.capacity(state.borrowed));
        let view = View { hot: self.hot, writer: &state.writer, replaced: Some((old, old_meta)) };
        state.clock.replace(&view, old, new, &mut state.victims);
    }

    /// Sees the clock's victims off, and evicts more where a loan that ended took capacity with it.
    fn settle(&mut self) {
        loop {
            let mut victims = mem::take(&mut self.state.victims);
            for slot in victims.drain(..) {
                self.depart(slot);
            }
            self.state.victims = victims;
            let state = &mut *self.state;
            state.clock.set_capacity(state.budget.capacity(state.borrowed));
            if state.clock.bytes() <= state.clock.capacity() {
                return;
            }
            let view = View { hot: self.hot, writer: &state.writer, replaced: None };
            state.clock.shrink(&view, &mut state.victims);
            if state.victims.is_empty() {
                return;
            }
        }
    }

    /// An entry that the clock has evicted goes: to disk if it should, else for good.
    fn depart(&mut self, slot: SlotId) {
        let meta = self.meta(slot);
        self.give_back(meta);
        self.state.counts.evictions += 1;
        if meta.has(Flags::PENDING) {
            return self.set_leaving(meta);
        }
        match self.fate(meta) {
            Fate::Spill => {
                self.queue_copy(slot);
                return self.set_leaving(meta);
            }
            Fate::Clean => {
                self.state.counts.clean_evictions += 1;
                if meta.freq.load(Relaxed) > 0 {
                    self.state.cold.mark_read(meta.hash);
                }
                meta.clear(Flags::ON_DISK);
                self.state.on_disk -= 1;
            }
            Fate::Expired => self.state.counts.expired += 1,
            Fate::Refused => self.state.counts.refused += 1,
            Fate::Shed => self.state.counts.shed += 1,
            Fate::Failed => self.state.counts.write_failures += 1,
            Fate::NoDisk => {}
        }
        self.drop_resident(slot);
    }

    fn fate(&mut self, meta: &Meta) -> Fate {
        if meta.has(Flags::ON_DISK) {
            return Fate::Clean;
        }
        if self.state.expiry.has_expired(meta) {
            return Fate::Expired;
        }
        match self.state.disk {
            DiskState::Absent => return Fate::NoDisk,
            DiskState::Failing => return Fate::Failed,
            DiskState::Filling | DiskState::Wrapped => {}
        }
        if self.state.copies.get(meta.hash).is_some() {
            return Fate::Shed;
        }
        let wrapped = self.state.disk == DiskState::Wrapped;
        if !self.state.gate.admits(meta, wrapped) {
            return Fate::Refused;
        }
        if self.state.budget.must_shed() { Fate::Shed } else { Fate::Spill }
    }

    /// An entry that has expired goes, from both tiers: its copy on disk expires no later.
    fn expire(&mut self, slot: SlotId) {
        let meta = self.meta(slot);
        if meta.has(Flags::PENDING) {
            return;
        }
        self.state.counts.expired += 1;
        if meta.has(Flags::ON_DISK) {
            self.forget_copies(meta.hash);
        }
        self.take_out(slot);
    }

    /// Marks the entry and queues it. The caller has seen that no copy of its hash is pending.
    pub(crate) fn queue_copy(&mut self, slot: SlotId) {
        let meta = self.meta(slot);
        if self.state.copies.get(meta.hash).is_none() {
            meta.set(Flags::PENDING);
            self.state.copies.push(meta.hash, slot);
        }
    }

    /// A copy has ended without being written: what was leaving goes for good.
    fn end_copy(&mut self, slot: SlotId) {
        let meta = self.meta(slot);
        meta.clear(Flags::PENDING);
        if meta.has(Flags::LEAVING) {
            self.take_out(slot);
        }
    }

    /// Takes a resident entry out, wherever the policy has it.
    fn take_out(&mut self, slot: SlotId) {
        let meta = self.meta(slot);
        if meta.has(Flags::LEAVING) {
            self.state.leaving -= u64::from(meta.weight);
            self.state.budget.sub_leaving(u64::from(meta.weight));
        } else {
            self.give_back(meta);
            let state = &mut *self.state;
            let view = View { hot: self.hot, writer: &state.writer, replaced: None };
            state.clock.remove(&view, slot);
        }
        self.drop_resident(slot);
    }

    fn drop_resident(&mut self, slot: SlotId) {
        self.hot.remove(&mut self.state.writer, slot, self.guard);
    }

    fn unmark_on_disk(&mut self, hash: KeyHash) {
        let state = &mut *self.state;
        for slot in self.hot.slots_with_hash(&state.writer, hash) {
            let meta = &self.hot.entry(&state.writer, slot).meta;
            if meta.has(Flags::ON_DISK) {
                meta.clear(Flags::ON_DISK);
                state.on_disk -= 1;
            }
        }
    }

    fn set_leaving(&mut self, meta: &Meta) {
        meta.set(Flags::LEAVING);
        self.state.leaving += u64::from(meta.weight);
        self.state.budget.add_leaving(u64::from(meta.weight));
    }

    fn borrow_for(&mut self, meta: &Meta) -> Loan {
        let weight = u64::from(meta.weight);
        if !self.state.budget.lend(weight) {
            return Loan::None;
        }
        meta.set(Flags::BORROWED);
        self.state.borrowed += weight;
        Loan::Taken
    }

    fn give_back(&mut self, meta: &Meta) {
        if meta.has(Flags::BORROWED) {
            meta.clear(Flags::BORROWED);
            self.state.borrowed -= u64::from(meta.weight);
            self.state.budget.give_back(u64::from(meta.weight));
        }
    }

    fn entry(&self, slot: SlotId) -> &'g Entry<K, V> {
        self.hot.entry_pinned(&self.state.writer, slot, self.guard)
    }

    fn meta(&self, slot: SlotId) -> &'g Meta {
        &self.entry(slot).meta
    }
}

/// Re-deriving what is counted.
#[cfg(any(test, feature = "testing"))]
impl<K, V> Shard<'_, K, V>
where
    K: Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Checks every invariant; panics where one does not hold.
    pub(crate) fn check(&self) {
        let state = &*self.state;
        let view = View { hot: self.hot, writer: &state.writer, replaced: None };
        self.hot.check(&state.writer);
        state.clock.check(&view);
        state.cold.check();
        let (mut in_rings, mut on_disk, mut pending) = (0, 0, 0);
        let (mut leaving, mut borrowed) = (0, 0);
        let mut next = SlotId(0);
        while let Some(slot) = self.hot.next_resident(&state.writer, next) {
            next = SlotId(slot.0 + 1);
            let meta = self.meta(slot);
            let weight = u64::from(meta.weight);
            in_rings += usize::from(!meta.has(Flags::LEAVING));
            leaving += if meta.has(Flags::LEAVING) { weight } else { 0 };
            borrowed += if meta.has(Flags::BORROWED) { weight } else { 0 };
            if meta.has(Flags::ON_DISK) {
                on_disk += 1;
                assert!(state.cold.get(meta.hash).is_some(), "marked ON_DISK and not in the index");
                assert!(!meta.has(Flags::PENDING), "on disk, and yet on its way there");
            }
            let copy = state.copies.get(meta.hash).filter(|copy| copy.slot == slot);
            assert_eq!(meta.has(Flags::PENDING), copy.is_some(), "PENDING is not what `copies` says");
            assert!(meta.has(Flags::PENDING) || !meta.has(Flags::LEAVING), "leaving to nowhere");
            pending += usize::from(copy.is_some());
        }
        assert_eq!(in_rings, state.clock.len(), "invariant 1: resident, in no ring and not leaving");
        assert_eq!(pending, state.copies.len(), "invariant 2: a copy of nothing");
        assert_eq!(on_disk, state.on_disk, "invariant 3");
        assert_eq!((leaving, borrowed), (state.leaving, state.borrowed), "invariant 5");
    }
}

/// What becomes of an entry that the clock has evicted.
enum Fate {
    Spill,
    Clean,
    Expired,
    Refused,
    Shed,
    Failed,
    NoDisk,
}

/// The entries as the clock sees them.
struct View<'a, K, V> {
    hot: &'a Hot<K, V>,
    writer: &'a HotWriter<K, V>,
    /// The entry that was overwritten just now: no longer resident, but its place is to be passed on.
    replaced: Option<(SlotId, &'a Meta)>,
}

impl<K, V> Residents for View<'_, K, V> {
    fn meta(&self, slot: SlotId) -> &Meta {
        match self.replaced {
            Some((replaced, meta)) if replaced == slot => meta,
            _ => &self.hot.entry(self.writer, slot).meta,
        }
    }
}
