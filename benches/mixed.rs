//! What a cache does all day: look up, and insert what was not there. Zipf 0.99 over more keys than
//! RAM holds.

mod common;

use std::hint::black_box;

use common::{measure, zipf};
use criterion::{Criterion, criterion_group, criterion_main};
use embercache::{Cache, MIB};

const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 100;
/// Enough to bring the cache into its steady state.
const WARM_UP: usize = 500_000;

fn mixed(criterion: &mut Criterion) {
    let keys = zipf(KEYS, 0.99, 1 << 20);
    let mut group = criterion.benchmark_group("mixed");
    let cache = Cache::in_memory().ram(4 * MIB).open().unwrap();
    warm_up(&cache, &keys);
    let stats = cache.stats();
    assert!((0.4..0.99).contains(&stats.hit_ratio()) && stats.evictions > 0, "{stats}");
    group.bench_function("ram_only/zipf0.99/100000_keys/8B_key/100B_value/1_threads", |bencher| {
        measure(
            bencher,
            &cache,
            1,
            |number| step(&cache, &keys, number),
            |grown, ops| {
                assert_eq!(grown.of(|stats| stats.ram_hits + stats.misses), ops);
                assert_eq!(grown.of(|stats| stats.inserts), grown.of(|stats| stats.misses));
            },
        );
    });

    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::builder(dir.path().join("cache")).ram(8 * MIB).disk(128 * MIB).open().unwrap();
    warm_up(&cache, &keys);
    let stats = cache.stats();
    assert!(stats.disk_hits > 0 && stats.evictions > 0, "{stats}");
    group.bench_function("two_tiers/zipf0.99/100000_keys/8B_key/100B_value/1_threads", |bencher| {
        measure(
            bencher,
            &cache,
            1,
            |number| step(&cache, &keys, number),
            |grown, ops| {
                assert_eq!(grown.of(|stats| stats.ram_hits + stats.disk_hits + stats.misses), ops);
                assert_eq!(grown.of(|stats| stats.inserts), grown.of(|stats| stats.misses));
            },
        );
    });
}

fn warm_up(cache: &Cache<u64, Vec<u8>>, keys: &[usize]) {
    (0..WARM_UP).for_each(|number| step(cache, keys, number));
}

fn step(cache: &Cache<u64, Vec<u8>>, keys: &[usize], number: usize) {
    let key = keys[number % keys.len()] as u64;
    if black_box(cache.get(&key)).is_none() {
        cache.insert(key, vec![key as u8; VALUE_BYTES]).unwrap();
    }
}

criterion_group! { name = benches; config = common::criterion(); targets = mixed }
criterion_main!(benches);
