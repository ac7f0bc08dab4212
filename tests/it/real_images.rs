//! Images made by real tools are pushed to a real registry and read back with skopeo: what arrives is what an
//! independent reader found in them.

use serde_json::Value;

use crate::support::{
    capability,
    docker_registry::DockerRegistry,
    longshore::Longshore,
    samples::{self, Sample},
    skopeo::{self, ReadBack},
};

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

/// Pushes every sample of a kind; all that went wrong is said together.
fn push_all(kind: &str) {
    if capability::is_unavailable("docker-registry") || capability::is_unavailable("skopeo") {
        return;
    }
    let registry = DockerRegistry::start();
    let samples = samples::good(kind);
    assert!(!samples.is_empty(), "no samples in {}", samples::folder().display());
    let check = |(name, expected): &(String, Value)| {
        let repository = format!("{}/{}", registry.host(), repository_name(name));
        let outcome = match name.as_str() {
            "oci/sparse-index-only" => refuse(name, "missing", &repository),
            "dir/v2s1" => refuse(name, "unsupported", &repository),
            _ => push(name, expected, &repository),
        };
        outcome.err().map(|problem| format!("{name}: {problem}"))
    };
    let problems: Vec<_> = samples.iter().filter_map(check).collect();
    assert!(problems.is_empty(), "{} of {} samples:\n{}", problems.len(), samples.len(), problems.join("\n"));
}

/// `oci-archive/podman-save.tar.gz` → `oci-archive/podman-save.tar.gz`; a legal name as it is.
fn repository_name(sample: &str) -> String {
    sample.to_lowercase()
}

/// An index whose children are nowhere, or a manifest that nobody takes, is not pushed.
fn refuse(name: &str, word: &str, repository: &str) -> Result<(), String> {
    let sample = Sample::open(name);
    let run = Longshore::new().run(["push", &sample.path.display().to_string(), &format!("{repository}:1")]);
    if run.code == Some(3) && run.stderr.contains(word) { Ok(()) } else { Err(format!("{run:?}")) }
}

fn push(name: &str, expected: &Value, repository: &str) -> Result<(), String> {
    let sample = Sample::open(name);
    let images = Expected::of(&sample, expected);
    let longshore = Longshore::new();
    for (number, image) in images.iter().enumerate() {
        let mut arguments = vec!["push".to_owned()];
        let mut path = sample.path.clone();
        if name == "oci/shared-blob-dir" {
            arguments.extend(["--blob-dir".to_owned(), path.join("blobs").display().to_string()]);
            path.push("layout");
        }
        // One of several has to be chosen.
        arguments.push(match &image.name {
            Some(name) if images.len() > 1 => format!("{}:{}:{name}", image.transport, path.display()),
            _ => path.display().to_string(),
        });
        let tagged = format!("{repository}:{number}");
        arguments.push(tagged.clone());
        let run = longshore.run(&arguments);
        let pushed = run.pushed().map_err(|problem| format!("{arguments:?}: {problem}"))?;
        let arrived = ReadBack::of(&tagged)?;
        let said = format!("{repository}@{}", arrived.digest());
        same("the line on stdout", said.as_str(), pushed)?;
        same("skopeo inspect --raw", &arrived.manifest, &skopeo::raw_manifest(&said)?)?;
        image.compare(&arrived)?;
    }
    Ok(())
}

/// One image to be pushed, and what must arrive.
struct Expected {
    transport: &'static str,
    /// What it is asked for by.
    name: Option<String>,
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
    plain_layers: Vec<String>,
}

impl Expected {
    /// Reads an entry of `expected.json`.
    fn of(sample: &Sample, expected: &Value) -> Vec<Self> {
        let images = &expected["images"];
        match expected["format"].as_str() {
            Some("oci") => Self::from_layout("oci", images),
            Some("oci-archive") => Self::from_layout("oci-archive", images),
            // Plain layers were never in a registry: a manifest is made of compressed ones.
            Some("dir") if images[0]["layers"][0]["compression"] == "none" => Self::from_docker(images),
            Some("dir") => Self::from_layout("dir", images),
            Some("docker-archive") => Self::from_docker(images),
            // A hybrid of both: docker's graph driver made up a manifest of raw layers that no registry ever
            // saw, and says so by LayerSources; the others kept the original, which is pushed as it is.
            Some("docker-archive+oci")
                if sample.entry("manifest.json").is_some_and(|m| m.contains("LayerSources")) =>
            {
                Self::from_docker(&images["docker"])
            }
            Some("docker-archive+oci") => Self::from_layout("oci-archive", &images["oci"]),
            other => panic!("{}: unknown format {other:?}", sample.name),
        }
    }

    fn from_layout(transport: &'static str, images: &Value) -> Vec<Self> {
        let images = images.as_array().unwrap();
        let top = images.iter().filter(|image| image["in"].is_null());
        let expected = top.map(|image| {
            let manifest = text(&image["manifest"]);
            let name = image["containerd_name"].as_str().or(image["ref"].as_str()).map(str::to_owned);
            let parts = if image["kind"] == "index" {
                images.iter().filter(|child| child["in"] == image["manifest"]).map(Part::of).collect()
            } else {
                vec![Part::of(image)]
            };
            Self { transport, name, manifest: Some(manifest), parts }
        });
        expected.collect()
    }

    fn from_docker(images: &Value) -> Vec<Self> {
        let expected = images.as_array().unwrap().iter().map(|image| Self {
            transport: "docker-archive",
            name: image["tags"][0].as_str().map(str::to_owned),
            manifest: None,
            parts: vec![Part { manifest: None, ..Part::of(image) }],
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
            let (config, plain_layers) = skopeo::contents(arrived, &manifest)?;
            same("config digest", &part.config, &config)?;
            same("plain layer digests", &part.plain_layers, &plain_layers)?;
        }
        Ok(())
    }
}

impl Part {
    fn of(image: &Value) -> Self {
        let layers = image["layers"].as_array().unwrap();
        Self {
            manifest: image["manifest"].as_str().map(str::to_owned),
            config: text(&image["config"]),
            plain_layers: layers.iter().map(|layer| text(&layer["uncompressed"])).collect(),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn same<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}
