//! Lines 34 and 35: the whole engine in schedules: two or three threads and the maintenance thread over a cache
//! so small that every operation meets what another one has under way, on a disk in memory. Shuttle decides at
//! each lock, atomic and wait who goes on: at random, or by priorities with few changes (PCT), which finds what
//! needs few but exact preemptions.
//!
//! All threads of a schedule are one thread of the machine. So they share crossbeam's thread-local record of
//! who has pinned the epoch: a pin of one while another has pinned nests in that, and ends no earlier. The
//! epoch is moved on less often than it could be and what was retired stays for longer, never the reverse;
//! that readers are safe from reclamation is for loom, the sanitizers and the argument in `shard/hot.rs`.
//!
//! `EMBERCACHE_SOAK` multiplies how many schedules are run, `SHUTTLE_RANDOM_SEED` makes them the same again.

use std::{
    env,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crossbeam_epoch as epoch;
use shuttle::{
    Config, Runner,
    rand::{Rng, thread_rng},
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
    thread,
};

use self::{
    oracle::{Floor, Oracle},
    witness::Witness,
};
use crate::{
    Admission, Builder, Cache, Error, KIB, Stats, WriteBehind, io::memory::MemoryDisk, sync::Instant,
};

#[path = "../tests/common/oracle.rs"]
mod oracle;
#[path = "../tests/common/value.rs"]
mod value;
#[path = "../tests/common/witness.rs"]
mod witness;

/// Schedules of each scenario.
const RANDOM: usize = 2_000;
const PCT: usize = 200;
/// The changes of priority in a PCT schedule.
const PCT_DEPTH: usize = 3;
/// How often a disk and an index are compared until they are the same.
const AUDITS: usize = 20;
/// Shuttle's own is too small for a batch of look-ups.
const STACK_BYTES: usize = 256 << 10;

const SMALL: usize = value::LEN_MIN;
/// Four records to a segment.
const LARGE: usize = 15_000;

/// What the scenarios are about, and what passes by to push it out.
const A: u64 = 0;
const B: u64 = 1;
const C: u64 = 2;
const FILLERS: std::ops::Range<u64> = 3..15;
const KEYS: u64 = FILLERS.end;

type Act = fn(&Stage);
type Tuning = fn(Builder<u64, Vec<u8>>) -> Builder<u64, Vec<u8>>;

#[test]
fn spills_and_overwrites() {
    let seen = explore(
        |cache| cache.ram_entries(1),
        |_| {},
        &[
            |s| {
                s.insert(A);
                s.insert(B);
                s.insert(A);
                s.remove(A);
                s.get(A);
            },
            |s| {
                s.get(A);
                s.insert(C);
                s.get(A);
                s.get(B);
            },
            |s| {
                s.get(A);
                s.kill();
                s.insert(A);
                s.get(A);
            },
        ],
    );
    seen.assert("spills", |seen| &seen.spills);
}

#[test]
fn promotions_and_removals() {
    let seen = explore(
        |cache| cache.ram_entries(2),
        |s| {
            s.insert(A);
            s.flush();
            s.insert(B);
            s.insert(C);
            s.flush();
        },
        &[
            |s| {
                s.get(A);
                s.get(A);
                s.get(A);
                s.peek(A);
            },
            |s| {
                s.remove(A);
                s.get(A);
                s.insert(A);
                s.get(A);
            },
            |s| {
                s.insert(B);
                s.get(A);
                s.kill();
                s.remove(A);
                s.get(A);
            },
        ],
    );
    seen.assert("disk hits", |seen| &seen.disk_hits);
    seen.assert("evictions of what has a copy", |seen| &seen.clean_evictions);
}

#[test]
fn reclaim_and_overwrites() {
    let seen = explore(
        |cache| cache.ram_entries(2),
        |s| {
            s.store(A, LARGE);
            s.store(B, LARGE);
            s.flush();
            FILLERS.take(10).for_each(|key| s.store(key, LARGE));
            s.flush();
            // Read since they were written, which reclaim keeps, and out of RAM again. The log is full but
            // for the segment that reclaim makes room for.
            s.get(A);
            s.get(B);
            FILLERS.skip(10).for_each(|key| s.store(key, LARGE));
        },
        &[
            |s| {
                s.flush();
                FILLERS.take(2).for_each(|key| s.store(key, LARGE));
            },
            |s| {
                s.get(A);
                s.remove(A);
                s.get(A);
                s.insert(A);
                s.get(A);
            },
            |s| {
                s.kill();
                s.insert(B);
                s.get(B);
                s.peek(A);
            },
        ],
    );
    seen.assert("reclaimed entries", |seen| &seen.reclaimed);
    seen.assert("reinsertions", |seen| &seen.reinsertions);
}

/// Copies that were written without a time to idle: whoever reads one makes it void and brings the entry into RAM.
#[test]
fn reclaim_and_copies_that_are_made_void() {
    let seen = explore_after(
        |cache| cache.ram_entries(2),
        |s| {
            s.store(A, LARGE);
            s.store(B, LARGE);
            s.flush();
            FILLERS.for_each(|key| s.store(key, LARGE));
            s.flush();
            // Worth being written again.
            s.get(A);
            s.get(B);
        },
        |cache| cache.ram_entries(2).time_to_idle(Duration::from_secs(3_600)),
        &[
            |s| {
                FILLERS.take(4).for_each(|key| s.store(key, LARGE));
                s.flush();
            },
            |s| {
                s.get(A);
                s.remove(A);
                s.kill();
                s.get(A);
            },
            |s| {
                s.get(B);
                s.insert(B);
                s.kill();
                s.get(B);
            },
        ],
    );
    seen.assert("disk hits", |seen| &seen.disk_hits);
    seen.assert("reclaimed entries", |seen| &seen.reclaimed);
    seen.assert("reinsertions", |seen| &seen.reinsertions);
}

#[test]
fn loads_and_invalidations() {
    let seen = explore(
        |cache| cache.ram_entries(1),
        |_| {},
        &[
            |s| {
                s.load(A);
                s.load(A);
                s.get(A);
            },
            |s| {
                s.insert(A);
                s.load(A);
                s.remove(A);
                s.get(A);
            },
            |s| {
                s.lease(A);
                s.get(A);
                s.load(B);
                s.lease(A);
                s.get(A);
            },
        ],
    );
    seen.assert("loads that were overtaken", |seen| &seen.loads_overtaken);
}

#[test]
fn clear_and_everything() {
    let seen = explore(
        |cache| cache.ram_entries(1),
        |s| {
            s.insert(A);
            s.insert(B);
        },
        &[
            |s| {
                s.clear();
                s.get(A);
                s.get(B);
                s.kill();
            },
            |s| {
                s.insert(A);
                s.flush();
                s.get(A);
                s.insert(B);
            },
            |s| {
                s.lease(A);
                s.get(B);
                s.get(A);
                s.remove(B);
                s.get(B);
            },
        ],
    );
    seen.assert("spills", |seen| &seen.spills);
}

#[test]
fn close_and_everything() {
    let seen = explore(
        |cache| cache.ram_entries(1),
        |s| {
            s.insert(A);
            s.insert(B);
        },
        &[
            |s| {
                s.get(A);
                s.close();
                s.get(A);
            },
            |s| {
                s.insert(A);
                s.insert(B);
                s.remove(A);
                s.get(A);
                s.insert(A);
            },
            |s| {
                s.load(B);
                s.get(A);
                s.flush();
                s.lease(A);
                s.close();
            },
        ],
    );
    seen.assert("values after a close", |seen| &seen.reopened);
}

#[test]
fn writing_through() {
    let seen = explore(
        |cache| cache.ram_entries(2).write_behind(WriteBehind::Through),
        |_| {},
        &[
            |s| {
                s.insert(A);
                s.insert(A);
                s.get(A);
                s.insert(B);
            },
            |s| {
                s.remove(A);
                s.get(A);
                s.insert(C);
                s.kill();
            },
            |s| {
                s.get(A);
                s.kill();
                s.insert(A);
                s.get(A);
            },
        ],
    );
    seen.assert("copies", |seen| &seen.write_behinds);
    seen.assert("values after a kill", |seen| &seen.survivors);
}

#[test]
fn anything() {
    let seen = explore(
        |cache| cache.ram_entries(1).write_behind(WriteBehind::After(Duration::from_millis(10))),
        |s| s.insert(A),
        &[Stage::anything, Stage::anything, Stage::anything],
    );
    seen.assert("spills", |seen| &seen.spills);
    seen.assert("disk hits", |seen| &seen.disk_hits);
    seen.assert("values after a kill", |seen| &seen.survivors);
}

/// Runs schedules in which `begin` has run and then all of `acts` run at once; what has been seen in them.
fn explore(tuning: Tuning, begin: Act, acts: &'static [Act]) -> Arc<Seen> {
    explore_by(acts, move |seen| {
        let stage = Stage::open(tuning, seen);
        begin(&stage);
        stage
    })
}

/// The same with a close between the two, after which the cache is tuned in another way.
fn explore_after(before: Tuning, begin: Act, tuning: Tuning, acts: &'static [Act]) -> Arc<Seen> {
    explore_by(acts, move |seen| {
        let stage = Stage::open(before, seen);
        begin(&stage);
        stage.close();
        stage.reopened(tuning)
    })
}

/// Runs schedules in which `acts` run at once on the stage that has been set.
fn explore_by(
    acts: &'static [Act],
    set: impl Fn(Arc<Seen>) -> Stage + Copy + Send + Sync + 'static,
) -> Arc<Seen> {
    static ALONE: Mutex<()> = Mutex::new(());
    // Another test's thread, pinned at the moment, would keep what this one's schedules retire.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let soak: usize = env::var("EMBERCACHE_SOAK").map_or(1, |factor| factor.parse().expect("a factor"));
    let seen = Arc::new(Seen::default());
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        let mut config = Config::new();
        config.stack_size = STACK_BYTES;
        let seen = Arc::clone(&seen);
        Runner::new(scheduler, config).run(move || play(acts, || set(Arc::clone(&seen))))
    };
    let ran = run(Box::new(RandomScheduler::new(RANDOM * soak)))
        + run(Box::new(PctScheduler::new(PCT_DEPTH, PCT * soak)));
    println!("line 34: {ran} schedules: {seen:?}");
    println!(
        "line 35: {ran} schedules, {} records on disk alive, each in the index",
        seen.audited.load(Relaxed)
    );
    seen
}

