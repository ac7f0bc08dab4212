//! The documents of an image while the digests of its layers are not all known, and what they become.
//!
//! A document that the source holds changes in its descriptors alone: those of layers that were encoded, and
//! in an index those of children that changed. So does a manifest whose layers the source has only unpacked; where it
//! has seen none, an OCI one is made. Pure.

use std::collections::{HashMap, HashSet};

use oci_spec::image::{DescriptorBuilder, Digest as SpecDigest, ImageManifestBuilder};

use crate::{
    codec::Compression,
    error::{Context as _, Error, ErrorKind, Result},
    oci::{
        Content, Descriptor, DiffId, Digest, Manifest,
        manifest::states_media_type,
        media_type::{self, Family},
        rewrite::{Change, Changes},
    },
    push::Format,
};

/// The digests and sizes of encoded layers.
pub(crate) type Encodings = HashMap<DiffId, (Digest, u64)>;

/// A document before all of its layers are encoded.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) basis: Basis,
    /// All layers of an image; none for an index, and for an image whose layers stay as they are.
    pub(crate) layers: Vec<Slot>,
}

/// What a document is made from.
#[derive(Clone, Debug)]
pub(crate) enum Basis {
    /// The source's own.
    Held(Manifest),
    /// A config, by digest and size, and the manifest that the source has seen and whose layers it cannot give.
    Made { config: Digest, size: u64, original: Option<Manifest> },
}

/// A layer of a document.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// As its descriptor says.
    Kept(Descriptor),
    /// As it is, or will be, encoded.
    Encoded(DiffId, Compression),
}

/// Documents that can be pushed.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    /// Children before their index, the root last.
    pub(crate) manifests: Vec<Manifest>,
    /// What the user should know about the changes.
    pub(crate) notes: Vec<String>,
}

/// Puts the digests of encoded layers into the documents, from the leaves to the root; nothing comes of it as
/// long as one is not known.
pub(crate) fn finish(drafts: &[Draft], encoded: &Encodings, format: Format) -> Result<Option<Finished>> {
    let mut finishing = Finishing::new(encoded, format);
    for draft in drafts {
        let Some(manifest) = finishing.draft(draft)? else { return Ok(None) };
        finishing.manifests.push(manifest);
    }
    finishing.note_references();
    let Finishing { manifests, notes, .. } = finishing;
    Ok(Some(Finished { manifests, notes }))
}

/// Returns which of the source's documents will be pushed as they are, and which will be made anew.
pub(crate) fn kept_and_changed(
    drafts: &[Draft],
    encoded: &Encodings,
    format: Format,
) -> Result<(HashSet<Digest>, HashSet<Digest>)> {
    let mut finishing = Finishing::new(encoded, format);
    let (mut kept, mut changed) = (HashSet::new(), HashSet::new());
    for draft in drafts {
        let finished = finishing.draft(draft)?;
        let Basis::Held(held) = &draft.basis else { continue };
        let same = finished.is_some_and(|manifest| manifest.digest == held.digest)
            && !held.children().iter().any(|child| changed.contains(&child.digest));
        let fate = if same { &mut kept } else { &mut changed };
        fate.insert(held.digest.clone());
    }
    Ok((kept, changed))
}

struct Finishing<'a> {
    encoded: &'a Encodings,
    format: Format,
    /// What became of documents that changed.
    renamed: HashMap<Digest, Descriptor>,
    notes: Vec<String>,
    manifests: Vec<Manifest>,
}

impl<'a> Finishing<'a> {
    fn new(encoded: &'a Encodings, format: Format) -> Self {
        Self { encoded, format, renamed: HashMap::new(), notes: Vec::new(), manifests: Vec::new() }
    }

    fn draft(&mut self, Draft { basis, layers }: &Draft) -> Result<Option<Manifest>> {
        match basis {
            Basis::Held(held) => self.held(held, layers),
            Basis::Made { config, size, original } => self.made(config, *size, original.as_ref(), layers),
        }
    }

