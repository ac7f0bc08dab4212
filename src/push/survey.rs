//! Collects facts: what the image needs, what the source and the cache hold of it, what the registry has.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    absorb::Absorbed,
    manifest::{AssembledLayer, Assembly},
    transcode,
};
use crate::{
    blob::Blob,
    cache::{Cache, Entry},
    codec::{Compression, Encoding},
    error::{Error, ErrorKind, Result},
    oci::{Content, Descriptor, DiffId, Digest, Manifest, Platform, media_type},
    plan::{self, AtHand, Need},
    registry::Client,
    source::{self, Data, Image, ImageContent, Layer, Missing, Source},
};

/// So many blobs are asked for at once.
pub(crate) const HEADS: usize = 24;

/// What an image needs, before the registry is asked.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Each blob once.
    pub(crate) needs: Vec<Need>,
    /// The manifests the source holds, root last; none where one has to be made.
    pub(crate) manifests: Vec<Manifest>,
    /// Children of an index that the source names and does not hold.
    pub(crate) absent: Vec<Descriptor>,
    /// What has to be made into a manifest.
    pub(crate) made: Option<Made>,
    /// Blobs that lie encoded in the cache.
    pub(crate) cached: HashMap<Digest, Blob>,
}

/// The parts of a manifest that has to be made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    config: (Digest, u64),
    layers: Vec<MadeLayer>,
}

/// A layer of such a manifest.
#[derive(Clone, Debug)]
enum MadeLayer {
    Encoded(DiffId, Compression),
    Foreign(Descriptor),
}

impl Made {
    /// Makes the manifest, if the digests of all layers are known.
    pub(crate) fn manifest(&self, encoded: &HashMap<DiffId, (Digest, u64)>) -> Result<Option<Manifest>> {
        let layers: Option<Vec<_>> = self
            .layers
            .iter()
            .map(|layer| match layer {
                MadeLayer::Encoded(diff_id, compression) => encoded
                    .get(diff_id)
                    .map(|(digest, size)| AssembledLayer::Encoded(digest.clone(), *size, *compression)),
                MadeLayer::Foreign(descriptor) => Some(AssembledLayer::Foreign(descriptor.clone())),
            })
            .collect();
        layers.map(|layers| Assembly { config: self.config.clone(), layers }.manifest()).transpose()
    }
}

impl Wanted {
    /// Returns the digests and sizes of encoded layers, by diff ID, as far as they are known.
    pub(crate) fn encoded(&self) -> HashMap<DiffId, (Digest, u64)> {
        let known = |need: &Need| Some((need.layer.diff_id.clone()?, need.identity.clone()?));
        self.needs.iter().filter_map(known).collect()
    }

    /// The layers that would have to be encoded, or were.
    pub(crate) fn plain_layers(&self) -> impl Iterator<Item = &Layer> {
        let is_ours = |need: &&Need| matches!(need.at_hand, AtHand::Cached | AtHand::Plain);
        self.needs.iter().filter(is_ours).map(|need| &need.layer)
    }

    /// Takes a form of a layer that the repository has for ours.
    pub(crate) fn reuse(&mut self, layer: &Layer, identity: &(Digest, u64)) {
        for need in self.needs.iter_mut().filter(|need| need.layer == *layer) {
            need.identity = Some(identity.clone());
            need.weight = identity.1;
            need.at_hand = AtHand::Registry;
        }
    }

    /// Returns all manifests, root last, if they are known already.
    pub(crate) fn known_manifests(&self) -> Result<Option<Vec<Manifest>>> {
        match &self.made {
            Some(made) => Ok(made.manifest(&self.encoded())?.map(|manifest| vec![manifest])),
            None => Ok(Some(self.manifests.clone())),
        }
    }
}

/// Lists what an image needs.
pub(crate) fn wanted(
    source: &dyn Source,
    image: &Image,
    platform: Option<&Platform>,
    encoding: Encoding,
    allow_nondistributable: bool,
    cache: &Cache,
    absorbed: &Absorbed,
) -> Result<Wanted> {
    match &image.content {
        ImageContent::Manifest(root) => {
            let tree = source::resolve(source, root, platform)?;
            let needs = tree.manifests.iter().flat_map(|manifest| named_by(manifest, allow_nondistributable));
            Ok(Wanted {
                needs: plan::distinct(needs.collect()),
                manifests: tree.manifests,
                absent: tree.missing,
                made: None,
                cached: HashMap::new(),
            })
        }
        ImageContent::Layers { config, layers, .. } => {
            if let Some(wanted) = platform {
                source::tree::require_platform(image.platform.as_ref(), wanted, &source.name())?;
            }
            let digest = Digest::of(config);
            let identity = (digest.clone(), config.len() as u64);
            let mut cached = HashMap::new();
            let mut needs = Vec::new();
            let mut made = Made { config: identity.clone(), layers: Vec::new() };
            for layer in layers {
                if let Some(foreign) = &layer.descriptor {
                    made.layers.push(MadeLayer::Foreign(foreign.clone()));
                    needs.push(blob_need(foreign, false));
                    continue;
                }
                let (need, compression) = layer_need(source, layer, encoding, cache, absorbed, &mut cached)?;
                made.layers.push(MadeLayer::Encoded(diff_id(layer)?.clone(), compression));
                needs.push(need);
            }
            needs.push(Need {
                layer: Layer { name: digest.to_string(), descriptor: None, diff_id: None },
                identity: Some(identity),
                weight: config.len() as u64,
                at_hand: AtHand::Bytes(config.clone()),
                origins: Vec::new(),
            });
            let needs = plan::distinct(needs);
            let (manifests, absent) = (Vec::new(), Vec::new());
            Ok(Wanted { needs, manifests, absent, made: Some(made), cached })
        }
    }
}

