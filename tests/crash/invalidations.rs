//! An acknowledged remove or overwrite holds: through a SIGKILL right after it, through reclaim and
//! restarts in any order, where the new value never reaches the disk, and while its segment goes.
//!
//! `EMBERCACHE_SOAK` (a factor) makes it more.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::common::{
    Random, TempDir, TestCache, cases, child,
    child::{Kind, Role, Spawned, kill_own_process},
    figure, from_env,
    history::{History, What},
    roomy,
    value::{value, version},
};
use embercache::{
    Admission, Builder, Cache, Durability, KIB, MIB, Overload, Start, WriteBehind,
    testing::{FaultDisk, Io, MemoryDisk, Moment, Operation, RecorderDisk, Side, Step},
};

const LIMIT: Duration = Duration::from_secs(60);

/// Where the test below is.
const CHILD: &str = concat!(module_path!(), "::child");

/// The way into a child process; in a normal run it does nothing.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    match role.name.as_str() {
        "remove" => change_and_die(&role, |cache, key| _ = cache.remove(&key).unwrap()),
        "overwrite" => change_and_die(&role, |cache, key| cache.insert(key, value(key, 2, 100)).unwrap()),
        other => panic!("no such child: {other}"),
    }
}

/// Keys of one life of a child: more than its RAM holds, so that some are on disk alone.
const KEYS_OF_A_LIFE: u64 = 512;

/// Line 5: SIGKILL in the moment after a remove has returned.
#[test]
fn removes_before_a_sigkill() {
    let judged = kill_after_changes("remove", Kind::RemoveAcked, None);
    figure(5, &format!("{judged} acknowledged removes before a SIGKILL, 0 came back"));
}

/// Line 6: and after an overwrite.
#[test]
fn overwrites_before_a_sigkill() {
    let judged = kill_after_changes("overwrite", Kind::InsertAcked, Some(2));
    figure(6, &format!("{judged} acknowledged overwrites before a SIGKILL, 0 old values"));
}

/// Kills children after their first change, and after many, until so many changes are judged: each of
/// their keys has `expected` or nothing. How many those are.
fn kill_after_changes(role: &str, acked: Kind, expected: Option<u64>) -> u64 {
    let (owed, mut judged) = (cases(2_500), 0);
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 5));
    for life in 0.. {
        if judged >= owed {
            break;
        }
        let dir = TempDir::new();
        let changes = if life % 2 == 0 { 1 } else { 1 + random.below(KEYS_OF_A_LIFE) };
        let child = Spawned::start(CHILD, role, &dir.cache(), changes);
        let reports = child.reports_at_own_end(LIMIT);
        let changed: Vec<u64> = reports.iter().filter(|r| r.kind == acked).map(|r| r.key).collect();
        assert_eq!(changed.len() as u64, changes);
        let cache = roomy(&dir.cache()).durability(durability(changes)).open().unwrap();
        assert_eq!(cache.stats().recovery.start, Start::Recovered, "a cold start proves nothing");
        for &key in &changed {
            let found = cache.get(&key).map(|bytes| version(key, &bytes));
            assert!(found.is_none() || found == expected, "{key} has version {found:?} after {role}");
        }
        let lost =
            (0..KEYS_OF_A_LIFE).filter(|key| !changed.contains(key) && !cache.contains_key(key)).count();
        assert_eq!(lost, 0, "they were flushed, and not touched since");
        judged += changes;
    }
    judged
}

fn durability(number: u64) -> Durability {
    if number.is_multiple_of(3) { Durability::PowerLoss } else { Durability::ProcessCrash }
}

/// The child: as many changes as its seed says, and the end.
fn change_and_die(role: &Role, change: impl Fn(&TestCache, u64)) {
    let cache = roomy(&role.dir).durability(durability(role.seed)).open().unwrap();
    let reporter = role.reporter();
    (0..KEYS_OF_A_LIFE).for_each(|key| cache.insert(key, value(key, 1, 100)).unwrap());
    cache.flush().unwrap();
    // Some of them come back into RAM.
    (0..KEYS_OF_A_LIFE).step_by(7).for_each(|key| drop(cache.get(&key)));
    for key in (0..KEYS_OF_A_LIFE).map(|at| at * 5 % KEYS_OF_A_LIFE).take(role.seed as usize) {
        change(&cache, key);
        let kind = if role.name == "remove" { Kind::RemoveAcked } else { Kind::InsertAcked };
        reporter.report(kind, key, 2);
    }
    kill_own_process();
}

