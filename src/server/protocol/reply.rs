//! What goes back to a client: answers, and refusals in the distribution specification's JSON.
//!
//! A failure of our own (a full disk, a damaged folder) is told to the log in full and to the client in a
//! sentence: it may be anybody.

use std::{borrow::Cow, io};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION},
};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::ext::ReasonPhrase;

use crate::{
    error::{Error, ErrorKind, chain},
    oci::Digest,
};

/// An answer's body: bytes at hand, or as they are read or come from an upstream.
type Body = UnsyncBoxBody<Bytes, io::Error>;
/// An answer.
pub(in crate::server) type Reply = Response<Body>;

/// The digest of what an answer holds or is about.
pub(in crate::server) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");

/// The id of an upload, as docker's registry names it.
pub(in crate::server) const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// A request that is not carried out, and why.
#[derive(Debug)]
pub(in crate::server) struct Refusal {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    /// Refuses with one of the distribution specification's codes.
    pub(in crate::server) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self { status, code: code.into(), message: message.into(), headers: Vec::new() }
    }

    /// Refuses something that is not there.
    pub(in crate::server) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// Refuses something that is not right.
    pub(in crate::server) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Refuses a method, and names those that do.
    pub(in crate::server) fn wrong_method(methods: &str, message: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message).with(ALLOW, methods)
    }

    /// Refuses what needs a repository that is not there.
    pub(in crate::server) fn no_repository() -> Self {
        Self::not_found("NAME_UNKNOWN", "there is no such repository")
    }

    /// Refuses bytes that are not what they should be.
    pub(in crate::server) fn wrong_digest(found: &Digest, digest: &Digest) -> Self {
        Self::bad_request("DIGEST_INVALID", format!("the digest of the bytes is {found}, not {digest}"))
    }

    /// Refuses to delete a manifest as a blob.
    pub(in crate::server) fn manifest_as_blob() -> Self {
        Self::bad_request("UNSUPPORTED", "this is a manifest, and deleted as one")
    }

    /// Refuses to wait any longer for a body.
    pub(in crate::server) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", "the body does not come")
    }

    /// Adds a header to the answer.
    pub(in crate::server) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Returns whether the client could not have done better.
    pub(in crate::server) fn is_our_fault(&self) -> bool {
        self.status.is_server_error()
    }

    /// Makes the answer.
    pub(in crate::server) fn reply(self) -> Reply {
        let body = serde_json::json!({"errors": [{"code": self.code, "message": self.message}]});
        let mut reply = json(self.status, &body);
        // All that docker and podman show of such an answer is its first line.
        let first = format!("{}: {}", self.status.canonical_reason().unwrap_or_default(), self.message);
        if self.is_our_fault()
            && let Ok(first) = ReasonPhrase::try_from(first)
        {
            reply.extensions_mut().insert(first);
        }
        for (name, value) in self.headers {
            set(reply.headers_mut(), name, &value);
        }
        reply
    }
}

impl From<Error> for Refusal {
    /// A failure of our own.
    fn from(error: Error) -> Self {
        tracing::error!("{}", chain(&error));
        let full = matches!(
            error.find::<io::Error>().map(io::Error::kind),
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        );
        if full {
            Self::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", "the registry's disk is full")
        } else if error.kind() == ErrorKind::Network {
            let message = "what the registry keeps its blobs in does not answer: its log says why";
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
        } else {
            let message = "the registry failed: its log says why";
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message)
        }
    }
}

/// An answer without a body.
pub(in crate::server) fn empty(status: StatusCode, headers: &[(HeaderName, &str)]) -> Reply {
    let mut reply = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *reply.status_mut() = status;
    for (name, value) in headers {
        set(reply.headers_mut(), name.clone(), value);
    }
    reply
}

/// An answer that something is there now, and where.
pub(in crate::server) fn created(location: &str, digest: &Digest) -> Reply {
    empty(StatusCode::CREATED, &[(LOCATION, location), (DOCKER_CONTENT_DIGEST, &digest.to_string())])
}

/// Leaves out of an answer what the client says that it has already (RFC 9110, 13.1.2).
pub(in crate::server) fn unless_known(reply: Reply, asked: &HeaderMap) -> Reply {
    let Some(etag) = reply.headers().get(ETAG) else { return reply };
    let known = asked.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|tags| tags.split(',')).map(str::trim);
    if !known.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag) {
        return reply;
    }
    let mut unchanged = empty(StatusCode::NOT_MODIFIED, &[]);
    for name in [ETAG, DOCKER_CONTENT_DIGEST] {
        let value = reply.headers().get(&name).cloned();
        unchanged.headers_mut().extend(value.map(|value| (name, value)));
    }
    unchanged
}

/// Returns the name by which a client asks later whether something has changed.
pub(in crate::server) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// An answer of bytes at hand.
pub(in crate::server) fn full(media_type: &str, bytes: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    set(reply.headers_mut(), CONTENT_TYPE, media_type);
    reply
}

/// An answer of JSON.
pub(in crate::server) fn json(status: StatusCode, value: &serde_json::Value) -> Reply {
    let mut reply = full("application/json", value.to_string().into());
    *reply.status_mut() = status;
    reply
}

/// Sets a header; one that cannot be sent (a stored media type with a line break in it) is left out.
pub(in crate::server) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
