//! Reading a file through memory. The only unsafe code over files.

use std::{fmt, fs::File, io, ptr};

use memmap2::{MmapOptions, MmapRaw};

use crate::processor::prefetch;

/// A read-only mapping of the first bytes of a file.
///
/// # Invariants
///
/// 1. The mapping covers `self.raw.len()` bytes, from when it is made until it is dropped.
/// 2. No reference to the mapped bytes ever exists: they are only copied out. Somebody else may
///    change the file at any time; what that leaves is a bad copy, which the caller's checksum
///    turns into a miss.
///
/// That the file is not cut shorter than the mapping is not an invariant but the caller's promise:
/// to break it is no undefined behaviour but a SIGBUS.
pub struct Map {
    raw: MmapRaw,
}

/// A line of the processor's cache, on most of them.
const LINE_BYTES: usize = 64;
/// So much is worth a system call that has all of it read at once, if it has to be read.
const READ_AHEAD_BYTES: usize = 32 << 10;

/// A copy was asked for that does not lie within the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} bytes at {offset} are not within a mapping of {len}")]
pub struct OutOfBounds {
    /// Where the copy was to start.
    pub offset: usize,
    /// How many bytes were wanted.
    pub wanted: usize,
    /// How many bytes are mapped.
    pub len: usize,
}

impl Map {
    /// Maps the first `len` bytes of the file.
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Map> {
        let raw = MmapOptions::new().len(len).map_raw_read_only(file)?;
        // Entries are read one by one at random: read-ahead would fill the page cache with their
        // neighbours. Advice only, so a platform without it loses nothing but that.
        #[cfg(unix)]
        let _ = raw.advise(memmap2::Advice::Random);
        Ok(Map { raw })
    }

    /// Has these bytes brought near; any that are not mapped cost no more.
    #[inline]
    pub(crate) fn prefetch(&self, offset: usize, len: usize) {
        for line in (offset..offset + len).step_by(LINE_BYTES) {
            prefetch(self.raw.as_ptr().wrapping_add(line));
        }
    }

    /// Copies the bytes from `offset` over all of `out`.
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfBounds> {
        let source = self.source(offset, out.len())?;
        // SAFETY: `source` is readable for `out.len()` bytes: that is what `source()` checked, and
        // `self` keeps them mapped (invariant 1). `out` is an exclusive borrow of other memory, so
        // the ranges do not overlap. Bytes need no alignment.
        unsafe { ptr::copy_nonoverlapping(source, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Copies `len` bytes from `offset` into a vector of exactly that capacity.
    pub fn copy_vec(&self, offset: usize, len: usize) -> Result<Vec<u8>, OutOfBounds> {
        let source = self.source(offset, len)?;
        if len >= READ_AHEAD_BYTES {
            // Without read-ahead each page that is not in memory would be a wait of its own. Advice only.
            #[cfg(unix)]
            let _ = self.raw.advise_range(memmap2::Advice::WillNeed, offset, len);
        }
        let mut out = Vec::with_capacity(len);
        // SAFETY: `source` is readable for `len` bytes: that is what `source()` checked, and `self`
        // keeps them mapped (invariant 1). `out` has just been allocated with room for `len` bytes,
        // so it is writable and is none of the mapped memory. Bytes need no alignment.
        unsafe { ptr::copy_nonoverlapping(source, out.as_mut_ptr(), len) };
        // SAFETY: the capacity is at least `len`, and the copy above has initialised that many.
        unsafe { out.set_len(len) };
        Ok(out)
    }

    /// The address of `offset`, if `len` bytes from there on are mapped.
    fn source(&self, offset: usize, len: usize) -> Result<*const u8, OutOfBounds> {
        match offset.checked_add(len) {
            Some(end) if end <= self.raw.len() => Ok(self.raw.as_ptr().wrapping_add(offset)),
            _ => Err(OutOfBounds { offset, wanted: len, len: self.raw.len() }),
        }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} bytes)", self.raw.len())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn copies_what_is_mapped_and_nothing_else() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let map = Map::new(&file, 10).unwrap();
        let mut out = [0; 4];
        map.copy_to(6, &mut out).unwrap();
        assert_eq!(&out, b"6789");
        assert_eq!(map.copy_vec(0, 10).unwrap(), b"0123456789");
        assert_eq!(map.copy_vec(10, 0).unwrap(), b"");
        assert_eq!(map.copy_to(7, &mut out), Err(OutOfBounds { offset: 7, wanted: 4, len: 10 }));
        assert!(map.copy_vec(usize::MAX, 2).is_err());
    }
}
