//! What was typed, as the library's options.

use longshore::{
    Error, Result,
    codec::{Encoding, Recipe},
    oci::Reference,
    push::{Companions, Format, OpenSessions, Options, Resume},
};

use super::{super::Context, Args};

pub(super) fn options(args: &Args, hosts: &[&str], embedded: bool, context: &Context) -> Result<Options> {
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
    let usual = args.transfer.options(context);
    let resume = match usual.resume {
        _ if embedded => Resume::Never,
        _ if args.no_resume => Resume::GiveBack(OpenSessions::default()),
        resume => resume,
    };
    let companions = match (args.referrers, args.remove_signatures) {
        (_, true) => Companions::Forget,
        (true, false) => Companions::Travel,
        (false, false) => Companions::Stay,
    };
    Ok(Options {
        allow_nondistributable: args.allow_nondistributable,
        companions,
        format: args.format,
        if_exists: args.if_exists,
        mount_from: args.mount_from.clone(),
        platform: args.platform.clone(),
        recipe,
        reuse: !args.no_reuse && !args.force_compression,
        reuse_from,
        resume,
        sightings: usual.sightings.filter(|_| !embedded),
        ..usual
    })
}
