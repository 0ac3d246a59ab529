//! What a real machine does to a cache: full and failing file systems, limits of the process, files that
//! are changed under it, other processes and other users.
//!
//! Most of it happens to a child process, run under the program that makes the fault. Where the machine
//! or the user may not do that, the test says so on standard error and does nothing.
//! `EMBERCACHE_SOAK` (a factor) makes them longer.

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use common::{
    Random, TempDir, TestCache, cases, child,
    child::{Kind, Reporter, Role, Spawned},
    contents, figure, from_env,
    machine::{self, Group, Mount, is_root, run, start_under},
    roomy, skip, tiny,
    value::{self, value},
    wait_until,
};
use embercache::{Admission, Builder, Cache, Durability, Error, KIB, MIB, ReadMode, WriteBehind};

const SECOND: Duration = Duration::from_secs(1);

/// The way into a child process; in a normal run it does nothing.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    match role.name.as_str() {
        "write much" => write_much(&role),
        "fail at times" => fail_at_times(&role, Durability::ProcessCrash),
        "fail to sync at times" => fail_at_times(&role, Durability::PowerLoss),
        "open and hold" => open_and_hold(&role),
        "open" => _ = tiny(&role.dir).open().unwrap(),
        "be refused" => {
            assert!(matches!(tiny(&role.dir).open(), Err(Error::Io { .. } | Error::Unusable { .. })))
        }
        "many segments" => ManySegments::new(&role, ReadMode::Map).fill(),
        "many segments, strictly" => ManySegments::new(&role, ReadMode::Strict).fill(),
        "no descriptors" => ManySegments::new(&role, ReadMode::Map).lack_descriptors(),
        "no descriptors, strictly" => ManySegments::new(&role, ReadMode::Strict).lack_descriptors(),
        "small memory" => use_small_memory(&role),
        "only read" => only_read(&role),
        other => panic!("no such child: {other}"),
    }
}

/// Line 23: a file system that is full before the log is, and then has room again.
#[test]
fn a_full_file_system() {
    let Some(mount) = Mount::tmpfs("64m") else { return };
    let filler = mount.path().join("filler");
    fs::write(&filler, vec![1; 56 << 20]).unwrap();
    let cache = roomy(&mount.path().join("cache")).ram_entries(500).open().unwrap();
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 23));
    let mut versions = vec![0; 4_000];
    let mut work = |until: &dyn Fn() -> bool| {
        while !until() {
            let key = random.below(4_000);
            if random.below(3) > 0 {
                versions[key as usize] += 1;
                // What cannot be journaled is said so, and is done in RAM all the same.
                let done = cache.insert(key, value(key, versions[key as usize], 4_096));
                assert!(matches!(done, Ok(()) | Err(Error::NotDurable { .. })), "{done:?}");
            } else if let Some(found) = cache.get(&key) {
                assert_eq!(value::version(key, &found), versions[key as usize], "key {key}");
            }
        }
    };
    let end = Instant::now() + 3 * SECOND * cases(1) as u32;
    work(&|| cache.stats().write_failures > 0 && Instant::now() > end);
    let (failures, spills) = (cache.stats().write_failures, cache.stats().spills);
    fs::remove_file(filler).unwrap();
    let freed = Instant::now();
    // Five seconds, and the longest pause that the failures may have led to.
    let patience = 70 * SECOND;
    work(&|| cache.stats().spills > spills + 100 || freed.elapsed() > patience);
    assert!(cache.stats().spills > spills + 100, "the disk was not tried again: {}", cache.stats());
    figure(
        23,
        &format!("{failures} refused writes, 0 wrong; back {:.1?} after there was room", freed.elapsed()),
    );
}

