//! `longshore serve` as a process of its own, over a folder or bucket that others may serve too.

#[cfg(feature = "buckets")]
use std::net::SocketAddr;
use std::{
    ffi::OsStr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::log::Log;
#[cfg(feature = "buckets")]
use super::{
    s3::{S3, SECRET_KEY},
    until::PATIENCE,
};

/// A running `longshore serve`; it is killed when dropped.
pub(crate) struct Serve {
    process: Child,
    host: String,
    stderr: Log,
}

/// What it serves, and how it gets there.
struct Place<'a> {
    argument: &'a OsStr,
    home: &'a Path,
    variables: Vec<(String, String)>,
}

impl Serve {
    /// Starts one on a free port and waits until it listens.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// Starts one with more arguments.
    pub(crate) fn start_with(dir: &Path, arguments: &[&str]) -> Self {
        Self::listen(dir, "127.0.0.1:0", arguments).unwrap_or_else(|stderr| panic!("{stderr}"))
    }

    /// Starts one over a bucket, which it waits for on however busy a machine.
    #[cfg(feature = "buckets")]
    pub(crate) fn over(server: &S3, arguments: &[&str]) -> Self {
        let patience = format!("--patience={}s", PATIENCE.as_secs());
        Self::over_address(server.address(), &[&[&*patience], arguments].concat())
            .unwrap_or_else(|stderr| panic!("{stderr}"))
    }

    /// Starts one over the bucket of a server at some address; returns what it complains of if it cannot.
    #[cfg(feature = "buckets")]
    pub(crate) fn over_address(server: SocketAddr, arguments: &[&str]) -> Result<Self, String> {
        let variables = S3::variables(server, SECRET_KEY);
        let place = Place { argument: S3::REGISTRY.as_ref(), home: Path::new("/nonexistent"), variables };
        Self::listen_over(&place, "127.0.0.1:0", arguments)
    }

    /// Starts one at an address.
    pub(crate) fn start_at(dir: &Path, address: &str) -> Self {
        Self::listen(dir, address, &[]).unwrap_or_else(|stderr| panic!("{stderr}"))
    }

    /// Starts one that cannot; returns what it complains of.
    pub(crate) fn fail(dir: &Path, arguments: &[&str]) -> String {
        Self::listen(dir, "127.0.0.1:0", arguments).err().expect("it serves nothing")
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns what it writes to standard error.
    pub(crate) fn stderr(&self) -> Log {
        self.stderr.clone()
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks it to end, as `kill` does.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    fn listen(dir: &Path, address: &str, arguments: &[&str]) -> Result<Self, String> {
        let place = Place { argument: dir.as_os_str(), home: dir, variables: Vec::new() };
        Self::listen_over(&place, address, arguments)
    }

    fn listen_over(place: &Place<'_>, address: &str, arguments: &[&str]) -> Result<Self, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command
            .arg("serve")
            .args(["--listen", address])
            .args(arguments.iter().take_while(|argument| argument.starts_with("--")))
            .arg(place.argument)
            .args(arguments.iter().skip_while(|argument| argument.starts_with("--")))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", place.home)
            .envs(place.variables.iter().map(|(name, value)| (name, value)));
        Self::run(&mut command)
    }

    /// Runs a command that serves, and waits until it listens; returns what it complains of if it ends before.
    pub(crate) fn run(command: &mut Command) -> Result<Self, String> {
        let streams = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = streams.spawn().unwrap();
        let stdout = Log::follow(process.stdout.take().expect("it is piped"));
        let stderr = Log::follow(process.stderr.take().expect("it is piped"));
        if let Some(host) = stdout.find(|line| Some(line.split_once("://")?.1.to_owned())) {
            return Ok(Self { process, host, stderr });
        }
        process.wait().unwrap();
        Err(stderr.all().join("\n"))
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
