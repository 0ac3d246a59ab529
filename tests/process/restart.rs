//! Lines 58 and 59: what a restart takes, in time and in memory at its height, and the index afterwards.
//!
//! `EMBERCACHE_SOAK` (a factor) makes the log larger.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    allocations::most_during,
    common::{TempDir, cases, figure},
};
use embercache::{Admission, Cache, GIB, MIB, Start};

/// Beside a small index: stripes, the write buffer, a segment's list of records for each thread. Of a large one it is
/// within the third that a restart may take beside it.
const REST_BYTES: usize = 8 << 20;
const LARGE: u64 = 1_000_000;
const INDEX_BYTES_MAX: f64 = 24.0;

#[test]
fn a_restart_is_quick_and_small() {
    let _alone = crate::alone();
    let entries = cases(200_000);
    let dir = TempDir::new();
    let open = |dir: &Path| -> Cache<u64, Vec<u8>> {
        // The index is part of the RAM, and may not be all of it.
        let ram = 256 * MIB + entries * 64;
        let cache = Cache::builder(dir).ram(ram).disk(entries / 1_000 * MIB / 2 + GIB);
        cache.admission(Admission::All).open().unwrap()
    };
    let value = |key: u64| key.to_le_bytes().repeat(4);
    let cache = open(&dir.cache());
    (0..entries).for_each(|key| cache.insert(key, value(key)).unwrap());
    cache.flush().unwrap();
    assert_eq!(cache.len(), entries);
    let killed = dir.outer().join("killed");
    hard_copy(&dir.cache(), &killed);
    cache.close().unwrap();
    drop(cache);

    // A copy is another directory, so the original's last state is put back in its place.
    let millis = Duration::from_millis;
    for (how, start, at_least, a_million) in [
        ("closed", Start::Clean, millis(1_000), millis(500)),
        ("killed", Start::Recovered, millis(1_500), millis(800)),
    ] {
        if how == "killed" {
            put_back(&killed, &dir.cache());
        }
        let ((first, all, stats), most) = most_during(|| {
            let begun = Instant::now();
            let cache = open(&dir.cache());
            assert_eq!(cache.get(&(entries / 2)), Some(value(entries / 2)));
            let first = begun.elapsed();
            assert_eq!(cache.len(), entries);
            (first, begun.elapsed(), cache.stats())
        });
        assert_eq!(stats.recovery.start, start);
        let index = stats.index_bytes as usize;
        figure(
            58,
            &format!(
                "{entries} entries, {how}: {first:.1?} to the first value, {all:.1?} until all are known; at most \
                 {:.2} x the index",
                most as f64 / index as f64
            ),
        );
        let index_bytes = index as f64 / entries as f64;
        figure(59, &format!("{entries} entries on disk, {how}: {index_bytes:.1} bytes of index each"));
        let limit = at_least.max(a_million * (entries / 1_000_000) as u32);
        assert!(all <= limit, "{all:?} of {limit:?}");
        let rest = if entries < LARGE { REST_BYTES } else { 0 };
        assert!(most <= index * 13 / 10 + rest, "{most} bytes for an index of {index}");
        assert!(index_bytes <= INDEX_BYTES_MAX, "{index_bytes} bytes an entry");
    }
}

fn hard_copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// As the directory was when it was copied; LOCK stays the one that STATE names.
fn put_back(copy: &Path, dir: &Path) {
    for file in fs::read_dir(dir).unwrap().map(|file| file.unwrap()).filter(|file| file.file_name() != "LOCK")
    {
        fs::remove_file(file.path()).unwrap();
    }
    for file in
        fs::read_dir(copy).unwrap().map(|file| file.unwrap()).filter(|file| file.file_name() != "LOCK")
    {
        fs::rename(file.path(), dir.join(file.file_name())).unwrap();
    }
}
