//! Pushes an image: survey, plan, transcode beside upload, manifest last.
//!
//! [`Push::run`] is the whole way of one image to one repository: an archive that can be read only once is
//! absorbed, an image is chosen and delivered. Each stage has its file; their order is delivery.rs.

mod absorb;
mod delivery;
mod manifest;
mod original;
mod origins;
mod press;
mod recall;
pub mod runtime;
mod spool;
mod survey;
mod transcode;
mod upload;

use std::sync::Arc;

use self::{
    absorb::{Absorbed, absorb},
    delivery::Delivery,
};
pub use press::Press;

use crate::{
    codec::Encoding,
    error::Result,
    event::Event,
    oci::{Digest, Platform, Reference},
    registry::{Client, hosts, retry::Pace, session::Settings},
    source::{Choice, Input, SourceSpec, choose},
};

/// How to push.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--allow-nondistributable`: upload layers that are meant to be fetched from elsewhere.
    pub allow_nondistributable: bool,
    /// `--chunk-size`.
    pub chunk_size: Option<u64>,
    /// How plain layers are encoded.
    pub encoding: Encoding,
    /// `--jobs`: large blobs in flight at once.
    pub jobs: usize,
    /// `--mount-from`: a repository of the same registry that may have the blobs.
    pub mount_from: Option<String>,
    /// How pauses are taken.
    pub pace: Pace,
    /// `--platform`: one child of an index.
    pub platform: Option<Platform>,
    /// Whether layers that the destination has encoded already are used again (`--no-reuse`).
    pub reuse: bool,
    /// `--retries`: attempts without progress before giving up.
    pub retries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_nondistributable: false,
            chunk_size: None,
            encoding: Encoding::default(),
            jobs: 6,
            mount_from: None,
            pace: Pace::default(),
            platform: None,
            reuse: true,
            retries: 5,
        }
    }
}

impl Options {
    /// Returns what an upload to `host` begins with; `look_first` if nobody has looked for the blob yet.
    fn settings(&self, host: &str, look_first: bool) -> Settings {
        Settings {
            profile: hosts::profile(host),
            chunk_size: self.chunk_size,
            retries: self.retries,
            look_first,
            mount_from: None,
            pace: self.pace,
        }
    }
}

/// One image on its way from a place on disk to one repository.
#[derive(Debug)]
#[must_use = "a push does nothing until it is run"]
pub struct Push {
    /// Where the image lies.
    pub input: Input,
    /// What the user called that place, and which of its images is meant.
    pub spec: SourceSpec,
    /// Where it goes: a tag, or a digest that it must have.
    pub destination: Reference,
    /// `--tag`: more tags for it.
    pub tags: Vec<String>,
    /// The registry.
    pub client: Client,
    /// What encodes layers, and where they are kept.
    pub press: Press,
    /// How.
    pub options: Options,
}

/// An image that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The tags it has been given.
    pub tags: Vec<String>,
}

impl Push {
    /// Pushes the image. When this returns, the registry has confirmed everything; when it fails, no tag has
    /// moved. Dropping the future stops it.
    pub async fn run(self) -> Result<Pushed> {
        let Self { input, spec, destination, tags, client, press, options } = self;
        let (source, absorbed) = match input {
            Input::Indexed(source) => (source, Absorbed::default()),
            Input::Pass(pass) => {
                // Where an image has to be chosen, most of the archive may belong to others.
                let chosen = spec.choice != Choice::Only || options.platform.is_some();
                let ahead = (!chosen).then_some((&client, &destination.repository));
                absorb(pass, spec.transport, &press, &options, ahead).await?
            }
        };
        for message in source.warnings() {
            press.reporter.event(Event::Warning { message });
        }
        let image = choose(&*source, &spec.choice, options.platform.as_ref())?;
        let (source, absorbed) = (Arc::from(source), Arc::new(absorbed));
        Delivery { source, image, absorbed, destination, tags, client, press, options }.run().await
    }
}
