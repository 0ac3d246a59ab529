//! Line 38: who waits for ever is noticed, and does not hold up the others.

use std::{
    process,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Without an operation that returns for so long, somebody waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `work`, and ends the process if `progress`, a count of what has been done, stands still. It must not
/// wait for anything that the work may have locked.
pub(crate) fn watched<R>(progress: impl Fn() -> u64 + Sync, work: impl FnOnce() -> R) -> R {
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&progress, &has_ended));
        let ending = Ending(&has_ended);
        let result = work();
        drop(ending);
        // By hand: the scope's own way is one that a sanitizer does not see.
        watching.join().expect("it watches only");
        result
    })
}

fn watch(progress: impl Fn() -> u64, has_ended: &AtomicBool) {
    let (mut seen, mut since) = (0, Instant::now());
    while !has_ended.load(Relaxed) {
        thread::sleep(Duration::from_millis(20));
        let done = progress();
        if done != seen {
            (seen, since) = (done, Instant::now());
        } else if since.elapsed() > PATIENCE {
            eprintln!("no operation has returned for {PATIENCE:?}, after {done}");
            process::abort();
        }
    }
}

/// Says that the work has ended, by a panic too: the scope waits for who watches.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