/// Line 24: a limit on the size of files would kill the process by SIGXFSZ.
#[test]
fn a_limit_on_the_size_of_files() {
    let dir = TempDir::new();
    let Some(child) = start_under(&["prlimit", "--fsize=8388608"], "write much", &dir.cache()) else {
        return;
    };
    let reports = child.reports().expect("it was killed, or failed");
    let refused = reports[0].key;
    figure(
        24,
        &format!("segments of 64 MiB under a limit of 8 MiB: {refused} copies refused, the process lives"),
    );
    assert!(refused > 0, "nothing came to the limit: nothing was tested");
}

fn write_much(role: &Role) {
    let builder: Builder<u64, Vec<u8>> = Cache::builder(&role.dir);
    let cache = builder.ram(MIB).segment_size(64 * MIB).disk(512 * MIB).open().unwrap();
    for key in 0..20_000 {
        cache.insert(key, value(key, 1, 1_000)).unwrap();
    }
    assert!(cache.get(&19_999).is_some());
    role.reporter().report(Kind::Alive, cache.stats().write_failures, 0);
}

/// Line 26: system calls fail, every third from the twelfth or, where there are few, the fourth on.
#[test]
fn system_calls_fail() {
    let calls = ["pwrite64", "pread64", "fdatasync", "fallocate"];
    let scenarios: Vec<_> = calls.into_iter().flat_map(|call| [(call, "EIO"), (call, "ENOSPC")]).collect();
    fails_at_times("strace", &scenarios, |call, errno, first, role, dir| {
        let inject = format!("inject={call}:error={errno}:when={first}+3");
        let trace = format!("trace={call}");
        start_under(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject], role, dir)
    });
}

