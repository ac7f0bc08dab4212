//! Blobs on their way in: the verbs of an upload, and the way of a body from the socket to its session.
//!
//! A body is taken one batch at a time, when the storage has room for it; so long the next comes in behind it, in the
//! socket's buffer. What was taken stays when a connection breaks: the client asks how far it got, and goes on, here or
//! at another process over the same storage.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CONTENT_RANGE, LOCATION, RANGE, RETRY_AFTER},
    request::Parts,
};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use crate::{
    oci::{Algorithm, Digest},
    server::{
        Registry,
        protocol::{
            Body, Name, Refusal, Reply, UPLOAD_ID, content_length, created, digest, empty, parameter, set,
        },
        storage::{Session, Upload},
    },
};

const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");
// A proposal (gh:opencontainers/distribution-spec#485) that registries and clients already speak.
const CHUNK_MAX: HeaderName = HeaderName::from_static("oci-chunk-max-length");

impl Registry {
    /// `POST /v2/<name>/blobs/uploads/`: a mount, a whole blob, or a new session.
    pub(super) async fn post_upload(
        &self,
        name: Name,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        let mount = parameter(head, "mount").map(|text| digest(&text)).transpose()?;
        if let Some(mount) = &mount {
            let from = parameter(head, "from").map(|from| from.parse::<Name>()).transpose()?;
            if self.storage.mount(name.clone(), mount.clone(), from.clone()).await?
                || self.mount_there(&name, mount, from.as_ref()).await
            {
                return Ok(created(&location(&name, mount), mount));
            }
        }
        if let Some(whole) = parameter(head, "digest") {
            return self.receive(name, digest(&whole)?, head, body).await;
        }
        let algorithm = match (mount, parameter(head, "digest-algorithm")) {
            (Some(mount), _) => mount.algorithm(),
            (None, None) => Algorithm::Sha256,
            (None, Some(name)) => Algorithm::named(&name)
                .ok_or_else(|| Refusal::bad_request("UNSUPPORTED", "digests are sha256 or sha512"))?,
        };
        if self.storage.count_uploads().await? >= self.options.most_uploads {
            return Err(too_many());
        }
        let session = self.storage.begin(name, algorithm).await?;
        Ok(self.progress(&session, StatusCode::ACCEPTED))
    }

    /// `PATCH /v2/<name>/blobs/uploads/<id>`: the next bytes.
    pub(super) async fn patch_upload(
        &self,
        name: Name,
        id: String,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        let upload = self.take(name, id, head, body).await?;
        Ok(self.progress(upload.session(), StatusCode::ACCEPTED))
    }

    /// `PUT /v2/<name>/blobs/uploads/<id>?digest=<digest>`: the last bytes, if any are missing, and the end.
    /// Once all bytes are there the session ends, for better or worse.
    pub(super) async fn put_upload(
        &self,
        name: Name,
        id: String,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        let given = parameter(head, "digest")
            .ok_or_else(|| Refusal::bad_request("DIGEST_INVALID", "the blob's digest must be given"))?;
        let digest = digest(&given)?;
        let upload = self.take(name.clone(), id, head, body).await?;
        upload.commit(digest.clone()).await?;
        Ok(self.arrived(&name, digest))
    }

    /// `GET /v2/<name>/blobs/uploads/<id>`: how far is it? A request that is appending is waited for, but not long: its
    /// connection may just have broken, and what came of it is being saved.
    pub(super) async fn get_upload(&self, name: Name, id: String) -> Result<Reply, Refusal> {
        let patience = Instant::now() + SETTLE;
        loop {
            let (session, is_busy) = self.storage.find(name.clone(), id.clone()).await?;
            if !is_busy || Instant::now() >= patience {
                return Ok(self.progress(&session, StatusCode::NO_CONTENT));
            }
            sleep(TICK).await;
        }
    }

    /// `DELETE /v2/<name>/blobs/uploads/<id>`: never mind.
    pub(super) async fn delete_upload(&self, name: Name, id: String) -> Result<Reply, Refusal> {
        self.storage.cancel(name, id).await?;
        Ok(empty(StatusCode::NO_CONTENT, &[]))
    }

    /// Takes a request's body as a whole blob, or nothing of it.
    async fn receive(
        &self,
        name: Name,
        digest: Digest,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        let chunk = Chunk::of(&head.headers)?;
        let mut upload = self.storage.receive(name.clone(), digest.algorithm()).await?;
        if let Err(refusal) = self.append(&mut upload, &chunk, body).await {
            upload.discard().await;
            return Err(refusal);
        }
        upload.commit(digest.clone()).await?;
        Ok(self.arrived(&name, digest))
    }

