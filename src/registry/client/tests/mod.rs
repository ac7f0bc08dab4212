//! What a client says over its socket, and what it makes of the answers.

mod authentication;
mod blobs;
mod connections;
mod manifests;
mod redirects;
mod uploads;

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    oci::{Algorithm, Digest},
    registry::{
        Location, UploadBody,
        credentials::{Credential, Credentials, Secret},
        retry::Pace,
        session::{Mount, Request},
        transport::Pool,
    },
};

/// A request as it came over the wire; names of headers are lower case.
#[derive(Clone, Debug, Default)]
struct Seen {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn is(&self, start: &str) -> bool {
        self.line.starts_with(start)
    }
}

enum Answer {
    /// Reads the body, then says this.
    Say(String),
    /// Says this before the body, then counts what comes nevertheless.
    Interrupt(String),
    /// Takes so many bytes of the body, then resets the connection.
    Reset(usize),
    /// Says this, and closes the connection.
    Leave(String),
    /// Says nothing for ever.
    Silence,
}

fn say(status: u16, headers: &[&str], body: &str) -> Answer {
    let mut answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        answer.push_str(header);
        answer.push_str("\r\n");
    }
    Answer::Say(format!("{answer}\r\n{body}"))
}

/// A server written by hand: it can misbehave, and sees every byte.
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&log), Arc::clone(&answer)));
            }
        });
        Self { port, seen }
    }

    fn client(&self, options: ClientOptions) -> Client {
        Client::new(&format!("127.0.0.1:{}", self.port), options).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    fn count(&self, start: &str) -> usize {
        self.seen().iter().filter(|seen| seen.is(start)).count()
    }
}

async fn serve<A: Fn(&Seen) -> Answer>(
    mut connection: TcpStream,
    log: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<A>,
) {
    while let Some(mut seen) = read_head(&mut connection).await {
        let length = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        match answer(&seen) {
            Answer::Say(text) => {
                seen.body = vec![0; length];
                if connection.read_exact(&mut seen.body).await.is_err() {
                    return;
                }
                log.lock().push(seen);
                if connection.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Answer::Interrupt(text) => {
                connection.write_all(text.as_bytes()).await.unwrap();
                connection.read_to_end(&mut seen.body).await.unwrap_or_default();
                log.lock().push(seen);
                return;
            }
            Answer::Leave(text) => {
                log.lock().push(seen);
                return connection.write_all(text.as_bytes()).await.unwrap();
            }
            Answer::Reset(bytes) => {
                seen.body = vec![0; bytes];
                connection.read_exact(&mut seen.body).await.unwrap();
                log.lock().push(seen);
                connection.set_zero_linger().unwrap();
                return;
            }
            Answer::Silence => {
                log.lock().push(seen);
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn read_head(connection: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
        if head[0] == 0x16 {
            // A TLS handshake: a real server would not wait for the end of this line either.
            return None;
        }
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some(Seen { line, headers, body: Vec::new() })
}

fn options() -> ClientOptions {
    ClientOptions { pace: Pace::INSTANT, retries: 2, ..ClientOptions::default() }
}

fn bob() -> ClientOptions {
    let mut credentials = Credentials::default();
    let credential = Credential::Login { user: "bob".into(), password: Secret::new("xyzzy") };
    credentials.give("a test", credential);
    ClientOptions { credentials, ..options() }
}

/// bob:xyzzy
const BOB: &str = "Basic Ym9iOnh5enp5";

fn body(size: usize) -> UploadBody {
    let frame = Bytes::from(vec![b'x'; 64 << 10]);
    let whole = vec![Ok(frame.clone()); size / frame.len()];
    let rest = (!size.is_multiple_of(frame.len())).then(|| Ok(frame.slice(..size % frame.len())));
    UploadBody { size: size as u64, frames: Box::pin(stream::iter(whole.into_iter().chain(rest))) }
}

fn at(server: &Server, path: &str) -> Location {
    Location(format!("http://127.0.0.1:{}{path}", server.port).parse().unwrap())
}

fn open() -> Request {
    Request::Open { mount: None, algorithm: Algorithm::Sha256 }
}
