//! Runs the binary as a user would, with a home of its own, and says what came of it.
//!
//! `timeout` kills what hangs, with everything it started; GNU time knows the peak memory, which nobody else
//! can tell of a process that has ended.

use std::{
    ffi::{OsStr, OsString},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::until::PATIENCE;

/// A user's machine: a home and the binary.
pub(crate) struct Longshore {
    home: TempDir,
    binary: PathBuf,
    /// What stands before the binary on the command line.
    prefix: Vec<OsString>,
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit code; absent if it had to be killed.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) wall: Duration,
    /// The largest resident set, in KiB.
    pub(crate) peak: u64,
}

/// A run in the middle; it is killed when dropped.
pub(crate) struct Running {
    process: Child,
    started: Instant,
    stdout: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
}

impl Longshore {
    /// An empty home.
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        // Others may have to look into it: `Longshore::by_nobody`.
        fs_err::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).unwrap();
        fs_err::create_dir_all(home.path().join("home/run")).unwrap();
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_longshore"));
        Self { home, binary, prefix: Vec::new() }
    }

    /// Returns the home.
    pub(crate) fn home(&self) -> PathBuf {
        self.home.path().join("home")
    }

    /// Runs as a user without any rights, which takes root and setpriv.
    pub(crate) fn by_nobody(mut self) -> Self {
        // The build may lie where that user cannot go.
        let copy = self.home.path().join("longshore");
        fs_err::copy(&self.binary, &copy).unwrap();
        let home = self.home.path().join("home");
        fs_err::set_permissions(&home, PermissionsExt::from_mode(0o777)).unwrap();
        self.binary = copy;
        self.prefix =
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"].map(Into::into).into();
        self
    }

    /// Sets a variable.
    pub(crate) fn with_env(mut self, name: &str, value: &str) -> Self {
        self.prefix.extend(["env".into(), format!("{name}={value}").into()]);
        self
    }

    /// Runs `longshore ARGUMENTS…`.
    pub(crate) fn run<I: IntoIterator>(&self, arguments: I) -> Run
    where
        I::Item: AsRef<OsStr>,
    {
        self.run_on(Stdio::null(), arguments)
    }

    /// Runs `cat FILE | longshore ARGUMENTS…`.
    pub(crate) fn run_fed<I: IntoIterator>(&self, file: &Path, arguments: I) -> Run
    where
        I::Item: AsRef<OsStr>,
    {
        let mut cat = Command::new("cat").arg(file).stdout(Stdio::piped()).spawn().unwrap();
        let pipe = cat.stdout.take().expect("it is piped");
        let run = self.run_on(pipe.into(), arguments);
        cat.wait().unwrap();
        run
    }

    /// Starts `longshore ARGUMENTS…` as a process of its own, to be killed in the middle.
    pub(crate) fn start<I: IntoIterator>(&self, arguments: I) -> Running
    where
        I::Item: AsRef<OsStr>,
    {
        let prepared = self.prepare(arguments);
        // Whoever runs the tests may have these ignored, by `nohup` or behind the `&` of a script.
        let mut command = self.command("env");
        command.arg("--default-signal=HUP,INT,TERM").arg(prepared.get_program()).args(prepared.get_args());
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let started = Instant::now();
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let stdout = read(process.stdout.take().expect("it is piped"));
        let stderr = read(process.stderr.take().expect("it is piped"));
        Running { process, started, stdout, stderr }
    }

    /// Prepares `longshore ARGUMENTS…`, for tests that watch it in their own way.
    pub(crate) fn prepare<I: IntoIterator>(&self, arguments: I) -> Command
    where
        I::Item: AsRef<OsStr>,
    {
        let mut command = self.command(&self.binary);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Prepares a program to run on this machine.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let home = self.home.path().join("home");
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_DATA_HOME", home.join("data"))
            .env("XDG_RUNTIME_DIR", home.join("run"));
        command
    }

    fn run_on<I: IntoIterator>(&self, input: Stdio, arguments: I) -> Run
    where
        I::Item: AsRef<OsStr>,
    {
        let report = self.home.path().join("time");
        let started = Instant::now();
        let output = self
            .command("timeout")
            .args([
                "--signal=KILL",
                &PATIENCE.as_secs().to_string(),
                "time",
                "--quiet",
                "--format=%M",
                "--output",
            ])
            .arg(&report)
            .args(&self.prefix)
            .arg(&self.binary)
            .args(arguments)
            .stdin(input)
            .output()
            .expect("timeout of coreutils");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Run {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            wall: started.elapsed(),
            peak: fs_err::read_to_string(report).ok().and_then(|peak| peak.trim().parse().ok()).unwrap_or(0),
        }
    }
}

impl Run {
    /// Returns the one line of stdout, `host/repository@sha256:…`, if all went well.
    pub(crate) fn pushed(&self) -> Result<&str, String> {
        match (self.code, self.stdout.trim_end()) {
            (Some(0), line) if !line.is_empty() && !line.contains('\n') => Ok(line),
            _ => Err(format!("{self:?}")),
        }
    }
}

impl Running {
    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        assert_eq!(self.process.wait().unwrap().code(), None, "it had not ended by itself");
    }

    /// Interrupts it, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Run {
        let stdout = self.stdout.recv_timeout(PATIENCE);
        // What hangs is killed, and has no exit code then.
        if stdout.is_err() {
            self.process.kill().unwrap();
        }
        let code = self.process.wait().unwrap().code();
        let stderr = self.stderr.recv_timeout(PATIENCE).unwrap_or_default();
        Run { code, stdout: stdout.unwrap_or_default(), stderr, wall: self.started.elapsed(), peak: 0 }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Reads a pipe to its end, beside everything else.
fn read(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).ok();
        sender.send(String::from_utf8_lossy(&bytes).into_owned()).ok();
    });
    receiver
}
