//! Any operations, options, closes and kills: the cache may forget, it may not lie.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| embercache_fuzz::model::run(input));
