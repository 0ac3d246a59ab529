//! One short story at a time, with a kill and losses of power at each of its moments: recovery, close,
//! clear, reads and writes that fail. All in memory, by a recorder's disk.

use std::{collections::BTreeMap, io::ErrorKind, sync::Arc, time::Duration};

use crate::common::{
    Random, TestCache, cases, figure, from_env,
    value::{value, version},
    wait_until,
};
use embercache::{
    Admission, Builder, Cache, Durability, KIB, MIB, Start, WriteBehind,
    testing::{FaultDisk, Io, MemoryDisk, Operation, RecorderDisk, Replay},
};

const KEYS: u64 = 48;
const EIO: i32 = 5;
const MODES: [Durability; 2] = [Durability::ProcessCrash, Durability::PowerLoss];

/// Versions by key.
type Content = BTreeMap<u64, u64>;

fn builder(io: impl Io + 'static, durability: Durability) -> Builder<u64, Vec<u8>> {
    Cache::builder("cache")
        .ram_entries(8)
        .stripes(2)
        .segment_size(64 * KIB)
        .disk(16 * MIB)
        .admission(Admission::All)
        .write_behind(WriteBehind::Never)
        .durability(durability)
        .io(Arc::new(io))
}

fn insert(cache: &TestCache, key: u64, version: u64) {
    cache.insert(key, value(key, version, 1_500)).unwrap();
}

fn content(cache: &TestCache) -> Content {
    (0..KEYS).filter_map(|key| Some((key, version(key, &cache.get(&key)?)))).collect()
}

/// Entries in several segments, some of them overwritten and removed since; all of it flushed.
fn fill(cache: &TestCache) -> Content {
    (0..KEYS).for_each(|key| insert(cache, key, 1));
    cache.flush().unwrap();
    (0..10).for_each(|key| assert!(cache.remove(&key).unwrap()));
    (10..20).for_each(|key| insert(cache, key, 2));
    (20..25).for_each(|key| insert(cache, key, 2));
    (20..25).for_each(|key| assert!(cache.remove(&key).unwrap()));
    cache.flush().unwrap();
    let content = content(cache);
    assert_eq!(content.len() as u64, KEYS - 15);
    content
}

/// Calls `see` with what a kill leaves at each moment from `first` on, and `losses` times with what a loss
/// of power does; with the moment, and whether power was lost. How often that was.
fn at_each_moment(
    disk: &RecorderDisk,
    first: usize,
    losses: u64,
    mut see: impl FnMut(MemoryDisk, &Replay, bool),
) -> u64 {
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 1));
    let losses = cases(losses);
    let mut images = 0;
    let mut replay = disk.replay();
    assert!(replay.events() >= first, "the record is shorter");
    loop {
        if replay.at() >= first {
            images += losses + 2;
            see(replay.after_kill(false), &replay, false);
            see(replay.after_kill(true), &replay, false);
            for _ in 0..losses {
                see(replay.after_power_loss(&mut |below| random.below(below)), &replay, true);
            }
        }
        if replay.advance().is_none() {
            return images;
        }
    }
}

/// Line 3: a recovery that is interrupted, by a kill or a loss of power, changes nothing for the next.
#[test]
fn a_recovery_may_be_interrupted() {
    let mut images = 0;
    for (before, now) in MODES.into_iter().flat_map(|before| MODES.map(|now| (before, now))) {
        let disk = RecorderDisk::over(MemoryDisk::new());
        let cache = builder(disk.clone(), before).open().unwrap();
        let owed = fill(&cache);
        let killed = disk.after_kill(usize::MAX);
        let first = killed.replay().events();
        let recovered = builder(killed.clone(), now).open().unwrap();
        let opened = killed.replay().events();
        assert_eq!(content(&recovered), owed);
        at_each_moment(&killed, first, 6, |left, replay, is_power_loss| {
            if replay.at() > opened {
                return;
            }
            images += 1;
            let what =
                format!("{now:?} after {before:?}, event {} of {opened}, {is_power_loss}", replay.at());
            let cache = builder(left, now).open().unwrap();
            let is_warm = cache.stats().recovery.start.is_warm();
            let must_be_warm =
                !is_power_loss || (before, now) == (Durability::PowerLoss, Durability::PowerLoss);
            assert!(is_warm || !must_be_warm, "{what}: {:?}", cache.stats().recovery.start);
            let expected = if is_warm { owed.clone() } else { Content::new() };
            assert_eq!(content(&cache), expected, "{what}");
        });
    }
    figure(3, &format!("{images} moments of recoveries that are interrupted, the same set as without"));
}

