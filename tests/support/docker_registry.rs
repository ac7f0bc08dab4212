//! Debian's docker-registry (CNCF distribution) on a loopback port, with a store that goes with it.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// A running docker-registry; it is killed when dropped.
pub(crate) struct DockerRegistry {
    process: Child,
    host: String,
    store: TempDir,
}

impl DockerRegistry {
    /// Starts one and waits until it listens.
    pub(crate) fn start() -> Self {
        Self::start_with("", "")
    }

    /// Starts one with more settings, as YAML has them: of `http`, and beside it.
    pub(crate) fn start_with(http: &str, beside: &str) -> Self {
        let store = tempfile::tempdir().unwrap();
        let config = store.path().join("config.yml");
        fs_err::write(&config, configuration(store.path(), http) + beside).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry of the Debian package of that name");
        let log = BufReader::new(process.stderr.take().expect("it is piped"));
        let (found, host) = mpsc::channel();
        // The port is its own choice, said in its log; the log is read on so that it never blocks.
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if let Some(host) = listening_on(&line) {
                    found.send(host).ok();
                }
            }
        });
        let host = host.recv_timeout(Duration::from_secs(30));
        let mut registry = Self { process, host: String::new(), store };
        registry.host = host.expect("docker-registry says where it listens");
        registry
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the folder that it keeps everything in.
    pub(crate) fn store(&self) -> &Path {
        self.store.path()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn configuration(store: &Path, http: &str) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: info, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
         http: {{addr: '127.0.0.1:0'{http}}}\n",
        store.display()
    )
}

/// `… msg="listening on 127.0.0.1:43211" …`
fn listening_on(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ':')).unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}
