//! nix2container's description of an image: a JSON file with the parts of a config and the files of its layers.
//!
//! Layers that are files (`layer-path`) are read from there. Layers that are still store paths would have to be
//! packed byte for byte as nix2container does it, which is not done here: the error says so. A description may
//! name any file of this machine, so a layer is hashed as a whole before it is handed out.
//!
//! The config is not in the file. It is put together as nix2container does (gh:nlewo/nix2container, nix/image.go),
//! fields in the order of Go's structs, so that the digest is the same.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    blob::Blob,
    error::{Context as _, Error, ErrorKind, Result},
    oci::{Descriptor, DiffId, Digest, Platform},
    source::{Data, Image, ImageContent, Layer, Source},
};

/// A hundred layers of a thousand store paths each have 10 MiB.
pub(in crate::source) const DESCRIPTION_LIMIT: u64 = 64 << 20;
/// The only version there is.
const VERSION: u64 = 1;

/// An image that nix2container described.
#[derive(Debug)]
pub struct Nix2Container {
    name: String,
    config: Bytes,
    platform: Platform,
    layers: Vec<LayerFile>,
    /// The layers whose digest has been checked.
    proven: Mutex<HashSet<Digest>>,
}

#[derive(Debug)]
struct LayerFile {
    path: String,
    descriptor: Descriptor,
    diff_id: DiffId,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Description {
    version: u64,
    image_config: RunConfig,
    layers: Vec<LayerItem>,
    arch: Option<String>,
    created: Option<String>,
}

#[derive(Deserialize)]
struct LayerItem {
    digest: Digest,
    size: u64,
    // One, in spite of its name.
    diff_ids: DiffId,
    mediatype: Option<String>,
    #[serde(rename = "layer-path")]
    path: Option<String>,
    #[serde(rename = "History", default)]
    history: History,
}

/// The image config, as `image-spec` declares it in Go.
#[derive(Serialize)]
struct Config<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a str>,
    architecture: &'a str,
    os: &'a str,
    #[serde(rename = "config")]
    run: &'a RunConfig,
    rootfs: RootFs<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<&'a History>,
}

#[derive(Serialize)]
struct RootFs<'a> {
    r#type: &'a str,
    diff_ids: Vec<&'a DiffId>,
}

// Go leaves empty fields out.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct RunConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmd: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
    #[serde(skip_serializing_if = "is_false")]
    args_escaped: bool,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    author: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
    #[serde(skip_serializing_if = "is_false")]
    empty_layer: bool,
}

impl Nix2Container {
    /// Returns whether a JSON document is a description.
    pub(in crate::source) fn is_description(text: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Mark {
            #[serde(rename = "image-config")]
            _image_config: serde::de::IgnoredAny,
            #[serde(rename = "layers")]
            _layers: serde::de::IgnoredAny,
        }
        serde_json::from_slice::<Mark>(text).is_ok()
    }

    /// Reads a description, which messages call `name`.
    pub(in crate::source) fn new(text: &[u8], name: &str) -> Result<Self> {
        let name = format!("nix2container description {name}");
        Self::read(text, &name).map_err(|error| error.while_doing(format!("reading {name}")))
    }

    fn read(text: &[u8], name: &str) -> Result<Self> {
        let description: Description =
            serde_json::from_slice(text).context(ErrorKind::Source, || "it is not valid".into())?;
        if description.version != VERSION {
            return Err(Error::source(format!("unsupported version: {}", description.version)));
        }
        let config = config(&description)?;
        let architecture = description.arch.unwrap_or_default();
        let platform = Platform { os: "linux".into(), architecture, ..Platform::default() };
        let layers = description.layers.into_iter().map(LayerItem::file).collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), config, platform, layers, proven: Mutex::default() })
    }
}

impl Source for Nix2Container {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn images(&self) -> Result<Vec<Image>> {
        let layers = self.layers.iter().map(|layer| Layer {
            name: layer.path.clone(),
            descriptor: None,
            diff_id: Some(layer.diff_id.clone()),
        });
        let (config, layers) = (self.config.clone(), layers.collect());
        let image = Image::new(Vec::new(), ImageContent::Layers { config, layers, original: None });
        Ok(vec![Image { platform: Some(self.platform.clone()), ..image }])
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        let is_meant =
            |file: &&LayerFile| file.path == layer.name && Some(&file.diff_id) == layer.diff_id.as_ref();
        let file = self.layers.iter().find(is_meant).ok_or_else(|| {
            Error::internal(format!("the description has no layer `{}`", layer.name.escape_debug()))
        })?;
        let opened = || {
            let blob = Blob::open(Path::new(&file.path))?;
            let mut proven = self.proven.lock();
            if !proven.contains(&file.descriptor.digest) {
                blob.verify(&file.descriptor)?;
                proven.insert(file.descriptor.digest.clone());
            }
            Ok(Data::Stored(blob))
        };
        opened().map_err(|error: Error| error.while_doing(format!("reading {}", self.name)))
    }
}

