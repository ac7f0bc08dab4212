//! How blobs are sent, alike for every command that pushes: options and the state folder become the library's values.

use std::{num::NonZero, time::Duration};

use bytesize::ByteSize;
use longshore::{
    Error, Result,
    oci::Repository,
    push::{Options, Resume},
    registry::{Client, ClientOptions, Credentials, Learned, RateLimit, Sightings, Unfinished},
};

use super::{
    access::AccessArgs,
    value::{more_than_nothing, size, size_of_something},
};
use crate::cli::Context;

/// Options of how blobs are sent.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TransferArgs {
    /// Large blobs sent at once
    #[arg(long, value_name = "N", default_value_t = 6, help_heading = "Transfer")]
    #[arg(value_parser = more_than_nothing::<usize>)]
    jobs: usize,
    /// Send chunks of this size, like `8MiB`
    #[arg(long, value_name = "SIZE", help_heading = "Transfer")]
    #[arg(value_parser = size_of_something)]
    chunk_size: Option<ByteSize>,
    /// Send no more than this per second, all blobs together, like `2MiB`
    #[arg(long, value_name = "SIZE", help_heading = "Transfer", value_parser = size)]
    limit_rate: Option<ByteSize>,
    /// Give up after so many new attempts without progress
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Transfer")]
    retries: u32,
    /// Give up on a connection that takes no byte for so long, like `60s`; closing an upload may take fifteen times
    /// as long
    #[arg(long, value_name = "DURATION", default_value = "60s", help_heading = "Transfer")]
    #[arg(value_parser = more_than_nothing::<humantime::Duration>)]
    timeout: humantime::Duration,
}

impl TransferArgs {
    /// Makes the one limit that all destinations share.
    pub(in crate::cli) fn rate_limit(&self) -> Result<Option<RateLimit>> {
        let Some(rate) = self.limit_rate else { return Ok(None) };
        let rate = NonZero::new(rate.as_u64());
        let rate = rate.ok_or_else(|| Error::usage("`--limit-rate 0` lets nothing through"))?;
        Ok(Some(RateLimit::new(rate)))
    }

    /// Prepares to speak with a repository's registry.
    pub(in crate::cli) fn client(
        &self,
        repository: &Repository,
        access: &AccessArgs,
        credentials: Credentials,
        rate_limit: Option<RateLimit>,
        context: &Context,
    ) -> Result<Client> {
        let Repository { host, path } = repository;
        let options = ClientOptions {
            timeout: Duration::from(self.timeout),
            retries: self.retries,
            credentials,
            rate_limit,
            ..access.options(host, path, context)?
        };
        Client::new(host, options)
    }

    /// Returns how to push with all that earlier pushes have left in the state folder.
    pub(in crate::cli) fn options(&self, context: &Context) -> Options {
        let state = context.environment.state_dir();
        let unfinished = state.as_ref().map(|dir| Unfinished::new(&dir.join("uploads")));
        Options {
            chunk_size: self.chunk_size.map(|size| size.as_u64()),
            jobs: self.jobs,
            learned: state.as_ref().map(|dir| Learned::new(&dir.join("hosts"))),
            resume: unfinished.map_or(Resume::Never, Resume::Keep),
            retries: self.retries,
            sightings: state.map(|dir| Sightings::new(&dir.join("blobs"))),
            ..Options::default()
        }
    }
}
