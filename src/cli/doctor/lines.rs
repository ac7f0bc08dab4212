//! What was found out, for people: one finding a line.

use std::time::Duration;

use bytesize::ByteSize;
use longshore::{
    ErrorKind,
    error::counted,
    registry::{
        hosts::{Profile, learned::Kept},
        probe::{Contact, Trial, Verdict},
    },
};

use super::{Report, milliseconds_of, scheme};
use crate::cli::output::table::{self, Column};

impl Report {
    /// Returns a line for each finding.
    pub(super) fn lines(&self) -> Vec<String> {
        let rows: Vec<_> =
            self.findings().into_iter().map(|(name, words)| [name.to_owned(), words]).collect();
        table::lines("", [Column::Words; 2], &rows, None)
    }

    fn findings(&self) -> Vec<(&'static str, String)> {
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
