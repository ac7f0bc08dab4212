//! Sends one blob of an image: waits until no other image sends it, opens it, and says what was wrong with it.

use std::{io::Read as _, sync::Arc};

use super::{Delivery, survey};
use crate::{
    blob,
    codec::ENCODER_VERSION,
    error::{Error, ErrorKind, Result},
    event::How,
    oci::{Descriptor, Digest},
    plan::{AtHand, Need, Step},
    push::{feed::Feed, press::transcode::NotShared, runtime::blocking, upload::Uploader, wanted::Wanted},
    source::Data,
};

/// Blobs a descriptor embeds are small by nature.
const EMBEDDED_LIMIT: u64 = 4 << 20;

/// Beneath an error: what the cache held was not what it promised. It has been dropped.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the cache entry was damaged and has been dropped")]
pub(in crate::push) struct DamagedEntry;

impl Delivery {
    /// Sends one blob.
    pub(super) async fn send(
        &self,
        uploader: &Uploader,
        need: &Need,
        step: &Step,
        feed: Option<Feed>,
        wanted: &Wanted,
    ) -> Result<(Digest, u64)> {
        let mut settings = self.cargo.options.settings(&self.target.client, feed.is_some());
        if let Step::Mount { from } = step {
            settings.mount_from = Some(from.clone());
        }
        let name = &need.layer.name;
        if matches!(need.at_hand, AtHand::Missing(_)) {
            return uploader.mount_only(need).await;
        }
        let lasting_name = self.lasting_name(need);
        let here = &self.target.destination.repository;
        let mut flight = self.cargo.traffic.board(&here.host, &lasting_name).await;
        match flight.as_ref() {
            Some(there) if *there == here.path => settings.look_first = true,
            Some(there) => settings.mount_from = Some(there.clone()),
            None => {}
        }
        let _open = self.cargo.traffic.open().await?;
        let mut feed = match feed {
            Some(feed) => feed,
            None => self.feed(need, wanted).await?,
        };
        let instead = feed.take_instead();
        let blob = || Some(lasting_name.clone());
        let sent = match step {
            Step::Fetch { present: true, .. } => self.checked(feed, name).await,
            _ => uploader.upload(feed, settings.clone(), name, blob()).await,
        };
        let sent = match (sent, instead) {
            (Err(error), Some(instead)) if error.find::<NotShared>().is_some() => {
                uploader.upload(instead, settings, name, blob()).await
            }
            (sent, _) => sent,
        };
        if sent.is_ok() {
            *flight = Some(here.path.clone());
        }
        match sent {
            Err(error) if error.kind() == ErrorKind::Source => self.drop_damaged(need, wanted, error),
            result => result,
        }
    }

    /// Opens the upload of a blob that the registry lacks, or may lack, while it is still asked about others; unless
    /// the source is damaged, or another image sends the blob.
    pub(super) fn give_head_start(
        &self,
        uploader: &Uploader,
        wanted: &Wanted,
        need: &Need,
        digest: &Digest,
        is_missing: bool,
    ) {
        let goes_as_it_is = matches!(need.at_hand, AtHand::Bytes(_) | AtHand::Cached | AtHand::Encoded);
        let (host, blob) = (&self.target.destination.repository.host, self.lasting_name(need));
        let is_ours = || uploader.has_head_start(digest) || self.cargo.traffic.is_new(host, &blob);
        if goes_as_it_is && need.origins.is_empty() && is_ours() {
            let (source, needs) = (Arc::clone(&self.cargo.source), wanted.needs.clone());
            uploader.open_ahead(digest, blob, is_missing, move || survey::is_at_hand(&*source, &needs));
        }
    }

    /// Returns what a later push knows a blob by: a layer by what its bytes are made from and how, since its digest
    /// may not be known then.
    fn lasting_name(&self, need: &Need) -> String {
        match (&need.layer.diff_id, &need.at_hand, &need.identity) {
            (Some(diff_id), AtHand::Cached | AtHand::Plain | AtHand::Shared(_), _) => {
                format!("{diff_id} as {} by {ENCODER_VERSION}", self.cargo.options.recipe.encoding())
            }
            (_, _, Some((digest, _))) => digest.to_string(),
            (Some(diff_id), _, None) => format!("{diff_id} as it lies there"),
            (None, _, None) => need.layer.name.clone(),
        }
    }

    /// Waits until it is known that a blob at the registry is the layer that it is said to be.
    async fn checked(&self, mut feed: Feed, name: &str) -> Result<(Digest, u64)> {
        let (digest, size) = feed.sealed().await?;
        self.confirmed(name, &digest, How::Present, size);
        Ok((digest, size))
    }

    /// Opens what a blob known by digest is sent from.
    async fn feed(&self, need: &Need, wanted: &Wanted) -> Result<Feed> {
        let (digest, size) = identity(need)?;
        if let AtHand::Bytes(bytes) = &need.at_hand {
            return Ok(Feed::memory(bytes.clone(), digest));
        }
        let name = need.layer.name.clone();
        let expected = Descriptor::new("", digest.clone(), size);
        if let Some(blob) = wanted.cached.get(&digest) {
            return Ok(Feed::stored(blob.clone(), expected, name));
        }
        let (cargo, layer) = (self.cargo.clone(), need.layer.clone());
        blocking(move || match cargo.source.open(&layer)? {
            Data::Absorbed(plain) => Ok(Feed::stored(cargo.reproduce(&plain)?, expected, name)),
            Data::Stored(blob) => Ok(Feed::stored(blob, expected, name)),
            Data::Stream(mut stream) => {
                let mut bytes = Vec::new();
                std::io::Read::take(&mut stream, EMBEDDED_LIMIT + 1)
                    .read_to_end(&mut bytes)
                    .map_err(|error| Error::source(format!("reading `{name}`")).because(error))?;
                let found = Digest::of(&bytes);
                if found != expected.digest {
                    return Err(blob::mismatch(&name, &expected, bytes.len() as u64, &found));
                }
                Ok(Feed::memory(bytes.into(), found))
            }
        })
        .await
    }

    /// What the cache promised and the bytes are not is dropped, so that the next attempt finds the truth.
    fn drop_damaged<T>(&self, need: &Need, wanted: &Wanted, error: Error) -> Result<T> {
        let (Some((digest, _)), Some(diff_id)) = (&need.identity, &need.layer.diff_id) else {
            return Err(error);
        };
        let message = if let Some(blob) = wanted.cached.get(digest) {
            self.cargo.press.cache.forget(diff_id, self.cargo.options.recipe.encoding())?;
            let message = format!("the cached blob `{}` was damaged", blob.path().display());
            if self.cargo.absorbed.layer(&diff_id.0).is_ok() {
                // It has passed, and cannot be encoded anew.
                return Err(Error::local(message).because(error).with_hint("push it once more"));
            }
            message
        } else if self.cargo.press.cache.proven(digest)?.is_some() {
            self.cargo.press.cache.disprove(digest)?;
            format!("`{}` is no longer what it was", need.layer.name)
        } else {
            return Err(error);
        };
        Err(Error::source(message).because(DamagedEntry))
    }
}

fn identity(need: &Need) -> Result<(Digest, u64)> {
    need.identity
        .clone()
        .ok_or_else(|| Error::internal(format!("the digest of `{}` is not known", need.layer.name)))
}
