//! What a gateway does before and instead of the folder: pushes go on to the upstream, pulls of what is not in the
//! folder come from there.
//!
//! Blobs are taken into the folder as by any registry, and are sent ahead from there. At the PUT of a manifest the image
//! is pushed, by the same push as any other image on disk, and only what the upstream has confirmed is stored and tagged
//! here. A tag is the upstream's to know: it may have moved there. What is named by digest is the same wherever it lies.
//! Nothing is deleted through a gateway.

mod turns;
mod upstream;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Method, request::Parts};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use self::upstream::Upstream;
use self::{turns::Turns, upstream::TAGS};
use super::{
    Registry,
    protocol::{Name, Refusal, Reply, Route, Target},
    storage::{Folder, Storage},
    tasks::blocking,
};
use crate::{
    cache::Cache,
    error::{Error, ErrorKind, Result, chain},
    event::{Event, Reporter},
    layout::read,
    oci::{Content, Descriptor, Digest, Manifest, Reference},
    push::{self, Press, Push},
    registry::RegistryError,
    source::{Choice, Input, SourceSpec, formats::oci_layout::OciLayout, spec::Location},
};

/// A registry that stands before another one.
#[derive(Debug)]
pub(super) struct Gateway {
    /// What clients push lies here.
    folder: Folder,
    upstream: Mutex<Upstream>,
    /// What the client knows of the upstream's login has led nowhere.
    stuck: AtomicBool,
    turns: Turns,
    /// Leave to send a blob ahead.
    ahead: Semaphore,
    /// Leave to push an image.
    images: Semaphore,
}

/// So many images are pushed at once. Each takes what a push takes.
const IMAGES: usize = 8;

impl Gateway {
    /// Stands before `upstream`.
    #[cfg_attr(
        not(feature = "buckets"),
        expect(clippy::unnecessary_wraps, reason = "there is no bucket then")
    )]
    pub(super) fn new(upstream: Upstream, storage: &Storage) -> Result<Self> {
        let folder = match storage {
            Storage::Folder(folder) => folder.clone(),
            #[cfg(feature = "buckets")]
            Storage::Objects(_) => {
                return Err(Error::usage(
                    "a gateway keeps what it passes on in a folder, and not in a bucket",
                ));
            }
        };
        let ahead = Semaphore::new(upstream.options.jobs.max(1));
        let (upstream, stuck) = (Mutex::new(upstream), AtomicBool::default());
        let images = Semaphore::new(IMAGES);
        Ok(Self { folder, upstream, stuck, turns: Turns::default(), ahead, images })
    }

    fn upstream(&self) -> Upstream {
        self.upstream.lock().clone()
    }

    /// Returns the upstream for what begins anew: a push in its manifest, a pull in its tag. Where we were not let in
    /// before, whoever runs the gateway may have logged in since, or the upstream may ask for another login.
    async fn upstream_anew(&self) -> Upstream {
        if self.stuck.swap(false, Ordering::Relaxed) {
            let client = self.upstream().client;
            match blocking(move || client.anew()).await {
                Ok(client) => self.upstream.lock().client = client,
                Err(error) => tracing::warn!("{}", chain(&error)),
            }
        }
        self.upstream()
    }

    /// Takes note of why the upstream did not do what was asked for.
    fn note(&self, error: Error) -> Error {
        let is_stuck = match error.kind() {
            ErrorKind::Denied | ErrorKind::Refused => true,
            // Without an answer it may be the token server's. Where there is one, the client knows how long to wait.
            ErrorKind::Network => error.find::<RegistryError>().is_none(),
            _ => false,
        };
        self.stuck.fetch_or(is_stuck, Ordering::Relaxed);
        error
    }

    /// Pushes an image that a client has pushed to us; returns once the upstream has confirmed all of it.
    pub(super) async fn pass_on(
        &self,
        name: &Name,
        target: &Target,
        tags: &[String],
        manifest: &Manifest,
    ) -> Result<(), Refusal> {
        let upstream = self.upstream_anew().await;
        let repository = upstream.repository(name).map_err(|error| upstream.refusal(error))?;
        let (tag, digest) = match target {
            Target::Tag(tag) => (Some(tag.clone()), None),
            Target::Digest(digest) => (None, Some(digest.clone())),
        };
        let destination = Reference { repository, tag, digest };
        let repository = &destination.repository.path;
        let _turn = self.turns.take(repository, &manifest.digest).await;
        for digest in named(manifest) {
            // What is on its way has not to be sent twice.
            drop(self.turns.take(repository, digest).await);
        }
        // Where the upstream has no list of referrers of its own, who pushes one reads that list and writes it anew. Last:
        // a manifest may be about what it names.
        let _list = match &manifest.subject {
            Some(subject) => Some(self.turns.take(repository, &subject.digest).await),
            None => None,
        };
        // Not before: who waits for somebody else must not keep them waiting.
        let _leave = self.images.acquire().await;
        let push = push(&upstream, self.folder.blobs(name), destination, tags, manifest);
        let pushed = alone(push.run()).await.and_then(|mut results| match results.pop() {
            Some(result) => result,
            None => Err(Error::internal("a push without a result")),
        });
        let pushed = pushed.map_err(|error| upstream.refusal(self.note(error)))?;
        tracing::info!("passed on {name} as {}", pushed.digest);
        Ok(())
    }
}

