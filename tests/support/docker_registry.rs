//! Debian's docker-registry (CNCF distribution) on a loopback port, with a store that goes with it.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use tempfile::{NamedTempFile, TempDir};

use super::{log::Log, port::Port};

/// A running docker-registry; it is killed when dropped.
pub(crate) struct DockerRegistry {
    process: Child,
    log: Log,
    settings: Settings,
}

/// How one is started.
struct Settings {
    port: Port,
    /// Several may have one.
    store: Arc<TempDir>,
    /// As YAML has them: of `http`, and beside it.
    http: String,
    beside: String,
}

impl DockerRegistry {
    /// Starts one and waits until it listens.
    pub(crate) fn start() -> Self {
        Self::start_with("", "")
    }

    /// Starts one with more settings, as YAML has them: of `http`, and beside it.
    pub(crate) fn start_with(http: &str, beside: &str) -> Self {
        let store = Arc::new(tempfile::tempdir().unwrap());
        Self::serve(Settings { port: Port::new(), store, http: http.to_owned(), beside: beside.to_owned() })
    }

    /// Starts another one over the same store, with settings of `http` of its own.
    pub(crate) fn start_beside(&self, http: &str) -> Self {
        let (store, beside) = (Arc::clone(&self.settings.store), self.settings.beside.clone());
        Self::serve(Settings { port: Port::new(), store, http: http.to_owned(), beside })
    }

    fn serve(settings: Settings) -> Self {
        let (process, log) = settings.serve();
        Self { process, log, settings }
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again after it was killed, on the same port and with the same store.
    pub(crate) fn restart(&mut self) {
        (self.process, self.log) = self.settings.serve();
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
        self.settings.port.host()
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
    /// Starts one and waits until it listens.
    fn serve(&self) -> (Child, Log) {
        let mut config = NamedTempFile::new().unwrap();
        config.write_all(self.yaml().as_bytes()).unwrap();
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
        let listens = log.find(|line| line.contains("listening on ").then_some(()));
        assert!(listens.is_some(), "docker-registry ends: {:#?}", log.all());
        (process, log)
    }

    fn yaml(&self) -> String {
        let Self { port, store, http, beside } = self;
        format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
             http: {{addr: '{}'{http}}}\n\
             {beside}",
            store.path().display(),
            port.host()
        )
    }
}
