//! Rules 37 and 38: an upload that was cut off by the end of its process goes on in the next.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use longshore::{
    codec::Recipe,
    error::chain,
    oci::Digest,
    push::Resume,
    registry::{Credential, Learned, Lesson, Secret, Unfinished},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    CHUNK, Pusher, REPOSITORY, assert_arrived, assert_holds,
    image::{Archive, Layout, noise},
    sessions::{amazon, assert_begun_once, with_configs},
    story,
};
use crate::support::{
    longshore::Longshore,
    registry::{Fault, Lie, Manners, Registry, Route, Script},
};

/// Six chunks and a bit.
const LARGE: usize = 6 * CHUNK as usize + 1000;

/// More than one block of the encoder.
const BLOCKS: usize = 3 << 20;

/// A machine on which a push was killed when the registry had been asked for its `nth` chunk, and has not
/// answered.
struct Killed {
    pusher: Pusher,
    registry: Registry,
}

fn pusher(state: &Path) -> Pusher {
    let mut pusher = Pusher::new();
    pusher.options.resume = Resume::Keep(Unfinished::new(state));
    pusher
}

/// The answer to the `nth` chunk has to wait.
fn held_at_chunk(nth: usize, script: Script) -> Script {
    script.on(Route::Patch, nth, Fault::Await { route: Route::Other, calls: usize::MAX })
}

impl Killed {
    /// Pushes to a registry that follows `script`.
    fn at_chunk(path: &Path, nth: usize, state: &Path, script: Script) -> Self {
        let registry = Registry::start(held_at_chunk(nth, script));
        let host = registry.host();
        Self::push(pusher(state), registry, path, &host, nth)
    }

    /// Everything that runs is dropped, as a signal would; what a `kill -9` leaves is the same, since nothing is
    /// written at the end.
    fn push(pusher: Pusher, registry: Registry, path: &Path, host: &str, nth: usize) -> Self {
        let (push, runtime) = pusher.prepare(path, host, &format!("{REPOSITORY}:1")).unwrap();
        let end = Arc::new(Notify::new());
        let killed = Arc::clone(&end);
        let pushing = thread::spawn(move || {
            let ended_by_itself = runtime.block_on(async {
                tokio::select! {
                    _ = push.run() => true,
                    () = killed.notified() => false,
                }
            });
            runtime.shutdown_background();
            ended_by_itself
        });
        registry.wait_for(Route::Patch, nth);
        end.notify_one();
        assert!(!pushing.join().unwrap());
        registry.release();
        Self { pusher, registry }
    }
}

#[test]
fn rule_37_what_is_interrupted_is_kept_or_given_back() {
    let layout = Layout::of(&[LARGE]);
    // At the first chunk nothing is acknowledged yet.
    for (option, nth, gives_back) in
        [(None, 3, false), (Some("--no-resume"), 1, true), (Some("--no-resume"), 3, true)]
    {
        for refusal in [202, 401, 404, 405] {
            let held = Fault::Await { route: Route::Other, calls: usize::MAX };
            let script = Script::new().on(Route::Patch, nth, held);
            let registry = with_configs(&layout, script.always(Route::Cancel, Fault::status(refusal)));
            let destination = format!("{}/{REPOSITORY}:1", registry.host());
            let mut arguments = vec!["push", layout.path().to_str().unwrap(), &destination];
            arguments.extend(["--chunk-size=64KiB"].into_iter().chain(option));
            let user = Longshore::new();
            let running = user.start(&arguments);
            registry.wait_for(Route::Patch, nth);
            running.interrupt();
            let run = running.finish();
            assert_eq!((run.code, run.stdout.as_str()), (Some(130), ""), "{run:?}");
            assert_eq!(registry.calls(Route::Cancel), usize::from(gives_back), "{}", story(&registry));
            registry.release();

            let before = registry.bytes(Route::Patch);
            user.run(&arguments).pushed().unwrap();
            assert_arrived(&layout, &registry);
            let kept = registry.bytes(Route::Patch) - before < LARGE as u64;
            assert_eq!(kept, !gives_back, "{}", story(&registry));
        }
    }
}

