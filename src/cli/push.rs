//! `longshore push`: what was typed becomes what the library needs.

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use longshore::{
    Error, ErrorKind, Result,
    codec::{Encoding, Recipe},
    oci::{Platform, Reference, Repository, reference::check_tag},
    push::{
        Format, OpenSessions, Options, Press, Push, Pushed, Resume, Target,
        runtime::{Ending, block_on_with_farewell},
    },
    registry::{
        Client, ClientOptions, Credential, Credentials, Learned, RateLimit, Secret, Sightings, Unfinished,
    },
    server::{self, Access, Server},
    source::detect,
};
use rand::RngExt as _;

use super::{
    Context, ExitStatus,
    access::{AccessArgs, CredsArgs},
    cache::CacheArgs,
    progress::ProgressArgs,
    source::SourceArgs,
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
  longshore push image.tar demo:1 --into ./registry")]
pub(super) struct Args {
    /// A folder or archive that holds images, or podman's, Docker's or containerd's own storage:
    /// PATH[:REF|@DIGEST|:@N], or with a transport in front
    #[arg(value_name = "SOURCE")]
    source: String,
    /// registry/repository[:tag][@digest]; without a tag, `latest`; may be several
    #[arg(value_name = "DEST", required = true)]
    destinations: Vec<String>,
    /// One more tag for the image; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Push only this platform of a multi-platform image: OS/ARCH[/VARIANT]
    #[arg(long)]
    platform: Option<Platform>,
    /// keep, gzip[:LEVEL], zstd[:LEVEL] or none: how layers are encoded. `keep` alters nothing that a manifest in
    /// the source names, and makes other plain layers gzip
    #[arg(long, value_name = "HOW", default_value = "keep")]
    compression: Recipe,
    /// Encode layers too that are in that encoding already
    #[arg(long)]
    force_compression: bool,
    /// auto, oci or docker: the manifest's family; `auto` keeps the source's
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    format: Format,
    /// Push through the embedded registry into this folder: no registry needed
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Write the manifest's digest to this file
    #[arg(long, value_name = "FILE", alias = "digestfile")]
    digest_file: Option<PathBuf>,
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
    // A destination that cannot be is said before an archive of 50 GB is indexed.
    let destinations = destinations(args)?;
    let mut options = options(args, &destinations, context)?;
    options.shared_cache = args.cache.bucket(context)?;
    let rate_limit = rate_limit(args)?;
    // Before the password is read: standard input can be read once.
    let (spec, source_options) = args.source_options.locate(&args.source, &context.environment)?;
    let credentials = match &args.into {
        Some(_) => Credentials::default(),
        None => args.creds.credentials(&args.access, context)?,
    };
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
    let push = async {
        let to = |targets| Push { input, spec, targets, press, options }.run();
        if let Some(dir) = &args.into {
            return push_into(args, dir, destinations, rate_limit, to).await;
        }
        let target = |destination: Reference| {
            let mut client_options = client_options(args, &destination, credentials.clone(), context)?;
            client_options.rate_limit.clone_from(&rate_limit);
            let client = Client::new(&destination.repository.host, client_options)?;
            Ok(Target { destination, tags: args.tags.clone(), client })
        };
        let targets: Vec<Target> = destinations.into_iter().map(target).collect::<Result<_>>()?;
        let names: Vec<_> = targets.iter().map(|target| target.destination.repository.to_string()).collect();
        Ok(names.into_iter().zip(to(targets).await?).collect())
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

/// What became of each destination.
type Results = Vec<(String, Result<Pushed>)>;

/// Says where the image has arrived, and where it has not.
fn report(args: &Args, results: Results, context: &Context) -> Result<ExitStatus> {
    let mut failed = Vec::new();
    let several = results.len() > 1;
    for (name, result) in results {
        match result {
            Ok(pushed) => {
                if let Some(file) = &args.digest_file {
                    fs_err::write(file, pushed.digest.to_string())
                        .map_err(|error| Error::local("writing the digest file").because(error))?;
                }
                context.printer.result(&format!("{name}@{}", pushed.digest))?;
            }
            Err(error) => failed.push((name, error)),
        }
    }
    let Some((_, last)) = failed.last() else { return Ok(ExitStatus::Success) };
    if !several {
        return Err(last.clone());
    }
    let names: Vec<_> = failed.iter().map(|(name, _)| format!("`{name}`")).collect();
    let summary = Error::new(ErrorKind::Partial, format!("not pushed to {}", names.join(", ")));
    for (_, error) in &failed {
        context.printer.failure(error);
    }
    Err(summary)
}

fn destinations(args: &Args) -> Result<Vec<Reference>> {
    let parse = |text: &String| match &args.into {
        Some(_) => Reference::at("127.0.0.1", text),
        None => text.parse(),
    };
    args.destinations.iter().map(parse).collect()
}

fn options(args: &Args, destinations: &[Reference], context: &Context) -> Result<Options> {
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
        if let Some(other) = destinations.iter().find(|to| to.repository.host != reference.repository.host) {
            return Err(Error::usage(format!(
                "`--reuse-from` must be at the destination's registry `{}`: `{reference}`",
                other.repository.host
            )));
        }
        reuse_from.push(reference);
    }
    let state = context.environment.state_dir();
    let resume = match &state {
        // The embedded registry's address is another each time.
        _ if args.into.is_some() => Resume::Never,
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
        sightings: state.map(|dir| Sightings::new(&dir.join("blobs"))).filter(|_| args.into.is_none()),
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

/// Starts the embedded registry for the time of one push. Nobody else on this machine can use it: it asks for
/// a password that only this process knows.
async fn push_into(
    args: &Args,
    dir: &Path,
    destinations: Vec<Reference>,
    rate_limit: Option<RateLimit>,
    to: impl AsyncFnOnce(Vec<Target>) -> Result<Vec<Result<Pushed>>>,
) -> Result<Results> {
    let user = "longshore";
    let password = random_password();
    let server = Server::start(server::Options {
        access: Access::basic(user, &password),
        ..server::Options::new(dir)
    })
    .await?;
    let host = server.address().to_string();
    let mut options = ClientOptions { rate_limit, ..ClientOptions::default() };
    let login = Credential::Login { user: user.to_owned(), password: Secret::new(password) };
    options.credentials.give("the embedded registry", login);
    let client = Client::new(&host, options)?;
    let names: Vec<_> =
        destinations.iter().map(|to| dir.join(&to.repository.path).display().to_string()).collect();
    let target = |mut destination: Reference| {
        destination.repository.host.clone_from(&host);
        Target { destination, tags: args.tags.clone(), client: client.clone() }
    };
    let results = to(destinations.into_iter().map(target).collect()).await;
    server.stop().await;
    Ok(names.into_iter().zip(results?).collect())
}

fn random_password() -> String {
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(32).map(char::from).collect()
}

fn client_options(
    args: &Args,
    destination: &Reference,
    credentials: Credentials,
    context: &Context,
) -> Result<ClientOptions> {
    let Repository { host, path } = &destination.repository;
    Ok(ClientOptions {
        timeout: Duration::from(args.timeout),
        retries: args.retries,
        credentials,
        ..args.access.options(host, path, context)?
    })
}
