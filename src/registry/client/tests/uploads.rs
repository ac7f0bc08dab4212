//! What an upload says, and what becomes of a body whose connection does not hold.

use super::*;

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
