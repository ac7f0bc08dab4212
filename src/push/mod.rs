//! Pushes an image: survey, plan, transcode beside upload, manifest last.
//!
//! [`Push::run`] is the whole way of one image: an archive that can be read only once is absorbed, an image is
//! chosen and delivered to each target. Each stage has its file; their order is stages.rs.

mod absorb;
mod ahead;
mod all;
mod assembly;
mod bundle;
mod companions;
mod delivery;
mod draft;
mod feed;
mod forecast;
mod head_start;
mod if_exists;
mod journal;
mod look;
mod manifest;
mod mirror;
mod original;
mod origins;
mod press;
mod recall;
mod referrers;
mod resume;
mod reuse;
pub mod runtime;
mod send;
mod shared_cache;
mod stages;
mod survey;
mod tally;
mod told;
mod traffic;
mod transcode;
mod upload;
mod wanted;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use self::{
    absorb::{Absorbed, absorb},
    delivery::Delivery,
    if_exists::all_skipped,
    referrers::Referrers,
    tally::Tally,
    traffic::Traffic,
};
pub use ahead::{mount_ahead, send_ahead};
pub use all::{Arrival, PushAll};
pub use assembly::{Assembly, Part};
pub use bundle::{Bundle, Bundled, BundledImage, inventory, stocktaking};
pub use companions::Companions;
pub use draft::Format;
pub use forecast::Forecast;
pub use if_exists::IfExists;
pub use journal::{Job, Journal};
pub use mirror::{Mirror, Rule};
pub use press::Press;
pub use resume::{OpenSessions, Resume};
pub use told::Told;

use crate::{
    bucket::Bucket,
    codec::Recipe,
    error::Result,
    event::How,
    oci::{Digest, Platform, Reference, Repository},
    registry::{Client, Learned, Lesson, Sightings, hosts, retry::Pace, session::Settings},
    source::{Choice, Image, Input, Source, SourceSpec, choose},
};

/// How to push.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--allow-nondistributable`: upload layers that are meant to be fetched from elsewhere.
    pub allow_nondistributable: bool,
    /// `--chunk-size`.
    pub chunk_size: Option<u64>,
    /// What becomes of what the source holds about the image.
    pub companions: Companions,
    /// `--format`: in which family of media types.
    pub format: Format,
    /// `--if-exists`: what becomes of tags that are there already.
    pub if_exists: IfExists,
    /// `--jobs`: large blobs in flight at once.
    pub jobs: usize,
    /// Where what pushes find out about hosts is kept.
    pub learned: Option<Learned>,
    /// `--mount-from`: a repository of the same registry that may have the blobs.
    pub mount_from: Option<String>,
    /// How pauses are taken.
    pub pace: Pace,
    /// `--platform`: one child of an index.
    pub platform: Option<Platform>,
    /// `--compression`: what becomes of layers.
    pub recipe: Recipe,
    /// Whether layers that the destination has encoded already are used again (`--no-reuse`).
    pub reuse: bool,
    /// `--reuse-from`: images at the same registry that may have the layers.
    pub reuse_from: Vec<Reference>,
    /// What becomes of uploads when the process ends before them.
    pub resume: Resume,
    /// `--retries`: attempts without progress before giving up.
    pub retries: u32,
    /// Where it is remembered which repository has which blob.
    pub sightings: Option<Sightings>,
    /// `--cache`: where machines share their encoded layers.
    pub shared_cache: Option<Bucket>,
    /// What the user knows of the sizes of chunks.
    pub told: Told,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_nondistributable: false,
            chunk_size: None,
            companions: Companions::default(),
            format: Format::default(),
            if_exists: IfExists::default(),
            jobs: 6,
            learned: None,
            mount_from: None,
            pace: Pace::default(),
            platform: None,
            recipe: Recipe::default(),
            reuse: true,
            reuse_from: Vec::new(),
            resume: Resume::Never,
            retries: 5,
            shared_cache: None,
            sightings: None,
            told: Told::default(),
        }
    }
}

impl Options {
    /// Returns what an upload begins with; `look_first` if nobody has looked for the blob yet.
    pub fn settings(&self, client: &Client, look_first: bool) -> Settings {
        Settings {
            profile: hosts::profile(client.host()),
            chunk_size: self.chunk_size,
            retries: self.retries,
            look_first,
            mount_from: None,
            pace: self.pace,
            lesson: self.lesson(client),
        }
    }

    /// Returns what is known of a host before the first upload.
    fn lesson(&self, client: &Client) -> Lesson {
        let lesson =
            self.learned.as_ref().map_or_else(Lesson::default, |learned| learned.lesson(client.host()));
        match client.rate_limit() {
            Some(limit) => lesson.no_faster(limit.bytes_per_second() / self.jobs.max(1) as u64),
            None => lesson,
        }
    }

    /// Remembers what uploads have taught about a host. How fast they were is our own doing where that is limited.
    fn learn(&self, client: &Client, mut lesson: Lesson) {
        let Some(learned) = &self.learned else { return };
        if client.rate_limit().is_some() {
            lesson.rate = None;
        }
        learned.add(client.host(), lesson);
    }
}

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

/// A source, or several as one, whose images can be delivered one after the other.
#[derive(Clone, Debug)]
struct Cargo {
    source: Arc<dyn Source>,
    referrers: Referrers,
    /// What was encoded while the source passed, where it could be read only once.
    absorbed: Arc<Absorbed>,
    press: Press,
    options: Options,
    traffic: Traffic,
    intent: Intent,
}

impl Cargo {
    /// Reads what can be read once; `ahead` is where layers may be sent before the image is known.
    async fn load(
        input: Input,
        spec: &SourceSpec,
        ahead: Option<Target>,
        press: Press,
        options: Options,
        intent: Intent,
    ) -> Result<Self> {
        let traffic = Traffic::new(options.jobs);
        let ahead = ahead.map(|target| (target, traffic.clone()));
        let (source, absorbed) = read(input, spec, ahead, &press, &options).await?;
        Ok(Self { traffic, ..Self::new(source, absorbed, press, options, intent) })
    }

    fn new(
        source: Arc<dyn Source>,
        absorbed: Absorbed,
        press: Press,
        options: Options,
        intent: Intent,
    ) -> Self {
        let traffic = Traffic::new(options.jobs);
        let (absorbed, referrers) = (Arc::new(absorbed), Referrers::default());
        Self { source, referrers, absorbed, press, options, traffic, intent }
    }

    /// Returns the delivery of an image to a target.
    fn delivery(&self, image: &Image, target: Target) -> Delivery {
        Delivery { cargo: self.clone(), image: image.clone(), target }
    }

    /// Delivers an image to one target after the other, and says what became of each.
    async fn deliver(&self, image: &Image, targets: Vec<Target>) -> Vec<Result<Pushed>> {
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

/// Reads what can be read once; `ahead` is where layers may be sent before the image is known.
async fn read(
    input: Input,
    spec: &SourceSpec,
    ahead: Option<(Target, Traffic)>,
    press: &Press,
    options: &Options,
) -> Result<(Arc<dyn Source>, Absorbed)> {
    let (source, absorbed) = match input {
        Input::Indexed(source) => (source, Absorbed::default()),
        Input::Pass(pass) => absorb(pass, spec.transport, press, options, ahead).await?,
    };
    for warning in source.warnings() {
        press.warn(warning);
    }
    Ok((Arc::from(source), absorbed))
}

/// What a delivery may do at the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    /// Ask only, by HEAD and GET.
    Look,
    Push,
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
