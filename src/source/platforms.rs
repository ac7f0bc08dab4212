//! Which platforms an image is for, and the one image out of an index that is for the platform that is asked for.
//!
//! An index says it of its children, and where it does not, their configs do. Attestations are for none.

use std::collections::HashSet;

use super::{
    Missing, Source,
    documents::{check_limits, read_config, read_manifest},
};
use crate::{
    error::Result,
    oci::{Content, Descriptor, Digest, ImageConfig, Manifest, Platform, media_type},
};

/// Returns the platforms of the images that `root` leads to, as far as they can be read.
pub fn platforms(source: &dyn Source, root: &Descriptor) -> Vec<Platform> {
    let mut search = Search { source, wanted: None, seen: HashSet::new(), offered: Vec::new() };
    if let Err(error) = search.visit(root, 0) {
        // Who needs what cannot be read is told then.
        tracing::debug!(%error, "not all platforms are known");
    }
    let mut known = HashSet::new();
    search.offered.retain(|platform| known.insert(platform.clone()));
    search.offered
}

/// Returns the platform that an image's config says. An artifact's config says nothing of platforms.
pub fn platform(source: &dyn Source, image: &Manifest) -> Result<Option<Platform>> {
    let config = image.config().map(|config| read_config(source, config)).transpose()?;
    let config = config.and_then(|config| ImageConfig::parse(&config, "").ok());
    Ok(config.and_then(|config| config.platform))
}

/// Returns an error unless an image for `found` is what somebody who asks for `wanted` wants.
pub fn require_platform(found: Option<&Platform>, wanted: &Platform, what: &str) -> Result<()> {
    if found.is_some_and(|found| found.satisfies(wanted)) {
        return Ok(());
    }
    Err(wanted.not_offered(found.as_slice(), what))
}

/// Returns the image that `root` leads to, or is, for a platform.
pub(super) fn pick(source: &dyn Source, root: &Descriptor, wanted: &Platform) -> Result<Descriptor> {
    let name = source.name();
    let mut offered = Vec::new();
    // Of several variants the usual one is meant, wherever in the list it stands.
    for wanted in wanted.with_usual_variant().iter().chain([wanted]) {
        let mut search = Search { source, wanted: Some(wanted), seen: HashSet::new(), offered: Vec::new() };
        let found = search.visit(root, 0).map_err(|error| error.while_doing(format!("reading {name}")))?;
        if let Some(found) = found {
            return Ok(found);
        }
        offered = search.offered;
    }
    Err(wanted.not_offered(&offered, &name))
}

/// Looks for the image for one platform, or only at what there is.
struct Search<'a> {
    source: &'a dyn Source,
    wanted: Option<&'a Platform>,
    seen: HashSet<Digest>,
    offered: Vec<Platform>,
}

impl Search<'_> {
    fn visit(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Option<Descriptor>> {
        if is_attestation(descriptor) || !self.seen.insert(descriptor.digest.clone()) {
            return Ok(None);
        }
        check_limits(depth, self.seen.len())?;
        let names_document = |name: &str| media_type::document_kind(name).is_some();
        if depth > 0 && !descriptor.media_type.as_deref().is_none_or(names_document) {
            return Ok(None);
        }
        if descriptor.platform.as_ref().is_some_and(|platform| !self.fits(platform)) {
            return Ok(None);
        }
        let manifest = match read_manifest(self.source, descriptor) {
            // A child that does not say what it is for, and is not there, cannot be the one.
            Err(error) if depth > 0 && descriptor.platform.is_none() && Missing::is_cause_of(&error) => {
                return Ok(None);
            }
            read => read?,
        };
        match &manifest.content {
            Content::Index { manifests } => {
                for child in manifests {
                    if let Some(found) = self.visit(child, depth + 1)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
            Content::Image { .. } if descriptor.platform.is_some() => Ok(Some(descriptor.clone())),
            Content::Image { .. } => {
                let fits = platform(self.source, &manifest)?.is_some_and(|platform| self.fits(&platform));
                Ok(fits.then(|| descriptor.clone()))
            }
        }
    }

    fn fits(&mut self, platform: &Platform) -> bool {
        self.offered.push(platform.clone());
        self.wanted.is_some_and(|wanted| platform.satisfies(wanted))
    }
}

/// Returns whether an entry of an index is BuildKit's attestation for another one.
fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.platform.as_ref().is_some_and(Platform::is_unknown)
        || descriptor.annotation("vnd.docker.reference.type").is_some()
}
