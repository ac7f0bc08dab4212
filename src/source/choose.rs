//! Picking one image of a source, as the user asked for it or because there is no other.
//!
//! Names are matched as their producers meant them: in full, as Docker abbreviates them (`tiny` is
//! `docker.io/library/tiny:latest`), or by tag alone where a layout says no more. One image under many names
//! is one image. What is ambiguous is never guessed: the error lists what there is.

use std::collections::{HashMap, hash_map::Entry};

use super::{Choice, Image, ImageContent};
use crate::{
    error::{Error, Result, printable},
    oci::Digest,
};

/// Picks the image that is meant by `choice` out of all that `what` holds.
pub fn choose(images: Vec<Image>, choice: &Choice, what: &str) -> Result<Image> {
    if images.is_empty() {
        return Err(Error::source(format!("{what} holds no images")));
    }
    if let Choice::Index(at) = choice {
        return match images.get(*at) {
            Some(image) => Ok(image.clone()),
            None => Err(unknown(&merged(images), &format!(":@{at}"), what)),
        };
    }
    let candidates = merged(images);
    let fitting = |fits: &dyn Fn(&Candidate) -> bool| -> Vec<Candidate> {
        candidates.iter().filter(|candidate| fits(candidate)).cloned().collect()
    };
    let found = match choice {
        Choice::Digest(digest) => fitting(&|candidate| candidate.is(digest)),
        Choice::Index(_) | Choice::Only => match fitting(&|candidate| !candidate.image.companion) {
            none if none.is_empty() => candidates.clone(),
            found => found,
        },
        Choice::Name(name) => match fitting(&|candidate| candidate.image.names.contains(name)) {
            none if none.is_empty() => match fitting(&|candidate| is_called(&candidate.image.names, name)) {
                none if none.is_empty() => fitting(&|candidate| is_id(&candidate.digest, name)),
                found => found,
            },
            found => found,
        },
    };
    match (<[Candidate; 1]>::try_from(found), choice) {
        (Ok([candidate]), _) => Ok(candidate.image),
        (Err(none), Choice::Digest(digest)) if none.is_empty() => {
            Err(unknown(&candidates, &digest.to_string(), what))
        }
        (Err(none), Choice::Name(name)) if none.is_empty() => Err(unknown(&candidates, name, what)),
        (Err(several), Choice::Name(name)) => Err(listed(
            Error::usage(format!("{what} holds {} images called `{}`", several.len(), printable(name))),
            &several,
        )),
        (Err(several), _) => Err(listed(
            Error::usage(format!("{what} holds {} images and none was chosen", several.len())),
            &several,
        )),
    }
}

/// An image, where it stands in the source's list, and what identifies it.
#[derive(Clone)]
struct Candidate {
    at: usize,
    digest: Digest,
    image: Image,
}

impl Candidate {
    /// Returns whether `digest` means this image: as its own, or as that of the manifest it was pulled with.
    fn is(&self, digest: &Digest) -> bool {
        let original = match &self.image.content {
            ImageContent::Layers { original, .. } => original.as_ref().map(|manifest| &manifest.digest),
            ImageContent::Manifest(_) => None,
        };
        self.digest == *digest || original == Some(digest)
    }
}

/// Makes one image of those that differ in name alone.
fn merged(images: Vec<Image>) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut known: HashMap<Digest, usize> = HashMap::new();
    for (at, image) in images.into_iter().enumerate() {
        let digest = match &image.content {
            ImageContent::Layers { config, .. } => Digest::of(config),
            ImageContent::Manifest(descriptor) => descriptor.digest.clone(),
        };
        match known.entry(digest.clone()) {
            Entry::Occupied(place) => {
                let same = &mut candidates[*place.get()].image;
                same.companion &= image.companion;
                same.names.extend(image.names);
            }
            Entry::Vacant(place) => {
                place.insert(candidates.len());
                candidates.push(Candidate { at, digest, image });
            }
        }
    }
    candidates
}

/// Returns whether an image with these names is meant by `asked`, although none is spelled so.
fn is_called(names: &[String], asked: &str) -> bool {
    let (asked_repository, asked_tag) = full(asked);
    let (full_names, tags): (Vec<_>, Vec<_>) = names.iter().partition(|name| is_full(name));
    if full_names.is_empty() && is_full(asked) {
        return tags.iter().any(|tag| **tag == asked_tag);
    }
    full_names.iter().any(|name| full(name) == (asked_repository.clone(), asked_tag))
}

/// Returns whether `asked` is an image ID, which people abbreviate.
fn is_id(id: &Digest, asked: &str) -> bool {
    let asked = asked.strip_prefix("sha256:").unwrap_or(asked);
    asked.len() >= SHORTEST_ID && id.hex().starts_with(asked)
}

/// Fewer digits are likelier a mistake.
const SHORTEST_ID: usize = 4;

