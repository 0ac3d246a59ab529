//! A cache's size: a share of what the trace asks for, or a number.

use std::str::FromStr;

use crate::trace::Trace;

/// A size as the user names it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// Of the distinct keys, or of their bytes.
    Share(f64),
    Absolute(u64),
}

impl Size {
    /// Entries, or bytes where the trace has weights.
    pub fn of(self, trace: &Trace) -> u64 {
        match self {
            Size::Share(share) => (share * trace.footprint() as f64) as u64,
            Size::Absolute(size) => size,
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let size = match text.strip_suffix('%') {
            Some(percent) => percent
                .parse()
                .ok()
                .filter(|percent| (0.0..=100.0).contains(percent) && *percent > 0.0)
                .map(|percent: f64| Size::Share(percent / 100.0)),
            None => text.parse().ok().filter(|&size| size > 0).map(Size::Absolute),
        };
        size.ok_or_else(|| format!("{text:?} is neither a percentage, as 0.1%, nor a number above 0"))
    }
}

/// Smallest and largest of the synthetic sizes.
const BYTES_MIN: f64 = 64.0;
const BYTES_MAX: f64 = 256.0 * 1024.0;

/// A size for a key: log-uniform, so that each doubling from 64 B to 256 KiB has a twelfth of the keys; by
/// a hash of the key (SplitMix64's finish), so that it has nothing to do with how the key is used.
pub fn synthetic_bytes(key: u64) -> u32 {
    let mut hash = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let uniform = (hash >> 11) as f64 / (1_u64 << 53) as f64;
    (BYTES_MIN * (BYTES_MAX / BYTES_MIN).powf(uniform)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_share_or_a_number() {
        let trace = Trace::of(&(0..1_000).collect::<Vec<_>>());
        assert_eq!("0.5%".parse::<Size>().unwrap().of(&trace), 5);
        assert_eq!("70".parse::<Size>().unwrap().of(&trace), 70);
        for wrong in ["", "0", "0%", "101%", "-1", "x"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_doubling_has_a_twelfth_of_the_keys() {
        let mut counts = [0; 12];
        for key in 0..12_000 {
            let bytes = synthetic_bytes(key);
            assert!((64..=256 * 1024).contains(&bytes), "{bytes}");
            counts[(bytes.ilog2() - 6) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }
}
