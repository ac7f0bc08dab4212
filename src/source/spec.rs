//! SOURCE, as it is typed: a path or a transport of the containers tools, and which image of it.
//!
//! A colon may belong to a file's name or begin a reference, and only the disk can tell: the longest part that
//! exists is the path. Nothing is opened here.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{
    error::{Error, Result, similar},
    oci::Digest,
};

/// Where images are, and which one is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    /// The format, if it was named; otherwise the content decides.
    pub transport: Option<Transport>,
    /// Where to read.
    pub location: Location,
    /// Which image of it.
    pub choice: Choice,
}

/// A format that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// `containerd:`, a storage root.
    Containerd,
    /// `containers-storage:`, podman's own.
    ContainersStorage,
    /// `dir:`, a folder with one image.
    Dir,
    /// `docker-archive:`, a tar with `manifest.json`.
    DockerArchive,
    /// `docker-storage:`, Docker's own.
    DockerStorage,
    /// `oci:`, a folder.
    Oci,
    /// `oci-archive:`, a tar with `index.json`.
    OciArchive,
}

/// Where to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file, a folder or a pipe.
    Path(PathBuf),
    /// `-`.
    Stdin,
    /// A storage: where this machine's configuration has it, except for what is said here.
    Storage {
        /// The folder.
        root: Option<PathBuf>,
        /// What podman forgets at the next boot.
        runroot: Option<PathBuf>,
        /// The storage driver.
        driver: Option<String>,
        /// Options of the driver, between commas.
        options: Option<String>,
    },
}

/// Which of several images is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The one with this manifest, or this config where there is no manifest.
    Digest(Digest),
    /// The one at this place of the source's list, from 0.
    Index(usize),
    /// The one of this name.
    Name(String),
    /// The only one there is.
    Only,
}

impl FromStr for SourceSpec {
    type Err = Error;

    /// Reads SOURCE; looks at the disk for what exists.
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text, |path| path.symlink_metadata().is_ok())
    }
}

impl SourceSpec {
    fn parse(text: &str, exists: impl Fn(&Path) -> bool) -> Result<Self> {
        if !text.is_empty() && text != "-" && exists(Path::new(text)) {
            let location = Location::Path(text.into());
            return Ok(Self { transport: None, location, choice: Choice::Only });
        }
        let (transport, rest) = transport(text)?;
        if let Some(Transport::Containerd | Transport::ContainersStorage | Transport::DockerStorage) =
            transport
        {
            let (location, reference) = storage(rest)?;
            return Ok(Self { transport, location, choice: choice(reference)? });
        }
        if rest == "-" && transport != Some(Transport::Oci) {
            return Ok(Self { transport, location: Location::Stdin, choice: Choice::Only });
        }
        // One image a folder, and any name may be the folder's.
        if transport == Some(Transport::Dir) && !rest.is_empty() {
            return Ok(Self { transport, location: Location::Path(rest.into()), choice: Choice::Only });
        }
        let (path, choice) = cut(rest, transport.is_some(), &exists)?;
        if transport.is_none() && !exists(Path::new(path)) {
            check_transport(text)?;
        }
        if path.is_empty() {
            return Err(Error::usage(format!("`{}` names no file", text.escape_debug())));
        }
        Ok(Self { transport, location: Location::Path(path.into()), choice })
    }
}

/// Cuts the transport off, if there is one.
fn transport(text: &str) -> Result<(Option<Transport>, &str)> {
    let Some((name, rest)) = text.split_once(':') else { return Ok((None, text)) };
    let transport = match TRANSPORTS.iter().find(|(known, _)| *known == name) {
        Some((_, transport)) => *transport,
        None => match UNREADABLE.iter().find(|(known, _)| *known == name) {
            Some((_, instead)) => {
                return Err(Error::usage(format!("`{name}:` cannot be read"))
                    .with_hint(*instead)
                    .with_hint(format!("{} and plain paths can be read", transports())));
            }
            None => return Ok((None, text)),
        },
    };
    Ok((Some(transport), rest))
}

/// Says so where a path that does not exist begins like a transport.
fn check_transport(text: &str) -> Result<()> {
    let Some((name, _)) = text.split_once(':').filter(|(name, _)| !name.contains(['/', '.'])) else {
        return Ok(());
    };
    let Some(meant) = similar(name, TRANSPORTS.iter().map(|(known, _)| *known)) else { return Ok(()) };
    Err(Error::usage(format!("there is no transport `{}:`", name.escape_debug()))
        .with_hint(format!("did you mean `{meant}:`? There are {}", transports())))
}

fn transports() -> String {
    TRANSPORTS.map(|(name, _)| format!("`{name}:`")).join(", ")
}

