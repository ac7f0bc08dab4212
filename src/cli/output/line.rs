//! What standard error consists of with `--progress json`: one JSON object a line.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use longshore::{Error, event::Event};
use serde::Serialize;

/// A line of `--progress json`: `seconds` since the first one and the fields of what happened, whose kind is `event`.
/// What happens at the same moment in two threads may come in either order.
///
/// What happens during a push is an [`Event`], as that type describes it; `encoded`, `hashed`, `sent` and `written` come at most
/// once a second for each blob. The others are:
///
/// * `{"event":"failed","message":…,"causes":[…],"hints":[…],"exitCode":N}`: why the command, or the push to one of
///   several destinations, has failed;
/// * `{"event":"log","level":"info","message":…}`: with `-v` and `-vv`;
/// * `{"event":"interrupted"}`: a signal ended it.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Line<'a> {
    seconds: f64,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum What<'a> {
    Event(&'a Event),
    Other(Other<'a>),
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Other<'a> {
    Failed { message: &'a str, causes: Vec<String>, hints: Vec<&'a str>, exit_code: u8 },
    Interrupted,
    Log { level: &'a str, message: &'a str },
}

impl<'a> Line<'a> {
    pub(in crate::cli) fn event(event: &'a Event) -> Self {
        Self::new(What::Event(event))
    }

    pub(in crate::cli) fn failed(error: &'a Error, causes: Vec<String>) -> Self {
        let (message, hints, exit_code) = (error.message(), error.hints(), error.kind().exit_code());
        Self::new(What::Other(Other::Failed { message, causes, hints, exit_code }))
    }

    pub(in crate::cli) fn interrupted() -> Self {
        Self::new(What::Other(Other::Interrupted))
    }

    pub(in crate::cli) fn log(level: &'a str, message: &'a str) -> Self {
        Self::new(What::Other(Other::Log { level, message }))
    }

    fn new(what: What<'a>) -> Self {
        static BEGAN: OnceLock<Instant> = OnceLock::new();
        let millis = BEGAN.get_or_init(Instant::now).elapsed().as_millis();
        Self { seconds: Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).as_secs_f64(), what }
    }
}
