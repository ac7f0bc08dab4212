//! Debian's nginx on a loopback port, in front of registries.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{log::Log, port::Port};

/// A running nginx; it is killed when dropped.
pub(crate) struct Nginx {
    process: Child,
    port: Port,
    dir: TempDir,
}

/// In its folder.
const CERTIFICATE: &str = "server.pem";
const KEY: &str = "server.key";

impl Nginx {
    /// Starts one that hands what it gets to these hosts in turn, with more settings of its `server`.
    pub(crate) fn start(backends: &[&str], settings: &str) -> Self {
        Self::start_listening("", backends, settings)
    }

    /// Starts one that speaks TLS, with a certificate of its own, and offers HTTP/2 or not.
    pub(crate) fn start_tls(http2: bool, backends: &[&str], settings: &str) -> Self {
        let settings = format!("ssl_certificate {CERTIFICATE}; ssl_certificate_key {KEY}; {settings}");
        Self::start_listening(if http2 { "ssl http2" } else { "ssl" }, backends, &settings)
    }

    fn start_listening(how: &str, backends: &[&str], settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs_err::write(dir.path().join(CERTIFICATE), own.cert.pem()).unwrap();
        fs_err::write(dir.path().join(KEY), own.signing_key.serialize_pem()).unwrap();
        // It takes no port 0.
        let port = Port::new();
        let config = dir.path().join("nginx.conf");
        fs_err::write(&config, configuration(&format!("{} {how}", port.host()), backends, settings)).unwrap();
        let mut process = Command::new("nginx")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nginx of the Debian package nginx-light");
        let log = Log::follow(process.stderr.take().expect("it is piped"));
        // It chooses how to wait for events once it has its port.
        let listens = log.find(|line| line.contains("event method").then_some(()));
        assert!(listens.is_some(), "nginx ends: {:#?}", log.all());
        Self { process, port, dir }
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> &str {
        self.port.host()
    }

    /// Returns the file of its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.path().join(CERTIFICATE)
    }

    /// Returns the versions of HTTP that it was asked in.
    pub(crate) fn versions(&self) -> BTreeSet<String> {
        let log = fs_err::read_to_string(self.dir.path().join("access.log")).unwrap();
        // `… "GET /v2/ HTTP/1.1" 200 …`
        let requests = log.lines().filter_map(|line| line.split('"').nth(1));
        requests.filter_map(|request| Some(request.rsplit_once(' ')?.1.to_owned())).collect()
    }

    /// Returns how many requests were refused for the size of their bodies.
    pub(crate) fn too_large(&self) -> usize {
        // It writes this before it answers; of the request itself, when the connection is done with.
        let log = fs_err::read_to_string(self.dir.path().join("error.log")).unwrap();
        log.lines().filter(|line| line.contains("client intended to send too large")).count()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Everything that it writes is in the folder that it is started in.
fn configuration(listen: &str, backends: &[&str], settings: &str) -> String {
    let backends =
        backends.iter().map(|backend| format!("server {backend} max_fails=0; ")).collect::<Vec<_>>();
    let backends = backends.concat();
    format!(
        "user root; daemon off; master_process off; pid nginx.pid;\n\
         error_log stderr notice; error_log error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n\
         access_log access.log;\n\
         client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
         scgi_temp_path scgi; uwsgi_temp_path uwsgi;\n\
         upstream registries {{ {backends}}}\n\
         server {{\n\
         listen {listen};\n\
         {settings}\n\
         location / {{\n\
         proxy_pass http://registries; proxy_set_header Host $http_host; proxy_http_version 1.1;\n\
         }}\n\
         }}\n\
         }}\n"
    )
}
