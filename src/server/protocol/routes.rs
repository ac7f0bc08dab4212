//! What a request asks for: its path taken apart into checked `names`, and the small things that several verbs read. No
//! I/O.

use http::{HeaderMap, header::CONTENT_LENGTH, request::Parts};
use url::form_urlencoded;

use super::{
    names::{Name, Target, digest},
    reply::Refusal,
};
use crate::oci::Digest;

/// Where processes are asked whether they are well.
pub(in crate::server) const HEALTH: &str = "/healthz";

/// Where it is counted what the registry has done.
pub(in crate::server) const METRICS: &str = "/metrics";

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum Route {
    /// `/v2/<name>/blobs/<digest>`
    Blob(Name, Digest),
    /// `/v2/_catalog`
    Catalog,
    /// [`HEALTH`]
    Health,
    /// `/v2/<name>/manifests/<tag or digest>`
    Manifest(Name, Target),
    /// [`METRICS`]
    Metrics,
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Name, Digest),
    /// `/v2/`
    Root,
    /// `/v2/<name>/tags/list`
    Tags(Name),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(Name, String),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Name),
}

impl Route {
    /// Takes a path apart, from its end: a repository's name may itself hold `tags` or `manifests`.
    pub(in crate::server) fn parse(path: &str) -> Result<Self, Refusal> {
        let nowhere = || Refusal::not_found("UNSUPPORTED", "there is nothing under this path");
        if path == HEALTH {
            return Ok(Self::Health);
        }
        if path == METRICS {
            return Ok(Self::Metrics);
        }
        let path = path.strip_prefix("/v2").ok_or_else(nowhere)?;
        if matches!(path, "" | "/") {
            return Ok(Self::Root);
        }
        let path = path.strip_prefix('/').ok_or_else(nowhere)?;
        if path == "_catalog" {
            return Ok(Self::Catalog);
        }
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Ok(Self::Tags(name.parse()?));
        }
        if let Some(name) = path.strip_suffix("/blobs/uploads") {
            return Ok(Self::Uploads(name.parse()?));
        }
        let (rest, last) = path.rsplit_once('/').ok_or_else(nowhere)?;
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            let name = name.parse()?;
            return Ok(if last.is_empty() { Self::Uploads(name) } else { Self::Upload(name, last.into()) });
        }
        let (name, kind) = rest.rsplit_once('/').ok_or_else(nowhere)?;
        match kind {
            "blobs" => Ok(Self::Blob(name.parse()?, digest(last)?)),
            "manifests" => Ok(Self::Manifest(name.parse()?, Target::parse(last)?)),
            "referrers" => Ok(Self::Referrers(name.parse()?, digest(last)?)),
            _ => Err(nowhere()),
        }
    }

    /// Returns what kind of path it is.
    pub(in crate::server) const fn kind(&self) -> &'static str {
        match self {
            Self::Blob(..) => "blob",
            Self::Catalog => "catalog",
            Self::Health => "health",
            Self::Manifest(..) => "manifest",
            Self::Metrics => "metrics",
            Self::Referrers(..) => "referrers",
            Self::Root => "root",
            Self::Tags(..) => "tags",
            Self::Upload(..) => "upload",
            Self::Uploads(..) => "uploads",
        }
    }

    /// Returns what can be done with it.
    pub(in crate::server) const fn methods(&self) -> &'static str {
        match self {
            Self::Blob(..) => "GET, HEAD, DELETE",
            Self::Catalog
            | Self::Health
            | Self::Metrics
            | Self::Referrers(..)
            | Self::Root
            | Self::Tags(_) => "GET, HEAD",
            Self::Manifest(..) => "GET, HEAD, PUT, DELETE",
            Self::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
            Self::Uploads(_) => "POST",
        }
    }
}

/// Returns the first value of a query's parameter.
pub(in crate::server) fn parameter(head: &Parts, name: &str) -> Option<String> {
    parameters(head, name).into_iter().next()
}

/// Returns every value of a query's parameter. A plus is one: clients write media types as they are, and nothing that
/// is asked for has a space in it.
pub(in crate::server) fn parameters(head: &Parts, name: &str) -> Vec<String> {
    let query = head.uri.query().unwrap_or_default().replace('+', "%2B");
    let pairs = form_urlencoded::parse(query.as_bytes());
    pairs.filter_map(|(key, value)| (key == name).then(|| value.into_owned())).collect()
}

/// Returns the length a request states for its body.
pub(in crate::server) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn every_path_has_its_route() {
        let (name, of_empty) = ("a/tags/b".parse::<Name>().unwrap(), Digest::of(b""));
        for (path, route) in [
            ("/healthz".to_owned(), Route::Health),
            ("/metrics".to_owned(), Route::Metrics),
            ("/v2/".to_owned(), Route::Root),
            ("/v2".to_owned(), Route::Root),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/tags/b/tags/list".to_owned(), Route::Tags(name.clone())),
            ("/v2/a/tags/b/blobs/uploads".to_owned(), Route::Uploads(name.clone())),
            ("/v2/a/tags/b/blobs/uploads/".to_owned(), Route::Uploads(name.clone())),
            ("/v2/a/tags/b/blobs/uploads/x1".to_owned(), Route::Upload(name.clone(), "x1".into())),
            (format!("/v2/a/tags/b/blobs/{of_empty}"), Route::Blob(name.clone(), of_empty.clone())),
            (format!("/v2/a/tags/b/referrers/{of_empty}"), Route::Referrers(name.clone(), of_empty.clone())),
            ("/v2/a/tags/b/manifests/1".to_owned(), Route::Manifest(name.clone(), Target::Tag("1".into()))),
            (
                format!("/v2/a/tags/b/manifests/{}", of_empty.to_string().replace(':', "%3A")),
                Route::Manifest(name, Target::Digest(of_empty)),
            ),
        ] {
            assert_eq!(Route::parse(&path).unwrap(), route, "{path}");
        }
    }

    #[test]
    fn what_could_be_a_path_on_disk_is_refused() {
        for path in [
            "/v2/../tags/list",
            "/v2/a/../b/tags/list",
            "/v2/_blobs/tags/list",
            "/v2/a/blobs/tags/list",
            "/v2/a/index.json/tags/list",
            "/v2/oci-layout/tags/list",
            "/v2//tags/list",
            "/v2//etc/manifests/1",
            "/v2/a%2f..%2fb/manifests/1",
            "/v2/A/manifests/1",
            "/v2/a/manifests/..",
            "/v2/a/manifests/sha256:..",
            "/v2/a/blobs/sha256:../../x",
            "/v2/a/blobs/..",
            "/v2/a/x/1",
            "/v2/a",
            "/v2x/a/tags/list",
            "/",
            "",
        ] {
            assert!(Route::parse(path).unwrap_err().reply().status().is_client_error(), "{path}");
        }
    }

    #[test]
    fn parameters_are_unescaped() {
        let asked = |path: &str| Request::get(path).body(()).unwrap().into_parts().0;
        let head = asked("/?a=1&digest=sha256%3Aab&digest=2");
        assert_eq!(parameter(&head, "digest").as_deref(), Some("sha256:ab"));
        assert_eq!(parameters(&head, "digest"), ["sha256:ab", "2"]);
        assert_eq!(parameter(&asked("/?a=x/y+z"), "a").as_deref(), Some("x/y+z"));
        assert_eq!(parameter(&asked("/?a=x%2Fy%2Bz"), "a").as_deref(), Some("x/y+z"));
        assert_eq!(parameter(&head, "b"), None);
        assert_eq!(parameter(&asked("/"), "a"), None);
    }
}
