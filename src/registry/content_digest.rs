//! What an answer says that its content is: `Docker-Content-Digest`.

use http::HeaderMap;

use crate::oci::Digest;

/// Returns whether an answer about a blob describes another. Of one that was mounted, a HEAD describes the note that
/// serverless-registry has in its place, and a GET the blob (cloudflare/serverless-registry:src/router.ts).
pub(crate) fn is_something_else(headers: &HeaderMap, digest: &Digest) -> bool {
    content_digest(headers).is_some_and(|named| named != *digest)
}

/// Returns the digest that an answer gives to its content.
pub(crate) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}