/// Returns the push of an image whose blobs are in this folder, or at the upstream.
fn push(
    upstream: &Upstream,
    blobs: PathBuf,
    destination: Reference,
    tags: &[String],
    manifest: &Manifest,
) -> Push {
    let root = Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.bytes.len() as u64);
    // It is stored when the upstream has it.
    let root = Descriptor { data: Some(manifest.bytes.to_vec()), ..root };
    let spec = SourceSpec { transport: None, location: Location::Path(blobs.clone()), choice: Choice::Only };
    let Upstream { client, options, .. } = upstream.clone();
    Push {
        // Nothing is encoded, and so nothing is kept there.
        press: Press::new(Cache::scratch(&blobs), Arc::new(Log)),
        input: Input::Indexed(Box::new(OciLayout::unlisted(root, blobs, format!("`{destination}`")))),
        spec,
        targets: vec![push::Target { destination, tags: tags.to_vec(), client }],
        options,
    }
}

/// Returns what a manifest names.
fn named(manifest: &Manifest) -> impl Iterator<Item = &Digest> {
    let (config, all) = match &manifest.content {
        Content::Image { config, layers } => (config.as_ref(), layers),
        Content::Index { manifests } => (None, manifests),
    };
    config.into_iter().chain(all).map(|descriptor| &descriptor.digest)
}

/// Goes on with a push when nobody waits for it any more.
async fn alone<T: Send + 'static>(push: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(push).await.map_err(|_| Error::internal("a push broke down"))?
}

impl Registry {
    /// Begins to send a blob that has come in, if there is an upstream: the image that it is of is pushed the sooner, and
    /// few clients wait for that as long as for a body.
    pub(super) fn send_ahead(&self, name: &Name, digest: Digest) {
        let Some(gateway) = self.gateway.clone() else { return };
        let upstream = gateway.upstream();
        let Ok(repository) = upstream.repository(name) else { return };
        let Some(turn) = gateway.turns.try_take(&repository.path, &digest) else { return };
        let blobs = gateway.folder.blobs(name);
        tokio::spawn(async move {
            let _leave = gateway.ahead.acquire().await;
            let Upstream { client, options, .. } = upstream;
            let sent = alone(async move {
                let Some(blob) = read::open_blob(&blobs, &digest)? else { return Ok(()) };
                push::send_ahead(&client, &repository.path, blob, &digest, &options, Arc::new(Log)).await
            });
            if let Err(error) = sent.await.map_err(|error| gateway.note(error)) {
                tracing::debug!("a blob was not sent ahead: {}", chain(&error));
            }
            drop(turn);
        });
    }

