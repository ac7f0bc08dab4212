//! Two programs read one thing: what skopeo makes of random archives, logins, rules and references, and what we do.
//!
//! Where they differ by intent, the generator keeps away and a comment there says why. Debian's skopeo is older than
//! what is released today; where that reads otherwise, it is what we follow.
//!
//! `PROPTEST_CASES=1000 cargo test --test it differential` tries more of them.

mod archives;
mod logins;
mod references;
mod rules;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::support::{program, tool};

/// So many cases are tried of each, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 48;

/// A user's machine, on which both programs run.
struct Machine {
    home: TempDir,
    vars: Vec<(&'static str, PathBuf)>,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { home: tempfile::tempdir().unwrap(), vars: Vec::new() };
        for dir in ["bin", "run"] {
            fs_err::create_dir_all(machine.path(dir)).unwrap();
        }
        machine
    }

    /// Returns a path below home.
    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file below home; returns its path.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, content).unwrap();
        path
    }

    /// Installs the credential helper `name`.
    fn install_helper(&self, name: &str, script: &str) {
        program::install(&self.path(&format!("bin/docker-credential-{name}")), script);
    }

    /// Runs `skopeo OPTIONS copy ARGUMENTS…`.
    fn skopeo(&self, options: &[&str], arguments: &[&str]) -> Result<Vec<u8>, String> {
        let home = self.home.path().to_str().unwrap();
        let start = ["--insecure-policy", "--tmpdir", home];
        self.run("skopeo", &[&start, options, &["copy", "--quiet"], arguments].concat())
    }

    /// Runs `longshore push ARGUMENTS…`.
    fn longshore(&self, arguments: &[&str]) -> Result<Vec<u8>, String> {
        let start = ["push", "--progress", "none", "--retries", "0"];
        self.run(env!("CARGO_BIN_EXE_longshore"), &[&start, arguments].concat())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
        let mut path = self.path("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("HOME", self.home.path()).env("PATH", path);
        command.env("XDG_RUNTIME_DIR", self.path("run")).envs(self.vars.iter().cloned());
        tool::output(command.stdin(Stdio::null()))
    }
}
