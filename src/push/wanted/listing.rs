//! Lists what an image needs: goes through its manifests and layers, applies the recipe to each layer, and asks the cache.

use std::collections::{HashMap, HashSet};

use super::{
    Wanted,
    draft::{Basis, Draft, Slot, is_image},
};
use crate::{
    blob::Blob,
    cache::{Cache, Entry},
    codec::{Compression, Recipe},
    error::{Error, Result, counted},
    oci::{Content, Descriptor, DiffId, Digest, ImageConfig, Manifest, Platform, media_type},
    plan::{self, AtHand, Need},
    push::{Cargo, Options, absorb::Absorbed, press::transcode},
    source::{
        self, Data, Image, ImageContent, Layer, Missing, Source, documents::read_config,
        platforms::require_platform,
    },
};

impl Cargo {
    /// Lists what an image needs.
    pub(in crate::push) fn list(&self, image: &Image) -> Result<Wanted> {
        let wanted = Wanted { format: self.options.format, ..Wanted::default() };
        let mut listing = Listing {
            source: &*self.source,
            options: &self.options,
            cache: &self.press.cache,
            absorbed: &self.absorbed,
            wanted,
            packed: HashMap::new(),
            seen: HashSet::new(),
        };
        listing.image(image, self.options.platform.as_ref())?;
        let mut wanted = listing.wanted;
        plan::require_one_size(&wanted.needs)
            .map_err(|error| error.while_doing(format!("reading {}", self.source.name())))?;
        wanted.needs = plan::distinct(wanted.needs);
        Ok(wanted)
    }
}

/// What a manifest names.
pub(in crate::push) fn named_by(manifest: &Manifest, allow_nondistributable: bool) -> Vec<Need> {
    let Content::Image { config, layers } = &manifest.content else { return Vec::new() };
    config.iter().chain(layers).map(|descriptor| blob_need(descriptor, allow_nondistributable)).collect()
}

/// A list in the making.
struct Listing<'a> {
    source: &'a dyn Source,
    options: &'a Options,
    cache: &'a Cache,
    absorbed: &'a Absorbed,
    wanted: Wanted,
    /// How each layer will be found at the registry: one that is there twice in two encodings is sent once.
    packed: HashMap<DiffId, Compression>,
    /// The documents that are listed already.
    seen: HashSet<Digest>,
}

/// What becomes of a layer.
enum Treatment {
    /// It stays as a manifest names it.
    AsNamed,
    /// It goes as it lies there, and the manifest will say so.
    AsItLies { packed: Compression, size: u64 },
    /// It has to be encoded.
    Encode { weight: u64 },
    /// It has been encoded.
    Encoded(Entry, Blob),
}

