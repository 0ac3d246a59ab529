//! The moves that an operation makes: in, over, back from disk, and out.

use std::borrow::Borrow;

use super::{
    DiskState, Found, Held, Loan, Shard,
    cold::Cold,
    entry::{Arrival, Flags, Meta, Resident, SlotId},
};
use crate::hash::KeyHash;

/// Entries that an insert looks at for expired ones: more than one, so that they cannot pile up.
const SWEEP_STEPS: usize = 2;

/// Moves that an operation makes.
impl<'g, K: Eq + Held, V: Held> Shard<'g, K, V> {
    /// Where a key is. What has expired in RAM is dropped on the way.
    pub(crate) fn find<Q>(&mut self, hash: KeyHash, key: &Q) -> Found<'g, K, V>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        if let Some(slot) = self.state.writer.slot_of(hash, key) {
            let resident = self.resident(slot);
            if !self.has_expired(resident) {
                return Found::Hot(resident);
            }
            self.expire(slot);
            return Found::Nothing;
        }
        match self.state.cold.get(hash) {
            Some(location) => Found::Cold(location),
            None => Found::Nothing,
        }
    }

    /// Has what an operation on this hash will look at brought near.
    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        self.state.cold.prefetch(hash);
        self.state.policy.prefetch(hash);
    }

    /// The slot of a key that is in RAM, for a change of it: asked before anything is changed, and before the caller
    /// has anything to drop, since `K::eq` may panic.
    #[inline]
    pub(crate) fn slot_of<Q>(&self, hash: KeyHash, key: &Q) -> Option<SlotId>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.state.writer.slot_of(hash, key)
    }

    /// Stores an entry over whatever its key had, in the slot `old` if it was in RAM. The caller has journaled
    /// what may be on disk.
    pub(crate) fn insert(&mut self, old: Option<SlotId>, arrival: Arrival<K, V>) -> Loan {
        let meta = &arrival.entry.meta;
        self.note_limbo();
        self.forget_copies(meta.hash);
        // What was leaving has gone with its copy.
        let old = old.filter(|&old| self.state.writer.is_resident(old));
        if let Some(old) = old {
            // First, so that what it had borrowed is there for the new one.
            self.give_back(self.meta(old));
        }
        let loan = self.borrow_for(meta);
        let slot = match old {
            Some(old) => self.replace(old, arrival),
            None => self.add(arrival),
        };
        if self.state.writes_through && !self.state.budget.must_shed() {
            self.queue_copy(slot);
        }
        self.state.counts.inserts += 1;
        self.settle();
        self.sweep_on_insert();
        self.prefetch_next();
        loan
    }

    /// Brings an entry back into RAM, as [`may_promote`](Shard::may_promote) said that it may. It keeps
    /// its copy on disk, unless the caller has forgotten that, and is `copied` anew if that was to go, or ends earlier
    /// than the entry: that one would be taken for the entry's, which a flush then does not copy.
    pub(crate) fn promote(&mut self, arrival: Arrival<K, V>, copied: bool) -> Loan {
        self.note_limbo();
        let meta = &arrival.entry.meta;
        let loan = self.borrow_for(meta);
        meta.set(Flags::FROM_DISK);
        if self.location(meta.hash).is_some() {
            meta.set(Flags::ON_DISK);
            self.state.on_disk += 1;
        }
        let slot = self.add(arrival);
        if copied {
            self.queue_copy(slot);
        }
        self.settle();
        loan
    }

    /// Takes a key out of both tiers, in RAM out of the slot `old` if it was there; whether it was. The caller has
    /// journaled what may be on disk.
    pub(crate) fn remove(&mut self, hash: KeyHash, old: Option<SlotId>) -> bool {
        let was_alive = old.is_some_and(|slot| !self.has_expired(self.resident(slot)));
        self.forget_copies(hash);
        // As in `insert`.
        if let Some(slot) = old.filter(|&old| self.state.writer.is_resident(old)) {
            self.take_out(slot);
        }
        was_alive
    }

    /// Takes everything out. The caller has written the barrier, and nothing is in flight.
    pub(crate) fn clear(&mut self) {
        self.state.copies.clear();
        let mut next = SlotId(0);
        while let Some(slot) = self.state.writer.next_resident(next) {
            next = slot.successor();
            let meta = self.meta(slot);
            meta.clear(Flags::ON_DISK);
            meta.clear(Flags::PENDING);
            self.take_out(slot);
        }
        self.state.on_disk = 0;
        self.state.policy.clear();
        self.state.gate.clear();
        self.state.readmission.clear();
        self.change_index(Cold::clear);
        self.hand_over_retired();
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
        self.note_limbo();
        self.evict_surplus();
        self.settle();
    }
}

