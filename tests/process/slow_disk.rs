//! Line 31: a disk of 5 MB a second under a cache that does not wait for it.
//!
//! `EMBERCACHE_SOAK` (a factor) makes it more.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    TestCache, cases, figure,
    value::{value, version},
    wait_until,
};
use embercache::{
    Admission, Cache, MIB, Overload, Stats, WriteBehind,
    testing::{FaultDisk, MemoryDisk, Moment, Operation, Side},
};

const RAM_BYTES: u64 = 4 * MIB;
/// An eighth of it may wait to be written.
const QUEUE_BYTES_MAX: u64 = RAM_BYTES / 8;
const DISK_BYTES_PER_MS: u64 = 5_000;
const KEYS: u64 = 20_000;

#[test]
fn inserts_do_not_wait_for_a_slow_disk() {
    let _alone = crate::alone();
    let mut p99 = [Duration::MAX; 2];
    let (mut all_shed, mut most_queued) = (0, 0);
    // By turns, and the best of each: what else the machine does is not what is measured. Where it does much,
    // it takes more turns to see past it.
    let mut rounds = 0;
    while rounds < cases(3) || p99[1] > 2 * p99[0] && rounds < cases(12) {
        rounds += 1;
        for (is_slow, p99) in [false, true].into_iter().zip(&mut p99) {
            let cache = open(is_slow);
            let (found, queued) = p99_of_inserts(&cache);
            *p99 = (*p99).min(found);
            wait_until("the queue is empty", Duration::from_secs(20), || cache.stats().ram_queued == 0);
            // What was displaced may wait for a thread that the scheduler has put aside.
            wait_until("the budget is kept at rest", Duration::from_secs(10), || {
                cache.ram_used() <= RAM_BYTES
            });
            let stats = cache.stats();
            assert_eq!(lost(&cache), drops(&stats), "drops are counted one by one: {stats:?}");
            if is_slow {
                (all_shed, most_queued) = (all_shed + stats.shed, most_queued.max(queued));
            }
            cache.check();
        }
    }
    let [normal, slow] = p99;
    let shed_percent = 100 * all_shed / (KEYS * rounds);
    figure(
        31,
        &format!(
            "at 5 MB/s: p99 of inserts {slow:?}, {normal:?} without; {shed_percent} % shed, each of them counted; \
             at most {most_queued} of {QUEUE_BYTES_MAX} bytes queued"
        ),
    );
    assert!(all_shed > KEYS, "{all_shed} were shed: the disk was not slow");
    // One more entry than there is room for is noticed by the next.
    assert!(most_queued <= QUEUE_BYTES_MAX + 2_000, "{most_queued} bytes were queued");
    assert!(slow <= 2 * normal, "p99 {slow:?}, and {normal:?} without");
}

/// Of a cache that copies each insert, those that stay in RAM wait for the disk, too: what their copies take is counted.
#[test]
fn copies_of_what_stays_in_ram_do_not_pile_up() {
    let disk = FaultDisk::over(Arc::new(MemoryDisk::new()));
    slow_down(&disk);
    let builder = Cache::<u64, Vec<u8>>::builder("cache").ram(RAM_BYTES).disk(256 * MIB).segment_size(MIB);
    let builder = builder.admission(Admission::All).write_behind(WriteBehind::Through);
    let cache = builder.io(Arc::new(disk)).open().unwrap();
    let mut most_queued = 0;
    for key in 0..KEYS {
        cache.insert(key, vec![key as u8; 16]).unwrap();
        most_queued = most_queued.max(cache.stats().ram_queued);
    }
    let stats = cache.stats();
    assert_eq!((stats.evictions, stats.shed), (0, 0), "all of them have room in RAM");
    assert!(most_queued > QUEUE_BYTES_MAX / 2, "the disk was not slow");
    assert!(most_queued <= QUEUE_BYTES_MAX + 2_000, "{most_queued} bytes were queued");
    cache.flush().unwrap();
    assert_eq!(cache.stats().ram_queued, 0);
    cache.check();
}

fn slow_down(disk: &FaultDisk) {
    disk.watch(|Moment { operation, side, bytes, .. }| {
        if operation == Operation::Write && side == Side::Before {
            thread::sleep(Duration::from_micros(bytes as u64 * 1_000 / DISK_BYTES_PER_MS));
        }
    });
}

fn open(is_slow: bool) -> TestCache {
    let disk = FaultDisk::over(Arc::new(MemoryDisk::new()));
    if is_slow {
        slow_down(&disk);
    }
    let builder = Cache::builder("cache").ram(RAM_BYTES).disk(256 * MIB).segment_size(MIB);
    let builder = builder.admission(Admission::All).write_behind(WriteBehind::Never);
    builder.overload(Overload::Shed).io(Arc::new(disk)).open().unwrap()
}

/// Of as many inserts as make five times the RAM; with it, the most that was seen to be queued.
fn p99_of_inserts(cache: &TestCache) -> (Duration, u64) {
    let mut most_queued = 0;
    let mut times: Vec<Duration> = (0..KEYS)
        .map(|key| {
            let value = value(key, 1, 1_000);
            let begun = Instant::now();
            cache.insert(key, value).unwrap();
            let took = begun.elapsed();
            if key.is_multiple_of(64) {
                most_queued = most_queued.max(cache.stats().ram_queued);
            }
            took
        })
        .collect();
    let at = times.len() * 99 / 100;
    (*times.select_nth_unstable(at).1, most_queued)
}

fn lost(cache: &TestCache) -> u64 {
    let is_lost = |key: &u64| match cache.peek(key) {
        Some(found) => version(*key, &found) != 1,
        None => true,
    };
    (0..KEYS).filter(is_lost).count() as u64
}

fn drops(stats: &Stats) -> u64 {
    stats.shed + stats.refused + stats.write_failures + stats.unspillable + stats.too_large + stats.reclaimed
}
