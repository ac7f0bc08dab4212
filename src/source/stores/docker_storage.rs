//! The images in Docker's own storage, straight from disk: what Docker keeps wherever containerd does not keep
//! its images for it (docker_root.rs).
//!
//! Docker holds only configs and unpacked layers there; the manifest that an image was pulled with, which names
//! encoded layers that are gone, lies elsewhere if at all. A layer is known by its chain ID, which
//! stands for itself and all beneath it. Docker has no locks; it writes beside a file and renames, so what is read
//! is whole.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::Deserialize;

use super::{containerd::Containerd, open, payload::Payloads, read, tar_split::TarSplit};
use crate::{
    blob::Blob,
    error::{Error, Result, printable},
    oci::{Content, Descriptor, DiffId, Digest, ImageConfig, Manifest, Reference, config::CONFIG_LIMIT},
    source::{Data, Image, ImageContent, Layer, Origin, Source, blobs::Blobs},
};

/// Docker's storage.
#[derive(Debug)]
pub struct DockerStorage {
    name: String,
    root: PathBuf,
    driver: String,
    /// Where manifests may be.
    documents: Vec<Blobs>,
    images: Vec<Image>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Repositories {
    /// By repository, then by name; each with an image ID.
    repositories: BTreeMap<String, BTreeMap<String, Digest>>,
}

/// What Docker notes of a layer when it has pulled or pushed it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Exchanged {
    digest: Digest,
    source_repository: String,
}

impl DockerStorage {
    /// Returns Docker's root that a path leads to: the folder itself, or the one of the remapped user in it.
    pub fn find(dir: &Path) -> Option<PathBuf> {
        let remapped = || {
            let mut found = fs_err::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
            found.find(|dir| is_remapped(dir) && driver(dir).is_some())
        };
        if driver(dir).is_some() { Some(dir.to_owned()) } else { remapped() }
    }

    /// Lists the images in a root that was [found](Self::find). Docker may have kept the manifests that they were
    /// pulled with in one of `containerds`.
    pub fn open(root: PathBuf, containerds: &[PathBuf]) -> Result<Self> {
        let name = format!("Docker's storage `{}`", root.display());
        let driver = driver(&root).ok_or_else(|| Error::source(format!("{name} holds no images")))?;
        let documents = containerds.iter().map(|dir| Containerd::blobs(dir)).collect();
        let mut storage = Self { name, root, driver, documents, images: Vec::new() };
        storage.list().map_err(|error| error.while_doing(format!("reading {}", storage.name)))?;
        Ok(storage)
    }

    /// Returns whether there are any images.
    pub(super) const fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Lists what has a name, and after it what has none, such as the stages of a classic build.
    fn list(&mut self) -> Result<()> {
        let mut names: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        if let Some(json) = self.read("repositories.json", REPOSITORIES_LIMIT)? {
            let list: Repositories = serde_json::from_slice(&json)
                .map_err(|error| Error::source("`repositories.json` is not valid").because(error))?;
            for (name, id) in list.repositories.into_values().flatten() {
                names.entry(id).or_default().push(name);
            }
        }
        for id in self.configs() {
            names.entry(id).or_default();
        }
        self.images = names.into_iter().map(|(id, names)| self.image(&id, names)).collect();
        self.images.sort_by_key(|image| image.companion);
        Ok(())
    }

