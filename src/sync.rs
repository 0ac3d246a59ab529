//! Locks, atomics, threads and the moments they wait for: the one place from which every module takes
//! them, so that which lock the cache is built on is decided here, and a checker of schedules is put in
//! their place here: shuttle's, in whose schedules the whole engine runs (`schedules.rs`), and loom's
//! ([`lock_free`]).
//!
//! `Arc` and `OnceLock` are `std`'s and the epoch is crossbeam's: no ordering that this code argues about
//! is made by them, but the epoch's, which `shard/hot.rs` argues. A checker of schedules does not see
//! them, so no two threads may meet in an `OnceLock`'s initialisation while either holds what the other
//! waits for.
//!
//! Orderings are not re-exported under new names: a site says `Acquire` or `Relaxed` itself,
//! beside the comment that names its partner.

#[cfg(shuttle)]
#[cfg(test)]
mod scheduled;

use crossbeam_epoch::Guard;

#[cfg(not(all(test, shuttle)))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(all(test, shuttle))]
pub(crate) use scheduled::{
    Condvar, Instant, Mutex, MutexGuard, RwLock,
    atomics::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize},
};
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::{hint, sync::mpsc, thread, thread_local};
pub(crate) use std::sync::atomic::Ordering;
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{
    hint,
    sync::{
        atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize},
        mpsc,
    },
    thread, thread_local,
    time::Instant,
};

/// A guard of another collector than the one that everybody pins, or of none, would protect nothing
/// and defer nothing.
pub(crate) fn assert_ours(guard: &Guard) {
    assert_eq!(guard.collector(), Some(crossbeam_epoch::default_collector()), "pinned elsewhere");
}

/// What a look-up without a lock is ordered by: all that it loads on its way to an entry. The models
/// of `shard/hot/model.rs` explore these very atomics, so a test under `cfg(loom)` has loom's.
pub(crate) mod lock_free {
    #[cfg(not(all(test, loom)))]
    pub(crate) use super::{AtomicPtr, AtomicU32, AtomicU64};
    #[cfg(all(test, loom))]
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
}

/// For counts that belong to a thread or to the process and decide nothing. They outlive what a checker
/// knows of, and to explore their order would find nothing.
pub(crate) mod tally {
    pub(crate) use parking_lot::Mutex;
    pub(crate) use std::sync::atomic::AtomicU64;
}
