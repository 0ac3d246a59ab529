//! The invalidation journal: what must not come back, an entry of 32 bytes each.

use std::{collections::VecDeque, io, sync::Arc};

use super::{
    directory::Directory,
    invalidations::Invalidations,
    layout::{JOURNAL_MAGIC, JOURNAL_VERSION, is_checked, is_zero, put, put_check, u16_at, u32_at, u64_at},
    state::{State, StateFile},
};
use crate::{
    hash::KeyHash,
    io::{IoFile, OpenMode},
    location::{JournalEnd, SegmentId, Seq},
    sync::Mutex,
};

pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const ENTRY_BYTES: usize = 32;
/// Every journal file has this length from its creation on: a shorter one has lost something.
pub(crate) const FILE_BYTES: usize = 1 << 20;
const SYNCED: u8 = 1;
/// From so many files on, a run goes on with the last of an earlier one: before that, files of their own go
/// sooner (R5).
const FILES_MAX: usize = 4;
/// How much is read at once.
const PART_BYTES: usize = 64 << 10;

const _: () = assert!(HEADER_BYTES.is_multiple_of(ENTRY_BYTES) && PART_BYTES.is_multiple_of(ENTRY_BYTES));
const _: () = assert!(FILE_BYTES.is_multiple_of(PART_BYTES));

/// Something that makes records dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Every older record of this hash.
    Invalidate(KeyHash),
    /// Every older record.
    Barrier,
    /// Every record of this segment.
    SegmentDead(SegmentId),
    /// Every record at or behind this offset of the segment.
    TailDead(SegmentId, u32),
}

/// An event in its place in the order of all events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) event: Event,
    pub(crate) seq: Seq,
}

impl Entry {
    /// `place` ties the entry to its file and offset: the salt XOR the offset.
    pub(crate) fn encode(&self, place: u64) -> [u8; ENTRY_BYTES] {
        let (kind, operand, operand2) = match self.event {
            Event::Invalidate(hash) => (1, hash.0, 0),
            Event::Barrier => (2, 0, 0),
            Event::SegmentDead(id) => (3, u64::from(id.get()), 0),
            Event::TailDead(id, offset) => (4, u64::from(id.get()), offset),
        };
        let mut bytes = [0; ENTRY_BYTES];
        put(&mut bytes, 0, operand.to_le_bytes());
        put(&mut bytes, 8, self.seq.0.to_le_bytes());
        bytes[16] = kind;
        put(&mut bytes, 20, operand2.to_le_bytes());
        put_check(&mut bytes, place);
        bytes
    }

    /// `None` for whatever this release did not write there and for what it does not understand.
    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES], place: u64) -> Option<Entry> {
        if !is_checked(bytes, place) || !is_zero(&bytes[17..20]) {
            return None;
        }
        let operand = u64_at(bytes, 0);
        let id = || SegmentId::new(u32::try_from(operand).ok()?);
        let event = match bytes[16] {
            1 => Event::Invalidate(KeyHash(operand)),
            2 => Event::Barrier,
            3 => Event::SegmentDead(id()?),
            4 => Event::TailDead(id()?, u32_at(bytes, 20)),
            _ => return None,
        };
        Some(Entry { event, seq: Seq(u64_at(bytes, 8)) })
    }
}

/// The first bytes of a journal file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalHeader {
    pub(crate) number: u32,
    pub(crate) epoch: u64,
    pub(crate) salt: u64,
    /// Every entry of the files before has a lower seq.
    pub(crate) first_seq: Seq,
    /// Entries are acknowledged once they are synced. Of others a power loss may leave any, so zeros
    /// between entries are entries that nobody was told of.
    pub(crate) acks_after_sync: bool,
}

