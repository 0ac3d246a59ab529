//! What an insert costs in a cache that is full, so that each one pushes another out.

mod common;

use common::measure;
use criterion::{Criterion, criterion_group, criterion_main};
use embercache::{Admission, Cache, KIB, MIB, WriteBehind};

const VALUE_BYTES: usize = 100;
/// More entries than fit in RAM here.
const FILL: u64 = 200_000;
/// More entries than ever wait for the disk, and than the policy is ahead or behind by.
const SLACK: u64 = 50_000;

fn insert(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("insert");
    let cache: Cache<u64, Vec<u8>> = Cache::in_memory().ram(8 * MIB).open().unwrap();
    fill(&cache);
    group.bench_function("ram_only/8B_key/100B_value/1_threads", |bencher| {
        measure(
            bencher,
            &cache,
            1,
            |number| insert_one(&cache, number),
            |grown, ops| {
                assert_eq!(grown.of(|stats| stats.inserts), ops);
                assert!(grown.of(|stats| stats.evictions) + SLACK >= ops, "not full");
            },
        );
    });

    let dir = tempfile::tempdir().unwrap();
    let builder =
        Cache::builder(dir.path().join("cache")).ram(8 * MIB).disk(256 * MIB).segment_size(8192 * KIB);
    let builder = builder.admission(Admission::All).write_behind(WriteBehind::Never);
    let cache: Cache<u64, Vec<u8>> = builder.open().unwrap();
    fill(&cache);
    group.bench_function("spilling/8B_key/100B_value/1_threads", |bencher| {
        measure(
            bencher,
            &cache,
            1,
            |number| insert_one(&cache, number),
            |grown, ops| {
                assert_eq!(grown.of(|stats| stats.inserts), ops);
                assert!(grown.of(|stats| stats.spills) + SLACK >= ops, "what is pushed out is not written");
                assert_eq!(grown.of(|stats| stats.shed + stats.write_failures), 0);
            },
        );
    });
}

fn fill(cache: &Cache<u64, Vec<u8>>) {
    for key in 0..FILL {
        cache.insert(key, vec![0; VALUE_BYTES]).unwrap();
    }
    assert!(cache.stats().evictions > 0, "not full");
}

/// A key that was never there.
fn insert_one(cache: &Cache<u64, Vec<u8>>, number: usize) {
    cache.insert(FILL + number as u64, vec![number as u8; VALUE_BYTES]).unwrap();
}

criterion_group! { name = benches; config = common::criterion(); targets = insert }
criterion_main!(benches);
