//! Media types: which of a dozen strings mean what, in the OCI and in the Docker family.

use oci_spec::image::MediaType;

/// Docker's manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The artifact manifest of OCI 1.1's release candidates, with `blobs` instead of `layers`.
pub const REMOVED_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The two sets of names for the same things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Docker's version 2 schema 2.
    Docker,
    /// The OCI image specification.
    Oci,
}

impl Family {
    /// Returns the family that a media type belongs to.
    pub fn of(media_type: &str) -> Self {
        if media_type.starts_with("application/vnd.docker.") { Self::Docker } else { Self::Oci }
    }

    /// Returns whose it is.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Oci => "OCI",
        }
    }

    /// Returns what it calls the manifest of one image.
    pub fn manifest(self) -> String {
        match self {
            Self::Docker => DOCKER_MANIFEST.to_owned(),
            Self::Oci => MediaType::ImageManifest.to_string(),
        }
    }

    /// Returns what it calls a list of manifests.
    pub fn index(self) -> String {
        match self {
            Self::Docker => DOCKER_INDEX.to_owned(),
            Self::Oci => MediaType::ImageIndex.to_string(),
        }
    }

    /// Returns what it calls an image config.
    pub fn config(self) -> String {
        match self {
            Self::Docker => DOCKER_CONFIG.to_owned(),
            Self::Oci => MediaType::ImageConfig.to_string(),
        }
    }

    /// Returns what it calls a layer that is packed as `packed` says (see [`packing`]); Docker has no name for
    /// zstd.
    pub fn layer(self, packed: &str, nondistributable: bool) -> Option<String> {
        let (stem, mark) = match (self, nondistributable) {
            (Self::Docker, _) if packed == "zstd" => return None,
            (Self::Docker, false) => ("application/vnd.docker.image.rootfs.diff.tar", '.'),
            (Self::Docker, true) => ("application/vnd.docker.image.rootfs.foreign.diff.tar", '.'),
            (Self::Oci, false) => ("application/vnd.oci.image.layer.v1.tar", '+'),
            (Self::Oci, true) => ("application/vnd.oci.image.layer.nondistributable.v1.tar", '+'),
        };
        Some(if packed == "none" { stem.to_owned() } else { format!("{stem}{mark}{packed}") })
    }
}

/// Says how a layer of this media type is packed: `gzip`, `zstd` or `none`; nothing for what has a name in neither
/// family, like encrypted layers.
pub fn packing(media_type: &str) -> Option<&'static str> {
    let ends = [("gzip", "gzip"), ("zstd", "zstd"), ("tar", "none")];
    ends.into_iter().find(|(end, _)| media_type.ends_with(end)).map(|(_, packed)| packed)
}

/// What a document that can be pushed under a tag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DocumentKind {
    /// An artifact manifest as OCI 1.1's release candidates had it.
    Artifact,
    /// A list of manifests.
    Index,
    /// One image or artifact.
    Manifest,
    /// Docker's manifest before 2016; nobody takes it any more.
    Schema1,
}

/// Says what kind of document a media type names, if it is one that registries take under a tag.
pub fn document_kind(media_type: &str) -> Option<DocumentKind> {
    match MediaType::from(media_type) {
        MediaType::ImageManifest => Some(DocumentKind::Manifest),
        MediaType::ImageIndex => Some(DocumentKind::Index),
        _ => match media_type {
            DOCKER_MANIFEST => Some(DocumentKind::Manifest),
            DOCKER_INDEX => Some(DocumentKind::Index),
            REMOVED_ARTIFACT => Some(DocumentKind::Artifact),
            DOCKER_SCHEMA1 | DOCKER_SCHEMA1_SIGNED => Some(DocumentKind::Schema1),
            _ => None,
        },
    }
}

/// Returns whether a config of this media type is an image's, and not an artifact's.
pub fn is_image_config(media_type: &str) -> bool {
    MediaType::from(media_type) == MediaType::ImageConfig || media_type == DOCKER_CONFIG
}

/// Returns whether a layer of this media type is a part of a file system, and not of an artifact.
pub fn is_file_system(media_type: &str) -> bool {
    media_type.contains("image.layer.") || media_type.contains("image.rootfs.")
}

/// Returns whether a layer of this media type is encrypted: only who has the key sees what is packed in it.
pub fn is_encrypted(media_type: &str) -> bool {
    media_type.ends_with("+encrypted")
}

/// Returns whether a layer of this media type is one that registries may refuse to distribute (the bases of
/// Windows images): it is fetched from its `urls`, not from the registry.
pub fn is_nondistributable(media_type: &str) -> bool {
    media_type.contains(".foreign.diff.") || media_type.contains(".nondistributable.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_known() {
        assert_eq!(document_kind("application/vnd.oci.image.manifest.v1+json"), Some(DocumentKind::Manifest));
        assert_eq!(document_kind("application/vnd.oci.image.index.v1+json"), Some(DocumentKind::Index));
        assert_eq!(document_kind(DOCKER_MANIFEST), Some(DocumentKind::Manifest));
        assert_eq!(document_kind(DOCKER_INDEX), Some(DocumentKind::Index));
        assert_eq!(document_kind(DOCKER_SCHEMA1_SIGNED), Some(DocumentKind::Schema1));
        assert_eq!(document_kind("application/json"), None);
    }

    #[test]
    fn every_name_has_one_in_the_other_family() {
        for family in [Family::Docker, Family::Oci] {
            for name in [family.manifest(), family.index(), family.config()] {
                assert_eq!(Family::of(&name), family);
            }
            for (packed, foreign) in [("none", false), ("gzip", false), ("none", true), ("gzip", true)] {
                let name = family.layer(packed, foreign).unwrap();
                assert!(is_file_system(&name) || foreign, "{name}");
                assert_eq!((packing(&name), is_nondistributable(&name)), (Some(packed), foreign), "{name}");
            }
        }
        assert_eq!(Family::Docker.layer("zstd", false), None);
        assert_eq!(packing(&Family::Oci.layer("zstd", false).unwrap()), Some("zstd"));
        for unknown in ["tar+xz", "tar+gzip+encrypted", "squashfs"] {
            assert_eq!(packing(&format!("application/vnd.oci.image.layer.v1.{unknown}")), None);
        }
    }

    #[test]
    fn artifacts_are_no_file_systems() {
        assert!(is_file_system("application/vnd.oci.image.layer.v1.tar+zstd"));
        assert!(is_file_system("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"));
        assert!(!is_file_system("application/vnd.dev.cosign.simplesigning.v1+json"));
        assert!(
            is_image_config(DOCKER_CONFIG) && !is_image_config("application/vnd.cncf.helm.config.v1+json")
        );
    }

    #[test]
    fn windows_bases_are_not_for_distribution() {
        assert!(is_nondistributable("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"));
        assert!(is_nondistributable("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"));
        assert!(!is_nondistributable("application/vnd.oci.image.layer.v1.tar+gzip"));
    }
}
