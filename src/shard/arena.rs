//! Memory for tables and slabs, from large regions that the kernel backs with huge pages.
//!
//! A look-up in a large cache is its cache misses, and with pages of 4 KiB each of them is a miss of
//! the page table's cache too. The parts that one stripe needs are too small for a huge page of
//! their own, so all stripes take them from one [`Arena`].

use std::{
    alloc::{Layout, handle_alloc_error},
    collections::{BTreeMap, BTreeSet},
    fmt,
    mem::{self, MaybeUninit},
    ops::Deref,
    ptr::{self, NonNull},
    slice,
    sync::Arc,
};

use memmap2::{MmapMut, MmapRaw};

use crate::sync::Mutex;

/// Every part starts on a cache line, and no line is in two of them.
const LINE_BYTES: usize = 64;
/// The first region of a cache.
const REGION_BYTES_MIN: usize = 64 << 10;
/// Each further region is as large as all before it, up to this.
const REGION_BYTES_MAX: usize = 64 << 20;
/// Where huge pages begin and end.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Regions of memory, and which parts of them are free.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    /// Guards the regions and the free parts. A leaf: taken under a stripe's lock when that
    /// stripe grows, and nothing but the kernel is called under it.
    regions: Mutex<Regions>,
}

/// # Invariants
///
/// 1. A part that was taken, or is free, lies in one region and overlaps no other one. Its ends are
///    multiples of a line.
/// 2. No two free parts meet. `by_size` has each part of `free`, and no other.
/// 3. Regions are unmapped with the arena and not before.
#[derive(Default)]
struct Regions {
    maps: Vec<MmapRaw>,
    /// The bytes of each free part by its start.
    free: BTreeMap<Start, usize>,
    by_size: BTreeSet<(usize, Start)>,
}

/// Where a part begins: the number of its region, and the offset there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Start {
    region: usize,
    offset: usize,
}

impl Start {
    /// What lies so many bytes further on.
    fn after(self, bytes: usize) -> Start {
        Start { offset: self.offset + bytes, ..self }
    }
}

impl Arena {
    /// A part of `bytes`, a multiple of a line, for the taker alone; and its address.
    fn take(&self, bytes: usize) -> (Start, NonNull<u8>) {
        let mut regions = self.regions.lock();
        let (size, start) = regions.best_fit(bytes).unwrap_or_else(|| regions.map(bytes));
        if size > bytes {
            regions.put(start.after(bytes), size - bytes);
        }
        (start, regions.address(start))
    }

    /// Takes a part back that `take` returned for as many bytes and that nobody uses any more.
    fn give_back(&self, start: Start, bytes: usize) {
        self.regions.lock().put(start, bytes);
    }
}

impl Regions {
    /// The smallest free part that is large enough.
    fn best_fit(&mut self, bytes: usize) -> Option<(usize, Start)> {
        let lowest = Start { region: 0, offset: 0 };
        let &(size, start) = self.by_size.range((bytes, lowest)..).next()?;
        self.remove(start, size);
        Some((size, start))
    }

    /// Adds a free part, joined with those that it meets.
    fn put(&mut self, mut start: Start, mut bytes: usize) {
        if let Some((&before, &size)) = self.free.range(..start).next_back()
            && before.after(size) == start
        {
            self.remove(before, size);
            (start, bytes) = (before, size + bytes);
        }
        if let Some(&size) = self.free.get(&start.after(bytes)) {
            self.remove(start.after(bytes), size);
            bytes += size;
        }
        self.free.insert(start, bytes);
        self.by_size.insert((bytes, start));
    }

    fn remove(&mut self, start: Start, bytes: usize) {
        self.free.remove(&start);
        self.by_size.remove(&(bytes, start));
    }

    fn address(&self, start: Start) -> NonNull<u8> {
        // Wrapping, so that only the dereference carries an obligation; in bounds all the same.
        let address = self.maps[start.region].as_mut_ptr().wrapping_add(start.offset);
        NonNull::new(address).expect("a mapping is not at null")
    }

