//! What became of each image of a push of several, at a glance: on standard error, when all is over.

use std::{collections::BTreeMap, error::Error as StdError};

use bytesize::ByteSize;
use longshore::{
    Error, ErrorKind, error::chain, event::How, oci::Digest, push::Pushed, registry::RegistryError,
};

use super::outcome::Outcome;
use crate::cli::output::{
    Printer,
    table::{self, Column},
};

/// Prints a row for each image, and a sum.
pub(super) fn print(outcomes: &[Outcome], printer: Printer) {
    let rows: Vec<_> = outcomes.iter().map(row).collect();
    let columns = [Column::Words, Column::Name, Column::Name, Column::Number, Column::Words];
    for line in table::lines("", columns, &rows, printer.status_columns()) {
        printer.status(&line);
    }
    printer.status(&sum(outcomes));
}

/// Returns what became of an image, what it is called here and there, what was sent for it, and its digest or why there
/// is none.
fn row(outcome: &Outcome) -> [String; 5] {
    let (sent, end) = match &outcome.result {
        Ok(Some(pushed)) if outcome.done_before => (String::new(), short(&pushed.digest)),
        Ok(Some(pushed)) => (ByteSize(pushed.bytes_sent).to_string(), short(&pushed.digest)),
        Ok(None) => (String::new(), "what it is about was skipped".to_owned()),
        Err(error) => (String::new(), brief(error)),
    };
    [Fate::of(outcome).word().to_owned(), outcome.errand.image.clone(), destination(outcome), sent, end]
}

/// What became of an image; the good news first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Pushed,
    Mounted,
    Present,
    Skipped,
    DoneBefore,
    LeftOut,
    Failed,
}

impl Fate {
    fn of(outcome: &Outcome) -> Self {
        match &outcome.result {
            Ok(Some(_)) if outcome.done_before => Self::DoneBefore,
            Ok(Some(pushed)) if pushed.was_left_alone() => Self::Skipped,
            Ok(Some(Pushed { how: How::Uploaded, .. })) => Self::Pushed,
            Ok(Some(Pushed { how: How::Mounted, .. })) => Self::Mounted,
            Ok(Some(_)) => Self::Present,
            Ok(None) => Self::LeftOut,
            Err(_) => Self::Failed,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Pushed => "pushed",
            Self::Mounted => "mounted",
            Self::Present => "present",
            Self::Skipped => "skipped",
            Self::DoneBefore => "done before",
            Self::LeftOut => "left out",
            Self::Failed => "failed",
        }
    }
}

/// Returns where an image was to go, with all its tags there.
fn destination(outcome: &Outcome) -> String {
    let tags: Vec<&str> = match &outcome.result {
        Ok(Some(Pushed { tags, skipped, .. })) => {
            tags.iter().chain(skipped.keys()).map(String::as_str).collect()
        }
        _ => outcome.errand.tag.as_deref().into_iter().collect(),
    };
    match (&outcome.errand.place, tags.as_slice()) {
        (None, _) => String::new(),
        (Some(place), []) => place.clone(),
        (Some(place), tags) => format!("{place}:{}", tags.join(",")),
    }
}

/// As much of a digest as people tell images apart by.
fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}

/// Returns what lies at the bottom of a failure; all of it stands above the table.
fn brief(error: &Error) -> String {
    if let Some(refusal) = error.find::<RegistryError>() {
        return refusal.answer();
    }
    if error.kind() == ErrorKind::Network {
        let mut cause: &dyn StdError = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        return cause.to_string();
    }
    let mut deepest = error;
    while let Some(deeper) = deepest.find::<Error>() {
        deepest = deeper;
    }
    chain(deepest)
}

fn sum(outcomes: &[Outcome]) -> String {
    let mut counts: BTreeMap<Fate, usize> = BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(Fate::of(outcome)).or_default() += 1;
    }
    let sent = outcomes.iter().filter(|outcome| !outcome.done_before);
    let sent = sent.filter_map(|outcome| Some(outcome.result.as_ref().ok()?.as_ref()?.bytes_sent)).sum();
    let counts: Vec<_> = counts.into_iter().map(|(fate, count)| format!("{count} {}", fate.word())).collect();
    format!("total: {}; {} sent", counts.join(", "), ByteSize(sent))
}
