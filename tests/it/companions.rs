//! Signatures, SBOMs and attestations: what becomes of them when their image is pushed.

use std::{path::Path, process::Command};

use longshore::oci::Digest;
use serde_json::{Value, json};

use crate::{
    support::{
        docker_registry::DockerRegistry,
        longshore::{Longshore, Run},
        registry::{Registry, Route},
        tool,
    },
    wire::image::{Document, INDEX, Layout, layer, noise},
};

const NAME: &str = "r.example/team/a:1";

/// An image, its signature under cosign's tag, a referrer that the layout lists, and one that is in a list of referrers
/// alone, as a registry keeps it.
struct Signed {
    layout: Layout,
    image: Document,
    tag: String,
    /// The three that are about the image.
    companions: [Document; 3],
}

impl Signed {
    fn new() -> Self {
        let layout = Layout::index(&[&[noise(1, 20_000)], &[noise(2, 3000)]]);
        let image = layout.children[0].clone();
        let signature = Layout::of_layers(&[b"a signature".to_vec()]);
        let [listed, hidden] =
            [&b"an SBOM"[..], b"an attestation"].map(|text| Layout::referrer(text, &image));
        for other in [&signature, &listed, &hidden] {
            layout.adopt(other);
        }
        let list = layout.put_index(&[&hidden.root]);
        let [tag, list_tag] = ["sha256-{}.sig", "sha256-{}"].map(|tag| tag.replace("{}", image.digest.hex()));
        layout.list(&[
            (&signature.root.descriptor(), Some(&tag)),
            (&image.descriptor(), Some(NAME)),
            (&listed.root.descriptor(), None),
            (&list.descriptor(), Some(&list_tag)),
            (&layout.children[1].descriptor(), Some("r.example/team/b:1")),
        ]);
        let companions = [signature, listed, hidden].map(|layout| layout.root);
        Self { layout, image, tag, companions }
    }

    fn push(&self, to: &str, more: &[&str]) -> Run {
        let source = format!("{}:{NAME}", self.layout.path().display());
        Longshore::new().run([&["push", &source, to], more].concat())
    }
}

