//! Where encoded layers are kept, alike for every command that encodes some: options and the environment become a cache.

use std::path::PathBuf;

use bytesize::ByteSize;
use longshore::{Error, ErrorKind, Result, bucket::Bucket, cache::Cache, error::chain};

use super::value;
use crate::cli::Context;

/// Which cache, and how large it may get.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
pub(in crate::cli) struct CacheArgs {
    /// Keep no encoded layers
    #[arg(long)]
    no_cache: bool,
    /// Keep encoded layers here
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Share them with other machines in a bucket: s3://BUCKET/PREFIX, gs://…, az://… or file:///FOLDER (takes the
    /// feature `buckets`)
    #[arg(long = "cache", value_name = "URL")]
    shared: Option<String>,
    /// Keep so many bytes of them: what was not used for the longest time goes first
    #[arg(long, value_name = "SIZE", default_value = "20GiB", value_parser = value::size)]
    cache_size: ByteSize,
}

impl CacheArgs {
    /// Opens the cache of a push.
    pub(in crate::cli) fn open(&self, context: &Context) -> Result<Cache> {
        let dir = self.cache_dir.clone().or_else(|| context.environment.cache_dir());
        let temp = || Cache::scratch(&std::env::temp_dir());
        let Some(dir) = dir else { return Ok(temp()) };
        if self.no_cache {
            return match fs_err::create_dir_all(&dir) {
                Ok(()) => Ok(Cache::scratch(&dir)),
                Err(_) if self.cache_dir.is_none() => Ok(temp()),
                Err(error) => Err(Error::local("making the cache folder").because(error)),
            };
        }
        match Cache::open(&dir) {
            // A folder somebody asked for must do, unless others could have put blobs there.
            Err(error) if self.cache_dir.is_none() || Cache::is_distrusted(&error) => {
                context.printer.warning(&format!("no cache: {}", chain(&error)));
                Ok(temp())
            }
            cache => cache.map_err(|error| match error.kind() {
                ErrorKind::Local => error.with_hint("`--no-cache` does without one"),
                _ => error,
            }),
        }
    }

    /// Prepares for the bucket that machines share.
    pub(in crate::cli) fn bucket(&self, context: &Context) -> Result<Option<Bucket>> {
        let open = |url: &String| Bucket::open(url, &context.environment.cloud_variables());
        self.shared.as_ref().filter(|url| !url.is_empty()).map(open).transpose()
    }

    /// Makes the cache as small as it shall be, after a push.
    pub(in crate::cli) fn trim(&self, cache: &Cache, context: &Context) {
        if let Err(error) = cache.prune(self.cache_size.as_u64(), None) {
            context.printer.warning(&format!("the cache was not pruned: {}", chain(&error)));
        }
    }
}
