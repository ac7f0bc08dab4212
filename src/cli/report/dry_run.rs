//! `longshore push --dry-run`: what would be done, as a table or as JSON.

use bytesize::ByteSize;
use longshore::{
    Result,
    error::chain,
    event::{PlannedBlob, Todo},
    push::Forecast,
};
use serde_json::{Value, json};

use super::conclude;
use crate::cli::{
    Context, ExitStatus,
    output::table::{self, Column},
};

/// What would become of one destination.
pub(in crate::cli) struct Outlook {
    /// `registry/repository`.
    pub(in crate::cli) name: String,
    pub(in crate::cli) result: Result<Forecast>,
}

/// Prints what would be done.
pub(in crate::cli) fn print(outlooks: &[Outlook], json: bool, context: &Context) -> Result<ExitStatus> {
    if json {
        let document = json!({ "destinations": outlooks.iter().map(to_json).collect::<Vec<_>>() });
        context.printer.json(&document)?;
    } else {
        for Outlook { name, result } in outlooks {
            if let Ok(forecast) = result {
                let lines = table(name, forecast, context.printer.columns());
                lines.iter().try_for_each(|line| context.printer.result(line))?;
            }
        }
    }
    let failures: Vec<_> = outlooks
        .iter()
        .filter_map(|outlook| Some((outlook.name.clone(), outlook.result.as_ref().err()?)))
        .collect();
    conclude(&failures, outlooks.len(), context)
}

fn table(name: &str, forecast: &Forecast, width: Option<usize>) -> Vec<String> {
    let Forecast { digest, tags, skipped, is_there, blobs, .. } = forecast;
    let name = match digest {
        Some(digest) => format!("{name}@{digest}"),
        None => format!("{name} (its digest is known when all is encoded)"),
    };
    let tags = if tags.is_empty() { String::new() } else { format!(" as {}", tags.join(", ")) };
    let mut lines = vec![format!("{name}{tags}")];
    let skip = |(tag, digest)| format!("  skip      `{tag}`, which is there already: {digest}");
    lines.extend(skipped.iter().map(skip));
    if *is_there {
        lines.push("  it is there: nothing would be done".to_owned());
        return lines;
    }
    let rows: Vec<_> = blobs.iter().map(|blob| [verb(blob), size(blob), named(blob).to_owned()]).collect();
    lines.extend(table::lines("  ", [Column::Words, Column::Number, Column::Words], &rows, width));
    lines.push(format!("total: {}", sum(blobs)));
    lines.push(match forecast.chunk {
        Some(chunk) => format!("chunks of {}, {}", ByteSize(chunk), forecast.why),
        None => format!("whole blobs: {}", forecast.why),
    });
    lines
}

fn verb(blob: &PlannedBlob) -> String {
    let from = blob.from.as_deref().unwrap_or_default();
    let encoding = blob.encoding.as_deref().unwrap_or_default();
    match blob.step {
        Todo::Check => "check".to_owned(),
        Todo::Encode if from.is_empty() => format!("encode {encoding}"),
        Todo::Encode => format!("mount from {from}, or encode {encoding}"),
        Todo::Fetch => "fetch and send".to_owned(),
        Todo::Leave => "leave".to_owned(),
        Todo::Mount => format!("mount from {from}, or send"),
        Todo::Reuse => "reuse".to_owned(),
        Todo::Send => "send".to_owned(),
        _ => "present".to_owned(),
    }
}

fn size(blob: &PlannedBlob) -> String {
    blob.size.or(blob.source_size).map_or_else(|| "?".to_owned(), |size| ByteSize(size).to_string())
}

fn named(blob: &PlannedBlob) -> &str {
    blob.digest.as_ref().unwrap_or(&blob.blob)
}

/// Counts blobs by what becomes of them, with the bytes that they are now.
pub(in crate::cli) fn sum(blobs: &[PlannedBlob]) -> String {
    let of = |steps: &[Todo], what: &str| {
        let blobs: Vec<_> = blobs.iter().filter(|blob| steps.contains(&blob.step)).collect();
        let bytes: u64 = blobs.iter().filter_map(|blob| blob.size.or(blob.source_size)).sum();
        (!blobs.is_empty()).then(|| format!("{} {what} ({})", blobs.len(), ByteSize(bytes)))
    };
    let parts = [
        of(&[Todo::Leave], "foreign"),
        of(&[Todo::Present, Todo::Check], "present"),
        of(&[Todo::Reuse], "reused"),
        of(&[Todo::Mount], "to mount"),
        of(&[Todo::Send], "to send"),
        of(&[Todo::Fetch], "to fetch and send"),
        of(&[Todo::Encode], "to encode and send"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Describes one destination for machines. Keys may be added; those that are there stay.
fn to_json(Outlook { name, result }: &Outlook) -> Value {
    match result {
        Ok(forecast) => json!({
            "destination": name,
            "digest": forecast.digest,
            "tags": forecast.tags,
            "skipped": forecast.skipped,
            "isThere": forecast.is_there,
            "blobs": forecast.blobs,
            "bytes": forecast.totals.bytes,
            "chunk": { "size": forecast.chunk, "why": forecast.why },
        }),
        Err(error) => json!({ "destination": name, "error": chain(error) }),
    }
}
