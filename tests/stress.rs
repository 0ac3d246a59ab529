//! Line 37: everything at once for as long as it is told, for sanitizers to watch.
//! `stress SECONDS`; without the seconds, as under `cargo test`, it does nothing.
//!
//! Without the test harness and with atomics only, since those programs see no order in what `std` was
//! compiled without them for. So each key has one thread that writes it, and what may be read is one number.

mod common;

use std::{
    env, process,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    Random, TempDir, TestCache, tiny,
    value::{self, value},
    watchdog::watched,
};
use embercache::Error;

const THREADS: u64 = 8;
/// Twice what RAM holds.
const KEYS: u64 = 64;
/// So much that a stress of seconds has restarts, too.
const LIFE: Duration = Duration::from_secs(2);

fn main() {
    let Some(seconds) = env::args().nth(1).and_then(|seconds| seconds.parse().ok()) else { return };
    let (dir, facts) = (TempDir::new(), Facts::default());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut disk_hits = 0;
    let progress = || facts.operations.load(Relaxed);
    watched(progress, || {
        for life in 0.. {
            if Instant::now() >= end {
                break;
            }
            let cache = tiny(&dir.cache()).open().expect("the disk is there");
            live(&cache, &facts, life, end.min(Instant::now() + LIFE));
            cache.check();
            disk_hits += cache.stats().disk_hits;
        }
    });
    let [operations, hits, lies] =
        [&facts.operations, &facts.hits, &facts.lies].map(|count| count.load(Relaxed));
    println!("line 37: {operations} operations, {hits} hits, {disk_hits} of them on disk, {lies} lies");
    if lies > 0 || disk_hits == 0 {
        process::exit(1);
    }
}

/// One opening of the cache, closed by its drop or, each second time, at once by all threads.
fn live(cache: &TestCache, facts: &Facts, life: u64, end: Instant) {
    let work = |number: u64| {
        let worker = Worker { cache, facts, number };
        let mut random = Random::new(life << 8 | number);
        while Instant::now() < end {
            (0..64).for_each(|_| worker.act(&mut random));
        }
        if life.is_multiple_of(2) {
            cache.close().expect("the disk is there");
        }
    };
    thread::scope(|scope| {
        let working: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || work(number))).collect();
        // By hand: the scope's own way is one that the sanitizer does not see.
        working.into_iter().for_each(|thread| thread.join().expect("a panic has been reported"));
    });
}

/// What is true beside the cache.
struct Facts {
    keys: [Fact; KEYS as usize],
    operations: AtomicU64,
    hits: AtomicU64,
    lies: AtomicU64,
}

/// A key's version in what stands for the database, and the one whose invalidation of the cache was
/// acknowledged. Written by the key's own thread with Release, so that whoever reads it with Acquire
/// began after that.
#[derive(Default)]
struct Fact {
    stored: AtomicU64,
    acknowledged: AtomicU64,
}

impl Default for Facts {
    fn default() -> Self {
        let none = AtomicU64::default;
        let keys = std::array::from_fn(|_| Fact::default());
        Facts { keys, operations: none(), hits: none(), lies: none() }
    }
}

#[derive(Clone, Copy)]
struct Worker<'a> {
    cache: &'a TestCache,
    facts: &'a Facts,
    number: u64,
}

impl Worker<'_> {
    fn act(self, random: &mut Random) {
        let key = random.below(KEYS);
        let own = random.below(KEYS / THREADS) * THREADS + self.number;
        let len = [24, 200, 1000, 4000][random.below(4) as usize];
        match random.below(10_000) {
            0..3_500 => self.judge(key, self.floor(key), self.cache.get(&key)),
            3_500..4_000 => self.get_many(key),
            4_000..4_500 => self.judge(key, self.floor(key), self.cache.peek(&key)),
            4_500..6_500 => self.insert(own, len),
            6_500..7_500 => self.remove(own),
            7_500..8_700 => self.load(key, len),
            8_700..9_980 => self.lease(key, len),
            9_980..9_995 => drop(was_open(self.cache.flush())),
            _ => drop(was_open(self.cache.clear())),
        }
        self.facts.operations.fetch_add(1, Relaxed);
    }

    fn get_many(self, first: u64) {
        let keys: [u64; 4] = std::array::from_fn(|at| (first + at as u64) % KEYS);
        let floors = keys.map(|key| self.floor(key));
        for ((key, floor), found) in keys.into_iter().zip(floors).zip(self.cache.get_many(&keys)) {
            self.judge(key, floor, found);
        }
    }

    fn insert(self, key: u64, len: usize) {
        let version = self.store(key);
        if was_open(self.cache.insert(key, value(key, version, len))).is_some() {
            self.acknowledge(key, version);
        }
    }

    fn remove(self, key: u64) {
        let version = self.store(key);
        if was_open(self.cache.remove(&key)).is_some() {
            self.acknowledge(key, version);
        }
    }

    fn load(self, key: u64, len: usize) {
        let floor = self.floor(key);
        let found = self.cache.get_or_insert_with(&key, || value(key, self.stored(key), len));
        self.judge(key, floor, Some(found));
    }

    fn lease(self, key: u64, len: usize) {
        if let Some(lease) = was_open(self.cache.lease(&key)) {
            was_open(lease.fill(value(key, self.stored(key), len)));
        }
    }

    fn judge(self, key: u64, floor: u64, found: Option<Vec<u8>>) {
        let Some(found) = found else { return };
        self.facts.hits.fetch_add(1, Relaxed);
        let lie = match value::parse(key, &found) {
            Ok(version) if version >= floor => return,
            Ok(version) => format!("version {version}, and {floor} was acknowledged"),
            Err(wrong) => wrong,
        };
        eprintln!("a lie about key {key}: {lie}");
        self.facts.lies.fetch_add(1, Relaxed);
    }

    /// Puts the next version into the database.
    fn store(self, key: u64) -> u64 {
        let version = self.stored(key) + 1;
        self.fact(key).stored.store(version, Release);
        version
    }

    fn stored(self, key: u64) -> u64 {
        self.fact(key).stored.load(Acquire)
    }

    fn acknowledge(self, key: u64, version: u64) {
        self.fact(key).acknowledged.store(version, Release);
    }

    /// The oldest version that a look-up which begins now may return.
    fn floor(self, key: u64) -> u64 {
        self.fact(key).acknowledged.load(Acquire)
    }

    fn fact(&self, key: u64) -> &Fact {
        &self.facts.keys[key as usize]
    }
}

/// What came of it, unless another thread has closed the cache.
fn was_open<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Err(Error::Closed) => None,
        result => Some(result.expect("the disk is there")),
    }
}
