//! Every image of a source, each to a repository of its own.
//!
//! Several images side by side, then one after the other what refers to an image; one that fails stops no other. A layer
//! that several images share is encoded once and sent once: the repositories after the first one mount it.

mod consign;
mod mirror;

use std::collections::HashSet;

use futures_util::{StreamExt as _, stream};

use self::consign::{Carried, Consignment, Fate, Outcome, Route, Routes};
pub use self::{
    consign::Arrival,
    mirror::{Mirror, Rule},
};
use super::{Cargo, Companions, Forecast, Intent, Options, Press, Pushed, Target, referrers::subject};
use crate::{
    error::{Error, Result},
    oci::Digest,
    registry::Client,
    source::{Image, Input, Missing, SourceSpec},
};

/// All images of a place on disk, on their way to one registry.
#[derive(Debug)]
#[must_use = "a push does nothing until it is run"]
pub struct PushAll {
    /// Where the images lie.
    pub input: Input,
    /// What the user called that place; if that means one of its images, the others stay.
    pub spec: SourceSpec,
    /// Where they go.
    pub mirror: Mirror,
    /// The registry.
    pub client: Client,
    /// What encodes layers, and where they are kept.
    pub press: Press,
    /// How.
    pub options: Options,
}

impl PushAll {
    /// Pushes the images and says what became of each; an error of its own means that the source could not be read, or
    /// that two images would go to one place.
    pub async fn run(mut self) -> Result<Vec<Arrival<Pushed>>> {
        let giving = self.press.use_shared(self.options.shared_cache.take());
        tokio::join!(self.each(), giving).0
    }

    /// Says what [`PushAll::run`] would do with each image, and does nothing, as [`Push::forecast`](super::Push) does.
    pub async fn forecast(mut self) -> Result<Vec<Arrival<Forecast>>> {
        self.options.shared_cache = None;
        self.each().await
    }

    /// Does the same with every image, those that others refer to first.
    async fn each<T: Outcome>(self) -> Result<Vec<Arrival<T>>> {
        let Self { input, spec, mirror, client, press, mut options } = self;
        if options.companions == Companions::Travel {
            // They are images of the source as all others, and have results of their own.
            options.companions = Companions::Stay;
        }
        let cargo = Cargo::load(input, &spec, None, press, options, T::INTENT).await?;
        let images = cargo.images(&spec.choice)?;
        if images.is_empty() {
            return Err(Error::source(format!("{} holds no images", cargo.source.name())));
        }
        let mut routes = Routes::new(&mirror, &client, cargo.options.platform.is_some());
        let consignments = routes.consign(images, &*cargo.source)?;
        require_left_out(&cargo, &consignments, routes.clone()).await?;
        let (companions, subjects): (Vec<_>, Vec<_>) =
            consignments.into_iter().partition(|consignment| consignment.image.companion);
        let mut arrivals = carry_subjects(&cargo, subjects, &mut routes, companions.is_empty()).await;
        arrivals.extend(carry_companions(&cargo, companions, &mut routes).await);
        Ok(arrivals)
    }
}

impl Outcome for Pushed {
    const INTENT: Intent = Intent::Push;

    async fn of(cargo: &Cargo, image: &Image, targets: Vec<Target>) -> Vec<Result<Self>> {
        cargo.deliver(image, targets).await
    }

    fn fate(&self) -> Fate {
        Fate::of(Some(&self.digest), &self.tags, &self.skipped)
    }
}

impl Outcome for Forecast {
    const INTENT: Intent = Intent::Ask;

    async fn of(cargo: &Cargo, image: &Image, targets: Vec<Target>) -> Vec<Result<Self>> {
        cargo.forecast(image, targets).await
    }

    fn fate(&self) -> Fate {
        Fate::of(self.digest.as_ref(), &self.tags, &self.skipped)
    }
}