/// Line 7 (bitcask's issue 82): a value, then the word that it is void, then reclaim, which takes the one
/// or the other, then a restart; in any order.
#[test]
fn reclaim_between_a_value_and_its_removal() {
    let orders = cases(60);
    let (mut reclaimed, mut trimmed, mut removes) = (0, 0, 0);
    for order in 0..orders {
        let mut run = Order::new(from_env("EMBERCACHE_SEED", 7) << 32 | order);
        (0..60).for_each(|_| run.step());
        run.judge();
        (reclaimed, removes) = (reclaimed + run.reclaimed, removes + run.removes);
        trimmed += u64::from(!run.has_file("inv-00000000.log"));
    }
    figure(
        7,
        &format!("{orders} orders, {removes} removes, {reclaimed} entries reclaimed between, 0 came back"),
    );
    assert!(reclaimed > orders * 50 && trimmed > orders / 4, "{reclaimed} reclaimed, {trimmed} trimmed");
}

/// A few keys that are watched, on a disk that is soon full of others.
struct Order {
    random: Random,
    disk: MemoryDisk,
    cache: TestCache,
    versions: HashMap<u64, u64>,
    written: u64,
    removes: u64,
    reclaimed: u64,
}

impl Order {
    const WATCHED: u64 = 6;

    fn new(seed: u64) -> Order {
        let disk = MemoryDisk::new();
        let cache = Order::builder(&disk).open().unwrap();
        let random = Random::new(seed);
        Order { random, disk, cache, versions: HashMap::new(), written: 0, removes: 0, reclaimed: 0 }
    }

    fn builder(disk: &MemoryDisk) -> Builder<u64, Vec<u8>> {
        let builder =
            Cache::builder("cache").ram_entries(8).stripes(1).segment_size(64 * KIB).disk(256 * KIB);
        let builder = builder.admission(Admission::All).write_behind(WriteBehind::Never);
        builder.io(Arc::new(disk.clone()))
    }

    fn step(&mut self) {
        let key = self.random.below(Order::WATCHED);
        match self.random.below(20) {
            0..4 => {
                self.written += 1;
                self.cache.insert(key, value(key, self.written, 300)).unwrap();
                self.versions.insert(key, self.written);
            }
            4..8 => {
                self.cache.remove(&key).unwrap();
                self.versions.remove(&key);
                self.removes += 1;
            }
            // Read, it is written again.
            8..10 => _ = self.cache.get(&key),
            10..15 => self.fill(),
            15..17 => self.cache.flush().unwrap(),
            17..19 => {
                let left = self.disk.after_kill();
                self.reopen(left);
            }
            _ => {
                self.cache.close().unwrap();
                self.reopen(self.disk.clone());
            }
        }
        self.judge();
    }

    /// About a segment of others, which pushes the oldest one out.
    fn fill(&mut self) {
        for _ in 0..40 {
            let key = Order::WATCHED + self.random.below(1_000);
            self.cache.insert(key, value(key, 1, 1_500)).unwrap();
        }
    }

    fn reopen(&mut self, disk: MemoryDisk) {
        self.reclaimed += self.cache.stats().reclaimed;
        self.disk = disk;
        self.cache = Order::builder(&self.disk).open().unwrap();
        assert!(self.cache.stats().recovery.start.is_warm(), "a cold start proves nothing");
    }

    fn judge(&self) {
        for key in 0..Order::WATCHED {
            let found = self.cache.peek(&key).map(|bytes| version(key, &bytes));
            let expected = self.versions.get(&key).copied();
            assert!(found.is_none() || found == expected, "{key} has version {found:?}, not {expected:?}");
        }
    }

    fn has_file(&self, name: &str) -> bool {
        self.disk.contents().iter().any(|(path, _)| path.ends_with(name))
    }
}

