//! What ocipkg makes is pushed, and ocipkg reads it back: a builder and a reader that share no code with ours.
//!
//! Its archives lack the file `oci-layout`, its manifests are an artifact's, and it reads plain HTTP only from
//! `localhost`.

use std::{collections::HashMap, path::Path};

use ocipkg::{
    ImageName,
    image::{Image as _, ImageBuilder, OciArchiveBuilder, OciArtifact, OciArtifactBuilder, OciDirBuilder},
    oci_spec::image::MediaType,
};

use crate::support::{longshore::Longshore, registry::Registry};

const LAYERS: [&[u8]; 3] = [b"first", b"", b"second"];

#[test]
fn an_artifact_in_an_archive_arrives_whole() {
    arrives_whole(|folder| {
        let path = folder.join("artifact.tar");
        build(OciArchiveBuilder::new_unnamed(path.clone()).unwrap());
        path
    });
}

#[test]
fn an_artifact_in_a_folder_arrives_whole() {
    arrives_whole(|folder| {
        let path = folder.join("artifact");
        build(OciDirBuilder::new_unnamed(path.clone()).unwrap());
        path
    });
}

fn build<B: ImageBuilder>(layout: B) {
    let mut artifact =
        OciArtifactBuilder::new(layout, MediaType::Other("application/x.test".into())).unwrap();
    for layer in LAYERS {
        artifact.add_layer(MediaType::Other("text/plain".into()), layer, HashMap::new()).unwrap();
    }
    artifact.add_title("made by ocipkg".into());
    artifact.build().unwrap();
}

fn arrives_whole(make: impl Fn(&Path) -> std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let source = make(folder.path());
    let registry = Registry::honest();
    let destination = format!("{}/made/by-ocipkg:1", registry.host().replace("127.0.0.1", "localhost"));
    let run = Longshore::new().run(["push".as_ref(), source.as_os_str(), destination.as_ref()]);
    run.pushed().unwrap();

    let mut arrived = OciArtifact::from_remote(ImageName::parse(&destination).unwrap()).unwrap();
    let layers: Vec<_> = arrived.get_layers().unwrap().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(layers, LAYERS);
    let title = arrived.get_manifest().unwrap().annotations().clone().unwrap_or_default();
    assert_eq!(title["org.opencontainers.image.title"], "made by ocipkg");
}
