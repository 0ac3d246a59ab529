//! A value that any thread reads at any time and one thread replaces now and then: a reader writes
//! nothing that another one reads, so that readers do not slow each other down.

use std::{fmt, mem, sync::Arc};

use crossbeam_epoch::{self as epoch, Guard};

use crate::sync::{
    AtomicPtr, Mutex,
    Ordering::{AcqRel, Acquire},
    assert_ours,
};

/// # Invariants
///
/// 1. `current` is a leaked `Box<T>`. One that is replaced is taken back by a function deferred after the
///    swap, or by `drop`, and by nothing else.
pub(super) struct Published<T> {
    /// Acquire loads pair with the AcqRel swap in `replace`.
    current: AtomicPtr<T>,
    /// Values that were replaced and have no reader any more. Held for a push or a take; nothing else
    /// happens under it. It is here and not with the epoch that they are kept: to drop one may take
    /// long, and the epoch would have any reader do it.
    retired: Arc<Mutex<Vec<T>>>,
}

impl<T: Send + Sync + 'static> Published<T> {
    pub(super) fn new(value: T) -> Published<T> {
        Published { current: AtomicPtr::new(Box::into_raw(Box::new(value))), retired: Arc::default() }
    }

    /// The present value, for as long as the guard.
    pub(super) fn get<'g>(&'g self, guard: &'g Guard) -> &'g T {
        assert_ours(guard);
        let current = self.current.load(Acquire);
        // SAFETY: a live box (invariant 1), whose content was written before the Release half of the
        // swap, or of `new`'s hand-over, that this load has read from. If it is replaced from now on,
        // what takes it back is deferred later than `guard` was pinned and waits for it; if it had
        // been replaced before, pinning came after that deferral, and the load would not have
        // returned it. Nobody has it mutably: it is shared until it is taken back.
        unsafe { &*current }
    }

    /// Puts another value in its place. Drops nothing.
    pub(super) fn replace(&self, value: T, guard: &Guard) {
        assert_ours(guard);
        let old = AtomicPtr::new(self.current.swap(Box::into_raw(Box::new(value)), AcqRel));
        let retired = Arc::clone(&self.retired);
        guard.defer(move || {
            // SAFETY: from `Box::into_raw` (invariant 1), and swapped out once, so this is the only one
            // that takes it back; every guard under which it was loaded is gone.
            let old = unsafe { Box::from_raw(old.into_inner()) };
            retired.lock().push(*old);
        });
    }

    /// What was replaced and is not read any more, for the caller to drop.
    pub(super) fn take_retired(&self) -> Vec<T> {
        mem::take(&mut self.retired.lock())
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw` (invariant 1) and never swapped out, and `&mut self` leaves no
        // reader: no reference outlives the borrow of `self` that it was got with.
        drop(unsafe { Box::from_raw(*self.current.get_mut()) });
    }
}

impl<T: fmt::Debug + Send + Sync + 'static> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get(&epoch::pin()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::sync::{AtomicBool, Ordering::Relaxed};

    /// A value that says when it is dropped.
    struct Traced(u64, Arc<Mutex<Vec<u64>>>);

    impl Drop for Traced {
        fn drop(&mut self) {
            self.1.lock().push(self.0);
        }
    }

    #[test]
    fn what_is_replaced_lives_as_long_as_its_readers_and_is_dropped_by_the_caller() {
        let dropped: Arc<Mutex<Vec<u64>>> = Arc::default();
        let published = Published::new(Traced(1, Arc::clone(&dropped)));
        let guard = epoch::pin();
        let read = published.get(&guard);
        published.replace(Traced(2, Arc::clone(&dropped)), &guard);
        assert_eq!((read.0, published.get(&guard).0), (1, 2));
        guard.flush();
        assert!(published.take_retired().is_empty(), "it is still read");
        drop(guard);
        let mut retired = Vec::new();
        while retired.is_empty() {
            epoch::pin().flush();
            assert_eq!(*dropped.lock(), [], "the epoch drops nothing");
            retired = published.take_retired();
            thread::yield_now();
        }
        drop(retired);
        assert_eq!(*dropped.lock(), [1]);
        drop(published);
        assert_eq!(*dropped.lock(), [1, 2]);
    }

    #[test]
    fn readers_see_whole_values_only() {
        let published = Published::new([0_u64; 8]);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(Relaxed) {
                        let value = *published.get(&epoch::pin());
                        assert!(value.iter().all(|&word| word == value[0]) && value[0] >= last);
                        last = value[0];
                    }
                });
            }
            for number in 1..20_000 {
                published.replace([number; 8], &epoch::pin());
                drop(published.take_retired());
            }
            done.store(true, Relaxed);
        });
    }
}
