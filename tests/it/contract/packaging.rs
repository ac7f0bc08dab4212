//! One image, `localhost/sample:1` of the samples, in every packaging that can be read. What no sample holds is
//! packed here, by other tools where there are some.

use std::{
    cell::Cell,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use longshore::oci::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    capability::is_unavailable, docker_registry::DockerRegistry, longshore::Longshore, podman::Podman,
    program, samples, skopeo, tool,
};

/// The image's name, where a packaging holds names.
const NAME: &str = "localhost/sample:1";

/// With the manifest of podman and buildah, whose layers are gzipped.
const KEPT: Arrives = Arrives::Kept("oci/skopeo");

/// What skopeo and podman write of a docker archive.
const BY_DOCKERS_NAMES: Arrives = Arrives::Rewritten("skopeo");

/// One way to hold the image.
pub(super) struct Packaging {
    pub(super) name: String,
    pub(super) arrives: Arrives,
    pub(super) pack: Box<Pack>,
}

/// Packs the image.
type Pack = dyn Fn(&Bench<'_>) -> Packed;

/// How the image arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Arrives {
    /// With another config: the packaging holds none, and it is put together as nix2container does it
    /// (`tests/places.rs` shows that).
    Described,
    /// With a manifest made around layers that were encoded on the way: the same one from every packaging.
    Encoded,
    /// With the manifest that the image has in this sample, byte for byte.
    Kept(&'static str),
    /// With the manifest that this tool wrote into the packaging, around layers that were encoded on the way: the same
    /// one from every packaging that it wrote.
    Rewritten(&'static str),
    /// With a manifest made around layers that came encoded.
    Verbatim,
}

/// SOURCE as it is typed, with its options.
pub(super) struct Packed {
    pub(super) arguments: Vec<String>,
    /// What is piped into standard input.
    pub(super) piped: Option<PathBuf>,
}

/// Where packing is done.
pub(super) struct Bench<'a> {
    registry: &'a DockerRegistry,
    dir: TempDir,
    folders: Cell<usize>,
}

/// Returns all packagings that this machine can make.
pub(super) fn all() -> Vec<Packaging> {
    let mut all = vec![
        Packaging::new("OCI layout", KEPT, |bench| Packed::at(&bench.layout())),
        Packaging::new("OCI layout, zstd", Arrives::Kept("oci/skopeo-zstd"), |bench| {
            Packed::at(&bench.unpacked("oci/skopeo-zstd"))
        }),
        Packaging::new("OCI layout, zstd:chunked", Arrives::Kept("oci/skopeo-zstd-chunked"), |bench| {
            Packed::at(&bench.unpacked("oci/skopeo-zstd-chunked"))
        }),
        Packaging::new("OCI layout with its blobs elsewhere", KEPT, blobs_elsewhere),
        Packaging::new("OCI archive", KEPT, |_| Packed::at(&oci_archive())),
        Packaging::new("OCI archive in a pipe", KEPT, |_| Packed::piped(oci_archive())),
        Packaging::new("docker archive", Arrives::Encoded, |_| Packed::at(&docker_archive())),
        Packaging::new("docker archive in a pipe", Arrives::Encoded, |_| Packed::piped(docker_archive())),
        Packaging::new("docker archive, gzip, in a pipe", Arrives::Encoded, |bench| {
            Packed::piped(bench.compressed(&docker_archive(), gzip))
        }),
        Packaging::new("docker archive, unpacked", Arrives::Encoded, |bench| {
            Packed::at(&bench.docker_folder())
        }),
        Packaging::new("docker archive of gzipped layers", Arrives::Verbatim, |_| {
            Packed::at(&samples::folder().join("docker-archive/crane-pull.tar"))
        }),
        Packaging::new("docker archive of Docker 28", Arrives::Encoded, |_| {
            Packed::named(&samples::folder().join("docker-archive/docker28-save-multi.tar"), NAME)
        }),
        Packaging::new("docker archive and OCI archive at once", KEPT, hybrid),
        Packaging::new("archive of imgpkg", KEPT, |bench| Packed::at(&imgpkg(bench))),
        Packaging::new("archive of imgpkg in a pipe", KEPT, |bench| Packed::piped(imgpkg(bench))),
        Packaging::new("output of a command", Arrives::Encoded, command),
        Packaging::new("dir", KEPT, |bench| {
            bench.dir_folder(&format!("oci:{}:{NAME}", bench.layout().display()))
        }),
        Packaging::new("dir of plain layers", BY_DOCKERS_NAMES, |bench| {
            bench.dir_folder(&format!("docker-archive:{}", docker_archive().display()))
        }),
        Packaging::new("podman's storage, overlay", Arrives::Rewritten("buildah"), |bench| {
            let store = bench.unpacked("stores/containers-storage-overlay.tar.gz");
            Packed::text(format!("containers-storage:[overlay@{}]{NAME}", store.display()))
        }),
        Packaging::new("podman's storage, overlay, pulled", Arrives::Rewritten("buildah"), |bench| {
            Packed::at(&bench.unpacked("stores/containers-storage-pulled-gz.tar.gz"))
        }),
        Packaging::new("Docker's storage, overlay2", Arrives::Encoded, |bench| {
            let root = bench.unpacked("stores/docker28-overlay2-root.tar.gz");
            Packed::text(format!("docker-storage:[{}]{NAME}", root.display()))
        }),
        Packaging::new("containerd's storage", Arrives::Kept("stores/containerd21-root.tar.gz"), |bench| {
            let root = bench.unpacked("stores/containerd21-root.tar.gz");
            Packed::text(format!("containerd:[{}]{NAME}", root.display()))
        }),
        Packaging::new("storage of zot and of the embedded registry", KEPT, |bench| {
            let dir = bench.folder();
            push(&["app/demo:1", "--into", &shown(&dir)]);
            Packed::named(&dir, "app/demo:1")
        }),
        Packaging::new("storage of a registry", KEPT, |bench| {
            push(&[&format!("{}/app/demo:1", bench.registry.host())]);
            Packed::named(bench.registry.store(), "app/demo:1")
        }),
        Packaging::new("description by nix2container", Arrives::Described, nix2container),
    ];
    for (name, compress) in COMPRESSIONS {
        all.push(Packaging::new(&format!("OCI archive, {name}"), KEPT, move |bench| {
            Packed::at(&bench.compressed(&oci_archive(), compress))
        }));
        all.push(Packaging::new(&format!("docker archive, {name}"), Arrives::Encoded, move |bench| {
            Packed::at(&bench.compressed(&docker_archive(), compress))
        }));
    }
    if !is_unavailable("podman") && !is_unavailable("root") {
        all.extend([
            Packaging::new("podman's storage, vfs", BY_DOCKERS_NAMES, |bench| {
                Packed::named(&loaded(bench).store(), NAME)
            }),
            // Its blobs are still in the registry that it came from.
            Packaging::new("podman's storage, vfs, pulled from there", KEPT, pulled),
            Packaging::new("Docker's storage, vfs", Arrives::Encoded, docker_vfs),
        ]);
    }
    all
}

type Compress = fn(&[u8]) -> io::Result<Vec<u8>>;

const COMPRESSIONS: [(&str, Compress); 4] = [
    ("bzip2", |plain| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(plain)?;
        encoder.finish()
    }),
    ("gzip", gzip),
    ("xz", |plain| liblzma::encode_all(plain, 1)),
    ("zstd", |plain| zstd::encode_all(plain, 1)),
];

fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

impl Packaging {
    fn new(name: &str, arrives: Arrives, pack: impl Fn(&Bench<'_>) -> Packed + 'static) -> Self {
        Self { name: name.to_owned(), arrives, pack: Box::new(pack) }
    }
}

impl Packed {
    fn at(path: &Path) -> Self {
        Self::text(shown(path))
    }

    /// One of several images.
    fn named(path: &Path, name: &str) -> Self {
        Self::text(format!("{}:{name}", path.display()))
    }

    fn piped(file: PathBuf) -> Self {
        Self { piped: Some(file), ..Self::text("-".to_owned()) }
    }

    fn text(source: String) -> Self {
        Self { arguments: vec![source], piped: None }
    }

    fn option(mut self, option: &str) -> Self {
        self.arguments.push(option.to_owned());
        self
    }
}

impl<'a> Bench<'a> {
    pub(super) fn new(registry: &'a DockerRegistry) -> Self {
        Self { registry, dir: tempfile::tempdir().unwrap(), folders: Cell::new(0) }
    }

    /// Returns a new folder.
    fn folder(&self) -> PathBuf {
        self.folders.set(self.folders.get() + 1);
        let folder = self.dir.path().join(self.folders.get().to_string());
        fs_err::create_dir(&folder).unwrap();
        folder
    }

