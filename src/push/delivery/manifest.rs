//! The last stage: sends manifests, tags last.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use oci_spec::image::MediaType;

use super::Delivery;
use crate::{
    error::{Context as _, Error, ErrorKind, Result, chain},
    event::Event,
    oci::{Algorithm, Descriptor, Digest, Manifest},
    registry::{Client, Receipt, RegistryError},
};

impl Delivery {
    /// Sends manifests, children before their index and subjects before what refers to them, and at last the root under
    /// every tag, or under its digest where there is no tag. Returns the digest that the registry knows the root by:
    /// under a tag it is kept by SHA-256, whatever the source knew it by. Who asked for another digest gets that one, and
    /// the tags along with it where the registry takes them so.
    pub(super) async fn send_manifests(&self, manifests: &[Manifest], tags: &[String]) -> Result<Digest> {
        let Some((root, children)) = manifests.split_last() else {
            return Err(Error::internal("an image without a manifest"));
        };
        for child in subjects_first(children) {
            self.put(child, &child.digest.to_string(), &[]).await?;
        }
        let asked_by = self.target.destination.digest.as_ref().map(Digest::algorithm);
        let by_digest = tags.is_empty() || asked_by.is_some_and(|algorithm| algorithm != Algorithm::Sha256);
        let (mut known_by, mut taken) = (None, Vec::new());
        if by_digest {
            let receipt = self.put(root, &root.digest.to_string(), tags).await?;
            (known_by, taken) = (receipt.digest, receipt.tags);
        }
        for tag in tags.iter().filter(|tag| !taken.contains(tag)) {
            let receipt = self.put(root, tag, &[]).await?;
            if !by_digest {
                known_by = receipt.digest;
            }
        }
        Ok(known_by.unwrap_or_else(|| root.digest.clone()))
    }

    /// Sends one manifest under a name, and under these tags where the registry takes them along.
    async fn put(&self, manifest: &Manifest, name: &str, tags: &[String]) -> Result<Receipt> {
        let (client, repository) = (&self.target.client, self.target.repository());
        let (media_type, bytes) = (&manifest.media_type, manifest.bytes.clone());
        let receipt = client.put_manifest(repository, name, tags, media_type, bytes).await?;
        if !receipt.subject {
            self.list_referrer(manifest).await?;
        }
        for reference in std::iter::once(name).chain(receipt.tags.iter().map(String::as_str)) {
            let (reference, digest) = (reference.to_owned(), manifest.digest.to_string());
            self.cargo.press.reporter.event(Event::Manifest { reference, digest });
        }
        Ok(receipt)
    }

    /// Sees to it that a manifest which is there already is listed where the client keeps the list: whoever put it may have
    /// been interrupted before, or the list been written by somebody who had read an older one. If not, no more is lost
    /// than before.
    pub(super) async fn stay_listed(&self, manifest: &Manifest) {
        let Some(subject) = &manifest.subject else { return };
        let asked = self.target.client.ask_referrers(self.target.repository(), &subject.digest).await;
        if asked.is_err_and(|error| error.kind() == ErrorKind::Refused)
            && let Err(error) = self.list_referrer(manifest).await
        {
            let words =
                format!("`{}` may be missing in the list of referrers: {}", manifest.digest, chain(&error));
            self.cargo.press.warn(words);
        }
    }

    /// Names a manifest in the list of what it is about. Others write that list too, and nobody is told of the others: it
    /// is looked at again afterwards, until the manifest is in it.
    async fn list_referrer(&self, manifest: &Manifest) -> Result<()> {
        let Some(subject) = &manifest.subject else { return Ok(()) };
        let (client, repository) = (&self.target.client, self.target.repository());
        let _turn = self.cargo.traffic.referrers.lock().await;
        for _ in 0..LISTINGS {
            let begun = Instant::now();
            if add_referrer(client, repository, subject, manifest).await? == Listing::Held {
                break;
            }
            // Whoever had read the list before it was written has written his own by then.
            tokio::time::sleep((begun.elapsed() * 2).min(LONGEST)).await;
        }
        Ok(())
    }
}

/// So often a list of referrers is written that others write as well. What a registry shows only later cannot be waited
/// for.
const LISTINGS: usize = 10;

