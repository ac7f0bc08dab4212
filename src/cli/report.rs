//! What a push leaves for others to read: its result on standard output, and the files that were asked for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf, absolute},
};

use longshore::{
    Error, ErrorKind, Result,
    error::{Context as _, chain},
    layout::write::write_atomic,
    oci::Digest,
    push::Pushed,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Context, ExitStatus, output::ascii};

/// Where the result goes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(super) struct ReportArgs {
    /// Print the result as one JSON document
    #[arg(long)]
    pub(super) json: bool,
    /// Write the manifest's digest to this file
    #[arg(long, value_name = "FILE", alias = "digestfile")]
    digest_file: Option<PathBuf>,
    /// Write digest, descriptor and references to this file, as JSON with the keys of `docker buildx`
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
}

/// What became of one destination.
pub(super) struct Outcome {
    /// `registry/repository`, or the folder it stands for.
    pub(super) name: String,
    pub(super) result: Result<Pushed>,
    /// Whether an earlier run of the same list has done it.
    pub(super) done_before: bool,
}

/// An image that has arrived, as `--json` prints it: `{"pushed":[…],"failed":[{"destination":…,"error":…}]}`. Keys may
/// be added; those that are there stay.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Arrival<'a> {
    /// `registry/repository`.
    repository: &'a str,
    /// `registry/repository@sha256:…`.
    reference: String,
    digest: String,
    media_type: &'a str,
    size: u64,
    tags: &'a [String],
    /// What was pushed behind it.
    referrers: &'a [Digest],
    /// Tags that were there before and stay, with what they stand for.
    skipped: &'a BTreeMap<String, Digest>,
    /// An earlier run of the same list has pushed it.
    done_before: bool,
}

impl ReportArgs {
    /// Makes sure that the files can be written, before anything is pushed.
    pub(super) fn check(&self) -> Result<()> {
        for file in self.digest_file.iter().chain(&self.metadata_file) {
            let dir = place(file)?.parent().map(Path::to_owned);
            if !dir.is_some_and(|dir| dir.is_dir()) {
                return Err(Error::local(format!("there is no folder for `{}`", file.display())));
            }
        }
        Ok(())
    }

    /// Says where the image has arrived, and where it has not. Files are written when all has gone well.
    pub(super) fn report(&self, outcomes: &[Outcome], context: &Context) -> Result<ExitStatus> {
        let arrivals: Vec<_> = outcomes.iter().filter_map(Outcome::arrival).collect();
        let failures: Vec<_> = outcomes.iter().filter_map(Outcome::failure).collect();
        if failures.is_empty() {
            self.write_files(&arrivals)?;
        }
        for arrival in &arrivals {
            for (tag, digest) in arrival.skipped {
                let skipped =
                    format!("skipped `{}:{tag}`, which is there already: {digest}", arrival.repository);
                context.printer.status(&skipped);
            }
        }
        if self.json {
            let failed =
                failures.iter().map(|(name, error)| json!({ "destination": name, "error": chain(error) }));
            let document = json!({ "pushed": arrivals, "failed": failed.collect::<Vec<_>>() });
            context.printer.result(&ascii(&document.to_string()))?;
        } else {
            for arrival in &arrivals {
                context.printer.result(&arrival.reference)?;
            }
        }
        conclude(&failures, outcomes.len(), context)
    }

    fn write_files(&self, arrivals: &[Arrival<'_>]) -> Result<()> {
        if let Some(file) = &self.digest_file {
            let mut digests: Vec<_> = arrivals.iter().map(|arrival| arrival.digest.as_str()).collect();
            digests.dedup();
            write(file, digests.join("\n").as_bytes())?;
        }
        if let (Some(file), Some(first)) = (&self.metadata_file, arrivals.first()) {
            write(file, metadata(first, arrivals).to_string().as_bytes())?;
        }
        Ok(())
    }
}

/// Ends with what has failed, if anything has.
pub(super) fn conclude(failures: &[(&str, &Error)], of: usize, context: &Context) -> Result<ExitStatus> {
    match failures {
        [] => Ok(ExitStatus::Success),
        [(_, error)] if of == 1 => Err((*error).clone()),
        _ => {
            for (_, error) in failures {
                context.printer.failure(error);
            }
            let names: Vec<_> = failures.iter().map(|(name, _)| format!("`{name}`")).collect();
            Err(Error::new(ErrorKind::Partial, format!("not pushed to {}", names.join(", "))))
        }
    }
}

impl Outcome {
    fn arrival(&self) -> Option<Arrival<'_>> {
        let Pushed { digest, media_type, size, tags, skipped, referrers } = self.result.as_ref().ok()?;
        Some(Arrival {
            repository: &self.name,
            reference: format!("{}@{digest}", self.name),
            digest: digest.to_string(),
            media_type,
            size: *size,
            tags,
            referrers,
            skipped,
            done_before: self.done_before,
        })
    }

    fn failure(&self) -> Option<(&str, &Error)> {
        self.result.as_ref().err().map(|error| (self.name.as_str(), error))
    }
}

/// The keys of `docker buildx build --metadata-file`
/// (<https://docs.docker.com/reference/cli/docker/buildx/build/#metadata-file>), and ours.
fn metadata(first: &Arrival<'_>, arrivals: &[Arrival<'_>]) -> Value {
    let names = arrivals
        .iter()
        .flat_map(|arrival| arrival.tags.iter().map(|tag| format!("{}:{tag}", arrival.repository)));
    json!({
        "containerimage.digest": first.digest,
        "containerimage.descriptor": {
            "mediaType": first.media_type,
            "digest": first.digest,
            "size": first.size,
        },
        "image.name": names.collect::<Vec<_>>().join(","),
        "pushed": arrivals,
    })
}

/// Writes a file whole or not at all; what is no file (`/dev/stdout`, a pipe) is written to.
fn write(file: &Path, text: &[u8]) -> Result<()> {
    let path = place(file)?;
    match fs_err::metadata(&path) {
        Ok(metadata) if !metadata.is_file() => {
            fs_err::write(&path, text).context(ErrorKind::Local, || format!("writing `{}`", file.display()))
        }
        _ => write_atomic(&path, text),
    }
}

fn place(file: &Path) -> Result<PathBuf> {
    absolute(file).context(ErrorKind::Local, || format!("finding `{}`", file.display()))
}
