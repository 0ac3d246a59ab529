//! The decoders over files that somebody else made up, for fuzzing. Each of these opens the bytes as
//! an opening cache would, panics where what it reads makes no sense, and returns how much it
//! believed, so that a fuzzer can see that it gets anywhere.

use std::{path::Path, sync::Arc};

use crossbeam_epoch as epoch;

use super::{
    Log, LogOptions, Opened, Read, Source,
    directory::Directory,
    footer::FooterEntry,
    journal::{self, Entry, Event, JournalHeader},
    layout::{LOCK_TEXT, u64_at},
    segment::SegmentHeader,
    snapshot::{SnapshotHeader, SnapshotReader},
    state::{self, State, StateFile},
};
use crate::{
    hash::KeyHash,
    io::{Io, OpenMode, memory::MemoryDisk},
    location::{Location, RECORD_ALIGN, SegmentId, Seq},
    options::{Durability, OnMismatch, ReadMode},
    time::Anchor,
};

const DIR: &str = "cache";

/// Recovers a directory with this one segment, twice: the first open seals what has no footer, the
/// second must find the same. Returns the number of records found whole.
///
/// # Panics
///
/// If the two differ, a record does not lie within the bytes, or cannot be read as it was found.
pub fn parse_segment(bytes: &[u8]) -> usize {
    let Some(header) = bytes.first_chunk().and_then(SegmentHeader::decode) else {
        return 0;
    };
    let disk = disk_with(&format!("seg-{:08x}.log", header.id.get()), bytes);
    let first = recover(&disk, header.epoch);
    let again = recover(&disk, header.epoch);
    assert_eq!(first, again, "the second open found something else");
    for &(_, location) in &first.entries {
        assert_eq!(location.segment(), header.id);
        assert!((location.offset() as usize) < bytes.len(), "{location:?} is behind the file");
    }
    first.records
}

/// What a recovery found: every entry, and how many of them are whole records.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    entries: Vec<(KeyHash, Location)>,
    records: usize,
}

fn recover(disk: &MemoryDisk, epoch: u64) -> Found {
    let directory = enter(disk);
    let begun = StateFile::begin(&directory, state(&directory, epoch)).expect("memory takes all writes");
    drop((begun, directory));

    let Opened { log, source, .. } = Log::open(Arc::new(disk.clone()), options()).expect("a warm start");
    assert!(matches!(source, Source::Entries), "STATE was not believed: {source:?}");
    let mut entries = Vec::new();
    let recovered = log.recover(|_| true, 0, &mut |hash, location| entries.push((hash, location)));
    recovered.expect("memory has descriptors");
    let records = entries.iter().filter(|(_, at)| is_whole(&log, *at)).count();
    Found { entries, records }
}

/// Whether there is a record at `at`. Both ways to read it must agree, and neither may be taken in
/// by another key.
fn is_whole(log: &Log, at: Location) -> bool {
    let Some(record) = log.read_record(at) else {
        return false;
    };
    match log.read(at, &record.key, &epoch::pin()) {
        Read::Hit(value) => assert_eq!(
            (value.bytes, value.expiry, value.idle),
            (record.value, record.expiry, record.idle),
            "two reads of {at:?} differ"
        ),
        other => panic!("the record at {at:?} is whole for one read, for the other {other:?}"),
    }
    let other_key = [&record.key[..], b"?"].concat();
    assert!(
        !matches!(log.read(at, &other_key, &epoch::pin()), Read::Hit(_)),
        "{at:?} answers to another key"
    );
    true
}

/// The length that a journal's file has; its end is zeros.
pub const JOURNAL_BYTES: usize = journal::FILE_BYTES;

/// Reads a journal of one file: these bytes, and zeros up to that length. Returns the number of entries, 0 if
/// they are not believed.
///
/// # Panics
///
/// If an entry that is believed does not kill what it names.
pub fn parse_journal(bytes: &[u8], file_bytes: usize) -> usize {
    let Some(JournalHeader { number, epoch, salt, .. }) = bytes.first_chunk().and_then(JournalHeader::decode)
    else {
        return 0;
    };
    let Some(end) = number.checked_add(1) else {
        return 0;
    };
    let disk = disk_with(&format!("inv-{number:08x}.log"), bytes);
    let directory = enter(&disk);
    let file = disk.open(&directory.journal(number), OpenMode::Write).expect("it was put there");
    file.set_len(file_bytes as u64).expect("memory takes any length");
    let state = State { journals: (number, end), ..state(&directory, epoch) };
    let headers = journal::read_headers(&directory, &state).ok().flatten();
    let Ok(Some(invalidations)) = journal::read(&directory, &state) else {
        return 0;
    };
    assert!(headers.is_some(), "a journal with a bad header is believed");

    let frames = bytes[journal::HEADER_BYTES..].chunks_exact(journal::ENTRY_BYTES);
    let offsets = (journal::HEADER_BYTES as u64..).step_by(journal::ENTRY_BYTES);
    let entries = frames.zip(offsets).map_while(|(frame, offset)| {
        Entry::decode(frame.try_into().expect("chunks of that length"), salt ^ offset)
    });
    entries
        .inspect(|entry| {
            assert!(entry.seq <= Seq::MAX, "a seq out of reach is believed");
            assert!(invalidations.max_seq >= Some(entry.seq));
            let victim = victim(*entry);
            assert!(victim.is_none_or(|victim| !invalidations.allow(&victim)), "{entry:?} kills nothing");
        })
        .count()
}

