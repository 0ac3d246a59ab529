//! Files that were damaged, cut, swapped or forged: what comes back is right, or it is a miss.
//!
//! The whole engine opens each damaged directory, in memory, and every key is read. The short run takes a
//! sample of what there is to damage; `EMBERCACHE_SOAK` (a factor) makes the sample larger, up to each
//! byte and bit.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::common::{
    Random, TestCache, cases, figure, from_env,
    value::{self, value},
};
use embercache::{Admission, Builder, Cache, Durability, KIB, MIB, Start, WriteBehind, testing::MemoryDisk};

/// One key in so many is overwritten after it was flushed, and another removed.
const CHANGED: u64 = 10;

/// How much there is to damage.
#[derive(Clone, Copy, Debug)]
struct Shape {
    keys: u64,
    value_bytes: usize,
    segment_bytes: u64,
}

/// Several segments, of which one test after the other damages a sample.
const SEGMENTS: Shape = Shape { keys: 600, value_bytes: 300, segment_bytes: 64 * KIB };
/// One sealed segment of a MiB, and the next.
const MEGABYTE: Shape = Shape { keys: 300, value_bytes: 4000, segment_bytes: MIB };
/// More entries than 64 KiB of a snapshot have.
const ENTRIES: Shape = Shape { keys: 5000, value_bytes: 24, segment_bytes: 64 * KIB };
/// More changes than 64 KiB of a journal have.
const CHANGES: Shape = Shape { keys: 10_500, value_bytes: 24, segment_bytes: 64 * KIB };
/// As much of a segment of 64 MiB as its records fill.
const LARGE: Shape = Shape { keys: 600, value_bytes: 100_000, segment_bytes: 64 * MIB };

fn builder(disk: &MemoryDisk, shape: Shape) -> Builder<u64, Vec<u8>> {
    Cache::builder("cache")
        .ram_entries(32)
        .segment_size(shape.segment_bytes)
        .disk(32 * shape.segment_bytes)
        .stripes(4)
        .admission(Admission::All)
        .write_behind(WriteBehind::Never)
        .io(Arc::new(disk.clone()))
}

/// How a directory was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    ByClose,
    ByKill,
}

/// A directory as a cache left it, and what a cache that opens it may say.
struct Wreck {
    shape: Shape,
    disk: MemoryDisk,
    /// The only version that each key may have; a key that is not here may have none.
    current: BTreeMap<u64, u64>,
}

impl Wreck {
    /// `life` makes its values unlike those of another life.
    fn new(left: Left, life: u64) -> Wreck {
        Wreck::of(SEGMENTS, left, life)
    }

    fn of(shape: Shape, left: Left, life: u64) -> Wreck {
        let Shape { keys, value_bytes, .. } = shape;
        let disk = MemoryDisk::new();
        let cache = builder(&disk, shape).open().unwrap();
        let mut current = BTreeMap::new();
        let version = |count| life << 32 | count;
        for key in 0..keys {
            cache.insert(key, value(key, version(0), value_bytes)).unwrap();
            current.insert(key, version(0));
        }
        cache.flush().unwrap();
        for key in (0..keys).step_by(CHANGED as usize) {
            cache.insert(key, value(key, version(1), value_bytes)).unwrap();
            current.insert(key, version(1));
            cache.remove(&(key + 1)).unwrap();
            current.remove(&(key + 1));
        }
        cache.flush().unwrap();
        assert_eq!(cache.stats().reclaimed, 0, "more was written than the log holds");
        match left {
            Left::ByClose => cache.close().unwrap(),
            Left::ByKill => {}
        }
        Wreck { shape, disk: disk.after_kill(), current }
    }

