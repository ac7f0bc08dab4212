//! Blobs on their way in: the verbs of an upload, and the way of a body from the socket to its session.
//!
//! A body is held one batch at a time: while one is hashed and written, the kernel gathers the next in the
//! socket's buffer. Batches that were written stay when a connection breaks: the client asks how far it got,
//! and goes on.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CONTENT_RANGE, LOCATION, RANGE},
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    Registry,
    reply::{DOCKER_CONTENT_DIGEST, Refusal, Reply, blocking, empty, set},
    routes::{content_length, digest, parameter},
    sessions::{Exclusive, Session},
    storage::Name,
};
use crate::oci::{Algorithm, Digest};

const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");
// A proposal (gh:opencontainers/distribution-spec#485) that registries and clients already speak.
const CHUNK_MAX: HeaderName = HeaderName::from_static("oci-chunk-max-length");
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// So much of a body is hashed and written at once: handing every frame to another thread as it came cost a
/// third more CPU.
const BATCH: usize = 128 << 10;

impl Registry {
    /// `POST /v2/<name>/blobs/uploads/`: a mount, a whole blob, or a new session.
    pub(super) async fn post_upload(
        &self,
        name: Name,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        if let Some(mount) = parameter(query, "mount") {
            let mount = digest(&mount)?;
            let from = parameter(query, "from").map(|from| from.parse::<Name>()).transpose()?;
            let (storage, to, blob) = (self.storage.clone(), name.clone(), mount.clone());
            if blocking(move || storage.mount(&to, &blob, from.as_ref())).await? {
                return Ok(created(&name, &mount));
            }
        }
        let whole = parameter(query, "digest").map(|text| digest(&text)).transpose()?;
        let algorithm = match (&whole, parameter(query, "digest-algorithm").as_deref()) {
            (Some(digest), _) => digest.algorithm(),
            (None, None | Some("sha256")) => Algorithm::Sha256,
            (None, Some("sha512")) => Algorithm::Sha512,
            (None, Some(_)) => {
                return Err(Refusal::bad_request("UNSUPPORTED", "digests are sha256 or sha512"));
            }
        };
        let storage = self.storage.clone();
        let (id, staging) = blocking(move || storage.stage(algorithm)).await?;
        match whole {
            None => Ok(self.progress(&self.sessions.open(name, id, staging), StatusCode::ACCEPTED)),
            Some(digest) => {
                let session = Session::new(name, id, staging);
                let exclusive = self.append(&session, headers, body).await?;
                self.close(exclusive, digest).await
            }
        }
    }

    /// `PATCH /v2/<name>/blobs/uploads/<id>`: the next bytes.
    pub(super) async fn patch_upload(
        &self,
        name: &Name,
        id: &str,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        let session = self.sessions.find(name, id)?;
        drop(self.append(&session, headers, body).await?);
        Ok(self.progress(&session, StatusCode::ACCEPTED))
    }

    /// `PUT /v2/<name>/blobs/uploads/<id>?digest=<digest>`: the last bytes, if any are missing, and the end.
    /// Once all bytes are there the session ends, for better or worse.
    pub(super) async fn put_upload(
        &self,
        name: &Name,
        id: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        let session = self.sessions.find(name, id)?;
        let given = parameter(query, "digest")
            .ok_or_else(|| Refusal::bad_request("DIGEST_INVALID", "the blob's digest must be given"))?;
        let digest = digest(&given)?;
        let exclusive = self.append(&session, headers, body).await?;
        self.sessions.forget(&session);
        self.close(exclusive, digest).await
    }

    /// `GET /v2/<name>/blobs/uploads/<id>`: how far is it?
    pub(super) fn get_upload(&self, name: &Name, id: &str) -> Result<Reply, Refusal> {
        Ok(self.progress(&*self.sessions.find(name, id)?, StatusCode::NO_CONTENT))
    }

    /// `DELETE /v2/<name>/blobs/uploads/<id>`: never mind.
    pub(super) fn delete_upload(&self, name: &Name, id: &str) -> Result<Reply, Refusal> {
        self.sessions.forget(&*self.sessions.find(name, id)?);
        Ok(empty(StatusCode::NO_CONTENT, &[]))
    }