    fn unpacked(&self, sample: &str) -> PathBuf {
        samples::unpacked(sample, &self.folder()).unwrap()
    }

    fn layout(&self) -> PathBuf {
        self.unpacked("oci/skopeo")
    }

    fn docker_folder(&self) -> PathBuf {
        let folder = self.folder();
        tool::output(Command::new("tar").arg("-xf").arg(docker_archive()).arg("-C").arg(&folder)).unwrap();
        folder
    }

    /// Has skopeo write a `dir:` folder.
    fn dir_folder(&self, source: &str) -> Packed {
        let to = format!("dir:{}", self.folder().display());
        skopeo::repackage(source, &to).unwrap();
        Packed::text(to)
    }

    fn compressed(&self, file: &Path, compress: Compress) -> PathBuf {
        let to = self.folder().join("image");
        fs_err::write(&to, compress(&fs_err::read(file).unwrap()).unwrap()).unwrap();
        to
    }
}

fn oci_archive() -> PathBuf {
    samples::folder().join("oci-archive/podman-save.tar")
}

fn docker_archive() -> PathBuf {
    samples::folder().join("docker-archive/podman-save.tar")
}

/// Pushes the image with its own manifest.
fn push(destination: &[&str]) {
    let source = shown(&oci_archive());
    let run = Longshore::new().run([&["push", &source], destination].concat());
    run.pushed().unwrap();
}

fn blobs_elsewhere(bench: &Bench<'_>) -> Packed {
    let (layout, blobs) = (bench.layout(), bench.folder().join("blobs"));
    fs_err::rename(layout.join("blobs"), &blobs).unwrap();
    Packed::at(&layout).option("--blob-dir").option(&shown(&blobs))
}

/// Writes both lists of images, as `ctr images export` does.
fn hybrid(bench: &Bench<'_>) -> Packed {
    let layout = bench.layout();
    let blob = |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
    let index = json_of(&layout.join("index.json"));
    let manifest = json_of(&layout.join(blob(&index["manifests"][0]["digest"])));
    let layers = manifest["layers"].as_array().unwrap().iter();
    let layers: Vec<_> = layers.map(|layer| blob(&layer["digest"])).collect();
    let saved =
        json!([{ "Config": blob(&manifest["config"]["digest"]), "RepoTags": [NAME], "Layers": layers }]);
    fs_err::write(layout.join("manifest.json"), saved.to_string()).unwrap();
    let to = bench.folder().join("image.tar");
    tool::output(Command::new("tar").arg("-cf").arg(&to).arg("-C").arg(&layout).arg(".")).unwrap();
    Packed::at(&to)
}

/// Writes documents into the list and layers beside it, as `imgpkg copy --to-tar` does.
fn imgpkg(bench: &Bench<'_>) -> PathBuf {
    let (layout, folder) = (bench.layout(), bench.folder());
    let blob = |digest: &Value| layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let text =
        |digest: &Value| json!({ "Digest": digest, "Raw": fs_err::read_to_string(blob(digest)).unwrap() });
    let root = &json_of(&layout.join("index.json"))["manifests"][0];
    let manifest = json_of(&blob(&root["digest"]));
    let mut described = text(&root["digest"]);
    described["MediaType"] = root["mediaType"].clone();
    for layer in manifest["layers"].as_array().unwrap() {
        let name = format!("{}.tar.gz", layer["digest"].as_str().unwrap().replace(':', "-"));
        fs_err::copy(blob(&layer["digest"]), folder.join(name)).unwrap();
    }
    let refs = [format!("registry.example.com/team/app@{}", root["digest"].as_str().unwrap())];
    let image = json!({
        "Refs": refs, "Config": text(&manifest["config"]["digest"]), "Manifest": described,
        "Tag": "1", "OrigRef": refs[0], "Labels": null,
    });
    let list = json!([{ "ImageIndex": null, "Image": image }]);
    fs_err::write(folder.join("manifest.json"), list.to_string()).unwrap();
    let to = bench.folder().join("imgpkg.tar");
    tool::output(Command::new("tar").arg("-cf").arg(&to).arg("-C").arg(&folder).arg(".")).unwrap();
    to
}

fn command(bench: &Bench<'_>) -> Packed {
    let stream = bench.folder().join("stream");
    program::install(&stream, &format!("exec cat '{}'", docker_archive().display()));
    Packed::at(&stream).option("--from-command")
}

fn nix2container(bench: &Bench<'_>) -> Packed {
    let folder = bench.docker_folder();
    let saved = json_of(&folder.join("manifest.json"));
    let layer = |name: &Value| {
        let path = folder.join(name.as_str().unwrap());
        let bytes = fs_err::read(&path).unwrap();
        let digest = Digest::of(&bytes);
        json!({
            "digest": digest, "diff_ids": digest, "size": bytes.len(), "layer-path": path,
            "mediatype": "application/vnd.oci.image.layer.v1.tar", "History": {},
        })
    };
    let layers: Vec<_> = saved[0]["Layers"].as_array().unwrap().iter().map(layer).collect();
    let description = json!({
        "version": 1, "arch": "amd64", "created": null, "image-config": {}, "layers": layers,
    });
    let file = folder.join("image.json");
    fs_err::write(&file, description.to_string()).unwrap();
    Packed::at(&file)
}

fn loaded(bench: &Bench<'_>) -> Podman {
    let podman = Podman::at(bench.folder());
    podman.load(&docker_archive()).unwrap();
    podman
}

fn pulled(bench: &Bench<'_>) -> Packed {
    let reference = format!("{}/app/pulled:1", bench.registry.host());
    push(&[&reference]);
    let podman = Podman::at(bench.folder());
    podman.pull(&reference).unwrap();
    Packed::named(&podman.store(), &reference)
}

/// Gives Docker's storage the driver `vfs`, which keeps for each layer the same whole tree as podman's does.
fn docker_vfs(bench: &Bench<'_>) -> Packed {
    let root = bench.unpacked("stores/docker28-overlay2-root.tar.gz");
    let layers = root.join("image/vfs/layerdb/sha256");
    fs_err::rename(root.join("image/overlay2"), root.join("image/vfs")).unwrap();
    fs_err::remove_dir_all(root.join("overlay2")).unwrap();
    fs_err::create_dir_all(root.join("vfs/dir")).unwrap();
    let podman = loaded(bench).store();
    let (mut beneath, mut chain) = (Value::Null, None::<Digest>);
    for layer in json_of(&podman.join("vfs-layers/layers.json")).as_array().unwrap() {
        assert_eq!(layer["parent"], beneath, "podman lists the layers of its only image in order");
        let diff_id = layer["diff-digest"].as_str().unwrap();
        let id = match &chain {
            None => diff_id.parse().unwrap(),
            Some(beneath) => Digest::of(format!("{beneath} {diff_id}").as_bytes()),
        };
        let docker = fs_err::read_to_string(layers.join(id.hex()).join("cache-id")).unwrap();
        let tree = podman.join("vfs/dir").join(layer["id"].as_str().unwrap());
        fs_err::rename(tree, root.join("vfs/dir").join(docker)).unwrap();
        (beneath, chain) = (layer["id"].clone(), Some(id));
    }
    Packed::named(&root, NAME)
}

fn json_of(file: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(file).unwrap()).unwrap()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
