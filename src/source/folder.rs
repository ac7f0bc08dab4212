//! A folder of places that hold images: OCI layouts, one a repository, as zot and the embedded registry keep them, `dir:`
//! folders, one an image, as `skopeo sync` writes them, and archives.
//!
//! An image of a layout is called `repository:tag`, that of a `dir:` folder as the folder is, and one that its archive
//! gives no more than a tag is called after the archive's file. Blobs are found by digest in whichever place has them:
//! registries share them by hard links. Archives are read in place; those that are compressed are left out, with a
//! warning.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use walkdir::WalkDir;

use super::{
    Image, Source,
    archive::is_tar,
    formats::{
        docker_archive::MANIFEST,
        docker_dir::{self, DockerDir},
        oci_layout::OciLayout,
    },
    names::is_full,
    no_image,
    sources::Sources,
    tarball::{self, HEAD},
};
use crate::{
    blob::Blob,
    codec::Compression,
    error::{Error, Result},
    layout::{
        BLOBS, INDEX, OCI_LAYOUT,
        parts::{LIST_LIMIT, Parts},
    },
};

/// So many folders and files are looked at: enough for a registry, and quick for whoever names his home by mistake.
const LIMIT: usize = 20_000;
/// Repository names rarely have more than three parts.
const DEPTH_LIMIT: usize = 8;

/// Where the embedded registry keeps what its repositories share, and what is on its way in.
const REGISTRYS: [&str; 2] = ["_blobs", "_uploads"];

/// Finds the layouts, `dir:` folders and archives below `dir`; none if there are none.
pub fn open(dir: &Path) -> Result<Option<Sources>> {
    let mut sources = Sources::default();
    for path in folders(dir) {
        let Some(name) = path.strip_prefix(dir).ok().and_then(Path::to_str) else { continue };
        if is_layout(&path) {
            add(&mut sources, Box::new(OciLayout::folder(&path, None)?), name, |image| named(name, image))?;
        } else if DockerDir::is_at(&path) {
            let has_tag = name.rsplit('/').next().is_some_and(|name| name.contains([':', '@']));
            let names = vec![if has_tag { name.to_owned() } else { format!("{name}:latest") }];
            add(&mut sources, Box::new(DockerDir::open(&path)?), name, |image| Image {
                names: names.clone(),
                ..image
            })?;
        }
    }
    let archives = Archives::find(dir)?;
    for archive in &archives.plain {
        add_archive(&mut sources, dir, archive)?;
    }
    let compressed: Vec<_> = archives.compressed.iter().map(|path| format!("`{}`", path.display())).collect();
    let compressed = compressed.join(", ");
    let hint = "push them one by one, or unpack them";
    if sources.is_empty() {
        if compressed.is_empty() {
            return Ok(None);
        }
        let words = format!("`{}` holds only compressed archives: {compressed}", dir.display());
        return Err(Error::source(words).with_hint(hint));
    }
    sources.names.push(format!("folder `{}`", dir.display()));
    if !compressed.is_empty() {
        sources.warnings.push(format!("compressed archives are left out: {compressed}; {hint}"));
    }
    Ok(Some(sources))
}

/// Takes in a source, whose layers lie `within`, and whose images are called as `named` says.
fn add(
    to: &mut Sources,
    source: Box<dyn Source>,
    within: &str,
    named: impl Fn(Image) -> Image,
) -> Result<()> {
    let source: Arc<dyn Source> = Arc::from(source);
    to.hold(&source);
    to.warnings.extend(source.warnings());
    for image in source.images()? {
        let mut image = named(image);
        to.adopt(&source, within, &mut image);
        to.list(image);
    }
    Ok(())
}

fn add_archive(to: &mut Sources, dir: &Path, archive: &Blob) -> Result<()> {
    let path = archive.path();
    let name = format!("`{}`", path.display());
    let Some(index) = tarball::indexed(archive, &name)? else { return Ok(()) };
    if !index.contains(INDEX) && !index.contains(MANIFEST) {
        let why = no_image::archive(&index);
        to.warnings.push(format!("{name} is left out: {}", why.message()));
        return Ok(());
    }
    let below = path.strip_prefix(dir).unwrap_or(&path);
    let (file, stem) = (below.to_str().unwrap_or_default(), below.with_extension(""));
    let stem = stem.to_str().unwrap_or_default();
    add(to, tarball::from_index(index, &name, None)?, file, |mut image| {
        // Where there are full names, containerd and Docker write the tags once more.
        if image.names.iter().any(|name| is_full(name)) {
            image.names.retain(|name| is_full(name));
        }
        named(stem, image)
    })
}

