//! Pushing, once everything is open: to a registry, to the embedded one, or to a place on disk.

use http::StatusCode;
use longshore::{
    Error, Result,
    oci::{Reference, Repository},
    push::{Arrival, Assembly, Forecast, Mirror, Opened, Options, Press, Push, PushAll, Pushed, Target},
    registry::{Client, RateLimit, RegistryError},
};

use super::{Args, disk::Disk, goal::Goal};
use crate::cli::{
    Context, ExitStatus,
    embedded::{self, with_registry},
    report::{
        dry_run::{self, Outlook},
        outcome::{Errand, Outcome},
    },
};

/// What is to be pushed.
pub(super) struct Goods {
    /// One for each source.
    pub(super) sources: Vec<Opened>,
    pub(super) press: Press,
    pub(super) options: Options,
}

/// What became of each image at each destination.
pub(super) enum Done {
    Foreseen(Vec<Outlook>),
    Pushed(Vec<Outcome>),
}

impl Done {
    /// Nothing yet.
    pub(super) const fn none(dry_run: bool) -> Self {
        if dry_run { Self::Foreseen(Vec::new()) } else { Self::Pushed(Vec::new()) }
    }

    fn foreseen(results: impl Iterator<Item = (Errand, Result<Option<Forecast>>)>) -> Self {
        let outlook = |(errand, result): (Errand, Result<Option<Forecast>>)| {
            Some(Outlook { name: errand.name().to_owned(), result: result.transpose()? })
        };
        Self::Foreseen(results.filter_map(outlook).collect())
    }

    fn pushed(results: impl Iterator<Item = (Errand, Result<Option<Pushed>>)>) -> Self {
        let outcome = |(errand, result)| Outcome { errand, result, done_before: false };
        Self::Pushed(results.map(outcome).collect())
    }

    /// What an earlier run has pushed.
    pub(super) fn before(image: &str, arrived: &[(String, Pushed)]) -> Self {
        let outcome = |(place, pushed): &(String, Pushed)| Outcome {
            errand: Errand { image: image.to_owned(), place: Some(place.clone()), tag: None },
            result: Ok(Some(pushed.clone())),
            done_before: true,
        };
        Self::Pushed(arrived.iter().map(outcome).collect())
    }

    /// Nothing has come of it anywhere.
    pub(super) fn failed(errands: Vec<Errand>, error: &Error, dry_run: bool) -> Self {
        let errands = errands.into_iter();
        if dry_run {
            Self::foreseen(errands.map(|errand| (errand, Err(error.clone()))))
        } else {
            Self::pushed(errands.map(|errand| (errand, Err(error.clone()))))
        }
    }

    /// Adds what became of others.
    pub(super) fn extend(&mut self, other: Self) {
        match (self, other) {
            (Self::Foreseen(all), Self::Foreseen(more)) => all.extend(more),
            (Self::Pushed(all), Self::Pushed(more)) => all.extend(more),
            _ => {}
        }
    }

    /// Says of failures what was being done.
    pub(super) fn while_doing(self, doing: &str) -> Self {
        self.mended(|error| error.while_doing(doing))
    }

    /// Says of a registry's disk that it is this machine's, where the registry is our own.
    pub(super) fn on_our_disk(self, place: &str) -> Self {
        let is_full = |error: &Error| {
            error
                .find::<RegistryError>()
                .is_some_and(|refused| refused.status == StatusCode::INSUFFICIENT_STORAGE)
        };
        let full = || Error::local(format!("there is no room left for `{place}`"));
        self.mended(|error| if is_full(&error) { full().because(error) } else { error })
    }

    fn mended(mut self, mend: impl Fn(Error) -> Error) -> Self {
        let errors: Vec<&mut Error> = match &mut self {
            Self::Foreseen(all) => all.iter_mut().filter_map(|one| one.result.as_mut().err()).collect(),
            Self::Pushed(all) => all.iter_mut().filter_map(|one| one.result.as_mut().err()).collect(),
        };
        for error in errors {
            *error = mend(error.clone());
        }
        self
    }

    /// Returns what has arrived where, if all of it has.
    pub(super) fn arrived(&self) -> Option<Vec<(String, Pushed)>> {
        let Self::Pushed(outcomes) = self else { return None };
        let arrived = |outcome: &Outcome| {
            Some((outcome.errand.name().to_owned(), outcome.result.as_ref().ok()?.as_ref()?.clone()))
        };
        outcomes.iter().map(arrived).collect()
    }
}

