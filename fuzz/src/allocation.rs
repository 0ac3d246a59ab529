//! The largest single allocation of a thread: a decoder that believes a length before it has checked
//! it shows here, long before it runs out of memory.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, watched. A target makes it its `#[global_allocator]`.
pub struct Watched;

/// Runs `work` and returns its result and the bytes of its largest allocation.
pub fn largest<R>(work: impl FnOnce() -> R) -> (R, usize) {
    LARGEST.set(0);
    let result = work();
    (result, LARGEST.get())
}

fn note(bytes: usize) {
    // No destructor, so it can be reached as long as the thread allocates.
    LARGEST.set(LARGEST.get().max(bytes));
}

// SAFETY: every call is handed to `System` as it came, so its guarantees are this allocator's.
// `note` neither allocates nor unwinds.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps `alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps `alloc_zeroed`'s contract, which is `System`'s.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(new_size);
        // SAFETY: the caller keeps `realloc`'s contract, which is `System`'s; `block` came from it.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, which is `System`'s; `block` came from it.
        unsafe { System.dealloc(block, layout) }
    }
}