    /// Appends a request's body to a session, if it is the next part of the blob and nobody else is at it.
    async fn append(
        &self,
        session: &Arc<Session>,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Exclusive, Refusal> {
        let mut exclusive =
            session.exclusive().ok_or_else(|| out_of_order(session, "another request is appending"))?;
        let part = Part::of(headers)?;
        if part.first.is_some_and(|first| first != session.offset()) {
            return Err(out_of_order(session, "the bytes are not the next ones"));
        }
        let most = self.chunk_max.unwrap_or(u64::MAX);
        if part.size.is_some_and(|size| size > most) {
            return Err(too_large(most));
        }
        let mut taken = 0;
        let mut batch = gather(body).await?;
        while !batch.is_empty() {
            taken += batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
            if taken > most {
                return Err(too_large(most));
            }
            if part.size.is_some_and(|size| size < taken) {
                return Err(part_of_wrong_size());
            }
            // While one batch is hashed and written, the next one comes in.
            let writing = blocking(move || exclusive.append(&batch).map(|()| exclusive));
            let (written, next) = tokio::join!(writing, gather(body));
            (exclusive, batch) = (written?, next?);
        }
        if part.size.is_some_and(|size| size != taken) {
            return Err(part_of_wrong_size());
        }
        Ok(exclusive)
    }

    /// Makes a session's bytes a blob.
    async fn close(&self, exclusive: Exclusive, digest: Digest) -> Result<Reply, Refusal> {
        let storage = self.storage.clone();
        blocking(move || {
            let (name, staging) = exclusive.into_staging()?;
            storage.commit(staging, &name, &digest)?;
            Ok(created(&name, &digest))
        })
        .await
    }

    /// Says how far an upload is, and how it likes to go on.
    fn progress(&self, session: &Session, status: StatusCode) -> Reply {
        let mut reply = empty(
            status,
            &[
                (LOCATION, &*session.location()),
                (RANGE, &*range(session.offset())),
                (UPLOAD_ID, session.id()),
            ],
        );
        for (name, length) in [(CHUNK_MIN, self.chunk_min), (CHUNK_MAX, self.chunk_max)] {
            if let Some(length) = length {
                set(reply.headers_mut(), name, &length.to_string());
            }
        }
        reply
    }
}

/// The part of a blob that a request says its body is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Part {
    first: Option<u64>,
    size: Option<u64>,
}

impl Part {
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
            return Err(part_of_wrong_size());
        }
        Ok(Self { first: Some(first), size: Some(of_range) })
    }
}

/// Reads on until a batch is full; empty at the end of the body.
async fn gather(body: &mut Incoming) -> Result<Vec<Bytes>, Refusal> {
    let broken =
        |_| Refusal::bad_request("BLOB_UPLOAD_INVALID", "the connection broke in the middle of the body");
    let (mut batch, mut size) = (Vec::new(), 0);
    while size < BATCH
        && let Some(frame) = body.frame().await
    {
        if let Ok(piece) = frame.map_err(broken)?.into_data() {
            size += piece.len();
            batch.push(piece);
        }
    }
    Ok(batch)
}

/// Says which bytes are there. The specification has no words for none.
fn range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

fn created(name: &Name, digest: &Digest) -> Reply {
    let digest = digest.to_string();
    let location = format!("/v2/{name}/blobs/{digest}");
    empty(StatusCode::CREATED, &[(LOCATION, &*location), (DOCKER_CONTENT_DIGEST, &*digest)])
}

fn out_of_order(session: &Session, message: &str) -> Refusal {
    Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
        .with(LOCATION, session.location())
        .with(RANGE, range(session.offset()))
        .with(UPLOAD_ID, session.id())
}

fn part_of_wrong_size() -> Refusal {
    Refusal::bad_request("SIZE_INVALID", "the body has not the size that Content-Range states")
}

fn too_large(most: u64) -> Refusal {
    let message = format!("a body may have {most} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message).with(CHUNK_MAX, most.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_what_both_headers_say() {
        let part = |range: Option<&str>, length: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(range) = range {
                headers.insert(CONTENT_RANGE, range.parse().unwrap());
            }
            if let Some(length) = length {
                headers.insert(http::header::CONTENT_LENGTH, length.parse().unwrap());
            }
            Part::of(&headers).ok()
        };
        assert_eq!(part(None, None), Some(Part::default()));
        assert_eq!(part(None, Some("4")), Some(Part { first: None, size: Some(4) }));
        assert_eq!(part(Some("3-6"), None), Some(Part { first: Some(3), size: Some(4) }));
        assert_eq!(part(Some("3-6"), Some("4")), Some(Part { first: Some(3), size: Some(4) }));
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
            assert_eq!(part(Some(range), length), None, "{range}");
        }
    }
}