    /// Returns the IDs of all images.
    fn configs(&self) -> Vec<Digest> {
        let Ok(entries) = fs_err::read_dir(self.place("imagedb/content/sha256")) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|hex| format!("sha256:{hex}").parse().ok()).collect()
    }

    fn image(&self, id: &Digest, names: Vec<String>) -> Image {
        let read = self.config(id).and_then(|config| {
            let ImageConfig { diff_ids, platform } = ImageConfig::parse(&config, id.hex())?;
            let (layers, original) = (self.layers(&diff_ids)?, self.original(id, &names));
            Ok((ImageContent::Layers { config, layers, original }, platform))
        });
        let broken = |error| (ImageContent::Broken { id: id.clone(), error }, None);
        let (content, platform) = read.unwrap_or_else(broken);
        Image { companion: names.is_empty(), names, platform, content }
    }

    /// Finds the manifest that an image was pulled with. Docker calls the image by the digest of that, or of the
    /// index it is in (`repository@digest`), and keeps both where containerd keeps blobs since 20.10.
    fn original(&self, id: &Digest, names: &[String]) -> Option<Manifest> {
        let digests = names.iter().filter_map(|name| name.rsplit_once('@')?.1.parse().ok());
        digests.filter_map(|digest| self.manifest(&digest)).find_map(|manifest| match &manifest.content {
            Content::Image { .. } => Some(manifest).filter(|manifest| is_of(manifest, id)),
            Content::Index { manifests } => manifests
                .iter()
                .filter_map(|child| self.manifest(&child.digest))
                .find(|manifest| is_of(manifest, id)),
        })
    }

    fn manifest(&self, digest: &Digest) -> Option<Manifest> {
        self.documents.iter().find_map(|blobs| {
            let bytes = blobs.document(&blobs.describe(digest).ok()?).ok()?;
            Manifest::parse(bytes, digest.clone(), None).ok()
        })
    }

    fn config(&self, id: &Digest) -> Result<Bytes> {
        let config = self.read(&format!("imagedb/content/sha256/{}", id.hex()), CONFIG_LIMIT)?;
        let config = config.ok_or_else(|| Error::source(format!("the config of image {id} is missing")))?;
        match Digest::of(&config) {
            found if found == *id => Ok(config.into()),
            found => Err(Error::source(format!(
                "digest mismatch in the config of image {id}: expected {id}, found {found}"
            ))),
        }
    }

    /// Finds the layers of an image, base first.
    fn layers(&self, diff_ids: &[DiffId]) -> Result<Vec<Layer>> {
        let mut layers = Vec::new();
        let mut chain: Option<Digest> = None;
        for diff_id in diff_ids {
            let id = match &chain {
                None => diff_id.0.clone(),
                Some(beneath) => Digest::of(format!("{beneath} {diff_id}").as_bytes()),
            };
            let found = self.fact(&id, "diff")?;
            if found != diff_id.to_string() {
                return Err(Error::source(format!(
                    "diff ID mismatch in layer {id}: the image config says {diff_id}, Docker {}",
                    printable(&found)
                )));
            }
            // A base of Windows says where it can be had, and must not be pushed.
            let foreign = self.read(&format!("{}/descriptor.json", folder_of(&id)), FACT_LIMIT)?;
            let foreign: Option<Descriptor> = foreign.and_then(|json| serde_json::from_slice(&json).ok());
            layers.push(Layer {
                name: id.to_string(),
                descriptor: foreign.filter(|descriptor| !descriptor.urls.is_empty()),
                diff_id: Some(diff_id.clone()),
            });
            chain = Some(id);
        }
        Ok(layers)
    }

    /// Opens what Docker keeps of a layer's tar beside the files.
    fn packed(&self, chain: &Digest) -> Result<Blob> {
        let packed = self.place(&folder_of(chain)).join("tar-split.json.gz");
        open(&packed, &self.root)?.ok_or_else(|| {
            Error::source(format!("layer {chain} cannot be reproduced: `{}` is missing", packed.display()))
        })
    }

    /// Rebuilds a layer's tar.
    fn rebuild(&self, chain: &Digest) -> Result<TarSplit> {
        let packed = self.packed(chain)?;
        let cache_id = self.fact(chain, "cache-id")?;
        if cache_id.is_empty() || !cache_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(Error::source(format!("not an ID: `{}`", printable(&cache_id))));
        }
        let payloads = match self.driver.as_str() {
            driver @ ("fuse-overlayfs" | "overlay2") => {
                Payloads::open(&self.root.join(driver), &format!("{cache_id}/diff"))
            }
            "vfs" => Payloads::open(&self.root.join("vfs/dir"), &cache_id),
            "btrfs" => Payloads::open(&self.root.join("btrfs/subvolumes"), &cache_id),
            driver => {
                Err(Error::source(format!("layers of the driver `{}` cannot be read", printable(driver)))
                    .with_hint("write an archive first: `docker save -o image.tar NAME`"))
            }
        };
        Ok(TarSplit::open(&packed, payloads?))
    }

    /// Reads what Docker notes of a layer in a file.
    fn fact(&self, chain: &Digest, name: &str) -> Result<String> {
        let text = self.read(&format!("{}/{name}", folder_of(chain)), FACT_LIMIT)?;
        let text = text.ok_or_else(|| Error::source(format!("layer {chain} is missing")))?;
        String::from_utf8(text)
            .map(|text| text.trim().to_owned())
            .map_err(|error| Error::source(format!("`{name}` of layer {chain} is not valid")).because(error))
    }

    /// Returns what Docker has noted of a layer's encoded forms, the newest first.
    fn exchanged(&self, DiffId(diff_id): &DiffId) -> Vec<Exchanged> {
        let folder = format!("distribution/v2metadata-by-diffid/{}", diff_id.algorithm().name());
        let json = self.read(&format!("{folder}/{}", diff_id.hex()), FACT_LIMIT).ok().flatten();
        let noted: Option<Vec<Exchanged>> = json.and_then(|json| serde_json::from_slice(&json).ok());
        noted.unwrap_or_default().into_iter().rev().collect()
    }

    fn read(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        read(&self.place(file), limit, &self.root)
    }

    /// Returns where Docker's records of images and layers are.
    fn place(&self, file: &str) -> PathBuf {
        self.root.join("image").join(&self.driver).join(file)
    }
}

