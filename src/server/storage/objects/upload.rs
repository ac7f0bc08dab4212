//! The way of an upload's bytes into a bucket.
//!
//! They are collected to a part in memory. If that is all a request brings, it becomes an object; if there is more, an
//! object in parts, one of them on its way while the next is filled. The last object of a request may be short: the next
//! request reads it back and writes a longer one. What was written counts once the upload's document says so.

use std::{future::Future, mem, time::Duration};

use bytes::{Buf as _, Bytes};
use object_store::multipart::PartId;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    Objects,
    body::{Piece, piece_key},
    parts::{PART, Part},
    sessions::{Ending, State, Writing},
    store::Version,
};
use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    oci::{Algorithm, Digest, Hasher},
    server::{
        protocol::{Name, Refusal},
        storage::session::Session,
        tasks::blocking,
    },
};

/// So many bytes of one request are at most lost when this process is killed.
const CHECKPOINT: u64 = 256 << 20;
/// What comes in is saved so often, however slowly it comes: the upload of a live client never looks stale.
const OFTEN: Duration = Duration::from_secs(60);

/// An upload that one request appends to.
#[derive(Debug)]
#[must_use = "what is not saved or committed does not count"]
pub(in crate::server) struct Upload {
    writer: Writer,
    /// After a failure, or where nobody waited for the end: what was saved before counts.
    is_lost: bool,
}

#[derive(Debug)]
struct Writer {
    objects: Objects,
    session: Session,
    state: State,
    version: Version,
    /// When that was written, or found.
    saved: Instant,
    /// Of all bytes up to the part's `hashed`.
    hasher: Hasher,
    part: Option<Part>,
    /// How much of the part is hashed.
    hashed: usize,
    /// The object in parts that is being written.
    object: Option<Object>,
    /// What another request has begun and not finished.
    abandoned: Option<Writing>,
    /// Objects that a longer one replaces.
    replaced: Vec<Piece>,
}

#[derive(Debug)]
struct Object {
    name: String,
    id: String,
    size: u64,
    parts: Vec<PartId>,
    sending: Option<JoinHandle<Result<PartId>>>,
}

impl Objects {
    /// Begins an upload of one request. It can be found like any other: this process may be killed.
    pub(in crate::server) async fn receive(&self, name: Name, algorithm: Algorithm) -> Result<Upload> {
        let (session, state, version) = self.create(name, algorithm).await?;
        Upload::new(self.clone(), session, state, version)
    }

    /// Goes on with an upload.
    pub(in crate::server) async fn take(&self, session: Session) -> Result<Upload, Refusal> {
        let (session, state, version) = self.look_up(session).await?;
        Ok(Upload::new(self.clone(), session, state, version)?)
    }
}

impl Upload {
    fn new(objects: Objects, session: Session, mut state: State, version: Version) -> Result<Self> {
        let (hasher, abandoned) = (state.hasher()?, state.writing.take());
        let writer = Writer {
            objects,
            session,
            state,
            version,
            saved: Instant::now(),
            hasher,
            part: None,
            hashed: 0,
            object: None,
            abandoned,
            replaced: Vec::new(),
        };
        Ok(Self { writer, is_lost: false })
    }

    /// Returns what is known of it.
    pub(in crate::server) const fn session(&self) -> &Session {
        &self.writer.session
    }

    /// Waits for its client; if that is slow and others wait for the memory it takes, without any.
    pub(in crate::server) async fn wait_for<T>(
        &mut self,
        next: impl Future<Output = T>,
    ) -> Result<T, Refusal> {
        tokio::pin!(next);
        while let Some(part) = &mut self.writer.part {
            if let Ok(next) = timeout_at(part.until(), &mut next).await {
                return Ok(next);
            }
            if part.is_overdue() {
                self.save().await?;
            }
        }
        Ok(next.await)
    }

    /// Waits for memory to take bytes into.
    pub(in crate::server) async fn make_room(&mut self) -> Result<(), Refusal> {
        let made = self.writer()?.make_room().await;
        self.settle(made.map_err(Refusal::from)).await
    }

    /// Takes the next bytes.
    pub(in crate::server) async fn append(&mut self, batch: Vec<Bytes>) -> Result<(), Refusal> {
        let appended = self.writer()?.append(batch).await;
        self.settle(appended).await
    }

