//! The count of RAM hits, which no two threads write on the same cache line.

use std::cell::Cell;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Threads beyond this many share lanes.
const LANES: usize = 32;

/// A sum that each thread adds to in a lane of its own.
///
/// Relaxed throughout: nothing but the sum is read from it.
#[derive(Debug)]
pub(crate) struct HitCount {
    lanes: Box<[CachePadded<AtomicU64>]>,
}

impl HitCount {
    pub(crate) fn new() -> HitCount {
        HitCount { lanes: (0..LANES).map(|_| CachePadded::default()).collect() }
    }

    #[inline]
    pub(crate) fn add_one(&self) {
        self.lanes[lane()].fetch_add(1, Relaxed);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.load(Relaxed)).sum()
    }
}

/// The calling thread's lane, dealt out in turn.
#[inline]
fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static LANE: Cell<usize> = const { Cell::new(usize::MAX) });
    LANE.with(|lane| {
        if lane.get() == usize::MAX {
            lane.set(NEXT.fetch_add(1, Relaxed) % LANES);
        }
        lane.get()
    })
}
