//! The one background thread: it writes what leaves RAM, copies what stays, reclaims segments, and answers calls.
//!
//! It alone owns the appender, so the log's order is this thread's order, and nothing is appended
//! while it does something else.

mod durable;
mod health;
mod reclaim;
mod spill;

use std::{sync::Arc, time::Duration};

use crossbeam_epoch as epoch;

use self::{health::Health, reclaim::Reclaim, spill::InFlight};
use crate::{
    bell::{Call, Request},
    codec::{Key, Value},
    error::Error,
    limits::Limits,
    log::{Appender, Log},
    options::WriteBehind,
    shard::{
        DiskState,
        entry::{Meta, SlotId},
    },
    sync::Instant,
    tiers::Tiers,
};

/// How long the thread sleeps when nobody rings: what waits in a small batch is written by then.
const PAUSE: Duration = Duration::from_millis(50);
/// After a batch, how long and how often the thread dozes before it sleeps: for less time than inserts take
/// to fill what may wait, and until some milliseconds have brought no other batch.
const DOZE: Duration = Duration::from_micros(300);
const DOZES: u32 = 10;
/// Write-behind's sweeps in one interval. An entry is copied when the third sees it, at half to three
/// quarters of the interval, so that it has its copy by the end.
const SWEEPS: u32 = 4;
/// Entries that a sweep looks at under one lock.
const SWEEP_STEPS: usize = 128;
/// Write-behind's longest pause between two sweeps, so that an interval without end is no overflow.
const COPY_SWEEP_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often expired entries are swept out, if write-behind does not sweep more often.
const EXPIRY_SWEEP: Duration = Duration::from_secs(1);
/// How often a flush goes through RAM. Each pass writes again what the one before has reclaimed, which
/// is less each time, unless the disk is smaller than RAM: then it would go round for ever.
const FLUSH_PASSES_MAX: usize = 3;

/// The maintenance thread's own state. Nothing here is shared.
pub(crate) struct Maintenance<K, V> {
    tiers: Arc<Tiers<K, V>>,
    appender: Appender,
    /// The records of the batch, to be committed when it is written.
    in_flight: Vec<InFlight>,
    /// Scratch for a key's bytes.
    key_bytes: Vec<u8>,
    health: Health,
    reclaim: Option<Reclaim>,
    /// How often to look for a batch before sleeping in earnest.
    dozes_left: u32,
    /// Segments reclaimed so far.
    buried: u64,
    /// The log has been full once.
    has_wrapped: bool,
    /// The user has been told that the index is full before the disk.
    has_warned: bool,
    next_sweep: Instant,
    next_copies: Instant,
    next_sync: Instant,
    close_timeout: Duration,
    /// The most of a segment that is written again, its frame counted as such, so that each reclaim makes room.
    reinserted_percent: u64,
}

impl<K: Key, V: Value> Maintenance<K, V> {
    pub(crate) fn new(tiers: Arc<Tiers<K, V>>, appender: Appender, limits: &Limits) -> Self {
        Maintenance {
            tiers,
            appender,
            in_flight: Vec::new(),
            key_bytes: Vec::new(),
            health: Health::default(),
            reclaim: None,
            dozes_left: 0,
            buried: 0,
            has_wrapped: false,
            has_warned: false,
            next_sweep: Instant::now(),
            next_copies: Instant::now(),
            next_sync: Instant::now(),
            close_timeout: limits.close_timeout,
            reinserted_percent: limits.reinserted_percent,
        }
    }

    /// Runs until the cache is closed.
    pub(crate) fn run(mut self) {
        let tiers = Arc::clone(&self.tiers);
        let _ending = Ending(&tiers);
        tiers.bell.attend();
        self.load_stripes();
        loop {
            if let Some(call) = self.rest() {
                let is_last = call.request == Request::Close;
                self.answer(call);
                self.log().tell();
                if is_last {
                    return;
                }
            }
            if self.health.is_retry_due() {
                self.retry_disk();
            }
            self.sweep_if_due();
            // Through the log everything goes at once, so every insert rings.
            if self.tiers.budget.is_batch_waiting() && self.tiers.write_behind != WriteBehind::Through {
                self.dozes_left = DOZES;
            }
            self.spill();
            self.reclaim_if_due();
            // Others make room as well, by removing what was leaving.
            self.tiers.bell.made_room();
            self.log().tell();
        }
    }

    /// Rests until there is something to do; the call, if there is one. While batch follows batch, it looks
    /// for the next by itself: to wake this thread costs an insert more than all else that it does.
    fn rest(&mut self) -> Option<Call> {
        let Tiers { bell, budget, .. } = &*self.tiers;
        while let Some(dozes_left) = self.dozes_left.checked_sub(1) {
            let is_due = budget.is_batch_waiting();
            let call = bell.doze(if is_due { Duration::ZERO } else { DOZE });
            if is_due || call.is_some() {
                return call;
            }
            self.dozes_left = dozes_left;
        }
        bell.sleep(PAUSE.min(self.next_sweep.saturating_duration_since(Instant::now())))
    }

    /// Reads the rest of the snapshot behind the first look-ups.
    fn load_stripes(&self) {
        for stripe in 0..self.tiers.stripes.len() {
            drop(self.tiers.shard_at(stripe, &epoch::pin()));
            self.log().keep_time();
        }
        *self.tiers.snapshot.lock() = None;
        self.log().forget_past();
    }

    fn answer(&mut self, call: Call) {
        let result = match call.request {
            Request::Flush => self.flush(None),
            Request::Clear => self.clear(),
            Request::Close => self.close(),
        };
        // Whoever called may have gone; then nobody wants to know.
        let _ = call.answer.send(result);
    }

