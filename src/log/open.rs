//! Opening a directory: what of it may be believed.

mod inherited;

use std::{collections::VecDeque, io, sync::Arc};

use self::inherited::Inherited;
use super::{
    Appender, FINE, Log, LogCounters, LogOptions, Opened, Past, Source,
    commit::GroupCommit,
    directory::{Directory, Name, failed, was_tried},
    durable::ANCHOR_AGE_MAX_MS,
    invalidations::Invalidations,
    journal::{self, Journal},
    open_files::OpenFiles,
    published::Published,
    snapshot::SnapshotReader,
    state::{State, StateFile},
    table::Table,
};
use crate::{
    error::Error,
    io::{Io, OpenMode, is_shortage, open_files_max},
    location::Seq,
    options::{Durability, OnMismatch},
    sync::{AtomicU8, AtomicU64, Mutex, Ordering::Relaxed, RwLock},
    time::Clock,
};

/// What `open` found, for the log and the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecoveryReport {
    pub(crate) start: Start,
    pub(crate) segments: usize,
    pub(crate) quarantined: u64,
}

/// How the cache starts, and if cold, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The snapshot of a clean close.
    Snapshot,
    /// The segments' footers and the journal.
    Entries,
    /// The directory is new, or STATE is missing or damaged, or was made so on purpose.
    NoState,
    /// Other codecs or another schema version.
    Mismatch,
    /// Not closed in order, and the machine has rebooted since under a mode that does not outlive that,
    /// or the directory is a copy, or the mode keeps nothing.
    Unclean,
    /// The last run kept no journal, and this one needs one.
    ModeChanged,
    /// A journal file is missing or damaged.
    Journal,
}

/// What a warm start goes on from.
struct Warm {
    state: State,
    snapshot: Option<SnapshotReader>,
    invalidations: Option<Invalidations>,
    journals: VecDeque<(u32, Seq)>,
}

impl Log {
    /// Opens or creates the log in `options.dir` and locks it. On an error nothing was touched
    /// that another cache, or a later attempt, would miss; but a run without a journal that got as far as STATE
    /// has ended the one that closed before it.
    pub(crate) fn open(io: Arc<dyn Io>, options: LogOptions) -> Result<Opened, Error> {
        let directory = Directory::enter(Arc::clone(&io), options.dir.clone())?;
        let (found, generation) = StateFile::load(&directory)?;
        let opening = Opening::new(io, options, directory)?;
        match opening.judge(found)? {
            Ok(warm) => opening.warm(warm),
            Err(reason) => opening.cold(generation, reason),
        }
    }

    /// Opens the log for look-ups alone, beside others that do the same. Nothing is written, now or later, so
    /// the directory stays what it is for the next that opens it. Where it holds nothing to be believed,
    /// there is no log but a reason.
    pub(crate) fn open_read_only(
        io: Arc<dyn Io>,
        options: LogOptions,
    ) -> Result<Result<Opened, Start>, Error> {
        let directory = Directory::visit(Arc::clone(&io), options.dir.clone())?;
        let (found, _) = StateFile::load(&directory)?;
        // Without changes there is nothing to be journaled or synced.
        let options = LogOptions { read_only: true, durability: Durability::Clean, ..options };
        let opening = Opening::new(io, options, directory)?;
        match opening.judge(found)? {
            Ok(warm) => opening.warm(warm).map(Ok),
            Err(reason) => Ok(Err(reason)),
        }
    }
}

/// The steps of [`Log::open`] and what they have in common.
struct Opening {
    io: Arc<dyn Io>,
    options: LogOptions,
    directory: Arc<Directory>,
    files: Arc<OpenFiles>,
    /// Asked for once, so that all that depends on it does on the same answer.
    boot_id: Option<[u8; 16]>,
}

impl Opening {
    fn new(io: Arc<dyn Io>, options: LogOptions, directory: Directory) -> Result<Opening, Error> {
        let directory = Arc::new(directory);
        let boot_id = io.boot_id();
        let boot_id = boot_id.map_err(|error| failed("asking for the boot of", &directory.path, error))?;
        let files = Arc::new(OpenFiles::new(Arc::clone(&directory), options.read_mode, open_files_max()));
        Ok(Opening { io, options, directory, files, boot_id })
    }

