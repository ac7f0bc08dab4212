//! The whole registry over its socket, and what lies on disk afterwards.

mod blobs;
mod lists;
mod manifests;
mod requests;
mod uploads;

use std::path::Path;

use reqwest::{Method, Response, header::CONTENT_TYPE};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::*;
use crate::oci::{Algorithm, Digest};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry over a folder that is gone after the test.
struct Fixture {
    dir: TempDir,
    server: Server,
    http: reqwest::Client,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path());
        change(&mut options);
        let server = Server::start(options).await.unwrap();
        Self { dir, server, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.server.address()))
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn status(&self, method: Method, path: &str) -> u16 {
        self.request(method, path).send().await.unwrap().status().as_u16()
    }

    /// Opens a session and returns where it is.
    async fn open(&self, name: &str) -> String {
        let reply = self.request(Method::POST, &format!("/v2/{name}/blobs/uploads/")).send().await.unwrap();
        assert_eq!(reply.status(), 202);
        assert_eq!(header(&reply, "range"), "0-0");
        header(&reply, "location").to_owned()
    }

    async fn patch(&self, location: &str, first: usize, bytes: &[u8]) -> Response {
        let range = format!("{first}-{}", first + bytes.len() - 1);
        let request = self.request(Method::PATCH, location).header("content-range", range);
        request.body(bytes.to_vec()).send().await.unwrap()
    }

    /// Sends the first bytes of a body and waits until some of them have arrived.
    async fn begin(&self, method: Method, path: &str, bytes: &[u8], sent: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.server.address()).await.unwrap();
        let length = bytes.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&bytes[..sent]).await.unwrap();
        let id = path.split('?').next().unwrap().rsplit('/').next().unwrap();
        let data = self.dir.path().join("_uploads").join(id).join("data");
        while fs_err::metadata(&data).unwrap().len() == 0 {
            // Who has an answer already is refused.
            let mut answer = [0; 1000];
            let answered = stream.try_read(&mut answer);
            assert!(answered.is_err(), "{}", String::from_utf8_lossy(&answer));
            tokio::task::yield_now().await;
        }
        stream
    }

    /// Asks how many bytes a session has, which must be none or more than one.
    async fn offset(&self, location: &str) -> usize {
        let status = self.get(location).await;
        match header(&status, "range").strip_prefix("0-").unwrap() {
            "0" => 0,
            last => last.parse::<usize>().unwrap() + 1,
        }
    }

    async fn close(&self, location: &str, digest: &Digest, bytes: &[u8]) -> Response {
        let request = self.request(Method::PUT, &format!("{location}?digest={digest}"));
        request.body(bytes.to_vec()).send().await.unwrap()
    }

    async fn blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let location = self.open(name).await;
        assert_eq!(self.close(&location, &digest, bytes).await.status(), 201);
        digest
    }

    async fn put(&self, path: &str, media_type: &str, document: &str) -> Response {
        let request = self.request(Method::PUT, path).header(CONTENT_TYPE, media_type);
        request.body(document.to_owned()).send().await.unwrap()
    }

    /// Pushes a manifest with one layer and returns it.
    async fn image(&self, name: &str, tag: &str, layer: &[u8]) -> String {
        let (config, layer) = (self.blob(name, b"{}").await, self.blob(name, layer).await);
        let manifest = manifest(&config, &layer, "");
        let reply = self.put(&format!("/v2/{name}/manifests/{tag}"), MANIFEST, &manifest).await;
        assert_eq!(reply.status(), 201);
        manifest
    }

    fn index(&self, name: &str) -> serde_json::Value {
        let path = self.dir.path().join(name).join("index.json");
        serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
    }

    /// Lists the files that a client could come to see, and what is staged.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs_err::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, root, found);
                } else {
                    found.push(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        walk(self.dir.path(), self.dir.path(), &mut found);
        found.retain(|path| path != "_lock");
        found.sort();
        found
    }
}

fn header<'a>(reply: &'a Response, name: &str) -> &'a str {
    reply.headers().get(name).unwrap_or_else(|| panic!("no {name} in {reply:?}")).to_str().unwrap()
}

async fn code(reply: Response) -> String {
    let error: serde_json::Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
    error["errors"][0]["code"].as_str().unwrap().to_owned()
}

fn descriptor(digest: &Digest) -> String {
    format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":1}}"#)
}

fn manifest(config: &Digest, layer: &Digest, more: &str) -> String {
    let (config, layer) = (descriptor(config), descriptor(layer));
    format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layer}]{more}}}"#)
}

fn index_of(children: &[&str]) -> String {
    let children: Vec<_> = children.iter().map(|child| descriptor(&Digest::of(child.as_bytes()))).collect();
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, children.join(","))
}
