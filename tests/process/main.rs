//! What is measured of a whole process, its memory, its files, its time: one suite at a time.

#[path = "../common/mod.rs"]
mod common;

mod allocations;
mod crowd;
mod growth;
mod length_bombs;
mod overhead;
mod restart;
mod slow_disk;
mod user_code;
mod write_amplification;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// While it is held, nothing else is measured. Guards the process, so a suite that failed has harmed nothing.
fn alone() -> MutexGuard<'static, ()> {
    static PROCESS: Mutex<()> = Mutex::new(());
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}
