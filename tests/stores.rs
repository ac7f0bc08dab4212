//! Storages of podman, buildah and Docker are read from disk as they are: every sample is compared with what an
//! independent reader found in it, every layer rebuilt and hashed, and every broken one refused.
//!
//! The samples lie beside the repository, or a part of them in `fixtures/`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it does and stops")]

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use longshore::{
    Result,
    error::chain,
    oci::{Algorithm, Digest, Hasher},
    source::{
        Choice, Data, Image, ImageContent, Input, Layer, Source, SourceSpec, StorageOptions, choose,
        detect::{SourceOptions, open},
    },
};
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn good_stores_are_what_the_independent_reader_found() {
    let Some(samples) = samples() else { return };
    let expected: Value =
        serde_json::from_slice(&fs_err::read(samples.join("expected.json")).unwrap()).unwrap();
    let stores = expected.as_object().unwrap().iter().filter(|(key, _)| key.starts_with("stores/"));
    for (key, expected) in stores.filter(|(_, expected)| expected["format"] != "containerd-root") {
        if !samples.join(key).exists() {
            println!("NOT RUN: {key} is not in {}", samples.display());
            continue;
        }
        println!("{key}");
        let dir = unpacked(&samples.join(key));
        let source = source(dir.path()).unwrap();
        let images = source.images().unwrap();
        let listed = expected["images"].as_array().unwrap();
        assert_eq!(images.len(), listed.len());
        for expected in listed {
            let id: Digest = expected["config"].as_str().unwrap().parse().unwrap();
            let image = choose(source.as_ref(), &Choice::Digest(id), None).unwrap();
            check_image(source.as_ref(), &image, expected);
        }
    }
}

#[test]
fn bad_stores_are_refused_as_their_row_demands() {
    let Some(samples) = samples() else { return };
    let table = fs_err::read_to_string(samples.join("bad/EXPECT.tsv")).unwrap();
    for row in table.lines().filter(|row| row.starts_with("cs-")) {
        let fields: Vec<&str> = row.split('\t').collect();
        let [name, _, exit, word, ..] = fields[..] else { panic!("odd row: {row}") };
        let packed = samples.join(format!("bad/{name}.dir.tar.gz"));
        if !packed.exists() {
            println!("NOT RUN: {name} is not in {}", samples.display());
            continue;
        }
        let dir = unpacked(&packed);
        match read_all(&dir.path().join(name)) {
            Ok(()) => assert_eq!(exit, "0", "{name} was accepted"),
            Err(error) => {
                let said = chain(&error);
                println!("{name}: {said}");
                assert_eq!(error.kind().exit_code().to_string(), exit, "{name}: {said}");
                assert!(said.contains(word), "{name}: `{word}` is not in: {said}");
                assert!(!said.contains("panicked"), "{name}: {said}");
            }
        }
    }
}

/// Reads the only image of a store to its end, as a push does.
fn read_all(dir: &Path) -> Result<()> {
    let source = source(dir)?;
    let image = choose(source.as_ref(), &Choice::Only, None)?;
    for layer in layers(&image)? {
        let found = hashed(source.as_ref(), layer)?;
        if layer.diff_id.as_ref().unwrap().0 != found.0 {
            return Err(longshore::Error::source("diff ID mismatch"));
        }
    }
    Ok(())
}

fn samples() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = std::env::var_os("LONGSHORE_SAMPLES").map(PathBuf::from);
    let found = [beside.unwrap_or_else(|| root.join("../shared/samples")), root.join("fixtures")]
        .into_iter()
        .find(|dir| dir.join("expected.json").exists());
    if found.is_none() {
        println!("NOT RUN: neither ../shared/samples nor fixtures/ is here");
    }
    found
}

fn unpacked(archive: &Path) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    // Devices and strange owners do not matter to whoever reads, and cannot be made by everybody.
    let tar = Command::new("tar").arg("-xpzf").arg(archive).arg("-C").arg(dir.path()).output().unwrap();
    if !tar.status.success() {
        println!("{}", String::from_utf8_lossy(&tar.stderr));
    }
    dir
}

fn source(dir: &Path) -> Result<Box<dyn Source>> {
    match open(&dir.to_str().unwrap().parse::<SourceSpec>()?, &SourceOptions::default())? {
        Input::Indexed(source) => Ok(source),
        Input::Pass(pass) => panic!("{pass:?}"),
    }
}

fn layers(image: &Image) -> Result<&[Layer]> {
    match &image.content {
        ImageContent::Broken { error, .. } => Err(error.clone()),
        ImageContent::Layers { layers, .. } => Ok(layers),
        _ => panic!("a manifest: {image:?}"),
    }
}

