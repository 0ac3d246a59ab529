//! The cold index of one stripe: where on disk a key's record lies, 16 bytes a slot.
//!
//! Open addressing with linear probing, the entries of a run in the order of their hashes (Amble
//! and Knuth 1974). As homes rise with the hashes, the whole table is in that order:
//!
//! * a search for an absent key stops at the first greater hash, not at the end of the run, so the
//!   table can be filled to 85 % and a miss still looks at four slots in the mean;
//! * growth is one pass over both tables, so it can come in steps of a fifth instead of doubling;
//! * a removal shifts the rest of its run back and leaves no tombstone.
//!
//! Runs do not wrap: the table ends in as many slots beyond the last home as the last run needs.
//!
//! Everything here happens under the stripe's lock; keys are known by their 64-bit hash alone, so
//! of two keys with one hash the index holds one, and the log compares the key it reads.

use std::fmt;

use crate::{hash::KeyHash, location::Location, processor::prefetch};

/// Homes of the smallest table that has slots at all.
const HOMES_MIN: usize = 16;
/// Slots by which the end is moved out when the last run reaches it: rarely, and not by doubling.
const TAIL_SLOTS: usize = 16;

/// One stripe's map from hashes to locations.
///
/// # Invariants
///
/// 1. Filled slots stand in ascending order of their hashes, each at its home or above.
/// 2. No slot from an entry's home to the entry is empty.
/// 3. At most 85 % of `homes` are filled; with `homes` 0 there is no slot.
#[derive(Default)]
pub(crate) struct Cold {
    /// At least `homes` slots.
    slots: Vec<Slot>,
    homes: usize,
    len: usize,
}

/// One place in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// The hash with its halves swapped. The top bits decide order and home, and those of the hash
    /// itself are equal in all of a stripe.
    order: u64,
    packed: Packed,
}

/// What the index and the snapshot keep for an entry: its location, how often it was read, and, in the index alone,
/// whether the journal has its record void.
///
/// ```text
///  63    57  56  55   54 53                                              0
/// +--------+----+-------+-------------------------------------------------+
/// |   0    |void| marks |  location                                       |
/// +--------+----+-------+-------------------------------------------------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed(u64);

const _: () = assert!(size_of::<Slot>() == 16);

impl Packed {
    const MARKS_BITS: u32 = 2;
    const USED_BITS: u32 = Location::BITS + Self::MARKS_BITS;
    /// The highest count of reads; further ones change nothing.
    pub(crate) const MARKS_MAX: u8 = (1 << Self::MARKS_BITS) - 1;
    const VOID: u64 = 1 << Self::USED_BITS;
    /// An empty slot. No entry looks like this: an entry's bits above `VOID` are zero.
    const EMPTY: Packed = Packed(u64::MAX);

    pub(crate) fn new(location: Location, marks: u8) -> Packed {
        assert!(marks <= Self::MARKS_MAX, "marks have two bits");
        Packed(u64::from(marks) << Location::BITS | location.to_bits())
    }

    /// The inverse of [`Packed::to_bits`]; `None` for bits that no entry has.
    pub(crate) fn from_bits(bits: u64) -> Option<Packed> {
        (bits >> Self::USED_BITS == 0).then_some(Packed(bits))
    }

    /// For the snapshot, which has no place for what is void.
    pub(crate) fn to_bits(self) -> Option<u64> {
        (!self.is_void()).then_some(self.0)
    }

    pub(crate) fn location(self) -> Location {
        Location::from_bits(self.0)
    }

    /// Reads since the record was written, up to [`Packed::MARKS_MAX`].
    pub(crate) fn marks(self) -> u8 {
        (self.0 >> Location::BITS) as u8 & Self::MARKS_MAX
    }

    /// Whether a start would not find the record any more.
    pub(crate) fn is_void(self) -> bool {
        self.0 & Self::VOID != 0
    }
}

const _: () = assert!(Packed::EMPTY.0 >> (Packed::USED_BITS + 1) != 0);

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}*{}{}", self.location(), self.marks(), if self.is_void() { " void" } else { "" })
    }
}

