//! The first moments after an open, while what a close left is still being loaded behind the look-ups.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::common::{TempDir, cases, fault_disk, roomy, value::value, wait_until};
use embercache::{
    Builder, Cache, KIB, MIB, ReadMode, WriteBehind,
    testing::{FaultDisk, MemoryDisk, Operation, Side},
};

const KEYS: u64 = 2_000;

/// Holds the thread that loads the snapshot until it is let go, or nobody comes to do so.
struct Gate {
    disk: Arc<FaultDisk>,
    is_open: Arc<AtomicBool>,
    is_reached: Arc<AtomicBool>,
}

impl Gate {
    fn new() -> Gate {
        let gate = Gate { disk: fault_disk(), is_open: Arc::default(), is_reached: Arc::default() };
        let (is_open, is_reached) = (Arc::clone(&gate.is_open), Arc::clone(&gate.is_reached));
        gate.disk.watch(move |moment| {
            let is_loading = moment.operation == Operation::Read
                && moment.side == Side::Before
                && moment.file == "index.snap"
                && thread::current().name() == Some("embercache");
            let mut patience = 0..10_000;
            while is_loading && !is_open.load(SeqCst) && patience.next().is_some() {
                is_reached.store(true, SeqCst);
                thread::sleep(Duration::from_millis(1));
            }
        });
        gate
    }

    fn open(&self) {
        self.is_open.store(true, SeqCst);
    }
}

#[test]
fn look_ups_do_not_wait_for_the_whole_snapshot() {
    (0..cases(1)).for_each(|_| look_up_while_it_is_loaded());
}

fn look_up_while_it_is_loaded() {
    let dir = TempDir::new();
    let builder = || roomy(&dir.cache()).write_behind(WriteBehind::Never);
    let cache = builder().open().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, 200)).unwrap());
    cache.close().unwrap();

    let gate = Gate::new();
    let cache = builder().io(gate.disk.clone()).open().unwrap();
    wait_until("the loading has begun", Duration::from_secs(20), || gate.is_reached.load(SeqCst));
    for key in 0..KEYS {
        assert_eq!(cache.get(&key), Some(value(key, 1, 200)), "key {key}");
    }
    assert_eq!(cache.get_many(&[3, 5]), [Some(value(3, 1, 200)), Some(value(5, 1, 200))]);

    // A change waits, and until it is done the old value is the last one that was acknowledged.
    let change = {
        let cache = cache.clone();
        thread::spawn(move || {
            cache.insert(7, value(7, 2, 200)).unwrap();
            cache.remove(&8).unwrap();
        })
    };
    thread::sleep(Duration::from_millis(50));
    assert!(!change.is_finished(), "the stripes are loaded already");
    assert_eq!(cache.get(&7), Some(value(7, 1, 200)));
    gate.open();
    change.join().unwrap();
    assert_eq!(cache.get(&7), Some(value(7, 2, 200)));
    assert_eq!(cache.get(&8), None);
    assert_eq!(cache.len(), KEYS - 1);
    cache.check();
    cache.close().unwrap();

    let cache = builder().open().unwrap();
    for key in 0..KEYS {
        let last = if key == 7 { 2 } else { 1 };
        assert_eq!(cache.get(&key), (key != 8).then(|| value(key, last, 200)), "key {key}");
    }
}

/// The process has no descriptors left, or the kernel no memory for another one, at one moment of an open after a kill,
/// which then fails or does without, and neither the next nor one after another kill finds less.
#[test]
fn want_of_descriptors_costs_nothing() {
    const ENOMEM: i32 = 12;
    const EMFILE: i32 = 24;
    [ENOMEM, EMFILE].into_iter().for_each(lack_a_descriptor_once);
}

fn lack_a_descriptor_once(errno: i32) {
    let memory = MemoryDisk::new();
    let builder = |disk: FaultDisk| -> Builder<u64, Vec<u8>> {
        let builder = Cache::builder("cache").ram(MIB).disk(8 * MIB).segment_size(64 * KIB);
        builder.write_behind(WriteBehind::Never).read_mode(ReadMode::Strict).io(Arc::new(disk))
    };
    let cache = builder(FaultDisk::over(Arc::new(memory.clone()))).open().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, 200)).unwrap());
    cache.flush().unwrap();
    (0..10).for_each(|key| assert!(cache.remove(&key).unwrap()));
    let (mut failed, mut nth) = (0, 0);
    loop {
        nth += 1;
        let left = memory.after_kill();
        let disk = FaultDisk::over(Arc::new(left.clone()));
        disk.fail_nth(Operation::Open, nth, errno, false);
        let opened = builder(disk.clone()).open();
        if !disk.has_failed() {
            break;
        }
        failed += u64::from(opened.is_err());
        let again = || builder(FaultDisk::over(Arc::new(left.after_kill()))).open().unwrap();
        drop(opened);
        for cache in [again(), again()] {
            let start = cache.stats().recovery.start;
            assert!(start.is_warm(), "{start:?} after open {nth}");
            let found = (0..KEYS).filter(|key| cache.contains_key(key)).count();
            assert_eq!(found as u64, KEYS - 10, "after open {nth}");
        }
    }
    assert!(failed > 5 && nth > 10, "{failed} of {nth} opens met it");
}
