//! Picking one image of a source, as the user asked for it or because there is no other.
//!
//! Names are matched as their producers meant them (`names.rs`). One image under many names is one image.
//! Several of one name may differ in platform, each listed on its own where others would write an index. What is
//! ambiguous is never guessed: the error lists what there is.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use super::{
    Choice, Image, ImageContent, Source,
    names::{full, is_called, is_id},
    platforms::platforms,
};
use crate::{
    error::{Error, Result, printable, similar},
    oci::{Digest, Platform},
};

/// Picks the image of `source` that is meant by `choice`; of several, the one for `platform`.
pub fn choose(source: &dyn Source, choice: &Choice, platform: Option<&Platform>) -> Result<Image> {
    let (images, what) = (source.images()?, source.name());
    if images.is_empty() {
        return Err(Error::source(format!("{what} holds no images")));
    }
    if let Choice::Index(at) = choice {
        return match images.get(*at) {
            Some(image) => Ok(image.clone()),
            None => Err(unknown(source, &merged(images), &format!(":@{at}"))),
        };
    }
    let candidates = merged(images);
    let mut found = meant(&candidates, choice);
    if let (Some(wanted), true) = (platform, found.len() > 1) {
        retain_for(wanted, &mut found, source, |platforms| fits(platforms, wanted))?;
    }
    let found = match <[Candidate; 1]>::try_from(found) {
        Ok([candidate]) => return Ok(candidate.image),
        Err(found) => found,
    };
    let several = |which: &str| {
        let words = format!("{what} holds {} images {which}", found.len());
        listed(Error::usage(words), source, &found)
    };
    Err(match choice {
        Choice::Digest(digest) if found.is_empty() => unknown(source, &candidates, &digest.to_string()),
        Choice::Name(name) if found.is_empty() => unknown(source, &candidates, name),
        Choice::Name(name) => several(&format!("called `{}`", printable(name))),
        Choice::Digest(_) | Choice::Index(_) | Choice::Only => several("and none was chosen"),
    })
}

/// Returns every image of `source` once, whatever the number of its names; with `platform`, only those that are for it
/// or do not say. What a store keeps without a name, as stages of builds are and the images of a list, is none of them.
pub fn all(source: &dyn Source, platform: Option<&Platform>) -> Result<Vec<Image>> {
    let (mut meant, unnamed): (Vec<_>, Vec<_>) =
        merged(source.images()?).into_iter().partition(|Candidate { image, .. }| {
            !image.companion || !image.names.is_empty() || image.digest().is_some()
        });
    if meant.is_empty() && !unnamed.is_empty() {
        let nameless = Error::source(format!("{} holds only images without a name", source.name()));
        return Err(listed(nameless, source, &unnamed));
    }
    if let (Some(wanted), false) = (platform, meant.is_empty()) {
        let unsaid_or_for = |platforms: &[Platform]| platforms.is_empty() || fits(platforms, wanted);
        retain_for(wanted, &mut meant, source, unsaid_or_for)?;
    }
    Ok(meant.into_iter().map(|candidate| candidate.image).collect())
}

/// Keeps the candidates whose platforms will do; an error if that is none of them.
fn retain_for(
    wanted: &Platform,
    candidates: &mut Vec<Candidate>,
    source: &dyn Source,
    will_do: impl Fn(&[Platform]) -> bool,
) -> Result<()> {
    let mut offered = Vec::new();
    candidates.retain(|candidate| {
        let platforms = candidate.platforms(source);
        let is_kept = will_do(&platforms);
        offered.extend(platforms);
        is_kept
    });
    if candidates.is_empty() { Err(wanted.not_offered(&offered, &source.name())) } else { Ok(()) }
}

fn fits(platforms: &[Platform], wanted: &Platform) -> bool {
    platforms.iter().any(|platform| platform.satisfies(wanted))
}

