//! Scripts for the tests: a session is played against a list of answers, and what it did is read in one line.

use std::time::Duration;

use http::HeaderMap;

use super::*;
use crate::registry::RegistryError;

pub(super) const MIB: u64 = 1 << 20;

/// What happens to a request.
#[expect(clippy::large_enum_variant, reason = "a handful of them, in tests")]
pub(super) enum Answer {
    Reply(Reply),
    Fault(Fault),
}

pub(super) use Answer::Reply as R;

pub(super) fn place(name: &str) -> Location {
    Location(format!("https://registry.example/v2/demo/blobs/uploads/{name}").parse().unwrap())
}

pub(super) fn status(status: u16) -> Answer {
    let error = (status >= 300).then(|| RegistryError {
        method: "POST".to_owned(),
        url: "https://registry.example/v2/demo/blobs/uploads/".to_owned(),
        status,
        code: None,
        message: None,
        answered_by: None,
        retry_after: None,
        page: false,
    });
    R(Reply { status, headers: HeaderMap::new(), location: None, error, elapsed: Duration::ZERO })
}

impl Answer {
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let R(reply) = &mut self {
            reply.headers.insert(name, value.parse().unwrap());
        }
        self
    }

    pub(super) fn range(self, value: &str) -> Self {
        self.header("range", value)
    }

    pub(super) fn at(mut self, name: &str) -> Self {
        if let R(reply) = &mut self {
            reply.location = Some(place(name));
        }
        self
    }

    pub(super) fn after(mut self, elapsed: Duration) -> Self {
        if let R(reply) = &mut self {
            reply.elapsed = elapsed;
        }
        self
    }

    pub(super) fn code(mut self, code: &str) -> Self {
        if let R(Reply { error: Some(error), .. }) = &mut self {
            error.code = Some(code.to_owned());
        }
        self
    }

    pub(super) fn words(mut self, words: &str) -> Self {
        if let R(Reply { error: Some(error), .. }) = &mut self {
            error.message = Some(words.to_owned());
        }
        self
    }
}

/// A 202 to a POST.
pub(super) fn opened() -> Answer {
    status(202).at("a")
}

/// An honest success of a PATCH that leaves `count` bytes at the registry.
pub(super) fn kept(count: u64) -> Answer {
    status(202).range(&format!("0-{}", count - 1))
}

/// An honest answer to a status GET.
pub(super) fn holds(count: u64) -> Answer {
    status(204).range(&format!("0-{}", count - 1))
}

pub(super) fn reset(sent: u64) -> Answer {
    Answer::Fault(Fault::Reset { sent, elapsed: Duration::ZERO, why: "connection reset".to_owned() })
}

pub(super) fn no_connection() -> Answer {
    Answer::Fault(Fault::Connect { why: "refused".to_owned() })
}

pub(super) fn settings() -> Settings {
    Settings {
        profile: Profile::ORDINARY,
        chunk_size: Some(10),
        retries: 4,
        look_first: false,
        mount_from: None,
        pace: Pace::INSTANT,
        lesson: Lesson::default(),
    }
}

/// Settings of which only this counts.
pub(super) fn wanting(wanted: Option<u64>, profile: Profile) -> Settings {
    Settings { profile, chunk_size: wanted, ..settings() }
}

pub(super) fn limits(wanted: Option<u64>, profile: Profile) -> Limits {
    Limits::new(&wanting(wanted, profile))
}

pub(super) fn advertised(limits: &mut Limits, least: &str, most: &str) -> Result<Vec<String>, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in [("OCI-Chunk-Min-Length", least), ("OCI-CHUNK-MAX-LENGTH", most)] {
        if !value.is_empty() {
            let name: http::HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
    }
    let mut warnings = Vec::new();
    limits.read(&headers, &mut warnings).map(|()| warnings)
}

pub(super) fn blob(size: u64) -> Spool {
    Spool::complete(Digest::of(b"blob"), size)
}

/// Plays a session with one spool against the answers and returns what it did, in short: `POST`, `0..10` for
/// a PATCH, `PUT 5` with a body of 5 bytes, `wait`, and at last `uploaded` or `refused: …`. Requests go to
/// the session `a` unless `@` says otherwise.
pub(super) fn play_with(settings: Settings, spool: &Spool, answers: Vec<Answer>) -> (Session, String) {
    play_on(Session::new(settings), spool, answers)
}

/// Plays on with a session.
pub(super) fn play_on(mut session: Session, spool: &Spool, answers: Vec<Answer>) -> (Session, String) {
    let mut answers = answers.into_iter();
    let mut done = Vec::new();
    loop {
        session = match session.next(spool) {
            Action::Authenticate => {
                done.push("authenticate".to_owned());
                session.on_waited()
            }
            Action::Done(outcome) => {
                done.push(format!("{outcome:?}").to_lowercase());
                break;
            }
            Action::Fail(error) => {
                done.push(format!("{:?}: {}", error.kind(), error::chain(&error)).to_lowercase());
                break;
            }
            Action::More => {
                done.push("more".to_owned());
                break;
            }
            Action::Send(request) => {
                done.push(in_short(&request));
                match answers.next() {
                    Some(R(reply)) => session.on_reply(reply),
                    Some(Answer::Fault(fault)) => session.on_fault(fault),
                    None => break,
                }
            }
            Action::Wait { pause, why } => {
                assert!(!why.is_empty());
                done.push(match pause.as_secs() {
                    0 => "wait".to_owned(),
                    seconds => format!("wait {seconds}"),
                });
                session.on_waited()
            }
        };
        assert!(done.len() < 200, "it goes on for ever: {done:?}");
    }
    assert_eq!(answers.len(), 0, "it ended early: {done:?}");
    (session, done.join(", "))
}

pub(super) fn play(size: u64, answers: Vec<Answer>) -> String {
    play_with(settings(), &blob(size), answers).1
}

pub(super) fn in_short(request: &Request) -> String {
    let (words, location) = match request {
        Request::Cancel { location } => ("DELETE".to_owned(), Some(location)),
        Request::Commit { location, body: None, .. } => ("PUT".to_owned(), Some(location)),
        Request::Commit { location, body: Some(size), .. } => (format!("PUT {size}"), Some(location)),
        Request::Exists { .. } => ("HEAD".to_owned(), None),
        Request::Open { mount: None, .. } => ("POST".to_owned(), None),
        Request::Open { mount: Some(mount), .. } => (format!("POST from {}", mount.from), None),
        Request::Patch { location, range } => (format!("{}..{}", range.start, range.end), Some(location)),
        Request::Status { location } => ("GET".to_owned(), Some(location)),
    };
    match location {
        Some(location) if *location != place("a") => {
            format!("{words} @{}", location.0.path().rsplit('/').next().unwrap())
        }
        _ => words,
    }
}
