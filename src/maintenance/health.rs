//! Whether the disk takes what it is given, and when to ask it again.

use std::time::Duration;

use crate::{error::Error, sync::Instant};

/// The first pause, and the longest that it grows to by doubling.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(60);

/// The disk's health. While it fails, what leaves RAM is forgotten, and it is tried again after a
/// pause that doubles from one second to one minute.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: u64,
    /// Failures since it last worked.
    in_a_row: u32,
    retry_at: Option<Instant>,
    last_error: Option<Error>,
}

impl Health {
    pub(crate) fn is_good(&self) -> bool {
        self.retry_at.is_none()
    }

    /// Whether it fails and it is time to try again.
    pub(crate) fn is_retry_due(&self) -> bool {
        self.retry_at.is_some_and(|at| Instant::now() >= at)
    }

    pub(crate) fn note_failure(&mut self, error: Error) {
        let backoff = FIRST_BACKOFF * 2_u32.pow(self.in_a_row.min(6));
        self.retry_at = Some(Instant::now() + backoff.min(LAST_BACKOFF));
        self.failures += 1;
        self.in_a_row += 1;
        self.last_error = Some(error);
    }

    /// It may be given something again; whether it works shows then.
    pub(crate) fn try_again(&mut self) {
        self.retry_at = None;
    }

    pub(crate) fn note_success(&mut self) {
        self.in_a_row = 0;
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    /// The error, if there was a failure since there were `failures`.
    pub(crate) fn take_error_since(&mut self, failures: u64) -> Result<(), Error> {
        match self.last_error.take() {
            Some(error) if self.failures > failures => Err(error),
            _ => Ok(()),
        }
    }
}
