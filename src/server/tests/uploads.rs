//! Bytes on their way in, and what lies on disk afterwards.

use super::*;

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
    let digest = Algorithm::Sha512.digest(b"long");
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
