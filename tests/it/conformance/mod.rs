//! What the OCI distribution specification 1.1 asks of a registry, case by case as its conformance tests group them:
//! pull, push, content discovery and content management, with every way to bring a blob and every kind of manifest,
//! by SHA-256 and by SHA-512. Spoken byte by byte to `longshore serve`, over a folder, over a bucket and as a gateway.

/// Makes of each case two tests: the registry lies in a folder, or in a bucket.
macro_rules! cases {
    ($($case:ident;)*) => {
        mod folder {
            $(#[test]
            fn $case() {
                super::$case(&crate::conformance::Registry::in_folder());
            })*
        }

        #[cfg(feature = "buckets")]
        mod bucket {
            $(#[test]
            fn $case() {
                super::$case(&crate::conformance::Registry::in_bucket());
            })*
        }
    };
}

/// Tests cases that delete nothing through a gateway, which passes on to another registry, below a prefix.
macro_rules! cases_of_a_gateway {
    ($($case:ident;)*) => {
        mod gateway {
            $(#[test]
            fn $case() {
                super::$case(&crate::conformance::Registry::before_another());
            })*
        }
    };
}

mod blobs;
mod discovery;
mod errors;
mod kinds;
mod manifests;

use longshore::oci::{Algorithm, Digest, Hasher};
use serde_json::Value;
use tempfile::TempDir;

#[cfg(feature = "buckets")]
use crate::support::s3::S3;
use crate::support::{
    raw::{Raw, Reply},
    serve::Serve,
};

/// The codes that the specification knows.
const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNSUPPORTED",
];

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// A registry that has nothing yet.
struct Registry {
    serve: Serve,
    /// Where it keeps what it has, if that is a folder.
    dir: Option<TempDir>,
    #[cfg(feature = "buckets")]
    _bucket: Option<S3>,
    /// What it passes on to, if it is a gateway.
    _upstream: Option<Box<Self>>,
}

impl Registry {
    fn in_folder() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            serve: Serve::start(dir.path()),
            dir: Some(dir),
            #[cfg(feature = "buckets")]
            _bucket: None,
            _upstream: None,
        }
    }

    fn before_another() -> Self {
        let (dir, upstream) = (tempfile::tempdir().unwrap(), Self::in_folder());
        let to = format!("--upstream={}/all", upstream.serve.host());
        let serve = Serve::start_with(dir.path(), &[&to, "--allow-anonymous", "--retries=0"]);
        Self {
            serve,
            dir: Some(dir),
            #[cfg(feature = "buckets")]
            _bucket: None,
            _upstream: Some(Box::new(upstream)),
        }
    }

    #[cfg(feature = "buckets")]
    fn in_bucket() -> Self {
        let bucket = S3::start();
        Self { serve: Serve::over(&bucket, &[]), dir: None, _bucket: Some(bucket), _upstream: None }
    }

    /// Sends one request; a refusal is worded as the specification has it.
    #[track_caller]
    fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let reply = Raw::connect(self.serve.host()).send(method, target, headers, body).unwrap();
        if reply.status >= 400 && method != "HEAD" {
            assert!(CODES.contains(&&*code(&reply)), "{reply:?}");
        }
        reply
    }

    #[track_caller]
    fn get(&self, target: &str) -> Reply {
        self.send("GET", target, &[], b"")
    }

    #[track_caller]
    fn head(&self, target: &str) -> Reply {
        self.send("HEAD", target, &[], b"")
    }

    #[track_caller]
    fn delete(&self, target: &str) -> u16 {
        self.send("DELETE", target, &[], b"").status
    }

    /// Opens an upload and returns where it is.
    #[track_caller]
    fn open(&self, name: &str, query: &str) -> String {
        let reply = self.send("POST", &format!("/v2/{name}/blobs/uploads/{query}"), &[], b"");
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.header("Location").unwrap().to_owned()
    }

    /// Pushes a blob by one POST.
    #[track_caller]
    fn blob(&self, name: &str, digest: &Digest, bytes: &[u8]) -> Reply {
        self.send("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"), &[], bytes)
    }

    /// Pushes a manifest.
    #[track_caller]
    fn manifest(&self, name: &str, reference: &str, media_type: &str, bytes: &[u8]) -> Reply {
        let target = format!("/v2/{name}/manifests/{reference}");
        self.send("PUT", &target, &[("Content-Type", media_type)], bytes)
    }
}

/// Returns the first error's code, in a body that is nothing but errors.
#[track_caller]
fn code(reply: &Reply) -> String {
    assert_eq!(reply.header("Content-Type"), Some("application/json"), "{reply:?}");
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let errors = body["errors"].as_array().unwrap();
    assert!(errors.iter().all(|error| error["message"].is_string()), "{body}");
    errors[0]["code"].as_str().unwrap().to_owned()
}

fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// Returns a location with one more parameter.
fn with(location: &str, parameter: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}{parameter}")
}

cases! {
    the_registry_says_that_it_is_one;
}

fn the_registry_says_that_it_is_one(registry: &Registry) {
    for target in ["/v2/", "/v2"] {
        assert_eq!(registry.get(target).status, 200);
        assert_eq!(registry.head(target).status, 200);
    }
}