/// Returns the images that `choice` may mean.
fn meant(candidates: &[Candidate], choice: &Choice) -> Vec<Candidate> {
    let fitting = |fits: &dyn Fn(&Candidate) -> bool| -> Vec<Candidate> {
        candidates.iter().filter(|candidate| fits(candidate)).cloned().collect()
    };
    match choice {
        Choice::Digest(digest) => fitting(&|candidate| candidate.is(digest)),
        Choice::Index(_) | Choice::Only => match fitting(&|candidate| !candidate.image.companion) {
            none if none.is_empty() => candidates.to_vec(),
            found => found,
        },
        Choice::Name(name) => {
            let called = |name: &str| fitting(&|candidate| is_called(&candidate.image.names, name));
            let ways: [&dyn Fn() -> Vec<Candidate>; 4] = [
                &|| fitting(&|candidate| candidate.image.names.contains(name)),
                &|| called(name),
                // So podman calls what it builds, and so its users leave it out.
                &|| called(&format!("localhost/{name}")),
                &|| fitting(&|candidate| candidate.has_id(name)),
            ];
            ways.iter().map(|way| way()).find(|found| !found.is_empty()).unwrap_or_default()
        }
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
    /// Returns whether `digest` means this image: as its own, or as that of the manifest it was pulled with, of
    /// which Docker keeps only the name `repository@digest`.
    fn is(&self, digest: &Digest) -> bool {
        let is_named =
            |name: &String| name.rsplit_once('@').is_some_and(|(_, named)| digest.to_string() == named);
        [&self.digest, &self.image.id()].contains(&digest)
            || self.image.is_known_by(digest)
            || self.image.names.iter().any(is_named)
    }

    /// Returns whether `asked` is this image's ID, alone or behind a name of its repository.
    fn has_id(&self, asked: &str) -> bool {
        let (repository, id) = asked.rsplit_once('@').unwrap_or(("", asked));
        let is_of = |repository: &str| {
            let mut names = self.image.names.iter().filter_map(|name| name.split('@').next());
            names.any(|name| full(name).0 == full(repository).0)
        };
        let is_named = || is_of(repository) || is_of(&format!("localhost/{repository}"));
        let has_it = is_id(&self.digest, id) || is_id(&self.image.id(), id);
        has_it && (repository.is_empty() || is_named())
    }

    /// Returns the platforms it is for, read from its documents where the listing does not say it.
    fn platforms(&self, source: &dyn Source) -> Vec<Platform> {
        let of = |image: &Image| match (&image.platform, &image.content) {
            (Some(platform), _) => vec![platform.clone()],
            (None, ImageContent::Manifest(root)) => platforms(source, root),
            (None, _) => Vec::new(),
        };
        self.image.parts().iter().flat_map(of).collect()
    }
}

/// Makes one image of those that differ in name alone.
fn merged(images: Vec<Image>) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut known: HashMap<Digest, usize> = HashMap::new();
    for (at, image) in images.into_iter().enumerate() {
        let digest = image.identity();
        match known.entry(digest.clone()) {
            Entry::Occupied(place) => {
                let same = &mut candidates[*place.get()].image;
                same.companion &= image.companion;
                let new = image.names.into_iter().filter(|name| !same.names.contains(name));
                same.names.extend(new.collect::<Vec<_>>());
            }
            Entry::Vacant(place) => {
                place.insert(candidates.len());
                candidates.push(Candidate { at, digest, image });
            }
        }
    }
    candidates
}

fn unknown(source: &dyn Source, candidates: &[Candidate], asked: &str) -> Error {
    let words = format!("{} holds nothing called `{}`", source.name(), printable(asked));
    // A mistake may be in any part of the name, and the host is often left out.
    let short = |name: &'_ str| name.rsplit_once('/').map_or(0, |(repository, _)| repository.len() + 1);
    let names = candidates.iter().flat_map(|candidate| &candidate.image.names).flat_map(|name| {
        let short = &name[short(name)..];
        let names = [name.as_str(), short, short.split(':').next().unwrap_or(short)];
        names.into_iter().filter(|name| *name != asked)
    });
    let tagged = |name: &&str| name.strip_prefix(asked).is_some_and(|rest| rest.starts_with(':'));
    let meant = names
        .clone()
        .find(tagged)
        .or_else(|| similar(asked, names.clone()))
        .or_else(|| similar(&asked[short(asked)..], names));
    let error = match meant {
        Some(meant) => Error::usage(words).with_hint(format!("did you mean `{}`?", printable(meant))),
        None => Error::usage(words),
    };
    listed(error, source, candidates)
}

