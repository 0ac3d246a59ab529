//! Kills and losses of power at every moment of a cache's life, in memory: a recorder keeps what was
//! written and what was synced, and makes of any moment what the disk could hold after it. Each such
//! image is opened and judged by what had been acknowledged.
//!
//! `EMBERCACHE_SOAK` multiplies the number of images.

use std::{
    io::ErrorKind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crate::common::{
    Random, TestCache, cases, figure, from_env,
    history::{History, What},
    value::{self, value},
    wait_until,
};
use embercache::{
    Admission, Builder, Cache, Durability, Error, KIB, MIB, Start, WriteBehind,
    testing::{FaultDisk, Io, MemoryDisk, Moment, Operation, RecorderDisk, Replay, Side, Step},
};

const KEYS: u64 = 24;
const THREADS: u64 = 2;
const OPS: u64 = 120;
/// Lives of a directory, each on what the one before has left, and images that are made of each.
const LIVES: u64 = 4;
const IMAGES: u64 = 12;

/// Line 10, PowerLoss: whatever the moment, nothing old comes back, and nothing that a flush has made safe is lost.
#[test]
fn a_loss_of_power_costs_nothing_that_was_promised() {
    let found = run_all(1, 4_000, |_| Durability::PowerLoss);
    assert!(found.owed > found.images, "only {} entries were owed: nothing was tested", found.owed);
    assert!(found.warm > found.images / 2, "only {} starts were warm", found.warm);
    let Found { images, owed, .. } = found;
    figure(10, &format!("{images} images, {owed} flushed entries owed and back, 0 stale, 0 corrupt"));
}

/// Line 11, the default mode: a machine that has rebooted starts cold, and is warm again after a clean close only.
#[test]
fn another_mode_starts_cold_after_a_loss_of_power() {
    let found = run_all(2, 1_000, |_| Durability::ProcessCrash);
    assert!(found.cold > found.images / 4, "only {} starts were cold", found.cold);
    let Found { images, cold, .. } = found;
    figure(11, &format!("{images} images, {cold} of an unclean end and a reboot, all cold, 0 stale"));
}

/// A directory that is opened in one mode, then in another.
#[test]
fn modes_may_follow_one_another() {
    let modes = [Durability::PowerLoss, Durability::ProcessCrash, Durability::Clean];
    let found = run_all(3, 1_500, |random| modes[random.below(3) as usize]);
    assert!(found.warm > found.images / 10 && found.cold > found.images / 10, "{found:?}");
}

/// Line 14 (d), R5: the journal file that says that a segment is dead goes, and then the unlink of that segment turns
/// out to be lost with the power. The disk had refused to unlink it for a while, so nothing else has made
/// that durable in between.
#[test]
fn a_segment_whose_unlink_is_lost_finds_its_journal_still_there() {
    let disk = RecorderDisk::over(MemoryDisk::new());
    let builder = || {
        let builder = Cache::builder("cache").ram_entries(64).stripes(4).segment_size(64 * KIB).disk(MIB);
        let builder = builder.admission(Admission::All).write_behind(WriteBehind::Never).reinsertion(0);
        builder.durability(Durability::PowerLoss)
    };
    let cache = builder().io(Arc::new(disk.clone())).open().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, 2_000)).unwrap());
    cache.flush().unwrap();
    disk.memory().keep_segments(true);
    (0..KEYS).for_each(|key| _ = cache.remove(&key).unwrap());
    // More entries than a journal file has, and from then on so many that all segments begun before are
    // reclaimed: the file is trimmed together with the unlink.
    let others = KEYS..KEYS + 500;
    let overwrite = || {
        others.clone().for_each(|key| cache.insert(key, value(key, 1, 24)).unwrap());
        cache.flush().unwrap();
    };
    let is_there = |name: &str| disk.memory().contents().iter().any(|(path, _)| path.ends_with(name));
    while cache.stats().journal_entries < 50_000 {
        overwrite();
    }
    assert!(is_there("inv-00000000.log") && is_there("seg-00000000.log"), "they went too early");
    let first = disk.replay().events();
    disk.memory().keep_segments(false);
    (0..10).for_each(|_| overwrite());
    assert!(!is_there("inv-00000000.log"), "the journal was not trimmed");

    let mut replay = disk.replay();
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 5));
    let per_moment = cases(10);
    let (mut images, mut back_on_disk, mut without_journal) = (0, 0, 0);
    while let Some(step) = replay.advance() {
        let is_chosen = replay.at() >= first && step == Step::Named;
        if !is_chosen {
            continue;
        }
        let has =
            |disk: &MemoryDisk, name: &str| disk.contents().iter().any(|(path, _)| path.ends_with(name));
        let is_unlinked = !has(&replay.after_kill(false), "seg-00000000.log");
        for _ in 0..per_moment {
            let image = replay.after_power_loss(&mut |below| random.below(below));
            back_on_disk += u64::from(is_unlinked && has(&image, "seg-00000000.log"));
            without_journal += u64::from(!has(&image, "inv-00000000.log"));
            let left = builder().io(Arc::new(image)).open().unwrap();
            assert_eq!(left.stats().recovery.start, Start::Recovered);
            let back: Vec<u64> = (0..KEYS).filter(|key| left.contains_key(key)).collect();
            assert!(back.is_empty(), "{back:?} came back at event {} of {}", replay.at(), replay.events());
            images += 1;
        }
    }
    figure(
        14,
        &format!(
            "(d) {images} images, in {back_on_disk} an unlinked segment is back, in {without_journal} the journal \
             that calls it dead is gone, 0 stale"
        ),
    );
    assert!(
        images > 300 && back_on_disk > images / 50 && without_journal > images / 50,
        "nothing was tested"
    );
}

