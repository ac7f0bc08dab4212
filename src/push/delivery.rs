//! One image on its way to one repository. What happens to it stands in files of their own, the order of that in
//! stages.rs.

use std::sync::Arc;

use super::{Cargo, Target, upload::Uploader};
use crate::{
    error::{Error, Result},
    event::{Event, How},
    oci::{Digest, Manifest},
    source::Image,
};

/// An image on its way to one repository.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    /// Where it comes from, what is done to it on the way, and whom it shares that with.
    pub(super) cargo: Cargo,
    pub(super) image: Image,
    pub(super) target: Target,
}

impl Delivery {
    /// Returns what sends its blobs.
    pub(super) fn uploader(&self) -> Uploader {
        let (client, repository) = (self.target.client.clone(), self.target.repository().to_owned());
        let (traffic, reporter) = (self.cargo.traffic.clone(), Arc::clone(&self.cargo.press.reporter));
        Uploader::new(client, repository, &self.cargo.options, traffic, reporter)
    }

    /// Refuses an image whose digest is not the one that the destination asks for.
    pub(super) fn check_destination(&self, digest: &Digest) -> Result<()> {
        match &self.target.destination.digest {
            Some(asked) if asked != digest => Err(Error::usage(format!(
                "the destination asks for {asked}, the image is {digest}: digest mismatch"
            ))),
            _ => Ok(()),
        }
    }

    /// Returns whether the registry holds the image under all these names already.
    pub(super) async fn is_there(&self, digest: &Digest, tags: &[String]) -> Result<bool> {
        let by_digest = [digest.to_string()];
        let names = if tags.is_empty() { &by_digest } else { tags };
        for name in names {
            let there = self.target.client.head_manifest(self.target.repository(), name).await?;
            if there.as_ref() != Some(digest) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells that the registry has a blob.
    pub(super) fn confirmed(&self, name: &str, digest: &Digest, how: How, size: u64) {
        let (blob, digest) = (name.to_owned(), digest.to_string());
        self.cargo.press.reporter.event(Event::Confirmed { blob, digest, how, size });
    }
}

/// Returns the manifest that a push is about: the last, after its children.
pub(super) fn root(manifests: &[Manifest]) -> Result<&Manifest> {
    manifests.last().ok_or_else(|| Error::internal("an image without a manifest"))
}
