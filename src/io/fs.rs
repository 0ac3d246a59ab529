//! The real disk: `std::fs`, and rustix for what std has no word for.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::OFlags,
    io::Errno,
    process::{Resource, geteuid, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::{Io, IoFile, Map, OpenMode};

/// The machine's file systems and clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk;

#[derive(Debug)]
struct DiskFile(File);

impl Io for Disk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn IoFile>> {
        // NONBLOCK: to open a FIFO for reading would wait for its writer, and only an open file
        // can be asked what it is. It means nothing to a regular file.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = OpenOptions::new()
            .read(true)
            .write(mode != OpenMode::Read)
            .create_new(mode == OpenMode::CreateNew)
            .mode(0o600)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(not_opened)?;
        check_file(&file.metadata()?)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.check_dir(path)
    }

    fn check_dir(&self, path: &Path) -> io::Result<()> {
        check_dir(&fs::symlink_metadata(path)?)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is none of ours, and its lossy form is none either.
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir).map_err(not_opened)?.sync_all()
    }

    fn boot_id(&self) -> io::Result<Option<[u8; 16]>> {
        boot_id()
    }

    fn boot_time(&self) -> Duration {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: ClockId = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: ClockId = ClockId::Monotonic;
        let time = clock_gettime(CLOCK);
        Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
    }

    fn wall_time(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

impl IoFile for DiskFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        check_limit(offset.saturating_add(bytes.len() as u64))?;
        self.0.write_all_at(bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        check_limit(len)?;
        match reserve(&self.0, len) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.0.set_len(len),
            done => done,
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        check_limit(len)?;
        self.0.set_len(len)
    }

    fn file_len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn map(&self, len: usize) -> io::Result<Map> {
        Map::new(&self.0, len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        was_taken(self.0.try_lock())
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        was_taken(self.0.try_lock_shared())
    }

    fn unlock(&self) -> io::Result<()> {
        self.0.unlock()
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.0.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

fn was_taken(lock: Result<(), TryLockError>) -> io::Result<bool> {
    match lock {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A file that is a device, or another user's, or has a second name elsewhere, was put there by
/// somebody who wants us to write or read something else.
fn check_file(metadata: &Metadata) -> io::Result<()> {
    if !metadata.is_file() {
        return Err(refused("not a regular file"));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(refused("owned by another user"));
    }
    if metadata.nlink() > 1 {
        return Err(refused("has another name (a hard link)"));
    }
    Ok(())
}

fn check_dir(metadata: &Metadata) -> io::Result<()> {
    if !metadata.is_dir() {
        return Err(refused("not a directory"));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(refused("owned by another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(refused("writable by group or others"));
    }
    Ok(())
}

/// An error of our own making: it has no errno, which tells it from the system's.
fn refused(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

/// A write behind the process's file size limit would not fail but kill it, by SIGXFSZ.
fn check_limit(end: u64) -> io::Result<()> {
    static LIMIT: OnceLock<u64> = OnceLock::new();
    let limit = *LIMIT.get_or_init(|| getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX));
    if end > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(())
}

/// How many files a cache may have open where it is free to choose: a quarter of what the process may have, but
/// not without end.
pub(crate) fn open_files_max() -> usize {
    const MANY: u64 = 1024;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (limit / 4).clamp(1, MANY) as usize
}

/// Whether a file could not be opened for want of descriptors, of the process or the system, or of the kernel's memory:
/// [`not_opened`] has told that apart from what another call may mean by it.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    match Errno::from_io_error(error) {
        Some(errno) => matches!(errno, Errno::MFILE | Errno::NFILE),
        None => error.kind() == io::ErrorKind::OutOfMemory,
    }
}

/// Why a file was not opened. Want of memory loses its errno: of a sync that would mean that pages are lost.
pub(super) fn not_opened(error: io::Error) -> io::Error {
    if Errno::from_io_error(&error) == Some(Errno::NOMEM) { io::ErrorKind::OutOfMemory.into() } else { error }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_vendor = "apple"))]
fn reserve(file: &File, len: u64) -> io::Result<()> {
    use rustix::{
        fs::{FallocateFlags, fallocate},
        io::retry_on_intr,
    };
    retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, len)).map_err(|errno| match errno {
        // Linux, and what others answer for it.
        Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => io::ErrorKind::Unsupported.into(),
        errno => errno.into(),
    })
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_vendor = "apple")))]
fn reserve(_: &File, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn boot_id() -> io::Result<Option<[u8; 16]>> {
    match fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(not_opened) {
        Ok(text) => Ok(parse_uuid(&text)),
        Err(error) if is_shortage(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn boot_id() -> io::Result<Option<[u8; 16]>> {
    Ok(None)
}

#[cfg(any(target_os = "linux", target_os = "android", test))]
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|&c| c != '-').collect();
    match digits.len() {
        32 => Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_is_not_a_private_regular_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        drop(Disk.open(&path("plain"), OpenMode::CreateNew).unwrap());
        assert_eq!(fs::metadata(path("plain")).unwrap().mode() & 0o777, 0o600);
        assert!(Disk.open(&path("plain"), OpenMode::CreateNew).is_err());
        assert!(Disk.open(&path("plain"), OpenMode::Write).is_ok());

        symlink(path("plain"), path("link")).unwrap();
        assert!(Disk.open(&path("link"), OpenMode::Read).is_err());
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(Disk.open(&path("fifo"), OpenMode::Read).is_err());
        fs::hard_link(path("plain"), path("twin")).unwrap();
        assert!(Disk.open(&path("plain"), OpenMode::Write).is_err());
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        Disk.create_dir(&path).unwrap();
        Disk.create_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(Disk.create_dir(&path).is_err());
        symlink(dir.path(), dir.path().join("link")).unwrap();
        assert!(Disk.create_dir(&dir.path().join("link")).is_err());
    }

    #[test]
    fn uuids_parse() {
        let id = parse_uuid("01020304-0506-0708-090a-0b0c0d0e0f10\n").unwrap();
        assert_eq!((id[0], id[15]), (1, 16));
        assert_eq!(parse_uuid("01020304"), None);
        assert_eq!(parse_uuid("zz020304-0506-0708-090a-0b0c0d0e0f10"), None);
    }
}