    /// Decides what may be believed. Reads only, but where the disk has lost what was written.
    fn judge(&self, found: Option<State>) -> Result<Result<Warm, Start>, Error> {
        let believable = |state: &State| !state.cold && state.next_seq <= Seq::MAX;
        let Some(state) = found.filter(believable) else {
            return Ok(Err(Start::NoState));
        };
        if let Some((what, found, expected)) = self.mismatch(&state) {
            let dir = self.directory.path.clone();
            return match self.options.on_mismatch {
                OnMismatch::Refuse => Err(Error::Mismatch { dir, what, found, expected }),
                OnMismatch::ColdStart => Ok(Err(Start::Mismatch)),
            };
        }
        if state.durability == Durability::Clean && self.options.durability != Durability::Clean {
            return Ok(Err(Start::ModeChanged));
        }
        let journaled = state.durability != Durability::Clean;
        let survived = state.clean || self.has_survived(&state);
        let unreadable = |error| failed("opening files in", &self.directory.path, error);
        let Some(journals) = journal::read_headers(&self.directory, &state).map_err(unreadable)? else {
            return Ok(Err(Start::Journal));
        };
        let snapshot = if state.clean {
            SnapshotReader::open(&self.directory, state.epoch, state.snapshot_id).map_err(unreadable)?
        } else {
            None
        };
        if snapshot.is_some() {
            return Ok(Ok(Warm { state, snapshot, invalidations: None, journals }));
        }
        if !survived || !journaled {
            return Ok(Err(Start::Unclean));
        }
        if !self.options.read_only && !self.is_kept(&state).map_err(unreadable)? {
            return Ok(Err(Start::Journal));
        }
        let Some(invalidations) = journal::read(&self.directory, &state).map_err(unreadable)? else {
            return Ok(Err(Start::Journal));
        };
        Ok(Ok(Warm { state, snapshot, invalidations: Some(invalidations), journals }))
    }

    /// Whether all that was written to STATE and the journal is there still, and to be there after a loss of power. A
    /// page that the kernel could not write back it may drop, and then reads what the disk had before; it tells the
    /// first who asks for a sync, and a run that was killed did not ask.
    fn is_kept(&self, found: &State) -> io::Result<bool> {
        let mut numbers = found.journals.0..found.journals.1;
        let synced = StateFile::found(&self.directory, *found, OpenMode::Read)?.sync();
        match synced.and_then(|()| numbers.try_for_each(|number| journal::sync(&self.directory, number))) {
            Err(error) if is_shortage(&error) => Err(error),
            Err(_) => {
                self.poison(found);
                Ok(false)
            }
            Ok(()) => Ok(true),
        }
    }

    /// Makes the next start a cold one: what could not be synced here, it would be told is fine. If that fails, the disk
    /// takes nothing, and neither this start nor a change in the next run gets far.
    fn poison(&self, newest: &State) {
        let _ =
            StateFile::found(&self.directory, *newest, OpenMode::Write).and_then(|mut file| file.poison());
    }

    fn mismatch(&self, state: &State) -> Option<(&'static str, u32, u32)> {
        let options = &self.options;
        [
            ("key codec", state.key_codec, options.key_codec),
            ("value codec", state.value_codec, options.value_codec),
            ("schema version", state.schema_version, options.schema_version),
        ]
        .into_iter()
        .find(|(_, found, expected)| found != expected)
    }

    /// Whether what a run that did not close has been told of is all there.
    fn has_survived(&self, state: &State) -> bool {
        if self.is_this_boot(state) {
            return self.is_in_place(state);
        }
        // The device may have another number at each boot.
        state.durability == Durability::PowerLoss && state.identity.1 == self.directory.identity.1
    }

    /// The kernel that took the last run's writes still runs.
    fn is_this_boot(&self, state: &State) -> bool {
        self.boot_id.is_some_and(|id| id == state.boot_id)
    }

    /// The directory is not a copy, which may be of any moment.
    fn is_in_place(&self, state: &State) -> bool {
        state.identity == self.directory.identity
    }