    /// A copy in which `damage` was done to one file.
    fn damaged(&self, file: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> MemoryDisk {
        let disk = self.disk.after_kill();
        let mut bytes = self.bytes(file);
        damage(&mut bytes);
        disk.overwrite(file, bytes);
        disk
    }

    fn bytes(&self, file: &Path) -> Vec<u8> {
        self.disk.bytes(file).unwrap_or_else(|| panic!("no {}", file.display()))
    }

    /// The files whose names begin so, in order.
    fn files(&self, prefix: &str) -> Vec<PathBuf> {
        let is_wanted =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        self.disk.contents().into_iter().map(|(path, _)| path).filter(is_wanted).collect()
    }

    /// All segments but the one that was being written.
    fn sealed_segments(&self) -> Vec<PathBuf> {
        let mut segments = self.files("seg-");
        segments.pop();
        segments
    }

    /// The keys whose current record ends in `bytes`, and where it does. A record's parts begin at multiples of 8
    /// as long as its key is one.
    fn ends_of_records(&self, bytes: &[u8]) -> Vec<(u64, usize)> {
        let number = |at| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let end = |at| {
            let key = number(at)?;
            let version = number(at + 8).filter(|version| self.current.get(&key) == Some(version))?;
            let value = value(key, version, self.shape.value_bytes);
            bytes[at..].starts_with(&value).then_some((key, at + value.len()))
        };
        (0..bytes.len()).step_by(8).filter_map(end).collect()
    }

    /// Opens a directory that was made from this one, and reads every key.
    fn open(&self, disk: &MemoryDisk) -> Opened {
        let cache =
            builder(disk, self.shape).open().expect("no damage to a file makes the directory unusable");
        let start = cache.stats().recovery.start;
        let found: BTreeSet<u64> = (0..self.shape.keys).filter(|&key| self.finds(&cache, key)).collect();
        cache.check();
        Opened { start, found }
    }

    fn finds(&self, cache: &TestCache, key: u64) -> bool {
        let Some(bytes) = cache.get(&key) else { return false };
        let version = value::version(key, &bytes);
        assert_eq!(Some(&version), self.current.get(&key), "key {key} is stale");
        true
    }
}

/// What a directory turned out to be.
struct Opened {
    start: Start,
    found: BTreeSet<u64>,
}

/// Every `1 / share` of what there is, more of it in a longer run, never the same twice.
fn sample(all: usize, share: usize) -> impl Iterator<Item = usize> {
    let step = (share / cases(1) as usize).max(1);
    // An odd step meets all offsets within a record, whatever their alignment.
    (0..all).step_by(if step > 1 { step | 1 } else { 1 })
}

/// An undamaged directory gives everything back, so that the tests below see damage and nothing else.
#[test]
fn an_untouched_directory() {
    for (left, start) in [(Left::ByClose, Start::Clean), (Left::ByKill, Start::Recovered)] {
        let wreck = Wreck::new(left, 1);
        assert!(wreck.files("seg-").len() > 2, "too few segments to tell one from another");
        let opened = wreck.open(&wreck.disk.after_kill());
        assert_eq!(opened.start, start);
        assert!(opened.found.iter().eq(wreck.current.keys()), "{left:?}");
    }
}

/// Bits that were flipped in sealed segments, and what became of the entries that were not there.
#[derive(Debug, Default)]
struct Flips {
    flips: usize,
    untouched: usize,
    lost: usize,
}

impl Flips {
    fn flip(&mut self, wreck: &Wreck, file: &Path, bits: impl Iterator<Item = (usize, u8)>) {
        let ends = wreck.ends_of_records(&wreck.bytes(file));
        let record_bytes = wreck.shape.value_bytes + 64;
        for (at, mask) in bits {
            let disk = wreck.damaged(file, |bytes| bytes[at] ^= mask);
            let found = wreck.open(&disk).found;
            let is_hit = |&&(_, end): &&(u64, usize)| at < end + 8 && at + record_bytes > end;
            let hit: Vec<u64> = ends.iter().filter(is_hit).map(|&(key, _)| key).collect();
            let untouched = wreck.current.keys().filter(|key| !hit.contains(key));
            self.lost += untouched.clone().filter(|key| !found.contains(key)).count();
            self.untouched += untouched.count();
            self.flips += 1;
        }
    }

