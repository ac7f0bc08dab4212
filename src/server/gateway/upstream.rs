//! The registry behind this one, and what clients hear of it.
//!
//! It is spoken to with our credentials, so nothing of these may be in what clients hear: an error goes into the log as
//! it is, and to the client in the words of the registry, without the hints that name logins. A refusal keeps the
//! status it came with where a client can make something of that. Never 401: the client would show its own password
//! once more, and the upstream did not mean that one.

use std::{error::Error as StdError, io};

use futures_util::TryStreamExt as _;
use http::{
    HeaderMap, HeaderName, Method, Response, StatusCode,
    header::{
        ACCEPT, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue,
        LINK, RANGE, RETRY_AFTER,
    },
    request::Parts,
};
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::{Body, Bytes, Frame};
use serde_json::{Map, Value};

use crate::{
    error::{Error, ErrorKind, Result, chain},
    oci::{Reference, Repository},
    push,
    registry::{Client, MANIFEST_TYPES, Question, RegistryError},
    server::protocol::{DOCKER_CONTENT_DIGEST, Name, Refusal, Reply, empty, json},
    source::Missing,
};

/// The registry behind a gateway.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The registry, and how to speak with it.
    pub client: Client,
    /// What stands before the names of its repositories.
    pub prefix: Option<String>,
    /// How images are sent there. They stay what they are: encodings and formats are not asked for here.
    pub options: push::Options,
}

impl Upstream {
    /// Returns which repository of the upstream is meant by one of ours.
    pub(super) fn repository(&self, name: &Name) -> Result<Repository> {
        let path = self.prefix.as_ref().map_or_else(|| name.to_string(), |prefix| format!("{prefix}/{name}"));
        Ok(Reference::at(self.client.host(), &path)?.repository)
    }

    /// Asks the upstream what a client asks us, and hands its answer on as it comes; nothing if it is not there. `path`
    /// is what stands behind the repository's name.
    pub(super) async fn relay(&self, name: &Name, path: &str, head: &Parts) -> Result<Option<Reply>> {
        let question = Question {
            method: head.method.clone(),
            path: path.to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: asked(&head.headers),
        };
        let repository = self.repository(name)?.path;
        let Some(download) = self.client.download(&repository, question).await? else { return Ok(None) };
        let is_otherwise_called = self.prefix.is_some() && path == TAGS;
        let mut reply = if head.method == Method::HEAD {
            empty(StatusCode::OK, &[])
        } else {
            let body = StreamBody::new(download.frames.map_ok(Frame::data));
            if is_otherwise_called { renamed(body, name).await? } else { Response::new(body.boxed_unsync()) }
        };
        *reply.status_mut() = match download.status {
            StatusCode::NO_CONTENT if head.method == Method::HEAD => StatusCode::OK,
            status => status,
        };
        for name in PASSED_ON {
            if let Some(value) = download.headers.get(&name) {
                reply.headers_mut().insert(name, value.clone());
            }
        }
        if is_otherwise_called {
            reply.headers_mut().remove(CONTENT_LENGTH);
        }
        // Whoever asks whether a blob is there has to hear how large it is.
        if head.method == Method::HEAD
            && reply.headers().get(CONTENT_LENGTH).is_none_or(|length| length == "0")
            && let Some(digest) = path.strip_prefix("blobs/").and_then(|digest| digest.parse().ok())
        {
            let Some(size) = self.client.head_blob(&repository, &digest).await? else { return Ok(None) };
            reply.headers_mut().insert(CONTENT_LENGTH, size.into());
        }
        if let Some(next) = download.headers.get(LINK).and_then(|link| next(link.to_str().ok()?, name, path))
        {
            reply.headers_mut().insert(LINK, next);
        }
        Ok(Some(reply))
    }