fn get(registry: &DockerRegistry, path: &str) -> Value {
    let url = format!("http://{}/v2/team/a/{path}", registry.host());
    let accept = format!("Accept: {INDEX}");
    let output = Command::new("curl").args(["-sf", "-H", &accept, &url]).output().unwrap();
    assert!(output.status.success(), "{url}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn referrers(registry: &DockerRegistry, subject: &Digest) -> Vec<String> {
    let list = get(registry, &format!("manifests/sha256-{}", subject.hex()));
    let digests = list["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap());
    digests.map(str::to_owned).collect()
}

#[test]
fn what_is_about_an_image_travels_behind_it() {
    let (signed, registry) = (Signed::new(), DockerRegistry::start());
    let to = format!("{}/team/a:1", registry.host());
    // What somebody else said of the image stays listed.
    let other = Layout::referrer(b"of another", &signed.image);
    let by_digest = format!("{}/team/a@{}", registry.host(), other.root.digest);
    assert_eq!(signed.push(&to, &[]).code, Some(0));
    assert_eq!(Longshore::new().run(["push", path(&other), &by_digest]).code, Some(0));

    let run = signed.push(&to, &["--referrers", "--json"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let printed: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(printed["pushed"][0]["digest"], signed.image.digest.to_string());
    let mut expected = signed.companions.each_ref().map(|companion| companion.digest.to_string());
    let mut found: Vec<_> = printed["pushed"][0]["referrers"].as_array().unwrap().clone();
    found.sort_by_key(ToString::to_string);
    expected.sort();
    assert_eq!(found, expected);

    let tags = get(&registry, "tags/list")["tags"].clone();
    assert!(tags.as_array().unwrap().contains(&Value::from(signed.tag.as_str())), "{tags}");
    let mut listed = referrers(&registry, &signed.image.digest);
    let [_, sbom, attestation] = &signed.companions;
    let mut all = [&other.root, sbom, attestation].map(|referrer| referrer.digest.to_string());
    listed.sort();
    all.sort();
    assert_eq!(listed, all);
}

#[test]
fn what_is_about_an_image_stays_as_it_is_where_its_archive_passes() {
    let (registry, dir) = (Registry::honest(), tempfile::tempdir().unwrap());
    let image = Layout::of_layers(&[zstd::encode_all(&layer(b"a file")[..], 0).unwrap()]);
    let referrer = Layout::referrer(&layer(b"an SBOM in a tar"), &image.root);
    image.adopt(&referrer);
    image.list(&[(&image.root.descriptor(), Some(NAME)), (&referrer.root.descriptor(), None)]);
    let archive = dir.path().join("archive.tar.gz");
    tool::output(Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(image.path()).arg(".")).unwrap();
    let source = format!("{}:{NAME}", archive.display());
    let to = format!("{}/team/a:1", registry.host());
    let run = Longshore::new().run(["push", &source, &to, "--referrers", "--compression", "zstd"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(registry.manifest("team/a", &referrer.root.digest.to_string()).is_some());
}

#[test]
fn without_being_asked_for_it_stays() {
    let (signed, registry) = (Signed::new(), Registry::honest());
    let run = signed.push(&format!("{}/team/a:1", registry.host()), &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(registry.tags("team/a"), ["1"]);
    for companion in &signed.companions {
        assert!(registry.manifest("team/a", &companion.digest.to_string()).is_none());
    }
}

#[test]
fn an_image_is_not_made_anew_under_its_signatures() {
    let (signed, registry) = (Signed::new(), Registry::honest());
    let to = format!("{}/team/a:1", registry.host());
    for more in
        [&["--format=docker"][..], &["--format=docker", "--referrers"], &["--format=docker", "--dry-run"]]
    {
        let run = signed.push(&to, more);
        assert_eq!(run.code, Some(2), "{run:?}");
        for companion in [&format!("`{}`", signed.tag), &signed.companions[1].digest.to_string()] {
            assert!(run.stderr.contains(companion), "{companion}: {}", run.stderr);
        }
        assert!(run.stderr.contains("hint: `--remove-signatures`"), "{}", run.stderr);
    }
    assert_eq!(registry.calls(Route::Open) + registry.calls(Route::ManifestPut), 0);

    let run = signed.push(&to, &["--format=docker", "--remove-signatures"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(registry.tags("team/a"), ["1"]);
    // Nothing is said about this one.
    let source = format!("{}:r.example/team/b:1", signed.layout.path().display());
    let run = Longshore::new().run(["push", &source, &to, "--format=docker"]);
    assert_eq!(run.code, Some(0), "{run:?}");
}

#[test]
fn what_is_about_a_child_travels_with_its_index() {
    let registry = Registry::honest();
    let layout = Layout::index(&[&[noise(1, 2000)], &[noise(2, 300)]]);
    let signature = Layout::referrer(b"a signature", &layout.children[1]);
    layout.adopt(&signature);
    layout.list(&[(&layout.root.descriptor(), Some("x")), (&signature.root.descriptor(), None)]);
    let to = format!("{}/team/a:1", registry.host());
    let run = Longshore::new().run(["push", "--referrers", path(&layout), &to]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(registry.manifest("team/a", &signature.root.digest.to_string()).is_some());
}

#[test]
fn what_is_about_another_platform_stays_with_that() {
    let registry = Registry::honest();
    let layout = Layout::index(&[&[noise(1, 2000)], &[noise(2, 300)]]).altered(|index| {
        for (at, architecture) in ["amd64", "arm64"].iter().enumerate() {
            index["manifests"][at]["platform"] = json!({ "os": "linux", "architecture": architecture });
        }
    });
    let [here, there] = [&layout.children[0], &layout.children[1]].map(|child| {
        let signature = Layout::artifact(child.digest.hex().as_bytes(), child);
        layout.adopt(&signature);
        signature.root
    });
    layout.list(&[
        (&layout.root.descriptor(), Some("r.example/app:1")),
        (&here.descriptor(), None),
        (&there.descriptor(), None),
    ]);
    let to = format!("{}/team", registry.host());
    let run = Longshore::new().run(["push", "--all", path(&layout), &to, "--platform", "linux/amd64"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains(&format!("`{}` is left out", there.digest)), "{run:?}");
    let arrived =
        |repository: &str, one: &Document| registry.manifest(repository, &one.digest.to_string()).is_some();
    assert!(arrived("team/app", &here) && !arrived("team/app", &there) && !arrived("team", &there));
}

#[test]
fn what_has_a_name_of_its_own_travels_too() {
    let (registry, layout) = (Registry::honest(), Layout::of(&[2000]));
    let sbom = Layout::referrer(b"an SBOM", &layout.root);
    layout.adopt(&sbom);
    layout.list(&[
        (&layout.root.descriptor(), Some(NAME)),
        (&sbom.root.descriptor(), Some("r.example/sbom:1")),
    ]);
    let (source, to) = (format!("{}:{NAME}", path(&layout)), format!("{}/team/a:1", registry.host()));
    let run = Longshore::new().run(["push", &source, &to, "--format=docker"]);
    assert!(run.code == Some(2) && run.stderr.contains("r.example/sbom:1"), "{run:?}");
    let run = Longshore::new().run(["push", "--referrers", &source, &to]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(registry.manifest("team/a", &sbom.root.digest.to_string()).is_some());
    assert_eq!(registry.tags("team/a"), ["1"]);
}

#[test]
fn what_cosign_has_saved_is_found_by_it_again() {
    let registry = Registry::honest();
    let (image, signature, attestation) = (
        Layout::of(&[2000]),
        Layout::of_layers(&[b"a signature".to_vec()]),
        Layout::of_layers(&[b"a proof".to_vec()]),
    );
    let saved = |layout: &Layout, kind: &str| {
        let mut entry = layout.root.descriptor();
        entry["annotations"] = json!({ "kind": format!("dev.cosignproject.cosign/{kind}") });
        entry
    };
    image.adopt(&signature);
    image.adopt(&attestation);
    let entries = [saved(&image, "image"), saved(&signature, "sigs"), saved(&attestation, "atts")];
    image.list(&entries.each_ref().map(|entry| (entry, None)));
    let tags = ["sig", "att"].map(|suffix| format!("sha256-{}.{suffix}", image.root.digest.hex()));
    for (repository, more) in [("team/a", "--referrers"), ("team/b", "--all")] {
        let to = format!("{}/{repository}", registry.host());
        let run = Longshore::new().run(["push", path(&image), &to, more]);
        assert_eq!(run.code, Some(0), "{run:?}");
        for (tag, companion) in tags.iter().zip([&signature, &attestation]) {
            let (_, bytes) = registry.manifest(repository, tag).unwrap_or_else(|| panic!("{more}: no {tag}"));
            assert_eq!(bytes, companion.root.bytes, "{more}: {tag}");
        }
    }
}

fn path(layout: &Layout) -> &str {
    let path: &Path = layout.path();
    path.to_str().unwrap()
}

#[test]
fn what_is_about_a_part_of_an_index_is_treated_like_that_of_an_image() {
    let (signed, registry) = (Signed::new(), Registry::honest());
    let source = format!("{}:{NAME}", signed.layout.path().display());
    let push = |more: &[&str]| {
        let to = format!("{}/team/a:1", registry.host());
        Longshore::new().run([&["push", "--index", &source, &to], more].concat())
    };
    let run = push(&["--compression", "zstd", "--force-compression"]);
    assert!(run.code == Some(2) && run.stderr.contains(&signed.tag), "{run:?}");
    assert_eq!(registry.calls(Route::ManifestPut), 0);
    let run = push(&["--referrers"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for companion in &signed.companions {
        let (_, bytes) = registry.manifest("team/a", &companion.digest.to_string()).unwrap();
        assert_eq!(Digest::of(&bytes), companion.digest);
    }
    assert!(registry.tags("team/a").contains(&signed.tag));
}
