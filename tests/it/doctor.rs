//! `longshore doctor`: what it says of real registries and of odd ones, and what it leaves behind.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::{
    support::{
        capability::is_unavailable,
        docker_registry::DockerRegistry,
        longshore::{Longshore, Run},
        nginx::Nginx,
        registry::{Auth, Fault, Lie, Manners, Registry, Route, Script},
    },
    wire::image::Layout,
};

const MIB: u64 = 1 << 20;

/// Returns what was said, with what differs from run to run taken out.
fn said(run: &Run, host: &str) -> String {
    let mut said = String::new();
    for line in run.stdout.replace(host, "HOST").lines() {
        let words: Vec<_> = line.split(' ').collect();
        let kept = words.iter().enumerate().map(|(at, word)| {
            let next = words.get(at + 1).copied().unwrap_or_default();
            match word.strip_prefix("nginx/") {
                Some(version) => {
                    format!("nginx/N{}", version.trim_start_matches(|c: char| c != ')' && c != ';'))
                }
                None if next.ends_with("iB/s") || next.starts_with("ms") => "N".to_owned(),
                None if word.ends_with("iB/s") => "MiB/s".to_owned(),
                None => (*word).to_owned(),
            }
        });
        said.push_str(kept.collect::<Vec<_>>().join(" ").trim_end());
        said.push('\n');
    }
    said
}

fn start(manners: Manners) -> Registry {
    Registry::start(Script::new().manners(manners))
}

fn doctor(arguments: &[&str]) -> Run {
    Longshore::new().run([&["doctor"], arguments].concat())
}

