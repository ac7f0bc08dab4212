//! Archives that can be read once, in their own order: a compressed tar, a pipe.
//!
//! What an entry is for is known only at the end (manifest.json comes last). So each entry is recognised as
//! it passes: a plain layer is hashed and encoded into the cache, everything else is spooled as it is into
//! one unlinked file (documents are small, and what is encoded already goes out verbatim). Then the archive
//! is an ordinary source whose plain layers are all cached.

use std::{
    collections::HashMap,
    io::{self, Read, Write as _},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{
    Options, Target,
    feed::Feed,
    press::{Press, Until, transcode},
    runtime::blocking,
    upload::{Uploader, traffic::Traffic},
};
use crate::{
    blob::Blob,
    cache::{Cache, Entry, Writer},
    codec::{Compression, ENCODER_VERSION, Encoding},
    error::{Context as _, Error, ErrorKind, Result, chain},
    oci::{Algorithm, DiffId, Digest, Hasher, Reference},
    source::{
        self, Pass, Source,
        archive::{Entries, EntryData, EntryHead, EntryKind, Index},
        spec::Transport,
        tarball,
    },
};

/// A tar's first header block, by which plain layers are told from documents.
const HEAD: usize = 512;
/// What is spooled passes in pieces of this size.
const FRAME: usize = 256 << 10;

/// The plain layers that were encoded while their archive passed, by the digest of their plain bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Absorbed {
    layers: HashMap<Digest, (Entry, Blob)>,
}

impl Absorbed {
    /// Returns the cache's entry for a plain layer that passed, and the encoded bytes.
    pub(crate) fn layer(&self, digest: &Digest) -> Result<&(Entry, Blob)> {
        self.layers.get(digest).ok_or_else(|| Error::internal(format!("layer {digest} did not pass by")))
    }

    /// Decodes a layer that a manifest names by its plain bytes: those look like no encoding.
    pub(super) fn reproduce(&self, digest: &Digest, cache: &Cache) -> Result<Blob> {
        let (entry, blob) = self.layer(digest)?;
        let mut plain = transcode::compression(blob)?
            .decoder(Box::new(blob.reader()))
            .context(ErrorKind::Internal, || format!("decoding {}", entry.digest))?;
        ScratchFile::new(cache)?.take(&mut plain, &entry.digest.to_string())
    }

    /// Takes in the layers of one more archive.
    pub(super) fn extend(&mut self, other: Self) {
        self.layers.extend(other.layers);
    }
}

/// Reads an archive from its first byte to its last; `transport` is what the user called it.
///
/// Where it is clear already where its one image will go (`ahead`), plain layers are sent there while they are
/// encoded. What cannot be sent ahead is left to the push, which says why.
pub(super) async fn absorb(
    pass: Pass,
    transport: Option<Transport>,
    press: &Press,
    options: &Options,
    ahead: Option<(Target, Traffic)>,
) -> Result<(Box<dyn Source>, Absorbed)> {
    let (outbox, inbox) = mpsc::unbounded_channel();
    let outbox = ahead.is_some().then_some(outbox);
    let (intake, encoding) = (press.clone(), options.recipe.encoding());
    let absorbing = blocking(move || take_in(pass, transport, &intake, encoding, outbox));
    let sending = async {
        if let Some((target, traffic)) = ahead {
            send_ahead(inbox, press, options, &target, traffic).await;
        }
    };
    tokio::join!(absorbing, sending).0
}

async fn send_ahead(
    mut inbox: mpsc::UnboundedReceiver<(String, Feed)>,
    press: &Press,
    options: &Options,
    target: &Target,
    traffic: Traffic,
) {
    let Target { client, destination: Reference { repository, .. }, .. } = target;
    let reporter = Arc::clone(&press.reporter);
    let uploader = &Uploader::new(client.clone(), repository.path.clone(), options, traffic, reporter);
    let send = |(name, feed): (String, Feed)| async move {
        let settings = options.settings(client, true);
        // As the layer will be known once it has passed: many producers name it by its diff ID.
        let blob = source::digest_in(&name)
            .map(|diff_id| format!("{diff_id} as {} by {ENCODER_VERSION}", options.recipe.encoding()));
        if let Err(error) = uploader.upload(feed, settings, &name, blob).await {
            tracing::debug!("`{name}` was not sent ahead: {}", chain(&error));
        }
    };
    let mut uploads = FuturesUnordered::new();
    loop {
        tokio::select! {
            next = inbox.recv() => match next {
                Some(layer) => uploads.push(send(layer)),
                None => break,
            },
            Some(()) = uploads.next() => {}
        }
    }
    uploads.collect::<()>().await;
}

/// A plain layer that is being encoded, for whoever sends it ahead.
type Outbox = mpsc::UnboundedSender<(String, Feed)>;

