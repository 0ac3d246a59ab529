//! A disk that fails on demand, for tests: the real one behind switches.

use std::{
    io::{self, ErrorKind},
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{Disk, Io, IoFile, Map, OpenMode};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering::Relaxed};

/// A `Disk` that any thread can make fail, and whose boot and clocks a test sets.
#[derive(Clone, Debug, Default)]
pub struct FaultDisk {
    faults: Arc<Faults>,
}

/// The switches. Counters and flags are Relaxed: a test that needs an order makes one.
#[derive(Debug, Default)]
struct Faults {
    writes: Mutex<Writes>,
    fail_reads: Mutex<Option<ErrorKind>>,
    fail_sync: Mutex<Option<ErrorKind>>,
    fail_unlink: Mutex<Option<ErrorKind>>,
    fail_rename: Mutex<Option<ErrorKind>>,
    fail_map: AtomicBool,
    skip_syncs: AtomicBool,
    boot_id: Mutex<Option<[u8; 16]>>,
    advanced: Mutex<Duration>,
    wall_time: Mutex<Option<Duration>>,
    reads: AtomicU64,
    syncs: AtomicU64,
    unlinks: AtomicU64,
}

#[derive(Debug, Default)]
struct Writes {
    count: u64,
    fail_all: Option<ErrorKind>,
    /// Which one, how, and whether half of it happens.
    fail_at: Vec<(u64, ErrorKind, bool)>,
}

impl FaultDisk {
    /// A disk without faults.
    pub fn new() -> FaultDisk {
        FaultDisk::default()
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
        *self.faults.fail_sync.lock() = kind;
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
        self.faults.syncs.load(Relaxed)
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
    fn sync(&self) -> io::Result<bool> {
        self.syncs.fetch_add(1, Relaxed);
        fail(&self.fail_sync)?;
        Ok(!self.skip_syncs.load(Relaxed))
    }
}

fn fail(switch: &Mutex<Option<ErrorKind>>) -> io::Result<()> {
    match *switch.lock() {
        Some(kind) => Err(kind.into()),
        None => Ok(()),
    }
}

impl Io for FaultDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn IoFile>> {
        if mode == OpenMode::CreateNew {
            self.faults.whole_write()?;
        }
        Ok(Arc::new(FaultFile { file: Disk.open(path, mode)?, faults: Arc::clone(&self.faults) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fail(&self.faults.fail_rename)?;
        Disk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.faults.unlinks.fetch_add(1, Relaxed);
        fail(&self.faults.fail_unlink)?;
        Disk.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.faults.sync()? { Disk.sync_dir(dir) } else { Ok(()) }
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        self.faults.boot_id.lock().or_else(|| Disk.boot_id())
    }

    fn boot_time(&self) -> Duration {
        Disk.boot_time() + *self.faults.advanced.lock()
    }

    fn wall_time(&self) -> Duration {
        self.faults.wall_time.lock().unwrap_or_else(|| Disk.wall_time())
    }
}

#[derive(Debug)]
struct FaultFile {
    file: Arc<dyn IoFile>,
    faults: Arc<Faults>,
}

impl IoFile for FaultFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.faults.write() {
            Ok(()) => self.file.write_all_at(bytes, offset),
            Err((error, torn)) => {
                if torn {
                    self.file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                }
                Err(error)
            }
        }
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.faults.reads.fetch_add(1, Relaxed);
        fail(&self.faults.fail_reads)?;
        self.file.read_exact_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.faults.whole_write()?;
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.whole_write()?;
        self.file.set_len(len)
    }

    fn file_len(&self) -> io::Result<u64> {
        self.file.file_len()
    }

    fn sync(&self) -> io::Result<()> {
        if self.faults.sync()? { self.file.sync() } else { Ok(()) }
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

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        self.file.identity()
    }
}
