//! Every image of a source, each to a repository of its own.
//!
//! Several images side by side, then one after the other what refers to an image; one that fails stops no other. A layer
//! that several images share is encoded once and sent once: the repositories after the first one mount it.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};

use super::{
    Cargo, Companions, Forecast, Intent, Mirror, Options, Press, Pushed, Target, referrers::subject,
};
use crate::{
    error::{Error, Result},
    oci::{Digest, Reference, Repository},
    registry::Client,
    source::{Image, Input, Missing, Source, SourceSpec},
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

/// What became, or would become, of one image in one repository.
#[derive(Debug)]
pub struct Arrival<T> {
    /// What the source calls it: its name there, or its digest.
    pub image: String,
    /// Where it was to go; nowhere, if nothing says where.
    pub destination: Option<Reference>,
    /// Whether it arrived; nothing, if it was left out, as what it is about was skipped.
    pub result: Result<Option<T>>,
}

/// An image, and where it goes.
struct Consignment {
    image: Image,
    name: String,
    place: Result<Place>,
}

/// Where an image goes.
enum Place {
    /// To these repositories.
    Here(Vec<Target>),
    /// Wherever the image that it is about is, under these tags.
    Beside { subject: Digest, tags: Vec<String> },
}

impl PushAll {
    /// Pushes the images and says what became of each; an error of its own means that the source could not be read, or
    /// that two images would go to one place.
    pub async fn run(mut self) -> Result<Vec<Arrival<Pushed>>> {
        let giving = self.press.use_shared(self.options.shared_cache.take());
        tokio::join!(self.deliver(), giving).0
    }

    async fn deliver(self) -> Result<Vec<Arrival<Pushed>>> {
        let arrived = |Pushed { digest, tags, skipped, .. }: &Pushed| Fate::of(Some(digest), tags, skipped);
        self.each(Intent::Push, arrived, |cargo, image, targets| cargo.deliver(image, targets).boxed()).await
    }

    /// Says what [`PushAll::run`] would do with each image, and does nothing, as [`Push::forecast`](super::Push) does.
    pub async fn forecast(mut self) -> Result<Vec<Arrival<Forecast>>> {
        self.options.shared_cache = None;
        let arrived =
            |Forecast { digest, tags, skipped, .. }: &Forecast| Fate::of(digest.as_ref(), tags, skipped);
        self.each(Intent::Look, arrived, |cargo, image, targets| cargo.forecast(image, targets).boxed()).await
    }

    /// Does the same with every image, those that others refer to first. `arrived` says what came of it.
    async fn each<T>(
        self,
        intent: Intent,
        arrived: impl Fn(&T) -> Fate,
        work: impl Work<T>,
    ) -> Result<Vec<Arrival<T>>> {
        let Self { input, spec, mirror, client, press, mut options } = self;
        if options.companions == Companions::Travel {
            // They are images of the source as all others, and have results of their own.
            options.companions = Companions::Stay;
        }
        let cargo = Cargo::load(input, &spec, None, press, options, intent).await?;
        let images = cargo.images(&spec.choice)?;
        if images.is_empty() {
            return Err(Error::source(format!("{} holds no images", cargo.source.name())));
        }
        let consignments = consign(images, &*cargo.source, &mirror, &client)?;
        require_left_out(&cargo, &consignments, &mirror, &client).await?;
        let (companions, subjects): (Vec<_>, Vec<_>) =
            consignments.into_iter().partition(|consignment| consignment.image.companion);
        let alone = companions.is_empty();
        let carried: Vec<_> = stream::iter(subjects)
            .map(|Consignment { image, name, place }| {
                let targets =
                    place.and_then(|place| place.here(&image, &Places::default(), &mirror, &client));
                let (cargo, work) = (&cargo, &work);
                async move {
                    let carried = carry(cargo, work, &image, targets).await;
                    let kept = if alone { HashSet::new() } else { kept(cargo, &image, &carried).await };
                    (image, name, carried, kept)
                }
            })
            .buffered(SIDE_BY_SIDE)
            .collect()
            .await;
        let mut places = Places { one_platform: cargo.options.platform.is_some(), ..Places::default() };
        let mut arrivals = Vec::new();
        for (image, name, carried, kept) in carried {
            arrivals.extend(places.note(&image, &kept, &name, carried, &arrived));
        }
        let unaltered = cargo.unaltered();
        // What refers to a referrer comes after it as long as the source lists it so.
        for Consignment { image, name, place } in companions {
            let targets = place.and_then(|place| place.here(&image, &places, &mirror, &client));
            if targets.as_ref().is_ok_and(Vec::is_empty) {
                cargo.press.warn(format!("`{name}` is left out, as what it is about was skipped"));
                arrivals.push(Arrival { image: name, destination: None, result: Ok(None) });
                continue;
            }
            let cargo = if subject(&image, &*cargo.source).is_some() { &unaltered } else { &cargo };
            let carried = carry(cargo, &work, &image, targets).await;
            arrivals.extend(places.note(&image, &HashSet::new(), &name, carried, &arrived));
        }
        Ok(arrivals)
    }
}

/// What is done with an image and its targets.
trait Work<T>: for<'a> Fn(&'a Cargo, &'a Image, Vec<Target>) -> BoxFuture<'a, Vec<Result<T>>> {}

impl<T, F> Work<T> for F where
    F: for<'a> Fn(&'a Cargo, &'a Image, Vec<Target>) -> BoxFuture<'a, Vec<Result<T>>>
{
}

/// What became of an image at each target, or why it has none.
type Carried<T> = Result<Vec<(Target, Result<T>)>>;

async fn carry<T>(
    cargo: &Cargo,
    work: &impl Work<T>,
    image: &Image,
    targets: Result<Vec<Target>>,
) -> Carried<T> {
    let targets = targets?;
    let results = work(cargo, image, targets.clone()).await;
    Ok(targets.into_iter().zip(results).collect())
}

/// Finds out which of an image's documents arrive as they are. What cannot be read is told of by the push itself.
async fn kept<T>(cargo: &Cargo, image: &Image, carried: &Carried<T>) -> HashSet<Digest> {
    let Some((target, _)) = carried.iter().flatten().next() else { return HashSet::new() };
    cargo.delivery(image, target.clone()).kept().await.unwrap_or_default()
}

impl Place {
    /// Returns where an image goes, once it is known where the others have gone.
    fn here(self, image: &Image, places: &Places, mirror: &Mirror, client: &Client) -> Result<Vec<Target>> {
        match self {
            Self::Here(targets) => Ok(targets),
            Self::Beside { subject, tags } => places.beside(&subject, &tags, image, mirror, client),
        }
    }
}

/// So many images are under way at once: enough that some are sent while others are asked for.
const SIDE_BY_SIDE: usize = 4;

/// Makes sure, before any tag moves, that what the source leaves out is where its images go. Names all that is not.
async fn require_left_out(
    cargo: &Cargo,
    consignments: &[Consignment],
    mirror: &Mirror,
    client: &Client,
) -> Result<()> {
    if cargo.source.left_out().is_none() {
        return Ok(());
    }
    let mut places = Places { one_platform: cargo.options.platform.is_some(), ..Places::default() };
    let mut missing: Vec<(&str, Error)> = Vec::new();
    for Consignment { image, name, place } in consignments {
        let targets = match place {
            Ok(Place::Here(targets)) => targets.clone(),
            Ok(Place::Beside { subject, tags }) => {
                places.beside(subject, tags, image, mirror, client).unwrap_or_default()
            }
            Err(_) => Vec::new(),
        };
        for target in targets {
            let fate = image.digest().cloned().map_or(Fate::Unknown, Fate::Arrived);
            let repository = target.destination.repository.clone();
            let delivery = cargo.delivery(image, target);
            places.settle(image, &delivery.kept().await.unwrap_or_default(), &repository, &fate);
            match Box::pin(delivery.require_left_out()).await {
                Err(error) if error.find::<Missing>().is_some() => missing.push((name, error)),
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

/// Where images have arrived, by the digest that the source knows them by.
#[derive(Default)]
struct Places {
    known: HashMap<Digest, Vec<(Repository, Fate)>>,
    /// Whether images of other platforms stay behind, and what is about them with them.
    one_platform: bool,
}

/// What became of an image in a repository.
#[derive(Clone)]
enum Fate {
    /// It is there, by this digest.
    Arrived(Digest),
    /// This is there, and was before.
    Skipped(Digest),
    /// It failed, or has no digest yet.
    Unknown,
}

impl Fate {
    fn of(digest: Option<&Digest>, tags: &[String], skipped: &BTreeMap<String, Digest>) -> Self {
        match digest.cloned() {
            Some(digest) if tags.is_empty() && !skipped.is_empty() => Self::Skipped(digest),
            Some(digest) => Self::Arrived(digest),
            None => Self::Unknown,
        }
    }
}

impl Places {
    /// Takes note of an image's fate in a repository, which the documents share that belong to it and are kept.
    fn settle(&mut self, image: &Image, kept: &HashSet<Digest>, repository: &Repository, fate: &Fate) {
        let Some(root) = image.digest() else { return };
        let of_kept = |document| match fate {
            Fate::Arrived(_) => Fate::Arrived(document),
            Fate::Skipped(there) if there == root => Fate::Skipped(document),
            other => other.clone(),
        };
        let below = kept.iter().filter(|document| *document != root);
        let fates = below.map(|document| (document.clone(), of_kept(document.clone())));
        for (document, fate) in fates.chain([(root.clone(), fate.clone())]) {
            self.known.entry(document).or_default().push((repository.clone(), fate));
        }
    }

    /// Takes note of what became of an image.
    fn note<T>(
        &mut self,
        image: &Image,
        kept: &HashSet<Digest>,
        name: &str,
        carried: Carried<T>,
        arrived: impl Fn(&T) -> Fate,
    ) -> Vec<Arrival<T>> {
        let carried = match carried {
            Ok(carried) => carried,
            Err(error) => {
                return vec![Arrival { image: name.to_owned(), destination: None, result: Err(error) }];
            }
        };
        let mut arrivals = Vec::new();
        for (Target { destination, .. }, result) in carried {
            let fate = result.as_ref().map_or(Fate::Unknown, &arrived);
            self.settle(image, kept, &destination.repository, &fate);
            let (image, result) = (name.to_owned(), result.map(Some));
            arrivals.push(Arrival { image, destination: Some(destination), result });
        }
        arrivals
    }

    /// Returns where a companion goes: to the repositories of the image that it is about, less those where another image
    /// has kept the name.
    fn beside(
        &self,
        subject: &Digest,
        tags: &[String],
        image: &Image,
        mirror: &Mirror,
        client: &Client,
    ) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        let fates = self.known.get(subject);
        for (repository, fate) in fates.into_iter().flatten() {
            match fate {
                Fate::Arrived(there) | Fate::Skipped(there) if there == subject => {
                    targets.push(Target::of(image, repository, tags, client));
                }
                Fate::Skipped(_) => {}
                Fate::Arrived(arrived) => {
                    return Err(Error::source(format!("it is about {subject}, which arrived as {arrived}"))
                        .with_hint("leave out `--platform`, or add `--remove-signatures`"));
                }
                Fate::Unknown => {
                    return Err(Error::source(format!(
                        "{subject}, which it is about, has not arrived as it is"
                    )));
                }
            }
        }
        if fates.is_none() && !self.one_platform {
            // The registry may have had it before.
            let repository = mirror.itself().ok_or_else(|| nowhere(&format!("what is about {subject}")))?;
            targets.push(Target::of(image, &repository, tags, client));
        }
        Ok(targets)
    }
}

/// Finds out where every image goes.
fn consign(
    images: Vec<Image>,
    source: &dyn Source,
    mirror: &Mirror,
    client: &Client,
) -> Result<Vec<Consignment>> {
    let mut consignments = Vec::new();
    let mut taken: HashMap<Reference, String> = HashMap::new();
    for image in images {
        let name = image.names.first().cloned().or_else(|| image.digest().map(Digest::to_string));
        let name = name.unwrap_or_else(|| "an image without a name".to_owned());
        let place = place(&image, source, mirror, client);
        if let Ok(Place::Here(targets)) = &place {
            for destination in targets.iter().flat_map(each) {
                let error = match taken.insert(destination.clone(), name.clone()) {
                    None => continue,
                    Some(other) if other == name => Error::usage(format!(
                        "two images are called `{name}`, and would both become `{destination}`"
                    ))
                    .with_hint("push them one by one: `SOURCE:@N`, as `longshore inspect SOURCE` lists them"),
                    Some(other) => {
                        Error::usage(format!("`{other}` and `{name}` would both become `{destination}`"))
                            .with_hint("`--map FROM=TO` puts the names that begin with FROM elsewhere")
                    }
                };
                return Err(error);
            }
        }
        consignments.push(Consignment { image, name, place });
    }
    Ok(consignments)
}

/// Finds out where an image goes.
fn place(image: &Image, source: &dyn Source, mirror: &Mirror, client: &Client) -> Result<Place> {
    // Kubernetes has containerd call an image by the digest of its config, too.
    let names = image.names.iter().filter(|name| name.parse::<Digest>().is_err()).cloned();
    // Where there are full names, containerd and Docker write the tags once more.
    let (tags, full): (Vec<String>, Vec<String>) = names.partition(|name| !name.contains(['/', ':', '@']));
    if image.companion
        && full.is_empty()
        && let Some(subject) = subject(image, source)
    {
        return Ok(Place::Beside { subject, tags });
    }
    let mut targets: Vec<Target> = Vec::new();
    let mut names = if full.is_empty() { tags } else { full };
    // Who has a tag in a repository is known by digest there as well.
    names.sort_by_key(|name| name.contains('@'));
    for name in &names {
        let Some(destination) = mirror.destination(name)? else { continue };
        match targets.iter_mut().find(|target| target.destination.repository == destination.repository) {
            Some(target) if each(target).all(|other| other != destination) => {
                target.tags.extend(destination.tag);
            }
            Some(_) => {}
            None if destination.digest.as_ref().is_some_and(|digest| !image.is_known_by(digest)) => {}
            None => targets.push(Target { destination, tags: Vec::new(), client: client.clone() }),
        }
    }
    if targets.is_empty() {
        let repository = mirror.itself().ok_or_else(|| nowhere("an image without a name"))?;
        if image.digest().is_none() {
            return Err(Error::source(
                "an image without a tag has no digest to be called by before it is made",
            )
            .with_hint("push it alone, as `SOURCE:@N`, or `bundle` it before"));
        }
        targets.push(Target::of(image, &repository, &[], client));
    }
    Ok(Place::Here(targets))
}

/// Returns all names that a target stands for.
fn each(target: &Target) -> impl Iterator<Item = Reference> {
    let more =
        target.tags.iter().map(|tag| Reference { tag: Some(tag.clone()), ..target.destination.clone() });
    std::iter::once(target.destination.clone()).chain(more)
}

fn nowhere(what: &str) -> Error {
    Error::source(format!("nothing says where {what} goes"))
        .with_hint("give a repository as the prefix: registry.example.com/NAME")
}
