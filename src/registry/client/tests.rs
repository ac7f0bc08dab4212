//! What a client says over its socket, and what it makes of the answers.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::stream;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls};

use super::*;
use crate::{
    oci::{Algorithm, Digest},
    registry::{
        Location, UploadBody,
        certificates::Certificates,
        credentials::{Credential, Credentials, Secret},
        proxies::Proxies,
        retry::Pace,
        session::{Mount, Request},
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
        self.seen.lock().unwrap().clone()
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
                log.lock().unwrap().push(seen);
                if connection.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Answer::Interrupt(text) => {
                connection.write_all(text.as_bytes()).await.unwrap();
                connection.read_to_end(&mut seen.body).await.unwrap_or_default();
                log.lock().unwrap().push(seen);
                return;
            }
            Answer::Leave(text) => {
                log.lock().unwrap().push(seen);
                return connection.write_all(text.as_bytes()).await.unwrap();
            }
            Answer::Reset(bytes) => {
                seen.body = vec![0; bytes];
                connection.read_exact(&mut seen.body).await.unwrap();
                log.lock().unwrap().push(seen);
                connection.set_zero_linger().unwrap();
                return;
            }
            Answer::Silence => {
                log.lock().unwrap().push(seen);
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

#[tokio::test]
async fn every_request_of_an_upload_is_as_registries_want_it() {
    let server =
        Server::start(|_| say(202, &["Location: /v2/demo/blobs/uploads/1?_state=a%2Bb=="], "")).await;
    let client = server.client(options());
    let digest = Digest::of(b"x");
    let mount = Some(Mount { digest: digest.clone(), from: "other/demo".into() });
    let location = at(&server, "/up/1?_state=a%2Bb==");
    let mut next = None;
    for (request, carried) in [
        (Request::Exists { digest: digest.clone() }, None),
        (open(), None),
        (Request::Open { mount, algorithm: Algorithm::Sha512 }, None),
        (Request::Patch { location: location.clone(), range: 5..9 }, Some(body(4))),
        (Request::Status { location: location.clone() }, None),
        (Request::Commit { location: location.clone(), digest: digest.clone(), body: None }, None),
        (
            Request::Commit { location: location.clone(), digest: digest.clone(), body: Some(3) },
            Some(body(3)),
        ),
        (Request::Cancel { location: location.clone() }, None),
    ] {
        let reply = client.exchange("demo", &request, carried, Pool::Chunked).await.unwrap();
        assert_eq!(reply.status, 202);
        next = reply.location.or(next);
    }
    assert_eq!(next, Some(at(&server, "/v2/demo/blobs/uploads/1?_state=a%2Bb==")));

    let hex = digest.hex();
    let octets = Some("application/octet-stream");
    let state = "_state=a%2Bb==";
    let expected = [
        (format!("HEAD /v2/demo/blobs/{digest}"), None, None, None, 0),
        ("POST /v2/demo/blobs/uploads/".into(), Some("0"), None, None, 0),
        (
            format!(
                "POST /v2/demo/blobs/uploads/?mount=sha256%3A{hex}&from=other%2Fdemo&digest-algorithm=sha512"
            ),
            Some("0"),
            None,
            None,
            0,
        ),
        (format!("PATCH /up/1?{state}"), Some("4"), octets, Some("5-8"), 4),
        (format!("GET /up/1?{state}"), None, None, None, 0),
        (format!("PUT /up/1?{state}&digest=sha256%3A{hex}"), Some("0"), octets, None, 0),
        (format!("PUT /up/1?{state}&digest=sha256%3A{hex}"), Some("3"), octets, None, 3),
        (format!("DELETE /up/1?{state}"), Some("0"), None, None, 0),
    ];
    let seen = server.seen();
    assert_eq!(seen.len(), expected.len());
    for (seen, (line, length, content_type, range, size)) in seen.iter().zip(expected) {
        assert_eq!(seen.line, line);
        assert_eq!(seen.header("content-length"), length, "{line}");
        assert_eq!(seen.header("content-type"), content_type, "{line}");
        assert_eq!(seen.header("content-range"), range, "{line}");
        assert_eq!(seen.body.len(), size, "{line}");
        assert_eq!(seen.header("user-agent"), Some(concat!("longshore/", env!("CARGO_PKG_VERSION"))));
        for absent in ["transfer-encoding", "authorization", "cookie", "expect"] {
            assert_eq!(seen.header(absent), None, "{line}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_the_request_says_is_not_sent() {
    let server = Server::start(|_| say(202, &[], "")).await;
    let client = server.client(options());
    let patch = Request::Patch { location: at(&server, "/1"), range: 0..4 };
    for carried in [None, Some(body(3)), Some(body(5))] {
        let fault = client.exchange("demo", &patch, carried, Pool::Small).await.unwrap_err();
        assert!(matches!(fault, Fault::Fatal(error) if error.kind() == ErrorKind::Internal));
    }
    assert!(server.seen().is_empty());
}

/// A registry whose tokens are `t1`, `t2`, … and which takes only the newest.
async fn token_registry(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Server {
    let issued = AtomicU64::new(0);
    Server::start(move |seen| {
        if seen.is("GET /token") || seen.is("POST /token") {
            if seen.is("POST /token?old") {
                return say(405, &[], "");
            }
            let newest = issued.fetch_add(1, Ordering::Relaxed) + 1;
            return say(200, &[], &format!(r#"{{"token":"t{newest}","expires_in":300}}"#));
        }
        let newest = format!("Bearer t{}", issued.load(Ordering::Relaxed));
        if seen.header("authorization") == Some(&newest) {
            return answer(seen);
        }
        let host = seen.header("host").unwrap();
        let challenge =
            format!(r#"WWW-Authenticate: Bearer realm="http://{host}/token?old=1",service="a, b""#);
        say(401, &[&challenge], r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
    })
    .await
}

#[tokio::test]
async fn a_challenge_is_answered_by_one_token_for_all_who_wait() {
    let server = token_registry(|_| say(202, &["Location: /1"], "")).await;
    let client = server.client(bob());
    let opens = (0..8).map(|_| async {
        let reply = client.exchange("a/demo", &open(), None, Pool::Small).await.unwrap();
        assert_eq!(reply.status, 202);
    });
    futures_util::future::join_all(opens).await;
    let tokens: Vec<_> = server.seen().into_iter().filter(|seen| seen.is("GET /token")).collect();
    let [token] = tokens.as_slice() else { panic!("one token: {tokens:?}") };
    assert_eq!(token.header("authorization"), Some(BOB));
    assert_eq!(
        token.line,
        "GET /token?old=1&service=a%2C+b&scope=repository%3Aa%2Fdemo%3Apull%2Cpush&client_id=longshore&account=bob"
    );
}

#[tokio::test]
async fn a_token_server_in_trouble_is_asked_once_for_all_who_wait() {
    let server = Server::start(|seen| {
        if seen.is("GET /token") {
            return say(503, &[], "");
        }
        let host = seen.header("host").unwrap();
        say(401, &[&format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"")], "")
    })
    .await;
    let client = server.client(bob());
    let ask = async || client.exchange("demo", &open(), None, Pool::Small).await.unwrap_err();
    assert!(matches!(ask().await, Fault::Connect { .. }));
    // From now on it is known that a token is wanted.
    for round in 2..4 {
        let faults = futures_util::future::join_all((0..8).map(|_| ask())).await;
        assert!(faults.iter().all(|fault| matches!(fault, Fault::Connect { .. })), "{faults:?}");
        assert_eq!(server.count("GET /token"), round);
    }
}

#[tokio::test]
async fn a_refused_body_drops_the_token_and_the_next_gets_another() {
    let revoked = AtomicU64::new(0);
    let server = token_registry(move |seen| {
        if seen.is("PATCH") && revoked.fetch_add(1, Ordering::Relaxed) == 0 {
            return say(401, &[], "");
        }
        say(204, &["Range: 0-3"], "")
    })
    .await;
    let client = server.client(bob());
    let location = at(&server, "/1");
    let status = Request::Status { location: location.clone() };
    let patch = Request::Patch { location, range: 0..4 };
    assert_eq!(client.exchange("demo", &status, None, Pool::Small).await.unwrap().status, 204);
    let reply = client.exchange("demo", &patch, Some(body(4)), Pool::Small).await.unwrap();
    assert_eq!((reply.status, reply.error.unwrap().status), (401, 401));
    assert_eq!(server.count("PATCH"), 1);
    for _ in 0..2 {
        client.reauthenticate("demo").await;
        assert_eq!(server.count("GET /token"), 2);
    }
    let reply = client.exchange("demo", &patch, Some(body(4)), Pool::Small).await.unwrap();
    assert_eq!(reply.status, 204);
    assert_eq!(server.seen().last().unwrap().header("authorization"), Some("Bearer t2"));
}

#[tokio::test]
async fn an_identity_token_is_traded_by_post_or_else_by_get() {
    let mut credentials = Credentials::default();
    credentials.give("a test", Credential::Identity(Secret::new("refresh me")));
    let server = token_registry(|_| say(202, &["Location: /1"], "")).await;
    let client = server.client(ClientOptions { credentials, ..options() });
    client.exchange("demo", &open(), None, Pool::Small).await.unwrap();
    let post = server.seen().into_iter().find(|seen| seen.is("POST /token")).unwrap();
    assert_eq!(
        String::from_utf8(post.body).unwrap(),
        "grant_type=refresh_token&service=a%2C+b&client_id=longshore&\
         scope=repository%3Ademo%3Apull%2Cpush&refresh_token=refresh+me"
    );
    assert_eq!(server.count("GET /token?old=1"), 1);
}

#[tokio::test]
async fn a_token_outlives_the_body_it_is_sent_with() {
    let server = Server::start(|seen| match (seen.is("GET /token"), seen.header("authorization")) {
        (true, _) => say(200, &[], r#"{"token":"t","expires_in":20}"#),
        (false, Some("Bearer t")) => say(202, &["Location: /1"], ""),
        _ => {
            let host = seen.header("host").unwrap();
            say(401, &[&format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"")], "")
        }
    })
    .await;
    let client = server.client(options());
    let patch = Request::Patch { location: at(&server, "/1"), range: 0..4 };
    for (request, carried, tokens) in
        [(&open(), None, 1), (&open(), None, 1), (&patch, Some(body(4)), 2), (&open(), None, 2)]
    {
        let reply = client.exchange("demo", request, carried, Pool::Small).await.unwrap();
        assert_eq!((reply.status, server.count("GET /token")), (202, tokens));
    }
}

#[tokio::test]
async fn a_forbidden_mount_source_forbids_nothing_else() {
    let server = Server::start(|seen| {
        let host = seen.header("host").unwrap();
        if seen.is("GET /token") {
            if seen.line.contains("secret") {
                return say(403, &[], "");
            }
            return say(200, &[], r#"{"access_token":"t"}"#);
        }
        match seen.header("authorization") {
            Some("Bearer t") => say(202, &["Location: /1"], ""),
            _ => say(401, &[&format!("WWW-Authenticate: bearer realm=\"http://{host}/token\"")], ""),
        }
    })
    .await;
    let mount = Some(Mount { digest: Digest::of(b"x"), from: "secret/base".into() });
    let request = Request::Open { mount, algorithm: Algorithm::Sha256 };
    let client = server.client(bob());
    assert_eq!(client.exchange("demo", &request, None, Pool::Small).await.unwrap().status, 202);
    let lines: Vec<_> = server.seen().into_iter().map(|seen| seen.line).collect();
    assert!(lines[1].ends_with("&scope=repository%3Asecret%2Fbase%3Apull&client_id=longshore&account=bob"));
    assert!(lines[2].contains("?scope=repository%3Ademo%3Apull%2Cpush&client_id"), "{lines:?}");
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn a_token_server_may_move_a_question_but_not_to_somebody_else() {
    for (status, to, answered) in
        [(301, "/token/", true), (308, "/token/", true), (302, "http://localhost:1/token", false)]
    {
        let moved = format!("Location: {to}");
        let server = Server::start(move |seen| {
            let host = seen.header("host").unwrap();
            match (seen.is("GET /token/"), seen.is("GET /token"), seen.header("authorization")) {
                (true, _, Some(BOB)) => say(200, &[], r#"{"token":"t"}"#),
                (_, true, Some(BOB)) => {
                    let query = seen.line.split_once('?').unwrap().1;
                    say(status, &[&format!("{moved}?{query}")], "")
                }
                (.., Some("Bearer t")) => say(404, &[], ""),
                _ => say(401, &[&format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"")], ""),
            }
        })
        .await;
        let found = server.client(bob()).head_manifest("demo", "1").await;
        assert_eq!(found.is_ok(), answered, "{to}: {found:?}");
        assert_eq!(server.count("GET /token?"), 1);
    }
}

#[tokio::test]
async fn what_one_repository_asks_for_is_asked_for_no_other() {
    let server = Server::start(|seen| {
        if seen.is("GET /token") {
            // Not every token server gives less than it is asked for.
            let forbidden = seen.line.contains("secret");
            return if forbidden { say(403, &[], "") } else { say(200, &[], r#"{"token":"t"}"#) };
        }
        let (host, repository) = (seen.header("host").unwrap(), seen.line.split('/').nth(2).unwrap());
        let challenge = format!(
            r#"WWW-Authenticate: Bearer realm="http://{host}/token",scope="repository:{repository}:pull""#
        );
        if seen.header("authorization").is_some() { say(404, &[], "") } else { say(401, &[&challenge], "") }
    })
    .await;
    let client = server.client(bob());
    let error = client.head_manifest("secret", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(client.head_manifest("demo", "1").await.unwrap(), None);
}

#[tokio::test]
async fn a_registry_token_is_shown_as_it_is() {
    let server = Server::start(|seen| match seen.header("authorization") {
        Some("Bearer given") => say(404, &[], ""),
        _ => say(401, &["WWW-Authenticate: Basic realm=x"], ""),
    })
    .await;
    let mut credentials = Credentials::default();
    credentials.give("a test", Credential::Token(Secret::new("given")));
    let client = server.client(ClientOptions { credentials, ..options() });
    assert_eq!(client.head_manifest("demo", "1").await.unwrap(), None);
    assert_eq!(client.credential_source("demo"), "a token from a test");

    let nobody = server.client(options());
    let error = nobody.head_manifest("demo", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let log_in = format!("log in by `longshore login {}`", nobody.0.host);
    assert_eq!(error.hints(), [nobody.credential_source("demo"), log_in]);
}

#[tokio::test]
async fn basic_is_shown_after_the_first_challenge() {
    let server = Server::start(|seen| match seen.header("authorization") {
        Some(BOB) => say(404, &[], ""),
        _ => say(401, &["WWW-Authenticate: BASIC realm=\"x\""], ""),
    })
    .await;
    let client = server.client(bob());
    for _ in 0..3 {
        assert_eq!(client.head_blob("demo", &Digest::of(b"x")).await.unwrap(), None);
    }
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_denial_names_whose_credentials_were_shown_and_not_the_secret() {
    let server = Server::start(|seen| {
        let words = r#"{"errors":[{"code":"DENIED","message":"read-only"}]}"#;
        say(403, &["Server: guard"], if seen.is("HEAD") { "" } else { words })
    })
    .await;
    let error = server.client(bob()).head_blob("demo", &Digest::of(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(error.hints(), ["the registry was shown user `bob` from a test"]);
    let words = chain(&error);
    assert!(words.contains("DENIED: read-only") && words.contains("by guard"), "{words}");

    let refusing = Server::start(|seen| {
        if seen.is("GET /token") {
            return say(401, &[], r#"{"details":"incorrect username or password"}"#);
        }
        let host = seen.header("host").unwrap();
        say(401, &[&format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"")], "")
    })
    .await;
    let client = refusing.client(bob());
    for _ in 0..2 {
        let error = client.head_manifest("demo", "1").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        let [shown, log_in] = error.hints()[..] else { panic!("two hints: {error:?}") };
        assert_eq!(shown, "the registry was shown user `bob` from a test");
        assert!(log_in.contains("`longshore login 127.0.0.1:"), "{log_in}");
        let words = format!("{error:?}");
        assert!(words.contains("incorrect username") && !words.contains("xyzzy"), "{words}");
    }
    assert_eq!(refusing.count("GET /token"), 1, "a refused login is not tried again");
}

#[tokio::test]
async fn a_denial_says_what_was_not_shown() {
    let mut identity = Credentials::default();
    identity.give("a test", Credential::Identity(Secret::new("xyzzy")));
    let identity = ClientOptions { credentials: identity, ..options() };
    for (challenge, options, source, wanted) in [
        ("Digest realm=\"r\"", bob(), "user `bob`", "no login by Basic or Bearer"),
        ("Basic realm=\"r\"", identity, "an identity token", "a user and a password"),
    ] {
        let challenge = format!("WWW-Authenticate: {challenge}");
        let server = Server::start(move |_| say(401, &[&challenge], "")).await;
        let error = server.client(options).head_blob("demo", &Digest::of(b"x")).await.unwrap_err();
        let hint = format!("{source} from a test was not shown: the registry asks for {wanted}");
        assert_eq!(error.hints()[0], hint);
    }
}

#[tokio::test]
async fn what_is_cut_off_is_asked_for_again() {
    let (tokens, manifests) = (AtomicU64::new(0), AtomicU64::new(0));
    let cut = |body: &str| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 100";
        Answer::Leave(format!("{head}\r\n\r\n{body}"))
    };
    let server = Server::start(move |seen| {
        let asks_token = seen.is("GET /token");
        if !asks_token && seen.header("authorization").is_none() {
            let realm = format!("http://{}/token", seen.header("host").unwrap());
            return say(401, &[&format!("WWW-Authenticate: Bearer realm=\"{realm}\"")], "");
        }
        let asked = if asks_token { &tokens } else { &manifests };
        match (asked.fetch_add(1, Ordering::Relaxed), asks_token) {
            (0, true) => cut("{\"token\":"),
            (0, false) => cut("{"),
            (_, true) => say(200, &[], r#"{"token":"T"}"#),
            (_, false) => say(200, &["Content-Type: a/b"], "{}"),
        }
    });
    let server = server.await;
    let (_, manifest) = server.client(bob()).get_manifest("demo", "1").await.unwrap().unwrap();
    assert_eq!(manifest, "{}");
    assert_eq!((server.count("GET /token"), server.count("GET /v2/")), (2, 3));
}

#[tokio::test]
async fn tokens_are_not_fetched_from_another_host_without_tls() {
    let server =
        Server::start(|_| say(401, &["WWW-Authenticate: Bearer realm=\"http://localhost:1/token\""], ""))
            .await;
    let error = server.client(bob()).head_manifest("demo", "1").await.unwrap_err();
    assert!(chain(&error).contains("is another host and has no TLS"), "{error:?}");
}

#[tokio::test]
async fn other_hosts_get_the_bytes_but_not_the_credentials() {
    let foreign = Server::start(|_| say(202, &["Location: /next"], "")).await;
    let port = foreign.port;
    let server = Server::start(move |seen| match seen.header("authorization") {
        None => say(401, &["WWW-Authenticate: Basic realm=\"x\""], ""),
        Some(_) if seen.is("HEAD") => {
            say(307, &[&format!("Location: http://localhost:{port}/blob?sig=1")], "")
        }
        Some(_) => say(202, &[&format!("Location: http://localhost:{port}/upload")], ""),
    })
    .await;
    let client = server.client(bob());
    let reply = client.exchange("demo", &open(), None, Pool::Small).await.unwrap();
    let location = reply.location.unwrap();
    assert_eq!(location.0.host_str(), Some("localhost"));
    let patch = Request::Patch { location, range: 0..9 };
    let reply = client.exchange("demo", &patch, Some(body(9)), Pool::Chunked).await.unwrap();
    assert_eq!(reply.location.unwrap().0.host_str(), Some("localhost"));
    client.head_blob("demo", &Digest::of(b"x")).await.unwrap();

    assert!(server.seen().iter().any(|seen| seen.header("authorization").is_some()));
    let seen = foreign.seen();
    assert_eq!(
        seen.iter().map(|seen| seen.line.as_str()).collect::<Vec<_>>(),
        ["PATCH /upload", "HEAD /blob?sig=1"]
    );
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()), "{seen:?}");
}

#[tokio::test]
async fn a_bucket_on_another_port_of_the_host_is_read_without_credentials() {
    let bucket = Server::start(|_| say(200, &[], "")).await;
    let port = bucket.port;
    let server = Server::start(move |seen| match seen.header("authorization") {
        None => say(401, &["WWW-Authenticate: Basic realm=\"x\""], ""),
        Some(_) if seen.line.starts_with("HEAD /v2/") => {
            say(307, &[&format!("Location: http://127.0.0.1:{port}/bucket/data?sig=1")], "")
        }
        Some(_) => say(404, &[], ""),
    })
    .await;
    assert_eq!(server.client(bob()).head_blob("demo", &Digest::of(b"")).await.unwrap(), Some(0));
    let seen = bucket.seen();
    assert_eq!(seen.iter().map(|seen| seen.line.as_str()).collect::<Vec<_>>(), ["HEAD /bucket/data?sig=1"]);
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()), "{seen:?}");
}

#[test]
fn credentials_are_for_the_registry_and_for_itself_with_tls() {
    let client = Client::new("r.example.com:5000", ClientOptions { plain_http: true, ..options() }).unwrap();
    for (url, ours) in [
        ("http://r.example.com:5000/v2/demo", true),
        ("https://r.example.com/v2/demo", true),
        ("https://r.example.com:9000/bucket/data", false),
        ("http://r.example.com:9000/v2/demo", false),
        ("https://cdn.example.com/v2/demo", false),
    ] {
        assert_eq!(client.may_see_credentials(&url.parse().unwrap()), ours, "{url}");
    }
}

#[tokio::test]
async fn redirects_repeat_the_request_and_end() {
    let server = Server::start(|seen| match seen.line.as_str() {
        "POST /v2/demo/blobs/uploads/" => say(308, &["Location: /v3/demo/"], ""),
        "POST /v3/demo/" => say(301, &["Location: /v4/demo/"], ""),
        "POST /v4/demo/" => say(202, &["Location: 1"], ""),
        "PATCH /v4/demo/1" => say(307, &["Location: /v5/demo/1"], ""),
        "POST /v2/away/blobs/uploads/" => say(302, &["Location: http://localhost:1/x?token=secret"], ""),
        _ => say(307, &["Location: /again"], ""),
    })
    .await;
    let client = server.client(options());
    let reply = client.exchange("demo", &open(), None, Pool::Small).await.unwrap();
    assert_eq!(reply.location, Some(at(&server, "/v4/demo/1")));

    let patch = Request::Patch { location: reply.location.unwrap(), range: 0..4 };
    let reply = client.exchange("demo", &patch, Some(body(4)), Pool::Small).await.unwrap();
    assert_eq!((reply.status, reply.location), (307, Some(at(&server, "/v5/demo/1"))));

    let Err(Fault::Fatal(error)) = client.exchange("away", &open(), None, Pool::Small).await else {
        panic!("a POST is not redirected to another host by 302");
    };
    assert_eq!(error.to_string(), "POST is redirected by 302 to http://localhost:1");

    let error = client.head_manifest("loop", "1").await.unwrap_err();
    assert!(chain(&error).contains("more than 5 redirects"), "{error:?}");
}

#[tokio::test]
async fn an_early_answer_stops_the_body() {
    let server = Server::start(|_| {
        Answer::Interrupt("HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nover".into())
    })
    .await;
    let size = 256 << 20;
    let patch = Request::Patch { location: at(&server, "/1"), range: 0..size as u64 };
    let client = server.client(options());
    let reply = client.exchange("demo", &patch, Some(body(size)), Pool::Chunked).await.unwrap();
    assert_eq!(reply.status, 413);
    assert_eq!(reply.error.unwrap().message.as_deref(), Some("over"));
    while server.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    let taken = server.seen()[0].body.len();
    assert!(taken < size, "{taken} bytes were sent after the answer");
}

#[tokio::test]
async fn a_broken_connection_says_how_far_it_got() {
    let server = Server::start(|_| Answer::Reset(100_000)).await;
    let size = 64 << 20;
    let patch = Request::Patch { location: at(&server, "/1"), range: 0..size as u64 };
    let fault =
        server.client(options()).exchange("demo", &patch, Some(body(size)), Pool::Chunked).await.unwrap_err();
    let Fault::Reset { sent, .. } = fault else { panic!("{fault:?}") };
    assert!(sent >= 100_000 && sent < size as u64, "{sent}");
}

#[tokio::test]
async fn silence_and_absence_are_told_apart() {
    let server = Server::start(|_| Answer::Silence).await;
    let impatient = ClientOptions { timeout: Duration::from_millis(50), ..options() };
    let fault = server.client(impatient).exchange("demo", &open(), None, Pool::Small).await.unwrap_err();
    assert!(matches!(fault, Fault::Stalled { sent: 0, .. }), "{fault:?}");

    let client = Client::new("127.0.0.1:1", options()).unwrap();
    let fault = client.exchange("demo", &open(), None, Pool::Small).await.unwrap_err();
    assert!(matches!(&fault, Fault::Connect { why } if why.contains("refused")), "{fault:?}");
    let error = client.head_manifest("demo", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);

    let elsewhere = "http://localhost:1";
    let status = Request::Status { location: Location(elsewhere.parse().unwrap()) };
    let client = server.client(options());
    let fault = client.exchange("demo", &status, None, Pool::Small).await.unwrap_err();
    let named = format!("{elsewhere} (where the registry sends us): ");
    assert!(matches!(&fault, Fault::Connect { why } if why.starts_with(&named)), "{fault:?}");
}

#[tokio::test]
async fn an_error_of_the_source_comes_back_unchanged() {
    let server = Server::start(|_| say(202, &[], "")).await;
    let frames = stream::iter([Ok(Bytes::from_static(b"xx")), Err(Error::source("changed under us"))]);
    let broken = UploadBody { size: 4, frames: Box::pin(frames) };
    let patch = Request::Patch { location: at(&server, "/1"), range: 0..4 };
    let fault =
        server.client(options()).exchange("demo", &patch, Some(broken), Pool::Small).await.unwrap_err();
    assert!(matches!(&fault, Fault::Fatal(error) if error.message() == "changed under us"), "{fault:?}");
}

#[tokio::test]
async fn a_manifest_is_put_until_it_is_taken() {
    let manifest = Bytes::from_static(b"{}");
    let digest = Digest::of(&manifest);
    let tries = AtomicU64::new(0);
    let header = format!("Docker-Content-Digest: {digest}");
    let server = Server::start(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => say(503, &["Retry-After: 30"], ""),
        1 => Answer::Reset(0),
        _ => say(201, &[&header, "OCI-Subject: sha256:0"], ""),
    })
    .await;
    let client = server.client(options());
    let receipt = client.put_manifest("demo", "1", &[], "text/plain; x=1", manifest.clone()).await.unwrap();
    assert_eq!(receipt, Receipt { digest: Some(digest), subject: true, tags: Vec::new() });
    let last = server.seen().pop().unwrap();
    assert_eq!(last.line, "PUT /v2/demo/manifests/1");
    assert_eq!(last.header("content-type"), Some("text/plain; x=1"));
    assert_eq!((last.header("content-length"), last.body.as_slice()), (Some("2"), b"{}".as_slice()));
    assert_eq!(server.seen().len(), 3);

    let tagger = Server::start(|_| say(201, &["OCI-Tag: 2,0", "OCI-Tag: 4"], "")).await;
    let (client, tags) = (tagger.client(options()), ["2", "3", "4"].map(str::to_owned));
    let receipt = client.put_manifest("demo", "sha256:0", &tags, "a/b", manifest.clone()).await.unwrap();
    assert_eq!(receipt.tags, ["2", "4"]);
    assert_eq!(tagger.seen()[0].line, "PUT /v2/demo/manifests/sha256:0?tag=2&tag=3&tag=4");

    let liar =
        Server::start(|_| say(201, &[&format!("Docker-Content-Digest: {}", Digest::of(b"y"))], "")).await;
    let error =
        liar.client(options()).put_manifest("demo", "1", &[], "a/b", manifest.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(chain(&error).contains("the registry stored sha256:"), "{error:?}");

    let absent = Server::start(|_| say(404, &[], r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#)).await;
    let error =
        absent.client(options()).put_manifest("demo", "1", &[], "a/b", manifest.clone()).await.unwrap_err();
    assert_eq!(error.find::<RegistryError>().unwrap().code.as_deref(), Some("NAME_UNKNOWN"));
    assert_eq!(absent.seen().len(), 1);

    let busy = Server::start(|_| say(503, &[], "")).await;
    let error = busy.client(options()).put_manifest("demo", "1", &[], "a/b", manifest).await.unwrap_err();
    assert_eq!((error.kind(), busy.seen().len()), (ErrorKind::Network, 3));
}

#[tokio::test]
async fn manifests_and_blobs_are_found_or_not() {
    let found = Digest::of(b"{}");
    let blob = found.clone();
    let server = Server::start(move |seen| match seen.line.as_str() {
        "HEAD /v2/demo/manifests/said" => say(200, &[&format!("Docker-Content-Digest: {blob}")], ""),
        "HEAD /v2/demo/manifests/unsaid" => say(200, &[], ""),
        "GET /v2/demo/manifests/unsaid" => say(200, &["Content-Type: a/b; charset=utf-8"], "{}"),
        "GET /v2/demo/manifests/huge" => say(200, &[], &" ".repeat(MANIFEST_LIMIT + 1)),
        "HEAD /v2/away/manifests/1" => say(307, &["Location: ftp://localhost/"], ""),
        line if line.starts_with("HEAD /v2/demo/blobs/") => {
            Answer::Say("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n".into())
        }
        line if ["HEAD /v2/sizeless/blobs/", "HEAD /v2/reticent/blobs/"]
            .iter()
            .any(|head| line.starts_with(head)) =>
        {
            Answer::Say("HTTP/1.1 200 OK\r\n\r\n".into())
        }
        line if line.starts_with("GET /v2/sizeless/blobs/") => {
            Answer::Say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into())
        }
        // What has no body has a length of 0 with some web servers.
        line if line.starts_with("HEAD /v2/bodiless/blobs/") => say(200, &[], ""),
        line if line.starts_with("GET /v2/bodiless/blobs/")
            || line.starts_with("GET /v2/reticent/blobs/") =>
        {
            say(200, &[], "a blob of twenty-four b.")
        }
        line if line.starts_with("HEAD /v2/away/blobs/") => say(307, &["Location: file:///etc/passwd"], ""),
        _ => say(404, &[], ""),
    })
    .await;
    let client = server.client(options());
    for (tag, expected) in [("said", Some(&found)), ("unsaid", Some(&found)), ("absent", None)] {
        assert_eq!(client.head_manifest("demo", tag).await.unwrap().as_ref(), expected, "{tag}");
    }
    let (media_type, bytes) = client.get_manifest("demo", "unsaid").await.unwrap().unwrap();
    assert_eq!((media_type.as_str(), bytes.as_ref()), ("a/b", b"{}".as_slice()));
    assert!(client.get_manifest("demo", "huge").await.is_err());
    assert_eq!(client.get_manifest("demo", "absent").await.unwrap(), None);
    for (repository, size) in [
        ("demo", Some(17)),
        ("reticent", Some(24)),
        ("bodiless", Some(24)),
        ("sizeless", None),
        ("away", None),
        ("absent", None),
    ] {
        assert_eq!(client.head_blob(repository, &found).await.unwrap(), size, "{repository}");
    }
}

#[tokio::test]
async fn loopback_is_never_proxied() {
    let server = Server::start(|_| say(404, &[], "")).await;
    let nobody: Url = "http://127.0.0.1:1/".parse().unwrap();
    let proxies = Proxies { http: Some(nobody.clone()), https: Some(nobody), exempt: String::new() };
    for host in ["127.0.0.1", "localhost"] {
        let options = ClientOptions { proxies: proxies.clone(), ..options() };
        let client = Client::new(&format!("{host}:{}", server.port), options).unwrap();
        assert_eq!(client.head_manifest("demo", "1").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_proxy_is_told_who_asks_and_the_registry_is_not() {
    let proxy =
        Server::start(|seen| if seen.is("CONNECT") { say(403, &[], "") } else { say(404, &[], "") }).await;
    let url: Url = format!("http://me:xyzzy@127.0.0.1:{}", proxy.port).parse().unwrap();
    let proxies = |exempt: &str| Proxies {
        http: Some(url.clone()),
        https: Some(url.clone()),
        exempt: exempt.to_owned(),
    };
    let plain = ClientOptions { plain_http: true, proxies: proxies(""), ..options() };
    let client = Client::new("registry.example.com", plain).unwrap();
    assert_eq!(client.head_manifest("demo", "1").await.unwrap(), None);
    let client = Client::new("registry.example.com", ClientOptions { proxies: proxies(""), ..options() });
    let error = client.unwrap().head_manifest("demo", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    let seen = proxy.seen();
    assert_eq!(seen[0].line, "HEAD http://registry.example.com/v2/demo/manifests/1");
    assert_eq!(seen[1].line, "CONNECT registry.example.com:443");
    // me:xyzzy
    assert!(seen.iter().all(|seen| seen.header("proxy-authorization") == Some("Basic bWU6eHl6enk=")));
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()));

    // An exempt one is looked for itself: the name is nobody's.
    let exempt = ClientOptions { plain_http: true, proxies: proxies(".invalid"), ..options() };
    Client::new("registry.invalid", exempt).unwrap().head_manifest("demo", "1").await.unwrap_err();
    assert_eq!(proxy.count("HEAD"), 1);

    let odd = Proxies { http: Some("gopher://me:xyzzy@proxy".parse().unwrap()), ..Proxies::default() };
    let error = Client::new("r.example.com", ClientOptions { proxies: odd, ..options() }).unwrap_err();
    assert!(error.message().contains("`gopher://proxy` is no proxy"), "{error:?}");
    assert!(!chain(&error).contains("xyzzy"), "{error:?}");
}

/// A registry with TLS and a certificate of its own making, which is returned as PEM.
async fn tls_server() -> (u16, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let Ok(mut connection) = acceptor.accept(connection).await else { continue };
            tokio::spawn(async move {
                while read_head(&mut connection).await.is_some() {
                    connection.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                }
            });
        }
    });
    (port, cert.pem())
}

#[tokio::test]
async fn on_loopback_tls_is_found_out() {
    let (port, pem) = tls_server().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    fs_err::write(&file, pem).unwrap();
    let mut certificates = Certificates::default();
    certificates.trust_file(&file).unwrap();
    let host = format!("127.0.0.1:{port}");

    let trusting = ClientOptions { certificates: certificates.clone(), ..options() };
    let trusting = Client::new(&host, trusting).unwrap();
    assert_eq!(trusting.head_manifest("demo", "1").await.unwrap(), None);
    let careless = Client::new(&host, ClientOptions { insecure: true, ..options() }).unwrap();
    assert_eq!(careless.head_manifest("demo", "1").await.unwrap(), None);

    let wary = Client::new(&host, options()).unwrap();
    let error = wary.head_manifest("demo", "1").await.unwrap_err();
    assert!(chain(&error).contains("vouches for its certificate"), "{error:?}");
    assert!(error.hints()[0].contains("`--ca-file`"), "{error:?}");

    // The other way round: TLS is expected, and the server has none.
    let plain = Server::start(|_| say(404, &[], "")).await;
    let client = plain.client(ClientOptions { certificates, ..options() });
    assert_eq!(client.head_manifest("demo", "1").await.unwrap(), None);
    assert_eq!(plain.seen().len(), 1);
}

#[tokio::test]
async fn whoever_waits_while_tls_is_found_out_is_answered_as_well() {
    let digest = Digest::of(b"x");
    let ask = async |client: &Client| {
        let asked = futures_util::future::join_all((0..100).map(|_| client.head_blob("demo", &digest))).await;
        for found in asked {
            assert_eq!(found.unwrap(), None);
        }
    };
    let plain = Server::start(|seen| match seen.header("authorization") {
        Some(BOB) => say(404, &[], ""),
        _ => say(401, &["WWW-Authenticate: Basic realm=\"x\""], ""),
    });
    ask(&plain.await.client(ClientOptions { insecure: true, ..bob() })).await;
}
