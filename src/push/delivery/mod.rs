//! One image on its way to one repository. What happens to it stands in files of their own, the order of that in
//! stages.rs.

mod companions;
mod forecast;
pub(super) mod if_exists;
mod look;
mod manifest;
mod original;
mod origins;
mod recall;
mod reuse;
pub(super) mod send;
mod stages;
pub(super) mod survey;

use std::sync::Arc;

pub use self::forecast::Forecast;

use super::{Cargo, Pushed, Target, tally::Tally, upload::Uploader};
use crate::{
    error::{Error, Result},
    event::{Event, How},
    oci::{Digest, Manifest, Repository},
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

impl Cargo {
    /// Returns the delivery of an image to a target.
    pub(super) fn delivery(&self, image: &Image, target: Target) -> Delivery {
        Delivery { cargo: self.clone(), image: image.clone(), target }
    }

    /// Delivers an image to one target after the other, and says what became of each.
    pub(super) async fn deliver(&self, image: &Image, targets: Vec<Target>) -> Vec<Result<Pushed>> {
        for note in image.parts().iter().flat_map(|image| self.source.notes(image)) {
            self.press.warn(note);
        }
        let mut results = Vec::new();
        let mut done: Vec<Repository> = Vec::new();
        for target in targets {
            let here = target.destination.repository.clone();
            let before =
                done.iter().rev().find(|before| before.host == here.host && before.path != here.path);
            let mut delivery = self.delivery(image, target);
            let mount_from = &mut delivery.cargo.options.mount_from;
            *mount_from = mount_from.take().or(before.map(|before| before.path.clone()));
            let tally = Tally::listen(&mut delivery.cargo.press);
            // Its state is large, and those of many would lie on one stack.
            let pushed = Box::pin(delivery.run_accompanied()).await.map(|pushed| tally.note(pushed));
            if pushed.is_ok() {
                done.push(here);
            }
            results.push(pushed);
        }
        results
    }
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
