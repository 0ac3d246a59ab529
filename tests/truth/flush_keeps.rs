//! What a flush makes room for must not cost what it has already seen: the disk is full, and the
//! segments that it reclaims hold the copies of entries that stay in RAM.

use std::sync::Arc;

use embercache::{Admission, Builder, Cache, KIB, WriteBehind, testing::MemoryDisk};

/// They are the first in RAM and the oldest on disk, all in one segment.
const OLD: std::ops::Range<u64> = 0..40;
/// They fill the disk: they are flushed and removed again.
const FILLER: std::ops::Range<u64> = 1_000..1_800;
/// For them a flush has to reclaim more than that segment.
const NEW: std::ops::Range<u64> = 5_000..5_150;

fn builder(disk: &MemoryDisk) -> Builder<u64, Vec<u8>> {
    Cache::builder("cache")
        .ram_entries(4_000)
        .stripes(1)
        .disk(16 * 64 * KIB)
        .segment_size(64 * KIB)
        .admission(Admission::All)
        .write_behind(WriteBehind::Never)
        .io(Arc::new(disk.clone()))
}

fn full_disk(disk: &MemoryDisk) -> Cache<u64, Vec<u8>> {
    let cache = builder(disk).open().unwrap();
    let insert = |key| cache.insert(key, vec![key as u8; 1_000]).unwrap();
    OLD.for_each(insert);
    cache.flush().unwrap();
    FILLER.for_each(insert);
    cache.flush().unwrap();
    FILLER.for_each(|key| assert!(cache.remove(&key).unwrap()));
    NEW.for_each(insert);
    cache
}

fn assert_all_there(cache: &Cache<u64, Vec<u8>>) {
    let lost: Vec<u64> = OLD.chain(NEW).filter(|key| !cache.contains_key(key)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), OLD.count() + NEW.count());
}

#[test]
fn what_a_close_reclaims_it_writes_again() {
    let disk = MemoryDisk::new();
    full_disk(&disk).close().unwrap();
    assert_all_there(&builder(&disk).open().unwrap());
}

#[test]
fn what_a_flush_reclaims_it_writes_again() {
    let disk = MemoryDisk::new();
    let cache = full_disk(&disk);
    cache.flush().unwrap();
    assert_all_there(&builder(&disk.after_kill()).open().unwrap());
}
