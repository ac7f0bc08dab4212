//! Destinations on disk: `oci:DIR[:TAG]` and `oci-archive:FILE[:TAG]`, as skopeo users write them; `@DIGEST` asks for
//! that image, as at a registry.
//!
//! The image goes through the embedded registry into a folder beside the destination, and from there into its place
//! when all of it has arrived: what fails leaves the destination as it was.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf, absolute},
};

use longshore::{
    Error, ErrorKind, Result,
    error::{Context as _, similar},
    layout::{
        archive::write_archive,
        merge::take_over,
        output::{sweep, workplace},
        write::replaceable,
    },
    oci::{Digest, Reference},
    source::{SourceSpec, spec::Location},
};
use tempfile::TempDir;

/// A layout, as a folder or as one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    kind: Kind,
    path: PathBuf,
    /// What the image is called there: `:TAG` or `@DIGEST`.
    name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Folder,
    File,
}

impl Disk {
    /// Reads a destination on disk; nothing, if it is elsewhere.
    pub(super) fn parse(text: &str) -> Result<Option<Self>> {
        let (kind, rest) = match text.split_once(':') {
            Some(("oci", rest)) => (Kind::Folder, rest),
            Some(("oci-archive", rest)) => (Kind::File, rest),
            Some((name, _)) if text.parse::<Reference>().is_err() => {
                let written = "images are written to `oci:` and `oci-archive:`";
                if UNWRITABLE.contains(&name) {
                    return Err(Error::usage(format!("`{name}:` cannot be written")).with_hint(written));
                }
                let Some(meant) = similar(name, ["oci", "oci-archive"]) else { return Ok(None) };
                return Err(Error::usage(format!("there is no transport `{}:`", name.escape_debug()))
                    .with_hint(format!("did you mean `{meant}:`?"))
                    .with_hint(written));
            }
            _ => return Ok(None),
        };
        // As skopeo cuts it: a path with a colon cannot be named.
        let by_digest = rest.rfind('@').filter(|at| rest[at + 1..].parse::<Digest>().is_ok());
        let (path, name) = by_digest.or_else(|| rest.find(':')).map_or((rest, ""), |at| rest.split_at(at));
        if path.is_empty() {
            return Err(Error::usage(format!("`{}` names no place", text.escape_debug())));
        }
        let path = match kind {
            Kind::File => replaceable(Path::new(path))?,
            Kind::Folder => {
                absolute(path).context(ErrorKind::Local, || format!("finding `{}`", path.escape_debug()))?
            }
        };
        if kind == Kind::Folder && path.exists() && !path.is_dir() {
            return Err(Error::usage(format!("`{}` is no folder", path.display())));
        }
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        Ok(Some(Self { kind, path, name }))
    }

    /// Returns what the image is called on its way.
    pub(super) fn reference(&self, host: &str) -> Result<Reference> {
        Reference::at(host, &format!("{REPOSITORY}{}", self.name.as_deref().unwrap_or_default()))
    }

    /// Makes the folder in which the image is put together, on the filesystem of the destination. It is somebody's as long
    /// as the file is open.
    pub(super) fn stage(&self) -> Result<(TempDir, fs_err::File)> {
        let mut dir = self.path.parent().unwrap_or(&self.path);
        if self.kind == Kind::Folder && self.path.is_dir() {
            // What was killed before there was a folder lies beside it.
            sweep(dir, STAGE);
            dir = &self.path;
        }
        workplace(dir, STAGE).context(ErrorKind::Local, || format!("writing to `{}`", dir.display()))
    }

    /// Refuses to read one image of a file and put nothing but that into its place.
    pub(super) fn is_no_source(&self, source: &SourceSpec) -> Result<()> {
        let Location::Path(path) = &source.location else { return Ok(()) };
        let file = |path: &Path| fs_err::metadata(path).ok().map(|there| (there.dev(), there.ino()));
        if self.kind == Kind::File && file(path).is_some_and(|source| file(&self.path) == Some(source)) {
            let words = format!("`{}` is the source, and would be written anew", self.path.display());
            return Err(
                Error::usage(words).with_hint("name another file; `oci:DIR` adds an image to what is there")
            );
        }
        Ok(())
    }

    /// Puts what has arrived in the stage where it belongs.
    pub(super) fn take(&self, stage: &Path) -> Result<()> {
        let layout = stage.join(REPOSITORY);
        match self.kind {
            Kind::Folder => take_over(&layout, &self.path),
            Kind::File => write_archive(&layout, &self.path),
        }
    }

    /// Returns what a push puts there under these tags: in a folder each of them, and a file is written anew.
    pub(super) fn written(&self, tags: &[String]) -> Vec<String> {
        match self.kind {
            Kind::File => vec![self.name()],
            Kind::Folder => {
                let first = self.name.clone().unwrap_or_else(|| ":latest".to_owned());
                let names = [first].into_iter().chain(tags.iter().map(|tag| format!(":{tag}")));
                names.map(|name| format!("{}{name}", self.name())).collect()
            }
        }
    }

    /// Returns what the user knows it by; with `@DIGEST` behind it, it is a source.
    pub(super) fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Folder => "oci",
            Kind::File => "oci-archive",
        };
        format!("{kind}:{}", self.path.display())
    }
}

/// How the name of a stage begins.
const STAGE: &str = ".longshore-";

/// The repository of the stage.
const REPOSITORY: &str = "image";

/// Where other tools put images, and we do not.
const UNWRITABLE: [&str; 8] = [
    "containerd",
    "containers-storage",
    "dir",
    "docker-archive",
    "docker-daemon",
    "docker-storage",
    "ocidir",
    "tarball",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_on_disk_has_a_transport_and_perhaps_a_tag() {
        for (text, name, tag) in [
            ("oci:/a/b", "oci:/a/b", None),
            ("oci:/a/b:v1", "oci:/a/b", Some(":v1")),
            ("oci:/a@b:v1", "oci:/a@b", Some(":v1")),
            ("oci-archive:/b.tar:v1", "oci-archive:/b.tar", Some(":v1")),
        ] {
            let disk = Disk::parse(text).unwrap().unwrap();
            assert_eq!((disk.name().as_str(), disk.name.as_deref()), (name, tag), "{text}");
        }
        let digest = Digest::of(b"");
        let disk = Disk::parse(&format!("oci:/a@b@{digest}")).unwrap().unwrap();
        assert_eq!(disk.name(), "oci:/a@b");
        assert_eq!(disk.reference("h").unwrap().digest, Some(digest));
        for text in ["r.example/oci:1", "demo:1", "docker://r.example/a", "oci"] {
            assert_eq!(Disk::parse(text).unwrap(), None, "{text}");
        }
        for (text, meant) in [("ocii:/a", "`oci:`"), ("oci-archve:a.tar", "`oci-archive:`")] {
            let error = Disk::parse(text).unwrap_err();
            assert!(error.hints()[0].starts_with(&format!("did you mean {meant}?")), "{error:?}");
        }
        for text in
            ["dir:x", "docker-archive:x.tar:demo:1", "containers-storage:demo", "docker-daemon:demo:1"]
        {
            assert!(Disk::parse(text).unwrap_err().message().ends_with("cannot be written"), "{text}");
        }
        for text in ["oce:5000/a", "dir:5000/a"] {
            assert_eq!(Disk::parse(text).unwrap(), None, "a host and its port");
        }
        assert!(Disk::parse("oci::v1").is_err());
        assert!(Disk::parse("oci:/a:b:c").unwrap().unwrap().reference("h").is_err(), "no tag has a colon");
    }
}
