//! Rare ways for an old value to come back, each once found by reading the code. The disk is in
//! memory, so that the process can be "killed" at a chosen moment.

use std::{
    io::ErrorKind,
    path::Path,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::common::wait_until;
use embercache::{
    Admission, Builder, Cache, Durability, KIB, MIB, Start, WriteBehind,
    testing::{FaultDisk, Io, MemoryDisk, Moment, Operation, Side},
};

const SECOND: Duration = Duration::from_secs(1);

fn builder(disk: &MemoryDisk) -> Builder<u64, String> {
    Cache::builder("cache")
        .ram(MIB)
        .disk(MIB)
        .segment_size(64 * KIB)
        .write_behind(WriteBehind::Never)
        .io(Arc::new(disk.clone()))
}

/// A cache with `v1` under key 1, on disk alone, from a run with the given options.
fn with_v1_on_disk(disk: &MemoryDisk, ttl: Option<Duration>) {
    let cache = builder(disk).open().unwrap();
    match ttl {
        Some(ttl) => cache.insert_with_ttl(1, "v1".into(), ttl).unwrap(),
        None => cache.insert(1, "v1".into()).unwrap(),
    }
    cache.close().unwrap();
}

/// Opens what a SIGKILL at this moment would leave.
fn killed(disk: &MemoryDisk) -> (MemoryDisk, Cache<u64, String>) {
    let left = disk.after_kill();
    let cache = builder(&left).open().unwrap();
    assert_eq!(cache.stats().recovery.start, Start::Recovered, "a cold start would prove nothing");
    (left, cache)
}

/// A copy written without a time to idle would outlast the entry that is promoted from it, and the
/// index would forget it without the journal when that expires.
#[test]
fn a_copy_from_before_the_time_to_idle_was_set() {
    let disk = MemoryDisk::new();
    with_v1_on_disk(&disk, None);
    let cache = builder(&disk).time_to_idle(5 * SECOND).open().unwrap();
    assert_eq!(cache.get(&1).as_deref(), Some("v1"));
    disk.advance_clock(6 * SECOND);
    assert_eq!(cache.get(&1), None, "it has idled too long");
    assert_eq!(cache.get(&1), None, "it came back from disk");
    assert_eq!(killed(&disk).1.get(&1), None, "it came back after a SIGKILL");
    cache.insert(1, "v2".into()).unwrap();
    assert_eq!(killed(&disk).1.get(&1), None, "the overwritten value came back");
}

/// As above, of an entry that cannot come into RAM, where its hits would be noted.
#[test]
fn an_entry_too_large_for_ram_idles_out_too() {
    let disk = MemoryDisk::new();
    let large = |ram| builder(&disk).ram(ram).disk(16 * MIB).segment_size(4 * MIB);
    let cache = large(16 * MIB).open().unwrap();
    cache.insert(1, "v1".repeat(300 << 10)).unwrap();
    cache.close().unwrap();
    let cache = large(MIB).time_to_idle(5 * SECOND).open().unwrap();
    cache.get(&1);
    disk.advance_clock(60 * SECOND);
    assert_eq!(cache.get(&1).map(|value| value.len()), None, "it was hit a minute ago");
}

/// A promoted entry and its copy expire in the same moment, or an overwrite in between finds
/// nothing on disk and is not journaled.
#[test]
fn an_overwrite_when_a_promoted_entry_has_just_expired() {
    for early_ms in 0..30 {
        let disk = MemoryDisk::new();
        disk.advance_clock(Duration::from_millis(early_ms * 37));
        with_v1_on_disk(&disk, Some(3 * SECOND));
        let cache = builder(&disk).open().unwrap();
        assert_eq!(cache.get(&1).as_deref(), Some("v1"));
        while cache.get(&1).is_some() {
            disk.advance_clock(Duration::from_millis(1));
        }
        cache.insert(1, "v2".into()).unwrap();
        assert_eq!(killed(&disk).1.get(&1), None, "{early_ms} ms");
    }
}

/// So many records that two threads recover them, some of keys that were overwritten or removed since.
#[test]
fn among_many_that_are_recovered() {
    const KEYS: u64 = 70_000;
    let disk = MemoryDisk::new();
    let large = |disk: &MemoryDisk| builder(disk).ram(16 * MIB).disk(32 * MIB).segment_size(MIB);
    let cache = large(&disk).open().unwrap();
    for key in 0..KEYS {
        cache.insert(key, format!("v1 of {key}")).unwrap();
    }
    cache.flush().unwrap();
    for key in (0..KEYS).step_by(3) {
        cache.insert(key, format!("v2 of {key}")).unwrap();
        cache.remove(&(key + 1)).unwrap();
    }
    cache.flush().unwrap();
    let cache = large(&disk.after_kill()).open().unwrap();
    let recovery = cache.stats().recovery;
    assert_eq!((recovery.start, recovery.entries), (Start::Recovered, KEYS - KEYS / 3));
    for key in 0..KEYS {
        let expected = match key % 3 {
            0 => Some(format!("v2 of {key}")),
            1 => None,
            _ => Some(format!("v1 of {key}")),
        };
        assert_eq!(cache.get(&key), expected, "key {key}");
    }
    cache.check();
}

/// A bit of STATE's newest slot rots, and the older one is of before the first journal file.
#[test]
fn an_older_slot_of_state() {
    let disk = MemoryDisk::new();
    let cache = builder(&disk).open().unwrap();
    cache.insert(1, "v1".into()).unwrap();
    cache.flush().unwrap();
    cache.insert(1, "v2".into()).unwrap();
    for slot in 0..2 {
        let left = disk.after_kill();
        let path = Path::new("cache/STATE");
        let contents = left.contents();
        let (_, mut state) = contents.into_iter().find(|(name, _)| name == path).unwrap();
        state[slot * 512 + 100] ^= 1;
        left.put(path, state);
        let cache = builder(&left).open().unwrap();
        assert_ne!(cache.get(&1).as_deref(), Some("v1"), "slot {slot}");
    }
}

/// Only the journal says that a segment is dead which cannot be unlinked; so the journal must not
/// go before it, in whichever run.
#[test]
fn a_dead_segment_that_cannot_be_unlinked() {
    let disk = MemoryDisk::new();
    let filler = "x".repeat(900);
    let cache = builder(&disk).open().unwrap();
    cache.insert(1, format!("v1{filler}")).unwrap();
    cache.insert(2, "the journal has its file from the start".into()).unwrap();
    cache.flush().unwrap();
    cache.remove(&2).unwrap();
    disk.keep_segments(true);
    (1_000..4_000).for_each(|key| cache.insert(key, filler.clone()).unwrap());
    cache.flush().unwrap();
    cache.remove(&1).unwrap();

    let (disk, cache) = killed(&disk);
    assert_eq!(cache.get(&1), None);
    disk.keep_segments(false);
    // The journal moves on by several files, and all segments are new.
    for round in 0..40 {
        (0..1_000).for_each(|key| cache.insert(10_000 + key, round.to_string()).unwrap());
        cache.flush().unwrap();
    }
    (1_000..4_000).for_each(|key| cache.insert(key, filler.clone()).unwrap());
    cache.flush().unwrap();
    assert_eq!(killed(&disk).1.get(&1), None, "it was removed");
}

/// Reclaim has seen that a record is live and reads it to write it again, and in this moment its key is removed. Were
/// it written, it would be younger than the removal.
#[test]
fn a_key_removed_while_its_record_is_written_again() {
    const KEYS: u64 = 16;
    const VALUE_BYTES: usize = 1_234;
    let memory = MemoryDisk::new();
    let disk = FaultDisk::over(Arc::new(memory.clone()));
    let cache = Arc::new(OnceLock::<Weak<Cache<u64, String>>>::new());
    let has_removed = Arc::new(AtomicBool::new(false));
    disk.watch({
        let (cache, has_removed) = (Arc::clone(&cache), Arc::clone(&has_removed));
        move |Moment { operation, file, side, bytes }| {
            let is_value = operation == Operation::Read && file.starts_with("seg-") && bytes == VALUE_BYTES;
            let is_reclaim = thread::current().name() == Some("embercache");
            // The removes read what they remove.
            if is_value && is_reclaim && side == Side::After && !has_removed.swap(true, SeqCst) {
                let cache = cache.get().and_then(Weak::upgrade).unwrap();
                (0..KEYS).for_each(|key| _ = cache.remove(&key).unwrap());
            }
        }
    });
    let small = builder(&memory).ram_entries(8).disk(256 * KIB).reinsertion(75).admission(Admission::All);
    let opened = Arc::new(small.io(Arc::new(disk)).open().unwrap());
    cache.set(Arc::downgrade(&opened)).unwrap();
    (0..KEYS).for_each(|key| opened.insert(key, "1".repeat(VALUE_BYTES)).unwrap());
    opened.flush().unwrap();
    // What is read on disk and not in RAM is worth another write.
    assert!((0..KEYS).all(|key| opened.get(&key).is_some()));
    let mut fillers = (1_000..2_000).take_while(|_| !has_removed.load(SeqCst));
    fillers.try_for_each(|key| opened.insert(key, "x".repeat(900))).unwrap();
    opened.flush().unwrap();
    assert!(has_removed.load(SeqCst), "nothing was written again");
    for key in 0..KEYS {
        assert_eq!(opened.get(&key), None);
        assert_eq!(killed(&memory).1.get(&key), None, "key {key} is back");
    }
}

/// A copy that outlasts its entry is made void, and before the journal's word on it is durable reclaim comes by.
/// Written again the record would be younger than that word, and nothing would name it.
#[test]
fn a_copy_that_is_made_void_while_its_segment_is_reclaimed() {
    const VALUE_BYTES: usize = 1_234;
    const LIMIT: Duration = Duration::from_secs(20);
    let memory = MemoryDisk::new();
    let disk = FaultDisk::over(Arc::new(memory.clone()));
    let builder = |disk: &FaultDisk| {
        let builder = builder(&memory).ram_entries(1_000).stripes(1).disk(256 * KIB).reinsertion(75);
        let builder = builder.admission(Admission::All).durability(Durability::PowerLoss);
        builder.io(Arc::new(disk.clone()))
    };
    let cache = builder(&disk).open().unwrap();
    (1..3).for_each(|key| cache.insert(key, "1".repeat(VALUE_BYTES)).unwrap());
    cache.close().unwrap();

    let builder = |disk: &FaultDisk| builder(disk).time_to_idle(3_600 * SECOND);
    let cache = Arc::new(builder(&disk).open().unwrap());
    // The journal has its file, whose own sync comes under a lock.
    assert!(cache.remove(&2).unwrap());
    // More than there is room for on disk.
    (1_000..1_400).for_each(|key| cache.insert(key, "x".repeat(900)).unwrap());
    let [is_voiding, has_come_by, is_read, has_got] = [(); 4].map(|()| Arc::new(AtomicBool::new(false)));
    let left = Arc::new(OnceLock::new());
    disk.watch({
        let flags = [&is_voiding, &has_come_by, &is_read, &has_got].map(Arc::clone);
        let (cache, memory, left) = (Arc::downgrade(&cache), memory.clone(), Arc::clone(&left));
        move |Moment { operation, file, side, bytes }| {
            let [is_voiding, has_come_by, is_read, has_got] = &flags;
            let is_reclaim = thread::current().name() == Some("embercache");
            let is_first = |flag: &AtomicBool| side == Side::Before && !flag.swap(true, SeqCst);
            match operation {
                Operation::Sync if !is_reclaim && file.starts_with("inv-") && is_first(is_voiding) => {
                    wait_until("reclaim comes by", LIMIT, || has_come_by.load(SeqCst));
                }
                Operation::Read if is_reclaim && is_voiding.load(SeqCst) && bytes == VALUE_BYTES => {
                    is_read.store(true, SeqCst);
                }
                // That of the record, if it is written again.
                Operation::Write if is_read.load(SeqCst) && file.starts_with("seg-") => {
                    if is_first(has_come_by) {
                        wait_until("the look-up has ended", LIMIT, || has_got.load(SeqCst));
                    } else if side == Side::After && left.get().is_none() {
                        assert!(cache.upgrade().unwrap().remove(&1).unwrap());
                        left.set(memory.after_kill()).unwrap();
                    }
                }
                // The segment is dead without that.
                Operation::Write if is_reclaim && is_voiding.load(SeqCst) && file.starts_with("inv-") => {
                    has_come_by.store(true, SeqCst);
                }
                _ => {}
            }
        }
    });
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(cache.get(&1).is_some());
            has_got.store(true, SeqCst);
        });
        wait_until("the copy is made void", LIMIT, || is_voiding.load(SeqCst));
        cache.flush().unwrap();
    });
    assert!(has_come_by.load(SeqCst), "nothing happened meanwhile");
    let after_remove = || {
        assert!(cache.remove(&1).unwrap());
        memory.after_kill()
    };
    let left = FaultDisk::over(Arc::new(left.get().cloned().unwrap_or_else(after_remove)));
    let found = builder(&left).open().unwrap();
    assert_eq!(found.stats().recovery.start, Start::Recovered);
    assert_eq!(found.get(&1), None, "it was removed");
}

