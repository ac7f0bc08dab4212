//! Images made by real tools, and by hand after their specifications, are pushed and read back: what arrives is
//! what an independent reader found in them. The registry is a real one and skopeo reads it, except for what
//! one of the two does not take.

use std::path::Path;

use serde_json::Value;

use crate::support::{
    capability,
    docker_registry::DockerRegistry,
    longshore::Longshore,
    read_back::{Layer, ReadBack},
    same::same,
    samples::{self, Sample},
    skopeo,
};

/// What is no image that could be pushed, with a word of the message.
const REFUSED: [(&str, &str); 4] = [
    // Its children are nowhere.
    ("oci/sparse-index-only", "missing"),
    // Nobody takes schema 1 any more.
    ("dir/v2s1", "unsupported"),
    ("hand/docker1.9-no-manifest.tar", "before 1.10"),
    ("hand/empty-index", "no images"),
];

/// What goes through the embedded registry, and why.
const EMBEDDED: [&str; 6] = [
    // skopeo would fetch the base of Windows from where its URL leads.
    "hand/foreign-layer",
    // skopeo copies no index in an index.
    "hand/nested-3",
    // docker-registry answers 500: such a layer needs a URL there.
    "hand/nondistributable-present",
    // docker-registry refuses a type of manifest that left the specification again.
    "hand/oci-artifact-manifest-removed",
    // skopeo 1.9 forgets the types of artifacts.
    "hand/referrers-fallback-tag",
    // skopeo takes every digest for one of SHA-256.
    "hand/sha512",
];

#[test]
fn oci_layouts_arrive_as_they_are() {
    push_all("oci");
}

#[test]
fn oci_archives_arrive_as_they_are() {
    push_all("oci-archive");
}

#[test]
fn docker_archives_arrive_with_their_configs_and_layers() {
    push_all("docker-archive");
}

#[test]
fn docker_dirs_arrive_with_their_manifests_unless_they_were_made_up() {
    push_all("dir");
}

#[test]
fn images_made_by_hand_arrive_as_they_are() {
    push_all("hand");
}

#[test]
fn images_of_a_storage_arrive_with_their_configs_and_layers() {
    push_all("stores");
}

/// Pushes every sample of a kind; all that went wrong is said together.
fn push_all(kind: &str) {
    if capability::is_unavailable("docker-registry") || capability::is_unavailable("skopeo") {
        return;
    }
    let registry = DockerRegistry::start();
    let samples = samples::good(kind);
    assert!(!samples.is_empty(), "no samples in {}", samples::folder().display());
    let check = |(name, expected): &(String, Value)| {
        let outcome = match REFUSED.iter().find(|(refused, _)| refused == name) {
            Some((_, word)) => refuse(name, word, &registry),
            None if name == "hand/nix2container" => push_described(name, &registry),
            None => push(name, expected, &registry),
        };
        outcome.err().map(|problem| format!("{name}: {problem}"))
    };
    let problems: Vec<_> = samples.iter().filter_map(check).collect();
    assert!(problems.is_empty(), "{} of {} samples:\n{}", problems.len(), samples.len(), problems.join("\n"));
}

/// `oci-archive/podman-save.tar.gz` → `HOST/oci-archive/podman-save.tar.gz`; a legal name as it is.
fn repository(registry: &DockerRegistry, sample: &str) -> String {
    format!("{}/{}", registry.host(), sample.to_lowercase())
}

fn refuse(name: &str, word: &str, registry: &DockerRegistry) -> Result<(), String> {
    let sample = Sample::open(name);
    let destination = format!("{}:1", repository(registry, name));
    let run = Longshore::new().run(["push", &sample.path.display().to_string(), &destination]);
    if run.code == Some(3) && run.stderr.contains(word) { Ok(()) } else { Err(format!("{run:?}")) }
}

fn push(name: &str, expected: &Value, registry: &DockerRegistry) -> Result<(), String> {
    let sample = Sample::open(name);
    let images = Expected::of(&sample, expected);
    if images.is_empty() {
        return Err("no image is expected of it".to_owned());
    }
    let longshore = Longshore::new();
    for (number, image) in images.iter().enumerate() {
        let mut arguments = Vec::new();
        let mut path = sample.path.clone();
        match name {
            "hand/nondistributable-present" => arguments.push("--allow-nondistributable".to_owned()),
            "oci/shared-blob-dir" => {
                arguments.extend(["--blob-dir".to_owned(), shown(&path.join("blobs"))]);
                path.push("layout");
            }
            _ => {}
        }
        // One of several has to be chosen.
        let choice = if images.len() > 1 { image.choice.as_str() } else { "" };
        let transport = if choice.is_empty() { "" } else { image.transport };
        arguments.push(format!("{transport}{}{choice}", path.display()));
        let arrived = if EMBEDDED.contains(&name) {
            push_into(&longshore, &arguments, &sample, number)?
        } else {
            push_to(&longshore, &arguments, &format!("{}:{number}", repository(registry, name)))?
        };
        image.compare(&arrived).map_err(|problem| format!("{arguments:?}: {problem}"))?;
    }
    Ok(())
}

