//! The destination as a cache: layers that an image there already has encoded are named again, not made again.
//!
//! A config maps diff IDs to the layers beside it. So the manifests of the destination tag, of each `--reuse-from`
//! and of `latest` say which blob holds a layer whose plain bytes we know. That is believed of the destination's
//! repository, since whoever can write there could write the tag itself, and of no other that the user has not
//! named. The blob's size is compared; its bytes are not read.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Delivery;
use crate::{
    codec::Compression,
    error::{Error, Result, chain},
    oci::{
        Content, Descriptor, DiffId, Digest, ImageConfig, Manifest, Platform, config::CONFIG_LIMIT,
        media_type,
    },
    push::{
        Intent,
        wanted::{Wanted, draft::is_image},
    },
};

/// Images of an index that are looked at.
const CHILDREN: usize = 8;
/// So many questions are asked at once.
const AT_ONCE: usize = 24;

/// Where an image may be that has the layers already.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Elsewhere {
    repository: String,
    reference: String,
}

/// An encoded layer that some repository says it has.
#[derive(Clone, Debug)]
struct Offer {
    repository: String,
    digest: Digest,
    size: u64,
}

impl Delivery {
    /// Looks for the layers that would have to be encoded, and notes where they are; returns how many.
    pub(super) async fn reuse(&self, wanted: &mut Wanted) -> Result<usize> {
        let sought: HashSet<DiffId> =
            wanted.plain_layers().filter_map(|layer| layer.diff_id.clone()).collect();
        if sought.is_empty() {
            return Ok(0);
        }
        let offers: Vec<HashMap<DiffId, Offer>> =
            stream::iter(self.elsewhere()).map(|place| self.offers(place)).buffered(AT_ONCE).collect().await;
        let mut offered: HashMap<DiffId, Offer> = HashMap::new();
        for (diff_id, offer) in offers.into_iter().flatten() {
            if sought.contains(&diff_id) {
                offered.entry(diff_id).or_insert(offer);
            }
        }
        if self.cargo.intent == Intent::Ask {
            let here = self.target.repository();
            for (diff_id, offer) in offered.iter().filter(|(_, offer)| offer.repository != here) {
                wanted.may_come_from(diff_id, &offer.repository);
            }
        }
        let confirmed: HashMap<DiffId, Offer> = stream::iter(offered)
            .map(|(diff_id, offer)| async move {
                let there = self.confirm(&offer).await?;
                Ok::<_, Error>(there.then_some((diff_id, offer)))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await?;
        for (diff_id, Offer { digest, size, .. }) in &confirmed {
            wanted.reuse(diff_id, &(digest.clone(), *size));
        }
        Ok(confirmed.len())
    }

    /// Lists the images that are asked, each once.
    fn elsewhere(&self) -> Vec<Elsewhere> {
        let here = self.target.repository();
        let at = |repository: &str, reference: &str| Elsewhere {
            repository: repository.to_owned(),
            reference: reference.to_owned(),
        };
        let mut places = Vec::new();
        places.extend(self.target.destination.tag.iter().map(|tag| at(here, tag)));
        for named in &self.cargo.options.reuse_from {
            let reference = match (&named.digest, &named.tag) {
                (Some(digest), _) => digest.to_string(),
                (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
            };
            places.push(at(&named.repository.path, &reference));
        }
        places.push(at(here, "latest"));
        let mut seen = HashSet::new();
        places.retain(|place| seen.insert(place.clone()));
        places
    }

    /// Returns which layers an image elsewhere has. One that cannot be read offers nothing.
    async fn offers(&self, place: Elsewhere) -> HashMap<DiffId, Offer> {
        self.read_offers(&place).await.unwrap_or_else(|error| {
            tracing::debug!(
                "nothing is reused from `{}:{}`: {}",
                place.repository,
                place.reference,
                chain(&error)
            );
            HashMap::new()
        })
    }

    async fn read_offers(&self, place: &Elsewhere) -> Result<HashMap<DiffId, Offer>> {
        let mut offers = HashMap::new();
        let Some(root) = self.read(&place.repository, &place.reference).await? else { return Ok(offers) };
        let images = match &root.content {
            Content::Image { .. } => vec![root],
            Content::Index { manifests } => {
                let children = manifests.iter().filter(|child| self.may_have(child)).take(CHILDREN);
                let mut images = Vec::new();
                for child in children {
                    images.extend(self.read(&place.repository, &child.digest.to_string()).await?);
                }
                images
            }
        };
        for image in images {
            let Content::Image { config: Some(config), layers } = &image.content else { continue };
            if !is_image(config, layers) {
                continue;
            }
            let bytes =
                self.target.client.get_blob(&place.repository, &config.digest, CONFIG_LIMIT as usize).await?;
            let Some(bytes) = bytes else { continue };
            let diff_ids = ImageConfig::parse(&bytes, &config.digest.to_string())?.diff_ids;
            if diff_ids.len() != layers.len() {
                continue;
            }
            for (diff_id, layer) in diff_ids.into_iter().zip(layers).filter(|(_, layer)| self.accepts(layer))
            {
                let repository = place.repository.clone();
                let offer = Offer { repository, digest: layer.digest.clone(), size: layer.size };
                offers.entry(diff_id).or_insert(offer);
            }
        }
        Ok(offers)
    }

    async fn read(&self, repository: &str, reference: &str) -> Result<Option<Manifest>> {
        let Some((media_type, bytes)) = self.target.client.get_manifest(repository, reference).await? else {
            return Ok(None);
        };
        let digest = Digest::of(&bytes);
        Manifest::parse(bytes, digest, Some(&media_type)).map(Some)
    }

    /// Returns whether a child of an index may be for a machine that we have an image for.
    fn may_have(&self, child: &Descriptor) -> bool {
        let Some(theirs) = &child.platform else { return true };
        let is_for_one = |ours: &Platform| theirs.satisfies(ours) || ours.satisfies(theirs);
        let mut images = self.image.parts().iter();
        !theirs.is_unknown() && images.any(|image| image.platform.as_ref().is_none_or(is_for_one))
    }

    /// Returns whether a layer is encoded as the recipe would have it. Its level cannot be seen.
    fn accepts(&self, layer: &Descriptor) -> bool {
        let name = layer.media_type.as_deref().unwrap_or_default();
        let wanted = Compression::from(self.cargo.options.recipe.encoding()).name();
        media_type::is_file_system(name) && layer.urls.is_empty() && media_type::packing(name) == Some(wanted)
    }

    /// Makes sure that the destination has a layer; one of another repository is mounted.
    async fn confirm(&self, offer: &Offer) -> Result<bool> {
        let here = self.target.repository();
        match self.target.client.head_blob(here, &offer.digest).await? {
            Some(size) => return Ok(size == offer.size),
            None if offer.repository == here || self.cargo.intent == Intent::Ask => return Ok(false),
            None => {}
        }
        self.uploader().mount(&offer.digest, &offer.repository).await
    }
}
