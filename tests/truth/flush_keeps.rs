//! What a flush makes room for must not cost what it has already seen: the disk is full, and the
//! segments that it reclaims hold the copies of entries that stay in RAM.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use embercache::{
    Admission, Builder, Cache, Durability, KIB, MIB, Start, WriteBehind,
    testing::{FaultDisk, MemoryDisk, Moment, Operation, Side},
};

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

/// The copy of an entry that is hit again and again ends when the entry would have without these hits: it has to be
/// renewed, or the hottest entries are those that a restart forgets. Once the entry is removed, none of its copies may be
/// back.
#[test]
fn what_is_hit_again_and_again_does_not_idle_out_on_disk() {
    const IDLE: Duration = Duration::from_secs(10);
    for is_close in [true, false] {
        let disk = MemoryDisk::new();
        let open = |disk: &MemoryDisk| builder(disk).time_to_idle(IDLE).open().unwrap();
        let cache = open(&disk);
        cache.insert(1, vec![1]).unwrap();
        cache.flush().unwrap();
        for _ in 0..10 {
            disk.advance_clock(IDLE * 3 / 10);
            assert!(cache.get(&1).is_some(), "it was hit three seconds ago");
        }
        if is_close { cache.close() } else { cache.flush() }.unwrap();
        let left = disk.after_kill();
        assert_eq!(open(&left).get(&1), Some(vec![1]), "closed: {is_close}");

        let left = disk.after_kill();
        left.advance_clock(IDLE + Duration::from_secs(1));
        assert_eq!(open(&left).get(&1), None, "it has idled out");
        if !is_close {
            cache.remove(&1).unwrap();
            assert_eq!(open(&disk.after_kill()).get(&1), None, "it came back");
        }
    }
}

/// An entry comes back from disk when there is no time to idle any more, and lives on; its copy would still end.
#[test]
fn an_entry_whose_time_to_idle_was_taken_away() {
    let disk = MemoryDisk::new();
    let builder = |disk: &MemoryDisk| {
        let builder = Cache::<u64, String>::builder("cache").ram(MIB).disk(MIB).segment_size(64 * KIB);
        builder.write_behind(WriteBehind::Never).io(Arc::new(disk.clone()))
    };
    let cache = builder(&disk).time_to_idle(Duration::from_secs(5)).open().unwrap();
    cache.insert(1, "v1".into()).unwrap();
    cache.close().unwrap();
    let cache = builder(&disk).open().unwrap();
    assert!(cache.get(&1).is_some());
    disk.advance_clock(Duration::from_secs(60));
    assert!(cache.get(&1).is_some(), "it idles no more");
    cache.flush().unwrap();
    let cache = builder(&disk.after_kill()).open().unwrap();
    assert_eq!(cache.get(&1).as_deref(), Some("v1"), "a flush has kept it");
}

/// The first hit under another time to idle has the copy made anew, which takes a moment and no flush.
#[test]
fn what_is_hit_under_another_time_to_idle_is_copied_anew() {
    const HOUR: Duration = Duration::from_secs(3_600);
    const KEYS: u64 = 100;
    for (before, after) in [(None, Some(HOUR)), (Some(2 * HOUR), Some(HOUR)), (Some(HOUR), None)] {
        let disk = MemoryDisk::new();
        let open = |disk: &MemoryDisk, idle: Option<Duration>| {
            let builder = Cache::<u64, u64>::builder("cache").ram(MIB).disk(MIB).segment_size(64 * KIB);
            let builder = builder.write_behind(WriteBehind::Never).io(Arc::new(disk.clone()));
            idle.into_iter().fold(builder, Builder::time_to_idle).open().unwrap()
        };
        let cache = open(&disk, before);
        (0..KEYS).for_each(|key| cache.insert(key, key).unwrap());
        cache.close().unwrap();
        let cache = open(&disk, after);
        assert!((0..KEYS).all(|key| cache.get(&key).is_some()));
        let found = || {
            let left = open(&disk.after_kill(), after);
            assert_eq!(left.stats().recovery.start, Start::Recovered);
            (0..KEYS).filter(|key| left.contains_key(key)).count() as u64
        };
        let end = Instant::now() + Duration::from_secs(10);
        while found() < KEYS && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(found(), KEYS, "{before:?}, and then {after:?}");
        cache.check();
    }
}

