//! A queue of slot numbers in blocks, which grows and shrinks without moving any of them.
//!
//! A buffer that doubles is up to half empty, and what it outgrew stays with the allocator: of each
//! entry's metadata in a cache of a million that was one byte in six.

use std::{collections::VecDeque, ops::Index};

use super::entry::SlotId;

/// Slot numbers in a block: half a KiB, so that the rings of a small stripe are small too.
const BLOCK: usize = 128;

/// # Invariants
///
/// 1. `head` is below `BLOCK`, and the blocks are as many as `head + len` numbers need.
#[derive(Debug, Default)]
pub(super) struct Places {
    blocks: VecDeque<Box<[SlotId; BLOCK]>>,
    /// Where in the first block the queue begins.
    head: usize,
    len: usize,
}

impl Places {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<SlotId> {
        (index < self.len).then(|| self[index])
    }

    #[inline]
    pub(super) fn set(&mut self, index: usize, slot: SlotId) {
        assert!(index < self.len, "no place {index} among {}", self.len);
        let at = self.head + index;
        self.blocks[at / BLOCK][at % BLOCK] = slot;
    }

    #[inline]
    pub(super) fn push_back(&mut self, slot: SlotId) {
        let at = self.head + self.len;
        if at == self.blocks.len() * BLOCK {
            self.add_block();
        }
        self.blocks[at / BLOCK][at % BLOCK] = slot;
        self.len += 1;
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<SlotId> {
        let slot = self.get(0)?;
        self.head += 1;
        self.len -= 1;
        if self.head == BLOCK || self.len == 0 {
            self.drop_block();
        }
        Some(slot)
    }

    #[cold]
    fn add_block(&mut self) {
        self.blocks.push_back(Box::new([SlotId(0); BLOCK]));
    }

    /// Drops the first block, of which nothing is used any more.
    #[cold]
    fn drop_block(&mut self) {
        self.blocks.pop_front();
        self.head = 0;
    }

    /// Closes the gaps that those leave which are not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(SlotId) -> bool) {
        let mut kept = 0;
        for index in 0..self.len {
            let slot = self[index];
            if keep(slot) {
                self.set(kept, slot);
                kept += 1;
            }
        }
        self.len = kept;
        let used = if kept == 0 { 0 } else { (self.head + kept).div_ceil(BLOCK) };
        self.blocks.truncate(used);
        if kept == 0 {
            self.head = 0;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = SlotId> {
        (0..self.len).map(|index| self[index])
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() * size_of::<[SlotId; BLOCK]>() + self.blocks.capacity() * size_of::<usize>()
    }
}

impl Index<usize> for Places {
    type Output = SlotId;

    #[inline]
    fn index(&self, index: usize) -> &SlotId {
        debug_assert!(index < self.len, "no place {index} among {}", self.len);
        let at = self.head + index;
        &self.blocks[at / BLOCK][at % BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn a_queue_in_blocks_is_a_queue() {
        let (mut places, mut expected) = (Places::default(), VecDeque::new());
        let mut state = 1_u64;
        for step in 0..200_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (choice, index) = ((state >> 33) % 100, (state >> 40) as usize % 3_000);
            // Longer and shorter in turns, and now and then empty.
            let grows = step / 10_000 % 2 == 0;
            match choice {
                0..40 if index < expected.len() => {
                    places.set(index, SlotId(step));
                    expected[index] = SlotId(step);
                }
                40 if index % 16 == 0 => {
                    places.retain(|slot| slot.0 % 3 > 0);
                    expected.retain(|slot| slot.0 % 3 > 0);
                }
                choice if (choice < 75) == grows => {
                    places.push_back(SlotId(step));
                    expected.push_back(SlotId(step));
                }
                _ => assert_eq!(places.pop_front(), expected.pop_front()),
            }
            assert_eq!((places.len(), places.get(index)), (expected.len(), expected.get(index).copied()));
            if step % 1_000 == 0 {
                assert!(places.iter().eq(expected.iter().copied()), "step {step}");
                assert_eq!(places.blocks.len(), (places.head + places.len).div_ceil(BLOCK));
            }
        }
    }

    #[test]
    fn an_empty_queue_has_no_blocks() {
        let mut places = Places::default();
        (0..1_000).for_each(|slot| places.push_back(SlotId(slot)));
        (0..1_000).for_each(|slot| assert_eq!(places.pop_front(), Some(SlotId(slot))));
        assert_eq!(places.blocks.len(), 0);
        (0..1_000).for_each(|slot| places.push_back(SlotId(slot)));
        places.retain(|_| false);
        assert_eq!((places.blocks.len(), places.pop_front()), (0, None));
    }
}
