//! The kinds of images and artifacts that a registry has to take, each with everything it names.

use longshore::oci::{Algorithm, Digest};
use serde_json::{Value, json};

use super::digest_of;
use crate::wire::image::{INDEX, MANIFEST, noise};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";

/// What is pushed, in order.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) blobs: Vec<(Digest, Vec<u8>)>,
    pub(super) manifests: Vec<Document>,
}

/// A manifest or index, and what the list of referrers has to say about it.
pub(super) struct Document {
    pub(super) digest: Digest,
    pub(super) media_type: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) subject: Option<Digest>,
    pub(super) artifact_type: Option<String>,
    pub(super) annotations: Value,
}

impl Document {
    fn new(algorithm: Algorithm, media_type: &'static str, value: &Value) -> Self {
        let bytes = value.to_string().into_bytes();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            digest: digest_of(algorithm, &bytes),
            media_type,
            subject: text(&value["subject"]["digest"]).map(|digest| digest.parse().unwrap()),
            artifact_type: text(&value["artifactType"]).or_else(|| text(&value["config"]["mediaType"])),
            annotations: value["annotations"].clone(),
            bytes,
        }
    }

    pub(super) fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

impl Kind {
    fn new(name: &'static str) -> Self {
        Self { name, blobs: Vec::new(), manifests: Vec::new() }
    }

    fn blob(&mut self, algorithm: Algorithm, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = digest_of(algorithm, &bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        self.blobs.push((digest, bytes));
        descriptor
    }

    /// Adds an image with a config and layers; `change` may make something else of it.
    fn image(&mut self, algorithm: Algorithm, change: impl FnOnce(&mut Value)) -> Value {
        let seed = self.blobs.len() as u64 + self.name.len() as u64 * 100;
        let config =
            json!({ "architecture": "amd64", "os": "linux", "author": format!("{} {seed}", self.name) });
        let config = self.blob(algorithm, CONFIG, config.to_string().into_bytes());
        let layers = [GZIP, PLAIN].map(|media_type| self.blob(algorithm, media_type, noise(seed, 512)));
        let mut manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        change(&mut manifest);
        self.add(algorithm, MANIFEST, &manifest)
    }

    fn index(&mut self, algorithm: Algorithm, children: &[Value], change: impl FnOnce(&mut Value)) -> Value {
        let mut index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
        change(&mut index);
        self.add(algorithm, INDEX, &index)
    }

    fn artifact(&mut self, change: impl FnOnce(&mut Value)) -> Value {
        let empty = self.blob(Algorithm::Sha256, EMPTY, b"{}".to_vec());
        let layer = self.blob(Algorithm::Sha256, "application/vnd.example.1", noise(9, 300));
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [layer],
            "artifactType": "application/vnd.example.1",
        });
        change(&mut manifest);
        self.add(Algorithm::Sha256, MANIFEST, &manifest)
    }

    fn add(&mut self, algorithm: Algorithm, media_type: &'static str, value: &Value) -> Value {
        let document = Document::new(algorithm, media_type, value);
        let descriptor = document.descriptor();
        self.manifests.push(document);
        descriptor
    }

    fn platforms(&mut self, algorithm: Algorithm) -> Vec<Value> {
        ["amd64", "arm64"]
            .map(|architecture| {
                let mut image = self.image(algorithm, |_| {});
                image["platform"] = json!({ "os": "linux", "architecture": architecture });
                image
            })
            .to_vec()
    }
}

/// Every kind.
pub(super) fn kinds() -> Vec<Kind> {
    let sha256 = Algorithm::Sha256;
    let mut kinds = Vec::new();
    let mut kind = |name: &'static str, fill: &dyn Fn(&mut Kind)| {
        let mut kind = Kind::new(name);
        fill(&mut kind);
        kinds.push(kind);
    };
    kind("image", &|kind| drop(kind.image(sha256, |_| {})));
    kind("large-manifest", &|kind| {
        let annotations: Value =
            (0..390).map(|n| (format!("large-{n}"), json!("A".repeat(10_000)))).collect();
        kind.image(sha256, |image| image["annotations"] = annotations);
    });
    kind("index", &|kind| {
        let children = kind.platforms(sha256);
        kind.index(sha256, &children, |_| {});
    });
    kind("nested-index", &|kind| {
        let inner = [(); 2].map(|()| {
            let children = kind.platforms(sha256);
            kind.index(sha256, &children, |_| {})
        });
        kind.index(sha256, &inner, |_| {});
    });
    kind("empty-index", &|kind| drop(kind.index(sha256, &[], |_| {})));
    kind("artifact", &|kind| drop(kind.artifact(|_| {})));
    kind("artifact-index", &|kind| {
        let children = [kind.artifact(|_| {}), kind.artifact(|artifact| artifact["x"] = json!(1))];
        kind.index(sha256, &children, |index| index["artifactType"] = json!("application/vnd.example.1"));
    });
    kind("artifact-without-layers", &|kind| {
        kind.artifact(|artifact| artifact["layers"] = json!([artifact["config"]]));
    });
    kind("artifacts-with-subject", &|kind| {
        let subject = kind.image(sha256, |_| {});
        kind.image(sha256, |image| image["subject"] = subject.clone());
        for artifact_type in ["application/vnd.example.1", "application/vnd.example.2"] {
            kind.artifact(|artifact| {
                artifact["artifactType"] = json!(artifact_type);
                artifact["annotations"] = json!({ "org.example.said": "hello" });
                artifact["subject"] = subject.clone();
            });
        }
    });
    kind("index-with-subject", &|kind| {
        let subject = kind.index(sha256, &[], |_| {});
        let child = kind.artifact(|_| {});
        kind.index(sha256, std::slice::from_ref(&child), |index| {
            index["artifactType"] = json!("application/vnd.example.1");
            index["annotations"] = json!({ "org.example.said": "hello" });
            index["subject"] = subject.clone();
        });
        // Of no type at all.
        kind.index(sha256, &[child], |index| index["subject"] = subject);
    });
    kind("missing-subject", &|kind| {
        let missing = json!({ "mediaType": MANIFEST, "digest": Digest::of(b"missing content"), "size": 123 });
        kind.artifact(|artifact| artifact["subject"] = missing);
    });
    kind("data-field", &|kind| {
        kind.image(sha256, |image| image["config"]["data"] = json!("e30="));
    });
    kind("non-distributable-layers", &|kind| {
        let foreign = |text: &str| {
            let digest = Digest::of(text.as_bytes());
            let url = format!("https://store.example.com/blobs/{digest}");
            json!({ "mediaType": FOREIGN, "digest": digest, "size": 123_456, "urls": [url] })
        };
        kind.image(sha256, |image| image["layers"] = json!([foreign("1"), foreign("2"), image["layers"][0]]));
    });
    kind("custom-fields", &|kind| {
        let child = kind.image(sha256, |image| image["org.example.extra"] = json!({ "a": [1] }));
        kind.index(sha256, &[child], |index| index["org.example.extra"] = json!("b"));
    });
    kind("no-layers", &|kind| drop(kind.image(sha256, |image| image["layers"] = json!([]))));
    kind("sha512", &|kind| {
        let children = kind.platforms(Algorithm::Sha512);
        kind.index(Algorithm::Sha512, &children, |_| {});
    });
    kinds
}
