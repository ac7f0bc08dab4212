//! Docker archives: a tar whose `manifest.json` is a list of images, each a config and layers by entry name.
//!
//! Written by `docker save`, podman, skopeo, buildah, crane, kaniko, jib, rules_oci, Nix and others, each with
//! its own names for the same things, so names say nothing here. There is no manifest that a registry would
//! take: configs are handed out byte for byte, and each layer with the diff ID that it must turn out to have.
//! An image that cannot be read hides no other.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use serde::Deserialize;

use crate::{
    codec::Compression,
    error::{Error, Result},
    oci::{Descriptor, DiffId, Digest, ImageConfig, config::CONFIG_LIMIT},
    source::{Data, Image, ImageContent, Layer, Missing, Source, archive::Index, digest_in},
};

/// The file that lists the images.
pub const MANIFEST: &str = "manifest.json";

/// A docker archive.
#[derive(Debug)]
pub struct DockerArchive {
    name: String,
    index: Arc<Index>,
    saved: Vec<Saved>,
    warnings: Vec<String>,
}

/// An image of the archive, or why there is none, and what else its item says.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) image: Result<Image>,
    names: Vec<String>,
    /// The digest of its config, if there is one, or else of its name.
    pub(super) id: Digest,
    /// Whether there are layers, and Docker describes each in `LayerSources`, as it does since 25 where it keeps
    /// images in its own store.
    pub(super) described: bool,
}

impl Saved {
    /// Returns what stands in a list for an image that cannot be read. Another item may have its config.
    fn broken(&self, at: usize, error: Error) -> Image {
        let id = Digest::of(format!("item {at}").as_bytes());
        Image::new(self.names.clone(), ImageContent::Broken { id, error })
    }
}

/// Go's readers take keys in any case; containerify 4 writes `config`, `repoTags` and `layers`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    #[serde(alias = "config")]
    config: String,
    #[serde(alias = "repoTags")]
    repo_tags: Option<Vec<String>>,
    #[serde(alias = "layers")]
    layers: Option<Vec<String>>,
    layer_sources: Option<BTreeMap<DiffId, Descriptor>>,
}

impl DockerArchive {
    /// Reads the list of images in an archive, which messages call `name`, and their configs.
    pub fn new(index: Arc<Index>, name: String) -> Result<Self> {
        let items: Vec<Item> = serde_json::from_slice(&index.read(MANIFEST, MANIFEST_LIMIT)?)
            .map_err(|error| Error::source(format!("`{MANIFEST}` is no list of images")).because(error))?;
        let mut archive = Self { name, index, saved: Vec::new(), warnings: Vec::new() };
        let mut configs = HashMap::new();
        for item in items {
            let saved = archive.read_item(item, &mut configs);
            archive.saved.push(saved);
        }
        Ok(archive)
    }

    pub(super) fn saved(&self) -> &[Saved] {
        &self.saved
    }

