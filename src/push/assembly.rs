//! One index of images that lie in several places: the platforms that a build has made one by one.
//!
//! It is delivered as one image is, so blobs that several platforms share are encoded and sent once, and the index comes
//! last. An image without a manifest has a digest only when its layers are encoded: until then the index knows it by its
//! config, as [`draft`](super::wanted::draft) expects. The order of the sources is the order of the index.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Cargo, Forecast, Intent, Options, Press, Pushed, Target, absorb::Absorbed,
    delivery::if_exists::all_skipped, read,
};
use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    oci::{Content, Descriptor, Digest, ImageConfig, Manifest, Platform, media_type::Family},
    source::{
        Image, ImageContent, Input, Missing, Source, SourceSpec, choose, platforms, resolve, sources::Sources,
    },
};

/// Images of several places on disk, on their way to one repository, or to several, as one multi-platform index.
#[derive(Debug)]
#[must_use = "a push does nothing until it is run"]
pub struct Assembly {
    /// Where the images lie, in the order of the index. A place that holds an index gives its children.
    pub sources: Vec<Opened>,
    /// Where the index goes.
    pub targets: Vec<Target>,
    /// What encodes layers, and where they are kept.
    pub press: Press,
    /// How.
    pub options: Options,
}

/// A place on disk that an index is assembled from, or a bundle: one of several.
#[derive(Debug)]
pub struct Opened {
    /// Where the image lies.
    pub input: Input,
    /// What the user called that place, and which of its images is meant.
    pub spec: SourceSpec,
}

impl Assembly {
    /// Pushes the images by their digests and the index under its tags, to one target after the other; what
    /// [`Push::run`](super::Push::run) says of results holds.
    pub async fn run(mut self) -> Result<Vec<Result<Pushed>>> {
        let giving = self.press.use_shared(self.options.shared_cache.take());
        tokio::join!(self.deliver(), giving).0
    }

    async fn deliver(self) -> Result<Vec<Result<Pushed>>> {
        if self.sources.iter().any(|source| matches!(source.input, Input::Pass(_)))
            && let Some(skipped) = all_skipped(&self.targets, self.options.if_exists).await
        {
            return Ok(skipped);
        }
        let (cargo, image, targets) = self.load(Intent::Push).await?;
        Ok(cargo.deliver(&image, targets).await)
    }

    /// Says what [`Assembly::run`] would do at each target, and does nothing, as [`Push::forecast`](super::Push) does.
    pub async fn forecast(mut self) -> Result<Vec<Result<Forecast>>> {
        let _giving = self.press.use_shared(self.options.shared_cache.take());
        let (cargo, image, targets) = self.load(Intent::Ask).await?;
        Ok(cargo.forecast(&image, targets).await)
    }

    /// Reads all sources, before anything is sent.
    async fn load(self, intent: Intent) -> Result<(Cargo, Image, Vec<Target>)> {
        let Self { sources: opened, targets, press, options } = self;
        if options.platform.is_some() {
            return Err(Error::usage("an index is of several platforms, and `--platform` picks one"));
        }
        let mut gathered = Gathered::default();
        let mut all_absorbed = Absorbed::default();
        for Opened { input, spec } in opened {
            let (source, absorbed) = read(input, &spec, None, &press, &options).await?;
            let image = choose(&*source, &spec.choice, None)?;
            gathered.add(&source, image)?;
            all_absorbed.extend(absorbed);
        }
        let Gathered { lines, images, absent, sources, .. } = gathered;
        let manifest = index(&lines)?;
        let content = ImageContent::Index { id: manifest.digest.clone(), manifest, images, absent };
        let image = Image::new(Vec::new(), content);
        let cargo = Cargo::new(Arc::new(sources), all_absorbed, press, options, intent);
        Ok((cargo, image, targets))
    }
}

/// The images of the sources that have been read so far.
#[derive(Default)]
struct Gathered {
    lines: Vec<Line>,
    images: Vec<Image>,
    /// What an index names and its source does not hold.
    absent: Vec<Descriptor>,
    sources: Sources,
    /// Which source brings which platform.
    platforms: Vec<(Platform, String)>,
}

impl Gathered {
    /// Adds the image of a source, or all that it is an index of.
    fn add(&mut self, source: &Arc<dyn Source>, mut image: Image) -> Result<()> {
        let within = (self.sources.names.len() + 1).to_string();
        let mut lines = match &image.content {
            ImageContent::Broken { error, .. } => {
                return Err(error.clone().while_doing(format!("reading {}", source.name())));
            }
            ImageContent::Layers { config, .. } => {
                let platform = ImageConfig::parse(config, &source.name())?.platform;
                let (digest, size) = (Digest::of(config), config.len() as u64);
                let line = Line::new(Some(Family::Oci.manifest()), digest, size).on(platform)?;
                self.sources.adopt(source, &within, &mut image);
                self.images.push(image);
                vec![line]
            }
            ImageContent::Index { manifest, .. } => {
                let lines = lines_of(manifest)?;
                self.sources.adopt(source, &within, &mut image);
                let ImageContent::Index { images, absent, .. } = image.content else { return Ok(()) };
                self.images.extend(images);
                self.absent.extend(absent);
                lines
            }
            ImageContent::Manifest(descriptor) => self.add_held(source, &image, descriptor)?,
        };
        let name = source.name();
        self.sources.names.push(name.clone());
        self.check(&lines, &name)?;
        lines.retain(|line| !self.lines.iter().any(|known| known.digest == line.digest));
        self.lines.extend(lines);
        Ok(())
    }

