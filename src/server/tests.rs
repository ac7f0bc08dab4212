//! The whole registry over its socket, and what lies on disk afterwards.

use std::path::Path;

use reqwest::{Method, Response, header::CONTENT_TYPE};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::*;
use crate::oci::{Algorithm, Digest, Hasher};

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

#[tokio::test]
async fn an_image_in_chunks_comes_back_and_lies_in_a_layout() {
    let registry = Fixture::start().await;
    assert_eq!(registry.status(Method::GET, "/v2/").await, 200);
    let layer = Digest::of(b"0123456789");
    let path = format!("/v2/a/demo/blobs/{layer}");
    assert_eq!(registry.status(Method::HEAD, &path).await, 404);

    let location = registry.open("a/demo").await;
    let reply = registry.patch(&location, 0, b"0123").await;
    assert_eq!((reply.status().as_u16(), header(&reply, "range")), (202, "0-3"));
    let reply = registry.patch(header(&reply, "location"), 4, b"456").await;
    assert_eq!((reply.status().as_u16(), header(&reply, "range")), (202, "0-6"));
    let status = registry.get(&location).await;
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-6"));
    let reply = registry.close(&location, &layer, b"789").await;
    assert_eq!((reply.status().as_u16(), header(&reply, "location")), (201, &*path));
    assert_eq!(registry.status(Method::GET, &location).await, 404);

    let reply = registry.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!((reply.status().as_u16(), header(&reply, "content-length")), (200, "10"));
    assert_eq!(header(&reply, "docker-content-digest"), layer.to_string());
    assert_eq!(registry.get(&path).await.bytes().await.unwrap(), "0123456789");

    let config = registry.blob("a/demo", b"{}").await;
    let document = manifest(&config, &layer, "");
    let digest = Digest::of(document.as_bytes());
    let reply = registry.put("/v2/a/demo/manifests/1", MANIFEST, &document).await;
    assert_eq!(reply.status(), 201);
    assert_eq!(header(&reply, "docker-content-digest"), digest.to_string());
    for reference in ["1".to_owned(), digest.to_string()] {
        let path = format!("/v2/a/demo/manifests/{reference}");
        let head = registry.request(Method::HEAD, &path).send().await.unwrap();
        assert_eq!(header(&head, "content-length"), document.len().to_string());
        let reply = registry.get(&path).await;
        assert_eq!(header(&reply, "content-type"), MANIFEST);
        assert_eq!(reply.text().await.unwrap(), document);
    }
    let tags = registry.get("/v2/a/demo/tags/list").await.text().await.unwrap();
    assert_eq!(tags, r#"{"name":"a/demo","tags":["1"]}"#);

    let blob = |digest: &Digest| format!("a/demo/blobs/sha256/{}", digest.hex());
    let shared = |digest: &Digest| format!("_blobs/sha256/{}", digest.hex());
    let mut expected = vec!["a/demo/index.json".to_owned(), "a/demo/oci-layout".to_owned()];
    expected.extend([&layer, &config, &digest].into_iter().flat_map(|digest| [blob(digest), shared(digest)]));
    expected.sort();
    assert_eq!(registry.files(), expected);
    let listed = &registry.index("a/demo")["manifests"];
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["annotations"]["org.opencontainers.image.ref.name"], "1");
    assert_eq!(listed[0]["digest"], digest.to_string());
    registry.server.stop().await;
}

