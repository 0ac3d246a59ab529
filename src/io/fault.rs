//! A disk that fails on demand, for tests: the real one, or another, behind switches.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use super::{
    Disk, Io, IoFile, Map, OpenMode,
    fs::{is_shortage, not_opened},
};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering::Relaxed};

/// What a kernel writes in one piece, whenever it ends the process.
const PAGE_BYTES: u64 = 4096;

/// A disk that any thread can make fail, and whose boot and clocks a test sets.
#[derive(Clone, Debug)]
pub struct FaultDisk {
    disk: Arc<dyn Io>,
    faults: Arc<Faults>,
}

/// Something that is asked of a disk and can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// To open a file that is there.
    Open,
    /// To create a file.
    Create,
    /// To read.
    Read,
    /// To write.
    Write,
    /// To reserve room.
    Allocate,
    /// To cut a file.
    SetLen,
    /// To sync a file.
    Sync,
    /// To sync the directory.
    SyncDir,
    /// To rename a file.
    Rename,
    /// To remove a file.
    Unlink,
}

impl Operation {
    /// Every one.
    pub const ALL: [Operation; 10] = [
        Operation::Open,
        Operation::Create,
        Operation::Read,
        Operation::Write,
        Operation::Allocate,
        Operation::SetLen,
        Operation::Sync,
        Operation::SyncDir,
        Operation::Rename,
        Operation::Unlink,
    ];
}

/// A moment of an operation, as a watcher is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// What is being done.
    pub operation: Operation,
    /// The file's name; the directory's is empty.
    pub file: &'a str,
    /// How far it is.
    pub side: Side,
    /// How many bytes are read or written; none by the other operations.
    pub bytes: usize,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It begins.
    Before,
    /// A write of several pages of which about half are in the file.
    Halfway,
    /// It has succeeded.
    After,
}

impl Default for FaultDisk {
    fn default() -> FaultDisk {
        FaultDisk::over(Arc::new(Disk))
    }
}

