//! What comes of a question for a blob.

use super::*;

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
