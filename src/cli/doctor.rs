//! `longshore doctor`: what a registry is found to be, and what a push to it would do; one finding a line.

use std::time::Duration;

use bytesize::ByteSize;
use longshore::{
    Error, ErrorKind, Result,
    error::{chain, counted},
    push::{
        Options,
        runtime::{Ending, block_on_with_farewell},
    },
    registry::{
        Client, ClientOptions, Learned, Probe,
        auth::Challenge,
        hosts::{Profile, learned::Kept},
        probe::{Contact, Trial, Verdict},
        session::Settings,
    },
};
use serde_json::{Value, json};

use super::{
    Context, ExitStatus,
    login::registry,
    options::{
        access::{AccessArgs, CredsArgs},
        value::{more_than_nothing, size_of_something},
    },
    output::table::{self, Column},
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
    let probe = (!path.is_empty()).then(|| Probe::new(client.clone(), path));
    let examination = async {
        let contact = client.contact(path).await?;
        let trial = match &probe {
            Some(probe) => Some(probe.run(&settings).await),
            None => None,
        };
        Ok((contact, trial.transpose()))
    };
    let farewell = async {
        if let Some(probe) = &probe {
            // Who interrupts has no ear for it.
            drop(probe.give_back().await);
        }
    };
    let found = match block_on_with_farewell(examination, farewell)? {
        Ending::Finished(found) => found,
        Ending::Interrupted(signal) => return Ok(ExitStatus::Interrupted(signal)),
    };
    let (contact, trial, failure) = match found {
        Ok((contact, Ok(trial))) => (Some(contact), trial, None),
        Ok((contact, Err(failure))) => (Some(contact), None, Some(failure)),
        Err(failure) => (None, None, Some(failure)),
    };
    if let (Some(learned), Some(trial)) = (&learned, &trial) {
        learned.teach(host, trial.lesson);
    }
    let report = Report {
        host: host.to_owned(),
        repository: (!path.is_empty()).then(|| path.to_owned()),
        insecure,
        contact,
        challenge: client.challenge(),
        account: client.credential_source(path),
        kept: learned.and_then(|learned| learned.kept(host)),
        trial,
        settings,
        jobs: args.jobs,
        failure,
    };
    if args.json {
        context.printer.json(&report.json())?;
    } else {
        report.table().iter().try_for_each(|line| context.printer.result(line))?;
    }
    match report.failure {
        None => Ok(ExitStatus::Success),
        // Where a repository is named this is said already.
        Some(error) if error.kind() == ErrorKind::Denied && path.is_empty() => {
            Err(error.with_hint(format!("log in by `longshore login {host}`")))
        }
        Some(error) => Err(error),
    }
}

