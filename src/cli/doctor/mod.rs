//! `longshore doctor`: what a registry is found to be, and what a push to it would do.

mod json;
mod lines;

use std::time::Duration;

use bytesize::ByteSize;
use longshore::{
    Error, ErrorKind, Result,
    push::{
        Options,
        runtime::{Ending, block_on_with_farewell},
    },
    registry::{
        Client, ClientOptions, Learned, Probe,
        auth::Challenge,
        hosts::learned::Kept,
        probe::{Contact, Trial},
        session::Settings,
    },
};

use super::{
    Context, ExitStatus,
    login::registry,
    options::{
        access::{AccessArgs, CredsArgs},
        value::{more_than_nothing, size_of_something},
    },
};

/// Say what a registry does, and what a push to it would do
///
/// Without a repository it only reads. With one it opens an upload there, sends up to 128 MiB of zeros to see which
/// requests go through, and gives the upload back: no blob and no tag is made. The limits that it meets with are
/// remembered for the next push. The exit code is that of a push: 0 if one should work.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  longshore doctor registry.example.com
  longshore doctor registry.example.com/team/demo
  longshore doctor --json localhost:5000/demo | jq .push.chunkSize")]
pub(super) struct Args {
    /// The registry, or a repository that may be tried: HOST[:PORT][/PATH]
    registry: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Large blobs that a push would send at once
    #[arg(long, value_name = "N", default_value_t = 6, help_heading = "Transfer")]
    #[arg(value_parser = more_than_nothing::<usize>)]
    jobs: usize,
    /// Chunks that a push would be told to send
    #[arg(long, value_name = "SIZE", help_heading = "Transfer")]
    #[arg(value_parser = size_of_something)]
    chunk_size: Option<ByteSize>,
    /// Give up on a connection that takes no byte for so long, like `60s`
    #[arg(long, value_name = "DURATION", default_value = "60s", help_heading = "Transfer")]
    #[arg(value_parser = more_than_nothing::<humantime::Duration>)]
    timeout: humantime::Duration,
    #[command(flatten)]
    creds: CredsArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Everything that was found out.
struct Report {
    host: String,
    repository: Option<String>,
    insecure: bool,
    contact: Option<Contact>,
    /// What the registry asked for, and what it was or would be shown.
    challenge: Option<Challenge>,
    account: String,
    kept: Option<Kept>,
    trial: Option<Trial>,
    settings: Settings,
    jobs: usize,
    /// Why a push would fail.
    failure: Option<Error>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    let report = match examine(args, context)? {
        Ending::Finished(report) => report,
        Ending::Interrupted(signal) => return Ok(ExitStatus::Interrupted(signal)),
    };
    if args.json {
        context.printer.json(&report.json())?;
    } else {
        report.lines().iter().try_for_each(|line| context.printer.result(line))?;
    }
    match report.failure {
        None => Ok(ExitStatus::Success),
        // Where a repository is named this is said already.
        Some(error) if error.kind() == ErrorKind::Denied && report.repository.is_none() => {
            Err(error.with_hint(format!("log in by `longshore login {}`", report.host)))
        }
        Some(error) => Err(error),
    }
}

/// Finds everything out, and remembers the limits.
fn examine(args: &Args, context: &Context) -> Result<Ending<Report>> {
    let key = registry(&args.registry)?;
    let (host, path) = (key.host(), key.path());
    let access = args.access.options(host, path, context)?;
    let insecure = access.insecure;
    let credentials = args.creds.credentials(&args.access, context)?;
    let timeout = Duration::from(args.timeout);
    let client = Client::new(host, ClientOptions { credentials, timeout, retries: 1, ..access })?;
    let learned = context.environment.state_dir().map(|dir| Learned::new(&dir.join("hosts")));
    let push = Options {
        chunk_size: args.chunk_size.map(|size| size.as_u64()),
        jobs: args.jobs,
        learned: learned.clone(),
        ..Options::default()
    };
    let settings = push.settings(&client, true);
    let repository = Some(path.to_owned()).filter(|path| !path.is_empty());
    let probe = repository.as_ref().map(|path| Probe::new(client.clone(), path));
    let (mut contact, mut trial) = (None, None);
    let examination = async {
        contact = Some(client.contact(path).await?);
        if let Some(probe) = &probe {
            trial = Some(probe.run(&settings).await?);
        }
        Ok(())
    };
    let farewell = async {
        if let Some(probe) = &probe {
            // Who interrupts has no ear for it.
            drop(probe.give_back().await);
        }
    };
    let failure = match block_on_with_farewell(examination, farewell)? {
        Ending::Finished(found) => found.err(),
        Ending::Interrupted(signal) => return Ok(Ending::Interrupted(signal)),
    };
    if let (Some(learned), Some(Trial { lesson, .. })) = (&learned, &trial) {
        learned.teach(host, *lesson);
    }
    Ok(Ending::Finished(Report {
        host: host.to_owned(),
        repository,
        insecure,
        contact,
        challenge: client.challenge(),
        account: client.credential_source(path),
        kept: learned.and_then(|learned| learned.kept(host)),
        trial,
        settings,
        jobs: args.jobs,
        failure,
    }))
}

impl Report {
    /// Returns the size of the chunks that a push begins with.
    fn chunk(&self) -> u64 {
        self.trial.as_ref().map_or_else(|| self.settings.chunk(), |trial| trial.chunk)
    }

    /// Returns whether they have to be of one size.
    fn equal_parts(&self) -> bool {
        let known = self.settings.profile.equal_parts || self.settings.lesson.equal_parts;
        self.trial.as_ref().map_or(known, |trial| trial.equal_parts)
    }
}

/// Says how the registry asks who somebody is.
fn scheme(challenge: &Challenge) -> String {
    match challenge {
        Challenge::Basic => "by password".to_owned(),
        Challenge::Bearer { realm, .. } => {
            format!("by token of {}", realm.host_str().unwrap_or_default())
        }
    }
}

fn milliseconds_of(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}