/// Line 3: a kill at any moment may leave a write that no sync has covered, of STATE too, and then the power
/// goes while the next start is at work: still nothing that was flushed is lost.
#[test]
fn a_recovery_from_any_moment_may_be_interrupted() {
    const REMOVED: u64 = 4;
    /// Events of a start in which STATE is told of it.
    const BEGINNING: usize = 8;
    let open = |io: RecorderDisk| builder(io, Durability::PowerLoss).open().unwrap();
    let disk = RecorderDisk::over(MemoryDisk::new());
    let cache = open(disk.clone());
    (0..KEYS).for_each(|key| insert(&cache, key, 1));
    cache.flush().unwrap();
    let flushed = disk.replay().events();
    // The first of them begins a file of the journal, and STATE is told.
    (0..REMOVED).for_each(|key| assert!(cache.remove(&key).unwrap()));
    let (mut random, mut images) = (Random::new(from_env("EMBERCACHE_SEED", 1)), 0);
    for at in flushed..=disk.replay().events() {
        let killed = disk.after_kill(at);
        let first = killed.replay().events();
        drop(open(killed.clone()));
        let mut replay = killed.replay();
        while replay.advance().is_some() && replay.at() < first + BEGINNING {
            let losses = if replay.at() < first { 0 } else { cases(24) };
            for _ in 0..losses {
                let left = replay.after_power_loss(&mut |below| random.below(below));
                let cache = builder(left, Durability::PowerLoss).open().unwrap();
                let (start, then) = (cache.stats().recovery.start, replay.at());
                assert!(start.is_warm(), "killed at {at}, then the power at {then}: {start:?}");
                let lost = (REMOVED..KEYS).find(|key| !cache.contains_key(key));
                assert_eq!(lost, None, "killed at {at}, then the power at {then}");
            }
            images += losses;
        }
    }
    figure(3, &format!("{images} moments of recoveries from any moment that lose their power, all warm"));
}

/// Line 4: a close that is interrupted, in its footer, its snapshot or STATE, loses nothing that was flushed,
/// and brings nothing back.
#[test]
fn a_close_may_be_interrupted() {
    let mut images = 0;
    for durability in MODES {
        let disk = RecorderDisk::over(MemoryDisk::new());
        let cache = builder(disk.clone(), durability).open().unwrap();
        let owed = fill(&cache);
        let first = disk.replay().events();
        cache.close().unwrap();
        let closed = disk.replay().events();
        images += at_each_moment(&disk, first, 6, |left, replay, is_power_loss| {
            let cache = builder(left, durability).open().unwrap();
            let start = cache.stats().recovery.start;
            let must_be_warm = !is_power_loss || durability == Durability::PowerLoss || replay.at() == closed;
            let what =
                format!("{durability:?}, event {} of {closed}, {is_power_loss}: {start:?}", replay.at());
            assert!(start.is_warm() || !must_be_warm, "{what}");
            let expected = if start.is_warm() { owed.clone() } else { Content::new() };
            assert_eq!(content(&cache), expected, "{what}");
        });
    }
    figure(
        4,
        &format!(
            "{images} moments of closes (footer, snapshot, STATE), every open without an error, 0 stale"
        ),
    );
}

/// A clean close is of all that it says, also of what a run before had written that was killed.
#[test]
fn a_close_is_for_the_runs_before_it_too() {
    let mode = Durability::ProcessCrash;
    let disk = RecorderDisk::over(MemoryDisk::new());
    let owed = fill(&builder(disk.clone(), mode).open().unwrap());
    let killed = disk.after_kill(usize::MAX);
    builder(killed.clone(), mode).open().unwrap().close().unwrap();
    at_each_moment(&killed, killed.replay().events(), 20, |left, _, _| {
        let warm = builder(left.clone(), mode).open().unwrap();
        assert_eq!(warm.stats().recovery.start, Start::Clean);
        // What the snapshot had kept from mattering, the journal, matters now.
        let again = builder(left.after_kill(), mode).open().unwrap();
        assert_eq!(again.stats().recovery.start, Start::Recovered);
        assert_eq!((content(&warm), content(&again)), (owed.clone(), owed.clone()));
    });
}

