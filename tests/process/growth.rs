//! Line 63: what a cache holds of the machine after it has been used for long is what it held after a while.
//!
//! Threads do everything that a cache can be asked for, on a log that goes round and round, while the
//! process's own memory, descriptors and maps are counted. The slope of the memory is told by any run and
//! judged from five minutes on: over seconds it is noise. `EMBERCACHE_SOAK` (a factor) makes it longer
//! than six seconds.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    Random, TempDir, TestCache, cases, figure, machine,
    value::{self, value},
    watchdog::watched,
};
use embercache::{Cache, KIB, MIB, WriteBehind};

const KEYS: u64 = 40_000;
/// From here on a slope tells something.
const JUDGED_FROM: Duration = Duration::from_secs(300);

/// What the process holds of the machine.
#[derive(Clone, Copy, Debug)]
struct Held {
    after: Duration,
    anonymous_bytes: u64,
    descriptors: u64,
    maps: u64,
}

#[test]
fn nothing_grows() {
    let _alone = crate::alone();
    let dir = TempDir::new();
    let builder = Cache::builder(dir.cache()).ram(4 * MIB).segment_size(256 * KIB).disk(16 * MIB);
    let cache = builder.write_behind(WriteBehind::After(Duration::from_millis(200))).open().unwrap();
    let run = Duration::from_secs(6) * cases(1) as u32;
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let work = || {
        thread::scope(|scope| {
            for seed in 0..2 {
                let (cache, stop, done) = (&cache, &stop, &done);
                scope.spawn(move || use_all_of_it(cache, Random::new(seed), stop, done));
            }
            let samples = sample(run);
            stop.store(true, Relaxed);
            samples
        })
    };
    let samples = watched(|| done.load(Relaxed), work);
    let stats = cache.stats();
    // By then RAM and disk are full and have been written over.
    let settled = &samples[samples.len() / 3..];
    let (earlier, later) = settled.split_at(settled.len() / 2);
    let slope = bytes_per_10_min(settled);
    let most = |of: fn(&Held) -> u64| [earlier, later].map(|held| held.iter().map(of).max().unwrap());
    let (descriptors, maps) = (most(|held| held.descriptors), most(|held| held.maps));
    figure(
        63,
        &format!(
            "{} s, {} operations, {} records reclaimed: {:.2} MiB more in 10 min, at {} MiB; at most {} and \
             then {} descriptors, {} and then {} maps",
            run.as_secs(),
            stats.ram_hits + stats.disk_hits + stats.misses + stats.inserts,
            stats.reclaimed,
            slope / (1 << 20) as f64,
            settled.last().unwrap().anonymous_bytes >> 20,
            descriptors[0],
            descriptors[1],
            maps[0],
            maps[1],
        ),
    );
    assert!(stats.reclaimed > 1_000, "the log did not go round: nothing was tested");
    // A segment that was read a moment ago is let go of a moment later.
    assert!(descriptors[1] <= descriptors[0] + 12, "{descriptors:?} descriptors");
    assert!(maps[1] <= maps[0] + 24, "{maps:?} maps");
    assert!(run < JUDGED_FROM || slope < (1 << 20) as f64, "{slope} bytes more in 10 min");
}

/// Every operation there is, on values of many sizes.
fn use_all_of_it(cache: &TestCache, mut random: Random, stop: &AtomicBool, done: &AtomicU64) {
    let mut kept = Vec::new();
    while !stop.load(Relaxed) {
        done.fetch_add(1, Relaxed);
        // Some keys are asked for more than others.
        let key = random.below(KEYS).min(random.below(KEYS));
        let len = [24, 100, 700, 4_000][random.below(4) as usize];
        match random.below(100_000) {
            0..30_000 => cache.insert(key, value(key, 1, len)).unwrap(),
            30_000..35_000 => {
                cache.insert_with_ttl(key, value(key, 1, len), Duration::from_millis(300)).unwrap();
            }
            35_000..40_000 => _ = cache.remove(&key).unwrap(),
            40_000..50_000 => _ = cache.get_or_insert_with(&key, || value(key, 1, len)),
            50_000..51_000 => kept.extend(cache.get_many(&[key, key + 1, key + 2]).into_iter().flatten()),
            51_000..51_020 => cache.flush().unwrap(),
            51_020 => cache.clear().unwrap(),
            51_021..52_000 => _ = cache.lease(&key).unwrap().fill(value(key, 1, len)).unwrap(),
            _ => _ = cache.get(&key).map(|found| assert_eq!(value::version(key, &found), 1)),
        }
        if kept.len() > 100 {
            kept.clear();
        }
    }
}

/// Looks at the process, some hundred times.
fn sample(run: Duration) -> Vec<Held> {
    let start = Instant::now();
    let pause = (run / 400).max(Duration::from_millis(30));
    let mut samples = Vec::new();
    while start.elapsed() < run {
        thread::sleep(pause);
        samples.push(Held {
            after: start.elapsed(),
            anonymous_bytes: machine::anonymous_bytes(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count() as u64,
            maps: fs::read_to_string("/proc/self/maps").unwrap().lines().count() as u64,
        });
    }
    samples
}

/// The slope of the line that lies closest to the samples.
fn bytes_per_10_min(samples: &[Held]) -> f64 {
    let points = || samples.iter().map(|held| (held.after.as_secs_f64(), held.anonymous_bytes as f64));
    let count = samples.len() as f64;
    let mean_s = points().map(|(at_s, _)| at_s).sum::<f64>() / count;
    let mean_bytes = points().map(|(_, bytes)| bytes).sum::<f64>() / count;
    let common: f64 = points().map(|(at_s, bytes)| (at_s - mean_s) * (bytes - mean_bytes)).sum();
    let spread: f64 = points().map(|(at_s, _)| (at_s - mean_s).powi(2)).sum();
    common / spread * 600.0
}

/// The arithmetic, since a slope of nothing passes every test.
#[test]
fn a_leak_has_a_slope() {
    let leak = |at_s: u64| Held {
        after: Duration::from_secs(at_s),
        anonymous_bytes: 1_000_000 + at_s * 2_000,
        descriptors: 0,
        maps: 0,
    };
    let samples: Vec<Held> = (0..100).map(leak).collect();
    assert!((bytes_per_10_min(&samples) - 1_200_000.0).abs() < 1.0);
}
