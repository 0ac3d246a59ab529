//! Line 12: loss of power under a real file system.
//!
//! The cache lies in an ext4 whose disk is a file of a FUSE server, which sees every block written and every
//! flush. From that come images: all that was written before some flush, and of the later writes any
//! subset, some in part. Each has to mount, and the cache on it is judged by what had been acknowledged
//! when the power went, on the clock of the disk: the number of writes and flushes that it had seen.
//! `EMBERCACHE_SOAK` (a factor) makes it more than twelve.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use common::{
    Random, TempDir, TestCache, cases, fault_disk, figure, from_env,
    machine::{Mount, run},
    skip,
    value::{self, value},
};
use embercache::{Admission, Builder, Cache, Durability, KIB, MIB, ReadMode, WriteBehind};
use embercache_fuse::{self as fuse, Event};

const KEYS: u64 = 1_000;
const WRITERS: u64 = 2;
/// For how long a disk is used, and how many images are made of that.
const USE: Duration = Duration::from_millis(2_500);
const IMAGES_A_DISK: u64 = 50;
const SECTOR_BYTES: usize = 512;

#[test]
fn power_is_lost_under_ext4() {
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 12));
    let images = cases(12);
    let (mut made, mut found, mut owed, mut dropped) = (0, 0, 0, 0);
    while made < images {
        let Some(disk) = Disk::used(random.next()) else { return };
        for _ in 0..IMAGES_A_DISK.min(images - made) {
            let cut = disk.cut(&mut random);
            let image = disk.image(cut, &mut random);
            dropped += image.dropped;
            let (seen, back) = disk.judge(&image, cut);
            found += seen;
            owed += back;
            made += 1;
        }
    }
    figure(
        12,
        &format!(
            "{images} images of ext4, {dropped} unsynced writes lost or torn: all mount; {found} entries \
             found, 0 stale, 0 corrupt; {owed} owed and back"
        ),
    );
    assert!(dropped > images / 4 && owed > images * 10, "{dropped} lost, {owed} owed: nothing was tested");
}

/// A disk that was used, and what everybody was told meanwhile.
struct Disk {
    /// When the file system had just been mounted.
    base: Vec<u8>,
    events: Vec<Event>,
    /// Of each writer, in its order.
    diaries: Vec<Vec<Entry>>,
}

/// What a loss of power has left.
struct Image {
    bytes: Vec<u8>,
    /// Unsynced writes that are not there, or not whole.
    dropped: u64,
}

/// An operation, and when it was called and acknowledged.
#[derive(Clone, Copy, Debug)]
struct Entry {
    operation: Operation,
    begun: usize,
    acked: usize,
}

/// The versions of a key rise, those of its removes included.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Insert { key: u64, version: u64 },
    Remove { key: u64, version: u64 },
    Flush,
}

impl Disk {
    /// Makes an ext4 and uses a cache on it. `None`, said aloud, where that cannot be.
    fn used(seed: u64) -> Option<Disk> {
        let dir = TempDir::new();
        let at = dir.outer().join("fuse");
        fs::create_dir(&at).unwrap();
        let server = match fuse::Mount::new(&at, fuse::Options::default()) {
            Ok(server) => server,
            Err(error) => {
                skip("a FUSE file system", &error.to_string());
                return None;
            }
        };
        server.add("disk", empty_ext4(&dir)?);
        let ext4 = Mount::of_image(&at.join("disk"))?;
        run(&["sync", "-f", ext4.path().to_str().unwrap()])?;
        let base = server.start_recording("disk").expect("it was added");
        let diaries = use_cache(&ext4.path().join("cache"), &server, seed);
        let events = server.take_recorded();
        let syncs = events.iter().filter(|event| matches!(event, Event::Sync)).count();
        assert!(syncs > 20, "{syncs} flushes reached the disk: nothing was tested");
        Some(Disk { base, events, diaries })
    }

    /// A moment to lose the power at: mostly one at which there is something to lose.
    fn cut(&self, random: &mut Random) -> usize {
        let mut unsynced = 0;
        let after = |event: &Event| {
            unsynced = if matches!(event, Event::Sync) { 0 } else { unsynced + 1 };
            unsynced
        };
        let unsynced: Vec<usize> = self.events.iter().map(after).collect();
        let most = unsynced.iter().max().copied().unwrap_or(0);
        let wanted = most.min(random.below(5) as usize);
        let cuts: Vec<usize> = (1..=unsynced.len()).filter(|&cut| unsynced[cut - 1] >= wanted).collect();
        cuts[random.below(cuts.len() as u64) as usize]
    }

