//! OCI image layouts, as folders and as tar archives: manifests and blobs by digest.
//!
//! What a layout holds is pushed as it is, so nothing is changed here; names come from annotations, of which
//! every producer has its own idea. A blob is opened only after its digest's grammar was checked, and its size
//! must be what its descriptor says.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::cosign;
use crate::{
    blob::Blob,
    error::{Error, Result},
    layout::{
        BLOBS, CONTAINERD_NAME, INDEX, OCI_LAYOUT, REF_NAME,
        left_out::{Absent, LEFT_OUT, LEFT_OUT_LIMIT, LeftOut},
        read::{self, INDEX_LIMIT, OCI_LAYOUT_LIMIT},
    },
    oci::{Descriptor, Platform, Repository, media_type::is_image_config},
    source::{
        Data, Image, ImageContent, Layer, Missing, Origin, Source,
        archive::{EntryData, Index},
        blobs::Blobs,
        documents::read_manifest,
    },
};

/// An OCI layout.
#[derive(Debug)]
pub struct OciLayout {
    name: String,
    blobs: Blobs,
    manifests: Vec<Descriptor>,
    left_out: Option<LeftOut>,
}

impl OciLayout {
    /// Reads the layout in a folder, whose blobs may lie in a folder shared with others.
    pub fn folder(dir: &Path, blob_dir: Option<&Path>) -> Result<Self> {
        let name = format!("OCI layout `{}`", dir.display());
        let read = |file: &str, limit| Blob::open(&dir.join(file))?.read_all(limit, &format!("`{file}`"));
        let manifests = || {
            // Some tools leave it out, and all tools read layouts without it.
            if dir.join(OCI_LAYOUT).exists() {
                read::check_version(&read(OCI_LAYOUT, OCI_LAYOUT_LIMIT)?)?;
            }
            read::parse_index(&read(INDEX, INDEX_LIMIT)?)
        };
        let manifests = manifests().map_err(|error| error.while_doing(format!("reading {name}")))?;
        let blobs = blob_dir.map_or_else(|| dir.join(BLOBS), Path::to_owned);
        Ok(Self { name, blobs: Blobs::by_algorithm(blobs), manifests, left_out: None })
    }

    /// Reads the layout in an archive, which messages call `name`.
    pub fn archive(index: Arc<Index>, name: String) -> Result<Self> {
        if index.contains(OCI_LAYOUT) {
            read::check_version(&index.read(OCI_LAYOUT, OCI_LAYOUT_LIMIT)?)?;
        }
        let manifests = read::parse_index(&index.read(INDEX, INDEX_LIMIT)?)?;
        let left_out = index.contains(LEFT_OUT).then(|| index.read(LEFT_OUT, LEFT_OUT_LIMIT));
        let left_out = left_out.transpose()?.map(|bytes| LeftOut::parse(&bytes)).transpose()?;
        Ok(Self { name, blobs: Blobs::Archive(index), manifests, left_out })
    }

    /// One image over the blobs of a layout that does not list it; its manifest is embedded in its descriptor. Messages
    /// call it `name`.
    pub fn unlisted(root: Descriptor, blobs: PathBuf, name: String) -> Self {
        Self { name, blobs: Blobs::by_algorithm(blobs), manifests: vec![root], left_out: None }
    }

    /// Finds the bytes that a descriptor names, of the size it says.
    pub(super) fn find(&self, descriptor: &Descriptor) -> Result<EntryData> {
        self.blobs.find(descriptor)
    }

    /// Says what to do about a blob that was left out on purpose.
    fn explained(&self, error: Error, descriptor: Option<&Descriptor>) -> Error {
        if !Missing::is_cause_of(&error) || self.absent(descriptor).is_none() {
            return error;
        }
        error.with_hint(
            "the bundle leaves out what its base has: push that before, or bundle with a newer inventory",
        )
    }

    /// Returns what is known of a blob that was left out on purpose.
    fn absent(&self, descriptor: Option<&Descriptor>) -> Option<&Absent> {
        self.left_out.as_ref()?.find(&descriptor?.digest)
    }

