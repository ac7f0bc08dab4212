//! Where each image goes when all of a source are pushed: what has a name, below the prefix by that; what is about another
//! image, beside it, wherever that has arrived as it was.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Mirror;
use crate::{
    error::{Error, Result},
    oci::{Digest, Reference, Repository},
    push::{Cargo, Intent, Target, referrers::subject},
    registry::Client,
    source::{Image, Source},
};

/// An image, and where it goes.
pub(super) struct Consignment {
    pub(super) image: Image,
    pub(super) name: String,
    pub(super) route: Result<Route>,
}

/// Where an image goes.
pub(super) enum Route {
    /// To these repositories.
    To(Vec<Target>),
    /// Wherever the image that it is about is, under these tags.
    Beside { subject: Digest, tags: Vec<String> },
}

impl Route {
    /// Returns where an image goes, once it is known where the others have gone.
    pub(super) fn targets(self, image: &Image, routes: &Routes<'_>) -> Result<Vec<Target>> {
        match self {
            Self::To(targets) => Ok(targets),
            Self::Beside { subject, tags } => routes.beside(&subject, &tags, image),
        }
    }
}

/// Where images go, and where they have arrived.
#[derive(Clone)]
pub(super) struct Routes<'a> {
    mirror: &'a Mirror,
    client: &'a Client,
    /// What has arrived, by the digest that the source knows it by.
    known: HashMap<Digest, Vec<(Repository, Fate)>>,
    /// Whether images of other platforms stay behind, and what is about them with them.
    one_platform: bool,
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

/// What became of an image at each target, or why it has none.
pub(super) type Carried<T> = Result<Vec<(Target, Result<T>)>>;

/// What became of an image in a repository.
#[derive(Clone)]
pub(super) enum Fate {
    /// It is there, by this digest.
    Arrived(Digest),
    /// This is there, and was before.
    Skipped(Digest),
    /// It failed, or has no digest yet.
    Unknown,
}

/// What may become of images: they are pushed, or that is foreseen.
pub(super) trait Outcome: Sized + Send {
    /// What it does at the registry.
    const INTENT: Intent;

    /// Does it with an image and its targets.
    fn of(
        cargo: &Cargo,
        image: &Image,
        targets: Vec<Target>,
    ) -> impl Future<Output = Vec<Result<Self>>> + Send;

    /// Says what became of the image.
    fn fate(&self) -> Fate;
}

impl Fate {
    pub(super) fn of(digest: Option<&Digest>, tags: &[String], skipped: &BTreeMap<String, Digest>) -> Self {
        match digest.cloned() {
            Some(digest) if tags.is_empty() && !skipped.is_empty() => Self::Skipped(digest),
            Some(digest) => Self::Arrived(digest),
            None => Self::Unknown,
        }
    }
}

impl<'a> Routes<'a> {
    /// Begins at a place for many images, where none has arrived yet.
    pub(super) fn new(mirror: &'a Mirror, client: &'a Client, one_platform: bool) -> Self {
        Self { mirror, client, known: HashMap::new(), one_platform }
    }

    /// Finds out where every image goes.
    pub(super) fn consign(&self, images: Vec<Image>, source: &dyn Source) -> Result<Vec<Consignment>> {
        let mut consignments = Vec::new();
        let mut taken: HashMap<Reference, String> = HashMap::new();
        for image in images {
            let name = image.names.first().cloned().or_else(|| image.digest().map(Digest::to_string));
            let name = name.unwrap_or_else(|| "an image without a name".to_owned());
            let route = self.route(&image, source);
            if let Ok(Route::To(targets)) = &route {
                for destination in targets.iter().flat_map(each) {
                    let error = match taken.insert(destination.clone(), name.clone()) {
                        None => continue,
                        Some(other) if other == name => Error::usage(format!(
                            "two images are called `{name}`, and would both become `{destination}`"
                        ))
                        .with_hint(
                            "push them one by one: `SOURCE:@N`, as `longshore inspect SOURCE` lists them",
                        ),
                        Some(other) => {
                            Error::usage(format!("`{other}` and `{name}` would both become `{destination}`"))
                                .with_hint("`--map FROM=TO` puts the names that begin with FROM elsewhere")
                        }
                    };
                    return Err(error);
                }
            }
            consignments.push(Consignment { image, name, route });
        }
        Ok(consignments)
    }

