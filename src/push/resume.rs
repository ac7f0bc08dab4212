//! Uploads that outlive their process: taken up where an earlier one was cut off, or given back when this one is
//! told to stop.
//!
//! A [`Trail`] is one blob's: what it finds at the beginning is a session to go on with, if the bytes at hand begin
//! with those that were sent; what it notes after each chunk is for whoever comes next.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::{feed::Feed, runtime::blocking};
use crate::{
    codec::Spool,
    error::Result,
    registry::{
        Client, Location, Pool, Reply, Request, Unfinished,
        session::Held,
        unfinished::{Key, Progress, Record},
    },
};

/// A push does not wait longer for the registry to take an upload back.
const PATIENCE: Duration = Duration::from_secs(3);

/// What becomes of an upload when the process ends before it.
#[derive(Clone, Debug)]
pub enum Resume {
    /// Its record is kept, and a later push goes on. What nobody takes up stays until [`Unfinished::sweep`].
    Keep(Unfinished),
    /// It is given back (`--no-resume`).
    GiveBack(OpenSessions),
    /// Nothing.
    Never,
}

impl Resume {
    /// Returns whether an upload may have been begun that can be gone on with.
    pub(super) fn is_unfinished(&self, key: &Key) -> bool {
        matches!(self, Self::Keep(unfinished) if unfinished.has(key))
    }
}

/// The sessions that are open at registries just now.
#[derive(Clone, Default)]
pub struct OpenSessions {
    open: Arc<Mutex<Open>>,
    /// Read while one is being opened by a task that outlives its push.
    opening: Arc<RwLock<()>>,
}

#[derive(Default)]
struct Open {
    next: u64,
    sessions: HashMap<u64, (Client, String, Location)>,
}

impl OpenSessions {
    /// Gives all of them back.
    pub async fn cancel(&self) {
        self.cancel_open().await;
        let _none_is_being_opened = self.opening.write().await;
        self.cancel_open().await;
    }

    async fn cancel_open(&self) {
        let open: Vec<_> = self.open.lock().sessions.drain().map(|(_, session)| session).collect();
        let cancels = open
            .iter()
            .map(|(client, repository, location)| give_back(client, repository, location, Pool::Small));
        join_all(cancels).await;
    }
}

impl fmt::Debug for OpenSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenSessions").finish_non_exhaustive()
    }
}

/// What one upload leaves behind.
#[derive(Debug)]
pub(crate) enum Trail {
    /// Nothing.
    None,
    /// What a farewell gives back.
    Open { sessions: OpenSessions, id: u64, client: Client, repository: String },
    /// What a later process goes on with.
    Record(Record),
}

/// An upload that is being opened before its turn: a farewell waits for it.
pub(super) struct Opening {
    trail: Trail,
    _wait: Option<OwnedRwLockReadGuard<()>>,
}

impl Opening {
    /// Begins the trail of an upload whose blob is not being sent yet.
    pub(super) fn begin(resume: &Resume, client: &Client, repository: &str) -> Self {
        let Resume::GiveBack(sessions) = resume else {
            return Self { trail: Trail::None, _wait: None };
        };
        let wait = Arc::clone(&sessions.opening).try_read_owned().ok();
        Self { trail: Trail::open(sessions, client, repository), _wait: wait }
    }

    /// Notes where the upload is, if it was opened.
    pub(super) fn opened(self, location: Option<&Location>) -> Trail {
        self.trail.follow(location);
        self.trail
    }
}

impl Trail {
    fn open(sessions: &OpenSessions, client: &Client, repository: &str) -> Self {
        let mut open = sessions.open.lock();
        open.next += 1;
        let (client, repository) = (client.clone(), repository.to_owned());
        Self::Open { sessions: sessions.clone(), id: open.next, client, repository }
    }

    /// Begins, or goes on with, the trail of a blob.
    pub(crate) async fn pick_up(
        resume: &Resume,
        client: &Client,
        repository: &str,
        blob: Option<String>,
        feed: &mut Feed,
    ) -> Result<(Self, Option<Held>)> {
        let unfinished = match (resume, &blob) {
            (Resume::Keep(unfinished), Some(_)) => unfinished.clone(),
            (Resume::GiveBack(sessions), _) => return Ok((Self::open(sessions, client, repository), None)),
            _ => return Ok((Self::None, None)),
        };
        let key = key(client, repository, blob.unwrap_or_default());
        let taken = blocking(move || Ok(unfinished.take(key))).await?;
        let Some((record, progress)) = taken else { return Ok((Self::None, None)) };
        let held = match progress {
            Some(progress)
                if client.may_go_on_at(&progress.held.location) && begins_so(feed, &progress).await? =>
            {
                Some(progress.held)
            }
            Some(_) => {
                record.clear();
                None
            }
            None => None,
        };
        Ok((Self::Record(record), held))
    }

