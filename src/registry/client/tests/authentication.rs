//! What a challenge is answered with, and what is said of a denial.

use super::*;

/// A registry whose tokens are `t1`, `t2`, … and which takes only the newest.
async fn token_registry(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Server {
    let issued = AtomicU64::new(0);
    Server::start(move |seen| {
        if seen.is("GET /token") || seen.is("POST /token") {
            if seen.is("POST /token?old") {
                return say(405, &[], "");
            }
            let newest = issued.fetch_add(1, Ordering::Relaxed) + 1;
            return say(200, &[], &format!(r#"{{"token":"t{newest}","expires_in":300}}"#));
        }
        let newest = format!("Bearer t{}", issued.load(Ordering::Relaxed));
        if seen.header("authorization") == Some(&newest) {
            return answer(seen);
        }
        let host = seen.header("host").unwrap();
        let challenge =
            format!(r#"WWW-Authenticate: Bearer realm="http://{host}/token?old=1",service="a, b""#);
        say(401, &[&challenge], r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
    })
    .await
}

#[tokio::test]
async fn a_challenge_is_answered_by_one_token_for_all_who_wait() {
    let server = token_registry(|_| say(202, &["Location: /1"], "")).await;
    let client = server.client(bob());
    let opens = (0..8).map(|_| async {
        let reply = client.exchange("a/demo", &open(), None, Pool::Small).await.unwrap();
        assert_eq!(reply.status, 202);
    });
    futures_util::future::join_all(opens).await;
    let tokens: Vec<_> = server.seen().into_iter().filter(|seen| seen.is("GET /token")).collect();
    let [token] = tokens.as_slice() else { panic!("one token: {tokens:?}") };
    assert_eq!(token.header("authorization"), Some(BOB));
    assert_eq!(
        token.line,
        "GET /token?old=1&service=a%2C+b&scope=repository%3Aa%2Fdemo%3Apull%2Cpush&client_id=longshore&account=bob"
    );
}

#[tokio::test]
async fn a_token_server_in_trouble_is_asked_once_for_all_who_wait() {
    let server = Server::start(|seen| {
        if seen.is("GET /token") {
            return say(503, &[], "");
        }
        let host = seen.header("host").unwrap();
        say(401, &[&format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"")], "")
    })
    .await;
    let client = server.client(bob());
    let ask = async || client.exchange("demo", &open(), None, Pool::Small).await.unwrap_err();
    assert!(matches!(ask().await, Fault::Connect { .. }));
    // From now on it is known that a token is wanted.
    for round in 2..4 {
        let faults = futures_util::future::join_all((0..8).map(|_| ask())).await;
        assert!(faults.iter().all(|fault| matches!(fault, Fault::Connect { .. })), "{faults:?}");
        assert_eq!(server.count("GET /token"), round);
    }
}

#[tokio::test]
async fn a_refused_body_drops_the_token_and_the_next_gets_another() {
    let revoked = AtomicU64::new(0);
    let server = token_registry(move |seen| {
        if seen.is("PATCH") && revoked.fetch_add(1, Ordering::Relaxed) == 0 {
            return say(401, &[], "");
        }
        say(204, &["Range: 0-3"], "")
    })
    .await;
    let client = server.client(bob());
    let location = at(&server, "/1");
    let status = Request::Status { location: location.clone() };
    let patch = Request::Patch { location, range: 0..4 };
    assert_eq!(client.exchange("demo", &status, None, Pool::Small).await.unwrap().status, 204);
    let reply = client.exchange("demo", &patch, Some(body(4)), Pool::Small).await.unwrap();
    assert_eq!((reply.status, reply.error.unwrap().status), (401, 401));
    assert_eq!(server.count("PATCH"), 1);
    for _ in 0..2 {
        client.reauthenticate("demo").await;
        assert_eq!(server.count("GET /token"), 2);
    }
    let reply = client.exchange("demo", &patch, Some(body(4)), Pool::Small).await.unwrap();
    assert_eq!(reply.status, 204);
    assert_eq!(server.seen().last().unwrap().header("authorization"), Some("Bearer t2"));
}

#[tokio::test]
async fn an_identity_token_is_traded_by_post_or_else_by_get() {
    let mut credentials = Credentials::default();
    credentials.give("a test", Credential::Identity(Secret::new("refresh me")));
    let server = token_registry(|_| say(202, &["Location: /1"], "")).await;
    let client = server.client(ClientOptions { credentials, ..options() });
    client.exchange("demo", &open(), None, Pool::Small).await.unwrap();
    let post = server.seen().into_iter().find(|seen| seen.is("POST /token")).unwrap();
    assert_eq!(
        String::from_utf8(post.body).unwrap(),
        "grant_type=refresh_token&service=a%2C+b&client_id=longshore&\
         scope=repository%3Ademo%3Apull%2Cpush&refresh_token=refresh+me"
    );
    assert_eq!(server.count("GET /token?old=1"), 1);
}

#[tokio::test]
async fn a_token_outlives_the_body_it_is_sent_with() {
    let server = Server::start(|seen| match (seen.is("GET /token"), seen.header("authorization")) {
        (true, _) => say(200, &[], r#"{"token":"t","expires_in":20}"#),
        (false, Some("Bearer t")) => say(202, &["Location: /1"], ""),
        _ => {
            let host = seen.header("host").unwrap();
            say(401, &[&format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"")], "")
        }
    })
    .await;
    let client = server.client(options());
    let patch = Request::Patch { location: at(&server, "/1"), range: 0..4 };
    for (request, carried, tokens) in
        [(&open(), None, 1), (&open(), None, 1), (&patch, Some(body(4)), 2), (&open(), None, 2)]
    {
        let reply = client.exchange("demo", request, carried, Pool::Small).await.unwrap();
        assert_eq!((reply.status, server.count("GET /token")), (202, tokens));
    }
}

#[tokio::test]
async fn a_forbidden_mount_source_forbids_nothing_else() {
    let server = Server::start(|seen| {
        let host = seen.header("host").unwrap();
        if seen.is("GET /token") {
            if seen.line.contains("secret") {
                return say(403, &[], "");
            }
            return say(200, &[], r#"{"access_token":"t"}"#);
        }
        match seen.header("authorization") {
            Some("Bearer t") => say(202, &["Location: /1"], ""),
            _ => say(401, &[&format!("WWW-Authenticate: bearer realm=\"http://{host}/token\"")], ""),
        }
    })
    .await;
    let mount = Some(Mount { digest: Digest::of(b"x"), from: "secret/base".into() });
    let request = Request::Open { mount, algorithm: Algorithm::Sha256 };
    let client = server.client(bob());
    assert_eq!(client.exchange("demo", &request, None, Pool::Small).await.unwrap().status, 202);
    let lines: Vec<_> = server.seen().into_iter().map(|seen| seen.line).collect();
    assert!(lines[1].ends_with("&scope=repository%3Asecret%2Fbase%3Apull&client_id=longshore&account=bob"));
    assert!(lines[2].contains("?scope=repository%3Ademo%3Apull%2Cpush&client_id"), "{lines:?}");
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn a_token_server_may_move_a_question_but_not_to_somebody_else() {
    for (status, to, answered) in
        [(301, "/token/", true), (308, "/token/", true), (302, "http://localhost:1/token", false)]
    {
        let moved = format!("Location: {to}");
        let server = Server::start(move |seen| {
            let host = seen.header("host").unwrap();
            match (seen.is("GET /token/"), seen.is("GET /token"), seen.header("authorization")) {
                (true, _, Some(BOB)) => say(200, &[], r#"{"token":"t"}"#),
                (_, true, Some(BOB)) => {
                    let query = seen.line.split_once('?').unwrap().1;
                    say(status, &[&format!("{moved}?{query}")], "")
                }
                (.., Some("Bearer t")) => say(404, &[], ""),
                _ => say(401, &[&format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"")], ""),
            }
        })
        .await;
        let found = server.client(bob()).head_manifest("demo", "1").await;
        assert_eq!(found.is_ok(), answered, "{to}: {found:?}");
        assert_eq!(server.count("GET /token?"), 1);
    }
}

#[tokio::test]
async fn what_one_repository_asks_for_is_asked_for_no_other() {
    let server = Server::start(|seen| {
        if seen.is("GET /token") {
            // Not every token server gives less than it is asked for.
            let forbidden = seen.line.contains("secret");
            return if forbidden { say(403, &[], "") } else { say(200, &[], r#"{"token":"t"}"#) };
        }
        let (host, repository) = (seen.header("host").unwrap(), seen.line.split('/').nth(2).unwrap());
        let challenge = format!(
            r#"WWW-Authenticate: Bearer realm="http://{host}/token",scope="repository:{repository}:pull""#
        );
        if seen.header("authorization").is_some() { say(404, &[], "") } else { say(401, &[&challenge], "") }
    })
    .await;
    let client = server.client(bob());
    let error = client.head_manifest("secret", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(client.head_manifest("demo", "1").await.unwrap(), None);
}

#[tokio::test]
async fn a_registry_token_is_shown_as_it_is() {
    let server = Server::start(|seen| match seen.header("authorization") {
        Some("Bearer given") => say(404, &[], ""),
        _ => say(401, &["WWW-Authenticate: Basic realm=x"], ""),
    })
    .await;
    let mut credentials = Credentials::default();
    credentials.give("a test", Credential::Token(Secret::new("given")));
    let client = server.client(ClientOptions { credentials, ..options() });
    assert_eq!(client.head_manifest("demo", "1").await.unwrap(), None);
    assert_eq!(client.credential_source("demo"), "a token from a test");

    let nobody = server.client(options());
    let error = nobody.head_manifest("demo", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let log_in = format!("log in by `longshore login {}`", nobody.0.host);
    assert_eq!(error.hints(), [nobody.credential_source("demo"), log_in]);
}

#[tokio::test]
async fn basic_is_shown_after_the_first_challenge() {
    let server = Server::start(|seen| match seen.header("authorization") {
        Some(BOB) => say(404, &[], ""),
        _ => say(401, &["WWW-Authenticate: BASIC realm=\"x\""], ""),
    })
    .await;
    let client = server.client(bob());
    for _ in 0..3 {
        assert_eq!(client.head_blob("demo", &Digest::of(b"x")).await.unwrap(), None);
    }
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_denial_names_whose_credentials_were_shown_and_not_the_secret() {
    let server = Server::start(|seen| {
        let words = r#"{"errors":[{"code":"DENIED","message":"read-only"}]}"#;
        say(403, &["Server: guard"], if seen.is("HEAD") { "" } else { words })
    })
    .await;
    let error = server.client(bob()).head_blob("demo", &Digest::of(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(error.hints(), ["the registry was shown user `bob` from a test"]);
    let words = chain(&error);
    assert!(words.contains("DENIED: read-only") && words.contains("by guard"), "{words}");

    let refusing = Server::start(|seen| {
        if seen.is("GET /token") {
            return say(401, &[], r#"{"details":"incorrect username or password"}"#);
        }
        let host = seen.header("host").unwrap();
        say(401, &[&format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"")], "")
    })
    .await;
    let client = refusing.client(bob());
    for _ in 0..2 {
        let error = client.head_manifest("demo", "1").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        let [shown, log_in] = error.hints()[..] else { panic!("two hints: {error:?}") };
        assert_eq!(shown, "the registry was shown user `bob` from a test");
        assert!(log_in.contains("`longshore login 127.0.0.1:"), "{log_in}");
        let words = format!("{error:?}");
        assert!(words.contains("incorrect username") && !words.contains("xyzzy"), "{words}");
    }
    assert_eq!(refusing.count("GET /token"), 1, "a refused login is not tried again");
}

#[tokio::test]
async fn a_denial_says_what_was_not_shown() {
    let mut identity = Credentials::default();
    identity.give("a test", Credential::Identity(Secret::new("xyzzy")));
    let identity = ClientOptions { credentials: identity, ..options() };
    for (challenge, options, source, wanted) in [
        ("Digest realm=\"r\"", bob(), "user `bob`", "no login by Basic or Bearer"),
        ("Basic realm=\"r\"", identity, "an identity token", "a user and a password"),
    ] {
        let challenge = format!("WWW-Authenticate: {challenge}");
        let server = Server::start(move |_| say(401, &[&challenge], "")).await;
        let error = server.client(options).head_blob("demo", &Digest::of(b"x")).await.unwrap_err();
        let hint = format!("{source} from a test was not shown: the registry asks for {wanted}");
        assert_eq!(error.hints()[0], hint);
    }
}

#[tokio::test]
async fn tokens_are_not_fetched_from_another_host_without_tls() {
    let server =
        Server::start(|_| say(401, &["WWW-Authenticate: Bearer realm=\"http://localhost:1/token\""], ""))
            .await;
    let error = server.client(bob()).head_manifest("demo", "1").await.unwrap_err();
    assert!(chain(&error).contains("is another host and has no TLS"), "{error:?}");
}

#[test]
fn credentials_are_for_the_registry_and_for_itself_with_tls() {
    let client = Client::new("r.example.com:5000", ClientOptions { plain_http: true, ..options() }).unwrap();
    for (url, ours) in [
        ("http://r.example.com:5000/v2/demo", true),
        ("https://r.example.com/v2/demo", true),
        ("https://r.example.com:9000/bucket/data", false),
        ("http://r.example.com:9000/v2/demo", false),
        ("https://cdn.example.com/v2/demo", false),
    ] {
        assert_eq!(client.may_see_credentials(&url.parse().unwrap()), ours, "{url}");
    }
}
