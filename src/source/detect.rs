//! Finding out by content what a path is, and opening it.
//!
//! Names and extensions are never asked. A folder is read in place; for archives see [`tarball`].

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Input, Source, StorageOptions,
    archive::Index,
    command::Output,
    folder,
    formats::{
        distribution_storage::{self, DistributionStorage},
        docker_archive::MANIFEST,
        docker_dir::DockerDir,
        nix2container::{DESCRIPTION_LIMIT, Nix2Container},
        oci_layout::OciLayout,
    },
    no_image,
    spec::{Choice, Location, SourceSpec, Transport},
    stores::{
        containerd::{self, Containerd},
        containers_storage::ContainersStorage,
        docker_root::DockerRoot,
    },
    tarball,
};
use crate::{
    blob::Blob,
    codec::Compression,
    error::{Context as _, Error, ErrorKind, Result},
    layout::{BLOBS, INDEX, OCI_LAYOUT},
    oci::Reference,
};

/// What else may be said about a source.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Where the blobs of an OCI layout lie, if not in it: `DIR/<algorithm>/<hex>`.
    pub blob_dir: Option<PathBuf>,
    /// Where containerd may keep its storage; the first one that is there counts.
    pub containerd_roots: Vec<PathBuf>,
    /// The source is a program that writes an archive to its standard output.
    pub from_command: bool,
    /// Where podman and Docker keep their images on this machine.
    pub storage: StorageOptions,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            blob_dir: None,
            containerd_roots: containerd::system_roots(),
            from_command: false,
            storage: StorageOptions::default(),
        }
    }
}

/// Opens what `spec` leads to.
pub fn open(spec: &SourceSpec, options: &SourceOptions) -> Result<Input> {
    let path = match &spec.location {
        Location::Path(path) => path,
        Location::Stdin => {
            return tarball::pass(Box::new(io::stdin()), "the standard input").map(Input::Pass);
        }
        Location::Storage { root, .. } if spec.transport == Some(Transport::Containerd) => match root {
            Some(root) => root,
            None => well_known(options)?,
        },
        Location::Storage { .. } => return open_storage(spec, options).map(Input::Indexed),
    };
    let name = format!("`{}`", path.display());
    if options.from_command {
        return tarball::pass(Box::new(Output::of(path)?), &format!("the output of {name}")).map(Input::Pass);
    }
    let metadata = fs_err::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            missing(path, spec)
        }
        _ => Error::source(format!("{name} cannot be opened")).because(error),
    })?;
    match (metadata.is_dir(), spec.transport) {
        (true, None | Some(Transport::Oci | Transport::Dir | Transport::Containerd)) => {
            open_folder(path, spec, options).map(Input::Indexed)
        }
        (true, Some(_)) => Err(Error::usage(format!("{name} is a folder and no archive"))),
        (false, Some(Transport::Containerd | Transport::Dir)) => {
            Err(Error::usage(format!("{name} is no folder")))
        }
        (false, Some(Transport::Oci)) => Err(Error::usage(format!("{name} is no folder"))
            .with_hint("an OCI layout in a file is `oci-archive:FILE`")),
        (false, transport) if metadata.is_file() => open_file(path, &name, transport),
        (false, _) => {
            let opened = fs_err::File::open(path);
            tarball::pass(Box::new(opened.context(ErrorKind::Source, || format!("opening {name}"))?), &name)
                .map(Input::Pass)
        }
    }
}

/// Says that nothing is there, and what was meant perhaps.
fn missing(path: &Path, spec: &SourceSpec) -> Error {
    let error = Error::usage(format!("`{}` does not exist", path.display()));
    let Some(text) = path.to_str().filter(|_| spec.transport.is_none()) else { return error };
    if text.starts_with('~') {
        return error
            .with_hint("a shell puts the home in the place of `~` only where it begins a word, unquoted");
    }
    // As podman and Docker take it: `app`, `localhost/team/app:1`. Files have extensions.
    let name = text.rsplit_once('/').map_or(text, |(_, name)| name);
    let tag = match &spec.choice {
        Choice::Name(tag) => format!(":{tag}"),
        _ => String::new(),
    };
    let image = format!("{text}{tag}");
    if name.contains('.') || Reference::at("localhost", &image).is_err() {
        return error;
    }
    error.with_hint(format!(
        "an image of podman's is `containers-storage:{image}`, of Docker's `docker-storage:{image}`"
    ))
}