/// The same between the program and the C library, where calls can also be cut short.
#[test]
fn library_calls_fail() {
    let dir = TempDir::new();
    let library = dir.outer().join("failing_calls.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/failing_calls.c");
    let built = ["cc", "-shared", "-fPIC", "-O1", "-o", library.to_str().unwrap(), source, "-ldl"];
    let Some(()) = run(&built) else { return };
    let scenarios = [
        ("pwrite64", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("pwrite64", SHORT),
        ("pread64", "EIO"),
        ("pread64", SHORT),
        ("fdatasync", "EIO"),
        ("ftruncate64", "EIO"),
        ("pwrite64", "EINTR"),
    ];
    let mark = |call: &str, how: &str| dir.outer().join(format!("{call}-{how}"));
    fails_at_times("the C library", &scenarios, |call, how, first, role, dir| {
        let errno = match how {
            "EIO" => 5,
            "ENOSPC" => 28,
            "EINTR" => 4,
            _ => 0,
        };
        let set = |name: &str, value: &str| format!("EMBERCACHE_FAIL_{name}={value}");
        let environment = [
            "env".to_owned(),
            format!("LD_PRELOAD={}", library.display()),
            set("CALL", call),
            set("ERRNO", &errno.to_string()),
            set("FIRST", &first.to_string()),
            set("EVERY", "3"),
            set("DIR", dir.to_str().unwrap()),
            set("MARK", mark(call, how).to_str().unwrap()),
        ];
        start_under(&environment.each_ref().map(String::as_str), role, dir)
    });
    for (call, how) in scenarios {
        assert!(mark(call, how).exists(), "{call} by {how} never happened: nothing was tested");
    }
}

/// A call that does half of what it is asked to do, and says so.
const SHORT: &str = "short";

/// How often a child writes its keys.
const ROUNDS: u64 = 10;

/// Starts a child for each call and how it is to fail, and judges what it reports.
fn fails_at_times(
    by: &str,
    scenarios: &[(&str, &str)],
    start: impl Fn(&str, &str, u64, &str, &Path) -> Option<Spawned>,
) {
    let mut told = Vec::new();
    for &(call, how) in scenarios {
        let dir = TempDir::new();
        let first = if call.starts_with('p') { 12 } else { 4 };
        let (role, durability) = match call {
            "fdatasync" => ("fail to sync at times", Durability::PowerLoss),
            _ => ("fail at times", Durability::ProcessCrash),
        };
        let Some(child) = start(call, how, first, role, &dir.cache()) else { return };
        let reports = child.reports().unwrap_or_else(|| panic!("{call} by {how}"));
        let counted = reports.first().map_or(0, |report| report.key);
        let cache = roomy(&dir.cache()).durability(durability).open().unwrap();
        let versions = (0..2_000).filter_map(|key| Some(value::version(key, &cache.get(&key)?)));
        assert!(versions.into_iter().all(|version| version == ROUNDS - 1), "{call} by {how}: stale");
        // A journal that fails is told by nothing but a cold start.
        let noticed = counted + u64::from(cache.is_empty());
        // What is cut short or interrupted is done again, and a file that cannot be cut is only too long.
        let is_quiet = [SHORT, "EINTR"].contains(&how) || call == "ftruncate64";
        assert_eq!(noticed == 0, is_quiet, "{call} by {how}: noticed {noticed} times");
        told.push(format!("{call} {how} {noticed}"));
    }
    let (count, all) = (told.len(), told.join(", "));
    figure(26, &format!("{count} scenarios by {by}, 0 wrong, RAM as full as without; noticed: {all}"));
}

/// Uses a cache whose disk fails at times; RAM keeps what it would keep without.
fn fail_at_times(role: &Role, durability: Durability) {
    let builder = roomy(&role.dir).ram_entries(1_000).read_mode(ReadMode::Strict).durability(durability);
    let Ok(cache) = builder.write_behind(WriteBehind::Never).open() else { return };
    let mut refused = 0;
    for round in 0..ROUNDS {
        for key in 0..2_000 {
            // What cannot be journaled is said so, and is done in RAM all the same.
            let done = cache.insert(key, value(key, round, 300));
            assert!(matches!(done, Ok(()) | Err(Error::NotDurable { .. })), "{done:?}");
            refused += u64::from(done.is_err());
        }
        let in_ram = cache.stats().ram_entries;
        assert!(in_ram >= 1_000, "RAM keeps {in_ram} of 1,000 entries");
        for key in 0..2_000 {
            if let Some(found) = cache.get(&key) {
                assert_eq!(value::version(key, &found), round, "key {key}");
            }
        }
        refused += u64::from(cache.flush().is_err());
    }
    let stats = cache.stats();
    let noticed = refused + stats.write_failures + stats.read_failures;
    role.reporter().report(Kind::Alive, noticed, 0);
}

/// Line 28: the device under the file system loses blocks. A map would end in SIGBUS.
#[test]
fn a_device_that_lost_its_end() {
    let Some(mount) = Mount::image("96m") else { return };
    let dir = mount.path().join("cache");
    let builder = || roomy(&dir).ram_entries(16).disk(64 * MIB).read_mode(ReadMode::Strict);
    let cache = builder().open().unwrap();
    (0..40_000).for_each(|key| cache.insert(key, value(key, 1, 1_000)).unwrap());
    cache.flush().unwrap();
    mount.cut_image(8 << 20);
    let mut found = 0;
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 28));
    for _ in 0..10_000 {
        let key = random.below(40_000);
        if let Some(bytes) = cache.get(&key) {
            assert_eq!(value::version(key, &bytes), 1);
            found += 1;
        }
    }
    let failures = cache.stats().read_failures;
    assert!(failures > 0, "{found} of 10,000 were found, and no read failed: nothing was tested");
    figure(28, &format!("10,000 reads, {found} found, {failures} refused by the device, 0 SIGBUS"));
}

