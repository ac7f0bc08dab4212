//! The verbs about blobs that may be there: whether one is, how it begins, and what a small one is.
//!
//! What cannot be found out safely is not there: the registry refers to a place we do not go to, or does not say
//! how large the blob is.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{Call, Client};
use crate::{
    error::{Error, ErrorKind, Result, chain},
    oci::{Digest, Hasher},
    registry::{content_digest::is_something_else, guard::Unsafe},
};

/// So many first bytes tell an encoding.
const HEAD: usize = 16;

/// What an answer says of a blob.
struct Found {
    size: Option<u64>,
    start: Bytes,
    is_something_else: bool,
}

impl Client {
    /// Returns the size of a blob, if the repository has it.
    pub async fn head_blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        let call = self.call(Method::HEAD, repository, &format!("blobs/{digest}"));
        match self.find_blob(repository, digest, call).await? {
            // Without a length answer proxies that compress, and whatever makes a HEAD of a GET (django-oci 0.0.17); with
            // that of no body, whatever counts its own.
            Some(found)
                if found.is_something_else
                    || found.size.is_none()
                    || (found.size == Some(0) && *digest != Digest::of(b"")) =>
            {
                self.follow(repository, digest).await
            }
            found => Ok(found.and_then(|found| found.size)),
        }
    }

    /// Returns the size and the first bytes of a blob, if the repository has it.
    pub async fn peek_blob(&self, repository: &str, digest: &Digest) -> Result<Option<(u64, Bytes)>> {
        let mut call = self.call(Method::GET, repository, &format!("blobs/{digest}"));
        call.request.headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-15"));
        // A registry that knows no ranges sends everything: the rest is not read.
        call.request.limit = HEAD;
        let Some(Found { size, start, .. }) = self.find_blob(repository, digest, call).await? else {
            return Ok(None);
        };
        if size.is_none() {
            tracing::warn!(
                "looking for blob {} in `{}/{repository}`: the registry does not say how large it is, taken for missing",
                digest.short(),
                self.host(),
            );
        }
        Ok(size.map(|size| (size, start)))
    }

    /// Returns a blob of at most `limit` bytes, if the repository has it: a config. Its digest has been checked.
    pub async fn get_blob(&self, repository: &str, digest: &Digest, limit: usize) -> Result<Option<Bytes>> {
        let doing = || format!("reading blob {} of `{}/{repository}`", digest.short(), self.host());
        let mut call = self.call(Method::GET, repository, &format!("blobs/{digest}"));
        call.request.limit = limit;
        let Some(answer) = self.find(call, doing).await? else { return Ok(None) };
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&answer.body);
        if !answer.whole || hasher.finish() != *digest {
            let words = format!("the registry sent something else, or more than {limit} bytes");
            return Err(Error::new(ErrorKind::Refused, words).while_doing(doing()));
        }
        Ok(Some(answer.body))
    }

    /// Asks by a GET how large a blob is of which a HEAD does not say it, or describes something else.
    async fn follow(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        match self.peek_blob(repository, digest).await {
            // Some may write and not read.
            Err(error) if error.kind() == ErrorKind::Denied => {
                tracing::warn!("{}, taken for missing", chain(&error));
                Ok(None)
            }
            found => Ok(found?.map(|(size, _)| size)),
        }
    }

    async fn find_blob(&self, repository: &str, digest: &Digest, call: Call) -> Result<Option<Found>> {
        let doing = || format!("looking for blob {} in `{}/{repository}`", digest.short(), self.host());
        let answer = match self.find(call, doing).await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Ok(None),
            Err(error) if error.find::<Unsafe>().is_some() => {
                tracing::warn!("{}, taken for missing", chain(&error));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let size = match answer.status {
            // `bytes 0-15/4711`
            StatusCode::PARTIAL_CONTENT => text(&answer.headers, &header::CONTENT_RANGE)
                .and_then(|range| Some(range.rsplit_once('/')?.1)),
            _ => text(&answer.headers, &header::CONTENT_LENGTH),
        };
        let size = size.and_then(|size| size.parse().ok());
        let is_something_else = is_something_else(&answer.headers, digest);
        Ok(Some(Found { size, start: answer.body, is_something_else }))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
