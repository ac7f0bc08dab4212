//! `Location` headers: where an upload session goes on, and where a redirect leads.
//!
//! A location is resolved against the request it answers. Proxies like to forget our scheme and port, so on
//! the same hostname both stay what they were, unless storage beside the registry is read; another hostname passes
//! through the guard. The query holds
//! state and signatures of the registry: it is carried on byte for byte and never printed.

use std::fmt;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::{
    guard::{Guard, Unsafe},
    origin::origin,
    proxies::Proxies,
};
use crate::{
    error::{Error, ErrorKind, Result},
    oci::Digest,
};

/// Redirects that lead further lead in circles.
pub(crate) const REDIRECTS: usize = 5;

/// The HTTP client takes no address of 64 KiB, and a digest may have to follow.
const LONGEST: usize = 65_000;

/// The address of an upload session, already resolved and checked by the transport.
///
/// Holds state tokens of registries and signed queries: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Location(pub(crate) Url);

impl Location {
    /// Reads a `Location` header as a registry at `request` would have sent it.
    pub fn read(value: HeaderValue, request: &Url) -> Result<Self> {
        let headers = HeaderMap::from_iter([(header::LOCATION, value)]);
        let location = Self::of(&headers, request, &Guard::new(request, Proxies::default()))?;
        location.ok_or_else(|| Error::internal("a header was set and is not there"))
    }

    /// Reads the `Location` of an answer to a request for `request`, if there is one.
    pub(crate) fn of(headers: &HeaderMap, request: &Url, guard: &Guard) -> Result<Option<Self>> {
        let Some(mut target) = target(headers, request)? else { return Ok(None) };
        keep_origin(&mut target, request);
        guard.check(&target, request)?;
        Ok(Some(Self(target)))
    }

    /// Returns this address with `digest=…` behind the query, which stays as it is: decoding and encoding it
    /// again breaks signatures (gh:oras-project/oras-py#150). Where a closing PUT was redirected to, it may be there
    /// already.
    pub(crate) fn with_digest(&self, digest: &Digest) -> Url {
        let parameter = format!("digest={}%3A{}", digest.algorithm().name(), digest.hex());
        let mut url = self.0.clone();
        if url.query_pairs().any(|(name, value)| name == "digest" && value == digest.to_string()) {
            return url;
        }
        match self.0.query() {
            None | Some("") => url.set_query(Some(&parameter)),
            Some(query) => url.set_query(Some(&format!("{query}&{parameter}"))),
        }
        url
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Location(…)")
    }
}

/// Says where a redirect leads, if `status` is one that `method` may follow: the request is then repeated as
/// it was. `None` means that the answer stands.
///
/// What is read may lie outside of the registry, on another port of its host: distribution sends to its bucket, which
/// a MinIO beside it serves. That address is right, since whoever pulls goes there too.
pub(crate) fn redirected(
    method: &Method,
    request: &Url,
    status: StatusCode,
    headers: &HeaderMap,
    guard: &Guard,
) -> Result<Option<Url>> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let strict = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let lax = matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND);
    if !(strict || lax || (reads && status == StatusCode::SEE_OTHER)) {
        return Ok(None);
    }
    let Some(named) = target(headers, request)? else { return Ok(None) };
    if lax && !reads && named.host_str() != request.host_str() {
        // Other clients turn this into a GET, whose 404 says nothing (gh:goharbor/harbor#2473).
        let words = format!("{method} is redirected by {} to {}", status.as_u16(), origin(&named));
        return Err(Error::new(ErrorKind::Refused, words)
            .with_hint(format!("push to `{}` instead", named.authority())));
    }
    let mut target = named.clone();
    let downgraded = request.scheme() == "https" && named.scheme() == "http";
    if !reads || downgraded || named.path().starts_with("/v2/") {
        keep_origin(&mut target, request);
    }
    if target == *request {
        // Scheme or port are all that this redirect is about.
        target = named;
    }
    guard.check(&target, request)?;
    Ok(Some(target))
}

fn target(headers: &HeaderMap, request: &Url) -> Result<Option<Url>> {
    // An empty one would lead to where it was asked for.
    let Some(value) = headers.get(header::LOCATION).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let resolved = std::str::from_utf8(value.as_bytes()).ok().and_then(|text| request.join(text).ok());
    let Some(mut target) = resolved.filter(|url| matches!(url.scheme(), "http" | "https")) else {
        let words = format!("{} answered with a `Location` that is no http URL", origin(request));
        return Err(Error::new(ErrorKind::Refused, words).because(Unsafe("we go nowhere else".to_owned())));
    };
    let length = target.as_str().len();
    if length > LONGEST {
        let words = format!("{} answered with a `Location` of {length} bytes", origin(request));
        return Err(Error::new(ErrorKind::Refused, words)
            .because(Unsafe(format!("no request goes to one of more than {LONGEST}"))));
    }
    // `user:password@` would become an `Authorization` header of the registry's making.
    target.set_username("").and_then(|()| target.set_password(None)).expect("http URLs take user info");
    target.set_fragment(None);
    Ok(Some(target))
}

