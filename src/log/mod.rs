//! The disk tier: segments of records, a journal of what must not come back, and the way from both
//! to a warm start.
//!
//! ```text
//!   Appender: stage -> accept (stripe lock) -> write -> seal        one thread
//!   Log:      read | invalidate, raise_barrier, mark_dead | unlink        any thread
//!   open:     STATE -> cold: a new epoch
//!                   -> clean: snapshot, stripe by stripe
//!                   -> killed on this boot, or synced all along: journal + footers + the unsealed tail, by `recover`
//! ```
//!
//! Keys and values are bytes here. The log knows no stripes but as ranges of the hash, and what
//! the index points at is the caller's to know. The layouts are told in docs/format.md.
//!
//! Lock order: what the past's journal says, the journal, then segment table or STATE. Who invalidates may hold one
//! stripe lock above them; who recovers holds that of the snapshot being loaded, and no stripe's.

mod appender;
mod commit;
mod counters;
mod directory;
mod durable;
mod footer;
mod invalidations;
mod journal;
mod layout;
mod open;
mod open_files;
#[cfg(feature = "testing")]
pub(crate) mod parse;
mod published;
mod record;
mod recover;
mod scan;
mod segment;
mod segments;
mod snapshot;
mod state;
mod table;

use std::{io, path::PathBuf, sync::Arc};

use crossbeam_epoch::Guard;

pub(crate) use self::{
    appender::Appender,
    counters::LogCounters,
    footer::FooterEntry,
    open::{RecoveryReport, Start},
    segment::{Read, Record, Segment},
    snapshot::SnapshotReader,
};
use self::{
    commit::GroupCommit,
    directory::{Directory, failed},
    invalidations::Invalidations,
    journal::{Entry, Event, Journal},
    open_files::OpenFiles,
    published::Published,
    snapshot::SnapshotFile,
    state::{State, StateFile},
    table::{Readable, Table},
};
use crate::{
    error::Error,
    hash::KeyHash,
    io::{Io, is_shortage},
    location::{JournalEnd, Location, SegmentId, Seq},
    options::{Durability, OnMismatch, ReadMode},
    sync::{AtomicU8, AtomicU64, Mutex, Ordering::Relaxed, RwLock},
    time::Clock,
};

/// What the log needs to know; its limits were checked by the builder.
#[derive(Clone, Debug)]
pub(crate) struct LogOptions {
    pub(crate) dir: PathBuf,
    pub(crate) capacity_bytes: u64,
    pub(crate) segment_bytes: u32,
    pub(crate) batch_bytes: usize,
    pub(crate) durability: Durability,
    pub(crate) read_mode: ReadMode,
    pub(crate) key_codec: u32,
    pub(crate) value_codec: u32,
    pub(crate) schema_version: u32,
    pub(crate) on_mismatch: OnMismatch,
    /// Nothing is written, whatever the durability: there is nothing to be recorded where nothing changes.
    pub(crate) read_only: bool,
}

/// An open log and where its index is to come from.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) log: Arc<Log>,
    pub(crate) appender: Appender,
    pub(crate) source: Source,
    pub(crate) report: RecoveryReport,
}

/// Where the index of what is on disk comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Nothing is on disk.
    Cold,
    /// A clean close left it ready. A damaged stripe is asked of [`Log::recover`].
    Snapshot(SnapshotReader),
    /// It is to be asked of [`Log::recover`].
    Entries,
}

/// The next start will be what STATE says.
const FINE: u8 = 0;
/// The next start will be cold: nothing on disk needs to be invalidated any more.
const COLD_NEXT_START: u8 = 1;
/// An invalidation is recorded nowhere, and the next start may be warm.
const TAINTED: u8 = 2;

