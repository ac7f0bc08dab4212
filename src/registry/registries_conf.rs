//! What this machine says about registries: containers' `registries.conf` and the small files beside it.
//!
//! Of all it can say, two things concern a push: that a registry's certificate is not checked (`insecure`), and that
//! it is not to be spoken to (`blocked`). Mirrors and other locations are for pulling. The variables come as plain
//! [`Values`]; the files are read here, in the order of containers-registries.conf(5) and .conf.d(5).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{
    error::{Error, Result, no_toml},
    oci::reference::registry_name,
};

/// What the files are found by.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The user's home.
    pub home: Option<PathBuf>,
    /// `CONTAINERS_REGISTRIES_CONF`: the main file, instead of the user's or the system's.
    pub conf: Option<PathBuf>,
    /// What the system's own paths begin at: nothing, or somebody else's root.
    pub system: PathBuf,
}

/// What is said about registries.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConf {
    rules: Vec<Rule>,
    helpers: Option<Vec<String>>,
}

/// What is said about those whose names begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `host[:port][/path]`, or `*.domain`.
    pub prefix: String,
    /// It may have any certificate, or none.
    pub insecure: bool,
    /// It is not to be spoken to.
    pub blocked: bool,
    /// Who says so.
    pub file: PathBuf,
}

impl Values {
    /// Reads the files that count.
    pub fn read(&self) -> Result<RegistriesConf> {
        let mut conf = RegistriesConf::default();
        let own = self.home.as_ref().map(|home| home.join(".config/containers"));
        let [admin, vendor] = ["etc/containers", "usr/share/containers"].map(|dir| self.at(dir));
        if let Some(file) = &self.conf {
            if !conf.read(file)? {
                return Err(Error::local(format!(
                    "`CONTAINERS_REGISTRIES_CONF` names a file that does not exist: `{}`",
                    file.display()
                )));
            }
        } else if let Some(own) = &own
            && conf.read(&own.join(MAIN))?
        {
            // A user's own file stands for all that the system has.
            conf.read_all(&own.join(DROP_INS))?;
            return Ok(conf);
        } else if !conf.read(&admin.join(MAIN))? {
            conf.read(&vendor.join(MAIN))?;
        }
        conf.read_all(&admin.join(DROP_INS))?;
        own.map_or(Ok(()), |own| conf.read_all(&own.join(DROP_INS)))?;
        Ok(conf)
    }

    /// Returns the folders that hold a folder of certificates for each registry, in the order in which they count.
    pub fn certificates(&self) -> Vec<PathBuf> {
        let own = |dir: &str| self.home.as_ref().map(|home| home.join(dir));
        let system = |dir: &str| Some(self.at(dir));
        [
            own(".config/containers/certs.d"),
            system("etc/containers/certs.d"),
            system("etc/docker/certs.d"),
            // Docker without root.
            own(".config/docker/certs.d"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn at(&self, path: &str) -> PathBuf {
        Path::new("/").join(&self.system).join(path)
    }
}

/// The main file's name.
const MAIN: &str = "registries.conf";

/// The folder of small files beside it.
const DROP_INS: &str = "registries.conf.d";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    credential_helpers: Option<Vec<String>>,
    registry: Vec<Table>,
    registries: Lists,
}

/// How all this was said before there were tables.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Lists {
    block: List,
    insecure: List,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct List {
    registries: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
}

impl RegistriesConf {
    /// Returns what is said about a repository by the rule with the longest prefix.
    pub fn rule(&self, host: &str, repository: &str) -> Option<&Rule> {
        let matching = self.rules.iter().filter(|rule| rule.covers(host, repository));
        matching.max_by_key(|rule| rule.prefix.len())
    }

    /// Returns the credential helpers for all registries, `containers-auth.json` standing for the files; nothing
    /// where nobody says, or names none.
    pub fn credential_helpers(&self) -> Option<&[String]> {
        self.helpers.as_deref().filter(|helpers| !helpers.is_empty())
    }

    /// Reads a file over what is known; returns whether there is one.
    fn read(&mut self, path: &Path) -> Result<bool> {
        let text = match fs_err::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::local("reading the configuration").because(error)),
        };
        let File { credential_helpers, mut registry, registries: Lists { block, insecure } } =
            toml::from_str(&text).map_err(|error| {
                no_toml(&text, &error).while_doing(format!("reading `{}`", path.display()))
            })?;
        self.helpers = credential_helpers.or(self.helpers.take());
        let table = |location| Table { location, ..Table::default() };
        registry.extend(block.registries.into_iter().map(|name| Table { blocked: true, ..table(name) }));
        registry.extend(insecure.registries.into_iter().map(|name| Table { insecure: true, ..table(name) }));
        // The last file counts, and in it what is said first.
        for Table { prefix, location, insecure, blocked } in registry.into_iter().rev() {
            let prefix = if prefix.is_empty() { location } else { prefix };
            if prefix.contains("://") {
                let words = format!("a registry has no scheme: `{}`", prefix.escape_debug());
                return Err(Error::local(words).while_doing(format!("reading `{}`", path.display())));
            }
            let (host, path_below) = prefix.find('/').map_or((&*prefix, ""), |slash| prefix.split_at(slash));
            let prefix = registry_name(host) + path_below.trim_end_matches('/');
            self.rules.retain(|rule| rule.prefix != prefix);
            self.rules.push(Rule { prefix, insecure, blocked, file: path.to_owned() });
        }
        Ok(true)
    }

