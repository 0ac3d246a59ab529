//! Stable addresses for entries: a slot never moves while the slab lives.
//!
//! Memory comes in chunks, four of one size and then four of twice that size, so a growing slab
//! is never more than a quarter larger than it must be and no chunk is ever copied. A slot's
//! number alone says its chunk and index:
//!
//! ```text
//!   position = id + 256       1 q q i i i i i i      q: which of the four, i: index in the chunk
//!   leading one at bit 8:     chunks 0..4 of  64 slots   (ids   0..256)
//!   leading one at bit 9:     chunks 4..8 of 128 slots   (ids 256..768)
//! ```
//!
//! The chunks lie in the [`Arena`] that all stripes share. A slab is memory and nothing else. It does not know which slots are filled and drops no value
//! when it is dropped; [`Hot`](super::hot::Hot) knows both.

use std::{array, marker::PhantomData, mem::MaybeUninit, ptr, sync::Arc};

use super::{
    arena::{Arena, Array},
    entry::SlotId,
};
use crate::{
    processor::prefetch,
    sync::{
        Ordering::{Relaxed, Release},
        lock_free::AtomicPtr,
    },
};

/// log2 of the slots in each of the first four chunks.
const FIRST_CHUNK_BITS: u32 = 6;
/// log2 of the chunks of each size.
const SAME_SIZE_BITS: u32 = 2;
/// The bit where the leading one of the lowest position stands.
const LOWEST_LEAD: u32 = FIRST_CHUNK_BITS + SAME_SIZE_BITS;
/// Enough chunks for every position below 2^32.
const CHUNKS: usize = ((u32::BITS - LOWEST_LEAD) << SAME_SIZE_BITS) as usize;

/// # Invariants
///
/// 1. A chunk's pointer is written once, from null, by the one writer. It is good as long as `arena`.
/// 2. A filled slot's chunk exists: `write` makes the chunk before it fills the slot.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    /// The first slot of each chunk, or null. Relaxed loads: whoever learnt a slot's number
    /// learnt it through a synchronizing edge that comes after the chunk's store (the table's
    /// Release store of the number, or the stripe's lock).
    chunks: [AtomicPtr<MaybeUninit<T>>; CHUNKS],
    arena: Arc<Arena>,
    owns: PhantomData<T>,
}

impl<T> Slab<T> {
    /// The highest slot number there is.
    pub(crate) const LAST: SlotId = SlotId(u32::MAX - (1 << LOWEST_LEAD));

    pub(crate) fn new(arena: Arc<Arena>) -> Slab<T> {
        let chunks = array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
        Slab { chunks, arena, owns: PhantomData }
    }

    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Makes the chunk that holds `slot`, if it does not exist, and returns the bytes that took.
    /// One writer at a time.
    pub(crate) fn reserve(&self, slot: SlotId) -> usize {
        let place = Place::of(slot);
        if !self.chunks[place.chunk].load(Relaxed).is_null() {
            return 0;
        }
        let chunk = Array::new_uninit(&self.arena, chunk_slots(place.chunk));
        let bytes = chunk.bytes();
        // Release, though today's readers get here through the table's stronger edge: the pointer
        // then carries the chunk for whoever loads it with Acquire.
        self.chunks[place.chunk].store(chunk.leak().as_ptr(), Release);
        bytes
    }

    /// Fills a slot.
    ///
    /// # Safety
    ///
    /// The slot was reserved and is empty, and nobody else reads or writes it until this call has
    /// returned and its number was passed on through a synchronizing edge.
    pub(crate) unsafe fn write(&self, slot: SlotId, value: T) {
        let at = self.at(slot);
        // SAFETY: `at` points into a live chunk (reserved by contract, mapped as long as `arena`), in
        // bounds and aligned as `Place` splits positions exactly as `reserve` sizes chunks. The
        // caller has the slot for itself, and it is empty, so nothing is overwritten undropped.
        unsafe { at.write(value) };
    }