/// R6: a segment is dead for good before its keys are forgotten. Whoever removes one of them then has nothing to
/// journal, and neither the unlink nor anything else has been synced since.
#[test]
fn a_segment_is_dead_for_good_before_its_keys_are_forgotten() {
    let recorder = RecorderDisk::over(MemoryDisk::new());
    let disk = FaultDisk::over(Arc::new(recorder.clone()));
    let builder = || {
        let builder =
            Cache::builder("cache").ram_entries(8).stripes(1).segment_size(64 * KIB).disk(256 * KIB);
        let builder = builder.admission(Admission::All).write_behind(WriteBehind::Never).reinsertion(0);
        builder.durability(Durability::PowerLoss)
    };
    let cache = Arc::new(builder().io(Arc::new(disk.clone())).open().unwrap());
    (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, 2_000)).unwrap());
    cache.flush().unwrap();
    let removed_by = Arc::new(Mutex::new(None));
    disk.watch({
        let (cache, recorder, removed_by) =
            (Arc::downgrade(&cache), recorder.clone(), Arc::clone(&removed_by));
        move |Moment { operation, file, side, .. }| {
            if operation == Operation::Unlink && side == Side::After && file == "seg-00000000.log" {
                let cache = cache.upgrade().unwrap();
                (0..KEYS).for_each(|key| _ = cache.remove(&key).unwrap());
                *removed_by.lock().unwrap() = Some(recorder.replay().events());
            }
        }
    });
    let mut fillers = KEYS..10_000;
    let moment = loop {
        if let Some(moment) = *removed_by.lock().unwrap() {
            break moment;
        }
        let key = fillers.next().expect("a full disk reclaims its oldest segment");
        cache.insert(key, value(key, 1, 2_000)).unwrap();
    };

    let mut replay = recorder.replay();
    while replay.at() < moment {
        replay.advance();
    }
    let image = replay.after_power_loss(&mut |_| 0);
    let is_back = image.contents().iter().any(|(path, _)| path.ends_with("seg-00000000.log"));
    assert!(is_back, "its unlink is durable: nothing was tested");
    let left = builder().io(Arc::new(image)).open().unwrap();
    assert_eq!(left.stats().recovery.start, Start::Recovered);
    let back: Vec<u64> = (0..KEYS).filter(|key| left.contains_key(key)).collect();
    assert!(back.is_empty(), "{back:?} came back");
}