    /// Returns whether all layers are plain tars.
    pub(super) fn is_plain(&self, layers: &[Layer]) -> Result<bool> {
        for layer in layers {
            if self.index.find(&layer.name)?.compression()? != Compression::None {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read_item(&mut self, item: Item, configs: &mut HashMap<String, Bytes>) -> Saved {
        let names = item.repo_tags.clone().unwrap_or_default();
        let config = match configs.get(&item.config) {
            Some(config) => Ok(config.clone()),
            None => self.index.read(&item.config, CONFIG_LIMIT),
        };
        let config = match config {
            Ok(config) => configs.entry(item.config.clone()).or_insert(config).clone(),
            Err(error) => {
                let id = Digest::of(item.config.as_bytes());
                return Saved { image: Err(error), names, id, described: false };
            }
        };
        let id = Digest::of(&config);
        if digest_in(&item.config).is_some_and(|named| named != id) {
            self.warnings.push(format!(
                "the config `{}` is not what its name says, its digest is {id}",
                item.config.escape_debug()
            ));
        }
        let read = self.read_image(item, config);
        let described = matches!(read, Ok((_, true)));
        Saved { image: read.map(|(image, _)| image), names, id, described }
    }

    /// Reads an image, and whether its item describes all of its layers.
    fn read_image(&self, item: Item, config: Bytes) -> Result<(Image, bool)> {
        let called = item.config.escape_debug().to_string();
        let parsed = ImageConfig::parse(&config, &called)?;
        let names = item.layers.unwrap_or_default();
        parsed.check_layers(names.len(), &format!("the image with config `{called}`"))?;
        let ImageConfig { diff_ids, platform } = parsed;
        let sources = item.layer_sources.unwrap_or_default();
        let described = !diff_ids.is_empty() && diff_ids.iter().all(|diff_id| sources.contains_key(diff_id));
        let layers = names
            .into_iter()
            .zip(diff_ids)
            .map(|(name, diff_id)| {
                // A base of Windows: docker <= 24 says where it can be had, and it must not be pushed.
                let foreign = sources.get(&diff_id).filter(|source| !source.urls.is_empty()).cloned();
                match self.index.find(&name) {
                    Err(error) if foreign.is_none() || !Missing::is_cause_of(&error) => Err(error),
                    _ => Ok(Layer { name, descriptor: foreign, diff_id: Some(diff_id) }),
                }
            })
            .collect::<Result<_>>()?;
        let content = ImageContent::Layers { config, layers, original: None };
        let image = Image { platform, ..Image::new(item.repo_tags.unwrap_or_default(), content) };
        Ok((image, described))
    }
}

impl Source for DockerArchive {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn images(&self) -> Result<Vec<Image>> {
        let readable = self.saved.iter().any(|saved| saved.image.is_ok());
        let images = self.saved.iter().enumerate().map(|(at, saved)| match &saved.image {
            Err(error) if readable => Ok(saved.broken(at, error.clone())),
            image => image.clone(),
        });
        images.collect::<Result<_>>().map_err(|error| error.while_doing(format!("reading {}", self.name)))
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        let data = self.index.find(&layer.name).and_then(|data| data.clone().into_data());
        data.map_err(|error| error.while_doing(format!("reading {}", self.name)))
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

/// A list of a thousand images with a hundred layers each has 8 MiB.
pub(in crate::source) const MANIFEST_LIMIT: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error;

    fn archive(entries: &[(&str, &str)]) -> Result<DockerArchive> {
        let mut index = Index::default();
        for (name, text) in entries {
            index.put((*name).to_owned(), Bytes::copy_from_slice(text.as_bytes()))?;
        }
        DockerArchive::new(Arc::new(index), "docker archive `x`".into())
    }

    fn config(layers: &[&str]) -> String {
        let diff_ids: Vec<_> = layers.iter().map(|text| Digest::of(text.as_bytes())).collect();
        let diff_ids = serde_json::to_string(&diff_ids).unwrap();
        format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":{diff_ids}}}}}"#)
    }

    #[test]
    fn an_image_is_its_config_and_its_layers() {
        let config = config(&["one", "one"]);
        let list = r#"[{"Config":"./c.json","RepoTags":["a:1","b:2"],"Layers":["l.tar","./l.tar"]}]"#;
        let archive = archive(&[("l.tar", "one"), ("c.json", &config), ("manifest.json", list)]).unwrap();
        let [image] = archive.images().unwrap().try_into().unwrap();
        assert_eq!(image.names, ["a:1", "b:2"]);
        assert_eq!(image.platform.unwrap().to_string(), "linux/amd64");
        let ImageContent::Layers { config: bytes, layers, .. } = image.content else { panic!("no layers") };
        assert_eq!(bytes, config);
        assert_eq!(layers.len(), 2);
        assert_eq!(layers[0].diff_id, Some(DiffId(Digest::of(b"one"))));
        assert!(layers[0].descriptor.is_none());
        archive.open(&layers[1]).unwrap();
        assert!(archive.warnings().is_empty());
    }

    #[test]
    fn keys_may_begin_in_lower_case() {
        let list = r#"[{"config":"c.json","repoTags":["a:1"],"layers":["l.tar"]}]"#;
        let archive =
            archive(&[("l.tar", "one"), ("c.json", &config(&["one"])), ("manifest.json", list)]).unwrap();
        let [image] = archive.images().unwrap().try_into().unwrap();
        assert_eq!(image.names, ["a:1"]);
        assert!(matches!(image.content, ImageContent::Layers { layers, .. } if layers.len() == 1));
    }

    #[test]
    fn what_does_not_fit_together_is_an_error() {
        let config = config(&["one"]);
        for (list, word) in [
            ("", "no list"),
            ("null", "no list"),
            ("{}", "no list"),
            ("[null]", "no list"),
            (r#"[{"Config":"c.json","config":"l.tar","Layers":["l.tar"]}]"#, "no list"),
            (r#"[{"Config":"","Layers":["l.tar"]}]"#, "empty path"),
            (r#"[{"Config":"/etc/passwd","Layers":["l.tar"]}]"#, "`/etc/passwd` is missing"),
            (r#"[{"Config":"c.json","Layers":["../l.tar"]}]"#, "`../l.tar` is missing"),
            (r#"[{"Config":"c.json","Layers":["l.tar","l.tar"]}]"#, "2 layers and 1 diff ID"),
            (r#"[{"Config":"c.json","Layers":null}]"#, "0 layers and 1 diff ID"),
            (r#"[{"Config":"l.tar","Layers":["l.tar"]}]"#, "not valid"),
        ] {
            let archive = archive(&[("l.tar", "one"), ("c.json", &config), ("manifest.json", list)]);
            let error = archive.and_then(|archive| archive.images()).unwrap_err();
            assert!(error::chain(&error).contains(word), "{list}: {error}");
        }
    }

    #[test]
    fn an_image_that_cannot_be_read_hides_no_other() {
        let (good, bad) = (config(&["one"]), config(&["one", "two"]));
        let list = r#"[{"Config":"gone.json","RepoTags":["a:1"],"Layers":["l.tar"]},
            {"Config":"good.json","RepoTags":["b:1"],"Layers":["l.tar"]},
            {"Config":"bad.json","RepoTags":["c:1"],"Layers":["l.tar"]}]"#;
        let entries = [("l.tar", "one"), ("good.json", &good), ("bad.json", &bad), ("manifest.json", list)];
        let archive = archive(&entries).unwrap();
        let images = archive.images().unwrap();
        for (image, (name, word)) in images.iter().zip([
            ("a:1", Some("`gone.json` is missing")),
            ("b:1", None),
            ("c:1", Some("1 layer and 2 diff IDs")),
        ]) {
            assert_eq!(image.names, [name]);
            match (&image.content, word) {
                (ImageContent::Broken { error, .. }, Some(word)) => {
                    assert!(error::chain(error).contains(word), "{name}: {error}");
                }
                (ImageContent::Layers { layers, .. }, None) => drop(archive.open(&layers[0]).unwrap()),
                (content, _) => panic!("{name}: {content:?}"),
            }
        }
    }

    #[test]
    fn a_config_that_lies_about_its_digest_is_warned_of() {
        let config = config(&[]);
        let name = "0".repeat(64) + ".json";
        let list = format!(r#"[{{"Config":"{name}"}}]"#);
        let warnings = archive(&[(&name, &config), ("manifest.json", &list)]).unwrap().warnings();
        assert!(warnings[0].contains(&name), "{warnings:?}");
        let digest = Digest::of(config.as_bytes());
        assert!(warnings[0].contains(&digest.to_string()), "{warnings:?}");
        for name in [format!("{}.json", digest.hex()), digest.hex().to_uppercase()] {
            let list = format!(r#"[{{"Config":"{name}"}}]"#);
            let archive = archive(&[(&name, &config), ("manifest.json", &list)]).unwrap();
            assert!(archive.warnings().is_empty(), "{name}");
        }
    }

    #[test]
    fn a_base_of_windows_need_not_be_there() {
        let config = config(&["base"]);
        let digest = Digest::of(b"base");
        let list = format!(
            r#"[{{"Config":"c.json","Layers":["gone.tar"],"LayerSources":{{"{digest}":{{"digest":"{digest}","size":4,"urls":["https://example.com"]}}}}}}]"#
        );
        let archive = archive(&[("c.json", &config), ("manifest.json", &list)]).unwrap();
        let [image] = archive.images().unwrap().try_into().unwrap();
        let ImageContent::Layers { layers, .. } = image.content else { panic!() };
        assert_eq!(layers[0].descriptor.as_ref().unwrap().urls, ["https://example.com"]);
    }
}
