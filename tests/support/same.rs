//! Comparing without panicking, so that all that went wrong can be said together.

use std::fmt::Debug;

/// Says what differs, if anything does.
pub(crate) fn same<T: PartialEq + Debug + ?Sized>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}
