//! References: `host[:port]/repository[:tag][@digest]`, as destinations are written.
//!
//! Parsed by hand because the registry's host is required here (a push must never end at Docker Hub because
//! somebody forgot it), and because oci-spec takes `Foo/bar` for Docker Hub and refuses `[::1]:5000/x`.

use std::{fmt, str::FromStr};

use super::Digest;
use crate::error::{Error, Result};

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    /// The registry: `host` or `host:port`, lower case.
    pub host: String,
    /// The repository's path on it.
    pub path: String,
}

/// A place for a manifest at a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where.
    pub repository: Repository,
    /// Under which name.
    pub tag: Option<String>,
    /// Which manifest it must be.
    pub digest: Option<Digest>,
}

impl Repository {
    /// Creates a repository of `host` after checking its path.
    pub fn new(host: impl Into<String>, path: &str) -> Result<Self> {
        if is_repository_path(path) {
            Ok(Self { host: host.into(), path: path.to_owned() })
        } else {
            Err(Error::usage(format!("invalid repository name: `{}`", path.escape_debug()))
                .with_hint("lower-case letters, digits and single `.`, `_`, `__` or dashes between them, `/` between parts"))
        }
    }
}

impl Reference {
    /// Reads `repository[:tag][@digest]` at a registry that is known already.
    pub fn at(host: &str, text: &str) -> Result<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|error: Error| Error::usage(error.message()))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let repository = if host == "docker.io" && !path.contains('/') {
            Repository::new(host, &format!("library/{path}"))?
        } else {
            Repository::new(host, path)?
        };
        Ok(Self { repository, tag: tag.map(str::to_owned), digest })
    }
}

/// Returns an error unless `tag` is a legal tag.
pub fn check_tag(tag: &str) -> Result<()> {
    let legal = tag.len() <= 128
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if legal {
        Ok(())
    } else {
        Err(Error::usage(format!("invalid tag: `{}`", tag.escape_debug()))
            .with_hint("up to 128 letters, digits, `.`, `_` and `-`, not starting with `.` or `-`"))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.strip_prefix("docker://").unwrap_or(text);
        let nowhere = || {
            let bare =
                text.split_once("://").map(|(_, rest)| rest).filter(|rest| rest.parse::<Self>().is_ok());
            no_registry(text).with_hint(match bare {
                Some(bare) => format!("write it without a scheme: `{bare}`"),
                None if Self::at("docker.io", &format!("user/{text}")).is_err() => {
                    "write the host first, without a scheme: `registry.example.com/NAME:TAG`".into()
                }
                // What has a slash names its user or organisation.
                None if text.contains('/') => {
                    format!("write the host first, for Docker Hub `docker.io/{text}`")
                }
                None => format!("write the host first, for Docker Hub `docker.io/USER/{text}`"),
            })
        };
        let (host, rest) = text.split_once('/').ok_or_else(|| {
            // `demo:1` is an image more likely than a host and its port.
            let bare = text.starts_with("localhost:") || text.contains(['.', '[']);
            if bare && is_host(text) { no_repository(text) } else { nowhere() }
        })?;
        if !is_host(host) {
            return Err(nowhere());
        }
        Self::at(&registry_name(host), rest)
    }
}

/// Spells a registry's name in the one way that all others are compared with.
pub fn registry_name(host: &str) -> String {
    match host.to_ascii_lowercase() {
        hub if hub == "index.docker.io" || hub == "registry-1.docker.io" => "docker.io".to_owned(),
        host => host,
    }
}

/// Says that `text` begins with no registry. A login that stands there is not repeated.
pub fn no_registry(text: &str) -> Error {
    let address = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = address.split('/').next().unwrap_or(address);
    // `demo@sha256:…` is an image.
    if host.split_once('@').is_some_and(|(_, rest)| !rest.starts_with("sha")) {
        return Error::usage("the name of a registry holds no login: `longshore login` keeps it");
    }
    Error::usage(format!("`{}` names no registry", text.escape_debug()))
}

