//! Manifests and tags. A manifest is taken only when everything it names is there, and kept byte for byte.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CONTENT_TYPE, ETAG},
    request::Parts,
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::{
    error::chain,
    oci::{Content, Digest, Manifest, manifest::MANIFEST_LIMIT, reference::check_tag},
    server::{
        Registry,
        protocol::{
            DOCKER_CONTENT_DIGEST, Name, Needed, Refusal, Reply, Target, content_length, created, empty,
            etag, full, parameters, set,
        },
        storage::Removal,
        tasks::blocking,
    },
};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// A manifest is read into memory, and as many may come at once as there are connections. Nearly all are smaller than this.
const SMALL: u64 = 64 << 10;
/// So many others are taken at once.
pub(in crate::server) const MOST_LARGE: usize = 16;

impl Registry {
    /// `GET /v2/<name>/manifests/<tag or digest>`
    pub(super) async fn get_manifest(&self, name: Name, target: Target) -> Result<Reply, Refusal> {
        self.find_manifest(name, target).await.map(sent)
    }

    /// `PUT /v2/<name>/manifests/<tag or digest>`, and `?tag=<tag>` for each further tag.
    pub(super) async fn put_manifest(
        &self,
        name: Name,
        target: Target,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        let tags = parameters(head, "tag");
        for tag in &tags {
            check_tag(tag).map_err(|error| Refusal::bad_request("MANIFEST_INVALID", error.message()))?;
        }
        // The specification has its parameters ignored.
        let declared =
            head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
        let declared = declared.map(|media_type| media_type.trim().to_owned());
        let is_small = content_length(&head.headers).is_some_and(|length| length <= SMALL);
        let _leave = if is_small { None } else { self.large_manifests.acquire().await.ok() };
        let reading = tokio::time::timeout(self.options.patience, read(&head.headers, body));
        let bytes = reading.await.map_err(|_| Refusal::too_slow())??;
        let sent_to = target.clone();
        let manifest = blocking(move || parse(bytes, &sent_to, declared.as_deref())).await?;
        match &self.gateway {
            Some(gateway) => gateway.pass_on(&name, &target, &tags, &manifest).await?,
            None => self.check_references(&name, &manifest).await?,
        }
        let mut reply = created(&format!("/v2/{name}/manifests/{}", manifest.digest), &manifest.digest);
        if let Some(subject) = &manifest.subject {
            set(reply.headers_mut(), OCI_SUBJECT, &subject.digest.to_string());
        }
        if !tags.is_empty() {
            set(reply.headers_mut(), OCI_TAG, &tags.join(", "));
        }
        let asked = match target {
            Target::Tag(tag) => Some(tag),
            Target::Digest(_) => None,
        };
        self.storage.put_manifest(name, tags.into_iter().chain(asked).collect(), manifest).await?;
        Ok(reply)
    }

    /// `DELETE /v2/<name>/manifests/<tag or digest>`: a tag alone, or a manifest with all its tags.
    pub(super) async fn delete_manifest(&self, name: Name, target: Target) -> Result<Reply, Refusal> {
        match self.storage.remove_manifest(name, target).await? {
            Removal::NoRepository => Err(Refusal::no_repository()),
            Removal::NoManifest => Err(unknown()),
            Removal::Done => Ok(empty(StatusCode::ACCEPTED, &[])),
        }
    }

    pub(in crate::server) async fn find_manifest(
        &self,
        name: Name,
        target: Target,
    ) -> Result<Manifest, Refusal> {
        self.storage.manifest(name, target).await?.ok_or_else(unknown)
    }

    /// Refuses a manifest that names what the repository does not have. A subject may come later, or never.
    async fn check_references(&self, name: &Name, manifest: &Manifest) -> Result<(), Refusal> {
        let needed = match &manifest.content {
            Content::Image { config, layers } => {
                let here = config.iter().chain(layers).filter(|blob| !blob.is_foreign());
                here.map(|blob| Needed::Blob(blob.digest.clone())).collect()
            }
            Content::Index { manifests } => {
                manifests.iter().map(|child| Needed::Manifest(child.digest.clone())).collect()
            }
        };
        let missing = match self.storage.first_missing(name.clone(), needed).await? {
            None => return Ok(()),
            Some(Needed::Blob(digest)) => format!("blob {digest}"),
            Some(Needed::Manifest(digest)) => format!("manifest {digest}"),
        };
        Err(Refusal::not_found("MANIFEST_BLOB_UNKNOWN", format!("the repository has no {missing}")))
    }
}

/// Reads a manifest's body, which is small or refused.
async fn read(headers: &HeaderMap, body: &mut Incoming) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("a manifest may have {MANIFEST_LIMIT} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", message)
    };
    if content_length(headers).is_some_and(|length| length > MANIFEST_LIMIT) {
        return Err(too_large());
    }
    match Limited::new(body, MANIFEST_LIMIT as usize).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Refusal::bad_request("MANIFEST_INVALID", "the connection broke in the middle of it")),
    }
}

/// Makes a manifest of what was sent to a tag or digest.
fn parse(bytes: Bytes, target: &Target, declared: Option<&str>) -> Result<Manifest, Refusal> {
    let digest = match target {
        Target::Digest(digest) => digest.algorithm().digest(&bytes),
        Target::Tag(_) => Digest::of(&bytes),
    };
    if let Target::Digest(asked) = target
        && *asked != digest
    {
        let message = format!("the manifest's digest is {digest}");
        return Err(Refusal::bad_request("DIGEST_INVALID", message));
    }
    Manifest::parse(bytes, digest, declared)
        .map_err(|error| Refusal::bad_request("MANIFEST_INVALID", chain(&error)))
}

fn sent(manifest: Manifest) -> Reply {
    let digest = manifest.digest.to_string();
    let mut reply = full(&manifest.media_type, manifest.bytes);
    set(reply.headers_mut(), ETAG, &etag(&manifest.digest));
    set(reply.headers_mut(), DOCKER_CONTENT_DIGEST, &digest);
    reply
}

fn unknown() -> Refusal {
    Refusal::not_found("MANIFEST_UNKNOWN", "the repository has no such manifest")
}
