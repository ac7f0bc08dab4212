//! What this machine cannot do, as `tests/UNAVAILABLE` says: tests that need it are skipped.
//!
//! `tests/run` probes every capability first and fails where one is missing without standing there, so that no
//! test is skipped unseen.

use std::path::Path;

/// Returns whether a capability stands in `tests/UNAVAILABLE`.
pub(crate) fn is_unavailable(name: &str) -> bool {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/UNAVAILABLE");
    let list = fs_err::read_to_string(list).unwrap();
    list.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(": ")))
}
