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
}
