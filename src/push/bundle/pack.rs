//! Packs the images of one source for a bundle: what a push would send of each, and where its bytes are.

use std::{collections::HashMap, sync::Arc};

use super::{
    Contents,
    packed::{Packed, Whereabouts},
};
use crate::{
    error::{Error, Result},
    oci::{Digest, Manifest},
    plan::{AtHand, Need},
    push::{
        Cargo, Companions,
        delivery::{self, survey},
        press::transcode::{Job, NotShared},
        referrers::subject,
        runtime::blocking,
        wanted::{
            Wanted,
            draft::{Encodings, Finished},
        },
    },
    source::{Choice, Image, Missing},
};

/// Packs the images of a source.
pub(super) struct Packer {
    pub(super) cargo: Arc<Cargo>,
}

impl Packer {
    /// Packs the images that are meant: each with its companions, which come last.
    pub(super) async fn pack(&self, choice: &Choice, contents: &mut Contents) -> Result<()> {
        let Cargo { source, options, .. } = &*self.cargo;
        let images = self.cargo.images(choice)?;
        if images.is_empty() {
            return Err(Error::source("it holds no images"));
        }
        let (companions, images): (Vec<_>, Vec<_>) = images.into_iter().partition(|image| image.companion);
        let unaltered = Self { cargo: Arc::new(self.cargo.unaltered()) };
        let (mut became, mut packed) = (HashMap::new(), Vec::new());
        for image in images.iter().chain(&companions) {
            let about = subject(image, &**source);
            if let Some(about) = &about
                && let Some(now) = became.get(about).filter(|now| *now != about)
            {
                let words = format!("what is about {about}, which becomes {now}, would not hold for it");
                return Err(
                    Error::usage(words).with_hint("leave out `--platform`, or add `--remove-signatures`")
                );
            }
            let packer = if about.is_some() { &unaltered } else { self };
            let documents = packer.pack_image(image, contents).await?;
            if let (Some(digest), Some(root)) = (image.digest(), documents.last()) {
                became.insert(digest.clone(), root.clone());
            }
            packed.extend(documents);
        }
        if *choice != Choice::Only && options.companions != Companions::Forget {
            // What is about the one that is meant, or about a child of it, was not meant by name.
            for companion in self.cargo.referrers.about(&**source, packed)? {
                unaltered.pack_image(&companion.image, contents).await?;
            }
        }
        Ok(())
    }

    /// Packs an image with all that belongs to it; returns the digests of its documents in the bundle, its own last.
    async fn pack_image(&self, image: &Image, contents: &mut Contents) -> Result<Vec<Digest>> {
        let (cargo, packed) = (Arc::clone(&self.cargo), image.clone());
        let mut wanted = blocking(move || cargo.list(&packed)).await?;
        self.cargo.check_companions(&wanted).await?;
        if let Some(child) = wanted.absent.iter().find(|child| !contents.base.has_manifest(&child.digest)) {
            return Err(Error::source(format!("manifest {} is missing in the source", child.digest))
                .because(Missing)
                .with_hint("bundle one platform by `--platform`"));
        }
        self.cargo.ask_shared_cache(&mut wanted.needs).await;
        let encoded = self.encode(&mut wanted).await?;
        let Finished { manifests, notes } = wanted.complete(&encoded)?;
        for note in notes {
            self.cargo.press.warn(note);
        }
        let root = delivery::root(&manifests)?.clone();
        self.add_blobs(image, wanted.needs, contents).await?;
        let mut digests = Vec::new();
        for Manifest { digest, bytes, .. } in manifests {
            let packed = Packed { size: bytes.len() as u64, bytes: Whereabouts::Memory(bytes) };
            contents.blobs.insert(digest.clone(), packed);
            digests.push(digest);
        }
        contents.list(image, &root)?;
        Ok(digests)
    }

    /// Encodes the layers that have to be, or has them from the shared cache, and finds out the digests of those that go
    /// as they are.
    async fn encode(&self, wanted: &mut Wanted) -> Result<Encodings> {
        let encoding = self.cargo.options.recipe.encoding();
        let (mut jobs, mut feeds) = (Vec::new(), Vec::new());
        for need in wanted.needs.iter_mut().filter(|need| need.identity.is_none()) {
            let layer = need.layer.clone();
            let (job, feed) = match &need.at_hand {
                AtHand::Plain => Job::encode(layer, encoding),
                AtHand::Shared(entry) => Job::fetch(layer, entry.clone(), encoding),
                _ => Job::prove(layer),
            };
            jobs.push(job);
            feeds.push((need, feed));
        }
        let working = self.cargo.start(jobs)?;
        let mut failure = None;
        for (need, mut feed) in feeds {
            let instead = feed.take_instead();
            let sealed = match (feed.sealed().await, instead) {
                (Err(error), Some(mut instead)) if error.find::<NotShared>().is_some() => {
                    instead.sealed().await
                }
                (sealed, _) => sealed,
            };
            match sealed {
                Ok(sealed) => need.identity = Some(sealed),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        // What is encoded is in the cache now.
        blocking(move || working.join()).await?;
        failure.map_or_else(|| Ok(wanted.encoded()), Err)
    }

    /// Adds what an image needs to the bundle, or to what that leaves out.
    async fn add_blobs(&self, image: &Image, mut needs: Vec<Need>, contents: &mut Contents) -> Result<()> {
        let known = needs.iter().filter_map(|need| Some(&need.identity.as_ref()?.0));
        let there = known.filter(|digest| contents.base.has_blob(digest)).cloned().collect();
        let cargo = Arc::clone(&self.cargo);
        let needs = blocking(move || {
            survey::check_at_hand(&*cargo.source, &mut needs, &there)?;
            Ok(needs)
        })
        .await?;
        require(image, &needs)?;
        for Need { layer, identity, at_hand, .. } in needs {
            if at_hand == AtHand::Foreign {
                continue;
            }
            let (digest, size) = identity
                .ok_or_else(|| Error::internal(format!("the digest of `{}` is not known", layer.name)))?;
            let cargo = Arc::clone(&self.cargo);
            let bytes = match at_hand {
                AtHand::Bytes(bytes) => Whereabouts::Memory(bytes),
                AtHand::Cached | AtHand::Plain | AtHand::Shared(_) => Whereabouts::Encoded(cargo, layer),
                _ => Whereabouts::Source(cargo, layer),
            };
            contents.add(digest, Packed { size, bytes });
        }
        Ok(())
    }
}

/// Names all blobs of an image that are missing.
fn require(image: &Image, needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> =
        needs.iter().filter(|need| matches!(need.at_hand, AtHand::Missing(_))).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let names: Vec<_> = missing.iter().map(|need| format!("`{}`", need.layer.name)).collect();
    let called = image.names.first().map(|name| format!(" of `{name}`")).unwrap_or_default();
    let error =
        Error::source(format!("missing in the source{called}: {}", names.join(", "))).because(Missing);
    let AtHand::Missing(hints) = &first.at_hand else { return Err(error) };
    Err(hints.iter().fold(error, Error::with_hint))
}