/// Does it with the images that others may refer to, several side by side.
async fn carry_subjects<T: Outcome>(
    cargo: &Cargo,
    subjects: Vec<Consignment>,
    routes: &mut Routes<'_>,
    alone: bool,
) -> Vec<Arrival<T>> {
    let carried: Vec<_> = stream::iter(subjects)
        .map(|Consignment { image, name, route }| {
            let targets = route.and_then(|route| route.targets(&image, routes));
            async move {
                let carried: Carried<T> = carry(cargo, &image, targets).await;
                let kept = if alone { HashSet::new() } else { kept(cargo, &image, &carried).await };
                (image, name, carried, kept)
            }
        })
        .buffered(SIDE_BY_SIDE)
        .collect()
        .await;
    let note =
        |(image, name, carried, kept): (Image, String, _, _)| routes.note(&image, &kept, &name, carried);
    carried.into_iter().flat_map(note).collect()
}

/// Does it with what refers to others, one after the other: what refers to a referrer comes after it as long as the source
/// lists it so.
async fn carry_companions<T: Outcome>(
    cargo: &Cargo,
    companions: Vec<Consignment>,
    routes: &mut Routes<'_>,
) -> Vec<Arrival<T>> {
    let unaltered = cargo.unaltered();
    let mut arrivals = Vec::new();
    for Consignment { image, name, route } in companions {
        let targets = route.and_then(|route| route.targets(&image, routes));
        if targets.as_ref().is_ok_and(Vec::is_empty) {
            cargo.press.warn(format!("`{name}` is left out, as what it is about was skipped"));
            arrivals.push(Arrival { image: name, destination: None, result: Ok(None) });
            continue;
        }
        let cargo = if subject(&image, &*cargo.source).is_some() { &unaltered } else { cargo };
        let carried = carry(cargo, &image, targets).await;
        arrivals.extend(routes.note(&image, &HashSet::new(), &name, carried));
    }
    arrivals
}

async fn carry<T: Outcome>(cargo: &Cargo, image: &Image, targets: Result<Vec<Target>>) -> Carried<T> {
    let targets = targets?;
    let results = T::of(cargo, image, targets.clone()).await;
    Ok(targets.into_iter().zip(results).collect())
}

/// Finds out which of an image's documents arrive as they are. What cannot be read is told of by the push itself.
async fn kept<T>(cargo: &Cargo, image: &Image, carried: &Carried<T>) -> HashSet<Digest> {
    let Some((target, _)) = carried.iter().flatten().next() else { return HashSet::new() };
    cargo.delivery(image, target.clone()).kept().await.unwrap_or_default()
}

/// So many images are under way at once: enough that some are sent while others are asked for.
const SIDE_BY_SIDE: usize = 4;

/// Makes sure, before any tag moves, that what the source leaves out is where its images go. Names all that is not.
async fn require_left_out(cargo: &Cargo, consignments: &[Consignment], mut routes: Routes<'_>) -> Result<()> {
    if cargo.source.left_out().is_none() {
        return Ok(());
    }
    let mut missing: Vec<(&str, Error)> = Vec::new();
    for Consignment { image, name, route } in consignments {
        let targets = match route {
            Ok(Route::To(targets)) => targets.clone(),
            Ok(Route::Beside { subject, tags }) => routes.beside(subject, tags, image).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        for target in targets {
            let fate = image.digest().cloned().map_or(Fate::Unknown, Fate::Arrived);
            let repository = target.destination.repository.clone();
            let delivery = cargo.delivery(image, target);
            routes.settle(image, &delivery.kept().await.unwrap_or_default(), &repository, &fate);
            match Box::pin(delivery.require_left_out()).await {
                Err(error) if Missing::is_cause_of(&error) => missing.push((name, error)),
                result => result?,
            }
        }
    }
    let Some((_, first)) = missing.first() else { return Ok(()) };
    let words: Vec<_> =
        missing.iter().map(|(name, error)| format!("`{name}`: {}", error.message())).collect();
    let error = Error::source(format!("nothing was pushed: {}", words.join("; "))).because(Missing);
    Err(first.hints().into_iter().fold(error, Error::with_hint))
}