    /// Has the upstream mount a blob, if there is one and it knows it in `from`; returns whether it has. Otherwise the
    /// client sends it.
    pub(super) async fn mount_there(&self, name: &Name, digest: &Digest, from: Option<&Name>) -> bool {
        let (Some(gateway), Some(from)) = (&self.gateway, from) else { return false };
        let upstream = gateway.upstream();
        let (Ok(to), Ok(from)) = (upstream.repository(name), upstream.repository(from)) else { return false };
        let Upstream { client, options, .. } = &upstream;
        let mounted = push::mount_ahead(client, &to.path, digest, &from.path, options, Arc::new(Log)).await;
        mounted.map_err(|error| gateway.note(error)).unwrap_or_else(|error| {
            tracing::debug!("a blob was not mounted: {}", chain(&error));
            false
        })
    }

    /// Answers what is the upstream's to answer; nothing if the folder does.
    pub(super) async fn relayed(&self, route: &Route, head: &Parts) -> Result<Option<Reply>, Refusal> {
        let Some(gateway) = &self.gateway else { return Ok(None) };
        let (name, path, unknown) = match (head.method.as_str(), sought(route)) {
            ("GET" | "HEAD", Some(sought)) => sought,
            ("DELETE", _) if matches!(route, Route::Blob(..) | Route::Manifest(..)) => {
                let message = "a gateway deletes nothing: ask its upstream to";
                let methods = route.methods().trim_end_matches(", DELETE");
                return Err(Refusal::wrong_method(methods, message));
            }
            _ => return Ok(None),
        };
        if self.is_known_here(route, &head.method).await? {
            return Ok(None);
        }
        let upstream = match route {
            Route::Manifest(..) => gateway.upstream_anew().await,
            _ => gateway.upstream(),
        };
        match upstream.relay(name, &path, head).await.map_err(|error| gateway.note(error)) {
            Ok(Some(reply)) => Ok(Some(reply)),
            Ok(None) => Err(Refusal::not_found(unknown, "the upstream has nothing of this name")),
            Err(error) if self.can_stand_in(route, head, &error).await => {
                tracing::warn!("{}; the folder has to do", chain(&error));
                Ok(None)
            }
            Err(error) => Err(upstream.refusal(error)),
        }
    }

    /// Returns whether the folder holds what a digest names. A client that only asks whether a manifest is there may
    /// leave its push at that, and has to hear of the upstream's.
    async fn is_known_here(&self, route: &Route, method: &Method) -> Result<bool, Refusal> {
        let (name, digest) = match route {
            Route::Blob(name, digest) => (name, digest),
            Route::Manifest(name, Target::Digest(digest)) if method == Method::GET => (name, digest),
            _ => return Ok(false),
        };
        Ok(self.storage.blob(name.clone(), digest.clone()).await?.is_some())
    }

    /// Returns whether the folder may answer for an upstream that does not.
    async fn can_stand_in(&self, route: &Route, head: &Parts, error: &Error) -> bool {
        match route {
            // To a client this means that it has to send it. Why the upstream does not take it is said in the end, by
            // an answer that has words.
            Route::Blob(..) => head.method == Method::HEAD,
            Route::Manifest(name, target) => {
                error.kind() == ErrorKind::Network
                    && self.find_manifest(name.clone(), target.clone()).await.is_ok()
            }
            _ => false,
        }
    }
}

/// Returns what the upstream has of this: in which repository, under which path there, and what it is if it has none.
fn sought(route: &Route) -> Option<(&Name, String, &'static str)> {
    match route {
        Route::Blob(name, digest) => Some((name, format!("blobs/{digest}"), "BLOB_UNKNOWN")),
        Route::Manifest(name, target) => Some((name, format!("manifests/{target}"), "MANIFEST_UNKNOWN")),
        Route::Referrers(name, digest) => Some((name, format!("referrers/{digest}"), "UNSUPPORTED")),
        Route::Tags(name) => Some((name, TAGS.to_owned(), "NAME_UNKNOWN")),
        _ => None,
    }
}

/// Tells the log what a push has to say.
struct Log;

impl Reporter for Log {
    fn event(&self, event: Event) {
        match event {
            Event::Warning { message } => tracing::warn!("{message}"),
            Event::Waiting { blob, pause, why } => {
                tracing::info!("{blob}: trying again in {:.1} s: {why}", pause.as_secs_f64());
            }
            _ => {}
        }
    }
}