/// Line 29.
#[test]
fn a_sealed_segment_is_truncated_by_another_process() {
    let dir = TempDir::new();
    let cache = roomy(&dir.cache()).ram_entries(16).read_mode(ReadMode::Strict).open().unwrap();
    (0..8_000).for_each(|key| cache.insert(key, value(key, 1, 1_000)).unwrap());
    cache.flush().unwrap();
    let sealed = fs::OpenOptions::new().write(true).open(dir.cache().join("seg-00000001.log")).unwrap();
    sealed.set_len(100_000).unwrap();
    let mut found = 0;
    for key in (0..8_000).chain(0..2_000) {
        if let Some(bytes) = cache.get(&key) {
            assert_eq!(value::version(key, &bytes), 1);
            found += 1;
        }
    }
    let failures = cache.stats().read_failures;
    assert!(failures > 500 && found > 8_000, "{failures} failures, {found} found");
    figure(29, &format!("10,000 reads, {found} found, {failures} cut off, 0 SIGBUS, 0 wrong"));
}

/// Line 49: one of two wins, the other is told so at once, and a killed owner is not in the way.
#[test]
fn two_processes_race_to_open() {
    let races = cases(10);
    let mut slowest_us = 0;
    for _ in 0..races {
        let dir = TempDir::new();
        let both = [0, 1].map(|seed| Spawned::start("child", "open and hold", &dir.cache(), seed));
        both.iter().for_each(|child| child.wait_done(30 * SECOND));
        let outcomes = both.map(|child| child.kill());
        let won = outcomes.iter().filter(|reports| reports[0].version == OPENED).count();
        assert_eq!(won, 1, "{outcomes:?}");
        let told = outcomes.iter().find(|reports| reports[0].version != OPENED).unwrap();
        slowest_us = slowest_us.max(told[0].key);
        let reopened = Instant::now();
        let cache = tiny(&dir.cache()).open().unwrap();
        assert!(reopened.elapsed() < SECOND, "{:?} after the owner was killed", reopened.elapsed());
        assert!(cache.get(&7).is_none_or(|found| value::version(7, &found) == 1));
    }
    figure(49, &format!("{races} races, one winner each, the other told within {slowest_us} us"));
    assert!(slowest_us < 50_000, "{slowest_us} us");
}

const OPENED: u64 = 1;
const LOCKED: u64 = 2;

/// Reports how the open ended, and how long it took in place of a key.
fn open_and_hold(role: &Role) {
    let reporter = role.reporter();
    let began = Instant::now();
    let opened = tiny(&role.dir).open();
    let took_us = began.elapsed().as_micros() as u64;
    match &opened {
        Ok(cache) => {
            reporter.report(Kind::Alive, took_us, OPENED);
            cache.insert(7, value(7, 1, 100)).unwrap();
        }
        Err(Error::Locked { .. }) => reporter.report(Kind::Alive, took_us, LOCKED),
        Err(error) => panic!("{error}"),
    }
    reporter.await_kill()
}

/// Line 50: a fork has the cache's memory and files, and neither its threads nor the right to use it.
#[test]
fn a_fork_may_not_use_the_cache() {
    let forks = cases(10);
    let dir = TempDir::new();
    let cache = roomy(&dir.cache()).ram_entries(200).open().unwrap();
    (0..1_000).for_each(|key| cache.insert(key, value(key, 1, 200)).unwrap());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // So that some lock is held in most forks.
        scope.spawn(|| {
            for key in (500..1_000).cycle().take_while(|_| !stop.load(Relaxed)) {
                cache.insert(key, value(key, 1, 200)).unwrap();
            }
        });
        let statuses: Vec<i32> = (0..forks).map(|_| in_a_fork(|| use_in_a_fork(&cache))).collect();
        // Before anything may panic: the scope waits for its thread.
        stop.store(true, Relaxed);
        assert!(statuses.iter().all(|&status| status == 0), "forks failed at these steps: {statuses:?}");
    });
    cache.flush().unwrap();
    (0..1_000).for_each(|key| assert_eq!(value::version(key, &cache.get(&key).unwrap()), 1));
    drop(cache);
    let cache = roomy(&dir.cache()).open().unwrap();
    (0..1_000).for_each(|key| assert_eq!(value::version(key, &cache.get(&key).unwrap()), 1));
    figure(50, &format!("{forks} forks were refused, and the parent was not disturbed"));
}

