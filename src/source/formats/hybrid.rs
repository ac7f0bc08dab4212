//! Archives that are an OCI layout and a docker archive at once: `docker save` since 25, `ctr images export`,
//! BuildKit's `type=docker`.
//!
//! Both lists describe the same images, and `index.json` says more: indexes, attestations, the encoded layers
//! as a registry had them. So it is believed, with two exceptions. Where Docker's own store wrote the archive,
//! the manifests are made up on the spot around raw layers and no registry ever saw them: the image is its
//! config and layers, and a manifest is made for it as for any docker archive. And Docker 25.0.0
//! listed layers in random order (gh:moby/moby#47150), and several versions leave images out of `index.json`
//! (gh:moby/moby#47210, gh:moby/moby#51389): what `index.json` gets
//! wrong is taken from `manifest.json`, with a warning.

use std::collections::HashSet;

use bytes::Bytes;

use super::{
    docker_archive::{DockerArchive, MANIFEST, Saved},
    oci_layout::OciLayout,
};
use crate::{
    codec::Compression,
    error::Result,
    layout::INDEX,
    oci::{Content, Descriptor, ImageConfig, Manifest},
    source::{Data, Image, ImageContent, Layer, Source, documents::read_config, resolve},
};

/// An archive with two lists of its images.
#[derive(Debug)]
pub struct Hybrid {
    layout: OciLayout,
    archive: DockerArchive,
    images: Vec<Image>,
    warnings: Vec<String>,
}

impl Hybrid {
    /// Decides for each image which list to believe.
    pub fn new(layout: OciLayout, archive: DockerArchive) -> Result<Self> {
        let mut hybrid = Self { warnings: archive.warnings(), images: Vec::new(), layout, archive };
        let mut listed = HashSet::new();
        let mut readable = true;
        for mut image in hybrid.layout.images()? {
            if let ImageContent::Manifest(descriptor) = &image.content {
                // What cannot be read is an error for whoever asks for this image, and nothing else stands
                // in for it.
                match resolve(&hybrid.layout, descriptor, None) {
                    Ok(tree) => {
                        listed.extend(
                            tree.manifests.iter().filter_map(Manifest::config).map(|c| c.digest.clone()),
                        );
                        if let Some(saved) = hybrid.better(tree.root())? {
                            image = Image { names: image.names, companion: image.companion, ..saved };
                        }
                    }
                    Err(_) => readable = false,
                }
            }
            hybrid.images.push(image);
        }
        let is_listed = |saved: &Saved| listed.contains(&saved.id);
        if !readable || hybrid.archive.saved().iter().all(is_listed) {
            return Ok(hybrid);
        }
        let images = hybrid.archive.images()?;
        for (saved, image) in hybrid.archive.saved().iter().zip(images) {
            if !is_listed(saved) {
                hybrid.images.push(image);
                hybrid
                    .warnings
                    .push(format!("image {} is taken from `{MANIFEST}`: `{INDEX}` lacks it", saved.id));
            }
        }
        Ok(hybrid)
    }

    /// Returns what `manifest.json` says of an image, if that is to be believed.
    fn better(&mut self, manifest: &Manifest) -> Result<Option<Image>> {
        let Some(config) = manifest.config() else { return Ok(None) };
        let Some(saved) = self.archive.saved().iter().find(|saved| saved.id == config.digest) else {
            return Ok(None);
        };
        // An image of WebAssembly has no diff IDs, and containerd's runwasi lists it all the same.
        let Ok(image) = &saved.image else { return Ok(None) };
        let ImageContent::Layers { layers, .. } = &image.content else { return Ok(None) };
        if !self.agrees(manifest) {
            self.warnings.push(format!(
                "image {} is taken from `{MANIFEST}`: in `{INDEX}` its layers are not those of its config",
                saved.id
            ));
        } else if !(saved.described && self.archive.is_plain(layers)?) {
            return Ok(None);
        }
        Ok(Some(image.clone()))
    }

    /// Returns whether a manifest has the layers of its config, as far as that shows: the digest of a raw
    /// layer is its diff ID. What cannot be read is an error later, and no reason to believe the other list.
    fn agrees(&self, manifest: &Manifest) -> bool {
        let Content::Image { config: Some(config), layers } = &manifest.content else { return true };
        let config = read_config(&self.layout, config).and_then(|config| ImageConfig::parse(&config, ""));
        let Ok(ImageConfig { diff_ids, .. }) = config else { return true };
        let is_plain = |layer: &Descriptor| {
            let compression = self.layout.find(layer).and_then(|data| data.compression());
            compression.is_ok_and(|compression| compression == Compression::None)
        };
        layers.len() == diff_ids.len()
            && layers
                .iter()
                .zip(&diff_ids)
                .all(|(layer, diff_id)| layer.digest == diff_id.0 || !is_plain(layer))
    }
}

impl Source for Hybrid {
    fn name(&self) -> String {
        self.layout.name()
    }