impl LayerItem {
    fn file(self) -> Result<LayerFile> {
        let Some(path) = self.path.filter(|path| !path.is_empty()) else {
            return Err(Error::source(format!(
                "layer {} is made of store paths, which only nix2container can pack",
                self.digest
            ))
            .with_hint("build the layers with `reproducible = false`, or run nix2container's `copyTo`"));
        };
        let descriptor =
            Descriptor { media_type: self.mediatype, ..Descriptor::new("", self.digest, self.size) };
        Ok(LayerFile { path, descriptor, diff_id: self.diff_ids })
    }
}

/// Puts the config together.
fn config(description: &Description) -> Result<Bytes> {
    let config = Config {
        created: description.created.as_deref(),
        architecture: description.arch.as_deref().unwrap_or_default(),
        os: "linux",
        run: &description.image_config,
        rootfs: RootFs {
            r#type: "layers",
            diff_ids: description.layers.iter().map(|layer| &layer.diff_ids).collect(),
        },
        history: description.layers.iter().map(|layer| &layer.history).collect(),
    };
    let text = serde_json::to_string(&config)
        .context(ErrorKind::Internal, || "writing an image config".to_owned())?;
    Ok(escaped(&text).into())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Escapes what Go's encoding/json escapes in strings for the sake of web pages; elsewhere JSON has none of it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(more: &str) -> String {
        let digest = Digest::of(b"layer");
        format!(
            r#"{{"version":1,"image-config":{{"Labels":{{"b":"<&>","a":"1"}},"Cmd":["/x"],"User":"u","Env":[]}},
            "layers":[{{"digest":"{digest}","size":5,"diff_ids":"{digest}","mediatype":"m",{more}
            "History":{{"created_by":"nix"}}}}],"arch":"arm64","created":"1970-01-01T00:00:01Z"}}"#
        )
    }

    #[test]
    fn the_config_is_what_go_would_write() {
        let text = description(r#""layer-path":"/none","#);
        assert!(Nix2Container::is_description(text.as_bytes()));
        let description = Nix2Container::new(text.as_bytes(), "it").unwrap();
        let digest = Digest::of(b"layer");
        let expected = [
            r#"{"created":"1970-01-01T00:00:01Z","architecture":"arm64","os":"linux","#,
            r#""config":{"User":"u","Cmd":["/x"],"Labels":{"a":"1","b":"\u003c\u0026\u003e"}},"#,
            &format!(r#""rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"#),
            r#""history":[{"created_by":"nix"}]}"#,
        ];
        assert_eq!(description.config, expected.concat());
        assert_eq!(description.platform.to_string(), "linux/arm64");
    }

    #[test]
    fn layers_of_store_paths_are_refused() {
        let text = description(r#""paths":[{"path":"/nix/store/x"}],"#);
        let error = Nix2Container::new(text.as_bytes(), "it").unwrap_err();
        assert!(crate::error::chain(&error).contains("store paths"), "{error:?}");
        assert!(!Nix2Container::is_description(b"{}"));
        let newer = text.replace(r#""version":1"#, r#""version":2"#);
        assert!(
            crate::error::chain(&Nix2Container::new(newer.as_bytes(), "it").unwrap_err())
                .contains("version: 2")
        );
    }

    #[test]
    fn only_what_was_hashed_is_handed_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = description(&format!(r#""layer-path":"{}","#, file.path().display()));
        let description = Nix2Container::new(text.as_bytes(), "it").unwrap();
        let ImageContent::Layers { layers, .. } = description.images().unwrap().remove(0).content else {
            panic!("a manifest")
        };
        for (content, right) in [("secret", false), ("LAYER", false), ("layer", true)] {
            fs_err::write(file.path(), content).unwrap();
            assert_eq!(description.open(&layers[0]).is_ok(), right, "{content}");
        }
    }
}
