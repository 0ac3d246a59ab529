//! Tells a stale read from a good one, when reads and writes overlap.
//!
//! All events lie on one clock. A write has a *start* (before the operation is called) and an *end*
//! (after it returned); so have a remove and a clear, which store nothing. A read that began at `now`
//! and returned the value of write `w` is stale exactly if some event on its key came wholly
//! between them:
//!
//! ```text
//!     w.start ---- w.end          x.start ---- x.end          now ---- read returns w
//! ```
//!
//! Of all events that have ended, the one with the latest start is the best witness, so that start
//! and the end of each write decide it; nothing is approximate, and no writer waits for another. A miss is never wrong: a cache may forget.
//!
//! A value that was *loaded* under a lease is overtaken earlier: from the moment the lease is held, an
//! invalidation (insert, remove, clear) kills it, so the value must not be seen by who asks after
//! it (R8). Another lease's fill is no invalidation; it makes stale only what ended before it.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// A point on the oracle's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

/// What is known of every key. All orderings are SeqCst: the oracle must not be the weak part.
pub(crate) struct Oracle {
    clock: AtomicU64,
    version: AtomicU64,
    keys: Vec<History>,
}

#[derive(Default)]
struct History {
    /// The latest start of all inserts, removes and clears that have ended.
    invalidation_start: AtomicU64,
    /// The latest start of all fills that have ended.
    fill_start: AtomicU64,
    /// The end of each write, by its version.
    ends: Mutex<HashMap<u64, End>>,
}

/// From when on a write can be overtaken; `None` while it cannot.
#[derive(Clone, Copy, Default)]
struct End {
    by_invalidation: Option<u64>,
    by_fill: Option<u64>,
}

/// What a read must not be older than.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    invalidation_start: u64,
    fill_start: u64,
}

impl Oracle {
    /// For the keys below `keys`.
    pub(crate) fn new(keys: u64) -> Oracle {
        Oracle {
            clock: AtomicU64::new(1),
            version: AtomicU64::new(1),
            keys: (0..keys).map(|_| History::default()).collect(),
        }
    }

    /// How often the clock has ticked, so whether anything happens.
    pub(crate) fn ticks(&self) -> u64 {
        self.clock.load(SeqCst)
    }

    /// The clock's next tick. Taken before an operation is called, it is its start.
    pub(crate) fn now(&self) -> Stamp {
        Stamp(self.clock.fetch_add(1, SeqCst))
    }

    /// A version that no other write has.
    pub(crate) fn next_version(&self) -> u64 {
        self.version.fetch_add(1, SeqCst)
    }

    /// The write `version` has returned: from now on it can be overtaken.
    pub(crate) fn ended(&self, key: u64, version: u64) {
        let now = self.now().0;
        let mut ends = self.history(key).ends.lock().unwrap();
        let end = ends.entry(version).or_default();
        end.by_fill = Some(now);
        end.by_invalidation.get_or_insert(now);
    }

    /// The lease is held under which `version` is loaded: an invalidation can overtake it now.
    pub(crate) fn leased(&self, key: u64, version: u64) {
        let end = End { by_invalidation: Some(self.now().0), by_fill: None };
        self.history(key).ends.lock().unwrap().insert(version, end);
    }

    /// An insert, remove or clear that had begun at `start` has returned: what ended before is gone.
    pub(crate) fn invalidated(&self, key: u64, start: Stamp) {
        self.history(key).invalidation_start.fetch_max(start.0, SeqCst);
    }

    /// A fill that had begun at `start` has returned and stored its value.
    pub(crate) fn filled(&self, key: u64, start: Stamp) {
        self.history(key).fill_start.fetch_max(start.0, SeqCst);
    }

    /// As [`Oracle::invalidated`] for every key, by a clear.
    pub(crate) fn cleared(&self, start: Stamp) {
        for key in 0..self.keys.len() as u64 {
            self.invalidated(key, start);
        }
    }

    /// What a read that begins now must not be older than.
    pub(crate) fn floor(&self, key: u64) -> Floor {
        let history = self.history(key);
        Floor {
            invalidation_start: history.invalidation_start.load(SeqCst),
            fill_start: history.fill_start.load(SeqCst),
        }
    }

    /// Whether a read that began at `floor` may not return the write `version`.
    pub(crate) fn is_stale(&self, key: u64, version: u64, floor: Floor) -> bool {
        let end = self.history(key).ends.lock().unwrap().get(&version).copied().unwrap_or_default();
        end.by_invalidation.is_some_and(|end| end < floor.invalidation_start)
            || end.by_fill.is_some_and(|end| end < floor.fill_start)
    }

    fn history(&self, key: u64) -> &History {
        &self.keys[key as usize]
    }
}
