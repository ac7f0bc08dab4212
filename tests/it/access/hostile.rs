//! What a hostile registry can do to the user's terminal and to the machine's memory: nothing.

use super::{IMAGE, PASSWORD, Run, USER, User};
use crate::support::{
    longshore::Longshore,
    registry::{Auth, Fault, Manners, Registry, Route, Script},
};

/// Clears the screen, rings, colours, moves the cursor by C1, turns the direction of writing, sets the title.
const EVIL: &str = "no\u{1b}[2J\u{7}\u{1b}[31m \u{9b}5A \u{202e}txet \u{2066} \r\u{8} \u{1b}]0;title\u{7}";

/// The same as a JSON string, and as what headers can carry.
const EVIL_JSON: &str =
    "no\\u001b[2J\\u0007\\u001b[31m \\u009b5A \\u202etxet \\u2066 \\r\\b \\u001b]0;title\\u0007";
const EVIL_HEADER: &str = "no \u{9b}5A \u{202e}txet \u{2066}";

fn is_harmless(run: &Run) -> bool {
    let hostile = |c: char| {
        c != '\n' && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    };
    !run.stdout.contains(hostile) && !run.stderr.contains(hostile)
}

#[test]
fn no_escape_code_of_a_registry_reaches_the_terminal() {
    let json = |field: &str| format!("{{\"errors\":[{{\"code\":\"DENIED\",\"{field}\":\"{EVIL_JSON}\"}}]}}");
    let refused = |content_type: &str, body: &str| Fault::status(403).body(content_type, body);
    let challenge = |realm: &str| {
        Fault::status(401)
            .header("WWW-Authenticate", &format!("Bearer realm=\"{realm}\",service=\"{EVIL_HEADER}\""))
    };
    let token = "http://127.0.0.1:{port}/token";
    let faults = [
        refused("application/json", &json("message")),
        refused("application/json", &json("detail")),
        refused("application/json", &json("code")),
        refused("application/json", &format!("{{\"errors\":[{{\"code\":\"{EVIL_JSON}\"}}]}}")),
        refused("text/html", &format!("<html><title>{EVIL}</title>")),
        refused("text/plain", EVIL),
        refused("text/plain", "").header("Server", EVIL_HEADER).header("Via", EVIL_HEADER),
        Fault::status(200).header("Warning", &format!("299 - \"{EVIL_HEADER}\"")),
        Fault::status(307).header("Location", &format!("http://{EVIL_HEADER}/")),
        Fault::status(302).header("Location", "http://xn--a-ecp.ru/\u{202e}"),
        Fault::status(202).header("Location", &format!("ftp://{EVIL_HEADER}")),
        Fault::status(201).header("Docker-Content-Digest", EVIL_HEADER),
        challenge(&format!("http://{EVIL_HEADER}/token")),
        challenge(token),
    ];
    let user = User::new();
    for fault in faults {
        for route in [Route::BlobHead, Route::Open, Route::Commit, Route::ManifestPut] {
            let script =
                Script::new().always(route, fault.clone()).always(Route::BlobGet, fault.clone()).always(
                    Route::Token,
                    refused("application/json", &format!("{{\"details\":\"{EVIL_JSON}\"}}")),
                );
            let registry = Registry::start(script);
            let host = registry.host();
            let run = user.fed(
                PASSWORD,
                [
                    "push",
                    "-vv",
                    IMAGE,
                    &format!("{host}/demo:1"),
                    "--creds",
                    USER,
                    "--password-stdin",
                    "--retries=0",
                ],
            );
            assert!(is_harmless(&run), "{fault:?}: {run:?}");
        }
    }
}

#[test]
fn harmful_words_are_told_from_harmless_ones() {
    let said = |text: &str| Run { code: None, stdout: String::new(), stderr: text.to_owned() };
    assert!(is_harmless(&said("plain – wörds\nand \\u{1b}[2J\n")));
    for evil in EVIL.chars().filter(|c| !(' '..='~').contains(c)) {
        assert!(!is_harmless(&said(&format!("a{evil}b"))), "{evil:?}");
    }
}

#[test]
fn answers_of_a_million_entries_take_little_memory() {
    let million = |entry: &str| vec![entry; 1_000_000].join(",");
    let plain = peak(Script::new());
    for (what, script) in [
        ("the words of a refusal", {
            let body = format!("{{\"errors\":[{}]}}", million("{\"code\":1}"));
            Script::new().always(Route::Open, Fault::status(403).body("application/json", &body))
        }),
        ("a token server's answer", {
            let auth = Auth::Bearer { user: USER, password: PASSWORD, expires_in: None };
            let body = format!("{{\"token\":\"t\",\"more\":[{}]}}", million("0"));
            let script = Script::new().manners(Manners { auth, ..Manners::default() });
            script.always(Route::Token, Fault::status(200).body("application/json", &body))
        }),
        ("a manifest", {
            let body = format!("[{}]", million("0"));
            Script::new()
                .always(Route::ManifestHead, Fault::status(200))
                .always(Route::ManifestGet, Fault::status(200).body("application/json", &body))
        }),
        ("deep brackets", {
            let body = "[".repeat(1_000_000);
            let fault = Fault::status(403).body("application/json", &body);
            Script::new().always(Route::Open, fault.clone()).always(Route::ManifestHead, fault)
        }),
    ] {
        let peak = peak(script);
        // In KiB: all of it is at most 4 MiB, once as bytes and once as what they mean.
        assert!(peak < plain + (40 << 10), "{what}: {peak} KiB, an honest push takes {plain}");
    }
}

/// Pushes; returns the largest resident set in KiB.
fn peak(script: Script) -> u64 {
    let registry = Registry::start(script);
    let destination = format!("{}/demo:1", registry.host());
    let run = Longshore::new().run(["push", IMAGE, &destination, "--retries=0"]);
    assert!(run.code.is_some_and(|code| code != 1), "{run:?}");
    run.peak
}
