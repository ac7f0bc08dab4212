//! Getting in, as a user does: by the binary, with files, variables and programs around it, at Debian's
//! docker-registry and at one that misbehaves.

mod certificates;
mod helpers;
mod hostile;
mod logins;
mod secrets;
mod terminal;
mod tokens;

use std::{
    ffi::OsStr,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{docker_registry::DockerRegistry, user::User};

/// Who is let in by [`private_registry`].
const USER: &str = "me";
const PASSWORD: &str = "s3cret";

/// The same for docker-registry: `htpasswd -nbB -C 5 me s3cret`.
const HTPASSWD: &str = "me:$2y$05$kv8avNLtSrh43FD9EIqAk.9tQp9mDM.fZjDjE8V6zqz1RyuW/wavm\n";

/// A run that has ended.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl User {
    /// Runs `longshore ARGUMENTS…` with this on standard input.
    fn fed<I: IntoIterator>(&self, input: &str, arguments: I) -> Run
    where
        I::Item: AsRef<OsStr>,
    {
        fed(self.command(env!("CARGO_BIN_EXE_longshore")).args(arguments), input)
    }

    /// Runs `longshore ARGUMENTS…`.
    fn run<I: IntoIterator>(&self, arguments: I) -> Run
    where
        I::Item: AsRef<OsStr>,
    {
        self.fed("", arguments)
    }

    /// Pushes an image to `HOST/REPOSITORY:1`.
    fn push(&self, destination: &str, options: &[&str]) -> Run {
        let mut arguments = vec!["push", IMAGE, destination];
        arguments.extend(options);
        self.run(arguments)
    }

    /// Logs in with a password that comes by standard input.
    fn log_in(&self, registry: &str, password: &str, options: &[&str]) -> Run {
        let mut arguments = vec!["login", "--username", USER, "--password-stdin", registry];
        arguments.extend(options);
        self.fed(&format!("{password}\n"), arguments)
    }
}

impl Run {
    /// The exit code is this; what was said on standard error is returned.
    #[track_caller]
    fn ended(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        &self.stderr
    }

    /// The push ended well.
    #[track_caller]
    fn pushed(&self) {
        self.ended(0);
        assert!(self.stdout.contains("@sha256:") && self.stdout.lines().count() == 1, "{self:?}");
    }

    /// The exit code is this, and all of these were said on standard error.
    #[track_caller]
    fn said(&self, code: i32, words: &[&str]) {
        let stderr = self.ended(code);
        for words in words {
            assert!(stderr.contains(words), "`{words}` is not in:\n{stderr}");
        }
    }
}

/// Runs a command with this on standard input.
fn fed(command: &mut Command, input: &str) -> Run {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Nobody has to read it.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A small image of podman's.
const IMAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/docker-archive/podman-save.tar");

/// Starts docker-registry for [`USER`] only; `http` are more settings of that.
fn private_registry(dir: &Path, http: &str) -> DockerRegistry {
    let htpasswd = dir.join("htpasswd");
    fs_err::write(&htpasswd, HTPASSWD).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: all, path: '{}'}}}}\n", htpasswd.display());
    DockerRegistry::start_with(http, &auth)
}