    fn images(&self) -> Result<Vec<Image>> {
        Ok(self.images.clone())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.layout.document(descriptor)
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        if layer.descriptor.is_some() { self.layout.open(layer) } else { self.archive.open(layer) }
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{layout::write::blob_name, oci::Digest, source::archive::Index};

    /// Adds a blob, or a file of another name; returns its digest and what a manifest says of it.
    fn put(index: &mut Index, name: Option<&str>, text: String) -> (Digest, String) {
        let digest = Digest::of(text.as_bytes());
        let name = name.map_or_else(|| blob_name(&digest), str::to_owned);
        let descriptor = format!(r#"{{"digest":"{digest}","size":{}}}"#, text.len());
        index.put(name, text.into()).unwrap();
        (digest, descriptor)
    }

    fn opened(index: Index) -> Hybrid {
        let index = Arc::new(index);
        let layout = OciLayout::archive(Arc::clone(&index), "it".into()).unwrap();
        Hybrid::new(layout, DockerArchive::new(index, "it".into()).unwrap()).unwrap()
    }

    /// An archive with a config of two raw layers, whose two lists name these layers in these orders.
    fn hybrid(by_index: Option<[&str; 2]>, sources: bool) -> Hybrid {
        let mut index = Index::default();
        let mut put = |name, text| put(&mut index, name, text);
        let (one, two) = (put(None, "one".into()), put(None, "two".into()));
        let diff_ids = format!(r#""{}","{}""#, one.0, two.0);
        let config = put(
            None,
            format!(r#"{{"os":"linux","architecture":"arm","rootfs":{{"diff_ids":[{diff_ids}]}}}}"#),
        );
        let entries = by_index.map_or_else(String::new, |order| {
            let layers = order.map(|layer| if layer == "one" { &*one.1 } else { &*two.1 }).join(",");
            put(None, format!(r#"{{"config":{},"layers":[{layers}]}}"#, config.1)).1
        });
        put(Some(INDEX), format!(r#"{{"manifests":[{entries}]}}"#));
        let sources =
            if sources { format!(r#""{}":{},"{}":{}"#, one.0, one.1, two.0, two.1) } else { String::new() };
        let [config, one, two] = [config, one, two].map(|(digest, _)| blob_name(&digest));
        put(
            Some(MANIFEST),
            format!(
                r#"[{{"Config":"{config}","RepoTags":["a:1"],"Layers":["{one}","{two}"],"LayerSources":{{{sources}}}}}]"#
            ),
        );
        opened(index)
    }

    fn is_made_up(hybrid: &Hybrid) -> bool {
        let [image] = &hybrid.images[..] else { panic!("{:?}", hybrid.images) };
        matches!(image.content, ImageContent::Layers { .. })
    }

    #[test]
    fn a_manifest_of_a_registry_is_kept_and_a_made_up_one_is_not() {
        let containerd = hybrid(Some(["one", "two"]), false);
        assert!(!is_made_up(&containerd));
        let graphdriver = hybrid(Some(["one", "two"]), true);
        assert!(is_made_up(&graphdriver));
        assert_eq!(graphdriver.images[0].platform.as_ref().unwrap().to_string(), "linux/arm");
        assert!(containerd.warnings().is_empty() && graphdriver.warnings().is_empty());
    }

    #[test]
    fn a_manifest_of_no_diff_ids_is_kept() {
        for layers in [0, 1] {
            assert!(!is_made_up(&without_diff_ids(layers)), "{layers}");
        }
    }

    /// An archive with a config that has no diff IDs, and so many layers all the same.
    fn without_diff_ids(layers: usize) -> Hybrid {
        let mut index = Index::default();
        let mut put = |name, text| put(&mut index, name, text);
        let (config, named) = put(None, r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#.into());
        let (layer, wasm) = put(None, "wasm".into());
        let [config, layer] = [config, layer].map(|digest| blob_name(&digest));
        let [named_layers, list] = [&wasm, &format!("\"{layer}\"")].map(|one| vec![&**one; layers].join(","));
        let (_, manifest) = put(None, format!(r#"{{"config":{named},"layers":[{named_layers}]}}"#));
        put(Some(INDEX), format!(r#"{{"manifests":[{manifest}]}}"#));
        put(Some(MANIFEST), format!(r#"[{{"Config":"{config}","RepoTags":["a:1"],"Layers":[{list}]}}]"#));
        opened(index)
    }

    #[test]
    fn layers_in_another_order_than_their_config_are_not_believed() {
        for sources in [true, false] {
            let hybrid = hybrid(Some(["two", "one"]), sources);
            assert!(is_made_up(&hybrid));
            assert!(hybrid.warnings()[0].contains("not those of its config"), "{:?}", hybrid.warnings());
            let ImageContent::Layers { layers, .. } = &hybrid.images[0].content else { panic!() };
            assert!(layers[0].name.ends_with(Digest::of(b"one").hex()));
            hybrid.open(&layers[0]).unwrap();
        }
    }

    #[test]
    fn an_image_that_index_json_lacks_is_taken_from_the_other_list() {
        let hybrid = hybrid(None, true);
        assert!(is_made_up(&hybrid));
        assert_eq!(hybrid.images[0].names, ["a:1"]);
        assert!(hybrid.warnings()[0].contains("lacks it"), "{:?}", hybrid.warnings());
    }
}