fn no_repository(host: &str) -> Error {
    Error::usage(format!("`{host}` names no repository"))
        .with_hint(format!("write it behind the registry: `{host}/NAME:TAG`"))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A first component is a host if it could not be a repository's: it has a dot, a port or brackets, or is
/// `localhost`. The characters are those of host names, so that nothing else gets into a URL.
pub fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("[]", port.strip_prefix(':').or(port.is_empty().then_some("1")))
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None if text.contains('.') || text == "localhost" => (text, Some("1")),
            None => return false,
        },
    };
    let legal_port = port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let legal_name = name == "[]"
        || name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        });
    legal_port && legal_name
}

/// distribution-spec: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` between slashes.
fn is_repository_path(path: &str) -> bool {
    path.len() <= 255 && path.split('/').all(is_path_component)
}

fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes.split(|&b| alphanumeric(b)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_names_no_registry_is_told_what_would() {
        for (text, hint) in [
            ("demo:1", "write the host first, for Docker Hub `docker.io/USER/demo:1`"),
            ("team/demo:1", "write the host first, for Docker Hub `docker.io/team/demo:1`"),
            ("http://localhost:5000/a:1", "write it without a scheme: `localhost:5000/a:1`"),
            ("https://a:1", "write the host first, without a scheme: `registry.example.com/NAME:TAG`"),
            (
                "localhost:99999/a:1",
                "write the host first, without a scheme: `registry.example.com/NAME:TAG`",
            ),
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert_eq!(
                (error.message(), error.hints()),
                (&*format!("`{text}` names no registry"), vec![hint])
            );
        }
        for text in
            ["me:xyzzy@localhost:5000/a:1", "https://me:xyzzy@r.example/a", "docker://me:xyzzy@r.example/a"]
        {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.message().contains("holds no login"), "{error:?}");
            assert!(!format!("{error:?}").contains("xyzzy"), "{error:?}");
        }
    }

    #[test]
    fn what_is_printed_is_what_was_read() {
        for text in [
            "registry.example.com/demo:1",
            "localhost/demo",
            "127.0.0.1:5000/a/b__c/d-e.f:V1.0_x",
            "[::1]:5000/x:1",
            "host:80/a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn docker_hub_has_one_name() {
        for text in [
            "docker.io/demo:1",
            "docker://index.docker.io/library/demo:1",
            "registry-1.docker.io/library/demo:1",
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), "docker.io/library/demo:1");
        }
    }

    #[test]
    fn a_forgotten_host_is_said() {
        let error = "demo:1".parse::<Reference>().unwrap_err();
        assert_eq!(error.hints(), ["write the host first, for Docker Hub `docker.io/USER/demo:1`"]);
        for text in [
            "",
            "user/demo:1",
            "Foo/bar",
            "ex ample.com/x",
            "a.b@evil/x",
            "host:99999/x",
            "[::g]/x",
            "host:/x",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_forgotten_repository_is_said() {
        for host in ["registry.example.com", "127.0.0.1:5000", "localhost:5000", "[::1]:5000"] {
            let error = host.parse::<Reference>().unwrap_err();
            assert_eq!(error.to_string(), format!("`{host}` names no repository"));
            assert_eq!(error.hints(), [format!("write it behind the registry: `{host}/NAME:TAG`")]);
        }
    }

    #[test]
    fn repository_names_are_lower_case_and_no_paths() {
        for path in ["A", "a/../b", "", "a//b", "-a", "a_", "a___b", "a..b", "a/", "/a", "_blobs", "a%2fb"] {
            assert!(Repository::new("h", path).is_err(), "{path}");
        }
        for path in ["a", "a--b", "a__b/c.d", "0/1"] {
            assert!(Repository::new("h", path).is_ok(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_reading_prints_itself(text in "\\PC{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn likely_texts_too(text in "[a-z.:]{1,8}(:[0-9]{1,5})?/[a-z0-9_./-]{1,12}(:[a-zA-Z0-9._-]{1,6})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
