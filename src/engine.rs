//! Opening, flushing and closing: the tiers and the thread that maintains them.

use std::{mem, sync::Arc};

use crossbeam_epoch as epoch;

use crate::{
    bell::{Bell, Request},
    budget::Budget,
    codec::{Key, Value},
    error::Error,
    io::Io,
    limits::{DiskLimits, Limits},
    log::{Log, LogOptions, Opened, RecoveryReport, Source},
    look_ups::LookUps,
    maintenance::Maintenance,
    options::{Options, WriteBehind},
    origin::Origin,
    shard::{DiskState, Stripe, admission::Gate, arena::Arena, expiry::Expiry},
    stats::Recovery,
    sync::{
        Instant, Mutex,
        thread::{self, JoinHandle},
    },
    tiers::Tiers,
    time::Clock,
};

/// The tiers and their maintenance thread, closed together.
pub(crate) struct Engine<K: Key, V: Value> {
    tiers: Arc<Tiers<K, V>>,
    recovery: Recovery,
    /// The maintenance thread, until the close; there is none without a disk that is written to. Guards the close:
    /// a second one waits for the first.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<K: Key, V: Value> Engine<K, V> {
    pub(crate) fn open(io: Arc<dyn Io>, options: Options<K, V>) -> Result<Engine<K, V>, Error> {
        let mut limits = Limits::of(&options)?;
        match limits.disk.take() {
            None => Engine::open_in_memory(io, &options, &limits),
            Some(disk) if options.read_only => Engine::open_read_only(io, &options, &limits, disk),
            Some(disk) => Engine::open_on_disk(io, &options, &limits, disk),
        }
    }

    fn open_in_memory(io: Arc<dyn Io>, options: &Options<K, V>, limits: &Limits) -> Result<Self, Error> {
        let clock = Arc::new(Clock::new(io));
        let tiers = build_tiers(options, limits, clock, random_seed()?, None);
        tiers.stripes.iter().for_each(Stripe::set_loaded);
        Ok(Engine { tiers: Arc::new(tiers), recovery: Recovery::default(), thread: Mutex::new(None) })
    }

    fn open_on_disk(
        io: Arc<dyn Io>,
        options: &Options<K, V>,
        limits: &Limits,
        disk: DiskLimits,
    ) -> Result<Self, Error> {
        let started = Instant::now();
        let Opened { log, appender, source, report } = Log::open(io, log_options(options, disk))?;
        let (tiers, recovery) = build_tiers_over(options, limits, Arc::clone(&log), source, report, started)?;
        // What STATE was told may be minutes ago, and from now on somebody may see what has expired since.
        log.keep_time();
        let tiers = Arc::new(tiers);
        let maintenance = Maintenance::new(Arc::clone(&tiers), appender, limits);
        let thread = thread::Builder::new()
            .name("embercache".to_owned())
            .spawn(|| maintenance.run())
            .map_err(|source| Error::Io {
                action: "starting the thread for",
                path: options.dir.clone().unwrap_or_default(),
                source,
            })?;
        Ok(Engine { tiers, recovery, thread: Mutex::new(Some(thread)) })
    }

    /// Without a thread: there is nothing to be written, and what a stripe had is read when it is touched.
    fn open_read_only(
        io: Arc<dyn Io>,
        options: &Options<K, V>,
        limits: &Limits,
        disk: DiskLimits,
    ) -> Result<Self, Error> {
        let started = Instant::now();
        let (tiers, recovery) = match Log::open_read_only(Arc::clone(&io), log_options(options, disk))? {
            Ok(Opened { log, source, report, .. }) => {
                build_tiers_over(options, limits, log, source, report, started)?
            }
            Err(start) => {
                let mut tiers = build_tiers(options, limits, Arc::new(Clock::new(io)), random_seed()?, None);
                let report = RecoveryReport { start, segments: 0, quarantined: 0 };
                let found = tiers.take_over(Source::Cold)?;
                (tiers, Recovery::of(report, found, started.elapsed()))
            }
        };
        Ok(Engine { tiers: Arc::new(tiers), recovery, thread: Mutex::new(None) })
    }

    pub(crate) fn tiers(&self) -> Arc<Tiers<K, V>> {
        Arc::clone(&self.tiers)
    }

    /// What was found at open, as it was known then.
    pub(crate) fn recovery(&self) -> Recovery {
        self.recovery
    }

    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.tiers.check_origin()?;
        if self.tiers.takes_writes() { self.tiers.bell.call(Request::Flush) } else { Ok(()) }
    }

    pub(crate) fn close(&self) -> Result<(), Error> {
        self.tiers.check_origin()?;
        if !self.tiers.takes_writes() {
            self.tiers.close();
            return Ok(());
        }
        if self.tiers.bell.is_attendant() {
            // User code that the maintenance thread runs; or the last handle lay in a value that it
            // has just dropped. It closes when it is done with what it is doing; nobody waits for it,
            // least of all by the lock below.
            return if_not_ended(self.tiers.bell.post(Request::Close).map(drop));
        }
        let mut closing = self.thread.lock();
        let Some(thread) = closing.take() else { return Ok(()) };
        let closed = if_not_ended(self.tiers.bell.call(Request::Close));
        let ended = thread.join();
        // What is dropped below may close as well.
        drop(closing);
        if ended.is_err() {
            tracing::error!("the maintenance thread panicked");
            // It cannot do its part of a close any more. STATE goes on saying that there was none.
            self.tiers.close();
            return Err(Error::Closed);
        }
        closed
    }
}