#[test]
fn rule_37_a_registry_that_has_more_than_we_know_is_asked_before_it_is_given_back() {
    let layout = Layout::of(&[LARGE]);
    let held = Fault::Await { route: Route::Other, calls: usize::MAX };
    for (refusal, cancels) in [(400, 2), (416, 2), (404, 1)] {
        let script = Script::new().on(Route::Patch, 2, held.clone());
        let registry = with_configs(&layout, script.on(Route::Cancel, 1, Fault::status(refusal)));
        let destination = format!("{}/{REPOSITORY}:1", registry.host());
        let source = layout.path().to_str().unwrap();
        let running =
            Longshore::new().start(["push", "--no-resume", "--chunk-size=64KiB", source, &destination]);
        registry.wait_for(Route::Patch, 2);
        running.interrupt();
        assert_eq!(running.finish().code, Some(130));
        assert_eq!(registry.calls(Route::Cancel), cancels, "{}", story(&registry));
        assert_eq!(registry.calls(Route::Status), cancels - 1, "{}", story(&registry));
        registry.release();
    }
}

#[test]
fn rule_37_what_was_opened_ahead_is_given_back_too() {
    let layout = Layout::of(&[LARGE]);
    // Nobody says which blobs are there; whether the upload is open is said at once, or when nobody waits any more.
    for (option, millis, cancels) in
        [(None, 0, 0), (Some("--no-resume"), 0, 1), (Some("--no-resume"), 500, 1)]
    {
        let held = Fault::Await { route: Route::Other, calls: usize::MAX };
        let manners = Manners { latency: Duration::from_millis(millis), ..Manners::default() };
        let registry = Registry::start(Script::new().manners(manners).always(Route::BlobHead, held));
        let destination = format!("{}/{REPOSITORY}:1", registry.host());
        let arguments = ["push", layout.path().to_str().unwrap(), &destination];
        let running = Longshore::new().start(arguments.into_iter().chain(option));
        registry.wait_for(Route::Open, 1);
        running.interrupt();
        assert_eq!(running.finish().code, Some(130));
        assert_eq!(registry.calls(Route::Cancel), cancels, "{}", story(&registry));
        registry.release();
    }
}

#[test]
fn rule_37_what_is_given_up_on_the_way_is_given_back_too() {
    let layout = Layout::of(&[2 << 20]);
    for (option, gives_back) in [(None, 0), (Some("--no-resume"), 1)] {
        // A chunk that is too large, and another one of half the size.
        let script = Script::new().on(Route::Patch, 1, Fault::status(413));
        let registry = with_configs(&layout, script);
        let destination = format!("{}/{REPOSITORY}:1", registry.host());
        let mut arguments = vec!["push", layout.path().to_str().unwrap(), &destination, "--chunk-size=1MiB"];
        arguments.extend(option);
        Longshore::new().run(arguments).pushed().unwrap();
        assert_arrived(&layout, &registry);
        assert_eq!(registry.calls(Route::Cancel), gives_back, "{}", story(&registry));

        // One that never arrives.
        let registry = with_configs(&layout, Script::new().on(Route::Patch, 2, Fault::status(403)));
        let destination = format!("{}/{REPOSITORY}:1", registry.host());
        let mut arguments = vec!["push", layout.path().to_str().unwrap(), &destination, "--chunk-size=64KiB"];
        arguments.extend(option);
        assert_eq!(Longshore::new().run(arguments).code, Some(4));
        assert_eq!(registry.calls(Route::Cancel), gives_back, "{}", story(&registry));
    }
}

