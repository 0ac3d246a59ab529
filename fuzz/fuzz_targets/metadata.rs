//! A journal, snapshot or STATE that nobody wrote: the first byte says which, and which checks are
//! mended.

#![no_main]

use embercache::testing;
use embercache_fuzz::{
    allocation::{self, Watched},
    seal::{self, Mend},
};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// A journal is read in parts of this length.
const JOURNAL_PART_BYTES: usize = 64 << 10;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, file)) = input.split_first() else { return };
    let (kind, mend) = (choice >> 4, Mend(choice));
    let mut file = file.to_vec();
    let justified = 2 * file.len() + 4096;
    match kind % 4 {
        0 => {
            // Its length is part of the format, and its end is zeros that no input needs to carry.
            seal::journal(&mut file, mend);
            let parse = || testing::parse_journal(&file, testing::JOURNAL_BYTES);
            bounded(justified.max(JOURNAL_PART_BYTES), parse);
        }
        1 => {
            seal::snapshot(&mut file, mend);
            bounded(justified, || testing::parse_snapshot(&file));
        }
        2 => {
            file.resize(1024, 0);
            seal::state(&mut file, mend);
            bounded(justified, || testing::parse_state(&file));
        }
        // One that is not as long as it should be.
        _ => {
            bounded(justified.max(JOURNAL_PART_BYTES), || testing::parse_journal(&file, file.len()));
            bounded(justified, || testing::parse_state(&file));
        }
    }
});

fn bounded<R>(justified: usize, parse: impl FnOnce() -> R) {
    let (_, largest) = allocation::largest(parse);
    assert!(largest <= justified, "{largest} bytes at once, justified are {justified}");
}
