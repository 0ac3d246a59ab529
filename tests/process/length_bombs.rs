//! Line 44: lengths that were forged, with checks that are right: what is allocated for them is what a value of
//! the bytes that are there may take, and a mebibyte.
//!
//! `EMBERCACHE_SOAK` (a factor) makes it more.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use crate::{
    allocations::most_during,
    common::{
        Random, TestCache, cases, figure, from_env,
        value::{self, value},
    },
};
use embercache::{
    Admission, Bincode, Builder, Cache, Codec, KIB, MIB, Postcard, WriteBehind, testing::MemoryDisk,
};
use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What may be allocated beside the value.
const REST_BYTES: usize = MIB as usize;
/// A vector that grows is there twice for a moment, and the second time may be twice as long.
const GROWS: usize = 3;
/// What is made at once.
const STAYS: usize = 1;

/// From one more than there is to all that can be said.
const LENGTHS: [u64; 9] =
    [1, 1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 30, u32::MAX as u64, 1 << 60, u64::MAX];

/// Values of up to 4 MiB.
const VALUE_BYTES: [usize; 5] = [100, 60_000, 70_000, 1_100_000, 4 << 20];

/// In what serde values are encoded to, by both formats.
#[test]
fn of_parts_of_serde_values() {
    let _alone = crate::alone();
    let mut bombs = Bombs { random: Random::new(from_env("EMBERCACHE_SEED", 44)), mutants: 0, refused: 0 };
    for _ in 0..cases(2) {
        for value_bytes in VALUE_BYTES {
            let text = |bytes: usize| "x".repeat(bytes);
            let texts = || (0..value_bytes / 50).map(|_| text(48));
            bombs.throw(text(value_bytes), STAYS);
            bombs.throw((7_u64, Some(text(value_bytes)), 8_u16), STAYS);
            bombs.throw(vec![1_u8; value_bytes], GROWS);
            bombs.throw(vec![1_u128; value_bytes / 2], GROWS);
            bombs.throw(Vec::from_iter(texts()), GROWS);
            bombs.throw(BTreeMap::from_iter((0_u64..).zip(texts())), GROWS);
        }
    }
    let Bombs { mutants, refused, .. } = bombs;
    figure(
        44,
        &format!(
            "{mutants} serde values with lengths that are not there, {refused} refused; what the value takes and \
             1 MiB at most"
        ),
    );
    assert!(refused > mutants / 4, "{refused} of {mutants} were bombs");
}

struct Bombs {
    random: Random,
    mutants: u64,
    refused: u64,
}

impl Bombs {
    /// Decodes what a value is encoded to with another length at its begin, close to that and anywhere. It may
    /// take so many times as much as the value itself does.
    fn throw<T: Serialize + DeserializeOwned>(&mut self, value: T, growth: usize) {
        let value = Bincode(value);
        self.throw_by(&value, bincode_length, growth);
        self.throw_by(&Postcard(value.0), postcard_length, growth);
    }

    fn throw_by<T: Codec>(&mut self, value: &T, length: fn(u64) -> Vec<u8>, growth: usize) {
        let mut bytes = Vec::new();
        value.encode(&mut bytes).unwrap();
        let (_, of_value) = most_during(|| T::decode(bytes.clone()).unwrap());
        for among in [1, 12, bytes.len()] {
            let at = self.random.below(among as u64) as usize;
            let forged = length(LENGTHS[self.random.below(LENGTHS.len() as u64) as usize]);
            let mut mutant = bytes.clone();
            mutant.splice(at..(at + 1).min(bytes.len()), forged);
            let len = mutant.len();
            let (is_refused, most) = most_during(|| T::decode(mutant).is_err());
            assert!(most <= of_value * growth + REST_BYTES, "{most} for {len}, {of_value} are of a value");
            self.mutants += 1;
            self.refused += u64::from(is_refused);
        }
    }
}