    /// Returns whether an entry is there for the sake of another one: a signature, an SBOM, an attestation.
    fn is_companion(&self, descriptor: &Descriptor, names: &[String]) -> bool {
        if cosign::is_companion(descriptor) {
            return true;
        }
        if !names.is_empty() {
            return names.iter().all(|name| is_fallback_tag(name));
        }
        // crane writes an image's config type here.
        let artifact = descriptor.artifact_type.as_deref().is_some_and(|kind| !is_image_config(kind));
        artifact
            || descriptor.platform.as_ref().is_some_and(Platform::is_unknown)
            // What cannot be read is somebody else's error.
            || read_manifest(self, descriptor).is_ok_and(|manifest| manifest.subject.is_some())
    }
}

impl Source for OciLayout {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn images(&self) -> Result<Vec<Image>> {
        let alone = self.manifests.len() == 1;
        let named = self.manifests.iter().zip(names_of_all(&self.manifests));
        let images = named.map(|(descriptor, names)| Image {
            companion: !alone && self.is_companion(descriptor, &names),
            names,
            platform: descriptor.platform.clone(),
            content: ImageContent::Manifest(descriptor.clone()),
        });
        Ok(images.collect())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.blobs.document(descriptor).map_err(|error| self.explained(error, Some(descriptor)))
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        let data = self.blobs.open(layer, &self.name);
        data.map_err(|error| self.explained(error, layer.descriptor.as_ref()))
    }

    fn origins(&self, blob: &Layer) -> Vec<Origin> {
        let Some(absent) = self.absent(blob.descriptor.as_ref()) else { return Vec::new() };
        let anywhere = |path: &String| Repository::new("", path).ok();
        let repositories = absent.repositories.iter().filter_map(anywhere).collect();
        vec![Origin { digest: absent.digest.clone(), repositories }]
    }

    fn left_out(&self) -> Option<&LeftOut> {
        self.left_out.as_ref()
    }
}

/// Returns what each entry can be asked for by.
///
/// `cosign save` writes an image first, and behind it what is about it, without a name of its own; Hauler writes the images
/// of a whole store first, and gives each of the others the name of its image. Both are called here as cosign calls them.
fn names_of_all(entries: &[Descriptor]) -> impl Iterator<Item = Vec<String>> {
    let mut last = None;
    entries.iter().map(move |entry| {
        let names = names(entry);
        if cosign::is_image(entry) {
            last = Some(entry);
            return names;
        }
        if !cosign::is_companion(entry) || names.iter().any(|name| is_fallback_tag(name)) {
            return names;
        }
        let is_its_image = |image: &&Descriptor| cosign::is_image(image) && self::names(image) == names;
        let image = if names.is_empty() { last } else { entries.iter().find(is_its_image) };
        image.and_then(|image| cosign::tag(entry, image)).into_iter().collect()
    })
}

/// Returns what an entry can be asked for by.
fn names(descriptor: &Descriptor) -> Vec<String> {
    let full = descriptor.annotation(CONTAINERD_NAME).into_iter();
    // BuildKit 0.13 joined all names by commas in one annotation.
    let tags = descriptor.annotation(REF_NAME).into_iter().flat_map(|names| names.split(','));
    let mut seen = HashSet::new();
    let names = full.chain(tags).map(str::trim).filter(|name| !name.is_empty() && seen.insert(*name));
    names.map(str::to_owned).collect()
}

