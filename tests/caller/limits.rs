//! Sizes, times and numbers at the edges of what can be: stored exactly, refused, or forgotten.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use crate::common::{
    Random, cases, figure, from_env,
    value::{filling, value, version},
};
use embercache::{
    Admission, Builder, Cache, Codec, CodecError, CodecId, Durability, Error, GIB, KIB, MIB, WriteBehind,
    testing::{FaultDisk, Io, MemoryDisk},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const SECOND: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const SEGMENT_BYTES: u64 = 64 * KIB;

fn builder(io: impl Io + 'static) -> Builder<u64, Vec<u8>> {
    let builder = Cache::builder("cache").ram(2 * MIB).stripes(2).segment_size(SEGMENT_BYTES).disk(4 * MIB);
    builder.admission(Admission::All).write_behind(WriteBehind::Never).io(Arc::new(io))
}

/// Line 46: values of every awkward size, in RAM, from disk, and over a close and a kill.
#[test]
fn sizes() {
    let quarter = SEGMENT_BYTES as usize / 4;
    // The last that surely fit in a record of a quarter of a segment, with its header and key.
    let around_a_quarter = quarter - 64..quarter + 2;
    let small = [0, 1, 15, 16, 17, 4095, 4096, 4097, SEGMENT_BYTES as usize];
    let sizes: Vec<usize> = small.into_iter().chain(around_a_quarter).collect();
    let bytes = |index: usize| filling(index as u64, 1, sizes[index]);
    let disk = MemoryDisk::new();
    let cache = builder(disk.clone()).open().unwrap();
    for (index, size) in sizes.iter().enumerate() {
        cache.insert(index as u64, bytes(index)).unwrap();
        assert_eq!(cache.get(&(index as u64)), Some(bytes(index)), "{size} bytes");
    }
    cache.flush().unwrap();
    assert!(cache.stats().too_large > 0);
    let killed = builder(disk.after_kill()).open().unwrap();
    cache.close().unwrap();
    let closed = builder(disk).open().unwrap();
    let mut kept = 0;
    for (index, &size) in sizes.iter().enumerate() {
        let key = index as u64;
        let found = killed.get(&key);
        assert_eq!(found, closed.get(&key), "{size} bytes");
        match &found {
            Some(found) => assert!(*found == bytes(index) && size < quarter, "{size} bytes"),
            None => assert!(size > quarter - 64, "{size} bytes are lost"),
        }
        kept += u64::from(found.is_some());
    }
    figure(
        46,
        &format!("{} sizes, {kept} on disk and back, the others in RAM alone: all exact", sizes.len()),
    );
}

/// Line 46: larger than the budget, than 4 GiB, than all that can be counted. Nothing of it is allocated.
#[test]
fn sizes_that_are_only_told() {
    let disk = MemoryDisk::new();
    let cache: Cache<String, Told> = Cache::builder("cache").io(Arc::new(disk.clone())).open().unwrap();
    for bytes in [64 << 20, u64::from(u32::MAX), u64::from(u32::MAX) + 1, 5 << 30, 1 << 63, u64::MAX] {
        let told = Told { in_ram: bytes, on_disk: 1 };
        cache.insert("1".to_owned(), Told { in_ram: 8, on_disk: 1 }).unwrap();
        let refused = cache.insert("1".to_owned(), told);
        assert!(
            matches!(refused, Err(Error::TooLarge { what: "entry", found, .. }) if found >= bytes),
            "{bytes}: {refused:?}"
        );
        assert_eq!(cache.get("1"), None, "what stood there is gone");
    }
    // It says that it is small until it is written.
    let liar = Told { in_ram: 8, on_disk: 4 * GIB + 1 };
    cache.insert("2".to_owned(), Told { in_ram: 8, on_disk: 1 }).unwrap();
    cache.flush().unwrap();
    cache.insert("2".to_owned(), liar.clone()).unwrap();
    cache.flush().unwrap();
    assert_eq!(cache.get("2"), Some(liar), "RAM has no quarrel with it");
    assert_eq!(cache.stats().too_large, 1);
    cache.check();
    cache.close().unwrap();
    let cache: Cache<String, Told> = Cache::builder("cache").io(Arc::new(disk)).open().unwrap();
    assert_eq!(cache.get("2"), None, "neither the old value nor a part of the new one");
    figure(46, "six sizes from 64 MiB to 2^64 - 1 are refused; 4 GiB + 1 bytes never reach the disk");
}

/// A value that says how large it is.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    in_ram: u64,
    on_disk: u64,
}

