//! Counts of look-ups, which no two of up to 31 threads write on the same cache line.

use std::cell::Cell;

use crossbeam_utils::CachePadded;

use crate::sync::{
    Ordering::Relaxed,
    tally::{AtomicU64, Mutex},
};

/// Threads beyond this many share the last lane.
const LANES: usize = 32;
const SHARED: usize = LANES - 1;

/// What look-ups came to, and the loads that they ran. Each thread adds in a lane of its own, and none needs a lock.
///
/// Relaxed throughout: nothing but the sums is read from them.
#[derive(Debug)]
pub(crate) struct LookUps {
    lanes: Box<[CachePadded<Lane>]>,
}

#[derive(Debug, Default)]
struct Lane {
    hits: AtomicU64,
    disk_hits: AtomicU64,
    misses: AtomicU64,
    loads: AtomicU64,
}

impl LookUps {
    pub(crate) fn new() -> LookUps {
        LookUps { lanes: (0..LANES).map(|_| CachePadded::default()).collect() }
    }

    #[inline]
    pub(crate) fn add_hits(&self, hits: u64) {
        let lane = lane();
        add(&self.lanes[lane].hits, hits, lane);
    }

    pub(crate) fn add_disk_hit(&self) {
        let lane = lane();
        add(&self.lanes[lane].disk_hits, 1, lane);
    }

    #[inline]
    pub(crate) fn add_miss(&self) {
        let lane = lane();
        add(&self.lanes[lane].misses, 1, lane);
    }

    pub(crate) fn add_load(&self) {
        let lane = lane();
        add(&self.lanes[lane].loads, 1, lane);
    }

    pub(crate) fn hits(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.hits.load(Relaxed)).sum()
    }

    pub(crate) fn disk_hits(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.disk_hits.load(Relaxed)).sum()
    }

    pub(crate) fn misses(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.misses.load(Relaxed)).sum()
    }

    pub(crate) fn loads(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.loads.load(Relaxed)).sum()
    }
}

/// A lane has one writer, so that no locked instruction is needed, but for the one that is shared.
#[inline]
fn add(count: &AtomicU64, more: u64, lane: usize) {
    if lane == SHARED {
        count.fetch_add(more, Relaxed);
    } else {
        count.store(count.load(Relaxed) + more, Relaxed);
    }
}

/// The calling thread's lane.
#[inline]
fn lane() -> usize {
    let lane = LANE.get();
    if lane == UNKNOWN { take_lane() } else { lane }
}

const UNKNOWN: usize = usize::MAX;

thread_local! {
    /// Without a destructor, so that to read it costs a load.
    static LANE: Cell<usize> = const { Cell::new(UNKNOWN) };
    /// Gives the lane back when the thread ends.
    static OWNED: Cell<Option<OwnedLane>> = const { Cell::new(None) };
}

/// The lanes that no living thread has: those given back last are taken first. Guards just these; the lock also orders
/// what a thread has added before the first load of the next owner.
static VACANT: Mutex<Vacant> = Mutex::new(Vacant { given_back: Vec::new(), fresh: 0 });

struct Vacant {
    given_back: Vec<usize>,
    /// Lanes from here on were never taken.
    fresh: usize,
}

struct OwnedLane(usize);

impl Drop for OwnedLane {
    fn drop(&mut self) {
        // A look-up by a later destructor of this thread must not write a lane that is not its own.
        LANE.set(SHARED);
        VACANT.lock().given_back.push(self.0);
    }
}

#[cold]
fn take_lane() -> usize {
    let mut vacant = VACANT.lock();
    let lane = vacant.given_back.pop().unwrap_or_else(|| {
        let fresh = vacant.fresh.min(SHARED);
        vacant.fresh = (fresh + 1).min(SHARED);
        fresh
    });
    drop(vacant);
    let owned = (lane != SHARED).then(|| OwnedLane(lane));
    LANE.set(lane);
    // A thread that is ending can own nothing any more: what it cannot keep is given back at once.
    let _ = OWNED.try_with(|place| place.set(owned));
    LANE.get()
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

    /// More threads than lanes, twice, so that lanes are shared and given back.
    #[test]
    fn no_look_up_is_lost() {
        const THREADS: usize = LANES + 8;
        const EACH: u64 = 10_000;
        let look_ups = LookUps::new();
        for _ in 0..2 {
            let all_run = Barrier::new(THREADS);
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        look_ups.add_miss();
                        all_run.wait();
                        (0..EACH).for_each(|_| look_ups.add_hits(1));
                    });
                }
            });
        }
        assert_eq!(look_ups.hits(), 2 * THREADS as u64 * EACH);
        assert_eq!(look_ups.misses(), 2 * THREADS as u64);
    }
}
