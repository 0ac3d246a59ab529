//! `index.snap`: the cold index as it was at a clean close, stripe by stripe, so that a stripe can be read
//! when it is first touched; in blocks, so that one hash can be looked up before that.

use std::{io, ops::Range, sync::Arc};

use super::{
    directory::Directory,
    layout::{SNAPSHOT_MAGIC, SNAPSHOT_VERSION, check, is_checked, put, put_check, u16_at, u32_at, u64_at},
};
use crate::{
    hash::KeyHash,
    io::{IoFile, OpenMode},
};

pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const BLOCK_ENTRY_BYTES: usize = 24;
/// The hash, and 56 bits: what the index keeps for it.
const SLOT_BYTES: usize = 15;
/// Slots of a block at the most: so few that one look-up can read a block, and that its bytes stay near the
/// processor until they are in the index.
const BLOCK_SLOTS: usize = 2048;
/// More stripes than anybody needs; bounds what a header can make us allocate.
const STRIPE_BITS_MAX: u32 = 20;

/// The first bytes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotHeader {
    pub(crate) stripe_bits: u32,
    pub(crate) epoch: u64,
    /// Random; STATE names it at a clean close, so an older snapshot is never taken for this one.
    pub(crate) id: u64,
    /// Of the encoded list of blocks.
    pub(crate) blocks_check: u64,
    /// How many blocks the list has.
    pub(crate) blocks: u32,
}

impl SnapshotHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put(&mut bytes, 0, SNAPSHOT_MAGIC);
        put(&mut bytes, 8, SNAPSHOT_VERSION.to_le_bytes());
        put(&mut bytes, 12, self.stripe_bits.to_le_bytes());
        put(&mut bytes, 16, self.epoch.to_le_bytes());
        put(&mut bytes, 24, self.id.to_le_bytes());
        put(&mut bytes, 32, self.blocks_check.to_le_bytes());
        put(&mut bytes, 40, self.blocks.to_le_bytes());
        put_check(&mut bytes, 0);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<SnapshotHeader> {
        let known = bytes[..8] == SNAPSHOT_MAGIC
            && u16_at(bytes, 8) == SNAPSHOT_VERSION
            && u32_at(bytes, 12) <= STRIPE_BITS_MAX
            && is_checked(bytes, 0);
        known.then_some(SnapshotHeader {
            stripe_bits: u32_at(bytes, 12),
            epoch: u64_at(bytes, 16),
            id: u64_at(bytes, 24),
            blocks_check: u64_at(bytes, 32),
            blocks: u32_at(bytes, 40),
        })
    }
}

/// Some slots of one stripe, one behind the other in the order of their hashes.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// The hash of its first slot.
    first: KeyHash,
    check: u64,
    count: u32,
    stripe: u32,
}

