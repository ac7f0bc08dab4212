//! One image on its way to one repository. What happens to it stands in files of their own, the order of that in
//! stages.rs.

use std::sync::Arc;

use super::{
    Intent, Options, Target, absorb::Absorbed, press::Press, referrers::Referrers, traffic::Traffic,
    upload::Uploader,
};
use crate::{
    error::{Error, Result},
    event::{Event, How},
    oci::{Digest, Manifest},
    source::{Image, Source},
};

/// An image on its way to one repository.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) source: Arc<dyn Source>,
    pub(super) referrers: Referrers,
    pub(super) image: Image,
    /// What was encoded while the source passed, where it could be read only once.
    pub(super) absorbed: Arc<Absorbed>,
    pub(super) target: Target,
    pub(super) press: Press,
    pub(super) options: Options,
    pub(super) traffic: Traffic,
    pub(super) intent: Intent,
}

impl Delivery {
    /// Returns what sends its blobs.
    pub(super) fn uploader(&self) -> Uploader {
        let Target { client, destination, .. } = &self.target;
        let (client, repository) = (client.clone(), destination.repository.path.clone());
        Uploader::new(
            client,
            repository,
            &self.options,
            self.traffic.clone(),
            Arc::clone(&self.press.reporter),
        )
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
            if self
                .target
                .client
                .head_manifest(&self.target.destination.repository.path, name)
                .await?
                .as_ref()
                != Some(digest)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells that the registry has a blob.
    pub(super) fn confirmed(&self, name: &str, digest: &Digest, how: How, size: u64) {
        let (blob, digest) = (name.to_owned(), digest.to_string());
        self.press.reporter.event(Event::Confirmed { blob, digest, how, size });
    }

    /// Tells what the user should know.
    pub(super) fn warn(&self, message: String) {
        self.press.reporter.event(Event::Warning { message });
    }
}

/// Returns the manifest that a push is about: the last, after its children.
pub(super) fn root(manifests: &[Manifest]) -> Result<&Manifest> {
    manifests.last().ok_or_else(|| Error::internal("an image without a manifest"))
}
