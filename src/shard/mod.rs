//! One stripe of the key space: where each key is, and every legal move between the tiers.

pub(crate) mod clock;
pub(crate) mod cold;
pub(crate) mod entry;
pub(crate) mod ghost;
pub(crate) mod hot;
