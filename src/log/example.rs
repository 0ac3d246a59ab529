//! docs/format.md against the code: its worked examples, byte for byte.

use super::{
    footer::{Footer, FooterEntry, Trailer},
    journal::{self, Entry, Event, JournalHeader},
    layout::{array_at, check, put},
    record::{self, RecordHeader, payload_check, place},
    segment::SegmentHeader,
    snapshot::{self, SnapshotHeader},
    state::{self, State},
};
use crate::{
    hash::KeyHash,
    location::{Location, SegmentId, Seq},
    options::Durability,
    time::Anchor,
};

const EPOCH: u64 = 0x0102_0304_0506_0708;
const SALT: u64 = 0x1112_1314_1516_1718;
const HASH_SEED: u64 = 0x2122_2324_2526_2728;
const SNAPSHOT_ID: u64 = 0x3132_3334_3536_3738;

fn id(id: u32) -> SegmentId {
    SegmentId::new(id).unwrap()
}

fn hash() -> KeyHash {
    KeyHash::of(b"ember", HASH_SEED)
}

/// The bytes of the example of that name, filled up with zeros to `len` if it is shorter.
fn documented(name: &str, len: usize) -> Vec<u8> {
    let text = include_str!("../../docs/format.md");
    let (_, block) = text.split_once(&format!("```hex {name}\n")).expect("the example");
    let (block, _) = block.split_once("```").expect("the example's end");
    let mut bytes = vec![0; len];
    for line in block.lines() {
        let (at, content) = line.split_once(':').expect("an offset");
        let at = usize::from_str_radix(at, 16).unwrap();
        for (at, byte) in (at..).zip(content.split_whitespace()) {
            bytes.resize(bytes.len().max(at + 1), 0);
            bytes[at] = u8::from_str_radix(byte, 16).unwrap();
        }
    }
    bytes
}

/// The text that an example with these bytes has.
fn dump(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|&b| b != 0));
    lines
        .map(|(index, line)| {
            let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{:03x}: {}\n", index * 16, bytes.join(" "))
        })
        .collect()
}

fn assert_documented(name: &str, encoded: &[u8]) {
    let documented = documented(name, encoded.len());
    assert!(documented == encoded, "docs/format.md has no or another {name}:\n{}", dump(encoded));
}

#[test]
fn segment() {
    let header = SegmentHeader { id: id(7), epoch: EPOCH, salt: SALT, base_seq: Seq(40) };
    let place = place(SALT, 64);
    let record = RecordHeader {
        payload_check: payload_check(b"ember", b"glow", place),
        seq: Seq(42),
        value_len: 4,
        expiry: 1_700_000_000,
        key_len: 5,
        idle: true,
    };
    let location = Location::new(id(7), 64);
    let entry = FooterEntry { hash: hash(), seq: Seq(42), location, len: 48, expiry: 1_700_000_000 };
    let mut footer = Footer::new(Seq(40));
    footer.push(&entry);
    let (entries, trailer) = (footer.bytes(), footer.trailer(SALT));
    let bytes =
        [&header.encode()[..], &record.encode(place), b"emberglow", &[0; 7], entries, &trailer.encode(SALT)]
            .concat();
    assert_documented("segment", &bytes);

    assert_eq!(SegmentHeader::decode(&array_at(&bytes, 0)), Some(header));
    let decoded = RecordHeader::decode(&array_at::<{ record::HEADER_BYTES }>(&bytes, 64), place);
    assert_eq!(decoded, Some(record));
    assert_eq!(Trailer::decode(&array_at(&bytes, 127), SALT, 191), Some(trailer));
    assert_eq!(trailer.entries(&bytes[112..127], id(7), Seq(40), SALT), Some(vec![entry]));
}

#[test]
fn journal() {
    let header =
        JournalHeader { number: 3, epoch: EPOCH, salt: SALT, first_seq: Seq(41), acks_after_sync: false };
    let mut bytes = header.encode().to_vec();
    let events =
        [Event::Invalidate(hash()), Event::SegmentDead(id(7)), Event::TailDead(id(8), 4096), Event::Barrier];
    for (event, seq) in events.into_iter().zip(42..) {
        let entry = Entry { event, seq: Seq(seq) };
        let place = SALT ^ bytes.len() as u64;
        let encoded = entry.encode(place);
        assert_eq!(Entry::decode(&encoded, place), Some(entry));
        bytes.extend_from_slice(&encoded);
    }
    assert_documented("journal", &bytes);
    assert_eq!(JournalHeader::decode(&array_at(&bytes, 0)), Some(header));
    assert_eq!(bytes.len(), journal::HEADER_BYTES + 4 * journal::ENTRY_BYTES);
}

#[test]
fn snapshot() {
    let packed = Location::new(id(7), 64).to_bits() | 3 << Location::BITS;
    let slot = snapshot::encode_slot(hash(), packed);
    let mut list = [0; snapshot::BLOCK_ENTRY_BYTES];
    put(&mut list, 0, hash().0.to_le_bytes());
    put(&mut list, 8, check(&slot, SNAPSHOT_ID).to_le_bytes());
    put(&mut list, 16, 1_u32.to_le_bytes());
    let blocks_check = check(&list, SNAPSHOT_ID);
    let header = SnapshotHeader { stripe_bits: 0, epoch: EPOCH, id: SNAPSHOT_ID, blocks_check, blocks: 1 };
    let bytes = [&header.encode()[..], &slot, &list].concat();
    assert_documented("snapshot", &bytes);

    let dir = tempfile::tempdir().unwrap();
    let io = std::sync::Arc::new(crate::io::Disk);
    let directory = super::Directory::enter(io, dir.path().join("cache")).unwrap();
    std::fs::write(directory.snapshot(), &bytes).unwrap();
    let reader = snapshot::SnapshotReader::open(&directory, EPOCH, SNAPSHOT_ID).unwrap().unwrap();
    let mut slots = Vec::new();
    reader.read(0, 0, |hash, packed| slots.push((hash, packed))).unwrap();
    let bits = 7 << 24 | 8 | 3 << 54;
    assert_eq!(slots, [(hash(), bits)]);
    assert_eq!(reader.find(hash()), Ok(Some(bits)));
}

#[test]
fn state() {
    let state = State {
        generation: 9,
        epoch: EPOCH,
        hash_seed: HASH_SEED,
        boot_id: *b"boot-id-16-bytes",
        identity: (2049, 131_073),
        clean: true,
        cold: false,
        durability: Durability::ProcessCrash,
        key_codec: 1,
        value_codec: 2,
        schema_version: 3,
        anchor: Anchor { cache_ms: 1_700_000_000_000, boot_ms: 5_000 },
        next_seq: Seq(46),
        next_segment: 9,
        journals: (3, 4),
        expiring_dead_below: 4,
        snapshot_id: SNAPSHOT_ID,
    };
    let bytes = state.encode();
    assert_documented("state", &bytes);
    assert_eq!(bytes.len(), state::SLOT_BYTES);
    assert_eq!(State::decode(&bytes), Ok(Some(state)));
}
