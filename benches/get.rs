//! What a hit costs, in either tier.

mod common;

use std::{hint::black_box, sync::Arc};

use common::{Grown, measure, shuffled};
use criterion::{Criterion, criterion_group, criterion_main};
use embercache::{Admission, Cache, Key, MIB, Value};

const ENTRIES: usize = 100_000;

fn ram_hit(criterion: &mut Criterion) {
    ram_hits(criterion, "8B_key/8B_value", |number| number as u64, |number| number as u64);
    let key = |number: usize| (number as u128 * 0x9e37_79b9_7f4a_7c15).to_le_bytes();
    ram_hits(criterion, "16B_key/100B_value", key, |number| Arc::new(vec![number as u8; 100]));
}

fn ram_hits<K: Key, V: Value>(
    criterion: &mut Criterion,
    sizes: &str,
    key: impl Fn(usize) -> K,
    value: impl Fn(usize) -> V,
) {
    let cache: Cache<K, V> = Cache::in_memory().ram(64 * MIB).open().unwrap();
    for number in 0..ENTRIES {
        cache.insert(key(number), value(number)).unwrap();
    }
    assert_eq!(cache.len(), ENTRIES as u64, "they do not all fit");
    let keys: Vec<K> = shuffled(ENTRIES).into_iter().map(key).collect();
    let only_ram_hits = |grown: &Grown, ops: u64| {
        assert_eq!(grown.of(|stats| stats.ram_hits), ops);
        assert_eq!(grown.of(|stats| stats.misses + stats.disk_hits), 0);
    };
    let mut group = criterion.benchmark_group("ram_hit");
    for threads in [1, 2] {
        group.bench_function(format!("get/{sizes}/{threads}_threads"), |bencher| {
            let get = |number: usize| _ = black_box(cache.get(&keys[number % ENTRIES]));
            measure(bencher, &cache, threads, get, only_ram_hits);
        });
        group.bench_function(format!("get_with/{sizes}/{threads}_threads"), |bencher| {
            let get = |number: usize| {
                cache.get_with(&keys[number % ENTRIES], |value| _ = black_box(value)).unwrap()
            };
            measure(bencher, &cache, threads, get, only_ram_hits);
        });
    }
}

/// The files are in the page cache; RAM is far too small for the values.
fn disk_hit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("disk_hit");
    for (value_bytes, entries) in [(200, 100_000), (4096, 20_000)] {
        let dir = tempfile::tempdir().unwrap();
        let builder = Cache::builder(dir.path().join("cache")).ram(4 * MIB).disk(512 * MIB);
        let cache: Cache<u64, Vec<u8>> = builder.admission(Admission::All).open().unwrap();
        for number in 0..entries as u64 {
            cache.insert(number, vec![number as u8; value_bytes]).unwrap();
        }
        cache.flush().unwrap();
        let keys = shuffled(entries);
        keys.iter().for_each(|&key| _ = cache.get(&(key as u64)));
        // What RAM holds now may be what the first sample begins with.
        let in_ram = cache.stats().ram_entries;
        assert!(in_ram * 5 < entries as u64, "{in_ram} of {entries} are in RAM");
        group.bench_function(format!("get/8B_key/{value_bytes}B_value/1_threads"), |bencher| {
            let get = |number: usize| _ = black_box(cache.get(&(keys[number % entries] as u64)));
            measure(bencher, &cache, 1, get, |grown, ops| {
                assert_eq!(grown.of(|stats| stats.misses), 0);
                assert_eq!(grown.of(|stats| stats.spills), 0, "measures writes as well");
                let disk_hits = grown.of(|stats| stats.disk_hits);
                assert!(disk_hits + in_ram >= ops * 95 / 100, "only {disk_hits} of {ops} came from disk");
            });
        });
    }
}

criterion_group! { name = benches; config = common::criterion(); targets = ram_hit, disk_hit }
criterion_main!(benches);