impl Block {
    fn encode(&self) -> [u8; BLOCK_ENTRY_BYTES] {
        let mut bytes = [0; BLOCK_ENTRY_BYTES];
        put(&mut bytes, 0, self.first.0.to_le_bytes());
        put(&mut bytes, 8, self.check.to_le_bytes());
        put(&mut bytes, 16, self.count.to_le_bytes());
        put(&mut bytes, 20, self.stripe.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Block {
        Block {
            first: KeyHash(u64_at(bytes, 0)),
            check: u64_at(bytes, 8),
            count: u32_at(bytes, 16),
            stripe: u32_at(bytes, 20),
        }
    }

    /// What the list is ordered by.
    fn place(&self) -> (u32, u64) {
        (self.stripe, self.first.order())
    }

    fn len(&self) -> usize {
        self.count as usize * SLOT_BYTES
    }
}

/// # Panics
///
/// If `packed` has more than 56 bits.
pub(crate) fn encode_slot(hash: KeyHash, packed: u64) -> [u8; SLOT_BYTES] {
    assert!(packed >> 56 == 0, "{packed:#x} does not fit a slot");
    let mut bytes = [0; SLOT_BYTES];
    put(&mut bytes, 7, (packed << 8).to_le_bytes());
    put(&mut bytes, 0, hash.0.to_le_bytes());
    bytes
}

fn decode_slot(bytes: &[u8]) -> (KeyHash, u64) {
    // The eight bytes from 7 on begin with one of the hash.
    (KeyHash(u64_at(bytes, 0)), u64_at(bytes, 7) >> 8)
}

/// Writes a snapshot stripe by stripe; it takes the old one's place when it is whole.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    directory: Arc<Directory>,
    file: Arc<dyn IoFile>,
    header: SnapshotHeader,
    blocks: Vec<Block>,
    stripes: u32,
    end: u64,
}

impl SnapshotFile {
    pub(crate) fn create(
        directory: &Arc<Directory>,
        epoch: u64,
        stripe_bits: u32,
    ) -> io::Result<SnapshotFile> {
        assert!(stripe_bits <= STRIPE_BITS_MAX, "more stripes than a snapshot can describe");
        let path = directory.snapshot_temporary();
        match directory.io.unlink(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = directory.io.open(&path, OpenMode::CreateNew)?;
        let id = getrandom::u64().map_err(io::Error::other)?.max(1);
        Ok(SnapshotFile {
            directory: Arc::clone(directory),
            file,
            header: SnapshotHeader { stripe_bits, epoch, id, blocks_check: 0, blocks: 0 },
            blocks: Vec::new(),
            stripes: 0,
            end: HEADER_BYTES as u64,
        })
    }

    /// Appends the next stripe's slots, which are in the [order](KeyHash::order) of their hashes. Returns the
    /// bytes written.
    pub(crate) fn write_stripe(&mut self, slots: &[(KeyHash, u64)]) -> io::Result<usize> {
        debug_assert!(slots.is_sorted_by_key(|(hash, _)| hash.order()));
        let mut bytes = Vec::with_capacity(slots.len() * SLOT_BYTES);
        for block in slots.chunks(BLOCK_SLOTS) {
            let start = bytes.len();
            for &(hash, packed) in block {
                bytes.extend_from_slice(&encode_slot(hash, packed));
            }
            self.blocks.push(Block {
                first: block[0].0,
                check: check(&bytes[start..], self.header.id ^ self.blocks.len() as u64),
                count: block.len() as u32,
                stripe: self.stripes,
            });
        }
        self.file.write_all_at(&bytes, self.end)?;
        self.stripes += 1;
        self.end += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// Puts the snapshot in place, durably once the directory has been synced. Returns its id and the bytes
    /// written here.
    ///
    /// # Panics
    ///
    /// If there were more or fewer stripes than were announced.
    pub(crate) fn finish(mut self) -> io::Result<(u64, usize)> {
        assert_eq!(self.stripes, 1 << self.header.stripe_bits, "all stripes, and each once");
        let list: Vec<u8> = self.blocks.iter().flat_map(Block::encode).collect();
        self.header.blocks = u32::try_from(self.blocks.len()).map_err(io::Error::other)?;
        self.header.blocks_check = check(&list, self.header.id);
        self.file.write_all_at(&list, self.end)?;
        self.file.write_all_at(&self.header.encode(), 0)?;
        self.file.sync()?;
        self.directory.io.rename(&self.directory.snapshot_temporary(), &self.directory.snapshot())?;
        Ok((self.header.id, HEADER_BYTES + list.len()))
    }
}

/// The snapshot of the last clean close.
#[derive(Debug)]
pub(crate) struct SnapshotReader {
    file: Arc<dyn IoFile>,
    header: SnapshotHeader,
    blocks: Vec<Block>,
    /// Where each block begins.
    offsets: Vec<u64>,
}

/// A block is not what was written: the stripe must be recovered from the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

impl SnapshotReader {
    /// `None` if there is no whole snapshot of that epoch and id. An error says nothing about it.
    pub(crate) fn open(directory: &Directory, epoch: u64, id: u64) -> io::Result<Option<SnapshotReader>> {
        let file = directory.open(&directory.snapshot())?;
        Ok(file.and_then(|file| SnapshotReader::over(file, epoch, id)))
    }

    fn over(file: Arc<dyn IoFile>, epoch: u64, id: u64) -> Option<SnapshotReader> {
        let file_bytes = file.file_len().ok()?;
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let header = SnapshotHeader::decode(&bytes)?;
        if header.epoch != epoch || header.id != id {
            return None;
        }
        let list_bytes = u64::from(header.blocks) * BLOCK_ENTRY_BYTES as u64;
        let list_at = file_bytes.checked_sub(list_bytes)?;
        if list_at < HEADER_BYTES as u64 {
            return None;
        }
        let mut list = vec![0; list_bytes as usize];
        file.read_exact_at(&mut list, list_at).ok()?;
        if check(&list, id) != header.blocks_check {
            return None;
        }
        let blocks: Vec<Block> = list.chunks_exact(BLOCK_ENTRY_BYTES).map(Block::decode).collect();
        // Whoever wrote something else knew the checks; it is not searched, and not much is read at once.
        let is_ours = blocks.is_sorted_by_key(Block::place)
            && blocks.iter().all(|block| (1..=BLOCK_SLOTS as u32).contains(&block.count));
        if !is_ours {
            return None;
        }
        let mut end = HEADER_BYTES as u64;
        let mut offsets = Vec::with_capacity(blocks.len());
        for block in &blocks {
            offsets.push(end);
            end += block.len() as u64;
        }
        (end == list_at).then_some(SnapshotReader { file, header, blocks, offsets })
    }

    /// The slots in all blocks.
    pub(crate) fn len(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.count)).sum()
    }