/// A fork that drops its handles takes nothing from the parent: not the lock, which is that of both.
#[test]
fn a_fork_that_drops_a_reader_leaves_the_directory_locked() {
    let dir = TempDir::new();
    let cache = roomy(&dir.cache()).open().unwrap();
    cache.insert(7, value(7, 1, 200)).unwrap();
    cache.close().unwrap();
    drop(cache);
    let mut reader = Some(roomy(&dir.cache()).read_only().open().unwrap());
    assert_eq!(in_a_fork(|| reader.take().map_or(1, |_| 0)), 0);
    assert!(matches!(roomy(&dir.cache()).open(), Err(Error::Locked { .. })), "a writer beside a reader");
    assert_eq!(reader.unwrap().get(&7), Some(value(7, 1, 200)));
}

/// Nor does it let go of a thread of its own, which may have what was the number of the parent's.
#[test]
fn a_fork_that_drops_a_cache_leaves_its_own_threads_alone() {
    let dir = TempDir::new();
    let mut cache = Some(roomy(&dir.cache()).open().unwrap());
    let lost = in_a_fork(|| {
        let gate = Mutex::new(());
        let held = gate.lock().unwrap();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..32).map(|_| scope.spawn(|| drop(gate.lock()))).collect();
            drop(cache.take());
            drop(held);
            let join = |thread: ScopedJoinHandle<'_, ()>| catch_unwind(AssertUnwindSafe(|| thread.join()));
            threads.into_iter().map(join).filter(Result::is_err).count() as i32
        })
    });
    assert_eq!(lost, 0, "so many could not be joined");
    drop(cache);
    assert!(roomy(&dir.cache()).open().is_ok(), "the parent has closed it");
}

/// A look-up that was begun before the fork ends in it, too. The copy that it was lent is to be made void, which the fork
/// would write where the parent has journaled something else since.
#[test]
fn a_look_up_that_ends_in_a_fork_writes_nothing() {
    let dir = TempDir::new();
    let go = dir.cache().with_extension("go");
    let cache = roomy(&dir.cache()).open().unwrap();
    (0..8).for_each(|key| cache.insert(key, value(key, 1, 200)).unwrap());
    cache.close().unwrap();
    drop(cache);

    let open = || roomy(&dir.cache()).time_to_idle(3_600 * SECOND).open().unwrap();
    // A process of its own, so that it can end without closing the cache.
    let status = in_a_fork(|| {
        let cache = open();
        let mut was_removed = cache.remove(&3).unwrap();
        let mut child = -1;
        cache.get_with(&1, |_| {
            child = fork_now();
            if child == 0 {
                wait_until("the parent has removed a key", 10 * SECOND, || go.exists());
            } else {
                was_removed &= cache.remove(&2).unwrap();
                fs::write(&go, b"").unwrap();
            }
        });
        if child == 0 {
            leave(0);
        }
        assert_eq!(wait_for(child), 0);
        leave(i32::from(was_removed))
    });
    assert_eq!(status, 1);
    let cache = open();
    assert!(cache.stats().recovery.start.is_warm());
    let removed = [2, 3].map(|key| cache.get(&key));
    assert_eq!(removed, [None, None], "acknowledged, and the process has ended");
}

/// Every operation, one after the other; the number of the first that is not refused, or 0.
fn use_in_a_fork(cache: &TestCache) -> i32 {
    let lease = cache.lease(&1);
    let refusals = [
        cache.get(&999).is_none(),
        cache.get_many([&1, &999]).iter().all(Option::is_none),
        !cache.contains_key(&999) && cache.peek(&999).is_none(),
        matches!(cache.insert(1, value(1, 2, 200)), Err(Error::Forked)),
        matches!(cache.remove(&1), Err(Error::Forked)),
        matches!(cache.clear(), Err(Error::Forked)),
        matches!(lease, Err(Error::Forked)),
        cache.get_or_insert_with(&1, || value(1, 3, 200)) == value(1, 3, 200),
        matches!(cache.flush(), Err(Error::Forked)),
        matches!(cache.close(), Err(Error::Forked)),
        cache.is_empty() && cache.stats().inserts == 0,
    ];
    drop(cache.clone());
    refusals.iter().position(|refused| !refused).map_or(0, |step| step as i32 + 1)
}

