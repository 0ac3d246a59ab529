//! parking_lot's locks and std's time, made of shuttle's: each operation is a point at which a schedule may
//! go on with another thread.

use std::{
    fmt,
    ops::{Add, Deref, DerefMut},
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use shuttle::{
    sync::{self, RwLockReadGuard, RwLockWriteGuard},
    thread,
};

/// As `parking_lot::Mutex`.
pub(crate) struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, held: Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)) }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = match self.0.try_lock() {
            Ok(held) => held,
            Err(sync::TryLockError::Poisoned(held)) => held.into_inner(),
            Err(sync::TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { mutex: self, held: Some(held) })
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As `parking_lot::MutexGuard`.
pub(crate) struct MutexGuard<'m, T> {
    mutex: &'m Mutex<T>,
    /// `None` only while a condition is waited for.
    held: Option<sync::MutexGuard<'m, T>>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("it is held whenever the waiting thread runs")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("it is held whenever the waiting thread runs")
    }
}

/// As `parking_lot::Condvar`.
#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar(sync::Condvar::new())
    }

    /// Nothing but a notification ends it: a schedule in which none comes is a deadlock, and found.
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect("who waits holds the lock");
        guard.held = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    /// Time has no length in a schedule: a pause may be over at any moment, and notifications only make it
    /// shorter. So it is a moment without the lock in which all others may run.
    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _pause: Duration) {
        drop(guard.held.take());
        thread::yield_now();
        guard.held = guard.mutex.lock().held.take();
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// As `parking_lot::RwLock`.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> RwLock<T> {
        RwLock(sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Instant::now`] adds to the time: so much that a pause of the engine is over within a schedule, and
/// so little that its sweeps are not all that happens.
const TICK: Duration = Duration::from_millis(1);

/// The ticks since the schedule began. Not shuttle's, so that to look at the clock is no point of a schedule.
/// Relaxed: all threads of a schedule are one thread of the machine.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// As `std::time::Instant`, on a clock that only those who look at it move, so that a schedule can be run
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    /// A schedule begins.
    pub(crate) fn reset() {
        TICKS.store(0, Relaxed);
    }

    pub(crate) fn now() -> Instant {
        Instant(TICK * u32::try_from(TICKS.fetch_add(1, Relaxed)).expect("a schedule is short"))
    }

    pub(crate) fn elapsed(self) -> Duration {
        Instant::now().saturating_duration_since(self)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) fn checked_add(self, pause: Duration) -> Option<Instant> {
        self.0.checked_add(pause).map(Instant)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, pause: Duration) -> Instant {
        Instant(self.0 + pause)
    }
}

/// `std`'s atomics with a point of the schedule before each operation. Not shuttle's, which are larger than
/// what they hold: buckets and entries have a layout. The memory model is the strongest in either; what a
/// weaker one allows is loom's matter.
pub(crate) mod atomics {
    use std::{
        sync::atomic::{self, Ordering},
        time::Duration,
    };

    use shuttle::thread;

    /// The schedule may go on with another thread.
    fn point() {
        // Shuttle sleeps for no longer.
        thread::sleep(Duration::ZERO);
    }

    macro_rules! atomic {
        ($name:ident$(<$param:ident>)?, $value:ty, { $($op:ident($($arg:ident: $type:ty),*) -> $result:ty;)* }) => {
            #[derive(Debug)]
            #[repr(transparent)]
            pub(crate) struct $name$(<$param>)?(atomic::$name$(<$param>)?);

            #[allow(dead_code, reason = "not every type needs every operation")]
            impl$(<$param>)? $name$(<$param>)? {
                pub(crate) const fn new(value: $value) -> Self {
                    $name(atomic::$name::new(value))
                }

                pub(crate) fn get_mut(&mut self) -> &mut $value {
                    self.0.get_mut()
                }

                pub(crate) fn into_inner(self) -> $value {
                    self.0.into_inner()
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    point();
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    point();
                    self.0.store(value, order);
                }

                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    point();
                    self.0.swap(value, order)
                }

                $(pub(crate) fn $op(&self, $($arg: $type),*) -> $result {
                    point();
                    self.0.$op($($arg),*)
                })*
            }
        };
    }

    macro_rules! atomic_number {
        ($name:ident, $value:ty) => {
            atomic!($name, $value, {
                fetch_add(value: $value, order: Ordering) -> $value;
                fetch_sub(value: $value, order: Ordering) -> $value;
                fetch_max(value: $value, order: Ordering) -> $value;
            });

            impl Default for $name {
                fn default() -> Self {
                    $name::new(0)
                }
            }

            #[allow(dead_code, reason = "not every type needs every operation")]
            impl $name {
                pub(crate) fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    set: Ordering,
                    fetch: Ordering,
                ) -> Result<$value, $value> {
                    point();
                    self.0.compare_exchange(current, new, set, fetch)
                }

                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    update: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    point();
                    self.0.fetch_update(set, fetch, update)
                }
            }
        };
    }

    atomic!(AtomicPtr<T>, *mut T, {});
    atomic!(AtomicBool, bool, {});
    atomic_number!(AtomicU8, u8);
    atomic_number!(AtomicU32, u32);
    atomic_number!(AtomicU64, u64);
    atomic_number!(AtomicUsize, usize);

    impl Default for AtomicBool {
        fn default() -> Self {
            AtomicBool::new(false)
        }
    }
}