/// One schedule.
fn play(acts: &[Act], set: impl Fn() -> Stage) {
    Instant::reset();
    let stage = set();
    let acting: Vec<_> = acts
        .iter()
        .map(|&act| {
            let stage = stage.clone();
            thread::spawn(move || act(&stage))
        })
        .collect();
    acting.into_iter().for_each(|thread| thread.join().expect("its panic has ended the test"));
    stage.end();
    drain_epoch();
}

/// Has everything dropped that was retired: what is made of a schedule's locks must not outlive it.
fn drain_epoch() {
    let is_drained = Arc::new(AtomicBool::new(false));
    let guard = epoch::pin();
    guard.defer({
        let is_drained = Arc::clone(&is_drained);
        // The epoch's garbage is a queue, so all that came before has gone then.
        move || is_drained.store(true, Relaxed)
    });
    drop(guard);
    for _ in 0..1_000 {
        if is_drained.load(Relaxed) {
            return;
        }
        epoch::pin().flush();
    }
    panic!("somebody still pins the epoch");
}

/// What the schedules of a scenario came to. A scenario in which nothing happens would pass as well.
#[derive(Debug, Default)]
struct Seen {
    hits: AtomicU64,
    disk_hits: AtomicU64,
    spills: AtomicU64,
    write_behinds: AtomicU64,
    clean_evictions: AtomicU64,
    reclaimed: AtomicU64,
    reinsertions: AtomicU64,
    loads_overtaken: AtomicU64,
    reopened: AtomicU64,
    survivors: AtomicU64,
    audited: AtomicU64,
}

