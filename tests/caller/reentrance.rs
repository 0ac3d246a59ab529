//! What users' code may do where the cache calls it, and what must end all the same.

use std::{
    cell::{Cell, RefCell},
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::wait_until;
use embercache::{
    Admission, Bincode, Cache, Codec, CodecError, CodecId, MIB, WriteBehind,
    testing::{FaultDisk, MemoryDisk},
};

/// Runs `body`; panics if it does not end.
fn ends(body: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let body = thread::spawn(move || {
        body();
        done.send(()).unwrap();
    });
    if is_done.recv_timeout(Duration::from_secs(30)).is_err() {
        assert!(body.is_finished(), "it hangs");
        body.join().unwrap();
    }
}

/// A value that runs an errand when it is dropped.
#[derive(Clone)]
struct Errand {
    run: Arc<dyn Fn() + Send + Sync>,
    _held: Option<Cache<u64, Errand>>,
}

/// The errand of every value that is read from disk.
static AFTER_DECODE: OnceLock<Arc<dyn Fn() + Send + Sync>> = OnceLock::new();

impl Errand {
    fn none(held: Option<Cache<u64, Errand>>) -> Errand {
        Errand { run: Arc::new(|| {}), _held: held }
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        (self.run)();
    }
}

impl Codec for Errand {
    const ID: CodecId = CodecId(0x5_0000);

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(0);
        Ok(())
    }

    fn decode(_: Vec<u8>) -> Result<Self, CodecError> {
        Ok(Errand { run: AFTER_DECODE.get().expect("set before").clone(), _held: None })
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

/// A promotion that comes too late drops what it has read, and that asks the cache something.
#[test]
fn a_value_may_ask_the_cache_when_it_is_dropped() {
    ends(|| {
        let dir = tempfile::tempdir().unwrap();
        let open = || -> Cache<u64, Errand> {
            Cache::builder(dir.path().join("cache")).ram(MIB).disk(MIB).open().unwrap()
        };
        let cache = open();
        cache.insert(1, Errand::none(None)).unwrap();
        cache.close().unwrap();
        let cache = open();
        let asked: Arc<Mutex<Option<Cache<u64, Errand>>>> = Arc::new(Mutex::new(Some(cache.clone())));
        let ask = Arc::clone(&asked);
        AFTER_DECODE
            .set(Arc::new(move || {
                let cache = ask.lock().unwrap().clone();
                cache.map(|cache| cache.len());
            }))
            .unwrap_or_default();
        assert!(cache.get_with(&1, |_| cache.remove(&1).unwrap()).unwrap());
        *asked.lock().unwrap() = None;
    });
}

/// The last handle lies in a value that expires: the maintenance thread drops it, and closes.
#[test]
fn the_last_handle_may_lie_in_the_cache() {
    ends(|| {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            Cache::<u64, Errand>::builder(dir.path().join("cache"))
                .ram(MIB)
                .disk(MIB)
                .disk_filter(|_, _| false)
                .write_behind(WriteBehind::After(Duration::from_millis(40)))
                .open()
        };
        let cache = open().unwrap();
        for key in 0..64 {
            let value = Errand::none(Some(cache.clone()));
            cache.insert_with_ttl(key, value, Duration::from_millis(200)).unwrap();
        }
        drop(cache);
        let started = Instant::now();
        while open().is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "the directory stays locked");
            thread::sleep(Duration::from_millis(50));
        }
    });
}

/// A key whose comparison panics when it is told to.
struct Touchy(u64);

static IS_TOUCHED: AtomicBool = AtomicBool::new(false);

impl PartialEq for Touchy {
    fn eq(&self, other: &Touchy) -> bool {
        if IS_TOUCHED.load(SeqCst) {
            // Told to nobody: to print where takes long, and the epoch waits for it.
            resume_unwind(Box::new("do not touch"));
        }
        self.0 == other.0
    }
}

impl Eq for Touchy {}

