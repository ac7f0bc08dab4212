//! The images of podman, buildah and CRI-O, straight from disk: one store and those it may lean on.
//!
//! What such a store keeps of an image is its config and its layers, unpacked; each layer is rebuilt and must turn
//! out as the config says. The manifest it was pulled with names encoded layers that are gone for good, so it is
//! of use only where a registry still has them. A list (`podman manifest`) is an image beside those that it names by
//! such manifests.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    graphroot::{Graphroot, ImageRecord, LayerRecord},
    storage_options::StorageOptions,
};
use crate::{
    error::{Error, ErrorKind, Result, printable},
    oci::{
        Content, Digest, ImageConfig, Manifest, Reference, config::CONFIG_LIMIT, manifest::MANIFEST_LIMIT,
    },
    source::{
        Data, Image, ImageContent, Layer, Origin, Source, signatures_stay,
        spec::{Location, SourceSpec, Transport},
    },
};

/// podman's, buildah's and CRI-O's storage.
#[derive(Debug)]
pub struct ContainersStorage {
    name: String,
    stores: Vec<Graphroot>,
    images: Vec<Image>,
}

impl ContainersStorage {
    /// Returns the store that `spec` leads to, if it leads to one.
    pub fn place(spec: &SourceSpec, options: &StorageOptions) -> Option<PathBuf> {
        match (&spec.location, spec.transport) {
            (Location::Path(path), None) => Self::find(path),
            (location @ Location::Storage { .. }, Some(Transport::ContainersStorage)) => {
                options.clone().at(location).graphroot
            }
            _ => None,
        }
    }

    /// Returns the store that a path leads to: the folder itself, or the one that holds it.
    pub fn find(dir: &Path) -> Option<PathBuf> {
        [dir.to_owned(), dir.join("storage")].into_iter().find(|dir| Graphroot::is_at(dir))
    }

    /// Lists the images of this machine.
    pub fn open(options: &StorageOptions) -> Result<Self> {
        let graphroot = options.graphroot.as_deref().ok_or_else(|| {
            Error::usage("nothing says where podman keeps its images")
                .with_hint("name the folder: `containers-storage:[overlay@/var/lib/containers/storage]NAME`")
        })?;
        let name = format!("containers-storage `{}`", graphroot.display());
        let reading = |error: Error| error.while_doing(format!("reading {name}"));
        let mut stores = Vec::new();
        let own = options.image_store.iter().map(PathBuf::as_path).chain([graphroot]);
        for dir in own.chain(options.additional_stores.iter().map(PathBuf::as_path)) {
            let runroot = options.runroot.as_deref().filter(|_| dir == graphroot);
            stores.extend(Graphroot::read(dir, runroot, options.driver.as_deref()).map_err(reading)?);
        }
        if stores.is_empty() {
            return Err(no_images(&name, graphroot));
        }
        let mut storage = Self { name, stores, images: Vec::new() };
        storage.list();
        Ok(storage)
    }

    /// Lists the images of all stores, each once, and under each name the first one that has it, as podman does.
    fn list(&mut self) {
        let (mut places, mut taken) = (HashMap::new(), HashSet::new());
        let mut images: Vec<Image> = Vec::new();
        for store in &self.stores {
            for record in &store.images {
                let at = *places.entry(&record.id).or_insert(images.len());
                if at == images.len() {
                    images.push(self.image(store, record));
                }
                let names = record.names.iter().flatten().filter(|name| taken.insert(*name));
                images[at].names.extend(names.cloned());
            }
        }
        for image in &mut images {
            // Stages of builds, and the images of a list.
            image.companion |= image.names.is_empty();
        }
        self.images = images;
    }

    /// Reads an image, which has no names yet.
    fn image(&self, store: &Graphroot, record: &ImageRecord) -> Image {
        match read_manifest(store, record, "manifest") {
            Ok(Some(list @ Manifest { content: Content::Index { .. }, .. })) => {
                Image::new(Vec::new(), self.index(record, list))
            }
            manifest => self.single(store, record, manifest),
        }
    }

