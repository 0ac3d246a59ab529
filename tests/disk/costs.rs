//! What operations cost the disk, counted by the cache and by the disk itself; and what each
//! durability keeps for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::figure;
use embercache::{
    Admission, Builder, Cache, Durability, KIB, MIB, Start, WriteBehind,
    testing::{FaultDisk, Io, MemoryDisk, Moment, Operation, Side},
};

fn builder(disk: impl Io + 'static) -> Builder<u64, Vec<u8>> {
    Cache::builder("cache")
        .ram(MIB)
        .disk(16 * MIB)
        .segment_size(256 * KIB)
        .admission(Admission::All)
        .write_behind(WriteBehind::Never)
        .io(Arc::new(disk))
}

/// All files of a closed cache: a record of 248 bytes, 11 in a footer, 15 in the snapshot, and what they share.
#[test]
fn an_entry_of_216_bytes_takes_275_on_disk() {
    const ENTRIES: usize = 20_000;
    let disk = MemoryDisk::new();
    let builder: Builder<u128, Vec<u8>> = Cache::builder("cache").ram(MIB).disk(64 * MIB);
    let cache = builder.admission(Admission::All).io(Arc::new(disk.clone())).open().unwrap();
    (0..ENTRIES as u128).for_each(|key| cache.insert(key, vec![1; 200]).unwrap());
    cache.close().unwrap();
    let bytes: usize = disk.contents().iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(
        (270 * ENTRIES..275 * ENTRIES).contains(&bytes),
        "{} bytes an entry",
        bytes as f64 / ENTRIES as f64
    );
}

/// Line 62, R3: no copy on disk, no journal write; counted by the cache, and by the disk.
#[test]
fn the_journal_is_written_for_copies_on_disk_only() {
    let (disk, writes) = (FaultDisk::over(Arc::new(MemoryDisk::new())), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&writes);
    disk.watch(move |Moment { operation, file, side, .. }| {
        let is_journal = operation == Operation::Write && side == Side::Before && file.starts_with("inv-");
        counted.fetch_add(u64::from(is_journal), Relaxed);
    });
    let cache = builder(disk).open().unwrap();
    // A file of the journal may be begun by whoever opens.
    let begun = writes.load(Relaxed);
    for key in 0..500 {
        cache.insert(key, vec![1; 100]).unwrap();
        cache.insert(key, vec![2; 100]).unwrap();
        cache.remove(&key).unwrap();
        cache.insert(key, vec![3; 100]).unwrap();
    }
    assert_eq!((cache.stats().journal_entries, writes.load(Relaxed)), (0, begun));
    figure(62, "2,000 inserts and removes of keys without a copy on disk: 0 writes to the journal");
    cache.flush().unwrap();
    assert_eq!(cache.stats().disk_entries, 500);
    assert_eq!(writes.load(Relaxed), begun, "a flush makes nothing void");
    (0..200).for_each(|key| cache.insert(key, vec![4; 100]).unwrap());
    (200..300).for_each(|key| assert!(cache.remove(&key).unwrap()));
    (0..300).for_each(|key| cache.insert(key, vec![5; 100]).unwrap());
    assert_eq!(cache.stats().journal_entries, 300, "one for each copy that was made void");
    assert!(
        writes.load(Relaxed) >= begun + 300,
        "{} writes: the disk does not see them",
        writes.load(Relaxed)
    );
}

/// Stripes that nest in one of the last run's read its part of the snapshot together.
#[test]
fn the_snapshot_is_read_once_by_any_number_of_stripes() {
    const ENTRIES: u64 = 20_000;
    for (from, to) in [(1, 256), (8, 64), (64, 64), (64, 4)] {
        let memory = MemoryDisk::new();
        let cache = builder(memory.clone()).ram(16 * MIB).stripes(from).open().unwrap();
        (0..ENTRIES).for_each(|key| cache.insert(key, vec![1; 16]).unwrap());
        cache.close().unwrap();
        let snapshot_bytes = memory.bytes("cache/index.snap").unwrap().len();
        let (disk, read_bytes) = counting_reads(memory, "index.snap");
        let cache = builder(disk).ram(16 * MIB).stripes(to).open().unwrap();
        assert_eq!((cache.stats().recovery.start, cache.len()), (Start::Clean, ENTRIES));
        let read_bytes = read_bytes.load(Relaxed);
        assert_eq!(read_bytes, snapshot_bytes as u64, "{from} stripes, then {to}");
        (0..ENTRIES).for_each(|key| assert!(cache.contains_key(&key), "key {key}"));
        cache.check();
    }
}

/// All stripes that the snapshot has damaged are made up for by one pass over the footers.
#[test]
fn a_damaged_snapshot_is_made_up_for_once() {
    const ENTRIES: u64 = 20_000;
    let memory = MemoryDisk::new();
    let cache = builder(memory.clone()).ram(16 * MIB).stripes(64).open().unwrap();
    (0..ENTRIES).for_each(|key| cache.insert(key, vec![1; 16]).unwrap());
    cache.close().unwrap();
    let segment_bytes_read = |memory: MemoryDisk, stripes, start| {
        let (disk, read_bytes) = counting_reads(memory, "seg-");
        let cache = builder(disk).ram(16 * MIB).stripes(stripes).open().unwrap();
        assert_eq!((cache.stats().recovery.start, cache.len()), (start, ENTRIES));
        cache.check();
        read_bytes.load(Relaxed)
    };
    let killed = memory.after_kill();
    killed.remove("cache/index.snap");
    let once = segment_bytes_read(killed, 64, Start::Recovered);
    let mut snapshot = memory.bytes("cache/index.snap").unwrap();
    snapshot[64..][..ENTRIES as usize * 15].fill(0);
    memory.overwrite("cache/index.snap", snapshot);
    for stripes in [4, 64, 256] {
        let read_bytes = segment_bytes_read(memory.after_kill(), stripes, Start::Clean);
        assert!(read_bytes <= 2 * once, "{read_bytes} bytes by {stripes} stripes, {once} would do");
    }
}

