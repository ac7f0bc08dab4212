//! How many files may be open: as many as the system allows, since each archive of a folder is one.
//!
//! Usual is a soft limit of 1024, kept for programs that call `select`, and a hard one far above.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Enough for a folder of archives.
const WANTED: u64 = 65_536;

/// Raises the soft limit. Where that fails, whoever opens too many is told.
pub(in crate::cli) fn allow() {
    let mut limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
    if limit.current.is_some_and(|current| current < allowed) {
        limit.current = Some(allowed);
        setrlimit(Resource::Nofile, limit).ok();
    }
}
