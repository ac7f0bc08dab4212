//! What becomes of layers: every recipe over every encoding a source may have them in.

use std::{collections::HashSet, io::Write as _, sync::Arc, thread};

use longshore::{
    ErrorKind,
    cache::Cache,
    codec::{Encoding, Recipe},
    error::chain,
    oci::Digest,
    push::Format,
};
use serde_json::{Value, json};

use super::{
    Pusher, REPOSITORY, assert_arrived, assert_holds,
    image::{Archive, Layout, gzip, layer, noise, plain},
    story,
};
use crate::support::registry::{Registry, Route};

const GZIP: Recipe = encode(Encoding::Gzip { level: 6 });
const NONE: Recipe = encode(Encoding::None);
const ZSTD: Recipe = encode(Encoding::Zstd { level: 3 });

const fn encode(encoding: Encoding) -> Recipe {
    Recipe::Encode { encoding, force: false }
}

fn pusher(recipe: Recipe) -> Pusher {
    let mut pusher = Pusher::new();
    pusher.options.recipe = recipe;
    pusher
}

/// Five layers, each packed in another way.
fn packed_alike() -> Vec<Vec<u8>> {
    let tar = |seed| layer(&noise(seed, 300_000));
    let half = tar(2);
    let (front, back) = half.split_at(200_000);
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&tar(4)).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&tar(5)).unwrap();
    let frames = [zstd::encode_all(&tar(3)[..100_000], 1), zstd::encode_all(&tar(3)[100_000..], 1)];
    vec![
        tar(1),
        [gzip(front), gzip(back)].concat(),
        frames.map(Result::unwrap).concat(),
        xz.finish().unwrap(),
        bzip2.finish().unwrap(),
    ]
}

fn manifest(registry: &Registry, reference: &str) -> Value {
    serde_json::from_slice(&registry.manifest(REPOSITORY, reference).unwrap().1).unwrap()
}

/// Returns what follows `tar` in the layers' media types, and makes sure that their bytes are such.
fn packings(registry: &Registry) -> Vec<String> {
    let manifest = manifest(registry, "1");
    let packing = |descriptor: &Value| {
        let name = descriptor["mediaType"].as_str().unwrap();
        let blob =
            registry.blob(REPOSITORY, &descriptor["digest"].as_str().unwrap().parse().unwrap()).unwrap();
        let packing = name.rsplit_once("tar").unwrap().1;
        let magic: &[u8] = match packing {
            "+gzip" | ".gzip" => &[0x1f, 0x8b],
            "+zstd" => &[0x28, 0xb5, 0x2f, 0xfd],
            _ => b"file\0",
        };
        assert!(blob.starts_with(magic), "{name}");
        packing.to_owned()
    };
    manifest["layers"].as_array().unwrap().iter().map(packing).collect()
}

#[test]
fn every_recipe_is_right_for_every_encoding_of_an_archive() {
    let archive = Archive::of_layers(packed_alike(), |_| {});
    for (recipe, expected) in [
        (Recipe::Keep, ["+gzip", "+gzip", "+zstd", "+gzip", "+gzip"]),
        (GZIP, ["+gzip"; 5]),
        (ZSTD, ["+zstd"; 5]),
        (NONE, [""; 5]),
    ] {
        for path in [archive.path(), archive.compressed()] {
            let registry = Registry::honest();
            pusher(recipe).push(&path, &registry).unwrap_or_else(|error| panic!("{recipe}: {error:?}"));
            assert_holds(&registry, &archive.layers);
            assert_eq!(packings(&registry), expected, "{recipe} {}", path.display());
        }
    }
}

