//! Memory for tables and slabs, from large regions that the kernel backs with huge pages.
//!
//! A look-up in a large cache is its cache misses, and with pages of 4 KiB each of them is a miss of
//! the page table's cache too. The parts that one stripe needs are too small for a huge page of
//! their own, so all stripes take them from one [`Arena`].

use std::{
    alloc::{Layout, handle_alloc_error},
    collections::BTreeMap,
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
/// 1. A part that was taken, or is free, lies in one of `maps` and overlaps no other one. Its ends
///    are multiples of a line.
/// 2. Regions are unmapped with the arena and not before.
#[derive(Default)]
struct Regions {
    maps: Vec<MmapRaw>,
    /// Addresses of the free parts by their size. Parts that meet are not joined: what is given
    /// back are outgrown tables, whose sizes the next slab chunks fit into.
    free: BTreeMap<usize, Vec<Address>>,
}

/// Of a part, which nobody uses while it is in [`Regions::free`].
#[derive(Clone, Copy)]
struct Address(NonNull<u8>);

// SAFETY: an address without any right to what is there; whoever takes the part gets that by the
// mutex around `Regions`.
unsafe impl Send for Address {}

impl Arena {
    /// A part of `bytes`, a multiple of a line, for the taker alone.
    fn take(&self, bytes: usize) -> NonNull<u8> {
        let mut regions = self.regions.lock();
        let (size, start) = regions.best_fit(bytes).unwrap_or_else(|| regions.map(bytes));
        if size > bytes {
            // Wrapping, so that only the dereference carries an obligation; in bounds all the same.
            let rest = start.as_ptr().wrapping_add(bytes);
            regions.put(size - bytes, NonNull::new(rest).expect("a part does not end at null"));
        }
        start
    }

    /// Takes a part back that `take` returned for as many bytes and that nobody uses any more.
    fn give_back(&self, bytes: usize, start: NonNull<u8>) {
        self.regions.lock().put(bytes, start);
    }
}

impl Regions {
    fn best_fit(&mut self, bytes: usize) -> Option<(usize, NonNull<u8>)> {
        let (&size, parts) = self.free.range_mut(bytes..).next()?;
        let Address(start) = parts.pop()?;
        if parts.is_empty() {
            self.free.remove(&size);
        }
        Some((size, start))
    }

    fn put(&mut self, bytes: usize, start: NonNull<u8>) {
        self.free.entry(bytes).or_default().push(Address(start));
    }

    /// Maps a region that has room for `bytes`.
    #[cold]
    fn map(&mut self, bytes: usize) -> (usize, NonNull<u8>) {
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
        let map = MmapRaw::from(map);
        let start = NonNull::new(map.as_mut_ptr()).expect("a mapping is not at null");
        self.maps.push(map);
        (len, start)
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
/// 1. `start` points to `len` initialized values in a part of [`part_bytes`] that was taken from
///    `arena` for this array alone.
pub(crate) struct Array<T> {
    arena: Arc<Arena>,
    part: NonNull<u8>,
    start: NonNull<T>,
    len: usize,
}

// SAFETY: an array owns its values as a `Box<[T]>` does.
unsafe impl<T: Send> Send for Array<T> {}
// SAFETY: a shared array lends its values as a shared `Box<[T]>` does.
unsafe impl<T: Sync> Sync for Array<T> {}

impl<T> Array<T> {
    /// # Panics
    ///
    /// If the values need more memory than there are addresses.
    pub(crate) fn new(arena: &Arc<Arena>, len: usize, mut value: impl FnMut() -> T) -> Array<T> {
        const { assert!(!mem::needs_drop::<T>(), "an array drops no values") };
        let part = arena.take(part_bytes::<T>(len));
        let start = first::<T>(part);
        for index in 0..len {
            let at = start.as_ptr().wrapping_add(index);
            // SAFETY: the part has room for `len` values from `start` on, which is aligned for them
            // (both by `part_bytes` and `first`), and was taken for this array alone.
            unsafe { at.write(value()) };
        }
        Array { arena: Arc::clone(arena), part, start, len }
    }

    /// What the array takes of the arena.
    pub(crate) fn bytes(&self) -> usize {
        part_bytes::<T>(self.len)
    }
}

impl<T> Array<MaybeUninit<T>> {
    /// Room for `len` values that nobody has touched yet: it takes no memory until it is used.
    pub(crate) fn new_uninit(arena: &Arc<Arena>, len: usize) -> Array<MaybeUninit<T>> {
        let part = arena.take(part_bytes::<T>(len));
        Array { arena: Arc::clone(arena), part, start: first(part), len }
    }

    /// The values' address, which stays good as long as the arena: the memory is not given back.
    pub(crate) fn leak(self) -> NonNull<MaybeUninit<T>> {
        let start = self.start;
        // The handle on the arena must go all the same, or nothing would ever unmap it.
        let mut array = mem::ManuallyDrop::new(self);
        let arena: *mut Arc<Arena> = &mut array.arena;
        // SAFETY: `array` is not dropped, so this is the handle's only drop, and it is not used
        // after it.
        unsafe { ptr::drop_in_place(arena) };
        start
    }
}

impl<T> Deref for Array<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialized values, aligned, which nobody else reaches (invariant 1), in
        // memory that the arena, held here, keeps mapped. The borrow is that of `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Array<T> {
    fn drop(&mut self) {
        self.arena.give_back(self.bytes(), self.part);
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