/// Pushes to a registry; skopeo reads it back.
fn push_to(longshore: &Longshore, source: &[String], tagged: &str) -> Result<ReadBack, String> {
    let run = longshore.run(command_line(source, &[tagged]));
    let pushed = run.pushed().map_err(|problem| format!("{source:?}: {problem}"))?;
    let arrived = ReadBack::of(tagged)?;
    let (repository, _) = tagged.rsplit_once(':').unwrap_or_default();
    let said = format!("{repository}@{}", arrived.digest());
    same("the line on stdout", said.as_str(), pushed)?;
    same("skopeo inspect --raw", &arrived.manifest, &skopeo::raw_manifest(&said)?)?;
    Ok(arrived)
}

/// Pushes through the embedded registry into a folder.
fn push_into(
    longshore: &Longshore,
    source: &[String],
    sample: &Sample,
    number: usize,
) -> Result<ReadBack, String> {
    let folder = sample.path.with_extension("arrived");
    let repository = format!("demo-{number}");
    let run = longshore.run(command_line(source, &[&repository, "--into", &shown(&folder)]));
    let pushed = run.pushed().map_err(|problem| format!("{source:?}: {problem}"))?;
    let arrived = ReadBack::of_layout(folder.join(repository), "latest")?;
    let (_, said) = pushed.split_once('@').unwrap_or_default();
    same("the line on stdout", arrived.digest().as_str(), said)?;
    Ok(arrived)
}

