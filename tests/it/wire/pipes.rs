//! Archives that pass by: their layers leave before their end has come.

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    sync::Arc,
    thread,
};

use longshore::{
    ErrorKind,
    layout::write::blob_path,
    oci::Digest,
    source::{
        Input,
        detect::{self, SourceOptions},
        passed,
    },
};
use tar::{Builder, EntryType, Header};

use super::{
    Pusher, assert_holds,
    image::{Archive, gzip, layer, noise},
    story,
};
use crate::support::registry::{Registry, Route};

/// An archive in a FIFO, of which the rest is held back until the registry has the first layer.
#[test]
fn the_first_layer_of_a_pipe_arrives_before_the_second_has_begun() {
    let archive = Archive::of(&[60_000, 500]);
    let bytes = fs_err::read(archive.path()).unwrap();
    let held = position(&bytes, &archive.layers[1]);
    let pipe = fifo(&archive);
    let registry = Arc::new(Registry::honest());
    let (there, end) = (Arc::clone(&registry), pipe.clone());
    // Nobody waits for who writes: a push that fails may never read.
    thread::spawn(move || {
        let mut writer = fs_err::OpenOptions::new().write(true).open(end).unwrap();
        writer.write_all(&bytes[..held]).unwrap();
        there.wait_for(Route::Commit, 1);
        writer.write_all(&bytes[held..]).unwrap();
    });
    if let Err(error) = Pusher::new().push(&pipe, &registry) {
        panic!("{error:?}\n{}", story(&registry));
    }
    // Two layers and the config, each once.
    assert_eq!(registry.calls(Route::Commit), 3, "{}", story(&registry));
    assert_eq!(registry.tags(super::REPOSITORY), ["1"]);
}

/// docker up to 24 writes a layer that two images share once, and links to it from wherever it is named first.
#[test]
fn a_link_in_a_pipe_may_lead_to_what_comes_after_it() {
    let (plain, encoded) = (layer(&noise(1, 3000)), gzip(&layer(&noise(2, 3000))));
    for kind in [EntryType::Symlink, EntryType::Link] {
        let archive = Archive::of_layers(vec![plain.clone(), encoded.clone()], |_| {});
        let bytes = linked(&archive, kind);
        let pipe = fifo(&archive);
        let registry = Registry::honest();
        let end = pipe.clone();
        thread::spawn(move || fs_err::write(end, bytes).unwrap());
        if let Err(error) = Pusher::new().push(&pipe, &registry) {
            panic!("{error:?}\n{}", story(&registry));
        }
        assert_holds(&registry, &archive.layers);
    }
}

#[test]
fn what_the_cache_does_not_keep_of_an_archive_that_passes_arrives_all_the_same() {
    let archive = Archive::of(&[60_000, 500]);
    let (registry, pusher) = (Registry::honest(), Pusher::new());
    // Where entries should go.
    fs_err::write(pusher.cache.dir().join("longshore/encoded"), "").unwrap();
    if let Err(error) = pusher.push(&archive.compressed(), &registry) {
        panic!("{error:?}\n{}", story(&registry));
    }
    assert_holds(&registry, &archive.layers);
    assert!(pusher.warnings()[0].starts_with("the encoded layer is not kept"), "{:?}", pusher.warnings());
}

/// What the cache has of a layer is not encoded while the archive passes, and then it is too late.
#[test]
fn a_damaged_cache_is_no_fault_of_an_archive_that_passes() {
    let plain = layer(&noise(1, 60_000));
    let archive = Archive::named(vec![(format!("{}.tar", Digest::of(&plain).hex()), plain)]);
    let (pusher, path) = (Pusher::new(), archive.compressed());
    pusher.push(&path, &Registry::honest()).unwrap();
    let kept = pusher.cache.list().unwrap().remove(0).entry;
    fs_err::write(blob_path(pusher.cache.dir(), &kept.digest), vec![0; kept.size as usize]).unwrap();
    let error = pusher.push(&path, &Registry::honest()).unwrap_err();
    assert_eq!((error.kind(), error.hints()), (ErrorKind::Local, vec!["push it once more"]), "{error:?}");
    pusher.push(&path, &Registry::honest()).unwrap();
}

/// The list of a thousand images is large, and no layer.
#[test]
fn a_document_may_be_as_large_as_in_an_archive_that_is_read_in_place() {
    let archive = Archive::of(&[3000]);
    let bytes = fs_err::read(archive.path()).unwrap();
    let mut builder = Builder::new(Vec::new());
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if name.as_os_str() == "manifest.json" {
            content.resize(5 << 20, b' ');
        }
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, &content[..]).unwrap();
    }
    let packed = archive.dir().join("packed");
    fs_err::write(&packed, gzip(&builder.into_inner().unwrap())).unwrap();
    let registry = Registry::honest();
    if let Err(error) = Pusher::new().push(&packed, &registry) {
        panic!("{error:?}\n{}", story(&registry));
    }
    assert_holds(&registry, &archive.layers);
    let Input::Pass(pass) =
        detect::open(&packed.to_str().unwrap().parse().unwrap(), &SourceOptions::default()).unwrap()
    else {
        panic!("not a pass")
    };
    assert_eq!(passed::look(pass, None).unwrap().0.images().unwrap().len(), 1);
}

/// Returns the archive with each layer under another name, and before all of them links of their old names.
fn linked(archive: &Archive, kind: EntryType) -> Vec<u8> {
    let mut links = Builder::new(Vec::new());
    for number in 0..archive.layers.len() {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(0);
        // A hard link's target is a name in the archive, a symlink's one beside its own.
        let target = format!("{}shared/{number}.tar", if kind == EntryType::Symlink { "../" } else { "" });
        links.append_link(&mut header, format!("{number}/layer.tar"), target).unwrap();
    }
    let bytes = fs_err::read(archive.path()).unwrap();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut header = entry.header().clone();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let name = match name.strip_suffix("/layer.tar") {
            Some(number) => format!("shared/{number}.tar"),
            None => name,
        };
        links.append_data(&mut header, name, &mut entry).unwrap();
    }
    links.into_inner().unwrap()
}

fn position(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).unwrap() - 512
}

fn fifo(archive: &Archive) -> PathBuf {
    let path = archive.dir().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    path
}