impl JournalHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put(&mut bytes, 0, JOURNAL_MAGIC);
        put(&mut bytes, 8, JOURNAL_VERSION.to_le_bytes());
        bytes[10] = if self.acks_after_sync { SYNCED } else { 0 };
        put(&mut bytes, 12, self.number.to_le_bytes());
        put(&mut bytes, 16, self.epoch.to_le_bytes());
        put(&mut bytes, 24, self.salt.to_le_bytes());
        put(&mut bytes, 32, self.first_seq.0.to_le_bytes());
        put_check(&mut bytes, 0);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<JournalHeader> {
        let known =
            bytes[..8] == JOURNAL_MAGIC && u16_at(bytes, 8) == JOURNAL_VERSION && is_checked(bytes, 0);
        let known = known && bytes[10] & !SYNCED == 0;
        known.then_some(JournalHeader {
            number: u32_at(bytes, 12),
            epoch: u64_at(bytes, 16),
            salt: u64_at(bytes, 24),
            first_seq: Seq(u64_at(bytes, 32)),
            acks_after_sync: bytes[10] & SYNCED != 0,
        })
    }
}

/// The files of the journal, and the one that is written.
///
/// # Invariants
///
/// 1. STATE names the range of numbers that must exist, and does so before the first entry of a
///    new file is written and before an old file is unlinked.
/// 2. Entries lie without a gap: a slot is used again until its write has succeeded.
/// 3. A file of an earlier run is gone on with only where every byte of it is as that run could have left
///    it: whole entries, then zeros.
/// 4. If `acks_after_sync`: a new file, its name and STATE's word of it are durable before its first entry
///    is written, and the entries of the file before are.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: Arc<Directory>,
    epoch: u64,
    /// Entries have to outlive the machine.
    acks_after_sync: bool,
    current: Option<Current>,
    /// The last file of earlier runs, until the first entry of this one.
    last: Option<u32>,
    /// Number and first seq of every file, the current one last.
    files: VecDeque<(u32, Seq)>,
    next_number: u32,
    /// Files below this number are known to outlive the machine.
    synced_below: u32,
    end: JournalEnd,
    /// The sync of a full file has failed.
    has_failed: bool,
}

#[derive(Debug)]
struct Current {
    file: Arc<dyn IoFile>,
    salt: u64,
    end: usize,
}

impl Journal {
    /// Goes on behind the files of earlier runs, which are known to outlive the machine.
    pub(crate) fn new(
        directory: Arc<Directory>,
        epoch: u64,
        acks_after_sync: bool,
        files: VecDeque<(u32, Seq)>,
        next_number: u32,
    ) -> Journal {
        Journal {
            directory,
            epoch,
            acks_after_sync,
            current: None,
            last: files.back().map(|&(number, _)| number),
            files,
            next_number,
            synced_below: next_number,
            end: JournalEnd::START,
            has_failed: false,
        }
    }

    /// Appends an entry: one write, and where a file is full the next file. `next_seq` must be above every seq
    /// drawn so far. Returns the bytes written.
    pub(crate) fn append(
        &mut self,
        entry: Entry,
        next_seq: Seq,
        state: &Mutex<StateFile>,
    ) -> io::Result<usize> {
        let is_due = self.current.as_ref().is_none_or(|current| current.end == FILE_BYTES);
        let header_bytes = if is_due { self.advance(next_seq, state)? } else { 0 };
        let current = self.current.as_mut().expect("there was one, or `advance` has made it");
        let offset = current.end as u64;
        current.file.write_all_at(&entry.encode(current.salt ^ offset), offset)?;
        current.end += ENTRY_BYTES;
        self.end.0 += 1;
        Ok(header_bytes + ENTRY_BYTES)
    }

    /// Leaves a full file and goes on with another one. Returns the bytes written to that.
    fn advance(&mut self, next_seq: Seq, state: &Mutex<StateFile>) -> io::Result<usize> {
        if let Some(full) = self.current.take()
            && self.acks_after_sync
        {
            full.file.sync().inspect_err(|_| self.has_failed = true)?;
        }
        let last = self.last.take().filter(|_| self.files.len() >= FILES_MAX);
        self.current = last.and_then(|number| self.resume(number));
        if self.current.is_some() {
            return Ok(0);
        }
        self.current = Some(self.create(next_seq, state)?);
        Ok(HEADER_BYTES)
    }

