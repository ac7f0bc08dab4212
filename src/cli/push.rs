//! `longshore push`: what was typed becomes what the library needs.

use std::{num::NonZero, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use longshore::{
    Error, Result,
    codec::{Encoding, Recipe},
    oci::{Platform, Reference, Repository, reference::check_tag},
    push::{
        Arrival, Forecast, Format, Mirror, OpenSessions, Options, Press, Push, PushAll, Pushed, Resume, Rule,
        Target,
        runtime::{Ending, block_on_with_farewell},
    },
    registry::{Client, ClientOptions, Credentials, Learned, RateLimit, Sightings, Unfinished},
    source::{Input, SourceSpec, detect},
};

use super::{
    Context, ExitStatus,
    access::{AccessArgs, CredsArgs},
    cache::CacheArgs,
    disk::Disk,
    dry_run::{self, Outlook},
    embedded::with_registry,
    progress::ProgressArgs,
    report::{Outcome, ReportArgs},
    source::SourceArgs,
    typed,
};

/// Push an image to a registry
///
/// Prints `registry/repository@sha256:…` on standard output and nothing else there. Nothing is tagged before
/// the registry has confirmed every blob.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches are what a command line has")]
#[command(after_help = "Examples:
  longshore push ./layout registry.example.com/demo:1
  longshore push image.tar registry.example.com/demo:1 --tag latest
  longshore push docker-archive:images.tar:@1 localhost:5000/demo:1
  longshore push containers-storage:localhost/demo:1 registry.example.com/demo:1
  longshore push --all images.tar registry.example.com/mirror
  longshore push image.tar registry.example.com/demo:1 --dry-run
  longshore push image.tar demo:1 --into ./registry")]
pub(super) struct Args {
    /// A folder or archive that holds images, or podman's, Docker's or containerd's own storage:
    /// PATH[:REF|@DIGEST|:@N], or with a transport in front
    #[arg(value_name = "SOURCE")]
    source: String,
    /// registry/repository[:tag][@digest]; without a tag, `latest`; may be several. Or one on disk: oci:DIR[:TAG],
    /// oci-archive:FILE[:TAG]
    #[arg(value_name = "DEST", required = true)]
    destinations: Vec<String>,
    /// One more tag for the image; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Push all images of SOURCE: DEST is what stands before their names, which lose their hosts
    #[arg(long)]
    all: bool,
    /// With `--all`, names that begin with FROM begin with TO instead; may be repeated
    #[arg(long, value_name = "FROM=TO")]
    map: Vec<Rule>,
    /// Push only this platform of a multi-platform image: OS/ARCH[/VARIANT]
    #[arg(long, value_parser = typed::<Platform>)]
    platform: Option<Platform>,
    /// keep, gzip[:LEVEL], zstd[:LEVEL] or none: how layers are encoded. `keep` alters nothing that a manifest in
    /// the source names, and makes other plain layers gzip
    #[arg(long, value_name = "HOW", default_value = "keep", value_parser = typed::<Recipe>)]
    compression: Recipe,
    /// Encode layers too that are in that encoding already
    #[arg(long)]
    force_compression: bool,
    /// auto, oci or docker: the manifest's family; `auto` keeps the source's
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = typed::<Format>)]
    format: Format,
    /// Push through the embedded registry into this folder: no registry needed
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Say what would be done, and ask the registry for nothing but what it has
    #[arg(long, help_heading = "Output")]
    dry_run: bool,
    #[command(flatten)]
    report: ReportArgs,
    #[command(flatten)]
    pub(super) progress: ProgressArgs,

    /// Large blobs sent at once
    #[arg(long, value_name = "N", default_value_t = 6, help_heading = "Transfer")]
    jobs: usize,
    /// Send chunks of this size, like `8MiB`
    #[arg(long, value_name = "SIZE", help_heading = "Transfer")]
    chunk_size: Option<ByteSize>,
    /// Send no more than this per second, all blobs together, like `2MiB`
    #[arg(long, value_name = "SIZE", help_heading = "Transfer")]
    limit_rate: Option<ByteSize>,
    /// Attempts without progress before giving up
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Transfer")]
    retries: u32,
    /// Give up on a connection that takes no byte for so long, like `60s`
    #[arg(long, value_name = "DURATION", default_value = "60s", help_heading = "Transfer")]
    timeout: humantime::Duration,
    /// A repository of the same registry that may have the blobs already
    #[arg(long, value_name = "REPOSITORY", help_heading = "Transfer")]
    mount_from: Option<String>,
    /// Give unfinished uploads back when interrupted, and take none up
    #[arg(long, help_heading = "Transfer")]
    no_resume: bool,
    /// An image at the same registry whose layers may be used again; may be repeated
    #[arg(long, value_name = "REFERENCE", help_heading = "Transfer")]
    reuse_from: Vec<String>,
    /// Encode every layer that the cache does not hold, whatever the destination has
    #[arg(long, help_heading = "Transfer")]
    no_reuse: bool,

    #[command(flatten)]
    cache: CacheArgs,

    #[command(flatten)]
    source_options: SourceArgs,
    /// Upload foreign layers too, such as the bases of Windows images
    #[arg(long, help_heading = "Source")]
    allow_nondistributable: bool,

    #[command(flatten)]
    creds: CredsArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    args.tags.iter().try_for_each(|tag| check_tag(tag))?;
    if args.creds.password_stdin && args.source == "-" {
        return Err(Error::usage("standard input cannot be the archive and the password")
            .with_hint("log in by a file: `--authfile FILE`"));
    }
    args.report.check()?;
    // A destination that cannot be is said before an archive of 50 GB is indexed.
    let disk = disk(args)?;
    let goal = match &disk {
        Some(disk) => Goal::One(vec![disk.reference(HERE)?]),
        None => Goal::new(args)?,
    };
    // Such a registry has another address each time.
    let embedded = disk.is_some() || args.into.is_some();
    let mut options = options(args, &goal.hosts(), embedded, context)?;
    options.shared_cache = args.cache.bucket(context)?;
    let rate_limit = rate_limit(args)?;
    // Before the password is read: standard input can be read once.
    let (spec, source_options) = args.source_options.locate(&args.source, &context.environment)?;
    let credentials =
        if embedded { Credentials::default() } else { args.creds.credentials(&args.access, context)? };
    let cache = args.cache.open(context)?;
    let progress = args.progress.begin(context);
    let press = Press::new(cache.clone(), progress.reporter());
    let input = detect::open(&spec, &source_options)?;
    if let Resume::Keep(unfinished) = &options.resume {
        unfinished.sweep();
    }
    let open = match &options.resume {
        Resume::GiveBack(open) => open.clone(),
        _ => OpenSessions::default(),
    };
    let goods = Goods { input, spec, press, options };
    let push = async {
        if let Some(disk) = &disk {
            return goods.put(args, goal, disk, rate_limit).await;
        }
        if let Some(dir) = &args.into {
            // Starting makes the folder.
            if args.dry_run && !dir.is_dir() {
                let words = format!("there is no folder `{}` yet: all would be sent", dir.display());
                return Err(Error::usage(words));
            }
            let work = async |client: Client| goods.ship(args, goal, |_| Ok(client.clone())).await;
            return with_registry(dir, rate_limit, work).await;
        }
        let client = |repository: &Repository| {
            let mut client_options = client_options(args, repository, credentials.clone(), context)?;
            client_options.rate_limit.clone_from(&rate_limit);
            Client::new(&repository.host, client_options)
        };
        goods.ship(args, goal, client).await
    };
    let ending = block_on_with_farewell(push, open.cancel());
    drop(progress);
    let ending = ending?;
    args.cache.trim(&cache, context);
    match ending {
        Ending::Finished(results) => report(args, results?, context),
        Ending::Interrupted(signal) => Ok(ExitStatus::Interrupted(signal)),
    }
}

