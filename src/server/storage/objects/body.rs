//! Where the bytes of a blob lie: in objects one after the other, as they came in.
//!
//! They are all of one upload, and stay where that has put them when it becomes a blob: however large, nothing is copied.
//! What names a blob, in a repository or for all of them, is a small document that says which objects these are.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use serde::{Deserialize, Serialize};

use super::store::Store;
use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    oci::{Algorithm, Digest, Hasher},
    server::tasks::blocking,
};

/// Bytes in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Body {
    /// The upload that has put them there.
    pub(super) upload: String,
    pub(super) pieces: Vec<Piece>,
}

/// One of its objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) name: String,
    pub(super) size: u64,
}

impl Body {
    /// Reads the document that names it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).context(ErrorKind::Local, || "a blob's document is damaged".into())
    }

    /// Returns the document.
    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings and numbers are always JSON").into()
    }

    /// Returns how many bytes there are.
    pub(super) fn size(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.size).sum()
    }

    /// Returns what the bucket calls one of its objects.
    pub(super) fn key(&self, piece: &Piece) -> String {
        piece_key(&self.upload, &piece.name)
    }

    /// Reads a range, piece by piece as it comes. It ends in an error if bytes are missing.
    pub(super) fn bytes(&self, store: &Store, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        let (mut start, mut parts) = (0, Vec::new());
        for piece in &self.pieces {
            let (from, to) = (range.start.max(start), range.end.min(start + piece.size));
            if from < to {
                parts.push((self.key(piece), from - start..to - start));
            }
            start += piece.size;
        }
        let store = store.clone();
        let streams = parts.into_iter().map(move |(key, range)| {
            let length = range.end - range.start;
            exactly(length, store.bytes(&key, range))
        });
        stream::iter(streams).flatten().boxed()
    }

    /// Reads all of it to compute its digest.
    pub(super) async fn digest(&self, store: &Store, algorithm: Algorithm) -> Result<Digest> {
        let (mut hasher, mut bytes) = (Hasher::new(algorithm), self.bytes(store, 0..self.size()));
        while let Some(piece) = bytes.try_next().await? {
            hasher = hash(hasher, piece).await?;
        }
        Ok(hasher.finish())
    }

    /// Reads one of its objects, which is small.
    pub(super) async fn read(&self, store: &Store, piece: &Piece, into: &mut BytesMut) -> Result<()> {
        let mut bytes = exactly(piece.size, store.bytes(&self.key(piece), 0..piece.size));
        while let Some(bytes) = bytes.try_next().await? {
            into.put(bytes);
        }
        Ok(())
    }
}

/// Returns what the bucket calls an object of an upload.
pub(super) fn piece_key(upload: &str, name: &str) -> String {
    format!("{}/{name}", pieces_key(upload))
}

/// Returns below what the objects of an upload lie.
pub(super) fn pieces_key(upload: &str) -> String {
    format!("_data/{upload}")
}

/// Hashes on a thread that may compute for long.
pub(super) async fn hash(mut hasher: Hasher, bytes: Bytes) -> Result<Hasher> {
    blocking(move || {
        hasher.update(&bytes);
        Ok::<_, Error>(hasher)
    })
    .await
}

/// Fails where a stream has not so many bytes.
fn exactly(length: u64, bytes: BoxStream<'static, Result<Bytes>>) -> BoxStream<'static, Result<Bytes>> {
    let missing = || Error::local("bytes of a blob are missing in the bucket");
    stream::try_unfold((bytes, length), move |(mut bytes, left)| async move {
        match bytes.try_next().await? {
            None if left == 0 => Ok(None),
            None => Err(missing()),
            Some(piece) => {
                let left = left.checked_sub(piece.len() as u64).ok_or_else(missing)?;
                Ok(Some((piece, (bytes, left))))
            }
        }
    })
    .boxed()
}
