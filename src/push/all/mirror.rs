//! Where the images of a source go when all of them are pushed: below one prefix, each by its own name.
//!
//! A name loses its host and keeps path and tag; a rule, `--map FROM=TO`, puts another beginning before what is left
//! of it. A name that is a tag alone stands for the prefix itself.

use std::str::FromStr;

use crate::{
    error::{Error, Result},
    oci::{Reference, Repository, reference},
};

/// A place for many images: a registry, or all below a path of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The registry.
    pub host: String,
    /// What stands before every repository.
    pub path: Option<String>,
    /// `--map`.
    pub rules: Vec<Rule>,
}

/// `FROM=TO`: names that begin with FROM begin with TO instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    from: String,
    to: String,
}

impl Mirror {
    /// Returns the repository that is the prefix itself, if it can be one.
    pub fn itself(&self) -> Option<Repository> {
        self.path.as_ref().map(|path| Repository { host: self.host.clone(), path: path.clone() })
    }

    /// Returns where an image goes that is called `name`; nowhere, if that says no more than a digest. What was fetched by
    /// its digest has no tag.
    pub fn destination(&self, name: &str) -> Result<Option<Reference>> {
        let name = name.strip_prefix("docker://").unwrap_or(name);
        let (name, digest) = name.split_once('@').map_or((name, None), |(name, by)| (name, by.parse().ok()));
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ if digest.is_some() => (name, None),
            _ if name.contains('/') => (name, Some("latest")),
            _ => ("", Some(name)),
        };
        if path.is_empty() && tag.is_none_or(str::is_empty) {
            return Ok(None);
        }
        let below = self.mapped(path);
        let path = match (&self.path, below.as_str()) {
            (Some(prefix), "") => prefix.clone(),
            (Some(prefix), below) => format!("{prefix}/{below}"),
            (None, "") => {
                return Err(Error::usage(format!(
                    "`{}` is a tag, and names no repository",
                    name.escape_debug()
                ))
                .with_hint("give a repository as the prefix: registry.example.com/NAME"));
            }
            (None, below) => below.to_owned(),
        };
        tag.map_or(Ok(()), reference::check_tag)?;
        let repository = Repository::new(self.host.clone(), &path)?;
        let digest = digest.filter(|_| tag.is_none());
        Ok(Some(Reference { repository, tag: tag.map(str::to_owned), digest }))
    }

    /// Returns what of a repository's name stands below the prefix. Of several rules the most particular one counts.
    fn mapped(&self, path: &str) -> String {
        let fitting = self.rules.iter().filter_map(|rule| Some((rule, rule.rest(path)?)));
        match fitting.max_by_key(|(rule, _)| rule.from.len()) {
            Some((rule, rest)) => [rule.to.as_str(), rest]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join("/"),
            None => match path.split_once('/') {
                Some((host, rest)) if reference::is_host(host) => rest.to_owned(),
                _ => path.to_owned(),
            },
        }
    }
}

impl Rule {
    /// Returns what follows FROM in a name that begins with it.
    fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&self.from)?;
        if rest.is_empty() || self.from.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }
}

impl FromStr for Mirror {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.strip_prefix("docker://").unwrap_or(text).trim_end_matches('/');
        let (host, path) = text.split_once('/').map_or((text, None), |(host, path)| (host, Some(path)));
        if !reference::is_host(host) {
            return Err(reference::no_registry(text).with_hint(
                "with `--all`, DEST is what stands before every name: registry.example.com/mirror",
            ));
        }
        if path.is_some_and(|path| path.contains([':', '@'])) {
            return Err(Error::usage(format!("`{}` has a tag or a digest", text.escape_debug()))
                .with_hint("with `--all` the images bring their own tags"));
        }
        let path =
            path.map(|path| Repository::new(host, path)).transpose()?.map(|repository| repository.path);
        Ok(Self { host: host.to_ascii_lowercase(), path, rules: Vec::new() })
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((from, to)) = text.split_once('=') else {
            return Err(Error::usage(format!("`{}` maps nothing", text.escape_debug()))
                .with_hint("`--map quay.io/team=infra` puts the images of quay.io/team below PREFIX/infra"));
        };
        let trimmed = |part: &str| part.trim_matches('/').to_owned();
        Ok(Self { from: trimmed(from), to: trimmed(to) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn mirror(prefix: &str, rules: &[&str]) -> Mirror {
        Mirror { rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(), ..prefix.parse().unwrap() }
    }

    #[test]
    fn a_name_loses_its_host_and_keeps_the_rest() {
        let digest = Digest::of(b"it");
        for (name, expected) in [
            ("docker.io/library/alpine:3.20", "r.example/m/library/alpine:3.20"),
            ("alpine:3.20", "r.example/m/alpine:3.20"),
            ("localhost/demo", "r.example/m/demo:latest"),
            ("localhost:5000/a/b:1", "r.example/m/a/b:1"),
            ("team/app:1", "r.example/m/team/app:1"),
            (&format!("quay.io/a@{digest}"), &format!("r.example/m/a@{digest}")),
            (&format!("quay.io/a:1@{digest}"), "r.example/m/a:1"),
            (&format!("alpine@{digest}"), &format!("r.example/m/alpine@{digest}")),
            ("v1", "r.example/m:v1"),
        ] {
            let destination = mirror("r.example/m", &[]).destination(name).unwrap().unwrap();
            assert_eq!(destination.to_string(), expected, "{name}");
        }
        let bare = mirror("r.example:5000", &[]);
        assert_eq!(bare.destination("quay.io/a/b:1").unwrap().unwrap().to_string(), "r.example:5000/a/b:1");
        assert!(bare.destination("v1").unwrap_err().message().contains("names no repository"));
        assert_eq!(bare.destination(&format!("@{digest}")).unwrap(), None);
        assert!(mirror("r.example/m", &[]).destination("Upper/Case:1").is_err());
    }

    #[test]
    fn the_most_particular_rule_counts() {
        let rules =
            ["quay.io/team=infra/", "quay.io/team/app=apps/main", "docker.io/library=", "localhost=local"];
        for (name, expected) in [
            ("quay.io/team/x:1", "r.example/m/infra/x:1"),
            ("quay.io/team/app:1", "r.example/m/apps/main:1"),
            ("quay.io/team/app/y:1", "r.example/m/apps/main/y:1"),
            ("quay.io/teams/x:1", "r.example/m/teams/x:1"),
            ("docker.io/library/alpine:3", "r.example/m/alpine:3"),
            ("localhost/demo:1", "r.example/m/local/demo:1"),
        ] {
            let destination = mirror("r.example/m", &rules).destination(name).unwrap().unwrap();
            assert_eq!(destination.to_string(), expected, "{name}");
        }
    }

    #[test]
    fn a_prefix_is_a_registry_and_perhaps_a_path() {
        for (prefix, words) in [
            ("mirror", "names no registry"),
            ("r.example/m:1", "has a tag"),
            ("r.example/m@sha256:0", "has a tag or a digest"),
            ("r.example/UP", "invalid repository name"),
        ] {
            let error = prefix.parse::<Mirror>().unwrap_err();
            assert!(error.message().contains(words), "{prefix}: {error}");
        }
        assert_eq!(mirror("docker://R.example/m/", &[]), mirror("r.example/m", &[]));
        assert!("a".parse::<Rule>().is_err());
    }
}