/// Returns where containerd keeps its storage on this machine.
fn well_known(options: &SourceOptions) -> Result<&PathBuf> {
    let roots = &options.containerd_roots;
    roots.iter().find(|root| root.exists()).ok_or_else(|| {
        let looked: Vec<String> = roots.iter().map(|root| format!("`{}`", root.display())).collect();
        Error::usage(format!("containerd has no storage here: {} do not exist", looked.join(", ")))
            .with_hint("name its folder: `containerd:[ROOT]NAME`")
    })
}

fn open_folder(dir: &Path, spec: &SourceSpec, options: &SourceOptions) -> Result<Box<dyn Source>> {
    let has = |file: &str| dir.join(file).exists();
    let is_layout = has(INDEX) && (has(OCI_LAYOUT) || has(BLOBS) || options.blob_dir.is_some());
    Ok(match (spec.transport, first_character(&dir.join(MANIFEST))) {
        (Some(Transport::Containerd), _) => Box::new(Containerd::open(dir, &spec.choice)?),
        (Some(Transport::Dir), _) => Box::new(DockerDir::open(dir)?),
        // Unpacked, it may be an OCI layout too, like the archive it was.
        (None, Some(b'[')) if options.blob_dir.is_none() => {
            return tarball::from_index(Index::of_folder(dir)?, &format!("`{}`", dir.display()), None);
        }
        _ if is_layout => Box::new(OciLayout::folder(dir, options.blob_dir.as_deref())?),
        (Some(_), _) => return Err(no_image::folder(dir)),
        (None, Some(b'{')) => Box::new(DockerDir::open(dir)?),
        (None, _) if Containerd::is_root(dir) => Box::new(Containerd::open(dir, &spec.choice)?),
        (None, _) if has(distribution_storage::MARK) => {
            Box::new(DistributionStorage::open(dir, &spec.choice)?)
        }
        (None, _) => match ContainersStorage::find(dir) {
            Some(root) => Box::new(ContainersStorage::open(&options.storage.clone().in_folder(root))?),
            None if DockerRoot::is_at(dir) => {
                return DockerRoot::open(&[dir.to_owned()], &[], &spec.choice);
            }
            // Looked for last, because it takes a walk.
            None => match folder::open(dir)? {
                Some(sources) => Box::new(sources),
                None => return Err(no_image::folder(dir)),
            },
        },
    })
}

/// Opens podman's or Docker's storage, where the configuration or `spec` says that it is.
fn open_storage(spec: &SourceSpec, options: &SourceOptions) -> Result<Box<dyn Source>> {
    let storage = options.storage.clone().at(&spec.location);
    if spec.transport != Some(Transport::DockerStorage) {
        return Ok(Box::new(ContainersStorage::open(&storage)?));
    }
    // Whoever names a folder means nothing but that.
    let elsewhere = match &spec.location {
        Location::Storage { root: None, .. } => options.containerd_roots.as_slice(),
        _ => &[],
    };
    DockerRoot::open(&storage.docker_roots, elsewhere, &spec.choice)
}

/// Returns the first character of a file that is no space.
fn first_character(path: &Path) -> Option<u8> {
    let head = Blob::open(path).and_then(|blob| blob.head(tarball::HEAD)).ok()?;
    head.into_iter().find(|byte| !byte.is_ascii_whitespace())
}