/// Returns whether a name is a tag under which the companions of an image are kept: `sha256-<hex>`, of
/// distribution-spec's referrers, or with `.sig`, `.att` or `.sbom`, of cosign.
fn is_fallback_tag(name: &str) -> bool {
    let Some((digest, suffix)) = name.strip_prefix("sha256-").and_then(|rest| rest.split_at_checked(64))
    else {
        return false;
    };
    digest.bytes().all(|byte| byte.is_ascii_hexdigit()) && matches!(suffix, "" | ".sig" | ".att" | ".sbom")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::chain, layout::write, oci::Digest};

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    fn layout(index: &str) -> (tempfile::TempDir, OciLayout) {
        let dir = tempfile::tempdir().unwrap();
        write::init(dir.path()).unwrap();
        fs_err::write(dir.path().join(INDEX), index).unwrap();
        let layout = OciLayout::folder(dir.path(), None).unwrap();
        (dir, layout)
    }

    fn entry(text: &str, more: &str) -> String {
        let digest = Digest::of(text.as_bytes());
        format!(r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":{}{more}}}"#, text.len())
    }

    fn put(dir: &tempfile::TempDir, text: &str) {
        fs_err::write(write::blob_path(dir.path(), &Digest::of(text.as_bytes())), text).unwrap();
    }

    #[test]
    fn a_name_in_both_annotations_is_one() {
        let text = format!(r#"{{"{CONTAINERD_NAME}":"r.example/a:1","{REF_NAME}":"r.example/a:1, 1"}}"#);
        let mut entry = Descriptor::new("", Digest::of(b""), 0);
        entry.annotations = serde_json::from_str(&text).unwrap();
        assert_eq!(names(&entry), ["r.example/a:1", "1"]);
    }

    #[test]
    fn names_come_from_all_annotations() {
        let annotated = |annotations| {
            serde_json::from_str::<Descriptor>(&entry("", &format!(r#","annotations":{annotations}"#)))
                .map(|descriptor| names(&descriptor))
                .unwrap()
        };
        assert_eq!(annotated(r#"{"org.opencontainers.image.ref.name":"1"}"#), ["1"]);
        assert_eq!(
            annotated(
                r#"{"org.opencontainers.image.ref.name":"1","io.containerd.image.name":"localhost/a:1"}"#
            ),
            ["localhost/a:1", "1"]
        );
        assert_eq!(
            annotated(r#"{"org.opencontainers.image.ref.name":"localhost/bk:1,example.com/two:2"}"#),
            ["localhost/bk:1", "example.com/two:2"]
        );
        assert!(annotated("null").is_empty());
    }

    #[test]
    fn what_is_about_an_image_is_no_image() {
        let subject = format!(r#"{{"config":{c},"layers":[],"subject":{c}}}"#, c = entry("", ""));
        let signature = format!("sha256-{}.sig", Digest::of(b"").hex());
        let index = [
            entry("one", ""),
            entry("two", r#","artifactType":"application/vnd.oci.image.config.v1+json""#),
            entry("three", r#","artifactType":"application/spdx+json""#),
            entry("four", r#","platform":{"os":"unknown","architecture":"unknown"}"#),
            entry("five", &format!(r#","annotations":{{"{REF_NAME}":"{signature}"}}"#)),
            entry("six", r#","annotations":{"kind":"dev.cosignproject.cosign/atts"}"#),
            entry(&subject, ""),
        ];
        let (dir, layout) = layout(&format!(r#"{{"manifests":[{}]}}"#, index.join(",")));
        put(&dir, &subject);
        let companions: Vec<bool> =
            layout.images().unwrap().into_iter().map(|image| image.companion).collect();
        assert_eq!(companions, [false, false, true, true, true, true, true]);
    }

    #[test]
    fn what_cosign_saves_is_called_as_it_looks_for_it() {
        let of_kind = |text, kind, more: &str| {
            let kind = format!(r#"{{"kind":"dev.cosignproject.cosign/{kind}"{more}}}"#);
            entry(text, &format!(r#","annotations":{kind}"#))
        };
        let named = format!(r#","{REF_NAME}":"r.example/a:1""#);
        let tag = |text: &str, suffix: &str| format!("sha256-{}.{suffix}", Digest::of(text.as_bytes()).hex());
        let old = tag("other", "sig");
        let index = [
            of_kind("stray", "sigs", ""),
            of_kind("one", "image", ""),
            of_kind("one's signatures", "sigs", ""),
            of_kind("one's attestations", "atts", ""),
            of_kind("two", "imageIndex", &named),
            entry("not cosign's", ""),
            of_kind("two's signatures", "sigs", &named),
            of_kind("two's list", "sboms", ""),
            of_kind("tagged", "sigs", &format!(r#","{REF_NAME}":"{old}""#)),
        ];
        let (_dir, layout) = layout(&format!(r#"{{"manifests":[{}]}}"#, index.join(",")));
        let names: Vec<_> = layout.images().unwrap().into_iter().map(|image| image.names.join(" ")).collect();
        let expected = [
            String::new(),
            String::new(),
            tag("one", "sig"),
            tag("one", "att"),
            "r.example/a:1".to_owned(),
            String::new(),
            tag("two", "sig"),
            tag("two", "sbom"),
            old,
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn what_hauler_stores_belongs_to_the_image_of_its_name() {
        let of_kind = |text, kind, name| {
            let annotations = format!(
                r#"{{"kind":"dev.hauler/{kind}","{REF_NAME}":"{name}","{CONTAINERD_NAME}":"r.example/{name}"}}"#
            );
            entry(text, &format!(r#","annotations":{annotations}"#))
        };
        let tag = |text: &str, suffix: &str| format!("sha256-{}.{suffix}", Digest::of(text.as_bytes()).hex());
        let index = [
            of_kind("one", "image", "a:1"),
            of_kind("two", "imageIndex", "b:1"),
            of_kind("one's signatures", "sigs", "a:1"),
            of_kind("two's list", "sboms", "b:1"),
            of_kind("one's bundle", "referrers/00", "a:1"),
            of_kind("whose image was renamed", "sigs", "c:1"),
        ];
        let (_dir, layout) = layout(&format!(r#"{{"manifests":[{}]}}"#, index.join(",")));
        let images = layout.images().unwrap();
        let names: Vec<_> = images.iter().map(|image| image.names.join(" ")).collect();
        let none = String::new;
        let expected = [
            "r.example/a:1 a:1".to_owned(),
            "r.example/b:1 b:1".to_owned(),
            tag("one", "sig"),
            tag("two", "sbom"),
            none(),
            none(),
        ];
        assert_eq!(names, expected);
        let companions: Vec<bool> = images.iter().map(|image| image.companion).collect();
        assert_eq!(companions, [false, false, true, true, true, true]);
    }

    #[test]
    fn a_blob_is_what_its_descriptor_says_or_an_error() {
        let (dir, layout) = layout(r#"{"manifests":[]}"#);
        put(&dir, "content");
        let right = Descriptor::new("x", Digest::of(b"content"), 7);
        assert_eq!(layout.document(&right).unwrap(), "content");
        assert!(matches!(layout.open(&Layer::named(&right)).unwrap(), Data::Stored(_)));
        let long = Descriptor { size: 8, ..right.clone() };
        let error = layout.open(&Layer::named(&long)).unwrap_err();
        assert!(chain(&error).contains("size mismatch"), "{error:?}");
        let huge = Descriptor { size: u64::MAX, ..right.clone() };
        assert!(layout.document(&huge).unwrap_err().message().contains("limit"));
        fs_err::write(write::blob_path(dir.path(), &right.digest), "CONTENT").unwrap();
        assert!(layout.document(&right).unwrap_err().message().contains("digest mismatch"));
        fs_err::remove_file(write::blob_path(dir.path(), &right.digest)).unwrap();
        let error = layout.open(&Layer::named(&right)).unwrap_err();
        assert!(chain(&error).contains("missing") && Missing::is_cause_of(&error), "{error:?}");
    }

    #[test]
    fn embedded_data_stands_in_for_a_missing_blob() {
        let (_dir, layout) = layout(r#"{"manifests":[]}"#);
        let embedded =
            Descriptor { data: Some(b"{}".to_vec()), ..Descriptor::new("x", Digest::of(b"{}"), 2) };
        assert_eq!(layout.document(&embedded).unwrap(), "{}");
        assert!(matches!(layout.open(&Layer::named(&embedded)).unwrap(), Data::Stream(_)));
        let lying = Descriptor { data: Some(b"[]".to_vec()), ..embedded };
        assert!(chain(&layout.open(&Layer::named(&lying)).unwrap_err()).contains("digest mismatch"));
    }
}
