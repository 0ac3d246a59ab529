//! The cache's own time: milliseconds since 1970 that never run backwards.

use std::{sync::Arc, time::Duration};

use crate::io::Io;

/// A moment in both of the times that a [`Clock`] knows, as STATE keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// Cache time, in milliseconds since 1970.
    pub(crate) cache_ms: u64,
    /// Time since boot at the same moment.
    pub(crate) boot_ms: u64,
}

/// Cache time: set by the wall clock once, then driven by the time since boot, which nobody can
/// turn back. An entry that has expired stays expired, whatever the administrator does to the date.
#[derive(Debug)]
pub(crate) struct Clock {
    io: Arc<dyn Io>,
    anchor: Anchor,
}

impl Clock {
    /// Starts at the wall clock, but not in the first second of 1970, which a machine without a clock has:
    /// whoever counts from the second before finds that there is one.
    pub(crate) fn new(io: Arc<dyn Io>) -> Clock {
        let cache_ms = millis(io.wall_time()).max(1000);
        let anchor = Anchor { cache_ms, boot_ms: millis(io.boot_time()) };
        Clock { io, anchor }
    }

    /// Goes on from an anchor of this same boot.
    pub(crate) fn resumed(io: Arc<dyn Io>, anchor: Anchor) -> Clock {
        Clock { io, anchor }
    }

    /// Starts at the wall clock, but not before `floor_ms`, the last time known from an earlier
    /// boot, and the `slack_ms` that it may have gone on for. `false` if the wall clock is behind that
    /// time: then nobody knows how long the machine was off, and no deadline from before it can be trusted.
    pub(crate) fn not_before(io: Arc<dyn Io>, floor_ms: u64, slack_ms: u64) -> (Clock, bool) {
        let mut clock = Clock::new(io);
        let trusted = clock.anchor.cache_ms >= floor_ms;
        clock.anchor.cache_ms = clock.anchor.cache_ms.max(floor_ms.saturating_add(slack_ms));
        (clock, trusted)
    }

    /// Now, in milliseconds since 1970.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        let since = millis(self.io.boot_time()).saturating_sub(self.anchor.boot_ms);
        self.anchor.cache_ms.saturating_add(since)
    }

    /// Now, in whole seconds since 1970, as expiries are kept on disk; it stops in the year 2106.
    pub(crate) fn now_s(&self) -> u32 {
        u32::try_from(self.now_ms() / 1000).unwrap_or(u32::MAX)
    }

    /// Now in both times, for STATE.
    pub(crate) fn anchor(&self) -> Anchor {
        let boot_ms = millis(self.io.boot_time()).max(self.anchor.boot_ms);
        let since = boot_ms - self.anchor.boot_ms;
        Anchor { cache_ms: self.anchor.cache_ms.saturating_add(since), boot_ms }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::fault::FaultDisk;

    #[test]
    fn the_wall_clock_counts_once() {
        let disk = Arc::new(FaultDisk::new());
        disk.set_wall_time(Some(Duration::from_secs(1_000)));
        let clock = Clock::new(disk.clone());
        disk.set_wall_time(Some(Duration::from_secs(10)));
        disk.advance_clock(Duration::from_secs(5));
        assert!((1_005_000..1_006_000).contains(&clock.now_ms()), "{}", clock.now_ms());
        assert_eq!(clock.now_s(), 1_005);

        let resumed = Clock::resumed(disk.clone(), clock.anchor());
        disk.advance_clock(Duration::from_secs(1));
        assert!((1_006_000..1_007_000).contains(&resumed.now_ms()));
    }

    #[test]
    fn a_new_boot_never_goes_back() {
        let disk = Arc::new(FaultDisk::new());
        disk.set_wall_time(Some(Duration::from_secs(1_000)));
        let (clock, trusted) = Clock::not_before(disk.clone(), 2_000_000, 0);
        assert!(!trusted && (2_000_000..2_001_000).contains(&clock.now_ms()));
        let (clock, trusted) = Clock::not_before(disk.clone(), 900_000, 90_000);
        assert!(trusted && (1_000_000..1_001_000).contains(&clock.now_ms()));
        let (clock, trusted) = Clock::not_before(disk, 900_000, 200_000);
        assert!(trusted && (1_100_000..1_101_000).contains(&clock.now_ms()), "it may have been so late");
    }
}