/// Why a new value does not reach the disk that its old one is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rejection {
    /// Admission finds it not worth a write.
    Refused,
    /// The disk is behind, and the cache does not wait.
    Shed,
    /// The user's filter says no.
    Filtered,
    /// It is too large for the log.
    TooLarge,
    /// It is about to expire.
    Expiring,
}

/// Line 8 (foyer's issue 743): the copy of an overwrite is rejected, or dropped from the queue, and the
/// old value's copy is still there.
#[test]
fn overwrites_whose_copies_are_rejected() {
    let overwrites = cases(2_000);
    let mut rejected = Vec::new();
    for why in
        [Rejection::Refused, Rejection::Shed, Rejection::Filtered, Rejection::TooLarge, Rejection::Expiring]
    {
        rejected.push((why, overwrite_rejected(why, overwrites)));
    }
    let all = overwrites * rejected.len() as u64;
    figure(8, &format!("{all} overwrites, 0 old values; copies given up: {rejected:?}"));
    assert!(rejected.iter().all(|&(_, count)| count > overwrites / 2), "{rejected:?} of {overwrites} each");
}

/// Overwrites so many keys whose old values are on disk; how many new ones were rejected.
fn overwrite_rejected(why: Rejection, overwrites: u64) -> u64 {
    const ROUND: u64 = 100;
    let memory = MemoryDisk::new();
    let slow = FaultDisk::over(Arc::new(memory.clone()));
    if why == Rejection::Shed {
        slow.watch(slow_down_segments);
    }
    let builder = |io: Arc<dyn Io>| -> Builder<u64, Vec<u8>> {
        let builder = Cache::builder("cache").ram_entries(64).stripes(1).segment_size(64 * KIB).disk(MIB);
        let builder = builder.write_behind(WriteBehind::Never).io(io);
        match why {
            Rejection::Refused => builder.admission(Admission::Frugal),
            Rejection::Shed => builder.admission(Admission::All).overload(Overload::Shed),
            Rejection::Filtered => {
                builder.admission(Admission::All).disk_filter(|&key, bytes| version(key, bytes) == 1)
            }
            _ => builder.admission(Admission::All),
        }
    };
    let assert_not_old = |cache: &TestCache, keys: std::ops::Range<u64>, when: &str| {
        for key in keys {
            let found = cache.peek(&key).map(|bytes| version(key, &bytes));
            assert!(found.is_none_or(|version| version == 2), "{why:?}, {when}: {key} has {found:?}");
        }
    };
    let cache = builder(Arc::new(slow.clone())).open().unwrap();
    if why == Rejection::Refused {
        // Until the log is full, everything is written.
        for key in 1 << 32..(1 << 32) + 2_000 {
            cache.insert(key, value(key, 1, 1_000)).unwrap();
        }
        cache.flush().unwrap();
    }
    for round in 0..overwrites / ROUND {
        let keys = round * ROUND..(round + 1) * ROUND;
        keys.clone().for_each(|key| cache.insert(key, value(key, 1, 300)).unwrap());
        cache.flush().unwrap();
        for key in keys.clone() {
            match why {
                Rejection::TooLarge => cache.insert(key, value(key, 2, 20_000)).unwrap(),
                Rejection::Expiring => {
                    cache.insert_with_ttl(key, value(key, 2, 300), Duration::from_millis(900)).unwrap();
                }
                _ => cache.insert(key, value(key, 2, 300)).unwrap(),
            }
        }
        // They push the last of them out.
        (1 << 33..(1 << 33) + 70).for_each(|key| cache.insert(key, value(key, 2, 24)).unwrap());
        assert_not_old(&cache, keys, "at once");
    }
    cache.check();
    let stats = cache.stats();
    let open = |disk: MemoryDisk| builder(Arc::new(disk)).open().unwrap();
    let killed = open(memory.after_kill());
    assert_eq!(killed.stats().recovery.start, Start::Recovered, "a cold start proves nothing");
    assert_not_old(&killed, 0..overwrites, "after a kill");
    cache.close().unwrap();
    assert_not_old(&open(memory.clone()), 0..overwrites, "after a close");
    stats.refused + stats.shed + stats.unspillable + stats.too_large
}

