//! Runs the binary as a user would, with a home of its own, and says what came of it.
//!
//! `timeout` kills what hangs, with everything it started; GNU time knows the peak memory, which nobody else
//! can tell of a process that has ended.

use std::{
    ffi::{OsStr, OsString},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

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

/// Nothing in a test takes so long.
const TIMEOUT_SECONDS: &str = "60";

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
    #[cfg(feature = "shared-cache")]
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

    fn run_on<I: IntoIterator>(&self, input: Stdio, arguments: I) -> Run
    where
        I::Item: AsRef<OsStr>,
    {
        let report = self.home.path().join("time");
        let home = self.home.path().join("home");
        let started = Instant::now();
        let output = Command::new("timeout")
            .args(["--signal=KILL", TIMEOUT_SECONDS, "time", "--quiet", "--format=%M", "--output"])
            .arg(&report)
            .args(&self.prefix)
            .arg(&self.binary)
            .args(arguments)
            .stdin(input)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_DATA_HOME", home.join("data"))
            .env("XDG_RUNTIME_DIR", home.join("run"))
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
