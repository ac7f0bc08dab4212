//! A program, a shell script, that can be run the moment it is written.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// Writes `text` as an executable script to `path`.
///
/// Another process writes it: of what we had open for writing, a program that another test starts just then holds a
/// copy for a moment, and no file that is open for writing can be run (`ETXTBSY`).
pub(crate) fn install(path: &Path, text: &str) {
    let mut shell = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    write!(shell.stdin.take().unwrap(), "#!/bin/sh\n{text}\n").unwrap();
    assert!(shell.wait().unwrap().success());
}
