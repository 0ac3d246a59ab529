//! What the end of a process or of a machine leaves, at any moment, and what comes back of it.

#[path = "../common/mod.rs"]
mod common;

mod every_moment;
mod invalidations;
mod kill;
mod points;
mod power_loss;