/// What a flush has made safe stays so while reclaim writes it again: at each moment one copy or the other
/// is whole, and recovery finds that one.
#[test]
fn what_is_written_again_is_never_missing() {
    let disk = RecorderDisk::over(MemoryDisk::new());
    let builder = || {
        let builder =
            Cache::builder("cache").ram_entries(16).stripes(1).segment_size(64 * KIB).disk(512 * KIB);
        let builder = builder.admission(Admission::All).write_behind(WriteBehind::Never);
        builder.durability(Durability::PowerLoss)
    };
    let cache = builder().io(Arc::new(disk.clone())).open().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, 600)).unwrap());
    // A policy that has never seen them leaves them where they are.
    cache.close().unwrap();
    let cache = builder().io(Arc::new(disk.clone())).open().unwrap();
    let first = disk.replay().events();
    for filler in 0..300 {
        cache.insert(KEYS + filler, value(filler, 1, 3_000)).unwrap();
        // Often enough to be worth it, too seldom to come back into RAM.
        if filler % 60 == 50 {
            (0..KEYS).for_each(|key| _ = cache.get(&key));
        }
    }
    assert!(cache.stats().reinsertions > KEYS / 2, "{}", cache.stats());
    let reclaimed = (0..KEYS).filter(|key| cache.get(key).is_none()).count();
    let check = |image: MemoryDisk| {
        let left = builder().io(Arc::new(image)).open().unwrap();
        let lost: Vec<u64> = (0..KEYS).filter(|key| left.get(key).is_none()).collect();
        // They lie in one segment, and are written again together. One that has just come back into RAM
        // is not.
        let found = left.stats().recovery;
        assert!(lost.len() <= reclaimed + KEYS as usize / 4, "{lost:?} are lost: {found:?}");
    };
    let mut replay = disk.replay();
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 6));
    while let Some(step) = replay.advance() {
        if replay.at() < first || matches!(step, Step::Note(_)) {
            continue;
        }
        let mut loss = |replay: &Replay| replay.after_power_loss(&mut |below| random.below(below));
        check(loss(&replay));
        if step != Step::Changed {
            continue;
        }
        // The same of a segment that a recovery after a kill seals.
        let killed = disk.after_kill(replay.at());
        let recovered = builder().io(Arc::new(killed.clone())).open().unwrap();
        let mut sealing = killed.replay();
        drop(recovered);
        while let Some(step) = sealing.advance() {
            if sealing.at() > replay.at() && step == Step::Changed {
                (0..6).for_each(|_| check(loss(&sealing)));
            }
        }
    }
}

/// A close whose snapshot cannot be finished makes everything else durable: what lies in which segment, and
/// what was removed.
#[test]
fn a_close_without_its_snapshot_outlives_the_machine() {
    let disk = RecorderDisk::over(MemoryDisk::new());
    let faults = FaultDisk::over(Arc::new(disk.clone()));
    let cache = in_default_mode().io(Arc::new(faults.clone())).open().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, 8_000)).unwrap());
    cache.flush().unwrap();
    (0..KEYS).step_by(2).for_each(|key| assert!(cache.remove(&key).unwrap()));
    faults.fail_rename(Some(ErrorKind::Other));
    assert!(matches!(cache.close(), Err(Error::Io { .. })));

    let mut replay = disk.replay();
    while replay.advance().is_some() {}
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 8));
    for _ in 0..cases(50) {
        let image = replay.after_power_loss(&mut |below| random.below(below));
        let left = in_default_mode().io(Arc::new(image)).open().unwrap();
        assert!(left.stats().recovery.start.is_warm(), "{:?}", left.stats().recovery);
        let there: Vec<u64> = (0..KEYS).filter(|key| left.get(key).is_some()).collect();
        assert_eq!(there, Vec::from_iter((1..KEYS).step_by(2)));
    }
}