impl Codec for Told {
    const ID: CodecId = CodecId(70_046);

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.with_bytes(|bytes| out.extend(bytes))
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
        Ok(Told { in_ram: 8, on_disk: bytes.len() as u64 })
    }

    fn heap_bytes(&self) -> usize {
        self.in_ram as usize
    }

    /// Zeroed memory costs nothing before somebody looks at it.
    fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
        Ok(read(&vec![0; self.on_disk as usize]))
    }
}

/// How a run ends, and what the machine does then.
#[derive(Clone, Copy, Debug)]
struct End {
    is_close: bool,
    is_reboot: bool,
    durability: Durability,
}

/// Line 47: the wall clock jumps while the cache is closed. What has expired by the true time stays so, and
/// what cannot expire stays.
#[test]
fn clocks_that_jump() {
    let hour = 3600 * SECOND;
    let jumps: [(&str, Duration, Duration); 4] = [
        ("none", Duration::ZERO, Duration::ZERO),
        ("back an hour", Duration::ZERO, hour),
        ("back ten years", Duration::ZERO, 10 * YEAR),
        ("on ten years", 10 * YEAR, Duration::ZERO),
    ];
    let (mut restarts, mut seen) = (0, 0);
    for (first, second) in jumps.into_iter().flat_map(|first| jumps.map(|second| (first, second))) {
        for is_close in [true, false] {
            for (is_reboot, durability) in [
                (false, Durability::ProcessCrash),
                (true, Durability::ProcessCrash),
                (false, Durability::PowerLoss),
                (true, Durability::PowerLoss),
            ] {
                let end = End { is_close, is_reboot, durability };
                let what = format!("{}, then {}, {end:?}", first.0, second.0);
                let mut machine = Machine::new(end);
                machine.live(&what);
                let mut seen_here = 0;
                for (_, forward, back) in [first, second] {
                    machine.restart(forward, back);
                    seen_here += machine.live(&what);
                    restarts += 1;
                }
                // What still has minutes to live when it is back, where nothing says otherwise.
                let is_steady = first.0 == "none" && second.0 == "none";
                assert!(
                    seen_here > 0 || !is_steady || !end.is_warm(),
                    "{what}: nothing that may expire is back"
                );
                seen += seen_here;
            }
        }
    }
    figure(
        47,
        &format!(
            "{restarts} restarts with the clock set back and on, 0 expired values seen, {seen} that had not"
        ),
    );
}

impl End {
    /// Whether the next run may find what this one has stored.
    fn is_warm(self) -> bool {
        self.is_close || !self.is_reboot || self.durability == Durability::PowerLoss
    }
}

/// A machine whose true time is known.
struct Machine {
    end: End,
    memory: MemoryDisk,
    disk: FaultDisk,
    boots: u8,
    now: Duration,
    /// What the wall clock shows, minus `now`, in seconds.
    offset_s: i64,
    /// By key, when each entry expires; those without an end are below 10.
    deadlines: HashMap<u64, Duration>,
    next_key: u64,
}

impl Machine {
    fn new(end: End) -> Machine {
        let memory = MemoryDisk::new();
        let disk = FaultDisk::over(Arc::new(memory.clone()));
        let now = Duration::from_secs(1_700_000_000);
        Machine { end, memory, disk, boots: 1, now, offset_s: 0, deadlines: HashMap::new(), next_key: 10 }
    }

    /// Opens the cache, looks, stores more, waits, and ends it. How much is back that may expire and has not.
    fn live(&mut self, what: &str) -> usize {
        self.disk.set_boot_id([self.boots; 16]);
        self.pass(Duration::ZERO);
        let cache = builder(self.disk.clone()).durability(self.end.durability).open().unwrap();
        let is_first = self.next_key == 10;
        for key in 0..10 {
            if !is_first && self.end.is_warm() {
                assert_eq!(cache.get(&key), Some(value(key, 1, 100)), "{what}: {key} cannot expire");
            }
            cache.insert(key, value(key, 1, 100)).unwrap();
        }
        let back = self.look(&cache, what);
        let first_own = self.next_key;
        for ttl_s in [1, 5, 59, 60, 61, 300, 4_000, 100_000] {
            for _ in 0..4 {
                let ttl = Duration::from_secs(ttl_s);
                cache.insert_with_ttl(self.next_key, value(self.next_key, 1, 100), ttl).unwrap();
                self.deadlines.insert(self.next_key, self.now + ttl);
                self.next_key += 1;
            }
        }
        cache.flush().unwrap();
        self.look(&cache, what);
        self.pass(30 * SECOND);
        self.look(&cache, what);
        for key in first_own..self.next_key {
            // A second early at the most, as the builder says.
            let is_due = self.deadlines[&key] <= self.now + SECOND;
            assert!(is_due || cache.contains_key(&key), "{what}: {key} is lost before its time");
        }
        if self.end.is_close {
            cache.close().unwrap();
        } else {
            self.memory = self.memory.after_kill();
        }
        back
    }

