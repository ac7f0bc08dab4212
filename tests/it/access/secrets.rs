//! Nothing secret is printed, however much is asked for and whatever goes wrong: passwords, tokens, what upload
//! sessions and signed addresses are known by.

use serde_json::json;

use super::{IMAGE, Run, User};
use crate::support::registry::{Auth, Fault, Lie, Manners, Registry, Route, Script};

/// Words that are nowhere but in secrets.
const PASSWORD: &str = "pw-Xyzzy1";
const SIGNATURE: &str = "sig-Xyzzy2";
const TOKEN: &str = "tok-Xyzzy3";
const PROXY: &str = "prx-Xyzzy4";
const HELPERS: &str = "hlp-Xyzzy5";
/// `me:pw-Xyzzy1`, `me:hlp-Xyzzy5` in base64.
const ENCODED: [&str; 2] = ["bWU6cHctWHl6enkx", "bWU6aGxwLVh5enp5NQ"];

/// Nothing secret was printed.
#[track_caller]
fn is_silent(run: &Run, registry: &Registry) {
    assert!(run.code.is_some(), "{run:?}");
    let secrets = [PASSWORD, SIGNATURE, TOKEN, PROXY, HELPERS, ENCODED[0], ENCODED[1], "_state", "token-"];
    let mut secrets: Vec<String> = secrets.map(str::to_owned).into();
    // What the sessions of this registry were called.
    for exchange in registry.log() {
        let session = exchange.target.split_once("/blobs/uploads/").map(|(_, rest)| rest);
        secrets.extend(session.map(|rest| rest.split('?').next().unwrap().to_owned()));
    }
    for secret in secrets.iter().filter(|secret| secret.len() > 4) {
        let shown = run.stdout.contains(secret) || run.stderr.contains(secret);
        assert!(!shown, "`{secret}` is in:\n{}{}", run.stdout, run.stderr);
    }
    assert!(run.stderr.contains("debug: "), "everything was asked for: {run:?}");
}

/// Everything that goes wrong, one at a time.
fn faults() -> Vec<(Route, Fault)> {
    let signed = format!("http://localhost:{{port}}{{path}}?X-Signature={SIGNATURE}");
    let mut faults = vec![
        (Route::Commit, Fault::DigestMismatch),
        (Route::Commit, Fault::LoseAnswer),
        (Route::Patch, Fault::AcceptOnly(100)),
        (Route::Patch, Fault::Cut { after: 100 }),
        (Route::Patch, Fault::LoseSession),
        (Route::Patch, Fault::Range(Lie::Absent)),
        (Route::Patch, Fault::ExpireTokens),
        (Route::Open, Fault::Location(Some(signed.clone()))),
        (Route::Open, Fault::Location(Some(format!("/elsewhere/{SIGNATURE}{{path}}")))),
        (Route::Open, Fault::Location(Some(format!("http://me:{PASSWORD}@127.0.0.1:{{port}}{{path}}")))),
        (Route::Open, Fault::Location(Some(format!("ftp://{SIGNATURE}@example.com/{SIGNATURE}")))),
        (Route::Open, Fault::Location(None)),
    ];
    for route in
        [Route::ManifestHead, Route::BlobHead, Route::Open, Route::Patch, Route::Commit, Route::ManifestPut]
    {
        faults.extend([
            (route, Fault::Unauthorized),
            (route, Fault::reset()),
            (route, Fault::status(403)),
            (route, Fault::status(404)),
            (route, Fault::status(413)),
            (route, Fault::status(416)),
            (route, Fault::status(503)),
            (route, Fault::Reflect(403)),
            (route, Fault::Reflect(500)),
            (route, Fault::status(307).header("Location", &signed)),
            (route, Fault::status(302).header("Location", &format!("https://127.0.0.1:1/x?sig={SIGNATURE}"))),
            (route, Fault::status(302).header("Location", &format!("http://me:{PASSWORD}@localhost:1/x"))),
        ]);
    }
    for status in [401, 403, 404, 500] {
        faults.push((Route::Token, Fault::status(status)));
    }
    faults.push((Route::Token, Fault::reset()));
    faults.push((Route::Token, Fault::Reflect(400)));
    let given = format!("{{\"token\":\"{TOKEN}\"}}");
    faults.push((Route::Token, Fault::status(400).body("application/json", &given)));
    faults.push((
        Route::Token,
        Fault::status(200).body("application/json", &format!("{{\"tokens\":\"{TOKEN}\"}}")),
    ));
    faults.push((
        Route::Token,
        Fault::status(200).body("application/json", &format!("{{\"token\":\"{TOKEN}\\n\"}}")),
    ));
    faults.push((Route::Token, Fault::status(200).body("text/plain", TOKEN)));
    faults
}

