//! What the cache has done and holds.

use std::{fmt, time::Duration};

use crate::{
    codec::{Key, Value},
    log::{self, RecoveryReport},
    shard::counts::Counts,
    sync::Ordering::Relaxed,
    tiers::Tiers,
};

/// What the cache has done since it was opened, and what it holds now. By [`Cache::stats`](crate::Cache::stats).
///
/// Counters start at 0 at each `open`. Entries that were lost are counted by cause: `refused`, `shed`,
/// `too_large`, `unspillable`, `write_failures`, `read_failures`, `reclaimed`; in RAM alone all that are evicted are
/// lost. Its `Display` is a table for a person to read.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # use embercache::{Cache, MIB};
/// let cache: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
/// cache.insert(1, "one".into())?;
/// cache.remove(&1)?;
/// let stats = cache.stats();
/// assert_eq!((stats.inserts, stats.removes, stats.ram_entries), (1, 1, 0));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Look-ups answered from RAM. `peek` and `contains_key` count neither as hits nor as misses.
    pub ram_hits: u64,
    /// Look-ups answered from disk.
    pub disk_hits: u64,
    /// Look-ups that found nothing. Where another thread was first, a `get_or_insert_with` looks twice, and both count.
    pub misses: u64,
    /// Values stored, by inserts, loads and leases.
    pub inserts: u64,
    /// Entries removed by `remove`.
    pub removes: u64,
    /// Loads run by `get_or_insert_with` and `try_get_or_insert_with`; those of leases do not count.
    pub loads: u64,
    /// Loaded values, those of leases included, that were not stored because an invalidation overtook the load.
    pub loads_overtaken: u64,
    /// Entries that the policy evicted from RAM.
    pub evictions: u64,
    /// Entries that the policy looked at and spared on its way to a victim.
    pub clock_steps: u64,
    /// Evicted entries whose copy on disk was still good, so that nothing was written.
    pub clean_evictions: u64,
    /// Evicted entries that admission kept off the disk, or that a cache opened for reading only evicted.
    pub refused: u64,
    /// Entries dropped because they had expired.
    pub expired: u64,
    /// Evicted entries forgotten because the disk was behind and the cache does not wait
    /// ([`Overload::Shed`](crate::Overload::Shed)).
    pub shed: u64,
    /// Copies to disk given up because the entry is too large for the log. Here and in the next two: an
    /// entry that was leaving RAM is forgotten with its copy, one that stays may be tried again.
    pub too_large: u64,
    /// Copies given up because the entry could not be encoded, the user's filter said no, or it was about
    /// to expire.
    pub unspillable: u64,
    /// Copies, or evicted entries, given up because the disk refused them.
    pub write_failures: u64,
    /// Entries on disk forgotten because they could not be read back whole.
    pub read_failures: u64,
    /// Entries on disk forgotten with the segment they lay in, to make room.
    pub reclaimed: u64,
    /// Entries written to the log on leaving RAM.
    pub spills: u64,
    /// Entries copied to the log while they stayed in RAM, by write-behind, `flush` or `close`.
    pub write_behinds: u64,
    /// Live entries written again when their segment was reclaimed.
    pub reinsertions: u64,
    /// Entries written to the invalidation journal.
    pub journal_entries: u64,
    /// Syncs of the journal before acknowledgements; with `Durability::PowerLoss` only. One serves all
    /// operations that wait at that moment, so there are fewer than `journal_entries` where several
    /// threads change entries.
    pub journal_syncs: u64,
    /// Bytes of records written to segments.
    pub record_bytes_written: u64,
    /// Of these, bytes of records written again when their segment was reclaimed.
    pub reinserted_bytes_written: u64,
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
    /// How much of the RAM budget is in use now, in the unit that the budget was given in. In bytes
    /// ([`Builder::ram`](crate::Builder::ram)): entries with their metadata, what waits to be freed or written, the
    /// index. In entries ([`Builder::ram_entries`](crate::Builder::ram_entries)): these and what waits.
    pub ram_used: u64,
    /// Of `ram_used`, in the same unit: what leaves RAM once it is written to disk. In bytes with
    /// [`WriteBehind::Through`](crate::WriteBehind::Through): also what the copies on their way take.
    pub ram_queued: u64,
    /// Bytes of RAM the index of the disk tier takes now; part of `ram_used` where that is in bytes.
    pub index_bytes: u64,
    /// How many bytes of the disk budget the index can name within its share of RAM, at the entries'
    /// mean size so far. Where this is less than the disk budget, the oldest entries leave before the disk is full.
    pub indexable_disk_bytes: u64,
    /// Bytes that the tables, slabs, rings and ghosts of the RAM tier have allocated now. In
    /// `ram_used`, where that is in bytes, each entry is charged a flat rate for its part of them.
    pub metadata_bytes: u64,
    /// Bytes that segments take on disk now.
    pub disk_bytes: u64,
    /// What was found at `open`.
    pub recovery: Recovery,
}