    /// Notes where the upload is, for a farewell.
    pub(crate) fn follow(&self, location: Option<&Location>) {
        let Self::Open { sessions, id, client, repository } = self else { return };
        let mut open = sessions.open.lock();
        match location {
            Some(location) => {
                open.sessions.insert(*id, (client.clone(), repository.clone(), location.clone()));
            }
            None => drop(open.sessions.remove(id)),
        }
    }

    /// Gives back what will not be finished, where uploads are given back at all. It stays noted until then: a farewell
    /// may come in between.
    pub(crate) async fn give_up(&self, location: &Location) {
        let Self::Open { sessions, id, client, repository } = self else { return };
        let cancel = give_back(client, repository, location, Pool::Chunked);
        if tokio::time::timeout(PATIENCE, cancel).await.is_err() {
            tracing::debug!("an upload was not given back in time");
        }
        sessions.open.lock().sessions.remove(id);
    }

    /// Notes what is to go on with; `spool` says what is known of its bytes.
    pub(crate) fn note(&mut self, held: Option<Held>, spool: &Spool) {
        let Self::Record(record) = self else { return };
        let Some(held) = held else { return record.clear() };
        let prefix = spool.prefix(held.offset).cloned();
        record.write(Progress { held, prefix });
        // The next chunk does not wait for this machine's disk.
        tokio::task::spawn_blocking(record.sync());
    }

    /// The blob has arrived, or never will.
    pub(crate) fn finish(self) {
        match self {
            Self::None => {}
            Self::Open { sessions, id, .. } => drop(sessions.open.lock().sessions.remove(&id)),
            Self::Record(record) => record.finish(),
        }
    }
}

/// Gives an upload back that will not be finished. Registries may refuse it: that harms nobody.
pub(crate) async fn give_back(client: &Client, repository: &str, location: &Location, pool: Pool) {
    let mut asked = Request::Cancel { location: location.clone() };
    // Our Location does not know what arrived of a chunk that was cut off, and some registries refuse it for that until they
    // are asked how far they are. distribution before 3.0 answers that with 404 too, and keeps the upload until it is purged.
    for next in [Some(Request::Status { location: location.clone() }), None] {
        match (client.exchange(repository, &asked, None, pool).await, next) {
            (Ok(Reply { status: 400 | 409 | 416, .. }), Some(status)) => {
                let told = client.exchange(repository, &status, None, pool).await;
                let Ok(Reply { status: 200..=299, location: Some(location), .. }) = told else { return };
                asked = Request::Cancel { location };
            }
            (Ok(_), _) => return,
            (Err(fault), _) => {
                tracing::debug!(?fault, "an upload could not be given back");
                return;
            }
        }
    }
}

/// Returns what an upload is remembered by.
pub(super) fn key(client: &Client, repository: &str, blob: String) -> Key {
    let (host, account) = (client.host().to_owned(), client.account(repository));
    Key { host, repository: repository.to_owned(), account, blob }
}

/// Returns whether the bytes at hand begin with those that were sent. Bytes that are still being made must be shown
/// to; the digest of a stored blob is checked on the way anyhow.
async fn begins_so(feed: &mut Feed, progress: &Progress) -> Result<bool> {
    let Some((size, expected)) = progress.prefix.clone() else { return Ok(feed.is_stored()) };
    while feed.spool().written < size {
        if feed.spool().end.is_some() {
            return Ok(false);
        }
        feed.more().await?;
    }
    let feed = feed.clone();
    blocking(move || Ok(feed.prefix(size, expected.algorithm())? == expected)).await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{oci::Digest, registry::ClientOptions};

    #[tokio::test]
    async fn what_was_begun_without_tls_is_not_gone_on_with_so() {
        let dir = tempfile::tempdir().unwrap();
        let resume = Resume::Keep(Unfinished::new(dir.path()));
        let mut feed = Feed::memory(Bytes::from_static(b"blob"), Digest::of(b"blob"));
        let client = |plain_http, insecure| {
            Client::new("r.example.com", ClientOptions { plain_http, insecure, ..ClientOptions::default() })
        };
        let spool = Spool { prefixes: vec![(2, Digest::of(b"bl"))], ..feed.spool() };
        for (address, plain_http, insecure, goes_on) in [
            ("http://r.example.com/1", true, false, true),
            ("http://r.example.com/1", false, true, true),
            ("http://r.example.com/1", false, false, false),
            ("https://r.example.com/1", false, false, true),
            ("https://cdn.example.net/1", true, false, true),
        ] {
            let client = client(plain_http, insecure).unwrap();
            let mut pick_up = async || {
                let blob = Some("blob".to_owned());
                Trail::pick_up(&resume, &client, "demo", blob, &mut feed).await.unwrap()
            };
            let (mut trail, _) = pick_up().await;
            let url = address.parse().unwrap();
            let location = Location::read(address.parse().unwrap(), &url).unwrap();
            trail.note(Some(Held { location, offset: 2, chunk: 2, equal_parts: false }), &spool);
            drop(trail);
            assert_eq!(pick_up().await.1.is_some(), goes_on, "{address} {plain_http} {insecure}");
        }
    }
}