    /// Adds an image whose manifest or index the source holds; returns its lines.
    fn add_held(
        &mut self,
        source: &Arc<dyn Source>,
        image: &Image,
        descriptor: &Descriptor,
    ) -> Result<Vec<Line>> {
        self.sources.hold(source);
        // What is about an image is found as in one source.
        let companions = source.images()?.into_iter().filter(|image| image.companion);
        companions.for_each(|companion| self.sources.list(companion));
        let tree = resolve(&**source, descriptor, None)?;
        let root = tree.root();
        let Content::Index { manifests } = &root.content else {
            let platform = platform(&**source, root)?.or_else(|| descriptor.platform.clone());
            let Descriptor { media_type, digest, size, .. } = root.descriptor();
            self.images.push(image.clone());
            return Ok(vec![Line::new(media_type, digest, size).on(platform)?]);
        };
        let mut lines = lines_of(root)?;
        for (line, child) in lines.iter_mut().zip(manifests) {
            let Some(held) = tree.manifests.iter().find(|held| held.digest == child.digest) else {
                self.absent.push(child.clone());
                continue;
            };
            if line.platform()?.is_none() {
                *line = line.clone().on(platform(&**source, held)?)?;
            }
            self.images.push(child_of(image, child));
        }
        Ok(lines)
    }

    /// Makes sure that there is one image for each platform. Several of one index are that index's affair.
    fn check(&mut self, lines: &[Line], name: &str) -> Result<()> {
        let mut here = Vec::new();
        for line in lines {
            let Some(platform) = line.platform()? else { continue };
            let same =
                |(other, _): &&(Platform, String)| platform.satisfies(other) && other.satisfies(&platform);
            if let Some((_, other)) = self.platforms.iter().find(same) {
                return Err(Error::usage(format!("both are for {platform}: {other} and {name}")));
            }
            if !platform.is_unknown() {
                here.push((platform, name.to_owned()));
            }
        }
        if here.is_empty() {
            return Err(Error::source(format!("nothing says which platform it is for: {name}")));
        }
        self.platforms.extend(here);
        Ok(())
    }
}

/// One line of an index: its own, or one that another index had, with all that was said there.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    digest: Digest,
    size: u64,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Line {
    fn new(media_type: Option<String>, digest: Digest, size: u64) -> Self {
        Self { media_type, digest, size, rest: Map::new() }
    }

    /// Says which platform it is for, where that is known.
    fn on(mut self, platform: Option<Platform>) -> Result<Self> {
        if let Some(platform) = platform {
            let value = serde_json::to_value(platform).context(ErrorKind::Internal, writing)?;
            self.rest.insert(PLATFORM.to_owned(), value);
        }
        Ok(self)
    }

    fn platform(&self) -> Result<Option<Platform>> {
        let Some(value) = self.rest.get(PLATFORM) else { return Ok(None) };
        let platform = serde_json::from_value(value.clone());
        platform.context(ErrorKind::Source, || format!("reading the platform of {}", self.digest))
    }
}

const PLATFORM: &str = "platform";

/// Makes the index: Docker's list, if all that it names is Docker's.
fn index(lines: &[Line]) -> Result<Manifest> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u8,
        media_type: String,
        manifests: &'a [Line],
    }
    let is_dockers =
        |line: &Line| line.media_type.as_deref().is_some_and(|name| Family::of(name) == Family::Docker);
    let family = if lines.iter().all(is_dockers) { Family::Docker } else { Family::Oci };
    let index = Index { schema_version: 2, media_type: family.index(), manifests: lines };
    let bytes = serde_json::to_vec(&index).context(ErrorKind::Internal, writing)?;
    let digest = Digest::of(&bytes);
    Manifest::parse(bytes.into(), digest, None)
}

fn writing() -> String {
    "writing an index".to_owned()
}

/// Reads the lines of an index, with whatever they say.
fn lines_of(index: &Manifest) -> Result<Vec<Line>> {
    #[derive(Deserialize)]
    struct Document {
        manifests: Vec<Line>,
    }
    let document: Document = serde_json::from_slice(&index.bytes)
        .context(ErrorKind::Source, || format!("reading index {}", index.digest))?;
    Ok(document.manifests)
}

/// Returns the platform that an image's config says, if the source holds it.
fn platform(source: &dyn Source, image: &Manifest) -> Result<Option<Platform>> {
    match platforms::platform(source, image) {
        Err(error) if Missing::is_cause_of(&error) => Ok(None),
        said => said,
    }
}

/// A child of an index as an image of its own.
fn child_of(index: &Image, child: &Descriptor) -> Image {
    let content = ImageContent::Manifest(child.clone());
    Image { platform: child.platform.clone(), ..Image::new(index.names.clone(), content) }
}