fn run(user: &User, registry: &Registry) -> Run {
    let destination = format!("{}/demo:1", registry.host());
    user.run(["push", "-vv", IMAGE, &destination, "--retries=0", "--chunk-size=4KiB", "--no-cache"])
}

#[test]
fn no_secret_is_printed_whatever_goes_wrong() {
    let basic = Auth::Basic { user: "me", password: PASSWORD };
    let bearer = Auth::Bearer { user: "me", password: PASSWORD, expires_in: Some(300) };
    let mut scripts = Vec::new();
    for (route, fault) in faults() {
        for auth in [&basic, &bearer] {
            let script = Script::new().manners(Manners { auth: auth.clone(), ..Manners::default() });
            scripts.push(script.clone().always(route, fault.clone()));
            scripts.push(script.on(route, 2, fault.clone()));
        }
    }
    let all_silent = |scripts: &[Script]| {
        for script in scripts {
            let registry = Registry::start(script.clone());
            let user = User::new().with("HTTPS_PROXY", format!("http://me:{PROXY}@127.0.0.1:1"));
            let auths = json!({ "auths": { registry.host(): { "username": "me", "password": PASSWORD } } });
            user.write("run/containers/auth.json", auths.to_string());
            is_silent(&run(&user, &registry), &registry);
        }
    };
    // Most of the time is spent waiting.
    std::thread::scope(|scope| {
        for part in scripts.chunks(scripts.len().div_ceil(8)) {
            scope.spawn(move || all_silent(part));
        }
    });
}

#[test]
fn no_wrong_secret_is_printed_either() {
    let auth = Auth::Bearer { user: "me", password: "another", expires_in: None };
    let script = Script::new().manners(Manners { auth, ..Manners::default() });
    let registries = [script.clone(), script.always(Route::Token, Fault::Reflect(400))].map(Registry::start);
    registries.iter().for_each(no_wrong_secret_is_printed_at);
}

fn no_wrong_secret_is_printed_at(registry: &Registry) {
    let host = registry.host();
    let entry = |entry: serde_json::Value| {
        let user = User::new();
        user.write(".docker/config.json", json!({ "auths": { &host: entry } }).to_string());
        user
    };
    let helper = |script: String| {
        let user = User::new();
        user.install_helper("fake", &script);
        user.write(".docker/config.json", r#"{"credsStore":"fake"}"#);
        user
    };
    let secret = |user: &str| json!({ "Username": user, "Secret": HELPERS }).to_string();
    for user in [
        entry(json!({ "auth": ENCODED[0] })),
        entry(json!({ "auth": format!("{PASSWORD} no base64") })),
        entry(json!({ "identitytoken": TOKEN })),
        entry(json!({ "registrytoken": TOKEN })),
        entry(json!({ "registrytoken": format!("{TOKEN}\n") })),
        entry(json!(TOKEN)),
        helper(format!("echo '{}'", secret("me"))),
        helper(format!("echo '{}'", secret("<token>"))),
        helper(format!("echo '{}'; exit 1", secret("me"))),
        helper(format!("echo '{HELPERS}'")),
        User::new().with("LONGSHORE_TOKEN", TOKEN),
        User::new().with("LONGSHORE_TOKEN", format!("{TOKEN}\u{7f}")),
        User::new().with("DOCKER_AUTH_CONFIG", format!("{{\"auths\":{{\"{host}\":\"{PASSWORD}\"")),
        User::new().with("HTTP_PROXY", format!("http://me:{PROXY}@[")),
        User::new().with("HTTP_PROXY", format!("gopher://me:{PROXY}@proxy")),
    ] {
        let run = run(&user, registry);
        assert_ne!(run.code, Some(0), "{run:?}");
        let all = Run { stderr: format!("debug: {}", run.stderr), ..run };
        is_silent(&all, registry);
    }
}
