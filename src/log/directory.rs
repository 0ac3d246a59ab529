//! The names in a cache's directory, and the lock on it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::layout::{LOCK_TEXT, is_zero};
use crate::{
    error::Error,
    io::{Io, IoFile, OpenMode, is_shortage},
    location::SegmentId,
    sync::Mutex,
};

const LOCK: &str = "LOCK";
const STATE: &str = "STATE";
const SNAPSHOT: &str = "index.snap";
const SNAPSHOT_TEMPORARY: &str = "index.tmp";
/// How many damaged segments are kept for whoever wants to know what happened.
const QUARANTINE_MAX: usize = 4;

/// A directory that is ours and locked. Files that have none of our names are never touched.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) io: Arc<dyn Io>,
    pub(crate) path: PathBuf,
    /// LOCK's device and inode: a copied directory has others.
    pub(crate) identity: (u64, u64),
    /// Holds the lock until it is dropped. The mutex guards nothing but the moment of release.
    lock: Mutex<Option<Arc<dyn IoFile>>>,
}

/// One of our files, LOCK and STATE aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(SegmentId),
    Quarantined(SegmentId),
    Journal(u32),
    Snapshot,
    Temporary,
}

impl Directory {
    /// Makes the directory if need be, and locks it.
    pub(crate) fn enter(io: Arc<dyn Io>, path: PathBuf) -> Result<Directory, Error> {
        io.create_dir(&path).map_err(|error| unusable(&path, error))?;
        let names = io.list(&path).map_err(|error| failed("listing", &path, error))?;
        let lock_path = path.join(LOCK);
        if !names.iter().any(|name| name == LOCK) {
            if !names.is_empty() {
                return Err(Error::NotACache { dir: path });
            }
            match io.open(&lock_path, OpenMode::CreateNew) {
                // Another process was faster; below, one of the two gets the lock.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("creating", &lock_path, error)),
                Ok(_) => {}
            }
        }
        let lock = io.open(&lock_path, OpenMode::Write).map_err(|error| unusable(&lock_path, error))?;
        if !lock.try_lock().map_err(|error| failed("locking", &lock_path, error))? {
            return Err(Error::Locked { dir: path });
        }
        // Whoever put other files here had made LOCK durable first.
        let is_used = names.len() > 1;
        claim(&*io, &path, &*lock, is_used)?;
        let identity = lock.identity().map_err(|error| failed("looking at", &lock_path, error))?;
        Ok(Directory { io, path, identity, lock: Mutex::new(Some(lock)) })
    }

    /// Locks a directory that other caches have left, against those that would change it; changes nothing.
    pub(crate) fn visit(io: Arc<dyn Io>, path: PathBuf) -> Result<Directory, Error> {
        io.check_dir(&path).map_err(|error| unusable(&path, error))?;
        let lock_path = path.join(LOCK);
        let lock = match io.open(&lock_path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotACache { dir: path });
            }
            opened => opened.map_err(|error| unusable(&lock_path, error))?,
        };
        if !lock.try_lock_shared().map_err(|error| failed("locking", &lock_path, error))? {
            return Err(Error::Locked { dir: path });
        }
        let (text, len) = read_text(&*lock).map_err(|error| failed("reading", &lock_path, error))?;
        if !is_whole(&text, len) {
            return Err(Error::NotACache { dir: path });
        }
        let identity = lock.identity().map_err(|error| failed("looking at", &lock_path, error))?;
        Ok(Directory { io, path, identity, lock: Mutex::new(Some(lock)) })
    }

    /// Lets another cache have the directory.
    pub(crate) fn release(&self) {
        let Some(lock) = self.lock.lock().take() else { return };
        if let Err(error) = lock.unlock() {
            // The file is closed all the same, which frees the lock unless a fork holds it.
            tracing::debug!(%error, dir = %self.path.display(), "the lock was not given back");
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path.join(STATE)
    }

    pub(crate) fn snapshot(&self) -> PathBuf {
        self.path.join(SNAPSHOT)
    }

    pub(crate) fn snapshot_temporary(&self) -> PathBuf {
        self.path.join(SNAPSHOT_TEMPORARY)
    }

    pub(crate) fn segment(&self, id: SegmentId) -> PathBuf {
        self.path.join(format!("seg-{:08x}.log", id.get()))
    }

    fn quarantined(&self, id: SegmentId) -> PathBuf {
        self.path.join(format!("seg-{:08x}.bad", id.get()))
    }

    pub(crate) fn journal(&self, number: u32) -> PathBuf {
        self.path.join(format!("inv-{number:08x}.log"))
    }

    pub(crate) fn path_of(&self, name: Name) -> PathBuf {
        match name {
            Name::Segment(id) => self.segment(id),
            Name::Quarantined(id) => self.quarantined(id),
            Name::Journal(number) => self.journal(number),
            Name::Snapshot => self.snapshot(),
            Name::Temporary => self.snapshot_temporary(),
        }
    }

    /// Our files, LOCK and STATE apart, in no order.
    pub(crate) fn names(&self) -> Result<Vec<Name>, Error> {
        let names = self.io.list(&self.path).map_err(|error| failed("listing", &self.path, error))?;
        Ok(names.iter().filter_map(|name| parse(name)).collect())
    }

    /// Opens a file for reading. `None` if it cannot be: it is not there, or not what it should be. An error is
    /// the process's, which has no descriptors left; it says nothing about the file.
    pub(crate) fn open(&self, path: &Path) -> io::Result<Option<Arc<dyn IoFile>>> {
        match self.io.open(path, OpenMode::Read) {
            Err(error) if is_shortage(&error) => Err(error),
            opened => Ok(opened.ok()),
        }
    }

    /// Moves a damaged segment out of the log's sight and forgets the oldest ones kept that way.
    pub(crate) fn quarantine(&self, id: SegmentId) -> io::Result<()> {
        let (from, to) = (self.segment(id), self.quarantined(id));
        self.io.rename(&from, &to).or_else(|_| self.io.unlink(&from))?;
        let mut kept: Vec<PathBuf> = self
            .io
            .list(&self.path)?
            .iter()
            .filter_map(|name| parse(name))
            .filter(|name| matches!(name, Name::Quarantined(_)))
            .map(|name| self.path_of(name))
            .collect();
        // Fixed-width numbers: the order of names is that of ids.
        kept.sort_unstable();
        for path in kept.iter().rev().skip(QUARANTINE_MAX) {
            self.io.unlink(path)?;
        }
        Ok(())
    }

    /// Makes names created, renamed and removed durable.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.io.sync_dir(&self.path).map_err(|error| failed("syncing", &self.path, error))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.release();
    }
}

