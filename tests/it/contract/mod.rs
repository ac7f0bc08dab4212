//! One contract for all sources: the same image arrives, whatever it was packed in. Its diff IDs and its config
//! are the same, so is its manifest where one has to be made (and where one that was seen goes with layers that were
//! encoded anew), and what podman and umoci unpack of it is the same
//! file tree, down to owners, times, capabilities and hard links.

mod packaging;

use std::collections::BTreeMap;

use longshore::oci::ImageConfig;
use serde_json::Value;

use self::packaging::{Arrives, Bench, Packaging};
use crate::support::{
    capability::is_unavailable, docker_registry::DockerRegistry, longshore::Longshore, podman::Podman,
    read_back::ReadBack, same::same, samples, skopeo, tree::Tree,
};

/// The image, as an independent reader found it in one packaging.
struct Expected {
    config: String,
    diff_ids: Vec<String>,
}

/// What arrived, by manifest digest: where it was pushed to first, and the digest of its config.
type Arrived = BTreeMap<String, (String, String)>;

/// The manifests that were made, by what they were made from.
type Made = BTreeMap<Arrives, String>;

#[test]
fn an_image_is_the_same_in_every_packaging() {
    if is_unavailable("docker-registry") || is_unavailable("skopeo") {
        return;
    }
    let registry = DockerRegistry::start();
    let bench = Bench::new(&registry);
    let expected = Expected::read();
    let (mut arrived, mut made, mut problems) = (Arrived::new(), Made::new(), Vec::new());
    for (number, packaging) in packaging::all().into_iter().enumerate() {
        let reference = format!("{}/contract/{number}:1", registry.host());
        match push(&packaging, &bench, &reference, &expected, &mut made) {
            Ok((manifest, config)) => {
                arrived.entry(manifest).or_insert((reference, config));
            }
            Err(problem) => problems.push(format!("{}: {problem}", packaging.name)),
        }
    }
    if !["podman", "root", "umoci"].into_iter().any(is_unavailable) {
        problems.extend(unpack_all(&arrived).err());
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Pushes the image in one packaging and reads it back; returns the digests of its manifest and its config.
/// `made` are the manifests that were made for the packagings before.
fn push(
    packaging: &Packaging,
    bench: &Bench<'_>,
    reference: &str,
    expected: &Expected,
    made: &mut Made,
) -> Result<(String, String), String> {
    let source = (packaging.pack)(bench);
    let mut arguments = vec!["push".to_owned()];
    arguments.extend(source.arguments);
    arguments.push(reference.to_owned());
    // Each from an empty cache: none lives on what another has encoded.
    let longshore = Longshore::new();
    let run = match &source.piped {
        Some(file) => longshore.run_fed(file, &arguments),
        None => longshore.run(&arguments),
    };
    let pushed = run.pushed()?;
    let arrived = ReadBack::of(reference)?;
    let manifest = arrived.digest();
    same("the digest on stdout", manifest.as_str(), pushed.rsplit('@').next().unwrap_or_default())?;

    let contents = arrived.contents(&arrived.manifest)?;
    let plain: Vec<_> = contents.layers.into_iter().map(|layer| Some(layer?.plain)).collect();
    same("the layers", &expected.diff_ids.iter().cloned().map(Some).collect(), &plain)?;
    let config =
        ImageConfig::parse(&arrived.blob(&contents.config)?, "it").map_err(|error| error.to_string())?;
    let diff_ids: Vec<_> = config.diff_ids.iter().map(ToString::to_string).collect();
    same("the diff IDs", &expected.diff_ids, &diff_ids)?;
    if packaging.arrives != Arrives::Described {
        same("the config", &expected.config, &contents.config)?;
    }
    match packaging.arrives {
        Arrives::Encoded | Arrives::Rewritten(_) => {
            let first = made.entry(packaging.arrives).or_insert_with(|| manifest.clone());
            same("the manifest", first, &manifest)?;
        }
        Arrives::Kept(sample) => same("the manifest", &expected.manifest_in(sample), &manifest)?,
        Arrives::Described | Arrives::Verbatim => {}
    }
    Ok((manifest, contents.config))
}

/// Unpacks all that arrived with two tools, which must give one file tree.
fn unpack_all(arrived: &Arrived) -> Result<(), String> {
    let mut first: Option<Tree> = None;
    for (reference, config) in arrived.values() {
        let dir = tempfile::tempdir().unwrap();
        // Each in a storage of its own: podman would take a layer that it has already for the same.
        let podman = Podman::at(dir.path().to_owned());
        let id = podman.pull(reference)?;
        same("podman's ID of the image", config.as_str(), &format!("sha256:{id}"))?;
        let roots = [("podman", podman.mount(reference)?), ("umoci", skopeo::unpack(reference, dir.path())?)];
        for (tool, root) in roots {
            let tree = Tree::read(&root).map_err(|error| format!("{tool}: {error}"))?;
            let differences = first.get_or_insert_with(|| tree.clone()).differences(&tree);
            if !differences.is_empty() {
                return Err(format!("{tool}, {reference}:\n{}", differences.join("\n")));
            }
        }
    }
    // Of the base layer's files without those that the layers above remove, and with what they add.
    same("the number of files", &Some(58), &first.map(|tree| tree.size()))
}

impl Expected {
    fn read() -> Self {
        let image = &entry("docker-archive/podman-save.tar")["images"][0];
        let diff_ids = image["diff_ids"].as_array().unwrap().iter();
        Self {
            config: image["config"].as_str().unwrap().to_owned(),
            diff_ids: diff_ids.map(|id| id.as_str().unwrap().to_owned()).collect(),
        }
    }

    /// Returns the digest of the manifest that a sample holds of the image.
    fn manifest_in(&self, sample: &str) -> String {
        let entry = entry(sample);
        let found = entry["images"].as_array().unwrap().iter().find(|image| image["config"] == self.config);
        found.unwrap()["manifest"].as_str().unwrap().to_owned()
    }
}

fn entry(sample: &str) -> Value {
    let kind = sample.split('/').next().unwrap_or_default();
    let found = samples::good(kind).into_iter().find(|(name, _)| name == sample);
    found.unwrap_or_else(|| panic!("`{sample}` is not in expected.json")).1
}