impl Slot {
    const EMPTY: Slot = Slot { order: 0, packed: Packed::EMPTY };

    fn is_empty(self) -> bool {
        self.packed == Packed::EMPTY
    }
}

/// Where a search ended.
enum Search {
    Found(usize),
    /// The place where an entry with this hash belongs.
    Absent(usize),
}

impl Cold {
    pub(crate) fn new() -> Cold {
        Cold::default()
    }

    /// Makes room for `additional` entries. A must before many are added in the order of another
    /// index's `iter`: in a table too small for them they would share its first homes, in a run
    /// that each search walks.
    pub(crate) fn reserve(&mut self, additional: usize) {
        let len = self.len + additional;
        if is_crowded(len, self.homes) {
            self.resize(homes_for(len));
        }
    }

    /// Gives back what was reserved for entries that did not come.
    pub(crate) fn fit(&mut self) {
        if is_sparse(self.len, self.homes) {
            self.resize(homes_for(self.len));
        }
    }

    pub(crate) fn get(&self, hash: KeyHash) -> Option<Location> {
        self.packed(hash).map(Packed::location)
    }

    /// Has the place where a search for this hash begins brought near.
    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        let home = home(hash.order(), self.homes);
        prefetch(self.slots.as_ptr().wrapping_add(home));
    }

    /// Location and marks.
    pub(crate) fn packed(&self, hash: KeyHash) -> Option<Packed> {
        match self.search(hash) {
            Search::Found(at) => Some(self.slots[at].packed),
            Search::Absent(_) => None,
        }
    }

    /// Reads since the record was written; 0 too for a key that is not here.
    pub(crate) fn marks(&self, hash: KeyHash) -> u8 {
        self.packed(hash).map_or(0, Packed::marks)
    }

    /// Counts a read, which reclaim takes for a reason to keep the record.
    pub(crate) fn mark_read(&mut self, hash: KeyHash) {
        let Search::Found(at) = self.search(hash) else { return };
        let packed = &mut self.slots[at].packed;
        if packed.marks() < Packed::MARKS_MAX {
            packed.0 += 1 << Location::BITS;
        }
    }

    /// Notes that the journal has the record void.
    pub(crate) fn set_void(&mut self, hash: KeyHash) {
        let Search::Found(at) = self.search(hash) else { return };
        self.slots[at].packed.0 |= Packed::VOID;
    }

    /// Puts an entry in, whatever was there, and returns the location it displaced.
    pub(crate) fn insert_packed(&mut self, hash: KeyHash, packed: Packed) -> Option<Location> {
        match self.search(hash) {
            Search::Found(at) => {
                let displaced = std::mem::replace(&mut self.slots[at].packed, packed);
                Some(displaced.location())
            }
            Search::Absent(at) => {
                self.add(hash, packed, at);
                None
            }
        }
    }

    /// Puts an unread entry in unless the hash is there; whether it did.
    pub(crate) fn insert_if_absent(&mut self, hash: KeyHash, location: Location) -> bool {
        match self.search(hash) {
            Search::Found(_) => false,
            Search::Absent(at) => {
                self.add(hash, Packed::new(location, 0), at);
                true
            }
        }
    }

    pub(crate) fn remove(&mut self, hash: KeyHash) -> Option<Location> {
        let Search::Found(at) = self.search(hash) else {
            return None;
        };
        Some(self.take(at).location())
    }

    /// Removes the entry if it is at `location` still; whether it did.
    pub(crate) fn remove_if(&mut self, hash: KeyHash, location: Location) -> bool {
        match self.search(hash) {
            Search::Found(at) if self.slots[at].packed.location() == location => {
                self.take(at);
                true
            }
            _ => false,
        }
    }

    /// Moves the entry to `new`, unread, if it is at `old` still and not void; whether it did.
    pub(crate) fn replace_if(&mut self, hash: KeyHash, old: Location, new: Location) -> bool {
        let Search::Found(at) = self.search(hash) else { return false };
        let packed = &mut self.slots[at].packed;
        let is_good = packed.location() == old && !packed.is_void();
        if is_good {
            *packed = Packed::new(new, 0);
        }
        is_good
    }

    /// Every entry, in the order in which the table has them; see [`Cold::reserve`].
    pub(crate) fn iter(&self) -> impl Iterator<Item = (KeyHash, Packed)> {
        let filled = self.slots.iter().filter(|slot| !slot.is_empty());
        filled.map(|slot| (hash_of(slot.order), slot.packed))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<Cold>() + self.slots.capacity() * size_of::<Slot>()
    }

    /// Removes every entry and gives the memory back.
    pub(crate) fn clear(&mut self) {
        *self = Cold::new();
    }

    /// Re-derives every invariant.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check(&self) {
        let filled = || self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_empty());
        let orders = filled().map(|(_, slot)| slot.order);
        assert!(orders.is_sorted_by(|a, b| a < b), "out of order (invariant 1)");
        for (at, slot) in filled() {
            let home = home(slot.order, self.homes);
            assert!(home <= at, "below its home (invariant 1)");
            assert!(self.slots[home..at].iter().all(|slot| !slot.is_empty()), "a gap (invariant 2)");
        }
        assert_eq!(filled().count(), self.len);
        assert!(!is_crowded(self.len, self.homes), "too full (invariant 3)");
        assert!(self.slots.len() >= self.homes);
    }

    #[inline]
    fn search(&self, hash: KeyHash) -> Search {
        let order = hash.order();
        let mut at = home(order, self.homes);
        while let Some(&slot) = self.slots.get(at) {
            if slot.is_empty() || slot.order > order {
                break;
            }
            if slot.order == order {
                return Search::Found(at);
            }
            at += 1;
        }
        Search::Absent(at)
    }

    /// Adds an entry whose search ended at `at`.
    fn add(&mut self, hash: KeyHash, packed: Packed, mut at: usize) {
        if is_crowded(self.len + 1, self.homes) {
            self.resize(homes_for(self.len + 1));
            let Search::Absent(moved) = self.search(hash) else {
                unreachable!("resizing adds no entry");
            };
            at = moved;
        }
        let run = self.slots[at..].iter().position(|slot| slot.is_empty());
        let end = run.map_or(self.slots.len(), |run| at + run);
        if end == self.slots.len() {
            if end == self.slots.capacity() {
                self.slots.reserve_exact(TAIL_SLOTS);
            }
            self.slots.push(Slot::EMPTY);
        }
        self.slots.copy_within(at..end, at + 1);
        self.slots[at] = Slot { order: hash.order(), packed };
        self.len += 1;
    }

    /// Empties a filled slot: those behind it that are above their homes move down by one.
    fn take(&mut self, at: usize) -> Packed {
        let taken = self.slots[at].packed;
        let settled =
            |(index, slot): (usize, &Slot)| slot.is_empty() || home(slot.order, self.homes) == index;
        let behind = self.slots.iter().enumerate().skip(at + 1);
        let run = behind.map(settled).take_while(|settled| !settled).count();
        self.slots.copy_within(at + 1..=at + run, at);
        self.slots[at + run] = Slot::EMPTY;
        self.len -= 1;
        self.fit();
        taken
    }

    /// Moves all entries to a table with this many homes; they come in order and go to the end.
    fn resize(&mut self, homes: usize) {
        let old = std::mem::replace(self, Cold::open_ended(homes));
        old.slots.into_iter().filter(|slot| !slot.is_empty()).for_each(|slot| self.append(slot));
        self.complete();
    }

    /// A table that has no slots yet: they come with the entries that are appended.
    fn open_ended(homes: usize) -> Cold {
        Cold { slots: Vec::with_capacity(homes + TAIL_SLOTS), homes, len: 0 }
    }

    /// Adds an entry behind all others of an open-ended table.
    fn append(&mut self, slot: Slot) {
        let at = home(slot.order, self.homes).max(self.slots.len());
        self.slots.resize(at, Slot::EMPTY);
        self.slots.push(slot);
        self.len += 1;
    }

    /// Gives an open-ended table the rest of its slots.
    fn complete(&mut self) {
        let end = self.slots.len().max(self.homes);
        self.slots.resize(end, Slot::EMPTY);
    }
}

