//! The promise, judged by what was acknowledged: no look-up returns a value that was overwritten, removed or cleared.

#[path = "../common/mod.rs"]
mod common;

mod audit;
mod flush_keeps;
mod model;
mod no_stale;
mod peers_lie;
mod stays_dead;