/// A new copy is refused, as this run's segments are smaller or its filter says no. The one that there was stays.
#[test]
fn a_copy_that_cannot_be_renewed_stays() {
    const IDLE: Duration = Duration::from_secs(3_600);
    for is_filtered in [false, true] {
        let disk = MemoryDisk::new();
        let open = |disk: &MemoryDisk, is_first: bool| {
            let builder =
                Cache::<u64, String>::builder("cache").ram(8 * MIB).disk(16 * MIB).time_to_idle(IDLE);
            let builder = builder.segment_size(if is_first || is_filtered { MIB } else { 64 * KIB });
            let builder = builder.disk_filter(move |_, _| is_first || !is_filtered);
            builder.write_behind(WriteBehind::Never).io(Arc::new(disk.clone())).open().unwrap()
        };
        let cache = open(&disk, true);
        cache.insert(1, "x".repeat(100_000)).unwrap();
        cache.close().unwrap();
        let cache = open(&disk, false);
        assert!(cache.get(&1).is_some());
        disk.advance_clock(IDLE * 2 / 3);
        assert!(cache.get(&1).is_some());
        cache.flush().unwrap();
        let stats = cache.stats();
        assert_eq!(stats.unspillable + stats.too_large, 1, "it was to be renewed");
        assert!(open(&disk.after_kill(), false).get(&1).is_some(), "filtered: {is_filtered}");
        cache.check();
    }
}

/// Opened for reading only there is nothing to be copied again: what comes back keeps its copy, and is there again when
/// it has left RAM.
#[test]
fn a_reader_keeps_what_would_end() {
    const KEYS: u64 = 100;
    let disk = MemoryDisk::new();
    let builder = || {
        let builder = Cache::<u64, String>::builder("cache").ram_entries(8).disk(MIB).segment_size(64 * KIB);
        builder.admission(Admission::All).io(Arc::new(disk.clone()))
    };
    let cache = builder().time_to_idle(Duration::from_secs(60)).open().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, format!("value {key}")).unwrap());
    cache.close().unwrap();
    let reader = builder().read_only().open().unwrap();
    for round in 0..3 {
        let found = (0..KEYS).filter(|key| reader.get(key).is_some()).count() as u64;
        assert_eq!(found, KEYS, "round {round}");
    }
}

/// A look-up meets a damaged record while the close has its snapshot, and must not spoil that.
#[test]
fn damage_that_is_met_during_a_close() {
    let memory = MemoryDisk::new();
    let disk = FaultDisk::over(Arc::new(memory.clone()));
    let builder = || {
        let builder = Cache::<u64, String>::builder("cache").ram_entries(8).disk(MIB).segment_size(64 * KIB);
        builder.durability(Durability::Clean).admission(Admission::All).io(Arc::new(disk.clone()))
    };
    let cache = Arc::new(builder().open().unwrap());
    (0..100).for_each(|key| cache.insert(key, format!("value {key}")).unwrap());
    cache.flush().unwrap();
    let path = Path::new("cache/seg-00000000.log");
    let mut segment = memory.bytes(path).unwrap();
    let at = segment.windows(8).position(|bytes| bytes == b"value 0\0").expect("the first record");
    segment[at] ^= 1;
    memory.overwrite(path, segment);
    disk.watch({
        let cache = Arc::downgrade(&cache);
        move |Moment { operation, side, .. }| {
            if operation == Operation::Rename && side == Side::After {
                assert_eq!(cache.upgrade().unwrap().get(&0), None, "it is damaged");
            }
        }
    });
    cache.close().unwrap();
    drop(cache);
    let cache = builder().open().unwrap();
    assert_eq!(cache.stats().recovery.start, Start::Clean);
    assert_eq!((1..100).filter(|key| cache.get(key).is_some()).count(), 99);
}