/// Runs `work` in a fork, and returns what it returned; or the signal that ended it, which is 9 if it hung.
fn in_a_fork(work: impl FnOnce() -> i32) -> i32 {
    let child = fork_now();
    if child == 0 {
        leave(work());
    }
    wait_for(child)
}

/// 0 in the child, which is to [leave], and the child in the parent.
fn fork_now() -> i32 {
    unsafe extern "C" {
        fn fork() -> i32;
    }
    // SAFETY: the child runs what is to be tested alone and then leaves without the harness's destructors. That it may
    // meet locks which other threads held is what is tested; the allocator of the C library is made for it.
    let child = unsafe { fork() };
    assert!(child >= 0, "a process can be forked");
    child
}

fn leave(status: i32) -> ! {
    unsafe extern "C" {
        fn _exit(status: i32) -> !;
    }
    // SAFETY: it ends the process at once.
    unsafe { _exit(status) }
}

/// What a child left with; or the signal that ended it, which is 9 if it hung.
fn wait_for(child: i32) -> i32 {
    unsafe extern "C" {
        fn waitpid(child: i32, status: *mut i32, options: i32) -> i32;
        fn kill(child: i32, signal: i32) -> i32;
    }
    let mut status = 0;
    let end = Instant::now() + 10 * SECOND;
    // SAFETY: `status` outlives the call. 1 is WNOHANG.
    while unsafe { waitpid(child, &mut status, 1) } == 0 {
        if Instant::now() >= end {
            // SAFETY: it ends a process that was forked and has not been waited for. 9 is SIGKILL.
            unsafe { kill(child, 9) };
        }
        thread::sleep(Duration::from_millis(1));
    }
    // The exit status is the second byte; a signal would be in the first.
    if status & 0x7f == 0 { status >> 8 } else { status }
}

/// Line 52: a careless umask gives nothing away, and other users get no further than the door.
#[test]
fn other_users() {
    let dir = TempDir::new();
    let careless = ["sh", "-c", "umask 000; exec \"$0\" \"$@\""];
    let Some(child) = start_under(&careless, "open", &dir.cache()) else { return };
    assert!(child.join());
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.cache()), 0o700);
    contents(&dir.cache()).iter().for_each(|(path, _)| assert_eq!(mode(path), 0o600, "{}", path.display()));

    if !is_root() {
        return skip("a directory of another user", "only root can give it away");
    }
    fs::set_permissions(dir.outer(), fs::Permissions::from_mode(0o755)).unwrap();
    let before = contents(&dir.cache());
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let Some(child) = start_under(&nobody, "be refused", &dir.cache()) else { return };
    assert!(child.join(), "nobody may open root's cache");
    std::os::unix::fs::chown(dir.cache(), Some(65_534), None).unwrap();
    assert!(matches!(tiny(&dir.cache()).open(), Err(Error::Unusable { .. })), "the directory is another's");
    assert!(contents(&dir.cache()) == before, "a refused open changed something");
    figure(52, "umask 000: 0700 and 0600; another's directory and another user refused");
}

