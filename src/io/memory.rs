//! A disk in memory, for fuzzing: fast, without a trace, with a clock that tests move, and with a
//! copy at any moment, which is what a kill at that moment would leave.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{Io, IoFile, Map, OpenMode, content::Content};
use crate::sync::{AtomicBool, Mutex, Ordering::Relaxed};

/// Files in memory. A clone is another handle to the same files.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<Files>>,
}

/// The files by name, and the clock. Every change of a file's bytes happens under its lock, so
/// that a copy is of one moment.
#[derive(Debug, Default)]
struct Files {
    names: BTreeMap<PathBuf, Arc<MemoryFile>>,
    next_inode: u64,
    time: Duration,
    boots: u64,
    keeps_segments: bool,
}

#[derive(Debug)]
struct MemoryFile {
    inode: u64,
    content: Mutex<Content>,
    /// Guards itself alone.
    lock: Mutex<Lock>,
}

/// Who holds a file's lock.
#[derive(Debug, Default)]
enum Lock {
    #[default]
    Free,
    Shared(u32),
    Exclusive,
}

impl MemoryDisk {
    /// No files; the clock stands still.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Another disk with what is on this one now, as the kernel has it after a SIGKILL: every
    /// write that returned is there, and nobody holds a lock.
    pub fn after_kill(&self) -> MemoryDisk {
        let files = self.files.lock();
        let copy = |(path, file): (&PathBuf, &Arc<MemoryFile>)| {
            let content = file.content.lock().clone();
            (path.clone(), MemoryFile::new(file.inode, content))
        };
        let names = files.names.iter().map(copy).collect();
        MemoryDisk { files: Arc::new(Mutex::new(Files { names, ..*files })) }
    }

    /// Another disk with these names, inodes and contents in place of its own.
    pub(super) fn with_files(&self, files: impl IntoIterator<Item = (PathBuf, u64, Content)>) -> MemoryDisk {
        let own = self.files.lock();
        let mut next_inode = own.next_inode;
        let file = |(path, inode, content): (PathBuf, u64, Content)| {
            next_inode = next_inode.max(inode);
            (path, MemoryFile::new(inode, content))
        };
        let names = files.into_iter().map(file).collect();
        MemoryDisk { files: Arc::new(Mutex::new(Files { names, next_inode, ..*own })) }
    }

    /// Every file's name, inode and content.
    pub(super) fn inodes(&self) -> Vec<(PathBuf, u64, Content)> {
        let files = self.files.lock();
        let copy = |(path, file): (&PathBuf, &Arc<MemoryFile>)| {
            (path.clone(), file.inode, file.content.lock().clone())
        };
        files.names.iter().map(copy).collect()
    }

    /// Is another boot of the machine from now on.
    pub fn reboot(&self) {
        self.files.lock().boots += 1;
    }

    /// Moves the clock on; it stands still otherwise.
    pub fn advance_clock(&self, by: Duration) {
        self.files.lock().time += by;
    }

    /// Sets the clock.
    pub fn set_clock(&self, time: Duration) {
        self.files.lock().time = time;
    }

    /// Whether to refuse to unlink segments.
    pub fn keep_segments(&self, keep: bool) {
        self.files.lock().keeps_segments = keep;
    }

    /// Puts a file there, as another program would.
    pub fn put(&self, path: impl Into<PathBuf>, bytes: Vec<u8>) {
        self.files.lock().create(path.into(), bytes.into());
    }

    /// Replaces a file's bytes, and nothing else of it.
    pub fn overwrite(&self, path: impl AsRef<Path>, bytes: Vec<u8>) {
        let files = self.files.lock();
        *files.names[path.as_ref()].content.lock() = bytes.into();
    }

    /// Removes a file, whatever `keep_segments` says.
    pub fn remove(&self, path: impl AsRef<Path>) {
        self.files.lock().names.remove(path.as_ref());
    }

    /// A file's bytes.
    pub fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        Some(self.files.lock().names.get(path.as_ref())?.content.lock().to_vec())
    }

    /// Every file's name and bytes.
    pub fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.files.lock();
        files.names.iter().map(|(path, file)| (path.clone(), file.content.lock().to_vec())).collect()
    }
}

impl MemoryFile {
    fn new(inode: u64, content: Content) -> Arc<MemoryFile> {
        Arc::new(MemoryFile { inode, content: Mutex::new(content), lock: Mutex::default() })
    }
}

impl Files {
    fn create(&mut self, path: PathBuf, content: Content) -> Arc<MemoryFile> {
        self.next_inode += 1;
        let file = MemoryFile::new(self.next_inode, content);
        self.names.insert(path, Arc::clone(&file));
        file
    }
}