    /// Finishes a document that the source holds.
    fn held(&mut self, held: &Manifest, slots: &[Slot]) -> Result<Option<Manifest>> {
        let changes = match &held.content {
            Content::Index { manifests } => Some(self.index_changes(held, manifests)),
            Content::Image { config: Some(config), layers } if is_image(config, layers) => {
                self.image_changes(held, layers, slots)?
            }
            Content::Image { .. } => Some(Changes::default()),
        };
        let Some(changes) = changes else { return Ok(None) };
        let manifest = held.rewrite(&changes)?;
        if manifest.digest != held.digest {
            self.renamed.insert(held.digest.clone(), manifest.descriptor());
        }
        Ok(Some(manifest))
    }

    /// Finishes the manifest of an image that the source holds unpacked.
    fn made(
        &mut self,
        config: &Digest,
        size: u64,
        original: Option<&Manifest>,
        slots: &[Slot],
    ) -> Result<Option<Manifest>> {
        let fits = |named: &Descriptor| named.digest == *config && named.size == size;
        let made = match original.map(|original| (original, &original.content)) {
            // Of the family that it was of, since podman sees health checks in Docker's alone, and with its
            // annotations.
            Some((original, Content::Image { config: Some(named), layers }))
                if fits(named) && is_image(named, layers) && layers.len() == slots.len() =>
            {
                let changes = self.image_changes(original, layers, slots)?;
                changes.map(|changes| original.rewrite(&changes)).transpose()?
            }
            _ => self.made_anew(config, size, slots)?,
        };
        // By one of them it may be known to an index.
        if let Some(manifest) = &made {
            let original = original.map(|original| &original.digest);
            let known_as = [Some(config), original].into_iter().flatten().cloned();
            self.renamed.extend(known_as.map(|digest| (digest, manifest.descriptor())));
        }
        Ok(made)
    }

    /// Returns the family of the outcome.
    fn family(&self, held: Option<&Manifest>, layers: &[Slot]) -> Result<Family> {
        let zstd = |slot: &Slot| slot.packing() == Some(Compression::Zstd.name());
        match (self.format, held.map(|held| Family::of(&held.media_type))) {
            (Format::Docker, _) if layers.iter().any(zstd) => {
                Err(Error::usage("Docker's manifests have no zstd layers")
                    .with_hint("`--format oci`, or `--compression gzip`"))
            }
            (Format::Docker, _) => Ok(Family::Docker),
            (Format::Oci, _) | (Format::Auto, None) => Ok(Family::Oci),
            (Format::Auto, Some(Family::Docker)) if layers.iter().any(zstd) => Ok(Family::Oci),
            (Format::Auto, Some(family)) => Ok(family),
        }
    }

    fn image_changes(
        &mut self,
        held: &Manifest,
        layers: &[Descriptor],
        slots: &[Slot],
    ) -> Result<Option<Changes>> {
        // A zstd layer that its maker calls Docker's stays what it is.
        if slots.is_empty() && self.format == Format::Auto {
            return Ok(Some(Changes::default()));
        }
        let kept: Vec<Slot> = layers.iter().cloned().map(Slot::Kept).collect();
        let slots = if slots.is_empty() { &kept } else { slots };
        let family = self.family(Some(held), slots)?;
        let mut changes = Changes::default();
        let converts = family != Family::of(&held.media_type);
        if converts {
            changes.media_type = Some(family.manifest());
            changes.config.media_type = Some(family.config());
        } else if self.has_to_say_so(held) {
            changes.media_type = Some(held.media_type.clone());
        }
        for (at, (layer, slot)) in layers.iter().zip(slots).enumerate() {
            let Some(mut change) = self.layer_change(layer, slot) else { return Ok(None) };
            if matches!(slot, Slot::Encoded(..)) || converts {
                let name = slot.media_type(family)?;
                change.media_type = (layer.media_type.as_ref() != Some(&name)).then_some(name);
            }
            changes.entries.insert(at, change);
        }
        Ok(Some(changes))
    }

