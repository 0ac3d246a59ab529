//! What reaches the disk where users' code misbehaves, or changes the cache, while records are built.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::{TestCache, wait_until};
use embercache::{
    Admission, Cache, Codec, CodecError, CodecId, KIB, MIB, Overload, WriteBehind,
    testing::{FaultDisk, MemoryDisk, Moment, Operation, Side},
};

/// Another test's reader may hold the epoch for a while.
const LIMIT: Duration = Duration::from_secs(10);

/// A value whose first byte says what happens when its bytes are asked for.
#[derive(Clone, Debug, PartialEq)]
struct Moody(Vec<u8>);

const WELL: u8 = 0;
const FAILS: u8 = 1;
const PANICS: u8 = 2;
const FAILS_AFTER_LENDING: u8 = 3;
const PANICS_AFTER_LENDING: u8 = 4;

impl Codec for Moody {
    const ID: CodecId = CodecId(0x5_0001);

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.with_bytes(|bytes| out.extend_from_slice(bytes))
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
        Ok(Moody(bytes))
    }

    fn heap_bytes(&self) -> usize {
        self.0.len()
    }

    fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
        match self.0[0] {
            FAILS => Err(CodecError::new("no")),
            PANICS => panic!("part of the test"),
            FAILS_AFTER_LENDING => {
                read(&self.0);
                Err(CodecError::new("no, after all"))
            }
            PANICS_AFTER_LENDING => {
                read(&self.0);
                panic!("part of the test");
            }
            _ => Ok(read(&self.0)),
        }
    }
}

/// Each bad value lies between good ones, which are in the same batch and have to be as they were.
#[test]
fn a_bad_value_harms_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let open = || -> Cache<u64, Moody> {
        let cache = Cache::builder(dir.path().join("cache")).ram(4 * MIB).disk(4 * MIB).stripes(1);
        cache.write_behind(WriteBehind::Never).open().unwrap()
    };
    let moods = [WELL, FAILS, WELL, PANICS, WELL, FAILS_AFTER_LENDING, WELL, PANICS_AFTER_LENDING];
    let value =
        |key: u64| Moody([vec![moods[key as usize % 8]], vec![key as u8; key as usize % 500]].concat());
    let cache = open();
    (0..800).for_each(|key| cache.insert(key, value(key)).unwrap());
    cache.flush().unwrap();
    assert_eq!((cache.stats().unspillable, cache.stats().disk_entries), (400, 400));
    cache.close().unwrap();
    let cache = open();
    for key in 0..800 {
        let expected = (value(key).0[0] == WELL).then(|| value(key));
        assert_eq!(cache.get(&key), expected, "key {key}");
    }
}

/// While a group of records is built, some of their keys are overwritten and one is removed: those
/// before and behind the one that is built just then. Each is copied again, or not at all.
#[test]
fn what_changes_while_records_are_built_is_not_written_stale() {
    static HANDLE: OnceLock<Cache<u64, String>> = OnceLock::new();
    let dir = tempfile::tempdir().unwrap();
    let (open_gate, gate) = mpsc::channel::<()>();
    let (gate, changed) = (Mutex::new(gate), Mutex::new(false));
    let cache: Cache<u64, String> = Cache::builder(dir.path().join("cache"))
        .ram(4 * MIB)
        .disk(4 * MIB)
        .stripes(1)
        .write_behind(WriteBehind::Through)
        .disk_filter(move |&key, _| {
            if key == 0 {
                // Until everything is queued.
                let _ = gate.lock().unwrap().recv();
            }
            if key == 10 && !std::mem::replace(&mut *changed.lock().unwrap(), true) {
                let cache = HANDLE.get().unwrap();
                [5, 6, 10, 11, 20].into_iter().for_each(|key| cache.insert(key, "new".into()).unwrap());
                cache.remove(&12).unwrap();
            }
            true
        })
        .open()
        .unwrap();
    assert!(HANDLE.set(cache.clone()).is_ok());
    (0..200).for_each(|key| cache.insert(key, format!("old {key}")).unwrap());
    drop(open_gate);
    cache.flush().unwrap();
    cache.check();
    cache.close().unwrap();
    let cache: Cache<u64, String> =
        Cache::builder(dir.path().join("cache")).ram(4 * MIB).disk(4 * MIB).open().unwrap();
    for key in 0..200 {
        let expected = match key {
            5 | 6 | 10 | 11 | 20 => Some("new".to_owned()),
            12 => None,
            _ => Some(format!("old {key}")),
        };
        assert_eq!(cache.get(&key), expected, "key {key}");
    }
}

