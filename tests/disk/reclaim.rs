//! What was read of a segment that makes room is written again, also where there is no segment to write it to yet, and
//! where the disk fails in the middle of it.

use std::{
    io::ErrorKind,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::common::{TestCache, wait_until};
use embercache::{
    Admission, Builder, Cache, KIB, MIB, WriteBehind,
    testing::{FaultDisk, Io, MemoryDisk, Moment, Operation, Side},
};

const SEGMENT_BYTES: u64 = 64 * KIB;
/// They are in the oldest segment, and read since they were written.
const READ: Range<u64> = 0..40;
const VALUE_BYTES: usize = 1_000;

fn builder(io: impl Io + 'static, disk_bytes: u64) -> Builder<u64, Vec<u8>> {
    Cache::builder("cache")
        .ram_entries(8)
        .stripes(1)
        .segment_size(SEGMENT_BYTES)
        .disk(disk_bytes)
        .admission(Admission::All)
        .write_behind(WriteBehind::Never)
        .io(Arc::new(io))
}

/// So many entries behind them.
fn fill(cache: &TestCache, others: u64) {
    let insert = |key| cache.insert(key, vec![key as u8; VALUE_BYTES]).unwrap();
    READ.for_each(insert);
    cache.flush().unwrap();
    // So that they leave RAM.
    (1_000..1_020).for_each(insert);
    cache.flush().unwrap();
    READ.for_each(|key| assert!(cache.get(&key).is_some()));
    (2_000..2_000 + others).for_each(insert);
    cache.flush().unwrap();
}

fn left(cache: &TestCache) -> usize {
    READ.filter(|key| cache.contains_key(key)).count()
}

/// A directory is opened with a smaller capacity, and cut down before a segment was begun.
#[test]
fn a_directory_that_is_cut_down_keeps_what_was_read() {
    let disk = MemoryDisk::new();
    let cache = builder(disk.clone(), MIB).open().unwrap();
    fill(&cache, 800);
    assert_eq!((left(&cache), cache.stats().reclaimed), (READ.count(), 0));
    cache.close().unwrap();
    let cache = builder(disk.clone(), 12 * SEGMENT_BYTES).open().unwrap();
    wait_until("it is cut down", Duration::from_secs(20), || {
        cache.stats().reclaimed > 0 && cache.disk_bytes() + SEGMENT_BYTES <= 12 * SEGMENT_BYTES
    });
    assert_eq!(left(&cache), READ.count(), "{:?}", cache.stats());
}

/// One write fails, and those after it do not: the segment waits for the disk.
#[test]
fn a_write_that_fails_costs_nothing_that_was_read() {
    let disk = FaultDisk::over(Arc::new(MemoryDisk::new()));
    let cache = builder(disk.clone(), MIB).open().unwrap();
    let has_begun = Arc::new(AtomicBool::new(false));
    disk.watch({
        let (disk, has_begun, has_failed) = (disk.clone(), Arc::clone(&has_begun), AtomicBool::new(false));
        move |Moment { operation, file, side, bytes }| {
            if !file.starts_with("seg-") || thread::current().name() != Some("embercache") {
                return;
            }
            match (operation, side) {
                (Operation::Read, Side::After) if bytes == VALUE_BYTES => has_begun.store(true, SeqCst),
                (Operation::Write, Side::Before)
                    if has_begun.load(SeqCst) && !has_failed.swap(true, SeqCst) =>
                {
                    disk.fail_nth_write(1, ErrorKind::Interrupted);
                }
                _ => {}
            }
        }
    });
    fill(&cache, 700);
    let mut key = 10_000;
    while !has_begun.load(SeqCst) {
        cache.insert(key, vec![0; VALUE_BYTES]).unwrap();
        key += 1;
        if key.is_multiple_of(16) {
            let _ = cache.flush();
        }
    }
    wait_until("the disk is tried again", Duration::from_secs(20), || {
        cache.insert(0xf1a5, vec![1; VALUE_BYTES]).unwrap();
        cache.flush().is_ok() && cache.stats().reinsertions > 0
    });
    let stats = cache.stats();
    assert!(stats.write_failures > 0 || stats.reinsertions > 0, "{stats:?}");
    assert!(
        left(&cache) >= READ.count() * 9 / 10,
        "{} of {} are left: {stats:?}",
        left(&cache),
        READ.count()
    );
}
