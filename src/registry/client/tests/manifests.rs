//! Manifests that are found, or put until they are taken.

use super::*;

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
async fn manifests_are_found_or_not() {
    let found = Digest::of(b"{}");
    let blob = found.clone();
    let server = Server::start(move |seen| match seen.line.as_str() {
        "HEAD /v2/demo/manifests/said" => say(200, &[&format!("Docker-Content-Digest: {blob}")], ""),
        "HEAD /v2/demo/manifests/unsaid" => say(200, &[], ""),
        "GET /v2/demo/manifests/unsaid" => say(200, &["Content-Type: a/b; charset=utf-8"], "{}"),
        "GET /v2/demo/manifests/huge" => say(200, &[], &" ".repeat(MANIFEST_LIMIT + 1)),
        "HEAD /v2/away/manifests/1" => say(307, &["Location: ftp://localhost/"], ""),
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
    client.head_manifest("away", "1").await.unwrap_err();
    assert_eq!(client.get_manifest("demo", "absent").await.unwrap(), None);
}