fn slow_down_segments(Moment { operation, file, side, .. }: Moment<'_>) {
    if operation == Operation::Write && side == Side::Before && file.starts_with("seg-") {
        thread::sleep(Duration::from_millis(2));
    }
}

/// Line 14 (a): the oldest segment goes, with what says so in the journal, the index and the directory one
/// after the other, while its keys are changed; and a SIGKILL anywhere around it.
#[test]
fn changes_while_a_segment_goes() {
    const KEYS: u64 = 64;
    let wanted = cases(300);
    let mut images = 0;
    for life in 0.. {
        if images >= wanted {
            break;
        }
        let disk = RecorderDisk::over(MemoryDisk::new());
        let mut history = live_with_reclaim(&disk, KEYS, life);
        let mut replay = disk.replay();
        for gone in unlinks(&disk) {
            for moment in gone.saturating_sub(9)..gone + 2 {
                history.advance(&mut replay, moment);
                let judgement = history.judgement(KEYS);
                let cache = reclaiming(Arc::new(replay.after_kill(false))).open().unwrap();
                assert_eq!(cache.stats().recovery.start, Start::Recovered, "a cold start proves nothing");
                for key in 0..KEYS {
                    let found = cache.get(&key).map(|bytes| version(key, &bytes));
                    let lie = found.and_then(|version| judgement.lie(key, version));
                    assert_eq!(lie, None, "at event {moment}, {gone} being the unlink");
                }
                images += 1;
            }
        }
    }
    figure(14, &format!("(a) {images} kills around the end of a segment whose keys are changed, 0 stale"));
}

fn reclaiming(io: Arc<dyn Io>) -> Builder<u64, Vec<u8>> {
    let builder = Cache::builder("cache").ram_entries(8).stripes(2).segment_size(64 * KIB).disk(256 * KIB);
    builder.admission(Admission::All).write_behind(WriteBehind::Never).reinsertion(0).io(io)
}

/// Two threads change few keys while a third fills the disk. Whoever makes room pauses before it says so in
/// the journal, so that the others come in between.
fn live_with_reclaim(disk: &RecorderDisk, keys: u64, life: u64) -> History {
    let slow = FaultDisk::over(Arc::new(disk.clone()));
    slow.watch(|Moment { operation, file, side, .. }| {
        let is_journal = operation == Operation::Write && side == Side::Before && file.starts_with("inv-");
        if is_journal && thread::current().name() == Some("embercache") {
            thread::sleep(Duration::from_micros(300));
        }
    });
    let (history, stop, filled) = (History::default(), AtomicBool::new(false), AtomicU64::new(0));
    let cache = history.call(disk, What::Open, |_| reclaiming(Arc::new(slow)).open()).unwrap();
    thread::scope(|scope| {
        for thread in 0..2 {
            let (cache, history, stop) = (&cache, &history, &stop);
            let mut random = Random::new(life << 8 | thread);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let key = random.below(keys / 2) * 2 + thread;
                    let changed = match random.below(3) {
                        0 => history.call(disk, What::Remove(key), |_| cache.remove(&key).map(drop)),
                        _ => history.call(disk, What::Insert(key), |version| {
                            cache.insert(key, value(key, version, 200))
                        }),
                    };
                    changed.unwrap();
                    thread::sleep(Duration::from_micros(50));
                }
            });
        }
        while cache.stats().reclaimed < 200 && filled.load(SeqCst) < 5_000 {
            let key = keys + filled.fetch_add(1, SeqCst);
            cache.insert(key, value(key, 1, 2_000)).unwrap();
        }
        stop.store(true, SeqCst);
    });
    history
}

/// The moments after which a segment's name is gone.
fn unlinks(disk: &RecorderDisk) -> Vec<usize> {
    let segments = |replay: &embercache::testing::Replay| {
        let contents = replay.after_kill(false).contents();
        contents.iter().filter(|(path, _)| path.to_string_lossy().contains("seg-")).count()
    };
    let (mut replay, mut found, mut before) = (disk.replay(), Vec::new(), 0);
    while let Some(step) = replay.advance() {
        if step == Step::Named {
            let now = segments(&replay);
            if now < before {
                found.push(replay.at());
            }
            before = now;
        }
    }
    found
}
