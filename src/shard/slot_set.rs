//! A set of slots, which a sweep goes through in the order of their numbers.

use std::fmt;

use super::{
    entry::SlotId,
    slab::{CHUNKS, chunk_slots},
};

/// Bits in a word.
const BITS: usize = 64;

/// A bit for each slot, one chunk's after another's.
#[derive(Default)]
pub(super) struct SlotSet {
    words: Vec<u64>,
}

impl SlotSet {
    /// Makes room for the slots up to this one.
    pub(super) fn reserve(&mut self, slot: SlotId) {
        let (word, _) = place(slot);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
    }

    #[inline]
    pub(super) fn contains(&self, slot: SlotId) -> bool {
        let (word, bit) = place(slot);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Puts in a slot for which there is room.
    ///
    /// # Panics
    ///
    /// If it was in already.
    #[inline]
    pub(super) fn insert(&mut self, slot: SlotId) {
        let (word, bit) = place(slot);
        assert!(self.words[word] & bit == 0, "{slot:?} is in already");
        self.words[word] |= bit;
    }

    /// Takes a slot out.
    ///
    /// # Panics
    ///
    /// If it was not in.
    #[inline]
    pub(super) fn remove(&mut self, slot: SlotId) {
        let (word, bit) = place(slot);
        assert!(self.words[word] & bit != 0, "{slot:?} is not in");
        self.words[word] &= !bit;
    }

    /// The lowest slot in the set whose number is `from` or above. `from` may be the one past the end of its
    /// chunk, whose bit is the first of the next.
    #[inline]
    pub(super) fn next(&self, from: SlotId) -> Option<SlotId> {
        let (mut word, first) = place(from);
        let mut bits = self.words.get(word)? & !(first - 1);
        while bits == 0 {
            word += 1;
            bits = *self.words.get(word)?;
        }
        let mut chunk = from.chunk();
        while WORDS_BEFORE.get(chunk + 1).is_some_and(|&start| start as usize <= word) {
            chunk += 1;
        }
        let index = (word - WORDS_BEFORE[chunk] as usize) * BITS + bits.trailing_zeros() as usize;
        Some(SlotId::at(chunk, index))
    }
}

/// The word that has a slot's bit, and the bit.
#[inline]
fn place(slot: SlotId) -> (usize, u64) {
    (WORDS_BEFORE[slot.chunk()] as usize + slot.index() / BITS, 1 << (slot.index() % BITS))
}

/// The words of all chunks before each.
const WORDS_BEFORE: [u32; CHUNKS] = {
    let mut before = [0; CHUNKS];
    let mut chunk = 1;
    while chunk < CHUNKS {
        before[chunk] = before[chunk - 1] + (chunk_slots(chunk - 1) / BITS) as u32;
        chunk += 1;
    }
    before
};

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({} words)", self.words.len())
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    #[test]
    fn a_sweep_finds_each_slot_once_and_in_order() {
        let all: Vec<SlotId> =
            iter::successors(Some(SlotId(0)), |slot| Some(slot.next())).take(900).collect();
        let mut set = SlotSet::default();
        let in_it = |slot: &SlotId| slot.0 % 7 == 3 || slot.index() == 0;
        for &slot in &all {
            assert!(!set.contains(slot));
            set.reserve(slot);
            set.insert(slot);
        }
        all.iter().filter(|slot| !in_it(slot)).for_each(|&slot| set.remove(slot));
        let after = |slot: &SlotId| set.next(slot.successor());
        let swept: Vec<SlotId> = iter::successors(set.next(SlotId(0)), after).collect();
        let wanted: Vec<SlotId> = all.iter().copied().filter(in_it).collect();
        assert_eq!(swept, wanted);
        assert!(all.iter().all(|slot| set.contains(*slot) == in_it(slot)));
        assert!(!set.contains(SlotId(u32::MAX)) && set.next(SlotId(u32::MAX)).is_none());
    }
}
