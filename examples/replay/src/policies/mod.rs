//! Policies in their plainest form, to compare with: no threads, no values, arrays by key number.

mod fifo;
mod lru;
mod s3_fifo;

pub use fifo::Fifo;
pub use lru::Lru;
pub use s3_fifo::S3Fifo;

#[cfg(test)]
use crate::{player::Player, trace::Trace};

/// How often a policy hits.
#[cfg(test)]
fn hits(mut player: impl Player, keys: &[u64]) -> usize {
    Trace::of(keys).requests().filter(|&request| player.request(request)).count()
}
