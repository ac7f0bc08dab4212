//! How large a blob is, as registries say it.

use super::*;

#[tokio::test]
async fn blobs_are_found_or_not() {
    let server = Server::start(|seen| {
        let (method, path) = seen.line.split_once(" /v2/").unwrap();
        match (method, path.split('/').next().unwrap()) {
            ("HEAD", "demo") => Answer::Say("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n".into()),
            ("HEAD", "reticent" | "sizeless") => Answer::Say("HTTP/1.1 200 OK\r\n\r\n".into()),
            ("GET", "sizeless") => {
                Answer::Say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into())
            }
            // What has no body has a length of 0 with some web servers.
            ("HEAD", "bodiless") => say(200, &[], ""),
            ("GET", "bodiless" | "reticent") => say(200, &[], "a blob of twenty-four b."),
            ("HEAD", "away") => say(307, &["Location: file:///etc/passwd"], ""),
            _ => say(404, &[], ""),
        }
    })
    .await;
    let (client, digest) = (server.client(options()), Digest::of(b"{}"));
    for (repository, size) in [
        ("demo", Some(17)),
        ("reticent", Some(24)),
        ("bodiless", Some(24)),
        ("sizeless", None),
        ("away", None),
        ("absent", None),
    ] {
        assert_eq!(client.head_blob(repository, &digest).await.unwrap(), size, "{repository}");
    }
}
