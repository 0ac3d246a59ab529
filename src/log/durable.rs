//! What of the log outlives the machine: the journal before an acknowledgement, segments after a flush,
//! names before anything relies on them, and the time.

use std::{io, mem, sync::Arc};

use super::{
    COLD_NEXT_START, Log,
    directory::{failed, was_tried},
    segment::{Bytes, Segment},
    state::State,
};
use crate::{
    error::Error,
    io::{IoFile, OpenMode},
    location::JournalEnd,
    options::Durability,
    sync::Ordering::Relaxed,
};

/// Where a run has to outlive the machine, STATE is told the time so often: after a loss of power the
/// cache's clock starts behind every moment of that run, wherever the wall clock is set then.
const ANCHOR_AGE_MS: u64 = 60_000;
/// As old can STATE's time be if the thread that tells it was held up.
pub(super) const ANCHOR_AGE_MAX_MS: u64 = 2 * ANCHOR_AGE_MS;

impl Log {
    /// Whether what is on disk has to outlive the machine.
    pub(crate) fn outlives_power(&self) -> bool {
        self.options.durability == Durability::PowerLoss && self.latch.load(Relaxed) != COLD_NEXT_START
    }

    /// Waits until the journal outlives the machine up to `end`, or the next start is cold anyway. The
    /// caller holds no lock: it takes as long as the disk does.
    pub(crate) fn commit(&self, end: JournalEnd) -> Result<(), Error> {
        self.commits.wait(end, || self.sync_journal())
    }

    /// `Err` where the next start will be cold whatever is on disk: nobody may be told then that something
    /// is safe there.
    pub(crate) fn check_next_start(&self) -> Result<(), Error> {
        self.ensure_durable()?;
        if self.latch.load(Relaxed) != COLD_NEXT_START {
            return Ok(());
        }
        let source = io::Error::other("the disk has failed the journal, so the next start will be cold");
        Err(failed("keeping anything in", &self.directory.path, source))
    }

    /// The segments that may not outlive the machine as they are.
    pub(crate) fn unsynced_segments(&self) -> Vec<Arc<Segment>> {
        let table = self.table.read();
        table.all().filter(|segment| !segment.synced.load(Relaxed)).cloned().collect()
    }

    /// Makes the segment outlive the machine. After an error it is to be given up: its sync is never
    /// tried again, since that could succeed without anything being on disk.
    pub(crate) fn sync_segment(&self, segment: &Segment) -> Result<(), Error> {
        let path = self.directory.segment(segment.id());
        let synced = match &segment.bytes {
            Bytes::File(file) => segment.sync(&**file),
            Bytes::Map(_) | Bytes::Lazy(_) => {
                self.io.open(&path, OpenMode::Read).and_then(|file| segment.sync(&*file))
            }
        };
        synced.map_err(|error| failed("syncing", &path, error))
    }

    /// Tells STATE the time, if it has to outlive the machine and is due.
    pub(crate) fn keep_time(&self) {
        if !self.outlives_power() {
            return;
        }
        let mut file = self.state.lock();
        let anchor = self.clock.anchor();
        if anchor.cache_ms - file.state.anchor.cache_ms < ANCHOR_AGE_MS {
            return;
        }
        let state = State { anchor, ..file.state };
        let told = file.put(state);
        drop(file);
        if let Err(error) = told {
            // Not told, a deadline that has passed could be seen again.
            tracing::warn!(%error, "STATE cannot be written; the next start will be cold");
            let _ = self.poison();
        }
    }

    /// Syncs the records of a segment that is about to get its trailer, if they have to outlive the
    /// machine.
    pub(super) fn sync_records(&self, segment: &Segment, file: &dyn IoFile) -> io::Result<()> {
        if self.outlives_power() { segment.sync(file) } else { Ok(()) }
    }

    /// Makes names durable.
    pub(super) fn sync_names(&self) -> Result<(), Error> {
        self.believe(self.directory.sync())
    }

    /// What could not be synced once is not believed again, whatever a later sync says: the kernel tells of a page
    /// that it could not write once, and drops it. So the next start is cold, unless the sync could not be tried.
    pub(super) fn believe(&self, synced: Result<(), Error>) -> Result<(), Error> {
        if synced.as_ref().is_err_and(was_tried) {
            self.poison()?;
        }
        synced
    }

    /// Keeps a warning until somebody [tells](Log::tell) it who holds no lock: whoever is told may be users' code
    /// and ask the cache.
    #[cold]
    pub(super) fn tell_later(&self, what: String) {
        self.untold.lock().push(what);
    }

    /// Tells what there is to be told. No lock is held.
    pub(crate) fn tell(&self) {
        let untold = mem::take(&mut *self.untold.lock());
        for what in untold {
            tracing::warn!(dir = %self.directory.path.display(), "{what}");
        }
    }

    /// The journal cannot be relied on any more, so the next start must not.
    #[cold]
    pub(super) fn give_up_journal(&self, error: &io::Error) -> Result<(), Error> {
        self.tell_later(format!("the journal cannot be written; the next start will be cold: {error}"));
        self.poison()
    }

    /// Syncs the journal; how far. After an error never again: nobody knows what has become of the bytes,
    /// and the kernel may say of the same ones that they are fine now. So the next start is cold.
    fn sync_journal(&self) -> Result<JournalEnd, Error> {
        self.ensure_durable()?;
        if !self.outlives_power() {
            return Ok(JournalEnd::MAX);
        }
        let (file, end) = self.journal.lock().current();
        self.counters.journal_syncs.fetch_add(1, Relaxed);
        let synced = file.map_or(Ok(()), |file| file.sync());
        match synced.and_then(|()| self.journal.lock().check()) {
            Ok(()) => Ok(end),
            Err(error) => self.give_up_journal(&error).map(|()| JournalEnd::MAX),
        }
    }
}
