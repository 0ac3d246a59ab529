//! A disk in memory that records what is done to it and what was synced, so that tests can make of every
//! moment what a kill or a loss of power at that moment could leave.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{Io, IoFile, Map, OpenMode, content::Content, memory::MemoryDisk};
use crate::sync::Mutex;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// Files in memory, and the record of every change. A clone is another handle to the same.
#[derive(Clone, Debug)]
pub struct RecorderDisk {
    memory: MemoryDisk,
    /// What was durable when the record began.
    start: Arc<MemoryDisk>,
    /// Guards the order: a change of the memory and its entry here are one step.
    record: Arc<Mutex<Vec<Event>>>,
}

#[derive(Clone, Debug)]
enum Event {
    /// A file's bytes or length.
    File(u64, Change),
    Name(NameChange),
    /// A sync has returned that had begun when the record had so many events: what was done before is
    /// durable. `None` is the directory.
    Synced(Option<u64>, usize),
    Note(u64),
    /// A note of a life that is over.
    Nothing,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Arc<[u8]> },
    Len(usize),
    AtLeast(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

impl RecorderDisk {
    /// Goes on from a disk of which everything is durable.
    pub fn over(memory: MemoryDisk) -> RecorderDisk {
        let start = Arc::new(memory.after_kill());
        RecorderDisk { memory, start, record: Arc::default() }
    }

    /// The files themselves: their clock, and switches.
    pub fn memory(&self) -> &MemoryDisk {
        &self.memory
    }

    /// Puts a note into the record, for the test to know what had been acknowledged by then.
    pub fn note(&self, note: u64) {
        self.record.lock().push(Event::Note(note));
    }

    /// Goes on from what a kill when the record had so many events leaves: what was not synced then is not
    /// now either.
    pub fn after_kill(&self, events: usize) -> RecorderDisk {
        let mut replay = self.replay();
        while replay.at() < events && replay.advance().is_some() {}
        let is_change = |event: &Event| !matches!(event, Event::Note(_));
        let kept = replay.events[..replay.next].iter();
        // Syncs name places in the record, so these stay.
        let record =
            kept.map(|event| if is_change(event) { event.clone() } else { Event::Nothing }).collect();
        let start = Arc::clone(&self.start);
        RecorderDisk { memory: replay.after_kill(false), start, record: Arc::new(Mutex::new(record)) }
    }

    /// Goes through the record so far, from its beginning.
    pub fn replay(&self) -> Replay {
        Replay::new(&self.memory, &self.start, self.record.lock().clone())
    }

    fn change<R>(&self, event: Event, change: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let mut record = self.record.lock();
        let changed = change()?;
        record.push(event);
        Ok(changed)
    }

    fn sync(&self, what: Option<u64>) {
        let begun = self.record.lock().len();
        // What others do while a disk syncs may become durable or not.
        std::thread::yield_now();
        self.record.lock().push(Event::Synced(what, begun));
    }
}

impl Io for RecorderDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn IoFile>> {
        let mut record = self.record.lock();
        let file = self.memory.open(path, mode)?;
        let (_, inode) = file.identity()?;
        if mode == OpenMode::CreateNew {
            record.push(Event::Name(NameChange::Link(path.to_owned(), inode)));
        }
        drop(record);
        Ok(Arc::new(Handle { disk: self.clone(), file, inode }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.memory.create_dir(path)
    }

    fn check_dir(&self, path: &Path) -> io::Result<()> {
        self.memory.check_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.memory.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (_, inode) = self.memory.open(from, OpenMode::Read)?.identity()?;
        let event = Event::Name(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        self.change(event, || self.memory.rename(from, to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let event = Event::Name(NameChange::Unlink(path.to_owned()));
        self.change(event, || self.memory.unlink(path))
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.sync(None);
        Ok(())
    }

    fn boot_id(&self) -> io::Result<Option<[u8; 16]>> {
        self.memory.boot_id()
    }

    fn boot_time(&self) -> Duration {
        self.memory.boot_time()
    }

    fn wall_time(&self) -> Duration {
        self.memory.wall_time()
    }
}

#[derive(Debug)]
struct Handle {
    disk: RecorderDisk,
    file: Arc<dyn IoFile>,
    inode: u64,
}

impl Handle {
    fn change(&self, change: Change, apply: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.disk.change(Event::File(self.inode, change), apply)
    }
}

impl IoFile for Handle {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let write = Change::Write { offset: offset as usize, bytes: bytes.into() };
        self.change(write, || self.file.write_all_at(bytes, offset))
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(Change::AtLeast(len as usize), || self.file.allocate(len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len as usize), || self.file.set_len(len))
    }

    fn file_len(&self) -> io::Result<u64> {
        self.file.file_len()
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync(Some(self.inode));
        Ok(())
    }

    fn map(&self, len: usize) -> io::Result<Map> {
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

/// A record on its way from beginning to end: at each moment, what is durable and what is not yet.
#[derive(Clone, Debug)]
pub struct Replay {
    events: Vec<Event>,
    next: usize,
    files: BTreeMap<u64, File>,
    names: BTreeMap<PathBuf, u64>,
    /// Since the last sync of the directory, with each one's place in the record.
    unsynced_names: Vec<(usize, NameChange)>,
    /// Of its end: the clock that every image has, and its switches.
    memory: MemoryDisk,
}

/// What was done last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file's bytes or length have changed.
    Changed,
    /// A file was created, renamed or removed.
    Named,
    /// Something became durable.
    Synced,
    /// The test's own note.
    Note(u64),
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Content,
    unsynced: Vec<(usize, Change)>,
}

/// What a loss of power takes of that which is not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Everything,
    Nothing,
    /// All that was done later than this.
    Since(usize),
    /// Of each file and of the names all or nothing.
    Files,
    /// Of each sector all that was done later than some moment, and any of the names.
    Sectors,
}

impl Replay {
    fn new(memory: &MemoryDisk, start: &MemoryDisk, events: Vec<Event>) -> Replay {
        let mut replay = Replay {
            events,
            next: 0,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            memory: memory.after_kill(),
        };
        for (path, inode, durable) in start.inodes() {
            replay.names.insert(path, inode);
            replay.files.insert(inode, File { durable, unsynced: Vec::new() });
        }
        replay
    }

    /// The length of the record.
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// How many events have been gone through.
    pub fn at(&self) -> usize {
        self.next
    }

    /// Goes one event on; `None` at the end.
    pub fn advance(&mut self) -> Option<Step> {
        let at = self.next;
        let event = self.events.get(at)?.clone();
        self.next += 1;
        Some(match event {
            Event::Note(note) => Step::Note(note),
            Event::Nothing => Step::Changed,
            Event::File(inode, change) => {
                self.files.entry(inode).or_default().unsynced.push((at, change));
                Step::Changed
            }
            Event::Name(change) => {
                self.unsynced_names.push((at, change));
                Step::Named
            }
            Event::Synced(None, begun) => {
                let is_older = |(done, _): &(usize, NameChange)| *done < begun;
                let older = self.unsynced_names.iter().take_while(|change| is_older(change)).count();
                self.unsynced_names.drain(..older).for_each(|(_, change)| change.apply(&mut self.names));
                Step::Synced
            }
            Event::Synced(Some(inode), begun) => {
                self.files.entry(inode).or_default().settle(begun);
                Step::Synced
            }
        })
    }

    /// What a kill at this moment leaves: everything, on the same boot. `torn` has the write that would
    /// come next half done.
    pub fn after_kill(&self, torn: bool) -> MemoryDisk {
        let mut replay = self.clone();
        if let (true, Some(Event::File(inode, Change::Write { offset, bytes }))) =
            (torn, self.events.get(self.next))
        {
            // A kernel stops for a kill between two pages only.
            let end = (offset + bytes.len() / 2) / PAGE_BYTES * PAGE_BYTES;
            let half = Change::Write { offset: *offset, bytes: bytes[..end.saturating_sub(*offset)].into() };
            replay.files.entry(*inode).or_default().unsynced.push((self.next, half));
        }
        replay.image(Loss::Nothing, &mut |_| 0)
    }

    /// What a loss of power at this moment may leave, on the next boot: all that was synced, and of the
    /// rest what `random` (a number below the one given) decides.
    pub fn after_power_loss(&self, random: &mut dyn FnMut(u64) -> u64) -> MemoryDisk {
        let loss = match random(8) {
            0 => Loss::Everything,
            1 => Loss::Nothing,
            // Not long ago is where most of what is not synced was done.
            2 => Loss::Since(self.next - random((self.next as u64 + 1).min(24)) as usize),
            3 => Loss::Since(random(self.next as u64 + 1) as usize),
            4 => Loss::Files,
            _ => Loss::Sectors,
        };
        let image = self.image(loss, random);
        image.reboot();
        image
    }

    fn image(&self, loss: Loss, random: &mut dyn FnMut(u64) -> u64) -> MemoryDisk {
        let mut names = self.names.clone();
        let keeps_names = random(2) == 0;
        for (at, change) in &self.unsynced_names {
            let is_kept = match loss {
                Loss::Everything => false,
                Loss::Nothing => true,
                Loss::Since(moment) => *at < moment,
                Loss::Files => keeps_names,
                Loss::Sectors => random(2) == 0,
            };
            if is_kept {
                change.apply(&mut names);
            }
        }
        let files = names.into_iter().map(|(path, inode)| {
            let file = self.files.get(&inode);
            (path, inode, file.map(|file| file.after(loss, random)).unwrap_or_default())
        });
        let files: Vec<_> = files.collect();
        self.memory.with_files(files)
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Link(path, inode) => _ = names.insert(path.clone(), *inode),
            NameChange::Unlink(path) => _ = names.remove(path),
            NameChange::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl File {
    /// Makes what was done before `begun` durable.
    fn settle(&mut self, begun: usize) {
        let older = self.unsynced.iter().take_while(|(done, _)| *done < begun).count();
        let settled: Vec<_> = self.unsynced.drain(..older).collect();
        let all = File { durable: std::mem::take(&mut self.durable), unsynced: settled };
        self.durable = all.after(Loss::Nothing, &mut |_| 0);
    }

    /// The content after a loss.
    fn after(&self, loss: Loss, random: &mut dyn FnMut(u64) -> u64) -> Content {
        let all = self.unsynced.len();
        let whole = match loss {
            Loss::Everything => Some(0),
            Loss::Nothing => Some(all),
            Loss::Since(moment) => Some(self.unsynced.iter().take_while(|(at, _)| *at < moment).count()),
            Loss::Files => Some(if random(2) == 0 { all } else { 0 }),
            Loss::Sectors => None,
        };
        // How many of the changes each sector, and the length, has seen.
        let mut cuts = HashMap::new();
        let mut cut = |of: usize| {
            // Mostly the first or the last, since a sector in between needs luck with every other.
            let mut draw = || match random(5) {
                0 | 1 => 0,
                2 | 3 => all,
                _ => random(all as u64 + 1) as usize,
            };
            whole.unwrap_or_else(|| *cuts.entry(of).or_insert_with(&mut draw))
        };
        let len_cut = cut(usize::MAX);
        let mut content = self.durable.clone();
        let (mut len, mut last_len) = (content.len(), content.len());
        for (number, (_, change)) in self.unsynced.iter().enumerate() {
            let (offset, zeros);
            let (at, new): (usize, &[u8]) = match change {
                Change::Write { offset, bytes } => (*offset, bytes),
                Change::Len(new_len) => {
                    // What is cut off does not come back when the file grows again.
                    (offset, zeros) = (*new_len, vec![0; last_len.saturating_sub(*new_len)]);
                    (offset, &zeros)
                }
                Change::AtLeast(_) => (0, &[]),
            };
            last_len = match change {
                Change::Write { .. } => last_len.max(at + new.len()),
                Change::Len(new_len) => *new_len,
                Change::AtLeast(least) => last_len.max(*least),
            };
            if number < len_cut {
                len = last_len;
            }
            content.set_len(content.len().max(last_len).max(at + new.len()));
            let mut from = at;
            while from < at + new.len() {
                let to = (from / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES).min(at + new.len());
                if number < cut(from / SECTOR_BYTES) {
                    content.write(&new[from - at..to - at], from);
                }
                from = to;
            }
        }
        content.set_len(len);
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> &'static Path {
        Path::new("dir/file")
    }

    /// Everything that the file can be after a loss of power at the end.
    fn possible(disk: &RecorderDisk) -> Vec<Option<Vec<u8>>> {
        let mut replay = disk.replay();
        while replay.advance().is_some() {}
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut found: Vec<_> = (0..500)
            .map(|_| {
                let left = replay.after_power_loss(&mut random).contents();
                left.into_iter().find(|(name, _)| name == path()).map(|(_, bytes)| bytes)
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }

    #[test]
    fn what_is_synced_stays_and_the_rest_may() {
        let disk = RecorderDisk::over(MemoryDisk::new());
        let file = disk.open(path(), OpenMode::CreateNew).unwrap();
        file.write_all_at(b"synced", 0).unwrap();
        file.sync().unwrap();
        assert_eq!(possible(&disk), [None, Some(b"synced".to_vec())], "the name is not durable");
        disk.sync_dir(Path::new("dir")).unwrap();
        assert_eq!(possible(&disk), [Some(b"synced".to_vec())]);
        file.write_all_at(b"later!", 0).unwrap();
        assert_eq!(possible(&disk), [Some(b"later!".to_vec()), Some(b"synced".to_vec())]);
        disk.unlink(path()).unwrap();
        assert_eq!(possible(&disk).len(), 3, "an unlink may be lost");
        disk.sync_dir(Path::new("dir")).unwrap();
        assert_eq!(possible(&disk), [None]);
    }

    #[test]
    fn unsynced_sectors_come_in_any_order() {
        let disk = RecorderDisk::over(MemoryDisk::new());
        let file = disk.open(path(), OpenMode::CreateNew).unwrap();
        file.allocate(1024).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new("dir")).unwrap();
        file.write_all_at(&[1; 512], 0).unwrap();
        file.write_all_at(&[2; 1024], 0).unwrap();
        let firsts: Vec<_> = possible(&disk).iter().flatten().map(|bytes| (bytes[0], bytes[1023])).collect();
        assert_eq!(firsts, [(0, 0), (0, 2), (1, 0), (1, 2), (2, 0), (2, 2)]);
        assert!(possible(&disk).iter().flatten().all(|bytes| bytes[0] == bytes[511] && bytes.len() == 1024));
    }

    #[test]
    fn a_cut_file_does_not_get_its_bytes_back_by_growing() {
        let disk = RecorderDisk::over(MemoryDisk::new());
        let file = disk.open(path(), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[7; 8], 0).unwrap();
        file.set_len(4).unwrap();
        file.set_len(8).unwrap();
        let mut replay = disk.replay();
        while replay.advance().is_some() {}
        let left = replay.after_kill(false).contents();
        assert_eq!(left, [(path().to_owned(), vec![7, 7, 7, 7, 0, 0, 0, 0])]);
    }

    #[test]
    fn a_sync_covers_what_was_done_before_it_began() {
        let disk = RecorderDisk::over(MemoryDisk::new());
        let file = disk.open(path(), OpenMode::CreateNew).unwrap();
        disk.sync_dir(Path::new("dir")).unwrap();
        let (_, inode) = file.identity().unwrap();
        let begun = disk.record.lock().len();
        file.write_all_at(b"during", 0).unwrap();
        disk.record.lock().push(Event::Synced(Some(inode), begun));
        assert!(possible(&disk).contains(&Some(Vec::new())), "it was written when the sync had begun");
    }
}