#[tokio::test]
async fn every_way_to_bring_a_blob_works() {
    let registry = Fixture::start().await;
    let mut digest = Hasher::new(Algorithm::Sha512);
    digest.update(b"long");
    let digest = digest.finish();
    // One POST.
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let reply = registry.request(Method::POST, &path).body("long").send().await.unwrap();
    assert_eq!(reply.status(), 201);
    assert_eq!(registry.get(header(&reply, "location")).await.text().await.unwrap(), "long");
    // A session that hashes with one function and is closed with another.
    for query in ["", "?digest-algorithm=sha512"] {
        let name = format!("b{}", query.len());
        let opened = registry.request(Method::POST, &format!("/v2/{name}/blobs/uploads/{query}"));
        let location = header(&opened.send().await.unwrap(), "location").to_owned();
        assert_eq!(registry.close(&location, &digest, b"long").await.status(), 201);
    }
    // A stream of unknown length.
    let location = registry.open("c").await;
    for piece in [&b"st"[..], b"ream"] {
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter([std::io::Result::Ok(piece)]));
        let reply = registry.request(Method::PATCH, &location).body(body).send().await.unwrap();
        assert_eq!(reply.status(), 202);
    }
    assert_eq!(registry.close(&location, &Digest::of(b"stream"), b"").await.status(), 201);
    // Nothing at all.
    let empty = registry.blob("c", b"").await;
    assert_eq!(registry.get(&format!("/v2/c/blobs/{empty}")).await.bytes().await.unwrap(), "");
}

#[tokio::test]
async fn chunks_out_of_order_are_refused_and_change_nothing() {
    let registry = Fixture::start().await;
    let location = registry.open("a").await;
    assert_eq!(registry.patch(&location, 0, b"0123").await.status(), 202);
    for first in [0, 3, 5] {
        let reply = registry.patch(&location, first, b"xx").await;
        assert_eq!(reply.status(), 416);
        assert_eq!((header(&reply, "location"), header(&reply, "range")), (&*location, "0-3"));
    }
    let put = registry.request(Method::PUT, &format!("{location}?digest={}", Digest::of(b"0123xx")));
    let reply = put.header("content-range", "0-1").body("xx").send().await.unwrap();
    assert_eq!(reply.status(), 416);
    let lying = registry.request(Method::PATCH, &location).header("content-range", "4-9");
    let reply = lying.body("xx").send().await.unwrap();
    assert_eq!((reply.status().as_u16(), code(reply).await), (400, "SIZE_INVALID".into()));
    assert_eq!(registry.close(&location, &Digest::of(b"0123"), b"").await.status(), 201);
}

#[tokio::test]
async fn wrong_bytes_leave_nothing() {
    let registry = Fixture::start().await;
    let location = registry.open("a").await;
    registry.patch(&location, 0, b"0123").await;
    let reply = registry.close(&location, &Digest::of(b"else"), b"").await;
    assert_eq!((reply.status().as_u16(), code(reply).await), (400, "DIGEST_INVALID".into()));
    assert_eq!(registry.status(Method::GET, &location).await, 404);
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b"else"));
    let reply = registry.request(Method::POST, &path).body("0123").send().await.unwrap();
    assert_eq!(reply.status(), 400);
    let reply = registry.request(Method::PUT, &registry.open("a").await).send().await.unwrap();
    assert_eq!((reply.status().as_u16(), code(reply).await), (400, "DIGEST_INVALID".into()));
    let cancelled = registry.open("a").await;
    assert_eq!(registry.status(Method::DELETE, &cancelled).await, 204);
    assert_eq!(registry.status(Method::DELETE, &cancelled).await, 404);
    let staged = registry.files();
    let of_one_upload = |path: &String| path.starts_with("_uploads/");
    assert!(staged.len() == 2 && staged.iter().all(of_one_upload), "{staged:?}");
}

#[tokio::test]
async fn blobs_are_mounted_where_they_are() {
    let registry = Fixture::start().await;
    let digest = registry.blob("a", b"blob").await;
    let mount =
        |query: String| registry.request(Method::POST, &format!("/v2/b/blobs/uploads/?{query}")).send();
    let reply = mount(format!("mount={digest}&from=c")).await.unwrap();
    assert_eq!(reply.status(), 202);
    assert_eq!(registry.status(Method::DELETE, header(&reply, "location")).await, 204);
    let reply = mount(format!("mount={}&from=a", digest.to_string().replace(':', "%3A"))).await.unwrap();
    assert_eq!(reply.status(), 201);
    assert_eq!(registry.get(header(&reply, "location")).await.text().await.unwrap(), "blob");
    let reply = mount(format!("mount={}", Digest::of(b"none"))).await.unwrap();
    assert_eq!(reply.status(), 202);
    let reply = mount(format!("mount={digest}&from=..%2Fa")).await.unwrap();
    assert_eq!((reply.status().as_u16(), code(reply).await), (400, "NAME_INVALID".into()));
}