    /// Makes what was appended count.
    pub(in crate::server) async fn save(&mut self) -> Result<(), Refusal> {
        if self.is_lost {
            return Ok(());
        }
        let saved = self.writer()?.save().await;
        self.settle(saved).await
    }

    /// Ends it as a blob of its repository, if its bytes are what `digest` says; otherwise they are lost.
    pub(in crate::server) async fn commit(mut self, digest: Digest) -> Result<(), Refusal> {
        self.save().await?;
        self.writer()?.commit(digest).await
    }

    /// Throws it away.
    pub(in crate::server) async fn discard(mut self) {
        self.writer.give_up().await;
        if let Err(refusal) = self.writer.objects.cancel(self.writer.session).await {
            tracing::debug!(?refusal, "an upload stays until it is stale");
        }
    }

    /// Returns what goes on with it; it is lost until that is settled.
    fn writer(&mut self) -> Result<&mut Writer> {
        if mem::replace(&mut self.is_lost, true) {
            return Err(Error::internal("an upload was lost"));
        }
        Ok(&mut self.writer)
    }

    async fn settle(&mut self, done: Result<(), Refusal>) -> Result<(), Refusal> {
        let Err(refusal) = done else {
            self.is_lost = false;
            return Ok(());
        };
        let writer = &mut self.writer;
        writer.give_up().await;
        // What one has begun, or replaced by something longer, is taken away by the next.
        if refusal.is_our_fault() && !writer.objects.is_still(&writer.session, &writer.version).await? {
            return Err(writer.objects.overtaken(&writer.session).await);
        }
        Err(refusal)
    }
}

impl Writer {
    /// Takes a part to fill. A short object at the end is read back into it.
    async fn make_room(&mut self) -> Result<()> {
        if self.part.is_some() {
            return Ok(());
        }
        let mut part = self.objects.room.take().await?;
        let short = |piece: &&Piece| self.object.is_none() && piece.size < PART as u64;
        if let Some(last) = self.state.body.pieces.last().filter(short).cloned() {
            self.state.body.read(&self.objects.store, &last, &mut part.bytes).await?;
            self.state.body.pieces.pop();
            self.replaced.push(last);
        }
        self.hashed = part.bytes.len();
        self.part = Some(part);
        Ok(())
    }

    async fn append(&mut self, batch: Vec<Bytes>) -> Result<(), Refusal> {
        for mut bytes in batch {
            while bytes.has_remaining() {
                if self.part.as_ref().is_some_and(|part| part.space() == 0) {
                    self.send_part().await?;
                }
                self.make_room().await?;
                if let Some(part) = &mut self.part {
                    let fits = bytes.split_to(part.space().min(bytes.len()));
                    part.bytes.extend_from_slice(&fits);
                }
            }
        }
        let is_long = self.object.as_ref().is_some_and(|object| object.size >= CHECKPOINT);
        let is_late = self.saved.elapsed() >= OFTEN;
        if is_long || is_late || self.part.as_mut().is_some_and(Part::is_overdue) {
            self.save().await?;
        }
        Ok(())
    }

    /// Writes what is in memory, and says that it counts.
    async fn save(&mut self) -> Result<(), Refusal> {
        self.hash().await?;
        let part = self.part.take().filter(|part| !part.bytes.is_empty());
        let piece = if let Some(object) = self.object.take() {
            self.finish(object, part).await?
        } else if let Some(part) = part {
            let piece = Piece { name: new_name(), size: part.bytes.len() as u64 };
            let key = self.state.body.key(&piece);
            part.send(|bytes| self.objects.store.put(&key, bytes)).await?;
            piece
        } else {
            return Ok(());
        };
        self.state.body.pieces.push(piece);
        self.state.count(&self.hasher);
        self.state.writing = None;
        self.replace().await?;
        self.session.offset = self.state.body.size();
        let replaced = mem::take(&mut self.replaced);
        let replaced = replaced.iter().map(|piece| self.state.body.key(piece)).collect();
        // They go with the upload at the latest.
        self.objects.store.remove(replaced).await.unwrap_or_default();
        Ok(())
    }

    /// Sends a full part, since more is to come.
    async fn send_part(&mut self) -> Result<(), Refusal> {
        self.hash().await?;
        let Some(part) = self.part.take() else { return Ok(()) };
        if self.object.is_none() {
            let name = new_name();
            let id = self.objects.store.begin(&piece_key(&self.state.body.upload, &name)).await?;
            let writing = Writing { name: name.clone(), id: id.clone() };
            self.object = Some(Object { name, id, size: 0, parts: Vec::new(), sending: None });
            self.announce(writing).await?;
        }
        if let Some(object) = &mut self.object {
            object.finish_sending().await?;
            object.send(&self.objects, &self.state.body.upload, part);
        }
        Ok(())
    }

