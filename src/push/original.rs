//! A pulled image: its own manifest goes out unchanged, if the registry has what that names.
//!
//! A store keeps the manifest that an image was pulled with and not the encoded layers it names: no encoder
//! would make those bytes again. But the registry may have them, or another of its repositories, from which
//! they can be mounted. Then the image keeps its digest and nothing is encoded.

use std::sync::Arc;

use super::{delivery::Delivery, manifest, survey, upload::Uploader};
use crate::{
    error::Result,
    oci::{Manifest, Reference},
    plan::Need,
    source::ImageContent,
};

impl Delivery {
    /// Pushes the manifest that the image was pulled with; returns it if that went well, and nothing if the
    /// registry lacks what it names.
    pub(super) async fn push_original(&self, tags: &[String]) -> Result<Option<Manifest>> {
        let ImageContent::Layers { original: Some(original), .. } = &self.image.content else {
            return Ok(None);
        };
        if self.destination.digest.as_ref().is_some_and(|asked| *asked != original.digest) {
            return Ok(None);
        }
        if self.is_there(&original.digest, tags).await? {
            return Ok(Some(original.clone()));
        }
        let needs = survey::named_by(original, true);
        let present = survey::present(&self.client, &self.destination.repository.path, &needs).await?;
        let is_missing =
            |need: &&Need| need.identity.as_ref().is_none_or(|(digest, _)| !present.contains(digest));
        for need in needs.iter().filter(is_missing) {
            if !self.mount(need).await {
                return Ok(None);
            }
        }
        let manifests = [original.clone()];
        manifest::send(&self.client, &manifests, &self.destination, tags, &*self.press.reporter).await?;
        Ok(Some(original.clone()))
    }

    /// Tries to mount a blob from where the image may have come from.
    async fn mount(&self, need: &Need) -> bool {
        let uploader = Uploader::new(
            self.client.clone(),
            self.destination.repository.path.clone(),
            self.options.jobs,
            Arc::clone(&self.press.reporter),
        );
        let mut settings = self.options.settings(&self.destination.repository.host, false);
        for repository in self.origins() {
            settings.mount_from = Some(repository);
            if uploader.mount_only(need, settings.clone()).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// The repositories of the destination's registry that the image's names speak of.
    fn origins(&self) -> Vec<String> {
        let here = &self.destination.repository;
        let named = self.image.names.iter().filter_map(|name| name.parse::<Reference>().ok());
        let named =
            named.map(|name| name.repository).filter(|other| other.host == here.host && other != here);
        self.options.mount_from.iter().cloned().chain(named.map(|other| other.path)).collect()
    }
}
