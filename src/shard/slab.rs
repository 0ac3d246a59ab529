//! Stable addresses for entries: a slot never moves while the slab lives.
//!
//! Memory comes in chunks, sixteen of one size and then sixteen of twice that size, so a growing slab
//! is hardly ever more than a sixteenth larger than it must be and no chunk is ever copied. A slot's
//! number names its chunk and its index there, so that its address is two shifts and a load away:
//!
//! ```text
//!   31       23 22                       0
//!  +-----------+--------------------------+     chunks  0..16:  64 slots each
//!  |   chunk   |  index in the chunk      |     chunks 16..32: 128 slots each, and so on, up to 2^19;
//!  +-----------+--------------------------+     2^23 in all others
//! ```
//!
//! The chunks lie in the [`Arena`] that all stripes share. A slab is memory and nothing else. It does
//! not know which slots are filled and drops no value when it is dropped; [`Hot`](super::hot::Hot)
//! knows both.

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

/// The bits of a slot's number that are its index in the chunk.
#[cfg(not(all(test, loom)))]
const INDEX_BITS: u32 = 23;
/// Few chunks: loom's atomics are large, and its threads' stacks are not.
#[cfg(all(test, loom))]
const INDEX_BITS: u32 = 26;
/// As many chunks as the other bits can name, so that whatever slot it is, its chunk has a place.
pub(super) const CHUNKS: usize = 1 << (u32::BITS - INDEX_BITS);
/// log2 of the slots in each of the first chunks.
const FIRST_CHUNK_BITS: u32 = 6;
/// log2 of the chunks of each size.
const SAME_SIZE_BITS: u32 = 4;
/// Chunks that would have so many slots by that, as log2, have all that an index can name: of chunks that large only
/// the pages that were touched take memory.
const LARGE_CHUNK_BITS: u32 = 20;

/// Where a slot lies.
impl SlotId {
    /// The highest number that a slot has. The last chunk is left out, so that there are numbers for
    /// what needs a mark in the place of a slot, or a number more than a slot's.
    pub(super) const LAST: SlotId = SlotId(u32::MAX - (1 << INDEX_BITS));

    #[inline]
    pub(super) fn at(chunk: usize, index: usize) -> SlotId {
        debug_assert!(index < chunk_slots(chunk), "no slot {index} in chunk {chunk}");
        SlotId((chunk as u32) << INDEX_BITS | index as u32)
    }

    #[inline]
    pub(super) fn chunk(self) -> usize {
        (self.0 >> INDEX_BITS) as usize
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        (self.0 & ((1 << INDEX_BITS) - 1)) as usize
    }

    /// The number after this one: where a search goes on behind it. It may be no slot's: one past the end of a chunk.
    #[inline]
    pub(super) fn successor(self) -> SlotId {
        SlotId(self.0 + 1)
    }

    /// The slot that comes into use after this one.
    pub(super) fn next(self) -> SlotId {
        let (chunk, index) = (self.chunk(), self.index() + 1);
        if index < chunk_slots(chunk) { SlotId::at(chunk, index) } else { SlotId::at(chunk + 1, 0) }
    }
}

/// The slots in a chunk.
pub(super) const fn chunk_slots(chunk: usize) -> usize {
    let bits = FIRST_CHUNK_BITS + (chunk as u32 >> SAME_SIZE_BITS);
    1 << if bits < LARGE_CHUNK_BITS { bits } else { INDEX_BITS }
}

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
        if !self.chunks[slot.chunk()].load(Relaxed).is_null() {
            return 0;
        }
        let chunk = Array::new_uninit(&self.arena, chunk_slots(slot.chunk()));
        let bytes = chunk.bytes();
        // Release, though today's readers get here through the table's stronger edge: the pointer
        // then carries the chunk for whoever loads it with Acquire.
        self.chunks[slot.chunk()].store(chunk.leak().as_ptr(), Release);
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
        // bounds since a slot's index is below `chunk_slots`, by which `reserve` sizes its chunk, and
        // aligned as the chunk is. The caller has the slot for itself, and it is empty, so nothing is
        // overwritten undropped.
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
        let chunk = self.chunks[slot.chunk()].load(Relaxed);
        debug_assert!(!chunk.is_null(), "{slot:?} was never reserved");
        // Wrapping, so that only the dereference carries an obligation.
        chunk.wrapping_add(slot.index()).cast()
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    #[test]
    fn slots_follow_one_another_through_all_chunks() {
        let (mut slot, mut chunk, mut index) = (SlotId(0), 0, 0);
        for _ in 0..100_000 {
            assert_eq!((slot.chunk(), slot.index()), (chunk, index));
            (slot, index) = (slot.next(), index + 1);
            if index == chunk_slots(chunk) {
                (chunk, index) = (chunk + 1, 0);
            }
        }
        let last = SlotId::LAST;
        assert_eq!((last.chunk(), last.index()), (CHUNKS - 2, chunk_slots(CHUNKS - 2) - 1));
        let slots: usize = (0..CHUNKS - 1).map(chunk_slots).sum();
        assert!(slots > 1 << 31, "all entries that a cache may have, in one stripe");
    }

    #[test]
    fn addresses_are_stable_and_chunks_come_once() {
        let slab = Slab::<u64>::new(Arc::default());
        let slots = || iter::successors(Some(SlotId(0)), |slot| Some(slot.next())).take(3000);
        let mut chunks = 0;
        for slot in slots() {
            chunks += usize::from(slab.reserve(slot) > 0);
            // SAFETY: just reserved, filled once, and only this thread has the slab.
            unsafe { slab.write(slot, u64::from(slot.0)) };
        }
        assert_eq!(chunks, 32, "16 of 64, 16 of 128");
        for slot in slots() {
            // SAFETY: every one of these was filled above and none is emptied.
            assert_eq!(unsafe { *slab.get(slot) }, u64::from(slot.0));
        }
    }
}