/// The transports, as they are typed.
const TRANSPORTS: [(&str, Transport); 7] = [
    ("containerd", Transport::Containerd),
    ("containers-storage", Transport::ContainersStorage),
    ("dir", Transport::Dir),
    ("docker-archive", Transport::DockerArchive),
    ("docker-storage", Transport::DockerStorage),
    ("oci", Transport::Oci),
    ("oci-archive", Transport::OciArchive),
];

/// Transports of other tools that nobody may mistake for a path, and what to do instead.
const UNREADABLE: [(&str, &str); 4] = [
    ("docker", "what lies on disk is pushed; skopeo and crane copy from registries"),
    (
        "docker-daemon",
        "Docker's own storage is `docker-storage:NAME`, and `-` reads what `docker save` writes",
    ),
    ("ocidir", "a layout is `oci:PATH[:TAG]`"),
    ("sif", "skopeo makes an `oci-archive:` of it"),
];

/// Cuts `[DRIVER@ROOT+RUNROOT:OPTIONS]` off, as the containers tools write it; all of it may be left out.
fn storage(text: &str) -> Result<(Location, &str)> {
    let Some(rest) = text.strip_prefix('[') else {
        return Ok((Location::Storage { root: None, runroot: None, driver: None, options: None }, text));
    };
    let (place, reference) = rest
        .split_once(']')
        .ok_or_else(|| Error::usage(format!("no bracket closes in `{}`", text.escape_debug())))?;
    let (driver, place) = match place.split_once('@') {
        Some((driver, place)) => (Some(driver), place),
        None => (None, place),
    };
    let (place, options) = place.split_once(':').unwrap_or((place, ""));
    let (root, runroot) = place.split_once('+').unwrap_or((place, ""));
    let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    let driver = driver.filter(|driver| !driver.is_empty()).map(str::to_owned);
    let options = Some(options).filter(|options| !options.is_empty()).map(str::to_owned);
    Ok((Location::Storage { root: path(root), runroot: path(runroot), driver, options }, reference))
}

/// Reads the reference to an image of a storage.
fn choice(text: &str) -> Result<Choice> {
    match text.rsplit_once('@') {
        None if text.is_empty() => Ok(Choice::Only),
        Some((_, digest)) if digest.contains(':') => {
            digest.parse().map(Choice::Digest).map_err(|error: Error| Error::usage(error.message()))
        }
        Some(("", at)) if at.len() < SHORT_ID => position(at),
        // A name, or `NAME@ID` or `@ID`, as podman prints them.
        _ => Ok(Choice::Name(text.strip_prefix('@').unwrap_or(text).to_owned())),
    }
}

/// As many digits of an image's ID are printed in lists.
const SHORT_ID: usize = 12;

fn position(text: &str) -> Result<Choice> {
    text.parse().map(Choice::Index).map_err(|_| {
        Error::usage(format!("not a position in a list of images: `@{}`", text.escape_debug()))
            .with_hint("the first image is `@0`")
    })
}

