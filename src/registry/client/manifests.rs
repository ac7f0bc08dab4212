//! The verbs about manifests: small, read as a whole.

use bytes::Bytes;
use http::{HeaderValue, Method, header};

use super::{Call, Client, no_registry};
use crate::{
    error::{Error, ErrorKind, Result},
    oci::{
        Digest, Hasher,
        manifest::states_media_type,
        media_type::{DOCKER_INDEX, DOCKER_MANIFEST},
    },
    registry::{RegistryError, body::Payload, content_digest::content_digest},
};

/// Registries must take manifests of 4 MiB (distribution-spec); none is known to hold much larger ones.
pub(in crate::registry) const MANIFEST_LIMIT: usize = 4 << 20;

/// What we ask for when we read a manifest: both families, an index or one image.
pub const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    DOCKER_INDEX,
    DOCKER_MANIFEST,
];

/// What a registry said about a manifest it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Under which digest, where it said so.
    pub digest: Option<Digest>,
    /// It understood `subject`: referrers are found without a tag.
    pub subject: bool,
    /// The further tags that it took.
    pub tags: Vec<String>,
}

impl Client {
    /// Returns the digest of the manifest that a tag or digest names, if there is one.
    pub async fn head_manifest(&self, repository: &str, reference: &str) -> Result<Option<Digest>> {
        let doing = || format!("looking for `{}`", self.named(repository, reference));
        let question = self.manifest(Method::HEAD, repository, reference);
        let Some(answer) = self.find(question, doing).await? else { return Ok(None) };
        if let Some(digest) = content_digest(&answer.headers) {
            return Ok(Some(digest));
        }
        Ok(self.get_manifest(repository, reference).await?.map(|(_, bytes)| Digest::of(&bytes)))
    }

    /// Returns the media type and the bytes of the manifest that a tag or digest names, if there is one.
    pub async fn get_manifest(&self, repository: &str, reference: &str) -> Result<Option<(String, Bytes)>> {
        let doing = || format!("reading `{}`", self.named(repository, reference));
        let mut call = self.manifest(Method::GET, repository, reference);
        call.request.limit = MANIFEST_LIMIT;
        let Some(answer) = self.find(call, doing).await? else { return Ok(None) };
        if !answer.whole {
            let words = format!("the manifest is larger than {MANIFEST_LIMIT} bytes, or was cut off");
            return Err(Error::new(ErrorKind::Refused, words).while_doing(doing()));
        }
        // There are servers that answer everything by a page, or by nothing, and call that well.
        if answer.body.trim_ascii_start().first() != Some(&b'{') {
            return Err(
                no_registry(&answer.url, "answered with something that is no manifest").while_doing(doing())
            );
        }
        let media_type = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        Ok(Some((media_type.to_owned(), answer.body)))
    }

    /// Puts a manifest under a tag or its digest; under a digest also under `tags`, as many as the registry takes so.
    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        tags: &[String],
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Receipt> {
        let doing = || format!("pushing the manifest to `{}`", self.named(repository, reference));
        let content_type = HeaderValue::from_str(media_type)
            .map_err(|_| Error::source(format!("invalid media type: `{}`", media_type.escape_debug())))?;
        let mut call = self.call(Method::PUT, repository, &format!("manifests/{reference}"));
        if !tags.is_empty() {
            call.request.url.query_pairs_mut().extend_pairs(tags.iter().map(|tag| ("tag", tag)));
        }
        call.request.headers.insert(header::CONTENT_TYPE, content_type);
        call.request.payload = Payload::Bytes(bytes.clone());
        let answer = self.insist(call, doing).await;
        let answer = answer.map_err(|error| offer_format(error, media_type, &bytes))?;
        let digest = content_digest(&answer.headers);
        if let Some(theirs) = &digest {
            let mut hasher = Hasher::new(theirs.algorithm());
            hasher.update(&bytes);
            let ours = hasher.finish();
            if ours != *theirs {
                let words = format!("the registry stored {theirs} instead of {ours}");
                return Err(Error::new(ErrorKind::Refused, words).while_doing(doing()));
            }
        }
        let taken = answer.headers.get_all("oci-tag").iter().filter_map(|value| value.to_str().ok());
        let taken: Vec<_> = taken.flat_map(|value| value.split(',')).map(str::trim).collect();
        let tags = tags.iter().filter(|tag| taken.contains(&tag.as_str())).cloned().collect();
        Ok(Receipt { digest, subject: answer.headers.contains_key("oci-subject"), tags })
    }

    /// Asks for the list of what refers to a manifest. A registry that keeps none refuses.
    pub(crate) async fn ask_referrers(&self, repository: &str, subject: &Digest) -> Result<()> {
        let doing = || "listing referrers".to_owned();
        let question = self.call(Method::GET, repository, &format!("referrers/{subject}"));
        let answer = self.insist(question, doing).await?;
        if answer.is_absence() { Err(answer.refusal().into_error(doing())) } else { Ok(()) }
    }

    fn manifest(&self, method: Method, repository: &str, reference: &str) -> Call {
        let mut call = self.call(method, repository, &format!("manifests/{reference}"));
        for media_type in MANIFEST_TYPES {
            call.request.headers.append(header::ACCEPT, HeaderValue::from_static(media_type));
        }
        call
    }

    /// Returns what people call a manifest: `host/repository:tag` or `host/repository@digest`.
    fn named(&self, repository: &str, reference: &str) -> String {
        format!("{}/{repository}{}{reference}", self.host(), if reference.contains(':') { '@' } else { ':' })
    }
}

/// Offers what `--format` can do where a registry does not take a manifest as it is.
fn offer_format(error: Error, media_type: &str, bytes: &[u8]) -> Error {
    let Some(refusal) = error.find::<RegistryError>() else { return error };
    let docker = [DOCKER_INDEX, DOCKER_MANIFEST].contains(&media_type);
    let other = if docker { "oci" } else { "docker" };
    match (refusal.status, refusal.code.as_deref()) {
        (415, _) => error.with_hint(format!("the registry does not take `{media_type}`: try `--format {other}`")),
        // serverless-registry, and without a word `container-registry`, of an image that the specification allows and
        // umoci writes.
        _ if refusal.misses_blob() => error,
        (400, None | Some("MANIFEST_INVALID")) if !docker && !states_media_type(bytes) => error.with_hint(
            "the manifest has no `mediaType`, which some registries insist on: `--format oci` adds it, and so changes the digest",
        ),
        _ => error,
    }
}
