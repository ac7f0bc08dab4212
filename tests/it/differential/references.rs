//! Which repository and tag a destination means.
//!
//! Kept away from: names without a host (a push must not end at Docker Hub because somebody forgot it), IPv6 addresses
//! (Debian's skopeo knows none), hosts that are numbers (ours are those of URLs), names of about 255 characters (skopeo
//! counts the host too), digests (only what has this digest goes there, which skopeo asks later).

use proptest::{collection::vec, prelude::*, sample::select};

use super::{CASES, User};
use crate::{
    support::{
        cases::cases,
        registry::{Registry, Route},
    },
    wire::image::Archive,
};

fn names() -> impl Strategy<Value = String> {
    let odd = select(vec![
        "a-b",
        "a--b",
        "a_b",
        "a__b",
        "a___b",
        "a.b",
        "a..b",
        "a._b",
        "-a",
        "a-",
        "_a",
        ".a",
        "a.",
        "A",
        "aB",
        "0",
        "1.2",
        "é",
        "a%2fb",
        "",
        "..",
        ".",
        "v2",
        "blobs",
        "manifests",
        "a b",
        "a+b",
        "a~b",
    ]);
    let name = prop_oneof![3 => select(vec!["a", "team", "x1"]), 1 => odd];
    let hex = "[0-9a-f]{64}".prop_map(|hex| vec![hex]);
    let names = vec(name.prop_map(str::to_owned), 1..4);
    prop_oneof![9 => names, 1 => hex].prop_map(|names| names.join("/"))
}

fn tags() -> impl Strategy<Value = String> {
    let odd = select(vec![":", ":-a", ":.a", ":a:b", ":a/b", ":é", ":a+b", ":_a", ":V1.0_x"]);
    let long = (127..130_usize).prop_map(|length| format!(":{}", "t".repeat(length)));
    prop_oneof![3 => Just(String::new()), 3 => Just(":1".into()), 2 => odd.prop_map(str::to_owned), 1 => long]
}

proptest! {
    #![proptest_config(cases(CASES))]

    #[test]
    fn a_destination_means_what_skopeo_takes_it_for(
        host in select(vec!["127.0.0.1", "localhost", "LocalHost", "127.0.0.1:", "-a", "user@127.0.0.1", "127.0.0.1%00"]),
        colon in select(vec![":", ":", ":", ":0", ":+", "::"]),
        (names, tag) in (names(), tags()),
    ) {
        let (machine, registry, archive) = (User::new(), Registry::honest(), Archive::of(&[10]));
        let port = registry.host().split_once(':').unwrap().1.to_owned();
        let reference = format!("{host}{colon}{port}/{names}{tag}");
        let archive = format!("docker-archive:{}", archive.path().display());
        let last = || registry.exchanges(Route::ManifestPut).pop().map(|exchange| exchange.target);

        let theirs = machine.skopeo(&[], &["--dest-tls-verify=false", &archive, &format!("docker://{reference}")]);
        let expected = theirs.as_ref().ok().and_then(|_| last());
        let ours = machine.longshore(&["--if-exists", "overwrite", &archive, &reference]);
        let found = ours.as_ref().ok().and_then(|_| last());
        prop_assert_eq!(found, expected, "{}: {:?} {:?}", reference, ours, theirs);
    }
}