#[tokio::test]
async fn ranges_of_a_blob_are_served() {
    let registry = Fixture::start().await;
    // More than one piece, so that a range crosses from one to the next.
    let bytes: Vec<u8> = (0..700_000_u32).map(|i| (i / 7) as u8).collect();
    let path = format!("/v2/a/blobs/{}", registry.blob("a", &bytes).await);
    assert_eq!(registry.get(&path).await.bytes().await.unwrap(), bytes);
    let reply = registry.request(Method::GET, &path).header("range", "bytes=5-600000").send().await.unwrap();
    assert_eq!((reply.status().as_u16(), header(&reply, "content-range")), (206, "bytes 5-600000/700000"));
    assert_eq!(reply.bytes().await.unwrap(), bytes[5..=600_000]);
    let reply = registry.request(Method::GET, &path).header("range", "bytes=700000-").send().await.unwrap();
    assert_eq!((reply.status().as_u16(), header(&reply, "content-range")), (416, "bytes */700000"));
    // HEAD knows none.
    let reply = registry.request(Method::HEAD, &path).header("range", "bytes=5-9").send().await.unwrap();
    assert_eq!((reply.status().as_u16(), header(&reply, "content-length")), (200, "700000"));
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let registry = Fixture::start().await;
    let tagged = registry.image("a", "1", b"layer").await;
    let blob = Digest::of(b"layer");
    for (path, digest) in [
        (format!("/v2/a/blobs/{blob}"), blob.clone()),
        ("/v2/a/manifests/1".to_owned(), Digest::of(tagged.as_bytes())),
    ] {
        let etag = header(&registry.get(&path).await, "etag").to_owned();
        for (known, expected) in [
            (etag.clone(), 304),
            (format!("W/{etag}"), 304),
            (format!("\"another\" , {etag}"), 304),
            ("*".to_owned(), 304),
            (digest.to_string(), 200),
            ("\"another\"".to_owned(), 200),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let asked = registry.request(method, &path).header("if-none-match", &known);
                let reply = asked.send().await.unwrap();
                assert_eq!((reply.status().as_u16(), header(&reply, "etag")), (expected, &*etag), "{known}");
            }
        }
    }
    let path = format!("/v2/a/blobs/{blob}");
    for (part, expected) in [(format!("\"{blob}\""), "la"), ("\"another\"".to_owned(), "layer")] {
        let asked =
            registry.request(Method::GET, &path).header("range", "bytes=0-1").header("if-range", part);
        assert_eq!(asked.send().await.unwrap().text().await.unwrap(), expected);
    }
    assert_eq!(registry.status(Method::HEAD, &format!("/v2/b/blobs/{blob}")).await, 404);
}