/// The archives below a folder, in the order of their names.
#[derive(Default)]
struct Archives {
    plain: Vec<Blob>,
    compressed: Vec<PathBuf>,
}

impl Archives {
    fn find(dir: &Path) -> Result<Self> {
        let mut archives = Self::default();
        let mut parts = HashSet::new();
        // What an image consists of is no image.
        let is_ours = |entry: &walkdir::DirEntry| {
            let part_of = [OCI_LAYOUT, docker_dir::VERSION].map(|mark| entry.path().join(mark));
            let is_registrys = entry.depth() == 1 && REGISTRYS.iter().any(|name| entry.file_name() == *name);
            !is_hidden(entry) && !is_registrys && !part_of.iter().any(|mark| mark.is_file())
        };
        let files = WalkDir::new(dir).min_depth(1).max_depth(DEPTH_LIMIT).sort_by_file_name().into_iter();
        let files = files.filter_entry(is_ours).filter_map(Result::ok).take(LIMIT);
        for entry in files.filter(|entry| entry.path().is_file()) {
            let path = entry.into_path();
            let blob = Blob::open(&path)?;
            let head = blob.head(HEAD)?;
            if Parts::begins(&head) {
                let name = format!("`{}`", path.display());
                let list = Parts::parse(&blob.read_all(LIST_LIMIT, &name)?);
                let list = list.map_err(|error| error.while_doing(format!("reading {name}")))?;
                parts.extend(list.parts.into_iter().map(|part| path.with_file_name(part.name)));
                archives.plain.push(blob);
            } else if is_tar(&head) {
                archives.plain.push(blob);
            } else if Compression::detect(&head) != Compression::None
                && tarball::pass(Box::new(blob.reader()), "it").is_ok()
            {
                archives.compressed.push(path);
            }
        }
        archives.plain.retain(|archive| !parts.contains(&archive.path()));
        archives.compressed.retain(|path| !parts.contains(path));
        Ok(archives)
    }
}

