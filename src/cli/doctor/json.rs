//! What was found out, for machines.

use longshore::{
    error::chain,
    registry::probe::{Trial, Verdict},
};
use serde_json::{Value, json};

use super::{Report, milliseconds_of, scheme};

impl Report {
    /// Describes everything for machines. Keys may be added; those that are there stay.
    pub(super) fn json(&self) -> Value {
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
