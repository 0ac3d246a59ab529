//! Line 35: what races leave on disk, to the last record. Threads insert, remove, read and promote few keys while
//! all is spilled, reclaimed and written again; then what is not dead on disk has to be what the index names: a
//! record less would be lost by a kill, and one more would come back.

use std::{
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::Duration,
};

use crate::common::{
    Random, TestCache, cases, figure, from_env, oracle::Oracle, value::version, wait_until,
    watchdog::watched, witness::Witness,
};
use embercache::{
    Admission, Builder, Cache, KIB, Start, WriteBehind,
    testing::{FaultDisk, Io, MemoryDisk, Moment, Operation, Side},
};

const KEYS: u64 = 600;
const THREADS: u64 = 4;
const OPERATIONS: u64 = 1_500;

#[test]
fn the_index_names_what_is_alive_on_disk_and_nothing_else() {
    let audits = cases(20);
    let (disk, oracle, hits) = (MemoryDisk::new(), Oracle::new(KEYS), AtomicU64::new(0));
    let slow = FaultDisk::over(Arc::new(disk.clone()));
    slow.watch(slow_down_segments);
    let cache = builder(slow).open().unwrap();
    let mut audited = 0;
    for audit in 0..audits {
        let work = || {
            thread::scope(|scope| {
                for number in 0..THREADS {
                    let witness =
                        Witness { cache: &cache, oracle: &oracle, hits: &hits, may_be_closed: false };
                    let random = Random::new(from_env("EMBERCACHE_SEED", 35) << 32 | audit << 8 | number);
                    scope.spawn(move || race(witness, random));
                }
            });
            cache.flush().unwrap();
        };
        watched(|| oracle.ticks(), work);
        // What is reclaimed is dead first, and then leaves the index.
        let mut alive = 0;
        wait_until("disk and index agree", Duration::from_secs(10), || {
            let killed = builder(disk.after_kill()).open().unwrap();
            alive = killed.stats().recovery.entries;
            alive == cache.stats().disk_entries && is_the_same(&cache, &killed)
        });
        audited += alive;
        cache.check();
    }
    let stats = cache.stats();
    figure(
        35,
        &format!(
            "{audits} audits after {} operations each: {audited} records alive on disk, each in the index, and no \
             other; {} were written again, {} reclaimed, {} journaled",
            THREADS * OPERATIONS,
            stats.reinsertions,
            stats.reclaimed,
            stats.journal_entries,
        ),
    );
    assert!(audited > audits * KEYS / 4, "{audited} records: nothing was tested");
    assert!(stats.reinsertions > audits && stats.reclaimed > audits && stats.disk_hits > audits, "{stats}");
}

/// The log holds a part of what is written in a round.
fn builder(disk: impl Io + 'static) -> Builder<u64, Vec<u8>> {
    let builder = Cache::builder("cache").ram_entries(32).stripes(2).segment_size(64 * KIB).disk(512 * KIB);
    builder.admission(Admission::All).write_behind(WriteBehind::Never).io(Arc::new(disk))
}

/// So that much is changed while its copy is on the way.
fn slow_down_segments(Moment { operation, file, side, .. }: Moment<'_>) {
    if operation == Operation::Write && side == Side::Before && file.starts_with("seg-") {
        thread::sleep(Duration::from_micros(200));
    }
}

fn race(witness: Witness<'_>, mut random: Random) {
    for _ in 0..OPERATIONS {
        let key = random.below(KEYS);
        match random.below(1_000) {
            0..350 => witness.insert(key, [24, 400, 2_000][random.below(3) as usize]),
            350..450 => witness.remove(key),
            450..999 => witness.get(key),
            _ => witness.flush(),
        }
    }
}

/// Whether each key has on disk what the cache has, unless that is in RAM alone.
fn is_the_same(cache: &TestCache, killed: &TestCache) -> bool {
    assert_eq!(killed.stats().recovery.start, Start::Recovered, "a cold start proves nothing");
    let version_in = |cache: &TestCache, key| cache.peek(&key).map(|bytes| version(key, &bytes));
    (0..KEYS).all(|key| {
        let on_disk = version_in(killed, key);
        on_disk.is_none() || on_disk == version_in(cache, key)
    })
}