    /// Maps a region that has room for `bytes`.
    #[cold]
    fn map(&mut self, bytes: usize) -> (usize, Start) {
        let mapped: usize = self.maps.iter().map(MmapRaw::len).sum();
        let wanted = bytes.max(mapped.clamp(REGION_BYTES_MIN, REGION_BYTES_MAX));
        let granule = if wanted >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { REGION_BYTES_MIN };
        let len = wanted.next_multiple_of(granule);
        let Ok(map) = MmapMut::map_anon(len) else {
            handle_alloc_error(Layout::from_size_align(len, LINE_BYTES).expect("a line is a power of two"))
        };
        // Advice: without huge pages a look-up costs more, and nothing else changes.
        #[cfg(all(target_os = "linux", not(miri)))]
        if granule == HUGE_PAGE_BYTES {
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        self.maps.push(MmapRaw::from(map));
        (len, Start { region: self.maps.len() - 1, offset: 0 })
    }
}

impl fmt::Debug for Regions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.maps.iter().map(MmapRaw::len).sum();
        write!(f, "Regions({bytes} bytes in {})", self.maps.len())
    }
}

/// A fixed number of values in an arena's memory. Drops none of them; gives the memory back.
///
/// # Invariants
///
/// 1. `first` points to `len` initialized values in `part`, which has [`part_bytes`] and was taken from
///    `arena` for this array alone.
pub(crate) struct Array<T> {
    arena: Arc<Arena>,
    part: Start,
    first: NonNull<T>,
    len: usize,
}

// SAFETY: `first` alone keeps this from being automatic, and through it the array owns its values as a `Box<[T]>`
// does. The arena may go to any thread: it is an `Arc` of what a mutex guards.
unsafe impl<T: Send> Send for Array<T> {}
// SAFETY: as above: a shared array lends its values as a shared `Box<[T]>` does, and shares an `Arc`.
unsafe impl<T: Sync> Sync for Array<T> {}

impl<T> Array<T> {
    /// # Panics
    ///
    /// If the values need more memory than there are addresses.
    pub(crate) fn new(arena: &Arc<Arena>, len: usize, mut value: impl FnMut() -> T) -> Array<T> {
        const { assert!(!mem::needs_drop::<T>(), "an array drops no values") };
        let (part, address) = arena.take(part_bytes::<T>(len));
        let first = first::<T>(address);
        for index in 0..len {
            let at = first.as_ptr().wrapping_add(index);
            // SAFETY: the part has room for `len` values from `first` on, which is aligned for them
            // (both by `part_bytes` and `first`), and was taken for this array alone.
            unsafe { at.write(value()) };
        }
        Array { arena: Arc::clone(arena), part, first, len }
    }

    /// What the array takes of the arena.
    pub(crate) fn bytes(&self) -> usize {
        part_bytes::<T>(self.len)
    }
}

impl<T> Array<MaybeUninit<T>> {
    /// Room for `len` values that nobody has touched yet: it takes no memory until it is used.
    pub(crate) fn new_uninit(arena: &Arc<Arena>, len: usize) -> Array<MaybeUninit<T>> {
        let (part, address) = arena.take(part_bytes::<T>(len));
        Array { arena: Arc::clone(arena), part, first: first(address), len }
    }

    /// The values' address, which stays good as long as the arena: the memory is not given back.
    pub(crate) fn leak(self) -> NonNull<MaybeUninit<T>> {
        let first = self.first;
        // The handle on the arena must go all the same, or nothing would ever unmap it.
        let mut array = mem::ManuallyDrop::new(self);
        let arena: *mut Arc<Arena> = &mut array.arena;
        // SAFETY: `array` is not dropped, so this is the handle's only drop, and it is not used
        // after it.
        unsafe { ptr::drop_in_place(arena) };
        first
    }
}

impl<T> Deref for Array<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialized values, aligned, which nobody else reaches (invariant 1), in
        // memory that the arena, held here, keeps mapped. The borrow is that of `self`.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T> Drop for Array<T> {
    fn drop(&mut self) {
        self.arena.give_back(self.part, self.bytes());
    }
}