/// Checks, with the lock held, that LOCK is ours, or makes it so in a directory that has nothing
/// else: only whoever holds the lock writes its text. Where other files were seen, it is durable.
fn claim(io: &dyn Io, dir: &Path, lock: &dyn IoFile, is_used: bool) -> Result<(), Error> {
    let path = dir.join(LOCK);
    let (text, len) = read_text(lock).map_err(|error| failed("reading", &path, error))?;
    let is_whole = is_whole(&text, len);
    if is_whole && is_used {
        return Ok(());
    }
    let names = io.list(dir).map_err(|error| failed("listing", dir, error))?;
    if is_whole && names.len() > 1 {
        // They came while this one waited for the lock.
        return Ok(());
    }
    // A loss of power may have kept the length and not the text.
    let is_begun = LOCK_TEXT.starts_with(&text) || is_zero(&text);
    if names.len() != 1 || text.len() as u64 != len || !is_begun {
        return Err(Error::NotACache { dir: dir.to_owned() });
    }
    // Durable before the directory has anything else: without it, nobody would know whose that is. So
    // also where it is whole, but perhaps by a process that was killed before its sync.
    let written = lock.write_all_at(LOCK_TEXT, 0).and_then(|()| lock.sync());
    written.and_then(|()| io.sync_dir(dir)).map_err(|error| failed("writing", &path, error))
}

/// LOCK's bytes, as many of them as are ours, and its length.
fn read_text(lock: &dyn IoFile) -> io::Result<(Vec<u8>, u64)> {
    let len = lock.file_len()?;
    let mut text = vec![0; len.min(LOCK_TEXT.len() as u64) as usize];
    lock.read_exact_at(&mut text, 0)?;
    Ok((text, len))
}

fn is_whole(text: &[u8], len: u64) -> bool {
    text == LOCK_TEXT && len == LOCK_TEXT.len() as u64
}

fn parse(name: &str) -> Option<Name> {
    match name {
        SNAPSHOT => return Some(Name::Snapshot),
        SNAPSHOT_TEMPORARY => return Some(Name::Temporary),
        _ => {}
    }
    let number = |digits: &str| {
        let lower = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (digits.len() == 8 && lower).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    if let Some(rest) = name.strip_prefix("inv-") {
        return Some(Name::Journal(number(rest.strip_suffix(".log")?)?));
    }
    let (digits, suffix) = name.strip_prefix("seg-")?.split_once('.')?;
    let id = SegmentId::new(number(digits)?)?;
    match suffix {
        "log" => Some(Name::Segment(id)),
        "bad" => Some(Name::Quarantined(id)),
        _ => None,
    }
}

/// An error without an errno is a refusal of our own, with a reason to tell.
fn unusable(path: &Path, error: io::Error) -> Error {
    match error.raw_os_error() {
        None if !is_shortage(&error) => Error::Unusable { path: path.to_owned(), reason: error.to_string() },
        _ => failed("opening", path, error),
    }
}

pub(crate) fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

/// Whether what has failed is the disk's doing: for want of descriptors it was not even tried.
pub(crate) fn was_tried(error: &Error) -> bool {
    !matches!(error, Error::Io { source, .. } if is_shortage(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_parse() {
        assert_eq!(parse("seg-0000001f.log"), Some(Name::Segment(SegmentId::new(31).unwrap())));
        assert_eq!(parse("seg-0000001f.bad"), Some(Name::Quarantined(SegmentId::new(31).unwrap())));
        assert_eq!(parse("inv-0000000a.log"), Some(Name::Journal(10)));
        for name in
            ["seg-1f.log", "seg-0000001F.log", "seg-+000001f.log", "seg-ffffffff.log", "x", "seg-0000001f"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