#[test]
fn rule_37_every_signal_that_ends_it_is_an_interruption() {
    let layout = Layout::of(&[LARGE]);
    let held = Fault::Await { route: Route::Other, calls: usize::MAX };
    for (signal, code) in [(Signal::HUP, 129), (Signal::INT, 130), (Signal::TERM, 143)] {
        let registry = with_configs(&layout, Script::new().on(Route::Patch, 3, held.clone()));
        let destination = format!("{}/{REPOSITORY}:1", registry.host());
        let source = layout.path().to_str().unwrap();
        let running =
            Longshore::new().start(["push", "--no-resume", "--chunk-size=64KiB", source, &destination]);
        registry.wait_for(Route::Patch, 3);
        running.signal(signal);
        let run = running.finish();
        assert_eq!((run.code, run.stderr.lines().last()), (Some(code), Some("interrupted")), "{run:?}");
        assert_eq!(registry.calls(Route::Cancel), 1, "{}", story(&registry));
        registry.release();
    }
}

#[test]
fn a_signal_that_the_caller_has_ignored_stays_ignored() {
    let layout = Layout::of(&[LARGE]);
    let held = Fault::Await { route: Route::Other, calls: usize::MAX };
    for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT), ("TERM", Signal::TERM)] {
        let registry = with_configs(&layout, Script::new().on(Route::Patch, 3, held.clone()));
        let destination = format!("{}/{REPOSITORY}:1", registry.host());
        let longshore = Longshore::new();
        let push =
            longshore.prepare(["push", "--chunk-size=64KiB", layout.path().to_str().unwrap(), &destination]);
        // As `nohup` does, and a shell for what stands before an `&` of a script.
        let mut ignoring = Command::new("env");
        ignoring.arg(format!("--ignore-signal={name}")).arg(push.get_program()).args(push.get_args());
        ignoring.env_clear().envs(push.get_envs().filter_map(|(name, value)| Some((name, value?))));
        ignoring.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = ignoring.spawn().unwrap();
        registry.wait_for(Route::Patch, 3);
        kill_process(Pid::from_child(&process), signal).unwrap();
        registry.release();
        assert!(process.wait().unwrap().success(), "{name}");
        assert_arrived(&layout, &registry);
    }
}

