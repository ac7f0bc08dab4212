//! The wire: one registry, spoken to over HTTP/1.1, or HTTP/2 by option.
//!
//! * [`client`]: the verbs (is this blob there, put this manifest, send this upload request);
//! * [`session`]: what to send next in an upload, as a state machine without sockets or clock;
//! * [`unfinished`]: what a later process needs to go on with an upload;
//! * [`transport`]: one exchange over connections of our own; [`body`]: an upload's bytes on their way there;
//! * `guard` and [`location`]: where a registry may send us, by redirect or `Location`; `origin`: whom a URL speaks to;
//! * `content_digest`: what an answer says that its content is;
//! * [`registry_error`]: what it says when it refuses, without what we told it in confidence (`confidential`),
//!   in `one_line`;
//! * [`auth`]: getting in, by answering challenges, with tokens where they are wanted;
//! * [`credentials`]: what gets us in, and where it comes from; [`login`] writes it down;
//! * [`certificates`]: whom to trust, and who we are; [`proxies`]: through whom;
//! * [`registries_conf`]: what this machine says about registries;
//! * [`hosts`]: what is known about well-known registries, and what pushes have found out; [`probe`]: what can be found
//!   out before;
//! * [`rate_limit`]: how fast blobs may be sent; [`retry`]: the one place that waits and counts.

pub mod auth;
pub mod body;
pub mod certificates;
pub mod client;
mod confidential;
mod content_digest;
pub mod credentials;
pub(crate) mod guard;
pub mod hosts;
pub mod location;
pub mod login;
mod one_line;
pub mod options;
mod origin;
pub mod probe;
pub mod proxies;
pub mod rate_limit;
pub mod registries_conf;
pub mod registry_error;
pub mod retry;
pub mod session;
pub mod transport;
pub mod unfinished;

pub use body::UploadBody;
pub use certificates::Certificates;
pub(crate) use client::NO_REGISTRY;
pub use client::{Client, Download, MANIFEST_TYPES, Question, Receipt};
pub(crate) use content_digest::is_something_else;
pub use credentials::{Credential, Credentials, Secret};
pub use hosts::{Learned, Lesson, Sightings};
pub use location::Location;
pub use options::ClientOptions;
pub use probe::Probe;
pub use proxies::Proxies;
pub use rate_limit::RateLimit;
pub use registries_conf::RegistriesConf;
pub use registry_error::RegistryError;
pub use session::{Action, Fault, Reply, Request, Session};
pub use transport::Pool;
pub use unfinished::Unfinished;