/// Line 9: a clear is all or nothing, and after it has returned, all.
#[test]
fn a_clear_may_be_interrupted() {
    let mut images = 0;
    for durability in MODES {
        let disk = RecorderDisk::over(MemoryDisk::new());
        let cache = builder(disk.clone(), durability).open().unwrap();
        let owed = fill(&cache);
        let first = disk.replay().events();
        cache.clear().unwrap();
        let cleared = disk.replay().events();
        images += at_each_moment(&disk, first, 10, |left, replay, is_power_loss| {
            let cache = builder(left, durability).open().unwrap();
            let found = content(&cache);
            let is_one = found.is_empty() || (replay.at() < cleared && found == owed);
            assert!(is_one, "{durability:?}, event {} of {cleared}, {is_power_loss}: {found:?}", replay.at());
        });
    }
    figure(9, &format!("{images} moments of clears, all or nothing"));
}

/// No segment gets the number of one that is gone: the journal still says of that number that it is dead.
#[test]
fn what_follows_a_segment_that_was_given_up_is_not_taken_for_it() {
    let open = |io: Arc<dyn Io>| {
        let builder = builder(MemoryDisk::new(), Durability::PowerLoss).ram_entries(256).io(io);
        builder.open().unwrap()
    };
    let disk = MemoryDisk::new();
    let faults = FaultDisk::over(Arc::new(disk.clone()));
    let cache = open(Arc::new(faults.clone()));
    (0..8).for_each(|key| insert(&cache, key, 1));
    faults.fail_syncs_of("seg-", ErrorKind::Other);
    assert!(cache.flush().is_err());
    let killed = disk.after_kill();
    assert!(!killed.contents().iter().any(|(path, _)| path.to_string_lossy().contains("seg-")));

    let cache = open(Arc::new(killed.clone()));
    (0..KEYS).for_each(|key| insert(&cache, key, 2));
    cache.flush().unwrap();
    let found = content(&open(Arc::new(killed.after_kill())));
    assert_eq!(found, (0..KEYS).map(|key| (key, 2)).collect());
}

/// Line 14 (b): a copy that could not be read was forgotten; then the key got another value, the machine or
/// the process stopped, and the disk is well again.
#[test]
fn a_copy_that_was_unreadable_once_stays_forgotten() {
    let mut images = 0;
    for durability in MODES {
        let disk = RecorderDisk::over(MemoryDisk::new());
        let faults = FaultDisk::over(Arc::new(disk.clone()));
        let cache = builder(faults.clone(), durability).open().unwrap();
        fill(&cache);
        let keys: Vec<u64> = (30..34).collect();
        faults.fail_reads(Some(ErrorKind::Other));
        let missing: Vec<u64> = keys.iter().copied().filter(|key| cache.get(key).is_none()).collect();
        assert!(!missing.is_empty(), "all of them are in RAM");
        faults.fail_reads(None);
        missing.iter().for_each(|&key| insert(&cache, key, 2));
        let acked = disk.replay().events();
        drop(cache);
        images += at_each_moment(&disk, acked, 3, |left, replay, _| {
            let found = content(&builder(left, durability).open().unwrap());
            let old = missing.iter().find(|key| found.get(key) == Some(&1));
            assert_eq!(old, None, "{durability:?}, event {} of {acked}", replay.at());
        });
    }
    figure(14, &format!("(b) {images} moments after a copy that could not be read for a while, 0 stale"));
}

