//! Programs that write an archive to their standard output, as the scripts of Nix's `streamLayeredImage` do.
//!
//! The program runs only while its output is read, and one that fails makes the archive invalid however whole
//! it looks. Its messages go where ours go.

use std::{
    io::{self, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::error::{Context as _, Error, ErrorKind, Result};

/// What a running program writes.
#[derive(Debug)]
pub(super) struct Output {
    name: String,
    child: Child,
    /// Taken away when it has ended.
    stdout: Option<ChildStdout>,
}

impl Output {
    /// Runs a program without arguments and without input.
    pub(super) fn of(program: &Path) -> Result<Self> {
        let name = format!("`{}`", program.display());
        // A bare name would be looked for elsewhere.
        let mut child = Command::new(Path::new(".").join(program))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context(ErrorKind::Usage, || format!("running {name}"))?;
        let stdout = child.stdout.take();
        Ok(Self { name, child, stdout })
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(stdout) = &mut self.stdout else { return Ok(0) };
        let read = stdout.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        self.stdout = None;
        let status = self.child.wait()?;
        if status.success() {
            return Ok(0);
        }
        Err(io::Error::other(Error::source(format!("{} failed: {status}", self.name))))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Whoever stops reading early has no use for the rest; a program that has ended cannot be killed.
        drop(self.stdout.take());
        if self.child.kill().is_ok() {
            self.child.wait().map(drop).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result");
        crate::program::install(&path, text);
        (dir, path)
    }

    #[test]
    fn what_a_program_writes_is_read_to_its_end() {
        let (_dir, path) = script("echo one; echo two >&1");
        let mut text = String::new();
        Output::of(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn a_program_that_fails_is_an_error_after_all_it_wrote() {
        let (_dir, path) = script("echo one; exit 3");
        let mut bytes = Vec::new();
        let error = Output::of(&path).unwrap().read_to_end(&mut bytes).unwrap_err();
        assert_eq!(bytes, b"one\n");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        assert_eq!(Output::of(Path::new("/none")).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_program_nobody_listens_to_is_ended() {
        let (_dir, path) = script("while :; do echo more; done");
        let mut output = Output::of(&path).unwrap();
        output.read_exact(&mut [0; 5]).unwrap();
        drop(output);
    }
}
