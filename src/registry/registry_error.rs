//! What a registry said when it refused: status, code and words, made fit for one line on a terminal.
//!
//! The body may be the JSON of the distribution specification, that of a token server, a proxy's HTML, plain
//! text, or nothing. Whatever it is becomes one line without control characters. [`RegistryError::into_error`]
//! says who is at fault and what to try next.

use std::{fmt, time::Duration};

use http::{HeaderMap, Method, StatusCode, header};
use serde_json::Value;
use url::Url;

use super::{
    confidential::Confidential,
    location::nameless,
    one_line::one_line,
    origin::origin,
    proxies::PROXY_LOGIN,
    retry::{is_an_end, is_transient, retry_after},
};
use crate::error::{Error, ErrorKind};

/// Bodies of refusals are read so far; HTML pages of proxies are a few KiB.
pub(crate) const BODY_LIMIT: usize = 64 << 10;

const CREATE: &str = "create the repository or project at the registry first";

const STORAGE: &str =
    "the registry does not find what it has confirmed: replicas have to share their storage";

/// A registry's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryError {
    /// The request's method.
    pub method: String,
    /// The request's URL without query and user info.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// The first error code of the distribution specification's JSON, like `BLOB_UPLOAD_UNKNOWN`.
    pub code: Option<String>,
    /// The registry's own words: one line, no HTML, no control characters, at most a few hundred bytes.
    pub message: Option<String>,
    /// Who answered, where a proxy or CDN may have: the `Server`, `Via` and `CF-Ray` headers.
    pub answered_by: Option<String>,
    /// How long it asks to be left alone, by `Retry-After`.
    pub retry_after: Option<Duration>,
    /// It was a web page: a proxy's, since registries have none for refusals.
    pub page: bool,
}

