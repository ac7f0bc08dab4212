//! `longshore inspect`: what people and machines are shown of a source, and what `--verify` finds in it.

use std::{io::Write as _, path::Path};

use serde_json::Value;

use crate::support::{
    longshore::{Longshore, Run},
    samples::{self, Sample},
    tmux::Terminal,
};

/// Kinds of samples whose images have a manifest each in `expected.json`.
const WITH_MANIFESTS: [&str; 3] = ["oci", "oci-archive", "dir"];

/// Good, but without an image that can be read from there.
const NOT_READ: [&str; 5] = [
    "dir/v2s1",
    "hand/docker1.9-no-manifest.tar",
    "hand/empty-index",
    "hand/nix2container",
    "oci/shared-blob-dir",
];

#[test]
fn a_row_fits_the_terminal() {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oci-archive/podman-save.tar");
    let longshore = Longshore::new();
    let command = longshore.prepare(["inspect", archive.to_str().unwrap()]);
    let lines =
        Terminal::run(60, 40, &command).until(|lines| lines.last().is_some_and(|line| line == "after 0"));
    let is_layer = |line: &&String| line.starts_with("  layer");
    let rows: Vec<_> = lines.iter().filter(is_layer).collect();
    assert_eq!(rows.len(), 5, "{lines:#?}");
    assert!(rows.iter().all(|row| row.chars().count() == 60 && row.ends_with('…')), "{lines:#?}");
    assert!(rows[0].contains(" 52.1 KiB  sha256:d2fd77eae453"), "{lines:#?}");
}

