//! `longshore inspect`: what a source holds, for people as a table, for machines as JSON.

use std::{collections::HashSet, num::NonZero, thread};

use bytesize::ByteSize;
use longshore::{
    Error, Result,
    error::{chain, counted},
    oci::{Content, Descriptor, Platform},
    source::{
        Choice, Image, Input, Source, choose,
        contents::{Contents, Describer, Document, Part, State},
        detect,
        passed::{self, Passed},
        verify::verify,
    },
};
use serde_json::{Value, json};

use super::{
    Context, ExitStatus,
    options::source::SourceArgs,
    output::{
        Printer,
        table::{self, Column},
    },
};

/// Show the images of a source
///
/// Lists every image, or the one that SOURCE names, with its manifests, config and layers as they lie there:
/// sizes, encodings, digests (cut to the width of a terminal, whole elsewhere). Nothing is sent or kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  longshore inspect image.tar
  longshore inspect --verify ./layout
  longshore inspect --json containerd:k8s.io/docker.io/library/app:1")]
pub(super) struct Args {
    /// A folder or archive that holds images: PATH[:REF|@DIGEST|:@N], or with a transport in front
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Read everything and check every digest and diff ID; what differs ends it with exit code 3
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    options: SourceArgs,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    let (spec, options) = args.options.locate(&args.source, &context.environment)?;
    let (source, passed) = match detect::open(&spec, &options)? {
        Input::Indexed(source) => (source, Passed::default()),
        Input::Pass(pass) => passed::look(pass, spec.transport)?,
    };
    let source = source.as_ref();
    let images = images(source, &spec.choice)?;
    let mut describer = Describer::new(source, &passed);
    let describe = |(at, image)| {
        let contents = describer.describe(&image);
        (at, image, contents)
    };
    let mut described: Vec<Described> = images.into_iter().map(describe).collect();
    let mut all: Vec<&mut Contents> = described.iter_mut().map(|(_, _, contents)| contents).collect();
    let mut problems = if args.verify {
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        verify(source, &passed, &mut all, workers)
    } else {
        all.iter().flat_map(|contents| contents.problems()).collect()
    };
    // Images share layers.
    let mut told = HashSet::new();
    problems.retain(|problem| told.insert(chain(problem)));
    for warning in source.warnings() {
        context.printer.warning(&warning);
    }
    if args.json {
        context.printer.json(&json(source, &described, &problems))?;
    } else {
        for line in table(source, &described, context.printer.columns()) {
            context.printer.result(&line)?;
        }
    }
    if args.verify && problems.is_empty() {
        context.printer.status("every digest and diff ID is right");
    }
    conclude(context.printer, source, problems)
}

/// An image, its place in the source's list, and what belongs to it.
type Described = (usize, Image, Contents);

/// Lists the images that are meant, each with its place in the source's list.
fn images(source: &dyn Source, choice: &Choice) -> Result<Vec<(usize, Image)>> {
    let images = source.images()?;
    // Without any image, the choice fails with the words for it.
    if *choice == Choice::Only && !images.is_empty() {
        return Ok(images.into_iter().enumerate().collect());
    }
    let image = choose(source, choice, None)?;
    let at = match choice {
        Choice::Index(at) => Some(*at),
        _ => images.iter().position(|listed| listed.identity() == image.identity()),
    };
    Ok(vec![(at.unwrap_or(0), image)])
}

/// Ends with what is wrong, if anything is.
fn conclude(printer: Printer, source: &dyn Source, mut problems: Vec<Error>) -> Result<ExitStatus> {
    match problems.len() {
        0 => Ok(ExitStatus::Success),
        1 => Err(problems.remove(0).while_doing(format!("examining {}", source.name()))),
        count => {
            for problem in &problems {
                printer.warning(&chain(problem));
            }
            Err(Error::source(format!("{} is not what it says it is: {count} problems", source.name())))
        }
    }
}

/// Returns the lines of the table: each image with its documents and their parts, and no row of these wider than `width`.
fn table(source: &dyn Source, described: &[Described], width: Option<usize>) -> Vec<String> {
    let rows: Vec<Vec<Row>> = described.iter().map(|(_, _, contents)| rows(contents)).collect();
    let columns = [Column::Words, Column::Words, Column::Number, Column::Words];
    let mut parts = table::lines("  ", columns, &rows.concat(), width).into_iter();
    let mut lines = vec![source.name()];
    for ((at, image, contents), rows) in described.iter().zip(&rows) {
        let names = names(&image.names);
        let companion = if image.companion { " (belongs to another image)" } else { "" };
        lines.push(String::new());
        lines.push(format!("@{at} {names}{companion}{}", sum(contents)));
        lines.extend(parts.by_ref().take(rows.len()));
    }
    lines
}

/// Returns the names of an image, as many as are read at a glance.
fn names(names: &[String]) -> String {
    match names.len().checked_sub(MOST_NAMES) {
        _ if names.is_empty() => "no name".to_owned(),
        Some(more) if more > 0 => format!("{} and {more} more", names[..MOST_NAMES].join(", ")),
        _ => names.join(", "),
    }
}

const MOST_NAMES: usize = 10;

