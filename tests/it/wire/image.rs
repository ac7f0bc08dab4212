//! Builds images on disk: OCI layouts whose layers are any bytes at all, and docker archives of plain tars.
//!
//! Bytes come from a seed, look like compressed ones and cannot be compressed; the same image is the same files.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use longshore::oci::{Algorithm, Digest, Hasher};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Returns `size` bytes that nobody can compress.
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    // xorshift64*
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// An OCI layout in a folder.
pub(crate) struct Layout {
    dir: TempDir,
    /// What the root is: its media type, digest and bytes.
    pub(crate) root: Document,
    /// The children of the root, where it is an index.
    pub(crate) children: Vec<Document>,
    /// The layers' digests, each once, in order, and then the configs'.
    pub(crate) blobs: Vec<Digest>,
}

/// A manifest or index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) media_type: &'static str,
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

impl Document {
    fn new(media_type: &'static str, value: &Value) -> Self {
        let bytes = value.to_string().into_bytes();
        Self { media_type, digest: Digest::of(&bytes), bytes }
    }

    pub(crate) fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

impl Layout {
    /// One image with layers of these sizes.
    pub(crate) fn of(sizes: &[usize]) -> Self {
        let layers: Vec<_> = (1..).zip(sizes).map(|(seed, size)| noise(seed, *size)).collect();
        Self::of_layers(&layers)
    }

    /// One image with these layers.
    pub(crate) fn of_layers(layers: &[Vec<u8>]) -> Self {
        Self::of_images(&[layers], None)
    }

    /// An index of images, one for each list of layers.
    pub(crate) fn index(images: &[&[Vec<u8>]]) -> Self {
        Self::of_images(images, Some(json!({ "schemaVersion": 2, "mediaType": INDEX })))
    }

    /// One image that says it belongs to another.
    pub(crate) fn referrer(layer: &[u8], subject: &Document) -> Self {
        Self::of_layers(&[layer.to_vec()]).altered(|manifest| manifest["subject"] = subject.descriptor())
    }

