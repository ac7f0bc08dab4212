//! Whose login is shown, of all that files hold.
//!
//! Kept away from, since we read docker's files as docker does, too: `username` beside no `auth`, `credsStore`, keys that
//! end in a slash or are in upper case, identity tokens where a password is asked for, `DOCKER_CONFIG` (asked alone, as
//! podman does). Where skopeo gives a file up, we look on: at an entry that says nothing or cannot be read, at a helper
//! that knows nothing or fails.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use proptest::{collection::btree_map, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use super::{CASES, User};
use crate::{
    support::{
        cases::cases,
        registry::{Auth, Manners, Registry, Script},
    },
    wire::image::Archive,
};

/// Where files are looked for unless one is chosen.
const PLACES: [&str; 4] =
    ["run/containers/auth.json", ".config/containers/auth.json", ".docker/config.json", ".dockercfg"];

#[derive(Clone, Debug)]
enum File {
    /// A login for each of these keys; of URLs one, since podman takes any.
    Entries { keys: Vec<String>, helper: Option<String> },
    /// The helper has it, or nobody: what docker writes then.
    Marker { helper: Option<&'static str> },
}

impl File {
    /// Writes it so that every login says where it stood.
    fn text(&self, place: &str, host: &str) -> String {
        let fill = |text: &str| text.replace("HOST", host);
        let auth = |key: &str| json!({ "auth": BASE64_STANDARD.encode(format!("{place} {key}:p:w")) });
        let (entries, helper) = match self {
            Self::Entries { keys, helper } => {
                // The old file is docker's, which knows whole registries only.
                let counts =
                    |key: &&String| place != ".dockercfg" || key.contains("://") || !key.contains('/');
                let entries: Map<String, Value> =
                    keys.iter().filter(counts).map(|key| (fill(key), auth(key))).collect();
                (entries, helper.clone().map(|key| json!({ fill(&key): "has" })))
            }
            Self::Marker { helper } => {
                (Map::from_iter([(host.to_owned(), json!({}))]), helper.map(|name| json!({ host: name })))
            }
        };
        match helper {
            _ if place == ".dockercfg" => Value::Object(entries).to_string(),
            None => json!({ "auths": entries }).to_string(),
            Some(helper) => json!({ "auths": entries, "credHelpers": helper }).to_string(),
        }
    }
}

fn files() -> impl Strategy<Value = File> {
    let host = select(vec!["HOST", "HOST", "HOST", "HOST0", "127.0.0.1", "localhost", "docker.io"]);
    let path = select(vec!["", "", "/team", "/team/app", "/team/ap", "/team/app/x", "/v1", "/v1/team"]);
    let url = option::of((
        select(vec!["http", "https"]),
        select(vec!["", "/", "/v1/", "/v2/", "/team"]).prop_map(|path| format!("://HOST{path}")),
    ));
    let keys = btree_map((host, path), Just(()), 0..4);
    let helper =
        option::weighted(0.2, select(vec!["HOST", "localhost", "HOST/team"]).prop_map(str::to_owned));
    let entries = (keys, url, helper).prop_map(|(keys, url, helper)| {
        let plain = keys.into_keys().map(|(host, path)| format!("{host}{path}"));
        let url = url.map(|(scheme, rest)| format!("{scheme}{rest}"));
        File::Entries { keys: plain.chain(url).collect(), helper }
    });
    let marker = option::of(select(vec!["has", "knows-nothing"])).prop_map(|helper| File::Marker { helper });
    prop_oneof![4 => entries, 1 => marker]
}

proptest! {
    #![proptest_config(cases(CASES))]

    #[test]
    fn the_login_that_is_shown_is_the_one_that_skopeo_shows(
        files in [(); 4].map(|()| option::of(files())),
        chosen in option::weighted(0.1, files()),
        repository in select(vec!["team/app", "team/app", "team", "v1/team", "other"]),
    ) {
        let auth = Auth::Basic { user: "nobody", password: "" };
        let registry = Registry::start(Script::new().manners(Manners { auth, ..Manners::default() }));
        let (mut machine, host, archive) = (User::new(), registry.host(), Archive::of(&[10]));
        machine.install_helper("has", r#"echo "{\"Username\":\"helper of $(cat)\",\"Secret\":\"x\"}""#);
        machine.install_helper("knows-nothing", "echo 'credentials not found in native keychain'; exit 1");
        if let Some(file) = &chosen {
            // Debian's skopeo looks on behind a file that was chosen.
            let path = machine.write("chosen.json", file.text("chosen", &host));
            machine.set("REGISTRY_AUTH_FILE", path);
        } else {
            for (place, file) in PLACES.iter().zip(&files) {
                file.as_ref().map(|file| machine.write(place, file.text(place, &host)));
            }
        }
        let image = format!("docker-archive:{}", archive.path().display());
        let to = format!("{host}/{repository}:1");
        let shown = |from: usize| {
            let log = registry.log().split_off(from);
            let header = log.iter().rev().find_map(|exchange| exchange.header("authorization"));
            // Older ones show an empty login where they have none.
            header.filter(|header| *header != "Basic Og==").map(|header| {
                let login = BASE64_STANDARD.decode(header.trim_start_matches("Basic ")).unwrap();
                String::from_utf8(login).unwrap()
            })
        };
        machine.skopeo(&[], &["--dest-tls-verify=false", &image, &format!("docker://{to}")]).unwrap_err();
        let (theirs, between) = (shown(0), registry.log().len());
        let said = machine.longshore(&[&image, &to]).unwrap_err();
        prop_assert_eq!(shown(between), theirs, "{}", said);
    }
}