/// A copy is read in time and brought back into RAM too late: somebody was told in between that it has expired.
#[test]
fn a_copy_that_expires_while_it_is_read() {
    let disk = MemoryDisk::new();
    let builder = || builder(&disk).admission(Admission::All);
    let expires_meanwhile = |cache: Cache<u64, String>| {
        let has_read = cache.get_with(&1, |_| {
            disk.advance_clock(6 * SECOND);
            assert!(!cache.contains_key(&1), "it has idled for longer than it may");
        });
        assert!(has_read.is_some());
        assert_eq!(cache.get(&1), None, "it is back");
    };
    let idles = || builder().time_to_idle(5 * SECOND).open().unwrap();
    let cache = idles();
    cache.insert(1, "v1".into()).unwrap();
    cache.close().unwrap();
    expires_meanwhile(idles());
    // The same, where entries no longer expire so that it comes back as one that does not.
    let cache = idles();
    cache.insert(1, "v1".into()).unwrap();
    cache.close().unwrap();
    expires_meanwhile(builder().open().unwrap());
}

/// A record was written again, and its new segment is given up since it cannot be synced, while the old one is
/// still there: it must not be taken for the key's once a change has found nothing on disk to make void.
#[test]
fn the_old_place_of_a_record_whose_new_one_was_given_up() {
    /// As many as are left alone, though they hold little, and one.
    const RUNS: u64 = 17;
    let memory = MemoryDisk::new();
    let disk = FaultDisk::over(Arc::new(memory.clone()));
    let builder = || {
        let builder = builder(&memory).disk(64 * MIB).segment_size(4 * MIB).durability(Durability::PowerLoss);
        builder.io(Arc::new(disk.clone()))
    };
    for run in 0..RUNS {
        let cache = builder().open().unwrap();
        cache.insert(1_000 + run, "v1".into()).unwrap();
        cache.close().unwrap();
    }
    let cache = builder().open().unwrap();
    cache.insert(0, "that a segment is begun".into()).unwrap();
    disk.fail_syncs_of("seg-", ErrorKind::Other);
    cache.flush().unwrap_err();
    assert!(cache.stats().reinserted_bytes_written > 0, "nothing was written again");
    cache.insert(1_000, "v2".into()).unwrap();
    assert_ne!(killed(&memory).1.get(&1_000).as_deref(), Some("v1"));
    cache.remove(&1_000).unwrap();
    assert_eq!(killed(&memory).1.get(&1_000), None, "it was removed");
}

