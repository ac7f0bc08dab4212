//! What became of an image that was to be pushed.

use longshore::{Error, Result, push::Pushed};

/// What was to go where.
pub(in crate::cli) struct Errand {
    /// What the source calls the image, or what the user calls the source.
    pub(in crate::cli) image: String,
    /// `registry/repository`, or the folder it stands for; none, if nothing says where.
    pub(in crate::cli) place: Option<String>,
    /// The first of its tags there.
    pub(in crate::cli) tag: Option<String>,
}

impl Errand {
    /// Returns where the image was to go, or what it is called where nothing says that.
    pub(in crate::cli) fn name(&self) -> &str {
        self.place.as_ref().unwrap_or(&self.image)
    }

    /// Returns that with its tag: images that go to one repository are told apart by it.
    pub(in crate::cli) fn full_name(&self) -> String {
        match (&self.place, &self.tag) {
            (Some(place), Some(tag)) => format!("{place}:{tag}"),
            _ => self.name().to_owned(),
        }
    }
}

/// What became of one image at one destination.
pub(in crate::cli) struct Outcome {
    pub(in crate::cli) errand: Errand,
    /// Whether it arrived; nothing, if it was left out, as what it is about was skipped.
    pub(in crate::cli) result: Result<Option<Pushed>>,
    /// Whether an earlier run of the same list has done it.
    pub(in crate::cli) done_before: bool,
}

impl Outcome {
    /// Returns where it did not arrive, and why.
    pub(in crate::cli) fn failure(&self) -> Option<(&str, &Error)> {
        self.result.as_ref().err().map(|error| (self.errand.name(), error))
    }
}