    fn judge(&self, what: &str) {
        let Flips { flips, untouched, lost } = *self;
        figure(
            15,
            &format!("{flips} flips of {what}, 0 wrong, {lost} of {untouched} untouched entries lost"),
        );
        assert!(flips > 100 && lost * 100 <= untouched, "{lost} of {untouched} are lost");
    }
}

/// Line 15: of sealed segments. In one that is not, the first damage is the end.
#[test]
fn a_bit_of_a_segment_flips() {
    let mut flips = Flips::default();
    for left in [Left::ByClose, Left::ByKill] {
        let wreck = Wreck::new(left, 1);
        for file in wreck.sealed_segments() {
            let bits = sample(wreck.bytes(&file).len(), 701).map(|at| (at, 1 << (at % 8)));
            flips.flip(&wreck, &file, bits);
        }
    }
    flips.judge("a segment");
}

/// Line 15, with the geometry that it names: every byte of a MiB, all bits of the header, and of the footer.
#[test]
fn a_bit_of_a_mebibyte_flips() {
    let mut flips = Flips::default();
    let wreck = Wreck::of(MEGABYTE, Left::ByKill, 1);
    let file = &wreck.sealed_segments()[0];
    let bytes = wreck.bytes(file);
    flips.flip(&wreck, file, sample(bytes.len(), 9001).map(|at| (at, 1 << (at % 8))));
    let footer = *wreck.ends_of_records(&bytes).iter().map(|(_, end)| end).max().unwrap();
    let ends = (0..64).chain(footer..bytes.len());
    let bits = ends.flat_map(|at| (0..8).map(move |bit| (at, 1 << bit)));
    let step = (601 / cases(1) as usize).max(1);
    flips.flip(&wreck, file, bits.step_by(step));
    flips.judge("a segment of a MiB, its ends bit by bit");
}

/// Cuts the file at these lengths.
fn cut(wreck: &Wreck, file: &Path, lengths: impl Iterator<Item = usize>) -> usize {
    let ends = wreck.ends_of_records(&wreck.bytes(file));
    assert!(ends.len() > 20, "{} records to lose in {}", ends.len(), file.display());
    let cut = |len| {
        let disk = wreck.damaged(file, |bytes| bytes.truncate(len));
        let found = wreck.open(&disk).found;
        // The padding of a record is not counted here, so the last one before the cut may be gone.
        let owed = ends.iter().filter(|&&(_, end)| end + 8 <= len);
        for (key, end) in owed {
            assert!(found.contains(key), "key {key}, which ended at {end}, is lost by a cut at {len}");
        }
    };
    lengths.map(cut).count()
}

/// Line 16.
#[test]
fn a_segment_is_cut_off() {
    let wreck = Wreck::new(Left::ByKill, 1);
    let files = wreck.files("seg-");
    let cuts: usize = files.iter().map(|file| cut(&wreck, file, sample(wreck.bytes(file).len(), 401))).sum();
    figure(16, &format!("{cuts} cuts of a segment, 0 wrong, every whole record before the cut is back"));
    assert!(cuts > 500, "only {cuts} cuts");
}

/// Line 16, of a large one.
#[test]
fn a_large_segment_is_cut_off() {
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 16));
    let wreck = Wreck::of(LARGE, Left::ByKill, 1);
    let file = &wreck.files("seg-")[0];
    let len = wreck.bytes(file).len() as u64;
    let cuts = cut(&wreck, file, (0..cases(4)).map(|_| random.below(len) as usize));
    figure(16, &format!("{cuts} cuts of a segment of {} MiB, 0 wrong, the same", len >> 20));
}