#[test]
fn an_index_is_shown_with_its_children() {
    insta::assert_snapshot!(shown("oci-archive/multiarch.tar"), @r"
    OCI archive `SAMPLE`

    @0 multi: 2 layers, 228 B
      index                     506 B  sha256:a41a7bdbd7aa9854e2eec4326082fd1ec302eb49eeb2839cd6a9e06c7f5938dd
      manifest  linux/amd64     499 B  sha256:f2da022f023f671ff86d72300ec2ab6aa93211bc384faee418937e363d5bf925
      config                    323 B  sha256:7555ce835e8ed4a855438b0bc0af6928142b3cc54220c97771eba61b34d0c258
      layer     gzip            114 B  sha256:b2b5824cf1242bdb603a25fa9c82312882c3fe09f6d74a68e1a52801e91703b5
      manifest  linux/arm64/v8  499 B  sha256:8c14374456ba20d3c64d8834be10f3a72f347ed8e00feb400f9542a8485f8540
      config                    338 B  sha256:e86fc5ec5646c72df4af6412fceac9365d8ffe15a694c0d18277d0b79691d570
      layer     gzip            114 B  sha256:8338efac73967e601cf1c23e8e474b3bac395a75983d136cb83ac448482be23f
    ");
}

#[test]
fn an_image_without_a_manifest_is_shown_by_its_diff_ids() {
    insta::assert_snapshot!(shown("docker-archive/crane-pull.tar"), @r"
    docker archive `SAMPLE`

    @0 127.0.0.1:5917/sample:1: 5 layers, 62.6 KiB
      config  linux/amd64   1.2 KiB  sha256:b0f4100048823624503753a11b867f67cfe9399842a3ff7602ac58f338d94d53
      layer   gzip         52.1 KiB  diff ID sha256:d51ba923b1fabee3715e63a7c97555dbae88e782f4ffbc2441e83aa9db9e6abd
      layer   gzip            423 B  diff ID sha256:3ba33f4087d225d29539dd9857f510477503bf4c66dcbd4e5afee21a23b6b9f9
      layer   gzip         10.0 KiB  diff ID sha256:c3885b7db1ab6b064f940874cb0678893fade4fc7284db0312ce276efb7725e6
      layer   gzip             34 B  diff ID sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
      layer   gzip             34 B  diff ID sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
    ");
}

#[test]
fn what_was_read_is_shown_by_its_digest_too() {
    let sample = Sample::open("docker-archive/crane-pull.tar");
    let verified =
        inspect(&sample, &["--verify"]).stdout.replace(&sample.path.display().to_string(), "SAMPLE");
    insta::assert_snapshot!(verified, @r"
    docker archive `SAMPLE`

    @0 127.0.0.1:5917/sample:1: 5 layers, 62.6 KiB
      config  linux/amd64   1.2 KiB  sha256:b0f4100048823624503753a11b867f67cfe9399842a3ff7602ac58f338d94d53
      layer   gzip         52.1 KiB  sha256:d2fd77eae45375b4db129e2a81fa56e395c000ef536ddd996b63354448302874, diff ID sha256:d51ba923b1fabee3715e63a7c97555dbae88e782f4ffbc2441e83aa9db9e6abd
      layer   gzip            423 B  sha256:012075a25df0be69b58ad54971bcd7b0d9223cc9186c18ca9c01e49d479b9f96, diff ID sha256:3ba33f4087d225d29539dd9857f510477503bf4c66dcbd4e5afee21a23b6b9f9
      layer   gzip         10.0 KiB  sha256:f33c2a8593a853312bceea4e30a2fb93d76d2982b5e3543f5a3b360d25ffdd3e, diff ID sha256:c3885b7db1ab6b064f940874cb0678893fade4fc7284db0312ce276efb7725e6
      layer   gzip             34 B  sha256:bd9ddc54bea929a22b334e73e026d4136e5b73f5cc29942896c72e4ece69b13d, diff ID sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
      layer   gzip             34 B  sha256:bd9ddc54bea929a22b334e73e026d4136e5b73f5cc29942896c72e4ece69b13d, diff ID sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
    ");
    // What passes by is read anyway.
    let dir = tempfile::tempdir().unwrap();
    let packed = dir.path().join("packed");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&fs_err::read(&sample.path).unwrap()).unwrap();
    fs_err::write(&packed, encoder.finish().unwrap()).unwrap();
    let passed = Longshore::new().run([Path::new("inspect"), &packed]).stdout;
    assert_eq!(passed.replace(&packed.display().to_string(), "SAMPLE"), verified);
}

#[test]
fn layers_of_a_store_have_the_size_of_their_tars() {
    let mut count = 0;
    for (name, expected) in samples::good("stores") {
        let run = inspect(&Sample::open(&name), &["--json"]);
        assert_eq!(run.code, Some(0), "{name}: {run:?}");
        let described: Value = serde_json::from_str(&run.stdout).unwrap();
        for document in described["images"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|image| &image["documents"].as_array().unwrap()[..])
        {
            let is_same = |entry: &&Value| entry["config"] == document["config"]["name"];
            let Some(entry) = expected["images"].as_array().unwrap().iter().find(is_same) else { continue };
            if document["digest"].is_null() {
                let sizes = |layers: &Value, key: &str| -> Vec<Value> {
                    layers.as_array().unwrap().iter().map(|layer| layer[key].clone()).collect()
                };
                let (found, tars) =
                    (sizes(&document["layers"], "size"), sizes(&entry["layers"], "uncompressed_size"));
                assert_eq!(found, tars, "{name}");
                count += found.len();
            }
        }
    }
    assert!(count > 0, "no stores in {}", samples::folder().display());
}

#[test]
fn good_samples_are_described_as_an_independent_reader_found_them() {
    let mut count = 0;
    for (name, expected) in WITH_MANIFESTS.iter().flat_map(|kind| samples::good(kind)) {
        if NOT_READ.contains(&name.as_str()) {
            continue;
        }
        let run = inspect(&Sample::open(&name), &["--json"]);
        assert_eq!(run.code, Some(0), "{name}: {run:?}");
        let described: Value = serde_json::from_str(&run.stdout).unwrap();
        for image in described["images"].as_array().unwrap() {
            for document in image["documents"].as_array().unwrap() {
                // Where the manifest is taken apart, the config says which one it was.
                let is_same = |entry: &&Value| match &document["digest"] {
                    Value::Null => entry["config"] == document["config"]["name"],
                    digest => entry["manifest"] == *digest,
                };
                let listed = expected["images"].as_array().or(expected["images"]["oci"].as_array()).unwrap();
                let entry = listed.iter().find(is_same).unwrap_or_else(|| panic!("{name}: {document}"));
                check(document, entry, &name);
                count += 1;
            }
        }
    }
    assert!(count > 0, "no samples in {}", samples::folder().display());
}

#[test]
fn good_samples_are_found_whole() {
    let kinds = ["oci", "oci-archive", "docker-archive", "dir", "hand", "stores"];
    let mut wrong = Vec::new();
    for (name, _) in kinds.iter().flat_map(|kind| samples::good(kind)) {
        if NOT_READ.contains(&name.as_str()) {
            continue;
        }
        let run = inspect(&Sample::open(&name), &["--verify"]);
        if run.code != Some(0) {
            wrong.push(format!("{name}: {}", run.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_samples_are_found_out() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for bad in samples::bad() {
        // A mode of 000 does not stop root.
        if bad.sample == "oci-blob-unreadable" {
            continue;
        }
        let exit = if bad.sample == "oci-layer-count-mismatch" { 3 } else { bad.exit };
        let run = inspect(&Sample::open(&format!("bad/{}", bad.sample)), &["--verify"]);
        if run.code != Some(exit) || !run.stderr.contains(&bad.message) {
            wrong.push(format!("{}: {:?} instead of {exit}: {}", bad.sample, run.code, run.stderr));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn one_image_of_several_can_be_asked_for() {
    let sample = Sample::open("docker-archive/docker28-save-multi.tar");
    let all: Value = serde_json::from_str(&inspect(&sample, &["--json"]).stdout).unwrap();
    let all = all["images"].as_array().unwrap();
    assert!(all.len() > 1);
    let second = format!("{}:@1", sample.path.display());
    let one = Longshore::new().run(["inspect", "--json", &second]);
    let one: Value = serde_json::from_str(&one.stdout).unwrap();
    assert_eq!(one["images"].as_array().unwrap(), &all[1..2]);
    assert_eq!(one["images"][0]["documents"][0]["platform"]["architecture"], "amd64");
}

#[test]
fn many_names_are_counted() {
    let table = inspect(&Sample::open("bad/da-manifest-tags-many.tar"), &[]).stdout;
    let first = table.lines().find(|line| line.starts_with("@0 ")).unwrap();
    assert!(first.starts_with("@0 x:0, x:1, ") && first.contains("x:9 and "), "{first}");
    assert!(first.ends_with(" more: 1 layer, 10.0 KiB"), "{first}");
}

/// Compares a described manifest with what is known of it.
fn check(document: &Value, entry: &Value, name: &str) {
    let layers = document["layers"].as_array().unwrap();
    let expected = entry["layers"].as_array().cloned().unwrap_or_default();
    assert_eq!(layers.len(), expected.len(), "{name}");
    for ((layer, expected), at) in layers.iter().zip(&expected).zip(0..) {
        let digest = if layer["digest"].is_null() { &layer["diffId"] } else { &layer["digest"] };
        assert_eq!(*digest, expected["digest"], "{name}");
        assert_eq!(layer["size"], expected["size"], "{name}");
        assert_eq!(layer["encoding"], expected["compression"], "{name}");
        assert_eq!(layer["diffId"], entry["diff_ids"][at], "{name}");
    }
}

/// Returns the table, with another name in the place of the sample's path.
fn shown(name: &str) -> String {
    let sample = Sample::open(name);
    let run = inspect(&sample, &[]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    run.stdout.replace(&sample.path.display().to_string(), "SAMPLE")
}

fn inspect(sample: &Sample, options: &[&str]) -> Run {
    let path = sample.path.display().to_string();
    Longshore::new().run([&["inspect"], options, &[path.as_str()]].concat())
}