impl Seen {
    fn note(&self, stats: &Stats) {
        let add = |count: &AtomicU64, more| count.fetch_add(more, Relaxed);
        add(&self.disk_hits, stats.disk_hits);
        add(&self.spills, stats.spills);
        add(&self.write_behinds, stats.write_behinds);
        add(&self.clean_evictions, stats.clean_evictions);
        add(&self.reclaimed, stats.reclaimed);
        add(&self.reinsertions, stats.reinsertions);
        add(&self.loads_overtaken, stats.loads_overtaken);
    }

    fn assert(&self, what: &str, count: impl Fn(&Seen) -> &AtomicU64) {
        assert!(self.hits.load(Relaxed) > 0, "no look-up ever found anything");
        assert!(count(self).load(Relaxed) > 0, "there were no {what}");
    }
}

/// A moment at which the process might have ended.
struct Kill {
    disk: MemoryDisk,
    floors: Vec<Floor>,
}

/// One schedule's cache, its disk, and what is known of what may be read from them.
#[derive(Clone)]
struct Stage {
    tuning: Tuning,
    disk: MemoryDisk,
    cache: Cache<u64, Vec<u8>>,
    oracle: Arc<Oracle>,
    kills: Arc<Mutex<Vec<Kill>>>,
    seen: Arc<Seen>,
}

impl Stage {
    fn open(tuning: Tuning, seen: Arc<Seen>) -> Stage {
        let disk = MemoryDisk::new();
        let cache = open(tuning, &disk);
        Stage { tuning, disk, cache, oracle: Arc::new(Oracle::new(KEYS)), kills: Arc::default(), seen }
    }

