//! What a registry has, as it comes: for whoever stands between it and clients of their own.
//!
//! Asked once: the client behind tries again if it likes. Nothing is held and nothing is checked on the way: whoever
//! asked for a digest compares it.

use std::{fmt, io, pin::Pin};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;

use super::Client;
use crate::error::Result;

/// A request that changes nothing.
#[derive(Clone, Debug)]
pub struct Question {
    /// GET or HEAD.
    pub method: Method,
    /// What stands behind the repository in the path: `blobs/sha256:…`.
    pub path: String,
    /// What stands behind the path.
    pub query: Option<String>,
    /// What else is to be said: `Accept`, `Range`.
    pub headers: HeaderMap,
}

/// An answer whose body is still coming.
pub struct Download {
    /// A success.
    pub status: StatusCode,
    /// As the registry, or whom it refers to, has sent them.
    pub headers: HeaderMap,
    /// The body.
    pub frames: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
}

impl Client {
    /// Asks a repository, and returns the answer as it comes; nothing if what is asked for is not there.
    pub async fn download(&self, repository: &str, question: Question) -> Result<Option<Download>> {
        let Question { method, path, query, headers } = question;
        let doing = || format!("reading `{path}` of `{}/{repository}`", self.host());
        let mut call = self.call(method, repository, &path);
        call.request.url.set_query(query.as_deref());
        call.request.headers = headers;
        call.request.leaves_body = true;
        let answer = self.round_trip(&mut call).await.map_err(|fault| fault.failure(doing()))?;
        if !answer.status.is_success() && !answer.is_absence() {
            let error = self.refusal(repository, &answer).await.into_error(doing());
            return Err(self.explain(repository, error));
        }
        let Some(rest) = answer.rest else { return Ok(None) };
        let patience = self.0.options.timeout;
        let frames = stream::try_unfold(rest, move |mut rest| async move {
            let frame = timeout(patience, rest.chunk()).await.map_err(io::Error::from)?;
            Ok(frame.map_err(io::Error::other)?.map(|frame| (frame, rest)))
        });
        Ok(Some(Download { status: answer.status, headers: answer.headers, frames: Box::pin(frames) }))
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("status", &self.status).finish_non_exhaustive()
    }
}