    /// Names a layer as it was encoded; nothing comes of it as long as that is not known.
    fn layer_change(&mut self, layer: &Descriptor, slot: &Slot) -> Option<Change> {
        let Slot::Encoded(diff_id, _) = slot else { return Some(Change::default()) };
        let found = self.encoded.get(diff_id)?;
        if found.0 == layer.digest {
            return Some(Change::default());
        }
        let dropped: Vec<String> =
            layer.annotations.keys().filter(|key| is_of_encoding(key)).cloned().collect();
        let what = dropped.iter().map(|key| format!("annotation `{key}`"));
        self.note_dropped(what, layer, &format!("layer {diff_id}"));
        Some(Change { target: Some(found.clone()), dropped, ..Change::default() })
    }

    fn index_changes(&mut self, held: &Manifest, children: &[Descriptor]) -> Changes {
        let mut changes = Changes::default();
        let mut family = Family::of(&held.media_type);
        for (at, child) in children.iter().enumerate() {
            let mut change = Change::default();
            if let Some(renamed) = self.renamed.get(&child.digest).cloned() {
                self.note_dropped([], child, &format!("manifest {}", child.digest));
                change.target = Some((renamed.digest.clone(), renamed.size));
                let name = renamed.media_type.clone().unwrap_or_default();
                if Family::of(&name) == Family::Oci {
                    family = Family::Oci;
                }
                change.media_type = child.media_type.is_some().then_some(name);
            }
            let subject = child.annotation(REFERENCE).and_then(|digest| digest.parse::<Digest>().ok());
            if let Some(renamed) = subject.and_then(|subject| self.renamed.get(&subject)) {
                change.annotations.insert(REFERENCE.to_owned(), renamed.digest.to_string());
            }
            changes.entries.insert(at, change);
        }
        family = match self.format {
            Format::Auto => family,
            Format::Docker => Family::Docker,
            Format::Oci => Family::Oci,
        };
        if family != Family::of(&held.media_type) {
            changes.media_type = Some(family.index());
        } else if self.has_to_say_so(held) {
            changes.media_type = Some(held.media_type.clone());
        }
        changes
    }

    /// Returns whether a document that may leave its media type unsaid has to say it: who asks for a format gets it
    /// in so many words, since serverless-registry takes nothing else (cloudflare/serverless-registry:src/manifest.ts).
    fn has_to_say_so(&self, held: &Manifest) -> bool {
        self.format != Format::Auto && !states_media_type(&held.bytes)
    }

    /// What is said of some bytes, or embedded of them, is not said of those that replace them.
    fn note_dropped(&mut self, what: impl IntoIterator<Item = String>, from: &Descriptor, called: &str) {
        let data = from.data.is_some().then(|| "what `data` embeds".to_owned());
        let what = what.into_iter().chain(data);
        self.notes.extend(what.map(|what| format!("{what} no longer holds and is dropped from {called}")));
    }

    /// What is said about a document that changed is said about the one it was.
    fn note_references(&mut self) {
        for manifest in &self.manifests {
            let mut about: Vec<&Digest> = manifest.subject.iter().map(|subject| &subject.digest).collect();
            let attested: Vec<Digest> = match &manifest.content {
                Content::Index { manifests } => {
                    let named = manifests.iter().filter_map(|child| child.annotation(REFERENCE));
                    named.filter_map(|digest| digest.parse().ok()).collect()
                }
                Content::Image { .. } => Vec::new(),
            };
            let before =
                |now: &Digest| self.renamed.iter().find(|(_, new)| new.digest == *now).map(|(old, _)| old);
            about.extend(attested.iter().filter_map(before));
            for old in about {
                if let Some(new) = self.renamed.get(old) {
                    self.notes.push(format!(
                        "what is attested or signed of {old} says nothing of {}, which it became",
                        new.digest
                    ));
                }
            }
        }
    }