    /// Forgets everything. The new epoch is durable before any old file is touched and before
    /// anything is acknowledged (R7). `generation` is the highest in STATE, believed or not.
    fn cold(self, generation: u64, reason: Start) -> Result<Opened, Error> {
        let names = self.directory.names()?;
        let clock = Clock::new(Arc::clone(&self.io));
        let next_segment = next_segment(&names, 0);
        // One at the end of the numbers is nobody's; it goes with the others.
        let next_journal = names.iter().filter_map(journal_number).max().map_or(0, |n| n.wrapping_add(1));
        let random = || {
            let path = &self.directory.path;
            getrandom::u64().map_err(|error| failed("drawing randomness for", path, io::Error::other(error)))
        };
        let state = State {
            generation,
            epoch: random()?,
            hash_seed: random()?,
            next_seq: Seq(1),
            next_segment,
            journals: (next_journal, next_journal),
            expiring_dead_below: 0,
            ..self.begun(&clock)
        };
        let begun = StateFile::begin(&self.directory, state)?;
        // STATE's name may be new, or of a first open that was killed before it was durable.
        self.believe(&begun.state, self.directory.sync())?;
        for name in names.iter().filter(|name| !matches!(name, Name::Quarantined(_))) {
            // A file that stays has an epoch that nobody believes any more.
            let _ = self.io.unlink(&self.directory.path_of(*name));
        }
        let past = Past {
            first_own: 0,
            expiring_dead_below: 0,
            state: None,
            invalidations: Mutex::new(None),
            barrier: AtomicU64::new(0),
        };
        let inherited = Inherited::default();
        let journal = self.journal(&begun.state, VecDeque::new());
        let log = self.log(clock, begun, past, journal, inherited, next_segment, Seq(1));
        Ok(opened(log, Source::Cold, reason))
    }

    /// Goes on from what is there.
    fn warm(self, warm: Warm) -> Result<Opened, Error> {
        let Warm { state: found, snapshot, invalidations, journals } = warm;
        let names = self.directory.names()?;
        let named = invalidations.as_ref().and_then(|invalidations| invalidations.max_segment);
        let known = found.next_segment.max(named.map_or(0, |id| id.get() + 1));
        let next_segment = next_segment(&names, known);
        let (clock, trusted) = self.clock(&found);
        let expiring_dead_below = if trusted { found.expiring_dead_below } else { next_segment };
        let state = State {
            generation: found.generation,
            epoch: found.epoch,
            hash_seed: found.hash_seed,
            next_seq: found.next_seq,
            next_segment,
            journals: found.journals,
            expiring_dead_below,
            ..self.begun(&clock)
        };
        if self.outlives_power() && !found.clean {
            self.believe(&found, self.sync_past(&names, &found))?;
        }
        let begun = if self.options.read_only {
            let path = self.directory.state();
            let found = StateFile::found(&self.directory, state, OpenMode::Read);
            found.map_err(|error| failed("opening", &path, error))?
        } else {
            StateFile::begin(&self.directory, state)?
        };
        let inherited = self.inherit_segments(&names, &found, invalidations.as_ref())?;
        if !self.options.read_only {
            self.delete_leftovers(&names, &found);
        }
        if self.outlives_power() {
            // A segment that was put aside must not come back.
            self.believe(&begun.state, self.directory.sync())?;
        }

        let in_journal = invalidations.as_ref().and_then(|invalidations| invalidations.max_seq);
        let max_seq = inherited.max_seq.max(in_journal);
        let next_seq = found.next_seq.max(max_seq.map_or(Seq(0), |seq| Seq(seq.0 + 1)));
        let journaled = found.durability != Durability::Clean;
        let past = Past {
            first_own: next_segment,
            expiring_dead_below,
            state: journaled.then_some(found),
            invalidations: Mutex::new(invalidations.map(|invalidations| Some(Arc::new(invalidations)))),
            barrier: AtomicU64::new(0),
        };
        let journal = self.journal(&begun.state, journals);
        let log = self.log(clock, begun, past, journal, inherited, next_segment, next_seq);
        Ok(match snapshot {
            Some(reader) => opened(log, Source::Snapshot(reader), Start::Snapshot),
            None => opened(log, Source::Entries, Start::Entries),
        })
    }

    /// The clock goes on from the last run's; and whether deadlines by that one hold.
    fn clock(&self, found: &State) -> (Clock, bool) {
        let io = Arc::clone(&self.io);
        if self.is_this_boot(found) {
            return (Clock::resumed(io, found.anchor), true);
        }
        let slack_ms = if found.clean { 0 } else { ANCHOR_AGE_MAX_MS };
        Clock::not_before(io, found.anchor.cache_ms, slack_ms)
    }

    fn outlives_power(&self) -> bool {
        self.options.durability == Durability::PowerLoss
    }