/// The switches. Counters and flags are Relaxed: a test that needs an order makes one.
#[derive(Debug, Default)]
struct Faults {
    writes: Mutex<Writes>,
    fail_reads: Mutex<Option<ErrorKind>>,
    /// Which files, by the beginning of their names, and how.
    fail_sync: Mutex<Option<(&'static str, ErrorKind)>>,
    fail_unlink: Mutex<Option<ErrorKind>>,
    fail_rename: Mutex<Option<ErrorKind>>,
    fail_map: AtomicBool,
    skip_syncs: AtomicBool,
    boot_id: Mutex<Option<[u8; 16]>>,
    advanced: Mutex<Duration>,
    wall_time: Mutex<Option<Duration>>,
    reads: AtomicU64,
    /// By the file's name; the directory's is empty.
    syncs: Mutex<BTreeMap<String, u64>>,
    sync_takes: Mutex<Duration>,
    unlinks: AtomicU64,
    nth: Mutex<Nth>,
    watcher: Mutex<Option<Watcher>>,
}

/// Called at each moment of each operation, on the thread that does it.
#[derive(Clone)]
struct Watcher(Arc<dyn Fn(Moment<'_>) + Send + Sync>);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// One fault at the nth of one operation.
#[derive(Debug, Default)]
struct Nth {
    done: BTreeMap<Operation, u64>,
    /// The operation, which of them, the errno, and whether half is done.
    fails: Option<(Operation, u64, i32, bool)>,
}

#[derive(Debug, Default)]
struct Writes {
    count: u64,
    fail_all: Option<ErrorKind>,
    /// Which one, how, and whether half of it happens.
    fail_at: Vec<(u64, ErrorKind, bool)>,
}

impl FaultDisk {
    /// The real disk, without faults so far.
    pub fn new() -> FaultDisk {
        FaultDisk::default()
    }

    /// Another disk, without faults so far.
    pub fn over(disk: Arc<dyn Io>) -> FaultDisk {
        FaultDisk { disk, faults: Arc::default() }
    }

    /// Fails the `n`th of these from now on, once; the next is the first. `half`: of a write, the first
    /// half of the bytes is on disk. In place of one set earlier.
    pub fn fail_nth(&self, operation: Operation, n: u64, errno: i32, half: bool) {
        *self.faults.nth.lock() = Nth { done: BTreeMap::new(), fails: Some((operation, n, errno, half)) };
    }

    /// Whether what `fail_nth` set has happened.
    pub fn has_failed(&self) -> bool {
        self.faults.nth.lock().fails.is_none()
    }

    /// Calls `watcher` at each moment of each operation, on the thread that does it and under whatever
    /// locks that holds; it may take its time, or end the process.
    /// Writes of several pages are made in two parts from then on.
    pub fn watch(&self, watcher: impl Fn(Moment<'_>) + Send + Sync + 'static) {
        *self.faults.watcher.lock() = Some(Watcher(Arc::new(watcher)));
    }

    /// Fails every write, allocation, change of length and creation from now on; `None` heals.
    pub fn fail_writes(&self, kind: Option<ErrorKind>) {
        self.faults.writes.lock().fail_all = kind;
    }

    /// Fails the `n`th of them from now on, once; the next is the first. Adds up.
    pub fn fail_nth_write(&self, n: u64, kind: ErrorKind) {
        self.fail_at(n, kind, false);
    }

    /// As [`FaultDisk::fail_nth_write`], with the first half of the bytes on disk.
    pub fn tear_nth_write(&self, n: u64, kind: ErrorKind) {
        self.fail_at(n, kind, true);
    }

    /// Fails every read of a file (not through a map).
    pub fn fail_reads(&self, kind: Option<ErrorKind>) {
        *self.faults.fail_reads.lock() = kind;
    }

    /// Fails every sync of a file or directory.
    pub fn fail_sync(&self, kind: Option<ErrorKind>) {
        *self.faults.fail_sync.lock() = kind.map(|kind| ("", kind));
    }

    /// Fails every sync of a file whose name begins so.
    pub fn fail_syncs_of(&self, prefix: &'static str, kind: ErrorKind) {
        *self.faults.fail_sync.lock() = Some((prefix, kind));
    }

    /// How long a sync takes beyond what the disk takes.
    pub fn slow_syncs(&self, by: Duration) {
        *self.faults.sync_takes.lock() = by;
    }

    /// Fails every unlink.
    pub fn fail_unlink(&self, kind: Option<ErrorKind>) {
        *self.faults.fail_unlink.lock() = kind;
    }

    /// Fails every rename.
    pub fn fail_rename(&self, kind: Option<ErrorKind>) {
        *self.faults.fail_rename.lock() = kind;
    }

    /// Refuses to map files, as some FUSE file systems do.
    pub fn fail_map(&self, fail: bool) {
        self.faults.fail_map.store(fail, Relaxed);
    }

    /// Only counts syncs, for tests in which no machine loses power.
    pub fn skip_syncs(&self, skip: bool) {
        self.faults.skip_syncs.store(skip, Relaxed);
    }

    /// Pretends that this is another boot of the machine.
    pub fn set_boot_id(&self, id: [u8; 16]) {
        *self.faults.boot_id.lock() = Some(id);
    }

    /// Moves the time since boot forward.
    pub fn advance_clock(&self, by: Duration) {
        *self.faults.advanced.lock() += by;
    }

    /// Sets the wall clock, which then stands still; `None` gives the real one back.
    pub fn set_wall_time(&self, time: Option<Duration>) {
        *self.faults.wall_time.lock() = time;
    }

    /// Writes, allocations, changes of length and creations so far, the failed ones included.
    pub fn writes(&self) -> u64 {
        self.faults.writes.lock().count
    }

    /// Reads so far (not through a map).
    pub fn reads(&self) -> u64 {
        self.faults.reads.load(Relaxed)
    }

    /// Syncs of files and directories so far.
    pub fn syncs(&self) -> u64 {
        self.faults.syncs.lock().values().sum()
    }

    /// Of each file, by its name.
    pub fn syncs_by_name(&self) -> BTreeMap<String, u64> {
        self.faults.syncs.lock().clone()
    }

    /// Unlinks so far.
    pub fn unlinks(&self) -> u64 {
        self.faults.unlinks.load(Relaxed)
    }

    fn fail_at(&self, n: u64, kind: ErrorKind, torn: bool) {
        let mut writes = self.faults.writes.lock();
        let at = writes.count + n;
        writes.fail_at.push((at, kind, torn));
    }
}

impl Faults {
    /// Counts a write. The error that it is to end in, and whether half of it happens before.
    fn write(&self) -> Result<(), (io::Error, bool)> {
        let mut writes = self.writes.lock();
        writes.count += 1;
        let count = writes.count;
        let once = writes.fail_at.iter().find(|(at, ..)| *at == count);
        match (once, writes.fail_all) {
            (Some(&(_, kind, torn)), _) => Err((kind.into(), torn)),
            (None, Some(kind)) => Err((kind.into(), false)),
            (None, None) => Ok(()),
        }
    }

    fn whole_write(&self) -> io::Result<()> {
        self.write().map_err(|(error, _)| error)
    }

    /// Counts a sync. Whether it is to be done.
    fn sync(&self, name: &str) -> io::Result<bool> {
        *self.syncs.lock().entry(name.to_owned()).or_default() += 1;
        thread::sleep(*self.sync_takes.lock());
        match *self.fail_sync.lock() {
            Some((prefix, kind)) if name.starts_with(prefix) => return Err(kind.into()),
            _ => {}
        }
        Ok(!self.skip_syncs.load(Relaxed))
    }

    /// Counts an operation. The error that it is to end in, and whether half of it happens before.
    fn nth(&self, operation: Operation) -> Result<(), (io::Error, bool)> {
        let mut nth = self.nth.lock();
        let done = nth.done.entry(operation).or_default();
        *done += 1;
        let done = *done;
        match nth.fails {
            Some((of, n, errno, half)) if of == operation && n == done => {
                nth.fails = None;
                Err((io::Error::from_raw_os_error(errno), half))
            }
            _ => Ok(()),
        }
    }

    fn whole_nth(&self, operation: Operation) -> io::Result<()> {
        self.nth(operation).map_err(|(error, _)| error)
    }

    /// Does it, with a word to the watcher before and, unless it fails, after.
    fn watched<R>(
        &self,
        operation: Operation,
        file: &str,
        bytes: usize,
        work: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        let watcher = self.watcher.lock().clone();
        let tell = |side| {
            if let Some(Watcher(watcher)) = &watcher {
                watcher(Moment { operation, file, side, bytes });
            }
        };
        tell(Side::Before);
        let done = work()?;
        tell(Side::After);
        Ok(done)
    }

    /// Writes in two parts, if somebody watches and there is a page's end between them: a process that is
    /// killed may leave the first of them, but never a part of a page.
    fn write_watched(&self, file: &FaultFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        let watcher = self.watcher.lock().clone();
        let middle = offset + bytes.len() as u64 / 2;
        let first_bytes = (middle / PAGE_BYTES * PAGE_BYTES).saturating_sub(offset) as usize;
        let Some(Watcher(watcher)) = watcher.filter(|_| first_bytes > 0) else {
            return file.file.write_all_at(bytes, offset);
        };
        let (first, second) = bytes.split_at(first_bytes);
        file.file.write_all_at(first, offset)?;
        let operation = Operation::Write;
        watcher(Moment { operation, file: &file.name, side: Side::Halfway, bytes: bytes.len() });
        file.file.write_all_at(second, offset + first.len() as u64)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn fail(switch: &Mutex<Option<ErrorKind>>) -> io::Result<()> {
    match *switch.lock() {
        Some(kind) => Err(kind.into()),
        None => Ok(()),
    }
}

impl Io for FaultDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn IoFile>> {
        let is_new = mode == OpenMode::CreateNew;
        let operation = if is_new { Operation::Create } else { Operation::Open };
        let name = file_name(path);
        let file = self.faults.watched(operation, &name, 0, || {
            if is_new {
                self.faults.whole_write()?;
            }
            self.faults.whole_nth(operation).map_err(not_opened)?;
            self.disk.open(path, mode)
        })?;
        Ok(Arc::new(FaultFile { file, name, faults: Arc::clone(&self.faults) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn check_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.check_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.watched(Operation::Rename, &file_name(from), 0, || {
            fail(&self.faults.fail_rename)?;
            self.faults.whole_nth(Operation::Rename)?;
            self.disk.rename(from, to)
        })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.faults.unlinks.fetch_add(1, Relaxed);
        self.faults.watched(Operation::Unlink, &file_name(path), 0, || {
            fail(&self.faults.fail_unlink)?;
            self.faults.whole_nth(Operation::Unlink)?;
            self.disk.unlink(path)
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.watched(Operation::SyncDir, "", 0, || {
            self.faults.whole_nth(Operation::SyncDir)?;
            if self.faults.sync("")? { self.disk.sync_dir(dir) } else { Ok(()) }
        })
    }

    fn boot_id(&self) -> io::Result<Option<[u8; 16]>> {
        // It is a file, which is opened.
        match self.faults.whole_nth(Operation::Open).map_err(not_opened) {
            Err(error) if is_shortage(&error) => return Err(error),
            Err(_) => return Ok(None),
            Ok(()) => {}
        }
        let set = *self.faults.boot_id.lock();
        if set.is_some() { Ok(set) } else { self.disk.boot_id() }
    }

    fn boot_time(&self) -> Duration {
        self.disk.boot_time() + *self.faults.advanced.lock()
    }

    fn wall_time(&self) -> Duration {
        self.faults.wall_time.lock().unwrap_or_else(|| self.disk.wall_time())
    }
}

#[derive(Debug)]
struct FaultFile {
    file: Arc<dyn IoFile>,
    name: String,
    faults: Arc<Faults>,
}

impl FaultFile {
    fn watched<R>(
        &self,
        operation: Operation,
        bytes: usize,
        work: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.faults.watched(operation, &self.name, bytes, work)
    }
}

impl IoFile for FaultFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.watched(Operation::Write, bytes.len(), || {
            match self.faults.write().and_then(|()| self.faults.nth(Operation::Write)) {
                Ok(()) => self.faults.write_watched(self, bytes, offset),
                Err((error, torn)) => {
                    if torn {
                        self.file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                    }
                    Err(error)
                }
            }
        })
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.faults.reads.fetch_add(1, Relaxed);
        self.watched(Operation::Read, bytes.len(), || {
            fail(&self.faults.fail_reads)?;
            self.faults.whole_nth(Operation::Read)?;
            self.file.read_exact_at(bytes, offset)
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.watched(Operation::Allocate, 0, || {
            self.faults.whole_write()?;
            self.faults.whole_nth(Operation::Allocate)?;
            self.file.allocate(len)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watched(Operation::SetLen, 0, || {
            self.faults.whole_write()?;
            self.faults.whole_nth(Operation::SetLen)?;
            self.file.set_len(len)
        })
    }

    fn file_len(&self) -> io::Result<u64> {
        self.file.file_len()
    }

    fn sync(&self) -> io::Result<()> {
        self.watched(Operation::Sync, 0, || {
            self.faults.whole_nth(Operation::Sync)?;
            if self.faults.sync(&self.name)? { self.file.sync() } else { Ok(()) }
        })
    }

    fn map(&self, len: usize) -> io::Result<Map> {
        if self.faults.fail_map.load(Relaxed) {
            return Err(ErrorKind::Unsupported.into());
        }
        self.file.map(len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        self.file.try_lock_shared()
    }

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        self.file.identity()
    }
}