    /// What the disk may hold when the power goes after `cut` events.
    fn image(&self, cut: usize, random: &mut Random) -> Image {
        let events = &self.events[..cut];
        let synced = events.iter().rposition(|event| matches!(event, Event::Sync)).map_or(0, |at| at + 1);
        let mut image = Image { bytes: self.base.clone(), dropped: 0 };
        // How much of a cache the disk has written when it stops is anything from nothing to all.
        let kept_percent = [0, 30, 70, 95][random.below(4) as usize];
        for (at, event) in events.iter().enumerate() {
            let Event::Write(offset, written) = event else { continue };
            let whole = at < synced || random.below(100) < kept_percent;
            let torn = !whole && random.below(4) == 0;
            image.dropped += u64::from(!whole);
            for (sector, bytes) in written.chunks(SECTOR_BYTES).enumerate() {
                if whole || (torn && random.below(2) == 0) {
                    let start = *offset as usize + sector * SECTOR_BYTES;
                    image.bytes[start..start + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        image
    }

    /// Mounts the image and opens the cache on it, as after a reboot. How many entries were found, and how
    /// many of them had to be.
    fn judge(&self, image: &Image, cut: usize) -> (u64, u64) {
        let dir = TempDir::new();
        let file = dir.outer().join("image");
        write_sparsely(&file, &image.bytes);
        let ext4 = Mount::of_image(&file).unwrap_or_else(|| panic!("cut at {cut}: it does not mount"));
        let disk = fault_disk();
        disk.set_boot_id([2; 16]);
        let cache = builder(&ext4.path().join("cache")).io(disk).open().unwrap();
        let mut owed = 0;
        let found = (0..KEYS).filter(|&key| {
            let found = cache.get(&key).map(|found| value::version(key, &found));
            owed += self.check(key, found, cut);
            found.is_some()
        });
        let found = found.count() as u64;
        cache.close().unwrap();
        (found, owed)
    }

    /// Whether this version, or none, may be what was found; 1 if nothing else could be.
    fn check(&self, key: u64, found: Option<u64>, cut: usize) -> u64 {
        // The latest of its operations that was acknowledged, and what the latest flush had to save.
        let (mut floor, mut last, mut owed) = (0, None, None);
        let diary = &self.diaries[(key % WRITERS) as usize];
        for entry in diary.iter().filter(|entry| entry.begun < cut) {
            let acked = entry.acked <= cut;
            match entry.operation {
                Operation::Insert { key: of, version } | Operation::Remove { key: of, version } => {
                    if of == key {
                        let inserted = acked && matches!(entry.operation, Operation::Insert { .. });
                        (last, owed) = (inserted.then_some(version), None);
                        floor = if acked { version } else { floor };
                    }
                }
                Operation::Flush => owed = if acked { last } else { owed },
            }
        }
        if let Some(version) = found {
            assert!(version >= floor, "cut at {cut}: key {key} has version {version}, stale since {floor}");
            let inserted = |entry: &Entry| match entry.operation {
                Operation::Insert { key: of, version: with } => of == key && with == version,
                _ => false,
            };
            let known = diary.iter().any(|entry| entry.begun < cut && inserted(entry));
            assert!(known, "cut at {cut}: key {key} has version {version}, which nobody had inserted");
        }
        let Some(version) = owed else { return 0 };
        assert_eq!(found, Some(version), "cut at {cut}: key {key} was flushed and is lost");
        1
    }
}

fn builder(dir: &Path) -> Builder<u64, Vec<u8>> {
    Cache::builder(dir)
        .ram_entries(48)
        .segment_size(256 * KIB)
        .disk(40 * MIB)
        .stripes(4)
        .admission(Admission::All)
        .write_behind(WriteBehind::After(Duration::from_millis(20)))
        .durability(Durability::PowerLoss)
}

/// Uses a cache for some time, closed once in between. What each writer did.
fn use_cache(dir: &Path, server: &fuse::Mount, seed: u64) -> Vec<Vec<Entry>> {
    let mut diaries = vec![Vec::new(); WRITERS as usize];
    for life in 0..2 {
        // Without maps. To map a file marks it as read: under the lock on this process' memory, ext4 may wait
        // for its journal, that for the server, and the server, in the same process, for that lock.
        let cache = builder(dir).read_mode(ReadMode::Strict).open().unwrap();
        let end = Instant::now() + USE / 2;
        thread::scope(|scope| {
            for (writer, diary) in (0..).zip(&mut diaries) {
                let random = Random::new(seed ^ (life << 8 | writer));
                let mut writer = Writer { cache: &cache, server, writer, diary, random };
                scope.spawn(move || {
                    while Instant::now() < end {
                        writer.step();
                    }
                });
            }
        });
        let stats = cache.stats();
        assert_eq!((stats.reclaimed, stats.write_failures), (0, 0), "a missing entry would prove nothing");
        cache.close().unwrap();
    }
    diaries
}

/// One of those who use the cache, with keys of its own.
struct Writer<'a> {
    cache: &'a TestCache,
    server: &'a fuse::Mount,
    writer: u64,
    diary: &'a mut Vec<Entry>,
    random: Random,
}

impl Writer<'_> {
    fn step(&mut self) {
        let key = self.random.below(KEYS / WRITERS) * WRITERS + self.writer;
        let version = self.diary.len() as u64 + 1;
        let len = [24, 64, 400, 3_000][self.random.below(4) as usize];
        let operation = match self.random.below(100) {
            0..70 => Operation::Insert { key, version },
            70..74 => Operation::Remove { key, version },
            74 => Operation::Flush,
            _ => return drop(self.cache.get(&key)),
        };
        let begun = self.server.recorded();
        match operation {
            Operation::Insert { .. } => self.cache.insert(key, value(key, version, len)),
            Operation::Remove { .. } => self.cache.remove(&key).map(drop),
            Operation::Flush => self.cache.flush(),
        }
        .unwrap();
        self.diary.push(Entry { operation, begun, acked: self.server.recorded() });
    }
}

/// The bytes of a disk with nothing but a file system.
fn empty_ext4(dir: &TempDir) -> Option<Vec<u8>> {
    let image = dir.outer().join("new");
    let path = image.to_str().unwrap();
    run(&["truncate", "-s", "64M", path])?;
    // What a mount would otherwise write to in the background for a while.
    run(&["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", path])?;
    Some(fs::read(image).unwrap())
}

/// Leaves holes where there are only zeros.
fn write_sparsely(path: &Path, bytes: &[u8]) {
    const BLOCK_BYTES: usize = 4096;
    let mut file = fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (block, at) in bytes.chunks(BLOCK_BYTES).zip((0..).step_by(BLOCK_BYTES)) {
        if block.iter().any(|&byte| byte != 0) {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(block).unwrap();
        }
    }
}
