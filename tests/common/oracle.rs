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
//! Of all events that have ended, the one with the latest start is the best witness, so one number
//! a key (`latest_start`) and the end of each write decide it; nothing is approximate, and no
//! writer waits for another. A miss is never wrong: a cache may forget.
//!
//! A value that was *loaded* under a lease counts as ended when the load starts: from then on an
//! invalidation kills the lease, so the value must not be seen by who asks after it (R8).

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
    /// The latest start of all events that have ended.
    latest_start: AtomicU64,
    /// The end of each write, by its version; a write that is not here is still going on.
    ends: Mutex<HashMap<u64, u64>>,
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

    /// The clock's next tick. Taken before an operation is called, it is its start.
    pub(crate) fn now(&self) -> Stamp {
        Stamp(self.clock.fetch_add(1, SeqCst))
    }

    /// A version that no other write has.
    pub(crate) fn next_version(&self) -> u64 {
        self.version.fetch_add(1, SeqCst)
    }

    /// The write `version` has returned, or its load begins: from now on it can be overtaken.
    pub(crate) fn ended(&self, key: u64, version: u64) {
        let now = self.now();
        self.history(key).ends.lock().unwrap().insert(version, now.0);
    }

    /// A write, remove or clear that had begun at `start` has returned: what ended before is gone.
    pub(crate) fn invalidated(&self, key: u64, start: Stamp) {
        self.history(key).latest_start.fetch_max(start.0, SeqCst);
    }

    /// As [`Oracle::invalidated`] for every key, by a clear.
    pub(crate) fn cleared(&self, start: Stamp) {
        for key in 0..self.keys.len() as u64 {
            self.invalidated(key, start);
        }
    }

    /// What a read that begins now must not be older than.
    pub(crate) fn floor(&self, key: u64) -> Stamp {
        Stamp(self.history(key).latest_start.load(SeqCst))
    }

    /// Whether a read that began at `floor` may not return the write `version`.
    pub(crate) fn is_stale(&self, key: u64, version: u64, floor: Stamp) -> bool {
        self.history(key).ends.lock().unwrap().get(&version).is_some_and(|end| *end < floor.0)
    }

    fn history(&self, key: u64) -> &History {
        &self.keys[key as usize]
    }
}
