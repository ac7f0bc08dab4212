//! Pushes an image: survey, plan, transcode beside upload, manifest last.
//!
//! [`Push::run`] is the whole way of one image: an archive that can be read only once is absorbed, an image is
//! chosen and delivered to each target (`delivery`).

mod absorb;
mod ahead;
mod all;
mod assembly;
mod bundle;
mod cargo;
mod delivery;
mod feed;
mod journal;
mod options;
mod press;
mod referrers;
mod resume;
pub mod runtime;
mod tally;
mod told;
mod upload;
mod wanted;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::{
    cargo::{Cargo, Intent, read},
    delivery::if_exists::all_skipped,
    tally::Tally,
};
pub use ahead::{mount_ahead, send_ahead};
pub use all::{Arrival, Mirror, PushAll, Rule};
pub use assembly::{Assembly, Opened};
pub use bundle::{Bundle, Bundled, BundledImage, inventory, stocktaking};
pub use delivery::Forecast;
pub use journal::{Fingerprint, Journal};
pub use options::{Companions, Format, IfExists, Options};
pub use press::Press;
pub use resume::{OpenSessions, Resume};
pub use told::Told;

use crate::{
    error::Result,
    event::How,
    oci::{Digest, Reference, Repository},
    registry::Client,
    source::{Choice, Image, Input, SourceSpec, choose},
};

/// One image on its way from a place on disk to one repository, or to several.
#[derive(Debug)]
#[must_use = "a push does nothing until it is run"]
pub struct Push {
    /// Where the image lies.
    pub input: Input,
    /// What the user called that place, and which of its images is meant.
    pub spec: SourceSpec,
    /// Where it goes.
    pub targets: Vec<Target>,
    /// What encodes layers, and where they are kept.
    pub press: Press,
    /// How.
    pub options: Options,
}

/// Where an image goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// A tag, or a digest that the image must have.
    pub destination: Reference,
    /// `--tag`: more tags for it.
    pub tags: Vec<String>,
    /// The registry.
    pub client: Client,
}

impl Target {
    /// Returns an image's place in a repository: under these tags, or by its digest if there are none.
    fn of(image: &Image, repository: &Repository, tags: &[String], client: &Client) -> Self {
        let (tag, more) = tags.split_first().map_or((None, &[][..]), |(tag, more)| (Some(tag.clone()), more));
        let digest = image.digest().filter(|_| tag.is_none()).cloned();
        let destination = Reference { repository: repository.clone(), tag, digest };
        Self { destination, tags: more.to_vec(), client: client.clone() }
    }

    /// Returns the repository's path at the registry.
    fn repository(&self) -> &str {
        &self.destination.repository.path
    }
}

/// An image that has arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// The tags it has been given.
    pub tags: Vec<String>,
    /// What has been pushed with it because it is about it ([`Companions::Travel`]).
    pub referrers: Vec<Digest>,
    /// The tags that were there already and were left as they are, and what they stand for ([`IfExists::Skip`]). If there
    /// is no other, this is what the first of them stands for, and nothing was pushed.
    pub skipped: BTreeMap<String, Digest>,
    /// How it came to be there: sent, mounted as a whole, or present under all its names.
    pub how: How,
    /// The bytes of all blobs that were sent for it and its referrers.
    pub bytes_sent: u64,
}

impl Pushed {
    /// Returns whether nothing was pushed, since no tag was left to set ([`IfExists::Skip`]).
    pub fn was_left_alone(&self) -> bool {
        self.tags.is_empty() && !self.skipped.is_empty()
    }
}

impl Push {
    /// Pushes the image to one target after the other, and says what became of each; an error of its own means
    /// that the image could not be read. What succeeded, its registry has confirmed as a whole; where it
    /// failed, no tag has moved but those before one that was refused. A layer is encoded once, and mounted from
    /// one repository into the next. Dropping the future stops it.
    pub async fn run(mut self) -> Result<Vec<Result<Pushed>>> {
        let giving = self.press.use_shared(self.options.shared_cache.take());
        tokio::join!(self.deliver(), giving).0
    }

    async fn deliver(mut self) -> Result<Vec<Result<Pushed>>> {
        if let Input::Pass(_) = self.input
            && let Some(skipped) = all_skipped(&self.targets, self.options.if_exists).await
        {
            return Ok(skipped);
        }
        let ahead = Tally::listen(&mut self.press);
        let (cargo, image, targets) = self.load(Intent::Push).await?;
        let ahead = ahead.bytes_sent();
        let mut results = cargo.deliver(&image, targets).await;
        if let Some(Ok(first)) = results.first_mut() {
            first.bytes_sent += ahead;
        }
        Ok(results)
    }

    /// Reads and chooses what is pushed.
    async fn load(self, intent: Intent) -> Result<(Cargo, Image, Vec<Target>)> {
        let Self { input, spec, targets, press, options } = self;
        // Where an image has to be chosen, most of the archive may belong to others.
        let chosen = spec.choice != Choice::Only || options.platform.is_some();
        let may_send = intent == Intent::Push && !chosen && options.if_exists == IfExists::Overwrite;
        let ahead = targets.first().filter(|_| may_send).cloned();
        let cargo = Cargo::load(input, &spec, ahead, press, options, intent).await?;
        let image = choose(&*cargo.source, &spec.choice, cargo.options.platform.as_ref())?;
        Ok((cargo, image, targets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_can_change_threads() {
        // The compiler says so.
        fn can<T: Send, F: Future + Send>(_: fn(T) -> F) {}
        can(Push::run);
        can(Push::forecast);
        can(PushAll::run);
        can(PushAll::forecast);
        can(Assembly::run);
        can(Bundle::write);
        can(Assembly::forecast);
    }
}
