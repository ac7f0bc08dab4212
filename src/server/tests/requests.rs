//! What holds of every request: who may ask, for what, and that an answer comes.

use super::*;

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
