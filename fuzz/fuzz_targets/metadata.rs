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

const JOURNAL_BYTES: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, file)) = input.split_first() else { return };
    let (kind, mend) = (choice >> 4, Mend(choice));
    let mut file = file.to_vec();
    match kind % 4 {
        0 => {
            // Its length is part of the format, and its end is zeros that no input needs to carry.
            file.resize(JOURNAL_BYTES, 0);
            seal::journal(&mut file, mend);
            bounded(&file, testing::parse_journal);
        }
        1 => {
            seal::snapshot(&mut file, mend);
            bounded(&file, testing::parse_snapshot);
        }
        2 => {
            file.resize(1024, 0);
            seal::state(&mut file, mend);
            bounded(&file, testing::parse_state);
        }
        // One that is not as long as it should be.
        _ => {
            bounded(&file, testing::parse_journal);
            bounded(&file, testing::parse_state);
        }
    }
});

fn bounded<R>(file: &[u8], parse: impl FnOnce(&[u8]) -> R) {
    let (_, largest) = allocation::largest(|| parse(file));
    assert!(largest <= 2 * file.len() + 4096, "{largest} bytes at once for a file of {}", file.len());
}
