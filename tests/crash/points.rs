//! SIGKILL before, in the middle of and after each kind of operation on each kind of file, by the child
//! itself, on a real directory; and what comes back afterwards, judged as by `kill.rs`.
//!
//! The points are named in [`POINTS`]. `EMBERCACHE_SOAK` (a factor) makes it more than one kill at each.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::common::{
    Random, TempDir, cases, child,
    child::{Kind, Report, Role, Spawned},
    figure, from_env,
    lives::{Judge, Life},
    roomy, tiny,
};
use embercache::{
    Builder, Durability, WriteBehind,
    testing::{FaultDisk, Moment, Operation, Operation::*, Side, Side::*},
};

/// Where a child dies: at a moment of an operation on a file whose name begins so.
#[derive(Clone, Copy, Debug)]
struct Point {
    operation: Operation,
    file: &'static str,
    side: Side,
    /// What the child finds.
    directory: Directory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directory {
    /// Nothing: it is the first that opens it.
    New,
    /// What lives before it have left.
    Used,
    /// What another child has left that was killed a moment ago, so that it has to recover first.
    Killed,
}

use Directory::{Killed, New, Used};

const SEGMENT: &str = "seg-";
const JOURNAL: &str = "inv-";
const STATE: &str = "STATE";
const SNAPSHOT: &str = "index.tmp";
const LOCK: &str = "LOCK";
/// The directory itself has no name there; others than this are told from it by theirs.
const NAMES: &str = "";

const fn at(operation: Operation, file: &'static str, side: Side, directory: Directory) -> Point {
    Point { operation, file, side, directory }
}

const POINTS: [Point; 58] = [
    at(Create, LOCK, Before, New),
    at(Create, LOCK, After, New),
    at(Write, LOCK, Before, New),
    at(Write, LOCK, After, New),
    at(Sync, LOCK, Before, New),
    at(Sync, LOCK, After, New),
    at(Create, STATE, Before, New),
    at(Create, STATE, After, New),
    at(Write, STATE, Before, Used),
    at(Write, STATE, After, Used),
    at(Sync, STATE, Before, Used),
    at(Sync, STATE, After, Used),
    at(Create, SEGMENT, Before, Used),
    at(Create, SEGMENT, After, Used),
    at(Allocate, SEGMENT, Before, Used),
    at(Allocate, SEGMENT, After, Used),
    at(Write, SEGMENT, Before, Used),
    at(Write, SEGMENT, Halfway, Used),
    at(Write, SEGMENT, After, Used),
    at(Sync, SEGMENT, Before, Used),
    at(Sync, SEGMENT, After, Used),
    at(SetLen, SEGMENT, Before, Used),
    at(SetLen, SEGMENT, After, Used),
    at(Unlink, SEGMENT, Before, Used),
    at(Unlink, SEGMENT, After, Used),
    at(Create, JOURNAL, Before, Used),
    at(Create, JOURNAL, After, Used),
    at(Allocate, JOURNAL, Before, Used),
    at(Allocate, JOURNAL, After, Used),
    at(Write, JOURNAL, Before, Used),
    at(Write, JOURNAL, After, Used),
    at(Sync, JOURNAL, Before, Used),
    at(Sync, JOURNAL, After, Used),
    at(Unlink, JOURNAL, Before, Used),
    at(Unlink, JOURNAL, After, Used),
    at(Create, SNAPSHOT, Before, Used),
    at(Create, SNAPSHOT, After, Used),
    at(Write, SNAPSHOT, Before, Used),
    at(Write, SNAPSHOT, Halfway, Used),
    at(Write, SNAPSHOT, After, Used),
    at(Sync, SNAPSHOT, Before, Used),
    at(Sync, SNAPSHOT, After, Used),
    at(Rename, SNAPSHOT, Before, Used),
    at(Rename, SNAPSHOT, After, Used),
    at(SyncDir, NAMES, Before, Used),
    at(SyncDir, NAMES, After, Used),
    at(Open, JOURNAL, Before, Killed),
    at(Read, JOURNAL, After, Killed),
    at(Open, SEGMENT, Before, Killed),
    at(Read, SEGMENT, Before, Killed),
    at(Read, SEGMENT, After, Killed),
    at(Write, SEGMENT, Before, Killed),
    at(Write, SEGMENT, Halfway, Killed),
    at(SetLen, SEGMENT, Before, Killed),
    at(SetLen, SEGMENT, After, Killed),
    at(Open, STATE, After, Killed),
    at(Write, STATE, Before, Killed),
    at(Write, STATE, After, Killed),
];

/// Where the child dies whose directory another has to recover: the number of a point.
const A_BATCH_IS_WRITTEN: u64 = 18;

/// The operations of each writer between an open and the next close.
const OPERATIONS: u64 = 120;
/// A machine that does something else as well reaches each of them long before.
const LIMIT: Duration = Duration::from_secs(60);

/// Where the test below is.
const CHILD: &str = concat!(module_path!(), "::child");

/// The way into a child process; in a normal run it does nothing.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    die_at_point(&role);
}

