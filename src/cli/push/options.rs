//! What was typed, as the library's options.

use std::{num::NonZero, time::Duration};

use longshore::{
    Error, Result,
    codec::{Encoding, Recipe},
    oci::{Reference, Repository},
    push::{Companions, Format, OpenSessions, Options, Resume},
    registry::{ClientOptions, Credentials, Learned, RateLimit, Sightings, Unfinished},
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
    let state = context.environment.state_dir();
    let resume = match &state {
        _ if embedded => Resume::Never,
        _ if args.no_resume => Resume::GiveBack(OpenSessions::default()),
        Some(dir) => Resume::Keep(Unfinished::new(&dir.join("uploads"))),
        None => Resume::Never,
    };
    let companions = match (args.referrers, args.remove_signatures) {
        (_, true) => Companions::Forget,
        (true, false) => Companions::Travel,
        (false, false) => Companions::Stay,
    };
    Ok(Options {
        allow_nondistributable: args.allow_nondistributable,
        chunk_size: args.chunk_size.map(|size| size.as_u64()),
        companions,
        format: args.format,
        if_exists: args.if_exists,
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
pub(super) fn rate_limit(args: &Args) -> Result<Option<RateLimit>> {
    let Some(rate) = args.limit_rate else { return Ok(None) };
    let rate = NonZero::new(rate.as_u64());
    let rate = rate.ok_or_else(|| Error::usage("`--limit-rate 0` lets nothing through"))?;
    Ok(Some(RateLimit::new(rate)))
}

pub(super) fn client_options(
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