/// So does it with what an earlier run has removed that was killed, whose journal nobody has synced.
#[test]
fn a_close_after_a_kill_outlives_the_machine() {
    let disk = RecorderDisk::over(MemoryDisk::new());
    let cache = in_default_mode().io(Arc::new(disk.clone())).open().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, 8_000)).unwrap());
    cache.flush().unwrap();
    (0..KEYS).step_by(2).for_each(|key| assert!(cache.remove(&key).unwrap()));
    let killed = disk.after_kill(disk.replay().events());
    let faults = FaultDisk::over(Arc::new(killed.clone()));
    let cache = in_default_mode().io(Arc::new(faults.clone())).open().unwrap();
    assert_eq!(cache.stats().recovery.start, Start::Recovered);
    assert!(cache.remove(&1).unwrap());
    faults.fail_rename(Some(ErrorKind::Other));
    assert!(matches!(cache.close(), Err(Error::Io { .. })));

    let mut replay = killed.replay();
    while replay.advance().is_some() {}
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 9));
    for _ in 0..cases(50) {
        let image = replay.after_power_loss(&mut |below| random.below(below));
        let left = in_default_mode().io(Arc::new(image)).open().unwrap();
        assert!(left.stats().recovery.start.is_warm(), "{:?}", left.stats().recovery);
        let there: Vec<u64> = (0..KEYS).filter(|key| left.get(key).is_some()).collect();
        assert_eq!(there, Vec::from_iter((3..KEYS).step_by(2)));
    }
}

/// R7: segments that a cold start could not unlink are of an epoch that nobody believes any more.
#[test]
fn a_cold_start_disowns_what_it_cannot_unlink() {
    let disk = MemoryDisk::new();
    let cache = in_default_mode().io(Arc::new(disk.clone())).open().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, 8_000)).unwrap());
    cache.flush().unwrap();
    let left = disk.after_kill();
    left.keep_segments(true);
    let in_next_boot = |left: &MemoryDisk| {
        let disk = FaultDisk::over(Arc::new(left.clone()));
        disk.set_boot_id([7; 16]);
        in_default_mode().io(Arc::new(disk)).open().unwrap()
    };

    let cold = in_next_boot(&left);
    assert_eq!((cold.stats().recovery.start, cold.len()), (Start::Unclean, 0));
    cold.insert(KEYS, value(KEYS, 1, 24)).unwrap();
    cold.flush().unwrap();
    let warm = in_next_boot(&left.after_kill());
    assert_eq!(warm.stats().recovery.start, Start::Recovered);
    assert!(warm.contains_key(&KEYS));
    let back: Vec<u64> = (0..KEYS).filter(|key| warm.contains_key(key)).collect();
    assert!(back.is_empty(), "{back:?} came back from before the cold start");
}

/// What had expired stays so, also where the machine's clock is set back with the loss of power, to a time
/// at which the run had begun already.
#[test]
fn what_had_expired_does_not_come_back_with_an_earlier_clock() {
    let second = Duration::from_secs(1);
    for ran in [20 * second, 20 * 60 * second] {
        let disk = RecorderDisk::over(MemoryDisk::new());
        let builder = || Cache::<u64, u64>::builder("cache").durability(Durability::PowerLoss);
        let cache = builder().io(Arc::new(disk.clone())).open().unwrap();
        let begun = disk.replay().events();
        disk.memory().advance_clock(ran);
        let is_told = || disk.replay().events() > begun;
        if ran > 60 * second {
            wait_until("STATE is told the time", 10 * second, is_told);
        }
        cache.insert_with_ttl(1, 1, 10 * second).unwrap();
        cache.insert_with_ttl(2, 2, 100_000 * second).unwrap();
        cache.flush().unwrap();
        disk.memory().advance_clock(11 * second);
        assert_eq!(cache.get(&1), None);
        let mut replay = disk.replay();
        while replay.advance().is_some() {}
        let left = replay.after_power_loss(&mut |_| 0);
        left.set_clock(Duration::ZERO);
        let left = builder().io(Arc::new(left)).open().unwrap();
        assert_eq!(left.stats().recovery.start, Start::Recovered);
        assert_eq!(left.get(&1), None, "it is back");
        if ran < 60 * second {
            assert_eq!(left.get(&2), Some(2), "it has long to live");
        }
    }
}

