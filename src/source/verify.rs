//! Verifying images without pushing them: everything is read, each blob once, and what manifests and configs say of it
//! is recomputed.
//!
//! All that differs is told, not only the first. What [`contents`](super::contents) has found to be wrong is told with it.

use std::{
    collections::{HashMap, HashSet},
    io::{Read, copy},
    ops::ControlFlow,
    thread,
};

use parking_lot::Mutex;

use super::{
    Data, Layer, Missing, Source,
    contents::{Contents, Document, Part, State},
    passed::Passed,
};
use crate::{
    blob::mismatch,
    codec::{
        Encoded,
        prove::{prove, prove_stream},
    },
    error::{Context as _, Error, ErrorKind, Result},
    oci::{Algorithm, Descriptor, Hasher},
};

/// Reads all blobs of some images, `workers` at a time, and returns what is wrong, in the order of the images.
pub fn verify(
    source: &dyn Source,
    passed: &Passed,
    images: &mut [&mut Contents],
    workers: usize,
) -> Vec<Error> {
    let read = read_all(source, passed, images, workers);
    let mut problems = Vec::new();
    for contents in images {
        problems.extend(contents.problems());
        for part in contents.documents.iter_mut().flat_map(Document::blobs) {
            match check(part, &read) {
                Ok(Some(read)) => {
                    part.size.get_or_insert(read.size);
                    part.digest.get_or_insert(read.digest);
                }
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
    }
    problems
}

/// What was found by reading blobs, by the names that the source has for them.
type Found = HashMap<String, Result<Encoded>>;

/// Reads each blob once, the largest first.
fn read_all(source: &dyn Source, passed: &Passed, images: &mut [&mut Contents], workers: usize) -> Found {
    let mut parts: Vec<Part> = Vec::new();
    let mut known = HashSet::new();
    for part in images.iter_mut().flat_map(|contents| &mut contents.documents).flat_map(Document::blobs) {
        if matches!(part.state, State::Held(_)) && known.insert(part.layer.name.clone()) {
            parts.push(part.clone());
        }
    }
    parts.sort_by_key(|part| part.size);
    let (left, found) = (Mutex::new(parts), Mutex::new(Found::new()));
    // The lock is let go before the reading.
    let next = || left.lock().pop();
    thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| {
                while let Some(Part { layer, .. }) = next() {
                    let result = read(source, passed, &layer);
                    found.lock().insert(layer.name, result);
                }
            });
        }
    });
    found.into_inner()
}

fn read(source: &dyn Source, passed: &Passed, layer: &Layer) -> Result<Encoded> {
    if let Some(descriptor) = &layer.descriptor
        && descriptor.digest.algorithm() != Algorithm::Sha256
    {
        check_digest(source, layer, descriptor)?;
    }
    match source.open(layer)? {
        Data::Absorbed(digest) => passed.blob(&digest).map(|(_, encoded)| encoded.clone()),
        Data::Stored(blob) => prove(&blob, &|_| ControlFlow::Continue(())),
        Data::Stream(stream) => {
            prove_stream(stream, &|_| ControlFlow::Continue(())).map(|(_, encoded)| encoded)
        }
    }
}

/// Compares a blob with its digest, where that is none that every pass computes.
fn check_digest(source: &dyn Source, layer: &Layer, descriptor: &Descriptor) -> Result<()> {
    let mut hasher = Hasher::new(descriptor.digest.algorithm());
    let mut input: Box<dyn Read> = match source.open(layer)? {
        Data::Absorbed(_) => {
            return Err(Error::source("its digest is not sha256 and cannot be checked in passing")
                .with_hint("unpack the archive first"));
        }
        Data::Stored(blob) => Box::new(blob.reader()),
        Data::Stream(stream) => stream,
    };
    let size = copy(&mut input, &mut hasher).context(ErrorKind::Source, || "reading a blob".into())?;
    let found = hasher.finish();
    if found == descriptor.digest { Ok(()) } else { Err(mismatch(&layer.name, descriptor, size, &found)) }
}