fn diff_id(layer: &Layer) -> Result<&DiffId> {
    layer.diff_id.as_ref().ok_or_else(|| Error::internal(format!("layer `{}` has no diff ID", layer.name)))
}

/// What a manifest names.
pub(crate) fn named_by(manifest: &Manifest, allow_nondistributable: bool) -> Vec<Need> {
    let Content::Image { config, layers } = &manifest.content else { return Vec::new() };
    config.iter().chain(layers).map(|descriptor| blob_need(descriptor, allow_nondistributable)).collect()
}

fn blob_need(descriptor: &Descriptor, allow_nondistributable: bool) -> Need {
    let foreign = !descriptor.urls.is_empty()
        || descriptor.media_type.as_deref().is_some_and(media_type::is_nondistributable);
    Need {
        layer: Layer::named(descriptor),
        identity: Some((descriptor.digest.clone(), descriptor.size)),
        weight: descriptor.size,
        at_hand: if foreign && !allow_nondistributable { AtHand::Foreign } else { AtHand::Encoded },
        origins: Vec::new(),
    }
}

/// A layer without a manifest: encoded already, in the cache, or plain.
fn layer_need(
    source: &dyn Source,
    layer: &Layer,
    encoding: Encoding,
    cache: &Cache,
    absorbed: &Absorbed,
    cached: &mut HashMap<Digest, Blob>,
) -> Result<(Need, Compression)> {
    let need = |identity: Option<(Digest, u64)>, weight, at_hand| Need {
        layer: layer.clone(),
        identity,
        weight,
        at_hand,
        origins: Vec::new(),
    };
    let diff_id = diff_id(layer)?;
    // A stream's size is not known: it comes first.
    let mut weight = u64::MAX;
    let found = match source.open(layer)? {
        Data::Absorbed(digest) if digest != diff_id.0 => {
            return Err(Error::source(format!(
                "diff ID mismatch in layer `{}`: the image config says {diff_id}, the layer is {digest}",
                layer.name,
            )));
        }
        Data::Absorbed(digest) => Some(absorbed.layer(&digest)?.clone()),
        Data::Stored(blob) => {
            let compression = transcode::compression(&blob)?;
            if matches!(compression, Compression::Gzip | Compression::Zstd) {
                return Ok((need(None, blob.size(), AtHand::Encoded), compression));
            }
            weight = blob.size();
            hit(cache, diff_id, encoding)?
        }
        Data::Stream(_) => hit(cache, diff_id, encoding)?,
    };
    Ok(match found {
        Some((entry, blob)) => {
            cached.insert(entry.digest.clone(), blob);
            (need(Some((entry.digest, entry.size)), entry.size, AtHand::Cached), encoding.into())
        }
        None => (need(None, weight, AtHand::Plain), encoding.into()),
    })
}

fn hit(cache: &Cache, diff_id: &DiffId, encoding: Encoding) -> Result<Option<(Entry, Blob)>> {
    match cache.lookup(diff_id, encoding)? {
        Some(entry) => Ok(cache.blob(&entry)?.map(|blob| (entry, blob))),
        None => Ok(None),
    }
}

/// Asks the repository which of the needed blobs it has.
pub(crate) async fn present(client: &Client, repository: &str, needs: &[Need]) -> Result<HashSet<Digest>> {
    let asked =
        needs.iter().filter(|need| need.at_hand != AtHand::Foreign).filter_map(|need| need.identity.clone());
    stream::iter(asked)
        .map(|(digest, size)| async move {
            let found = client.head_blob(repository, &digest).await?;
            match found {
                Some(found) if found != size => Err(Error::new(
                    ErrorKind::Refused,
                    format!("the registry has {digest} with {found} bytes, the image says {size}"),
                )),
                Some(_) => Ok(Some(digest)),
                None => Ok(None),
            }
        })
        .buffer_unordered(HEADS)
        .try_filter_map(|digest| async move { Ok(digest) })
        .try_collect()
        .await
}

/// Makes sure that the registry has the children of an index that the source names and does not hold.
pub(crate) async fn require_manifests(
    client: &Client,
    repository: &str,
    absent: &[Descriptor],
) -> Result<()> {
    for child in absent {
        if client.head_manifest(repository, &child.digest.to_string()).await?.is_none() {
            return Err(Error::source(format!(
                "manifest {} is missing in the source, and the registry does not have it",
                child.digest
            ))
            .because(Missing)
            .with_hint("push one platform by `--platform`, or push that image first"));
        }
    }
    Ok(())
}

/// Looks at each blob that will have to be sent: a damaged source is found before the first byte leaves. A
/// blob that was reached through a symlink is hashed as a whole.
pub(crate) fn check_at_hand(
    source: &dyn Source,
    needs: &mut [Need],
    present: &HashSet<Digest>,
) -> Result<()> {
    for need in needs {
        let Some((digest, size)) = &need.identity else { continue };
        if need.at_hand != AtHand::Encoded || present.contains(digest) {
            continue;
        }
        match source.open(&need.layer) {
            Ok(Data::Stored(blob)) if blob.through_link() => {
                blob.verify(&Descriptor::new("", digest.clone(), *size))?;
            }
            Ok(_) => {}
            Err(error) if error.find::<Missing>().is_some() => {
                need.at_hand = AtHand::Missing(error.hints().into_iter().map(str::to_owned).collect());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
