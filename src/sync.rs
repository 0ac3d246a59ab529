//! Atomics, locks and `Arc`: the one place from which the concurrent code takes them, so that a
//! model checker's versions can be put in their place here and nowhere else.
//!
//! Orderings are not re-exported under new names: a site says `Acquire` or `Relaxed` itself,
//! beside the comment that names its partner.

#[allow(unused_imports, reason = "the whole set stands here, whichever module uses which")]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[allow(unused_imports, reason = "the whole set stands here, whichever module uses which")]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