/// Returns whether somebody is still at it, as those are who write a layout or an archive beside its place.
fn is_hidden(entry: &walkdir::DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// Finds what may be layouts and `dir:` folders below a folder, in the order of their names.
fn folders(dir: &Path) -> impl Iterator<Item = PathBuf> {
    // What cannot be read is no repository.
    let folders = WalkDir::new(dir).min_depth(1).max_depth(DEPTH_LIMIT).sort_by_file_name().into_iter();
    folders
        .filter_entry(|entry| entry.file_type().is_dir() && entry.file_name() != BLOBS && !is_hidden(entry))
        .filter_map(Result::ok)
        .take(LIMIT)
        .map(walkdir::DirEntry::into_path)
}

fn is_layout(path: &Path) -> bool {
    path.join(OCI_LAYOUT).is_file() && path.join(INDEX).is_file() && path.join(BLOBS).is_dir()
}

/// Puts the repository before an image's tags; full names stay.
fn named(repository: &str, mut image: Image) -> Image {
    for name in image.names.iter_mut().filter(|name| !is_full(name)) {
        *name = format!("{repository}:{name}");
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::{ErrorKind, chain},
        oci::Digest,
        source::ImageContent,
    };

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// A docker archive of one layer, which all of them call alike.
    fn saved(name: &str, layer: &[u8]) -> Vec<u8> {
        let diff_id = Digest::of(layer);
        let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
        let list = format!(r#"[{{"Config":"c.json","RepoTags":["{name}"],"Layers":["l/layer.tar"]}}]"#);
        tar(&[(MANIFEST, list.as_bytes()), ("c.json", config.as_bytes()), ("l/layer.tar", layer)])
    }

    fn names(sources: &Sources) -> Vec<String> {
        sources.images().unwrap().iter().map(|image| image.names.join(" ")).collect()
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn archives_lie_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, bytes).unwrap();
        };
        assert!(open(dir.path()).unwrap().is_none());
        let (one, two) = (tar(&[("one", b"1")]), tar(&[("two", b"2")]));
        write("a.tar", &saved("r.example/a:1", &one));
        write("b.tar", &saved("r.example/b:1", &two));
        write("sub/deep/e.tar", &saved("r.example/e:1", &two));
        // What images consist of is no image: of a layout, and of skopeo's `dir:`.
        write("layout/blobs/sha256/f", &saved("r.example/f:1", &two));
        write("layout/oci-layout", b"{}");
        write("dir/f", &saved("r.example/f:1", &two));
        write("dir/version", b"Directory Transport Version: 1.1\n");
        // Nor is what the embedded registry's repositories share, and what is on its way there.
        write("_blobs/sha256/f", &saved("r.example/f:1", &two));
        write("_blobs/sha256/g", &gzipped(&saved("r.example/g:1", &two)));
        write("_uploads/1/data", &saved("r.example/h:1", &two)[..1000]);
        // The same once more, something else, and what is no image.
        write("c", &saved("r.example/a:1", &one));
        write(".hidden.tar", b"");
        write(".longshore-abcDEF/image/oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        write(".longshore-abcDEF/image/index.json", br#"{"manifests":[{"digest":"sha256:0","size":1}]}"#);
        write(".longshore-abcDEF/image/blobs/sha256/f", b"");
        write("README", b"read me");
        write("src.tar", &one);
        write("z.tar.gz", &gzipped(&saved("r.example/z:1", &one)));
        write("log.gz", &gzipped(b"a line"));
        let sources = open(dir.path()).unwrap().unwrap();
        assert_eq!(names(&sources), ["r.example/a:1", "r.example/b:1", "r.example/e:1"]);
        for (image, expected) in sources.images().unwrap().iter().zip([&one, &two, &two]) {
            let ImageContent::Layers { layers, .. } = &image.content else { panic!("{image:?}") };
            let super::super::Data::Stored(blob) = sources.open(&layers[0]).unwrap() else { panic!() };
            assert_eq!(blob.read_all(1 << 20, "it").unwrap(), *expected);
        }
        let [source, compressed] = sources.warnings.as_slice() else { panic!("{:?}", sources.warnings) };
        assert!(source.contains("src.tar` is left out: the archive has no"), "{source}");
        assert!(compressed.contains("z.tar.gz`") && !compressed.contains("log.gz"), "{compressed}");
        // What is cut off is not passed over.
        write("d.tar", &saved("r.example/d:1", b"d")[..1000]);
        let error = open(dir.path()).unwrap_err();
        assert!(chain(&error).contains("d.tar"), "{error}");
    }

    #[test]
    fn dir_folders_are_called_as_skopeo_sync_calls_them() {
        let dir = tempfile::tempdir().unwrap();
        for (path, platform) in [
            ("r.example/team/app:1", "amd64"),
            ("r.example/team/app:2", "arm64"),
            ("saved", "riscv64"),
            ("no-image", ""),
        ] {
            let path = dir.path().join(path);
            fs_err::create_dir_all(&path).unwrap();
            let config = format!(r#"{{"architecture":"{platform}"}}"#);
            let (digest, size) = (Digest::of(config.as_bytes()), config.len());
            let config_file = path.join(digest.hex());
            let list = format!(
                r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":{size}}},"layers":[]}}"#
            );
            fs_err::write(config_file, config).unwrap();
            fs_err::write(path.join(MANIFEST), list).unwrap();
            let label = if platform.is_empty() { "3" } else { "Directory Transport Version: 1.1\n" };
            fs_err::write(path.join(docker_dir::VERSION), label).unwrap();
        }
        let sources = open(dir.path()).unwrap().unwrap();
        assert_eq!(names(&sources), ["r.example/team/app:1", "r.example/team/app:2", "saved:latest"]);
        for image in sources.images().unwrap() {
            let ImageContent::Manifest(root) = &image.content else { panic!("{image:?}") };
            assert_eq!(Digest::of(&sources.document(root).unwrap()), root.digest);
        }
    }

    #[test]
    fn a_list_of_parts_that_is_too_long_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let list = fs_err::File::create(dir.path().join("a")).unwrap();
        std::io::Write::write_all(&mut &list, b"# longshore parts 1: ").unwrap();
        list.set_len(LIST_LIMIT + 1).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(error.message().starts_with('`') && error.message().contains("limit"), "{error}");
    }

    #[test]
    fn compressed_archives_alone_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("a.tgz"), gzipped(&saved("a:1", b"x"))).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(error.kind() == ErrorKind::Source && error.message().contains("a.tgz"), "{error}");
    }
}
