//! Runs a tool of the machine to its end.

use std::process::Command;

/// Returns what it writes to standard output, or what it complains of.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
