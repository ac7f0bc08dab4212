//! What a push leaves for others to read: its result on standard output, and the files that were asked for.

pub(super) mod dry_run;
pub(super) mod outcome;
mod summary;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Write as _, stderr, stdout},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use longshore::{
    Error, ErrorKind, Result,
    error::{Context as _, chain},
    event::How,
    layout::write::{behind_links, write_atomic},
    oci::Digest,
    push::Pushed,
};
use serde::Serialize;
use serde_json::{Value, json};

use self::outcome::Outcome;
use super::{Context, ExitStatus};

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

/// An image that has arrived, as `--json` prints it:
/// `{"pushed":[…],"failed":[{"image":…,"destination":…,"error":…}],"leftOut":[{"image":…}]}`. Keys may be added; those
/// that are there stay.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PushedImage<'a> {
    image: &'a str,
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
    how: How,
    bytes_sent: u64,
    /// An earlier run of the same list has pushed it.
    done_before: bool,
}

impl ReportArgs {
    /// Makes sure that the files can be written, before anything is pushed.
    pub(super) fn check(&self) -> Result<()> {
        let mut taken = None;
        for file in self.digest_file.iter().chain(&self.metadata_file) {
            let path = behind_links(file)?;
            if path.is_dir() {
                return Err(Error::local(format!("`{}` is a folder", file.display())));
            }
            let Some(dir) = path.parent().filter(|dir| dir.is_dir()) else {
                return Err(Error::local(format!("there is no folder for `{}`", file.display())));
            };
            if is_written_to(&path) {
                continue;
            }
            let writing = || format!("writing `{}`", file.display());
            tempfile::tempfile_in(dir).context(ErrorKind::Local, writing)?;
            let dir = fs_err::canonicalize(dir).context(ErrorKind::Local, writing)?;
            let place = Some(dir.join(path.file_name().unwrap_or_default()));
            if taken == place {
                let words = "`--digest-file` and `--metadata-file` cannot be the same file";
                return Err(Error::usage(format!("{words}: `{}`", file.display())));
            }
            taken = place;
        }
        Ok(())
    }

    /// Says where the image has arrived, and where it has not. Files are written when all has gone well.
    pub(super) fn report(&self, outcomes: &[Outcome], context: &Context) -> Result<ExitStatus> {
        let pushed: Vec<_> = outcomes.iter().filter_map(Outcome::pushed_image).collect();
        let failures: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| Some((outcome.errand.full_name(), outcome.result.as_ref().err()?)))
            .collect();
        let written = if failures.is_empty() { self.write_files(&pushed) } else { Ok(()) };
        for image in &pushed {
            for (tag, digest) in image.skipped {
                let skipped =
                    format!("skipped `{}:{tag}`, which is there already: {digest}", image.repository);
                context.printer.status(&skipped);
            }
        }
        if self.json {
            let document = document(outcomes, &pushed);
            context.printer.json(&document)?;
        } else {
            for image in &pushed {
                context.printer.result(&image.reference)?;
            }
        }
        let concluded = conclude(&failures, outcomes.len(), context);
        if outcomes.len() > 1 && !self.json {
            summary::print(outcomes, context.printer);
        }
        // What has arrived was told, whatever became of the files.
        written.and(concluded)
    }

    fn write_files(&self, pushed: &[PushedImage<'_>]) -> Result<()> {
        if let Some(file) = &self.digest_file {
            let mut digests: Vec<_> = pushed.iter().map(|image| image.digest.as_str()).collect();
            digests.dedup();
            write(file, digests.join("\n").as_bytes())?;
        }
        if let (Some(file), Some(first)) = (&self.metadata_file, pushed.first()) {
            write(file, metadata(first, pushed).to_string().as_bytes())?;
        }
        Ok(())
    }
}

/// Ends with what has failed, if anything has.
pub(super) fn conclude(failures: &[(String, &Error)], of: usize, context: &Context) -> Result<ExitStatus> {
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
    fn pushed_image(&self) -> Option<PushedImage<'_>> {
        let pushed = self.result.as_ref().ok()?.as_ref()?;
        let Pushed { digest, media_type, size, tags, skipped, referrers, how, bytes_sent } = pushed;
        Some(PushedImage {
            image: &self.errand.image,
            repository: self.errand.name(),
            reference: format!("{}@{digest}", self.errand.name()),
            digest: digest.to_string(),
            media_type,
            size: *size,
            tags,
            referrers,
            skipped,
            how: *how,
            bytes_sent: *bytes_sent,
            done_before: self.done_before,
        })
    }
}

fn document(outcomes: &[Outcome], pushed: &[PushedImage<'_>]) -> Value {
    let failed = outcomes.iter().filter_map(|outcome| {
        let (name, error) = outcome.failure()?;
        Some(json!({ "image": outcome.errand.image, "destination": name, "error": chain(error) }))
    });
    let left_out = outcomes.iter().filter(|outcome| matches!(outcome.result, Ok(None)));
    json!({
        "pushed": pushed,
        "failed": failed.collect::<Vec<_>>(),
        "leftOut": left_out.map(|outcome| json!({ "image": outcome.errand.image })).collect::<Vec<_>>(),
    })
}

/// The keys of `docker buildx build --metadata-file`
/// (<https://docs.docker.com/reference/cli/docker/buildx/build/#metadata-file>), and ours.
fn metadata(first: &PushedImage<'_>, pushed: &[PushedImage<'_>]) -> Value {
    let names =
        pushed.iter().flat_map(|image| image.tags.iter().map(|tag| format!("{}:{tag}", image.repository)));
    json!({
        "containerimage.digest": first.digest,
        "containerimage.descriptor": {
            "mediaType": first.media_type,
            "digest": first.digest,
            "size": first.size,
        },
        "image.name": names.collect::<Vec<_>>().join(","),
        "pushed": pushed,
    })
}

/// Writes a file whole or not at all; what is no file (a pipe) is written to, and so is `/dev/stdout`, whatever that is.
fn write(file: &Path, text: &[u8]) -> Result<()> {
    let path = behind_links(file)?;
    let writing = || format!("writing `{}`", file.display());
    if let Some(mut stream) = own_stream(&path) {
        return stream.write_all(text).context(ErrorKind::Local, writing);
    }
    if is_no_file(&path) {
        return fs_err::write(&path, text).context(ErrorKind::Local, writing);
    }
    write_atomic(&path, text)
}

fn is_written_to(path: &Path) -> bool {
    is_no_file(path) || own_stream(path).is_some()
}

fn is_no_file(path: &Path) -> bool {
    fs_err::metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

/// Returns standard output or standard error, if one of them goes into this file: opened by its path it would be cut, and
/// a rename would take it from whoever reads it.
fn own_stream(path: &Path) -> Option<File> {
    let there = fs_err::metadata(path).ok()?;
    [stdout().as_fd(), stderr().as_fd()].into_iter().find_map(|stream| {
        let stream = File::from(stream.try_clone_to_owned().ok()?);
        let open = stream.metadata().ok()?;
        (open.is_file() && (open.dev(), open.ino()) == (there.dev(), there.ino())).then_some(stream)
    })
}