impl Source for DockerStorage {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn images(&self) -> Result<Vec<Image>> {
        Ok(self.images.clone())
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        let tar = layer
            .name
            .parse()
            .and_then(|chain| self.rebuild(&chain))
            .map_err(|error| error.while_doing(format!("reading {}", self.name)))?;
        Ok(Data::Stream(Box::new(tar)))
    }

    fn origins(&self, blob: &Layer) -> Vec<Origin> {
        let mut origins: Vec<Origin> = Vec::new();
        for Exchanged { digest, source_repository } in
            blob.diff_id.iter().flat_map(|diff_id| self.exchanged(diff_id))
        {
            let Ok(Reference { repository, .. }) = source_repository.parse() else { continue };
            match origins.iter_mut().find(|origin| origin.digest == digest) {
                Some(origin) => origin.repositories.push(repository),
                None => origins.push(Origin { digest, repositories: vec![repository] }),
            }
        }
        origins
    }

    /// The file `size` that Docker keeps would not do: it counts the files' bytes and no headers.
    fn plain_size(&self, layer: &Layer) -> Option<u64> {
        let packed = self.packed(&layer.name.parse().ok()?).ok()?;
        TarSplit::size(&packed).ok()
    }
}

/// Returns whether a manifest is that of the image with this config.
fn is_of(manifest: &Manifest, id: &Digest) -> bool {
    manifest.config().is_some_and(|config| config.digest == *id)
}

/// Returns the storage driver whose images a root holds, if it is one.
fn driver(root: &Path) -> Option<String> {
    let has_images = |driver: &str| root.join("image").join(driver).join("repositories.json").exists();
    let usual = ["overlay2", "fuse-overlayfs", "vfs", "btrfs"].map(str::to_owned).into_iter();
    let others = || {
        let entries = fs_err::read_dir(root.join("image")).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.into_iter().find(|name| has_images(name))
    };
    usual.into_iter().find(|driver| has_images(driver)).or_else(others)
}

/// Returns whether a folder is called as Docker calls the storage of a remapped user: `100000.100000`.
fn is_remapped(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.is_some_and(|(user, group)| is_number(user) && is_number(group))
}

fn folder_of(chain: &Digest) -> String {
    format!("layerdb/sha256/{}", chain.hex())
}

/// Ten thousand names have 2 MiB.
const REPOSITORIES_LIMIT: u64 = 64 << 20;

