//! Bytes that no codec wrote: the first says which codec is to decode the others.

#![no_main]

use embercache_fuzz::{allocation::Watched, codecs};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fuzz_target!(|input: &[u8]| codecs::run(input));