    /// The value in a slot.
    ///
    /// # Safety
    ///
    /// The slot is filled, its filling happened before this call, and it is not emptied while the
    /// returned reference lives.
    #[inline]
    pub(crate) unsafe fn get(&self, slot: SlotId) -> &T {
        let at = self.at(slot);
        // SAFETY: `at` is in bounds and aligned (as in `write`) and holds a value by contract;
        // filled slots are only ever shared, never written, so a shared reference is allowed.
        unsafe { &*at }
    }

    /// Empties a slot.
    ///
    /// # Safety
    ///
    /// The slot is filled, its filling happened before this call, and no reference to its value
    /// lives or is made any more.
    #[inline]
    pub(crate) unsafe fn take(&self, slot: SlotId) -> T {
        let at = self.at(slot);
        // SAFETY: `at` is in bounds and aligned (as in `write`) and holds a value by contract, which
        // nobody else reaches: moved out here, it is used by its new owner only.
        unsafe { at.read() }
    }

    /// Has the start of a slot brought near.
    #[inline]
    pub(crate) fn prefetch(&self, slot: SlotId) {
        prefetch(self.at(slot));
    }

    /// The address of a slot whose chunk exists.
    #[inline]
    fn at(&self, slot: SlotId) -> *mut T {
        let place = Place::of(slot);
        let chunk = self.chunks[place.chunk].load(Relaxed);
        debug_assert!(!chunk.is_null(), "{slot:?} was never reserved");
        // Wrapping, so that only the dereference carries an obligation.
        chunk.wrapping_add(place.index).cast()
    }
}

/// Where in the chunks a slot lies.
#[derive(Debug, PartialEq)]
struct Place {
    chunk: usize,
    index: usize,
}

impl Place {
    #[inline]
    fn of(slot: SlotId) -> Place {
        debug_assert!(slot.0 <= u32::MAX - (1 << LOWEST_LEAD), "no such slot: {slot:?}");
        let position = slot.0.wrapping_add(1 << LOWEST_LEAD);
        // `| 1 << LOWEST_LEAD` changes nothing for a legal slot; it bounds what follows for any.
        let lead = (position | 1 << LOWEST_LEAD).ilog2();
        let index_bits = lead - SAME_SIZE_BITS;
        let quarter = position >> index_bits & ((1 << SAME_SIZE_BITS) - 1);
        Place {
            chunk: ((lead - LOWEST_LEAD) << SAME_SIZE_BITS | quarter) as usize,
            index: (position & ((1 << index_bits) - 1)) as usize,
        }
    }
}

fn chunk_slots(chunk: usize) -> usize {
    1 << (FIRST_CHUNK_BITS as usize + (chunk >> SAME_SIZE_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_tile_the_chunks_without_gap_or_overlap() {
        let (mut chunk, mut index) = (0, 0);
        for id in 0..100_000 {
            assert_eq!(Place::of(SlotId(id)), Place { chunk, index });
            index += 1;
            if index == chunk_slots(chunk) {
                (chunk, index) = (chunk + 1, 0);
            }
        }
        let last = Place::of(Slab::<u8>::LAST);
        assert_eq!(last, Place { chunk: CHUNKS - 1, index: chunk_slots(CHUNKS - 1) - 1 });
    }

    #[test]
    fn addresses_are_stable_and_chunks_come_once() {
        let slab = Slab::<u64>::new(Arc::default());
        let mut chunks = 0;
        for id in 0..1000 {
            chunks += usize::from(slab.reserve(SlotId(id)) > 0);
            // SAFETY: just reserved, filled once, and only this thread has the slab.
            unsafe { slab.write(SlotId(id), u64::from(id)) };
        }
        assert_eq!(chunks, 9, "4 of 64, 4 of 128, 1 of 256");
        for id in 0..1000 {
            // SAFETY: every one of these was filled above and none is emptied.
            assert_eq!(unsafe { *slab.get(SlotId(id)) }, u64::from(id));
        }
    }
}