    /// The slots of a stripe of `1 << stripe_bits` and of its [siblings](Self::siblings). The number may be another
    /// than the writer's: stripes are ranges of the hash, so the ones nest in the others. What was found before an
    /// error is not to be used.
    pub(crate) fn read(
        &self,
        stripe: usize,
        stripe_bits: u32,
        mut found: impl FnMut(KeyHash, u64),
    ) -> Result<(), Damaged> {
        let siblings = self.siblings(stripe, stripe_bits);
        let mut bytes = Vec::new();
        for index in self.blocks_of(stripe, stripe_bits) {
            self.read_block(index, &mut bytes)?;
            let slots = bytes.chunks_exact(SLOT_BYTES).map(decode_slot);
            for (hash, packed) in slots.filter(|(hash, _)| siblings.contains(&hash.stripe(stripe_bits))) {
                found(hash, packed);
            }
        }
        Ok(())
    }

    /// What one hash has, for the price of one block.
    pub(crate) fn find(&self, hash: KeyHash) -> Result<Option<u64>, Damaged> {
        let place = (hash.stripe(self.header.stripe_bits) as u32, hash.order());
        let behind = self.blocks.partition_point(|block| block.place() <= place);
        let Some(index) = behind.checked_sub(1) else { return Ok(None) };
        let mut bytes = Vec::new();
        self.read_block(index, &mut bytes)?;
        let mut slots = bytes.chunks_exact(SLOT_BYTES).map(decode_slot);
        Ok(slots.find(|(found, _)| *found == hash).map(|(_, packed)| packed))
    }

    /// The stripes of `1 << stripe_bits` that nest in the same one of the writer's, and so share its blocks: this
    /// one alone, unless the writer had fewer.
    pub(crate) fn siblings(&self, stripe: usize, stripe_bits: u32) -> Range<usize> {
        let finer = stripe_bits.saturating_sub(self.header.stripe_bits);
        let first = stripe >> finer << finer;
        first..first + (1 << finer)
    }

    /// A stripe and its siblings have so many slots at the most.
    pub(crate) fn len_of(&self, stripe: usize, stripe_bits: u32) -> usize {
        self.blocks[self.blocks_of(stripe, stripe_bits)].iter().map(|block| block.count as usize).sum()
    }

