//! Manifests and tags. A manifest is taken only when everything it names is there, and kept byte for byte.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CONTENT_TYPE, ETAG, LINK, LOCATION},
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::{
    Registry,
    index::Index,
    reply::{DOCKER_CONTENT_DIGEST, Refusal, Reply, blocking, empty, full, head, json, set},
    routes::{Target, content_length, parameter, parameters},
    storage::{Name, Storage},
};
use crate::{
    error::chain,
    oci::{
        Algorithm, Content, Digest, Hasher, Manifest, manifest::MANIFEST_LIMIT,
        media_type::is_nondistributable, reference::check_tag,
    },
};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

impl Registry {
    /// `HEAD /v2/<name>/manifests/<tag or digest>`
    pub(super) async fn head_manifest(&self, name: Name, target: Target) -> Result<Reply, Refusal> {
        let manifest = self.find_manifest(name, target).await?;
        let size = manifest.bytes.len() as u64;
        Ok(head(sent(manifest), size))
    }

    /// `GET /v2/<name>/manifests/<tag or digest>`
    pub(super) async fn get_manifest(&self, name: Name, target: Target) -> Result<Reply, Refusal> {
        self.find_manifest(name, target).await.map(sent)
    }

    /// `PUT /v2/<name>/manifests/<tag or digest>`, and `?tag=<tag>` for each further tag.
    pub(super) async fn put_manifest(
        &self,
        name: Name,
        target: Target,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Reply, Refusal> {
        let tags = parameters(query, "tag");
        for tag in &tags {
            check_tag(tag).map_err(|error| Refusal::bad_request("MANIFEST_INVALID", error.message()))?;
        }
        // The specification has its parameters ignored.
        let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
        let declared = declared.map(|media_type| media_type.trim().to_owned());
        let reading = tokio::time::timeout(self.patience, read(headers, body));
        let bytes = reading.await.map_err(|_| Refusal::too_slow())??;
        let storage = self.storage.clone();
        blocking(move || {
            let digest = match &target {
                Target::Digest(digest) => digest_of(&bytes, digest.algorithm()),
                Target::Tag(_) => Digest::of(&bytes),
            };
            if let Target::Digest(asked) = &target
                && *asked != digest
            {
                let message = format!("the manifest's digest is {digest}");
                return Err(Refusal::bad_request("DIGEST_INVALID", message));
            }
            let manifest = Manifest::parse(bytes, digest, declared.as_deref())
                .map_err(|error| Refusal::bad_request("MANIFEST_INVALID", chain(&error)))?;
            check_references(&storage, &name, &manifest)?;
            store(&storage, &name, &target, &tags, &manifest)?;
            let digest = manifest.digest.to_string();
            let location = format!("/v2/{name}/manifests/{digest}");
            let mut reply =
                empty(StatusCode::CREATED, &[(LOCATION, &*location), (DOCKER_CONTENT_DIGEST, &*digest)]);
            if let Some(subject) = &manifest.subject {
                set(reply.headers_mut(), OCI_SUBJECT, &subject.digest.to_string());
            }
            if !tags.is_empty() {
                set(reply.headers_mut(), OCI_TAG, &tags.join(", "));
            }
            Ok(reply)
        })
        .await
    }

    /// `DELETE /v2/<name>/manifests/<tag or digest>`: a tag alone, or a manifest with all its tags.
    pub(super) async fn delete_manifest(&self, name: Name, target: Target) -> Result<Reply, Refusal> {
        let storage = self.storage.clone();
        blocking(move || {
            let locked = storage.lock(&name)?.ok_or_else(unknown_name)?;
            let mut index = storage.index(&name)?.ok_or_else(unknown_name)?;
            match &target {
                Target::Tag(tag) => {
                    if !index.untag(tag) {
                        return Err(unknown());
                    }
                    locked.write(&index)?;
                }
                Target::Digest(digest) => {
                    storage.manifest(&name, digest, None)?.ok_or_else(unknown)?;
                    if index.remove(digest) {
                        locked.write(&index)?;
                    }
                    storage.remove(&name, digest)?;
                }
            }
            Ok(empty(StatusCode::ACCEPTED, &[]))
        })
        .await
    }

    /// `GET /v2/<name>/tags/list`, all of it or `n` tags after `last`.
    pub(super) async fn get_tags(&self, name: Name, query: Option<&str>) -> Result<Reply, Refusal> {
        let most = match parameter(query, "n").map(|n| n.parse::<usize>()) {
            None => usize::MAX,
            Some(Ok(most)) => most,
            Some(Err(_)) => return Err(Refusal::bad_request("UNSUPPORTED", "`n` is a number")),
        };
        let last = parameter(query, "last").unwrap_or_default();
        let (storage, repository) = (self.storage.clone(), name.clone());
        let index = blocking(move || storage.index(&repository)).await?.ok_or_else(unknown_name)?;
        let mut tags: Vec<&str> = index.tags().into_iter().filter(|tag| **tag > *last).collect();
        let more = tags.len() > most;
        tags.truncate(most);
        let mut reply = json(StatusCode::OK, &serde_json::json!({"name": name.to_string(), "tags": tags}));
        if let (true, Some(last)) = (more, tags.last()) {
            let next = format!("</v2/{name}/tags/list?n={most}&last={last}>; rel=\"next\"");
            set(reply.headers_mut(), LINK, &next);
        }
        Ok(reply)
    }

    async fn find_manifest(&self, name: Name, target: Target) -> Result<Manifest, Refusal> {
        let storage = self.storage.clone();
        blocking(move || {
            let index = storage.index(&name)?.ok_or_else(unknown)?;
            let entry = match &target {
                Target::Digest(digest) => index.listed(digest),
                Target::Tag(tag) => Some(index.tagged(tag).ok_or_else(unknown)?),
            };
            let digest = match (&target, entry) {
                (Target::Digest(digest), _) => digest,
                (_, Some(entry)) => &entry.digest,
                _ => return Err(unknown()),
            };
            let declared = entry.and_then(|entry| entry.media_type.as_deref());
            storage.manifest(&name, digest, declared)?.ok_or_else(unknown)
        })
        .await
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

/// Refuses a manifest that names what the repository does not have. A subject may come later, or never.
fn check_references(storage: &Storage, name: &Name, manifest: &Manifest) -> Result<(), Refusal> {
    let missing = |what: &str, digest: &Digest| {
        let message = format!("the repository has no {what} {digest}");
        Err(Refusal::not_found("MANIFEST_BLOB_UNKNOWN", message))
    };
    match &manifest.content {
        Content::Image { config, layers } => {
            for blob in config.iter().chain(layers) {
                // Such bytes are fetched from elsewhere, and may not be passed on.
                let elsewhere =
                    !blob.urls.is_empty() || blob.media_type.as_deref().is_some_and(is_nondistributable);
                if !elsewhere && storage.blob(name, &blob.digest)?.is_none() {
                    return missing("blob", &blob.digest);
                }
            }
        }
        Content::Index { manifests } => {
            for child in manifests {
                if storage.blob(name, &child.digest)?.is_none() {
                    return missing("manifest", &child.digest);
                }
            }
        }
    }
    Ok(())
}

/// Stores a manifest and lists it.
fn store(
    storage: &Storage,
    name: &Name,
    target: &Target,
    tags: &[String],
    manifest: &Manifest,
) -> Result<(), Refusal> {
    let locked = storage.make(name)?;
    let mut index = storage.index(name)?.ok_or_else(unknown_name)?;
    let before = index.clone();
    let known = storage.blob(name, &manifest.digest)?.is_some();
    let (_, mut staging) = storage.stage(manifest.digest.algorithm())?;
    staging.append(std::slice::from_ref(&manifest.bytes))?;
    storage.commit(&staging, name, &manifest.digest)?;
    match target {
        Target::Tag(tag) => index.tag(manifest, tag),
        // One that was here and is not listed is the child of an index.
        Target::Digest(_) if !known => index.list(manifest),
        Target::Digest(_) => {}
    }
    for tag in tags {
        index.tag(manifest, tag);
    }
    adopt_children(storage, name, &mut index, manifest)?;
    if index != before {
        locked.write(&index)?;
    }
    Ok(())
}

/// Children are found through their index, but for those that are about another manifest: whoever asks for
/// its referrers finds them in the list.
fn adopt_children(storage: &Storage, name: &Name, index: &mut Index, parent: &Manifest) -> crate::Result<()> {
    let Content::Index { manifests } = &parent.content else { return Ok(()) };
    let children: BTreeSet<&Digest> = manifests.iter().map(|child| &child.digest).collect();
    for child in children {
        if index.listed(child).is_some()
            && storage.manifest(name, child, None)?.is_none_or(|child| child.subject.is_none())
        {
            index.adopt(child);
        }
    }
    Ok(())
}

fn sent(manifest: Manifest) -> Reply {
    let digest = manifest.digest.to_string();
    let mut reply = full(&manifest.media_type, manifest.bytes);
    set(reply.headers_mut(), ETAG, &format!("\"{digest}\""));
    set(reply.headers_mut(), DOCKER_CONTENT_DIGEST, &digest);
    reply
}

fn digest_of(bytes: &[u8], algorithm: Algorithm) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

fn unknown() -> Refusal {
    Refusal::not_found("MANIFEST_UNKNOWN", "the repository has no such manifest")
}

fn unknown_name() -> Refusal {
    Refusal::not_found("NAME_UNKNOWN", "there is no such repository")
}
