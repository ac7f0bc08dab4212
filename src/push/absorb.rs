//! Archives that can be read once, in their own order: a compressed tar, a pipe.
//!
//! What an entry is for is known only at the end (manifest.json comes last). So each entry is recognised as
//! it passes: a plain layer is hashed and encoded into the cache, everything else is spooled as it is into
//! one unlinked file (documents are small, and what is encoded already goes out verbatim). Then the archive
//! is an ordinary source whose plain layers are all cached.

use std::{
    collections::HashMap,
    io::{self, Read, Write as _},
    ops::ControlFlow,
};

use crate::{
    blob::Blob,
    cache::{Cache, Entry, Writer},
    codec::{self, Compression, Encoding},
    error::{Context as _, Error, ErrorKind, Result},
    event::{Event, Reporter},
    oci::{DiffId, Digest},
    source::{
        Pass, Source,
        archive::{Entries, EntryData, EntryHead, EntryKind, Index},
        detect,
        spec::Transport,
    },
};

/// A tar's first header block, by which plain layers are told from documents.
const HEAD: usize = 512;
/// What is larger is encoded whatever it looks like, so that no more than documents is spooled plain.
const DOCUMENT_LIMIT: u64 = 4 << 20;
/// What is spooled passes in pieces of this size.
const FRAME: usize = 256 << 10;

/// The plain layers that were encoded while their archive passed, by the digest of their plain bytes.
#[derive(Clone, Debug, Default)]
pub struct Absorbed {
    layers: HashMap<Digest, (Entry, Blob)>,
}

impl Absorbed {
    /// Returns the cache's entry for a plain layer that passed, and the encoded bytes.
    pub(crate) fn layer(&self, digest: &Digest) -> Result<&(Entry, Blob)> {
        self.layers.get(digest).ok_or_else(|| Error::internal(format!("layer {digest} did not pass by")))
    }

    /// Decodes a layer that a manifest names by its plain bytes.
    pub(crate) fn reproduce(&self, digest: &Digest, cache: &Cache) -> Result<Blob> {
        let (entry, blob) = self.layer(digest)?;
        let mut plain = Compression::Gzip
            .decoder(Box::new(blob.reader()))
            .context(ErrorKind::Internal, || format!("decoding {}", entry.digest))?;
        let mut spool = Spool::new(cache)?;
        spool.take(&mut plain, &entry.digest.to_string())
    }
}

/// Reads an archive from its first byte to its last; `transport` is what the user called it.
pub fn absorb(
    pass: Pass,
    transport: Option<Transport>,
    cache: &Cache,
    encoding: Encoding,
    workers: usize,
    reporter: &dyn Reporter,
) -> Result<(Box<dyn Source>, Absorbed)> {
    let name = pass.name;
    let mut press = Press {
        cache,
        encoding,
        workers,
        reporter,
        spool: Spool::new(cache)?,
        absorbed: Absorbed::default(),
    };
    let mut entries = Entries::new(pass.tar);
    let mut index = Index::default();
    let reading = || format!("reading {name}");
    while let Some(head) = entries.next() {
        let head = head.map_err(|error| error.while_doing(reading()))?;
        let data = press.take(&head, &mut entries).map_err(|error| error.while_doing(reading()))?;
        index.add(head, data).map_err(|error| error.while_doing(reading()))?;
    }
    let source = detect::from_index(index, &name, transport)?;
    Ok((source, press.absorbed))
}

/// What presses entries into the cache.
struct Press<'a> {
    cache: &'a Cache,
    encoding: Encoding,
    workers: usize,
    reporter: &'a dyn Reporter,
    spool: Spool,
    absorbed: Absorbed,
}

impl Press<'_> {
    fn take(&mut self, head: &EntryHead, entries: &mut (dyn Read + Send)) -> Result<EntryData> {
        if head.kind != EntryKind::File {
            return self.spool.take(&mut io::empty(), &head.name).map(EntryData::Stored);
        }
        let mut first = Vec::with_capacity(HEAD);
        entries
            .take(HEAD as u64)
            .read_to_end(&mut first)
            .context(ErrorKind::Source, || format!("reading entry `{}`", head.name.escape_debug()))?;
        let layer = Compression::detect(&first) == Compression::None
            && (first.get(257..262) == Some(b"ustar") || head.size > DOCUMENT_LIMIT);
        let mut bytes = io::Cursor::new(first).chain(entries);
        if layer {
            self.encode(head, &mut bytes)
        } else {
            self.spool.take(&mut bytes, &head.name).map(EntryData::Stored)
        }
    }

    fn encode(&mut self, head: &EntryHead, plain: &mut (dyn Read + Send)) -> Result<EntryData> {
        let mut writer = self.cache.writer()?;
        let encoded = codec::transcode(plain, self.encoding, self.workers, &mut writer, &|progress| {
            self.reporter.event(Event::Encoded { blob: head.name.clone(), plain: progress.plain });
            ControlFlow::Continue(())
        })?;
        let blob = writer.commit(&encoded, self.encoding)?;
        let DiffId(digest) = encoded.diff_id.clone();
        let entry = Entry { digest: encoded.digest, size: encoded.size, plain_size: encoded.plain_size };
        self.absorbed.layers.insert(digest.clone(), (entry, blob));
        Ok(EntryData::Absorbed { digest, size: encoded.plain_size })
    }
}

/// Bytes that are kept as they pass: a file without a name in the cache's folder, gone when nobody reads it
/// any more, even after a kill.
struct Spool {
    writer: Writer,
    size: u64,
}

impl Spool {
    fn new(cache: &Cache) -> Result<Self> {
        Ok(Self { writer: Cache::scratch(cache.dir()).writer()?, size: 0 })
    }

    /// Appends all of `bytes`, and returns where they are.
    fn take(&mut self, bytes: &mut dyn Read, name: &str) -> Result<Blob> {
        let start = self.size;
        let mut frame = vec![0; FRAME];
        loop {
            let read = bytes
                .read(&mut frame)
                .context(ErrorKind::Source, || format!("reading entry `{}`", name.escape_debug()))?;
            if read == 0 {
                break;
            }
            self.writer
                .write_all(&frame[..read])
                .context(ErrorKind::Local, || format!("spooling entry `{}`", name.escape_debug()))?;
            self.size += read as u64;
        }
        Blob::from_file(self.writer.blob_file(), self.size)
            .slice(start, self.size - start)
            .ok_or_else(|| Error::internal("a span beyond the end of the spool"))
    }
}
