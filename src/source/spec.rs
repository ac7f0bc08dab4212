//! SOURCE, as it is typed: a path or a transport of the containers tools, and which image of it.
//!
//! A colon may belong to a file's name or begin a reference, and only the disk can tell: the longest part that
//! exists is the path. Nothing is opened here.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{
    error::{Error, Result},
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
    /// `docker-archive:`, a tar with `manifest.json`.
    DockerArchive,
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
        if rest == "-" && transport != Some(Transport::Oci) {
            return Ok(Self { transport, location: Location::Stdin, choice: Choice::Only });
        }
        let (path, choice) = cut(rest, transport.is_some(), exists)?;
        if path.is_empty() {
            return Err(Error::usage(format!("`{}` names no file", text.escape_debug())));
        }
        Ok(Self { transport, location: Location::Path(path.into()), choice })
    }
}

/// Cuts the transport off, if there is one.
fn transport(text: &str) -> Result<(Option<Transport>, &str)> {
    let Some((name, rest)) = text.split_once(':') else { return Ok((None, text)) };
    let transport = match name {
        "docker-archive" => Transport::DockerArchive,
        "oci" => Transport::Oci,
        "oci-archive" => Transport::OciArchive,
        _ if UNREADABLE.contains(&name) => {
            return Err(Error::usage(format!("`{name}:` cannot be read yet"))
                .with_hint("`oci:`, `oci-archive:`, `docker-archive:` and plain paths can be read"));
        }
        _ => return Ok((None, text)),
    };
    Ok((Some(transport), rest))
}

/// Transports of the containers tools and our own that nobody may mistake for a path.
const UNREADABLE: [&str; 8] =
    ["containerd", "containers-storage", "dir", "docker", "docker-daemon", "docker-storage", "ocidir", "sif"];

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
            Some(position) => Choice::Index(position.parse().map_err(|_| {
                Error::usage(format!("not a position in a list of images: `@{}`", position.escape_debug()))
                    .with_hint("the first image is `@0`")
            })?),
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
    fn what_cannot_be_meant_is_a_usage_error() {
        for text in
            ["", "oci:", "x.tar:", "x.tar:@one", "x.tar@sha256:abc", "containers-storage:x", "dir:x", ":1"]
        {
            assert_eq!(parsed(text).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }
}
