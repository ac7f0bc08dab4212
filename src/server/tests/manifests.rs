//! Manifests on their way in, and their tags.

use super::*;

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