    /// Finds out where an image goes.
    fn route(&self, image: &Image, source: &dyn Source) -> Result<Route> {
        // Kubernetes has containerd call an image by the digest of its config, too.
        let names = image.names.iter().filter(|name| name.parse::<Digest>().is_err()).cloned();
        // Where there are full names, containerd and Docker write the tags once more.
        let (tags, full): (Vec<String>, Vec<String>) =
            names.partition(|name| !name.contains(['/', ':', '@']));
        if image.companion
            && full.is_empty()
            && let Some(subject) = subject(image, source)
        {
            return Ok(Route::Beside { subject, tags });
        }
        let mut targets: Vec<Target> = Vec::new();
        let mut names = if full.is_empty() { tags } else { full };
        // Who has a tag in a repository is known by digest there as well.
        names.sort_by_key(|name| name.contains('@'));
        for name in &names {
            let Some(destination) = self.mirror.destination(name)? else { continue };
            match targets.iter_mut().find(|target| target.destination.repository == destination.repository) {
                Some(target) if each(target).all(|other| other != destination) => {
                    target.tags.extend(destination.tag);
                }
                Some(_) => {}
                None if destination.digest.as_ref().is_some_and(|digest| !image.is_known_by(digest)) => {}
                None => targets.push(Target { destination, tags: Vec::new(), client: self.client.clone() }),
            }
        }
        if targets.is_empty() {
            let repository = self.mirror.itself().ok_or_else(|| nowhere("an image without a name"))?;
            if image.digest().is_none() {
                return Err(Error::source(
                    "an image without a tag has no digest to be called by before it is made",
                )
                .with_hint("push it alone, as `SOURCE:@N`, or `bundle` it before"));
            }
            targets.push(Target::of(image, &repository, &[], self.client));
        }
        Ok(Route::To(targets))
    }

    /// Takes note of an image's fate in a repository, which the documents share that belong to it and are kept.
    pub(super) fn settle(
        &mut self,
        image: &Image,
        kept: &HashSet<Digest>,
        repository: &Repository,
        fate: &Fate,
    ) {
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
    pub(super) fn note<T: Outcome>(
        &mut self,
        image: &Image,
        kept: &HashSet<Digest>,
        name: &str,
        carried: Carried<T>,
    ) -> Vec<Arrival<T>> {
        let carried = match carried {
            Ok(carried) => carried,
            Err(error) => {
                return vec![Arrival { image: name.to_owned(), destination: None, result: Err(error) }];
            }
        };
        let mut arrivals = Vec::new();
        for (Target { destination, .. }, result) in carried {
            let fate = result.as_ref().map_or(Fate::Unknown, Outcome::fate);
            self.settle(image, kept, &destination.repository, &fate);
            let (image, result) = (name.to_owned(), result.map(Some));
            arrivals.push(Arrival { image, destination: Some(destination), result });
        }
        arrivals
    }

    /// Returns where a companion goes: to the repositories of the image that it is about, less those where another image
    /// has kept the name.
    pub(super) fn beside(&self, subject: &Digest, tags: &[String], image: &Image) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        let fates = self.known.get(subject);
        for (repository, fate) in fates.into_iter().flatten() {
            match fate {
                Fate::Arrived(there) | Fate::Skipped(there) if there == subject => {
                    targets.push(Target::of(image, repository, tags, self.client));
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
            let repository =
                self.mirror.itself().ok_or_else(|| nowhere(&format!("what is about {subject}")))?;
            targets.push(Target::of(image, &repository, tags, self.client));
        }
        Ok(targets)
    }
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
