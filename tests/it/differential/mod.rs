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

use std::process::Stdio;

use crate::support::{tool, user::User};

/// So many cases are tried of each, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 48;

impl User {
    /// Runs `skopeo OPTIONS copy ARGUMENTS…`.
    fn skopeo(&self, options: &[&str], arguments: &[&str]) -> Result<Vec<u8>, String> {
        let start = ["--insecure-policy", "--tmpdir", self.home().to_str().unwrap()];
        self.output("skopeo", &[&start, options, &["copy", "--quiet"], arguments].concat())
    }

    /// Runs `longshore push ARGUMENTS…`.
    fn longshore(&self, arguments: &[&str]) -> Result<Vec<u8>, String> {
        let start = ["push", "--progress", "none", "--retries", "0"];
        self.output(env!("CARGO_BIN_EXE_longshore"), &[&start, arguments].concat())
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
        tool::output(self.command(program).args(arguments).stdin(Stdio::null()))
    }
}