/// Line 14 (c): a batch failed with a part of it on disk, and what it held was forgotten and stored anew;
/// also where the part cannot be cut off, and where that cannot be synced.
#[test]
fn a_batch_that_failed_halfway_stays_forgotten() {
    let mut images = 0;
    let variants = [(false, false), (true, false), (false, true)];
    for (durability, (cut_fails, sync_fails)) in
        MODES.into_iter().flat_map(|mode| variants.map(|v| (mode, v)))
    {
        let disk = RecorderDisk::over(MemoryDisk::new());
        let faults = FaultDisk::over(Arc::new(disk.clone()));
        let cache = builder(faults.clone(), durability).stripes(1).open().unwrap();
        fill(&cache);
        faults.tear_nth_write(1, ErrorKind::StorageFull);
        if cut_fails {
            faults.fail_nth_write(2, ErrorKind::StorageFull);
        }
        if sync_fails {
            faults.fail_syncs_of("seg-", ErrorKind::Other);
        }
        // The next ones push the first out of RAM; no flush, which would sync what is left of them.
        (0..8).for_each(|key| insert(&cache, key, 1));
        (KEYS..KEYS + 12).for_each(|key| insert(&cache, key, 1));
        let failed = || cache.stats().write_failures > 0;
        wait_until("a batch fails", Duration::from_secs(10), failed);
        (0..8).for_each(|key| insert(&cache, key, 2));
        let acked = disk.replay().events();
        drop(cache);
        images += at_each_moment(&disk, acked, 10, |left, replay, is_power_loss| {
            let found = content(&builder(left, durability).open().unwrap());
            let old = (0..8).find(|key| found.get(key) == Some(&1));
            let what = format!("{durability:?}, {cut_fails}, {sync_fails}, event {} of {acked}", replay.at());
            assert_eq!(old, None, "{what}, {is_power_loss}");
        });
    }
    figure(14, &format!("(c) {images} moments after a batch that failed halfway, 0 stale"));
}

/// A segment was given up since its sync had failed; what it held was stored anew, and then its unlink is
/// lost with the power.
#[test]
fn a_segment_that_was_given_up_stays_forgotten() {
    let durability = Durability::PowerLoss;
    let disk = RecorderDisk::over(MemoryDisk::new());
    let faults = FaultDisk::over(Arc::new(disk.clone()));
    let cache = builder(faults.clone(), durability).ram_entries(256).open().unwrap();
    (0..8).for_each(|key| insert(&cache, key, 1));
    faults.fail_syncs_of("seg-", ErrorKind::Other);
    assert!(cache.flush().is_err());
    faults.fail_sync(None);
    (0..8).for_each(|key| insert(&cache, key, 2));
    let acked = disk.replay().events();
    drop(cache);
    at_each_moment(&disk, acked, 10, |left, replay, is_power_loss| {
        let found = content(&builder(left, durability).open().unwrap());
        let old = (0..8).find(|key| found.get(key) == Some(&1));
        assert_eq!(old, None, "event {} of {acked}, {is_power_loss}", replay.at());
    });
}

/// The very first open, and the one after it: whatever is left, the directory is a cache's.
#[test]
fn a_first_open_may_be_interrupted() {
    for durability in MODES {
        let disk = RecorderDisk::over(MemoryDisk::new());
        builder(disk.clone(), durability).open().unwrap().close().unwrap();
        at_each_moment(&disk, 0, 40, |left, replay, is_power_loss| {
            assert!(builder(left, durability).open().unwrap().is_empty());
            if is_power_loss {
                return;
            }
            let killed = disk.after_kill(replay.at());
            builder(killed.clone(), durability).open().unwrap().close().unwrap();
            at_each_moment(&killed, replay.at(), 1, |left, _, _| {
                assert!(builder(left, durability).open().unwrap().is_empty());
            });
        });
    }
}

/// A segment could not be read at an open and was put aside; then its keys got other values, and what put
/// it aside is lost with the power, on a disk that is well again.
#[test]
fn a_segment_that_was_put_aside_stays_there() {
    let durability = Durability::PowerLoss;
    let mut put_aside = 0;
    for nth in 1..40 {
        let disk = RecorderDisk::over(MemoryDisk::new());
        fill(&builder(disk.clone(), durability).open().unwrap());
        let disk = disk.after_kill(usize::MAX);
        let faults = FaultDisk::over(Arc::new(disk.clone()));
        faults.fail_nth(Operation::Read, nth, EIO, false);
        let Ok(cache) = builder(faults, durability).ram_entries(256).open() else { continue };
        if cache.stats().recovery.quarantined == 0 {
            continue;
        }
        put_aside += 1;
        // They alone, since to journal the others would make the names durable.
        let lost: Vec<u64> = (0..KEYS).filter(|key| !cache.contains_key(key)).collect();
        lost.iter().for_each(|&key| insert(&cache, key, 3));
        let acked = disk.replay().events();
        at_each_moment(&disk, acked, 20, |left, _, _| {
            let found = content(&builder(left, durability).open().unwrap());
            let old = lost.iter().find(|key| found.get(key).is_some_and(|&version| version < 3));
            assert_eq!(old, None, "{found:?}");
        });
    }
    assert!(put_aside > 1, "{put_aside} segments were put aside");
}
