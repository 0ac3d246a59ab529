//! `index.snap`: the cold index as it was at a clean close, one block a stripe, so that a stripe
//! can be read when it is first touched.

use std::{io, ops::Range, sync::Arc};

use super::{
    directory::Directory,
    layout::{
        Check, SNAPSHOT_MAGIC, SNAPSHOT_VERSION, check, is_checked, put, put_check, u16_at, u32_at, u64_at,
    },
};
use crate::{
    hash::KeyHash,
    io::{IoFile, OpenMode},
};

pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const BLOCK_ENTRY_BYTES: usize = 24;
/// The hash, and 56 bits: what the index keeps for it.
const SLOT_BYTES: usize = 15;
/// Slots are read by so many bytes, which stay near the processor until they are in the index.
const PIECE_BYTES: usize = 4096 * SLOT_BYTES;
/// More stripes than anybody needs; bounds what a header can make us allocate.
const STRIPE_BITS_MAX: u32 = 20;

/// The first bytes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotHeader {
    pub(crate) stripe_bits: u32,
    pub(crate) epoch: u64,
    /// Random; STATE names it at a clean close, so an older snapshot is never taken for this one.
    pub(crate) id: u64,
    /// Of the encoded directory of blocks.
    pub(crate) blocks_check: u64,
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
        })
    }
}

/// Where one stripe's slots lie.
#[derive(Clone, Copy, Debug)]
struct Block {
    offset: u64,
    count: u32,
    check: u64,
}

impl Block {
    fn encode(&self) -> [u8; BLOCK_ENTRY_BYTES] {
        let mut bytes = [0; BLOCK_ENTRY_BYTES];
        put(&mut bytes, 0, self.offset.to_le_bytes());
        put(&mut bytes, 8, self.count.to_le_bytes());
        put(&mut bytes, 16, self.check.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Block {
        Block { offset: u64_at(bytes, 0), count: u32_at(bytes, 8), check: u64_at(bytes, 16) }
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

/// Writes a snapshot block by block; it takes the old one's place when it is whole.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    directory: Arc<Directory>,
    file: Arc<dyn IoFile>,
    header: SnapshotHeader,
    blocks: Vec<Block>,
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
            header: SnapshotHeader { stripe_bits, epoch, id, blocks_check: 0 },
            blocks: Vec::with_capacity(1 << stripe_bits),
            end: (HEADER_BYTES + (BLOCK_ENTRY_BYTES << stripe_bits)) as u64,
        })
    }

    /// Appends the next stripe's slots. Returns the bytes written.
    pub(crate) fn block(&mut self, slots: &[(KeyHash, u64)]) -> io::Result<usize> {
        let mut bytes = Vec::with_capacity(slots.len() * SLOT_BYTES);
        for &(hash, packed) in slots {
            bytes.extend_from_slice(&encode_slot(hash, packed));
        }
        self.file.write_all_at(&bytes, self.end)?;
        let check = check(&bytes, self.header.id ^ self.blocks.len() as u64);
        let count = u32::try_from(slots.len()).map_err(io::Error::other)?;
        self.blocks.push(Block { offset: self.end, count, check });
        self.end += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// Puts the snapshot in place, durably. Returns its id and the bytes written here.
    ///
    /// # Panics
    ///
    /// If there were more or fewer blocks than stripes.
    pub(crate) fn finish(mut self) -> io::Result<(u64, usize)> {
        assert_eq!(self.blocks.len(), 1 << self.header.stripe_bits, "one block a stripe");
        let blocks: Vec<u8> = self.blocks.iter().flat_map(Block::encode).collect();
        self.header.blocks_check = check(&blocks, self.header.id);
        let head = [&self.header.encode()[..], &blocks].concat();
        self.file.write_all_at(&head, 0)?;
        self.file.sync()?;
        let Directory { io, path, .. } = &*self.directory;
        io.rename(&self.directory.snapshot_temporary(), &self.directory.snapshot())?;
        io.sync_dir(path)?;
        Ok((self.header.id, head.len()))
    }
}

/// The snapshot of the last clean close, read stripe by stripe.
#[derive(Debug)]
pub(crate) struct SnapshotReader {
    file: Arc<dyn IoFile>,
    file_bytes: u64,
    header: SnapshotHeader,
    blocks: Vec<Block>,
}

/// A block is not what was written: the stripe must be recovered from the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

impl SnapshotReader {
    /// `None` if there is no whole snapshot of that epoch and id.
    pub(crate) fn open(directory: &Directory, epoch: u64, id: u64) -> Option<SnapshotReader> {
        let file = directory.io.open(&directory.snapshot(), OpenMode::Read).ok()?;
        let file_bytes = file.file_len().ok()?;
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let header = SnapshotHeader::decode(&bytes)?;
        if header.epoch != epoch || header.id != id {
            return None;
        }
        let blocks_bytes = BLOCK_ENTRY_BYTES << header.stripe_bits;
        if (HEADER_BYTES + blocks_bytes) as u64 > file_bytes {
            return None;
        }
        let mut bytes = vec![0; blocks_bytes];
        file.read_exact_at(&mut bytes, HEADER_BYTES as u64).ok()?;
        if check(&bytes, id) != header.blocks_check {
            return None;
        }
        let blocks = bytes.chunks_exact(BLOCK_ENTRY_BYTES).map(Block::decode).collect();
        let reader = SnapshotReader { file, file_bytes, header, blocks };
        // Blocks that overlap could ask for more memory than the file has bytes.
        (reader.len().saturating_mul(SLOT_BYTES as u64) <= file_bytes).then_some(reader)
    }