    fn blocks_of(&self, stripe: usize, stripe_bits: u32) -> Range<usize> {
        let theirs = self.header.stripe_bits;
        let (first, count) = match theirs.checked_sub(stripe_bits) {
            Some(finer) => (stripe << finer, 1 << finer),
            None => (stripe >> (stripe_bits - theirs), 1),
        };
        let begin = |stripe| self.blocks.partition_point(|block| (block.stripe as usize) < stripe);
        begin(first)..begin(first + count)
    }

    /// A block's bytes, checked.
    fn read_block(&self, index: usize, bytes: &mut Vec<u8>) -> Result<(), Damaged> {
        let block = &self.blocks[index];
        bytes.resize(block.len(), 0);
        self.file.read_exact_at(bytes, self.offsets[index]).map_err(|_| Damaged)?;
        if check(bytes, self.header.id ^ index as u64) == block.check { Ok(()) } else { Err(Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::memory::MemoryDisk;

    #[test]
    fn slots_keep_every_bit_of_both() {
        for (hash, packed) in [(0, (1 << 56) - 1), (u64::MAX, 0), (1 << 63 | 2, 1 << 55 | 4)] {
            assert_eq!(decode_slot(&encode_slot(KeyHash(hash), packed)), (KeyHash(hash), packed));
        }
    }

    /// Stripes of several blocks, of one and of none.
    #[test]
    fn one_hash_is_found_in_its_block() {
        const STRIPE_BITS: u32 = 2;
        let directory = Directory::enter(Arc::new(MemoryDisk::new()), "/cache".into()).unwrap();
        let directory = Arc::new(directory);
        let counts = [3 * BLOCK_SLOTS as u64 + 1, 0, 5, BLOCK_SLOTS as u64];
        let slots = |stripe: u64| {
            let hash =
                move |number: u64| KeyHash(stripe << 62 | number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
            let mut slots: Vec<_> = (0..counts[stripe as usize]).map(|n| (hash(n), n)).collect();
            slots.sort_unstable_by_key(|(hash, _)| hash.order());
            slots
        };
        let mut file = SnapshotFile::create(&directory, 1, STRIPE_BITS).unwrap();
        (0..4).for_each(|stripe| _ = file.write_stripe(&slots(stripe)).unwrap());
        let (id, _) = file.finish().unwrap();

        let reader = SnapshotReader::open(&directory, 1, id).unwrap().unwrap();
        let stripes_of_blocks: Vec<u32> = reader.blocks.iter().map(|block| block.stripe).collect();
        assert_eq!(stripes_of_blocks, [0, 0, 0, 0, 2, 3]);
        assert_eq!(reader.len(), counts.iter().sum());
        for (hash, packed) in (0..4).flat_map(slots) {
            assert_eq!(reader.find(hash), Ok(Some(packed)));
            assert_eq!(reader.find(KeyHash(hash.0 ^ 1 << 20)), Ok(None));
        }
        for absent in [3, 1 << 62, u64::MAX] {
            assert_eq!(reader.find(KeyHash(absent)), Ok(None));
        }

        // Damage in the second block is seen by whoever reads that.
        let snapshot = directory.io.open(&directory.snapshot(), OpenMode::Write).unwrap();
        let at = reader.offsets[1] + 77;
        let mut byte = [0];
        snapshot.read_exact_at(&mut byte, at).unwrap();
        snapshot.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let of_stripe = slots(0);
        let found: Vec<_> = of_stripe.iter().map(|&(hash, _)| reader.find(hash).is_err()).collect();
        assert!(found.iter().zip(0..).all(|(&is_damaged, n)| is_damaged == (n / BLOCK_SLOTS == 1)));
        assert_eq!(reader.read(0, STRIPE_BITS, |_, _| {}), Err(Damaged));
        assert_eq!(reader.read(3, STRIPE_BITS, |_, _| {}), Ok(()));
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_slot_takes_no_more_than_56_bits() {
        encode_slot(KeyHash(0), 1 << 56);
    }
}