/// The disk, and how many bytes are read of its files whose names begin so.
fn counting_reads(disk: MemoryDisk, prefix: &'static str) -> (FaultDisk, Arc<AtomicU64>) {
    let (disk, read_bytes) = (FaultDisk::over(Arc::new(disk)), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&read_bytes);
    disk.watch(move |Moment { operation, file, side, bytes }| {
        if operation == Operation::Read && side == Side::After && file.starts_with(prefix) {
            counted.fetch_add(bytes as u64, Relaxed);
        }
    });
    (disk, read_bytes)
}

/// A promoted entry remembers its copy: to evict it again writes nothing.
#[test]
fn to_evict_what_was_promoted_writes_nothing() {
    let cache = builder(MemoryDisk::new()).open().unwrap();
    (0..5_000).for_each(|key| cache.insert(key, vec![1; 1_000]).unwrap());
    cache.flush().unwrap();
    let before = cache.stats();
    for key in 0..5_000 {
        // The second hit is what brings it back.
        assert_eq!(cache.get(&key), Some(vec![1; 1_000]));
        assert_eq!(cache.get(&key), Some(vec![1; 1_000]));
    }
    let after = cache.stats();
    assert!(after.disk_hits > before.disk_hits + 4_000);
    assert!(after.clean_evictions > before.clean_evictions + 3_000);
    assert_eq!(after.record_bytes_written, before.record_bytes_written);
    assert_eq!(after.journal_entries, 0);
}

/// After a restart RAM fills with what is read first, and a scan of the rest pushes nothing of it out.
#[test]
fn what_is_read_once_comes_back_only_where_there_is_room() {
    let disk = MemoryDisk::new();
    let cache = builder(disk.clone()).open().unwrap();
    (0..5_000).for_each(|key| cache.insert(key, vec![1; 1_000]).unwrap());
    cache.close().unwrap();
    let cache = builder(disk.clone()).open().unwrap();
    // To count them takes the whole index: what is read before that is loaded stays on disk.
    assert_eq!(cache.len(), 5_000);
    (0..5_000).for_each(|key| assert_eq!(cache.get(&key), Some(vec![1; 1_000])));
    let scanned = cache.stats();
    assert!(scanned.ram_entries > 500, "{} entries came back", scanned.ram_entries);
    assert!(scanned.evictions < 100, "{} were pushed out", scanned.evictions);
    (0..300).for_each(|key| assert_eq!(cache.get(&key), Some(vec![1; 1_000])));
    assert!(cache.stats().ram_hits >= 270, "{} are in RAM", cache.stats().ram_hits);
}

/// What is overwritten again and again costs a copy and a journal record an interval, or few more.
#[test]
fn write_behind_costs_little_for_what_changes_all_the_time() {
    let interval = Duration::from_millis(200);
    let cache = builder(MemoryDisk::new()).write_behind(WriteBehind::After(interval)).open().unwrap();
    let started = Instant::now();
    let mut overwrites = 0;
    while started.elapsed() < 10 * interval {
        cache.insert(1, vec![1; 100]).unwrap();
        cache.get(&1);
        overwrites += 1;
        thread::sleep(Duration::from_millis(1));
    }
    let stats = cache.stats();
    assert!(overwrites > 200, "{overwrites} overwrites");
    assert!(stats.write_behinds <= 20, "{} copies in ten intervals", stats.write_behinds);
    assert!(stats.journal_entries <= 20, "{} journal records in ten intervals", stats.journal_entries);
    // And one that stays is copied, once.
    cache.insert(2, vec![2; 100]).unwrap();
    cache.get(&2);
    thread::sleep(2 * interval);
    assert!(cache.stats().write_behinds > stats.write_behinds);
}

/// Write-through copies every insert at once.
#[test]
fn write_through_needs_no_flush() {
    let cache = builder(MemoryDisk::new()).write_behind(WriteBehind::Through).open().unwrap();
    (0..100).for_each(|key| cache.insert(key, vec![1; 100]).unwrap());
    let started = Instant::now();
    while cache.stats().disk_entries < 100 {
        assert!(started.elapsed() < Duration::from_secs(20), "{}", cache.stats());
        thread::sleep(Duration::from_millis(5));
    }
}

/// `Clean` pays nothing for invalidations, and keeps a clean close alone.
#[test]
fn clean_durability_keeps_a_clean_close_only() {
    let disk = MemoryDisk::new();
    let open = |disk: &MemoryDisk| builder(disk.clone()).durability(Durability::Clean).open().unwrap();
    let cache = open(&disk);
    (0..100).for_each(|key| cache.insert(key, vec![1; 100]).unwrap());
    cache.flush().unwrap();
    (0..50).for_each(|key| cache.insert(key, vec![2; 100]).unwrap());
    assert_eq!(cache.stats().journal_entries, 0);

    let killed = open(&disk.after_kill());
    assert_eq!(killed.stats().recovery.start, Start::Unclean);
    assert_eq!(killed.len(), 0);

    cache.close().unwrap();
    let again = open(&disk);
    assert_eq!(again.stats().recovery.start, Start::Clean);
    for key in 0..100 {
        assert_eq!(again.get(&key), Some(vec![if key < 50 { 2 } else { 1 }; 100]));
    }
}