/// An open takes minutes, and what has expired meanwhile is seen to have before the thread that tells the time has run.
#[test]
fn what_expires_during_an_open_stays_so() {
    const SECOND: Duration = Duration::from_secs(1);
    let memory = MemoryDisk::new();
    let begun = memory.wall_time();
    let open = |io: Arc<dyn Io>| {
        let builder = Cache::<u64, u64>::builder("cache").ram(MIB).disk(MIB).segment_size(64 * KIB);
        builder.durability(Durability::PowerLoss).io(io).open().unwrap()
    };
    let cache = open(Arc::new(memory.clone()));
    cache.insert_with_ttl(1, 1, 200 * SECOND).unwrap();
    cache.flush().unwrap();
    let left = memory.after_kill();
    let disk = FaultDisk::over(Arc::new(left.clone()));
    let is_over = Arc::new(Mutex::new(()));
    let held = is_over.lock().unwrap();
    disk.watch({
        let (left, is_over, was_slow) = (left.clone(), Arc::clone(&is_over), AtomicU64::new(0));
        move |Moment { operation, file, side, .. }| {
            if operation == Operation::Sync && file.starts_with("seg-") && was_slow.fetch_add(1, Relaxed) == 0
            {
                left.advance_clock(240 * SECOND);
            }
            if thread::current().name() == Some("embercache") && file == "STATE" && side == Side::Before {
                drop(is_over.lock());
            }
        }
    });
    let cache = open(Arc::new(disk));
    assert_eq!(cache.stats().recovery.start, Start::Recovered);
    assert_eq!(cache.get(&1), None, "it has expired");
    let left = left.after_kill();
    drop(held);
    let disk = FaultDisk::over(Arc::new(left));
    disk.set_boot_id([7; 16]);
    disk.set_wall_time(Some(begun + 10 * SECOND));
    let cache = open(Arc::new(disk));
    assert!(cache.stats().recovery.start.is_warm());
    assert_eq!(cache.get(&1), None, "it is back");
}

/// One stripe, with room on disk for all of [`KEYS`] at 8,000 bytes, in the durability that is the default.
fn in_default_mode() -> Builder<u64, Vec<u8>> {
    let builder = Cache::builder("cache").ram_entries(8).stripes(1).segment_size(64 * KIB).disk(MIB);
    builder.admission(Admission::All).durability(Durability::ProcessCrash)
}

/// What the images showed.
#[derive(Debug, Default)]
struct Found {
    images: u64,
    owed: u64,
    warm: u64,
    cold: u64,
}

/// Lives of many directories, on as many threads as there are processors.
fn run_all(seed: u64, images: u64, mode: impl Fn(&mut Random) -> Durability + Sync) -> Found {
    let directories = cases(images) / (LIVES * IMAGES);
    let next = AtomicU64::new(0);
    let one_thread = || {
        let mut found = Found::default();
        loop {
            let directory = next.fetch_add(1, Relaxed);
            if directory >= directories {
                return found;
            }
            let mut random = Random::new(from_env("EMBERCACHE_SEED", seed) << 32 | directory);
            live(&mut random, &mode, &mut found);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut sum = Found::default();
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one_thread)).collect();
        for thread in running {
            let found = thread.join().expect("a test that failed has said why");
            sum.images += found.images;
            sum.owed += found.owed;
            sum.warm += found.warm;
            sum.cold += found.cold;
        }
    });
    sum
}

