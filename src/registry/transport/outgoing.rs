//! What is asked in one exchange, and how the HTTP client is told.

use std::time::Duration;

use http::{HeaderMap, Method, header};
use url::Url;

use crate::registry::{
    body::{Meter, Payload},
    rate_limit::RateLimit,
    registry_error::BODY_LIMIT,
};

/// One request.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    /// How long the answer may take once everything is sent, if not as long as any.
    pub(crate) patience: Option<Duration>,
    /// So much of the answer's body is read.
    pub(crate) limit: usize,
    /// Of a success nothing is read: its body is left to whoever asked.
    pub(crate) leaves_body: bool,
}

impl Outgoing {
    /// A request with nothing but an address, whose answer is read as far as refusals go.
    pub(crate) fn new(method: Method, url: Url) -> Self {
        let (headers, payload) = (HeaderMap::new(), Payload::Empty);
        Self { method, url, headers, payload, patience: None, limit: BODY_LIMIT, leaves_body: false }
    }

    /// Returns the request for one attempt; a body that streams is gone after the first.
    pub(crate) fn take(&mut self) -> Self {
        let (method, url, headers) = (self.method.clone(), self.url.clone(), self.headers.clone());
        Self { method, url, headers, payload: self.payload.take(), ..*self }
    }

    /// Makes what the HTTP client sends: `meter` watches a body that streams, which comes no faster than `rate_limit`.
    pub(super) fn into_request(self, meter: &Meter, rate_limit: Option<&RateLimit>) -> reqwest::Request {
        let (length, body) = match self.payload {
            Payload::Empty if matches!(self.method, Method::GET | Method::HEAD) => (None, None),
            // Without a length proxies answer 411, and the HTTP client leaves it out where there is no body.
            Payload::Empty => (Some(0.into()), None),
            Payload::Bytes(bytes) => (Some(bytes.len().into()), Some(bytes.into())),
            Payload::Stream(body) => {
                let length = body.size.into();
                let body = if let Some(limit) = rate_limit { limit.pace(body) } else { body };
                (Some(length), Some(reqwest::Body::wrap_stream(meter.stream(body))))
            }
        };
        let mut request = reqwest::Request::new(self.method, self.url);
        *request.headers_mut() = self.headers;
        if let Some(length) = length {
            request.headers_mut().insert(header::CONTENT_LENGTH, length);
        }
        *request.body_mut() = body;
        request
    }
}