/// Adds what there is to choose from.
fn listed(error: Error, source: &dyn Source, candidates: &[Candidate]) -> Error {
    let (mut lines, mut platforms) = (Vec::new(), HashSet::new());
    for candidate in candidates.iter().take(LISTED) {
        let Candidate { at, digest, image } = candidate;
        let names = if image.names.is_empty() { "no name".into() } else { image.names.join(", ") };
        let of_this: Vec<String> = candidate.platforms(source).iter().map(Platform::to_string).collect();
        let facts = [[names].as_slice(), of_this.as_slice()].concat().join(", ");
        lines.push(format!("@{at}: {}, {digest}", printable(&facts)));
        platforms.insert(of_this);
    }
    let mut ways = "choose by name (`PATH:NAME`), position (`PATH:@N`) or digest (`PATH@DIGEST`)".to_owned();
    if platforms.len() > 1 {
        ways += ", or by `--platform`";
    }
    let error = lines.into_iter().fold(error.with_hint(ways), Error::with_hint);
    match candidates.len().saturating_sub(LISTED) {
        0 => error,
        more => error.with_hint(format!("and {more} more")),
    }
}

/// As many as fit a screen.
const LISTED: usize = 20;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        error::ErrorKind,
        oci::Descriptor,
        source::{Data, Layer},
    };

    fn image(content: &str, names: &[&str]) -> Image {
        let content = ImageContent::Manifest(Descriptor::new("x", Digest::of(content.as_bytes()), 1));
        Image::new(names.iter().map(|name| (*name).to_owned()).collect(), content)
    }

    /// A source that has these images, and no documents of them.
    struct Listed(Vec<Image>);

    impl Source for Listed {
        fn name(&self) -> String {
            "it".into()
        }

        fn images(&self) -> Result<Vec<Image>> {
            Ok(self.0.clone())
        }

        fn open(&self, _: &Layer) -> Result<Data> {
            Err(Error::source("missing"))
        }
    }

    fn chosen_for(images: &[Image], choice: &Choice, platform: &str) -> Result<String> {
        let platform = platform.parse().ok();
        choose(&Listed(images.to_vec()), choice, platform.as_ref()).map(|image| image.names.join(" "))
    }

    fn chosen(images: &[Image], choice: &Choice) -> Result<String> {
        chosen_for(images, choice, "")
    }

    fn on(platform: &str, image: Image) -> Image {
        Image { platform: Some(platform.parse().unwrap()), ..image }
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
        // podman's users leave out what it puts before the names of what it builds; Docker's mean the Hub.
        let built = [image("a", &["localhost/a:1"]), image("c", &["localhost/x/c:latest"])];
        assert_eq!(by_name(&built, "a:1").unwrap(), "localhost/a:1");
        assert_eq!(by_name(&built, "x/c").unwrap(), "localhost/x/c:latest");
        assert!(by_name(&built, "example.com/a:1").is_err());
        let both = [image("a", &["localhost/a:1"]), image("b", &["docker.io/library/a:1"])];
        assert_eq!(by_name(&both, "a:1").unwrap(), "docker.io/library/a:1");
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
    fn a_name_that_is_like_one_there_is_asked_back() {
        let images = [image("a", &["docker.io/library/tiny:latest"]), image("b", &["localhost/app:v1"])];
        for (asked, meant) in [
            ("tny", Some("did you mean `tiny`?")),
            ("tiny:lastest", Some("did you mean `tiny:latest`?")),
            ("app", Some("did you mean `app:v1`?")),
            ("localhost/ap:v1", Some("did you mean `localhost/app:v1`?")),
            ("database", None),
        ] {
            let error = by_name(&images, asked).unwrap_err();
            let hints = error.hints();
            assert_eq!(hints.first().copied().filter(|hint| hint.starts_with("did")), meant, "{asked}");
            assert!(hints.iter().any(|hint| hint.starts_with("@1: localhost/app:v1")), "{hints:?}");
        }
    }

    #[test]
    fn a_digest_that_is_part_of_a_name_means_it() {
        let pulled = Digest::of(b"as it was pulled");
        let name = format!("r.example.com/a@{pulled}");
        let images = [image("a", &["r.example.com/a:1", &name]), image("b", &["b:1"])];
        assert!(chosen(&images, &Choice::Digest(pulled)).unwrap().starts_with("r.example.com/a:1"));
        assert!(chosen(&images, &Choice::Digest(Digest::of(b"other"))).is_err());
    }

    #[test]
    fn a_name_before_an_id_is_one_of_that_image() {
        let pulled = format!("r.example.com/b@{}", Digest::of(b"as it was pulled"));
        let images = [image("a", &["localhost/a:1"]), image("b", &["docker.io/library/tiny:1", &pulled])];
        let [a, b] = ["a", "b"].map(|content| Digest::of(content.as_bytes()).hex()[..12].to_owned());
        // As skopeo has it, the tag may be any.
        for name in ["localhost/a", "localhost/a:1", "localhost/a:2", "a"] {
            assert_eq!(by_name(&images, &format!("{name}@{a}")).unwrap(), "localhost/a:1", "{name}");
            assert!(by_name(&images, &format!("{name}@{b}")).is_err(), "{name}");
        }
        for name in ["tiny", "docker.io/library/tiny:1", "r.example.com/b"] {
            assert!(by_name(&images, &format!("{name}@{b}")).is_ok(), "{name}");
        }
        assert!(by_name(&images, &a).is_ok());
    }

    #[test]
    fn images_of_one_name_are_chosen_by_platform() {
        let images = [
            on("linux/amd64", image("a", &["x:1", "amd"])),
            on("linux/arm64/v8", image("b", &["x:1", "arm"])),
            on("linux/arm64", image("c", &["y:1", "other"])),
            on("windows/amd64", Image { companion: true, ..image("d", &["x:1"]) }),
        ];
        let name = |name: &str| Choice::Name(name.into());
        assert_eq!(chosen_for(&images, &name("x:1"), "linux/arm64").unwrap(), "x:1 arm");
        assert_eq!(chosen_for(&images, &name("x:1"), "linux/x86_64").unwrap(), "x:1 amd");
        assert_eq!(chosen_for(&images, &Choice::Only, "linux/amd64").unwrap(), "x:1 amd");
        // Whoever points at one image gets it, and hears elsewhere that it is for another platform.
        for choice in [Choice::Index(0), Choice::Digest(Digest::of(b"a")), name("amd")] {
            assert_eq!(chosen_for(&images, &choice, "linux/arm64").unwrap(), "x:1 amd");
        }
        for (choice, platform, words, hint) in [
            (name("x:1"), "", "3 images called `x:1`", "@1: x:1, arm, linux/arm64/v8, sha256:3e23"),
            (name("x:1"), "", "3 images", ", or by `--platform`"),
            (Choice::Only, "linux/arm64", "2 images and none was chosen", "@2: y:1, other, linux/arm64, "),
            (
                name("x:1"),
                "linux/s390x",
                "no image for `linux/s390x`",
                "linux/amd64, linux/arm64/v8, windows/amd64",
            ),
        ] {
            let error = chosen_for(&images, &choice, platform).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.message().contains(words), "{error:?}");
            assert!(error.hints().join("\n").contains(hint), "{error:?}");
        }
    }

    #[test]
    fn who_wants_all_and_gets_none_hears_what_there_is() {
        let unnamed = Image {
            content: ImageContent::Layers {
                config: Bytes::from_static(b"{}"),
                layers: Vec::new(),
                original: None,
            },
            companion: true,
            ..image("", &[])
        };
        let error = all(&Listed(vec![unnamed.clone()]), None).unwrap_err();
        assert!(error.message().contains("only images without a name"), "{error:?}");
        assert!(error.hints().concat().contains("@0: no name"), "{error:?}");
        let images = Listed(vec![unnamed, on("linux/amd64", image("a", &["x:1"]))]);
        assert_eq!(all(&images, None).unwrap().len(), 1);
        let error = all(&images, "linux/s390x".parse().ok().as_ref()).unwrap_err();
        assert!(error.message().contains("no image for `linux/s390x`"), "{error:?}");
        assert_eq!(all(&Listed(Vec::new()), None).unwrap().len(), 0);
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