impl Listing<'_> {
    /// Lists an image.
    fn image(&mut self, image: &Image, platform: Option<&Platform>) -> Result<()> {
        match &image.content {
            ImageContent::Broken { error, .. } => {
                return Err(error.clone().while_doing(format!("reading {}", self.source.name())));
            }
            ImageContent::Manifest(root) => {
                let tree = source::resolve(self.source, root, platform)?;
                for manifest in tree.manifests {
                    if !self.seen.insert(manifest.digest.clone()) {
                        continue;
                    }
                    let draft = self.held(manifest)?;
                    self.wanted.drafts.push(draft);
                }
                self.wanted.absent.extend(tree.missing);
            }
            ImageContent::Layers { config, layers, original } => {
                if let Some(wanted) = platform {
                    require_platform(image.platform.as_ref(), wanted, &self.source.name())?;
                }
                let slots = layers.iter().map(|layer| self.unnamed(layer)).collect::<Result<_>>()?;
                let digest = Digest::of(config);
                let size = config.len() as u64;
                self.wanted.needs.push(Need {
                    layer: Layer { name: digest.to_string(), descriptor: None, diff_id: None },
                    identity: Some((digest.clone(), size)),
                    weight: size,
                    at_hand: AtHand::Bytes(config.clone()),
                    origins: Vec::new(),
                });
                let basis = Basis::Made { config: digest, size, original: original.clone() };
                self.wanted.drafts.push(Draft { basis, layers: slots });
            }
            ImageContent::Index { manifest, images, absent, .. } => {
                if let Some(wanted) = platform {
                    return self.image(image.part_for(wanted, &self.source.name())?, platform);
                }
                for image in images {
                    self.image(image, None)?;
                }
                self.wanted.absent.extend(absent.iter().cloned());
                self.wanted.drafts.push(Draft { basis: Basis::Held(manifest.clone()), layers: Vec::new() });
            }
        }
        Ok(())
    }

    /// Lists what a manifest of the source names.
    fn held(&mut self, manifest: Manifest) -> Result<Draft> {
        let layers = match &manifest.content {
            Content::Image { config: Some(config), layers } => match self.diff_ids(config, layers)? {
                Some(diff_ids) => {
                    self.wanted.needs.push(blob_need(config, true));
                    let slots =
                        layers.iter().zip(diff_ids).map(|(layer, diff_id)| self.named(layer, diff_id));
                    slots.collect::<Result<_>>()?
                }
                None => Vec::new(),
            },
            _ => Vec::new(),
        };
        if layers.is_empty() {
            self.note_misnamed(&manifest);
            self.wanted.needs.extend(named_by(&manifest, self.options.allow_nondistributable));
        }
        Ok(Draft { basis: Basis::Held(manifest), layers })
    }

    /// Bytes that a manifest names stay what they are, and their name too, whatever it says: most clients look at the
    /// bytes, and some believe the name.
    fn note_misnamed(&mut self, manifest: &Manifest) {
        let Content::Image { layers, .. } = &manifest.content else { return };
        for layer in layers.iter().filter(|layer| !layer.is_foreign()) {
            let name = layer.media_type.as_deref().filter(|name| media_type::is_file_system(name));
            let called = name.and_then(media_type::packing);
            let (Some(called), Ok(Data::Stored(blob))) = (called, self.source.open(&Layer::named(layer)))
            else {
                continue;
            };
            match transcode::compression(&blob) {
                // Plain bytes cannot be told from those that nobody knows.
                Ok(Compression::None) | Err(_) => {}
                Ok(packed) if packed.name() == called => {}
                Ok(packed) => self.wanted.notes.push(format!(
                    "layer {} is {}, and its media type says {called}: it stays so; with `--compression` it would say \
                     what it is",
                    layer.digest,
                    packed.name()
                )),
            }
        }
    }

    /// Returns the diff IDs of an image whose layers may have to be encoded.
    fn diff_ids(&self, config: &Descriptor, layers: &[Descriptor]) -> Result<Option<Vec<DiffId>>> {
        if self.options.recipe == Recipe::Keep || !is_image(config, layers) {
            return Ok(None);
        }
        let config = match read_config(self.source, config) {
            Err(error) if Missing::is_cause_of(&error) => return Ok(None),
            bytes => ImageConfig::parse(&bytes?, &config.digest.to_string())?,
        };
        if config.diff_ids.len() != layers.len() {
            return Err(Error::source(format!(
                "the image has {} and {}: they cannot be encoded again",
                counted(layers.len(), "layer"),
                counted(config.diff_ids.len(), "diff ID")
            )));
        }
        Ok(Some(config.diff_ids))
    }

    /// Lists a layer that a manifest names.
    fn named(&mut self, descriptor: &Descriptor, diff_id: DiffId) -> Result<Slot> {
        let kept = blob_need(descriptor, self.options.allow_nondistributable);
        let layer = Layer { diff_id: Some(diff_id), ..Layer::named(descriptor) };
        let is_encrypted = descriptor.media_type.as_deref().is_some_and(media_type::is_encrypted);
        let slot = if descriptor.is_foreign() || is_encrypted {
            None
        } else {
            match self.layer(&layer) {
                // The registry may have it, as it is.
                Err(error) if Missing::is_cause_of(&error) => None,
                slot => slot?,
            }
        };
        Ok(slot.unwrap_or_else(|| {
            self.wanted.needs.push(kept);
            Slot::Kept(descriptor.clone())
        }))
    }

    /// Lists a layer without a manifest.
    fn unnamed(&mut self, layer: &Layer) -> Result<Slot> {
        if let Some(foreign) = &layer.descriptor {
            self.wanted.needs.push(blob_need(foreign, false));
            return Ok(Slot::Kept(foreign.clone()));
        }
        let slot = self.layer(layer)?;
        slot.ok_or_else(|| Error::internal(format!("layer `{}` has no descriptor to keep", layer.name)))
    }

    /// Lists a layer as its encoding demands; nothing if a manifest names it and it stays as it is.
    fn layer(&mut self, layer: &Layer) -> Result<Option<Slot>> {
        let diff_id = layer
            .diff_id
            .as_ref()
            .ok_or_else(|| Error::internal(format!("layer `{}` has no diff ID", layer.name)))?;
        let encoding = Compression::from(self.options.recipe.encoding());
        let (at_hand, identity, weight, compression) = match self.treatment(layer, diff_id)? {
            Treatment::AsNamed => return Ok(None),
            Treatment::AsItLies { packed, size } => {
                let identity = match &layer.descriptor {
                    Some(named) => Some((named.digest.clone(), named.size)),
                    None if packed == Compression::None => Some((diff_id.0.clone(), size)),
                    None => self.proven(layer, diff_id)?.map(|digest| (digest, size)),
                };
                (AtHand::Encoded, identity, size, packed)
            }
            Treatment::Encode { weight } => (AtHand::Plain, None, weight, encoding),
            Treatment::Encoded(Entry { digest, size, .. }, blob) => {
                self.wanted.cached.insert(digest.clone(), blob);
                (AtHand::Cached, Some((digest, size)), size, encoding)
            }
        };
        let packed = *self.packed.entry(diff_id.clone()).or_insert(compression);
        if packed == compression {
            let need = Need { layer: layer.clone(), identity, weight, at_hand, origins: Vec::new() };
            self.wanted.needs.push(need);
        }
        Ok(Some(Slot::Encoded(diff_id.clone(), packed)))
    }

    /// Decides what becomes of a layer.
    fn treatment(&self, layer: &Layer, diff_id: &DiffId) -> Result<Treatment> {
        let (recipe, is_named) = (self.options.recipe, layer.descriptor.is_some());
        let weight = match self.source.open(layer)? {
            Data::Absorbed(_) if is_named && recipe.target(Compression::None, is_named).is_none() => {
                return Ok(Treatment::AsNamed);
            }
            Data::Absorbed(digest) if digest != diff_id.0 => {
                return Err(diff_id.mismatch(&digest).while_doing(format!("layer `{}`", layer.name)));
            }
            Data::Absorbed(digest) => {
                let (entry, blob) = self.absorbed.layer(&digest)?.clone();
                return Ok(Treatment::Encoded(entry, blob));
            }
            // A stream's size is not known: it comes first.
            Data::Stream(_) => u64::MAX,
            Data::Stored(blob) => {
                let (packed, size) = (transcode::compression(&blob)?, blob.size());
                if recipe.target(packed, is_named).is_none() {
                    let stays = is_named && (recipe == Recipe::Keep || is_called(layer, packed));
                    return Ok(if stays { Treatment::AsNamed } else { Treatment::AsItLies { packed, size } });
                }
                size
            }
        };
        let found = self.cache.lookup(diff_id, recipe.encoding())?;
        Ok(found.map_or(Treatment::Encode { weight }, |(entry, blob)| Treatment::Encoded(entry, blob)))
    }

    /// Many producers name a layer by its digest. If that was once proven to be of this diff ID, it is believed:
    /// the bytes are hashed on their way.
    fn proven(&self, layer: &Layer, diff_id: &DiffId) -> Result<Option<Digest>> {
        let Some(digest) = source::digest_in(&layer.name) else { return Ok(None) };
        Ok((self.cache.proven(&digest)?.as_ref() == Some(diff_id)).then_some(digest))
    }
}

/// Returns whether a layer's media type says how it is packed.
fn is_called(layer: &Layer, packed: Compression) -> bool {
    let name = layer.descriptor.as_ref().and_then(|named| named.media_type.as_deref());
    name.is_none_or(|name| media_type::packing(name) == Some(packed.name()))
}

fn blob_need(descriptor: &Descriptor, allow_nondistributable: bool) -> Need {
    let left = descriptor.is_foreign() && !allow_nondistributable;
    Need {
        layer: Layer::named(descriptor),
        identity: Some((descriptor.digest.clone(), descriptor.size)),
        weight: descriptor.size,
        at_hand: if left { AtHand::Foreign } else { AtHand::Encoded },
        origins: Vec::new(),
    }
}
