//! Waits for what another process or thread does, which nobody here is told of.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Nothing in a test takes so long, on however busy a machine, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks.
const BLINK: Duration = Duration::from_millis(5);

/// Looks until it is so; what never comes is said to be missing.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: this never comes");
        thread::sleep(BLINK);
    }
}
