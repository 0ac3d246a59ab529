//! Line 32: no look-up returns a value whose overwrite, remove or clear was acknowledged before it began:
//! judged per key while eight threads do everything at once to few keys, through many reopens.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::common::{
    Random, TempDir, cases, fault_disk, figure, from_env, oracle::Oracle, tiny, watchdog::watched,
    witness::Witness,
};
use embercache::{Builder, Stats, WriteBehind, testing::Operation};

const FEW_KEYS: u64 = 64;
/// So many that most of the disk is alive when it is reclaimed.
const MANY_KEYS: u64 = 1_000;
const THREADS: u64 = 8;
/// How often each directory is opened.
const LIVES: u64 = 10;

/// The policy as users have it: entries move between the tiers all the time.
#[test]
fn eight_threads_and_few_keys() {
    run(FEW_KEYS, 300_000, |dir| tiny(&dir.cache()));
}

/// Every insert is copied to the log at once, so every overwrite invalidates a copy on disk.
#[test]
fn eight_threads_writing_through() {
    run(FEW_KEYS, 100_000, |dir| tiny(&dir.cache()).write_behind(WriteBehind::Through));
}

/// Copies are made all the time of entries that stay in RAM.
#[test]
fn eight_threads_writing_behind() {
    let interval = WriteBehind::After(Duration::from_millis(10));
    run(FEW_KEYS, 100_000, |dir| tiny(&dir.cache()).ram_entries(256).write_behind(interval));
}

/// Reclaim writes entries again while they are overwritten and removed.
#[test]
fn eight_threads_and_reclaim() {
    let stats = run(MANY_KEYS, 800_000, |dir| tiny(&dir.cache()));
    assert!(stats.iter().any(|stats| stats.reinsertions > 0), "nothing was reinserted");
}

/// Most of each life passes while the snapshot of the one before is still being loaded.
#[test]
fn eight_threads_and_a_slow_start() {
    run(FEW_KEYS, 20_000, |dir| starting_slowly(dir).stripes(16));
}

/// The same where each life has another number of stripes than the one before: they are loaded by twos, or each
/// from two.
#[test]
fn eight_threads_and_a_slow_start_with_other_stripes() {
    let lives = AtomicU64::new(0);
    run(FEW_KEYS, 20_000, |dir| starting_slowly(dir).stripes(8 << (lives.fetch_add(1, Relaxed) % 2)));
}

fn starting_slowly(dir: &TempDir) -> Builder<u64, Vec<u8>> {
    let disk = fault_disk();
    disk.watch(|moment| {
        let is_loading = moment.operation == Operation::Read && moment.file == "index.snap";
        if is_loading && thread::current().name() == Some("embercache") {
            thread::sleep(Duration::from_millis(5));
        }
    });
    tiny(&dir.cache()).io(disk)
}

/// What each life ended with.
fn run(keys: u64, ops: u64, options: impl Fn(&TempDir) -> Builder<u64, Vec<u8>>) -> Vec<Stats> {
    let ops = cases(ops);
    let seed = from_env("EMBERCACHE_SEED", 1);
    let dir = TempDir::new();
    let oracle = Oracle::new(keys);
    let hits = AtomicU64::new(0);
    let mut ends = Vec::new();
    for life in 0..LIVES {
        let cache = options(&dir).open().unwrap();
        let work = || {
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    let witness =
                        Witness { cache: &cache, oracle: &oracle, hits: &hits, may_be_closed: false };
                    let worker = Worker { witness, keys };
                    let random = Random::new(seed ^ life << 32 ^ thread << 48);
                    scope.spawn(move || worker.run(random, ops / LIVES / THREADS));
                }
            });
            cache.check();
            ends.push(cache.stats());
            if life % 2 == 0 {
                cache.close().unwrap();
            }
        };
        watched(|| oracle.ticks(), work);
    }
    figure(38, &format!("{} steps of {THREADS} threads watched, never 30 s without one", oracle.ticks()));
    figure(32, &format!("{ops} operations on {keys} keys by {THREADS} threads, {LIVES} opens, 0 stale"));
    // A test in which everything is missed would pass as well, and so would one without a disk.
    let hits = hits.into_inner();
    assert!(hits > ops / 20, "only {hits} of {ops} operations hit");
    assert!(ends.iter().any(|stats| stats.disk_hits > 0), "nothing was ever read from disk");
    ends
}

#[derive(Clone, Copy)]
struct Worker<'a> {
    witness: Witness<'a>,
    keys: u64,
}

impl Worker<'_> {
    fn run(self, mut random: Random, ops: u64) {
        let Worker { witness, keys } = self;
        for _ in 0..ops {
            let key = random.below(keys);
            let len = [24, 40, 200, 1000, 4000][random.below(5) as usize];
            match random.below(10_000) {
                0..3_500 => witness.get(key),
                3_500..4_000 => witness.peek(key),
                4_000..7_000 => witness.insert(key, len),
                7_000..8_500 => witness.remove(key),
                8_500..9_250 => witness.load(key, len),
                9_250..9_980 => witness.lease(key, len),
                9_980..9_995 => witness.flush(),
                _ => witness.clear(),
            }
        }
    }
}