fn take_in(
    pass: Pass,
    transport: Option<Transport>,
    press: &Press,
    encoding: Encoding,
    outbox: Option<Outbox>,
) -> Result<(Box<dyn Source>, Absorbed)> {
    let name = pass.name;
    let scratch = ScratchFile::new(&press.cache)?;
    let mut intake = Intake { press, encoding, outbox, scratch, absorbed: Absorbed::default() };
    let mut entries = Entries::new(pass.tar);
    let mut index = Index::default();
    let reading = || format!("reading {name}");
    while let Some(head) = entries.next() {
        let head = head.map_err(|error| error.while_doing(reading()))?;
        let data = intake.take(&head, &mut entries).map_err(|error| error.while_doing(reading()))?;
        index.add(head, data).map_err(|error| error.while_doing(reading()))?;
    }
    let source = tarball::from_index(index, &name, transport)?;
    Ok((source, intake.absorbed))
}

/// What becomes of each entry.
struct Intake<'a> {
    press: &'a Press,
    encoding: Encoding,
    outbox: Option<Outbox>,
    scratch: ScratchFile,
    absorbed: Absorbed,
}

impl Intake<'_> {
    fn take(&mut self, head: &EntryHead, entries: &mut (dyn Read + Send)) -> Result<EntryData> {
        if head.kind != EntryKind::File {
            return self.scratch.take(&mut io::empty(), &head.name).map(EntryData::Stored);
        }
        let mut first = Vec::with_capacity(HEAD);
        entries
            .take(HEAD as u64)
            .read_to_end(&mut first)
            .context(ErrorKind::Source, || format!("reading entry `{}`", head.name.escape_debug()))?;
        // What is too large is encoded whatever it looks like, so that no more than documents is spooled plain.
        let is_large = head.size > tarball::document_limit(&head.name);
        let layer = Compression::detect(&first) == Compression::None
            && (first.get(257..262) == Some(b"ustar") || is_large);
        let mut bytes = io::Cursor::new(first).chain(entries);
        if !layer {
            return self.scratch.take(&mut bytes, &head.name).map(EntryData::Stored);
        }
        match self.known(&head.name)? {
            Some((promised, found)) => self.hash(head, &mut bytes, &promised, found),
            None => self.encode(head, &mut bytes),
        }
    }

    /// Many producers name a layer by the digest of its plain bytes (`<hex>.tar`, `blobs/sha256/<hex>`): then
    /// the cache can be asked before the layer is read.
    fn known(&self, name: &str) -> Result<Option<(DiffId, (Entry, Blob))>> {
        let Some(digest) = source::digest_in(name) else { return Ok(None) };
        let diff_id = DiffId(digest);
        Ok(self.press.cache.lookup(&diff_id, self.encoding)?.map(|found| (diff_id, found)))
    }

    /// A layer that the cache has is only hashed.
    fn hash(
        &mut self,
        head: &EntryHead,
        plain: &mut dyn Read,
        promised: &DiffId,
        found: (Entry, Blob),
    ) -> Result<EntryData> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let size = io::copy(plain, &mut hasher)
            .context(ErrorKind::Source, || format!("reading entry `{}`", head.name.escape_debug()))?;
        let digest = hasher.finish();
        if digest != promised.0 {
            return Err(Error::source(format!(
                "digest mismatch in entry `{}`: its name promises {promised}, it is {digest}",
                head.name.escape_debug()
            )));
        }
        self.absorbed.layers.insert(digest.clone(), found);
        Ok(EntryData::Absorbed { digest, size, compression: Compression::None })
    }

    fn encode(&mut self, head: &EntryHead, plain: &mut (dyn Read + Send)) -> Result<EntryData> {
        let (output, feed) = Feed::growing();
        if let Some(outbox) = &self.outbox
            && outbox.send((head.name.clone(), feed)).is_err()
        {
            return Err(Error::internal("nobody waits for the archive any more"));
        }
        let pressed = self.press.encode(plain, &head.name, self.encoding, &output, Until::End);
        let (encoded, writer) = pressed.inspect_err(|error| output.end(Err(error.clone())))?;
        output.end(Ok((encoded.digest.clone(), encoded.size)));
        // The archive does not pass once more: what is not kept is there as long as it is open.
        let bytes = Blob::from_file(writer.blob_file(), encoded.size);
        let blob = self.press.keep(writer, &encoded, self.encoding).unwrap_or(bytes);
        self.press.share(&encoded, self.encoding, blob.clone());
        let DiffId(digest) = encoded.diff_id;
        let entry = Entry { digest: encoded.digest, size: encoded.size, plain_size: encoded.plain_size };
        self.absorbed.layers.insert(digest.clone(), (entry, blob));
        Ok(EntryData::Absorbed { digest, size: encoded.plain_size, compression: Compression::None })
    }
}

/// Bytes that are kept as they pass: a file without a name in the cache's folder, gone when nobody reads it
/// any more, even after a kill.
struct ScratchFile {
    writer: Writer,
    size: u64,
}

impl ScratchFile {
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
