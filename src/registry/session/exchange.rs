//! What passes between the session and its driver: what to do, what to send, what came back.

use std::{ops::Range, time::Duration};

use http::HeaderMap;

use super::words;
use crate::{
    error::{Error, ErrorKind, counted},
    oci::{Algorithm, Digest},
    registry::{Location, RegistryError},
};

/// What the driver shall do.
#[derive(Debug)]
pub enum Action {
    /// Drop the token in use, get another one, and ask again (`on_waited`).
    Authenticate,
    /// The blob is at the registry.
    Done(Outcome),
    /// The upload has failed for good.
    Fail(Error),
    /// More bytes must be written first: wait until the spool changes, then ask again (`next`).
    More,
    /// Send this, then tell what came of it.
    Send(Request),
    /// Wait so long, then ask again (`on_waited`). The reason is for the user.
    Wait {
        /// How long.
        pause: Duration,
        /// What happened, in one line.
        why: String,
    },
}

/// How an upload ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Mounted from another repository.
    Mounted,
    /// It was there already when the session looked.
    Present,
    /// Its bytes were sent.
    Uploaded,
}

/// What came to light on the way.
#[derive(Debug, Default)]
pub struct News {
    /// Where the registry may have an upload that was given up for another one.
    pub given_up: Option<Location>,
    /// Why chunks have become smaller. Other uploads may have said so.
    pub shrunk: Option<String>,
    /// What the user should know besides.
    pub warnings: Vec<String>,
}

/// One HTTP exchange of an upload. None is repeated by anybody but the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `DELETE <location>`: give the session back. Never asked for by the session itself.
    Cancel {
        /// The session's address.
        location: Location,
    },
    /// `PUT <location>?digest=…` with an empty body, or with the whole blob.
    Commit {
        /// The session's address.
        location: Location,
        /// The blob.
        digest: Digest,
        /// So many bytes from the blob's first on; `None` where chunks were sent before.
        body: Option<u64>,
    },
    /// `HEAD /v2/<repository>/blobs/<digest>`.
    Exists {
        /// The blob.
        digest: Digest,
    },
    /// `POST /v2/<repository>/blobs/uploads/`, with `mount` and `from` where given.
    Open {
        /// Where the blob may be had without sending it.
        mount: Option<Mount>,
        /// The digest's hash function.
        algorithm: Algorithm,
    },
    /// `PATCH <location>` with these bytes of the blob.
    Patch {
        /// The session's address.
        location: Location,
        /// The first byte, and the one behind the last.
        range: Range<u64>,
    },
    /// `GET <location>`: how far are we?
    Status {
        /// The session's address.
        location: Location,
    },
}

impl Request {
    /// Returns whether it carries nothing and asks for little work, so that it takes as long as the line does.
    pub(super) const fn is_bare(&self) -> bool {
        matches!(self, Self::Exists { .. } | Self::Open { .. } | Self::Status { .. })
    }

    /// Returns how many bytes it carries.
    pub(in crate::registry) const fn size(&self) -> u64 {
        match self {
            Self::Commit { body: Some(size), .. } => *size,
            Self::Patch { range, .. } => range.end.saturating_sub(range.start),
            _ => 0,
        }
    }

    /// Says what is being done, for messages.
    pub(crate) fn doing(&self) -> String {
        match self {
            Self::Cancel { .. } => "giving the upload back".to_owned(),
            Self::Commit { body: None, .. } => "completing the upload".to_owned(),
            Self::Commit { body: Some(size), .. } => {
                format!("sending the blob in one piece of {}", counted(*size, "byte"))
            }
            Self::Exists { .. } => "looking for the blob".to_owned(),
            Self::Open { mount: None, .. } => "opening an upload".to_owned(),
            Self::Open { mount: Some(mount), .. } => format!("mounting the blob from `{}`", mount.from),
            Self::Patch { range, .. } => format!("sending bytes {} to {}", range.start, range.end),
            Self::Status { .. } => "asking how far the upload is".to_owned(),
        }
    }
}

/// A blob that another repository of the same registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The blob.
    pub digest: Digest,
    /// The repository's path.
    pub from: String,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers, as they came.
    pub headers: HeaderMap,
    /// The `Location` header, resolved against the request and found safe (location.rs); absent if there
    /// was none.
    pub location: Option<Location>,
    /// The registry's words, where the status is no success.
    pub error: Option<RegistryError>,
    /// How long the exchange took, for sizing chunks by time.
    pub elapsed: Duration,
}

impl Reply {
    /// Returns whether a body was refused for its size. GHCR says so by 416, which is otherwise about the place.
    pub(crate) fn is_too_large(&self) -> bool {
        self.status == 413 || self.status == 416 && words::says_too_large(self.words())
    }

    /// Returns how large a body may be, where the registry says so.
    pub(crate) fn body_limit(&self) -> Option<u64> {
        words::body_limit(self.words())
    }

    /// Returns the offset that the registry waits for, where it says so in words.
    pub(super) fn expected_offset(&self) -> Option<u64> {
        words::expected_offset(self.words())
    }

    fn words(&self) -> &str {
        self.error.as_ref().and_then(|error| error.message.as_deref()).unwrap_or_default()
    }

    /// Returns this reply as an error of what was being done.
    pub(crate) fn refusal(&self, doing: String) -> Error {
        match &self.error {
            Some(error) => error.clone().into_error(doing),
            None => Error::new(ErrorKind::Refused, format!("the registry answered {}", self.status))
                .while_doing(doing),
        }
    }
}

/// Why nothing came back.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection could not be made.
    Connect {
        /// What the network said.
        why: String,
    },
    /// The connection broke.
    Reset {
        /// So many bytes of the body were taken by the socket.
        sent: u64,
        /// How long it had lasted.
        elapsed: Duration,
        /// What the network said.
        why: String,
    },
    /// Nothing moved for the whole of `--timeout`.
    Stalled {
        /// So many bytes of the body were taken by the socket.
        sent: u64,
        /// How long it had lasted.
        elapsed: Duration,
    },
    /// Never to be tried again: an unsafe Location or redirect, TLS refused, a source that cannot be read.
    Fatal(Error),
}

impl Fault {
    /// Returns whether the registry may have received anything of a body.
    pub(super) const fn reached(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Fatal(_) => false,
            Self::Reset { sent, .. } | Self::Stalled { sent, .. } => *sent > 0,
        }
    }

    /// Returns this fault as an error of what was being done.
    pub(crate) fn failure(&self, doing: String) -> Error {
        let message = match self {
            Self::Connect { why } => why.clone(),
            Self::Reset { sent: 0, why, .. } => format!("the connection broke: {why}"),
            Self::Reset { sent, why, .. } => {
                format!("the connection broke after {}: {why}", counted(*sent, "byte"))
            }
            Self::Stalled { sent: 0, elapsed } => format!("no answer within {elapsed:.0?}"),
            Self::Stalled { elapsed, .. } => {
                format!("nothing moved for too long, after {} s", elapsed.as_secs())
            }
            Self::Fatal(error) => return error.clone().while_doing(doing),
        };
        Error::new(ErrorKind::Network, message).while_doing(doing)
    }
}
