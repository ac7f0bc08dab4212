//! What came back of one exchange: read to its end or to a limit, or left to whoever asked.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::time::timeout;
use url::Url;

use crate::{
    error::Result,
    registry::{
        confidential::Confidential, guard::Guard, location::redirected, registry_error::RegistryError,
        session::Fault,
    },
};

/// One answer.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// What was asked in the end.
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The body ended by itself, within the limit.
    pub(crate) whole: bool,
    /// What can still be read, where the body was left.
    pub(crate) rest: Option<reqwest::Response>,
    pub(crate) elapsed: Duration,
    /// What it must not be shown to repeat.
    pub(in crate::registry) confidential: Confidential,
}

impl Incoming {
    /// Returns whether it says that what was asked for is not there: to a PUT that is a refusal.
    pub(crate) fn is_absence(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.method != Method::PUT
    }

    /// Returns whether a body ended before it was over, and before so many bytes.
    pub(crate) fn is_cut_off(&self, limit: usize) -> bool {
        self.status.is_success() && !self.whole && self.rest.is_none() && self.body.len() < limit
    }

    /// Returns where the same is to be asked again, if the answer is a redirect that its method may follow.
    pub(crate) fn redirect(&self, guard: &Guard) -> Result<Option<Url>, Fault> {
        redirected(&self.method, &self.url, self.status, &self.headers, guard).map_err(Fault::Fatal)
    }

    /// Reads the answer as a refusal.
    pub(crate) fn refusal(&self) -> RegistryError {
        let Self { method, url, status, headers, body, confidential, .. } = self;
        RegistryError::new(method, url, *status, headers, body, confidential)
    }
}

/// Reads so much of an answer's body, and says whether that is all of it. A 413 is often followed by a reset. The head
/// says most: whoever drags out the rest is not waited for as for the answer.
pub(super) async fn read(
    response: &mut reqwest::Response,
    limit: usize,
    patience: Duration,
) -> (Bytes, bool) {
    let mut body = BytesMut::new();
    let reading = async {
        while let Ok(chunk) = response.chunk().await {
            let Some(bytes) = chunk else { return true };
            let room = limit - body.len();
            body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if bytes.len() > room {
                return false;
            }
        }
        false
    };
    let whole = timeout(patience, reading).await.unwrap_or(false);
    (body.freeze(), whole)
}