/// The segments, the journal and STATE of one directory, locked for as long as this lives.
///
/// # Invariants
///
/// 1. `seq` is above every seq on disk (R1).
/// 2. Nothing is written before STATE says, durably, that this run has begun (R7).
/// 3. Whatever makes a record dead returns `Ok` only once no later start can see it: it is in the
///    journal, or the next start is cold (`latch`), or the mode promises no warm start after a crash.
///    What a start after a power loss could still see is acknowledged only after `commit`.
#[derive(Debug)]
pub(crate) struct Log {
    io: Arc<dyn Io>,
    options: LogOptions,
    directory: Arc<Directory>,
    files: Arc<OpenFiles>,
    clock: Arc<Clock>,
    epoch: u64,
    hash_seed: u64,
    /// The next seq. Relaxed: a key's events are ordered by its stripe's lock (R1), and journal
    /// and appender read their own bounds under their own order.
    seq: AtomicU64,
    /// Guards the list of segments; no I/O under it.
    table: RwLock<Table>,
    /// The segments of `table`, for look-ups. Replaced under its lock.
    readable: Published<Readable>,
    /// Guards the journal's files and its end: an append, the creation, sync and deletion of files
    /// and recovery's look at them happen under it. `table` or `state` may be locked below it.
    journal: Mutex<Journal>,
    /// Guards STATE's slots. Their writes and syncs, or the file's end (`poison`), happen under it, and
    /// nothing else is locked.
    state: Mutex<StateFile>,
    /// FINE, COLD_NEXT_START or TAINTED; changed under `state`. Relaxed: it publishes nothing. Who
    /// reads an old value writes to the journal or to STATE once more than needed, and is told by
    /// that write what becomes of his own event.
    latch: AtomicU8,
    past: Past,
    /// Who waits for the journal to be synced.
    commits: GroupCommit,
    /// Id of the snapshot written by this run, and the seq at which it was begun. Guards these two;
    /// nothing else happens under it.
    snapshot: Mutex<Option<(u64, Seq)>>,
    /// Warnings that came up under a lock. Held for a push or a take.
    untold: Mutex<Vec<String>>,
    counters: LogCounters,
}

/// What recovery may look at, as it stood at `open`.
#[derive(Debug)]
struct Past {
    /// Segments below this id are from earlier runs.
    first_own: u32,
    /// Records with an expiry in segments below this id are dead.
    expiring_dead_below: u32,
    /// STATE as it was found; `None` if footers and journal cannot say what is alive.
    state: Option<State>,
    /// The journal's sum, from when it is asked for until all is loaded; within that, `None` if the journal is
    /// in doubt. Held while it is made; the journal and STATE may be locked below it.
    invalidations: Mutex<Option<Option<Arc<Invalidations>>>>,
    /// The seq of the last barrier of this run, 0 if none. Relaxed: a stripe that asks for its
    /// entries after a clear has been told of the clear by its own lock.
    barrier: AtomicU64,
}

impl Log {
    pub(crate) fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    pub(crate) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    pub(crate) fn counters(&self) -> &LogCounters {
        &self.counters
    }

    pub(crate) fn batch_bytes(&self) -> usize {
        self.options.batch_bytes
    }