    /// One that is no image itself, and so for no platform.
    pub(crate) fn artifact(layer: &[u8], subject: &Document) -> Self {
        let mut layout = Self::referrer(layer, subject);
        let empty = layout.put(b"{}");
        let config = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2 });
        layout.blobs.push(empty);
        layout.altered(|manifest| manifest["config"] = config.clone())
    }

    /// Lists these manifests, each under its name, and no others.
    pub(crate) fn list(&self, entries: &[(&Value, Option<&str>)]) {
        let entries: Vec<_> = entries
            .iter()
            .map(|(descriptor, name)| {
                let mut entry = (*descriptor).clone();
                if let Some(name) = name {
                    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
                }
                entry
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        fs_err::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    /// Takes in an index of these documents.
    pub(crate) fn put_index(&self, children: &[&Document]) -> Document {
        let children: Vec<_> = children.iter().map(|child| child.descriptor()).collect();
        let index =
            Document::new(INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children }));
        self.put(&index.bytes);
        index
    }

    /// Takes in what another layout holds, and lists nothing of it.
    pub(crate) fn adopt(&self, other: &Self) {
        for blob in other.blobs.iter().chain([&other.root.digest]) {
            fs_err::copy(other.blob(blob), self.blob(blob)).unwrap();
        }
    }

    /// An index of an image and of what refers to it, which is listed first.
    pub(crate) fn index_with_referrer() -> Self {
        let mut layout = Self::index(&[&[noise(1, 1000)], &[noise(2, 500)]]);
        let mut referrer: Value = serde_json::from_slice(&layout.children[1].bytes).unwrap();
        referrer["subject"] = layout.children[0].descriptor();
        let referrer = Document::new(MANIFEST, &referrer);
        layout.put(&referrer.bytes);
        layout.children = vec![referrer, layout.children[0].clone()];
        let children: Vec<_> = layout.children.iter().map(Document::descriptor).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
        layout.root = Document::new(INDEX, &index);
        layout.put(&layout.root.bytes);
        layout.name_root();
        layout
    }

    /// One image whose manifest has so many bytes more.
    pub(crate) fn with_long_manifest(bytes: usize) -> Self {
        let long = json!({ "org.example.long": "x".repeat(bytes) });
        Self::of(&[1000]).altered(|manifest| manifest["annotations"] = long.clone())
    }

    /// One image whose manifest does not say what it is, as the specification allows.
    pub(crate) fn without_media_type() -> Self {
        Self::of(&[1000]).altered(|manifest| drop(manifest.as_object_mut().unwrap().remove("mediaType")))
    }

    /// The same, but for what is done to its manifest.
    pub(crate) fn altered(mut self, alter: impl Fn(&mut Value)) -> Self {
        let mut manifest: Value = serde_json::from_slice(&self.root.bytes).unwrap();
        alter(&mut manifest);
        self.root = Document::new(self.root.media_type, &manifest);
        self.put(&self.root.bytes);
        self.name_root();
        self
    }

    /// The same, but its root is known by SHA-512.
    pub(crate) fn by_sha512(mut self) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(&self.root.bytes);
        self.root.digest = hasher.finish();
        let folder = self.path().join("blobs/sha512");
        fs_err::create_dir(&folder).unwrap();
        fs_err::write(folder.join(self.root.digest.hex()), &self.root.bytes).unwrap();
        self.name_root();
        self
    }

    fn of_images(images: &[&[Vec<u8>]], index: Option<Value>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs_err::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let placeholder = Document::new(MANIFEST, &Value::Null);
        let mut layout = Self { dir, root: placeholder, children: Vec::new(), blobs: Vec::new() };
        for (number, layers) in images.iter().enumerate() {
            let image = layout.add_image(number, layers);
            layout.children.push(image);
        }
        let mut configs_last = layout.blobs.clone();
        configs_last.sort_by_key(|digest| fs_err::read(layout.blob(digest)).unwrap().starts_with(b"{"));
        layout.blobs = configs_last;
        layout.root = match index {
            Some(mut index) => {
                index["manifests"] = layout.children.iter().map(Document::descriptor).collect();
                Document::new(INDEX, &index)
            }
            None => layout.children.remove(0),
        };
        layout.put(&layout.root.bytes);
        layout.name_root();
        layout
    }

    fn add_image(&mut self, number: usize, layers: &[Vec<u8>]) -> Document {
        let descriptors: Vec<_> = layers
            .iter()
            .map(|layer| {
                json!({ "mediaType": media_type(layer), "digest": self.keep(layer), "size": layer.len() })
            })
            .collect();
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(&plain(layer))).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "author": format!("image {number}"),
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": self.keep(&config), "size": config.len() },
            "layers": descriptors,
        });
        let document = Document::new(MANIFEST, &manifest);
        self.put(&document.bytes);
        document
    }

    fn keep(&mut self, bytes: &[u8]) -> Digest {
        let digest = self.put(bytes);
        if !self.blobs.contains(&digest) {
            self.blobs.push(digest.clone());
        }
        digest
    }

    fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        fs_err::write(self.blob(&digest), bytes).unwrap();
        digest
    }

    fn name_root(&self) {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [self.root.descriptor()] });
        fs_err::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns where a blob lies.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.path().join("blobs/sha256").join(digest.hex())
    }

    /// Returns a blob's bytes.
    pub(crate) fn read(&self, digest: &Digest) -> Vec<u8> {
        fs_err::read(self.blob(digest)).unwrap()
    }
}

/// A docker archive, plain, in a folder of its own.
pub(crate) struct Archive {
    dir: TempDir,
    /// The layers as they lie in the archive.
    pub(crate) layers: Vec<Vec<u8>>,
}