#[test]
fn a_manifest_of_the_source_changes_in_its_layers_alone() {
    let layers = &packed_alike()[..3];
    let layout = Layout::of_layers(layers);
    for (recipe, expected) in [(GZIP, "+gzip"), (ZSTD, "+zstd"), (NONE, "")] {
        let registry = Registry::honest();
        pusher(recipe).push(layout.path(), &registry).unwrap();
        assert_holds(&registry, layers);
        assert_eq!(packings(&registry), [expected; 3]);
        let (mut before, mut after) =
            (serde_json::from_slice::<Value>(&layout.root.bytes).unwrap(), manifest(&registry, "1"));
        // The layer that is in this encoding already is left alone.
        let untouched = before["layers"].as_array().unwrap().iter().zip(after["layers"].as_array().unwrap());
        assert_eq!(untouched.filter(|(before, after)| before == after).count(), 1, "{recipe}");
        for document in [&mut before, &mut after] {
            document["layers"] = Value::Null;
        }
        assert_eq!(before, after);
    }
    let registry = Registry::honest();
    pusher(Recipe::Keep).push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
}

#[test]
fn an_encrypted_layer_stays_as_it_is() {
    let name = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    let layout = Layout::of_layers(&[layer(&noise(1, 50_000)), noise(2, 50_000)])
        .altered(|manifest| manifest["layers"][1]["mediaType"] = name.into());
    let before: Value = serde_json::from_slice(&layout.root.bytes).unwrap();
    for recipe in [GZIP, ZSTD, Recipe::Encode { encoding: Encoding::Gzip { level: 1 }, force: true }] {
        let registry = Registry::honest();
        pusher(recipe).push(layout.path(), &registry).unwrap();
        let after = manifest(&registry, "1");
        assert_eq!(after["layers"][1], before["layers"][1], "{recipe}");
        assert_ne!(after["layers"][0], before["layers"][0], "{recipe}");
    }
}

#[test]
fn a_layer_in_the_wanted_encoding_is_called_so() {
    let stargz = "containerd.io/snapshot/stargz/toc.digest";
    for (recipe, bytes, name, right) in [
        (GZIP, gzip(&layer(&noise(1, 50_000))), "tar", "+gzip"),
        (GZIP, gzip(&layer(&noise(1, 50_000))), "tar+zstd", "+gzip"),
        (NONE, layer(&noise(1, 50_000)), "tar+gzip", ""),
    ] {
        let layout = Layout::of_layers(std::slice::from_ref(&bytes)).altered(|manifest| {
            let layer = &mut manifest["layers"][0];
            layer["mediaType"] = format!("application/vnd.oci.image.layer.v1.{name}").into();
            layer["annotations"] = json!({ stargz: "x" });
        });
        let registry = Registry::honest();
        pusher(recipe).push(layout.path(), &registry).unwrap();
        assert_eq!(packings(&registry), [right], "{name}");
        let after = &manifest(&registry, "1")["layers"][0];
        assert_eq!(after["digest"], Digest::of(&bytes).to_string(), "its bytes are what they were");
        assert_eq!(after["annotations"][stargz], "x", "and so is what is said of them");
    }
}

/// Nobody's digest changes because of a wrong name: not the image's, and so not what was signed of it.
#[test]
fn a_layer_by_a_wrong_name_keeps_it_and_is_told_of() {
    let zstd = zstd::encode_all(&layer(&noise(1, 50_000))[..], 1).unwrap();
    let layout = Layout::of_layers(&[gzip(&layer(b"a")), zstd.clone(), layer(b"b")]).altered(|manifest| {
        manifest["layers"][1]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
    });
    let (registry, again) = (Registry::honest(), Registry::honest());
    let pusher = Pusher::new();
    assert_eq!(pusher.push(layout.path(), &registry).unwrap().digest, layout.root.digest);
    let told = pusher.warnings();
    assert!(told.len() == 1 && told[0].contains("is zstd, and its media type says gzip"), "{told:?}");
    assert!(told[0].contains(&Digest::of(&zstd).to_string()), "{told:?}");
    // The advice holds.
    let pusher = self::pusher(ZSTD);
    pusher.push(layout.path(), &again).unwrap();
    assert_eq!(packings(&again), ["+zstd"; 3]);
    assert_eq!(pusher.warnings(), Vec::<String>::new());
}

