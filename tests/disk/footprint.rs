//! What the log takes on disk, and what a lent value is worth, while segments come and go.
//!
//! `EMBERCACHE_SOAK` (a factor) makes it longer.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    Random, TempDir, TestCache, cases, figure, from_env, tiny,
    value::{self, value},
    watchdog::watched,
};
use embercache::{Builder, KIB, MIB, ReadMode, WriteBehind};

const CAPACITY_BYTES: u64 = MIB;
const SEGMENT_BYTES: u64 = 64 * KIB;
/// What a directory has beside segments and journal: LOCK, STATE and the snapshot, old and new.
const OTHER_FILES_BYTES: u64 = 256 * KIB;
/// A file of the journal.
const JOURNAL_FILE_BYTES: u64 = MIB;

/// Line 36: a value is lent, and all that was on disk then is reclaimed before it is given back.
#[test]
fn a_lent_value_outlives_its_segment() {
    let lent = cases(200);
    let mut most_bytes = 0;
    for mode in [ReadMode::Map, ReadMode::Strict] {
        let dir = TempDir::new();
        let cache = tiny(&dir.cache()).read_mode(mode).open().unwrap();
        let next = AtomicU64::new(0);
        let insert_some = || {
            for _ in 0..50 {
                let key = next.fetch_add(1, SeqCst);
                cache.insert(key, value(key, 1, 1_500)).unwrap();
            }
            most_bytes_of(&dir.cache())
        };
        while cache.stats().reclaimed == 0 {
            insert_some();
        }
        for number in 0..lent / 2 {
            // From RAM and from disk by turns; the oldest that is left is the next to go.
            let newest = next.load(SeqCst);
            let mut keys: Box<dyn Iterator<Item = u64>> = if number % 2 == 0 {
                Box::new((0..newest).rev())
            } else {
                Box::new(newest.saturating_sub(900)..newest)
            };
            let is_unchanged = keys.find_map(|key| {
                cache.get_with(&key, |lent| {
                    let before = lent.clone();
                    let reclaimed = cache.stats().reclaimed;
                    while cache.stats().reclaimed < reclaimed + 40 {
                        most_bytes = most_bytes.max(insert_some());
                    }
                    *lent == before && value::version(key, lent) == 1
                })
            });
            assert_eq!(is_unchanged, Some(true));
        }
        cache.check();
    }
    assert!(most_bytes <= CAPACITY_BYTES + 2 * SEGMENT_BYTES, "{most_bytes} bytes of segments");
    figure(
        36,
        &format!(
            "{lent} values lent while segments were reclaimed, none changed; at most {most_bytes} bytes"
        ),
    );
}

/// Line 61: under a load of everything, sampled.
#[test]
fn the_log_stays_within_its_limit() {
    let time = Duration::from_millis(cases(1_500));
    let dir = TempDir::new();
    let cache = regime(&dir.cache()).open().unwrap();
    let (stop, mut samples, mut most, mut most_journal) = (AtomicBool::new(false), 0, 0, 0);
    let done = AtomicU64::new(0);
    let work = || {
        thread::scope(|scope| {
            for number in 0..3 {
                let (cache, stop, done) = (&cache, &stop, &done);
                scope.spawn(move || use_much(cache, number, stop, done));
            }
            let end = Instant::now() + time;
            while Instant::now() < end {
                thread::sleep(Duration::from_millis(10));
                let use_bytes = Use::of(&dir.cache());
                (most, most_journal) = (most.max(use_bytes.segments), most_journal.max(use_bytes.journal));
                assert!(use_bytes.others <= OTHER_FILES_BYTES, "{use_bytes:?}");
                samples += 1;
            }
            stop.store(true, SeqCst);
        })
    };
    watched(|| done.load(SeqCst), work);
    let stats = cache.stats();
    assert!(stats.reclaimed > 1_000 && stats.journal_entries > 1_000, "nothing was tested: {stats}");
    assert!(most <= CAPACITY_BYTES + 2 * SEGMENT_BYTES, "{most} bytes of segments");
    // The file that is written, and the ones that the oldest segment still needs.
    assert!(most_journal <= 4 * JOURNAL_FILE_BYTES, "{most_journal} bytes of journal");
    figure(
        61,
        &format!(
            "{samples} samples, at most {most} bytes of segments for {CAPACITY_BYTES}, {most_journal} of journal"
        ),
    );
}

fn regime(dir: &Path) -> Builder<u64, Vec<u8>> {
    tiny(dir).segment_size(SEGMENT_BYTES).disk(CAPACITY_BYTES).write_behind(WriteBehind::Through)
}

fn use_much(cache: &TestCache, number: u64, stop: &AtomicBool, done: &AtomicU64) {
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 61) << 8 | number);
    while !stop.load(SeqCst) {
        done.fetch_add(1, SeqCst);
        let key = random.below(2_000);
        match random.below(1_000) {
            0..500 => cache.insert(key, value(key, 1, 24 + random.below(3_000) as usize)).unwrap(),
            500..600 => _ = cache.remove(&key).unwrap(),
            600..998 => _ = cache.get(&key),
            998 => cache.flush().unwrap(),
            _ => cache.clear().unwrap(),
        }
    }
}

/// Bytes of files, by what they are: as long as they say, or as many blocks as they take.
#[derive(Debug, Default)]
struct Use {
    segments: u64,
    journal: u64,
    others: u64,
}

impl Use {
    fn of(dir: &Path) -> Use {
        let mut found = Use::default();
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            // It may be gone by now.
            let Ok(metadata) = entry.metadata() else { continue };
            let bytes = metadata.len().max(metadata.blocks() * 512);
            match entry.file_name().to_string_lossy().get(..4) {
                Some("seg-") => found.segments += bytes,
                Some("inv-") => found.journal += bytes,
                _ => found.others += bytes,
            }
        }
        found
    }
}

fn most_bytes_of(dir: &Path) -> u64 {
    Use::of(dir).segments
}

/// A program that runs for a moment, again and again: each of its runs changes some entries and adds one. What
/// they leave is merged, and nothing of it lost.
#[test]
fn short_runs_do_not_pile_up_files() {
    let dir = TempDir::new();
    let runs = cases(200);
    let open = || tiny(&dir.cache()).disk(64 * MIB).segment_size(4 * MIB).open().unwrap();
    for run in 0..runs {
        let cache = open();
        (0..8).for_each(|key| cache.insert(key, value(key, run, 24)).unwrap());
        cache.insert(1000 + run, value(1000 + run, 1, 24)).unwrap();
        cache.close().unwrap();
    }
    let names = fs::read_dir(dir.cache()).unwrap().count();
    assert!(names < 25, "{names} files");
    let cache = open();
    (0..runs).for_each(|run| assert_eq!(cache.get(&(1000 + run)), Some(value(1000 + run, 1, 24))));
    (0..8).for_each(|key| assert_eq!(cache.get(&key), Some(value(key, runs - 1, 24))));
    cache.check();
}