fn open_file(path: &Path, name: &str, transport: Option<Transport>) -> Result<Input> {
    let blob = Blob::open(path)?;
    if blob.size() == 0 {
        return Err(Error::source(format!("{name} is an empty file")));
    }
    let head = blob.head(tarball::HEAD)?;
    if Compression::detect(&head) != Compression::None {
        let file = fs_err::File::open(path).context(ErrorKind::Source, || format!("reading {name}"))?;
        return tarball::pass(Box::new(file), name).map(Input::Pass);
    }
    if let Some(index) = tarball::indexed(&blob, name)? {
        return tarball::from_index(index, name, transport).map(Input::Indexed);
    }
    if head.trim_ascii_start().starts_with(b"{") && blob.size() <= DESCRIPTION_LIMIT {
        let text = blob.read_all(DESCRIPTION_LIMIT, name)?;
        if Nix2Container::is_description(&text) {
            return Ok(Input::Indexed(Box::new(Nix2Container::new(&text, name)?)));
        }
    }
    Err(no_image::file(&head, name))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write};

    use super::*;
    use crate::error::{ErrorKind, chain};

    fn opened(path: &Path, transport: Option<Transport>) -> Result<Input> {
        let location = Location::Path(path.to_owned());
        let spec = SourceSpec { transport, location, choice: Choice::Only };
        open(&spec, &SourceOptions::default())
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    const OCI: (&str, &str) = (INDEX, r#"{"manifests":[]}"#);
    const DOCKER: (&str, &str) = (MANIFEST, "[]");
    /// As Zarf packs its images, beside other things.
    const PACKAGE: [(&str, &str); 4] = [
        ("components/app/manifest.json", "{}"),
        ("images/index.json", OCI.1),
        ("images/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
        ("zarf.yaml", "kind: ZarfPackageConfig"),
    ];

    #[test]
    fn content_says_what_a_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.txt");
        for (bytes, name) in [
            (archive(&[OCI]), "OCI archive"),
            (archive(&[DOCKER]), "docker archive"),
            (archive(&[DOCKER, OCI]), "OCI archive"),
            (archive(&PACKAGE), "OCI archive"),
        ] {
            fs_err::write(&path, &bytes).unwrap();
            let Input::Indexed(source) = opened(&path, None).unwrap() else { panic!("not indexed") };
            assert!(source.name().starts_with(name), "{}", source.name());
            fs_err::write(&path, gzipped(&bytes)).unwrap();
            let Input::Pass(mut pass) = opened(&path, None).unwrap() else { panic!("not a pass") };
            let mut plain = Vec::new();
            pass.tar.read_to_end(&mut plain).unwrap();
            assert_eq!(plain, bytes);
        }
        for (bytes, words) in [
            (Vec::new(), "empty file"),
            (gzipped(&gzipped(b"x")), "compressed twice: gzip in gzip"),
            (gzipped(b""), "no tar archive"),
            (archive(&[]), "begins with zeros"),
            (
                archive(&[&PACKAGE[..], &[("more/oci-layout", ""), ("more/index.json", "")]].concat()),
                "but `components/app/manifest.json`",
            ),
            (b"#!/bin/sh".to_vec(), "script"),
            (gzipped(b"<!doctype html>"), "web page"),
        ] {
            fs_err::write(&path, &bytes).unwrap();
            let error = opened(&path, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source);
            assert!(chain(&error).contains(words) && chain(&error).contains("x.txt"), "{error:?}");
        }
    }

    #[test]
    fn a_transport_must_fit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs_err::write(&path, archive(&[DOCKER, OCI])).unwrap();
        let name = |transport| match opened(&path, Some(transport)).unwrap() {
            Input::Indexed(source) => source.name(),
            Input::Pass(pass) => panic!("{pass:?}"),
        };
        assert!(name(Transport::DockerArchive).starts_with("docker archive"));
        assert!(name(Transport::OciArchive).starts_with("OCI archive"));
        for (files, transport) in [
            (&[OCI][..], Transport::DockerArchive),
            (&[DOCKER], Transport::OciArchive),
            (&[OCI], Transport::Oci),
        ] {
            fs_err::write(&path, archive(files)).unwrap();
            assert_eq!(opened(&path, Some(transport)).unwrap_err().kind(), ErrorKind::Usage);
        }
        assert_eq!(opened(dir.path(), Some(Transport::OciArchive)).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(opened(&dir.path().join("none"), None).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_pipe_with_a_name_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let bytes = archive(&[DOCKER]);
        std::thread::scope(|scope| {
            scope.spawn(|| fs_err::write(&path, gzipped(&bytes)).unwrap());
            let Input::Pass(mut pass) = opened(&path, None).unwrap() else { panic!("not a pass") };
            let mut plain = Vec::new();
            pass.tar.read_to_end(&mut plain).unwrap();
            assert_eq!(plain, bytes);
        });
    }

    #[test]
    fn a_layout_may_share_its_blobs() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join(INDEX), OCI.1).unwrap();
        let hints = opened(dir.path(), None).unwrap_err().hints().join(" ");
        assert!(hints.contains("--blob-dir"), "{hints}");
        let spec = dir.path().to_str().unwrap().parse().unwrap();
        let options = SourceOptions { blob_dir: Some("elsewhere".into()), ..SourceOptions::default() };
        open(&spec, &options).unwrap();
    }
}