/// Who takes longer than this to read and write a list has been waiting for something else.
const LONGEST: Duration = Duration::from_secs(5);

/// Whether a list of referrers held a manifest already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    Held,
    Written,
}

/// Puts whatever a manifest is about before it, where both go out: registries may refuse what refers to nothing
/// (cloudflare/serverless-registry does). Whatever names children stays behind them.
fn subjects_first(manifests: &[Manifest]) -> Vec<&Manifest> {
    let mut waiting: Vec<&Manifest> = manifests.iter().collect();
    let mut ordered = Vec::new();
    while !waiting.is_empty() {
        let unsent: HashSet<&Digest> = waiting.iter().map(|manifest| &manifest.digest).collect();
        let (ready, held): (Vec<&Manifest>, _) = waiting.iter().partition(|manifest| {
            !manifest.children().iter().chain(&manifest.subject).any(|named| unsent.contains(&named.digest))
        });
        if ready.is_empty() {
            // In a circle, which no hashes make: as they came.
            ordered.extend(held);
            break;
        }
        ordered.extend(ready);
        waiting = held;
    }
    ordered
}

/// Where the registry keeps no list of referrers itself (no `OCI-Subject` in its answer), the client does, as
/// an index under the tag `<algorithm>-<hex>` (distribution-spec, "referrers tag schema"). It is read again
/// right before it is written, so that a referrer somebody else added meanwhile is kept.
async fn add_referrer(
    client: &Client,
    repository: &str,
    subject: &Descriptor,
    manifest: &Manifest,
) -> Result<Listing> {
    let tag = format!("{}-{:.64}", subject.digest.algorithm().name(), subject.digest.hex());
    let mut index = match client.get_manifest(repository, &tag).await? {
        Some((_, bytes)) => serde_json::from_slice(&bytes)
            .context(ErrorKind::Refused, || format!("reading the referrers under tag `{tag}`"))?,
        None => serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageIndex.to_string(),
            "manifests": [],
        }),
    };
    let digest = manifest.digest.to_string();
    let Some(list) = index.get_mut("manifests").and_then(serde_json::Value::as_array_mut) else {
        return Err(Error::new(ErrorKind::Refused, format!("tag `{tag}` holds no list of referrers")));
    };
    if list.iter().any(|entry| entry["digest"] == digest.as_str()) {
        return Ok(Listing::Held);
    }
    list.push(referrer(manifest)?);
    let bytes = serde_json::to_vec(&index).context(ErrorKind::Internal, || "writing an index".to_owned())?;
    client
        .put_manifest(repository, &tag, &[], MediaType::ImageIndex.as_ref(), bytes.into())
        .await
        .map(|_| Listing::Written)
}

/// The descriptor of a referrer carries its artifact type (or its config's media type) and its annotations.
fn referrer(manifest: &Manifest) -> Result<serde_json::Value> {
    let document: serde_json::Value = serde_json::from_slice(&manifest.bytes)
        .context(ErrorKind::Source, || format!("manifest {}", manifest.digest))?;
    let mut entry = serde_json::json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.bytes.len(),
    });
    let kind = [&document["artifactType"], &document["config"]["mediaType"]];
    if let Some(kind) = kind.into_iter().find(|kind| kind.as_str().is_some_and(|kind| !kind.is_empty())) {
        entry["artifactType"] = kind.clone();
    }
    if document["annotations"].is_object() {
        entry["annotations"] = document["annotations"].clone();
    }
    Ok(entry)
}

/// The registry may still be making a blob visible that it has just acknowledged.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);

/// Returns whether a manifest was refused because the registry does not know a blob or child it names.
pub(crate) fn misses_blob(error: &Error) -> bool {
    error.find::<RegistryError>().is_some_and(RegistryError::misses_blob)
}

/// Returns whether such a refusal names all that the registry misses. Trow, which shows every repository the blobs of
/// all, names one at a time.
pub(crate) fn names_all(error: &Error) -> bool {
    let code = error.find::<RegistryError>().and_then(|refusal| refusal.code.as_deref());
    code.is_some_and(|code| code != "MANIFEST_INVALID")
}