impl Report {
    fn table(&self) -> Vec<String> {
        let rows: Vec<_> = self.lines().into_iter().map(|(name, words)| [name.to_owned(), words]).collect();
        table::lines("", [Column::Words; 2], &rows, None)
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("registry", self.host.clone())];
        match &self.contact {
            Some(contact) => {
                let server =
                    contact.server.as_ref().map(|server| format!(", by {server}")).unwrap_or_default();
                let trip = milliseconds(contact.round_trip);
                let Contact { url, version, .. } = contact;
                lines.push(("reached", format!("{url}, {version}, {trip} a round trip{server}")));
                lines.push(("tls", self.tls(contact).to_owned()));
            }
            // Who turns us away has been reached.
            None if self.challenge.is_some() => lines.push(("reached", "yes, and not let in".to_owned())),
            None => lines.push(("reached", "no".to_owned())),
        }
        if self.contact.is_some() || self.challenge.is_some() {
            lines.push(("login", self.login()));
        }
        lines.push(("profile", profile(&self.settings.profile)));
        lines.push(("learned", learned(self.kept.as_ref())));
        if let Some(repository) = &self.repository {
            lines.push(("repository", repository.clone()));
        }
        if let Some(trial) = &self.trial {
            lines.push(("upload", format!("allowed{}", advertised(trial))));
            lines.push(("bodies", bodies(trial)));
            lines.extend([
                ("several chunks", words(&trial.chunks)),
                ("unequal chunks", words(&trial.unequal)),
                ("range", words(&trial.range)),
                ("status", words(&trial.status)),
                ("mount", words(&trial.mount)),
                ("referrers", words_or(&trial.referrers, "a push keeps the list under a tag")),
                ("many tags", words(&trial.many_tags)),
                ("cleaned up", words_or(&trial.cleaned_up, "registries drop old uploads by themselves")),
            ]);
        }
        lines.push(("push", self.push()));
        lines
    }

    fn tls(&self, contact: &Contact) -> &'static str {
        match (contact.tls, self.insecure) {
            (false, _) => "no, plain HTTP",
            (true, false) => "yes, its certificate is trusted",
            (true, true) => "yes, nobody looks at its certificate",
        }
    }

    fn login(&self) -> String {
        match (&self.challenge, &self.failure) {
            (None, _) => "not asked for".to_owned(),
            (Some(challenge), Some(error)) if error.kind() == ErrorKind::Denied => {
                format!("{}: not let in; {}", scheme(challenge), self.account)
            }
            (Some(challenge), _) => format!("{}: {}", scheme(challenge), self.account),
        }
    }

    /// Says what a push would do.
    fn push(&self) -> String {
        if let Some(failure) = &self.failure {
            return format!("fails, exit code {}", failure.kind().exit_code());
        }
        let jobs = format!("{} large blobs at once", self.jobs);
        if self.settings.profile.monolithic {
            return format!("each blob in one piece, {jobs}");
        }
        let parts = if self.equal_parts() { " of one size" } else { "" };
        format!("chunks of {}{parts}, {jobs}", ByteSize(self.chunk()))
    }

    fn chunk(&self) -> u64 {
        self.trial.as_ref().map_or_else(|| self.settings.chunk(), |trial| trial.chunk)
    }

    fn equal_parts(&self) -> bool {
        let known = self.settings.profile.equal_parts || self.settings.lesson.equal_parts;
        self.trial.as_ref().map_or(known, |trial| trial.equal_parts)
    }

    /// Describes everything for machines. Keys may be added; those that are there stay.
    fn json(&self) -> Value {
        let profile = &self.settings.profile;
        json!({
            "registry": self.host,
            "repository": self.repository,
            "contact": self.contact.as_ref().map(|contact| json!({
                "url": contact.url,
                "tls": contact.tls,
                "trusted": contact.tls && !self.insecure,
                "version": contact.version,
                "server": contact.server,
                "roundTripMillis": milliseconds_of(contact.round_trip),
            })),
            "login": {
                "scheme": self.challenge.as_ref().map(scheme),
                "account": self.account,
            },
            "profile": {
                "name": profile.name,
                "chunkSize": profile.chunk_size,
                "maxChunk": profile.max_chunk,
                "equalParts": profile.equal_parts,
                "monolithic": profile.monolithic,
                "trustRange": profile.trust_range,
                "status": profile.status,
            },
            "learned": self.kept.map(|kept| json!({
                "bodyLimit": kept.lesson.body_limit,
                "seemingLimit": kept.lesson.seeming_limit,
                "seemingLimitExpiresSeconds": kept.seeming_left.as_secs(),
                "equalParts": kept.lesson.equal_parts,
                "limitsExpireSeconds": kept.limits_left.as_secs(),
                "bytesPerSecond": kept.lesson.rate,
                "roundTripMicros": kept.lesson.round_trip,
                "speedExpiresSeconds": kept.speed_left.as_secs(),
            })),
            "trial": self.trial.as_ref().map(trial_json),
            "push": {
                "works": self.failure.is_none(),
                "chunkSize": (!profile.monolithic).then(|| self.chunk()),
                "equalParts": self.equal_parts(),
                "jobs": self.jobs,
            },
            "failure": self.failure.as_ref().map(|failure| json!({
                "exitCode": failure.kind().exit_code(),
                "message": chain(failure),
                "hints": failure.hints(),
            })),
        })
    }
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Yes => "yes".to_owned(),
        Verdict::No(why) => format!("no: {why}"),
        Verdict::Unknown(why) => format!("unknown: {why}"),
    }
}

/// Says too what happens where it does not work.
fn words_or(verdict: &Verdict, otherwise: &str) -> String {
    match verdict {
        Verdict::No(why) => format!("no: {why}; {otherwise}"),
        verdict => words(verdict),
    }
}