fn check_image(source: &dyn Source, image: &Image, expected: &Value) {
    let ImageContent::Layers { config, layers, original } = &image.content else { panic!("{image:?}") };
    assert_eq!(Digest::of(config).to_string(), expected["config"]);
    let mut names = image.names.clone();
    let mut listed = strings(&expected["names"]);
    names.sort();
    listed.sort();
    assert_eq!(names, listed);
    let diff_ids: Vec<String> =
        layers.iter().map(|layer| layer.diff_id.as_ref().unwrap().to_string()).collect();
    assert_eq!(diff_ids, strings(&expected["diff_ids"]));
    for (layer, expected) in layers.iter().zip(expected["layers"].as_array().unwrap()) {
        let name = expected.get("id").or(expected.get("chain")).unwrap();
        assert_eq!(layer.name, *name);
        let (digest, size) = hashed(source, layer).unwrap();
        assert_eq!(digest.to_string(), expected["uncompressed"]);
        assert_eq!(size, expected["uncompressed_size"]);
    }
    let original = original.as_ref().map(|manifest| manifest.digest.to_string());
    assert_eq!(original.as_deref(), expected["manifest"].as_str());
}

fn hashed(source: &dyn Source, layer: &Layer) -> Result<(Digest, u64)> {
    let Data::Stream(mut stream) = source.open(layer)? else { panic!("not a stream: {layer:?}") };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    match io::copy(&mut stream, &mut hasher) {
        Ok(size) => Ok((hasher.finish(), size)),
        Err(error) => Err(error.downcast::<longshore::Error>().unwrap()),
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// No sample has composefs; but it differs from what a zstd:chunked pull leaves in where the files lie alone.
#[test]
fn layers_on_composefs_are_rebuilt_by_content() {
    let Some(samples) = samples() else { return };
    let packed = samples.join("stores/podman58-zstd-chunked-noconv.tar.gz");
    if !packed.exists() {
        println!("NOT RUN: {} is not here", packed.display());
        return;
    }
    let dir = unpacked(&packed);
    for layer in fs_err::read_dir(dir.path().join("overlay")).unwrap() {
        let layer = layer.unwrap().path();
        let id = layer.file_name().unwrap();
        let table = dir.path().join("overlay-layers").join(id).join("=enN0ZC1jaHVua2VkLW1hbmlmZXN0");
        if !table.exists() {
            continue;
        }
        let table: Value = serde_json::from_slice(&fs_err::read(table).unwrap()).unwrap();
        let unpacked = layer.join("unpacked");
        fs_err::rename(layer.join("diff"), &unpacked).unwrap();
        for entry in table["entries"].as_array().unwrap() {
            let Some(digest) = entry["digest"].as_str().filter(|_| entry["type"] == "reg") else { continue };
            let hex = digest.strip_prefix("sha256:").unwrap();
            let folder = layer.join("diff").join(&hex[..2]);
            fs_err::create_dir_all(&folder).unwrap();
            fs_err::copy(unpacked.join(entry["name"].as_str().unwrap()), folder.join(&hex[2..])).unwrap();
        }
        fs_err::create_dir(layer.join("composefs-data")).unwrap();
        fs_err::write(layer.join("composefs-data/composefs.blob"), "").unwrap();
        fs_err::remove_dir_all(unpacked).unwrap();
    }
    let source = source(dir.path()).unwrap();
    let image = choose(source.as_ref(), &Choice::Name("127.0.0.1:5917/zc:1".into()), None).unwrap();
    for layer in layers(&image).unwrap() {
        assert_eq!(hashed(source.as_ref(), layer).unwrap().0, layer.diff_id.as_ref().unwrap().0);
    }
}

#[test]
fn a_store_is_found_by_transport_and_by_the_folder_that_holds_it() {
    let Some(samples) = samples() else { return };
    let packed = samples.join("bad/cs-good-tiny.dir.tar.gz");
    if !packed.exists() {
        println!("NOT RUN: {} is not here", packed.display());
        return;
    }
    let dir = unpacked(&packed);
    let store = dir.path().join("storage");
    fs_err::rename(dir.path().join("cs-good-tiny"), &store).unwrap();
    let configured = SourceOptions {
        storage: StorageOptions { graphroot: Some(store.clone()), ..StorageOptions::default() },
        ..SourceOptions::default()
    };
    let store = store.display();
    for (text, options) in [
        (format!("{store}:localhost/tiny"), SourceOptions::default()),
        (format!("{}:localhost/tiny:latest", dir.path().display()), SourceOptions::default()),
        (format!("containers-storage:[overlay@{store}+/run/x]localhost/tiny"), SourceOptions::default()),
        ("containers-storage:localhost/tiny".to_owned(), configured.clone()),
        ("containers-storage:7555ce835e8e".to_owned(), configured),
    ] {
        let spec: SourceSpec = text.parse().unwrap();
        let Input::Indexed(source) = open(&spec, &options).unwrap() else { panic!("a pass") };
        let image = choose(source.as_ref(), &spec.choice, None).unwrap();
        assert_eq!(layers(&image).unwrap().len(), 1, "{text}");
    }
}