/// What the cache is opened with, in all lives of a directory.
#[derive(Clone, Copy, Debug)]
struct Regime {
    is_roomy: bool,
    write_behind: WriteBehind,
    stripes: u64,
}

impl Regime {
    fn draw(random: &mut Random) -> Regime {
        let write_behinds =
            [WriteBehind::After(Duration::from_millis(10)), WriteBehind::Never, WriteBehind::Through];
        Regime {
            is_roomy: random.below(2) == 0,
            write_behind: write_behinds[random.below(3) as usize],
            stripes: 1 << random.below(3),
        }
    }

    /// Where there is none, a segment is reclaimed every few inserts.
    fn lens(self) -> [usize; 4] {
        if self.is_roomy { [24, 200, 1_000, 4_000] } else { [24, 1_000, 8_000, 14_000] }
    }

    fn builder(self, durability: Durability) -> Builder<u64, Vec<u8>> {
        // Where there is room nothing is reclaimed, so that everything flushed must come back.
        Cache::builder("cache")
            .ram_entries(8)
            .stripes(self.stripes)
            .segment_size(64 * KIB)
            .disk(if self.is_roomy { 16 * MIB } else { 256 * KIB })
            .admission(Admission::All)
            .write_behind(self.write_behind)
            .durability(durability)
    }
}

/// What a life goes on from.
#[derive(Clone, Copy, Debug)]
struct Before {
    /// How the run before was opened.
    durability: Durability,
    /// Whether the machine has rebooted since.
    is_reboot: bool,
    /// Whether it came so far that STATE says so.
    has_state: bool,
}

/// What a start on an image must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Warm,
    Cold,
    Either,
}

/// One directory: a life, images of many of its moments, and the next life on one more of them.
fn live(random: &mut Random, mode: &impl Fn(&mut Random) -> Durability, found: &mut Found) {
    let regime = Regime::draw(random);
    let mut history = History::default();
    let mut disk = RecorderDisk::over(MemoryDisk::new());
    let mut before = Before { durability: Durability::Clean, is_reboot: false, has_state: false };
    for life in 0..LIVES {
        let durability = mode(random);
        let first = disk.replay().events();
        if !use_for_a_while(&disk, regime, durability, &history, random) {
            history.forget();
        }
        let mut replay = disk.replay();
        let last = replay.events();
        let any = |_| first + random.below((last - first) as u64 + 1) as usize;
        // The last is the only one that is after the close.
        let mut moments: Vec<usize> = (1..IMAGES).map(any).chain([last]).collect();
        moments.sort_unstable();
        let goes_on_from = moments[random.below(IMAGES) as usize];
        let (mut next, mut goes_on_after) = (None, false);
        for moment in moments {
            history.advance(&mut replay, moment);
            let (image, is_reboot) = image(&replay, random);
            let expected = expected(&history, before, durability, is_reboot);
            let what = format!(
                "{regime:?}, {durability:?} after {before:?}, life {life}, reboot {is_reboot}, event {moment} of {last}"
            );
            judge(&image, regime, durability, &history, expected, &what, found);
            if moment == goes_on_from && next.is_none() {
                next = Some((history.clone(), after(&disk, &replay, moment, is_reboot, random)));
                goes_on_after = is_reboot;
            }
        }
        (history, disk) = next.expect("it is one of the moments");
        let has_opened = history.has_ended(What::Open);
        history.end_life();
        let has_state = has_opened || (before.has_state && before.durability == durability);
        before = Before { durability, is_reboot: goes_on_after, has_state };
    }
}

/// Two threads change entries and read them. Whether the start was warm.
fn use_for_a_while(
    disk: &RecorderDisk,
    regime: Regime,
    durability: Durability,
    history: &History,
    random: &mut Random,
) -> bool {
    let open = |_| regime.builder(durability).io(Arc::new(disk.clone())).open();
    let cache = history.call(disk, What::Open, open).expect("memory takes all writes");
    let is_warm = cache.stats().recovery.start.is_warm();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (cache, mut random) = (&cache, Random::new(random.next()));
            scope.spawn(move || {
                for _ in 0..OPS {
                    operate(cache, regime, disk, history, &mut random);
                }
            });
        }
    });
    cache.check();
    history.call(disk, What::Close, |_| cache.close()).expect("memory takes all writes");
    is_warm
}

