//! When entries expire: ticks in RAM, seconds on disk, and the defaults that the user set.

use std::{sync::Arc, time::Duration};

use super::entry::Times;
use crate::{
    sync::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Clock,
};

/// Milliseconds in a tick. 2^32 ticks are two years and eight months.
const TICK_MS: u64 = 20;
/// Deadlines on disk are seconds: each must be a tick, so that a copy expires with the entry that
/// was promoted from it, and not a moment later.
const _: () = assert!(1000 % TICK_MS == 0);
/// The longest time to live: the last tick before the counter's end, were the cache open as long.
const TICKS_MAX: u64 = u32::MAX as u64;
/// In the place of an entry's last hit: it was found to have idled too long.
const IDLED_OUT: u32 = u32::MAX;

/// The lifetimes of a cache's entries.
///
/// In RAM a deadline is a `u32` of ticks since the cache was opened, on disk a `u32` of seconds
/// since 1970 by the cache's clock; 0 is never in both. Each conversion rounds down: an entry may
/// expire a little early, never late.
#[derive(Debug)]
pub(crate) struct Expiry {
    clock: Arc<Clock>,
    opened_ms: u64,
    time_to_live: Option<Duration>,
    /// In ticks, at least one; 0 is none.
    time_to_idle: u32,
    /// Whether any entry has had a deadline. Relaxed: it only spares sweeps that would find nothing.
    has_deadlines: AtomicBool,
}

impl Expiry {
    pub(crate) fn new(
        clock: Arc<Clock>,
        time_to_live: Option<Duration>,
        time_to_idle: Option<Duration>,
    ) -> Expiry {
        let time_to_idle = time_to_idle.map_or(0, |idle| ticks(idle.as_millis()).max(1));
        // A whole second, so that those on disk are ticks; the one before, so that no deadline is tick 0.
        let opened_ms = (clock.now_ms() / 1000).saturating_sub(1) * 1000;
        Expiry { clock, opened_ms, time_to_live, time_to_idle, has_deadlines: AtomicBool::new(false) }
    }

    /// Now, in ticks.
    pub(crate) fn now(&self) -> u32 {
        ticks(u128::from(self.since_opened_ms()))
    }

    /// Now, in seconds on disk.
    pub(crate) fn now_s(&self) -> u32 {
        self.clock.now_s()
    }

