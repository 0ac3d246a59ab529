//! Copies of entries: on their way to disk, there, and in the index that names them.

use super::{
    DiskState, Held, Shard,
    cold::Cold,
    entry::{Flags, Meta, Resident, SlotId},
    pending::Pending,
};
use crate::{
    hash::KeyHash,
    location::{Location, SegmentId},
};

/// A copy that has left the queue, and the entry it is to be made of.
pub(crate) struct Queued<'g, K, V> {
    pub(crate) hash: KeyHash,
    pub(crate) copy: Pending,
    pub(crate) resident: Resident<'g, K, V>,
}

/// The two hashes are the same, the keys are not.
#[derive(Debug)]
pub(crate) struct Collision;

/// Copies on their way to disk.
impl<'g, K: Eq + Held, V: Held> Shard<'g, K, V> {
    /// How many copies are queued, those counted that were cancelled since.
    pub(crate) fn queued_len(&self) -> usize {
        self.state.copies.queued_len()
    }

    /// The next queued copies, `most` of them, and the entries to encode. Each is to be accepted, cancelled
    /// or queued again.
    pub(crate) fn next_copies(&mut self, most: usize) -> Vec<Queued<'g, K, V>> {
        let mut next = Vec::new();
        while next.len() < most
            && let Some((hash, copy)) = self.state.copies.pop_queued()
        {
            next.push(Queued { hash, copy, resident: self.resident(copy.slot) });
        }
        next
    }

    /// Queues copies again, before all others, that have not come to be encoded.
    pub(crate) fn queue_again(&mut self, queued: &[Queued<'_, K, V>]) {
        for queued in queued.iter().rev() {
            self.state.copies.push_front(queued.hash, queued.copy);
        }
    }

    /// Lets the log take the record of a copy, if it is still wanted; whether it was. R2 in one step.
    pub(crate) fn accept(&mut self, hash: KeyHash, copy: Pending, take: impl FnOnce() -> Location) -> bool {
        self.state.copies.accept(hash, copy, take)
    }

    /// Has what the commits of these copies will look at brought near, so that their waits for memory
    /// pass together.
    pub(crate) fn prefetch_commits(&self, hashes: impl Iterator<Item = KeyHash>) {
        for hash in hashes {
            self.state.cold.prefetch(hash);
            self.state.writer.prefetch_bucket(hash);
            if let Some(copy) = self.state.copies.get(hash) {
                self.state.writer.prefetch_slot(copy.slot);
            }
        }
    }

    /// The record at `location` can be read from now on: its entry is cold, unless the key has
    /// moved since. `Err` if another key of the same hash holds the index's place; the caller
    /// journals the hash and forgets both.
    pub(crate) fn commit(&mut self, hash: KeyHash, location: Location) -> Result<(), Collision> {
        let Some(copy) = self.state.copies.take_landed(hash, location) else {
            return Ok(());
        };
        let meta = self.meta(copy.slot);
        if meta.has(Flags::ON_DISK) {
            // The entry's own earlier copy, which this one renews: recovery would take the younger.
            self.forget_indexed(hash);
        }
        if !self.change_index(|cold| cold.insert_if_absent(hash, location)) {
            self.state.copies.put_back(hash, copy);
            return Err(Collision);
        }
        let state = &mut *self.state;
        state.gate.set_disk_entries(state.cold.len() as u64);
        meta.clear(Flags::PENDING);
        if meta.has(Flags::LEAVING) {
            self.state.counts.spills += 1;
            if meta.was_hit_lately() {
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
    /// and drops what has expired. It `renews` the copies of entries that are hit again and again, which would idle out
    /// on disk as if they were not: the index names the old one until the new one is there.
    /// At most `steps` entries are looked at; the next one to look at is returned.
    pub(crate) fn sweep(
        &mut self,
        from: SlotId,
        steps: usize,
        renews: bool,
        mut due: impl FnMut(&Meta) -> bool,
    ) -> Option<SlotId> {
        let mut next = from;
        for _ in 0..steps {
            let slot = self.state.writer.next_resident(next)?;
            next = slot.successor();
            let resident = self.resident(slot);
            let meta = &resident.entry.meta;
            if meta.has(Flags::PENDING) {
                continue;
            }
            if self.has_expired(resident) {
                self.expire(slot);
            } else if meta.has(Flags::ON_DISK) {
                if renews && self.state.expiry.is_copy_outdated(resident.times) {
                    self.queue_copy(slot);
                }
            } else if due(meta) {
                // A later sweep asks again where it is not.
                self.queue_copy(slot);
            }
        }
        Some(next)
    }

    /// A batch that held this copy was not written: it is not wanted any more. Whether it was.
    pub(crate) fn forget_in_flight(&mut self, hash: KeyHash, location: Location) -> bool {
        let copy = self.state.copies.get(hash).filter(|copy| copy.in_flight == Some(location));
        copy.is_some_and(|copy| {
            // An earlier copy that it was to renew is still to be renewed.
            self.state.expiry.forget_copied(self.resident(copy.slot).times);
            self.cancel(hash, copy)
        })
    }

    /// Marks the entry and queues it, unless a copy of its hash is pending: of another key, then, since
    /// callers ask for none where the entry has its own. Whether it did.
    pub(crate) fn queue_copy(&mut self, slot: SlotId) -> bool {
        let meta = self.meta(slot);
        let queued = self.state.copies.push(meta.hash, slot);
        if queued {
            meta.set(Flags::PENDING);
        }
        queued
    }

    /// Gives up the copy of an entry that the policy has evicted, where nobody may wait for it: one that the log has
    /// not taken yet. Whether it did.
    pub(super) fn give_up_waiting(&mut self, meta: &Meta) -> bool {
        let state = &mut *self.state;
        let may_wait = state.disk != DiskState::Failing && !state.budget.must_shed();
        if may_wait || state.copies.get(meta.hash).is_none_or(|copy| copy.in_flight.is_some()) {
            return false;
        }
        state.copies.take(meta.hash);
        meta.clear(Flags::PENDING);
        true
    }

    /// A copy has ended without being written: what was leaving goes for good.
    fn end_copy(&mut self, slot: SlotId) {
        let meta = self.meta(slot);
        meta.clear(Flags::PENDING);
        // One that cannot be written is not tried again at the very next sweep.
        meta.set_age(0);
        if meta.has(Flags::LEAVING) {
            self.take_out(slot);
        }
    }
}

/// What an operation on the log does to the index.
impl<'g, K: Eq + Held, V: Held> Shard<'g, K, V> {
    /// Marks the copy of a key that is about to be read, which makes reclaim keep it. Whether the key is
    /// to come back into RAM.
    pub(crate) fn note_disk_hit(&mut self, hash: KeyHash) -> bool {
        let state = &mut *self.state;
        state.cold.mark_read(hash);
        let (taken, capacity) = (state.policy.weight(), state.policy.capacity());
        // Eviction leaves less free than what leaves last has weighed.
        let has_room = capacity.saturating_sub(taken) > capacity / 32;
        has_room || state.policy.knows(hash) || state.readmission.admits(hash, state.writer.len() as u64)
    }

    /// Whether what was read from `location` may come back into RAM: not if the key has moved since.
    pub(crate) fn may_promote(&self, hash: KeyHash, location: Location) -> bool {
        self.is_at(hash, location) && !self.state.closed && !self.is_resident(hash)
    }

    /// Forgets the copy at `location`, unless the key has moved since; whether it had not. The
    /// caller has made sure that the copy cannot come back (R6).
    pub(crate) fn forget(&mut self, hash: KeyHash, location: Location) -> bool {
        let forgotten = self.change_index(|cold| cold.remove_if(hash, location));
        if forgotten {
            self.unmark_all_on_disk(hash);
        }
        forgotten
    }

    /// The caller has journaled that the copy is void, which the index goes on naming for a while: it is not written
    /// again, since that one would be younger than what the journal says.
    pub(crate) fn set_void(&mut self, hash: KeyHash) {
        self.state.cold.set_void(hash);
    }

    /// Whether reclaim may write the record at `location` again: not if the key has moved, nor what is void.
    pub(crate) fn may_be_rewritten(&self, hash: KeyHash, location: Location) -> bool {
        let packed = self.state.cold.packed(hash);
        packed.is_some_and(|packed| packed.location() == location && !packed.is_void())
    }

    /// Marks the copies of what was hit in RAM as read, as its eviction would: at a close, for the next run.
    pub(crate) fn mark_residents_read(&mut self) {
        let mut next = SlotId(0);
        while let Some(slot) = self.state.writer.next_resident(next) {
            next = slot.successor();
            let meta = self.meta(slot);
            if meta.has(Flags::ON_DISK) {
                self.mark_if_hit(meta);
            }
        }
    }

    /// Marks the copy of an entry as read if the entry was hit in RAM.
    pub(super) fn mark_if_hit(&mut self, meta: &Meta) {
        if meta.usage().freq > 0 {
            self.state.cold.mark_read(meta.hash);
        }
    }

    /// Every copy in a segment. Looks at the whole index.
    pub(crate) fn copies_in(&self, segment: SegmentId) -> Vec<(KeyHash, Location)> {
        let copies = self.state.cold.iter().map(|(hash, packed)| (hash, packed.location()));
        copies.filter(|(_, location)| location.segment() == segment).collect()
    }

    /// Drops everything that leads to a copy of this hash on disk: the index's, and one on its
    /// way. Residents stay, but for those that were leaving.
    #[inline]
    pub(crate) fn forget_copies(&mut self, hash: KeyHash) {
        if !self.state.copies.is_empty() || self.state.cold.len() != 0 {
            self.forget_those_of(hash);
        }
    }

    fn forget_those_of(&mut self, hash: KeyHash) {
        if let Some(copy) = self.state.copies.take(hash) {
            self.end_copy(copy.slot);
        }
        self.forget_indexed(hash);
    }

    /// Drops what the index has of this hash.
    pub(super) fn forget_indexed(&mut self, hash: KeyHash) {
        if self.state.cold.get(hash).is_some() {
            self.change_index(|cold| cold.remove(hash));
            self.unmark_all_on_disk(hash);
        }
    }

    /// A live record was written again elsewhere. One that was made void since is dead there, too.
    pub(crate) fn relocate(&mut self, hash: KeyHash, from: Location, to: Location) -> bool {
        self.state.cold.replace_if(hash, from, to)
    }

    /// Adds what was found on disk at open. Newest first: what is there already is newer.
    pub(crate) fn load(&mut self, found: &[(KeyHash, Location)]) {
        self.change_index(|cold| {
            cold.reserve(found.len());
            for &(hash, location) in found {
                cold.insert_if_absent(hash, location);
            }
            cold.fit();
        });
    }

    /// Takes over what a snapshot says. The stripe's index was empty.
    pub(crate) fn load_index(&mut self, loaded: Cold) {
        self.change_index(|cold| {
            assert_eq!(cold.len(), 0, "a stripe is loaded before it is used");
            *cold = loaded;
        });
    }

    pub(super) fn change_index<R>(&mut self, change: impl FnOnce(&mut Cold) -> R) -> R {
        let old_bytes = self.state.cold.bytes();
        let result = change(&mut self.state.cold);
        if self.state.cold.bytes() != old_bytes {
            self.state.budget.resize_index(old_bytes, self.state.cold.bytes());
        }
        result
    }

    fn unmark_all_on_disk(&mut self, hash: KeyHash) {
        let state = &mut *self.state;
        for slot in state.writer.slots_with_hash(hash) {
            let meta = &state.writer.entry(slot).meta;
            if meta.has(Flags::ON_DISK) {
                meta.clear(Flags::ON_DISK);
                state.on_disk -= 1;
            }
        }
    }

    /// The entry has no copy any more, or goes and leaves that behind.
    pub(super) fn unmark_on_disk(&mut self, meta: &Meta) {
        if meta.has(Flags::ON_DISK) {
            meta.clear(Flags::ON_DISK);
            self.state.on_disk -= 1;
        }
    }
}