    /// A minute passes, and the wall clock jumps.
    fn restart(&mut self, forward: Duration, back: Duration) {
        if self.end.is_reboot {
            self.boots += 1;
            self.memory.reboot();
        }
        let running = FaultDisk::over(Arc::new(self.memory.clone()));
        if !self.end.is_reboot {
            running.advance_clock(self.now - Duration::from_secs(1_700_000_000));
        }
        self.disk = running;
        self.offset_s += forward.as_secs() as i64 - back.as_secs() as i64;
        self.pass(60 * SECOND);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.disk.advance_clock(time);
        let wall_s = (self.now.as_secs() as i64 + self.offset_s).max(0);
        self.disk.set_wall_time(Some(Duration::from_secs(wall_s as u64)));
    }

    /// How many entries that may expire are there, of which none has.
    fn look(&self, cache: &Cache<u64, Vec<u8>>, what: &str) -> usize {
        let mut seen = 0;
        for (&key, &deadline) in &self.deadlines {
            let is_there = cache.peek(&key).is_some() || cache.get(&key).is_some();
            assert!(!is_there || self.now < deadline, "{what}: {key} had expired at {deadline:?}");
            seen += usize::from(is_there);
        }
        seen
    }
}

/// Line 47: times to live that end where the numbers for them do, and clocks that stand there.
#[test]
fn times_at_the_end_of_their_numbers() {
    let edge = u64::from(u32::MAX);
    let (mut looks, mut hits) = (0, 0);
    for wall_s in [0, 1, 2, edge - 40, edge - 1, edge, edge + 1, edge * 2, 1 << 40] {
        let memory = MemoryDisk::new();
        let disk = FaultDisk::over(Arc::new(memory.clone()));
        disk.set_wall_time(Some(Duration::from_secs(wall_s)));
        let mut cache = builder(disk.clone()).open().unwrap();
        let ttls = [Duration::ZERO, Duration::from_nanos(1), SECOND, 15 * SECOND, 45 * SECOND, 3 * YEAR];
        let ttls =
            ttls.into_iter().chain([Duration::from_secs(edge), Duration::from_secs(edge + 1), Duration::MAX]);
        let ttls: Vec<Duration> = ttls.collect();
        for (key, ttl) in (0..).zip(&ttls) {
            cache.insert_with_ttl(key, value(key, 1, 100), *ttl).unwrap();
        }
        for age_s in (0..60).step_by(10) {
            for (key, ttl) in (0..).zip(&ttls) {
                let found = cache.get(&key);
                assert!(found.is_none() || *ttl > age_s * SECOND, "{ttl:?} at {wall_s}, after {age_s} s");
                looks += 1;
                hits += u64::from(found.is_some());
            }
            cache.flush().unwrap();
            disk.advance_clock(10 * SECOND);
            cache.close().unwrap();
            cache = builder(disk.clone()).open().unwrap();
        }
    }
    assert!(hits > looks / 8, "{hits} hits of {looks}");
    figure(
        47,
        &format!(
            "{looks} look-ups around the ends of the clock and of times to live, 0 expired, {hits} hits"
        ),
    );
}

/// Line 48: the numbers of segments and events come to their ends.
#[test]
fn numbers_at_their_ends() {
    const SEGMENT_ID_MAX: u32 = (1 << 30) - 1;
    const SEQ_MAX: u64 = u64::MAX >> 1;
    let next_segment =
        |number: u32| move |slot: &mut [u8]| slot[104..108].copy_from_slice(&number.to_le_bytes());
    let next_seq = |seq: u64| move |slot: &mut [u8]| slot[96..104].copy_from_slice(&seq.to_le_bytes());
    let (mut operations, mut back) = (0, 0);
    let mut add = |(operations_here, back_here)| {
        operations += operations_here;
        back += back_here;
    };
    for left in [0, 1, 2, 10, 100] {
        add(use_from(next_segment(SEGMENT_ID_MAX - left)));
        add(use_from(next_seq(SEQ_MAX - u64::from(left) * 10)));
    }
    add(use_from(next_segment(SEGMENT_ID_MAX + 1)));
    add(use_from(next_segment(u32::MAX)));
    add(use_from(next_seq(u64::MAX)));
    assert!(back > 0, "no value outlived a restart");
    figure(
        48,
        &format!(
            "segment ids to 2^30 - 1 and seqs to 2^63: {operations} operations, 0 wrong, {back} values read from disk"
        ),
    );
}

