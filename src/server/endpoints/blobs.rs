//! Blobs on their way out: all of it, a range of it.

use std::{io, ops::Range};

use bytes::Bytes;
#[cfg(feature = "buckets")]
use futures_util::TryStreamExt as _;
use futures_util::{Stream, stream};
use http::{
    Method, Response, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE},
    request::Parts,
};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

#[cfg(feature = "buckets")]
use crate::error::{Error, chain};
use crate::{
    blob::Blob,
    error::counted,
    oci::Digest,
    server::{
        Registry,
        protocol::{DOCKER_CONTENT_DIGEST, Name, Refusal, Reply, empty, etag, set},
        storage::Stored,
    },
};

/// A file is read and sent in pieces of this size: large enough that handing one to the socket costs
/// little beside copying it, small enough for a hundred at once.
const PIECE: u64 = 256 << 10;

impl Registry {
    /// `GET /v2/<name>/blobs/<digest>`, whole or the range that is asked for.
    pub(super) async fn get_blob(
        &self,
        name: Name,
        digest: Digest,
        Parts { method, headers, .. }: &Parts,
    ) -> Result<Reply, Refusal> {
        let blob = self.storage.blob(name, digest.clone()).await?.ok_or_else(unknown)?;
        let size = blob.size();
        // Who has a part of something else wants the whole of this, and GET alone knows ranges (RFC 9110, 14.2).
        let goes_on = headers.get(IF_RANGE).is_none_or(|part| *part == etag(&digest));
        let asked = headers.get(RANGE).filter(|_| goes_on && *method == Method::GET);
        let asked = asked.and_then(|value| value.to_str().ok());
        match asked.and_then(|text| Asked::parse(text, size)) {
            None => Ok(sent(blob, &digest, StatusCode::OK, 0..size)),
            Some(Asked::Bytes(range)) => {
                let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let mut reply = sent(blob, &digest, StatusCode::PARTIAL_CONTENT, range);
                set(reply.headers_mut(), CONTENT_RANGE, &content_range);
                Ok(reply)
            }
            Some(Asked::Nothing) => {
                let message = format!("the blob has {}", counted(size, "byte"));
                Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message)
                    .with(CONTENT_RANGE, format!("bytes */{size}")))
            }
        }
    }

    /// `DELETE /v2/<name>/blobs/<digest>`: out of this repository; others keep it.
    pub(super) async fn delete_blob(&self, name: Name, digest: Digest) -> Result<Reply, Refusal> {
        if self.storage.remove_blob(name, digest).await? {
            Ok(empty(StatusCode::ACCEPTED, &[]))
        } else {
            Err(unknown())
        }
    }
}

fn unknown() -> Refusal {
    Refusal::not_found("BLOB_UNKNOWN", "the repository has no such blob")
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// These bytes.
    Bytes(Range<u64>),
    /// None that the blob has.
    Nothing,
}

impl Asked {
    /// Reads the header for a blob of `size` bytes. Several ranges, other units and nonsense may be ignored
    /// (RFC 9110, 14.2): the answer is then the whole.
    fn parse(text: &str, size: u64) -> Option<Self> {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let range = match (first.trim(), last.trim()) {
            ("", suffix) => size.saturating_sub(suffix.parse().ok()?)..size,
            (first, "") => first.parse().ok()?..size,
            (first, last) => {
                let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
                first..last.saturating_add(1).min(size)
            }
        };
        // Backwards as well: the specification's tests want no whole blob for it.
        Some(if range.is_empty() { Self::Nothing } else { Self::Bytes(range) })
    }
}

/// An answer that reads a range of a blob as the client takes it.
fn sent(blob: Stored, digest: &Digest, status: StatusCode, range: Range<u64>) -> Reply {
    let length = range.end - range.start;
    let body = match blob {
        Stored::Folder(blob) => StreamBody::new(pieces(blob, range)).boxed_unsync(),
        #[cfg(feature = "buckets")]
        Stored::Objects(blob) => {
            // The client only sees that it ends.
            let told = |error: &Error| tracing::warn!("a blob was not sent whole: {}", chain(error));
            let bytes = blob.bytes(range).inspect_err(told);
            StreamBody::new(bytes.map_ok(Frame::data).map_err(io::Error::other)).boxed_unsync()
        }
    };
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_LENGTH, length.into());
    set(headers, CONTENT_TYPE, "application/octet-stream");
    set(headers, ACCEPT_RANGES, "bytes");
    set(headers, ETAG, &etag(digest));
    set(headers, DOCKER_CONTENT_DIGEST, &digest.to_string());
    reply
}

/// Reads a range of a file, piece by piece.
fn pieces(blob: Blob, range: Range<u64>) -> impl Stream<Item = io::Result<Frame<Bytes>>> {
    stream::try_unfold((blob, range), |(blob, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let end = range.end.min(range.start + PIECE);
        let mut piece = vec![0; (end - range.start) as usize];
        // Another thread only where there is a disk to wait for: waking it costs as much as the copy.
        let cached = blob.read_cached_at(&mut piece, range.start);
        if cached == piece.len() {
            return Ok(Some((Frame::data(piece.into()), (blob, end..range.end))));
        }
        let read = tokio::task::spawn_blocking(move || {
            blob.read_exact_at(&mut piece[cached..], range.start + cached as u64)?;
            io::Result::Ok((blob, piece))
        });
        let (blob, piece) = read.await.map_err(io::Error::other)??;
        Ok(Some((Frame::data(piece.into()), (blob, end..range.end))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_inclusive_and_end_with_the_blob() {
        for (text, asked) in [
            ("bytes=0-0", Some(Asked::Bytes(0..1))),
            ("bytes=2-", Some(Asked::Bytes(2..10))),
            ("bytes=2-99", Some(Asked::Bytes(2..10))),
            ("bytes=-3", Some(Asked::Bytes(7..10))),
            ("bytes=-99", Some(Asked::Bytes(0..10))),
            ("bytes=10-", Some(Asked::Nothing)),
            ("bytes=10-12", Some(Asked::Nothing)),
            ("bytes=-0", Some(Asked::Nothing)),
            ("bytes=0-18446744073709551615", Some(Asked::Bytes(0..10))),
            ("bytes=3-2", Some(Asked::Nothing)),
            ("bytes=5-0", Some(Asked::Nothing)),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("lines=0-1", None),
        ] {
            assert_eq!(Asked::parse(text, 10), asked, "{text}");
        }
        assert_eq!(Asked::parse("bytes=0-0", 0), Some(Asked::Nothing));
    }
}