/// Returns how many layers an image has in all, and how large they are, those that are there twice counted once.
fn sum(contents: &Contents) -> String {
    let layers: Vec<&Part> = contents.documents.iter().flat_map(|document| &document.layers).collect();
    let mut seen = HashSet::new();
    let distinct =
        layers.iter().filter(|part| seen.insert((&part.digest, &part.layer.diff_id, &part.layer.name)));
    let bytes = distinct.filter_map(|part| part.size).sum();
    match layers.len() {
        0 if contents.documents.is_empty() => ": cannot be read".to_owned(),
        0 => String::new(),
        count => format!(": {}, {}", counted(count, "layer"), readable(bytes)),
    }
}

/// What it is, a document's platform or a layer's encoding, its size, and last its digest, whose beginning is enough to
/// tell it from others.
type Row = [String; 4];

fn row(kind: &str, how: String, size: String, digest: String) -> Row {
    [kind.to_owned(), how, size, digest]
}

fn rows(contents: &Contents) -> Vec<Row> {
    let missing = contents
        .missing
        .iter()
        .map(|child| row("manifest", "missing".to_owned(), readable(child.size), child.digest.to_string()));
    contents.documents.iter().flat_map(document_rows).chain(missing).collect()
}

fn document_rows(document: &Document) -> Vec<Row> {
    let root = document.manifest.as_ref().map(|manifest| {
        let kind = match manifest.content {
            Content::Image { .. } => "manifest",
            Content::Index { .. } => "index",
        };
        let size = readable(manifest.bytes.len() as u64);
        row(kind, platform(document), size, manifest.digest.to_string())
    });
    let config = document.config.as_ref().map(|config| {
        // Where there is no manifest, the config is what has a platform.
        let how = if root.is_none() { platform(document) } else { how(&config.state, "") };
        part_row("config", how, config)
    });
    let layers = document.layers.iter().map(|layer| part_row("layer", how(&layer.state, "none"), layer));
    root.into_iter().chain(config).chain(layers).collect()
}

fn part_row(kind: &str, how: String, part: &Part) -> Row {
    let digest = match (&part.digest, &part.layer.descriptor, &part.layer.diff_id) {
        // A manifest names it by that, or it is plain.
        (Some(digest), Some(_), _) | (Some(digest), None, None) => digest.to_string(),
        (Some(digest), None, Some(diff_id)) if *digest != diff_id.0 => {
            format!("{digest}, diff ID {diff_id}")
        }
        (_, _, Some(diff_id)) => format!("diff ID {diff_id}"),
        (None, _, None) => part.layer.name.clone(),
    };
    row(kind, how, part.size.map_or_else(|| "?".to_owned(), readable), digest)
}

fn platform(document: &Document) -> String {
    document.platform.as_ref().map(Platform::to_string).unwrap_or_default()
}

/// Says how a blob is held; `plain` is the word for one that is not encoded.
fn how(state: &State, plain: &str) -> String {
    match state {
        State::Broken(_) => "broken",
        State::Foreign => "foreign",
        State::Held(longshore::codec::Compression::None) => plain,
        State::Held(compression) => compression.name(),
        State::Missing => "missing",
    }
    .to_owned()
}

fn readable(size: u64) -> String {
    ByteSize(size).to_string()
}

/// Describes everything for machines. Keys may be added; those that are there stay.
fn json(source: &dyn Source, described: &[Described], problems: &[Error]) -> Value {
    let images: Vec<Value> = described
        .iter()
        .map(|(at, image, contents)| {
            json!({
                "position": at,
                "names": image.names,
                "companion": image.companion,
                "digest": image.digest(),
                "documents": contents.documents.iter().map(document_json).collect::<Vec<_>>(),
                "missing": contents.missing.iter().map(descriptor_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "source": source.name(),
        "images": images,
        "problems": problems.iter().map(|problem| chain(problem)).collect::<Vec<_>>(),
        "warnings": source.warnings(),
    })
}

fn document_json(document: &Document) -> Value {
    let manifest = document.manifest.as_ref();
    json!({
        "digest": manifest.map(|manifest| manifest.digest.to_string()),
        "mediaType": manifest.map(|manifest| &manifest.media_type),
        "size": manifest.map(|manifest| manifest.bytes.len()),
        "platform": document.platform,
        "config": document.config.as_ref().map(part_json),
        "layers": document.layers.iter().map(part_json).collect::<Vec<_>>(),
        "manifests": manifest.and_then(|manifest| match &manifest.content {
            Content::Image { .. } => None,
            Content::Index { manifests } => Some(manifests.iter().map(descriptor_json).collect::<Vec<_>>()),
        }),
    })
}

fn part_json(part: &Part) -> Value {
    let descriptor = part.layer.descriptor.as_ref();
    json!({
        "name": part.layer.name,
        "digest": part.digest,
        "diffId": part.layer.diff_id,
        "mediaType": descriptor.and_then(|descriptor| descriptor.media_type.as_ref()),
        "size": part.size,
        "encoding": how(&part.state, "none"),
    })
}

fn descriptor_json(descriptor: &Descriptor) -> Value {
    json!({
        "digest": descriptor.digest,
        "mediaType": descriptor.media_type,
        "size": descriptor.size,
        "platform": descriptor.platform,
    })
}