/// A flush of many batches takes minutes, in which an entry expires and is seen to have. After a loss of power the
/// wall clock is set to a time before that.
#[test]
fn what_has_expired_within_a_long_flush() {
    const EXPIRING: u64 = 1 << 40;
    let memory = MemoryDisk::new();
    let begun = memory.wall_time();
    let disk = FaultDisk::over(Arc::new(memory.clone()));
    let builder = |disk: FaultDisk| {
        let builder = builder(&memory).ram(8 * MIB).disk(32 * MIB).segment_size(MIB).io(Arc::new(disk));
        builder.durability(Durability::PowerLoss)
    };
    let cache = Arc::new(builder(disk.clone()).open().unwrap());
    cache.insert_with_ttl(EXPIRING, "v1".into(), 180 * SECOND).unwrap();
    cache.flush().unwrap();
    (0..2_000).for_each(|key| cache.insert(key, "x".repeat(1_000)).unwrap());
    let (writes, left) = (Arc::new(AtomicU64::new(0)), Arc::new(OnceLock::new()));
    disk.watch({
        let (disk, cache) = (disk.clone(), Arc::downgrade(&cache));
        let (memory, writes, left) = (memory.clone(), Arc::clone(&writes), Arc::clone(&left));
        move |Moment { operation, file, side, .. }| {
            let is_batch = operation == Operation::Write && file.starts_with("seg-") && side == Side::After;
            if !is_batch || left.get().is_some() {
                return;
            }
            disk.advance_clock(30 * SECOND);
            if writes.fetch_add(1, SeqCst) == 8 {
                assert_eq!(cache.upgrade().unwrap().get(&EXPIRING), None);
                left.set(memory.after_kill()).unwrap();
            }
        }
    });
    cache.flush().unwrap();
    let disk = FaultDisk::over(Arc::new(left.get().expect("many batches").clone()));
    disk.set_boot_id([7; 16]);
    disk.set_wall_time(Some(begun + 30 * SECOND));
    let cache = builder(disk).open().unwrap();
    assert!(cache.stats().recovery.start.is_warm());
    assert_eq!(cache.get(&EXPIRING), None, "it had expired");
}