    /// Tells a client why the upstream does not do what was asked for.
    pub(super) fn refusal(&self, error: Error) -> Refusal {
        let (host, words) = (self.client.host(), chain(&error));
        let refused = error.find::<RegistryError>();
        let code = |otherwise: &'static str| {
            refused.and_then(|refused| refused.code.clone()).unwrap_or_else(|| otherwise.to_owned())
        };
        let advised = || std::iter::once(words.as_str()).chain(error.hints()).collect::<Vec<_>>().join("; ");
        let refusal = match error.kind() {
            ErrorKind::Denied => {
                let message = format!(
                    "{host} does not let this gateway in: {words}; who runs the gateway logs in by `longshore login {host}`"
                );
                Refusal::new(StatusCode::FORBIDDEN, code("DENIED"), message)
            }
            ErrorKind::Network if refused.is_none_or(|refused| refused.status != 429) => {
                let message = format!("{host} cannot be reached: {words}");
                Refusal::new(StatusCode::BAD_GATEWAY, "UNAVAILABLE", message)
            }
            // The pause is the client's to take.
            ErrorKind::Network | ErrorKind::Refused => {
                let status = refused.and_then(|refused| StatusCode::from_u16(refused.status).ok());
                let status = status.filter(StatusCode::is_client_error).unwrap_or(StatusCode::BAD_GATEWAY);
                // An answer to HEAD has no code.
                let otherwise =
                    if status == StatusCode::TOO_MANY_REQUESTS { "TOOMANYREQUESTS" } else { "UNKNOWN" };
                let refusal = Refusal::new(status, code(otherwise), format!("{host} refuses: {}", advised()));
                match refused.and_then(|refused| refused.retry_after) {
                    Some(asked) => refusal.with(RETRY_AFTER, asked.as_secs().to_string()),
                    None => refusal,
                }
            }
            ErrorKind::Source if Missing::is_cause_of(&error) => {
                Refusal::not_found("MANIFEST_BLOB_UNKNOWN", advised())
            }
            ErrorKind::Source => Refusal::bad_request("MANIFEST_INVALID", advised()),
            ErrorKind::Usage => Refusal::bad_request("NAME_INVALID", advised()),
            _ => return error.into(),
        };
        tracing::warn!("{host}: {}", advised());
        refusal
    }
}

/// Reads a list of tags, and says in it what its repository is called here.
async fn renamed(
    list: impl Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>>,
    name: &Name,
) -> Result<Reply> {
    let refused =
        || Error::new(ErrorKind::Refused, format!("the upstream sent no list of the tags of `{name}`"));
    let list = Limited::new(list, TAGS_LIMIT)
        .collect()
        .await
        .map_err(|error| refused().because(io::Error::other(error)))?;
    let mut list: Map<String, Value> =
        serde_json::from_slice(&list.to_bytes()).map_err(|error| refused().because(error))?;
    list.insert("name".to_owned(), name.to_string().into());
    Ok(json(StatusCode::OK, &Value::Object(list)))
}

/// What stands behind a repository's name in the path of its tags.
pub(super) const TAGS: &str = "tags/list";
/// As long as a manifest may be: 30,000 tags of the longest.
const TAGS_LIMIT: usize = 4 << 20;

/// What of an answer concerns our client. Cookies, challenges and who is behind the upstream do not.
const PASSED_ON: [HeaderName; 7] = [
    ACCEPT_RANGES,
    // Nobody has asked for one, but what is encoded all the same cannot be read without its name.
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    DOCKER_CONTENT_DIGEST,
    HeaderName::from_static("oci-filters-applied"),
];

/// Returns what of a question concerns the upstream.
fn asked(headers: &HeaderMap) -> HeaderMap {
    let mut asked = HeaderMap::new();
    for name in [ACCEPT, RANGE] {
        for value in headers.get_all(&name) {
            asked.append(&name, value.clone());
        }
    }
    // To who names no types, or any, older registries give a manifest that nobody has pushed, or none.
    let takes_any = |accept: &HeaderValue| accept.to_str().is_ok_and(|types| types.contains("*/*"));
    if asked.get_all(ACCEPT).iter().all(takes_any) {
        for media_type in MANIFEST_TYPES {
            asked.append(ACCEPT, HeaderValue::from_static(media_type));
        }
        asked.append(ACCEPT, HeaderValue::from_static("*/*"));
    }
    asked
}

/// Has the link to the next page lead back here.
fn next(link: &str, name: &Name, path: &str) -> Option<HeaderValue> {
    let (url, rest) = link.strip_prefix('<')?.split_once('>')?;
    let (_, query) = url.split_once('?')?;
    HeaderValue::try_from(format!("</v2/{name}/{path}?{query}>{rest}")).ok()
}
