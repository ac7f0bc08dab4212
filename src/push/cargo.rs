//! What is read of a place on disk, or of several, and what its images share on their way.
//!
//! It is read once. Each image makes a delivery of it for each target, whose options may then be others.

use std::sync::Arc;

use super::{
    Companions, Options, Press, Target,
    absorb::{Absorbed, absorb},
    press::transcode::{self, Job, Working},
    referrers::{Referrers, subject, unfold},
    upload::traffic::Traffic,
};
use crate::{
    blob::Blob,
    error::Result,
    oci::Digest,
    plan::Need,
    source::{Choice, Image, Input, Source, SourceSpec, choose},
};

/// A source, or several as one, whose images can be delivered one after the other.
#[derive(Clone, Debug)]
pub(super) struct Cargo {
    pub(super) source: Arc<dyn Source>,
    pub(super) referrers: Referrers,
    /// What was encoded while the source passed, where it could be read only once.
    pub(super) absorbed: Arc<Absorbed>,
    pub(super) press: Press,
    pub(super) options: Options,
    pub(super) traffic: Traffic,
    pub(super) intent: Intent,
}

impl Cargo {
    /// Reads what can be read once; `ahead` is where layers may be sent before the image is known.
    pub(super) async fn load(
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

    pub(super) fn new(
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

    /// Returns the same for what is about images.
    pub(super) fn unaltered(&self) -> Self {
        Self { options: self.options.clone().unaltered(), ..self.clone() }
    }

    /// Starts on layers that have to be produced. Results go to each job's feed.
    pub(super) fn start(&self, jobs: Vec<Job>) -> Result<Working> {
        transcode::start(Arc::clone(&self.source), self.press.clone(), jobs)
    }

    /// Decodes a layer that has passed and that a manifest names by its plain bytes.
    pub(super) fn reproduce(&self, digest: &Digest) -> Result<Blob> {
        self.absorbed.reproduce(digest, &self.press.cache)
    }

    /// Asks the shared cache, if there is one, for the layers that would have to be encoded, and notes which it has.
    pub(super) async fn ask_shared_cache(&self, needs: &mut [Need]) {
        if let Some(shared) = &self.press.shared {
            shared.ask(needs, self.options.recipe.encoding()).await;
        }
    }

    /// Returns the images that are meant; where none is named, all of them, with what is about them.
    pub(super) fn images(&self, choice: &Choice) -> Result<Vec<Image>> {
        let (source, platform) = (&*self.source, self.options.platform.as_ref());
        let images = match choice {
            Choice::Only => choose::all(source, platform)?,
            choice => vec![choose(source, choice, platform)?],
        };
        let mut images = unfold(images, source);
        if self.options.companions == Companions::Forget {
            images.retain(|image| !image.companion || subject(image, source).is_none());
        }
        Ok(images)
    }
}

/// Reads what can be read once; `ahead` is where layers may be sent before the image is known.
pub(super) async fn read(
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
pub(super) enum Intent {
    /// Ask only, by HEAD and GET.
    Ask,
    Push,
}
