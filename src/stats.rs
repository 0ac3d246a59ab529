//! What the cache has done and holds.

use std::time::Duration;

/// What the cache has done since it was opened, and what it holds now. By [`Cache::stats`](crate::Cache::stats).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Look-ups answered from RAM.
    pub ram_hits: u64,
    /// Look-ups answered from disk.
    pub disk_hits: u64,
    /// Look-ups not answered.
    pub misses: u64,
    /// Values stored.
    pub inserts: u64,
    /// Entries removed by `remove`.
    pub removes: u64,
    /// Loads run by `get_or_insert_with` and its kin.
    pub loads: u64,
    /// Loaded values not stored, since an invalidation overtook the load.
    pub loads_overtaken: u64,
    /// Entries that the policy put out of RAM.
    pub evictions: u64,
    /// Evicted entries whose copy on disk was still good: nothing was written.
    pub clean_evictions: u64,
    /// Evicted entries that admission kept off the disk.
    pub refused: u64,
    /// Entries dropped since they had expired.
    pub expired: u64,
    /// Evicted entries forgotten since the disk was behind and the cache does not wait.
    pub shed: u64,
    /// Evicted entries forgotten since they are too large for the log.
    pub too_large: u64,
    /// Evicted entries forgotten since they could not be encoded or the user's filter said no.
    pub unspillable: u64,
    /// Evicted entries forgotten since the disk refused them.
    pub write_failures: u64,
    /// Entries on disk forgotten since they could not be read back whole.
    pub read_failures: u64,
    /// Entries on disk forgotten with the segment they lay in, to make room.
    pub reclaimed: u64,
    /// Entries written to the log on leaving RAM.
    pub spills: u64,
    /// Entries copied to the log while they stayed in RAM.
    pub write_behinds: u64,
    /// Live entries written again when their segment was reclaimed.
    pub reinsertions: u64,
    /// Records written to the invalidation journal.
    pub journal_records: u64,
    /// Bytes of records written.
    pub record_bytes_written: u64,
    /// Bytes of segment headers and footers written.
    pub footer_bytes_written: u64,
    /// Bytes of the journal written.
    pub journal_bytes_written: u64,
    /// Bytes of snapshots and STATE written.
    pub state_bytes_written: u64,
    /// Keys in RAM now.
    pub ram_entries: u64,
    /// Keys on disk now.
    pub disk_entries: u64,
    /// Bytes of RAM in use now, all told.
    pub ram_bytes: u64,
    /// Bytes of RAM the index of the disk tier takes now; part of `ram_bytes`.
    pub index_bytes: u64,
    /// Bytes of RAM waiting to be written to disk now; part of `ram_bytes`.
    pub queue_bytes: u64,
    /// Bytes on disk in use now.
    pub disk_bytes: u64,
    /// What was found at `open`.
    pub recovery: Recovery,
}

impl Stats {
    /// Look-ups that were answered, of all; 0 before the first.
    pub fn hit_ratio(&self) -> f64 {
        let hits = self.ram_hits + self.disk_hits;
        ratio(hits, hits + self.misses)
    }

    /// Bytes written to disk for each byte of record written for the first time; 0 before the first.
    pub fn write_amplification(&self) -> f64 {
        0.0
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// How a cache came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// In RAM alone, or on a new directory.
    #[default]
    New,
    /// Everything found was given up, since it could not be trusted.
    Cold,
    /// After a clean close.
    Clean,
    /// After a crash of the process.
    Recovered,
}

/// What was found at `open`, how long it took, and what was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// How the cache came up.
    pub start: Start,
    /// Why it is cold, if it is.
    pub reason: Option<String>,
    /// How long `open` took.
    pub took: Duration,
    /// Entries found on disk.
    pub entries: u64,
    /// Segments found on disk.
    pub segments: u64,
    /// Records dropped since they had been overwritten, removed or cleared.
    pub invalidated: u64,
    /// Records dropped since they had expired.
    pub expired: u64,
    /// Segments put aside since they could not be read.
    pub quarantined: u64,
}