    /// Makes an object of its parts, this one last.
    async fn finish(&self, mut object: Object, last: Option<Part>) -> Result<Piece> {
        object.finish_sending().await?;
        if let Some(last) = last {
            object.send(&self.objects, &self.state.body.upload, last);
            object.finish_sending().await?;
        }
        let Object { name, id, size, parts, .. } = object;
        let piece = Piece { name, size };
        self.objects.store.complete(&self.state.body.key(&piece), &id, parts, size).await?;
        Ok(piece)
    }

    /// Says which object is being written, so that others can throw it away. The bytes that count stay the same.
    async fn announce(&mut self, writing: Writing) -> Result<(), Refusal> {
        self.state.writing = Some(writing);
        // What is read back into memory counts all the same.
        let popped = self.replaced.len();
        self.state.body.pieces.extend(self.replaced.iter().cloned());
        let announced = self.replace().await;
        let pieces = self.state.body.pieces.len();
        self.state.body.pieces.truncate(pieces - popped);
        announced
    }

    async fn replace(&mut self) -> Result<(), Refusal> {
        match self.objects.replace(&self.state, &self.version).await? {
            None => Err(self.objects.overtaken(&self.session).await),
            Some(version) => {
                (self.version, self.saved) = (version, Instant::now());
                if let Some(Writing { name, id }) = self.abandoned.take() {
                    self.objects.store.abort(&piece_key(&self.state.body.upload, &name), &id).await;
                }
                Ok(())
            }
        }
    }

    async fn hash(&mut self) -> Result<()> {
        let Some(part) = &mut self.part else { return Ok(()) };
        let (mut hasher, bytes, hashed) = (self.hasher.clone(), mem::take(&mut part.bytes), self.hashed);
        (self.hasher, part.bytes) = blocking(move || {
            hasher.update(&bytes[hashed..]);
            Ok::<_, Error>((hasher, bytes))
        })
        .await?;
        self.hashed = part.bytes.len();
        Ok(())
    }

    async fn commit(&mut self, digest: Digest) -> Result<(), Refusal> {
        let body = &self.state.body;
        let found = if digest.algorithm() == self.hasher.algorithm() {
            self.hasher.clone().finish()
        } else {
            body.digest(&self.objects.store, digest.algorithm()).await?
        };
        let right = found == digest;
        self.state.ending = Some(if right { Ending::Committed(digest.clone()) } else { Ending::Cancelled });
        match self.replace().await {
            Ok(()) => self.objects.end(&self.session, &self.state).await?,
            // It may have been us, in an attempt that nobody answered.
            Err(refusal) => {
                let blob = self.objects.blob(self.session.name().clone(), digest.clone()).await?;
                blob.ok_or(refusal)?;
            }
        }
        if right { Ok(()) } else { Err(Refusal::wrong_digest(&found, &digest)) }
    }

    /// Leaves nothing behind that does not count.
    async fn give_up(&mut self) {
        self.part = None;
        let Some(object) = self.object.take() else { return };
        if let Some(sending) = object.sending {
            sending.abort();
        }
        self.objects.store.abort(&piece_key(&self.state.body.upload, &object.name), &object.id).await;
    }
}

impl Object {
    /// Begins to send a part.
    fn send(&mut self, objects: &Objects, upload: &str, part: Part) {
        self.size += part.bytes.len() as u64;
        let (store, key, id) = (objects.store.clone(), piece_key(upload, &self.name), self.id.clone());
        let index = self.parts.len();
        self.sending = Some(tokio::spawn(async move {
            part.send(|bytes| async move { store.put_part(&key, &id, index, bytes).await }).await
        }));
    }

    /// Waits until the part that is on its way is there.
    async fn finish_sending(&mut self) -> Result<()> {
        if let Some(sending) = self.sending.take() {
            let sent = sending.await.context(ErrorKind::Internal, || "a sender broke down".into())?;
            self.parts.push(sent?);
        }
        Ok(())
    }
}

fn new_name() -> String {
    format!("{:016x}", rand::random::<u64>())
}