/// Line 17.
#[test]
fn pages_of_zeros_and_garbage() {
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 17));
    let wrecks = [Left::ByClose, Left::ByKill].map(|left| Wreck::new(left, 1));
    let (mut found, mut owed) = (0, 0);
    for case in 0..cases(300) {
        let wreck = &wrecks[case as usize % 2];
        let files: Vec<_> = wreck.disk.contents();
        let (file, bytes) = &files[random.below(files.len() as u64) as usize];
        let page = random.below(bytes.len().div_ceil(4096) as u64) as usize * 4096;
        let with_zeros = random.below(2) == 0;
        let disk = wreck.damaged(file, |bytes| {
            let end = bytes.len().min(page + 4096);
            bytes[page.min(end)..end].fill_with(|| if with_zeros { 0 } else { random.next() as u8 });
        });
        if !file.ends_with("LOCK") {
            found += wreck.open(&disk).found.len();
            owed += wreck.current.len();
        }
    }
    figure(
        17,
        &format!("{} pages of zeros or garbage, 0 wrong, {found} of {owed} entries found", cases(300)),
    );
    assert!(found > owed / 2, "{found} of {owed} were found: nothing was tested");
}

/// Line 18.
#[test]
fn segments_are_swapped_doubled_and_renamed() {
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 18));
    let wrecks = [Left::ByClose, Left::ByKill].map(|left| Wreck::new(left, 1));
    let (mut found, mut owed) = (0, 0);
    for case in 0..cases(200) {
        let wreck = &wrecks[case as usize % 2];
        let files = wreck.files("seg-");
        let mut pick = || files[random.below(files.len() as u64) as usize].clone();
        let (one, other) = (pick(), pick());
        let disk = wreck.disk.after_kill();
        match case / 2 % 4 {
            0 => {
                disk.overwrite(&one, wreck.bytes(&other));
                disk.overwrite(&other, wreck.bytes(&one));
            }
            1 => disk.overwrite(&one, wreck.bytes(&other)),
            2 => disk.put(Path::new("cache/seg-0000ffff.log"), wreck.bytes(&one)),
            _ => {
                disk.put(Path::new("cache/seg-0000ffff.log"), wreck.bytes(&one));
                disk.remove(&one);
            }
        }
        found += wreck.open(&disk).found.len();
        owed += wreck.current.len();
    }
    figure(
        18,
        &format!(
            "{} segments swapped, doubled or renamed, 0 stale, {found} of {owed} entries found",
            cases(200)
        ),
    );
    assert!(found > owed / 2, "{found} of {owed} were found: nothing was tested");
}

/// Line 19: a frame with a check of its own that is right, of another life, of another file or of another
/// place in this one, behind the end of what is true here.
#[test]
fn frames_of_a_previous_life_behind_the_end() {
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 19));
    let (wreck, earlier) = (Wreck::new(Left::ByKill, 2), Wreck::new(Left::ByKill, 1));
    let open_segment = wreck.files("seg-").pop().unwrap();
    let tail = wreck.bytes(&open_segment).iter().rposition(|&byte| byte != 0).unwrap().next_multiple_of(8);
    for case in 0..cases(200) {
        let source = if case % 2 == 0 { &earlier } else { &wreck };
        let files = source.files("seg-");
        let donor = source.bytes(&files[random.below(files.len() as u64) as usize]);
        let from = if case % 4 < 2 { tail } else { 64 + random.below(1024) as usize * 8 };
        let disk = wreck.damaged(&open_segment, |bytes| {
            let len = (bytes.len() - tail).min(donor.len().saturating_sub(from));
            bytes[tail..tail + len].copy_from_slice(&donor[from..from + len]);
        });
        let found = wreck.open(&disk).found;
        assert!(found.iter().eq(wreck.current.keys()), "what is true was lost to what was planted");
    }
    figure(19, &format!("{} tails with frames of another life, 0 accepted", cases(200)));
}

/// Line 20: every byte of a small snapshot, and of one of 64 KiB.
#[test]
fn the_snapshot_is_damaged() {
    let (mut damages, mut fallbacks) = (0, 0);
    for (shape, share) in [(SEGMENTS, 13), (ENTRIES, 2003)] {
        let wreck = Wreck::of(shape, Left::ByClose, 1);
        let file = wreck.files("index.snap").pop().unwrap();
        let bytes = wreck.bytes(&file);
        let sweep = |disk: &MemoryDisk| {
            let opened = wreck.open(disk);
            assert!(opened.found.iter().eq(wreck.current.keys()), "{} of them", opened.found.len());
            opened.start
        };
        for at in sample(bytes.len(), share) {
            let flipped = sweep(&wreck.damaged(&file, |bytes| bytes[at] ^= 1 << (at % 8)));
            let cut = sweep(&wreck.damaged(&file, |bytes| bytes.truncate(at)));
            fallbacks += [flipped, cut].iter().filter(|&&start| start == Start::Recovered).count();
            damages += 2;
        }
    }
    figure(20, &format!("{damages} flips and cuts of the snapshot, the same keys after each"));
    assert!(fallbacks > damages / 4, "{fallbacks} of {damages} were noticed at open");
}

