//! A FIFO of slots whose entries know where they stand, so that any of them can leave at once.

use super::{
    duet::Residents,
    entry::{Meta, SlotId},
    places::Places,
};
use crate::sync::Ordering::Relaxed;

/// What a removed entry leaves in its place. No slab is that long.
const VACANT: SlotId = SlotId(u32::MAX);

/// The bit of `Meta::place` that tells the main ring from the small one.
pub(super) const MAIN: u32 = 1 << 31;

/// Positions have 31 bits and wrap: far more than a ring ever holds at a time.
const POSITION_MASK: u32 = MAIN - 1;

/// A ring is not worth compacting below so many vacant places.
const VACANT_MIN: usize = 32;

/// One FIFO ring, and a border before its youngest entries. The hand of CLOCK is its front: who is taken out there and
/// spared is pushed again.
///
/// # Invariants
///
/// 1. `places[i]` has position `front + i`, and its entry's `place` says so, with this ring's bit.
/// 2. `live` places are not vacant, and their entries weigh `weight` together.
/// 3. `young` of them are among `places[border..]`: the border has not passed them.
/// 4. At most half of the places are vacant, `VACANT_MIN` aside, once the policy has [compacted](Ring::compact) it.
#[derive(Debug)]
pub(super) struct Ring {
    /// [`MAIN`] or 0.
    bit: u32,
    places: Places,
    front: u32,
    live: usize,
    weight: u64,
    border: usize,
    young: usize,
}

impl Ring {
    pub(super) fn new(bit: u32) -> Ring {
        Ring { bit, places: Places::default(), front: 0, live: 0, weight: 0, border: 0, young: 0 }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.live
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    #[inline]
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// Entries that the border has not passed yet.
    #[inline]
    pub(super) fn young(&self) -> usize {
        self.young
    }

    #[inline]
    pub(super) fn holds(&self, meta: &Meta) -> bool {
        meta.place.load(Relaxed) & MAIN == self.bit
    }

    #[inline]
    pub(super) fn push(&mut self, slot: SlotId, meta: &Meta) {
        assert!(slot != VACANT, "the last slot number means a vacant place");
        meta.place.store(self.place(self.places.len()), Relaxed);
        self.places.push_back(slot);
        self.count_in(self.places.len() - 1, meta);
    }

    #[inline]
    pub(super) fn pop_oldest<'a, R: Residents>(&mut self, residents: &'a R) -> Option<(SlotId, &'a Meta)> {
        loop {
            let slot = self.places.pop_front()?;
            self.front = self.front.wrapping_add(1) & POSITION_MASK;
            let passed = self.border > 0;
            self.border = self.border.saturating_sub(1);
            if slot == VACANT {
                continue;
            }
            let meta = residents.meta(slot);
            self.live -= 1;
            self.weight -= meta.weight();
            self.young -= usize::from(!passed);
            return Some((slot, meta));
        }
    }

    /// Who stands at a place, counted from the oldest.
    #[inline]
    pub(super) fn at(&self, index: usize) -> Option<SlotId> {
        self.places.get(index).filter(|&slot| slot != VACANT)
    }

    /// Who the border comes by next.
    #[inline]
    pub(super) fn at_border(&self) -> Option<SlotId> {
        self.at(self.border)
    }

    /// Moves the border over one place, and tells who stands there.
    #[inline]
    pub(super) fn advance_border(&mut self) -> Option<SlotId> {
        let slot = self.places.get(self.border)?;
        self.border += 1;
        if slot == VACANT {
            return None;
        }
        self.young -= 1;
        Some(slot)
    }

    /// Takes an entry out and leaves its place vacant.
    #[inline]
    pub(super) fn vacate(&mut self, meta: &Meta) {
        let index = self.index(meta).expect("a resident entry stands in its ring");
        assert!(self.places[index] != VACANT, "an entry leaves its place once");
        self.places.set(index, VACANT);
        self.live -= 1;
        self.weight -= meta.weight();
        self.young -= usize::from(index >= self.border);
    }

    /// Puts an entry into the vacant place that `meta.place` names, or at the young end if the
    /// ring has lost that place since.
    pub(super) fn put_back(&mut self, slot: SlotId, meta: &Meta) {
        let Some(index) = self.index(meta) else {
            return self.push(slot, meta);
        };
        assert!(self.places[index] == VACANT, "two entries in one place");
        self.places.set(index, slot);
        self.count_in(index, meta);
    }

    /// Closes the gaps once more than half of the places are vacant. Each pass is paid for by the
    /// removals that made them, so a removal costs O(1) in the mean.
    #[inline]
    pub(super) fn compact<R: Residents>(&mut self, residents: &R) {
        let vacant = self.places.len() - self.live;
        if vacant > self.live.max(VACANT_MIN) {
            self.close_gaps(residents);
        }
    }

    #[cold]
    fn close_gaps<R: Residents>(&mut self, residents: &R) {
        self.places.retain(|slot| slot != VACANT);
        self.border = self.live - self.young;
        for (index, slot) in self.places.iter().enumerate() {
            residents.meta(slot).place.store(self.place(index), Relaxed);
        }
    }

    pub(super) fn overhead_bytes(&self) -> usize {
        self.places.bytes()
    }

    /// Re-derives the invariants; panics where one does not hold.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check<R: Residents>(&self, residents: &R) {
        let (mut live, mut weight, mut young) = (0, 0, 0);
        for (index, slot) in self.places.iter().enumerate() {
            if slot == VACANT {
                continue;
            }
            let meta = residents.meta(slot);
            assert_eq!(meta.place.load(Relaxed), self.place(index), "place of {slot:?}");
            live += 1;
            weight += meta.weight();
            young += usize::from(index >= self.border);
        }
        assert_eq!(self.live, live, "live places");
        assert_eq!(self.weight, weight, "weight of the ring");
        assert_eq!(self.young, young, "entries behind the border");
        assert!(self.border <= self.places.len(), "the border is in the ring");
        let vacant = self.places.len() - live;
        assert!(vacant <= live.max(VACANT_MIN), "{vacant} vacant places, {live} live");
    }

    #[inline]
    fn count_in(&mut self, index: usize, meta: &Meta) {
        self.live += 1;
        self.weight += meta.weight();
        self.young += usize::from(index >= self.border);
    }

    #[inline]
    fn place(&self, index: usize) -> u32 {
        let position = self.front.wrapping_add(index as u32) & POSITION_MASK;
        position | self.bit
    }

    fn index(&self, meta: &Meta) -> Option<usize> {
        debug_assert!(self.holds(meta), "an entry of the other ring");
        let offset = meta.place.load(Relaxed).wrapping_sub(self.front) & POSITION_MASK;
        let index = offset as usize;
        (index < self.places.len()).then_some(index)
    }
}