fn operate(cache: &TestCache, regime: Regime, disk: &RecorderDisk, history: &History, random: &mut Random) {
    let key = random.below(KEYS);
    let done = match random.below(100) {
        0..55 => {
            let len = regime.lens()[random.below(4) as usize];
            history.call(disk, What::Insert(key), |version| cache.insert(key, value(key, version, len)))
        }
        55..75 => history.call(disk, What::Remove(key), |_| cache.remove(&key)).map(drop),
        75..94 => {
            cache.get(&key);
            Ok(())
        }
        94..99 => history.call(disk, What::Flush, |_| cache.flush()),
        _ => history.call(disk, What::Clear, |_| cache.clear()),
    };
    done.expect("memory takes all writes");
}

/// What a kill or a loss of power at this moment leaves, and whether the machine has rebooted.
fn image(replay: &Replay, random: &mut Random) -> (MemoryDisk, bool) {
    match random.below(4) {
        0 => (replay.after_kill(random.below(2) == 0), false),
        _ => (replay.after_power_loss(&mut |below| random.below(below)), true),
    }
}

/// The disk on which the next life goes on.
fn after(
    disk: &RecorderDisk,
    replay: &Replay,
    moment: usize,
    is_reboot: bool,
    random: &mut Random,
) -> RecorderDisk {
    if is_reboot {
        return RecorderDisk::over(replay.after_power_loss(&mut |below| random.below(below)));
    }
    disk.after_kill(moment)
}

fn expected(history: &History, before: Before, now: Durability, is_reboot: bool) -> Expected {
    let keeps = |durability, is_reboot: bool| match durability {
        Durability::PowerLoss => true,
        Durability::ProcessCrash => !is_reboot,
        _ => false,
    };
    if !history.has_ended(What::Open) {
        // Either of the two runs may count.
        let is_same = before.has_state && before.durability == now;
        let is_warm = is_same && keeps(now, is_reboot || before.is_reboot);
        return if is_warm { Expected::Warm } else { Expected::Either };
    }
    if keeps(now, is_reboot) || history.has_ended(What::Close) {
        return Expected::Warm;
    }
    if history.has_begun(What::Close) { Expected::Either } else { Expected::Cold }
}

/// Opens the image in the mode of the life that it is of, and reads every key.
fn judge(
    image: &MemoryDisk,
    regime: Regime,
    durability: Durability,
    history: &History,
    expected: Expected,
    what: &str,
    found: &mut Found,
) {
    let cache = regime
        .builder(durability)
        .io(Arc::new(image.clone()))
        .open()
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let start = cache.stats().recovery.start;
    match expected {
        Expected::Warm => assert!(start.is_warm(), "{what}: {start:?}"),
        Expected::Cold => {
            assert!(!start.is_warm() && cache.is_empty(), "{what}: {start:?}, {} entries", cache.len())
        }
        Expected::Either => {}
    }
    let judgement = history.judgement(KEYS);
    let mut versions = Vec::new();
    for key in 0..KEYS {
        let version = cache.get(&key).map(|bytes| value::version(key, &bytes));
        if let Some(lie) = version.and_then(|version| judgement.lie(key, version)) {
            panic!("{what}: {lie}");
        }
        versions.push(version);
    }
    if expected == Expected::Warm && regime.is_roomy {
        for (&key, &version) in &judgement.owed {
            let is_back = versions[key as usize] == Some(version);
            assert!(
                is_back,
                "{what}: version {version} of key {key} was flushed and is lost: {:#?}",
                judgement.of(key)
            );
        }
        found.owed += judgement.owed.len() as u64;
    }
    found.images += 1;
    found.warm += u64::from(start.is_warm());
    found.cold += u64::from(matches!(start, Start::Unclean | Start::ModeChanged));
}