    /// Finds the images of a list by the digests of their manifests.
    fn index(&self, list: &ImageRecord, manifest: Manifest) -> ImageContent {
        let (mut images, mut absent) = (Vec::new(), Vec::new());
        for child in manifest.children() {
            let found = self.stores.iter().find_map(|store| {
                let mut keys = store.images.iter().map(|record| (record, record.manifest_key(&child.digest)));
                keys.find_map(|(record, key)| Some((store, record, key?)))
            });
            let Some((store, record, key)) = found else {
                absent.push(child.clone());
                continue;
            };
            let held = read_manifest(store, record, key).and_then(|held| match held {
                Some(manifest) if manifest.digest == child.digest => Ok(Some(manifest)),
                _ => {
                    Err(Error::source(format!("manifest {} of image {} is damaged", child.digest, record.id)))
                }
            });
            let image = self.single(store, record, held);
            let names = record.names.clone().unwrap_or_default();
            images.push(Image { names, platform: child.platform.clone().or(image.platform), ..image });
        }
        ImageContent::Index { id: list.digest(), manifest, images, absent }
    }

    /// Puts together the one image that a manifest is of.
    fn single(&self, store: &Graphroot, record: &ImageRecord, manifest: Result<Option<Manifest>>) -> Image {
        let broken = |error| ImageContent::Broken { id: record.digest(), error };
        match manifest.and_then(|manifest| Documents::read(store, record, manifest)) {
            Ok(Documents { config, parsed, manifest: original }) => {
                let layers = self.layers(record, &parsed);
                let content =
                    layers.map_or_else(broken, |layers| ImageContent::Layers { config, layers, original });
                Image { platform: parsed.platform, ..Image::new(Vec::new(), content) }
            }
            // Artifacts are nothing that anybody means who does not name them.
            Err(error) => Image { companion: true, ..Image::new(Vec::new(), broken(error)) },
        }
    }

    /// Finds the layers of an image, base first, and compares them with its config.
    fn layers(&self, record: &ImageRecord, config: &ImageConfig) -> Result<Vec<Layer>> {
        let chain = self.chain(record)?;
        config.check_layers(chain.len(), &format!("image {}", record.id))?;
        let layers = chain.into_iter().zip(&config.diff_ids).map(|(layer, diff_id)| {
            // Where podman did not see the plain tar, the layer has no digest of it.
            match layer.diff_digest.as_deref() {
                Some(found) if !found.is_empty() && found != diff_id.to_string() => {
                    Err(Error::source(format!(
                        "diff ID mismatch in layer {}: the image config says {diff_id}, the store {}",
                        layer.id,
                        printable(found)
                    )))
                }
                _ => Ok(Layer { name: layer.id.clone(), descriptor: None, diff_id: Some(diff_id.clone()) }),
            }
        });
        layers.collect()
    }

    /// Follows an image's layers down from its topmost one; returns them base first.
    fn chain(&self, record: &ImageRecord) -> Result<Vec<&LayerRecord>> {
        let mut chain = Vec::new();
        let mut seen = HashSet::new();
        let mut next = record.layer.as_deref();
        while let Some(id) = next.filter(|id| !id.is_empty()) {
            if !seen.insert(id) {
                return Err(Error::source(format!("layer {id} lies upon itself")));
            }
            let (_, layer) = self.find_layer(id)?;
            chain.push(layer);
            next = layer.parent.as_deref();
        }
        chain.reverse();
        Ok(chain)
    }

    /// Finds a layer in any of the stores: an image of one may lie upon layers of another.
    fn find_layer(&self, id: &str) -> Result<(&Graphroot, &LayerRecord)> {
        let mut found = self.stores.iter().filter_map(|store| Some((store, store.layer(id)?)));
        found.next().ok_or_else(|| Error::source(format!("layer {} is in no store", printable(id))))
    }
}