/// The youngest record that the entry kills, if there can be one.
fn victim(Entry { event, seq }: Entry) -> Option<FooterEntry> {
    let youngest = Seq(u64::MAX);
    let (hash, seq, id, offset) = match event {
        Event::Invalidate(hash) => (hash, seq, SegmentId::MAX, 0),
        Event::Barrier => (KeyHash(0), seq, SegmentId::MAX, 0),
        Event::SegmentDead(id) => (KeyHash(0), youngest, id, 0),
        Event::TailDead(id, tail) => (KeyHash(0), youngest, id, tail.checked_next_multiple_of(RECORD_ALIGN)?),
    };
    let exists = offset < Location::SEGMENT_BYTES_MAX;
    exists.then(|| FooterEntry { hash, seq, location: Location::new(id, offset), len: 0, expiry: 0 })
}

/// More stripes than this are not looked through one by one: nearly all would be empty.
const STRIPE_BITS_MAX: u32 = 8;

/// Reads a snapshot as caches with fewer, as many and more stripes would. Returns the number of
/// slots in whole blocks.
///
/// # Panics
///
/// If a slot comes from a stripe that does not own it, or there are more than the bytes hold.
pub fn parse_snapshot(bytes: &[u8]) -> usize {
    let Some(SnapshotHeader { stripe_bits, epoch, id, .. }) =
        bytes.first_chunk().and_then(SnapshotHeader::decode)
    else {
        return 0;
    };
    let disk = disk_with("index.snap", bytes);
    let Ok(Some(reader)) = SnapshotReader::open(&enter(&disk), epoch, id) else {
        return 0;
    };
    let read = |bits: u32| {
        let mut found = 0;
        for stripe in (0..1 << bits).step_by(reader.siblings(0, bits).len()) {
            let siblings = reader.siblings(stripe, bits);
            let mut slots = 0;
            let read = reader.read(stripe, bits, |hash, _| {
                assert!(siblings.contains(&hash.stripe(bits)), "a slot in another's stripe");
                slots += 1;
                // Out of order it need not be found.
                let _ = reader.find(hash);
            });
            assert!(slots <= reader.len_of(stripe, bits), "more slots than were announced");
            found += if read.is_ok() { slots } else { 0 };
        }
        assert!(found as u64 <= reader.len(), "{found} slots of {}", reader.len());
        found
    };
    let joined = read(0);
    if stripe_bits > STRIPE_BITS_MAX {
        return joined;
    }
    let found = read(stripe_bits);
    assert_eq!(read(stripe_bits + 1), found, "more stripes found something else");
    found
}

/// Reads STATE. Returns the generation of the slot that counts, 0 if none does.
///
/// # Panics
///
/// If an older whole slot was preferred, or what was read is not what would be written.
pub fn parse_state(bytes: &[u8]) -> u64 {
    let disk = disk_with("STATE", bytes);
    let Ok((Some(found), _)) = StateFile::load(&enter(&disk)) else {
        return 0;
    };
    assert_eq!(State::decode(&found.encode()), Ok(Some(found)));
    for slot in bytes.chunks_exact(state::SLOT_BYTES).take(2) {
        let slot = slot.try_into().expect("chunks of that length");
        if let Ok(Some(state)) = State::decode(slot) {
            assert!(state.generation <= found.generation, "an older slot counts");
            assert_eq!(state.generation, u64_at(slot, 16));
        }
    }
    found.generation
}

/// A cache's directory with this one file.
fn disk_with(name: &str, bytes: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.put(Path::new(DIR).join("LOCK"), LOCK_TEXT.to_vec());
    disk.put(Path::new(DIR).join(name), bytes.to_vec());
    disk
}

fn enter(disk: &MemoryDisk) -> Arc<Directory> {
    let entered = Directory::enter(Arc::new(disk.clone()), DIR.into());
    Arc::new(entered.expect("a directory with its LOCK, locked by nobody"))
}

/// The STATE of a cache of that epoch that was killed on this boot, without a journal.
fn state(directory: &Directory, epoch: u64) -> State {
    State {
        generation: 1,
        epoch,
        hash_seed: 0,
        boot_id: directory.io.boot_id().ok().flatten().expect("memory has one"),
        identity: directory.identity,
        clean: false,
        cold: false,
        durability: Durability::ProcessCrash,
        key_codec: 0,
        value_codec: 0,
        schema_version: 0,
        anchor: Anchor { cache_ms: 1_000_000_000, boot_ms: 0 },
        next_seq: Seq(0),
        next_segment: 0,
        journals: (0, 0),
        expiring_dead_below: 0,
        snapshot_id: 0,
    }
}

fn options() -> LogOptions {
    LogOptions {
        dir: DIR.into(),
        capacity_bytes: 1 << 30,
        segment_bytes: 1 << 20,
        batch_bytes: 1 << 10,
        durability: Durability::ProcessCrash,
        read_mode: ReadMode::Strict,
        key_codec: 0,
        value_codec: 0,
        schema_version: 0,
        on_mismatch: OnMismatch::Refuse,
        read_only: false,
    }
}