/// Line 53: what is mounted for reading only cannot be opened, unless for that, and then nothing tries to write;
/// where it becomes so under an open cache, hits go on.
#[test]
fn a_file_system_becomes_read_only() {
    let Some(mount) = Mount::tmpfs("64m") else { return };
    let dir = mount.path().join("cache");
    let cache = roomy(&dir).ram_entries(100).write_behind(WriteBehind::Never).open().unwrap();
    (0..1_000).for_each(|key| cache.insert(key, value(key, 1, 500)).unwrap());
    cache.flush().unwrap();
    let copy = mount.read_only();
    let before = contents(&copy.path());
    let dir = copy.path().join("cache");
    assert!(roomy(&dir).open().is_err(), "an open must be written down");
    assert!(contents(&copy.path()) == before);
    let hits = (0..1_000).filter(|key| cache.get(key).is_some()).count();
    assert_eq!(hits, 1_000);

    cache.close().unwrap();
    let trace = mount.path().join("trace");
    let calls = "trace=openat,open,pwrite64,pwritev,fallocate,ftruncate,truncate,unlink,unlinkat,rename,renameat,\
                 renameat2,mkdir,mkdirat,fsync,fdatasync,chmod,fchmod,utimensat";
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", calls];
    let Some(child) = start_under(&strace, "only read", &dir) else { return };
    assert!(child.join(), "a read-only mount was not served");
    let trace = fs::read_to_string(trace).unwrap();
    let opens = |line: &&str| line.contains("open") && line.contains("O_RDONLY");
    let writes: Vec<&str> = trace.lines().filter(|line| !opens(line) && line.contains("cache")).collect();
    let calls = trace.lines().filter(|line| opens(line) && line.contains("cache/")).count();
    assert!(calls > 3, "nothing of the cache was seen:\n{trace}");
    let pathless = ["pwrite", "fallocate", "ftruncate", "sync", "fchmod"];
    let is_pathless = |line: &&str| pathless.iter().any(|call| line.contains(call));
    assert_eq!((writes, trace.lines().find(is_pathless)), (vec![], None));
    figure(53, "a read-only mount: refused for changes, 1,000 hits of 1,000 for reading, 0 calls that write");
}

fn only_read(role: &Role) {
    let cache = roomy(&role.dir).read_only().open().unwrap();
    (0..1_000).for_each(|key| assert_eq!(cache.get(&key), Some(value(key, 1, 500))));
    assert!(matches!(cache.insert(1, value(1, 2, 500)), Err(Error::ReadOnly)));
    cache.flush().unwrap();
    cache.close().unwrap();
}

/// Line 54: 1,600 segments, and 64 descriptors for everything.
#[test]
fn few_descriptors() {
    for manner in ["", ", strictly"] {
        let dir = TempDir::new();
        let mut open_max = 0;
        // In the second process, none of the first one's files waits to be closed.
        for role in ["many segments", "no descriptors"] {
            let role = format!("{role}{manner}");
            let Some(child) = start_under(&["prlimit", "--nofile=64"], &role, &dir.cache()) else { return };
            let reports = child.reports().unwrap_or_else(|| panic!("{role}: it failed"));
            open_max = open_max.max(reports.iter().map(|report| report.key).max().unwrap());
        }
        let what = "1,600 segments under a limit of 64 descriptors";
        figure(54, &format!("{what}{manner}: {open_max} open, every entry read"));
    }
}

struct ManySegments<'a> {
    role: &'a Role,
    reporter: Reporter,
    mode: ReadMode,
}

