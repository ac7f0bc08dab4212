//! What was typed, as the library's options.

use longshore::{
    Error, Result,
    oci::Reference,
    push::{Companions, OpenSessions, Options, Resume},
};

use super::{super::Context, Args};

pub(super) fn options(args: &Args, hosts: &[&str], embedded: bool, context: &Context) -> Result<Options> {
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
        // The embedded registry has another address each time: nobody could go on.
        _ if embedded || args.no_resume => Resume::GiveBack(OpenSessions::default()),
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
        format: args.recipe.format,
        if_exists: args.if_exists,
        mount_from: args.mount_from.clone(),
        platform: args.platform.clone(),
        recipe: args.recipe.recipe()?,
        reuse: !args.no_reuse && !args.recipe.force_compression,
        reuse_from,
        resume,
        // A port of its own each time, of which nobody hears again.
        learned: usual.learned.filter(|_| !embedded),
        sightings: usual.sightings.filter(|_| !embedded),
        ..usual
    })
}