/// Which images go where.
enum Goal {
    /// One, to each of these.
    One(Vec<Reference>),
    /// All of the source.
    All(Mirror),
}

impl Goal {
    fn new(args: &Args) -> Result<Self> {
        if !args.all {
            if !args.map.is_empty() {
                return Err(Error::usage("`--map` is for many images").with_hint("add `--all`"));
            }
            let parse = |text: &String| match &args.into {
                Some(_) => Reference::at(HERE, text),
                None => text.parse(),
            };
            return args.destinations.iter().map(parse).collect::<Result<_>>().map(Self::One);
        }
        let [prefix] = args.destinations.as_slice() else {
            return Err(Error::usage("`--all` takes one DEST: what stands before every name"));
        };
        if !args.tags.is_empty() {
            return Err(
                Error::usage("`--tag` is for one image").with_hint("with `--all` they bring their own")
            );
        }
        let mirror: Mirror = match &args.into {
            Some(_) if prefix == "." => HERE.parse()?,
            Some(_) => format!("{HERE}/{prefix}").parse()?,
            None => prefix.parse()?,
        };
        Ok(Self::All(Mirror { rules: args.map.clone(), ..mirror }))
    }

    fn hosts(&self) -> Vec<&str> {
        match self {
            Self::One(destinations) => destinations.iter().map(|to| to.repository.host.as_str()).collect(),
            Self::All(mirror) => vec![&mirror.host],
        }
    }
}