impl Source for ContainersStorage {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn images(&self) -> Result<Vec<Image>> {
        Ok(self.images.clone())
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        let rebuilt = self.find_layer(&layer.name).and_then(|(store, record)| store.rebuild(record));
        let tar = rebuilt.map_err(|error| error.while_doing(format!("reading {}", self.name)))?;
        Ok(Data::Stream(Box::new(tar)))
    }

    /// A layer says what it was when it was pulled, and the pulled images that have it say where from.
    fn origins(&self, blob: &Layer) -> Vec<Origin> {
        let pulled = self.find_layer(&blob.name).ok().and_then(|(_, record)| record.pulled());
        let has_it = |image: &&Image| match &image.content {
            ImageContent::Layers { layers, original: Some(_), .. } => layers.contains(blob),
            _ => false,
        };
        let names = self.images.iter().filter(has_it).flat_map(|image| &image.names);
        let repositories = names.filter_map(|name| Some(name.parse::<Reference>().ok()?.repository));
        pulled.map(|digest| Origin { digest, repositories: repositories.collect() }).into_iter().collect()
    }

    fn plain_size(&self, layer: &Layer) -> Option<u64> {
        self.find_layer(&layer.name).ok()?.1.plain_size()
    }

    fn notes(&self, image: &Image) -> Vec<String> {
        let ImageContent::Layers { config, .. } = &image.content else { return Vec::new() };
        let id = Digest::of(config);
        let record = self.stores.iter().flat_map(|store| &store.images).find(|record| record.id == id.hex());
        let count = record.map_or(0, ImageRecord::signatures);
        signatures_stay(&format!("image {id} in {}", self.name), count).into_iter().collect()
    }
}

/// What a store keeps of an image besides its layers.
struct Documents {
    config: Bytes,
    parsed: ImageConfig,
    manifest: Option<Manifest>,
}

impl Documents {
    fn read(store: &Graphroot, record: &ImageRecord, manifest: Option<Manifest>) -> Result<Self> {
        let id = &record.id;
        let digest = match manifest.as_ref().map(|manifest| &manifest.content) {
            Some(Content::Image { config: Some(config), .. }) => config.digest.clone(),
            Some(Content::Image { config: None, .. }) => {
                return Err(Error::source(format!("{id} is an artifact without a config")));
            }
            Some(Content::Index { .. }) => {
                return Err(Error::source(format!("{id} is a list of images within another")));
            }
            None => format!("sha256:{id}").parse()?,
        };
        let config = store.image_data(record, &digest.to_string(), CONFIG_LIMIT)?;
        let config = Bytes::from(
            config.ok_or_else(|| Error::source(format!("the config of image {id} is missing: {digest}")))?,
        );
        if Digest::of(&config) != digest {
            return Err(Error::source(format!(
                "digest mismatch in the config of image {id}: expected {digest}"
            )));
        }
        let parsed = ImageConfig::parse(&config, id)?;
        Ok(Self { config, parsed, manifest })
    }
}

/// Says that there is no storage where the configuration has it.
fn no_images(name: &str, graphroot: &Path) -> Error {
    let kind = if graphroot.exists() { ErrorKind::Source } else { ErrorKind::Usage };
    let words = format!("{name} holds no images: neither `overlay-images` nor `vfs-images` is in it");
    // Where podman's database (`db.sql`, once `bolt_state.db`) names another folder than its configuration,
    // podman follows the database. For one row of SQLite nothing is read here: podman can be asked.
    Error::new(kind, words).with_hint(
        "podman says where it has them by `podman info --format '{{.Store.GraphRoot}}'`; name that \
         folder: `containers-storage:[FOLDER]NAME`",
    )
}