/// To close what has closed already is fine.
fn if_not_ended(closed: Result<(), Error>) -> Result<(), Error> {
    match closed {
        Err(Error::Closed) => Ok(()),
        closed => closed,
    }
}

impl<K: Key, V: Value> Drop for Engine<K, V> {
    fn drop(&mut self) {
        if self.tiers.check_origin().is_err() {
            // A fork has neither the thread nor the right; nor may it drop what the parent goes on using, the
            // lock above all, which is that of both. And what names the thread may name one of the fork's own, which
            // a drop would let go of.
            mem::forget(Arc::clone(&self.tiers));
            mem::forget(self.thread.get_mut().take());
            return;
        }
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the cache was not closed cleanly");
        }
        // What was retired is dropped now rather than at somebody's next look-up.
        epoch::pin().flush();
    }
}

fn log_options<K: Key, V: Value>(options: &Options<K, V>, disk: DiskLimits) -> LogOptions {
    LogOptions {
        dir: disk.dir,
        capacity_bytes: disk.capacity_bytes,
        segment_bytes: disk.segment_bytes,
        batch_bytes: disk.batch_bytes,
        durability: options.durability,
        read_mode: options.read_mode,
        key_codec: K::ID.0,
        value_codec: V::ID.0,
        schema_version: options.schema_version,
        on_mismatch: options.on_mismatch,
        read_only: false,
    }
}

/// The tiers over a log that was opened, with what it holds, and what that is.
fn build_tiers_over<K: Key, V: Value>(
    options: &Options<K, V>,
    limits: &Limits,
    log: Arc<Log>,
    source: Source,
    report: RecoveryReport,
    started: Instant,
) -> Result<(Tiers<K, V>, Recovery), Error> {
    let (clock, seed) = (Arc::clone(log.clock()), log.hash_seed());
    let mut tiers = build_tiers(options, limits, clock, seed, Some(log));
    let found = tiers.take_over(source)?;
    Ok((tiers, Recovery::of(report, found, started.elapsed())))
}

fn build_tiers<K: Key, V: Value>(
    options: &Options<K, V>,
    limits: &Limits,
    clock: Arc<Clock>,
    hash_seed: u64,
    log: Option<Arc<Log>>,
) -> Tiers<K, V> {
    let budget = Arc::new(Budget::new(limits.plan));
    // A reader could tell nobody what it has seen idle out.
    let time_to_idle = options.time_to_idle.filter(|_| !options.read_only);
    let expiry = Arc::new(Expiry::new(clock, options.time_to_live, time_to_idle));
    let arena = Arc::new(Arena::default());
    let disk = match &log {
        None => DiskState::Absent,
        Some(_) if options.read_only => DiskState::ReadOnly,
        Some(_) => DiskState::Filling,
    };
    let new_stripe = |number: u64| {
        let gate = Gate::new(options.admission, hash_seed.wrapping_add(number));
        // Without a disk nobody takes a copy out of the queue.
        let writes_through = disk == DiskState::Filling && limits.write_behind == WriteBehind::Through;
        let stripe = Stripe::new(&arena, Arc::clone(&budget), Arc::clone(&expiry), gate, writes_through);
        stripe.lock(&epoch::pin()).set_disk(disk);
        stripe
    };
    Tiers {
        stripes: (0..1 << limits.plan.stripe_bits).map(new_stripe).collect(),
        stripe_bits: limits.plan.stripe_bits,
        hash_seed,
        origin: log.is_some().then(Origin::here),
        log,
        is_read_only: options.read_only && options.dir.is_some(),
        bell: Bell::default(),
        look_ups: LookUps::new(),
        write_behind: limits.write_behind,
        weigher: options.weigher.clone(),
        disk_filter: options.disk_filter.clone(),
        counts_entries: !limits.plan.in_bytes,
        snapshot: Mutex::new(None),
        loading: Mutex::new(()),
        budget,
        expiry,
    }
}

impl<K: Key, V: Value> Tiers<K, V> {
    /// Takes over what was found on disk; how many entries that is known to be.
    fn take_over(&mut self, source: Source) -> Result<u64, Error> {
        match source {
            Source::Snapshot(reader) => {
                let found = reader.len();
                self.snapshot = Mutex::new(Some(Arc::new(reader)));
                return Ok(found);
            }
            Source::Entries => {
                if let Some(log) = &self.log {
                    self.recover_all(log)?;
                }
            }
            Source::Cold => {}
        }
        self.stripes.iter().for_each(Stripe::set_loaded);
        let mut found = 0;
        self.for_each_shard(|shard| found += shard.len());
        Ok(found)
    }
}

fn random_seed() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error::Io {
        action: "drawing a random seed from",
        path: "the system".into(),
        source: std::io::Error::other(error),
    })
}
