//! A real S3 server (s3s-fs) on a loopback port, which wants its requests signed; and a relay before it, for a
//! connection that breaks down in the middle.
//!
//! S3 heeds conditions (`If-Match`, `If-None-Match: *`) and s3s-fs does not: they are decided before it is asked, so
//! that the server is as heedful as S3, or as heedless as some others; or as troubled as S3 on a bad day, whose answers
//! do not say what was done.

use std::{
    collections::{HashMap, HashSet},
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ETAG, IF_MATCH, IF_NONE_MATCH},
};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::rt::TokioIo;
use longshore::{bucket::Bucket, registry::Secret};
use s3s::{
    Body, S3Error,
    auth::SimpleAuth,
    service::{S3ServiceBuilder, SharedS3Service},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::until::PATIENCE;

/// What a request to write may be answered with, by the path of what it writes: each object's last entity tag.
type Tags = tokio::sync::Mutex<HashMap<String, HeaderValue>>;

/// The bucket.
const BUCKET: &str = "fleet";
const KEY_ID: &str = "AKIALONGSHORE";
pub(crate) const SECRET_KEY: &str = "never+in/any0message";

/// A running server with one bucket; it stops when dropped.
pub(crate) struct S3 {
    root: TempDir,
    address: SocketAddr,
    _runtime: Runtime,
}

impl S3 {
    /// The address of a registry in the bucket.
    pub(crate) const REGISTRY: &str = "s3://fleet/registry";

    pub(crate) fn start() -> Self {
        Self::with(Mood::Heedful)
    }

    /// Starts one that writes whatever the conditions are.
    pub(crate) fn heedless() -> Self {
        Self::with(Mood::Heedless)
    }

    /// Starts one that answers 409 to whoever creates an object, and loses its answer when it has done what others would
    /// do only once.
    pub(crate) fn troubled() -> Self {
        Self::with(Mood::Troubled)
    }

    fn with(mood: Mood) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs_err::create_dir(root.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET_KEY));
        let service = service.build().into_shared();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (tags, folder) = (Arc::new(Tags::default()), root.path().to_owned());
        let troubles = Arc::new(Troubles::default());
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, tags, folder) = (service.clone(), Arc::clone(&tags), folder.clone());
                let troubles = Arc::clone(&troubles);
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (service, tags, folder) = (service.clone(), Arc::clone(&tags), folder.clone());
                    let troubles = Arc::clone(&troubles);
                    async move {
                        let once = (mood == Mood::Troubled).then(|| done_once(&request)).flatten();
                        if let Some(refusal) = once.as_ref().and_then(|once| troubles.before(once)) {
                            return Ok::<_, S3Error>(refusal);
                        }
                        let reply = if request.method() != Method::PUT || mood == Mood::Heedless {
                            service.call(request).await?
                        } else {
                            put(request, &service, &tags, &folder).await?
                        };
                        match once {
                            Some(once) => Ok(troubles.after(once, reply).await),
                            None => Ok(reply),
                        }
                    }
                });
                let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
                // Whoever asked knows how it ended.
                tokio::spawn(async { connection.await.ok() });
            }
        });
        Self { root, address, _runtime: runtime }
    }

    /// Returns where the server listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the bucket's own address.
    pub(crate) fn url() -> String {
        format!("s3://{BUCKET}/cache/v1")
    }

    /// Returns the variables by which it is found, and by which one is let in.
    pub(crate) fn variables(address: SocketAddr, secret: &str) -> Vec<(String, String)> {
        let endpoint = format!("http://{address}");
        [
            ("AWS_ACCESS_KEY_ID", KEY_ID),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_REGION", "us-east-1"),
            ("AWS_SECRET_ACCESS_KEY", secret),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Opens the bucket, for somebody who waits for it on however busy a machine.
    pub(crate) fn bucket(&self) -> Bucket {
        Self::bucket_at(self.address, SECRET_KEY).with_patience(PATIENCE)
    }

    /// Opens the bucket of a server at some address.
    pub(crate) fn bucket_at(address: SocketAddr, secret: &str) -> Bucket {
        let variables = Self::variables(address, secret);
        let variables: Vec<_> =
            variables.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        Bucket::open(&Self::url(), &variables).unwrap()
    }

    /// Returns where the server keeps what lies in the registry.
    pub(crate) fn registry(&self) -> PathBuf {
        self.root.path().join(BUCKET).join("registry")
    }

    /// Returns how many parts lie there that are no object's.
    pub(crate) fn loose_parts(&self) -> usize {
        let files = fs_err::read_dir(self.root.path()).unwrap();
        files.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().contains(".part-")).count()
    }

    /// Returns where the server keeps what lies in the bucket.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join(BUCKET).join("cache/v1")
    }
}

