//! The byte format stays readable: a directory written by the first release opens for ever.

use std::{fs, path::Path};

use crate::common::figure;
use embercache::{Cache, KIB, MIB, Start};

/// What release 0.1.0 left behind, closed in order; see `write_the_golden_directory`.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");

const KEYS: u64 = 300;

fn open(dir: &Path) -> Cache<u64, String> {
    Cache::builder(dir).ram(MIB).disk(MIB).segment_size(64 * KIB).schema_version(7).open().unwrap()
}

/// What the golden directory holds under a key: every third was overwritten, every fifth removed.
fn expected(key: u64) -> Option<String> {
    match key {
        key if key.is_multiple_of(5) => None,
        key if key.is_multiple_of(3) => Some(format!("the second value of {key}")),
        key => Some(format!("the first value of {key}, which is longer than a word or two")),
    }
}

fn check_all(cache: &Cache<u64, String>) {
    for key in 0..KEYS {
        assert_eq!(cache.get(&key), expected(key), "key {key}");
    }
    cache.check();
}

/// Line 64.
#[test]
fn the_golden_directory_opens_warm() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = copy_of_golden(scratch.path());
    let cache = open(&dir);
    let recovery = cache.stats().recovery;
    assert_eq!(recovery.start, Start::Clean);
    assert_eq!(recovery.entries, (0..KEYS).filter(|&key| expected(key).is_some()).count() as u64);
    check_all(&cache);
    // Its own writer must not spoil it for the next open either.
    cache.insert(KEYS, "new".to_owned()).unwrap();
    cache.close().unwrap();
    let cache = open(&dir);
    assert_eq!(cache.get(&KEYS).as_deref(), Some("new"));
    check_all(&cache);
    figure(64, "the directory of 0.1.0: warm, with its snapshot and without, and every value as it was");
}

#[test]
fn the_golden_directory_opens_without_its_snapshot() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = copy_of_golden(scratch.path());
    fs::remove_file(dir.join("index.snap")).unwrap();
    let cache = open(&dir);
    assert_eq!(cache.stats().recovery.start, Start::Recovered);
    check_all(&cache);
}

fn copy_of_golden(to: &Path) -> std::path::PathBuf {
    let dir = to.join("cache");
    fs::create_dir(&dir).unwrap();
    for file in fs::read_dir(GOLDEN).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.join(file.file_name())).unwrap();
    }
    dir
}

/// Wrote the golden directory. It is not to be written again: run for a new format, into a new folder.
#[test]
#[ignore = "writes tests/golden"]
fn write_the_golden_directory() {
    let dir = Path::new(GOLDEN);
    assert!(!dir.exists(), "a golden directory stays as it is");
    let cache = open(dir);
    for key in 0..KEYS {
        let first = format!("the first value of {key}, which is longer than a word or two");
        cache.insert(key, first).unwrap();
    }
    cache.flush().unwrap();
    for key in (0..KEYS).filter(|key| key.is_multiple_of(3)) {
        cache.insert(key, format!("the second value of {key}")).unwrap();
    }
    for key in (0..KEYS).filter(|key| key.is_multiple_of(5)) {
        cache.remove(&key).unwrap();
    }
    cache.close().unwrap();
}