/// Returns the destination, if that is on disk.
fn disk(args: &Args) -> Result<Option<Disk>> {
    if args.into.is_some() {
        return Ok(None);
    }
    let found: Vec<_> =
        args.destinations.iter().filter_map(|text| Disk::parse(text).transpose()).collect::<Result<_>>()?;
    if !found.is_empty() && (args.destinations.len() > 1 || args.all) {
        return Err(Error::usage("a destination on disk stands alone, and takes one image"));
    }
    if !found.is_empty() && args.dry_run {
        return Err(Error::usage("`--dry-run` asks a registry, and DEST is none"));
    }
    Ok(found.into_iter().next())
}

/// Stands for the embedded registry until that has an address.
const HERE: &str = "127.0.0.1";

/// What is to be pushed.
struct Goods {
    input: Input,
    spec: SourceSpec,
    press: Press,
    options: Options,
}

/// What became of each image at each destination.
enum Done {
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
    async fn put(self, args: &Args, goal: Goal, disk: &Disk, rate_limit: Option<RateLimit>) -> Result<Done> {
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
    async fn ship(
        self,
        args: &Args,
        goal: Goal,
        client: impl Fn(&Repository) -> Result<Client>,
    ) -> Result<Done> {
        let Self { input, spec, press, options } = self;
        match goal {
            Goal::One(destinations) => {
                let target = |mut destination: Reference| {
                    let client = client(&destination.repository)?;
                    client.host().clone_into(&mut destination.repository.host);
                    Ok(Target { destination, tags: args.tags.clone(), client })
                };
                let targets: Vec<Target> = destinations.into_iter().map(target).collect::<Result<_>>()?;
                let names: Vec<_> =
                    targets.iter().map(|target| args.place(&target.destination.repository)).collect();
                let (names, push) = (names.into_iter(), Push { input, spec, targets, press, options });
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

fn report(args: &Args, done: Done, context: &Context) -> Result<ExitStatus> {
    match done {
        Done::Foreseen(outlooks) => dry_run::print(&outlooks, args.report.json, context),
        Done::Pushed(outcomes) => args.report.report(&outcomes, context),
    }
}

fn options(args: &Args, hosts: &[&str], embedded: bool, context: &Context) -> Result<Options> {
    let recipe = match args.compression {
        Recipe::Encode { encoding, .. } => Recipe::Encode { encoding, force: args.force_compression },
        Recipe::Keep if args.force_compression => {
            return Err(Error::usage("`--force-compression` does not say how")
                .with_hint("say it by `--compression gzip` or `--compression zstd`"));
        }
        Recipe::Keep => Recipe::Keep,
    };
    if args.format == Format::Docker && matches!(recipe.encoding(), Encoding::Zstd { .. }) {
        return Err(Error::usage("Docker's manifests have no zstd layers")
            .with_hint("leave `--format docker` out, or say `--compression gzip`"));
    }
    let mut reuse_from = Vec::new();
    for text in &args.reuse_from {
        let reference: Reference = text.parse()?;
        if let Some(other) = hosts.iter().find(|host| **host != reference.repository.host) {
            return Err(Error::usage(format!(
                "`--reuse-from` must be at the destination's registry `{other}`: `{reference}`"
            )));
        }
        reuse_from.push(reference);
    }
    let state = context.environment.state_dir();
    let resume = match &state {
        _ if embedded => Resume::Never,
        _ if args.no_resume => Resume::GiveBack(OpenSessions::default()),
        Some(dir) => Resume::Keep(Unfinished::new(&dir.join("uploads"))),
        None => Resume::Never,
    };
    Ok(Options {
        allow_nondistributable: args.allow_nondistributable,
        chunk_size: args.chunk_size.map(|size| size.as_u64()),
        format: args.format,
        jobs: args.jobs,
        learned: state.as_ref().map(|dir| Learned::new(&dir.join("hosts"))),
        mount_from: args.mount_from.clone(),
        platform: args.platform.clone(),
        recipe,
        reuse: !args.no_reuse && !args.force_compression,
        reuse_from,
        resume,
        retries: args.retries,
        sightings: state.map(|dir| Sightings::new(&dir.join("blobs"))).filter(|_| !embedded),
        ..Options::default()
    })
}

/// Makes the one limit that all destinations share.
fn rate_limit(args: &Args) -> Result<Option<RateLimit>> {
    let Some(rate) = args.limit_rate else { return Ok(None) };
    let rate = NonZero::new(rate.as_u64());
    let rate = rate.ok_or_else(|| Error::usage("`--limit-rate 0` lets nothing through"))?;
    Ok(Some(RateLimit::new(rate)))
}

fn client_options(
    args: &Args,
    repository: &Repository,
    credentials: Credentials,
    context: &Context,
) -> Result<ClientOptions> {
    let Repository { host, path } = repository;
    Ok(ClientOptions {
        timeout: Duration::from(args.timeout),
        retries: args.retries,
        credentials,
        ..args.access.options(host, path, context)?
    })
}
