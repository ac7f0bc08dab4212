//! What is known of an upload, in one small document that is only replaced by who has seen it as it was.
//!
//! So of two that append to one upload, the one that writes the document first goes on, and the other is told where the
//! upload now is. An upload ends in two steps: its document says how, and nobody appends any more; then what follows
//! from that is done. Whoever finds one that says so and is still there does the rest: its process may be dead.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Objects, blob_key,
    body::{Body, piece_key, pieces_key},
    shared_key,
    store::Version,
};
use crate::{
    error::{Context as _, Error, ErrorKind, Result, chain},
    oci::{Algorithm, Digest, Hasher},
    server::{
        protocol::{Name, Refusal},
        storage::session::{Session, unknown},
    },
};

/// How often somebody who ends an upload tries again where another appends to it.
const TRIES: usize = 5;

/// An upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// The repository it is for.
    repository: String,
    algorithm: Algorithm,
    /// The hash of the bytes that count, as the hash function writes it, in base64.
    hash: String,
    /// The bytes that count.
    pub(super) body: Body,
    /// The object that somebody is writing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) writing: Option<Writing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ending: Option<Ending>,
}

/// An object whose parts are on their way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Writing {
    pub(super) name: String,
    /// What the bucket knows it by.
    pub(super) id: String,
}

/// How an upload ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ending {
    /// Its bytes are not wanted.
    Cancelled,
    /// It is this blob.
    Committed(Digest),
}

impl State {
    fn new(session: &Session, algorithm: Algorithm) -> Self {
        let body = Body { upload: session.id().to_owned(), pieces: Vec::new() };
        let repository = session.name().to_string();
        let mut state =
            Self { repository, algorithm, hash: String::new(), body, writing: None, ending: None };
        state.count(&Hasher::new(algorithm));
        state
    }

    /// Returns the hash of the bytes that count.
    pub(super) fn hasher(&self) -> Result<Hasher> {
        let state = STANDARD.decode(&self.hash).ok();
        let hasher = state.and_then(|state| Hasher::resume(self.algorithm, &state));
        hasher.ok_or_else(|| Error::local("an upload's hash is damaged"))
    }

    /// Says that all bytes that were hashed count.
    pub(super) fn count(&mut self, hasher: &Hasher) {
        self.hash = STANDARD.encode(hasher.state());
    }

    fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings and numbers are always JSON").into()
    }
}

impl Objects {
    /// Begins an upload that other requests go on with.
    pub(in crate::server) async fn begin(&self, name: Name, algorithm: Algorithm) -> Result<Session> {
        Ok(self.create(name, algorithm).await?.0)
    }

    /// Finds an upload. Nobody is ever waited for.
    pub(in crate::server) async fn find(&self, session: Session) -> Result<(Session, bool), Refusal> {
        let (session, ..) = self.look_up(session).await?;
        Ok((session, false))
    }

    /// Ends an upload; its bytes are lost.
    pub(in crate::server) async fn cancel(&self, session: Session) -> Result<(), Refusal> {
        for _ in 0..TRIES {
            let (session, mut state, version) = self.look_up(session.clone()).await?;
            state.ending = Some(Ending::Cancelled);
            if self.replace(&state, &version).await?.is_some() {
                self.end(&session, &state).await?;
                return Ok(());
            }
        }
        let (session, ..) = self.look_up(session).await?;
        Err(session.taken())
    }

    /// Returns how many uploads there are.
    pub(in crate::server) async fn count_uploads(&self) -> Result<usize> {
        Ok(self.store.list("_uploads").await?.len())
    }

    /// Ends uploads that were not touched for `lifetime`, and those that dead processes have not brought to their end.
    pub(in crate::server) async fn clear(&self, lifetime: Duration) -> Result<()> {
        for (id, touched) in self.store.list("_uploads").await? {
            let age = SystemTime::now().duration_since(touched).unwrap_or_default();
            if age > lifetime
                && let Err(error) = self.give_up(&id).await
            {
                tracing::warn!("a stale upload stays: {}", chain(&error));
            }
        }
        Ok(())
    }

    /// Replaces what is known of an upload; nothing if somebody else has.
    pub(super) async fn replace(&self, state: &State, was: &Version) -> Result<Option<Version>> {
        self.store.replace(&state_key(&state.body.upload), state.to_bytes(), was).await
    }

