//! The verb of an upload: one exchange that its session has asked for.

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
        transport::Pool,
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
        let guard = &self.0.transport.guard;
        let location = match request {
            Request::Open { mount, .. }
                if answer.status.is_success()
                    && answer.headers.get(header::LOCATION).is_none_or(HeaderValue::is_empty)
                    && (mount.is_none() || answer.status != StatusCode::CREATED) =>
            {
                let status = answer.status.as_u16();
                let words = format!("opened an upload by {status} without a `Location` to send it to");
                return Err(Fault::Fatal(no_registry(&answer.url, &words)));
            }
            _ if streams && answer.status.is_redirection() => answer.redirect(guard)?.map(Location),
            // Where a blob can be pulled from is nothing to us.
            Request::Cancel { .. } | Request::Commit { .. } | Request::Exists { .. } => None,
            Request::Open { .. } | Request::Patch { .. } | Request::Status { .. } => {
                match Location::of(&answer.headers, &answer.url, guard) {
                    Err(error) if answer.status.is_success() => return Err(Fault::Fatal(error)),
                    location => location.unwrap_or_default(),
                }
            }
        };
        let error = if answer.status.is_success() {
            None
        } else {
            Some(self.refusal(&call.scope.repository, &answer).await)
        };
        let (status, elapsed) = (answer.status.as_u16(), answer.elapsed);
        Ok(Reply { status, headers: answer.headers, location, error, elapsed })
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

    fn upload(&self, repository: &str, request: &Request, body: Option<UploadBody>) -> Result<Call> {
        let to = |method, location: &Location| Call::new(method, repository, location.0.clone());
        let carried = body.as_ref().map(|body| body.size);
        let (expected, mut call) = match request {
            Request::Cancel { location } => (None, to(Method::DELETE, location)),
            Request::Commit { location, digest, body } => {
                let mut call = Call::new(Method::PUT, repository, location.with_digest(digest));
                call.request.patience = Some(self.0.options.timeout.saturating_mul(CLOSING));
                (*body, call)
            }
            Request::Exists { digest } => {
                (None, self.call(Method::HEAD, repository, &format!("blobs/{digest}")))
            }
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
                (None, call)
            }
            Request::Patch { location, range } => {
                let mut call = to(Method::PATCH, location);
                let last = range.end.checked_sub(1).filter(|last| *last >= range.start);
                let last = last.ok_or_else(|| Error::internal("a chunk without bytes"))?;
                let content_range = HeaderValue::try_from(format!("{}-{last}", range.start));
                let content_range = content_range.map_err(|_| Error::internal("digits fit a header"))?;
                call.request.headers.insert(header::CONTENT_RANGE, content_range);
                (Some(range.end - range.start), call)
            }
            Request::Status { location } => (None, to(Method::GET, location)),
        };
        if carried.unwrap_or(0) != expected.unwrap_or(0) {
            let words = format!("a request for {expected:?} bytes was given {carried:?}");
            return Err(Error::internal(words));
        }
        if matches!(call.request.method, Method::PATCH | Method::PUT) {
            let octets = HeaderValue::from_static("application/octet-stream");
            call.request.headers.insert(header::CONTENT_TYPE, octets);
        }
        call.request.payload = match body {
            Some(body) if body.size > 0 => Payload::Stream(body),
            _ => Payload::Empty,
        };
        Ok(call)
    }
}