impl Stats {
    /// The share of look-ups that were answered, from 0 to 1; 0 before the first look-up.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::in_memory().ram(MIB).open()?;
    /// cache.insert(1, "one".into())?;
    /// for key in [1, 1, 1, 2] {
    ///     cache.get(&key);
    /// }
    /// assert_eq!(cache.stats().hit_ratio(), 0.75);
    /// # Ok(()) }
    /// ```
    pub fn hit_ratio(&self) -> f64 {
        let hits = self.ram_hits + self.disk_hits;
        ratio(hits, hits + self.misses)
    }

    /// Bytes of every kind that were written to disk, for each byte of a record that was new; 0 before the first.
    /// Records that are written again at reclaim raise it: see [`Builder::reinsertion`](crate::Builder::reinsertion).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, Vec<u8>> = Cache::builder(dir).disk(64 * MIB).open()?;
    /// assert_eq!(cache.stats().write_amplification(), 0.0);
    /// cache.insert(1, vec![0; 1_000_000])?;
    /// cache.flush()?;
    /// assert!((1.0..1.1).contains(&cache.stats().write_amplification()));
    /// # Ok(()) }
    /// ```
    pub fn write_amplification(&self) -> f64 {
        let written = self.record_bytes_written
            + self.footer_bytes_written
            + self.journal_bytes_written
            + self.state_bytes_written;
        ratio(written, self.record_bytes_written - self.reinserted_bytes_written)
    }

    pub(crate) fn of<K: Key, V: Value>(tiers: &Tiers<K, V>, recovery: Recovery) -> Stats {
        let (mut counts, mut held) = (Counts::default(), Stats::default());
        tiers.for_each_shard(|shard| {
            counts += *shard.counts();
            held.metadata_bytes += shard.metadata_bytes();
            held.clock_steps += shard.clock_steps();
            held.ram_entries += shard.resident_len();
            held.disk_entries += shard.index().len() as u64;
        });
        let mut stats = Stats {
            ram_hits: tiers.look_ups.hits(),
            disk_hits: tiers.look_ups.disk_hits(),
            misses: tiers.look_ups.misses(),
            inserts: counts.inserts,
            removes: counts.removes,
            loads: tiers.look_ups.loads(),
            loads_overtaken: counts.loads_overtaken,
            evictions: counts.evictions,
            clean_evictions: counts.clean_evictions,
            refused: counts.refused,
            expired: counts.expired,
            shed: counts.shed,
            too_large: counts.too_large,
            unspillable: counts.unspillable,
            write_failures: counts.write_failures,
            read_failures: counts.read_failures,
            reclaimed: counts.reclaimed,
            spills: counts.spills,
            write_behinds: counts.write_behinds,
            reinsertions: counts.reinsertions,
            reinserted_bytes_written: counts.reinserted_bytes_written,
            ram_used: tiers.ram_used(),
            ram_queued: tiers.budget.leaving(),
            index_bytes: tiers.budget.index_bytes(),
            recovery,
            ..held
        };
        if let Some(log) = &tiers.log {
            stats.indexable_disk_bytes = tiers.indexable_disk_bytes();
            stats.add_log(log);
        }
        stats
    }