    /// One that was closed, tuned in another way.
    fn reopened(self, tuning: Tuning) -> Stage {
        Stage { tuning, cache: open(tuning, &self.disk), ..self }
    }

    fn witness(&self) -> Witness<'_> {
        self.beside(&self.cache)
    }

    /// What a look-up in any cache that has come of this one may see.
    fn beside<'a>(&'a self, cache: &'a Cache<u64, Vec<u8>>) -> Witness<'a> {
        Witness { cache, oracle: &self.oracle, hits: &self.seen.hits, may_be_closed: true }
    }

    fn get(&self, key: u64) {
        self.witness().get(key);
    }

    fn peek(&self, key: u64) {
        self.witness().peek(key);
    }

    fn insert(&self, key: u64) {
        self.store(key, SMALL);
    }

    fn store(&self, key: u64, len: usize) {
        self.witness().insert(key, len);
    }

    fn remove(&self, key: u64) {
        self.witness().remove(key);
    }

    fn clear(&self) {
        self.witness().clear();
    }

    fn flush(&self) {
        self.witness().flush();
    }

    fn close(&self) {
        self.cache.close().expect("this disk never fails");
    }

    fn load(&self, key: u64) {
        self.witness().load(key, SMALL);
    }

    fn lease(&self, key: u64) {
        self.witness().lease(key, SMALL);
    }

    /// Keeps the disk as a kill would leave it now, to be opened when the schedule is over.
    fn kill(&self) {
        let floors = (0..KEYS).map(|key| self.oracle.floor(key)).collect();
        let disk = self.disk.after_kill();
        self.kills.lock().expect("nobody panics under it").push(Kill { disk, floors });
    }

    /// Three to six operations that the schedule draws, so that it can be run again.
    fn anything(&self) {
        for _ in 0..thread_rng().gen_range(3..7) {
            self.draw();
        }
    }

    fn draw(&self) {
        let mut random = thread_rng();
        let key = random.gen_range(A..=C);
        match random.gen_range(0..20) {
            0..5 => self.get(key),
            5 => self.peek(key),
            6..11 => self.insert(key),
            11..14 => self.remove(key),
            14 => self.load(key),
            15..17 => self.lease(key),
            17 => self.flush(),
            18 => self.clear(),
            _ => self.kill(),
        }
    }

    /// What is left, in this process, after a kill, after a close, and after each kill on the way.
    fn end(self) {
        (0..KEYS).for_each(|key| self.get(key));
        self.cache.check();
        self.audit();
        self.kill();
        self.seen.note(&self.cache.stats());
        self.close();
        let kills = std::mem::take(&mut *self.kills.lock().expect("nobody panics under it"));
        for Kill { disk, floors } in kills {
            self.judge_disk(&disk, &floors, &self.seen.survivors);
        }
        let floors: Vec<_> = (0..KEYS).map(|key| self.oracle.floor(key)).collect();
        self.judge_disk(&self.disk, &floors, &self.seen.reopened);
    }

    /// Whatever has come of the races, what is not dead on disk is what the index names: no record less, which
    /// would be lost by a kill, and none more, which would come back.
    fn audit(&self) {
        // Another thread may have closed it.
        let Ok(()) = self.cache.flush() else { return };
        let mut seen = (0, 0);
        // What is reclaimed is dead first, and then leaves the index.
        for _ in 0..AUDITS {
            let alive = open(self.tuning, &self.disk.after_kill()).stats().recovery.entries;
            seen = (alive, self.cache.stats().disk_entries);
            if seen.0 == seen.1 {
                self.seen.audited.fetch_add(alive, Relaxed);
                return;
            }
            thread::yield_now();
        }
        panic!("{} records on disk are alive, and {} are in the index", seen.0, seen.1);
    }

    fn judge_disk(&self, disk: &MemoryDisk, floors: &[Floor], found: &AtomicU64) {
        let cache = open(self.tuning, disk);
        for (key, &floor) in (0..KEYS).zip(floors) {
            if let Some(value) = cache.get(&key) {
                self.beside(&cache).judge(key, &value, floor);
                found.fetch_add(1, Relaxed);
            }
        }
    }
}

fn open(tuning: Tuning, disk: &MemoryDisk) -> Cache<u64, Vec<u8>> {
    let tiny =
        Cache::builder("dir").segment_size(64 * KIB).disk(256 * KIB).stripes(1).admission(Admission::All);
    tuning(tiny.io(Arc::new(disk.clone()))).open().expect("this disk never fails")
}