#[tokio::test]
async fn every_path_says_what_can_be_done_with_it() {
    let registry = Fixture::start().await;
    registry.image("a", "1", b"layer").await;
    let digest = Digest::of(b"layer");
    let upload = registry.open("a").await;
    for (path, methods) in [
        ("/healthz".to_owned(), "GET, HEAD"),
        ("/metrics".to_owned(), "GET, HEAD"),
        ("/v2/".to_owned(), "GET, HEAD"),
        ("/v2/_catalog".to_owned(), "GET, HEAD"),
        ("/v2/a/tags/list".to_owned(), "GET, HEAD"),
        (format!("/v2/a/referrers/{digest}"), "GET, HEAD"),
        (format!("/v2/a/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("/v2/a/manifests/1".to_owned(), "GET, HEAD, PUT, DELETE"),
        ("/v2/a/blobs/uploads/".to_owned(), "POST"),
        (upload, "GET, HEAD, PATCH, PUT, DELETE"),
    ] {
        for method in [Method::HEAD, Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE] {
            let reply = registry.request(method.clone(), &path).send().await.unwrap();
            let is_known = methods.split(", ").any(|known| known == method.as_str());
            assert_eq!(reply.status() != 405, is_known, "{method} {path}");
            if !is_known {
                assert_eq!(header(&reply, "allow"), methods, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_manifest_that_names_what_is_not_there_is_refused() {
    let registry = Fixture::start().await;
    let (config, missing) = (registry.blob("a", b"{}").await, Digest::of(b"missing"));
    registry.blob("b", b"missing").await;
    let document = manifest(&config, &missing, "");
    let reply = registry.put("/v2/a/manifests/1", MANIFEST, &document).await;
    assert_eq!((reply.status().as_u16(), code(reply).await), (404, "MANIFEST_BLOB_UNKNOWN".into()));
    let reply = registry.put("/v2/a/manifests/1", INDEX, &index_of(&[&document])).await;
    assert_eq!((reply.status().as_u16(), code(reply).await), (404, "MANIFEST_BLOB_UNKNOWN".into()));
    let foreign = document.replace(r#","size":1}]"#, r#","size":1,"urls":["https://example.com"]}]"#);
    assert_eq!(registry.put("/v2/a/manifests/1", MANIFEST, &foreign).await.status(), 201);
    let tags = registry.get("/v2/a/tags/list").await.text().await.unwrap();
    assert_eq!(tags, r#"{"name":"a","tags":["1"]}"#);
}

#[tokio::test]
async fn a_manifest_that_is_not_what_it_says_is_refused() {
    let registry = Fixture::start().await;
    let document = registry.image("a", "1", b"layer").await;
    for (path, media_type, body, status, expected) in [
        ("/v2/a/manifests/2", INDEX, &*document, 400, "MANIFEST_INVALID"),
        ("/v2/a/manifests/2", "text/plain", &document, 400, "MANIFEST_INVALID"),
        ("/v2/a/manifests/2", MANIFEST, "{", 400, "MANIFEST_INVALID"),
        ("/v2/a/manifests/2", MANIFEST, &" ".repeat((4 << 20) + 1), 413, "MANIFEST_INVALID"),
        (&format!("/v2/a/manifests/{}", Digest::of(b"")), MANIFEST, &document, 400, "DIGEST_INVALID"),
    ] {
        let reply = registry.put(path, media_type, body).await;
        assert_eq!((reply.status().as_u16(), &*code(reply).await), (status, expected), "{path} {media_type}");
    }
    // Within the limit, to the byte.
    let padded = format!("{document}{}", " ".repeat((4 << 20) - document.len()));
    assert_eq!(registry.put("/v2/a/manifests/2", MANIFEST, &padded).await.status(), 201);
    // A config is no manifest, whatever its digest.
    assert_eq!(registry.status(Method::GET, &format!("/v2/a/manifests/{}", Digest::of(b"{}"))).await, 404);
}

#[tokio::test]
async fn large_manifests_wait_for_each_other_and_small_ones_do_not() {
    let registry = Fixture::start().await;
    let begin = async || {
        let mut stream = TcpStream::connect(registry.server.address()).await.unwrap();
        let head = format!(
            "PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            4 << 20
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    // Who is told to go on is being read.
    let told = async |stream: &mut TcpStream| {
        let mut reply = [0; 25];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"HTTP/1.1 100 Continue\r\n\r\n");
    };
    let mut large = Vec::new();
    for _ in 0..MOST_LARGE {
        let mut stream = begin().await;
        told(&mut stream).await;
        large.push(stream);
    }
    let mut waiting = begin().await;
    registry.image("a", "2", b"layer").await;
    assert!(waiting.try_read(&mut [0; 25]).is_err());
    drop(large.pop());
    told(&mut waiting).await;
}

#[tokio::test]
async fn an_index_is_listed_alone_and_tags_move() {
    let registry = Fixture::start().await;
    let tagged = registry.image("a", "amd64", b"1").await;
    let (config, layer) = (registry.blob("a", b"{}").await, registry.blob("a", b"2").await);
    let untagged = manifest(&config, &layer, "");
    let path = format!("/v2/a/manifests/{}", Digest::of(untagged.as_bytes()));
    assert_eq!(registry.put(&path, MANIFEST, &untagged).await.status(), 201);
    assert_eq!(registry.index("a")["manifests"].as_array().unwrap().len(), 2);

    let index = index_of(&[&tagged, &untagged]);
    assert_eq!(registry.put("/v2/a/manifests/1", INDEX, &index).await.status(), 201);
    // A second push of the child does not list it either.
    assert_eq!(registry.put(&path, MANIFEST, &untagged).await.status(), 201);
    let manifests = registry.index("a")["manifests"].clone();
    let names = |at: usize| manifests[at]["annotations"]["org.opencontainers.image.ref.name"].clone();
    assert_eq!((names(0), names(1)), ("amd64".into(), "1".into()));
    assert_eq!(manifests.as_array().unwrap().len(), 2);
    assert_eq!(registry.get(&path).await.text().await.unwrap(), untagged);

    assert_eq!(registry.put("/v2/a/manifests/1", MANIFEST, &tagged).await.status(), 201);
    assert_eq!(registry.get("/v2/a/manifests/1").await.text().await.unwrap(), tagged);
    let old = format!("/v2/a/manifests/{}", Digest::of(index.as_bytes()));
    assert_eq!(registry.get(&old).await.text().await.unwrap(), index);

    assert_eq!(registry.status(Method::DELETE, "/v2/a/manifests/1").await, 202);
    assert_eq!(registry.status(Method::DELETE, "/v2/a/manifests/1").await, 404);
    assert_eq!(registry.status(Method::GET, "/v2/a/manifests/amd64").await, 200);
    assert_eq!(registry.status(Method::DELETE, &old).await, 202);
    assert_eq!(registry.status(Method::GET, &old).await, 404);
    assert_eq!(registry.status(Method::DELETE, &old).await, 404);
}

#[tokio::test]
async fn tags_come_sorted_and_in_pages() {
    let registry = Fixture::start().await;
    let reply = registry.get("/v2/a/tags/list").await;
    assert_eq!((reply.status().as_u16(), code(reply).await), (404, "NAME_UNKNOWN".into()));
    for tag in ["c", "a", "b"] {
        registry.image("a", tag, b"layer").await;
    }
    let reply = registry.get("/v2/a/tags/list?n=2").await;
    let link = header(&reply, "link").to_owned();
    assert_eq!(reply.text().await.unwrap(), r#"{"name":"a","tags":["a","b"]}"#);
    let next = link.split_once('>').unwrap().0.trim_start_matches('<');
    let reply = registry.get(next).await;
    assert!(!reply.headers().contains_key("link"));
    assert_eq!(reply.text().await.unwrap(), r#"{"name":"a","tags":["c"]}"#);
    assert_eq!(registry.status(Method::GET, "/v2/a/tags/list?n=x").await, 400);
}

#[tokio::test]
async fn repositories_come_sorted_and_in_pages() {
    let registry = Fixture::start().await;
    assert_eq!(registry.get("/v2/_catalog").await.text().await.unwrap(), r#"{"repositories":[]}"#);
    for name in ["b", "a/b", "a"] {
        registry.image(name, "1", b"layer").await;
    }
    let reply = registry.get("/v2/_catalog?n=2").await;
    let link = header(&reply, "link").to_owned();
    assert_eq!(reply.text().await.unwrap(), r#"{"repositories":["a","a/b"]}"#);
    let next = link.split_once('>').unwrap().0.trim_start_matches('<');
    assert_eq!(registry.get(next).await.text().await.unwrap(), r#"{"repositories":["b"]}"#);
    assert_eq!(registry.status(Method::POST, "/v2/_catalog").await, 405);
}

#[tokio::test]
async fn what_is_about_a_manifest_is_found_from_it() {
    let registry = Fixture::start().await;
    let (config, layer) = (registry.blob("a", b"{}").await, registry.blob("a", b"sbom").await);
    let subject = Digest::of(b"may come later");
    let more = format!(r#","artifactType":"x/sbom","subject":{}"#, descriptor(&subject));
    let referrer = manifest(&config, &layer, &more);
    let path = format!("/v2/a/manifests/{}", Digest::of(referrer.as_bytes()));
    let reply = registry.put(&path, MANIFEST, &referrer).await;
    assert_eq!(header(&reply, "oci-subject"), subject.to_string());
    // Also as the child of an index.
    assert_eq!(registry.put("/v2/a/manifests/1", INDEX, &index_of(&[&referrer])).await.status(), 201);
    let path = format!("/v2/a/referrers/{subject}");
    for (query, found) in [("", 1), ("?artifactType=x%2Fsbom", 1), ("?artifactType=y", 0)] {
        let reply = registry.get(&format!("{path}{query}")).await;
        assert_eq!(header(&reply, "content-type"), INDEX);
        assert_eq!(reply.headers().contains_key("oci-filters-applied"), !query.is_empty());
        let list: serde_json::Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
        assert_eq!(list["manifests"].as_array().unwrap().len(), found, "{query}");
    }
    let list = registry.get(&format!("/v2/none/referrers/{subject}")).await.text().await.unwrap();
    assert!(list.contains(r#""manifests":[]"#), "{list}");
}

/// As after a kill, or on a full disk: its bytes were stored, and the list could not be written any more.
#[tokio::test]
async fn what_is_about_a_manifest_is_listed_however_it_came_here() {
    let registry = Fixture::start().await;
    let (config, layer) = (registry.blob("a", b"{}").await, registry.blob("a", b"sbom").await);
    let subject = Digest::of(b"may come later");
    let referrer = manifest(&config, &layer, &format!(r#","subject":{}"#, descriptor(&subject)));
    let stored = registry.blob("a", referrer.as_bytes()).await;
    let reply = registry.put(&format!("/v2/a/manifests/{stored}"), MANIFEST, &referrer).await;
    assert_eq!(header(&reply, "oci-subject"), subject.to_string());
    let list = registry.get(&format!("/v2/a/referrers/{subject}")).await.text().await.unwrap();
    assert!(list.contains(&stored.to_string()), "{list}");
}

#[tokio::test]
async fn nobody_gets_out_of_the_folder() {
    let registry = Fixture::start().await;
    for path in
        ["/v2/%2e%2e/blobs/uploads/", "/v2/_uploads/blobs/uploads/", "/v2/a/index.json/blobs/uploads/"]
    {
        // By hand: an HTTP library would resolve the dots.
        let mut stream = TcpStream::connect(registry.server.address()).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("NAME_INVALID"), "{path}: {reply}");
    }
    assert_eq!(registry.status(Method::POST, "/v2/a/manifests/1").await, 405);
    assert_eq!(registry.status(Method::GET, "/").await, 404);
    assert!(registry.files().is_empty());
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_nothing_visible_and_can_be_resumed() {
    let registry = Fixture::start().await;
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| (i / 3) as u8).collect();
    let location = registry.open("a").await;
    let begun = registry.begin(Method::PATCH, &location, &bytes, 600_000).await;
    // While that request is alive, nobody else may append.
    assert_eq!(registry.patch(&location, registry.offset(&location).await, b"more").await.status(), 416);
    drop(begun);
    loop {
        let offset = registry.offset(&location).await;
        let status = registry.patch(&location, offset, &bytes[offset..]).await.status();
        if status == 202 {
            break;
        }
        assert_eq!(status, 416, "what came is being saved");
    }
    assert!(registry.files().iter().all(|path| path.starts_with("_uploads/")));
    assert_eq!(registry.close(&location, &Digest::of(&bytes), b"").await.status(), 201);
}

#[tokio::test]
async fn chunk_limits_are_announced_and_kept() {
    let registry = Fixture::with(|options| (options.chunk_min, options.chunk_max) = (Some(2), Some(4))).await;
    let reply = registry.request(Method::POST, "/v2/a/blobs/uploads/").send().await.unwrap();
    assert_eq!((header(&reply, "oci-chunk-min-length"), header(&reply, "oci-chunk-max-length")), ("2", "4"));
    let location = header(&reply, "location").to_owned();
    assert_eq!(registry.patch(&location, 0, b"01234").await.status(), 413);
    let stream = futures_util::stream::iter([std::io::Result::Ok(&b"01234"[..])]);
    let streamed = registry.request(Method::PATCH, &location).body(reqwest::Body::wrap_stream(stream));
    assert_eq!(streamed.send().await.unwrap().status(), 413);
    assert_eq!(registry.patch(&location, 0, b"0123").await.status(), 202);
    assert_eq!(registry.close(&location, &Digest::of(b"01234"), b"4").await.status(), 201);
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_sends_its_whole_body_first() {
    let registry = Fixture::with(|options| options.chunk_max = Some(4)).await;
    let location = registry.open("a").await;
    let mut stream = TcpStream::connect(registry.server.address()).await.unwrap();
    // More than the socket's buffers take.
    let bytes = vec![0; 32 << 20];
    let head =
        format!("PATCH {location} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", bytes.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_client_that_asks_first_is_spared_its_body() {
    let registry = Fixture::with(|options| options.chunk_max = Some(4)).await;
    let location = registry.open("a").await;
    for (length, first_line) in [(5, "HTTP/1.1 413 Payload Too Large"), (4, "HTTP/1.1 100 Continue")] {
        let mut stream = TcpStream::connect(registry.server.address()).await.unwrap();
        let head = format!(
            "PATCH {location} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\n"
        );
        stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes()).await.unwrap();
        let mut reply = vec![0; first_line.len()];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(String::from_utf8(reply).unwrap(), first_line);
        if length == 5 {
            // The answer ends although the body never came.
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_failure_of_our_own_names_no_path() {
    let registry = Fixture::start().await;
    registry.image("a", "1", b"layer").await;
    fs_err::write(registry.dir.path().join("a/index.json"), b"{").unwrap();
    let reply = registry.get("/v2/a/manifests/1").await;
    assert_eq!(reply.status(), 500);
    let text = reply.text().await.unwrap();
    assert!(!text.contains("index.json"), "{text}");
}

#[tokio::test]
async fn only_who_knows_the_password_gets_in() {
    let registry = Fixture::with(|options| options.access = Access::basic("me", "secret")).await;
    let reply = registry.get("/v2/").await;
    assert_eq!(
        (reply.status().as_u16(), header(&reply, "www-authenticate")),
        (401, "Basic realm=\"longshore\"")
    );
    assert_eq!(code(reply).await, "UNAUTHORIZED");
    let request = registry.request(Method::GET, "/v2/").basic_auth("me", Some("secret"));
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_upload_at_once() {
    let registry = Arc::new(Fixture::start().await);
    let mut pushes = JoinSet::new();
    for push in 0..16_u8 {
        let registry = Arc::clone(&registry);
        pushes.spawn(async move {
            // Every second one brings the same layer, and all come to the same index.
            let layer = vec![push / 2; 1_000_000];
            registry.image("a", &format!("t{push}"), &layer).await
        });
    }
    let pushed = pushes.join_all().await;
    let tags: serde_json::Value =
        serde_json::from_slice(&registry.get("/v2/a/tags/list").await.bytes().await.unwrap()).unwrap();
    assert_eq!(tags["tags"].as_array().unwrap().len(), pushed.len());
    for layer in 0..8 {
        let bytes = vec![layer; 1_000_000];
        let path = format!("/v2/a/blobs/{}", Digest::of(&bytes));
        assert_eq!(registry.get(&path).await.bytes().await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn requests_in_flight_finish_before_the_end() {
    let registry = Fixture::start().await;
    let bytes = vec![7; 1_000_000];
    let digest = Digest::of(&bytes);
    let path = format!("{}?digest={digest}", registry.open("a").await);
    let mut stream = registry.begin(Method::PUT, &path, &bytes, 600_000).await;
    let address = registry.server.address();
    let stopping = tokio::spawn(registry.server.stop());
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(&bytes[600_000..]).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    stopping.await.unwrap();
    assert!(registry.dir.path().join("a/blobs/sha256").join(digest.hex()).exists());
}
