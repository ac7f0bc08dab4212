//! Manifests and indexes: the bytes as they were found, with a typed view beside them.
//!
//! The bytes are what is pushed; they are never written again from the view. A document that could be read
//! as two different things (CVE-2021-41190) is refused.

use bytes::Bytes;
use oci_spec::image::MediaType;
use serde::Deserialize;

use super::{
    Descriptor, Digest,
    go_json::{empty_is_none, null_is_empty},
    media_type::{self, DocumentKind},
};
use crate::error::{Error, Result};

/// Registries need not take larger manifests (distribution-spec), and most do not.
pub const MANIFEST_LIMIT: u64 = 4 << 20;

/// A document that can be pushed under a tag.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The document, byte for byte.
    pub bytes: Bytes,
    /// The digest of those bytes.
    pub digest: Digest,
    /// What a registry must be told it is.
    pub media_type: String,
    /// What it names.
    pub content: Content,
    /// The manifest this one is about: signatures, SBOMs and attestations have one.
    pub subject: Option<Descriptor>,
}

/// What a manifest names.
#[derive(Clone, Debug)]
pub enum Content {
    /// One image or artifact: blobs.
    Image {
        /// The image config; the artifact manifests of OCI 1.1's release candidates have none.
        config: Option<Descriptor>,
        /// The layers, base first.
        layers: Vec<Descriptor>,
    },
    /// Several manifests.
    Index {
        /// The children.
        manifests: Vec<Descriptor>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    #[serde(default, deserialize_with = "empty_is_none")]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "null_is_empty")]
    subject: Option<Descriptor>,
    // Docker's schema 1 is recognised by these.
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Says what the fields describe, and so what kind of document has them; of empty ones its media type decides, be
    /// it its own or the one that is declared.
    fn content(
        self,
        own: Option<DocumentKind>,
        declared: Option<DocumentKind>,
    ) -> Result<(Content, DocumentKind), &'static str> {
        let Self { config, layers, manifests, blobs, .. } = self;
        Ok(match (layers, manifests, blobs) {
            (None, Some(manifests), None) if config.is_none() => {
                (Content::Index { manifests }, DocumentKind::Index)
            }
            (Some(_), None, None) if config.is_none() => return Err("it has layers and no config"),
            (Some(layers), None, None) => (Content::Image { config, layers }, DocumentKind::Manifest),
            // Go programs write `null` for nothing.
            (None, None, blobs) if config.is_none() => match own.or(declared) {
                Some(DocumentKind::Artifact) => {
                    let layers = blobs.unwrap_or_default();
                    (Content::Image { config: None, layers }, DocumentKind::Artifact)
                }
                Some(DocumentKind::Index) if own.is_some() && blobs.is_none() => {
                    (Content::Index { manifests: Vec::new() }, DocumentKind::Index)
                }
                _ => return Err("it names neither layers nor manifests"),
            },
            (None, None, None) => (Content::Image { config, layers: Vec::new() }, DocumentKind::Manifest),
            _ => return Err("ambiguous: it could be read as a manifest and as an index"),
        })
    }
}

impl Manifest {
    /// Reads a document. `declared` is the media type its descriptor gives; `digest` names the bytes, which
    /// the caller has checked.
    pub fn parse(bytes: Bytes, digest: Digest, declared: Option<&str>) -> Result<Self> {
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(Error::source(format!(
                "manifest {digest} is over the limit of 4 MiB that registries have: {} bytes",
                bytes.len()
            )));
        }
        let wrong = |what: &str| Error::source(format!("manifest {digest}: {what}"));
        let kind_of = |media_type: Option<&str>| {
            let Some(media_type) = media_type else { return Ok(None) };
            match media_type::document_kind(media_type) {
                Some(DocumentKind::Schema1) | None => {
                    Err(wrong(&format!("unsupported media type: `{}`", media_type.escape_debug())))
                }
                kind => Ok(kind),
            }
        };
        // Before the JSON: a schema 1 manifest or a foreign type deserves its own words.
        let declared_kind = kind_of(declared)?;
        let mut document: Document =
            serde_json::from_slice(&bytes).map_err(|error| wrong("not a valid manifest").because(error))?;
        if document.schema_version == Some(1) || document.fs_layers.is_some() {
            return Err(wrong("unsupported: Docker schema 1")
                .with_hint("pull and push the image once with a current tool to convert it"));
        }
        let own = document.media_type.take();
        let own_kind = kind_of(own.as_deref())?;
        if let (Some(declared), Some(own)) = (declared, &own)
            && declared != own
        {
            return Err(wrong(&format!("its media type is `{own}`, its descriptor says `{declared}`")));
        }
        let subject = document.subject.take();
        let (content, kind) = document.content(own_kind, declared_kind).map_err(wrong)?;
        if own_kind.or(declared_kind).is_some_and(|said| said != kind) {
            return Err(wrong("its media type says one kind of document, its fields another"));
        }
        let media_type = own.or(declared.map(str::to_owned)).unwrap_or_else(|| match kind {
            DocumentKind::Index => MediaType::ImageIndex.to_string(),
            _ => MediaType::ImageManifest.to_string(),
        });
        Ok(Self { bytes, digest, media_type, content, subject })
    }

    /// Returns the config that an image names.
    pub const fn config(&self) -> Option<&Descriptor> {
        match &self.content {
            Content::Image { config, .. } => config.as_ref(),
            Content::Index { .. } => None,
        }
    }

    /// Returns what an index names.
    pub fn children(&self) -> &[Descriptor] {
        match &self.content {
            Content::Index { manifests } => manifests,
            Content::Image { .. } => &[],
        }
    }

    /// Returns a descriptor of this document.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest.clone(), self.bytes.len() as u64)
    }
}