impl Codec for Touchy {
    const ID: CodecId = CodecId(0x5_0001);

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.0.encode(out)
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
        u64::decode(bytes).map(Touchy)
    }
}

/// What a change that panicked has at hand is dropped outside the lock, and asks the cache something: the
/// value that is not stored, and one that was displaced before.
#[test]
fn a_value_may_ask_the_cache_when_a_comparison_panics() {
    ends(|| {
        let cache: Cache<Touchy, Errand> = Cache::in_memory().ram(MIB).stripes(1).open().unwrap();
        let asked = Arc::new(AtomicU64::new(0));
        let errand = || {
            let (cache, asked) = (cache.clone(), Arc::clone(&asked));
            Errand { run: Arc::new(move || _ = asked.fetch_add(1 + cache.len(), SeqCst)), _held: None }
        };
        for key in 0..1_000 {
            cache.insert(Touchy(key % 10), errand()).unwrap();
        }
        let before = asked.load(SeqCst);
        IS_TOUCHED.store(true, SeqCst);
        let change = |change: &dyn Fn()| catch_unwind(AssertUnwindSafe(change)).is_err();
        assert!(change(&|| cache.insert(Touchy(1), errand()).unwrap()));
        assert!(change(&|| _ = cache.remove(&Touchy(1))));
        IS_TOUCHED.store(false, SeqCst);
        assert!(asked.load(SeqCst) > before);
        cache.check();
        assert_eq!(cache.len(), 10);
    });
}

/// A value that runs [`ON_DROP`] when it is dropped.
struct Watched(u64);

static ON_DROP: Mutex<Option<Arc<dyn Fn() + Send + Sync>>> = Mutex::new(None);

impl Clone for Watched {
    fn clone(&self) -> Watched {
        Watched(self.0)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let run = ON_DROP.lock().unwrap().clone();
        run.inspect(|run| run());
    }
}

impl Codec for Watched {
    const ID: CodecId = CodecId(0x5_0002);

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.0.encode(out)
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
        u64::decode(bytes).map(Watched)
    }
}

/// A value that is dropped looks others up while a cache is closed that was only read, and whose stripes are not
/// all loaded.
#[test]
fn a_value_may_look_others_up_while_the_cache_is_closed() {
    // In each the drops may all come to another test's thread, which waits for nobody.
    ends(|| (0..10).for_each(|_| look_up_while_closing()));
}

fn look_up_while_closing() {
    let dir = tempfile::tempdir().unwrap();
    let builder = || Cache::<u64, Watched>::builder(dir.path().join("read")).ram(64 * MIB).stripes(1_024);
    let cache = builder().disk(64 * MIB).admission(Admission::All).open().unwrap();
    (0..1_000).for_each(|key| cache.insert(key, Watched(key)).unwrap());
    cache.close().unwrap();
    drop(cache);
    let cache = builder().disk(64 * MIB).read_only().open().unwrap();
    (0..300).for_each(|key| assert!(cache.get_with(&key, |_| ()).is_some()));
    let (asked, closer, is_busy) = (cache.clone(), thread::current().id(), AtomicBool::new(false));
    *ON_DROP.lock().unwrap() = Some(Arc::new(move || {
        if thread::current().id() == closer && !is_busy.swap(true, SeqCst) {
            (300..1_000).for_each(|key| _ = asked.get_with(&key, |_| ()));
            is_busy.store(false, SeqCst);
        }
    }));
    cache.close().unwrap();
    *ON_DROP.lock().unwrap() = None;
}