/// How a server treats conditions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Heedful,
    Heedless,
    Troubled,
}

/// What a troubled server has refused for now, and what it has done without saying so.
#[derive(Default)]
struct Troubles(Mutex<HashSet<String>>);

impl Troubles {
    fn before(&self, once: &str) -> Option<Response<Body>> {
        let mut known = self.0.lock().unwrap();
        if once.starts_with("POST") {
            return known.contains(once).then(|| refusal(StatusCode::NOT_FOUND, "NoSuchUpload"));
        }
        let is_new = once.ends_with('*') && known.insert(format!("409 {once}"));
        is_new.then(|| refusal(StatusCode::CONFLICT, "ConditionalRequestConflict"))
    }

    async fn after(&self, once: String, reply: Response<Body>) -> Response<Body> {
        if !reply.status().is_success() || !self.0.lock().unwrap().insert(once) {
            return reply;
        }
        // An object is made of its parts while the answer is read.
        reply.into_body().collect().await.unwrap();
        refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")
    }
}

/// Names what a request does that cannot be done twice: making an object of parts, or writing by a condition.
fn done_once(request: &Request<Incoming>) -> Option<String> {
    let (method, headers) = (request.method(), request.headers());
    let condition = headers.get(IF_MATCH).or(headers.get(IF_NONE_MATCH)).and_then(|tag| tag.to_str().ok());
    let completes = *method == Method::POST && request.uri().query().unwrap_or_default().contains("uploadId");
    let condition = if completes { Some("") } else { condition };
    condition.map(|condition| format!("{method} {} {condition}", request.uri()))
}

fn refusal(status: StatusCode, code: &str) -> Response<Body> {
    let mut refusal = Response::new(Body::from(format!("<Error><Code>{code}</Code></Error>")));
    *refusal.status_mut() = status;
    refusal
}

/// Writes an object, one at a time, if it is what the request's conditions say.
async fn put(
    request: Request<Incoming>,
    service: &SharedS3Service,
    tags: &Tags,
    folder: &Path,
) -> Result<Response<Body>, S3Error> {
    let path = request.uri().path().to_owned();
    let exists = folder.join(path.trim_start_matches('/')).exists();
    let mut tags = tags.lock().await;
    let headers = request.headers();
    let is_as_it_was = headers.get(IF_MATCH).is_none_or(|tag| exists && tags.get(&path) == Some(tag));
    let is_new = headers.get(IF_NONE_MATCH).is_none_or(|_| !exists);
    if !is_as_it_was || !is_new {
        return Ok(refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
    }
    if request.uri().query().is_some_and(|query| query.contains("partNumber")) {
        drop(tags);
        return service.call(request).await;
    }
    let reply = service.call(request).await?;
    tags.extend(reply.headers().get(ETAG).map(|tag| (path, tag.clone())));
    Ok(reply)
}

/// Passes bytes on in both directions, until so many have come back; then it holds its peace, and the connection.
pub(crate) struct Relay {
    address: SocketAddr,
}

impl Relay {
    pub(crate) fn before(server: SocketAddr, limit: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let passed = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass_on(from, to, |_| true));
                let passed = Arc::clone(&passed);
                thread::spawn(move || {
                    pass_on(server, client, |size| passed.fetch_add(size, Ordering::Relaxed) + size <= limit);
                });
            }
        });
        Self { address }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Copies until the end; what may not pass is read all the same.
fn pass_on(mut from: TcpStream, mut to: TcpStream, may_pass: impl Fn(usize) -> bool) {
    let mut buffer = vec![0; 4 << 10];
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        if may_pass(size) && to.write_all(&buffer[..size]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).unwrap_or_default();
}