impl RegistryError {
    /// Reads a refusal; `body` may be cut off anywhere, and repeat what was `confidential`.
    pub(super) fn new(
        method: &Method,
        url: &Url,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        confidential: &Confidential,
    ) -> Self {
        // Nobody was asked for anything but plain text: compressed words say nothing.
        let is_plain = headers.get(header::CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
        let body = String::from_utf8_lossy(if is_plain { body } else { &[] });
        // Before it is cut to one line, and once more where JSON had it in other letters.
        let body = confidential.hide(&body);
        let hidden = |words: Option<String>| words.map(|words| confidential.hide(&words));
        let (code, message) = words(&body);
        Self {
            method: method.to_string(),
            url: format!("{}{}", origin(url), nameless(url.path())),
            status: status.as_u16(),
            code: hidden(code),
            message: hidden(message),
            answered_by: hidden(answered_by(headers)),
            retry_after: retry_after(headers),
            page: is_page(&body),
        }
    }

    /// Returns whether these words are in the code or the message, in any case and however they are joined.
    fn says(&self, words: &str) -> bool {
        let letters =
            |text: &str| text.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let words = letters(words);
        [&self.code, &self.message].into_iter().flatten().any(|text| letters(text).contains(&words))
    }

    /// Returns whether the registry says that an upload session is gone.
    pub fn is_lost_session(&self) -> bool {
        self.status == 404
    }

    /// Returns whether a manifest was refused because of a blob or child that it names and the registry does not know.
    pub fn misses_blob(&self) -> bool {
        match self.code.as_deref() {
            Some("MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN" | "MANIFEST_UNKNOWN") => true,
            // Quay (quay/quay:data/model/oci/manifest.py) and Trow (Trow-Registry/trow:src/services/manifest_service.rs).
            Some("MANIFEST_INVALID") => self.says("unknown blob") || self.says("blob asset not found"),
            _ => false,
        }
    }

    /// Returns whether the same may be taken when it is asked again.
    pub(super) fn is_transient(&self) -> bool {
        is_transient(self.status) || self.doubts_manifest()
    }

    /// Returns whether a manifest is said to have another digest. It has what was sent: before 3.0 distribution says so
    /// when it looks for a blob that another client is just storing, and finds an empty link (`PutContent` in
    /// distribution/distribution:registry/storage/driver/filesystem/driver.go of 2.8 writes in place).
    fn doubts_manifest(&self) -> bool {
        self.code.as_deref() == Some("DIGEST_INVALID")
            && self.method == "PUT"
            && self.url.contains("/manifests/")
    }

    /// Returns whether it was an upload that was not to be opened.
    pub(super) fn opens_upload(&self) -> bool {
        self.method == "POST" && self.url.ends_with("/blobs/uploads/")
    }

    /// Returns what was answered, without what was asked: `403 Forbidden: DENIED: …`.
    pub fn answer(&self) -> String {
        let Self { status, code, message, .. } = self;
        let titled = message.as_deref().filter(|words| words.starts_with(&format!("{status} ")));
        let reason = StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
        let answer = match (titled, reason) {
            // The title of a page.
            (Some(title), _) => title.to_owned(),
            (None, Some(reason)) => format!("{status} {reason}"),
            (None, None) => status.to_string(),
        };
        let words = [code.as_deref(), message.as_deref().filter(|_| titled.is_none())];
        std::iter::once(answer.as_str()).chain(words.into_iter().flatten()).collect::<Vec<_>>().join(": ")
    }

    /// Returns how long the registry asks to be left alone, where an error is its refusal.
    pub(super) fn pause(error: &Error) -> Option<Duration> {
        error.find::<Self>().and_then(|refusal| refusal.retry_after)
    }

    /// Puts the refusal into our words: what was being done, who is at fault, what to try.
    pub fn into_error(self, doing: impl Into<String>) -> Error {
        let opening = self.opens_upload();
        let manifest = self.method == "PUT" && self.url.contains("/manifests/");
        let (kind, hint) = match self.status {
            400 if self.says("part too small") => {
                (ErrorKind::Refused, Some("the registry wants larger chunks: try a larger `--chunk-size`"))
            }
            // Go: `Client sent an HTTP request to an HTTPS server.`; nginx: `The plain HTTP request was sent to HTTPS port`.
            400 if self.says("HTTP request") && self.says("HTTPS") => {
                (ErrorKind::Refused, Some("it wants TLS, and plain HTTP was spoken"))
            }
            403 if self.page => (
                ErrorKind::Denied,
                Some("it was a web page that refused: ask whoever runs what stands before the registry"),
            ),
            401 | 403 => (ErrorKind::Denied, None),
            // RFC 6749, section 5.2: a refresh token that is too old, or not one.
            400 if self.code.as_deref() == Some("invalid_grant") => (ErrorKind::Denied, None),
            404 if manifest && self.misses_blob() => (ErrorKind::Refused, Some(STORAGE)),
            404 if (opening || manifest) && self.code.is_none() => (
                ErrorKind::Refused,
                Some("is a registry at this address? If so, create the repository or project there first"),
            ),
            404 if opening || manifest => (ErrorKind::Refused, Some(CREATE)),
            405 => (ErrorKind::Refused, Some("the registry or a proxy does not accept pushes here")),
            407 => (ErrorKind::Refused, Some(PROXY_LOGIN)),
            411 => (
                ErrorKind::Refused,
                Some("longshore states every length: a proxy on the way to the registry has dropped it"),
            ),
            414 => (
                ErrorKind::Refused,
                Some("a proxy on the way takes no addresses as long as this registry gives to uploads"),
            ),
            413 if manifest => (ErrorKind::Refused, Some("the registry takes only smaller manifests")),
            429 => (ErrorKind::Network, Some("the registry limits requests: wait, or use fewer `--jobs`")),
            status if is_transient(status) => (ErrorKind::Network, None),
            _ => (ErrorKind::Refused, None),
        };
        let closed = self.retry_after.filter(|asked| kind == ErrorKind::Network && is_an_end(*asked));
        let error = Error::new(kind, doing).because(self);
        match (closed, hint) {
            (Some(asked), _) => {
                let hours = asked.as_secs().div_ceil(3600);
                error.with_hint(format!(
                    "the registry wants no more requests for {hours} hours: push again then"
                ))
            }
            (None, Some(hint)) => error.with_hint(hint),
            (None, None) => error,
        }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, url, answered_by, .. } = self;
        write!(f, "`{method} {url}` was answered {}", self.answer())?;
        match answered_by {
            Some(who) => write!(f, " (by {who})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RegistryError {}

/// Returns the error code and the words of a body.
fn words(body: &str) -> (Option<String>, Option<String>) {
    match serde_json::from_str::<Value>(body) {
        Ok(json) => json_words(&json),
        Err(_) if is_bucket(body) => {
            let [code, message] = ["code", "message"].map(|name| element(body, name));
            (code.and_then(|code| one_line(&code)), message.and_then(|message| one_line(&message)))
        }
        Err(_) => (None, plain(body)),
    }
}

/// Returns whether a bucket answered, to which a registry sends uploads: those of Amazon, Google and Azure speak XML.
fn is_bucket(text: &str) -> bool {
    let declared = text.trim_start().strip_prefix("<?xml").and_then(|rest| rest.split_once("?>"));
    declared.map_or(text, |(_, rest)| rest).trim_start().starts_with("<Error>")
}

/// Makes foreign text one line; of a web page its title, or its heading.
fn plain(text: &str) -> Option<String> {
    if !is_page(text) {
        return one_line(text);
    }
    let title = element(text, "title").or_else(|| element(text, "h1"));
    title.and_then(|words| one_line(&words))
}

/// Returns whether a text is HTML: some pages begin with a byte order mark, and some stand in the middle of JSON.
fn is_page(text: &str) -> bool {
    if is_bucket(text) {
        return false;
    }
    let text = text.to_ascii_lowercase();
    text.trim_start().starts_with('<')
        || ["<!doctype", "<html", "<head", "<body", "</"].iter().any(|tag| text.contains(tag))
}

fn json_words(json: &Value) -> (Option<String>, Option<String>) {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => plain(text),
        Value::Array(items) if items.is_empty() => None,
        Value::Object(fields) if fields.is_empty() => None,
        other => one_line(&other.to_string()),
    };
    let field = |value: &Value, name: &str| value.get(name).and_then(text);
    // distribution-spec has `errors`; token servers `error` and `error_description` (RFC 6749) or `details`.
    let first = json.get("errors").and_then(|errors| errors.get(0)).unwrap_or(json);
    let code = field(first, "code").or_else(|| field(first, "error"));
    let message = ["message", "error_description", "details"].iter().find_map(|name| field(first, name));
    let words = match (message, field(first, "detail")) {
        (Some(message), Some(detail)) if !message.contains(&detail) => {
            one_line(&format!("{message}: {detail}"))
        }
        (message, detail) => message.or(detail),
    };
    // A token server may refuse and give a token all the same.
    let gives = ["token", "access_token", "refresh_token"].iter().any(|name| json.get(name).is_some());
    if code.is_none() && words.is_none() && !gives { (None, text(json)) } else { (code, words) }
}

/// Returns the text of the first HTML element of this name.
fn element(html: &str, name: &str) -> Option<String> {
    let lower = html.to_ascii_lowercase();
    let opening = lower.find(&format!("<{name}"))?;
    let start = opening + lower[opening..].find('>')? + 1;
    let end = start + lower[start..].find(&format!("</{name}"))?;
    let mut text = String::new();
    let mut in_tag = false;
    for c in html[start..end].chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                text.push(' ');
            }
            _ if in_tag => {}
            c => text.push(c),
        }
    }
    for (entity, c) in
        [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
    {
        text = text.replace(entity, c);
    }
    Some(text).filter(|text| !text.trim().is_empty())
}

pub(crate) fn answered_by(headers: &HeaderMap) -> Option<String> {
    let header =
        |name| headers.get(name).and_then(|value| one_line(&String::from_utf8_lossy(value.as_bytes())));
    let ray = header("cf-ray").map(|ray| format!("CF-Ray {ray}"));
    let via = header(header::VIA.as_str()).map(|via| format!("via {via}"));
    let who: Vec<_> = [header(header::SERVER.as_str()), via, ray].into_iter().flatten().collect();
    (!who.is_empty()).then(|| who.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::one_line::WORDS_LIMIT;

    fn refusal(status: u16, body: &str) -> RegistryError {
        let url = "https://me:secret@r.example.com/v2/demo/blobs/uploads/?_state=secret".parse().unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let (headers, confidential) = (HeaderMap::new(), Confidential::default());
        RegistryError::new(&Method::POST, &url, status, &headers, body.as_bytes(), &confidential)
    }

    #[test]
    fn every_kind_of_body_becomes_one_line() {
        for (body, code, message) in [
            ("", None, None),
            ("null", None, None),
            ("{}", None, None),
            (r#"{"errors":[]}"#, None, Some(r#"{"errors":[]}"#)),
            (
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry","detail":{"name":"demo"}}]}"#,
                Some("NAME_UNKNOWN"),
                Some(r#"repository name not known to registry: {"name":"demo"}"#),
            ),
            (r#"{"errors":[{"code":"DENIED","message":"no","detail":null}]}"#, Some("DENIED"), Some("no")),
            (r#"{"errors":[{"code":"DENIED","detail":"why"}]}"#, Some("DENIED"), Some("why")),
            (
                r#"{"error":"invalid_grant","error_description":"token expired"}"#,
                Some("invalid_grant"),
                Some("token expired"),
            ),
            (r#"{"details":"incorrect username or password"}"#, None, Some("incorrect username or password")),
            ("[1,2]", None, Some("[1,2]")),
            (r#"{"token":"xyzzy"}"#, None, None),
            (r#"{"access_token":"xyzzy","error":"odd"}"#, Some("odd"), None),
            ("HAP429: too many\r\n  requests\n", None, Some("HAP429: too many requests")),
            (
                "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>…",
                None,
                Some("413 Request Entity Too Large"),
            ),
            (
                "<!DOCTYPE html><H1 class=x>Access <b>denied</b> &amp; logged</H1>",
                None,
                Some("Access denied & logged"),
            ),
            ("<html><title>cut o", None, None),
            (
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AccessDenied</Code>\
                 <Message>Request has &lt;expired&gt;</Message><StringToSign>GET</StringToSign></Error>",
                Some("AccessDenied"),
                Some("Request has <expired>"),
            ),
            ("<?xml version=\"1.0\"?><html><title>No</title></html>", None, Some("No")),
            (
                r#"{"errors":[{"code":"UNKNOWN","message":"PUT \"https://s3/x?X-Sig=abc\u0026digest=sha256:0\": 403"}]}"#,
                Some("UNKNOWN"),
                Some("PUT \"https://s3/x?…&digest=sha256:0\": 403"),
            ),
            ("<p>no title</p>", None, None),
            ("\u{feff}<!doctype html><title>Blocked</title>", None, Some("Blocked")),
            ("Error: <b>no</b>", None, None),
            (
                r#"{"errors":[{"code":"DENIED","message":"<html><h1>403 Forbidden</h1></html>"}]}"#,
                Some("DENIED"),
                Some("403 Forbidden"),
            ),
            ("\u{1b}[31mred\u{202e}", None, Some("\\u{1b}[31mred\\u{202e}")),
        ] {
            let error = refusal(403, body);
            assert_eq!((error.code.as_deref(), error.message.as_deref()), (code, message), "{body}");
        }
    }

    #[test]
    fn what_is_compressed_is_not_read() {
        let url = "https://r.example.com/v2/".parse().unwrap();
        for (coding, message) in [("gzip", None), ("br", None), ("identity", Some("no"))] {
            let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, coding.parse().unwrap())]);
            let confidential = Confidential::default();
            let error =
                RegistryError::new(&Method::GET, &url, StatusCode::FORBIDDEN, &headers, b"no", &confidential);
            assert_eq!(error.message.as_deref(), message, "{coding}");
        }
    }

    #[test]
    fn words_are_cut() {
        let message = refusal(500, &"ü".repeat(BODY_LIMIT)).message.unwrap();
        assert!(message.len() <= WORDS_LIMIT + '…'.len_utf8(), "{}", message.len());
    }

    #[test]
    fn a_proxy_is_named_and_the_query_is_not() {
        let headers = HeaderMap::from_iter([
            (header::SERVER, "cloudflare".parse().unwrap()),
            ("cf-ray".parse().unwrap(), "8c2-FRA".parse().unwrap()),
        ]);
        let url = "https://me:secret@r.example.com/x?_state=secret".parse().unwrap();
        let error = RegistryError::new(
            &Method::PATCH,
            &url,
            StatusCode::PAYLOAD_TOO_LARGE,
            &headers,
            b"",
            &Confidential::default(),
        );
        assert_eq!(
            error.to_string(),
            "`PATCH https://r.example.com/x` was answered 413 Payload Too Large (by cloudflare, CF-Ray 8c2-FRA)"
        );
    }

    #[test]
    fn a_status_says_who_is_at_fault() {
        for (status, kind, hint) in [
            (400, ErrorKind::Refused, ""),
            (
                407,
                ErrorKind::Refused,
                "a proxy's address may hold a login for it: `http://USER:PASSWORD@HOST:PORT`",
            ),
            (
                411,
                ErrorKind::Refused,
                "longshore states every length: a proxy on the way to the registry has dropped it",
            ),
            (501, ErrorKind::Refused, ""),
            (401, ErrorKind::Denied, ""),
            (403, ErrorKind::Denied, ""),
            (
                404,
                ErrorKind::Refused,
                "is a registry at this address? If so, create the repository or project there first",
            ),
            (405, ErrorKind::Refused, "the registry or a proxy does not accept pushes here"),
            // What helps depends on what was sent: its session knows.
            (413, ErrorKind::Refused, ""),
            (
                414,
                ErrorKind::Refused,
                "a proxy on the way takes no addresses as long as this registry gives to uploads",
            ),
            (429, ErrorKind::Network, "the registry limits requests: wait, or use fewer `--jobs`"),
            (503, ErrorKind::Network, ""),
            (524, ErrorKind::Network, ""),
        ] {
            let error = refusal(status, "").into_error("pushing");
            assert_eq!((error.kind(), error.hints().join("")), (kind, hint.to_owned()), "{status}");
            assert!(error.find::<RegistryError>().is_some());
        }
        // Somebody has confirmed the blob.
        let url = "https://r.example.com/v2/demo/manifests/1".parse().unwrap();
        for (code, expected) in [("MANIFEST_BLOB_UNKNOWN", STORAGE), ("NAME_UNKNOWN", CREATE)] {
            let body = format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#);
            let (headers, confidential) = (HeaderMap::new(), Confidential::default());
            let status = StatusCode::NOT_FOUND;
            let error =
                RegistryError::new(&Method::PUT, &url, status, &headers, body.as_bytes(), &confidential);
            assert_eq!(error.into_error("pushing").hints(), [expected]);
        }
        let stale = refusal(400, r#"{"error":"invalid_grant"}"#).into_error("getting a token");
        assert_eq!(stale.kind(), ErrorKind::Denied);
        // As Go and nginx answer who does without TLS.
        for body in [
            "Client sent an HTTP request to an HTTPS server.\n",
            "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>",
        ] {
            let error = refusal(400, body).into_error("pushing");
            assert!(error.hints()[0].starts_with("it wants TLS"), "{error:?}");
        }
    }
}