/// Asks about a repository of this registry; returns the JSON.
fn examined(registry: &Registry) -> Value {
    let run = doctor(&["--json", &format!("{}/team/demo", registry.host())]);
    assert_eq!(run.code, Some(0), "{run:?}");
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn what_is_asked_about_is_read_as_it_was_typed() {
    for text in ["", "127.0.0.1:99999"] {
        let run = doctor(&[text]);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert_eq!(run.stderr, format!("error: `{text}` names no registry\n"));
    }
    let registry = Registry::honest();
    let run = doctor(&["--json", &format!("docker://{}/team/demo", registry.host())]);
    let found: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(found["repository"], "team/demo", "{run:?}");
}

#[test]
fn a_registry_is_only_read_where_no_repository_is_named() {
    let registry = Registry::honest();
    let run = doctor(&[&registry.host()]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    insta::assert_snapshot!(said(&run, &registry.host()), @r"
    registry  HOST
    reached   http://HOST, HTTP/1.1, N ms a round trip
    tls       no, plain HTTP
    login     not asked for
    profile   ordinary: chunks of 16.0 MiB
    learned   nothing yet
    push      chunks of 16.0 MiB, 6 large blobs at once
    ");
    assert!(registry.log().iter().all(|exchange| exchange.route == Route::Base), "{:?}", registry.log());
}

#[test]
fn a_real_registry_is_examined_and_left_as_it_was() {
    if is_unavailable("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start();
    let (user, layout) = (Longshore::new(), Layout::of(&[1000]));
    let repository = format!("{}/team/demo", registry.host());
    user.run(["push", layout.path().to_str().unwrap(), &format!("{repository}:1")]).pushed().unwrap();
    let run = user.run(["doctor", "--chunk-size=8MiB", &repository]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    insta::assert_snapshot!(said(&run, registry.host()), @r"
    registry        HOST
    reached         http://HOST, HTTP/1.1, N ms a round trip
    tls             no, plain HTTP
    login           not asked for
    profile         ordinary: chunks of 16.0 MiB
    learned         N MiB/s an upload, N ms a round trip, for 24 more hours
    repository      team/demo
    upload          allowed
    bodies          up to 64.0 MiB were taken
    several chunks  yes
    unequal chunks  yes
    range           yes
    status          yes
    mount           yes
    referrers       no: answered 404 page not found; a push keeps the list under a tag
    many tags       unknown: shows only when a tag is written
    cleaned up      yes
    push            chunks of 8.0 MiB, 6 large blobs at once
    ");
    // distribution leaves empty folders of an upload that was given back.
    let store = walkdir::WalkDir::new(registry.store()).into_iter().map(Result::unwrap);
    let large = store.filter(|entry| entry.file_type().is_file() && entry.metadata().unwrap().len() >= MIB);
    assert_eq!(large.count(), 0);
    let run = user.run(["doctor", "--json", registry.host()]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(report["learned"]["bytesPerSecond"].as_u64() > Some(0), "{report}");
}

#[test]
fn the_limit_of_a_proxy_is_found_and_heeded_by_the_next_push() {
    if ["docker-registry", "nginx"].into_iter().any(is_unavailable) {
        return;
    }
    let registry = DockerRegistry::start();
    let nginx = Nginx::start(&[registry.host()], "client_max_body_size 10m;");
    let user = Longshore::new();
    let repository = format!("{}/demo", nginx.host());
    let run = user.run(["doctor", &repository]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    insta::assert_snapshot!(said(&run, nginx.host()), @r"
    registry        HOST
    reached         http://HOST, HTTP/1.1, N ms a round trip, by nginx/N
    tls             no, plain HTTP
    login           not asked for
    profile         ordinary: chunks of 16.0 MiB
    learned         no body over 8.0 MiB, for 14 more days; N MiB/s an upload, N ms a round trip, for 24 more hours
    repository      demo
    upload          allowed
    bodies          up to 8.0 MiB were taken; 16.0 MiB: answered 413 Request Entity Too Large (by nginx/N)
    several chunks  yes
    unequal chunks  yes
    range           yes
    status          yes
    mount           unknown: the repository holds no image yet
    referrers       no: answered 404 page not found (by nginx/N); a push keeps the list under a tag
    many tags       unknown: shows only when a tag is written
    cleaned up      yes
    push            chunks of 8.0 MiB, 6 large blobs at once
    ");
    let before = nginx.too_large();
    assert_eq!(before, 1);
    let layout = Layout::of(&[20 * MIB as usize]);
    user.run(["push", layout.path().to_str().unwrap(), &format!("{repository}:1")]).pushed().unwrap();
    assert_eq!(nginx.too_large(), before);
}

#[test]
fn whoever_does_not_answer_is_no_registry() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = silent.local_addr().unwrap().to_string();
    for repository in ["", "/team/demo"] {
        let run = doctor(&["--timeout=200ms", &format!("{host}{repository}")]);
        assert_eq!(run.code, Some(6), "{run:?}");
        assert!(run.stderr.contains(&format!("error: reaching `{host}`")), "{run:?}");
        assert!(run.stderr.contains("no answer within"), "{run:?}");
        assert!(run.stdout.contains("no\n") && run.stdout.ends_with("fails, exit code 6\n"), "{run:?}");
    }
    let run = doctor(&["--json", "127.0.0.1:1"]);
    assert_eq!(run.code, Some(6), "{run:?}");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["contact"], &report["push"]["works"]), (&Value::Null, &json!(false)));
    assert!(report["failure"]["message"].as_str().unwrap().contains("refused"), "{report}");
}

#[test]
fn whoever_wants_a_login_is_shown_one_that_is_named_and_not_told() {
    for auth in [
        Auth::Basic { user: "me", password: "xyzzy" },
        Auth::Bearer { user: "me", password: "xyzzy", expires_in: None },
    ] {
        let registry = start(Manners { auth, ..Manners::default() });
        let repository = format!("{}/team/demo", registry.host());
        let run = doctor(&[&repository]);
        assert_eq!(run.code, Some(4), "{run:?}");
        assert!(run.stdout.contains(" yes, and not let in\n"), "{run:?}");
        assert!(run.stdout.contains(": not let in; no credentials for"), "{run:?}");
        assert!(run.stderr.contains("hint: no credentials for"), "{run:?}");
        assert!(run.stderr.contains("hint: log in by `longshore login"), "{run:?}");

        let auths = json!({ "auths": { registry.host(): { "auth": "bWU6eHl6enk=" } } });
        let user = Longshore::new().with_env("DOCKER_AUTH_CONFIG", &auths.to_string());
        let run = user.run(["doctor", &repository]);
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.stdout.contains(": user `me` from `DOCKER_AUTH_CONFIG`\n"), "{run:?}");
        let run = user.run(["doctor", "-vv", "--json", &repository]);
        assert!(!format!("{run:?}").contains("xyzzy") && !format!("{run:?}").contains("bWU6"), "{run:?}");
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(report["login"]["account"], json!("user `me` from `DOCKER_AUTH_CONFIG`"));
    }
}

#[test]
fn whoever_lets_nobody_in_with_a_token_for_a_repository_is_asked_with_another() {
    let auth = Auth::Bearer { user: "me", password: "xyzzy", expires_in: None };
    let mut script = Script::new().manners(Manners { auth, ..Manners::default() });
    // The answers to the first token for the repository, and to the one after it.
    for nth in [2, 3] {
        script = script.on(Route::Base, nth, Fault::Unauthorized);
    }
    let registry = Registry::start(script);
    let auths = json!({ "auths": { registry.host(): { "auth": "bWU6eHl6enk=" } } });
    let user = Longshore::new().with_env("DOCKER_AUTH_CONFIG", &auths.to_string());
    let run = user.run(["doctor", &format!("{}/team/demo", registry.host())]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let scopes: Vec<_> = registry
        .exchanges(Route::Token)
        .iter()
        .map(|exchange| exchange.target.contains("scope=repository"))
        .collect();
    assert_eq!(scopes[..3], [true, true, false], "{run:?}");
}

#[test]
fn without_a_repository_too_it_says_how_to_log_in() {
    let registry =
        start(Manners { auth: Auth::Basic { user: "me", password: "xyzzy" }, ..Manners::default() });
    let run = doctor(&[&registry.host()]);
    assert_eq!(run.code, Some(4), "{run:?}");
    assert!(
        run.stderr.contains(&format!("hint: log in by `longshore login {}`", registry.host())),
        "{run:?}"
    );
}

#[test]
fn whoever_may_not_push_is_told_what_the_registry_says() {
    let absent = Fault::status(404).body("application/json", r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#);
    for (fault, code, words) in [
        (absent, 5, "hint: create the repository or project at the registry first"),
        (Fault::status(403), 4, "error: opening an upload"),
        (Fault::status(405), 5, "does not accept pushes here"),
    ] {
        let registry = Registry::start(Script::new().on(Route::Open, 1, fault));
        let run = doctor(&[&format!("{}/team/demo", registry.host())]);
        assert_eq!(run.code, Some(code), "{run:?}");
        assert!(run.stderr.contains(words), "{run:?}");
        assert!(run.stdout.ends_with(&format!("fails, exit code {code}\n")), "{run:?}");
    }
}

#[test]
fn a_registry_that_sends_uploads_where_nobody_is_fails_as_a_push_does() {
    for (location, code, words) in [
        // As distribution does with a wrong `http.host`.
        ("http://localhost:1{path}", 6, "http://localhost:1 (where the registry sends us): "),
        ("ftp://localhost{path}", 5, "a `Location` that is no http URL"),
    ] {
        let script = Script::new().always(Route::Open, Fault::Location(Some(location.to_owned())));
        let registry = Registry::start(script);
        let repository = format!("{}/team/demo", registry.host());
        let layout = Layout::of(&[MIB as usize]);
        let source = layout.path().to_str().unwrap();
        let push = Longshore::new().run(["push", "--retries=0", source, &format!("{repository}:1")]);
        for run in [doctor(&[&repository]), push] {
            assert_eq!(run.code, Some(code), "{run:?}");
            assert!(run.stderr.contains(words), "{run:?}");
        }
    }
}

#[test]
fn odd_registries_are_seen_for_what_they_are() {
    let report = examined(&start(Manners::default()));
    let trial = &report["trial"];
    for finding in ["chunks", "unequal", "range", "status", "referrers", "cleanedUp"] {
        assert_eq!(trial[finding], json!({ "verdict": "yes", "why": null }), "{finding}: {report}");
    }
    assert_eq!((&trial["largestBody"], &trial["refusedBody"]), (&json!(64 * MIB), &Value::Null));

    // As Amazon's.
    let lie = Some(Lie::Constant("0-10485759"));
    let report = examined(&start(Manners {
        range: lie,
        status: false,
        patch_status: 201,
        subject: false,
        ..Manners::default()
    }));
    let trial = &report["trial"];
    assert_eq!(trial["range"], json!({ "verdict": "no", "why": "says 10485760 of 1048576 bytes" }));
    assert_eq!(trial["status"]["why"], json!("answered 404 BLOB_UPLOAD_UNKNOWN"));
    assert_eq!(trial["referrers"]["why"], json!("answered 404 UNSUPPORTED"));

    let report = examined(&start(Manners { equal_parts: true, ..Manners::default() }));
    assert_eq!(report["trial"]["unequal"]["why"], json!("a larger one was answered 416 RANGE_INVALID"));
    assert_eq!(
        (&report["trial"]["chunks"]["verdict"], &report["push"]["equalParts"]),
        (&json!("yes"), &json!(true))
    );
    assert_eq!(report["learned"]["equalParts"], json!(true));

    // As serverless-registry.
    let (chunk_min, chunk_max) = (Some(5 * MIB), Some(10 * MIB));
    let report = examined(&start(Manners { chunk_min, chunk_max, equal_parts: true, ..Manners::default() }));
    let trial = &report["trial"];
    assert_eq!((&trial["chunkMinLength"], &trial["chunkMaxLength"]), (&json!(5 * MIB), &json!(10 * MIB)));
    assert_eq!((&trial["chunks"]["verdict"], &trial["unequal"]["verdict"]), (&json!("yes"), &json!("no")));
    assert_eq!(trial["largestBody"], report["push"]["chunkSize"]);

    // A second chunk is one too many for Google's.
    let script = Script::new().on(Route::Patch, 2, Fault::status(400));
    let report = examined(&Registry::start(script));
    assert_eq!(report["trial"]["chunks"]["why"], json!("the second was answered 400"));

    // Whatever happened there, it is no limit.
    let script = Script::new().on(Route::Patch, 3, Fault::Cut { after: 1000 });
    let report = examined(&Registry::start(script));
    assert_eq!(
        (&report["trial"]["largestBody"], &report["trial"]["refusedBody"]),
        (&json!(MIB), &json!(2 * MIB))
    );
    assert_eq!(report["learned"]["bodyLimit"], Value::Null);
    assert_eq!(report["trial"]["unequal"]["verdict"], json!("unknown"));
}

#[test]
fn a_limit_is_forgotten_when_more_goes_through() {
    // The sixth chunk is one of 16 MiB.
    let script = Script::new().on(Route::Patch, 6, Fault::status(413)).on(Route::Patch, 8, Fault::reset());
    let (user, registry) = (Longshore::new(), Registry::start(script));
    let learned = |expected: Value| {
        let run = user.run(["doctor", "--json", &format!("{}/team/demo", registry.host())]);
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(report["learned"]["bodyLimit"], expected, "{report}");
        assert!(expected.is_null() || report["push"]["chunkSize"].as_u64() <= Some(8 * MIB), "{report}");
    };
    learned(json!(8 * MIB));
    // One that breaks off too early says nothing about it.
    learned(json!(8 * MIB));
    learned(Value::Null);
}

#[test]
fn what_a_gateway_loses_is_not_what_a_push_would_send() {
    // Caddy answers so for what is larger than its `request_body` allows. It may also be an accident.
    let registry = Registry::start(Script::new().on(Route::Patch, 4, Fault::status(502)));
    let said = examined(&registry);
    assert_eq!(said["trial"]["largestBody"], 2 * MIB, "{said}");
    assert_eq!(said["push"]["chunkSize"], MIB, "{said}");
}

#[test]
fn what_could_not_be_cleaned_up_is_said() {
    let registry = Registry::start(Script::new().on(Route::Cancel, 1, Fault::status(405)));
    let run = doctor(&[&format!("{}/team/demo", registry.host())]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let words = "cleaned up      no: answered 405; registries drop old uploads by themselves\n";
    assert!(run.stdout.contains(words), "{run:?}");
    // Nothing but zeros was sent, and no blob was made of them.
    assert_eq!((registry.bytes(Route::Patch), registry.calls(Route::Commit)), (128 * MIB, 0));
    assert!(registry.tags("team/demo").is_empty());
}

#[test]
fn whoever_interrupts_it_leaves_no_upload_behind() {
    let held = Fault::Await { route: Route::Open, calls: usize::MAX };
    let registry = Registry::start(Script::new().on(Route::Patch, 3, held));
    let running = Longshore::new().start(["doctor", &format!("{}/team/demo", registry.host())]);
    registry.wait_for(Route::Patch, 3);
    running.interrupt();
    let run = running.finish();
    assert_eq!((run.code, run.stdout.as_str()), (Some(130), ""), "{run:?}");
    let given_back = registry.exchanges(Route::Cancel);
    assert_eq!(given_back.iter().map(|cancel| cancel.answered).collect::<Vec<_>>(), [Some(204)]);
}
