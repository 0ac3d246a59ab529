//! embercache, through nothing but its public API.

use anyhow::Result;
use embercache::{Admission, Cache, KIB, WriteBehind};
use tempfile::TempDir;

use crate::{
    player::{Details, DiskDetails, Player},
    trace::Request,
};

/// One stripe, as every other cache here is one shard: what is compared is the policy.
const STRIPES: u64 = 1;
/// A stripe of fewer entries has too little to learn from; the cache makes none unless it is told to.
const STRIPE_ENTRIES_MIN: u64 = 256;
/// The smallest budget in bytes that the cache takes.
pub const RAM_BYTES_MIN: u64 = 64 * KIB;

/// The RAM tier alone. A value is its weight.
pub struct Ember {
    cache: Cache<u64, u32>,
}

impl Ember {
    pub fn of_entries(entries: u64, stripes_max: u64) -> Result<Ember> {
        let useful = 1 << (entries / STRIPE_ENTRIES_MIN).max(1).ilog2();
        let stripes = useful.min(stripes_max);
        Ok(Ember { cache: Cache::in_memory().ram_entries(entries).stripes(stripes).open()? })
    }

    /// The weigher says what a value of that size would take; no such value is made.
    pub fn of_bytes(bytes: u64) -> Result<Ember> {
        let weigh = |_: &u64, weight: &u32| u64::from(*weight);
        Ok(Ember { cache: Cache::in_memory().ram(bytes).stripes(STRIPES).weigher(weigh).open()? })
    }

    /// What the cache charges for an entry beside the bytes of its value. The other caches are charged
    /// as much, so that all have room for the same.
    pub fn entry_overhead_bytes() -> Result<u32> {
        let ember = Ember::of_bytes(RAM_BYTES_MIN)?;
        ember.cache.insert(0, 0)?;
        Ok(ember.cache.ram_used().try_into()?)
    }
}

impl Player for Ember {
    fn request(&mut self, request: Request) -> bool {
        let found = self.cache.get(&request.key).is_some();
        if !found {
            // What is too large for the cache is not stored.
            let _ = self.cache.insert(request.key, request.weight);
        }
        found
    }

    fn details(&mut self) -> Details {
        let stats = self.cache.stats();
        Details {
            clock_steps: Some(stats.clock_steps),
            metadata_bytes: Some(stats.metadata_bytes),
            ram_entries: Some(stats.ram_entries),
            disk: None,
        }
    }
}

/// Both tiers, in a directory that goes with the player.
pub struct TwoTiers {
    cache: Cache<u64, Vec<u8>>,
    value: Vec<u8>,
    disk_entries: u64,
    requests: u64,
    /// Of the log's entries, since it has been full.
    samples: Vec<u64>,
    /// Dropped after the cache.
    _dir: TempDir,
}

/// Records of 1 KiB: so large that the smallest log of the recipe, of 500, is several segments of the
/// smallest size, which leave one at a time; and so small that the largest still fits into any page cache.
const RECORD_BYTES: u64 = KIB;
/// A record's header and its key.
const RECORD_OVERHEAD_BYTES: u64 = 32 + 8;
/// What a record takes in the footer of its segment, and its part of the segment's header and trailer.
const FOOTER_BYTES: u64 = 24 + 4;
/// The log's size, as a multiple of the RAM tier's entries.
const DISK_FACTOR: u64 = 10;
const SEGMENT_BYTES: u64 = 64 * KIB;
const DISK_BYTES_MIN: u64 = 4 * SEGMENT_BYTES;
/// Requests between two looks at how many entries the log has.
const SAMPLE_REQUESTS: u64 = 1_000;

impl TwoTiers {
    /// RAM for so many entries, and a log for the records of ten times as many.
    pub fn of_entries(entries: u64, admission: Admission) -> Result<TwoTiers> {
        let dir = tempfile::tempdir()?;
        let wanted_bytes = entries * DISK_FACTOR * (RECORD_BYTES + FOOTER_BYTES);
        let segment_bytes = (wanted_bytes / 256).next_power_of_two().max(SEGMENT_BYTES);
        // Two segments more: the active one is half full in the mean, the oldest is given up as soon
        // as it is begun, and half a segment is lost where the disk is no whole number of them.
        let disk_bytes = wanted_bytes + 2 * segment_bytes;
        let cache = Cache::builder(dir.path().join("cache"))
            .ram_entries(entries)
            .disk(disk_bytes.max(DISK_BYTES_MIN))
            .segment_size(segment_bytes)
            .stripes(STRIPES)
            .admission(admission)
            // By the clock on the wall, a replay is over before anything is old enough.
            .write_behind(WriteBehind::Never)
            .open()?;
        let value = vec![0; (RECORD_BYTES - RECORD_OVERHEAD_BYTES) as usize];
        let (disk_entries, samples) = (entries * DISK_FACTOR, Vec::new());
        Ok(TwoTiers { cache, value, disk_entries, requests: 0, samples, _dir: dir })
    }
}

impl TwoTiers {
    fn sample(&mut self) {
        let stats = self.cache.stats();
        if stats.reclaimed > 0 {
            self.samples.push(stats.disk_entries);
        }
    }

    /// How many entries the full log had in the mean, of those that it should have.
    fn fill(&self) -> f64 {
        self.samples.iter().sum::<u64>() as f64 / (self.samples.len() as u64 * self.disk_entries) as f64
    }
}

impl Player for TwoTiers {
    fn request(&mut self, request: Request) -> bool {
        self.requests += 1;
        if self.requests.is_multiple_of(SAMPLE_REQUESTS) {
            self.sample();
        }
        let found = self.cache.get_with(&request.key, |_| ()).is_some();
        if !found {
            self.cache.insert(request.key, self.value.clone()).expect("a record of this size fits");
        }
        found
    }

    fn details(&mut self) -> Details {
        let stats = self.cache.stats();
        let disk = DiskDetails {
            hits: stats.disk_hits,
            entries: stats.disk_entries,
            fill: self.fill(),
            writes: stats.spills + stats.write_behinds + stats.reinsertions,
            rewrites: stats.reinsertions,
            record_bytes_written: stats.record_bytes_written,
        };
        Details { clock_steps: Some(stats.clock_steps), disk: Some(disk), ..Details::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tiers_hold_what_one_does_not() {
        let mut player = TwoTiers::of_entries(64, Admission::All).unwrap();
        let request = |number| Request { number, key: u64::from(number), weight: 1 };
        assert_eq!((0..500).filter(|&number| player.request(request(number))).count(), 0);
        assert_eq!((0..500).filter(|&number| player.request(request(number))).count(), 500);
        let disk = player.details().disk.unwrap();
        assert!(disk.hits > 400 && disk.writes > 400, "{disk:?}");
    }
}