    /// Makes the segments and names that this start believes outlive the machine, before STATE says that they do: of
    /// a run that was killed the kernel may have them alone.
    fn sync_past(&self, names: &[Name], found: &State) -> Result<(), Error> {
        if found.durability != Durability::PowerLoss {
            for name in names.iter().filter(|name| matches!(name, Name::Segment(_))) {
                let path = self.directory.path_of(*name);
                let synced = self.io.open(&path, OpenMode::Read).and_then(|file| file.sync());
                synced.map_err(|error| failed("syncing", &path, error))?;
            }
        }
        self.directory.sync()
    }

    /// As [`Log::believe`], of a log that is not open yet.
    fn believe(&self, newest: &State, synced: Result<(), Error>) -> Result<(), Error> {
        synced.inspect_err(|error| {
            if was_tried(error) {
                self.poison(newest);
            }
        })
    }

    /// What STATE says of a run that has just begun, the rest being the caller's.
    fn begun(&self, clock: &Clock) -> State {
        State {
            generation: 0,
            epoch: 0,
            hash_seed: 0,
            boot_id: self.boot_id.unwrap_or_default(),
            identity: self.directory.identity,
            clean: false,
            cold: false,
            durability: self.options.durability,
            key_codec: self.options.key_codec,
            value_codec: self.options.value_codec,
            schema_version: self.options.schema_version,
            anchor: clock.anchor(),
            next_seq: Seq(0),
            next_segment: 0,
            journals: (0, 0),
            expiring_dead_below: 0,
            snapshot_id: 0,
        }
    }

    /// The journal behind these files of earlier runs, which a close has synced, or `is_kept`.
    fn journal(&self, begun: &State, files: VecDeque<(u32, Seq)>) -> Journal {
        let (directory, end) = (Arc::clone(&self.directory), begun.journals.1);
        Journal::new(directory, begun.epoch, self.outlives_power(), files, end)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one struct, put together here only")]
    fn log(
        self,
        clock: Clock,
        begun: StateFile,
        past: Past,
        journal: Journal,
        inherited: Inherited,
        next_segment: u32,
        next_seq: Seq,
    ) -> Log {
        let State { epoch, hash_seed, .. } = begun.state;
        let counters = LogCounters::default();
        counters.segments_quarantined.store(inherited.quarantined, Relaxed);
        let table = Table::new(inherited.segments, inherited.lingering, next_segment);
        let log = Log {
            io: self.io,
            options: self.options,
            directory: self.directory,
            files: self.files,
            clock: Arc::new(clock),
            epoch,
            hash_seed,
            seq: AtomicU64::new(next_seq.0),
            readable: Published::new(table.readable()),
            table: RwLock::new(table),
            journal: Mutex::new(journal),
            state: Mutex::new(begun),
            latch: AtomicU8::new(FINE),
            past,
            commits: GroupCommit::default(),
            snapshot: Mutex::new(None),
            untold: Mutex::default(),
            counters,
        };
        for event in inherited.events {
            // If it fails, `ensure_durable` stands in every later change's way.
            let _ = log.journal_durably(event);
        }
        log
    }

    /// Deletes our files that no state names.
    fn delete_leftovers(&self, names: &[Name], state: &State) {
        let named = state.journals.0..state.journals.1;
        for name in names {
            let left = match name {
                Name::Journal(number) => !named.contains(number),
                Name::Temporary => true,
                _ => false,
            };
            if left {
                // What cannot be deleted is not believed either.
                let _ = self.io.unlink(&self.directory.path_of(*name));
            }
        }
    }
}

fn next_segment(names: &[Name], known: u32) -> u32 {
    let used = names.iter().filter_map(|name| match name {
        Name::Segment(id) | Name::Quarantined(id) => Some(id.get() + 1),
        _ => None,
    });
    used.max().unwrap_or(0).max(known)
}

fn journal_number(name: &Name) -> Option<u32> {
    if let Name::Journal(number) = name { Some(*number) } else { None }
}

fn opened(log: Log, source: Source, start: Start) -> Opened {
    let report = RecoveryReport {
        start,
        segments: log.segment_count(),
        quarantined: log.counters.segments_quarantined.load(Relaxed),
    };
    let log = Arc::new(log);
    Opened { appender: Appender::new(Arc::clone(&log)), log, source, report }
}