/// Cuts path and choice apart: a digest from the end, then at the last colon before which something exists.
/// Where nothing exists, at the first colon as the containers tools do, after the last slash of a plain path.
fn cut(text: &str, transport: bool, exists: impl Fn(&Path) -> bool) -> Result<(&str, Choice)> {
    let (text, digest) = match ["@sha256:", "@sha512:"].iter().find_map(|mark| text.rfind(mark)) {
        Some(at) => {
            let digest = text[at + 1..].parse().map_err(|error: Error| Error::usage(error.message()))?;
            (&text[..at], Some(digest))
        }
        None => (text, None),
    };
    let colons = || text.match_indices(':').map(|(at, _)| at);
    let name_at = if transport { 0 } else { text.rfind('/').unwrap_or(0) };
    let end = std::iter::once(text.len())
        .chain(colons().rev())
        .find(|&end| exists(Path::new(&text[..end])))
        .or_else(|| colons().find(|&at| at >= name_at))
        .unwrap_or(text.len());
    let (path, reference) = text.split_at(end);
    let choice = match (digest, reference.strip_prefix(':')) {
        (Some(digest), _) => Choice::Digest(digest),
        (None, None) => Choice::Only,
        (None, Some("")) => {
            return Err(Error::usage(format!("nothing follows the colon in `{}`", text.escape_debug())));
        }
        (None, Some(reference)) => match reference.strip_prefix('@') {
            Some(at) => position(at)?,
            None => Choice::Name(reference.to_owned()),
        },
    };
    Ok((path, choice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parsed(text: &str) -> Result<(Option<Transport>, String, Choice)> {
        let there = ["x.tar", "a:b", "a:b/c.tar", "dir/odd:1"];
        let spec = SourceSpec::parse(text, |path| there.iter().any(|there| path == Path::new(there)))?;
        let location = match spec.location {
            Location::Path(path) => path.to_str().unwrap().to_owned(),
            Location::Stdin => "<stdin>".to_owned(),
            Location::Storage { root, runroot, driver, options } => {
                format!("{driver:?} {root:?} {runroot:?}{}", options.unwrap_or_default())
            }
        };
        Ok((spec.transport, location, spec.choice))
    }

    fn name(name: &str) -> Choice {
        Choice::Name(name.to_owned())
    }

    #[test]
    fn what_exists_is_the_path() {
        for (text, path, choice) in [
            ("x.tar", "x.tar", Choice::Only),
            ("x.tar:1", "x.tar", name("1")),
            ("x.tar:localhost:5000/ns/tiny:v1", "x.tar", name("localhost:5000/ns/tiny:v1")),
            ("x.tar:@12", "x.tar", Choice::Index(12)),
            ("a:b", "a:b", Choice::Only),
            ("a:b:c", "a:b", name("c")),
            ("a:b/c.tar:d/e", "a:b/c.tar", name("d/e")),
            ("dir/odd:1", "dir/odd:1", Choice::Only),
            ("dir/odd:1:2", "dir/odd:1", name("2")),
            ("none/x:y:1", "none/x", name("y:1")),
            ("none:5000/x:1", "none:5000/x", name("1")),
            ("none", "none", Choice::Only),
            ("-", "<stdin>", Choice::Only),
        ] {
            assert_eq!(parsed(text).unwrap(), (None, path.to_owned(), choice), "{text}");
        }
    }

    #[test]
    fn transports_are_read_as_skopeo_reads_them() {
        for (text, transport, path, choice) in [
            ("oci:dir", Transport::Oci, "dir", Choice::Only),
            ("oci:dir:tag", Transport::Oci, "dir", name("tag")),
            ("oci:x/dir:localhost/a:1", Transport::Oci, "x/dir", name("localhost/a:1")),
            ("oci-archive:x.tar:@0", Transport::OciArchive, "x.tar", Choice::Index(0)),
            ("docker-archive:x.tar:busybox:1", Transport::DockerArchive, "x.tar", name("busybox:1")),
            ("docker-archive:-", Transport::DockerArchive, "<stdin>", Choice::Only),
            ("dir:none:5000/x:1", Transport::Dir, "none:5000/x:1", Choice::Only),
        ] {
            assert_eq!(parsed(text).unwrap(), (Some(transport), path.to_owned(), choice), "{text}");
        }
    }

    #[test]
    fn a_digest_chooses_anywhere() {
        let digest = || Choice::Digest(DIGEST.parse().unwrap());
        for text in ["x.tar@", "oci:x.tar@", "x.tar:name@", "oci:x.tar:tag@"] {
            let (_, path, choice) = parsed(&format!("{text}{DIGEST}")).unwrap();
            assert_eq!((path.as_str(), choice), ("x.tar", digest()), "{text}");
        }
    }

    #[test]
    fn a_storage_may_say_where_it_is() {
        let (podman, docker) = (Transport::ContainersStorage, Transport::DockerStorage);
        let containerd = Transport::Containerd;
        for (text, transport, place, choice) in [
            ("containers-storage:localhost/a:1", podman, "None None None", name("localhost/a:1")),
            ("containers-storage:", podman, "None None None", Choice::Only),
            ("containers-storage:@1", podman, "None None None", Choice::Index(1)),
            ("containers-storage:@387616761169", podman, "None None None", name("387616761169")),
            (
                "containers-storage:[overlay@/s+/r:overlay.mount_program=x]a@b0f4",
                podman,
                r#"Some("overlay") Some("/s") Some("/r")overlay.mount_program=x"#,
                name("a@b0f4"),
            ),
            ("containers-storage:[vfs@/s]", podman, r#"Some("vfs") Some("/s") None"#, Choice::Only),
            ("containerd:", containerd, "None None None", Choice::Only),
            ("containerd:k8s.io/a.b/c:1", containerd, "None None None", name("k8s.io/a.b/c:1")),
            ("containerd:[/d]moby/c", containerd, r#"None Some("/d") None"#, name("moby/c")),
            ("containerd:[x]@3", containerd, r#"None Some("x") None"#, Choice::Index(3)),
            ("docker-storage:[/d]b:2", docker, r#"None Some("/d") None"#, name("b:2")),
        ] {
            assert_eq!(parsed(text).unwrap(), (Some(transport), place.to_owned(), choice), "{text}");
        }
        let (_, _, choice) = parsed(&format!("docker-storage:a@{DIGEST}")).unwrap();
        assert_eq!(choice, Choice::Digest(DIGEST.parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        for text in [
            "",
            "oci:",
            "dir:",
            "x.tar:",
            "x.tar:@one",
            "x.tar@sha256:abc",
            "containers-storage:[x",
            "containerd:[x",
            "containerd:@one",
            "docker-storage:@x",
            ":1",
        ] {
            assert_eq!(parsed(text).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }
}