/// A first open that is killed may leave STATE's name to the kernel alone: the next one makes it last.
#[test]
fn a_first_open_that_is_killed_costs_nothing_later() {
    fn open(io: impl Io + 'static) -> Cache<u64, u64> {
        Cache::builder("cache").durability(Durability::PowerLoss).io(Arc::new(io)).open().unwrap()
    }
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 8));
    let first = RecorderDisk::over(MemoryDisk::new());
    let _unclosed = open(first.clone());
    for moment in 0..=first.replay().events() {
        let disk = first.after_kill(moment);
        let _unclosed = open(disk.clone());
        let mut replay = disk.replay();
        while replay.advance().is_some() {}
        // As little as can be, and whatever else.
        for image in 0..10 {
            let left =
                open(replay.after_power_loss(&mut |below| if image == 0 { 0 } else { random.below(below) }));
            assert_eq!(left.stats().recovery.start, Start::Recovered, "killed at event {moment}");
        }
    }
}

/// An entry that was seen to have idled out stays so, though its copy is from before the time to idle was set.
#[test]
fn what_has_idled_out_stays_so_after_a_loss_of_power() {
    let disk = RecorderDisk::over(MemoryDisk::new());
    let builder = || {
        let builder = Cache::builder("cache").ram(MIB).segment_size(64 * KIB).disk(MIB);
        builder.write_behind(WriteBehind::Never).durability(Durability::PowerLoss)
    };
    let cache = builder().io(Arc::new(disk.clone())).open().unwrap();
    cache.insert(1, value(1, 1, 100)).unwrap();
    cache.close().unwrap();
    let idles = || builder().time_to_idle(Duration::from_secs(5));
    let cache = idles().io(Arc::new(disk.clone())).open().unwrap();
    assert!(cache.get(&1).is_some());
    disk.memory().advance_clock(Duration::from_secs(6));
    assert_eq!(cache.get(&1), None, "it has idled too long");
    let mut replay = disk.replay();
    while replay.advance().is_some() {}
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 7));
    for _ in 0..20 {
        let image = replay.after_power_loss(&mut |below| random.below(below));
        let left = idles().io(Arc::new(image)).open().unwrap();
        assert_eq!(left.get(&1), None, "it came back: {:?}", left.stats().recovery.start);
    }
}

/// A copy from before there was a time to idle is made void when it is read, and the disk takes longer to say so than
/// the entry may idle. Nobody is told meanwhile that it has idled out: after a loss of power it would be back.
#[test]
fn an_entry_is_seen_only_once_its_old_copy_is_void_for_good() {
    let disk = FaultDisk::over(Arc::new(MemoryDisk::new()));
    let builder = || {
        let builder = Cache::<u64, Vec<u8>>::builder("cache").ram(MIB).segment_size(64 * KIB).disk(MIB);
        builder.write_behind(WriteBehind::Never).durability(Durability::PowerLoss).io(Arc::new(disk.clone()))
    };
    let cache = builder().open().unwrap();
    (1..3).for_each(|key| cache.insert(key, value(key, 1, 100)).unwrap());
    cache.close().unwrap();
    let cache = Arc::new(builder().time_to_idle(Duration::from_secs(5)).open().unwrap());
    // The journal has its file, whose own sync comes under a lock.
    assert!(cache.remove(&2).unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    disk.watch({
        let (disk, cache, seen) = (disk.clone(), Arc::downgrade(&cache), Arc::clone(&seen));
        move |Moment { operation, file, side, .. }| {
            if operation == Operation::Sync && side == Side::Before && file.starts_with("inv-") {
                disk.advance_clock(Duration::from_secs(6));
                seen.lock().unwrap().push(cache.upgrade().unwrap().peek(&1).is_some());
            }
        }
    });
    assert!(cache.get(&1).is_some());
    assert_eq!(*seen.lock().unwrap(), [true], "told that it had idled out");
}
