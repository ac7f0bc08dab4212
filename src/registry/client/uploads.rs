//! The verb of an upload: one exchange that its session has asked for.

use std::ops::Range;

use http::{HeaderValue, Method, StatusCode, header};

use super::{Call, Client, Inner, no_registry, round_trip::TOKEN_MARGIN};
use crate::{
    error::{Error, Result},
    oci::Algorithm,
    registry::{
        Location,
        auth::Scope,
        body::{Payload, UploadBody},
        session::{Fault, Mount, Reply, Request},
        transport::{Incoming, Pool},
    },
};

/// Closing an upload may take so many times as long as other requests: registries copy gigabytes then.
const CLOSING: u32 = 15;

impl Client {
    /// Does one exchange of an upload, with `body` where the request has one.
    ///
    /// The redirect of a body that streams comes back as a [`Reply`] with status 301, 302, 307 or 308 and the
    /// location at which the request is to be made again. A 401 that answers such a body has already dropped
    /// the token in question.
    pub async fn exchange(
        &self,
        repository: &str,
        request: &Request,
        body: Option<UploadBody>,
        pool: Pool,
    ) -> Result<Reply, Fault> {
        let mut call = self.upload(repository, request, body).map_err(Fault::Fatal)?;
        call.pool = pool;
        self.exchange_call(request, call).await
    }

    async fn exchange_call(&self, request: &Request, mut call: Call) -> Result<Reply, Fault> {
        let streams = call.request.payload.is_stream();
        let answer = self.round_trip(&mut call).await?;
        let location = if streams && answer.status.is_redirection() {
            answer.redirect(&self.0.transport.guard)?.map(Location)
        } else {
            self.location(request, &answer).map_err(Fault::Fatal)?
        };
        let error = if answer.status.is_success() {
            None
        } else {
            Some(self.refusal(&call.scope.repository, &answer).await)
        };
        let (status, elapsed) = (answer.status.as_u16(), answer.elapsed);
        Ok(Reply { status, headers: answer.headers, location, error, elapsed })
    }

    /// Returns where an upload goes on after an answer, if that says so.
    fn location(&self, request: &Request, answer: &Incoming) -> Result<Option<Location>> {
        let is_success = answer.status.is_success();
        match request {
            Request::Open { mount, .. }
                if is_success
                    && answer.headers.get(header::LOCATION).is_none_or(HeaderValue::is_empty)
                    && (mount.is_none() || answer.status != StatusCode::CREATED) =>
            {
                let status = answer.status.as_u16();
                let words = format!("opened an upload by {status} without a `Location` to send it to");
                Err(no_registry(&answer.url, &words))
            }
            // Where a blob can be pulled from is nothing to us.
            Request::Cancel { .. } | Request::Commit { .. } | Request::Exists { .. } => Ok(None),
            Request::Open { .. } | Request::Patch { .. } | Request::Status { .. } => {
                match Location::of(&answer.headers, &answer.url, &self.0.transport.guard) {
                    Err(_) if !is_success => Ok(None),
                    location => location,
                }
            }
        }
    }

    /// Does one exchange without a body of which nobody knows yet whether it is wanted. Returns an answer that settles
    /// something, a success or "not there"; whatever else comes of it is as if it had not been asked.
    pub async fn ask_ahead(&self, repository: &str, request: &Request) -> Option<Reply> {
        let mut call = self.upload(repository, request, None).ok()?;
        call.shows_no_password = true;
        let reply = self.exchange_call(request, call).await.ok()?;
        (matches!(reply.status, 200..=204 | 404)).then_some(reply)
    }

    /// Gets a new token for a repository after a 401, which has dropped the old one: once for all who wait.
    pub async fn reauthenticate(&self, repository: &str) {
        let Inner { transport, auth, .. } = &*self.0;
        if let Err(fault) = auth.authorization(transport, &Scope::of(repository), TOKEN_MARGIN).await {
            // The next exchange fails for the same reason, and says so.
            tracing::debug!(?fault, "no new token");
        }
    }

    /// Returns whether an upload that another client has begun may be gone on with: not in the clear, unless we would
    /// begin one so.
    pub(crate) fn may_go_on_at(&self, location: &Location) -> bool {
        let may_do_without = self.0.options.insecure || self.0.transport.base().scheme() == "http";
        may_do_without || location.0.scheme() == "https"
    }

    /// Prepares a request of an upload, with the body that it says.
    fn upload(&self, repository: &str, request: &Request, body: Option<UploadBody>) -> Result<Call> {
        let (expected, carried) = (request.size(), body.as_ref().map_or(0, |body| body.size));
        if carried != expected {
            return Err(Error::internal(format!("a request for {expected} bytes was given {carried}")));
        }
        let to = |method, location: &Location| Call::new(method, repository, location.0.clone());
        let mut call = match request {
            Request::Cancel { location } => to(Method::DELETE, location),
            Request::Commit { location, digest, .. } => {
                let mut call = Call::new(Method::PUT, repository, location.with_digest(digest));
                call.request.patience = Some(self.0.options.timeout.saturating_mul(CLOSING));
                call
            }
            Request::Exists { digest } => self.call(Method::HEAD, repository, &format!("blobs/{digest}")),
            Request::Open { mount, algorithm } => {
                let mut call = self.call(Method::POST, repository, "blobs/uploads/");
                let url = &mut call.request.url;
                if let Some(Mount { digest, from }) = mount {
                    url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
                    call.scope.from = Some(from.clone());
                }
                if *algorithm != Algorithm::Sha256 {
                    // gh:opencontainers/distribution-spec#543
                    url.query_pairs_mut().append_pair("digest-algorithm", algorithm.name());
                }
                call
            }
            Request::Patch { location, range } => {
                let mut call = to(Method::PATCH, location);
                call.request.headers.insert(header::CONTENT_RANGE, content_range(range)?);
                call
            }
            Request::Status { location } => to(Method::GET, location),
        };
        if matches!(call.request.method, Method::PATCH | Method::PUT) {
            let octets = HeaderValue::from_static("application/octet-stream");
            call.request.headers.insert(header::CONTENT_TYPE, octets);
        }
        call.request.payload = body.filter(|body| body.size > 0).map_or(Payload::Empty, Payload::Stream);
        Ok(call)
    }
}

fn content_range(range: &Range<u64>) -> Result<HeaderValue> {
    let last = range.end.checked_sub(1).filter(|last| *last >= range.start);
    let last = last.ok_or_else(|| Error::internal("a chunk without bytes"))?;
    let header = HeaderValue::try_from(format!("{}-{last}", range.start));
    header.map_err(|_| Error::internal("digits fit a header"))
}