/// An index in the making. Entries that come in the order of another index's [`Cold::iter`], as a
/// snapshot has them, need no search; others are inserted.
pub(crate) struct Filling {
    cold: Cold,
    /// The order of the last entry, as long as each had a greater one than the one before.
    last: Option<u64>,
}

impl Filling {
    /// For as many entries at the most, or there is more work.
    pub(crate) fn new(entries: usize) -> Filling {
        Filling { cold: Cold::open_ended(homes_for(entries)), last: Some(0) }
    }

    /// Adds what [`Packed::to_bits`] has made, and nothing if it has not made that.
    pub(crate) fn add(&mut self, hash: KeyHash, bits: u64) {
        let Some(packed) = Packed::from_bits(bits) else { return };
        let order = hash.order();
        let in_order = self.last.is_some_and(|last| order > last);
        if in_order && !is_crowded(self.cold.len + 1, self.cold.homes) {
            self.last = Some(order);
            self.cold.append(Slot { order, packed });
        } else {
            if self.last.take().is_some() {
                self.cold.complete();
            }
            self.cold.insert_packed(hash, packed);
        }
    }

    /// The index, in a table for as many entries as have come.
    pub(crate) fn finish(mut self) -> Cold {
        if self.last.is_some() {
            self.cold.complete();
        }
        let homes = homes_for(self.cold.len);
        if homes < self.cold.homes {
            self.cold.resize(homes);
        }
        self.cold
    }
}

