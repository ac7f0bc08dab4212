//! What is read of a place on disk, or of several, and what its images share on their way.
//!
//! It is read once. Each image makes a delivery of it for each target, whose options may then be others.

use std::sync::Arc;

use super::{
    Options, Press, Pushed, Target,
    absorb::{Absorbed, absorb},
    delivery::Delivery,
    referrers::Referrers,
    tally::Tally,
    traffic::Traffic,
};
use crate::{
    error::Result,
    oci::Repository,
    source::{Image, Input, Source, SourceSpec},
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
    Look,
    Push,
}
