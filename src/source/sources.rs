//! Several sources as one: a folder of them, or those that one image is made of.
//!
//! What a manifest names has a digest, and is asked of one source after the other. Layers without a manifest are known by
//! their source's own names, which may be the same elsewhere: here they have others.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{Data, Image, ImageContent, Layer, Missing, Origin, Source};
use crate::{
    error::{Error, Result},
    layout::left_out::LeftOut,
    oci::{Descriptor, Digest},
};

/// Several sources.
#[derive(Debug, Default)]
pub struct Sources {
    /// What they are called.
    pub names: Vec<String>,
    /// What the user should know about them.
    pub warnings: Vec<String>,
    images: Vec<Image>,
    /// The images by their names: archives that were saved one by one often hold the same base.
    listed: HashSet<(Digest, String)>,
    /// Those that hold manifests.
    holders: Vec<Arc<dyn Source>>,
    /// Where the layers without a manifest are, and what they are there.
    layers: HashMap<String, (Arc<dyn Source>, Layer)>,
    left_out: Option<LeftOut>,
}

impl Sources {
    /// Takes in a source for what its manifests name.
    pub fn hold(&mut self, source: &Arc<dyn Source>) {
        self.holders.push(Arc::clone(source));
        if let Some(left_out) = source.left_out() {
            self.left_out.get_or_insert_default().extend(left_out);
        }
    }

    /// Returns whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Lists an image, as far as it is not there under the same name already.
    pub fn list(&mut self, mut image: Image) {
        let identity = image.identity();
        let is_new = if image.names.is_empty() {
            self.listed.insert((identity, String::new()))
        } else {
            image.names.retain(|name| self.listed.insert((identity.clone(), name.clone())));
            !image.names.is_empty()
        };
        if is_new {
            self.images.push(image);
        }
    }

    /// Takes in the layers of an image that are known by a source's own names; they are called `within/…` from now on.
    pub fn adopt(&mut self, source: &Arc<dyn Source>, within: &str, image: &mut Image) {
        match &mut image.content {
            ImageContent::Layers { layers, .. } => {
                for layer in layers {
                    let own = layer.clone();
                    layer.name = format!("{within}/{}", own.name);
                    self.layers.insert(layer.name.clone(), (Arc::clone(source), own));
                }
            }
            ImageContent::Index { images, .. } => {
                for image in images {
                    self.adopt(source, within, image);
                }
            }
            ImageContent::Broken { .. } | ImageContent::Manifest(_) => {}
        }
    }

    /// Returns what the first source says that has it.
    fn first<T>(&self, ask: impl Fn(&dyn Source) -> Result<T>) -> Result<T> {
        let mut missing: Option<Error> = None;
        for source in &self.holders {
            match ask(&**source) {
                Err(error) if Missing::is_cause_of(&error) => {
                    // One that knows why it is missing says more.
                    if missing.as_ref().is_none_or(|missing| missing.hints().is_empty()) {
                        missing = Some(error);
                    }
                }
                found => return found,
            }
        }
        Err(missing.unwrap_or_else(|| Error::internal("no source holds manifests")))
    }
}

impl Source for Sources {
    fn name(&self) -> String {
        self.names.join(", ")
    }

    fn images(&self) -> Result<Vec<Image>> {
        Ok(self.images.clone())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.first(|source| source.document(descriptor))
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        match self.layers.get(&layer.name) {
            Some((source, own)) => source.open(own),
            None => self.first(|source| source.open(layer)),
        }
    }

    fn origins(&self, blob: &Layer) -> Vec<Origin> {
        match self.layers.get(&blob.name) {
            Some((source, own)) => source.origins(own),
            None => self.holders.iter().flat_map(|source| source.origins(blob)).collect(),
        }
    }

    fn left_out(&self) -> Option<&LeftOut> {
        self.left_out.as_ref()
    }

    fn plain_size(&self, layer: &Layer) -> Option<u64> {
        match self.layers.get(&layer.name) {
            Some((source, own)) => source.plain_size(own),
            None => self.holders.iter().find_map(|source| source.plain_size(layer)),
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn notes(&self, image: &Image) -> Vec<String> {
        let layer = match &image.content {
            ImageContent::Layers { layers, .. } => layers.first(),
            ImageContent::Broken { .. } | ImageContent::Index { .. } | ImageContent::Manifest(_) => None,
        };
        match layer.and_then(|layer| self.layers.get(&layer.name)) {
            Some((source, _)) => source.notes(image),
            None => self.holders.iter().flat_map(|source| source.notes(image)).collect(),
        }
    }
}
