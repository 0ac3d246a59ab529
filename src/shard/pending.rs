//! The copies that are on their way to disk: queued, or in the batch that is being written.

use std::{
    collections::{VecDeque, hash_map::Entry},
    sync::Arc,
};

use super::entry::SlotId;
use crate::{
    budget::Budget,
    hash::{HashMapByKeyHash, KeyHash},
    location::Location,
};

/// So many cancelled copies are not worth a look through the queue.
const CANCELLED_MIN: usize = 64;

/// For so many copies the memory is kept when the last has ended.
const ROOM_KEPT: usize = 64;

/// What a copy on its way takes here, at the most.
const COPY_BYTES: u64 = 100;

/// A copy on its way to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The resident entry that is copied.
    pub(crate) slot: SlotId,
    /// Tells this copy from an earlier one of the same key, whose encoding may still be going on.
    pub(crate) ticket: Ticket,
    /// Where the record will lie, once it has been accepted by the log. From then on it may reach
    /// the disk, and only the journal can take it back (R3).
    pub(crate) in_flight: Option<Location>,
}

/// The number of a copy; never used twice in a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// One stripe's copies on their way, by key hash.
///
/// # Invariants
///
/// 1. A hash is in `copies` exactly if a resident entry of that hash is marked `PENDING`.
/// 2. A copy that is not in flight, nor being encoded, has its hash and ticket in `queue`; what
///    else is there was cancelled and is skipped. Half of the queue at least is wanted, but for a rest.
#[derive(Debug, Default)]
pub(crate) struct PendingCopies {
    copies: HashMapByKeyHash<Pending>,
    queue: VecDeque<(KeyHash, Ticket)>,
    last_ticket: u64,
    /// What the copies take waits for the disk with what is leaving.
    counted_in: Option<Arc<Budget>>,
}

impl PendingCopies {
    /// Copies that inserts wait for if they are too many, for a cache that copies each insert.
    pub(crate) fn counted_in(budget: Arc<Budget>) -> PendingCopies {
        PendingCopies { counted_in: Some(budget), ..PendingCopies::default() }
    }

    /// Queues a copy of `slot`, unless one is pending for its hash; whether it did.
    pub(crate) fn push(&mut self, hash: KeyHash, slot: SlotId) -> bool {
        let Entry::Vacant(vacant) = self.copies.entry(hash) else { return false };
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        vacant.insert(Pending { slot, ticket, in_flight: None });
        self.queue.push_back((hash, ticket));
        self.count_one();
        if self.queue.len() > 2 * self.copies.len() + CANCELLED_MIN {
            // Nobody takes them out while the disk keeps its thread waiting.
            let copies = &self.copies;
            self.queue.retain(|(hash, ticket)| copies.get(hash).is_some_and(|copy| copy.ticket == *ticket));
        }
        true
    }

    pub(crate) fn get(&self, hash: KeyHash) -> Option<Pending> {
        self.copies.get(&hash).copied()
    }

    /// The length of the queue, cancelled copies included.
    pub(crate) fn queued_len(&self) -> usize {
        self.queue.len()
    }

    /// The oldest queued copy that was not cancelled; it leaves the queue and stays pending.
    pub(crate) fn pop_queued(&mut self) -> Option<(KeyHash, Pending)> {
        while let Some((hash, ticket)) = self.queue.pop_front() {
            if let Some(&copy) = self.copies.get(&hash)
                && copy.ticket == ticket
            {
                return Some((hash, copy));
            }
        }
        if self.queue.capacity() > ROOM_KEPT {
            self.queue = VecDeque::new();
        }
        None
    }

    /// Puts a copy that was popped back to where it was. Should it have been cancelled since, it is
    /// skipped as any other.
    pub(crate) fn push_front(&mut self, hash: KeyHash, copy: Pending) {
        self.queue.push_front((hash, copy.ticket));
    }

    /// Puts the copy in flight to where `take` says, if it is still wanted; whether it was.
    pub(crate) fn accept(&mut self, hash: KeyHash, copy: Pending, take: impl FnOnce() -> Location) -> bool {
        match self.copies.get_mut(&hash) {
            Some(pending) if *pending == copy => {
                pending.in_flight = Some(take());
                true
            }
            _ => false,
        }
    }