#[test]
fn rule_38_a_stored_blob_goes_on_where_the_registry_is() {
    let (layout, state) = (Layout::of(&[LARGE]), tempfile::tempdir().unwrap());
    let Killed { registry, .. } = Killed::at_chunk(layout.path(), 4, state.path(), Script::new());
    let before = registry.log().len();
    pusher(state.path()).push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    let mut later = registry.log().split_off(before);
    later.retain(|exchange| matches!(exchange.route, Route::Patch | Route::Status));
    assert_eq!(later[0].route, Route::Status, "nothing is sent before it has said where it is");
    assert!(registry.bytes(Route::Patch) <= LARGE as u64 + CHUNK, "{}", story(&registry));
    assert_eq!(registry.calls(Route::Open), 2, "one for the layer, one for the config: {}", story(&registry));
    assert_eq!(fs_err::read_dir(state.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn rule_38_a_layer_that_is_encoded_again_goes_on_if_its_bytes_are_the_same() {
    let archive = Archive::of(&[BLOCKS]);
    for (recipe, resumes) in [("keep", true), ("gzip:2", false)] {
        let state = tempfile::tempdir().unwrap();
        let Killed { registry, .. } = Killed::at_chunk(&archive.path(), 30, state.path(), Script::new());
        let mut again = pusher(state.path());
        again.options.recipe = recipe.parse::<Recipe>().unwrap();
        again.push(&archive.path(), &registry).unwrap();
        assert_holds(&registry, &archive.layers);
        assert_eq!(registry.calls(Route::Open), if resumes { 2 } else { 3 }, "{}", story(&registry));
    }
}

#[test]
fn rule_38_bytes_that_begin_otherwise_begin_anew() {
    let archive = Archive::of(&[BLOCKS]);
    let state = tempfile::tempdir().unwrap();
    let Killed { registry, .. } = Killed::at_chunk(&archive.path(), 30, state.path(), Script::new());
    rewrite_records(state.path(), |text| {
        assert!(text["prefix"].is_array(), "{text}");
        text["prefix"][1] = Digest::of(b"other").to_string().into();
    });
    pusher(state.path()).push(&archive.path(), &registry).unwrap();
    assert_holds(&registry, &archive.layers);
    assert_eq!(registry.calls(Route::Open), 3, "{}", story(&registry));
}

fn rewrite_records(state: &Path, change: impl Fn(&mut Value)) {
    for record in fs_err::read_dir(state).unwrap() {
        let path = record.unwrap().path();
        let mut text = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        change(&mut text);
        fs_err::write(path, text.to_string()).unwrap();
    }
}

#[test]
fn rule_38_a_record_is_for_one_upload_only() {
    let (layout, other) = (Layout::of(&[LARGE]), Layout::of_layers(&[noise(9, LARGE)]));
    let elsewhere = Registry::honest();
    for (changed, registry_again, repository, layout_again, user) in [
        ("the host", Some(&elsewhere), REPOSITORY, &layout, None),
        ("the repository", None, "team/other", &layout, None),
        ("the blob", None, REPOSITORY, &other, None),
        ("whose credential", None, REPOSITORY, &layout, Some("me".to_owned())),
    ] {
        let state = tempfile::tempdir().unwrap();
        let Killed { registry, .. } = Killed::at_chunk(layout.path(), 4, state.path(), Script::new());
        let mut again = pusher(state.path());
        if let Some(user) = user {
            let credential = Credential::Login { user, password: Secret::new("s3cret") };
            again.client.credentials.give("a test", credential);
        }
        let host = registry_again.unwrap_or(&registry).host();
        again.push_to(layout_again.path(), &host, &format!("{repository}:1")).unwrap();
        assert_eq!(registry.calls(Route::Status), 0, "{changed}: {}", story(&registry));
        assert_eq!(fs_err::read_dir(state.path()).unwrap().count(), 1, "{changed}: the first may come back");
    }
}

#[test]
fn rule_38_a_record_says_what_it_takes_and_is_old_some_day() {
    let (layout, state) = (Layout::of(&[LARGE]), tempfile::tempdir().unwrap());
    let Killed { registry, .. } = Killed::at_chunk(layout.path(), 4, state.path(), Script::new());
    rewrite_records(state.path(), |text| {
        for (field, expected) in [
            ("host", json!(registry.host())),
            ("repository", json!(REPOSITORY)),
            ("blob", json!(layout.blobs[0].to_string())),
            ("offset", json!(3 * CHUNK)),
            ("chunk", json!(CHUNK)),
        ] {
            assert_eq!(text[field], expected, "{text}");
        }
        text["at"] = (text["at"].as_u64().unwrap() - 365 * 24 * 3600).into();
    });
    pusher(state.path()).push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    let seen = [Route::Open, Route::Status].map(|route| registry.calls(route));
    assert_eq!(seen, [3, 0], "{}", story(&registry));
}

#[test]
fn rule_38_no_more_is_believed_than_the_registry_says() {
    for (range, first, opened) in [("0-65535", "65536-131071", 2), ("0--1", "0-65535", 3)] {
        let (layout, state) = (Layout::of(&[LARGE]), tempfile::tempdir().unwrap());
        let script = Script::new().always(Route::Status, Fault::Range(Lie::Constant(range)));
        let Killed { registry, .. } = Killed::at_chunk(layout.path(), 4, state.path(), script);
        pusher(state.path()).push(layout.path(), &registry).unwrap();
        assert_arrived(&layout, &registry);
        let patches = registry.exchanges(Route::Patch);
        assert_eq!(patches[4].content_range.as_deref(), Some(first), "{}", story(&registry));
        assert_eq!(registry.calls(Route::Open), opened, "{}", story(&registry));
        assert_begun_once(&registry);
    }
}

#[test]
fn rule_38_a_session_that_is_lost_meanwhile_begins_anew() {
    let (layout, state) = (Layout::of(&[LARGE]), tempfile::tempdir().unwrap());
    let Killed { registry, .. } = Killed::at_chunk(layout.path(), 4, state.path(), Script::new());
    registry.forget_uploads();
    pusher(state.path()).push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    assert_eq!(registry.calls(Route::Open), 3, "{}", story(&registry));
}

#[test]
fn rule_38_what_goes_in_small_chunks_is_remembered_too() {
    let (layout, state) = (Layout::of(&[LARGE]), tempfile::tempdir().unwrap());
    let limited = || {
        let mut pusher = pusher(state.path().join("uploads").as_path());
        let learned = Learned::new(&state.path().join("hosts"));
        pusher.options.learned = Some(learned.clone());
        pusher.options.chunk_size = Some(1 << 20);
        (pusher, learned)
    };
    let (first, learned) = limited();
    let registry = Registry::start(held_at_chunk(4, Script::new()));
    let host = registry.host();
    learned.teach(&host, Lesson { body_limit: Some(CHUNK), ..Lesson::default() });
    let Killed { registry, .. } = Killed::push(first, registry, layout.path(), &host, 4);
    limited().0.push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    assert_eq!(registry.calls(Route::Open), 2, "one for the layer, one for the config: {}", story(&registry));
}

#[test]
fn rule_38_an_upload_that_cannot_be_gone_on_with_begins_anew() {
    for (route, fault) in [
        (Route::Status, Fault::status(500)),
        (Route::Status, Fault::Unauthorized),
        (Route::Status, Fault::reset()),
        (Route::Status, Fault::status(307).header("Location", "ftp://localhost/")),
        (Route::Patch, Fault::status(403)),
    ] {
        let (layout, state) = (Layout::of(&[LARGE]), tempfile::tempdir().unwrap());
        let script = match route {
            Route::Patch => Script::new().on(route, 5, fault.clone()),
            _ => Script::new().always(route, fault.clone()),
        };
        let Killed { registry, .. } = Killed::at_chunk(layout.path(), 4, state.path(), script);
        if let Err(error) = pusher(state.path()).push(layout.path(), &registry) {
            panic!("{fault:?}: {}\n{}", chain(&error), story(&registry));
        }
        assert_arrived(&layout, &registry);
        assert_eq!(registry.calls(Route::Open), 3, "{fault:?}: {}", story(&registry));
        assert_eq!(fs_err::read_dir(state.path()).unwrap().count(), 0, "nothing is left behind");
    }
}

#[test]
fn rule_38_a_blob_that_is_closed_after_a_kill_is_sent_no_second_time() {
    let layout = Layout::of(&[LARGE]);
    // The registry is done with it before the next run asks for anything, or just when that asks for the first or the
    // second time how far the upload is.
    for asked in [0, 1, 2] {
        let closing = Fault::Await { route: Route::Status, calls: asked.max(1) };
        let held = Fault::Await { route: Route::Other, calls: usize::MAX };
        let script = Script::new().on(Route::Commit, 1, closing).on(Route::Status, asked, held);
        let registry = with_configs(&layout, script);
        let (user, destination) = (Longshore::new(), format!("{}/{REPOSITORY}:1", registry.host()));
        let push = ["push", "--chunk-size=64KiB", layout.path().to_str().unwrap(), &destination];
        let running = user.start(push);
        registry.wait_for(Route::Commit, 1);
        running.kill();
        assert!(registry.blob(REPOSITORY, &layout.blobs[0]).is_none());
        let run = if asked == 0 {
            registry.release();
            registry.wait_for_answers(Route::Commit, 1);
            user.run(push)
        } else {
            let again = user.start(push);
            registry.wait_for(Route::Status, asked);
            registry.wait_for_answers(Route::Commit, 1);
            registry.release();
            again.finish()
        };
        run.pushed().unwrap();
        assert_arrived(&layout, &registry);
        assert_eq!(registry.bytes(Route::Patch), LARGE as u64, "{}", story(&registry));
        let seen = [Route::Open, Route::Commit].map(|route| registry.calls(route));
        assert_eq!(seen, [1, 1], "{}", story(&registry));
        // Whoever has seen the blob does not ask for its upload.
        assert_eq!(registry.calls(Route::Status) > 0, asked > 0, "{}", story(&registry));
        let gone = registry.exchanges(Route::Status).iter().any(|asked| asked.answered == Some(404));
        assert_eq!(gone, asked > 0, "{}", story(&registry));
    }
}

#[test]
fn rule_38_whoever_logs_in_elsewhere_meanwhile_is_nobody_still() {
    let layout = Layout::of(&[LARGE]);
    let registry = with_configs(&layout, held_at_chunk(4, Script::new()));
    let (user, destination) = (Longshore::new(), format!("{}/{REPOSITORY}:1", registry.host()));
    let push = ["push", "--chunk-size=64KiB", layout.path().to_str().unwrap(), &destination];
    let running = user.start(push);
    registry.wait_for(Route::Patch, 4);
    running.kill();
    registry.release();
    let docker = user.home().join(".docker");
    fs_err::create_dir(&docker).unwrap();
    fs_err::write(docker.join("config.json"), r#"{"auths": {"r.example": {"auth": "bWU6cGFzcw=="}}}"#)
        .unwrap();
    user.run(push).pushed().unwrap();
    assert_arrived(&layout, &registry);
    assert_eq!(registry.calls(Route::Open), 1, "{}", story(&registry));
}

#[test]
fn rule_38_a_registry_that_answers_no_questions_is_asked_none() {
    let (layout, state) = (Layout::of(&[LARGE]), tempfile::tempdir().unwrap());
    let deaf = Script::new().manners(Manners { status: false, ..Manners::default() });
    let Killed { registry, .. } = Killed::at_chunk(layout.path(), 4, state.path(), deaf);
    pusher(state.path()).push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    assert_eq!(registry.calls(Route::Open), 3, "{}", story(&registry));

    // Of some that is known.
    let mut known = pusher(state.path());
    let (registry, host) = amazon(&mut known, held_at_chunk(4, Script::new()));
    let Killed { pusher, registry } = Killed::push(known, registry, layout.path(), host, 4);
    pusher.push_to(layout.path(), host, &format!("{REPOSITORY}:1")).unwrap();
    assert_arrived(&layout, &registry);
    let seen = [Route::Open, Route::Status].map(|route| registry.calls(route));
    assert_eq!(seen, [3, 0], "{}", story(&registry));
}

#[test]
fn rule_38_without_a_state_folder_every_byte_is_sent_again() {
    let (layout, state) = (Layout::of(&[LARGE]), tempfile::tempdir().unwrap());
    let Killed { mut pusher, registry } = Killed::at_chunk(layout.path(), 4, state.path(), Script::new());
    pusher.options.resume = Resume::Never;
    pusher.push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    assert_eq!(registry.calls(Route::Open), 3, "{}", story(&registry));
}

#[test]
fn rule_38_a_second_process_opens_a_session_of_its_own() {
    let (layout, state) = (Layout::of(&[LARGE]), tempfile::tempdir().unwrap());
    let held = Fault::Await { route: Route::ManifestPut, calls: 1 };
    let registry = Arc::new(Registry::start(Script::new().on(Route::Patch, 4, held)));
    let (mut first, mut second) = (pusher(state.path()), pusher(state.path()));
    // The first is in the middle of the layer until the second has pushed everything.
    (first.options.jobs, second.options.jobs) = (1, 1);
    let path = layout.path().to_owned();
    let there = Arc::clone(&registry);
    let pushing = thread::spawn(move || first.push(&path, &there).map(drop));
    registry.wait_for(Route::Patch, 4);
    let records = fs_err::read_dir(state.path()).unwrap().map(|record| record.unwrap());
    let modes: Vec<_> = records.map(|record| record.metadata().unwrap().mode() & 0o777).collect();
    assert_eq!(modes, [0o600]);
    second.push(layout.path(), &registry).unwrap();
    pushing.join().unwrap().unwrap();
    assert_arrived(&layout, &registry);
    let patches = registry.exchanges(Route::Patch);
    let from_0 = patches.iter().filter(|patch| patch.content_range.as_ref().unwrap().starts_with("0-"));
    assert_eq!(from_0.count(), 2, "{}", story(&registry));
    assert_eq!(registry.calls(Route::Status), 0, "nobody asks for the other's: {}", story(&registry));
}
