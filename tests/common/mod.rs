//! What the behaviour tests share: checkable values, the oracle that tells a stale read from a
//! good one, operations as plain data, and child processes that are killed.

#![allow(dead_code, reason = "each test target uses a part of this")]

pub(crate) mod child;
pub(crate) mod history;
pub(crate) mod lives;
pub(crate) mod machine;
pub(crate) mod model;
pub(crate) mod ops;
pub(crate) mod oracle;
pub(crate) mod value;
pub(crate) mod watchdog;
pub(crate) mod witness;

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use embercache::{Admission, Builder, Cache, Error, KIB, MIB, testing::FaultDisk};

/// The cache that most tests use: eight-byte keys and [checkable](value) values.
pub(crate) type TestCache = Cache<u64, Vec<u8>>;

/// A cache so small that every few operations evict, spill and reclaim.
pub(crate) fn tiny(dir: &Path) -> Builder<u64, Vec<u8>> {
    Cache::builder(dir).ram_entries(32).segment_size(64 * KIB).disk(MIB).stripes(4).admission(Admission::All)
}

/// As [`tiny`] in RAM, with so much disk that a test's writes never make it reclaim.
pub(crate) fn roomy(dir: &Path) -> Builder<u64, Vec<u8>> {
    tiny(dir).segment_size(MIB).disk(256 * MIB)
}

/// The real disk with a switch for writes that fail.
pub(crate) fn fault_disk() -> Arc<FaultDisk> {
    Arc::new(FaultDisk::new())
}

/// A directory for a cache, inside of one that is deleted when the test ends.
pub(crate) struct TempDir {
    outer: tempfile::TempDir,
}

impl TempDir {
    pub(crate) fn new() -> TempDir {
        TempDir { outer: tempfile::tempdir().expect("a test needs a temporary directory") }
    }

    /// The cache's directory; the cache creates it.
    pub(crate) fn cache(&self) -> PathBuf {
        self.outer.path().join("cache")
    }

    /// The directory around it.
    pub(crate) fn outer(&self) -> &Path {
        self.outer.path()
    }
}

/// A number from the environment.
pub(crate) fn from_env<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// So many cases as a test has in CI, times `EMBERCACHE_SOAK`: a long run is the short one with other numbers.
pub(crate) fn cases(short: u64) -> u64 {
    short * from_env("EMBERCACHE_SOAK", 1)
}

/// Prints what a line of the reliability report says, for `soak` to gather: the line's number in
/// docs/reliability.md, and the figures.
pub(crate) fn figure(line: u32, figures: &str) {
    println!("line {line}: {figures}");
}

/// Says that a test was not run, past the harness, which keeps what passing tests print.
pub(crate) fn skip(what: &str, why: &str) {
    writeln!(io::stderr(), "SKIPPED: {what}: {why}").expect("standard error is there");
}

/// Waits until `done`, and fails the test if that does not come within `limit`.
pub(crate) fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Every file below `dir` with its bytes, sorted: equal before and after means untouched.
pub(crate) fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            files.extend(contents(&path));
        } else if kind.is_symlink() {
            files.push((path.clone(), fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

/// A small, fast, seeded source of random numbers (SplitMix64), so that a failure can be run again.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
