//! The wire: one registry, spoken to over HTTP/1.1, or HTTP/2 by option.
//!
//! * [`Client`]: the verbs (is this blob there, put this manifest, send this upload request);
//!   [`Download`]: an answer that is passed on as it comes;
//! * [`session`]: what to send next in an upload, as a state machine without sockets or clock;
//! * [`unfinished`]: what a later process needs to go on with an upload;
//! * [`transport`]: one exchange over connections of our own; [`body`]: an upload's bytes on their way there;
//! * `guard` and [`location`]: where a registry may send us, by redirect or `Location`; `origin`: whom a URL speaks to;
//! * [`registry_error`]: what it says when it refuses, without what we told it in confidence (`confidential`),
//!   in `one_line`;
//! * [`auth`]: getting in, by answering a [`challenge`], with a `token` where one is wanted;
//! * [`credential`]: what gets us in; [`credentials`]: where it comes from ([`auth_file`], `helper`); [`login`] writes it
//!   down;
//! * [`certificates`] and `tls`: whom to trust, and who we are; [`proxies`]: through whom;
//! * [`registries_conf`]: what this machine says about registries;
//! * [`hosts`]: what is known about well-known registries; [`learned`] and [`sightings`]: what pushes have found out,
//!   in `host_files`; [`probe`]: what can be found out before;
//! * [`rate_limit`]: how fast blobs may be sent; [`retry`]: the one place that waits and counts.

pub mod auth;
pub mod auth_file;
mod blobs;
pub mod body;
pub mod certificates;
pub mod challenge;
pub mod client;
mod confidential;
pub mod credential;
pub mod credentials;
mod documents;
mod download;
pub(crate) mod guard;
mod helper;
mod host_files;
pub mod hosts;
pub mod learned;
mod listing;
pub mod location;
pub mod login;
mod one_line;
pub mod options;
mod origin;
pub mod probe;
pub mod proxies;
mod proxy_login;
pub mod rate_limit;
pub mod registries_conf;
pub mod registry_error;
pub mod retry;
pub mod session;
pub mod sightings;
mod tls;
mod token;
pub mod transport;
pub mod unfinished;

pub(crate) use blobs::is_something_else;
pub use body::UploadBody;
pub use certificates::Certificates;
pub use client::Client;
pub(crate) use client::NO_REGISTRY;
pub use credential::{Credential, Secret};
pub use credentials::Credentials;
pub use documents::{MANIFEST_TYPES, Receipt};
pub use download::{Download, Question};
pub use learned::{Learned, Lesson};
pub use location::Location;
pub use options::ClientOptions;
pub use probe::Probe;
pub use proxies::Proxies;
pub use rate_limit::RateLimit;
pub use registries_conf::RegistriesConf;
pub use registry_error::RegistryError;
pub use session::{Action, Fault, Reply, Request, Session};
pub use sightings::Sightings;
pub use transport::Pool;
pub use unfinished::Unfinished;