impl Goods {
    /// Writes a layout, or says what would be written.
    pub(super) async fn put(
        self,
        args: &Args,
        goal: Goal,
        disk: &Disk,
        rate_limit: Option<RateLimit>,
    ) -> Result<Done> {
        let (stage, _lock) = if args.dry_run {
            (embedded::empty()?, None)
        } else {
            let (stage, lock) = disk.stage()?;
            (stage, Some(lock))
        };
        let work = async |client: Client| self.ship(args, goal, |_| Ok(client.clone())).await;
        let mut done = with_registry(stage.path(), rate_limit, work).await?;
        match &mut done {
            Done::Foreseen(outlooks) => outlooks.iter_mut().for_each(|outlook| outlook.name = disk.name()),
            Done::Pushed(outcomes) => {
                for outcome in outcomes.iter_mut().filter(|outcome| outcome.result.is_ok()) {
                    disk.take(stage.path())?;
                    outcome.errand.place = Some(disk.name());
                }
            }
        }
        Ok(done.on_our_disk(&disk.name()))
    }

    /// Pushes, or says what that would do. `client` speaks with the registry of a repository.
    pub(super) async fn ship(
        self,
        args: &Args,
        goal: Goal,
        client: impl Fn(&Repository) -> Result<Client>,
    ) -> Result<Done> {
        let Self { sources, press, options } = self;
        let each = |destinations: Vec<Reference>| -> Result<(Vec<Errand>, Vec<Target>)> {
            let target = |mut destination: Reference| {
                let client = client(&destination.repository)?;
                client.host().clone_into(&mut destination.repository.host);
                let errand = args.errand(args.image(), Some(&destination));
                Ok((errand, Target { destination, tags: args.tags.clone(), client }))
            };
            destinations.into_iter().map(target).collect()
        };
        match goal {
            Goal::One(destinations) => {
                let (errands, targets) = each(destinations)?;
                let Opened { input, spec } = only(sources)?;
                let push = Push { input, spec, targets, press, options };
                Ok(if args.dry_run {
                    Done::foreseen(paired(errands, push.forecast().await?))
                } else {
                    Done::pushed(paired(errands, push.run().await?))
                })
            }
            Goal::Index(destinations) => {
                let (errands, targets) = each(destinations)?;
                let push = Assembly { sources, targets, press, options };
                Ok(if args.dry_run {
                    Done::foreseen(paired(errands, push.forecast().await?))
                } else {
                    Done::pushed(paired(errands, push.run().await?))
                })
            }
            Goal::All(mirror) => {
                let path = mirror.path.clone().unwrap_or_default();
                let client = client(&Repository { host: mirror.host.clone(), path })?;
                let mirror = Mirror { host: client.host().to_owned(), ..mirror };
                let Opened { input, spec } = only(sources)?;
                let push = PushAll { input, spec, mirror, client, press, options };
                Ok(if args.dry_run {
                    Done::foreseen(push.forecast().await?.into_iter().map(|one| args.arrival(one)))
                } else {
                    Done::pushed(push.run().await?.into_iter().map(|one| args.arrival(one)))
                })
            }
        }
    }
}

/// Puts what came of each errand beside it.
fn paired<T>(
    errands: Vec<Errand>,
    results: Vec<Result<T>>,
) -> impl Iterator<Item = (Errand, Result<Option<T>>)> {
    errands.into_iter().zip(results.into_iter().map(|result| result.map(Some)))
}

/// Returns the source, where there is one.
fn only(mut sources: Vec<Opened>) -> Result<Opened> {
    sources.pop().ok_or_else(|| Error::internal("a push without a source"))
}

impl Args {
    /// Returns what is to go where, as the user knows it.
    pub(super) fn errand(&self, image: String, destination: Option<&Reference>) -> Errand {
        let place = |to: &Reference| match &self.into {
            Some(dir) => dir.join(&to.repository.path).display().to_string(),
            None => to.repository.to_string(),
        };
        Errand { image, place: destination.map(place), tag: destination.and_then(|to| to.tag.clone()) }
    }

    /// Returns where an image was to go, and what became of it there.
    fn arrival<T>(&self, arrival: Arrival<T>) -> (Errand, Result<Option<T>>) {
        let Arrival { image, destination, result } = arrival;
        let result = result.map_err(|error| error.while_doing(format!("pushing `{image}`")));
        (self.errand(image, destination.as_ref()), result)
    }
}

pub(super) fn report(args: &Args, done: Done, context: &Context) -> Result<ExitStatus> {
    match done {
        Done::Foreseen(outlooks) => dry_run::print(&outlooks, args.report.json, context),
        Done::Pushed(outcomes) => args.report.report(&outcomes, context),
    }
}