/// The filter, which the cache's thread runs, asks for a key that somebody loads who waits for that thread.
#[test]
fn the_filter_may_ask_for_what_is_being_loaded() {
    ends(|| {
        let dir = tempfile::tempdir().unwrap();
        let (is_loading, has_asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let own: Arc<OnceLock<Cache<u64, Vec<u8>>>> = Arc::default();
        let filter = {
            let (own, is_loading, has_asked) = (own.clone(), is_loading.clone(), has_asked.clone());
            move |_: &u64, _: &Vec<u8>| {
                if is_loading.load(SeqCst) && !has_asked.swap(true, SeqCst) {
                    own.get().unwrap().get_or_insert_with(&0, || vec![1]);
                }
                true
            }
        };
        let builder = Cache::builder(dir.path().join("cache")).ram(MIB).disk(16 * MIB);
        let cache = builder.write_behind(WriteBehind::Never).disk_filter(filter).open().unwrap();
        own.set(cache.clone()).unwrap();
        cache.insert(1, vec![1]).unwrap();
        let loaded = cache.get_or_insert_with(&0, || {
            is_loading.store(true, SeqCst);
            cache.flush().unwrap();
            vec![2]
        });
        assert!(has_asked.load(SeqCst) && loaded == [2]);
    });
}

/// The thread of one cache, whose filter it runs, asks another cache for a key that somebody loads who waits for
/// that thread.
#[test]
fn the_filter_may_ask_another_cache_for_what_is_being_loaded() {
    ends(|| {
        let dir = tempfile::tempdir().unwrap();
        let (is_loading, has_asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let front: Cache<u64, Vec<u8>> = Cache::in_memory().ram(MIB).open().unwrap();
        let filter = {
            let (front, is_loading, has_asked) = (front.clone(), is_loading.clone(), has_asked.clone());
            move |_: &u64, _: &Vec<u8>| {
                if is_loading.load(SeqCst) && !has_asked.swap(true, SeqCst) {
                    front.get_or_insert_with(&0, || vec![1]);
                }
                true
            }
        };
        let builder = Cache::builder(dir.path().join("cache")).ram(MIB).disk(16 * MIB);
        let behind = builder.write_behind(WriteBehind::Never).disk_filter(filter).open().unwrap();
        behind.insert(1, vec![1]).unwrap();
        let loaded = front.get_or_insert_with(&0, || {
            is_loading.store(true, SeqCst);
            behind.flush().unwrap();
            vec![2]
        });
        assert!(has_asked.load(SeqCst) && loaded == [2]);
        assert_eq!(front.get(&0), Some(vec![2]), "what the thread has loaded for itself is stored");
    });
}

/// A load asks for the key that it loads: nobody else will bring it.
#[test]
fn a_load_may_ask_for_its_own_key() {
    ends(|| {
        let cache: Cache<u64, u64> = Cache::in_memory().ram(MIB).open().unwrap();
        let loaded = cache.get_or_insert_with(&1, || {
            let within = cache.get_or_insert_with(&1, || 10);
            assert_eq!(cache.get(&1), None, "only what was asked for first is stored");
            within + 1
        });
        assert_eq!((loaded, cache.get(&1), cache.stats().loads), (11, Some(11), 2));
    });
}

/// The one within stores nothing, whatever has become of the key meanwhile (R8).
#[test]
fn a_load_within_the_load_of_its_key_undoes_no_remove() {
    ends(|| {
        let cache: Cache<u64, u64> = Cache::in_memory().ram(MIB).open().unwrap();
        let loaded = cache.get_or_insert_with(&1, || {
            cache.get_or_insert_with(&1, || {
                cache.remove(&1).unwrap();
                10
            })
        });
        assert_eq!((loaded, cache.get(&1)), (10, None));
    });
}

/// A large value is dropped while a load begins, and asks for the key that its own thread is about to load.
#[test]
fn a_dropped_value_may_ask_for_what_its_thread_is_about_to_load() {
    ends(|| {
        let disk = MemoryDisk::new();
        let builder = Cache::<u64, Errand>::in_memory().ram(64 * MIB).stripes(1).weigher(|_, _| 4 * MIB);
        let cache = builder.io(Arc::new(disk.clone())).open().unwrap();
        let (loads, asked) = (Arc::new(Mutex::new(None)), Arc::new(AtomicU64::new(0)));
        let run = {
            let (asks, loads, asked) = (cache.clone(), Arc::clone(&loads), Arc::clone(&asked));
            let own_thread = thread::current().id();
            Arc::new(move || {
                let key = *loads.lock().unwrap();
                if let Some(key) = key
                    && thread::current().id() == own_thread
                {
                    asked.fetch_add(1, SeqCst);
                    asks.get_or_insert_with(&key, || Errand::none(None));
                }
            })
        };
        // Not in each round: another test's thread may drop it, or stand in the way of that.
        for key in (0..10_000).step_by(2) {
            let ttl = Duration::from_secs(1);
            cache.insert_with_ttl(key, Errand { run: run.clone(), _held: None }, ttl).unwrap();
            cache.insert_with_ttl(key + 1, Errand::none(None), ttl).unwrap();
            disk.advance_clock(2 * ttl);
            assert!(!cache.contains_key(&key));
            *loads.lock().unwrap() = Some(key + 1);
            cache.get_or_insert_with(&(key + 1), || Errand::none(None));
            *loads.lock().unwrap() = None;
            if asked.load(SeqCst) == 10 {
                return;
            }
        }
        panic!("they are not dropped while a load begins");
    });
}

/// What an insert waits for is removed by another thread, and not written.
#[test]
fn who_waits_for_room_is_told_when_others_made_it() {
    ends(|| {
        let dir = tempfile::tempdir().unwrap();
        let (entered, has_entered) = mpsc::channel();
        let (open_gate, gate) = mpsc::channel::<()>();
        let (entered, gate) = (Mutex::new(entered), Mutex::new(gate));
        let cache: Cache<u64, Vec<u8>> = Cache::builder(dir.path().join("cache"))
            .ram(MIB)
            .disk(16 * MIB)
            .write_behind(WriteBehind::Never)
            .disk_filter(move |_, _| {
                let _ = entered.lock().unwrap().send(());
                let _ = gate.lock().unwrap().recv();
                true
            })
            .open()
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writer = thread::spawn({
            let (cache, stop) = (cache.clone(), Arc::clone(&stop));
            move || {
                let insert = |key| cache.insert(key, vec![0; 10_000]).is_ok() && !stop.load(SeqCst);
                (0..2_000).take_while(|&key| insert(key)).count()
            }
        });
        has_entered.recv().unwrap();
        thread::sleep(Duration::from_millis(500));
        assert!(!writer.is_finished(), "it never had to wait");
        stop.store(true, SeqCst);
        (0..2_000).for_each(|key| {
            cache.remove(&key).unwrap();
        });
        drop(open_gate);
        writer.join().unwrap();
    });
}

/// The maintenance thread has died, and a value that the close drops closes as well.
#[test]
fn a_value_may_close_a_cache_whose_thread_has_died() {
    ends(|| {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultDisk::new();
        let builder = Cache::<u64, Errand>::builder(dir.path().join("cache")).ram(MIB).disk(MIB);
        let cache = builder.io(Arc::new(disk.clone())).open().unwrap();
        disk.watch(|moment| {
            if moment.file.starts_with("seg-") {
                resume_unwind(Box::new("part of the test"));
            }
        });
        cache.insert(1, Errand::none(None)).unwrap();
        cache.flush().unwrap_err();
        let (closes, thread) = (cache.clone(), thread::current().id());
        let run = move || {
            if thread::current().id() == thread {
                closes.close().unwrap();
            }
        };
        cache.insert(2, Errand { run: Arc::new(run), _held: None }).unwrap();
        cache.close().unwrap_err();
    });
}

#[test]
fn pauses_and_deadlines_may_be_for_ever() {
    ends(|| {
        let dir = tempfile::tempdir().unwrap();
        let open = || -> Cache<u64, u64> {
            Cache::builder(dir.path().join("cache"))
                .ram(MIB)
                .disk(MIB)
                .close_timeout(Duration::MAX)
                .write_behind(WriteBehind::After(Duration::MAX))
                .open()
                .unwrap()
        };
        let cache = open();
        cache.insert(1, 1).unwrap();
        cache.close().unwrap();
        assert_eq!(open().get(&1), Some(1));
    });
}

#[test]
fn a_close_that_fails_lets_go_of_the_directory() {
    ends(|| {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FaultDisk::new());
        let open = || {
            let cache = Cache::<u64, u64>::builder(dir.path().join("cache")).ram(MIB).disk(MIB);
            cache.io(Arc::clone(&disk) as _).open()
        };
        let cache = open().unwrap();
        cache.insert(1, 1).unwrap();
        disk.fail_writes(Some(ErrorKind::StorageFull));
        cache.close().unwrap_err();
        disk.fail_writes(None);
        open().unwrap();
    });
}

thread_local! {
    /// How many drops of values this thread is in, one within the other.
    static DEPTH: Cell<u64> = const { Cell::new(0) };
}

/// While a look-up takes long, values are displaced whose drop inserts. Once it is over they are dropped, by few
/// inserts, and few of them each within another.
#[test]
fn values_whose_drop_inserts_are_not_dropped_each_within_another() {
    // A stack for as many as there are: what is wrong is seen by the count.
    let body = thread::Builder::new().stack_size(1 << 30).spawn(|| {
        let cache: Cache<u64, Errand> = Cache::in_memory().ram_entries(1_000).stripes(1).open().unwrap();
        let (deepest, dropped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        // Each leaves a mark, whose own drop does nothing.
        let insert = |key: u64| {
            let (own, deepest, dropped) = (cache.clone(), Arc::clone(&deepest), Arc::clone(&dropped));
            let run = move || {
                DEPTH.set(DEPTH.get() + 1);
                deepest.fetch_max(DEPTH.get(), SeqCst);
                dropped.fetch_add(1, SeqCst);
                own.insert(key + (1 << 40), Errand::none(None)).unwrap();
                DEPTH.set(DEPTH.get() - 1);
            };
            cache.insert(key, Errand { run: Arc::new(run), _held: None }).unwrap();
        };
        insert(0);
        let (entered, has_entered) = mpsc::channel();
        let (leave, left) = mpsc::channel::<()>();
        let reader = thread::spawn({
            let cache = cache.clone();
            move || {
                cache.get_with(&0, |_| {
                    entered.send(()).unwrap();
                    let _ = left.recv();
                })
            }
        });
        has_entered.recv().unwrap();
        (1..10_000).for_each(insert);
        drop(leave);
        reader.join().unwrap();
        assert!(dropped.load(SeqCst) < 1_000, "the look-up did not take long");
        let mut keys = 10_000..;
        wait_until("they are dropped", Duration::from_secs(20), || {
            (0..100).for_each(|_| insert(keys.next().unwrap()));
            dropped.load(SeqCst) + 2_000 > keys.start
        });
        cache.check();
        let deepest = deepest.load(SeqCst);
        assert!(deepest <= 8, "one within the other, {deepest} times");
    });
    body.unwrap().join().unwrap();
}

/// A dead lease stores nothing; nor does it take away what came after it.
#[test]
fn a_dead_lease_harms_nobody() {
    let cache: Cache<u64, Vec<u8>> = Cache::in_memory().ram(MIB).open().unwrap();
    let lease = cache.lease(&1).unwrap();
    cache.insert(1, vec![2]).unwrap();
    assert!(lease.fill(vec![1; 2 << 20]).is_err(), "it is too large");
    assert_eq!(cache.get(&1), Some(vec![2]));
}

/// The maintenance thread's filter closes the cache, while another thread does.
#[test]
fn user_code_may_close_the_cache() {
    ends(|| {
        let dir = tempfile::tempdir().unwrap();
        let handle: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let closes = Arc::clone(&handle);
        let cache: Cache<u64, u64> = Cache::builder(dir.path().join("cache"))
            .ram(MIB)
            .disk(MIB)
            .disk_filter(move |_, _| {
                let cache = closes.lock().unwrap().clone();
                cache.is_none_or(|cache| cache.close().is_ok())
            })
            .open()
            .unwrap();
        *handle.lock().unwrap() = Some(cache.clone());
        (0..100).for_each(|key| cache.insert(key, key).unwrap());
        cache.close().unwrap();
        cache.close().unwrap();
        assert_eq!(cache.get(&1), None);
        *handle.lock().unwrap() = None;
    });
}

static DROP_PANICS: AtomicBool = AtomicBool::new(false);

/// A key whose drop panics once, when it is told to.
#[derive(PartialEq, Eq)]
struct Brittle(u64);

impl Clone for Brittle {
    fn clone(&self) -> Brittle {
        Brittle(self.0)
    }
}

impl Drop for Brittle {
    fn drop(&mut self) {
        if DROP_PANICS.swap(false, SeqCst) {
            resume_unwind(Box::new("part of the test"));
        }
    }
}

impl Codec for Brittle {
    const ID: CodecId = CodecId(0x5_0003);

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.0.encode(out)
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
        u64::decode(bytes).map(Brittle)
    }
}

/// Who begins to lead a load beside a lease drops a key that is not needed, which panics.
#[test]
fn a_key_whose_drop_panics_leaves_no_load_without_a_leader() {
    let cache: Cache<Brittle, u64> = Cache::in_memory().ram(MIB).open().unwrap();
    let key = Brittle(1);
    let lease = cache.lease(&key).unwrap();
    DROP_PANICS.store(true, SeqCst);
    let _ = catch_unwind(AssertUnwindSafe(|| cache.get_or_insert_with(&key, || 1)));
    DROP_PANICS.store(false, SeqCst);
    let (done, is_done) = mpsc::channel();
    let asks = cache.clone();
    thread::spawn(move || {
        asks.get_or_insert_with(&Brittle(1), || 2);
        done.send(()).unwrap();
    });
    assert!(is_done.recv_timeout(Duration::from_secs(10)).is_ok(), "it waits for a leader that there is not");
    drop(lease);
}

/// Looks up as its thread ends, when other destructors of the thread have run.
struct Late(Cache<Bincode<u32>, u64>, mpsc::Sender<bool>);

impl Drop for Late {
    fn drop(&mut self) {
        let found = catch_unwind(AssertUnwindSafe(|| self.0.get(&Bincode(7))));
        self.1.send(matches!(found, Ok(Some(70)))).unwrap();
    }
}

thread_local!(static LATE: RefCell<Option<Late>> = const { RefCell::new(None) });

#[test]
fn a_destructor_of_a_thread_may_look_up() {
    let cache: Cache<Bincode<u32>, u64> = Cache::in_memory().ram(MIB).open().unwrap();
    cache.insert(Bincode(7), 70).unwrap();
    let (said, says) = mpsc::channel();
    thread::spawn(move || {
        LATE.with(|late| *late.borrow_mut() = Some(Late(cache.clone(), said)));
        assert_eq!(cache.get(&Bincode(7)), Some(70));
    })
    .join()
    .unwrap();
    assert!(says.recv().unwrap(), "the look-up panicked");
}

/// Who is told of what happens asks the cache that tells it.
struct Listener(Box<dyn Fn() + Send + Sync>);

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("embercache")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        (self.0)();
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn who_listens_to_warnings_may_use_the_cache() {
    ends(|| {
        let (dir, disk) = (tempfile::tempdir().unwrap(), FaultDisk::new());
        let builder = Cache::<u64, u64>::builder(dir.path().join("cache")).stripes(1);
        let cache = builder.io(Arc::new(disk.clone())).open().unwrap();
        (0..4).for_each(|key| cache.insert(key, 1).unwrap());
        cache.flush().unwrap();
        let use_it = {
            let cache = cache.clone();
            move || {
                cache.insert(1, 3).unwrap();
                assert_eq!(cache.get(&1), Some(3));
            }
        };
        tracing::subscriber::with_default(Listener(Box::new(use_it)), || {
            disk.fail_writes(Some(ErrorKind::StorageFull));
            cache.insert(0, 2).unwrap();
            disk.fail_writes(None);
        });
        assert_eq!(cache.get(&0), Some(2));
    });
}
