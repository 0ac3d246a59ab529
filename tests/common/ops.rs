//! The operations that the model test and the fuzzer run: plain data, decoded from four bytes each.
//!
//! Any four bytes are an operation, so a fuzzer's mutations and proptest's shrinking both work on the
//! bytes and never meet an input that means nothing.

/// One step of a test. Keys are below [`KEYS`]; `Size` picks one of [`SIZES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Insert(u8, Size),
    InsertWithTtl(u8, Size, Ttl),
    /// An insert of a value that fits nowhere.
    InsertTooLarge(u8),
    Remove(u8),
    Get(u8),
    GetWith(u8),
    Peek(u8),
    ContainsKey(u8),
    GetOrInsert(u8, Size),
    /// Takes a lease, does something else, then fills it.
    Lease(u8, Size, Between),
    Clear,
    Flush,
    /// Lets short times to live pass.
    Sleep,
    CloseAndReopen,
    DropAndReopen,
}

/// The number of keys: few, so that operations meet.
pub(crate) const KEYS: u8 = 24;

/// Value sizes in bytes: around the record's alignment, around a page, and around the largest
/// record that a 64 KiB segment takes, which is a quarter of it.
pub(crate) const SIZES: [usize; 16] =
    [0, 1, 15, 16, 17, 100, 100, 1000, 1000, 4095, 4096, 4097, 16_000, 16_384, 17_000, 40_000];

/// An index into [`SIZES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(u8);

impl Size {
    pub(crate) fn bytes(self) -> usize {
        SIZES[usize::from(self.0)]
    }
}

/// A time to live that ends during the test, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    Short,
    Long,
}

/// What happens between taking a lease and filling it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Between {
    Nothing,
    OtherKey,
    Insert,
    Remove,
    Clear,
}

impl Between {
    /// Whether it kills the lease.
    pub(crate) fn invalidates(self) -> bool {
        !matches!(self, Between::Nothing | Between::OtherKey)
    }
}

impl Op {
    /// The bytes that make one operation.
    pub(crate) const BYTES: usize = 4;

    /// Every four bytes are an operation; the weights are those of a cache in use, with reopens
    /// and clears made frequent.
    pub(crate) fn decode([op, key, size, detail]: [u8; Op::BYTES]) -> Op {
        let key = key % KEYS;
        let size = Size(size % SIZES.len() as u8);
        match op {
            0..=79 => Op::Insert(key, size),
            80..=91 => Op::InsertWithTtl(key, size, if detail % 2 == 0 { Ttl::Short } else { Ttl::Long }),
            92..=95 => Op::InsertTooLarge(key),
            96..=119 => Op::Remove(key),
            120..=175 => Op::Get(key),
            176..=187 => Op::GetWith(key),
            188..=195 => Op::Peek(key),
            196..=203 => Op::ContainsKey(key),
            204..=219 => Op::GetOrInsert(key, size),
            220..=235 => Op::Lease(key, size, between(detail)),
            236..=238 => Op::Clear,
            239..=244 => Op::Flush,
            245 => Op::Sleep,
            246..=250 => Op::CloseAndReopen,
            251..=255 => Op::DropAndReopen,
        }
    }
}

fn between(detail: u8) -> Between {
    match detail % 6 {
        0 => Between::OtherKey,
        1 | 2 => Between::Nothing,
        3 => Between::Insert,
        4 => Between::Remove,
        _ => Between::Clear,
    }
}