/// The paragraphs of the moves above.
impl<'g, K: Eq + Held, V: Held> Shard<'g, K, V> {
    /// Has what the stripe's next insert will look at brought near: by then it has come, and several
    /// of these waits pass at once.
    fn prefetch_next(&self) {
        let state = &*self.state;
        if let Some(next) = state.policy.prefetch_next(&state.writer) {
            state.writer.prefetch_bucket(next.hash);
        }
        state.writer.prefetch_gone();
    }

    /// Without a disk there is no thread that sweeps, so each insert looks at a few entries.
    fn sweep_on_insert(&mut self) {
        if self.state.disk == DiskState::Absent && self.state.expiry.is_used() {
            let from = self.state.sweep_from;
            // Nothing has a copy.
            let next = self.sweep(from, SWEEP_STEPS, false, |_| false);
            self.state.sweep_from = next.unwrap_or(SlotId(0));
        }
    }

    #[inline]
    fn add(&mut self, arrival: Arrival<K, V>) -> SlotId {
        let (share, capacity) = self.share_and_capacity();
        let is_too_large = arrival.entry.meta.weight() > share;
        let state = &mut *self.state;
        let slot = state.writer.insert(arrival, || state.policy.expected_len(), self.guard);
        state.policy.set_capacity(capacity);
        if is_too_large {
            // Nothing was lent for it. It does not push out everything else to stay beyond the budget: it goes on.
            state.victims.push(slot);
            state.policy.shrink(&state.writer, &mut state.victims);
        } else {
            state.policy.insert(&state.writer, slot, &mut state.victims);
        }
        slot
    }

    /// An overwrite in RAM. `old` is in the rings: had it been leaving, `forget_copies` would have
    /// taken it out.
    fn replace(&mut self, old: SlotId, arrival: Arrival<K, V>) -> SlotId {
        let (share, capacity) = self.share_and_capacity();
        if arrival.entry.meta.weight() > share {
            self.take_out(old);
            return self.add(arrival);
        }
        let old_meta = self.meta(old);
        let new = self.state.writer.replace(old, arrival, self.guard);
        let state = &mut *self.state;
        state.policy.set_capacity(capacity);
        state.policy.replace(&state.writer, old_meta, new, &mut state.victims);
        new
    }

    /// What the entries may weigh now: what is displaced and not yet freed takes from it. But to
    /// evict ever more while a reader holds the epoch would free nothing, so it takes an eighth at most, and nothing
    /// of what was borrowed for an entry that is here. A budget in entries counts those that can be found.
    #[inline]
    fn capacity(&self) -> u64 {
        self.share_and_capacity().1
    }

    /// With it, what they may weigh once that is freed.
    #[inline]
    fn share_and_capacity(&self) -> (u64, u64) {
        let share = self.state.budget.capacity(self.state.borrowed);
        let limbo_max = (share - self.state.borrowed) / 8;
        let limbo = if self.state.budget.is_in_bytes() { self.limbo.min(limbo_max) } else { 0 };
        (share, share - limbo)
    }

    /// Looks at what waits for the epoch once an operation, before its own evictions join it.
    fn note_limbo(&mut self) {
        self.limbo = self.hot.limbo_weight();
    }

    /// Sees the policy's victims off, and evicts more where a loan that ended took capacity with it.
    #[inline]
    fn settle(&mut self) {
        loop {
            let borrowed = self.state.borrowed;
            for at in 0..self.state.victims.len() {
                self.depart(self.state.victims[at]);
            }
            self.state.victims.clear();
            if self.state.borrowed == borrowed {
                return;
            }
            self.evict_surplus();
        }
    }

    /// Has the policy choose what leaves where the capacity has shrunk.
    fn evict_surplus(&mut self) {
        let capacity = self.capacity();
        let state = &mut *self.state;
        state.policy.set_capacity(capacity);
        state.policy.shrink(&state.writer, &mut state.victims);
    }