/// Line 2.
#[test]
fn sigkill_at_each_point() {
    let kills = cases(1);
    let (owed, found, next) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let one_thread = || {
        while let number = next.fetch_add(1, SeqCst)
            && let Some(point) = POINTS.get(number as usize)
        {
            let mut past = Past::new(number);
            for kill in 0..kills {
                past.live(number, point, kill);
                owed.fetch_add(past.owed, SeqCst);
                found.fetch_add(past.found, SeqCst);
            }
        }
    };
    thread::scope(|scope| (0..3).for_each(|_| _ = scope.spawn(one_thread)));
    let (owed, found) = (owed.into_inner(), found.into_inner());
    let (points, all) = (POINTS.len(), POINTS.len() as u64 * kills);
    let batch = POINTS[A_BATCH_IS_WRITTEN as usize];
    assert_eq!((batch.operation, batch.file, batch.side), (Write, SEGMENT, After));
    figure(
        2,
        &format!(
            "{all} kills at {points} points, {owed} flushed entries owed and back, {found} seen, 0 stale, 0 corrupt"
        ),
    );
    assert!(owed > all && found > all * 20, "{owed} entries owed, {found} seen: nothing was tested");
}

/// A directory and the lives that it has seen.
struct Past {
    dir: TempDir,
    judge: Judge,
    random: Random,
    lives: u64,
    /// Of the last life.
    owed: u64,
    found: u64,
}

impl Past {
    fn new(seed: u64) -> Past {
        let random = Random::new(from_env("EMBERCACHE_SEED", 6) << 16 | seed);
        Past { dir: TempDir::new(), judge: Judge::new(), random, lives: 0, owed: 0, found: 0 }
    }

    /// A life that ends at the point, and the judgement.
    fn live(&mut self, number: u64, point: &Point, kill: u64) {
        if point.directory == New || kill.is_multiple_of(4) {
            (self.dir, self.judge, self.lives) = (TempDir::new(), Judge::new(), 0);
        }
        let regime = Regime::of(number + kill / 4);
        if point.directory == Killed {
            // There is enough to recover by then.
            let nth = 20 + self.random.below(20);
            self.end(regime, A_BATCH_IS_WRITTEN, nth);
        }
        let nth_max = match point {
            // It may be the last that there is.
            Point { directory: New | Killed, .. } => 1,
            Point { operation: Write, .. } => 40,
            Point { operation: Unlink, .. } => 2,
            _ => 6,
        };
        let nth = 1 + self.random.below(nth_max);
        self.end(regime, number, nth);
        let cache = regime.builder(&self.dir.cache(), &quiet_disk()).open().unwrap();
        self.found = self.judge.see(&cache);
        self.owed = if regime.is_roomy { self.judge.settle(&cache, kill) } else { 0 };
        cache.check();
        cache.close().unwrap();
    }

    /// A child that dies the nth time that it comes to the point.
    fn end(&mut self, regime: Regime, number: u64, nth: u64) {
        self.lives += 1;
        let seed = self.lives << 32 | nth << 8 | number;
        let child = Spawned::start(CHILD, regime.name(), &self.dir.cache(), seed);
        let reports = child.reports_at_own_end(LIMIT);
        let is_there = |report: &Report| report.kind == Kind::AtPoint && report.key == number;
        assert!(reports.iter().any(is_there), "it died elsewhere than at {:?}", POINTS[number as usize]);
        self.judge.hear(&reports);
    }
}

/// How large a log is, and what it outlives.
#[derive(Clone, Copy)]
struct Regime {
    is_roomy: bool,
    durability: Durability,
}

impl Regime {
    fn of(number: u64) -> Regime {
        let durability =
            if (number / 2).is_multiple_of(2) { Durability::PowerLoss } else { Durability::ProcessCrash };
        Regime { is_roomy: number.is_multiple_of(2), durability }
    }

    fn name(self) -> &'static str {
        match (self.is_roomy, self.durability) {
            (true, Durability::PowerLoss) => "roomy, power",
            (true, _) => "roomy",
            (false, Durability::PowerLoss) => "tiny, power",
            (false, _) => "tiny",
        }
    }

    fn named(name: &str) -> Regime {
        (0..4).map(Regime::of).find(|regime| regime.name() == name).expect("the parent knows the names")
    }

    fn builder(self, dir: &Path, disk: &FaultDisk) -> Builder<u64, Vec<u8>> {
        let size = if self.is_roomy { roomy(dir).ram_entries(128) } else { tiny(dir) };
        let write_behind = WriteBehind::After(Duration::from_millis(10));
        size.durability(self.durability).write_behind(write_behind).io(Arc::new(disk.clone()))
    }
}

/// No machine loses power here.
fn quiet_disk() -> FaultDisk {
    let disk = FaultDisk::new();
    disk.skip_syncs(true);
    disk
}

/// The child: opens, uses and closes the cache over and over, and kills itself at its point.
fn die_at_point(role: &Role) {
    let (life, nth, number) = (role.seed >> 32, role.seed >> 8 & 0xff_ffff, role.seed & 0xff);
    let point = POINTS[number as usize];
    let (disk, met) = (quiet_disk(), AtomicU64::new(0));
    let reporter = Arc::new(role.reporter());
    let witness = Arc::clone(&reporter);
    disk.watch(move |moment| {
        if point.is_at(moment) && met.fetch_add(1, SeqCst) + 1 == nth {
            witness.report(Kind::AtPoint, number, nth);
            child::kill_own_process();
        }
    });
    let mut life = Life::new(&reporter, life);
    loop {
        let cache = Regime::named(&role.name).builder(&role.dir, &disk).open().unwrap();
        life.go_on(&cache, OPERATIONS);
        life.close(&cache);
    }
}

impl Point {
    fn is_at(self, moment: Moment<'_>) -> bool {
        let is_file =
            if self.file == NAMES { moment.file == NAMES } else { moment.file.starts_with(self.file) };
        is_file && moment.operation == self.operation && moment.side == self.side
    }
}