    /// Reads the files of a folder, in the order of their names.
    fn read_all(&mut self, dir: &Path) -> Result<()> {
        let Ok(entries) = fs_err::read_dir(dir) else { return Ok(()) };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
        files.sort();
        files.iter().try_for_each(|file| self.read(file).map(drop))
    }
}

impl Rule {
    fn covers(&self, host: &str, repository: &str) -> bool {
        let whole = format!("{host}/{repository}");
        match self.prefix.strip_prefix('*') {
            // Only with a dot behind the star: one or more parts of a host's name.
            Some(below) if below.starts_with('.') => whole.split_once('/').is_some_and(|(host, rest)| {
                let (domain, path) = below.split_once('/').map_or((below, None), |(d, p)| (d, Some(p)));
                let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
                let named = host.ends_with(domain) || name.ends_with(domain);
                named && path.is_none_or(|path| begins(rest, path))
            }),
            _ => !self.prefix.is_empty() && begins(&whole, &self.prefix),
        }
    }
}

/// Returns whether `text` is `prefix`, or goes on behind it with a port or a path.
fn begins(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, chain};

    /// A machine with these files and a user of its own.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Values) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        let home = Some(dir.path().join("home/u"));
        let values = Values { home, conf: None, system: dir.path().to_owned() };
        (dir, values)
    }

    fn registry(location: &str, rest: &str) -> String {
        format!("[[registry]]\nlocation='{location}'\n{rest}\n")
    }

    #[test]
    fn the_longest_prefix_decides() {
        let rules = [
            registry("r.example.com", "insecure=true"),
            registry("r.example.com/team", "blocked=true"),
            registry("r.example.com:5000", ""),
            registry(
                "elsewhere.example.com",
                "prefix='*.example.org'\ninsecure=true\nmirror-by-digest-only=true",
            ),
            registry("x", "prefix='*.example.net/team'\nblocked=true"),
        ];
        let text = format!("unqualified-search-registries=['docker.io']\n{}", rules.concat());
        let (_dir, values) = machine(&[("etc/containers/registries.conf", &text)]);
        let conf = values.read().unwrap();
        for (host, repository, expected) in [
            ("r.example.com", "a", Some((true, false))),
            ("r.example.com", "team", Some((false, true))),
            ("r.example.com", "team/a", Some((false, true))),
            ("r.example.com", "teams", Some((true, false))),
            ("r.example.com:5000", "team", Some((false, false))),
            ("r.example.com:6000", "a", Some((true, false))),
            ("r.example.com.org", "a", None),
            ("a.b.example.org", "a", Some((true, false))),
            ("a.example.org:5000", "a", Some((true, false))),
            ("example.org", "a", None),
            ("a.example.org.net", "a", None),
            ("a.example.net", "team/a", Some((false, true))),
            ("a.example.net", "a", None),
            ("elsewhere.example.com", "a", None),
        ] {
            let rule = conf.rule(host, repository).map(|rule| (rule.insecure, rule.blocked));
            assert_eq!(rule, expected, "{host}/{repository}");
        }
    }

    #[test]
    fn the_first_of_two_in_a_file_counts_and_the_old_lists_do() {
        let twice = registry("a", "prefix='r'\nblocked=true") + &registry("b", "prefix='r/'\ninsecure=true");
        let old = "[registries.search]\nregistries=['docker.io']\n[registries.insecure]\nregistries=['i', 'both/']\n\
                   [registries.block]\nregistries=['b', 'both']\n";
        for (text, host, expected) in [
            (twice.as_str(), "r", Some((false, true))),
            (old, "i", Some((true, false))),
            (old, "b", Some((false, true))),
            (old, "both", Some((false, true))),
            (old, "docker.io", None),
        ] {
            let (_dir, values) = machine(&[("etc/containers/registries.conf", text)]);
            let conf = values.read().unwrap();
            let rule = conf.rule(host, "a").map(|rule| (rule.insecure, rule.blocked));
            assert_eq!(rule, expected, "{host}: {text}");
        }
    }

    #[test]
    fn a_host_has_one_name_in_every_case() {
        for (location, host) in [
            ("R.Example.com:5000/Team", "r.example.com:5000"),
            ("*.EXAMPLE.com", "r.example.com"),
            ("index.docker.io", "docker.io"),
            ("registry-1.docker.io/", "docker.io"),
        ] {
            let text = registry(location, "blocked=true");
            let (_dir, values) = machine(&[("etc/containers/registries.conf", &text)]);
            assert!(values.read().unwrap().rule(host, "Team").is_some_and(|rule| rule.blocked), "{location}");
        }
    }

    #[test]
    fn a_rule_that_could_never_apply_is_no_rule() {
        let text = registry("https://r.example.com", "blocked=true");
        let (_dir, values) = machine(&[("etc/containers/registries.conf", &text)]);
        let said = chain(&values.read().unwrap_err());
        assert!(said.ends_with("a registry has no scheme: `https://r.example.com`"), "{said}");
    }

    #[test]
    fn a_mistake_is_told_in_one_line() {
        for (text, line) in [("a =\n", 1), ("a = 1\n= 2\n", 2), (&registry("r", "blocked='yes'"), 3)] {
            let (dir, values) = machine(&[("etc/containers/registries.conf", text)]);
            let error = values.read().unwrap_err();
            let path = dir.path().join("etc/containers/registries.conf");
            let said = chain(&error);
            assert!(said.starts_with(&format!("reading `{}`: line {line}: ", path.display())), "{said}");
            assert!(!said.contains('\n') && !said.contains(" | "), "{said}");
        }
    }

    #[test]
    fn a_users_file_stands_for_the_systems_and_small_ones_add_to_it() {
        let insecure = |host: &str| registry(host, "insecure=true");
        let files = [
            ("usr/share/containers/registries.conf", insecure("vendor")),
            ("etc/containers/registries.conf", insecure("system")),
            (
                "etc/containers/registries.conf.d/2.conf",
                registry("system", "blocked=true") + &insecure("two"),
            ),
            ("etc/containers/registries.conf.d/1.conf", insecure("two/x") + &registry("two", "blocked=true")),
            ("etc/containers/registries.conf.d/3.off", insecure("off")),
            ("home/u/.config/containers/registries.conf.d/1.conf", insecure("drop-in")),
        ];
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let (dir, values) = machine(&files);
        let known = |values: &Values| {
            let conf = values.read().unwrap();
            let mut known: Vec<_> = conf
                .rules
                .iter()
                .map(|rule| format!("{} {} {}", rule.prefix, rule.insecure, rule.blocked))
                .collect();
            known.sort();
            known
        };
        let small = ["drop-in true false", "system false true", "two true false", "two/x true false"];
        assert_eq!(known(&values), small);

        let alone = dir.path().join("alone.conf");
        fs_err::write(&alone, insecure("alone")).unwrap();
        let chosen = Values { conf: Some(alone), ..values.clone() };
        assert_eq!(known(&chosen), [&["alone true false"], small.as_slice()].concat());
        let missing = Values { conf: Some("/none.conf".into()), ..values.clone() };
        assert_eq!(missing.read().unwrap_err().kind(), ErrorKind::Local);

        let own = dir.path().join("home/u/.config/containers/registries.conf");
        fs_err::write(own, insecure("own")).unwrap();
        assert_eq!(known(&values), ["drop-in true false", "own true false"]);

        let (_dir, vendor) = machine(&files[..1]);
        assert_eq!(known(&vendor), ["vendor true false"]);
        assert!(known(&Values { system: "/none".into(), ..Values::default() }).is_empty());
    }

    #[test]
    fn helpers_are_named_by_the_last_file_that_names_any() {
        let (_dir, values) = machine(&[
            ("etc/containers/registries.conf", "credential-helpers=['pass']"),
            (
                "etc/containers/registries.conf.d/1.conf",
                "credential-helpers=['containers-auth.json', 'secretservice']",
            ),
            ("etc/containers/registries.conf.d/2.conf", ""),
        ]);
        let conf = values.read().unwrap();
        let expected = ["containers-auth.json", "secretservice"].map(str::to_owned);
        assert_eq!(conf.credential_helpers(), Some(expected.as_slice()));
        assert_eq!(RegistriesConf::default().credential_helpers(), None);
        let (_dir, values) = machine(&[
            ("etc/containers/registries.conf", "credential-helpers=['pass']"),
            ("etc/containers/registries.conf.d/1.conf", "credential-helpers=[]"),
        ]);
        assert_eq!(values.read().unwrap().credential_helpers(), None);
    }

    #[test]
    fn a_broken_file_is_named() {
        let (_dir, values) = machine(&[("etc/containers/registries.conf", "[[registry]\n")]);
        let error = values.read().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Local);
        assert!(chain(&error).contains("etc/containers/registries.conf"), "{error:?}");
    }

    #[test]
    fn a_users_certificates_come_first() {
        let values = Values { home: Some("/h".into()), ..Values::default() };
        let expected = [
            "/h/.config/containers/certs.d",
            "/etc/containers/certs.d",
            "/etc/docker/certs.d",
            "/h/.config/docker/certs.d",
        ];
        assert_eq!(values.certificates(), expected.map(PathBuf::from));
    }
}
