//! `longshore logout`: logins are forgotten, by the file and by the helper that keep them.

use longshore::{
    Error, Result,
    push::runtime::{Ending, block_on},
    registry::{credentials::auth_file::Key, login::LoginFile},
};

use super::{Context, ExitStatus, login::registry, options::access::FileArgs};

/// Log out of a registry
///
/// Removes what `longshore login` and `podman login` keep.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The registry, or a namespace of it: HOST[:PORT][/PATH]
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    registry: Option<String>,
    /// Log out of every registry
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    files: FileArgs,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    let path = args.files.login_file(&context.environment)?;
    let file = LoginFile::open(&path)?;
    let keys = match &args.registry {
        Some(text) => vec![registry(text)?],
        None => file.keys(),
    };
    let ending = block_on(file.log_out(&keys))?;
    let forgotten = match ending {
        Ending::Finished(forgotten) => forgotten?,
        Ending::Interrupted(signal) => return Ok(ExitStatus::Interrupted(signal)),
    };
    if forgotten.is_empty() && !args.all {
        let asked = keys.first().map(Key::to_string).unwrap_or_default();
        let error = Error::usage(format!("`{}` holds no login for `{asked}`", path.display()));
        return Err(elsewhere(args, &keys, context).into_iter().fold(error, Error::with_hint));
    }
    for key in &forgotten {
        context.printer.status(&format!("logged out of {key}"));
    }
    for hint in elsewhere(args, &forgotten, context) {
        context.printer.warning(&hint);
    }
    Ok(ExitStatus::Success)
}

/// Says which other files would still let one in.
fn elsewhere(args: &Args, keys: &[Key], context: &Context) -> Vec<String> {
    let files = args.files.auth_files(&context.environment).into_iter().skip(1);
    let others = files.filter_map(|path| Some((LoginFile::open(&path).ok()?.keys(), path)));
    others
        .filter(|(known, _)| keys.iter().any(|key| known.contains(key)))
        .map(|(_, path)| format!("there is one in `{0}`: `longshore logout --authfile {0}`", path.display()))
        .collect()
}
