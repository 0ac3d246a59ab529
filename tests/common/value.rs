//! Values that say what they are: `key u64 | version u64 | filling | xxh3 u64`.
//!
//! Whatever a cache returns can be asked which write it came from, and a single wrong bit shows.

use xxhash_rust::xxh3::xxh3_64;

/// The smallest value there is.
pub(crate) const LEN_MIN: usize = 24;

/// The value of `len` bytes that the write `version` stores under `key`.
pub(crate) fn value(key: u64, version: u64, len: usize) -> Vec<u8> {
    let len = len.max(LEN_MIN);
    let mut bytes = Vec::with_capacity(len);
    bytes.extend(key.to_le_bytes());
    bytes.extend(version.to_le_bytes());
    bytes.extend(filling(key, version, len - LEN_MIN));
    let check = xxh3_64(&bytes);
    bytes.extend(check.to_le_bytes());
    bytes
}

/// The version in a value, once it is proved to be a whole value of `key`.
///
/// # Panics
///
/// If it is not: the cache returned bytes that nobody stored (C2).
pub(crate) fn version(key: u64, bytes: &[u8]) -> u64 {
    parse(key, bytes).unwrap_or_else(|wrong| panic!("corrupt value under key {key}: {wrong}"))
}

/// As [`version`], with an error in place of the panic.
pub(crate) fn parse(key: u64, bytes: &[u8]) -> Result<u64, String> {
    if bytes.len() < LEN_MIN {
        return Err(format!("{} bytes are too few", bytes.len()));
    }
    let (body, check) = bytes.split_at(bytes.len() - 8);
    if number(check) != xxh3_64(body) {
        return Err(format!("the check of {} bytes fails", bytes.len()));
    }
    match number(body) {
        found if found == key => Ok(number(&body[8..])),
        found => Err(format!("it is the value of key {found}")),
    }
}

/// `len` bytes that differ from one write to the next, also where there is no room for a version.
pub(crate) fn filling(key: u64, version: u64, len: usize) -> Vec<u8> {
    let seed = xxh3_64(&[key.to_le_bytes(), version.to_le_bytes()].concat()).to_le_bytes();
    seed.iter()
        .copied()
        .cycle()
        .zip(0u64..)
        .map(|(byte, at)| byte.wrapping_add((at >> 3) as u8))
        .take(len)
        .collect()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}
