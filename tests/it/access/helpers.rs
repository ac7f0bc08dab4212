//! Credential helpers, played by shell scripts.

use serde_json::{Value, json};

use super::{PASSWORD, USER, User, private_registry};
use crate::support::registry::{Auth, Manners, Registry, Route, Script};

/// Counts its calls, and has the right password.
const KNOWS: &str = r#"echo "$1 $(cat)" >>calls; echo '{"ServerURL":"","Username":"me","Secret":"s3cret"}'"#;

/// Where docker keeps what names a helper.
const CONFIG: &str = ".docker/config.json";

fn guarded(bearer: bool) -> Registry {
    let auth = if bearer {
        Auth::Bearer { user: USER, password: PASSWORD, expires_in: Some(300) }
    } else {
        Auth::Basic { user: USER, password: PASSWORD }
    };
    Registry::start(Script::new().manners(Manners { auth, ..Manners::default() }))
}

#[test]
fn a_helper_is_asked_once_for_everything() {
    for bearer in [false, true] {
        let (user, registry) = (User::new(), guarded(bearer));
        let host = registry.host();
        user.install_helper("fake", KNOWS);
        for config in [
            json!({ "credHelpers": { &host: "fake" } }),
            json!({ "credsStore": "fake", "auths": { &host: {} } }),
        ] {
            user.write(CONFIG, config.to_string());
            user.write("calls", "");
            user.push(&format!("{host}/demo:{bearer}"), &["--no-cache"]).pushed();
            assert_eq!(user.read("calls"), format!("get {host}\n"));
        }
    }
}

#[test]
fn a_helper_of_docker_lets_one_into_a_real_registry() {
    let user = User::new();
    let registry = private_registry(user.home(), "");
    user.install_helper("fake", KNOWS);
    user.write(CONFIG, json!({ "credHelpers": { registry.host(): "fake" } }).to_string());
    user.push(&format!("{}/demo:1", registry.host()), &[]).pushed();
}

#[test]
fn a_helper_whose_password_is_refused_is_asked_once_more() {
    // Those that make tokens have a new one when the old one has expired.
    let renews = r#"echo x >>calls; [ "$(wc -l <calls)" = 1 ] && secret=0ld || secret=s3cret
        echo "{\"Username\":\"me\",\"Secret\":\"$secret\"}""#;
    let stubborn = r#"echo x >>calls; echo '{"Username":"me","Secret":"0ld"}'"#;
    for bearer in [false, true] {
        let (user, registry) = (User::new(), guarded(bearer));
        let image = format!("{}/demo:1", registry.host());
        user.write(CONFIG, r#"{"credsStore":"fake"}"#);
        user.install_helper("fake", renews);
        user.push(&image, &[]).pushed();
        assert_eq!(user.read("calls").lines().count(), 2);

        user.install_helper("fake", stubborn);
        user.write("calls", "");
        let image = format!("{}/demo:2", registry.host());
        let run = user.push(&image, &[]);
        let source =
            format!("user `me` from `docker-credential-fake`, named by `{}`", user.path(CONFIG).display());
        run.said(4, &[&source, "log in by `longshore login"]);
        assert!(!run.stderr.contains("0ld"), "{run:?}");
        assert!(user.read("calls").lines().count() <= 3, "{}", user.read("calls"));
        assert!(registry.calls(Route::Token) <= 6, "no account is locked");
    }
}

#[test]
fn a_helper_that_fails_is_this_machines_fault_and_one_that_has_nothing_is_not() {
    let (user, registry) = (User::new(), guarded(false));
    let image = format!("{}/demo:1", registry.host());
    user.write(CONFIG, r#"{"credsStore":"fake"}"#);
    let named = format!("it is named by `{}`", user.path(CONFIG).display());
    user.push(&image, &[])
        .said(8, &["the credential helper `docker-credential-fake` is not installed", &named]);
    user.install_helper("fake", "echo 'the keychain is locked'; exit 1");
    user.push(&image, &[]).said(8, &["`docker-credential-fake` failed: the keychain is locked", &named]);
    user.install_helper("fake", "echo 'credentials not found in native keychain'; exit 1");
    user.push(&image, &[]).said(4, &["(and asked `docker-credential-fake`)", "no credentials for"]);
    // Who is let in without credentials needs no helper.
    user.install_helper("fake", "exit 1");
    let open = Registry::honest();
    user.push(&format!("{}/demo:1", open.host()), &[]).pushed();
}

#[test]
fn helpers_of_podmans_configuration_stand_beside_the_files() {
    let (user, registry) = (User::new(), guarded(false));
    let host = registry.host();
    user.install_helper("fake", KNOWS);
    let conf = |helpers: &str| {
        user.write(".config/containers/registries.conf", format!("credential-helpers = [{helpers}]\n"));
    };
    let wrong = json!({ "auths": { &host: { "auth": "bWU6d3Jvbmc=" } } }).to_string();
    user.write("run/containers/auth.json", wrong);
    conf("'fake', 'containers-auth.json'");
    user.push(&format!("{host}/demo:1"), &[]).pushed();
    conf("'containers-auth.json', 'fake'");
    user.push(&format!("{host}/demo:2"), &[]).said(4, &["user `me` from `", "auth.json`"]);
    conf("'fake'");
    user.push(&format!("{host}/demo:3"), &[]).pushed();
}

#[test]
fn a_login_that_a_helper_keeps_is_in_no_file() {
    let (user, registry) = (User::new(), guarded(false));
    let host = registry.host();
    user.install_helper(
        "fake",
        r#"case "$1" in
            store) cat >kept ;;
            get) cat kept 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
            erase) rm kept 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
        esac"#,
    );
    let authfile = user.write("config.json", json!({ "credHelpers": { &host: "fake" } }).to_string());
    let options = ["--authfile", authfile.to_str().unwrap()];
    user.log_in(&host, PASSWORD, &options).said(0, &["kept by `docker-credential-fake`"]);
    let kept: Value = serde_json::from_str(&user.read("kept")).unwrap();
    assert_eq!(kept, json!({ "ServerURL": host, "Username": USER, "Secret": PASSWORD }));
    let file: Value = serde_json::from_str(&user.read("config.json")).unwrap();
    assert_eq!(file, json!({ "credHelpers": { &host: "fake" }, "auths": { &host: {} } }));
    user.push(&format!("{host}/demo:1"), &options).pushed();

    user.run(["logout", "--all", "--authfile", options[1]]).said(0, &[&format!("logged out of {host}")]);
    assert!(!user.path("kept").exists());
    let file: Value = serde_json::from_str(&user.read("config.json")).unwrap();
    assert_eq!(file, json!({ "credHelpers": { &host: "fake" }, "auths": {} }));
    user.run(["logout", &host, "--authfile", options[1]]).ended(2);

    user.install_helper("fake", "cat >/dev/null; echo 'no room'; exit 1");
    user.log_in(&host, PASSWORD, &options).said(8, &["failed: no room"]);
}