    /// How far it has come, and the file whose sync makes that durable.
    pub(crate) fn current(&self) -> (Option<Arc<dyn IoFile>>, JournalEnd) {
        (self.current.as_ref().map(|current| Arc::clone(&current.file)), self.end)
    }

    /// `Err` if the sync of a full file has failed. Of two that sync a file at the same time, the kernel
    /// tells one that it could not be written: who was told that all is well asks here whether the other was.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.has_failed { Err(io::Error::other("another sync of the journal has failed")) } else { Ok(()) }
    }

    pub(crate) fn end(&self) -> JournalEnd {
        self.end
    }

    /// Goes on with a file of an earlier run, or a directory that many short ones use would have as many
    /// files. `None` if it is full, or of another durability, or has a gap, or cannot be read: a doubt about it
    /// is settled by whoever believes it.
    fn resume(&mut self, number: u32) -> Option<Current> {
        let (_, header) = open(&self.directory, number, self.epoch).ok()??;
        let file = self.directory.io.open(&self.directory.journal(number), OpenMode::Write).ok()?;
        let mut bytes = vec![0; FILE_BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let entries = bytes.as_chunks::<ENTRY_BYTES>().0.iter().zip((0..).step_by(ENTRY_BYTES));
        let mut entries = entries.skip_while(|&(_, at)| at < HEADER_BYTES);
        let end = entries.find_map(|(entry, at)| decode(entry, &header, at).is_none().then_some(at))?;
        let is_ours = header.acks_after_sync == self.acks_after_sync && is_zero(&bytes[end..]);
        // This run's entries are to be synced by its close.
        self.synced_below = self.synced_below.min(number);
        is_ours.then_some(Current { file, salt: header.salt, end })
    }

    fn create(&mut self, first_seq: Seq, state: &Mutex<StateFile>) -> io::Result<Current> {
        let number = self.next_number;
        // A range that starts over would name no file at all.
        let next_number =
            number.checked_add(1).ok_or_else(|| io::Error::other("no journal file has a number left"))?;
        let path = self.directory.journal(number);
        // STATE does not name a file of that number: it has no entries (invariant 1).
        match self.directory.io.unlink(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.directory.io.open(&path, OpenMode::CreateNew)?;
        file.allocate(FILE_BYTES as u64)?;
        let salt = getrandom::u64().map_err(io::Error::other)?;
        let header = JournalHeader {
            number,
            epoch: self.epoch,
            salt,
            first_seq,
            acks_after_sync: self.acks_after_sync,
        };
        file.write_all_at(&header.encode(), 0)?;
        if self.acks_after_sync {
            file.sync()?;
            self.directory.io.sync_dir(&self.directory.path)?;
        }
        let start = self.files.front().map_or(number, |&(first, _)| first);
        self.name_range(start, next_number, state)?;
        self.files.push_back((number, first_seq));
        self.next_number = next_number;
        Ok(Current { file, salt, end: HEADER_BYTES })
    }

    /// Whether there are files whose every entry is older than every record there is (R5).
    pub(crate) fn is_trim_due(&self, min_base_seq: Seq) -> bool {
        self.files.get(1).is_some_and(|&(_, bound)| bound <= min_base_seq)
    }

    /// Deletes these.
    pub(crate) fn trim(&mut self, min_base_seq: Seq, state: &Mutex<StateFile>) -> io::Result<()> {
        while self.is_trim_due(min_base_seq) {
            self.name_range(self.files[1].0, self.next_number, state)?;
            let (number, _) = self.files.pop_front().expect("there are two");
            // What stays behind is outside of STATE's range, and the next start deletes it.
            self.directory.io.unlink(&self.directory.journal(number))?;
        }
        Ok(())
    }

    /// Makes every file outlive the machine.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut unsynced = self.files.iter().filter(|&&(number, _)| number >= self.synced_below);
        unsynced.try_for_each(|&(number, _)| sync(&self.directory, number))
    }

    #[cfg(test)]
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.files.iter().map(|&(number, _)| number).collect()
    }

    fn name_range(&self, start: u32, end: u32, state: &Mutex<StateFile>) -> io::Result<()> {
        let mut file = state.lock();
        let state = State { journals: (start, end), ..file.state };
        file.put(state)
    }
}