    /// Ends the copy of this hash that is in flight to `location`, if it is still wanted.
    pub(crate) fn take_landed(&mut self, hash: KeyHash, location: Location) -> Option<Pending> {
        let ended = match self.copies.entry(hash) {
            Entry::Occupied(copy) if copy.get().in_flight == Some(location) => copy.remove(),
            _ => return None,
        };
        self.note_end();
        Some(ended)
    }

    /// Undoes `take_landed`.
    pub(crate) fn put_back(&mut self, hash: KeyHash, copy: Pending) {
        self.copies.insert(hash, copy);
        self.count_one();
    }

    /// Ends the copy: written, or cancelled.
    pub(crate) fn take(&mut self, hash: KeyHash) -> Option<Pending> {
        let ended = self.copies.remove(&hash)?;
        self.note_end();
        Some(ended)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        if let Some(budget) = &self.counted_in {
            budget.sub_leaving(self.counted_bytes());
        }
        self.copies = HashMapByKeyHash::default();
        self.queue = VecDeque::new();
    }

    /// What the copies take, where that is counted.
    pub(crate) fn counted_bytes(&self) -> u64 {
        if self.counted_in.is_some() { self.copies.len() as u64 * COPY_BYTES } else { 0 }
    }

    fn count_one(&self) {
        if let Some(budget) = &self.counted_in {
            budget.add_leaving(COPY_BYTES);
        }
    }

    fn note_end(&mut self) {
        if let Some(budget) = &self.counted_in {
            budget.sub_leaving(COPY_BYTES);
        }
        if self.copies.is_empty() && self.copies.capacity() > ROOM_KEPT {
            self.copies = HashMapByKeyHash::default();
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.copies.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::SegmentId;

    #[test]
    fn cancelled_copies_do_not_pile_up() {
        let mut copies = PendingCopies::default();
        assert!(copies.push(KeyHash(0), SlotId(0)));
        for _ in 0..10_000 {
            copies.push(KeyHash(1), SlotId(1));
            copies.take(KeyHash(1));
        }
        assert!(copies.queue.len() <= CANCELLED_MIN + 4, "{}", copies.queue.len());
        assert_eq!(copies.pop_queued().map(|(hash, _)| hash), Some(KeyHash(0)));
        assert_eq!(copies.pop_queued(), None);
    }
    /// Its encoding took so long that the key was overwritten and copied anew.
    #[test]
    fn an_earlier_copy_is_not_taken_for_the_present_one() {
        let at = Location::new(SegmentId::new(0).unwrap(), 64);
        let mut copies = PendingCopies::default();
        copies.push(KeyHash(1), SlotId(1));
        let (hash, earlier) = copies.pop_queued().unwrap();
        copies.take(hash);
        copies.push(hash, SlotId(1));
        assert!(!copies.accept(hash, earlier, || unreachable!("it is not wanted")));
        copies.push_front(hash, earlier);
        let (_, present) = copies.pop_queued().unwrap();
        assert_ne!(present.ticket, earlier.ticket, "what was cancelled is skipped");
        assert!(copies.accept(hash, present, || at));
        assert_eq!(copies.get(hash).unwrap().in_flight, Some(at));
    }

    #[test]
    fn what_is_put_back_comes_first() {
        let mut copies = PendingCopies::default();
        (0..3).for_each(|key| assert!(copies.push(KeyHash(key), SlotId(0))));
        let (hash, copy) = copies.pop_queued().unwrap();
        copies.push_front(hash, copy);
        let order = [0, 1, 2].map(|_| copies.pop_queued().unwrap().0.0);
        assert_eq!(order, [0, 1, 2]);
    }

    #[test]
    fn a_hash_has_one_copy_which_lands_where_it_was_accepted() {
        let at = |offset| Location::new(SegmentId::new(0).unwrap(), offset);
        let mut copies = PendingCopies::default();
        assert!(copies.push(KeyHash(1), SlotId(1)));
        assert!(!copies.push(KeyHash(1), SlotId(2)), "one is pending");
        let (hash, copy) = copies.pop_queued().unwrap();
        assert_eq!(copy.slot, SlotId(1));
        assert_eq!(copies.take_landed(hash, at(64)), None, "it is not in flight");
        assert!(copies.accept(hash, copy, || at(64)));
        assert_eq!(copies.take_landed(hash, at(128)), None, "that was an earlier one");
        let landed = copies.take_landed(hash, at(64)).unwrap();
        assert!(copies.is_empty());
        copies.put_back(hash, landed);
        assert_eq!(copies.take_landed(hash, at(64)), Some(landed));
    }
}