/// A layer may be there twice: as it is wanted and otherwise, by its name and by a wrong one.
#[test]
fn the_same_layer_in_several_encodings_is_pushed_alike_with_a_cold_and_a_warm_cache() {
    let plain = layer(&noise(1, 50_000));
    let (zipped, zstd) = (gzip(&plain), zstd::encode_all(&plain[..], 1).unwrap());
    for (recipe, layers, misnamed) in [
        (NONE, [&plain, &zipped], None::<usize>),
        (NONE, [&zipped, &plain], None),
        (GZIP, [&zstd, &zipped], Some(1)),
        (GZIP, [&zipped, &zstd], Some(0)),
    ] {
        let layers = layers.map(Clone::clone);
        let layout = Layout::of_layers(&layers).altered(|manifest| {
            if let Some(at) = misnamed {
                manifest["layers"][at]["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
            }
        });
        let pusher = pusher(recipe);
        let pushed = ["cold", "warm"].map(|cache| {
            let registry = Registry::honest();
            let pushed = pusher.push(layout.path(), &registry);
            let pushed = pushed.unwrap_or_else(|error| panic!("{recipe}, {cache}: {}", chain(&error)));
            assert_holds(&registry, &layers);
            pushed.digest
        });
        assert_eq!(pushed[0], pushed[1], "{recipe} {misnamed:?}");
    }
}

/// In an archive, whose layers no manifest names, each goes as it lies there; what is plain is gzipped.
#[test]
fn a_layer_in_two_encodings_is_called_what_is_pushed_of_it() {
    let plain = layer(&noise(1, 50_000));
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    for layers in [vec![zstd.clone(), plain.clone()], vec![plain.clone(), zstd]] {
        let pusher = Pusher::new();
        let before = Archive::of_layers(vec![plain.clone()], |_| {});
        pusher.push(&before.path(), &Registry::honest()).unwrap();
        let registry = Registry::honest();
        let archive = Archive::of_layers(layers, |_| {});
        pusher.push(&archive.path(), &registry).unwrap();
        // It looks at the bytes.
        packings(&registry);
        assert_holds(&registry, &archive.layers);
    }
}

#[test]
fn force_encodes_what_is_in_that_encoding_already() {
    let layers = [gzip(&layer(&noise(1, 100_000)))];
    let layout = Layout::of_layers(&layers);
    let encoding = Encoding::Gzip { level: 9 };
    for (force, same) in [(false, true), (true, false)] {
        let registry = Registry::honest();
        let pushed = pusher(Recipe::Encode { encoding, force }).push(layout.path(), &registry).unwrap();
        assert_eq!(pushed.digest == layout.root.digest, same);
        assert_holds(&registry, &layers);
    }
}

#[test]
fn an_index_is_rewritten_from_its_leaves() {
    let images = [vec![layer(&noise(1, 5000)), gzip(&layer(b"a"))], vec![layer(&noise(1, 5000))]];
    let layout = Layout::index(&[&images[0], &images[1]]);
    let registry = Registry::honest();
    let pushed = pusher(ZSTD).push(layout.path(), &registry).unwrap();
    assert_ne!(pushed.digest, layout.root.digest);
    let index = manifest(&registry, "1");
    for (child, layers) in index["manifests"].as_array().unwrap().iter().zip(&images) {
        let (_, bytes) = registry.manifest(REPOSITORY, child["digest"].as_str().unwrap()).unwrap();
        assert_eq!(child["size"], bytes.len());
        let child: Value = serde_json::from_slice(&bytes).unwrap();
        for (descriptor, layer) in child["layers"].as_array().unwrap().iter().zip(layers) {
            let digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
            assert!(plain(&registry.blob(REPOSITORY, &digest).unwrap()) == plain(layer));
        }
    }
    // Two configs and two layers, one of them in both images.
    assert_eq!(registry.exchanges(Route::Commit).len(), 4, "{}", story(&registry));
}

#[test]
fn another_format_has_other_names() {
    let layout = Layout::of_layers(&[gzip(&layer(b"a")), layer(b"b")]);
    let mut pusher = Pusher::new();
    pusher.options.format = Format::Docker;
    let registry = Registry::honest();
    pusher.push(layout.path(), &registry).unwrap();
    let (media_type, _) = registry.manifest(REPOSITORY, "1").unwrap();
    assert_eq!(media_type, "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(packings(&registry), [".gzip", ""]);
    pusher.options.recipe = ZSTD;
    let error = pusher.push(layout.path(), &registry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error:?}");
}

#[test]
fn a_damaged_layer_is_found_while_it_is_encoded() {
    let layers = [gzip(&layer(&noise(1, 100_000)))];
    let layout = Layout::of_layers(&layers);
    let path = layout.blob(&layout.blobs[0]);
    let mut bytes = fs_err::read(&path).unwrap();
    bytes[50_000] ^= 1;
    fs_err::write(&path, bytes).unwrap();
    let registry = Registry::honest();
    let error = pusher(ZSTD).push(layout.path(), &registry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(registry.tags(REPOSITORY).is_empty(), "{}", chain(&error));
}

#[test]
fn promise_3_every_recipe_gives_one_digest() {
    let archive = Archive::of(&[5 << 20, 1000]);
    let zstd = archive.dir().join("image.tar.zst");
    fs_err::write(&zstd, zstd::encode_all(&fs_err::read(archive.path()).unwrap()[..], 1).unwrap()).unwrap();
    for recipe in [GZIP, ZSTD, NONE] {
        let mut digests = HashSet::new();
        for workers in [1, 2, 8] {
            for path in [archive.path(), archive.compressed(), zstd.clone()] {
                let mut pusher = pusher(recipe);
                pusher.workers = workers;
                for _ in 0..2 {
                    digests.insert(pusher.push(&path, &Registry::honest()).unwrap().digest);
                }
                pusher.cache.prune(0, None).unwrap();
                digests.insert(pusher.push(&path, &Registry::honest()).unwrap().digest);
                pusher.cache = Arc::new(Cache::scratch(archive.dir()));
                digests.insert(pusher.push(&path, &Registry::honest()).unwrap().digest);
            }
        }
        assert_eq!(digests.len(), 1, "{recipe}: {digests:?}");
    }
}

#[test]
fn promise_5_two_pushes_at_once_encode_each_layer_once() {
    let archive = Archive::of(&[8 << 20, 6 << 20, 3 << 20]);
    let one = pusher(ZSTD);
    let mut two = pusher(ZSTD);
    two.cache = Arc::clone(&one.cache);
    let registry = Registry::honest();
    let encoded = |pusher: &Pusher| {
        let layer = |event| match event {
            longshore::event::Event::Encoded { blob, .. } => Some(blob),
            _ => None,
        };
        pusher.events().into_iter().filter_map(layer).collect::<HashSet<_>>()
    };
    thread::scope(|scope| {
        for pusher in [&one, &two] {
            scope.spawn(|| pusher.push(&archive.path(), &registry).unwrap());
        }
    });
    assert_holds(&registry, &archive.layers);
    let (one, two) = (encoded(&one), encoded(&two));
    assert_eq!(one.len() + two.len(), 3, "{one:?} {two:?}");
}

#[test]
fn what_was_proven_once_is_not_inflated_again() {
    let gz = gzip(&layer(&noise(1, 100_000)));
    let digest = Digest::of(&gz);
    let archive = Archive::named(vec![(format!("{}.tar.gz", digest.hex()), gz.clone())]);
    let pusher = Pusher::new();
    pusher.push(&archive.path(), &Registry::honest()).unwrap();
    assert!(pusher.cache.proven(&digest).unwrap().is_some());
    // Known before it is read: the registry is asked first, and needs nothing.
    let registry = Registry::honest();
    registry.seed(REPOSITORY, &gz);
    pusher.push(&archive.path(), &registry).unwrap();
    assert_eq!(registry.calls(Route::Commit), 1, "the config alone: {}", story(&registry));
    // A name that lies is found out on the way.
    let mut level = libdeflater::Compressor::new(libdeflater::CompressionLvl::best());
    let mut recoded = vec![0; gz.len() + 1000];
    let size = level.gzip_compress(&plain(&gz), &mut recoded).unwrap();
    recoded.truncate(size);
    assert_ne!(recoded, gz);
    let lying = Archive::named(vec![(format!("{}.tar.gz", digest.hex()), recoded.clone())]);
    let registry = Registry::honest();
    pusher.push(&lying.path(), &registry).unwrap();
    assert!(registry.blob(REPOSITORY, &Digest::of(&recoded)).is_some());
}
