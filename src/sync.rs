//! Locks and atomics: the one place from which every module takes them, so that which lock the
//! cache is built on is decided here, and a checker of schedules is put in their place here
//! ([`lock_free`]).
//!
//! `Arc`, `OnceLock`, channels and threads are `std`'s, and the epoch is crossbeam's: no ordering
//! that this code argues about is made by them, but the epoch's, which `shard/hot.rs` argues.
//!
//! Orderings are not re-exported under new names: a site says `Acquire` or `Relaxed` itself,
//! beside the comment that names its partner.

use crossbeam_epoch::Guard;

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

/// A guard of another collector than the one that everybody pins, or of none, would protect nothing
/// and defer nothing.
pub(crate) fn assert_ours(guard: &Guard) {
    assert_eq!(guard.collector(), Some(crossbeam_epoch::default_collector()), "pinned elsewhere");
}

/// What a look-up without a lock is ordered by: all that it loads on its way to an entry. The models
/// of `shard/hot/model.rs` explore these very atomics, so a test under `cfg(loom)` has loom's.
pub(crate) mod lock_free {
    #[cfg(all(test, loom))]
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
    #[cfg(not(all(test, loom)))]
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
}