/// Every insert is copied, none may wait, and the disk stands still.
#[test]
fn what_is_to_be_shed_does_not_pile_up_in_ram() {
    let (open_gate, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let disk = FaultDisk::over(Arc::new(MemoryDisk::new()));
    let cache: Cache<u64, Vec<u8>> = Cache::builder("cache")
        .ram(2 * MIB)
        .disk(16 * MIB)
        .admission(Admission::All)
        .write_behind(WriteBehind::Through)
        .overload(Overload::Shed)
        .io(Arc::new(disk.clone()))
        .open()
        .unwrap();
    cache.insert(0, vec![0]).unwrap();
    cache.flush().unwrap();
    disk.watch(move |Moment { operation, file, .. }| {
        if operation == Operation::Write && file.starts_with("seg-") {
            let _ = gate.lock().unwrap().recv();
        }
    });
    for key in 0..20_000 {
        cache.insert(key, vec![0; KIB as usize]).unwrap();
    }
    wait_until("what was shed has gone", LIMIT, || cache.ram_used() <= 3 * MIB);
    drop(open_gate);
    cache.check();
}

/// The maintenance thread has died, and what every insert queues for it is never written.
#[test]
fn what_nobody_writes_does_not_pile_up_in_ram() {
    let disk = FaultDisk::over(Arc::new(MemoryDisk::new()));
    let cache: Cache<u64, Vec<u8>> = Cache::builder("cache")
        .ram(2 * MIB)
        .disk(16 * MIB)
        .write_behind(WriteBehind::Through)
        .io(Arc::new(disk.clone()))
        .open()
        .unwrap();
    disk.watch(|Moment { file, .. }| assert!(!file.starts_with("seg-"), "this panic is part of the test"));
    cache.insert(0, vec![0]).unwrap();
    assert!(cache.flush().is_err());
    for key in 0..20_000 {
        cache.insert(key, vec![0; KIB as usize]).unwrap();
    }
    wait_until("what nobody writes has gone", LIMIT, || cache.ram_used() <= 3 * MIB);
    cache.check();
}

/// Two threads fill the queue of the only stripe as fast as the disk empties it. The background thread answers
/// others all the same.
#[test]
fn a_call_is_answered_while_one_stripe_is_written_to_without_end() {
    let disk = FaultDisk::over(Arc::new(MemoryDisk::new()));
    disk.watch(|Moment { operation, file, side, .. }| {
        if operation == Operation::Write && side == Side::Before && file.starts_with("seg-") {
            thread::sleep(Duration::from_millis(2));
        }
    });
    let cache: TestCache = Cache::builder("cache")
        .ram(64 * MIB)
        .disk(64 * MIB)
        .stripes(1)
        .admission(Admission::All)
        .io(Arc::new(disk))
        .open()
        .unwrap();
    let (stop, answered) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        for thread in 0..2 {
            let (cache, stop) = (&cache, &stop);
            scope.spawn(move || {
                let keys = (0..).map(|key| key * 2 + thread).take_while(|_| !stop.load(SeqCst));
                keys.for_each(|key| cache.insert(key, vec![1; 1_000]).unwrap());
            });
        }
        while cache.stats().spills < 20_000 {
            thread::sleep(Duration::from_millis(10));
        }
        scope.spawn(|| {
            cache.clear().unwrap();
            answered.store(true, SeqCst);
        });
        let begun = Instant::now();
        while !answered.load(SeqCst) && begun.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(10));
        }
        let in_time = answered.load(SeqCst);
        stop.store(true, SeqCst);
        assert!(in_time, "the clear was not answered for as long as others wrote");
    });
}