    /// Appends a request's body to a session, if it is the next chunk of the blob and nobody else is at it. What came
    /// counts, even if the body broke off.
    async fn take(
        &self,
        name: Name,
        id: String,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<Upload, Refusal> {
        let chunk = Chunk::of(&head.headers)?;
        let mut upload = self.storage.take(name, id).await?;
        if chunk.first.is_some_and(|first| first != upload.session().offset) {
            return Err(upload.session().out_of_order("the bytes are not the next ones"));
        }
        let appended = self.append(&mut upload, &chunk, body).await;
        upload.save().await?;
        appended.map(|()| upload)
    }

    /// Appends a request's body, as far as it comes.
    async fn append(&self, upload: &mut Upload, chunk: &Chunk, body: &mut Incoming) -> Result<(), Refusal> {
        let most = self.options.chunk_max.unwrap_or(u64::MAX);
        if chunk.size.is_some_and(|size| size > most) {
            return Err(too_large(most));
        }
        let (mut taken, mut body) = (0, Body::new(body, self.options.patience));
        // Who is slow waits without room.
        while let Some(first) = upload.wait_for(body.next()).await? {
            upload.make_room().await?;
            let batch = body.batch(first).await;
            taken += batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
            if taken > most {
                return Err(too_large(most));
            }
            if chunk.size.is_some_and(|size| size < taken) {
                return Err(chunk_of_wrong_size());
            }
            upload.append(batch).await?;
        }
        let whole = chunk.size.is_none_or(|size| size == taken);
        body.finish().and(if whole { Ok(()) } else { Err(chunk_of_wrong_size()) })
    }

    /// Says that a blob has come in, to the client and to the gateway.
    fn arrived(&self, name: &Name, digest: Digest) -> Reply {
        let reply = created(&location(name, &digest), &digest);
        self.send_ahead(name, digest);
        reply
    }

    /// Says how far an upload is, and how it likes to go on.
    fn progress(&self, session: &Session, status: StatusCode) -> Reply {
        let headers =
            [(LOCATION, &*session.location()), (RANGE, &*session.range()), (UPLOAD_ID, session.id())];
        let mut reply = empty(status, &headers);
        for (name, length) in [(CHUNK_MIN, self.options.chunk_min), (CHUNK_MAX, self.options.chunk_max)] {
            if let Some(length) = length {
                set(reply.headers_mut(), name, &length.to_string());
            }
        }
        reply
    }
}

/// So long may it take to bring what came of a broken request to disk.
const SETTLE: Duration = Duration::from_secs(1);
/// A lock of another process cannot be waited for and given up at the same time.
const TICK: Duration = Duration::from_millis(20);

/// Which bytes of a blob a request says its body is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Chunk {
    first: Option<u64>,
    size: Option<u64>,
}

impl Chunk {
    /// Reads `Content-Range` and `Content-Length`, which must agree.
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let size = content_length(headers);
        let Some(range) = headers.get(CONTENT_RANGE) else { return Ok(Self { first: None, size }) };
        let malformed =
            || Refusal::bad_request("BLOB_UPLOAD_INVALID", "a Content-Range here is `<first>-<last>`");
        let range = range.to_str().ok().and_then(|range| range.split_once('-')).ok_or_else(malformed)?;
        let (Ok(first), Ok(last)) = (range.0.parse::<u64>(), range.1.parse::<u64>()) else {
            return Err(malformed());
        };
        let of_range = last.checked_sub(first).and_then(|size| size.checked_add(1)).ok_or_else(malformed)?;
        if size.is_some_and(|size| size != of_range) {
            return Err(chunk_of_wrong_size());
        }
        Ok(Self { first: Some(first), size: Some(of_range) })
    }
}

fn location(name: &Name, digest: &Digest) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

fn chunk_of_wrong_size() -> Refusal {
    Refusal::bad_request("SIZE_INVALID", "the body has not the size that Content-Range states")
}

fn too_many() -> Refusal {
    let message = "too many uploads are open: cancelled and finished ones make room";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message).with(RETRY_AFTER, "10")
}

fn too_large(most: u64) -> Refusal {
    let message = format!("a body may have {most} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message).with(CHUNK_MAX, most.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_what_both_headers_say() {
        let chunk = |range: Option<&str>, length: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(range) = range {
                headers.insert(CONTENT_RANGE, range.parse().unwrap());
            }
            if let Some(length) = length {
                headers.insert(http::header::CONTENT_LENGTH, length.parse().unwrap());
            }
            Chunk::of(&headers).ok()
        };
        assert_eq!(chunk(None, None), Some(Chunk::default()));
        assert_eq!(chunk(None, Some("4")), Some(Chunk { first: None, size: Some(4) }));
        assert_eq!(chunk(Some("3-6"), None), Some(Chunk { first: Some(3), size: Some(4) }));
        assert_eq!(chunk(Some("3-6"), Some("4")), Some(Chunk { first: Some(3), size: Some(4) }));
        for (range, length) in [
            ("3-6", Some("5")),
            ("6-3", None),
            ("0-18446744073709551615", None),
            ("0-99999999999999999999", None),
            ("bytes 0-1/*", None),
            ("0", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(chunk(Some(range), length), None, "{range}");
        }
    }
}