/// Uses a cache whose STATE has been edited, over closes and kills, beside a model. The operations, and how many
/// values were read from disk.
fn use_from(edit: impl Fn(&mut [u8])) -> (u64, u64) {
    let mut disk = MemoryDisk::new();
    let small = |disk: &MemoryDisk| builder(disk.clone()).ram(MIB).disk(256 * KIB).open().unwrap();
    small(&disk).close().unwrap();
    edit_state(&disk, edit);
    let mut cache = small(&disk);
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 48));
    let mut versions: HashMap<u64, u64> = HashMap::new();
    let operations = cases(400);
    let mut back = 0;
    for operation in 1..=operations {
        let key = random.below(64);
        let choice = random.below(40);
        match choice {
            0..25 => {
                cache.insert(key, value(key, operation, 3_000)).unwrap();
                versions.insert(key, operation);
            }
            25..35 => {
                cache.remove(&key).unwrap();
                versions.remove(&key);
            }
            35..38 => drop(cache.flush()),
            38 => {
                back += cache.stats().disk_hits;
                disk = disk.after_kill();
                cache = small(&disk);
            }
            _ => {
                back += cache.stats().disk_hits;
                drop(cache.close());
                cache = small(&disk);
            }
        }
        let found = cache.get(&key).map(|bytes| version(key, &bytes));
        assert!(found.is_none() || found == versions.get(&key).copied(), "{operation}: {key} has {found:?}");
        assert!(found.is_some() || choice >= 25, "{operation}: {key} is lost at once");
    }
    cache.check();
    (operations, back + cache.stats().disk_hits)
}

/// Changes the newer slot, and makes its check right again.
fn edit_state(disk: &MemoryDisk, edit: impl Fn(&mut [u8])) {
    let path = Path::new("cache/STATE");
    let mut state = disk.bytes(path).unwrap();
    let generation = |slot: &[u8]| u64::from_le_bytes(slot[16..24].try_into().unwrap());
    let (first, second) = state.split_at_mut(512);
    let newest = if generation(first) > generation(second) { first } else { second };
    edit(newest);
    let check = xxh3_64_with_seed(&newest[..504], 0);
    newest[504..512].copy_from_slice(&check.to_le_bytes());
    disk.overwrite(path, state);
}

/// Line 48: the last offset of the largest segment there is.
#[test]
fn records_at_the_end_of_the_largest_segment() {
    let Err(Error::Option { allowed, .. }) =
        builder(MemoryDisk::new()).disk(1 << 40).segment_size(1 << 40).open().map(drop)
    else {
        panic!("there is a largest segment")
    };
    let largest: u64 = allowed.rsplit(' ').next().unwrap().parse().unwrap();
    let disk = MemoryDisk::new();
    let open = |disk: &MemoryDisk| {
        let builder = builder(disk.clone()).ram(256 * MIB).segment_size(largest);
        builder.disk(4 * largest).open().unwrap()
    };
    let cache = open(&disk);
    let large_bytes = 8 * MIB as usize;
    let large = largest / large_bytes as u64;
    let bytes = |key: u64| value(key, 1, if key < large - 1 { large_bytes } else { 3_900 });
    // The small ones fill what is left of the first segment, and begin the next.
    let keys = large + 12 * MIB / 4_000;
    for key in 0..keys {
        cache.insert(key, bytes(key)).unwrap();
        if key.is_multiple_of(1_000) || key == large {
            cache.flush().unwrap();
        }
    }
    cache.close().unwrap();
    let segments = disk.contents().iter().filter(|(path, _)| path.to_string_lossy().contains("seg-")).count();
    let cache = open(&disk);
    for key in 0..keys {
        assert!(cache.get(&key) == Some(bytes(key)), "{key} of {keys}");
    }
    assert!(segments > 1, "the first segment was not filled");
    figure(48, &format!("{keys} records to the end of a segment of {} MiB, all back", largest >> 20));
}

/// An entry that is large beside its stripe's share is overwritten again and again, in a cache that has room for it and
/// for all others.
#[test]
fn a_large_entry_that_is_overwritten_stays() {
    let cache = Cache::<u64, Vec<u8>>::in_memory().ram(64 * MIB).stripes(32).open().unwrap();
    (1_000..1_320).for_each(|key| cache.insert(key, vec![0; 10_000]).unwrap());
    for round in 0..10 {
        cache.insert(1, vec![round; 16 << 20]).unwrap();
        assert_eq!(cache.get_with(&1, |value| value[0]), Some(round));
    }
    assert_eq!(cache.len(), 321, "others had to go");
}
