//! Pushing, once everything is open: to a registry, to the embedded one, or to a place on disk.

use longshore::{
    Error, Result,
    oci::{Reference, Repository},
    push::{Arrival, Assembly, Forecast, Mirror, Options, Part, Press, Push, PushAll, Pushed, Target},
    registry::{Client, RateLimit},
};

use super::{
    super::{
        Context, ExitStatus,
        disk::Disk,
        dry_run::{self, Outlook},
        embedded::with_registry,
        report::Outcome,
    },
    Args,
    goal::Goal,
};

/// What is to be pushed.
pub(super) struct Goods {
    /// One for each source.
    pub(super) parts: Vec<Part>,
    pub(super) press: Press,
    pub(super) options: Options,
}

/// What became of each image at each destination.
pub(super) enum Done {
    Foreseen(Vec<Outlook>),
    Pushed(Vec<Outcome>),
}

impl Done {
    fn foreseen(results: impl Iterator<Item = (String, Result<Forecast>)>) -> Self {
        Self::Foreseen(results.map(|(name, result)| Outlook { name, result }).collect())
    }

    fn pushed(results: impl Iterator<Item = (String, Result<Pushed>)>) -> Self {
        Self::Pushed(results.map(|(name, result)| Outcome { name, result }).collect())
    }
}

impl Goods {
    /// Writes a layout.
    pub(super) async fn put(
        self,
        args: &Args,
        goal: Goal,
        disk: &Disk,
        rate_limit: Option<RateLimit>,
    ) -> Result<Done> {
        let stage = disk.stage()?;
        let work = async |client: Client| self.ship(args, goal, |_| Ok(client.clone())).await;
        let mut done = with_registry(stage.path(), rate_limit, work).await?;
        if let Done::Pushed(outcomes) = &mut done {
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.result.is_ok()) {
                disk.take(stage.path())?;
                outcome.name = disk.name();
            }
        }
        Ok(done)
    }

    /// Pushes, or says what that would do. `client` speaks with the registry of a repository.
    pub(super) async fn ship(
        self,
        args: &Args,
        goal: Goal,
        client: impl Fn(&Repository) -> Result<Client>,
    ) -> Result<Done> {
        let Self { parts, press, options } = self;
        let each = |destinations: Vec<Reference>| -> Result<(Vec<String>, Vec<Target>)> {
            let target = |mut destination: Reference| {
                let client = client(&destination.repository)?;
                client.host().clone_into(&mut destination.repository.host);
                let name = args.place(&destination.repository);
                Ok((name, Target { destination, tags: args.tags.clone(), client }))
            };
            destinations.into_iter().map(target).collect()
        };
        match goal {
            Goal::One(destinations) => {
                let (names, targets) = each(destinations)?;
                let Part { input, spec } = only(parts)?;
                let (names, push) = (names.into_iter(), Push { input, spec, targets, press, options });
                Ok(if args.dry_run {
                    Done::foreseen(names.zip(push.forecast().await?))
                } else {
                    Done::pushed(names.zip(push.run().await?))
                })
            }
            Goal::Index(destinations) => {
                let (names, targets) = each(destinations)?;
                let (names, push) = (names.into_iter(), Assembly { parts, targets, press, options });
                Ok(if args.dry_run {
                    Done::foreseen(names.zip(push.forecast().await?))
                } else {
                    Done::pushed(names.zip(push.run().await?))
                })
            }
            Goal::All(mirror) => {
                let path = mirror.path.clone().unwrap_or_default();
                let client = client(&Repository { host: mirror.host.clone(), path })?;
                let mirror = Mirror { host: client.host().to_owned(), ..mirror };
                let Part { input, spec } = only(parts)?;
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

/// Returns the source, where there is one.
fn only(mut parts: Vec<Part>) -> Result<Part> {
    parts.pop().ok_or_else(|| Error::internal("a push without a source"))
}

impl Args {
    /// Returns what the user knows a repository by.
    fn place(&self, repository: &Repository) -> String {
        match &self.into {
            Some(dir) => dir.join(&repository.path).display().to_string(),
            None => repository.to_string(),
        }
    }

    /// Returns where an image was to go, and what became of it there.
    fn arrival<T>(&self, arrival: Arrival<T>) -> (String, Result<T>) {
        let Arrival { image, destination, result } = arrival;
        let place = destination.map_or_else(|| image.clone(), |to| self.place(&to.repository));
        (place, result.map_err(|error| error.while_doing(format!("pushing `{image}`"))))
    }
}

pub(super) fn report(args: &Args, done: Done, context: &Context) -> Result<ExitStatus> {
    match done {
        Done::Foreseen(outlooks) => dry_run::print(&outlooks, args.report.json, context),
        Done::Pushed(outcomes) => args.report.report(&outcomes, context),
    }
}
