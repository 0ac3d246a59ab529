//! What the log has done since it was opened.

use crate::sync::AtomicU64;

/// Counts for the statistics. All Relaxed: nothing correct depends on them.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    pub(crate) record_bytes: AtomicU64,
    /// Headers of segments, too.
    pub(crate) footer_bytes: AtomicU64,
    pub(crate) journal_bytes: AtomicU64,
    pub(crate) snapshot_bytes: AtomicU64,
    pub(crate) state_bytes: AtomicU64,
    /// Entries of any kind appended to the journal.
    pub(crate) journal_entries: AtomicU64,
    /// Group commits.
    pub(crate) journal_syncs: AtomicU64,
    /// Records that recovery left out since they had been invalidated.
    pub(crate) recovered_invalidated: AtomicU64,
    /// Records that recovery left out since they had expired.
    pub(crate) recovered_expired: AtomicU64,
    pub(crate) segments_quarantined: AtomicU64,
}
