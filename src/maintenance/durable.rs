//! Making segments outlive the machine: where the durability asks for it, after a flush, at each sweep
//! and before a segment goes whose live records were written again; at a close always.

use std::{sync::Arc, time::Duration};

use super::Maintenance;
use crate::{
    codec::{Key, Value},
    error::Error,
    log::Segment,
    sync::{Instant, Ordering::Relaxed},
};

/// How long what has been written may wait for a sync that nobody asks for.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

impl<K: Key, V: Value> Maintenance<K, V> {
    /// Called with every sweep: what has been copied is safe from a power loss a second later.
    pub(super) fn sync_if_due(&mut self) {
        if Instant::now() >= self.next_sync {
            self.next_sync = Instant::now() + SYNC_INTERVAL;
            self.log().keep_time();
            self.sync_if_promised();
        }
    }

    /// As [`sync_segments`](Self::sync_segments), where entries on disk have to outlive the machine.
    pub(super) fn sync_if_promised(&mut self) {
        if self.log().outlives_power() {
            self.sync_segments();
        }
    }

    /// Syncs every segment that has changed since its last sync. The batch is written first. One that
    /// fails is given up, with all that it holds.
    pub(super) fn sync_segments(&mut self) {
        self.write_batch();
        for segment in self.log().unsynced_segments() {
            match self.log().sync_segment(&segment) {
                Err(error) if segment.sync_failed.load(Relaxed) => self.give_up(&segment, error),
                // It could not even be tried.
                Err(error) => self.note_failure(error),
                Ok(()) => {}
            }
        }
    }

    /// Nobody knows what of the segment is on disk: what the page cache still has of it may be gone at
    /// the next look. In R6's order, as if it were reclaimed, but nothing is written again.
    fn give_up(&mut self, segment: &Arc<Segment>, error: Error) {
        let id = segment.id();
        self.note_failure(error);
        if self.reclaim.as_ref().is_some_and(|reclaim| reclaim.is_of(id)) {
            self.reclaim = None;
        }
        self.appender.forsake(id);
        if let Err(error) = self.log().mark_dead(id) {
            // It stays in the index and on disk, and is tried again.
            tracing::warn!(%error, "a segment could not be marked dead");
            return;
        }
        self.forget_segment(id, |counts| &mut counts.write_failures);
        self.log().unlink(id);
    }
}