    /// Whether any entry can expire.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.time_to_idle != 0 || self.has_deadlines.load(Relaxed)
    }

    /// The times of an entry that is stored now, for `ttl` or else for the default time to live.
    #[inline]
    pub(crate) fn times(&self, ttl: Option<Duration>) -> Option<Times> {
        let ttl = ttl.or(self.time_to_live);
        if ttl.is_none() && self.time_to_idle == 0 {
            return None;
        }
        if ttl.is_some() && !self.has_deadlines.load(Relaxed) {
            self.has_deadlines.store(true, Relaxed);
        }
        self.times_until(ttl.map_or(0, |ttl| ticks(u128::from(self.since_opened_ms()) + ttl.as_millis())))
    }

    /// The times in RAM of an entry that comes back from disk. A deadline of idling alone starts anew.
    pub(crate) fn times_after_disk(&self, expiry_s: u32, idle: bool) -> Option<Times> {
        let left_ms = (u64::from(expiry_s) * 1000).saturating_sub(self.opened_ms);
        let end = ticks(u128::from(left_ms)).max(1);
        let mut times = self.times_until(if expiry_s == 0 || idle { 0 } else { end });
        if let Some(times) = &mut times {
            *times.copied.get_mut() = end.saturating_sub(self.time_to_idle);
        }
        times
    }

    fn times_until(&self, deadline: u32) -> Option<Times> {
        let touched = if self.time_to_idle == 0 { 0 } else { self.now() };
        let can_expire = deadline != 0 || self.time_to_idle != 0;
        can_expire.then(|| Times {
            deadline,
            touched: AtomicU32::new(touched),
            copied: AtomicU32::new(touched),
        })
    }

    /// Notes a hit, where entries expire when they idle. To write the entry at each hit would cost
    /// what the lock-free path saves, so it is noted once in a sixteenth of the idle time: an
    /// entry may idle that much less.
    #[inline]
    pub(crate) fn touch(&self, times: Option<&Times>) {
        let Some(times) = times else { return };
        if self.time_to_idle == 0 {
            return;
        }
        self.touch_at(times, self.now());
    }

    fn touch_at(&self, times: &Times, now: u32) {
        let touched = times.touched.load(Relaxed);
        let idle = now.saturating_sub(touched);
        if (self.time_to_idle / 16 + 1..self.time_to_idle).contains(&idle) {
            // Not if another hit has come first; nor if somebody has found since that it has idled too long: that
            // stays so, however late this thread is.
            let _ = times.touched.compare_exchange(touched, now, Relaxed, Relaxed);
        }
    }

    /// Whether the entry is past its deadline or has idled too long.
    #[inline]
    pub(crate) fn has_expired(&self, times: Option<&Times>) -> bool {
        let Some(times) = times else { return false };
        let now = self.now();
        if now == u32::MAX {
            // The counter has ended, and with it all knowledge of what is still to come.
            return true;
        }
        (self.time_to_idle != 0 && self.has_idled_out(times, now))
            || (times.deadline != 0 && now >= times.deadline)
    }

    #[inline]
    fn has_idled_out(&self, times: &Times, now: u32) -> bool {
        let touched = times.touched.load(Relaxed);
        let is_idle = touched == IDLED_OUT || now.saturating_sub(touched) >= self.time_to_idle;
        is_idle && Self::idle_out(times, touched)
    }

    /// Notes that the entry has idled too long since it was `touched`; `false` if it was hit in the meantime.
    #[cold]
    fn idle_out(times: &Times, touched: u32) -> bool {
        let found = times.touched.compare_exchange(touched, IDLED_OUT, Relaxed, Relaxed);
        found.is_ok() || found == Err(IDLED_OUT)
    }

    /// The deadline to write with a copy on disk, which is noted, and whether it is one of idling alone. `None` if
    /// less than a second is left.
    pub(crate) fn on_disk(&self, times: Option<&Times>) -> Option<(u32, bool)> {
        let Some(times) = times else { return Some((0, false)) };
        let idle_end = match self.time_to_idle {
            0 => u32::MAX,
            idle => match times.touched.load(Relaxed) {
                IDLED_OUT => return None,
                touched => {
                    times.copied.store(touched, Relaxed);
                    touched.saturating_add(idle)
                }
            },
        };
        let end = if times.deadline == 0 { idle_end } else { times.deadline.min(idle_end) };
        let end_s = (self.opened_ms + u64::from(end) * TICK_MS) / 1000;
        let end_s = u32::try_from(end_s).unwrap_or(u32::MAX);
        (end_s > self.now_s()).then_some((end_s, times.deadline == 0))
    }

    /// The copy that was noted last has not come to be.
    pub(crate) fn forget_copied(&self, times: Option<&Times>) {
        if let Some(times) = times {
            times.copied.store(0, Relaxed);
        }
    }

    /// Whether the copy on disk of an entry idles out long before it: it was hit since for half of the idle time.
    pub(crate) fn is_copy_outdated(&self, times: Option<&Times>) -> bool {
        let Some(times) = times.filter(|_| self.time_to_idle != 0) else { return false };
        let copied = times.copied.load(Relaxed);
        let idles_out = times.deadline == 0 || copied.saturating_add(self.time_to_idle) < times.deadline;
        match times.touched.load(Relaxed) {
            IDLED_OUT => false,
            touched => idles_out && touched.saturating_sub(copied) > self.time_to_idle / 2,
        }
    }

    /// Whether a copy on disk may outlast the entry that is promoted from it now: it was written
    /// without a time to idle, or with a longer one than today's. Then it must not be left behind.
    pub(crate) fn is_outlasted_by(&self, expiry_s: u32) -> bool {
        if self.time_to_idle == 0 {
            return false;
        }
        let idle_end = u64::from(self.now()) + u64::from(self.time_to_idle);
        let idle_end_ms = self.opened_ms + idle_end * TICK_MS;
        expiry_s == 0 || u64::from(expiry_s) * 1000 > idle_end_ms
    }

    /// Whether entries have a time to idle today.
    pub(crate) fn idles_out(&self) -> bool {
        self.time_to_idle != 0
    }

    /// Whether a copy on disk is past its deadline.
    pub(crate) fn has_expired_on_disk(&self, expiry_s: u32) -> bool {
        expiry_s != 0 && expiry_s <= self.now_s()
    }

    fn since_opened_ms(&self) -> u64 {
        self.clock.now_ms().saturating_sub(self.opened_ms)
    }
}