impl ManySegments<'_> {
    const ENTRIES: u64 = 6_600;

    fn new(role: &Role, mode: ReadMode) -> ManySegments<'_> {
        ManySegments { role, reporter: role.reporter(), mode }
    }

    fn fill(&self) {
        let cache = self.open(64);
        (0..Self::ENTRIES).for_each(|key| cache.insert(key, value(key, 1, 15_000)).unwrap());
        cache.flush().unwrap();
        let segments = fs::read_dir(&self.role.dir)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("seg-"));
        assert!(segments.count() >= 1_600, "too few segments");
        self.read_all(&cache);
        drop(cache);
        self.read_all(&self.open(64));
    }

    /// Others take what there is: what cannot be read meanwhile is missed, and not forgotten.
    fn lack_descriptors(&self) {
        // The hottest of the last process are read back at once. So few lie in fewer files than may be open.
        let cache = self.open(4);
        let taken: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        let missed = (0..Self::ENTRIES).filter(|key| cache.get(key).is_none()).count();
        let is_strict = self.mode == ReadMode::Strict;
        assert_eq!(missed > 0, is_strict, "{missed} missed, {} descriptors taken", taken.len());
        drop(taken);
        self.read_all(&cache);
    }

    fn open(&self, ram_entries: u64) -> TestCache {
        let builder: Builder<u64, Vec<u8>> = Cache::builder(&self.role.dir).ram_entries(ram_entries);
        let builder = builder.segment_size(64 * KIB).disk(200 * MIB).admission(Admission::All);
        builder.read_mode(self.mode).open().unwrap()
    }

    /// In their order, and then far from each other.
    fn read_all(&self, cache: &TestCache) {
        let scattered = (0..Self::ENTRIES).map(|step| step * 2_003 % Self::ENTRIES);
        for key in (0..Self::ENTRIES).chain(scattered) {
            assert_eq!(value::version(key, &cache.get(&key).unwrap()), 1);
        }
        self.reporter.report(Kind::Alive, fs::read_dir("/proc/self/fd").unwrap().count() as u64, 0);
    }
}

/// A control group, and a log that is many times what it may use.
struct SmallMemory {
    group: u64,
    ram: u64,
    disk: u64,
}

impl SmallMemory {
    /// The line's own figures, where there is time to fill such a log and to use it for a minute.
    fn chosen() -> SmallMemory {
        if cases(1) < 15 {
            SmallMemory { group: 96 * MIB, ram: 24 * MIB, disk: 256 * MIB }
        } else {
            SmallMemory { group: 256 * MIB, ram: 128 * MIB, disk: 1024 * MIB }
        }
    }
}

/// Line 55: the log's pages are the kernel's to drop.
#[test]
fn a_small_control_group() {
    let SmallMemory { group: group_bytes, ram, disk } = SmallMemory::chosen();
    let Some(group) = Group::of_memory(group_bytes) else { return };
    let dir = TempDir::new();
    let Some(child) = group.start("child", "small memory", &dir.cache(), 0) else { return };
    let reports = child.reports().expect("it was killed, or failed");
    let own = reports.iter().map(|report| report.key).max().unwrap();
    let mib = |bytes: u64| bytes / MIB;
    figure(
        55,
        &format!(
            "a log of {} MiB in {} MiB: not killed, {} MiB of its own, the budget is {} MiB",
            mib(disk),
            mib(group_bytes),
            mib(own),
            mib(ram)
        ),
    );
    // A process without a cache has a few MiB, too.
    assert!(own < ram + ram / 10 + 4 * MIB, "{own} anonymous bytes, where the budget is {ram}");
}

fn use_small_memory(role: &Role) {
    let SmallMemory { ram, disk, .. } = SmallMemory::chosen();
    let reporter = role.reporter();
    let builder: Builder<u64, Vec<u8>> = Cache::builder(&role.dir).ram(ram).segment_size(8 * MIB);
    let cache = builder.disk(disk).admission(Admission::All).open().unwrap();
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 55));
    // Half more than the log has room for.
    let (value_bytes, keys) = (4_000, disk * 3 / 2 / 4_000);
    let end = Instant::now() + 4 * SECOND * cases(1) as u32;
    while Instant::now() < end || cache.stats().reclaimed == 0 {
        for _ in 0..1_000 {
            let key = random.below(keys);
            match cache.get(&key) {
                Some(found) => assert_eq!(value::version(key, &found), 1),
                None => cache.insert(key, value(key, 1, value_bytes)).unwrap(),
            }
        }
        reporter.report(Kind::Alive, machine::anonymous_bytes(), 0);
    }
}
