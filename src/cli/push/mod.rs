//! `longshore push`: what was typed becomes what the library needs.

mod goal;
mod options;
mod ship;

use std::path::PathBuf;

use bytesize::ByteSize;
use longshore::{
    Error, Result,
    codec::Recipe,
    oci::{Platform, Repository, reference::check_tag},
    push::{
        Format, IfExists, OpenSessions, Part, Press, Resume, Rule,
        runtime::{Ending, block_on_with_farewell},
    },
    registry::{Client, Credentials},
    source::{SourceSpec, detect},
};

use self::{
    goal::{Goal, HERE, disk},
    options::{client_options, options, rate_limit},
    ship::{Goods, report},
};
use super::{
    Context, ExitStatus,
    access::{AccessArgs, CredsArgs},
    cache::CacheArgs,
    embedded::with_registry,
    progress::ProgressArgs,
    report::ReportArgs,
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
  longshore push containers-storage:localhost/demo:1 registry.example.com/demo:1
  longshore push --all images.tar registry.example.com/mirror
  longshore push --index amd64.tar arm64.tar registry.example.com/demo:1
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
    /// Push one multi-platform index of several sources: SOURCE… DEST. A source's platform is what its config says; one
    /// that is an index gives its children
    #[arg(long)]
    index: bool,
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
    /// Push behind the image what SOURCE holds about it, unaltered: signatures, SBOMs, attestations (`--all` does)
    #[arg(long)]
    referrers: bool,
    /// Leave behind what SOURCE holds about the image. Without this, one for which it would hold no more is refused
    #[arg(long, conflicts_with = "referrers")]
    remove_signatures: bool,
    /// overwrite, skip or fail: what becomes of tags that are there already. They are asked for before anything is sent;
    /// somebody else may still come in between
    #[arg(long, value_name = "HOW", default_value = "overwrite", value_parser = typed::<IfExists>)]
    if_exists: IfExists,
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
    if args.creds.password_stdin && args.sources().contains(&"-") {
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
    let located =
        args.sources().into_iter().map(|source| args.source_options.locate(source, &context.environment));
    let located: Vec<_> = located.collect::<Result<_>>()?;
    let credentials =
        if embedded { Credentials::default() } else { args.creds.credentials(&args.access, context)? };
    let cache = args.cache.open(context)?;
    let progress = args.progress.begin(context);
    let press = Press::new(cache.clone(), progress.reporter());
    let open = |(spec, options): (SourceSpec, _)| Ok(Part { input: detect::open(&spec, &options)?, spec });
    let parts: Vec<Part> = located.into_iter().map(open).collect::<Result<_>>()?;
    if let Resume::Keep(unfinished) = &options.resume {
        unfinished.sweep();
    }
    let open = match &options.resume {
        Resume::GiveBack(open) => open.clone(),
        _ => OpenSessions::default(),
    };
    let goods = Goods { parts, press, options };
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
