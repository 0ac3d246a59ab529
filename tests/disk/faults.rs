//! Line 25: one fault at the nth of each operation of the disk, under any sequence of operations: nothing stale,
//! no panic, nobody waits for ever. And then the process or the machine stops, and the disk is well again.
//!
//! `EMBERCACHE_SOAK` multiplies the number of runs, up to every n to 200.

use std::{
    sync::{
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    Random, cases, figure, from_env,
    model::{Demands, Run, TestDisk},
    ops::Op,
    tiny,
};
use embercache::{
    Durability, WriteBehind,
    testing::{MemoryDisk, Operation, RecorderDisk},
};

const OPS: u64 = 120;
/// Longer than any run takes on a machine that does something else as well.
const LIMIT: Duration = Duration::from_secs(5);

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// An error, and whether a write is half done before.
const FAULTS: [(i32, bool); 4] = [(EIO, false), (ENOSPC, false), (EINTR, false), (EIO, true)];

#[test]
fn one_fault_costs_no_truth() {
    // Some operations come seldom, so the first few are always among them.
    let step = (24 / cases(1)).max(1) as usize;
    let nths = || (1..5).chain((5..=200).step_by(step));
    let runs: Vec<_> = Operation::ALL
        .into_iter()
        .flat_map(|operation| FAULTS.map(|fault| (operation, fault)))
        .flat_map(|(operation, fault)| nths().map(move |n| (operation, fault, n)))
        .collect();
    let (next, hits, slowest_ms) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
    let one_thread = || {
        while let Some(&(operation, fault, n)) = runs.get(next.fetch_add(1, Relaxed)) {
            let started = Instant::now();
            let what = format!("{operation:?}, the {n}th, {fault:?}");
            let is_hit = within(LIMIT, what, move || run(operation, n, fault));
            hits.fetch_add(usize::from(is_hit), Relaxed);
            slowest_ms.fetch_max(started.elapsed().as_millis() as u64, Relaxed);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(one_thread)));
    let (done, hits) = (runs.len(), hits.into_inner());
    // Few sequences rename or create two hundred files.
    assert!(hits > done / 8, "{hits} of {done} runs met their fault");
    let slowest_ms = slowest_ms.into_inner();
    figure(
        25,
        &format!("{done} runs, {hits} met their fault, 0 stale, 0 panics, the slowest took {slowest_ms} ms"),
    );
}

/// Runs operations on a disk with one fault; whether the fault was met.
fn run(operation: Operation, n: u64, (errno, half): (i32, bool)) -> bool {
    let seed = (operation as u64) << 32 | (errno as u64) << 16 | u64::from(half) << 8 | n;
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 1) << 48 | seed);
    let durability = if random.below(2) == 0 { Durability::PowerLoss } else { Durability::ProcessCrash };
    let write_behind = if random.below(2) == 0 { WriteBehind::Through } else { WriteBehind::Never };
    let demands = Demands {
        disk_may_fail: true,
        outlives_power: durability == Durability::PowerLoss,
        ..Demands::TRUTH
    };
    let recorder = RecorderDisk::over(MemoryDisk::new());
    let disk = TestDisk::recorded(recorder);
    let TestDisk::Recorded(faults, _) = &disk else { unreachable!("made so") };
    let faults = faults.clone();
    faults.fail_nth(operation, n, errno, half);
    let mut run = Run::new(disk, demands, move |disk| {
        tiny(&disk.dir()).ram_entries(8).stripes(2).durability(durability).write_behind(write_behind)
    });
    // For the later of them more, until it has been met.
    let most = OPS.max(5 * n);
    for done in 0..most {
        if done >= OPS && faults.has_failed() {
            break;
        }
        let op = Op::decode((random.next() as u32).to_le_bytes());
        // A disk that is copied is well again, so the sudden end comes last.
        if op != Op::DropAndReopen {
            run.step(op);
        }
    }
    let has_failed = faults.has_failed();
    run.reopen_by_surprise();
    run.cache.check();
    for _ in 0..OPS / 4 {
        run.step(Op::decode((random.next() as u32).to_le_bytes()));
    }
    has_failed
}

/// Runs it on a thread of its own, of that name, and fails the test if that takes too long.
fn within<R: Send + 'static>(limit: Duration, what: String, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, result) = mpsc::channel();
    let thread = thread::Builder::new().name(what.clone());
    let worker = thread.spawn(move || _ = done.send(work())).expect("a thread for the run");
    match result.recv_timeout(limit) {
        Ok(result) => {
            worker.join().expect("it has sent its result");
            result
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: hangs for {limit:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it sends before it ends"),
        },
    }
}
