//! What `registries.conf` says about a registry.
//!
//! Kept away from: upper case (skopeo takes `HOST` and `host` for two), what podman and skopeo refuse the whole file for
//! and we read as far as it goes (no location, two rules for one that contradict each other, stars before a port or a
//! path, the old lists in a small file).

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{CASES, User};
use crate::{
    support::{
        cases::cases,
        registry::{Manners, Registry, Script},
    },
    wire::image::Archive,
};

type Rule = (&'static str, &'static str, bool, bool);

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let host = select(vec!["HOST", "HOST", "NAME", "localhost", "docker.io"]);
    let path = select(vec!["", "", "/", "/team", "/team/", "/te", "/team/app", "/team/app/x", "/team/app:1"]);
    let star = select(vec!["*.0.0.1", "*.0.1", "*.127.0.0.1", "*"]).prop_map(|star| (star, ""));
    let prefix = prop_oneof![4 => (host, path), 1 => star];
    let rule = (prefix, any::<bool>(), prop::bool::weighted(0.2));
    vec(rule.prop_map(|((host, path), insecure, blocked)| (host, path, insecure, blocked)), 0..4)
}

/// Every rule has a location of its own, and a mirror that must not count.
fn written(rules: &[Rule], host: &str) -> String {
    let table = |(number, (name, path, insecure, blocked)): (usize, &Rule)| {
        let name = name.replace("HOST", host).replace("NAME", "127.0.0.1");
        format!(
            "[[registry]]\nprefix='{name}{path}'\nlocation='{number}.example.com'\ninsecure={insecure}\n\
             blocked={blocked}\n[[registry.mirror]]\nlocation='{host}'\ninsecure=true\n"
        )
    };
    rules.iter().enumerate().map(table).collect()
}

/// The old way to say it.
fn listed(insecure: bool, blocked: bool, host: &str) -> String {
    let list = |holds: bool| if holds { format!("['{host}']") } else { "[]".to_owned() };
    format!(
        "[registries.insecure]\nregistries={}\n[registries.block]\nregistries={}\n",
        list(insecure),
        list(blocked)
    )
}

/// Whether a registry was pushed to whose certificate nobody knows.
fn verdict(outcome: &Result<Vec<u8>, String>) -> &'static str {
    match outcome {
        Ok(_) => "insecure",
        Err(words) if words.contains(" is blocked in ") => "blocked",
        Err(words) if words.contains("certificate") => "secure",
        Err(words) => panic!("{words}"),
    }
}

proptest! {
    #![proptest_config(cases(CASES))]

    #[test]
    fn a_registry_is_insecure_or_blocked_as_for_skopeo(
        chosen in option::weighted(0.3, rules()),
        own in option::weighted(0.7, rules()),
        old in option::weighted(0.1, any::<(bool, bool)>()),
        small in vec((select(vec!["10.conf", "9.conf", "x.off"]), rules()), 0..3),
    ) {
        let registry = Registry::start(Script::new().manners(Manners { tls: true, ..Manners::default() }));
        let (mut machine, host, archive) = (User::new(), registry.host(), Archive::of(&[10]));
        if let Some(rules) = &own {
            let text = old.map_or_else(|| written(rules, &host), |(insecure, blocked)| listed(insecure, blocked, &host));
            machine.write(".config/containers/registries.conf", text);
        }
        for (name, rules) in &small {
            machine.write(&format!(".config/containers/registries.conf.d/{name}"), written(rules, &host));
        }
        let chosen = chosen.map(|rules| machine.write("chosen.conf", written(&rules, &host)));
        let mut options = Vec::new();
        if let Some(path) = &chosen {
            options = vec!["--registries-conf", path.to_str().unwrap()];
            machine.set("CONTAINERS_REGISTRIES_CONF", path.clone());
        }
        let (image, to) = (format!("docker-archive:{}", archive.path().display()), format!("{host}/team/app:1"));
        let theirs = machine.skopeo(&options, &[&image, &format!("docker://{to}")]);
        let ours = machine.longshore(&[&image, &to]);
        prop_assert_eq!(verdict(&ours), verdict(&theirs), "{:?} {:?}", ours, theirs);
    }
}
