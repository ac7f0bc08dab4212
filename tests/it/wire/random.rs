//! Random registries with random troubles: a push ends with everything in its place, or with a typed error and
//! no tag; in a bounded number of requests, each of which is well formed.
//!
//! `PROPTEST_CASES=1000 cargo test --test it random` tries more of them.

use longshore::{ErrorKind, error::chain};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{
    CHUNK, Pusher, REPOSITORY, assert_arrived, assert_holds,
    image::{Archive, Layout},
    story,
};
use crate::support::{
    cases::cases,
    registry::{Auth, Fault, Lie, Manners, Registry, Route, Script},
};

/// More than any of these pushes may need: a hundred times as many as it takes when all is well.
const MOST_REQUESTS: usize = 1500;

/// So many registries are tried, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 64;

/// What goes wrong once, at which call.
type Trouble = (Route, usize, Fault);

fn lies() -> impl Strategy<Value = Lie> {
    let constant = select(vec!["0-0", "0--1", "bytes=0-70000", "0-10485759", "bytes 0-5/*", "x", ""]);
    prop_oneof![
        Just(Lie::Absent),
        Just(Lie::BytesUnit),
        constant.prop_map(Lie::Constant),
        Just(Lie::LastChunkOnly),
        Just(Lie::OffByOne),
    ]
}

fn faults() -> impl Strategy<Value = Fault> {
    let status =
        select(vec![200, 202, 204, 301, 307, 400, 403, 404, 405, 408, 413, 416, 429, 500, 503, 504, 524]);
    let place = 0..2 * CHUNK as usize;
    let location = select(vec![
        "{path}",
        "http://localhost:{port}{path}",
        "https://127.0.0.1{path}",
        "/lost",
        "ftp://x/",
    ]);
    let header = select(vec![
        ("OCI-Chunk-Min-Length", "80000"),
        ("OCI-Chunk-Min-Length", "-5"),
        ("OCI-Chunk-Max-Length", "30000"),
        ("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Warning", "299 - \"tomorrow all will be well\""),
        ("Set-Cookie", "a=b"),
    ]);
    prop_oneof![
        4 => status.clone().prop_map(Fault::status),
        2 => status.prop_map(|status| Fault::status(status).header("Location", "http://localhost:{port}{path}")),
        2 => place.clone().prop_map(|after| Fault::Cut { after }),
        2 => place.clone().prop_map(|bytes| Fault::AcceptOnly(bytes + 1)),
        1 => place.clone().prop_map(|after| Fault::early(413, after)),
        1 => place.prop_map(|after| Fault::early_and_linger(503, after)),
        1 => Just(Fault::DigestMismatch),
        1 => Just(Fault::ExpireTokens),
        2 => header.prop_map(|(name, value)| Fault::Header(name, value)),
        2 => Just(Fault::LoseAnswer),
        2 => Just(Fault::LoseSession),
        1 => option::of(location.prop_map(str::to_owned)).prop_map(Fault::Location),
        1 => lies().prop_map(Fault::Range),
        1 => Just(Fault::Unauthorized),
    ]
}

fn troubles() -> impl Strategy<Value = Trouble> {
    let route = select(vec![
        Route::BlobHead,
        Route::Commit,
        Route::ManifestHead,
        Route::ManifestPut,
        Route::Mount,
        Route::Open,
        Route::Patch,
        Route::Patch,
        Route::Patch,
        Route::Status,
        Route::Token,
    ]);
    (route, 1..9_usize, faults())
}

fn manners() -> impl Strategy<Value = Manners> {
    let bearer = Auth::Bearer { user: "me", password: "s3cret", expires_in: Some(300) };
    let limits = (
        option::weighted(0.2, 1000..90_000_u64),
        option::weighted(0.2, 20_000..200_000_u64),
        option::weighted(0.1, 50_000..300_000_u64),
    );
    (select(vec![Auth::Anonymous, bearer]), limits, any::<[bool; 5]>(), option::weighted(0.3, lies()))
        .prop_map(
            |(
                auth,
                (chunk_min, chunk_max, body_limit),
                [equal_parts, html, partial, created, status],
                range,
            )| Manners {
                auth,
                chunk_min,
                chunk_max,
                body_limit,
                equal_parts,
                html,
                keeps_partial: partial,
                patch_status: if created { 201 } else { 202 },
                range,
                status,
                ..Manners::default()
            },
        )
}

fn pusher(mount: bool) -> Pusher {
    let mut pusher = Pusher::new();
    let login = longshore::registry::Credential::Login {
        user: "me".into(),
        password: longshore::registry::Secret::new("s3cret"),
    };
    pusher.client.credentials.give("a test", login);
    pusher.options.mount_from = mount.then(|| "team/base".to_owned());
    pusher
}

proptest! {
    #![proptest_config(cases(CASES))]

    #[test]
    fn whatever_happens_a_push_ends_well_or_leaves_no_tag(
        manners in manners(),
        troubles in vec(troubles(), 0..10),
        (layered, mount) in any::<(bool, bool)>(),
    ) {
        // Three chunks and a bit, one byte over a chunk, and a small one.
        let sizes = [3 * CHUNK as usize + 1000, CHUNK as usize + 1, 900];
        let (layout, archive) = (Layout::of(&sizes), Archive::of(&sizes));
        let path = if layered { layout.path().to_owned() } else { archive.path() };
        let mut script = Script::new().manners(manners);
        for (route, nth, fault) in &troubles {
            script = script.on(*route, *nth, fault.clone());
        }
        let registry = Registry::start(script);
        let outcome = pusher(mount).push(&path, &registry);

        let log = registry.log();
        prop_assert!(log.len() < MOST_REQUESTS, "{} requests", log.len());
        for exchange in &log {
            prop_assert!(!exchange.chunked);
            let patch = exchange.method == "PATCH";
            prop_assert_eq!(exchange.content_range.is_some(), patch);
            prop_assert!(!patch || exchange.content_length > Some(1));
        }
        // Whose answer was lost has done its work, and what claims to have done it has not.
        let unsure = troubles.iter().any(|(route, ..)| *route == Route::ManifestPut);
        match outcome {
            Ok(_) if unsure && registry.tags(REPOSITORY).is_empty() => {}
            Ok(_) if layered => assert_arrived(&layout, &registry),
            Ok(_) => assert_holds(&registry, &archive.layers),
            Err(error) => {
                let blamed = [ErrorKind::Denied, ErrorKind::Network, ErrorKind::Refused].contains(&error.kind());
                prop_assert!(blamed, "{}\n{}", chain(&error), story(&registry));
                prop_assert!(unsure || registry.tags(REPOSITORY).is_empty());
            }
        }
    }
}
