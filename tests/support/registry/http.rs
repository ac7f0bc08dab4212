//! The wire: HTTP/1.1 by hand, so that a body can be cut, an answer be early and a connection be reset.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, pki_types::PrivatePkcs8KeyDer},
    server::TlsStream,
};

/// The first part of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
}

impl Head {
    /// Returns the path without the query.
    pub(super) fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// Returns all values of a parameter of the query.
    pub(super) fn parameters(&self, name: &str) -> Vec<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
    }

    /// Returns the first value of a parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).into_iter().next()
    }

    /// Returns a header; its name in any case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the stated length of the body.
    pub(super) fn content_length(&self) -> Option<usize> {
        self.header("Content-Length")?.parse().ok()
    }

    /// Makes a `Content-Range` fit a body of which less is taken than came.
    pub(super) fn shorten_content_range(&mut self, length: usize) {
        for (name, value) in &mut self.headers {
            if let (true, Some((start, _))) =
                (name.eq_ignore_ascii_case("Content-Range"), value.split_once('-'))
            {
                let last = start.parse().map_or(0, |start: usize| start + length - 1);
                *value = format!("{start}-{last}");
            }
        }
    }

    /// Returns what is secret of it, in so few words that none are cut off.
    pub(super) fn in_one_line(&self) -> String {
        let authorization = self.header("Authorization").unwrap_or_default();
        format!("{authorization} {} {}", self.method, self.target)
    }

    /// Returns whether the body comes in pieces of unstated number.
    pub(super) fn is_chunked(&self) -> bool {
        self.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, Some(value.into()));
        self
    }

    /// Replaces a header, or removes it.
    pub(super) fn set(&mut self, name: &str, value: Option<String>) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.extend(value.map(|value| (name.to_owned(), value)));
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What was read of a body.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// All of it is here.
    pub(super) whole: bool,
}

/// One connection.
pub(super) struct Wire {
    stream: Stream,
    buffer: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Takes a connection, after the TLS handshake if there is to be one.
    pub(super) async fn accept(socket: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let stream = match tls {
            Some(tls) => Stream::Tls(Box::new(tls.accept(socket).await?)),
            None => Stream::Plain(socket),
        };
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Reads the next request's head; `None` if the client has closed.
    pub(super) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(&self.buffer).map_err(io::Error::other)? {
                httparse::Status::Complete(length) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let target = request.path.unwrap_or_default();
                    // Whoever takes us for a proxy names the host too.
                    let named =
                        target.strip_prefix("http://").and_then(|rest| rest.find('/').map(|i| &rest[i..]));
                    let head = Head {
                        method: request.method.unwrap_or_default().to_owned(),
                        target: named.unwrap_or(target).to_owned(),
                        headers: request.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect(),
                    };
                    self.buffer.drain(..length);
                    return Ok(Some(head));
                }
                httparse::Status::Partial if self.fill().await? == 0 => return Ok(None),
                httparse::Status::Partial => {}
            }
        }
    }

    /// Reads the body, or its first `limit` bytes.
    pub(super) async fn body(&mut self, head: &Head, limit: usize) -> Body {
        if head.is_chunked() {
            return self.chunked_body(limit).await;
        }
        let length = head.content_length().unwrap_or(0);
        let whole = self.fill_to(length.min(limit)).await && length <= limit;
        let taken = self.buffer.len().min(length).min(limit);
        Body { bytes: self.buffer.drain(..taken).collect(), whole }
    }

    async fn chunked_body(&mut self, limit: usize) -> Body {
        let mut bytes = Vec::new();
        loop {
            let Some(line) = self.line().await else { return Body { bytes, whole: false } };
            let Ok(size) = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            else {
                return Body { bytes, whole: false };
            };
            if size == 0 {
                let whole = self.line().await.is_some();
                return Body { bytes, whole };
            }
            let arrived = self.fill_to(size + 2).await;
            let taken = size.min(self.buffer.len()).min(limit - bytes.len());
            bytes.extend(self.buffer.drain(..taken));
            if !arrived || bytes.len() == limit {
                return Body { bytes, whole: false };
            }
            self.buffer.drain(..2);
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..end + 2).collect::<Vec<_>>();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !matches!(self.fill().await, Ok(1..)) {
                return None;
            }
        }
    }

    /// Writes an answer; a HEAD's has the length of the body it stands for and no body.
    pub(super) async fn send(&mut self, answer: &Answer, to: &Head) -> io::Result<()> {
        use std::fmt::Write as _;
        let mut text = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
        for (name, value) in &answer.headers {
            write!(text, "{name}: {value}\r\n").expect("a String takes every write");
        }
        if answer.header("Content-Length").is_none() && answer.status != 204 {
            write!(text, "Content-Length: {}\r\n", answer.body.len()).expect("a String takes every write");
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if to.method != "HEAD" {
            bytes.extend(&answer.body);
        }
        self.write(&bytes).await
    }

    /// Writes this for ever, until the client has gone; returns how much it was.
    pub(super) async fn pour(&mut self, beginning: &str, more: &str) -> u64 {
        let more = more.repeat((64 << 10) / more.len());
        let mut poured = 0;
        let mut next = beginning;
        while self.write(next.as_bytes()).await.is_ok() {
            poured += next.len() as u64;
            next = &more;
        }
        poured
    }

    /// Lets a client that asked for it send its body.
    pub(super) async fn go_on(&mut self, head: &Head) -> io::Result<()> {
        if head.header("Expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        Ok(())
    }

    /// Ends the connection by RST.
    pub(super) fn reset(self) {
        let socket = match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        // A client that has gone already needs no reset.
        drop(socket.set_zero_linger());
    }

    /// Throws away what still comes, until the client closes its side: what was answered arrives. Returns how
    /// much it was.
    pub(super) async fn linger(mut self) -> u64 {
        let mut late = self.buffer.len();
        while let Ok(read @ 1..) = self.fill().await {
            self.buffer.clear();
            late += read;
        }
        late as u64
    }

    async fn fill_to(&mut self, length: usize) -> bool {
        while self.buffer.len() < length {
            if !matches!(self.fill().await, Ok(1..)) {
                return false;
            }
        }
        true
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(64 << 10);
        match &mut self.stream {
            Stream::Plain(socket) => socket.read_buf(&mut self.buffer).await,
            Stream::Tls(stream) => stream.read_buf(&mut self.buffer).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes).await,
            Stream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }
}

/// Makes a certificate for 127.0.0.1 and localhost; returns it in PEM too, for those who shall trust it.
pub(super) fn self_signed() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    // Nobody who asks for HTTP/2 will be understood.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

fn reason(status: u16) -> String {
    let known = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    known.unwrap_or("Unknown").to_owned()
}