/// Keeps our scheme and port where only they differ (gh:distribution/distribution#970, #2862).
pub(super) fn keep_origin(target: &mut Url, request: &Url) {
    if target.host() != request.host() || target.origin() == request.origin() {
        return;
    }
    tracing::debug!(named = %origin(target), kept = %origin(request), "the registry does not know its own address");
    target
        .set_scheme(request.scheme())
        .and_then(|()| target.set_port(request.port()))
        .expect("one http URL takes the scheme and port of another");
}

/// Leaves out which upload session a path leads to: whoever knows it could write to it. Outside of `/v2/` any part
/// may be its name.
pub(super) fn nameless(path: &str) -> String {
    let first = path.split_inclusive('/').take(2).collect::<String>();
    if first != "/v2/" && first != path {
        return format!("{first}…");
    }
    for folder in ["/blobs/uploads/", "/blobs/upload/"] {
        if let Some((repository, session)) = path.split_once(folder)
            && !session.is_empty()
        {
            return format!("{repository}{folder}…");
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(location: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::LOCATION, location.parse().unwrap())])
    }

    fn resolve(request: &str, location: &str) -> Result<String> {
        let request: Url = request.parse().unwrap();
        let guard = Guard::new(&request, Proxies::default());
        Ok(Location::of(&headers(location), &request, &guard)?.unwrap().0.into())
    }

    #[test]
    fn locations_are_resolved_against_the_request() {
        let request = "https://r.example.com:5000/v2/demo/blobs/uploads/";
        for (location, resolved) in [
            ("/v2/demo/blobs/uploads/1", "https://r.example.com:5000/v2/demo/blobs/uploads/1"),
            ("1?_state=a%2Fb", "https://r.example.com:5000/v2/demo/blobs/uploads/1?_state=a%2Fb"),
            ("https://r.example.com/v2/x", "https://r.example.com:5000/v2/x"),
            ("http://r.example.com/v2/x", "https://r.example.com:5000/v2/x"),
            ("http://R.example.com:80/v2/x", "https://r.example.com:5000/v2/x"),
            ("//r.example.com/artifacts-uploads/x", "https://r.example.com:5000/artifacts-uploads/x"),
            ("/v2/demo/blobs/upload/1", "https://r.example.com:5000/v2/demo/blobs/upload/1"),
            ("https://cdn.example.net/x?sig=a+b%20c==&~|{}", "https://cdn.example.net/x?sig=a+b%20c==&~|{}"),
            ("https://me:secret@r.example.com/x#there", "https://r.example.com:5000/x"),
        ] {
            assert_eq!(resolve(request, location).unwrap(), resolved, "{location}");
        }
        assert_eq!(resolve("http://[::1]:5000/v2/", "http://[::1]/x").unwrap(), "http://[::1]:5000/x");
    }

    #[test]
    fn an_empty_location_is_none() {
        let request: Url = "https://r.example.com/v2/demo/blobs/uploads/".parse().unwrap();
        let guard = Guard::new(&request, Proxies::default());
        assert_eq!(Location::of(&headers(""), &request, &guard).unwrap(), None);
        let found = redirected(&Method::GET, &request, StatusCode::FOUND, &headers(""), &guard);
        assert_eq!(found.unwrap(), None);
    }

    #[test]
    fn unsafe_locations_are_refused() {
        for location in [
            "http://cdn.example.net/x",
            "https://169.254.169.254/latest/meta-data",
            "https://",
            "http://[::g]/",
            "ftp://cdn.example.net/x",
            "data:,x",
            &format!("/x?{}", "a".repeat(LONGEST)),
        ] {
            let error = resolve("https://r.example.com/v2/", location).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{location}");
            assert!(!error.to_string().contains("meta-data"), "{error}");
        }
    }

    #[test]
    fn the_digest_goes_behind_an_untouched_query() {
        let digest = Digest::of(b"");
        let parameter = format!("digest=sha256%3A{}", digest.hex());
        for (location, url) in [
            ("https://r/v2/x", format!("https://r/v2/x?{parameter}")),
            ("https://r/v2/x?", format!("https://r/v2/x?{parameter}")),
            ("https://r/v2/x?_state=a%2Bb+c==", format!("https://r/v2/x?_state=a%2Bb+c==&{parameter}")),
        ] {
            assert_eq!(Location(location.parse().unwrap()).with_digest(&digest).as_str(), url);
        }
        // Where a closing PUT was redirected to, it is there already, and may be signed.
        for named in [format!("digest={digest}"), format!("a=b&{parameter}&sig=1")] {
            let url = format!("https://r/v2/x?{named}");
            assert_eq!(Location(url.parse().unwrap()).with_digest(&digest).as_str(), url);
        }
        for other in [format!("digest={}", Digest::of(b"other")), format!("_state={digest}")] {
            let other = format!("https://r/v2/x?{other}");
            let url = Location(other.parse().unwrap()).with_digest(&digest);
            assert_eq!(url.as_str(), format!("{other}&{parameter}"));
        }
    }

    #[test]
    fn a_location_is_not_printed() {
        let location = Location("https://r/v2/x?_state=secret".parse().unwrap());
        assert_eq!(format!("{location:?}"), "Location(…)");
    }

    #[test]
    fn redirects_repeat_the_request_or_are_refused() {
        let table = [
            (Method::PUT, 307, "https://other.example.com/x", Some("https://other.example.com/x")),
            (Method::PUT, 308, "/x", Some("https://r.example.com/x")),
            (Method::PUT, 301, "/v2/demo/", Some("https://r.example.com/v2/demo/")),
            (Method::POST, 303, "/x", None),
            (Method::GET, 303, "/x", Some("https://r.example.com/x")),
            (Method::HEAD, 302, "https://s3.example.com/x?sig=1", Some("https://s3.example.com/x?sig=1")),
            (Method::POST, 202, "/x", None),
            (Method::GET, 304, "/x", None),
            (
                Method::GET,
                307,
                "https://r.example.com:8443/v2/demo",
                Some("https://r.example.com:8443/v2/demo"),
            ),
            (
                Method::HEAD,
                307,
                "https://r.example.com:9000/bucket/x?sig=1",
                Some("https://r.example.com:9000/bucket/x?sig=1"),
            ),
            (Method::GET, 307, "http://r.example.com:9000/bucket/x", Some("https://r.example.com/bucket/x")),
            (Method::GET, 307, "https://r.example.com:8443/v2/x", Some("https://r.example.com/v2/x")),
            (Method::PUT, 307, "https://r.example.com:8443/x", Some("https://r.example.com/x")),
        ];
        let request: Url = "https://r.example.com/v2/demo".parse().unwrap();
        let guard = Guard::new(&request, Proxies::default());
        for (method, status, location, target) in table {
            let status = StatusCode::from_u16(status).unwrap();
            let found = redirected(&method, &request, status, &headers(location), &guard).unwrap();
            assert_eq!(found.as_ref().map(Url::as_str), target, "{method} {status} {location}");
        }
        let far = headers("https://other.example.com:8443/x?token=1");
        let error = redirected(&Method::POST, &request, StatusCode::FOUND, &far, &guard).unwrap_err();
        assert_eq!(error.to_string(), "POST is redirected by 302 to https://other.example.com:8443");
        assert_eq!(error.hints(), ["push to `other.example.com:8443` instead"]);
        let inside = headers("https://169.254.169.254/latest/meta-data");
        assert!(redirected(&Method::GET, &request, StatusCode::FOUND, &inside, &guard).is_err());
    }

    #[test]
    fn a_redirect_may_lead_up_to_https_on_the_same_host() {
        let request: Url = "http://r.example.com/v2/".parse().unwrap();
        let guard = Guard::new(&request, Proxies::default());
        let up = headers("https://r.example.com/v2/");
        let found = redirected(&Method::POST, &request, StatusCode::MOVED_PERMANENTLY, &up, &guard).unwrap();
        assert_eq!(found.unwrap().as_str(), "https://r.example.com/v2/");
    }

    #[test]
    fn paths_are_shown_without_the_names_of_sessions() {
        for (path, shown) in [
            ("/v2/", "/v2/"),
            ("/v2/a/b/blobs/sha256:0", "/v2/a/b/blobs/sha256:0"),
            ("/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/"),
            ("/v2/a/blobs/uploads/1-2-3", "/v2/a/blobs/uploads/…"),
            ("/v2/a/blobs/upload/1/2", "/v2/a/blobs/upload/…"),
            ("/artifacts-uploads/namespaces/a/uploads/AJ", "/artifacts-uploads/…"),
            ("/x/v2/a/blobs/uploads/1", "/x/…"),
            ("/token", "/token"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(nameless(path), shown, "{path}");
        }
    }
}