    /// An entry that the policy has evicted goes: to disk if it should, else for good.
    #[inline]
    fn depart(&mut self, slot: SlotId) {
        let resident = self.resident(slot);
        let meta = &resident.entry.meta;
        self.give_back(meta);
        self.state.counts.evictions += 1;
        if self.state.disk != DiskState::Absent {
            return self.depart_beside_disk(slot, resident);
        }
        if self.has_expired(resident) {
            self.state.counts.expired += 1;
        }
        self.drop_resident(slot, meta);
    }

    fn depart_beside_disk(&mut self, slot: SlotId, resident: Resident<'g, K, V>) {
        let meta = &resident.entry.meta;
        if meta.has(Flags::PENDING) && !self.give_up_waiting(meta) {
            return self.set_leaving(meta);
        }
        match self.fate(resident) {
            Fate::Spill if self.queue_copy(slot) => return self.set_leaving(meta),
            Fate::Clean => {
                self.state.counts.clean_evictions += 1;
                self.mark_if_hit(meta);
                self.unmark_on_disk(meta);
            }
            Fate::Expired => self.state.counts.expired += 1,
            Fate::Refused => self.state.counts.refused += 1,
            // Or another key of its hash is on its way.
            Fate::Spill | Fate::Shed => self.state.counts.shed += 1,
            Fate::Failed => self.state.counts.write_failures += 1,
        }
        self.drop_resident(slot, meta);
    }

    fn fate(&mut self, resident: Resident<'g, K, V>) -> Fate {
        let meta = &resident.entry.meta;
        if meta.has(Flags::ON_DISK) {
            return Fate::Clean;
        }
        if self.has_expired(resident) {
            return Fate::Expired;
        }
        let wrapped = match self.state.disk {
            DiskState::Failing => return Fate::Failed,
            DiskState::Absent | DiskState::ReadOnly => return Fate::Refused,
            DiskState::Filling => false,
            DiskState::Wrapped => true,
        };
        if !self.state.gate.admits(meta, wrapped) {
            return Fate::Refused;
        }
        if self.state.budget.must_shed() { Fate::Shed } else { Fate::Spill }
    }

    /// An entry that has expired goes, from both tiers: its copy on disk expires no later.
    pub(super) fn expire(&mut self, slot: SlotId) {
        let meta = self.meta(slot);
        if meta.has(Flags::PENDING) {
            // The copy's end decides: the encoder gives up what has expired, and the next look or
            // sweep finds the entry alone.
            return;
        }
        self.state.counts.expired += 1;
        if meta.has(Flags::ON_DISK) {
            // Its own copy alone: one on its way is another key's of this hash, and nobody journals that.
            self.forget_indexed(meta.hash);
        }
        self.take_out(slot);
    }

    /// Takes a resident entry out, wherever the policy has it.
    pub(super) fn take_out(&mut self, slot: SlotId) {
        let meta = self.meta(slot);
        if meta.has(Flags::LEAVING) {
            self.state.leaving -= meta.weight();
            self.state.budget.sub_leaving(meta.weight());
        } else {
            self.give_back(meta);
            let state = &mut *self.state;
            state.policy.remove(&state.writer, slot);
        }
        self.unmark_on_disk(meta);
        self.drop_resident(slot, meta);
    }

    fn drop_resident(&mut self, slot: SlotId, meta: &Meta) {
        self.state.writer.remove(slot, meta.hash, self.guard);
    }

    fn set_leaving(&mut self, meta: &Meta) {
        meta.set(Flags::LEAVING);
        self.state.leaving += meta.weight();
        self.state.budget.add_leaving(meta.weight());
    }

    fn borrow_for(&mut self, meta: &Meta) -> Loan {
        let weight = meta.weight();
        if !self.state.budget.lend(weight) {
            return Loan::None;
        }
        meta.set(Flags::BORROWED);
        self.state.borrowed += weight;
        Loan::Taken
    }

    fn give_back(&mut self, meta: &Meta) {
        if meta.has(Flags::BORROWED) {
            self.end_loan(meta);
        }
    }

    #[cold]
    fn end_loan(&mut self, meta: &Meta) {
        meta.clear(Flags::BORROWED);
        self.state.borrowed -= meta.weight();
        self.state.budget.give_back(meta.weight());
    }
}

/// What becomes of an entry that the policy has evicted, where there is a disk.
enum Fate {
    Spill,
    Clean,
    Expired,
    Refused,
    Shed,
    Failed,
}
