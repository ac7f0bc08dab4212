//! A push through one fault at a time: it ends well, what arrives is right (the registry hashes it), and what
//! was acknowledged is not sent again.

use std::{collections::HashMap, path::PathBuf, thread};

use ocipkg::{
    image::{OciArchiveBuilder, OciArtifactBuilder},
    oci_spec::image::MediaType,
};
use tempfile::TempDir;

use crate::support::{
    longshore::{Longshore, Run},
    registry::{Auth, Fault, Lie, Manners, Registry, Route, Script},
};

const KIB: usize = 1 << 10;
const CHUNK: usize = 1024 * KIB;
/// Three chunks, the last one smaller.
const LAYER: usize = 2 * CHUNK + 512 * KIB;

/// What goes wrong, where, at which call, and how many bytes of chunks may be read by the registry over those
/// of the layer.
type Case = (Route, usize, Fault, usize);

#[test]
fn one_fault_of_any_kind_is_survived() {
    let cases: Vec<Case> = vec![
        (Route::BlobHead, 1, Fault::status(500), 0),
        (Route::Commit, 1, Fault::DigestMismatch, LAYER),
        (Route::Commit, 1, Fault::LoseAnswer, 0),
        (Route::Commit, 1, Fault::reset(), 0),
        (Route::ManifestPut, 1, Fault::LoseAnswer, 0),
        (Route::Open, 1, Fault::status(500), 0),
        (Route::Patch, 1, Fault::AcceptOnly(9 * KIB), CHUNK - 9 * KIB),
        (Route::Patch, 1, Fault::Location(Some("{path}".into())), 0),
        (Route::Patch, 1, Fault::Range(Lie::Absent), 0),
        (Route::Patch, 1, Fault::Range(Lie::OffByOne), 0),
        (Route::Patch, 1, Fault::early(413, 64 * KIB), 64 * KIB),
        (Route::Patch, 1, Fault::early_and_linger(413, 64 * KIB), 64 * KIB),
        (Route::Patch, 2, Fault::Cut { after: 300 * KIB }, 0),
        (Route::Patch, 2, Fault::LoseAnswer, 0),
        (Route::Patch, 2, Fault::LoseSession, 2 * CHUNK),
        (Route::Patch, 2, Fault::Unauthorized, CHUNK),
        (Route::Patch, 2, Fault::status(429).header("Retry-After", "0"), CHUNK),
        (Route::Patch, 2, Fault::status(503), CHUNK),
    ];
    let survive = |case: &Case| {
        let (route, nth, fault, again) = case.clone();
        let registry = Registry::start(Script::new().on(route, nth, fault));
        let run = push(&registry);
        let sent = registry.bytes(Route::Patch);
        let problem = if run.pushed().is_err() || registry.tags("demo") != ["1"] {
            format!("{run:?}")
        } else if sent > (LAYER + again) as u64 {
            format!("{sent} bytes were sent")
        } else {
            return None;
        };
        Some(format!("{case:?}: {problem}"))
    };
    assert_eq!(problems(&cases, survive), Vec::<String>::new());
}

#[test]
fn registries_with_habits_are_coped_with() {
    let manners = Manners::default;
    let ecr =
        Manners { patch_status: 201, status: false, range: Some(Lie::Constant("0-10485759")), ..manners() };
    let cases = [
        ecr,
        Manners { range: Some(Lie::LastChunkOnly), ..manners() },
        Manners { equal_parts: true, keeps_closing_body: false, ..manners() },
        Manners { chunk_min: Some(1200 << 10), chunk_max: Some(1500 << 10), ..manners() },
        Manners { body_limit: Some(700 << 10), ..manners() },
        Manners { keeps_partial: false, ..manners() },
        Manners { refuses_whole: Some(500), ..manners() },
    ];
    let cope = |manners: &Manners| {
        let registry = Registry::start(Script::new().manners(manners.clone()));
        let run = push(&registry);
        let ended_well = run.pushed().is_ok() && registry.tags("demo") == ["1"];
        (!ended_well).then(|| format!("{manners:?}: {run:?}"))
    };
    assert_eq!(problems(&cases, cope), Vec::<String>::new());
}

#[test]
fn what_cannot_be_survived_tags_nothing() {
    let auth = Auth::Bearer { user: "me", password: "s3cret", expires_in: Some(60) };
    let cases = [
        (4, Script::new().manners(Manners { auth, ..Manners::default() })),
        (4, Script::new().always(Route::Open, Fault::status(403))),
        (5, Script::new().always(Route::ManifestPut, Fault::status(400))),
    ];
    let refuse = |(code, script): &(i32, Script)| {
        let registry = Registry::start(script.clone());
        let run = push(&registry);
        let right = run.code == Some(*code) && run.stdout.is_empty() && registry.tags("demo").is_empty();
        (!right).then(|| format!("{script:?}: {run:?}"))
    };
    assert_eq!(problems(&cases, refuse), Vec::<String>::new());
}

/// Tries all cases at once: most of them wait for something.
fn problems<T: Sync>(cases: &[T], trial: impl Fn(&T) -> Option<String> + Sync) -> Vec<String> {
    thread::scope(|scope| {
        let trials: Vec<_> = cases.iter().map(|case| scope.spawn(|| trial(case))).collect();
        trials.into_iter().filter_map(|trial| trial.join().unwrap()).collect()
    })
}

fn push(registry: &Registry) -> Run {
    let (_folder, image) = image();
    let chunk = format!("--chunk-size={CHUNK}");
    let destination = format!("{}/demo:1", registry.host());
    Longshore::new().run(["push".as_ref(), chunk.as_ref(), image.as_os_str(), destination.as_ref()])
}

/// Makes an archive with one large layer, which goes in chunks; the config goes whole.
fn image() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    let archive = OciArchiveBuilder::new_unnamed(path.clone()).unwrap();
    let mut artifact =
        OciArtifactBuilder::new(archive, MediaType::Other("application/x.test".into())).unwrap();
    let layer: Vec<u8> = (0..LAYER).map(|at| (at % 251) as u8).collect();
    artifact.add_layer(MediaType::Other("application/octet-stream".into()), &layer, HashMap::new()).unwrap();
    artifact.build().unwrap();
    (folder, path)
}
