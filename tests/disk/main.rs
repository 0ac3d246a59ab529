//! The cache's directory: what is asked of the disk, what that may fail at, and what a damaged one gives.

#[path = "../common/mod.rs"]
mod common;

mod corruption;
mod costs;
mod faults;
mod footprint;
mod format;
mod index_share;
mod open;
mod opening;
mod read_only;
mod reclaim;
mod spill;
mod syncs;