/// Reads one of the manifests that a store keeps for an image; nothing, if it is of a kind that is of no use.
fn read_manifest(store: &Graphroot, record: &ImageRecord, key: &str) -> Result<Option<Manifest>> {
    Ok(store.image_data(record, key, MANIFEST_LIMIT)?.and_then(|bytes| {
        let digest = Digest::of(&bytes);
        // Docker's schema 1 is of no use to anybody, and the config is there all the same.
        Manifest::parse(bytes.into(), digest, None).ok()
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{
        error::{ErrorKind, chain},
        source::{
            Choice, choose,
            stores::tar_split::hello::{TAR, packed, read},
        },
    };

    /// A store in the making. Every layer is the same.
    struct Store {
        dir: PathBuf,
        driver: &'static str,
    }

    impl Store {
        fn new(dir: &Path, driver: &'static str) -> Self {
            let store = Self { dir: dir.to_owned(), driver };
            store.write("layers/layers.json", b"[]");
            store.write("images/images.json", b"null");
            store
        }

        fn write(&self, path: &str, bytes: &[u8]) {
            let path = self.dir.join(format!("{}-{path}", self.driver));
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, bytes).unwrap();
        }

        fn layers(&self, records: &str) {
            self.write("layers/layers.json", records.as_bytes());
        }

        fn layer(&self, id: &str) {
            let diff = match self.driver {
                "vfs" => format!("vfs/dir/{id}"),
                driver => format!("{driver}/{id}/diff"),
            };
            fs_err::create_dir_all(self.dir.join(&diff)).unwrap();
            fs_err::write(self.dir.join(diff).join("hello"), "hello").unwrap();
            self.write(&format!("layers/{id}.tar-split.gz"), &packed());
        }

        /// Adds images, each with a name, its topmost layer and the number of its layers; returns their IDs.
        fn images(&self, images: &[(&str, &str, usize)]) -> Vec<String> {
            let mut records = Vec::new();
            let mut ids = Vec::new();
            for (name, layer, count) in images {
                let diff_ids = vec![Digest::of(TAR).to_string(); *count];
                let config = format!(r#"{{"author":"{name}","rootfs":{{"diff_ids":{diff_ids:?}}}}}"#);
                let digest = Digest::of(config.as_bytes());
                let id = digest.hex();
                self.write(&format!("images/{id}/{}", key(&digest.to_string())), config.as_bytes());
                records.push(format!(r#"{{"id":"{id}","names":["{name}"],"layer":"{layer}"}}"#));
                ids.push(id.to_owned());
            }
            self.write("images/images.json", format!("[{}]", records.join(",")).as_bytes());
            ids
        }
    }

    fn key(name: &str) -> String {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        format!("={}", STANDARD.encode(name))
    }

    fn at(dir: &Path) -> StorageOptions {
        StorageOptions { graphroot: Some(dir.to_owned()), ..StorageOptions::default() }
    }

    fn named(name: &str) -> Choice {
        Choice::Name(name.into())
    }

    #[test]
    fn every_driver_keeps_its_layers_somewhere() {
        for driver in ["overlay", "vfs"] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::new(dir.path(), driver);
            store.layers(r#"[{"id":"a1"},{"id":"b2","parent":"a1"}]"#);
            store.layer("a1");
            store.layer("b2");
            let ids = store.images(&[("localhost/x:1", "b2", 2)]);
            for options in [at(dir.path()), StorageOptions { driver: Some(driver.into()), ..at(dir.path()) }]
            {
                let storage = ContainersStorage::open(&options).unwrap();
                for choice in [Choice::Only, named("localhost/x:1"), named(&ids[0]), named(&ids[0][..6])] {
                    assert_eq!(read(&storage, &choice).unwrap(), [TAR, TAR], "{driver} {choice:?}");
                }
            }
        }
    }

    #[test]
    fn an_image_may_lie_upon_layers_of_other_stores() {
        let dir = tempfile::tempdir().unwrap();
        let [own, shared, apart] = ["own", "shared", "apart"].map(|name| dir.path().join(name));
        let base = Store::new(&shared, "vfs");
        base.layers(r#"[{"id":"a1"}]"#);
        base.layer("a1");
        base.images(&[("localhost/base:1", "a1", 1)]);
        let top = Store::new(&own, "overlay");
        top.layers(r#"[{"id":"b2","parent":"a1"}]"#);
        top.layer("b2");
        top.images(&[("localhost/top:1", "b2", 2)]);
        let none = dir.path().join("none");
        let text = format!(
            "containers-storage:[overlay@{}:overlay.imagestore={},overlay.imagestore={}]x",
            own.display(),
            shared.display(),
            none.display()
        );
        let typed = text.parse::<SourceSpec>().unwrap().location;
        for options in [
            StorageOptions { additional_stores: vec![shared, none], ..at(&own) },
            StorageOptions::default().at(&typed),
        ] {
            let storage = ContainersStorage::open(&options).unwrap();
            assert_eq!(read(&storage, &named("localhost/base:1")).unwrap(), [TAR]);
            assert_eq!(read(&storage, &named("localhost/top:1")).unwrap(), [TAR, TAR]);
        }
        let images = Store::new(&apart, "overlay");
        images.layers(r#"[{"id":"c3"}]"#);
        images.layer("c3");
        images.images(&[("localhost/apart:1", "c3", 1)]);
        let options = StorageOptions { image_store: Some(apart), ..at(&own) };
        let storage = ContainersStorage::open(&options).unwrap();
        assert_eq!(read(&storage, &named("localhost/apart:1")).unwrap(), [TAR]);
        let none = ContainersStorage::open(&at(dir.path())).unwrap_err();
        assert!(none.message().contains("holds no images"), "{none:?}");
        assert!(none.hints()[0].contains("podman info"), "{none:?}");
    }

    #[test]
    fn a_name_means_the_image_of_the_first_store_that_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let [own, shared] = ["own", "shared"].map(|name| {
            let store = Store::new(&dir.path().join(name), "overlay");
            store.layers(r#"[{"id":"a1"}]"#);
            store.layer("a1");
            store
        });
        let rename = |store: &Store, from: &str, to: &str| {
            let records = store.dir.join("overlay-images/images.json");
            let text = fs_err::read_to_string(&records).unwrap();
            fs_err::write(&records, text.replace(&format!(r#"["{from}"]"#), to)).unwrap();
        };
        let ids = own.images(&[("localhost/new:1", "a1", 1), ("localhost/same:1", "a1", 1)]);
        rename(&own, "localhost/new:1", r#"["localhost/x:1"]"#);
        shared.images(&[("localhost/old:1", "a1", 1), ("localhost/same:1", "a1", 1)]);
        rename(&shared, "localhost/old:1", r#"["localhost/x:1"]"#);
        rename(&shared, "localhost/same:1", r#"["localhost/alias:1"]"#);
        let options = StorageOptions { additional_stores: vec![shared.dir], ..at(&own.dir) };
        let storage = ContainersStorage::open(&options).unwrap();
        for (name, id) in [("x", &ids[0]), ("same", &ids[1]), ("alias", &ids[1])] {
            let image = choose(&storage, &named(&format!("localhost/{name}:1")), None).unwrap();
            let ImageContent::Layers { config, .. } = image.content else { panic!("a manifest") };
            assert_eq!(Digest::of(&config).hex(), id, "{name}");
        }
    }

    #[test]
    fn a_damaged_image_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "overlay");
        store.layers(
            r#"[{"id":"a1"},{"id":"b2","parent":"c3"},{"id":"c3","parent":"b2"},
                {"id":"d4","diff-digest":"sha256:none"},{"id":"e5","flags":{"incomplete":true}},
                {"id":"f6","toc-digest":"sha256:x","flags":{"expected-layer-diffid":"sha256:y"}}]"#,
        );
        store.layer("a1");
        store.images(&[
            ("localhost/good:1", "a1", 1),
            ("localhost/loop:1", "b2", 2),
            ("localhost/diff:1", "d4", 1),
            ("localhost/incomplete:1", "e5", 1),
            ("localhost/chunked:1", "f6", 1),
            ("localhost/gone:1", "77", 1),
            ("localhost/count:1", "a1", 2),
        ]);
        let storage = ContainersStorage::open(&at(dir.path())).unwrap();
        assert_eq!(read(&storage, &named("localhost/good:1")).unwrap(), [TAR]);
        for (name, words) in [
            ("loop", "lies upon itself"),
            ("diff", "diff ID mismatch"),
            ("incomplete", "incomplete"),
            ("chunked", "cannot be reproduced"),
            ("gone", "in no store"),
            ("count", "1 layer and 2 diff IDs"),
        ] {
            let error = read(&storage, &named(&format!("localhost/{name}:1"))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source);
            assert!(chain(&error).contains(words), "{name}: {error:?}");
        }
    }

    #[test]
    fn a_list_is_of_the_images_that_have_its_manifests() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "overlay");
        store.layers(r#"[{"id":"a1"}]"#);
        store.layer("a1");
        let ids = store.images(&[
            ("localhost/list:1", "", 0),
            ("localhost/amd:1", "a1", 1),
            ("localhost/arm:1", "a1", 1),
        ]);
        let mut named = vec![String::new()];
        let manifests = [&ids[1], &ids[2], "nowhere"].map(|id| {
            let manifest = format!(r#"{{"config":{{"digest":"sha256:{id}","size":1}},"layers":[]}}"#);
            let digest = Digest::of(manifest.as_bytes());
            let name = format!("manifest-{digest}");
            store.write(&format!("images/{id}/{}", key(&name)), manifest.as_bytes());
            // The one that it is known by otherwise is another.
            store.write(&format!("images/{id}/manifest"), manifest.replace('1', "2").as_bytes());
            named.push(name);
            let platform = format!(r#""platform":{{"os":"linux","architecture":"{}"}}"#, named.len());
            format!(r#"{{"digest":"{digest}","size":{},{platform}}}"#, manifest.len())
        });
        let list = format!(r#"{{"manifests":[{}]}}"#, manifests.join(","));
        store.write(&format!("images/{}/manifest", ids[0]), list.as_bytes());
        let records = store.dir.join("overlay-images/images.json");
        let mut lines = fs_err::read_to_string(&records).unwrap();
        for (id, name) in ids.iter().zip(&named).skip(1) {
            let keys = format!(r#""id":"{id}","big-data-names":["manifest","{name}"]"#);
            lines = lines.replace(&format!(r#""id":"{id}""#), &keys);
        }
        fs_err::write(&records, lines.replace(r#"["localhost/arm:1"]"#, "null")).unwrap();
        let storage = ContainersStorage::open(&at(dir.path())).unwrap();
        let image = choose(&storage, &self::named("localhost/list:1"), None).unwrap();
        assert!(!image.companion && image.digest().is_none());
        let ImageContent::Index { manifest, images, absent, .. } = &image.content else {
            panic!("{image:?}")
        };
        assert_eq!(manifest.bytes, list);
        for asked in
            [self::named(&ids[0][..12]), Choice::Digest(image.id()), Choice::Digest(image.identity())]
        {
            assert_eq!(choose(&storage, &asked, None).unwrap().names, image.names);
        }
        let [missing] = &absent[..] else { panic!("{absent:?}") };
        assert_eq!(format!("manifest-{}", missing.digest), named[3]);
        for (at, image) in images.iter().enumerate() {
            let ImageContent::Layers { original: Some(original), layers, .. } = &image.content else {
                panic!()
            };
            assert_eq!(original.digest, manifest.children()[at].digest);
            assert_eq!(image.platform.as_ref().unwrap().to_string(), format!("linux/{}", at + 2));
            storage.open(&layers[0]).unwrap();
        }
        assert_eq!(image.part_for(&"linux/3".parse().unwrap(), "it").unwrap().identity().hex(), ids[2]);
        assert!(image.part_for(&"linux/4".parse().unwrap(), "it").is_err());
        let all = choose::all(&storage, None).unwrap();
        let names: Vec<_> = all.iter().flat_map(|image| &image.names).collect();
        assert_eq!(names, ["localhost/list:1", "localhost/amd:1"]);
        // An index would name what nobody makes.
        store.write(&format!("images/{}/manifest", ids[1]), b"{}");
        for damage in [&b"{}"[..], br#"{"config":null,"layers":[]}"#] {
            store.write(&format!("images/{}/{}", ids[1], key(&named[1])), damage);
            let storage = ContainersStorage::open(&at(dir.path())).unwrap();
            let image = choose(&storage, &self::named("localhost/list:1"), None).unwrap();
            let [amd, arm] = image.parts() else { panic!("{image:?}") };
            let ImageContent::Layers { layers, .. } = &arm.content else { panic!("{arm:?}") };
            storage.open(&layers[0]).unwrap();
            let ImageContent::Broken { error, .. } = &amd.content else { panic!("{amd:?}") };
            assert!(chain(error).contains(&format!("of image {} is damaged", ids[1])), "{error:?}");
            assert_eq!(read(&storage, &self::named("localhost/amd:1")).unwrap(), [TAR]);
        }
    }

    #[test]
    fn artifacts_and_wrong_configs_are_not_pushed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "overlay");
        store.layers(r#"[{"id":"a1"}]"#);
        store.layer("a1");
        let ids = store.images(&[
            ("localhost/good:1", "a1", 1),
            ("localhost/artifact:1", "", 0),
            ("localhost/bad:1", "a1", 1),
        ]);
        let artifact = br#"{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[]}"#;
        store.write(&format!("images/{}/manifest", ids[1]), artifact);
        let config = format!("images/{}/{}", ids[2], key(&format!("sha256:{}", ids[2])));
        store.write(&config, b"{}");
        let storage = ContainersStorage::open(&at(dir.path())).unwrap();
        assert_eq!(read(&storage, &Choice::Only).unwrap(), [TAR]);
        for (name, words) in [("artifact", "without a config"), ("bad", "digest mismatch")] {
            let error = read(&storage, &named(&format!("localhost/{name}:1"))).unwrap_err();
            assert!(chain(&error).contains(words), "{name}: {error:?}");
        }
    }

    #[test]
    fn the_manifest_of_an_image_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "overlay");
        store.layers(r#"[{"id":"a1"}]"#);
        store.layer("a1");
        let ids = store.images(&[("localhost/x:1", "a1", 1)]);
        let original = |layer: &Digest| {
            let manifest = format!(
                r#"{{"config":{{"digest":"sha256:{}","size":1}},"layers":[{{"digest":"{layer}","size":7}}]}}"#,
                ids[0]
            );
            store.write(&format!("images/{}/manifest", ids[0]), manifest.as_bytes());
            let storage = ContainersStorage::open(&at(dir.path())).unwrap();
            let [image] = &storage.images[..] else { panic!("{:?}", storage.images) };
            let digest = Digest::of(manifest.as_bytes());
            let ImageContent::Layers { original, .. } = &image.content else { panic!("a manifest") };
            assert_eq!(original.as_ref().unwrap().digest, digest);
            assert!(choose(&storage, &Choice::Digest(digest), None).is_ok());
        };
        original(&Digest::of(b"encoded"));
        // Written by whoever made the image.
        original(&Digest::of(TAR));
    }

    #[test]
    fn ids_are_no_paths() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "overlay");
        for id in ["../a1", "", "a/b", "."] {
            store.layers(&format!(r#"[{{"id":"{id}"}}]"#));
            let error = ContainersStorage::open(&at(dir.path())).unwrap_err();
            assert!(chain(&error).contains("not an ID"), "{error:?}");
        }
    }

    #[test]
    fn what_may_not_be_read_says_who_may() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "overlay");
        store.layers("[]");
        let records = dir.path().join("overlay-layers/layers.json");
        fs_err::set_permissions(&records, std::fs::Permissions::from_mode(0o0)).unwrap();
        let opened = ContainersStorage::open(&at(dir.path()));
        if rustix::process::geteuid().is_root() {
            opened.unwrap();
        } else {
            let error = opened.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Local);
            assert!(error.hints().concat().contains("podman unshare"), "{error:?}");
        }
    }
}
