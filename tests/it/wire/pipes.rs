//! Archives that pass by: their layers leave before their end has come.

use std::{io::Write as _, path::PathBuf, thread};

use super::{Pusher, image::Archive, story};
use crate::support::registry::{Registry, Route};

/// An archive in a FIFO, of which the rest is held back until the registry has the first layer.
#[test]
fn the_first_layer_of_a_pipe_arrives_before_the_second_has_begun() {
    let archive = Archive::of(&[60_000, 500]);
    let bytes = fs_err::read(archive.path()).unwrap();
    let held = position(&bytes, &archive.layers[1]);
    let pipe = fifo(&archive);
    let registry = Registry::honest();
    let pusher = Pusher::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = fs_err::OpenOptions::new().write(true).open(&pipe).unwrap();
            writer.write_all(&bytes[..held]).unwrap();
            registry.wait_for(Route::Commit, 1);
            writer.write_all(&bytes[held..]).unwrap();
        });
        if let Err(error) = pusher.push(&pipe, &registry) {
            panic!("{error:?}\n{}", story(&registry));
        }
    });
    // Two layers and the config, each once.
    assert_eq!(registry.calls(Route::Commit), 3, "{}", story(&registry));
    assert_eq!(registry.tags(super::REPOSITORY), ["1"]);
}

fn position(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).unwrap() - 512
}

fn fifo(archive: &Archive) -> PathBuf {
    let path = archive.dir().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    path
}