impl<T: fmt::Debug> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The bytes of a part that holds `len` values behind a start that [`first`] may move.
fn part_bytes<T>(len: usize) -> usize {
    let values = Layout::array::<T>(len).expect("fewer values than there are addresses").size();
    let slack = align_of::<T>().saturating_sub(LINE_BYTES);
    (values + slack).max(1).next_multiple_of(LINE_BYTES)
}

/// The first place in a part that is aligned for its values: its start, but for values that are
/// aligned to more than a line.
fn first<T>(part: NonNull<u8>) -> NonNull<T> {
    let moved = part.as_ptr().wrapping_add(part.as_ptr().align_offset(align_of::<T>()));
    NonNull::new(moved).expect("a part does not wrap").cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Arena {
        /// Re-derives the invariants of the free parts.
        fn check(&self) {
            let regions = self.regions.lock();
            let by_size: BTreeSet<_> = regions.free.iter().map(|(&start, &bytes)| (bytes, start)).collect();
            assert_eq!(by_size, regions.by_size);
            let parts: Vec<_> = regions.free.iter().collect();
            for pair in parts.windows(2) {
                let (end, next) = (pair[0].0.after(*pair[0].1), *pair[1].0);
                assert!(end < next, "free parts meet or overlap");
            }
            for (start, bytes) in parts {
                assert!(start.offset + bytes <= regions.maps[start.region].len());
            }
        }
    }

    #[test]
    fn arrays_do_not_overlap_and_keep_their_values() {
        let arena = Arc::new(Arena::default());
        let mut arrays: Vec<Array<u64>> = Vec::new();
        for round in 0..2_000_u64 {
            let len = (round.wrapping_mul(2_654_435_761) % 3_000) as usize;
            arrays.push(Array::new(&arena, len, || round));
            if round % 3 == 0 {
                arrays.swap_remove((round / 3) as usize % arrays.len());
            }
        }
        for array in &arrays {
            assert_eq!(array.as_ptr() as usize % LINE_BYTES, 0);
            assert!(array.windows(2).all(|pair| pair[0] == pair[1]), "another array wrote here");
        }
        let mut firsts: Vec<u64> = arrays.iter().filter_map(|array| array.first().copied()).collect();
        firsts.sort_unstable();
        assert!(firsts.is_sorted_by(|a, b| a < b), "an array lost its values to another");
        arena.check();
    }

    #[test]
    fn what_is_given_back_is_used_again() {
        let arena = Arc::new(Arena::default());
        let first: Array<u8> = Array::new(&arena, 64 << 10, || 1);
        let address = first.as_ptr();
        drop(first);
        let half: Array<u8> = Array::new(&arena, 32 << 10, || 2);
        let other: Array<u8> = Array::new(&arena, 32 << 10, || 3);
        assert_eq!((half.as_ptr(), other.as_ptr()), (address, address.wrapping_add(32 << 10)));
        assert_eq!(arena.regions.lock().maps.len(), 1);
        // Three neighbours, the middle one last: joined with both.
        let rest: Array<u8> = Array::new(&arena, 1 << 10, || 4);
        drop((half, rest, other));
        let whole: Array<u8> = Array::new(&arena, 64 << 10, || 5);
        assert_eq!(whole.as_ptr(), address);
        arena.check();
    }

    #[test]
    fn values_with_large_alignments_get_them() {
        #[derive(Clone, Copy)]
        #[repr(align(4096))]
        struct Page(u8);
        let arena = Arc::new(Arena::default());
        let _line: Array<u8> = Array::new(&arena, 1, || 0);
        let pages: Array<Page> = Array::new(&arena, 20, || Page(7));
        assert_eq!(pages.as_ptr() as usize % 4096, 0);
        assert!(pages.iter().all(|page| page.0 == 7));
    }

    #[test]
    fn a_leaked_array_does_not_keep_the_arena() {
        let arena = Arc::new(Arena::default());
        Array::<MaybeUninit<u64>>::new_uninit(&arena, 100).leak();
        assert_eq!(Arc::strong_count(&arena), 1);
    }
}