/// Returns whether a document says of which media type it is. OCI's need not.
pub fn states_media_type(document: &[u8]) -> bool {
    serde_json::from_slice(document).is_ok_and(|document: serde_json::Value| {
        document.get("mediaType").is_some_and(serde_json::Value::is_string)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::rewrite::Changes;

    fn parse(text: &str, declared: Option<&str>) -> Result<Manifest> {
        Manifest::parse(Bytes::copy_from_slice(text.as_bytes()), Digest::of(text.as_bytes()), declared)
    }

    fn blob() -> String {
        format!(r#"{{"mediaType":"x","digest":"{}","size":0}}"#, Digest::of(b""))
    }

    #[test]
    fn a_document_without_a_media_type_is_sniffed() {
        let index = parse(r#"{"schemaVersion":2,"manifests":[]}"#, None).unwrap();
        assert_eq!(index.media_type, "application/vnd.oci.image.index.v1+json");
        let image = parse(&format!(r#"{{"config":{},"layers":[]}}"#, blob()), None).unwrap();
        assert_eq!(image.media_type, "application/vnd.oci.image.manifest.v1+json");
        let declared =
            parse(&format!(r#"{{"config":{},"layers":[]}}"#, blob()), Some(media_type::DOCKER_MANIFEST));
        assert_eq!(declared.unwrap().media_type, media_type::DOCKER_MANIFEST);
    }

    #[test]
    fn go_writes_null_for_no_layers() {
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        for layers in [r#","layers":null"#, ""] {
            let text = format!(r#"{{"config":{}{layers}}}"#, blob());
            for text in [text.clone(), text.replacen('{', &format!(r#"{{"mediaType":"{manifest}","#), 1)] {
                let parsed = parse(&text, None).unwrap();
                assert_eq!(parsed.media_type, manifest);
                let Content::Image { config: Some(_), layers } = &parsed.content else {
                    panic!("{parsed:?}")
                };
                assert!(layers.is_empty());
                let changes =
                    Changes { media_type: Some(media_type::DOCKER_MANIFEST.into()), ..Changes::default() };
                assert_eq!(parsed.rewrite(&changes).unwrap().media_type, media_type::DOCKER_MANIFEST);
            }
            assert!(parse(&text, Some("application/vnd.oci.image.index.v1+json")).is_err());
        }
    }

    #[test]
    fn a_list_of_nothing_is_an_index() {
        // As `podman manifest create` writes it.
        let list = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":null}"#;
        assert!(
            matches!(parse(list, None).unwrap().content, Content::Index { manifests } if manifests.is_empty())
        );
        let silent = r#"{"schemaVersion":2,"manifests":null}"#;
        assert!(parse(silent, None).is_err());
        assert!(parse(silent, Some("application/vnd.oci.image.index.v1+json")).is_err());
    }

    #[test]
    fn an_empty_media_type_is_none() {
        let text = format!(r#"{{"mediaType":"","config":{},"layers":[]}}"#, blob());
        assert_eq!(parse(&text, None).unwrap().media_type, "application/vnd.oci.image.manifest.v1+json");
        let descriptor: Descriptor = serde_json::from_str(&blob().replace(r#""x""#, r#""""#)).unwrap();
        assert_eq!(descriptor.media_type, None);
    }

    #[test]
    fn what_could_be_two_things_is_neither() {
        for (text, declared) in [
            (format!(r#"{{"config":{b},"layers":[],"manifests":[]}}"#, b = blob()), None),
            (format!(r#"{{"config":{},"manifests":[]}}"#, blob()), None),
            (r#"{"manifests":[]}"#.to_owned(), Some("application/vnd.oci.image.manifest.v1+json")),
            (
                r#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#.to_owned(),
                Some(media_type::DOCKER_INDEX),
            ),
            (r#"{"manifests":[],"manifests":[]}"#.to_owned(), None),
            ("{}".to_owned(), None),
            ("null".to_owned(), None),
            ("[]".to_owned(), None),
        ] {
            assert!(parse(&text, declared).is_err(), "{text}");
        }
    }

    #[test]
    fn schema_1_is_called_unsupported() {
        let error = parse(r#"{"schemaVersion":1,"fsLayers":[]}"#, None).unwrap_err();
        assert!(error.message().contains("unsupported"), "{error}");
        let error = parse("{}", Some("application/x-thing")).unwrap_err();
        assert!(error.message().contains("media type"), "{error}");
    }
}
