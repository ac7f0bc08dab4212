//! `longshore push`: what was typed becomes what the library needs.

mod disk;
mod goal;
mod list;
mod options;
mod order;
mod ship;

use std::path::PathBuf;

use longshore::{
    Error, Result,
    oci::Platform,
    push::{IfExists, Rule, runtime::Ending},
};

use self::{
    order::{Order, Shared},
    ship::report,
};
use super::{
    Context, ExitStatus,
    options::{
        access::{AccessArgs, CredsArgs},
        cache::CacheArgs,
        recipe::RecipeArgs,
        source::SourceArgs,
        transfer::TransferArgs,
        value::{one_of, repository, typed},
    },
    progress::ProgressArgs,
    report::ReportArgs,
};

/// Push an image to a registry
///
/// Prints `registry/repository@sha256:…` on standard output and nothing else there. Nothing is tagged before
/// the registry has confirmed every blob.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches are what a command line has")]
#[command(override_usage = "longshore push [OPTIONS] <SOURCE> <DEST>... | --list <FILE>")]
#[command(after_help = "Examples:
  longshore push ./layout registry.example.com/demo:1 --tag latest
  longshore push containers-storage:localhost/demo:1 registry.example.com/demo:1
  longshore push --all images.tar registry.example.com/mirror
  longshore push --list images.yaml
  longshore push --index amd64.tar arm64.tar registry.example.com/demo:1
  longshore push image.tar registry.example.com/demo:1 --dry-run
  longshore push image.tar demo:1 --into ./registry")]
pub(super) struct Args {
    /// A folder or archive that holds images, or podman's, Docker's or containerd's own storage:
    /// PATH[:REF|@DIGEST|:@N], or with a transport in front
    #[arg(value_name = "SOURCE", required = true)]
    source: Option<String>,
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
    /// Do the pushes of this list, YAML or a line of JSON for each; `-` is standard input. An entry has `source` and
    /// `destinations`, and may have `tags`, `platform` and `compression`; what it does not say is as on the command line.
    /// All of it is checked before anything is sent. If the run is interrupted or something fails, the next one within a
    /// week leaves out what is done and unchanged, without asking the registry; once all is done, all is asked again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "destinations", "all", "map", "index"])]
    list: Option<String>,
    /// Push only this platform of a multi-platform image: OS/ARCH[/VARIANT]
    #[arg(long, value_parser = typed::<Platform>)]
    platform: Option<Platform>,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Push behind the image what SOURCE holds about it, unaltered: signatures, SBOMs, attestations (`--all` does)
    #[arg(long)]
    referrers: bool,
    /// Leave behind what SOURCE holds about the image. Without this, one for which it would hold no more is refused
    #[arg(long, conflicts_with = "referrers")]
    remove_signatures: bool,
    /// overwrite, skip or fail: what becomes of tags that are there already. They are asked for before anything is sent;
    /// somebody else may still come in between
    #[arg(long, value_name = "HOW", default_value = "overwrite", hide_possible_values = true)]
    #[arg(value_parser = one_of::<IfExists>(&["overwrite", "skip", "fail"]))]
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

    #[command(flatten)]
    transfer: TransferArgs,
    /// A repository of the same registry that may have the blobs already
    #[arg(long, value_name = "REPOSITORY", help_heading = "Transfer", value_parser = repository)]
    mount_from: Option<String>,
    /// Give unfinished uploads back when interrupted, and take none up; do all of a list
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
    if let Some(list) = &args.list {
        return list::run(list, args, context);
    }
    if args.creds.password_stdin && args.sources().contains(&"-") {
        return Err(Error::usage("standard input cannot be the archive and the password")
            .with_hint("log in by a file: `--authfile FILE`"));
    }
    args.report.check()?;
    // Before the password is read: standard input can be read once.
    let order = Order::new(args, context)?;
    let shared = Shared::begin(args, order.is_embedded(), context)?;
    let sources = order.open()?;
    let push = async |shared: &Shared<'_>| order.carry_out(sources, shared, context).await;
    match shared.run(push)? {
        Ending::Finished(results) => report(args, results?, context),
        Ending::Interrupted(signal) => Ok(ExitStatus::Interrupted(signal)),
    }
}
