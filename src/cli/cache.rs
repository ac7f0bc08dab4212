//! `longshore cache`: what is kept of encoded layers.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytesize::ByteSize;
use longshore::{
    Error, Result,
    cache::{Cache, Freed},
    error::counted,
};
use serde_json::json;

use super::{Context, ExitStatus, options::value};

/// Show, check or empty the cache of encoded layers
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The cache's folder
    #[arg(long, value_name = "DIR", global = true)]
    cache_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Where it is and what it holds
    Info,
    /// The layers, the one used last first
    List,
    /// Decode every layer; drop those that are not what they should be
    Verify,
    /// Drop what was not used for the longest time
    Prune {
        /// Keep so many bytes
        #[arg(long, value_name = "SIZE", value_parser = value::size)]
        max_size: Option<ByteSize>,
        /// Drop what was not used for so long, like `30d`
        #[arg(long, value_name = "DURATION")]
        unused: Option<humantime::Duration>,
    },
    /// Drop everything
    Clear,
}

impl Args {
    /// Opens the cache that is there. None is made for looking at it: where nothing was kept so far there is nothing,
    /// and a folder that somebody names is the one that they mean.
    fn open(&self, context: &Context) -> Result<(Cache, PathBuf)> {
        let dir = self.cache_dir.clone().or_else(|| context.environment.cache_dir());
        let dir = dir.ok_or_else(|| {
            Error::usage("nothing says where the cache is").with_hint("name the folder: `--cache-dir DIR`")
        })?;
        let cache = if Cache::exists(&dir) {
            Cache::open(&dir)?
        } else if self.cache_dir.is_none() {
            Cache::scratch(&dir)
        } else {
            return Err(Error::local(format!("there is no cache in `{}`", dir.display()))
                .with_hint("a push with the same `--cache-dir` makes one"));
        };
        Ok((cache, dir))
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    let (cache, dir) = args.open(context)?;
    let say = |text: String, json: serde_json::Value| {
        if args.json { context.printer.json(&json) } else { context.printer.result(&text) }
    };
    match &args.command {
        Command::Info => info(&cache, &dir, &say)?,
        Command::List => list(&cache, &say)?,
        Command::Verify => return verify(&cache, context, &say),
        Command::Prune { max_size, unused } => {
            let limit = max_size.map_or(u64::MAX, |size| size.as_u64());
            dropped(&cache.prune(limit, unused.map(Duration::from))?, &say)?;
        }
        Command::Clear => dropped(&cache.clear()?, &say)?,
    }
    Ok(ExitStatus::Success)
}

type Say<'a> = &'a dyn Fn(String, serde_json::Value) -> Result<()>;

fn info(cache: &Cache, dir: &Path, say: Say<'_>) -> Result<()> {
    let kept = cache.list()?;
    let (used, plain) = (cache.disk_use()?, kept.iter().map(|kept| kept.entry.plain_size).sum::<u64>());
    // A name that is no UTF-8 is no JSON either.
    let dir = dir.display().to_string();
    say(
        format!("{dir}: {}, {} on disk, {} decoded", layers(kept.len()), size(used), size(plain)),
        json!({ "dir": dir, "layers": kept.len(), "bytes": used, "plainBytes": plain }),
    )
}

fn list(cache: &Cache, say: Say<'_>) -> Result<()> {
    for kept in cache.list()? {
        let age = SystemTime::now().duration_since(kept.used).unwrap_or_default();
        say(
            format!(
                "{} {:8} {:>10} {:>10} {} ago",
                kept.diff_id,
                kept.encoding,
                size(kept.entry.plain_size),
                size(kept.entry.size),
                humantime::format_duration(Duration::from_secs(age.as_secs())),
            ),
            json!({
                "diffId": kept.diff_id,
                "encoding": kept.encoding,
                "encoderVersion": kept.version,
                "digest": kept.entry.digest,
                "size": kept.entry.size,
                "plainSize": kept.entry.plain_size,
                "unusedSeconds": age.as_secs(),
            }),
        )?;
    }
    Ok(())
}

fn verify(cache: &Cache, context: &Context, say: Say<'_>) -> Result<ExitStatus> {
    let kept = cache.list()?;
    let mut dropped = 0;
    for kept in &kept {
        if let Some(why) = cache.verify(kept)? {
            dropped += 1;
            context.printer.warning(&format!("dropped layer {} ({}): {why}", kept.diff_id, kept.encoding));
        }
    }
    let good = kept.len() - dropped;
    say(format!("{} good, {dropped} dropped", layers(good)), json!({ "good": good, "dropped": dropped }))?;
    Ok(ExitStatus::Success)
}

fn dropped(freed: &Freed, say: Say<'_>) -> Result<()> {
    say(
        format!("dropped {}, {} of blobs", layers(freed.entries), size(freed.bytes)),
        json!({ "layers": freed.entries, "bytes": freed.bytes }),
    )
}

fn layers(count: usize) -> String {
    counted(count, "layer")
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}
