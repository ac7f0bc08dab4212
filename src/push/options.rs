//! How to push: what a user may ask for, and where earlier pushes have left what they found out.
//!
//! Values alone: whoever makes them has read the command line and the environment.

use std::{fmt, str::FromStr};

use super::{Resume, Told};
use crate::{
    bucket::Bucket,
    codec::Recipe,
    error::{Error, Result},
    oci::{Platform, Reference},
    registry::{Client, Learned, Lesson, Sightings, hosts, retry::Pace, session::Settings},
};

/// How to push.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--allow-nondistributable`: upload layers that are meant to be fetched from elsewhere.
    pub allow_nondistributable: bool,
    /// `--chunk-size`.
    pub chunk_size: Option<u64>,
    /// What becomes of what the source holds about the image.
    pub companions: Companions,
    /// `--format`: in which family of media types.
    pub format: Format,
    /// `--if-exists`: what becomes of tags that are there already.
    pub if_exists: IfExists,
    /// `--jobs`: large blobs in flight at once.
    pub jobs: usize,
    /// Where what pushes find out about hosts is kept.
    pub learned: Option<Learned>,
    /// `--mount-from`: a repository of the same registry that may have the blobs.
    pub mount_from: Option<String>,
    /// How pauses are taken.
    pub pace: Pace,
    /// `--platform`: one child of an index.
    pub platform: Option<Platform>,
    /// `--compression`: what becomes of layers.
    pub recipe: Recipe,
    /// Whether layers that the destination has encoded already are used again (`--no-reuse`).
    pub reuse: bool,
    /// `--reuse-from`: images at the same registry that may have the layers.
    pub reuse_from: Vec<Reference>,
    /// What becomes of uploads when the process ends before them.
    pub resume: Resume,
    /// `--retries`: attempts without progress before giving up.
    pub retries: u32,
    /// Where it is remembered which repository has which blob.
    pub sightings: Option<Sightings>,
    /// `--cache`: where machines share their encoded layers.
    pub shared_cache: Option<Bucket>,
    /// What the user knows of the sizes of chunks.
    pub told: Told,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_nondistributable: false,
            chunk_size: None,
            companions: Companions::default(),
            format: Format::default(),
            if_exists: IfExists::default(),
            jobs: 6,
            learned: None,
            mount_from: None,
            pace: Pace::default(),
            platform: None,
            recipe: Recipe::default(),
            reuse: true,
            reuse_from: Vec::new(),
            resume: Resume::Never,
            retries: 5,
            shared_cache: None,
            sightings: None,
            told: Told::default(),
        }
    }
}

impl Options {
    /// Returns what an upload begins with; `look_first` if nobody has looked for the blob yet.
    pub fn settings(&self, client: &Client, look_first: bool) -> Settings {
        Settings {
            profile: hosts::profile(client.host()),
            chunk_size: self.chunk_size,
            retries: self.retries,
            look_first,
            mount_from: None,
            pace: self.pace,
            lesson: self.lesson(client),
        }
    }

    /// Returns the options for what is about an image, which is never altered, whatever becomes of the image.
    pub(super) fn unaltered(self) -> Self {
        Self { format: Format::Auto, platform: None, recipe: Recipe::Keep, ..self }
    }

    /// Returns what is known of a host before the first upload.
    fn lesson(&self, client: &Client) -> Lesson {
        let lesson =
            self.learned.as_ref().map_or_else(Lesson::default, |learned| learned.lesson(client.host()));
        match client.rate_limit() {
            Some(limit) => lesson.no_faster(limit.bytes_per_second() / self.jobs.max(1) as u64),
            None => lesson,
        }
    }

    /// Remembers what uploads have taught about a host. How fast they were is our own doing where that is limited.
    pub(super) fn learn(&self, client: &Client, mut lesson: Lesson) {
        let Some(learned) = &self.learned else { return };
        if client.rate_limit().is_some() {
            lesson.rate = None;
        }
        learned.add(client.host(), lesson);
    }
}

/// What becomes of what a source holds about an image. It is never altered, and so holds no more for an image that is
/// made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Companions {
    /// It is not pushed; but an image for which it would hold no more is refused.
    #[default]
    Stay,
    /// `--referrers`: it is pushed behind the image; an image for which it would hold no more is refused.
    Travel,
    /// `--remove-signatures`: as if it were not there.
    Forget,
}

/// `--format`: in which family of media types manifests are pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The source's own, and OCI where it has none.
    #[default]
    Auto,
    /// Docker's, which has no zstd.
    Docker,
    /// OCI's.
    Oci,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Docker => "docker",
            Self::Oci => "oci",
        })
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "docker" => Ok(Self::Docker),
            "oci" => Ok(Self::Oci),
            _ => Err(Error::usage(format!("not a format: `{}`", text.escape_debug()))
                .with_hint("`auto`, `oci` and `docker` are")),
        }
    }
}

/// What becomes of tags that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfExists {
    /// Nothing is pushed, unless it is the same image.
    Fail,
    /// They stand for this image from now on.
    #[default]
    Overwrite,
    /// They are left as they are; without any other, nothing is pushed.
    Skip,
}

impl fmt::Display for IfExists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fail => "fail",
            Self::Overwrite => "overwrite",
            Self::Skip => "skip",
        })
    }
}

impl FromStr for IfExists {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "fail" => Ok(Self::Fail),
            "overwrite" => Ok(Self::Overwrite),
            "skip" => Ok(Self::Skip),
            _ => Err(Error::usage(format!("not a way to treat tags: `{}`", text.escape_debug()))
                .with_hint("`fail`, `overwrite` and `skip` are")),
        }
    }
}
