//! Several sources as one, for an image that is made of parts of each.
//!
//! What a manifest names has a digest, and is asked of one source after the other. Layers without a manifest are known by
//! their source's own names, which may be the same elsewhere: here they have others.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    oci::Descriptor,
    source::{Data, Image, Layer, Missing, Origin, Source},
};

/// Several sources, whose images were chosen already.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// What the sources are called.
    pub(super) names: Vec<String>,
    /// Those that hold manifests.
    holders: Vec<Arc<dyn Source>>,
    /// Where the layers without a manifest are, and what they are there.
    layers: HashMap<String, (Arc<dyn Source>, Layer)>,
}

impl Sources {
    /// Takes in a source for what its manifests name.
    pub(super) fn hold(&mut self, source: &Arc<dyn Source>) {
        self.holders.push(Arc::clone(source));
    }

    /// Takes in layers of the source that comes next, which are called otherwise from now on.
    pub(super) fn adopt(&mut self, source: &Arc<dyn Source>, layers: &mut [Layer]) {
        let number = self.names.len() + 1;
        for layer in layers {
            let own = layer.clone();
            layer.name = format!("{number}/{}", own.name);
            self.layers.insert(layer.name.clone(), (Arc::clone(source), own));
        }
    }

    /// Returns what the first source says that has it.
    fn first<T>(&self, ask: impl Fn(&dyn Source) -> Result<T>) -> Result<T> {
        let mut missing = Error::internal("no source holds manifests");
        for source in &self.holders {
            match ask(&**source) {
                Err(error) if error.find::<Missing>().is_some() => missing = error,
                found => return found,
            }
        }
        Err(missing)
    }
}

impl Source for Sources {
    fn name(&self) -> String {
        self.names.join(", ")
    }

    fn images(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
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

    fn plain_size(&self, layer: &Layer) -> Option<u64> {
        match self.layers.get(&layer.name) {
            Some((source, own)) => source.plain_size(own),
            None => self.holders.iter().find_map(|source| source.plain_size(layer)),
        }
    }
}
