//! A user's machine: a home of its own, with the files, variables and programs that stand around the one that is run.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{program, until::PATIENCE};

/// A user's machine.
pub(crate) struct User {
    home: TempDir,
    vars: Vec<(&'static str, OsString)>,
}

impl User {
    /// Somebody new here.
    pub(crate) fn new() -> Self {
        let user = Self { home: tempfile::tempdir().unwrap(), vars: Vec::new() };
        for dir in ["bin", "run"] {
            fs_err::create_dir_all(user.path(dir)).unwrap();
        }
        user
    }

    /// Sets a variable.
    pub(crate) fn with(mut self, key: &'static str, value: impl Into<OsString>) -> Self {
        self.set(key, value);
        self
    }

    /// Sets a variable.
    pub(crate) fn set(&mut self, key: &'static str, value: impl Into<OsString>) {
        self.vars.push((key, value.into()));
    }

    /// Returns the home.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Returns a path below home.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home().join(name)
    }

    /// Writes a file below home; returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, content).unwrap();
        path
    }

    /// Reads a file below home.
    pub(crate) fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.path(name)).unwrap()
    }

    /// Installs the credential helper `name`, a shell script whose first argument is the verb.
    pub(crate) fn install_helper(&self, name: &str, script: &str) {
        let path = self.path(&format!("bin/docker-credential-{name}"));
        program::install(&path, &format!("cd '{}'\n{script}", self.home().display()));
    }

    /// Prepares a program to run here.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut path = self.path("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new("timeout");
        let patience = PATIENCE.as_secs().to_string();
        command.args(["--foreground", "--signal=KILL", &patience, program]);
        command.env_clear().env("HOME", self.home()).env("PATH", path);
        command.env("XDG_RUNTIME_DIR", self.path("run"));
        command.envs(self.vars.iter().map(|(key, value)| (key, value)));
        command
    }
}