impl Archive {
    /// An image with one plain layer for each size: a tar with one file of noise.
    pub(crate) fn of(sizes: &[usize]) -> Self {
        let layers = (1..).zip(sizes).map(|(seed, size)| layer(&noise(seed, *size)));
        Self::of_layers(layers.collect(), |_| {})
    }

    /// An image with these layers, which are changed behind the config's back.
    pub(crate) fn of_layers(layers: Vec<Vec<u8>>, spoil: impl Fn(&mut Vec<u8>)) -> Self {
        let names = (0..layers.len()).map(|number| format!("{number}/layer.tar"));
        Self::make(&names.collect::<Vec<_>>(), layers, amd64(), spoil)
    }

    /// An image with these layers, whose config says that it is for this platform.
    pub(crate) fn on(platform: Value, layers: Vec<Vec<u8>>) -> Self {
        let names = (0..layers.len()).map(|number| format!("{number}/layer.tar"));
        Self::make(&names.collect::<Vec<_>>(), layers, platform, |_| {})
    }

    /// An image with layers of these names.
    pub(crate) fn named(layers: Vec<(String, Vec<u8>)>) -> Self {
        let (names, layers): (Vec<_>, _) = layers.into_iter().unzip();
        Self::make(&names, layers, amd64(), |_| {})
    }

    fn make(
        names: &[String],
        mut layers: Vec<Vec<u8>>,
        platform: Value,
        spoil: impl Fn(&mut Vec<u8>),
    ) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(&plain(layer))).collect();
        let mut config = platform;
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        let manifest = json!([{ "Config": "config.json", "RepoTags": ["demo:1"], "Layers": names }]);
        let dir = tempfile::tempdir().unwrap();
        let mut archive = tar::Builder::new(fs_err::File::create(dir.path().join("image.tar")).unwrap());
        for (name, layer) in names.iter().zip(&mut layers) {
            spoil(layer);
            archive.append_data(&mut header(layer.len()), name, layer.as_slice()).unwrap();
        }
        for (name, document) in [("config.json", &config), ("manifest.json", &manifest)] {
            let text = document.to_string();
            archive.append_data(&mut header(text.len()), name, text.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap().flush().unwrap();
        Self { dir, layers }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("image.tar")
    }

    /// Returns the same archive as a `.tar.gz` beside it.
    pub(crate) fn compressed(&self) -> PathBuf {
        let path = self.dir.path().join("image.tar.gz");
        fs_err::write(&path, gzip(&fs_err::read(self.path()).unwrap())).unwrap();
        path
    }
}

fn amd64() -> Value {
    json!({ "architecture": "amd64", "os": "linux" })
}

/// Returns a tar with one file.
pub(crate) fn layer(content: &[u8]) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    layer.append_data(&mut header(content.len()), "file", content).unwrap();
    layer.into_inner().unwrap()
}

/// Returns bytes as one gzip member.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = libdeflater::Compressor::new(libdeflater::CompressionLvl::fastest());
    let mut encoded = vec![0; encoder.gzip_compress_bound(bytes.len())];
    let size = encoder.gzip_compress(bytes, &mut encoded).unwrap();
    encoded.truncate(size);
    encoded
}

/// Returns what gzip, zstd, xz or bzip2 hold, or the bytes themselves.
pub(crate) fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut decoder: Box<dyn std::io::Read> = match bytes {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(bytes).unwrap()),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Box::new(liblzma::read::XzDecoder::new(bytes)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::read::MultiBzDecoder::new(bytes)),
        _ => Box::new(bytes),
    };
    decoder.read_to_end(&mut plain).unwrap();
    plain
}

/// Returns how a layer is called in an OCI manifest. Noise passes for gzip.
fn media_type(layer: &[u8]) -> &'static str {
    match layer {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "application/vnd.oci.image.layer.v1.tar+zstd",
        plain if plain.get(257..262) == Some(b"ustar") => "application/vnd.oci.image.layer.v1.tar",
        _ => LAYER,
    }
}

fn header(size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_cksum();
    header
}
