//! Referrers: the manifests of a repository that are about another one (signatures, SBOMs, attestations).
//!
//! `OCI-Subject` in the answer to a PUT promises this list, and clients then keep none of their own.

use std::collections::BTreeMap;

use http::{HeaderName, StatusCode, header::CONTENT_TYPE, request::Parts};
use serde::{Deserialize, Serialize};

use crate::{
    oci::{Descriptor, Digest, Manifest},
    server::{
        Registry,
        protocol::{Name, Refusal, Reply, json, parameter, set},
    },
};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

impl Registry {
    /// `GET /v2/<name>/referrers/<digest>`, all or those of one `artifactType`.
    pub(super) async fn get_referrers(
        &self,
        name: Name,
        subject: Digest,
        head: &Parts,
    ) -> Result<Reply, Refusal> {
        let wanted = parameter(head, "artifactType");
        let found = self.storage.referrers(name, subject).await?;
        let mut referrers: Vec<_> = found.into_iter().filter_map(Referrer::new).collect();
        if let Some(wanted) = &wanted {
            referrers.retain(|referrer| referrer.artifact_type.as_ref() == Some(wanted));
        }
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": referrers});
        let mut reply = json(StatusCode::OK, &index);
        set(reply.headers_mut(), CONTENT_TYPE, OCI_INDEX);
        if wanted.is_some() {
            set(reply.headers_mut(), OCI_FILTERS_APPLIED, "artifactType");
        }
        Ok(reply)
    }
}

/// A descriptor as the list of referrers holds it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// What of a manifest its descriptor repeats.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Referrer {
    fn new(manifest: Manifest) -> Option<Self> {
        let kind: Kind = serde_json::from_slice(&manifest.bytes).ok()?;
        let of_config = || kind.config.and_then(|config| config.media_type);
        Some(Self {
            size: manifest.bytes.len() as u64,
            media_type: manifest.media_type,
            digest: manifest.digest,
            artifact_type: kind.artifact_type.or_else(of_config),
            annotations: kind.annotations.unwrap_or_default(),
        })
    }
}