impl Io for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn IoFile>> {
        let mut files = self.files.lock();
        let file = match (files.names.get(path), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
            (None, OpenMode::CreateNew) => files.create(path.to_owned(), Content::default()),
            (Some(file), _) => Arc::clone(file),
            (None, _) => return Err(ErrorKind::NotFound.into()),
        };
        drop(files);
        Ok(Arc::new(Handle { disk: self.clone(), file, holds_lock: AtomicBool::new(false) }))
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn check_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = self.files.lock();
        let inside = files.names.keys().filter_map(|path| path.strip_prefix(dir).ok());
        Ok(inside.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.names.remove(from).ok_or(ErrorKind::NotFound)?;
        files.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut files = self.files.lock();
        let is_segment = path.extension().is_some_and(|extension| extension == "log")
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seg-"));
        if is_segment && files.keeps_segments {
            return Err(ErrorKind::PermissionDenied.into());
        }
        files.names.remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn boot_id(&self) -> io::Result<Option<[u8; 16]>> {
        let boots = self.files.lock().boots;
        Ok(Some((u128::from_be_bytes(*b"a boot in memory") + u128::from(boots)).to_be_bytes()))
    }

    fn boot_time(&self) -> Duration {
        self.files.lock().time
    }

    /// A million seconds ahead of the time since boot, so that no expiry is 0.
    fn wall_time(&self) -> Duration {
        self.boot_time() + Duration::from_secs(1_000_000)
    }
}

/// An open file, and the lock that it may hold on it.
#[derive(Debug)]
struct Handle {
    disk: MemoryDisk,
    file: Arc<MemoryFile>,
    /// Relaxed: written by the one who took the lock.
    holds_lock: AtomicBool,
}

impl Handle {
    fn change(&self, change: impl FnOnce(&mut Content)) {
        let _moment = self.disk.files.lock();
        change(&mut self.file.content.lock());
    }

    /// Whether the lock was free enough for `taken` to say what it is then.
    fn take_lock(&self, taken: impl FnOnce(&Lock) -> Option<Lock>) -> bool {
        let mut lock = self.file.lock.lock();
        let Some(taken) = taken(&lock) else { return false };
        *lock = taken;
        self.holds_lock.store(true, Relaxed);
        true
    }
}

impl IoFile for Handle {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        self.change(|content| content.write(bytes, start));
        Ok(())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        if self.file.content.lock().read(bytes, at) { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.change(|content| content.set_len(content.len().max(len)));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.change(|content| content.set_len(len));
        Ok(())
    }

    fn file_len(&self) -> io::Result<u64> {
        Ok(self.file.content.lock().len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// There is no file to map; the log then reads through the handle.
    fn map(&self, _: usize) -> io::Result<Map> {
        Err(ErrorKind::Unsupported.into())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(self.take_lock(|lock| match lock {
            Lock::Free => Some(Lock::Exclusive),
            Lock::Shared(_) | Lock::Exclusive => None,
        }))
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        Ok(self.take_lock(|lock| match lock {
            Lock::Free => Some(Lock::Shared(1)),
            Lock::Shared(holders) => Some(Lock::Shared(holders + 1)),
            Lock::Exclusive => None,
        }))
    }

    fn unlock(&self) -> io::Result<()> {
        if self.holds_lock.swap(false, Relaxed) {
            let mut lock = self.file.lock.lock();
            *lock = match *lock {
                Lock::Shared(holders @ 2..) => Lock::Shared(holders - 1),
                _ => Lock::Free,
            };
        }
        Ok(())
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok((0, self.file.inode))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_leaves_what_was_written_and_no_lock() {
        let disk = MemoryDisk::new();
        let path = Path::new("dir/file");
        let file = disk.open(path, OpenMode::CreateNew).unwrap();
        file.write_all_at(b"before", 2).unwrap();
        assert!(file.try_lock().unwrap());
        assert!(!disk.open(path, OpenMode::Write).unwrap().try_lock().unwrap());
        assert!(!disk.open(path, OpenMode::Read).unwrap().try_lock_shared().unwrap());

        let killed = disk.after_kill();
        file.write_all_at(b"after", 0).unwrap();
        let found = killed.open(path, OpenMode::Write).unwrap();
        let mut bytes = [0; 8];
        found.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"\0\0before");
        assert!(found.read_exact_at(&mut bytes, 1).is_err());
        assert_eq!(found.identity().unwrap(), file.identity().unwrap());
        assert!(found.try_lock().unwrap());
        file.unlock().unwrap();
        assert!(disk.open(path, OpenMode::Write).unwrap().try_lock().unwrap());
    }

    #[test]
    fn a_shared_lock_is_for_all_who_share_it() {
        let disk = MemoryDisk::new();
        let path = Path::new("dir/file");
        let file = disk.open(path, OpenMode::CreateNew).unwrap();
        let readers = [(); 2].map(|()| disk.open(path, OpenMode::Read).unwrap());
        assert!(readers.iter().all(|reader| reader.try_lock_shared().unwrap()));
        assert!(!file.try_lock().unwrap());
        let [one, other] = readers;
        one.unlock().unwrap();
        assert!(!file.try_lock().unwrap());
        drop(other);
        assert!(file.try_lock().unwrap());
    }
}
