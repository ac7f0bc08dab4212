//! One push as it was asked for: checked first, opened next, carried out at last.

use longshore::{
    Result,
    bucket::Bucket,
    oci::{Repository, reference::check_tag},
    push::{
        OpenSessions, Opened, Options, Resume, Told,
        runtime::{Ending, block_on_with_farewell},
    },
    registry::{Client, Credentials, RateLimit},
    source::{SourceSpec, detect, detect::SourceOptions},
};
use tempfile::TempDir;

use super::{
    Args,
    disk::Disk,
    goal::{Goal, disk},
    options::options,
    ship::{Done, Goods},
};
use crate::cli::{
    Context,
    embedded::{self, with_registry},
    pressing::Pressing,
    report::outcome::Errand,
};

/// What all pushes of one command share.
pub(super) struct Shared<'a> {
    pressing: Pressing<'a>,
    bucket: Option<Bucket>,
    rate_limit: Option<RateLimit>,
    credentials: Credentials,
    /// The uploads to be given back at an interruption.
    open: OpenSessions,
    told: Told,
}

/// A push, of which nothing is opened yet.
pub(super) struct Order<'a> {
    pub(super) args: &'a Args,
    disk: Option<Disk>,
    goal: Goal,
    options: Options,
    pub(super) sources: Vec<(SourceSpec, SourceOptions)>,
}

impl<'a> Shared<'a> {
    /// Prepares what was asked for on the command line. `embedded` pushes need no login.
    pub(super) fn begin(args: &'a Args, embedded: bool, context: &'a Context) -> Result<Self> {
        let bucket = args.cache.bucket(context)?;
        let rate_limit = args.transfer.rate_limit()?;
        let credentials =
            if embedded { Credentials::default() } else { args.creds.credentials(&args.access, context)? };
        let pressing = Pressing::begin(&args.cache, &args.progress, context)?;
        let (open, told) = (OpenSessions::default(), Told::default());
        Ok(Self { pressing, bucket, rate_limit, credentials, open, told })
    }

    /// Pushes, until it is done or a signal ends it.
    pub(super) fn run<T>(self, push: impl AsyncFnOnce(&Self) -> T) -> Result<Ending<T>> {
        let ending = block_on_with_farewell(push(&self), self.open.cancel());
        self.pressing.end(ending)
    }
}

impl<'a> Order<'a> {
    /// Checks what was asked for: a destination that cannot be is said before an archive of 50 GB is indexed.
    pub(super) fn new(args: &'a Args, context: &Context) -> Result<Self> {
        args.tags.iter().try_for_each(|tag| check_tag(tag))?;
        let disk = disk(args)?;
        let goal = Goal::new(args, disk.as_ref())?;
        let embedded = disk.is_some() || args.into.is_some();
        let options = options(args, &goal.hosts(), embedded, context)?;
        let locate = |source| args.source_options.locate(source, &context.environment);
        let sources: Vec<_> = args.sources().into_iter().map(locate).collect::<Result<_>>()?;
        if let Some(disk) = &disk {
            sources.iter().try_for_each(|(spec, _)| disk.is_no_source(spec))?;
        }
        Ok(Self { args, disk, goal, options, sources })
    }

    /// Returns whether the image goes through the embedded registry, which has another address each time.
    pub(super) fn is_embedded(&self) -> bool {
        self.disk.is_some() || self.args.into.is_some()
    }

    /// Returns what is to go where, as the user knows it.
    pub(super) fn errands(&self) -> Vec<Errand> {
        let whole = |place: String| Errand { image: self.args.image(), place: Some(place), tag: None };
        match (&self.disk, &self.goal) {
            (Some(disk), _) => vec![whole(disk.name())],
            (None, Goal::One(to) | Goal::Index(to)) => {
                to.iter().map(|to| self.args.errand(self.args.image(), Some(to))).collect()
            }
            (None, Goal::All(_)) => self.args.destinations().iter().cloned().map(whole).collect(),
        }
    }

    /// Returns every name that the push gives an image.
    pub(super) fn names(&self) -> Vec<String> {
        if let Some(disk) = &self.disk {
            return disk.written(&self.args.tags);
        }
        let errands = self.errands();
        let each = |errand: &Errand| {
            let tags: Vec<_> = errand.tag.iter().chain(&self.args.tags).cloned().collect();
            tags.into_iter().map(|tag| format!("{}:{tag}", errand.name())).collect::<Vec<_>>()
        };
        errands.iter().flat_map(each).collect()
    }

    /// Opens the sources.
    pub(super) fn open(&self) -> Result<Vec<Opened>> {
        let open = |(spec, options): &(SourceSpec, _)| {
            Ok(Opened { input: detect::open(spec, options)?, spec: spec.clone() })
        };
        self.sources.iter().map(open).collect()
    }

    /// Pushes, or says what that would do.
    pub(super) async fn carry_out(
        self,
        sources: Vec<Opened>,
        shared: &Shared<'_>,
        context: &Context,
    ) -> Result<Done> {
        let Self { args, disk, goal, mut options, .. } = self;
        options.shared_cache.clone_from(&shared.bucket);
        options.told.clone_from(&shared.told);
        match &mut options.resume {
            Resume::Keep(unfinished) => unfinished.sweep(),
            Resume::GiveBack(open) => open.clone_from(&shared.open),
            Resume::Never => {}
        }
        let goods = Goods { sources, press: shared.pressing.press.clone(), options };
        let rate_limit = shared.rate_limit.clone();
        if let Some(disk) = &disk {
            return goods.put(args, goal, disk, rate_limit).await;
        }
        if let Some(dir) = &args.into {
            // Starting makes the folder.
            let nothing = (args.dry_run && !dir.is_dir()).then(embedded::empty).transpose()?;
            let place = nothing.as_ref().map_or(dir.as_path(), TempDir::path);
            let work = async |client: Client| {
                let done = goods.ship(args, goal, |_| Ok(client.clone())).await;
                // What a failure broke off beside itself nobody else can give back.
                shared.open.cancel().await;
                done
            };
            let done = with_registry(place, rate_limit, work).await?;
            return Ok(done.on_our_disk(&dir.display().to_string()));
        }
        let client = |repository: &Repository| {
            let (credentials, rate_limit) = (shared.credentials.clone(), rate_limit.clone());
            args.transfer.client(repository, &args.access, credentials, rate_limit, context)
        };
        goods.ship(args, goal, client).await
    }
}