fn command_line<'a>(source: &'a [String], destination: &[&'a str]) -> Vec<&'a str> {
    let source = source.iter().map(String::as_str);
    std::iter::once("push").chain(source).chain(destination.iter().copied()).collect()
}

/// Pushes a description of files, once it says where they are. One of its layers is still unpacked, which
/// is refused.
fn push_described(name: &str, registry: &DockerRegistry) -> Result<(), String> {
    let sample = Sample::open(name);
    let file = sample.path.join("image.json");
    let text = fs_err::read_to_string(&file).map_err(|error| error.to_string())?;
    let mut described: Value = serde_json::from_str(&text.replace("@SAMPLE@", &shown(&sample.path)))
        .map_err(|error| error.to_string())?;
    let longshore = Longshore::new();
    let destination = format!("{}:1", repository(registry, name));
    let push = |described: &Value| {
        fs_err::write(&file, described.to_string()).unwrap();
        push_to(&longshore, &[shown(&file)], &destination)
    };
    match push(&described) {
        Err(said) if said.contains("store paths") && said.contains("code: Some(3)") => {}
        Err(other) => return Err(other),
        Ok(_) => return Err("layers that are still store paths were pushed".to_owned()),
    }
    let layers = described["layers"].as_array_mut().ok_or("it has no layers")?;
    layers.pop();
    let plain = vec![Some(text_of(&layers[0]["diff_ids"]))];
    let arrived = push(&described)?;
    let layers = arrived.contents(&arrived.manifest)?.layers;
    same("plain layer digests", &plain, &layers.into_iter().map(|layer| Some(layer?.plain)).collect())
}

/// One image to be pushed, and what must arrive.
struct Expected {
    /// What stands before a path that has a choice behind it; empty where the content decides.
    transport: &'static str,
    /// What follows the path where the sample holds other images as well.
    choice: String,
    /// The digest of its manifest or index, where the source has one that is kept.
    manifest: Option<String>,
    /// The image itself, or the children of the index.
    parts: Vec<Part>,
}

/// A manifest of one platform.
struct Part {
    /// Absent where the manifest is made.
    manifest: Option<String>,
    config: String,
    /// What is compared of a layer.
    layer_digest: fn(Layer) -> String,
    /// Nothing where a layer is not in the source.
    layers: Vec<Option<String>>,
}

impl Expected {
    /// Reads an entry of `expected.json`.
    fn of(sample: &Sample, expected: &Value) -> Vec<Self> {
        let images = &expected["images"];
        match expected["format"].as_str() {
            // Plain layers were never in a registry: a manifest is made of compressed ones.
            Some("dir") if images[0]["layers"][0]["compression"] == "none" => Self::from_docker("", images),
            Some("dir" | "containerd-root") => Self::from_layout("", images),
            Some("oci") => Self::from_layout("oci:", images),
            Some("oci-archive") => Self::from_layout("oci-archive:", images),
            Some("docker-archive") => Self::from_docker("docker-archive:", images),
            Some("docker-dir-extracted" | "docker-root") => Self::from_docker("", images),
            Some(format) if format.starts_with("containers-storage(") => Self::from_docker("", images),
            // A hybrid of both: docker's graph driver made up a manifest of raw layers that no registry ever
            // saw, and says so by LayerSources; the others kept the original, which is pushed as it is.
            Some("docker-archive+oci")
                if sample.entry("manifest.json").is_some_and(|m| m.contains("LayerSources")) =>
            {
                Self::from_docker("docker-archive:", &images["docker"])
            }
            Some("docker-archive+oci") => Self::from_layout("oci-archive:", &images["oci"]),
            other => panic!("{}: unknown format {other:?}", sample.name),
        }
    }

    fn from_layout(transport: &'static str, images: &Value) -> Vec<Self> {
        let images = images.as_array().unwrap();
        let top = images.iter().filter(|image| image["in"].is_null());
        let expected = top.enumerate().map(|(number, image)| {
            let manifest = text_of(&image["manifest"]);
            let name = image["containerd_name"].as_str().or(image["ref"].as_str());
            let choice = match name {
                Some(name) => format!(":{name}"),
                // containerd's list is that of its content, and not of its images.
                None if transport.is_empty() => format!("@{manifest}"),
                None => format!(":@{number}"),
            };
            Self { transport, choice, parts: Part::below(image, images), manifest: Some(manifest) }
        });
        expected.collect()
    }

    fn from_docker(transport: &'static str, images: &Value) -> Vec<Self> {
        let expected = images.as_array().unwrap().iter().map(|image| {
            let name = image["tags"][0].as_str().or(image["names"][0].as_str()).unwrap_or_default();
            // Not every link to a layer was followed; the diff IDs say what must be there.
            let diff_ids = image["diff_ids"].as_array().unwrap().iter().map(|id| Some(text_of(id))).collect();
            let part = Part { manifest: None, layers: diff_ids, ..Part::of(image) };
            Self { transport, choice: format!(":{name}"), manifest: None, parts: vec![part] }
        });
        expected.collect()
    }

    fn compare(&self, arrived: &ReadBack) -> Result<(), String> {
        if let Some(manifest) = &self.manifest {
            same("manifest digest", manifest, &arrived.digest())?;
        }
        for part in &self.parts {
            let manifest = match &part.manifest {
                Some(child) if self.manifest.as_ref() != Some(child) => arrived.blob(child)?,
                _ => arrived.manifest.clone(),
            };
            let contents = arrived.contents(&manifest)?;
            same("config digest", &part.config, &contents.config)?;
            let layers = contents.layers.into_iter().map(|layer| Some((part.layer_digest)(layer?)));
            same("layer digests", &part.layers, &layers.collect())?;
        }
        Ok(())
    }
}

impl Part {
    /// Returns what an image consists of: itself, or if it is an index, what is below it.
    fn below(image: &Value, images: &[Value]) -> Vec<Self> {
        match image["kind"].as_str() {
            Some("index") => {
                let children = images.iter().filter(|child| child["in"] == image["manifest"]);
                children.flat_map(|child| Self::below(child, images)).collect()
            }
            // Its manifest says it all.
            Some("unknown") => Vec::new(),
            _ => vec![Self::of(image)],
        }
    }

    fn of(image: &Value) -> Self {
        // What is packed in an artifact is its own affair.
        let (layer_digest, key): (fn(Layer) -> String, _) = if image["kind"] == "artifact" {
            (|layer| layer.digest, "digest")
        } else {
            (|layer| layer.plain, "uncompressed")
        };
        let is_held = |layer: &&Value| layer["missing"] != true;
        let layers = image["layers"].as_array().unwrap().iter();
        Self {
            manifest: image["manifest"].as_str().map(str::to_owned),
            config: text_of(&image["config"]),
            layer_digest,
            layers: layers.map(|layer| Some(layer).filter(is_held).map(|l| text_of(&l[key]))).collect(),
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
