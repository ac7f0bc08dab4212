//! What real servers do to a push: Debian's docker-registry behind Debian's nginx, in two replicas, or killed in
//! the middle. The binary, as a user runs it; what arrived is read back by skopeo.

mod http2;
mod kills;
mod limits;
mod replicas;

use std::path::Path;

use longshore::oci::Digest;

use crate::{
    support::{capability::is_unavailable, longshore::Run, read_back::ReadBack},
    wire::image::Layout,
};

const MIB: usize = 1 << 20;

/// Two chunks and a half.
const LARGE: usize = 40 * MIB;

/// What longshore sends at once where nobody has said otherwise.
const CHUNK: usize = 16 * MIB;

fn is_possible() -> bool {
    !["docker-registry", "nginx", "skopeo"].into_iter().any(is_unavailable)
}

/// Pushes by `longshore push SOURCE HOST/REPOSITORY:1`.
fn arguments(source: &Path, host: &str, repository: &str) -> [String; 3] {
    ["push".to_owned(), source.display().to_string(), format!("{host}/{repository}:1")]
}

/// The push ended well, and the layout's image is what it said it pushed, and what is there.
#[track_caller]
fn assert_arrived(layout: &Layout, run: &Run, host: &str, repository: &str) {
    let expected = format!("{host}/{repository}@{}", layout.root.digest);
    assert_eq!(run.pushed(), Ok(expected.as_str()));
    let there = ReadBack::of(&format!("{host}/{repository}:1")).unwrap();
    assert_eq!(there.digest(), layout.root.digest.to_string());
    let contents = there.contents(&there.manifest).unwrap();
    assert!(contents.layers.iter().all(Option::is_some), "{contents:?}");
}

/// The push ended well, and what is there are these layers.
#[track_caller]
fn assert_holds(layers: &[Vec<u8>], run: &Run, host: &str, repository: &str) {
    run.pushed().unwrap();
    let there = ReadBack::of(&format!("{host}/{repository}:1")).unwrap();
    let contents = there.contents(&there.manifest).unwrap();
    let found: Vec<_> = contents.layers.into_iter().map(|layer| layer.map(|layer| layer.plain)).collect();
    let expected: Vec<_> = layers.iter().map(|layer| Some(Digest::of(layer).to_string())).collect();
    assert_eq!(found, expected);
}