    /// Makes a manifest. The same layers give the same bytes.
    fn made_anew(&self, config: &Digest, size: u64, slots: &[Slot]) -> Result<Option<Manifest>> {
        let family = self.family(None, slots)?;
        let mut layers = Vec::new();
        for slot in slots {
            let name = slot.media_type(family)?;
            layers.push(match slot {
                Slot::Kept(kept) => descriptor(&name, &kept.digest, kept.size, &kept.urls)?,
                Slot::Encoded(diff_id, _) => {
                    let Some((digest, size)) = self.encoded.get(diff_id) else { return Ok(None) };
                    descriptor(&name, digest, *size, &[])?
                }
            });
        }
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(family.manifest().as_str())
            .config(descriptor(&family.config(), config, size, &[])?)
            .layers(layers)
            .build()
            .context(ErrorKind::Internal, || "making a manifest".to_owned())?;
        let bytes =
            serde_json::to_vec(&manifest).context(ErrorKind::Internal, || "writing a manifest".to_owned())?;
        let digest = Digest::of(&bytes);
        Manifest::parse(bytes.into(), digest, None).map(Some)
    }
}

impl Slot {
    fn packing(&self) -> Option<&'static str> {
        match self {
            Self::Encoded(_, compression) => Some(compression.name()),
            // Foreign layers without a media type are Windows bases, which are gzip.
            Self::Kept(Descriptor { media_type: None, urls, .. }) if !urls.is_empty() => {
                Some(Compression::Gzip.name())
            }
            Self::Kept(Descriptor { media_type: None, .. }) => Some(Compression::None.name()),
            Self::Kept(Descriptor { media_type: Some(name), .. }) => media_type::packing(name),
        }
    }

    fn media_type(&self, family: Family) -> Result<String> {
        let (own, foreign) = match self {
            Self::Kept(Descriptor { media_type: Some(name), .. }) if Family::of(name) == family => {
                return Ok(name.clone());
            }
            Self::Kept(kept) => (kept.media_type.as_deref().unwrap_or_default(), kept.is_foreign()),
            Self::Encoded(..) => ("", false),
        };
        self.packing().and_then(|packed| family.layer(packed, foreign)).ok_or_else(|| {
            Error::usage(format!("{} has no layers of the media type `{own}`", family.name()))
                .with_hint("leave `--format` out")
        })
    }
}

fn descriptor(
    name: &str,
    digest: &Digest,
    size: u64,
    urls: &[String],
) -> Result<oci_spec::image::Descriptor> {
    let digest: SpecDigest =
        digest.to_string().parse().context(ErrorKind::Internal, || format!("writing digest {digest}"))?;
    let mut builder = DescriptorBuilder::default().media_type(name).digest(digest).size(size);
    if !urls.is_empty() {
        builder = builder.urls(urls);
    }
    builder.build().context(ErrorKind::Internal, || "writing a descriptor".to_owned())
}

/// Returns whether a manifest is an image's, and not an artifact's or an attestation's.
pub(crate) fn is_image(config: &Descriptor, layers: &[Descriptor]) -> bool {
    let layer = |layer: &Descriptor| {
        layer
            .media_type
            .as_deref()
            .is_none_or(|name| media_type::is_file_system(name) || media_type::is_nondistributable(name))
    };
    config.media_type.as_deref().is_some_and(media_type::is_image_config) && layers.iter().all(layer)
}

/// Returns whether an annotation describes how a layer is encoded: seekable formats keep their tables there.
fn is_of_encoding(key: &str) -> bool {
    OF_ENCODING.iter().any(|prefix| key.starts_with(prefix))
}

/// How such annotations begin. skopeo 1.9 and podman 4.3 leave `github` out.
const OF_ENCODING: [&str; 4] = [
    "containerd.io/snapshot/stargz/",
    "io.containers.estargz.",
    "io.containers.zstd-chunked.",
    "io.github.containers.zstd-chunked.",
];