/// The same, of a flush of which nothing is ever written.
#[test]
fn what_has_expired_within_a_flush_that_is_refused() {
    const EXPIRING: u64 = 1 << 40;
    let memory = MemoryDisk::new();
    let begun = memory.wall_time();
    let disk = FaultDisk::over(Arc::new(memory.clone()));
    let builder = |disk: FaultDisk| {
        let builder = builder(&memory).ram(8 * MIB).disk(32 * MIB).segment_size(MIB).io(Arc::new(disk));
        builder.durability(Durability::PowerLoss)
    };
    let watched = Arc::new(OnceLock::<Weak<Cache<u64, String>>>::new());
    let (asked, left) = (Arc::new(AtomicU64::new(0)), Arc::new(OnceLock::new()));
    let slow_refusal = {
        let (disk, watched) = (disk.clone(), Arc::clone(&watched));
        let (memory, asked, left) = (memory.clone(), Arc::clone(&asked), Arc::clone(&left));
        move |_: &u64, _: &String| {
            let Some(cache) = watched.get().and_then(Weak::upgrade) else { return true };
            disk.advance_clock(SECOND);
            if asked.fetch_add(1, SeqCst) == 240 {
                assert_eq!(cache.get(&EXPIRING), None);
                left.set(memory.after_kill()).unwrap();
            }
            false
        }
    };
    let cache = Arc::new(builder(disk.clone()).disk_filter(slow_refusal).open().unwrap());
    cache.insert_with_ttl(EXPIRING, "v1".into(), 180 * SECOND).unwrap();
    cache.flush().unwrap();
    (0..2_000).for_each(|key| cache.insert(key, "x".repeat(1_000)).unwrap());
    watched.set(Arc::downgrade(&cache)).unwrap();
    cache.flush().unwrap();
    let disk = FaultDisk::over(Arc::new(left.get().expect("many were refused").clone()));
    disk.set_boot_id([7; 16]);
    disk.set_wall_time(Some(begun + 10 * SECOND));
    let cache = builder(disk).open().unwrap();
    assert!(cache.stats().recovery.start.is_warm());
    assert_eq!(cache.get(&EXPIRING), None, "it had expired");
}
