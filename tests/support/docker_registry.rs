//! Debian's docker-registry (CNCF distribution) on a loopback port, with a store that goes with it.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use tempfile::{NamedTempFile, TempDir};

use super::log::Log;

/// A running docker-registry; it is killed when dropped.
pub(crate) struct DockerRegistry {
    process: Child,
    log: Log,
    host: String,
    settings: Settings,
}

/// How one is started.
struct Settings {
    /// Several may have one.
    store: Arc<TempDir>,
    /// As YAML has them: of `http`, and beside it.
    http: String,
    beside: String,
}

/// Somebody may have taken the port of one that was killed, for a moment.
const MOST_STARTS: usize = 20;

impl DockerRegistry {
    /// Starts one and waits until it listens.
    pub(crate) fn start() -> Self {
        Self::start_with("", "")
    }

    /// Starts one with more settings, as YAML has them: of `http`, and beside it.
    pub(crate) fn start_with(http: &str, beside: &str) -> Self {
        let store = Arc::new(tempfile::tempdir().unwrap());
        Self::serve(Settings { store, http: http.to_owned(), beside: beside.to_owned() })
    }

    /// Starts another one over the same store, with settings of `http` of its own.
    pub(crate) fn start_beside(&self, http: &str) -> Self {
        let Settings { store, beside, .. } = &self.settings;
        Self::serve(Settings { store: Arc::clone(store), http: http.to_owned(), beside: beside.clone() })
    }

    fn serve(settings: Settings) -> Self {
        // The port is its own choice, said in its log.
        let (process, log, host) =
            settings.serve("127.0.0.1:0").expect("docker-registry says where it listens");
        Self { process, log, host, settings }
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again after it was killed, on the same port and with the same store.
    pub(crate) fn restart(&mut self) {
        let mut starts = (0..MOST_STARTS).filter_map(|_| self.settings.serve(&self.host));
        (self.process, self.log, self.host) = starts.next().expect("the port is free again");
    }

    /// Waits until it has answered a request of this method by this status.
    #[track_caller]
    pub(crate) fn wait_for(&self, method: &str, status: u16) {
        let words = [format!("http.request.method={method} "), format!("http.response.status={status} ")];
        let answered = self.log.find(|line| words.iter().all(|word| line.contains(word)).then_some(()));
        answered.expect("the registry still runs");
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the folder that it keeps everything in.
    pub(crate) fn store(&self) -> &Path {
        self.settings.store.path()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Settings {
    /// Starts one and waits until it listens; nothing if it cannot.
    fn serve(&self, address: &str) -> Option<(Child, Log, String)> {
        let mut config = NamedTempFile::new().unwrap();
        config.write_all(self.at(address).as_bytes()).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(config.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry of the Debian package of that name");
        let log = Log::follow(process.stderr.take().expect("it is piped"));
        // What does not listen has ended.
        let Some(host) = log.find(listening_on) else {
            process.wait().unwrap();
            return None;
        };
        Some((process, log, host))
    }

    fn at(&self, address: &str) -> String {
        let Self { store, http, beside } = self;
        format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
             http: {{addr: '{address}'{http}}}\n\
             {beside}",
            store.path().display()
        )
    }
}

/// `… msg="listening on 127.0.0.1:43211" …`
fn listening_on(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ':')).unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}