    pub(crate) fn segment_bytes(&self) -> u32 {
        self.options.segment_bytes
    }

    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.options.capacity_bytes
    }

    /// Has the record at `at` brought near, if it is in a mapped segment.
    #[inline]
    pub(crate) fn prefetch(&self, at: Location, guard: &Guard) {
        if let Some(segment) = self.readable.get(guard).get(at.segment()) {
            segment.prefetch(at.offset());
        }
    }

    /// The value at `at`, if the record there is `key`'s.
    pub(crate) fn read(&self, at: Location, key: &[u8], guard: &Guard) -> Read {
        match self.readable.get(guard).get(at.segment()) {
            Some(segment) => self.read_in(segment, at, key, guard),
            None => Read::Gone,
        }
    }

    fn read_in(&self, segment: &Segment, at: Location, key: &[u8], guard: &Guard) -> Read {
        let read = match segment.read(at, key) {
            Read::Failed(error) if is_shortage(&error) => Read::NotNow(error),
            read => read,
        };
        match &read {
            Read::Hit(value) if self.clock_went_back(at, value.expiry) => return Read::Gone,
            // Its file was unlinked before it could be opened.
            Read::Failed(_) if self.readable.get(guard).get(at.segment()).is_none() => return Read::Gone,
            Read::Damaged => {
                segment.damaged.fetch_add(1, Relaxed);
            }
            _ => {}
        }
        read
    }

    /// The whole record at `at`, to be appended again.
    pub(crate) fn read_record(&self, at: Location) -> Option<Record> {
        let segment = self.table.read().get(at.segment()).cloned();
        let record = segment?.record(at);
        record.filter(|record| !self.clock_went_back(at, record.expiry))
    }

    /// Draws the next place in the order of events. The caller holds the stripe lock of the key
    /// that the event is about (R1).
    pub(crate) fn next_seq(&self) -> Seq {
        Seq(self.seq.fetch_add(1, Relaxed))
    }

    /// Makes every record of this hash dead, whatever happens to the process from here on, and to the
    /// machine from when it is committed (within what the durability mode promises). The caller
    /// holds the key's stripe lock (R1, R3), and whoever relies on it waits for `commit` without.
    pub(crate) fn invalidate(&self, hash: KeyHash) -> Result<JournalEnd, Error> {
        self.journal_event(Event::Invalidate(hash)).map(|(_, end)| end)
    }

    /// Makes every record with a lower seq than the one returned dead, durably.
    pub(crate) fn raise_barrier(&self) -> Result<Seq, Error> {
        let seq = self.journal_durably(Event::Barrier)?;
        self.past.barrier.fetch_max(seq.0, Relaxed);
        Ok(seq)
    }

    /// Makes every record of the segment dead, durably. Comes before its entries leave the index (R6).
    pub(crate) fn mark_dead(&self, segment: SegmentId) -> Result<(), Error> {
        self.journal_durably(Event::SegmentDead(segment)).map(drop)
    }

    /// `Err` while an invalidation is recorded nowhere; tries each time to make up for it.
    #[inline]
    pub(crate) fn ensure_durable(&self) -> Result<(), Error> {
        if self.latch.load(Relaxed) == TAINTED { self.poison() } else { Ok(()) }
    }

    /// Begins a snapshot of an index of `1 << stripe_bits` stripes.
    pub(crate) fn begin_snapshot(&self, stripe_bits: u32) -> Result<SnapshotWriter<'_>, Error> {
        let begun = self.peek_seq();
        let file = SnapshotFile::create(&self.directory, self.epoch, stripe_bits)
            .map_err(|error| self.snapshot_failed(error))?;
        Ok(SnapshotWriter { log: self, file, begun })
    }

    /// Lets the next start believe this directory, and another cache open it. Nothing may be
    /// invalidated after this; the appender has sealed, and a snapshot, if any, is finished.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let closed = self.close_clean();
        self.directory.release();
        closed
    }

    /// Lets another cache open this directory, as after a kill. Nothing may be written after this.
    pub(crate) fn release(&self) {
        self.directory.release();
    }

    fn close_clean(&self) -> Result<(), Error> {
        self.ensure_durable()?;
        if self.latch.load(Relaxed) == COLD_NEXT_START {
            return Ok(());
        }
        self.unsynced_segments().iter().try_for_each(|segment| self.sync_segment(segment))?;
        let synced = self.journal.lock().sync();
        let dir = &self.directory.path;
        self.believe(synced.map_err(|error| failed("syncing the journal in", dir, error)))?;
        self.sync_names()?;
        // An event since the snapshot was begun is not in it.
        let fresh = self.snapshot.lock().filter(|&(_, begun)| begun == self.peek_seq());
        let next_segment = self.table.read().next_id;
        let mut file = self.state.lock();
        let path = self.directory.state();
        let state = State {
            clean: true,
            anchor: self.clock.anchor(),
            next_seq: self.peek_seq(),
            next_segment,
            snapshot_id: fresh.map_or(0, |(id, _)| id),
            ..file.state
        };
        let synced = file.write(state).and_then(|()| file.sync());
        drop(file);
        self.believe(synced.map_err(|error| failed("writing", &path, error)))?;
        self.counters.state_bytes.fetch_add(state::SLOT_BYTES as u64, Relaxed);
        Ok(())
    }

    /// The next seq to be drawn.
    fn peek_seq(&self) -> Seq {
        Seq(self.seq.load(Relaxed))
    }

    /// Whether the record's deadline was set by a clock that has since gone back.
    fn clock_went_back(&self, at: Location, expiry: u32) -> bool {
        expiry != 0 && at.segment().get() < self.past.expiring_dead_below
    }

    /// Journals the event in such a way that it outlives the machine where that is promised. No lock is held that a
    /// change waits for.
    fn journal_durably(&self, event: Event) -> Result<Seq, Error> {
        let (seq, end) = self.journal_event(event)?;
        self.commit(end)?;
        Ok(seq)
    }

    /// Draws a seq and writes the event to the journal, or makes the next start cold. With the seq,
    /// what to wait for before it is acknowledged.
    fn journal_event(&self, event: Event) -> Result<(Seq, JournalEnd), Error> {
        self.ensure_durable()?;
        let seq = self.next_seq();
        if self.options.durability == Durability::Clean || self.latch.load(Relaxed) == COLD_NEXT_START {
            return Ok((seq, JournalEnd::START));
        }
        let (appended, end) = {
            let mut journal = self.journal.lock();
            // Under the lock, so above every seq of the entries before.
            let next_seq = self.peek_seq();
            (journal.append(Entry { event, seq }, next_seq, &self.state), journal.end())
        };
        match appended {
            Ok(written) => {
                self.counters.journal_bytes.fetch_add(written as u64, Relaxed);
                self.counters.journal_entries.fetch_add(1, Relaxed);
            }
            Err(error) => {
                self.give_up_journal(&error)?;
                return Ok((seq, JournalEnd::START));
            }
        }
        Ok((seq, if self.outlives_power() { end } else { JournalEnd::START }))
    }

    /// Makes the next start cold.
    #[cold]
    fn poison(&self) -> Result<(), Error> {
        let mut state = self.state.lock();
        if self.options.read_only || self.latch.load(Relaxed) == COLD_NEXT_START {
            return Ok(());
        }
        let (latch, result) = match state.poison() {
            Ok(()) => (COLD_NEXT_START, Ok(())),
            Err(source) => (TAINTED, Err(Error::NotDurable { dir: self.directory.path.clone(), source })),
        };
        self.latch.store(latch, Relaxed);
        result
    }

    /// Deletes journal files that no segment needs any more (R5).
    fn trim_journal(&self) {
        if self.latch.load(Relaxed) != FINE {
            return;
        }
        let min_base_seq = self.table.read().min_base_seq().unwrap_or_else(|| self.peek_seq());
        if !self.journal.lock().is_trim_due(min_base_seq) {
            return;
        }
        // A segment whose unlink is lost with the power comes back, and needs what says that it is
        // dead. What is unlinked from here on was in the table just now.
        if self.outlives_power() && self.sync_names().is_err() {
            return;
        }
        let trimmed = self.journal.lock().trim(min_base_seq, &self.state);
        if let Err(error) = trimmed {
            // Files too many are a matter of space, not of truth.
            tracing::warn!(%error, "a journal file could not be deleted");
        }
    }

    fn snapshot_failed(&self, error: io::Error) -> Error {
        failed("writing", &self.directory.snapshot(), error)
    }
}

/// A snapshot on its way to disk, stripe by stripe.
#[derive(Debug)]
pub(crate) struct SnapshotWriter<'a> {
    log: &'a Log,
    file: SnapshotFile,
    begun: Seq,
}

impl SnapshotWriter<'_> {
    /// Appends the next stripe's slots, in the [order](KeyHash::order) of their hashes.
    pub(crate) fn write_stripe(&mut self, slots: &[(KeyHash, u64)]) -> Result<(), Error> {
        let written = self.file.write_stripe(slots).map_err(|error| self.log.snapshot_failed(error))?;
        self.log.counters.snapshot_bytes.fetch_add(written as u64, Relaxed);
        Ok(())
    }

    /// Puts the snapshot in place; it counts from `Log::close` on, if nothing happens in between.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let (id, written) = self.file.finish().map_err(|error| self.log.snapshot_failed(error))?;
        self.log.counters.snapshot_bytes.fetch_add(written as u64, Relaxed);
        *self.log.snapshot.lock() = Some((id, self.begun));
        Ok(())
    }
}

#[cfg(test)]
mod example;
#[cfg(test)]
mod tests;
