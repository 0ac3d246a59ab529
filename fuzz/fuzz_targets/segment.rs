//! A segment file that nobody wrote: whatever recovery and reads make of it, they do not panic, find
//! nothing outside of it, find the same twice, and allocate no more than it justifies.

#![no_main]

use embercache::testing;
use embercache_fuzz::{
    allocation::{self, Watched},
    seal::{self, Mend},
};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// A damaged segment is noted in the journal, which is read in parts of this length.
const JOURNAL_PART_BYTES: usize = 64 << 10;

fuzz_target!(|input: &[u8]| {
    let Some((&mend, file)) = input.split_first() else { return };
    let mut file = file.to_vec();
    seal::segment(&mut file, Mend(mend));
    let (_, largest) = allocation::largest(|| testing::parse_segment(&file));
    // An entry of 11 bytes takes 32 in memory, one of a record of 32 up to twice that in a vector that grows.
    let justified = (4 * file.len() + 4096).max(JOURNAL_PART_BYTES);
    assert!(largest <= justified, "{largest} bytes at once for a file of {}", file.len());
});
