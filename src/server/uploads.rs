//! Blobs on their way in: the verbs of an upload, and the way of a body from the socket to its session.
//!
//! A body is held one batch at a time: while one is hashed and written, the next comes in behind it, in the socket's
//! buffer. Batches that were written stay when a connection breaks: the client asks how far it got,
//! and goes on, here or at another process over the same folder.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CONTENT_RANGE, LOCATION, RANGE, RETRY_AFTER},
};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use super::{
    Registry,
    body::Body,
    reply::{DOCKER_CONTENT_DIGEST, Refusal, Reply, UPLOAD_ID, blocking, empty, set},
    routes::{content_length, digest, parameter},
    sessions::Session,
    staging::Staging,
    storage::Name,
};
use crate::oci::{Algorithm, Digest};

const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");
// A proposal (gh:opencontainers/distribution-spec#485) that registries and clients already speak.
const CHUNK_MAX: HeaderName = HeaderName::from_static("oci-chunk-max-length");

impl Registry {
    /// `POST /v2/<name>/blobs/uploads/`: a mount, a whole blob, or a new session.
    pub(super) async fn post_upload(
        &self,
        name: Name,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        let mount = parameter(query, "mount").map(|text| digest(&text)).transpose()?;
        if let Some(mount) = &mount {
            let from = parameter(query, "from").map(|from| from.parse::<Name>()).transpose()?;
            let (storage, to, blob) = (self.storage.clone(), name.clone(), mount.clone());
            if blocking(move || storage.mount(&to, &blob, from.as_ref())).await? {
                return Ok(created(&name, mount));
            }
        }
        let whole = parameter(query, "digest").map(|text| digest(&text)).transpose()?;
        let algorithm = match (whole.as_ref().or(mount.as_ref()), parameter(query, "digest-algorithm")) {
            (Some(digest), _) => digest.algorithm(),
            (None, None) => Algorithm::Sha256,
            (None, Some(name)) => Algorithm::named(&name)
                .ok_or_else(|| Refusal::bad_request("UNSUPPORTED", "digests are sha256 or sha512"))?,
        };
        let (storage, most) = (self.storage.clone(), self.most_uploads);
        let Some(digest) = whole else {
            let session = blocking(move || {
                if storage.count_uploads()? >= most {
                    Err(too_many())
                } else {
                    Session::begin(&storage, name, algorithm)
                }
            });
            return Ok(self.progress(&session.await?, StatusCode::ACCEPTED));
        };
        let (_, staging) = blocking(move || storage.stage(algorithm)).await?;
        let part = Part::of(headers)?;
        let (staging, appended) = self.append(staging, &part, body).await?;
        appended?;
        let storage = self.storage.clone();
        blocking(move || {
            storage.commit(&staging, &name, &digest)?;
            Ok(created(&name, &digest))
        })
        .await
    }

    /// `PATCH /v2/<name>/blobs/uploads/<id>`: the next bytes.
    pub(super) async fn patch_upload(
        &self,
        name: Name,
        id: String,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        let (session, staging) = self.take(name, id, headers, body).await?;
        drop(staging);
        Ok(self.progress(&session, StatusCode::ACCEPTED))
    }

    /// `PUT /v2/<name>/blobs/uploads/<id>?digest=<digest>`: the last bytes, if any are missing, and the end.
    /// Once all bytes are there the session ends, for better or worse.
    pub(super) async fn put_upload(
        &self,
        name: Name,
        id: String,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        let given = parameter(query, "digest")
            .ok_or_else(|| Refusal::bad_request("DIGEST_INVALID", "the blob's digest must be given"))?;
        let digest = digest(&given)?;
        let (session, mut staging) = self.take(name, id, headers, body).await?;
        let storage = self.storage.clone();
        blocking(move || {
            let committed = storage.commit(&staging, session.name(), &digest);
            let committed = committed.map_err(|refusal| session.or_gone(refusal));
            // A failure of our own is no reason to send everything again.
            if !committed.as_ref().is_err_and(Refusal::is_our_fault) {
                staging.end();
            }
            committed?;
            Ok(created(session.name(), &digest))
        })
        .await
    }