/// Returns whether a name is more than a tag.
fn is_full(name: &str) -> bool {
    name.contains(['/', ':'])
}

/// Spells a name out, as Docker does: repository with host, and tag.
fn full(name: &str) -> (String, &str) {
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    };
    let repository = match repository.split_once('/') {
        Some(("index.docker.io", path)) => format!("docker.io/{path}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => repository.to_owned(),
        Some(_) => format!("docker.io/{repository}"),
        None => format!("docker.io/library/{repository}"),
    };
    (repository, tag)
}

fn unknown(candidates: &[Candidate], asked: &str, what: &str) -> Error {
    listed(Error::usage(format!("{what} holds nothing called `{}`", printable(asked))), candidates)
}

/// Adds what there is to choose from.
fn listed(error: Error, candidates: &[Candidate]) -> Error {
    let error =
        error.with_hint("choose by name (`PATH:NAME`), position (`PATH:@N`) or digest (`PATH@DIGEST`)");
    let error = candidates.iter().take(LISTED).fold(error, |error, candidate| {
        let Candidate { at, digest, image } = candidate;
        let names = if image.names.is_empty() { "no name".into() } else { image.names.join(", ") };
        let platform = image.platform.as_ref().map(|platform| format!(", {platform}")).unwrap_or_default();
        error.with_hint(format!("@{at}: {}{}, {digest}", printable(&names), printable(&platform)))
    });
    match candidates.len().saturating_sub(LISTED) {
        0 => error,
        more => error.with_hint(format!("and {more} more")),
    }
}

/// As many as fit a screen.
const LISTED: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ErrorKind, oci::Descriptor};

    fn image(content: &str, names: &[&str]) -> Image {
        Image {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            platform: None,
            content: ImageContent::Manifest(Descriptor::new("x", Digest::of(content.as_bytes()), 1)),
            companion: false,
        }
    }

    fn chosen(images: &[Image], choice: &Choice) -> Result<String> {
        choose(images.to_vec(), choice, "it").map(|image| image.names.join(" "))
    }

    fn by_name(images: &[Image], name: &str) -> Result<String> {
        chosen(images, &Choice::Name(name.into()))
    }

    #[test]
    fn an_image_is_found_by_every_spelling_of_its_name() {
        let images = [image("a", &["localhost/a:1"]), image("b", &["tiny:latest"]), image("c", &["1"])];
        for name in ["tiny", "tiny:latest", "docker.io/library/tiny:latest", "index.docker.io/library/tiny"] {
            assert_eq!(by_name(&images, name).unwrap(), "tiny:latest", "{name}");
        }
        assert_eq!(by_name(&images, "localhost/a:1").unwrap(), "localhost/a:1");
        assert_eq!(by_name(&images, "1").unwrap(), "1");
        // A layout that says only tags means every repository.
        assert_eq!(by_name(&images[2..], "example.com/x:1").unwrap(), "1");
        // With a full name there, the tag alone is not asked.
        let containerd = [image("d", &["localhost/d:1", "1"])];
        assert!(by_name(&containerd, "localhost/e:1").is_err());
        assert!(by_name(&images, "latest").is_err());
        assert!(by_name(&images, "localhost/a").is_err());
    }

    #[test]
    fn one_image_under_many_names_is_one_image() {
        let images = [image("a", &["u1"]), image("a", &["u2"])];
        assert_eq!(chosen(&images, &Choice::Only).unwrap(), "u1 u2");
        assert_eq!(by_name(&images, "u2").unwrap(), "u1 u2");
        assert_eq!(chosen(&images, &Choice::Index(1)).unwrap(), "u2");
    }

    #[test]
    fn what_is_ambiguous_is_listed() {
        let images = [image("a", &["x:1", "1"]), image("b", &["y:1", "1"])];
        for choice in [Choice::Only, Choice::Name("1".into()), Choice::Name("z".into()), Choice::Index(2)] {
            let error = chosen(&images, &choice).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            let hints = error.hints().join("\n");
            assert!(hints.contains("@1: y:1, 1, sha256:3e23"), "{hints}");
        }
        let digest = Choice::Digest(Digest::of(b"b"));
        assert_eq!(chosen(&images, &digest).unwrap(), "y:1 1");
        assert_eq!(chosen(&[], &Choice::Only).unwrap_err().kind(), ErrorKind::Source);
    }

    #[test]
    fn companions_are_only_meant_when_asked_for() {
        let companion = Image { companion: true, ..image("b", &["sha256-0.sig"]) };
        let images = [companion.clone(), image("a", &[])];
        assert_eq!(chosen(&images, &Choice::Only).unwrap(), "");
        assert_eq!(by_name(&images, "sha256-0.sig").unwrap(), "sha256-0.sig");
        assert_eq!(chosen(&[companion], &Choice::Only).unwrap(), "sha256-0.sig");
    }
}
