//! `login` and `logout`, and the files they share with podman, skopeo and docker.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    thread,
};

use serde_json::{Value, json};

use super::{PASSWORD, Run, USER, User, fed, private_registry};
use crate::support::{
    longshore::Longshore,
    registry::{Auth, Manners, Registry, Route, Script},
};

/// Where logins are kept unless somebody says otherwise.
const KEPT: &str = "run/containers/auth.json";

/// Nobody listens there, and nobody will: a port that was just free may be somebody's the next moment.
const NOBODY: &str = "127.0.0.1:1";

/// `me:s3cret`
const ENTRY: &str = "bWU6czNjcmV0";

#[test]
fn a_login_is_kept_where_podman_and_skopeo_look_for_it() {
    let user = User::new();
    let registry = private_registry(user.home(), "");
    let (host, image) = (registry.host(), format!("{}/team/demo:1", registry.host()));
    user.push(&image, &[]).said(
        4,
        &[
            &format!("no credentials for `{host}`; looked in: `{}` (missing)", user.path(KEPT).display()),
            &format!("log in by `longshore login {host}`"),
        ],
    );
    let run = user.log_in(host, PASSWORD, &[]);
    assert_eq!(run.stdout, "", "{run:?}");
    run.said(0, &[&format!("logged in to {host} as {USER}, kept by `{}`", user.path(KEPT).display())]);
    let kept: Value = serde_json::from_str(&user.read(KEPT)).unwrap();
    assert_eq!(kept, json!({ "auths": { host: { "auth": ENTRY } } }));
    let mode = fs_err::metadata(user.path(KEPT)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    user.push(&image, &[]).pushed();
    let inspect = ["inspect", "--tls-verify=false", &format!("docker://{image}")];
    let seen = fed(user.command("skopeo").args(inspect), "");
    seen.ended(0);

    user.run(["logout", host]).said(0, &["logged out of"]);
    assert_eq!(serde_json::from_str::<Value>(&user.read(KEPT)).unwrap(), json!({ "auths": {} }));
    user.push(&image, &[]).ended(4);
    user.run(["logout", host]).said(2, &["holds no login for"]);
}

#[test]
fn a_login_of_skopeo_is_ours_too() {
    let user = User::new();
    let registry = private_registry(user.home(), "");
    let login = ["login", "--tls-verify=false", "-u", USER, "--password-stdin", registry.host()];
    fed(user.command("skopeo").args(login), PASSWORD).ended(0);
    user.push(&format!("{}/demo:1", registry.host()), &[]).pushed();
    user.run(["logout", registry.host()]).ended(0);
    let status = fed(user.command("skopeo").args(["login", "--get-login", registry.host()]), "");
    assert_ne!(status.code, Some(0), "{status:?}");
}

#[test]
fn a_password_is_tried_before_it_is_kept() {
    for auth in [
        Auth::Basic { user: USER, password: PASSWORD },
        Auth::Bearer { user: USER, password: PASSWORD, expires_in: None },
    ] {
        let registry = Registry::start(Script::new().manners(Manners { auth, ..Manners::default() }));
        let (user, host) = (User::new(), registry.host());
        let run = user.log_in(&host, "wr0ng", &[]);
        run.said(4, &["logging in", "the registry was shown user `me` from this login"]);
        assert!(!run.stderr.contains("wr0ng") && !user.path(KEPT).exists(), "{run:?}");
        user.log_in(&host, PASSWORD, &[]).ended(0);
        assert!(user.read(KEPT).contains(ENTRY));
        assert!(registry.exchanges(Route::Token).iter().all(|token| !token.target.contains("scope=")));
        user.push(&format!("{host}/demo:1"), &[]).pushed();
    }
}

#[test]
fn a_registry_that_does_not_answer_may_do_so_later() {
    let user = User::new();
    user.log_in(NOBODY, PASSWORD, &[]).said(0, &["warning: the password was not tried", "logged in to"]);
    assert!(user.read(KEPT).contains(ENTRY));
    let open = Registry::honest();
    user.log_in(&open.host(), PASSWORD, &[]).said(0, &["asked for no password"]);
}

#[test]
fn what_else_is_in_a_file_stays() {
    let registry = Registry::honest();
    let (user, host) = (User::new(), registry.host());
    let before = json!({
        "auths": {
            "other.example.com": { "auth": "eDp5", "email": "x@example.com" },
            format!("https://{host}/v2/"): { "auth": "b2xkOm9sZA==" },
            format!("{host}/team"): { "auth": "dGVhbTp4" },
        },
        "HttpHeaders": { "X-Meta": "1" },
        "credHelpers": { "h.example.com": "none" },
        "future": [1, { "a": null }],
    });
    // Who keeps such files elsewhere wants to go on doing so.
    let real = user.write("dotfiles/config.json", before.to_string());
    fs_err::create_dir_all(user.path(".docker")).unwrap();
    symlink(&real, user.path(".docker/config.json")).unwrap();
    let authfile = user.path(".docker/config.json").display().to_string();

    user.log_in(&host, PASSWORD, &["--authfile", &authfile]).ended(0);
    let mut after = before.clone();
    let auths = after["auths"].as_object_mut().unwrap();
    auths.remove(&format!("https://{host}/v2/"));
    auths.insert(host.clone(), json!({ "auth": ENTRY }));
    let read = || serde_json::from_slice::<Value>(&fs_err::read(&real).unwrap()).unwrap();
    assert_eq!(read(), after);
    assert!(fs_err::symlink_metadata(&authfile).unwrap().is_symlink());

    user.run(["logout", &host, "--authfile", &authfile]).ended(0);
    after["auths"].as_object_mut().unwrap().remove(&host);
    assert_eq!(read(), after);

    fs_err::write(&real, "{ no JSON").unwrap();
    user.log_in(&host, PASSWORD, &["--authfile", &authfile]).said(8, &["config.json"]);
    assert_eq!(fs_err::read_to_string(&real).unwrap(), "{ no JSON");
}

#[test]
fn logins_at_the_same_time_keep_each_other() {
    let user = User::new();
    let registries: Vec<_> = (0..8).map(|_| Registry::honest()).collect();
    let hosts: Vec<_> = registries.iter().map(Registry::host).collect();
    let all = |job: &(dyn Fn(&str) -> Run + Sync)| {
        thread::scope(|scope| {
            let runs: Vec<_> = hosts.iter().map(|host| scope.spawn(move || job(host))).collect();
            for run in runs {
                run.join().unwrap().ended(0);
            }
        });
        let kept: Value = serde_json::from_str(&user.read(KEPT)).unwrap();
        kept["auths"].as_object().unwrap().len()
    };
    assert_eq!(all(&|host| user.log_in(host, PASSWORD, &[])), hosts.len());
    assert_eq!(all(&|host| user.run(["logout", host])), 0);
    // Nothing else is left in the folder.
    assert_eq!(fs_err::read_dir(user.path(KEPT).parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn docker_finds_its_hub_by_its_own_name_for_it() {
    // No registry is asked: nobody may be blocked from here who is no registry of ours.
    let user = User::new();
    let file = user.write("auth.json", r#"{"auths":{"docker.io":{"auth":"b2xkOm9sZA=="}}}"#);
    let user = user.with("HTTPS_PROXY", format!("http://{NOBODY}"));
    let authfile = file.display().to_string();
    user.log_in("docker.io", PASSWORD, &["--authfile", &authfile]).ended(0);
    let kept: Value = serde_json::from_str(&user.read("auth.json")).unwrap();
    assert_eq!(kept, json!({ "auths": { "https://index.docker.io/v1/": { "auth": ENTRY } } }));
    user.run(["logout", "index.docker.io", "--authfile", &authfile]).ended(0);
    assert_eq!(serde_json::from_str::<Value>(&user.read("auth.json")).unwrap(), json!({ "auths": {} }));
}

#[test]
fn a_proxy_that_does_not_answer_is_named() {
    let user = User::new().with("HTTPS_PROXY", format!("http://me:{PASSWORD}@{NOBODY}"));
    let run = user.push("r.example.com/demo:1", &["--retries=0"]);
    assert!(!run.stderr.contains(PASSWORD), "{run:?}");
    run.said(6, &[&format!("https://r.example.com through the proxy http://{NOBODY}: ")]);
}

#[test]
fn a_login_that_a_proxy_refuses_is_not_shown_again() {
    for (status, refused, words) in [
        ("407 Proxy Authentication Required", true, "the proxy wants a login, or another one"),
        ("403 Forbidden", false, "the proxy does not connect us"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = listener.local_addr().unwrap();
        // Answers whoever asks, until somebody comes who does not.
        let answering = thread::spawn(move || {
            for asked in 0.. {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                if lines.take_while(|line| !line.is_empty()).count() == 0 {
                    return asked;
                }
                // Whoever has been told to go needs no answer.
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").ok();
            }
            0
        });
        let user = User::new().with("HTTPS_PROXY", format!("http://me:{PASSWORD}@{proxy}"));
        // Neither by requests side by side, nor on the way to another registry.
        let run = user.push("r.example.com/demo:1", &["s.example.com/demo:1", "--retries=2", "-vv"]);
        drop(TcpStream::connect(proxy).unwrap());
        let asked = answering.join().unwrap();
        assert_eq!(asked == 1, refused, "{asked} {run:?}");
        assert!(!run.stderr.contains(PASSWORD), "{run:?}");
        let mut tries = HashMap::new();
        for (request, _) in run.stderr.lines().filter_map(|line| line.split_once(" fault=")) {
            *tries.entry(request).or_insert(0) += 1;
        }
        assert_eq!(tries.values().max(), Some(if refused { &1 } else { &3 }), "{run:?}");
        assert_eq!(run.stderr.contains("`http://USER:PASSWORD@HOST:PORT`"), refused, "{run:?}");
        run.said(7, &[&format!("through the proxy http://{proxy}: {words}")]);
    }
}

#[test]
fn a_namespace_has_a_login_of_its_own() {
    let auth = Auth::Basic { user: USER, password: PASSWORD };
    let registry = Registry::start(Script::new().manners(Manners { auth, ..Manners::default() }));
    let (user, host) = (User::new(), registry.host());
    user.log_in(&format!("{host}/team"), PASSWORD, &[]).ended(0);
    user.push(&format!("{host}/team/demo:1"), &[]).pushed();
    user.push(&format!("{host}/other/demo:1"), &[]).ended(4);
    user.run(["logout", &host]).ended(2);
    user.run(["logout", &format!("{host}/team")]).ended(0);
    user.push(&format!("{host}/team/demo:1"), &[]).ended(4);
    for odd in ["", "registry", "r.example.com/demo:1", "r.example.com/Team", "r.example.com@sha256:0"] {
        user.log_in(odd, PASSWORD, &[]).ended(2);
    }
}

#[test]
fn passwords_on_the_command_line_are_refused_and_not_repeated() {
    let user = User::new();
    for arguments in [
        vec!["login", "-p", "xyzzy", "-u", USER, "localhost:1"],
        vec!["login", "--password=xyzzy", "localhost:1"],
        vec!["push", super::IMAGE, "localhost:1/demo:1", "--creds", "me:xyzzy", "--password-stdin"],
        vec!["push", super::IMAGE, "localhost:1/demo:1", "--dest-creds=me:xyzzy", "--password-stdin"],
    ] {
        let run = user.run(&arguments);
        run.said(2, &["a password on the command line can be read by every user", "--password-stdin`"]);
        assert!(!run.stderr.contains("xyzzy"), "{run:?}");
    }
    for arguments in [
        &["push", super::IMAGE, "me:xyzzy@localhost:1/demo:1"][..],
        &["push", "--all", super::IMAGE, "https://me:xyzzy@localhost:1/demo"],
        &["login", "me:xyzzy@localhost:1"],
        &["doctor", "me:xyzzy@localhost:1/demo"],
    ] {
        let run = user.run(arguments);
        run.said(2, &["the name of a registry holds no login"]);
        assert!(!run.stderr.contains("xyzzy"), "{run:?}");
    }
    assert!(!user.path(KEPT).exists());
}

#[test]
fn a_password_without_an_end_or_a_beginning_is_none() {
    let run = Longshore::new()
        .run_fed(Path::new("/dev/zero"), ["login", "-u", USER, "--password-stdin", "localhost:1"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("too long for a password") && run.peak < 100 << 10, "{run:?}");
    let user = User::new();
    for nothing in ["", "\n"] {
        let login = ["login", "-u", USER, "--password-stdin", NOBODY];
        user.fed(nothing, login).said(2, &["the password on standard input is empty"]);
    }
}

#[test]
fn a_password_that_is_no_text_is_the_commands_fault() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), b"caf\xe9\n").unwrap();
    let run = Longshore::new().run_fed(file.path(), ["login", "-u", USER, "--password-stdin", NOBODY]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("the password on standard input is no text in UTF-8"), "{run:?}");
}

#[test]
fn logging_out_says_what_would_still_let_one_in() {
    let user = User::new();
    let (a, b) = ("a.example.com", "b.example.com");
    let entries = |hosts: &[&str]| {
        let auths = hosts.iter().map(|host| ((*host).to_owned(), json!({ "auth": ENTRY })));
        json!({ "auths": auths.collect::<serde_json::Map<_, _>>() }).to_string()
    };
    user.write(KEPT, entries(&[a, b, "docker.io/me"]));
    let other = user.write(".docker/config.json", entries(&[a, "c.example.com"]));
    let hint = format!("`longshore logout --authfile {}`", other.display());
    user.run(["logout", a]).said(0, &[&format!("logged out of {a}"), &hint]);
    user.run(["logout", a]).said(2, &[&hint]);
    user.run(["logout", "--all"]).said(0, &["logged out of b.example.com", "logged out of docker.io/me"]);
    assert_eq!(serde_json::from_str::<Value>(&user.read(KEPT)).unwrap(), json!({ "auths": {} }));
    user.run(["logout", "--all"]).ended(0);
    assert!(user.read(".docker/config.json").contains(ENTRY));
    user.run(["logout"]).ended(2);
}

#[test]
fn places_count_in_podmans_order_and_a_variable_before_them() {
    let auth = Auth::Basic { user: USER, password: PASSWORD };
    let registry = Registry::start(Script::new().manners(Manners { auth, ..Manners::default() }));
    let host = registry.host();
    let entry = |auth: &str| json!({ "auths": { &host: { "auth": auth } } }).to_string();
    let wrong = entry("bWU6d3Jvbmc=");
    let places = [KEPT, ".config/containers/auth.json", ".docker/config.json"];
    let image = format!("{host}/demo:1");
    for (at, place) in places.iter().enumerate() {
        let user = User::new();
        places[at + 1..].iter().for_each(|later| drop(user.write(later, &wrong)));
        user.write(place, entry(ENTRY));
        user.push(&image, &[]).pushed();
        // The variable is asked before them, an explicit file before it.
        let file = user.write("chosen.json", entry(ENTRY)).display().to_string();
        let user = user.with("DOCKER_AUTH_CONFIG", &wrong);
        user.push(&image, &[]).said(4, &["user `me` from `DOCKER_AUTH_CONFIG`"]);
        user.push(&image, &["--authfile", &file]).pushed();
        user.with("REGISTRY_AUTH_FILE", file).push(&image, &[]).pushed();
    }
    let user = User::new().with("DOCKER_AUTH_CONFIG", "{}");
    user.write(".dockercfg", json!({ format!("https://{host}/v1/"): { "auth": ENTRY } }).to_string());
    user.push(&image, &[]).pushed();
    // GitLab's runners mean something else by it.
    let user = user.with("DOCKER_AUTH_CONFIG", "odd");
    user.push(&image, &[]).said(0, &["`DOCKER_AUTH_CONFIG` is ignored"]);
    let warned = r#""event":"warning","message":"`DOCKER_AUTH_CONFIG` is ignored"#;
    user.push(&image, &["--progress=json"]).said(0, &[warned]);

    // A broken one matters to who gets as far as it, be a login asked for or not.
    let user = User::new();
    user.write(".docker/config.json", "{");
    let open = format!("{}/demo:1", Registry::honest().host());
    for image in [&image, &open] {
        user.push(image, &[]).said(8, &[".docker/config.json"]);
    }
    user.write(KEPT, entry(ENTRY));
    user.push(&image, &[]).pushed();

    let user = User::new();
    let named = user
        .fed(&format!("{PASSWORD}\n"), ["push", super::IMAGE, &image, "--creds", USER, "--password-stdin"]);
    named.pushed();
    for token in ["wr0ng-token", "wr0ng-token\n"] {
        let refused = User::new().with("LONGSHORE_TOKEN", token).push(&image, &[]);
        refused.said(4, &["a token from LONGSHORE_TOKEN"]);
        assert!(!refused.stderr.contains("wr0ng-token"));
    }
}