fn trial_json(trial: &Trial) -> Value {
    let verdict = |verdict: &Verdict| {
        let (verdict, why) = match verdict {
            Verdict::Yes => ("yes", None),
            Verdict::No(why) => ("no", Some(why)),
            Verdict::Unknown(why) => ("unknown", Some(why)),
        };
        json!({ "verdict": verdict, "why": why })
    };
    let (least, most) = trial.advertised;
    json!({
        "chunkMinLength": least,
        "chunkMaxLength": most,
        "largestBody": trial.largest,
        "refusedBody": trial.stopped.as_ref().map(|(size, _)| size),
        "refusal": trial.stopped.as_ref().map(|(_, words)| words),
        "chunks": verdict(&trial.chunks),
        "unequal": verdict(&trial.unequal),
        "range": verdict(&trial.range),
        "status": verdict(&trial.status),
        "mount": verdict(&trial.mount),
        "referrers": verdict(&trial.referrers),
        "manyTags": verdict(&trial.many_tags),
        "cleanedUp": verdict(&trial.cleaned_up),
    })
}

fn scheme(challenge: &Challenge) -> String {
    match challenge {
        Challenge::Basic => "by password".to_owned(),
        Challenge::Bearer { realm, .. } => {
            format!("by token of {}", realm.host_str().unwrap_or_default())
        }
    }
}

fn profile(profile: &Profile) -> String {
    let mut facts = vec![if profile.monolithic {
        "no chunks".to_owned()
    } else {
        format!("chunks of {}", ByteSize(profile.chunk_size))
    }];
    facts.extend(profile.max_chunk.map(|most| format!("at most {}", ByteSize(most))));
    for (fact, words) in [
        (profile.equal_parts, "of one size"),
        (!profile.trust_range, "`Range` is not believed"),
        (!profile.status, "status is not asked"),
    ] {
        facts.extend(fact.then(|| words.to_owned()));
    }
    let name = if *profile == Profile::ORDINARY { "ordinary" } else { profile.name };
    format!("{name}: {}", facts.join(", "))
}

fn learned(kept: Option<&Kept>) -> String {
    let Some(Kept { lesson, limits_left, seeming_left, speed_left }) = kept else {
        return "nothing yet".to_owned();
    };
    let mut facts = Vec::new();
    if let Some(limit) = lesson.body_limit {
        facts.push(format!("no body over {}, for {}", ByteSize(limit), remaining(*limits_left)));
    }
    if let Some(limit) = lesson.seeming_limit {
        let left = remaining(*seeming_left);
        facts.push(format!("connections broke with bodies over {}, for {left}", ByteSize(limit)));
    }
    if lesson.equal_parts {
        facts.push(format!("chunks of one size, for {}", remaining(*limits_left)));
    }
    if let Some(rate) = lesson.rate {
        let trip = lesson.round_trip.map(|micros| milliseconds(Duration::from_micros(micros)));
        let trip = trip.map(|trip| format!(", {trip} a round trip")).unwrap_or_default();
        facts.push(format!("{}/s an upload{trip}, for {}", ByteSize(rate), remaining(*speed_left)));
    }
    if facts.is_empty() { "nothing yet".to_owned() } else { facts.join("; ") }
}

fn advertised(trial: &Trial) -> String {
    let (least, most) = trial.advertised;
    let least = least.map(|least| format!(", chunks of at least {}", ByteSize(least)));
    let most = most.map(|most| format!(", chunks of at most {}", ByteSize(most)));
    [least, most].into_iter().flatten().collect()
}

fn bodies(trial: &Trial) -> String {
    let taken = if trial.largest == 0 {
        "none was taken".to_owned()
    } else {
        format!("up to {} were taken", ByteSize(trial.largest))
    };
    match &trial.stopped {
        Some((refused, words)) => format!("{taken}; {}: {words}", ByteSize(*refused)),
        None => taken,
    }
}

fn remaining(left: Duration) -> String {
    let hours = left.as_secs().div_ceil(3600);
    if hours > 48 { format!("{} more days", hours / 24) } else { counted(hours, "more hour") }
}

fn milliseconds(time: Duration) -> String {
    format!("{} ms", milliseconds_of(time))
}

fn milliseconds_of(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}