/// Makes the file of that number outlive the machine.
pub(crate) fn sync(directory: &Directory, number: u32) -> io::Result<()> {
    directory.io.open(&directory.journal(number), OpenMode::Read)?.sync()
}

/// The numbers and first seqs of the files that STATE names; `None` if one is missing or not what
/// it should be. An error says nothing about them.
pub(crate) fn read_headers(directory: &Directory, state: &State) -> io::Result<Option<VecDeque<(u32, Seq)>>> {
    (state.journals.0..state.journals.1)
        .map(|number| {
            let opened = open(directory, number, state.epoch)?;
            Ok(opened.map(|(_, header)| (number, header.first_seq)))
        })
        .collect()
}

/// Everything that the files named by STATE say; `None` if any byte of it is in doubt. A journal
/// with a hole cannot tell what must not come back, unless it was synced: then nobody was told. An error says
/// nothing about it.
pub(crate) fn read(directory: &Directory, state: &State) -> io::Result<Option<Invalidations>> {
    let mut invalidations = Invalidations::default();
    for number in state.journals.0..state.journals.1 {
        let file = open(directory, number, state.epoch)?;
        if file.and_then(|(file, header)| read_file(&*file, &header, &mut invalidations)).is_none() {
            return Ok(None);
        }
    }
    invalidations.finish();
    Ok(Some(invalidations))
}

/// Adds what one file says; `None` as in [`read`].
fn read_file(file: &dyn IoFile, header: &JournalHeader, invalidations: &mut Invalidations) -> Option<()> {
    let mut part = vec![0; PART_BYTES];
    let mut has_ended = false;
    for start in (0..FILE_BYTES).step_by(PART_BYTES) {
        file.read_exact_at(&mut part, start as u64).ok()?;
        if is_zero(&part) {
            has_ended = !header.acks_after_sync;
            continue;
        }
        let entries = part.as_chunks().0.iter().zip((start..).step_by(ENTRY_BYTES));
        for (entry, at) in entries.filter(|&(_, at)| at >= HEADER_BYTES) {
            if is_zero(entry) {
                has_ended = !header.acks_after_sync;
            } else if has_ended {
                return None;
            } else {
                invalidations.add(decode(entry, header, at)?);
            }
        }
    }
    Some(())
}

fn decode(bytes: &[u8; ENTRY_BYTES], header: &JournalHeader, at: usize) -> Option<Entry> {
    Entry::decode(bytes, header.salt ^ at as u64).filter(|entry| entry.seq <= Seq::MAX)
}

fn open(
    directory: &Directory,
    number: u32,
    epoch: u64,
) -> io::Result<Option<(Arc<dyn IoFile>, JournalHeader)>> {
    let file = directory.open(&directory.journal(number))?;
    Ok(file.and_then(|file| {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let header = JournalHeader::decode(&bytes)?;
        let ours =
            header.number == number && header.epoch == epoch && file.file_len().ok()? == FILE_BYTES as u64;
        ours.then_some((file, header))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_is_rejected() {
        let id = SegmentId::new(9).unwrap();
        let events = [
            Event::Invalidate(KeyHash(u64::MAX)),
            Event::Barrier,
            Event::SegmentDead(id),
            Event::TailDead(id, 4096),
        ];
        for event in events {
            let entry = Entry { event, seq: Seq(5) };
            let bytes = entry.encode(77);
            assert_eq!(Entry::decode(&bytes, 77), Some(entry));
            assert_eq!(Entry::decode(&bytes, 78), None);
            for bit in 0..ENTRY_BYTES * 8 {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Entry::decode(&flipped, 77), None, "bit {bit}");
            }
        }
        let header = JournalHeader { number: 1, epoch: 2, salt: 3, first_seq: Seq(4), acks_after_sync: true };
        let bytes = header.encode();
        assert_eq!(JournalHeader::decode(&bytes), Some(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(JournalHeader::decode(&flipped), None, "bit {bit}");
        }
    }
}