/// By which BuildKit's attestations name what they attest.
const REFERENCE: &str = "vnd.docker.reference.digest";

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Basis {
        Basis::Made { config: Digest::of(b"{}"), size: 2, original: None }
    }

    fn made(slots: Vec<Slot>, format: Format) -> Result<Manifest> {
        let drafts = [Draft { basis: config(), layers: slots }];
        let encoded = ["a", "b"].map(|text| (diff_id(text), (Digest::of(text.as_bytes()), 5)));
        let finished = finish(&drafts, &encoded.into(), format)?.unwrap();
        assert!(finished.notes.is_empty());
        Ok(finished.manifests[0].clone())
    }

    fn diff_id(text: &str) -> DiffId {
        DiffId(Digest::of(format!("plain {text}").as_bytes()))
    }

    fn gzip(text: &str) -> Slot {
        Slot::Encoded(diff_id(text), Compression::Gzip)
    }

    fn text(manifest: &Manifest) -> String {
        String::from_utf8(manifest.bytes.to_vec()).unwrap()
    }

    #[test]
    fn the_same_layers_make_the_same_manifest() {
        let manifest = made(vec![gzip("a"), gzip("b"), gzip("a")], Format::Auto).unwrap();
        insta::assert_snapshot!(text(&manifest), @r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","size":5},{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d","size":5},{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","size":5}]}"#);
    }

    #[test]
    fn nothing_is_made_of_a_layer_that_is_not_encoded_yet() {
        let drafts = [Draft { basis: config(), layers: vec![gzip("a")] }];
        assert!(finish(&drafts, &Encodings::new(), Format::Auto).unwrap().is_none());
    }

    #[test]
    fn a_foreign_layer_keeps_its_address() {
        let name = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let mut base = Descriptor::new(name, Digest::of(b"w"), 9);
        base.urls = vec!["https://example.com/base".to_owned()];
        for (format, name) in [
            (Format::Docker, name),
            (Format::Auto, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        ] {
            let text = text(&made(vec![Slot::Kept(base.clone())], format).unwrap());
            let layer = format!(
                r#""layers":[{{"mediaType":"{name}","digest":"{}","size":9,"urls":["https://example.com/base"]}}]"#,
                Digest::of(b"w")
            );
            assert!(text.contains(&layer), "{text}");
        }
    }

    #[test]
    fn docker_has_names_of_its_own_and_none_for_zstd() {
        let docker = made(vec![gzip("a")], Format::Docker).unwrap();
        assert_eq!(docker.media_type, media_type::DOCKER_MANIFEST);
        assert!(text(&docker).contains(r#""mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip""#));
        let zstd = Slot::Encoded(diff_id("a"), Compression::Zstd);
        let error = made(vec![zstd], Format::Docker).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
    }

    /// An image of one layer, which has a table of contents for lazy pulls.
    fn held(family: Family) -> Manifest {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","x":1,"config":{{"mediaType":"{}","digest":"{}","size":2}},"layers":[{{"mediaType":"{}","digest":"{}","size":9,"annotations":{{"containerd.io/snapshot/stargz/toc.digest":"t","keep":"k"}}}}],"annotations":{{"b":"2","a":"1"}}}}"#,
            family.manifest(),
            family.config(),
            Digest::of(b"{}"),
            family.layer("gzip", false).unwrap(),
            Digest::of(b"old"),
        );
        Manifest::parse(text.clone().into(), Digest::of(text.as_bytes()), None).unwrap()
    }

    fn index(manifests: &str) -> Manifest {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{manifests}]}}"#);
        Manifest::parse(text.clone().into(), Digest::of(text.as_bytes()), None).unwrap()
    }

    #[test]
    fn only_what_no_longer_holds_changes() {
        let manifest = held(Family::Oci);
        let slot = Slot::Encoded(diff_id("a"), Compression::Zstd);
        let drafts = [Draft { basis: Basis::Held(manifest.clone()), layers: vec![slot] }];
        let encoded = Encodings::from([(diff_id("a"), (Digest::of(b"a"), 5))]);
        let finished = finish(&drafts, &encoded, Format::Auto).unwrap().unwrap();
        let expected = text(&manifest)
            .replace("tar+gzip", "tar+zstd")
            .replace(&Digest::of(b"old").to_string(), &Digest::of(b"a").to_string())
            .replace(r#""size":9"#, r#""size":5"#)
            .replace(r#""containerd.io/snapshot/stargz/toc.digest":"t","#, "");
        assert_eq!(text(&finished.manifests[0]), expected);
        assert!(finished.notes[0].contains("stargz/toc.digest"), "{:?}", finished.notes);
    }

    #[test]
    fn a_manifest_that_was_seen_says_what_it_said_of_layers_made_anew() {
        let encoded = Encodings::from([(diff_id("a"), (Digest::of(b"a"), 5))]);
        let finished = |original: Manifest, size, format| {
            let basis = Basis::Made { config: Digest::of(b"{}"), size, original: Some(original) };
            let finished = finish(&[Draft { basis, layers: vec![gzip("a")] }], &encoded, format).unwrap();
            text(&finished.unwrap().manifests[0])
        };
        for (family, format, becomes) in [
            (Family::Docker, Format::Auto, Family::Docker),
            (Family::Oci, Format::Auto, Family::Oci),
            (Family::Docker, Format::Oci, Family::Oci),
        ] {
            let expected = text(&held(becomes))
                .replace(&Digest::of(b"old").to_string(), &Digest::of(b"a").to_string())
                .replace(r#""size":9"#, r#""size":5"#)
                .replace(r#""containerd.io/snapshot/stargz/toc.digest":"t","#, "");
            assert_eq!(finished(held(family), 2, format), expected);
        }
        // One that says something else of the config is not the image's.
        let made = text(&made(vec![gzip("a")], Format::Auto).unwrap()).replace(r#""size":2"#, r#""size":3"#);
        assert_eq!(finished(held(Family::Docker), 3, Format::Auto), made);
    }

    #[test]
    fn what_is_said_of_an_encoding_is_known_by_how_it_begins() {
        for (key, expected) in [
            ("containerd.io/snapshot/stargz/toc.digest", true),
            ("io.containers.estargz.uncompressed-size", true),
            ("io.containers.zstd-chunked.manifest-checksum", true),
            ("io.github.containers.zstd-chunked.manifest-position", true),
            ("org.opencontainers.image.title", false),
        ] {
            assert_eq!(is_of_encoding(key), expected, "{key}");
        }
    }

    #[test]
    fn what_is_embedded_of_other_bytes_is_dropped_and_said() {
        let embedding = |manifest: &Manifest| {
            let text = text(manifest).replace(r#","size":"#, r#","data":"AAAA","size":"#);
            Manifest::parse(text.clone().into(), Digest::of(text.as_bytes()), None).unwrap()
        };
        let image = embedding(&held(Family::Oci));
        let index = embedding(&index(&format!(
            r#"{{"mediaType":"{}","digest":"{}","size":1}}"#,
            image.media_type, image.digest
        )));
        for (becomes, notes) in [("a", 2), ("old", 0)] {
            let slot = Slot::Encoded(diff_id("a"), Compression::Gzip);
            let drafts = [
                Draft { basis: Basis::Held(image.clone()), layers: vec![slot] },
                Draft { basis: Basis::Held(index.clone()), layers: Vec::new() },
            ];
            let encoded = Encodings::from([(diff_id("a"), (Digest::of(becomes.as_bytes()), 9))]);
            let finished = finish(&drafts, &encoded, Format::Auto).unwrap().unwrap();
            let said = finished.notes.iter().filter(|note| note.contains("`data`"));
            assert_eq!(said.count(), notes, "{:?}", finished.notes);
            let [child, root] = &finished.manifests[..] else { panic!("two documents") };
            // The config's stays.
            let embedded = |manifest| text(manifest).matches(r#""data""#).count();
            assert_eq!((embedded(child), embedded(root)), if notes > 0 { (1, 0) } else { (2, 1) });
        }
    }

    #[test]
    fn what_has_no_name_in_the_other_family_is_refused() {
        let named = |name: &str| vec![Slot::Kept(Descriptor::new(name, Digest::of(b"x"), 9))];
        for packed in ["tar+zstd", "tar+xz", "tar+gzip+encrypted", "squashfs"] {
            let name = format!("application/vnd.oci.image.layer.v1.{packed}");
            assert_eq!(made(named(&name), Format::Docker).unwrap_err().kind(), ErrorKind::Usage, "{name}");
            assert!(text(&made(named(&name), Format::Oci).unwrap()).contains(&name));
        }
    }

    #[test]
    fn an_index_follows_its_children_and_what_attests_them() {
        let image = held(Family::Docker);
        let attestation = Digest::of(b"attestation");
        let index = index(&format!(
            r#"{{"mediaType":"{}","digest":"{image}","size":1}},{{"mediaType":"m","digest":"{attestation}","size":2,"annotations":{{"vnd.docker.reference.type":"attestation-manifest","{REFERENCE}":"{image}"}}}}"#,
            media_type::DOCKER_MANIFEST,
            image = image.digest,
        ));
        let slot = Slot::Encoded(diff_id("a"), Compression::Zstd);
        let drafts = [
            Draft { basis: Basis::Held(image.clone()), layers: vec![slot] },
            Draft { basis: Basis::Held(index.clone()), layers: Vec::new() },
        ];
        let encoded = Encodings::from([(diff_id("a"), (Digest::of(b"a"), 5))]);
        let finished = finish(&drafts, &encoded, Format::Auto).unwrap().unwrap();
        let [child, root] = &finished.manifests[..] else { panic!("two documents") };
        assert_eq!(Family::of(&child.media_type), Family::Oci, "Docker has no zstd");
        let expected = text(&index)
            .replace(media_type::DOCKER_MANIFEST, &Family::Oci.manifest())
            .replace(&image.digest.to_string(), &child.digest.to_string())
            .replace(r#""size":1"#, &format!(r#""size":{}"#, child.bytes.len()));
        assert_eq!(text(root), expected);
        assert!(finished.notes.iter().any(|note| note.contains(image.digest.hex())), "{:?}", finished.notes);
    }

    #[test]
    fn a_format_that_is_asked_for_is_stated() {
        for (family, format) in [(Family::Oci, Format::Oci), (Family::Docker, Format::Docker)] {
            let stated = held(family);
            let own = format!(r#""mediaType":"{}","#, family.manifest());
            let text_of_unstated = text(&stated).replacen(&own, "", 1);
            let digest = Digest::of(text_of_unstated.as_bytes());
            let unstated =
                Manifest::parse(text_of_unstated.into(), digest, Some(&family.manifest())).unwrap();
            let index = index(&format!(
                r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#,
                family.manifest(),
                unstated.digest,
                unstated.bytes.len()
            ));
            let drafts = [unstated.clone(), index.clone()]
                .map(|held| Draft { basis: Basis::Held(held), layers: Vec::new() });
            let finish = |format| finish(&drafts, &Encodings::new(), format).unwrap().unwrap().manifests;
            let [child, root] = &finish(format)[..] else { panic!("two documents") };
            assert!(text(child).starts_with(&format!("{{{own}")) && text(child).matches(&own).count() == 1);
            assert_eq!(text(child).replacen(&own, "", 1), text(&unstated));
            assert!(text(root).starts_with(&format!(r#"{{"mediaType":"{}""#, family.index())));
            assert!(text(root).contains(&child.digest.to_string()), "{}", text(root));
            let same = finish(Format::Auto);
            assert_eq!((&same[0].digest, &same[1].digest), (&unstated.digest, &index.digest));
        }
    }

    #[test]
    fn another_format_changes_names_and_nothing_else() {
        for (from, to, format) in
            [(Family::Oci, Family::Docker, Format::Docker), (Family::Docker, Family::Oci, Format::Oci)]
        {
            let drafts = [Draft { basis: Basis::Held(held(from)), layers: Vec::new() }];
            let finished = finish(&drafts, &Encodings::new(), format).unwrap().unwrap();
            assert_eq!(text(&finished.manifests[0]), text(&held(to)));
            let same = finish(&drafts, &Encodings::new(), Format::Auto).unwrap().unwrap();
            assert_eq!(same.manifests[0].digest, held(from).digest);
        }
    }
}