/// Compares a blob that has been read with what is said about it; returns what it is, if it could be read.
fn check(part: &Part, found: &Found) -> Result<Option<Encoded>> {
    let layer = &part.layer;
    let named = layer.name.escape_debug();
    match &part.state {
        State::Broken(_) | State::Foreign => return Ok(None),
        State::Missing => return Err(Error::source(format!("`{named}` is missing")).because(Missing)),
        State::Held(_) => {}
    }
    let read = found.get(&layer.name).cloned();
    let read = read.unwrap_or_else(|| Err(Error::internal("nobody has read it")));
    let read = read.map_err(|error| error.while_doing(format!("reading `{named}`")))?;
    if let Some(descriptor) = &layer.descriptor {
        let is_other = descriptor.digest.algorithm() == Algorithm::Sha256 && descriptor.digest != read.digest;
        if is_other || descriptor.size != read.size {
            return Err(mismatch(&layer.name, descriptor, read.size, &read.digest));
        }
    }
    match &layer.diff_id {
        Some(diff_id) if *diff_id != read.diff_id => {
            Err(diff_id.mismatch(&read.diff_id).while_doing(format!("layer `{named}`")))
        }
        _ => Ok(Some(read)),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Cursor,
        sync::{atomic::AtomicUsize, atomic::Ordering},
        time::Duration,
    };

    use bytes::Bytes;
    use parking_lot::Condvar;

    use super::*;
    use crate::{
        oci::{DiffId, Digest},
        source::{Image, ImageContent, contents::Describer},
    };

    /// Layers called by their content, the first of which can be read when somebody reads another one too.
    #[derive(Default)]
    struct Together {
        reading: Mutex<usize>,
        changed: Condvar,
        opened: AtomicUsize,
    }

    impl Source for Together {
        fn name(&self) -> String {
            "it".into()
        }

        fn images(&self) -> Result<Vec<Image>> {
            Ok(Vec::new())
        }

        fn open(&self, layer: &Layer) -> Result<Data> {
            // The first look is not the reading.
            if self.opened.fetch_add(1, Ordering::SeqCst) >= 4 {
                *self.reading.lock() += 1;
                self.changed.notify_all();
                let alone = |reading: &mut usize| *reading < 2;
                let patience = Duration::from_secs(60);
                let waited = self.changed.wait_while_for(&mut self.reading.lock(), alone, patience);
                assert!(!waited.timed_out(), "nobody else is reading");
            }
            Ok(Data::Stream(Box::new(Cursor::new(layer.name.clone().into_bytes()))))
        }

        fn plain_size(&self, layer: &Layer) -> Option<u64> {
            (layer.name == "a").then_some(1)
        }
    }

    #[test]
    fn blobs_are_read_side_by_side_and_told_in_order() {
        let layer = |name: &str, is: &str| Layer {
            name: name.into(),
            descriptor: None,
            diff_id: Some(DiffId(Digest::of(is.as_bytes()))),
        };
        let layers = vec![layer("a", "a"), layer("bb", "c"), layer("ccc", "ccc"), layer("dddd", "e")];
        let config = Bytes::from_static(b"{}");
        let image = Image::new(Vec::new(), ImageContent::Layers { config, layers, original: None });
        let (source, passed) = (Together::default(), Passed::default());
        let mut contents = Describer::new(&source, &passed).describe(&image);
        let sizes = |contents: &Contents| -> Vec<Option<u64>> {
            contents.documents[0].layers.iter().map(|layer| layer.size).collect()
        };
        assert_eq!(sizes(&contents), [Some(1), None, None, None]);
        let mut again = contents.clone();
        let problems = verify(&source, &passed, &mut [&mut contents, &mut again], 2);
        let problems: Vec<_> = problems.iter().map(|problem| problem.message().split('`').nth(1)).collect();
        assert_eq!(problems, [Some("bb"), Some("dddd"), Some("bb"), Some("dddd")]);
        assert_eq!(sizes(&contents), [Some(1), None, Some(3), None]);
        assert_eq!(contents.documents[0].layers[2].digest, Some(Digest::of(b"ccc")));
        assert_eq!(source.opened.into_inner(), 8);
    }
}