/// A digest, an ID, a descriptor; a hundred digests with their repositories, which is all that Docker keeps.
const FACT_LIMIT: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::chain,
        source::{
            Choice, choose,
            stores::tar_split::hello::{TAR, packed, read},
        },
    };

    fn write(root: &Path, path: &str, bytes: &[u8]) {
        let path = root.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    }

    /// Adds an image of two layers that are the same tar; returns its ID.
    fn image(root: &Path, driver: &str, author: &str) -> Digest {
        let diff_id = Digest::of(TAR);
        let above = Digest::of(format!("{diff_id} {diff_id}").as_bytes());
        let packed = packed();
        for (at, chain) in [&diff_id, &above].into_iter().enumerate() {
            let layer = format!("image/{driver}/layerdb/sha256/{}", chain.hex());
            write(root, &format!("{layer}/diff"), diff_id.to_string().as_bytes());
            write(root, &format!("{layer}/cache-id"), format!("cache-{at}").as_bytes());
            write(root, &format!("{layer}/tar-split.json.gz"), &packed);
            let folder = if driver == "vfs" {
                format!("vfs/dir/cache-{at}")
            } else {
                format!("{driver}/cache-{at}/diff")
            };
            write(root, &format!("{folder}/hello"), b"hello");
        }
        let config = format!(r#"{{"author":"{author}","rootfs":{{"diff_ids":["{diff_id}","{diff_id}"]}}}}"#);
        let id = Digest::of(config.as_bytes());
        write(root, &format!("image/{driver}/imagedb/content/sha256/{}", id.hex()), config.as_bytes());
        id
    }

    fn named(root: &Path, driver: &str, names: &[(&str, &Digest)]) {
        let names: Vec<_> = names.iter().map(|(name, id)| format!(r#""{name}":"{id}""#)).collect();
        let list = format!(r#"{{"Repositories":{{"all":{{{}}}}}}}"#, names.join(","));
        write(root, &format!("image/{driver}/repositories.json"), list.as_bytes());
    }

    fn opened(root: &Path) -> Result<DockerStorage> {
        DockerStorage::open(DockerStorage::find(root).unwrap(), &[root.join("containerd")])
    }

    #[test]
    fn images_are_found_by_name_and_by_id() {
        for (driver, folder) in [("overlay2", ""), ("vfs", ""), ("overlay2", "100000.100000")] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join(folder);
            let id = image(&root, driver, "named");
            let stage = image(&root, driver, "stage");
            named(&root, driver, &[("tiny:latest", &id), ("localhost/a:1", &id)]);
            let storage = opened(dir.path()).unwrap();
            let by_name = |name: &str| Choice::Name(name.into());
            for choice in
                [Choice::Only, by_name("tiny"), by_name("localhost/a:1"), Choice::Digest(stage.clone())]
            {
                assert_eq!(read(&storage, &choice).unwrap(), [TAR, TAR], "{driver} {choice:?}");
            }
            let image = choose(&storage, &by_name(stage.short()), None).unwrap();
            assert!(image.companion);
        }
    }

    #[test]
    fn a_damaged_image_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (root, driver) = (dir.path(), "overlay2");
        let id = image(root, driver, "good");
        let gone = Digest::of(b"gone");
        named(root, driver, &[("good:1", &id), ("gone:1", &gone)]);
        let read = |name: &str| read(&opened(root).unwrap(), &Choice::Name(name.into()));
        assert!(chain(&read("gone:1").unwrap_err()).contains("missing"));
        assert_eq!(read("good:1").unwrap(), [TAR, TAR]);
        let layer = format!("image/overlay2/layerdb/sha256/{}", Digest::of(TAR).hex());
        for (file, bytes, words) in [
            ("cache-id", "../../etc", "not an ID"),
            ("cache-id", "none", "is missing"),
            ("diff", "sha256:x", "diff ID mismatch"),
        ] {
            let path = root.join(&layer).join(file);
            let before = fs_err::read(&path).unwrap();
            fs_err::write(&path, bytes).unwrap();
            let error = read("good:1").unwrap_err();
            assert!(chain(&error).contains(words), "{file}: {error:?}");
            fs_err::write(&path, before).unwrap();
        }
        fs_err::remove_file(root.join(&layer).join("tar-split.json.gz")).unwrap();
        assert!(chain(&read("good:1").unwrap_err()).contains("cannot be reproduced"));
        write(root, &format!("image/overlay2/imagedb/content/sha256/{}", id.hex()), b"{}");
        assert!(chain(&read("good:1").unwrap_err()).contains("digest mismatch"));
    }

    #[test]
    fn what_docker_notes_of_pulls_and_pushes_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (root, diff_id) = (dir.path(), Digest::of(TAR));
        named(root, "overlay2", &[("a:1", &image(root, "overlay2", "a"))]);
        let storage = opened(root).unwrap();
        let [image] = &storage.images[..] else { panic!("{:?}", storage.images) };
        let ImageContent::Layers { layers, .. } = &image.content else { panic!("a manifest") };
        let noted = format!("image/overlay2/distribution/v2metadata-by-diffid/sha256/{}", diff_id.hex());
        let [old, new] = [b"old", b"new"].map(|bytes| Digest::of(bytes));
        let note = |digest: &Digest, repository: &str| {
            format!(r#"{{"Digest":"{digest}","SourceRepository":"{repository}","HMAC":""}}"#)
        };
        let notes = [
            note(&old, "docker.io/library/a"),
            note(&old, "not a repository"),
            note(&new, "127.0.0.1:5000/a"),
            note(&old, "127.0.0.1:5000/team/a"),
        ];
        assert!(storage.origins(&layers[0]).is_empty());
        write(root, &noted, format!("[{}]", notes.join(",")).as_bytes());
        let found: Vec<_> = storage
            .origins(&layers[1])
            .into_iter()
            .map(|Origin { digest, repositories }| {
                (digest, repositories.iter().map(ToString::to_string).collect::<Vec<_>>())
            })
            .collect();
        let of_old = ["127.0.0.1:5000/team/a".to_owned(), "docker.io/library/a".to_owned()];
        assert_eq!(found, [(old, of_old.into()), (new, vec!["127.0.0.1:5000/a".to_owned()])]);
        for damage in ["", "{}", "null", "[{}]"] {
            write(root, &noted, damage.as_bytes());
            assert!(storage.origins(&layers[0]).is_empty(), "{damage}");
        }
    }

    #[test]
    fn the_manifest_that_an_image_was_pulled_with_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (root, driver) = (dir.path(), "overlay2");
        let [id, other] = ["a", "b"].map(|author| image(root, driver, author));
        let put = |text: &str| {
            let digest = Digest::of(text.as_bytes());
            write(root, &format!("containerd/blobs/sha256/{}", digest.hex()), text.as_bytes());
            format!(r#"{{"digest":"{digest}","size":{}}}"#, text.len())
        };
        let manifest = |config: &Digest| {
            let config = format!(r#"{{"digest":"{config}","size":1}}"#);
            let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{config},{config}]}}"#);
            (Digest::of(text.as_bytes()), put(&text))
        };
        let ((own, own_entry), (others, others_entry)) = (manifest(&id), manifest(&other));
        let gone = format!(r#"{{"digest":"{}","size":1}}"#, Digest::of(b"gone"));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{gone},{others_entry},{own_entry}]}}"#);
        put(&index);
        for (named_by, found) in [
            (&own, Some(&own)),
            (&Digest::of(index.as_bytes()), Some(&own)),
            (&others, None),
            (&Digest::of(b"gone"), None),
        ] {
            named(root, driver, &[("r.example.com/a:1", &id), (&format!("r.example.com/a@{named_by}"), &id)]);
            let storage = opened(root).unwrap();
            let image = choose(&storage, &Choice::Digest(named_by.clone()), None).unwrap();
            let ImageContent::Layers { original, .. } = &image.content else { panic!("a manifest") };
            assert_eq!(original.as_ref().map(|original| &original.digest), found);
        }
    }

    #[test]
    fn the_size_of_a_layer_is_that_of_its_tar() {
        let dir = tempfile::tempdir().unwrap();
        let id = image(dir.path(), "overlay2", "a");
        named(dir.path(), "overlay2", &[("a:1", &id)]);
        let storage = opened(dir.path()).unwrap();
        let layer = |name: &Digest| Layer { name: name.to_string(), descriptor: None, diff_id: None };
        assert_eq!(storage.plain_size(&layer(&Digest::of(TAR))), Some(TAR.len() as u64));
        assert_eq!(storage.plain_size(&layer(&Digest::of(b"none"))), None);
    }

    #[test]
    fn a_base_of_windows_is_not_rebuilt() {
        let dir = tempfile::tempdir().unwrap();
        let (root, digest) = (dir.path(), Digest::of(TAR));
        let id = image(root, "overlay2", "windows");
        named(root, "overlay2", &[("windows:1", &id)]);
        let foreign = format!(r#"{{"digest":"{digest}","size":7,"urls":["https://example.com"]}}"#);
        write(
            root,
            &format!("image/overlay2/layerdb/sha256/{}/descriptor.json", digest.hex()),
            foreign.as_bytes(),
        );
        let [image] = opened(root).unwrap().images.try_into().unwrap();
        let ImageContent::Layers { layers, .. } = image.content else { panic!("a manifest") };
        assert_eq!(layers[0].descriptor.as_ref().unwrap().urls, ["https://example.com"]);
        assert!(layers[1].descriptor.is_none());
    }
}
