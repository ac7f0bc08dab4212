//! Where redirects are followed to, and who sees the credentials there.

use super::*;

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