impl fmt::Debug for Cold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cold {{ len: {}, homes: {}, .. }}", self.len, self.homes)
    }
}

fn hash_of(order: u64) -> KeyHash {
    KeyHash(order.rotate_right(32))
}

/// Maps the orders evenly and in their order to `0..homes`; to 0 if there are none.
#[inline]
fn home(order: u64, homes: usize) -> usize {
    ((u128::from(order) * homes as u128) >> 64) as usize
}

/// More than 85 %: runs would grow faster than the memory saved is worth.
fn is_crowded(len: usize, homes: usize) -> bool {
    len * 20 > homes * 17
}

/// Less than half full, which is well below what growth leaves, so that a few entries more or
/// less never cause one resize after the other.
fn is_sparse(len: usize, homes: usize) -> bool {
    homes > HOMES_MIN && len * 2 < homes
}

/// Homes for a table that has just been filled or emptied to its limit: a fifth above the least,
/// so a load of 71 % and 22.6 bytes an entry.
fn homes_for(len: usize) -> usize {
    (len * 24 / 17).max(HOMES_MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::location::SegmentId;

    fn location(number: u32) -> Location {
        Location::new(SegmentId::new(number / 1000).unwrap(), number % 1000 * 16)
    }

    fn xorshift(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// A hash as a stripe of 1024 sees them: the top ten bits are always the same.
    fn in_stripe(random: &mut u64) -> KeyHash {
        KeyHash(xorshift(random) >> 10 | 77 << 54)
    }

    fn behaves_like_a_map(seed: u64, steps: u32, mut hash: impl FnMut(&mut u64) -> KeyHash) {
        let (mut cold, mut model) = (Cold::new(), HashMap::<KeyHash, (Location, u8)>::new());
        let mut random = seed;
        for step in 0..steps {
            let key = hash(&mut random);
            let known = model.get(&key).copied();
            let (here, fresh) = (known.map(|(location, _)| location), location(step));
            // Now mostly added, now mostly removed: both resizes happen over and over.
            let growing = (step / (steps / 8)).is_multiple_of(2);
            let op = xorshift(&mut random) % 10;
            match if growing { op } else { 9 - op } {
                0..=2 => {
                    assert_eq!(cold.insert_packed(key, Packed::new(fresh, 1)), here);
                    model.insert(key, (fresh, 1));
                }
                3 => {
                    assert_eq!(cold.insert_if_absent(key, fresh), here.is_none());
                    model.entry(key).or_insert((fresh, 0));
                }
                4 => {
                    assert!(!cold.replace_if(key, fresh, fresh), "it is not there");
                    if let Some(old) = here {
                        assert!(cold.replace_if(key, old, fresh));
                        model.insert(key, (fresh, 0));
                    }
                }
                5 => {
                    cold.mark_read(key);
                    if let Some((_, marks)) = model.get_mut(&key) {
                        *marks = (*marks + 1).min(3);
                    }
                }
                6 => {
                    assert!(!cold.remove_if(key, fresh), "it is not there");
                    assert_eq!(here.is_some_and(|old| cold.remove_if(key, old)), here.is_some());
                    model.remove(&key);
                }
                _ => {
                    assert_eq!(cold.remove(key), here);
                    model.remove(&key);
                }
            }
            let known = model.get(&key).copied();
            assert_eq!(cold.get(key), known.map(|(location, _)| location));
            assert_eq!(cold.marks(key), known.map_or(0, |(_, marks)| marks));
            if step % 997 == 0 {
                cold.check();
            }
        }
        cold.check();
        assert_eq!(cold.len(), model.len());
        let all: HashMap<_, _> =
            cold.iter().map(|(hash, entry)| (hash, (entry.location(), entry.marks()))).collect();
        assert_eq!(all, model);
    }

    #[test]
    fn behaves_like_a_map_with_good_hashes() {
        let keys: Vec<KeyHash> = {
            let mut random = 1;
            (0..4000).map(|_| in_stripe(&mut random)).collect()
        };
        behaves_like_a_map(2, 100_000, |random| keys[xorshift(random) as usize % keys.len()]);
    }

    #[test]
    fn behaves_like_a_map_when_all_share_the_first_home() {
        behaves_like_a_map(3, 20_000, |random| KeyHash((xorshift(random) % 150) << 32));
    }

    #[test]
    fn behaves_like_a_map_when_all_share_the_last_home() {
        behaves_like_a_map(4, 20_000, |random| KeyHash((xorshift(random) % 150) << 32 | 0xffff_ffff));
    }

    #[test]
    fn behaves_like_a_map_in_a_few_clusters() {
        behaves_like_a_map(5, 20_000, |random| {
            let random = xorshift(random);
            KeyHash((((random >> 8) % 40) << 32) | ((random % 7) * 0x2492_4924))
        });
    }

    #[test]
    fn an_entry_costs_at_most_24_bytes() {
        for entries in [1000, 1021, 5000, 20_000, 200_000] {
            let (mut cold, mut random) = (Cold::new(), 9);
            for number in 0..entries {
                cold.insert_if_absent(in_stripe(&mut random), location(number));
                if number >= 999 {
                    let most = cold.len() * 24;
                    assert!(cold.bytes() <= most, "{} bytes for {} entries", cold.bytes(), cold.len());
                }
            }
            cold.check();
        }
    }

    #[test]
    fn memory_comes_back() {
        let (mut cold, mut random) = (Cold::new(), 9);
        let hashes: Vec<KeyHash> = (0..10_000).map(|_| in_stripe(&mut random)).collect();
        for (&hash, number) in hashes.iter().zip(0..) {
            cold.insert_if_absent(hash, location(number));
        }
        for &hash in &hashes[1000..] {
            cold.remove(hash);
        }
        assert!(cold.bytes() <= 1000 * 40);
        cold.check();
        cold.clear();
        assert_eq!((cold.len(), cold.bytes()), (0, size_of::<Cold>()));
        assert_eq!(cold.get(hashes[0]), None);
        cold.reserve(10_000);
        cold.insert_if_absent(hashes[0], location(0));
        cold.fit();
        assert!(cold.bytes() <= 1000 * 40);
        assert_eq!(cold.get(hashes[0]), Some(location(0)));
    }

    #[test]
    fn probes_are_short_where_the_table_is_fullest() {
        let (mut cold, mut random) = (Cold::new(), 9);
        while cold.len() < 10_000 || !is_crowded(cold.len() + 1, cold.homes) {
            cold.insert_if_absent(in_stripe(&mut random), location(0));
        }
        let steps = (0..10_000).map(|_| {
            let hash = in_stripe(&mut random);
            let Search::Absent(at) = cold.search(hash) else { panic!("drawn twice") };
            at - home(hash.order(), cold.homes)
        });
        let mean = steps.sum::<usize>() as f64 / 10_000.0;
        assert!(mean < 5.0, "{mean} slots passed by a search for an absent key");
    }

    #[test]
    fn a_copy_in_order_needs_one_table_and_no_long_run() {
        let (mut cold, mut random) = (Cold::new(), 9);
        for number in 0..10_000 {
            cold.insert_if_absent(in_stripe(&mut random), location(number));
        }
        let mut copy = Cold::new();
        copy.reserve(cold.len());
        let homes = copy.homes;
        for (hash, entry) in cold.iter() {
            let Search::Absent(at) = copy.search(hash) else { panic!("named twice") };
            assert!(at - home(hash.order(), homes) < 200, "a run of {at}");
            copy.insert_packed(hash, entry);
        }
        copy.check();
        assert_eq!(copy.homes, homes);
        assert!(copy.iter().eq(cold.iter()));
    }

    #[test]
    fn a_filled_index_is_the_same_in_any_order() {
        let (mut cold, mut random) = (Cold::new(), 9);
        for number in 0..10_000 {
            cold.insert_if_absent(in_stripe(&mut random), location(number));
        }
        let fill = |entries: &mut dyn Iterator<Item = (KeyHash, Packed)>, announced| {
            let mut filling = Filling::new(announced);
            entries.for_each(|(hash, packed)| filling.add(hash, packed.to_bits().unwrap()));
            filling.add(KeyHash(1), u64::MAX);
            let filled = filling.finish();
            filled.check();
            filled
        };
        let last_first = || cold.iter().skip(9_000).chain(cold.iter().take(9_000));
        for announced in [0, 100, 10_000, 100_000] {
            assert!(fill(&mut cold.iter(), announced).iter().eq(cold.iter()));
            assert!(fill(&mut last_first(), announced).iter().eq(cold.iter()));
        }
        for announced in [10_000, 10_400, 100_000] {
            assert_eq!(fill(&mut cold.iter(), announced).homes, homes_for(10_000));
        }
    }

    #[test]
    fn corner_values_survive_packing() {
        let top = Location::new(SegmentId::MAX, Location::SEGMENT_BYTES_MAX - 16);
        for (location, marks) in [(top, 3), (top, 0), (location(0), 3)] {
            let packed = Packed::new(location, marks);
            assert_eq!((packed.location(), packed.marks()), (location, marks));
            assert_eq!(Packed::from_bits(packed.to_bits().unwrap()), Some(packed));
        }
        assert_eq!(Packed::from_bits(Packed::EMPTY.0), None);
        assert_eq!(Packed::from_bits(1 << Packed::USED_BITS), None);
        let mut cold = Cold::new();
        for hash in [KeyHash(0), KeyHash(u64::MAX)] {
            assert_eq!(cold.insert_packed(hash, Packed::new(top, 3)), None);
            assert_eq!(cold.get(hash), Some(top));
        }
    }

    #[test]
    fn what_is_void_stays_so() {
        let mut cold = Cold::new();
        let hash = KeyHash(1);
        assert!(cold.insert_if_absent(hash, location(1)));
        cold.set_void(hash);
        (0..9).for_each(|_| cold.mark_read(hash));
        let packed = cold.packed(hash).unwrap();
        assert_eq!((packed.location(), packed.marks(), packed.is_void()), (location(1), 3, true));
        assert_eq!(packed.to_bits(), None, "a snapshot would bring it back");
        assert!(!cold.replace_if(hash, location(1), location(2)), "that was written before it was void");
        assert_eq!(cold.insert_packed(hash, Packed::new(location(2), 0)), Some(location(1)));
        assert!(!cold.packed(hash).unwrap().is_void(), "another copy");
    }
}