    fn add_log(&mut self, log: &log::Log) {
        let counters = log.counters();
        self.journal_entries = counters.journal_entries.load(Relaxed);
        self.journal_syncs = counters.journal_syncs.load(Relaxed);
        self.record_bytes_written = counters.record_bytes.load(Relaxed);
        self.footer_bytes_written = counters.footer_bytes.load(Relaxed);
        self.journal_bytes_written = counters.journal_bytes.load(Relaxed);
        self.state_bytes_written = counters.snapshot_bytes.load(Relaxed) + counters.state_bytes.load(Relaxed);
        self.disk_bytes = log.disk_bytes();
        self.recovery.invalidated = counters.recovered_invalidated.load(Relaxed);
        self.recovery.expired = counters.recovered_expired.load(Relaxed);
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A table for a person to read.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part| 100.0 * ratio(part, self.ram_hits + self.disk_hits + self.misses);
        writeln!(
            f,
            "look-ups   {:.1} % from RAM, {:.1} % from disk, {:.1} % missed",
            percent(self.ram_hits),
            percent(self.disk_hits),
            percent(self.misses)
        )?;
        writeln!(
            f,
            "holds      {} entries in RAM ({} of its budget, index of {} bytes), {} entries and {} bytes on disk",
            self.ram_entries, self.ram_used, self.index_bytes, self.disk_entries, self.disk_bytes
        )?;
        writeln!(
            f,
            "evictions  {}: {} spilled, {} clean, {} refused, {} shed, {} failed",
            self.evictions, self.spills, self.clean_evictions, self.refused, self.shed, self.write_failures
        )?;
        write!(
            f,
            "writes     {} bytes of records, amplification {:.2}, {} journal entries",
            self.record_bytes_written,
            self.write_amplification(),
            self.journal_entries
        )
    }
}

/// How a cache came up. In [`Recovery::start`].
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("cache");
/// # use embercache::{Cache, Start};
/// let open = || Cache::<u64, String>::builder(&dir).open();
/// assert_eq!(open()?.stats().recovery.start, Start::New);
/// assert_eq!(open()?.stats().recovery.start, Start::Clean);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// In RAM alone, or without anything to start from: a new directory, or one whose STATE is
    /// missing, damaged or made void because the disk refused an invalidation.
    #[default]
    New,
    /// Warm, after a clean close.
    Clean,
    /// Warm, after the end of a process that did not close it, or of the machine that it ran on.
    Recovered,
    /// Cold: the last run was not closed, and its durability does not cover what came after: the machine has
    /// rebooted, or the directory is a copy.
    Unclean,
    /// Cold: the directory was written with other codecs or another schema version.
    Mismatch,
    /// Cold: the last run had a durability that kept no journal.
    ModeChanged,
    /// Cold: the invalidation journal is damaged, so that nothing on disk can be trusted.
    JournalDamaged,
}

impl Start {
    /// Whether what was stored before is still there, as far as it was on disk.
    ///
    /// # Examples
    ///
    /// ```
    /// use embercache::Start;
    ///
    /// assert!(Start::Recovered.is_warm());
    /// assert!(!Start::Mismatch.is_warm());
    /// ```
    pub fn is_warm(self) -> bool {
        matches!(self, Start::Clean | Start::Recovered)
    }
}

/// What was found at `open`, and how long that took. In [`Stats::recovery`].
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("cache");
/// # use embercache::{Cache};
/// let open = || Cache::<u64, String>::builder(&dir).open();
/// open()?.insert(1, "one".into())?;
/// let recovery = open()?.stats().recovery;
/// assert!(recovery.start.is_warm());
/// assert_eq!((recovery.entries, recovery.segments, recovery.quarantined), (1, 1, 0));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// How the cache came up.
    pub start: Start,
    /// How long `open` took.
    pub took: Duration,
    /// Entries found on disk.
    pub entries: u64,
    /// Segments found on disk.
    pub segments: u64,
    /// Records left out because they had been overwritten, removed or cleared.
    pub invalidated: u64,
    /// Records left out because they had expired.
    pub expired: u64,
    /// Segments put aside because their header could not be read.
    pub quarantined: u64,
}

impl Recovery {
    pub(crate) fn of(report: RecoveryReport, entries: u64, took: Duration) -> Recovery {
        Recovery {
            start: match report.start {
                log::Start::NoState => Start::New,
                log::Start::Snapshot => Start::Clean,
                log::Start::Entries => Start::Recovered,
                log::Start::Unclean => Start::Unclean,
                log::Start::Mismatch => Start::Mismatch,
                log::Start::ModeChanged => Start::ModeChanged,
                log::Start::Journal => Start::JournalDamaged,
            },
            took,
            entries,
            segments: report.segments as u64,
            invalidated: 0,
            expired: 0,
            quarantined: report.quarantined,
        }
    }
}