    /// The slots in all blocks.
    pub(crate) fn len(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.count)).sum()
    }

    /// The slots of a stripe of `1 << stripe_bits`, which may be another number than the writer's:
    /// stripes are ranges of the hash, so the ones nest in the others. What was found before an error
    /// is not to be used.
    pub(crate) fn read(
        &self,
        stripe: usize,
        stripe_bits: u32,
        mut found: impl FnMut(KeyHash, u64),
    ) -> Result<(), Damaged> {
        for index in self.blocks_of(stripe, stripe_bits) {
            self.read_block(index, |hash, packed| {
                if hash.stripe(stripe_bits) == stripe {
                    found(hash, packed);
                }
            })?;
        }
        Ok(())
    }

    /// A stripe has so many slots at the most.
    pub(crate) fn len_of(&self, stripe: usize, stripe_bits: u32) -> usize {
        let blocks = self.blocks_of(stripe, stripe_bits).filter_map(|index| self.blocks.get(index));
        blocks.map(|block| block.count as usize).sum()
    }

    fn blocks_of(&self, stripe: usize, stripe_bits: u32) -> Range<usize> {
        let theirs = self.header.stripe_bits;
        let (first, count) = match theirs.checked_sub(stripe_bits) {
            Some(finer) => (stripe << finer, 1 << finer),
            None => (stripe >> (stripe_bits - theirs), 1),
        };
        first..first + count
    }

    fn read_block(&self, index: usize, mut found: impl FnMut(KeyHash, u64)) -> Result<(), Damaged> {
        let block = self.blocks.get(index).ok_or(Damaged)?;
        let len = u64::from(block.count) * SLOT_BYTES as u64;
        let end = block.offset.checked_add(len).filter(|&end| end <= self.file_bytes).ok_or(Damaged)?;
        let mut check = Check::new(self.header.id ^ index as u64);
        let mut piece = vec![0; PIECE_BYTES.min(len as usize)];
        let mut at = block.offset;
        while at < end {
            piece.truncate((end - at) as usize);
            self.file.read_exact_at(&mut piece, at).map_err(|_| Damaged)?;
            check.update(&piece);
            for (hash, packed) in piece.chunks_exact(SLOT_BYTES).map(decode_slot) {
                found(hash, packed);
            }
            at += piece.len() as u64;
        }
        if check.finish() == block.check { Ok(()) } else { Err(Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_every_bit_of_both() {
        for (hash, packed) in [(0, (1 << 56) - 1), (u64::MAX, 0), (1 << 63 | 2, 1 << 55 | 4)] {
            assert_eq!(decode_slot(&encode_slot(KeyHash(hash), packed)), (KeyHash(hash), packed));
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_slot_takes_no_more_than_56_bits() {
        encode_slot(KeyHash(0), 1 << 56);
    }
}
