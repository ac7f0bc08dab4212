//! `longshore bundle`: images of any sources in one OCI archive, for places that no line leads to.

use std::path::PathBuf;

use bytesize::ByteSize;
use longshore::{
    Error, Result,
    error::counted,
    layout::write::replaceable,
    oci::{Descriptor, Platform},
    push::{
        Bundle, Bundled, BundledImage, Companions, Opened, Options,
        inventory::Base,
        runtime::{Ending, block_on},
    },
    source::detect,
};
use serde_json::{Value, json};

use super::{
    Context, ExitStatus,
    options::{
        cache::CacheArgs,
        recipe::RecipeArgs,
        source::SourceArgs,
        value::{size, typed},
    },
    pressing::Pressing,
    progress::ProgressArgs,
};

/// Write images into one OCI archive, for the far side of an air gap
///
/// All images of each SOURCE, with their signatures and attestations, under the names that they have there; each blob
/// once. The same sources in the same order make the same bytes. `longshore push --all FILE` pushes them on the far
/// side; podman and skopeo read single ones, `oci-archive:FILE:NAME`. Prints `oci-archive:FILE@sha256:…` for each.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  longshore bundle -o images.oci.tar app.tar containers-storage:localhost/demo:1
  longshore inventory registry.example.com > have.json
  longshore bundle -o delta.oci.tar --base have.json app.tar
  longshore bundle -o images.oci.tar --split 4GB app.tar")]
pub(super) struct Args {
    /// Places that hold images: PATH[:REF|@DIGEST|:@N], or with a transport in front. Without REF, all of their images
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
    /// The archive to write; one that is there is replaced when the new one is whole
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Leave out what a site has, by an inventory of `longshore inventory`; may be repeated
    #[arg(long, value_name = "FILE")]
    base: Vec<PathBuf>,
    /// Write parts of this size, FILE.000 and so on, and FILE.parts, which lists them and is what is pushed. FAT takes
    /// `4GB`, a DVD `4.7GB`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    split: Option<ByteSize>,
    /// Only this platform of multi-platform images: OS/ARCH[/VARIANT]
    #[arg(long, value_parser = typed::<Platform>)]
    platform: Option<Platform>,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Leave behind what SOURCE holds about its images. Without this, one for which it would hold no more is refused
    #[arg(long)]
    remove_signatures: bool,
    /// Print the result as one JSON document
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    pub(super) progress: ProgressArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    source_options: SourceArgs,
    /// Put foreign layers in too, such as the bases of Windows images
    #[arg(long, help_heading = "Source")]
    allow_nondistributable: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    if args.split.is_some_and(|size| size.as_u64() == 0) {
        return Err(Error::usage("parts of no size hold nothing"));
    }
    // Said before anything is encoded.
    replaceable(&args.output)?;
    let options = Options {
        allow_nondistributable: args.allow_nondistributable,
        companions: if args.remove_signatures { Companions::Forget } else { Companions::Travel },
        format: args.recipe.format,
        platform: args.platform.clone(),
        recipe: args.recipe.recipe()?,
        shared_cache: args.cache.bucket(context)?,
        ..Options::default()
    };
    let mut base = Base::default();
    args.base.iter().try_for_each(|file| base.read(file))?;
    let mut located = Vec::new();
    for source in &args.sources {
        located.push(args.source_options.locate(source, &context.environment)?);
    }
    let pressing = Pressing::begin(&args.cache, &args.progress, context)?;
    let mut sources = Vec::new();
    for (spec, options) in located {
        sources.push(Opened { input: detect::open(&spec, &options)?, spec });
    }
    let split = args.split.map(|size| size.as_u64());
    let press = pressing.press.clone();
    let bundle = Bundle { sources, file: args.output.clone(), split, base, press, options };
    match pressing.end(block_on(bundle.write()))? {
        Ending::Finished(bundled) => report(args, &bundled?, context),
        Ending::Interrupted(signal) => Ok(ExitStatus::Interrupted(signal)),
    }
}

fn report(args: &Args, bundled: &Bundled, context: &Context) -> Result<ExitStatus> {
    let Bundled { file, size, blobs, images, left_out } = bundled;
    let printer = context.printer;
    if args.json {
        let document = json!({
            "file": file.display().to_string(),
            "size": size,
            "blobs": blobs,
            "images": images.iter().map(|image| image_json(bundled, image)).collect::<Vec<_>>(),
            "leftOut": left_out,
        });
        printer.json(&document)?;
    } else {
        for image in images {
            printer.result(&reference(bundled, &image.root))?;
        }
    }
    let blobs = counted(*blobs, "blob");
    printer.status(&format!("wrote `{}`: {blobs}, {}", file.display(), ByteSize(*size)));
    if !left_out.is_empty() {
        let bytes = left_out.iter().map(|blob| blob.size).sum();
        let left_out = counted(left_out.len(), "blob");
        printer.status(&format!("left out {left_out}, which the site has: {}", ByteSize(bytes)));
    }
    Ok(ExitStatus::Success)
}

/// Describes an image for machines. Keys may be added; those that are there stay.
fn image_json(bundled: &Bundled, image: &BundledImage) -> Value {
    json!({
        "names": image.names,
        "reference": reference(bundled, &image.root),
        "digest": image.root.digest,
        "mediaType": image.root.media_type,
        "size": image.root.size,
    })
}

/// Returns an image as a source.
fn reference(bundled: &Bundled, root: &Descriptor) -> String {
    format!("oci-archive:{}@{}", bundled.file.display(), root.digest)
}
