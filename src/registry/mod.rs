//! The wire: one registry, spoken to over HTTP/1.1.
//!
//! * [`Client`]: the verbs (is this blob there, put this manifest, send this upload request);
//! * [`session`]: what to send next in an upload, as a state machine without sockets or clock;
//! * [`transport`]: one exchange over connections of our own; [`body`]: an upload's bytes on their way there;
//! * `guard` and [`location`]: where a registry may send us, by redirect or `Location`;
//! * [`auth`] and [`credentials`]: challenges and tokens, and where secrets come from;
//! * [`hosts`]: what is known about well-known registries; [`learned`]: what pushes have found out; [`retry`]: the one place that waits and counts.

pub mod auth;
mod blobs;
pub mod body;
pub mod client;
pub mod credentials;
mod documents;
pub(crate) mod guard;
pub mod hosts;
pub mod learned;
pub mod location;
pub mod options;
pub mod registry_error;
pub mod retry;
pub mod session;
pub mod transport;

pub use body::UploadBody;
pub use client::Client;
pub use credentials::{Credential, Credentials, Secret};
pub use documents::Receipt;
pub use learned::{Learned, Lesson};
pub use location::Location;
pub use options::{ClientOptions, Proxies};
pub use registry_error::RegistryError;
pub use session::{Action, Fault, Reply, Request, Session};
pub use transport::Pool;
