//! From `open` to the first answer, over a directory that was closed, and over one that a killed
//! process left.

mod common;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use embercache::{Cache, MIB, Start};

const ENTRIES: u64 = 100_000;
const VALUE_BYTES: usize = 100;

type Entries = Cache<u64, Vec<u8>>;

fn reopen(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reopen");
    let outer = tempfile::tempdir().unwrap();
    let (dir, killed) = (outer.path().join("cache"), outer.path().join("killed"));
    let cache = open(&dir);
    for key in 0..ENTRIES {
        cache.insert(key, value(key)).unwrap();
    }
    cache.flush().unwrap();
    copy_files(&dir, &killed);
    cache.close().unwrap();
    drop(cache);

    let id = |how: &str| format!("{how}/{ENTRIES}_entries/8B_key/{VALUE_BYTES}B_value");
    assert_all_found(open(&dir));
    group.bench_function(id("after_close"), |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| reopen_once(&dir, Start::Clean)).sum());
    });

    restore(&killed, &dir);
    assert_all_found(open(&dir));
    group.bench_function(id("after_kill"), |bencher| {
        bencher.iter_custom(|iterations| {
            let once = |_| {
                restore(&killed, &dir);
                reopen_once(&dir, Start::Recovered)
            };
            (0..iterations).map(once).sum()
        });
    });
}

fn open(dir: &Path) -> Entries {
    Cache::builder(dir).ram(32 * MIB).disk(256 * MIB).open().unwrap()
}

fn reopen_once(dir: &Path, expected: Start) -> Duration {
    let start = Instant::now();
    let cache = open(dir);
    let answer = cache.get(&(ENTRIES / 2));
    let took = start.elapsed();
    assert_eq!(answer, Some(value(ENTRIES / 2)));
    let recovery = cache.stats().recovery;
    assert_eq!((recovery.start, recovery.entries), (expected, ENTRIES));
    took
}

fn assert_all_found(cache: Entries) {
    for key in 0..ENTRIES {
        assert_eq!(cache.get(&key), Some(value(key)), "not warm");
    }
}

fn value(key: u64) -> Vec<u8> {
    vec![key as u8; VALUE_BYTES]
}

/// Puts the files back as the killed process left them, around the LOCK that tells the directory
/// from a copy.
fn restore(killed: &Path, dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("LOCK") {
            fs::remove_file(path).unwrap();
        }
    }
    copy_files(killed, dir);
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("LOCK") {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

criterion_group! { name = benches; config = common::criterion(); targets = reopen }
criterion_main!(benches);