    /// `GET /v2/<name>/blobs/uploads/<id>`: how far is it? A request that is appending is waited for, but not long: its
    /// connection may just have broken, and what came of it is being saved.
    pub(super) async fn get_upload(&self, name: Name, id: String) -> Result<Reply, Refusal> {
        let patience = Instant::now() + SETTLE;
        loop {
            let (storage, name, id) = (self.storage.clone(), name.clone(), id.clone());
            let (session, busy) = blocking(move || {
                let busy = Session::find(&storage, name.clone(), id.clone())?.is_busy();
                Ok::<_, Refusal>((Session::find(&storage, name, id)?, busy))
            })
            .await?;
            if !busy || Instant::now() >= patience {
                return Ok(self.progress(&session, StatusCode::NO_CONTENT));
            }
            sleep(TICK).await;
        }
    }

    /// `DELETE /v2/<name>/blobs/uploads/<id>`: never mind.
    pub(super) async fn delete_upload(&self, name: Name, id: String) -> Result<Reply, Refusal> {
        let storage = self.storage.clone();
        blocking(move || Session::find(&storage, name, id)?.cancel()).await?;
        Ok(empty(StatusCode::NO_CONTENT, &[]))
    }

    /// Appends a request's body to a session, if it is the next part of the blob and nobody else is at it. What came
    /// counts, even if the body broke off.
    async fn take(
        &self,
        name: Name,
        id: String,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<(Session, Staging), Refusal> {
        let part = Part::of(headers)?;
        let storage = self.storage.clone();
        let (mut session, staging) = blocking(move || {
            let mut session = Session::find(&storage, name, id)?;
            let staging = session.take()?;
            Ok::<_, Refusal>((session, staging))
        })
        .await?;
        if part.first.is_some_and(|first| first != staging.size()) {
            return Err(session.out_of_order("the bytes are not the next ones"));
        }
        let (mut staging, appended) = self.append(staging, &part, body).await?;
        let taken = blocking(move || {
            session.save(&mut staging)?;
            Ok::<_, Refusal>((session, staging))
        })
        .await?;
        appended.map(|()| taken)
    }

    /// Appends a request's body; hands back what it came to, and whether that is all.
    async fn append(
        &self,
        mut staging: Staging,
        part: &Part,
        body: &mut Incoming,
    ) -> Result<(Staging, Result<(), Refusal>), Refusal> {
        let most = self.chunk_max.unwrap_or(u64::MAX);
        if part.size.is_some_and(|size| size > most) {
            return Ok((staging, Err(too_large(most))));
        }
        let (mut taken, mut body) = (0, Body::new(body, self.patience));
        while let Some(first) = body.next().await {
            // Who is slow has waited without one.
            let turn = self.turns.acquire().await;
            let batch = body.batch(first).await;
            taken += batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
            if taken > most {
                return Ok((staging, Err(too_large(most))));
            }
            if part.size.is_some_and(|size| size < taken) {
                return Ok((staging, Err(part_of_wrong_size())));
            }
            let written;
            (staging, written) = blocking(move || {
                let written = staging.append(&batch);
                Ok::<_, Refusal>((staging, written))
            })
            .await?;
            drop(turn);
            if let Err(error) = written {
                return Ok((staging, Err(error.into())));
            }
        }
        let whole = part.size.is_none_or(|size| size == taken);
        let appended = body.finish().and(if whole { Ok(()) } else { Err(part_of_wrong_size()) });
        Ok((staging, appended))
    }

    /// Says how far an upload is, and how it likes to go on.
    fn progress(&self, session: &Session, status: StatusCode) -> Reply {
        let headers =
            [(LOCATION, &*session.location()), (RANGE, &*session.range()), (UPLOAD_ID, session.id())];
        let mut reply = empty(status, &headers);
        for (name, length) in [(CHUNK_MIN, self.chunk_min), (CHUNK_MAX, self.chunk_max)] {
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

fn created(name: &Name, digest: &Digest) -> Reply {
    let digest = digest.to_string();
    let location = format!("/v2/{name}/blobs/{digest}");
    empty(StatusCode::CREATED, &[(LOCATION, &*location), (DOCKER_CONTENT_DIGEST, &*digest)])
}

fn part_of_wrong_size() -> Refusal {
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