    /// Copies everything that is only in RAM to disk. A segment that makes room for it takes the copies
    /// of entries in RAM along, also of those that were already passed: without another pass, a close
    /// would forget the entries that have been in RAM for longest.
    fn flush(&mut self, deadline: Option<Instant>) -> Result<(), Error> {
        let failures = self.health.failures();
        self.retry_disk();
        for _ in 0..FLUSH_PASSES_MAX {
            let buried = self.buried;
            self.flush_once(deadline);
            if self.buried == buried {
                break;
            }
        }
        // Written is not safe: the journal may have failed, now or long before.
        self.health.take_error_since(failures).and(self.log().check_next_start())
    }

    fn flush_once(&mut self, deadline: Option<Instant>) {
        for stripe in 0..self.tiers.stripes.len() {
            let mut next = Some(SlotId(0));
            while let Some(from) = next {
                let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if is_late || !self.health.is_good() {
                    break;
                }
                next = self.sweep_step(stripe, from, true, |_| true);
                self.spill_stripe(stripe);
            }
            self.spill_stripe(stripe);
        }
        self.write_batch();
        self.tiers.evict_surplus();
        self.sync_if_promised();
    }

    /// Forgets everything. Nothing is in flight between the barrier and the last stripe, since
    /// nobody else appends: so no record that is newer than the barrier is older than the clear.
    fn clear(&mut self) -> Result<(), Error> {
        self.write_batch();
        self.reclaim = None;
        let durable = self.log().raise_barrier();
        self.tiers.clear()?;
        self.tiers.bell.made_room();
        let barrier = durable?;
        for segment in self.log().segments_below(barrier) {
            self.log().unlink(segment.id());
        }
        Ok(())
    }

    /// Refuses further changes, copies what there is time for, and leaves a snapshot.
    fn close(&mut self) -> Result<(), Error> {
        self.tiers.for_each_shard(|shard| shard.refuse_changes());
        let flushed = self.flush(Instant::now().checked_add(self.close_timeout));
        let sealed = self.appender.seal();
        // Before the snapshot, which must not name what is given up here.
        let failures = self.health.failures();
        self.sync_segments();
        let synced = self.health.take_error_since(failures);
        let saved = self.save_index();
        self.tiers.for_each_shard(|shard| shard.close());
        // Whatever failed: the directory is let go of.
        let closed = self.log().close();
        flushed.and(sealed).and(synced).and(saved).and(closed)
    }

    fn save_index(&self) -> Result<(), Error> {
        let mut snapshot = self.log().begin_snapshot(self.tiers.stripe_bits)?;
        let mut slots = Vec::new();
        let mut written = Ok(());
        self.tiers.for_each_shard(|shard| {
            shard.mark_residents_read();
            slots.clear();
            slots.extend(shard.index().iter().filter_map(|(hash, packed)| Some((hash, packed.to_bits()?))));
            if written.is_ok() {
                written = snapshot.write_stripe(&slots);
            }
        });
        written?;
        snapshot.finish()
    }

    /// Looks for entries that have stayed in RAM without a copy, and for expired ones.
    fn sweep_if_due(&mut self) {
        if Instant::now() < self.next_sweep {
            return;
        }
        let copies = self.are_copies_due();
        let renews = self.tiers.write_behind != WriteBehind::Never && self.health.is_good();
        let pause = self.next_copies.saturating_duration_since(Instant::now());
        self.next_sweep = Instant::now() + pause.min(EXPIRY_SWEEP);
        for stripe in 0..self.tiers.stripes.len() {
            let mut next = Some(SlotId(0));
            while let Some(from) = next {
                next = self.sweep_step(stripe, from, renews, |meta| copies && spill::is_due(meta));
            }
            self.spill_stripe(stripe);
        }
        self.tiers.evict_surplus();
        self.sync_if_due();
        self.tiers.collect_all();
        self.log().release_segments();
    }

    /// Sweeps a few entries of a stripe; where to go on.
    fn sweep_step(
        &self,
        stripe: usize,
        from: SlotId,
        renews: bool,
        due: impl FnMut(&Meta) -> bool,
    ) -> Option<SlotId> {
        self.tiers.shard_at(stripe, &epoch::pin()).sweep(from, SWEEP_STEPS, renews, due)
    }

    /// Whether this sweep is one of write-behind's.
    fn are_copies_due(&mut self) -> bool {
        let now = Instant::now();
        let WriteBehind::After(interval) = self.tiers.write_behind else {
            self.next_copies = now + EXPIRY_SWEEP;
            return false;
        };
        if now < self.next_copies {
            return false;
        }
        self.next_copies = now + (interval / SWEEPS).min(COPY_SWEEP_MAX);
        self.health.is_good()
    }

    fn log(&self) -> &Log {
        self.tiers.log.as_ref().expect("the maintenance thread runs for a log only")
    }

    /// Tells the stripes what they may ask of the disk.
    fn tell_stripes(&self, disk: DiskState) {
        self.tiers.for_each_shard(|shard| shard.set_disk(disk));
    }
}

/// However the thread ends, nothing is queued and nobody waits for it any longer.
struct Ending<'t, K: Key, V: Value>(&'t Tiers<K, V>);

impl<K: Key, V: Value> Drop for Ending<'_, K, V> {
    fn drop(&mut self) {
        self.0.for_each_shard(|shard| {
            shard.set_disk(DiskState::Failing);
            shard.drop_queued();
        });
        self.0.bell.end();
    }
}