    /// Returns whether nobody has replaced what is known of an upload.
    pub(super) async fn is_still(&self, session: &Session, was: &Version) -> Result<bool> {
        Ok(self.state(session.id()).await?.is_some_and(|(_, version)| version.is(was)))
    }

    /// Says why an upload cannot be gone on with: another request has.
    pub(super) async fn overtaken(&self, session: &Session) -> Refusal {
        match self.look_up(session.clone()).await {
            Ok((session, ..)) => session.taken(),
            Err(refusal) => refusal,
        }
    }

    /// Does what follows from an upload's end.
    pub(super) async fn end(&self, session: &Session, state: &State) -> Result<()> {
        let kept = match &state.ending {
            Some(Ending::Committed(digest)) => {
                let body = self.share(digest, &state.body).await?;
                self.store.put(&blob_key(session.name(), digest), body.to_bytes()).await?;
                Some(body)
            }
            _ => None,
        };
        // From here on the blob is there, and what fails now costs no more than room.
        if let Err(error) = self.sweep(state, kept).await {
            tracing::warn!("objects of an upload stay behind: {}", chain(&error));
        }
        Ok(())
    }

    /// Says where a blob's bytes are, unless that is known; returns where they are.
    async fn share(&self, digest: &Digest, body: &Body) -> Result<Body> {
        let key = shared_key(digest);
        match self.store.create(&key, body.to_bytes()).await? {
            Some(_) => Ok(body.clone()),
            None => {
                self.body(&key).await?.ok_or_else(|| Error::local(format!("`{key}` has just been removed")))
            }
        }
    }

    /// Removes what an upload leaves, but for the bytes of a blob.
    async fn sweep(&self, state: &State, kept: Option<Body>) -> Result<()> {
        let id = &state.body.upload;
        if let Some(writing) = &state.writing {
            self.store.abort(&piece_key(id, &writing.name), &writing.id).await;
        }
        let kept = kept.filter(|body| body.upload == *id);
        let kept: BTreeSet<String> =
            kept.into_iter().flat_map(|body| body.pieces).map(|piece| piece.name).collect();
        let pieces = self.store.list(&pieces_key(id)).await?;
        let gone = pieces.into_iter().map(|(name, _)| name).filter(|name| !kept.contains(name));
        self.store.remove(gone.map(|name| piece_key(id, &name)).collect()).await?;
        self.store.remove(vec![state_key(id)]).await
    }

    pub(super) async fn create(&self, name: Name, algorithm: Algorithm) -> Result<(Session, State, Version)> {
        let session = Session::new(name);
        let state = State::new(&session, algorithm);
        let version = self.store.create(&state_key(session.id()), state.to_bytes()).await?;
        let version = version.ok_or_else(|| Error::internal("two uploads have one id"))?;
        Ok((session, state, version))
    }

    /// Finds an upload that has not ended, if it belongs to the repository.
    pub(super) async fn look_up(&self, mut session: Session) -> Result<(Session, State, Version), Refusal> {
        let (state, version) = self.state(session.id()).await?.ok_or_else(unknown)?;
        if state.repository != session.name().as_str() {
            return Err(unknown());
        }
        if state.ending.is_some() {
            self.end(&session, &state).await?;
            return Err(unknown());
        }
        session.offset = state.body.size();
        Ok((session, state, version))
    }

    async fn state(&self, id: &str) -> Result<Option<(State, Version)>> {
        let Some(document) = self.store.read(&state_key(id)).await? else { return Ok(None) };
        let state = serde_json::from_slice(&document.bytes)
            .context(ErrorKind::Local, || format!("the state of the upload `{id}` is damaged"))?;
        Ok(Some((state, document.version)))
    }

    /// Ends a stale upload, unless somebody goes on with it at this moment.
    async fn give_up(&self, id: &str) -> Result<()> {
        let Some((mut state, version)) = self.state(id).await? else { return Ok(()) };
        let session = state.repository.parse().and_then(|name| Session::named(name, id.to_owned()));
        let session = session.map_err(|_| Error::local(format!("`_uploads/{id}` is no upload's")))?;
        if state.ending.is_none() {
            state.ending = Some(Ending::Cancelled);
            if self.replace(&state, &version).await?.is_none() {
                return Ok(());
            }
        }
        self.end(&session, &state).await
    }
}

fn state_key(id: &str) -> String {
    format!("_uploads/{id}")
}
