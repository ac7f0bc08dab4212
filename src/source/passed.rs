//! An archive that can be read once, looked at while it passes and not kept: its documents, and what there is
//! to know of everything else.
//!
//! For those who only want to know what is in it. Whoever pushes it absorbs it instead.

use std::{
    collections::HashMap,
    io::{self, Cursor, Read},
    ops::ControlFlow,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    Pass, Source,
    archive::{Entries, EntryData, EntryHead, EntryKind, Index},
    spec::Transport,
    tarball,
};
use crate::{
    codec::{Compression, Encoded, prove::prove_stream},
    error::{Context as _, Error, ErrorKind, Result},
    oci::Digest,
};

/// All documents of an archive are held at once; those of a thousand images have 10 MiB.
const DOCUMENTS_LIMIT: u64 = 256 << 20;

/// What was learned of the blobs of an archive, by digest.
#[derive(Clone, Debug, Default)]
pub struct Passed(HashMap<Digest, (Compression, Encoded)>);

impl Passed {
    /// Returns what a blob that passed was packed in, and its digests and sizes.
    pub fn blob(&self, digest: &Digest) -> Result<&(Compression, Encoded)> {
        self.0.get(digest).ok_or_else(|| Error::internal(format!("blob {digest} did not pass by")))
    }
}

/// Reads an archive from its first byte to its last; `transport` is what the user called it.
pub fn look(pass: Pass, transport: Option<Transport>) -> Result<(Box<dyn Source>, Passed)> {
    let name = pass.name;
    let mut passed = Passed::default();
    let mut index = Index::default();
    let mut kept = 0;
    let entries = Shared(Arc::new(Mutex::new(Entries::new(pass.tar))));
    let reading = |error: Error| error.while_doing(format!("reading {name}"));
    while let Some(head) = entries.next() {
        let head = head.map_err(reading)?;
        let data = take(&head, &entries, &mut passed).map_err(reading)?;
        if let EntryData::Kept(bytes) = &data {
            kept += bytes.len() as u64;
        }
        if kept > DOCUMENTS_LIMIT {
            return Err(reading(Error::source(format!(
                "its documents are over the limit of {DOCUMENTS_LIMIT} bytes"
            ))));
        }
        index.add(head, data).map_err(reading)?;
    }
    Ok((tarball::from_index(index, &name, transport)?, passed))
}

fn take(head: &EntryHead, entries: &Shared, passed: &mut Passed) -> Result<EntryData> {
    if head.kind != EntryKind::File {
        return Ok(EntryData::Kept(bytes::Bytes::new()));
    }
    let reading = || format!("reading the entry `{}`", head.name.escape_debug());
    let mut input: Box<dyn Read + Send> = Box::new(entries.clone());
    if head.size <= tarball::document_limit(&head.name) {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).context(ErrorKind::Source, reading)?;
        if bytes.trim_ascii_start().starts_with(b"{") || bytes.trim_ascii_start().starts_with(b"[") {
            return Ok(EntryData::Kept(bytes.into()));
        }
        input = Box::new(Cursor::new(bytes));
    }
    let (compression, encoded) =
        prove_stream(input, &|_| ControlFlow::Continue(())).map_err(|error| error.while_doing(reading()))?;
    let (digest, size) = (encoded.digest.clone(), encoded.size);
    passed.0.insert(digest.clone(), (compression, encoded));
    Ok(EntryData::Absorbed { digest, size, compression })
}

/// The archive's entries, for two: whoever goes from one to the next, and the decoder of the one in between.
#[derive(Clone)]
struct Shared(Arc<Mutex<Entries<Box<dyn Read + Send>>>>);

impl Shared {
    fn next(&self) -> Option<Result<EntryHead>> {
        self.0.lock().next()
    }
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().read(buffer)
    }
}