fn ticks(ms: u128) -> u32 {
    (ms / u128::from(TICK_MS)).min(u128::from(TICKS_MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::fault::FaultDisk;

    fn expiry(ttl: Option<u64>, tti: Option<u64>) -> (Arc<FaultDisk>, Expiry) {
        let disk = Arc::new(FaultDisk::new());
        disk.set_wall_time(Some(Duration::from_millis(1_700_000_000_900)));
        let clock = Arc::new(Clock::new(disk.clone()));
        let secs = |s: Option<u64>| s.map(Duration::from_secs);
        (disk, Expiry::new(clock, secs(ttl), secs(tti)))
    }

    #[test]
    fn an_entry_expires_never_late() {
        let (disk, expiry) = expiry(Some(10), None);
        let (short, long) = (expiry.times(Some(Duration::from_secs(1))), expiry.times(None));
        let has_expired = |times: &Option<Times>| expiry.has_expired(times.as_ref());
        disk.advance_clock(Duration::from_millis(900));
        assert!(!has_expired(&short));
        disk.advance_clock(Duration::from_millis(100));
        assert!(has_expired(&short) && !has_expired(&long));
        disk.advance_clock(Duration::from_secs(9));
        assert!(has_expired(&long));
    }

    #[test]
    fn a_hit_renews_an_idle_entry_only() {
        let (disk, expiry) = expiry(None, Some(10));
        let (idle, hit) = (expiry.times(None), expiry.times(None));
        disk.advance_clock(Duration::from_secs(6));
        expiry.touch(hit.as_ref());
        disk.advance_clock(Duration::from_secs(6));
        assert!(expiry.has_expired(idle.as_ref()) && !expiry.has_expired(hit.as_ref()));
        // Whoever was about to, as it was found to have expired.
        expiry.touch(idle.as_ref());
        assert!(expiry.has_expired(idle.as_ref()));
    }

    /// A hit whose thread has looked at the clock, and then not run while the entry idled out.
    #[test]
    fn a_hit_that_is_late_revives_nothing() {
        let (disk, expiry) = expiry(None, Some(10));
        let times = expiry.times(None);
        disk.advance_clock(Duration::from_secs(9));
        let late = expiry.now();
        disk.advance_clock(Duration::from_secs(1));
        assert!(expiry.has_expired(times.as_ref()));
        expiry.touch_at(times.as_ref().unwrap(), late);
        disk.advance_clock(Duration::from_secs(1));
        assert!(expiry.has_expired(times.as_ref()) && expiry.on_disk(times.as_ref()).is_none());
    }

    #[test]
    fn the_deadline_on_disk_is_never_later() {
        let (disk, expiry) = expiry(Some(10), None);
        let times = expiry.times(None);
        let (end_s, idle) = expiry.on_disk(times.as_ref()).unwrap();
        assert!(!idle && end_s <= expiry.now_s() + 10 && end_s >= expiry.now_s() + 8);
        let back = expiry.times_after_disk(end_s, false).unwrap();
        assert!(back.deadline <= times.as_ref().unwrap().deadline);
        disk.advance_clock(Duration::from_millis(9_500));
        assert!(expiry.on_disk(times.as_ref()).is_none(), "less than a second is left");
    }

    #[test]
    fn a_time_beyond_the_counter_is_its_end() {
        let (_, expiry) = expiry(None, None);
        assert_eq!(expiry.times(Some(Duration::MAX)).unwrap().deadline, u32::MAX);
        assert!(expiry.times(None).is_none(), "and what cannot expire has no times");
        assert_eq!(expiry.on_disk(None), Some((0, false)));
    }
}