/// `Clean` has no journal that footers could be believed by: what is damaged in its snapshot is lost, and no more.
#[test]
fn a_damaged_snapshot_costs_a_clean_cache_one_stripe() {
    let disk = MemoryDisk::new();
    let clean = || builder(&disk, SEGMENTS).durability(Durability::Clean);
    let cache = clean().open().unwrap();
    (0..SEGMENTS.keys).for_each(|key| cache.insert(key, value(key, 1, 24)).unwrap());
    cache.close().unwrap();
    let mut snapshot = disk.bytes("cache/index.snap").unwrap();
    snapshot[64] ^= 1;
    disk.overwrite("cache/index.snap", snapshot);
    let cache = clean().open().unwrap();
    let found = (0..SEGMENTS.keys).filter(|&key| match cache.get(&key) {
        None => false,
        found => found == Some(value(key, 1, 24)) || panic!("key {key} is another"),
    });
    let (found, keys) = (found.count() as u64, SEGMENTS.keys);
    assert_eq!((cache.stats().recovery.start, cache.len()), (Start::Clean, found));
    assert!((keys / 2..keys).contains(&found), "{found} of {keys} in three of four stripes");
}

/// Line 21: every byte of a small journal, and of one of 64 KiB.
#[test]
fn the_journal_is_damaged() {
    let (mut damages, mut cold) = (0, 0);
    for (shape, share) in [(SEGMENTS, 7), (CHANGES, 2003)] {
        let wreck = Wreck::of(shape, Left::ByKill, 1);
        let file = wreck.files("inv-").pop().unwrap();
        let used = wreck.bytes(&file).iter().rposition(|&byte| byte != 0).unwrap() + 1;
        let mut sweep = |disk: &MemoryDisk| {
            damages += 1;
            let opened = wreck.open(disk);
            if opened.found.is_empty() {
                cold += 1;
            } else {
                assert!(opened.found.iter().eq(wreck.current.keys()), "{} of them", opened.found.len());
            }
        };
        for at in sample(used, share) {
            sweep(&wreck.damaged(&file, |bytes| bytes[at] ^= 1 << (at % 8)));
            sweep(&wreck.damaged(&file, |bytes| bytes.truncate(at)));
        }
    }
    figure(21, &format!("{damages} flips and cuts of the journal, {cold} cold, 0 stale"));
    assert!(cold * 3 > damages, "{cold} of {damages} were noticed");
}

/// Line 22.
#[test]
fn state_is_damaged_missing_or_anothers() {
    let (wreck, other) = (Wreck::new(Left::ByKill, 1), Wreck::new(Left::ByKill, 2));
    let state = wreck.files("STATE").pop().unwrap();
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 22));
    let all_cold = |disk: &MemoryDisk| {
        let opened = wreck.open(disk);
        assert!(!opened.start.is_warm() && opened.found.is_empty(), "{:?}", opened.start);
    };
    let disk = wreck.disk.after_kill();
    disk.remove(&state);
    all_cold(&disk);
    all_cold(&wreck.damaged(&state, |bytes| *bytes = other.bytes(&state)));
    for _ in 0..cases(128) {
        all_cold(&wreck.damaged(&state, |bytes| {
            for slot in bytes.chunks_mut(512) {
                slot[random.below(512) as usize] ^= 1 << random.below(8);
            }
        }));
    }
    figure(22, &format!("{} directories without a STATE that can be believed, all cold", cases(128) + 2));
}