/// bincode's, behind the mark of its width.
fn bincode_length(length: u64) -> Vec<u8> {
    match length {
        0..=250 => vec![length as u8],
        251..=0xffff => [&[251], &(length as u16).to_le_bytes()[..]].concat(),
        0x1_0000..=0xffff_ffff => [&[252], &(length as u32).to_le_bytes()[..]].concat(),
        _ => [&[253], &length.to_le_bytes()[..]].concat(),
    }
}

/// postcard's, seven bits a byte.
fn postcard_length(mut length: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while length > 0x7f {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes
}

const KEYS: u64 = 100;
const LEN: usize = 1_000;

fn builder(disk: &MemoryDisk) -> Builder<u64, Vec<u8>> {
    let builder = Cache::builder("cache").ram_entries(8).stripes(1).segment_size(64 * KIB).disk(2 * MIB);
    let builder = builder.admission(Admission::All).write_behind(WriteBehind::Never);
    builder.io(Arc::new(disk.clone()))
}

/// In the headers of records, of segments that a close and a kill have left.
#[test]
fn of_records() {
    let _alone = crate::alone();
    let disk = MemoryDisk::new();
    let cache = builder(&disk).open().unwrap();
    (0..KEYS).for_each(|key| cache.insert(key, value(key, 1, LEN)).unwrap());
    cache.flush().unwrap();
    let killed = disk.after_kill();
    cache.close().unwrap();
    let mut random = Random::new(from_env("EMBERCACHE_SEED", 44));
    let mut forged = 0;
    for left in [disk, killed] {
        let (found, of_all) = most_during(|| read_all(&left));
        assert_eq!(found, KEYS);
        for _ in 0..cases(40) {
            let mutant = left.after_kill();
            let key = forge(&mutant, &mut random);
            let (found, most) = most_during(|| read_all(&mutant));
            assert!(most <= of_all + REST_BYTES, "{most} bytes, {of_all} without the forged record");
            assert!(found < KEYS, "{key} is still there");
            forged += 1;
        }
    }
    figure(44, &format!("{forged} records that say they are up to 4 GiB long: all missed, within the same"));
}

/// Opens the directory and reads every key; how many are there.
fn read_all(disk: &MemoryDisk) -> u64 {
    let cache: TestCache = builder(disk).open().unwrap();
    let found = (0..KEYS).filter_map(|key| Some(value::version(key, &cache.get(&key)?)));
    found.map(|version| assert_eq!(version, 1)).count() as u64
}

/// Makes one record say that its value is longer, with the check that its header would have. Of which key it is.
fn forge(disk: &MemoryDisk, random: &mut Random) -> u64 {
    const HEADER_BYTES: usize = 32;
    let segments = || disk.contents().into_iter().filter(|(path, _)| path.to_string_lossy().contains("seg-"));
    let nth = random.below(segments().count() as u64) as usize;
    let (path, mut bytes) = segments().nth(nth).expect("there are more");
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let is_record = |&at: &usize| u32_at(&bytes, at + 16) == LEN as u32;
    let record_bytes = (HEADER_BYTES + 8 + LEN).next_multiple_of(8);
    let places: Vec<usize> =
        (64..bytes.len() - record_bytes).step_by(record_bytes).take_while(is_record).collect();
    let at = places[random.below(places.len() as u64) as usize];
    let key = u64::from_le_bytes(bytes[at + HEADER_BYTES..][..8].try_into().unwrap());
    let longer = [1, 8, 1 << 14, 1 << 16, 1 << 20, 1 << 28, u32::MAX - LEN as u32];
    let len = LEN as u32 + longer[random.below(longer.len() as u64) as usize];
    bytes[at + 16..at + 20].copy_from_slice(&len.to_le_bytes());
    let salt = u64::from_le_bytes(bytes[24..32].try_into().unwrap());
    let check = xxh3_64_with_seed(&bytes[at..at + 28], salt ^ at as u64) as u32;
    bytes[at + 28..at + HEADER_BYTES].copy_from_slice(&check.to_le_bytes());
    disk.overwrite(Path::new(&path), bytes);
    key
}
