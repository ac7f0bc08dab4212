//! The last stage: makes the manifest where the source has none, and sends manifests, tags last.

use std::time::Duration;

use bytes::Bytes;
use oci_spec::image::{DescriptorBuilder, Digest as SpecDigest, ImageManifestBuilder, MediaType};

use crate::{
    codec::Compression,
    error::{Context as _, Error, ErrorKind, Result},
    event::{Event, Reporter},
    oci::{Descriptor, Digest, Manifest, Reference},
    registry::{Client, RegistryError},
};

/// An image for which a manifest has to be made.
#[derive(Clone, Debug)]
pub(crate) struct Assembly {
    /// The config, which stays as it is.
    pub(crate) config: (Digest, u64),
    /// The layers, base first.
    pub(crate) layers: Vec<AssembledLayer>,
}

/// A layer of a manifest that is made.
#[derive(Clone, Debug)]
pub(crate) enum AssembledLayer {
    /// In the registry, in this encoding.
    Encoded(Digest, u64, Compression),
    /// To be fetched from elsewhere.
    Foreign(Descriptor),
}

impl Assembly {
    /// Makes the OCI manifest. The same layers give the same bytes.
    pub(crate) fn manifest(&self) -> Result<Manifest> {
        let (config, size) = &self.config;
        let layers = self.layers.iter().map(AssembledLayer::descriptor).collect::<Result<Vec<_>>>()?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, config, *size, &[])?)
            .layers(layers)
            .build()
            .context(ErrorKind::Internal, || "making a manifest".to_owned())?;
        let bytes =
            serde_json::to_vec(&manifest).context(ErrorKind::Internal, || "writing a manifest".to_owned())?;
        let digest = Digest::of(&bytes);
        Manifest::parse(Bytes::from(bytes), digest, None)
    }
}

impl AssembledLayer {
    fn descriptor(&self) -> Result<oci_spec::image::Descriptor> {
        match self {
            Self::Encoded(digest, size, compression) => {
                let media_type = match compression {
                    Compression::None => MediaType::ImageLayer,
                    Compression::Gzip => MediaType::ImageLayerGzip,
                    Compression::Zstd => MediaType::ImageLayerZstd,
                    other => {
                        return Err(Error::internal(format!("no media type for {} layers", other.name())));
                    }
                };
                descriptor(media_type, digest, *size, &[])
            }
            Self::Foreign(foreign) => {
                let media_type = foreign
                    .media_type
                    .as_deref()
                    .map_or(MediaType::ImageLayerNonDistributableGzip, Into::into);
                descriptor(media_type, &foreign.digest, foreign.size, &foreign.urls)
            }
        }
    }
}

fn descriptor(
    media_type: MediaType,
    digest: &Digest,
    size: u64,
    urls: &[String],
) -> Result<oci_spec::image::Descriptor> {
    let digest: SpecDigest =
        digest.to_string().parse().context(ErrorKind::Internal, || format!("writing digest {digest}"))?;
    let mut builder = DescriptorBuilder::default().media_type(media_type).digest(digest).size(size);
    if !urls.is_empty() {
        builder = builder.urls(urls);
    }
    builder.build().context(ErrorKind::Internal, || "writing a descriptor".to_owned())
}

/// Sends manifests, children before their index, and at last the root under every tag, or under its digest
/// where there is no tag. Returns the digest that the registry knows the root by: under a tag it is kept by
/// SHA-256, whatever the source knew it by.
pub(crate) async fn send(
    client: &Client,
    manifests: &[Manifest],
    destination: &Reference,
    tags: &[String],
    reporter: &dyn Reporter,
) -> Result<Digest> {
    let Some((root, children)) = manifests.split_last() else {
        return Err(Error::internal("an image without a manifest"));
    };
    for child in children {
        put(client, destination, &child.digest.to_string(), child, reporter).await?;
    }
    if tags.is_empty() {
        return put(client, destination, &root.digest.to_string(), root, reporter).await;
    }
    let mut known_by = root.digest.clone();
    for tag in tags {
        known_by = put(client, destination, tag, root, reporter).await?;
    }
    Ok(known_by)
}

async fn put(
    client: &Client,
    destination: &Reference,
    name: &str,
    manifest: &Manifest,
    reporter: &dyn Reporter,
) -> Result<Digest> {
    let repository = &destination.repository.path;
    let receipt = client.put_manifest(repository, name, &manifest.media_type, manifest.bytes.clone()).await?;
    if let (Some(subject), false) = (&manifest.subject, receipt.subject) {
        list_referrer(client, repository, subject, manifest).await?;
    }
    reporter.event(Event::Manifest { reference: name.to_owned(), digest: manifest.digest.to_string() });
    Ok(receipt.digest.unwrap_or_else(|| manifest.digest.clone()))
}

/// Where the registry keeps no list of referrers itself (no `OCI-Subject` in its answer), the client does, as
/// an index under the tag `<algorithm>-<hex>` (distribution-spec, "referrers tag schema"). It is read again
/// right before it is written, so that a referrer somebody else added meanwhile is kept.
async fn list_referrer(
    client: &Client,
    repository: &str,
    subject: &Descriptor,
    manifest: &Manifest,
) -> Result<()> {
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
        return Ok(());
    }
    list.push(referrer(manifest)?);
    let bytes = serde_json::to_vec(&index).context(ErrorKind::Internal, || "writing an index".to_owned())?;
    client.put_manifest(repository, &tag, MediaType::ImageIndex.as_ref(), bytes.into()).await.map(drop)
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
    error.find::<RegistryError>().is_some_and(|refusal| {
        matches!(refusal.code.as_deref(), Some("MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN" | "MANIFEST_UNKNOWN"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_layers_make_the_same_manifest() {
        let layer = |text: &str| AssembledLayer::Encoded(Digest::of(text.as_bytes()), 5, Compression::Gzip);
        let assembly =
            Assembly { config: (Digest::of(b"{}"), 2), layers: vec![layer("a"), layer("b"), layer("a")] };
        let manifest = assembly.manifest().unwrap();
        insta::assert_snapshot!(String::from_utf8_lossy(&manifest.bytes), @r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","size":5},{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d","size":5},{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","size":5}]}"#);
    }

    #[test]
    fn a_foreign_layer_keeps_its_address() {
        let mut base =
            Descriptor::new("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest::of(b"w"), 9);
        base.urls = vec!["https://example.com/base".to_owned()];
        let assembly =
            Assembly { config: (Digest::of(b"{}"), 2), layers: vec![AssembledLayer::Foreign(base)] };
        let manifest = assembly.manifest().unwrap();
        insta::assert_snapshot!(String::from_utf8_lossy(&manifest.bytes), @r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"sha256:50e721e49c013f00c62cf59f2163542a9d8df02464efeb615d31051b0fddc326","size":9,"urls":["https://example.com/base"]}]}"#);
    }
}
