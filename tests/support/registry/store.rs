//! The honest part: blobs, sessions, manifests and tags in memory, as the distribution specification says.
//!
//! The address of a session changes with every request that moves it, and a stale one is refused where it
//! would write, as distribution does; asking for the status works with any.

use std::collections::{BTreeMap, HashMap, HashSet};

use longshore::oci::{Digest, Hasher};
use serde_json::{Value, json};

use super::{
    http::{Answer, Head},
    script::{Manners, Route},
};

/// A request, understood.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) route: Route,
    pub(super) head: Head,
    pub(super) repository: String,
    /// The digest, tag or session that the path ends with.
    pub(super) name: String,
}

impl Call {
    pub(super) fn of(head: Head) -> Self {
        let path = head.path().to_owned();
        let method = head.method.as_str();
        // Sessions may live anywhere: Google's are under `/artifacts-uploads/`.
        let rest = path.split_once("/v2/").map_or("", |(_, rest)| rest);
        let split = |between: &str| {
            rest.split_once(between).map(|(repository, name)| (repository.to_owned(), name.to_owned()))
        };
        let (route, (repository, name)) = if path == "/v2/" || path == "/v2" {
            (Route::Base, Default::default())
        } else if path == "/token" {
            (Route::Token, Default::default())
        } else if let Some(place) = split("/blobs/uploads/") {
            let route = match method {
                "POST" if head.parameter("mount").is_some() => Route::Mount,
                "POST" => Route::Open,
                "PATCH" => Route::Patch,
                "PUT" => Route::Commit,
                "GET" => Route::Status,
                "DELETE" => Route::Cancel,
                _ => Route::Other,
            };
            (route, place)
        } else if let Some(place) = split("/blobs/") {
            (if method == "HEAD" { Route::BlobHead } else { Route::BlobGet }, place)
        } else if let Some(place) = split("/manifests/") {
            let route = match method {
                "HEAD" => Route::ManifestHead,
                "PUT" => Route::ManifestPut,
                _ => Route::ManifestGet,
            };
            (route, place)
        } else if let Some(place) = split("/referrers/") {
            (Route::Referrers, place)
        } else if let Some(place) = split("/tags/list") {
            (Route::Tags, place)
        } else if rest == "_catalog" {
            (Route::Catalog, Default::default())
        } else {
            (Route::Other, Default::default())
        };
        Self { route, head, repository, name }
    }
}

/// Everything the registry holds.
#[derive(Debug, Default)]
pub(super) struct Store {
    blobs: HashMap<Digest, Vec<u8>>,
    repositories: HashMap<String, Repository>,
    sessions: HashMap<String, Session>,
    opened: u32,
}

#[derive(Debug, Default)]
struct Repository {
    blobs: HashSet<Digest>,
    /// Where blobs were mounted from, if a HEAD tells of that instead.
    notes: HashMap<Digest, String>,
    manifests: HashMap<Digest, (String, Vec<u8>)>,
    tags: BTreeMap<String, Digest>,
}

#[derive(Debug, Default)]
struct Session {
    bytes: Vec<u8>,
    /// Grows with every change; part of the address.
    state: u32,
    /// The size of the first chunk.
    part: Option<usize>,
    /// A chunk came that only the last one may be like.
    ended: bool,
}

impl Store {
    pub(super) fn blob(&self, repository: &str, digest: &Digest) -> Option<&Vec<u8>> {
        self.repositories.get(repository)?.blobs.get(digest).and_then(|digest| self.blobs.get(digest))
    }

    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<&(String, Vec<u8>)> {
        let repository = self.repositories.get(repository)?;
        match repository.tags.get(reference) {
            Some(digest) => repository.manifests.get(digest),
            None => repository.manifests.get(&reference.parse().ok()?),
        }
    }

    pub(super) fn tags(&self, repository: &str) -> Vec<String> {
        self.repositories
            .get(repository)
            .map(|found| found.tags.keys().cloned().collect())
            .unwrap_or_default()
    }

    pub(super) fn seed(&mut self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.keep(repository, digest.clone(), bytes.to_vec());
        digest
    }

    /// Loses every upload that is open.
    pub(super) fn forget_uploads(&mut self) {
        self.sessions.clear();
    }

    pub(super) fn forget_session(&mut self, name: &str) {
        self.sessions.remove(name);
    }

    /// Returns how many bytes a session has.
    pub(super) fn session_size(&self, name: &str) -> usize {
        self.sessions.get(name).map_or(0, |session| session.bytes.len())
    }

    /// Takes what arrived of a PATCH that broke.
    pub(super) fn take_partial(&mut self, call: &Call, bytes: &[u8]) {
        if let Some(session) = self.sessions.get_mut(&call.name)
            && content_range(&call.head).is_none_or(|(start, _)| start == session.bytes.len())
        {
            session.bytes.extend(bytes);
        }
    }

    /// Does what a request asks for.
    pub(super) fn answer(&mut self, manners: &Manners, base: &str, call: &Call, body: Vec<u8>) -> Answer {
        let done = match call.route {
            Route::Base => Ok(Answer::new(200)),
            Route::BlobGet | Route::BlobHead => self.get_blob(manners, call),
            Route::Cancel => self.cancel(call),
            Route::Catalog => Ok(listed("repositories", self.repositories.keys().cloned().collect())),
            Route::Commit => self.commit(manners, base, call, body),
            Route::ManifestGet | Route::ManifestHead => self.get_manifest(call),
            Route::ManifestPut => self.put_manifest(manners, base, call, body),
            Route::Mount => Ok(self.mount(manners, base, call)),
            Route::Open => self.open(manners, base, call, body),
            Route::Patch => self.patch(manners, base, call, &body),
            Route::Referrers => self.referrers(manners, call),
            Route::Status => self.status(manners, base, call),
            Route::Tags if !self.repositories.contains_key(&call.repository) => {
                Err(Refusal::new(404, "NAME_UNKNOWN", "no such repository"))
            }
            Route::Tags => Ok(listed("tags", self.tags(&call.repository))),
            Route::Other | Route::Token => Err(Refusal::new(404, "UNSUPPORTED", "no such route")),
        };
        done.unwrap_or_else(|refusal| refusal.answer(manners))
    }

    fn get_blob(&self, manners: &Manners, call: &Call) -> Result<Answer, Refusal> {
        let digest = digest_of(&call.name)?;
        let bytes = self
            .blob(&call.repository, &digest)
            .or_else(|| self.blobs.get(&digest).filter(|_| manners.shows_all_blobs))
            .ok_or_else(|| Refusal::new(404, "BLOB_UNKNOWN", "no such blob"))?;
        let note = self.repositories.get(&call.repository).and_then(|found| found.notes.get(&digest));
        let (bytes, digest) = match note {
            Some(note) if call.route == Route::BlobHead => {
                (&note.clone().into_bytes(), Digest::of(note.as_bytes()))
            }
            _ => (bytes, digest),
        };
        let mut answer = Answer::new(200)
            .with("Content-Length", bytes.len().to_string())
            .with("Content-Type", "application/octet-stream")
            .with("Docker-Content-Digest", digest.to_string());
        answer.body.clone_from(bytes);
        Ok(answer)
    }

    fn mount(&mut self, manners: &Manners, base: &str, call: &Call) -> Answer {
        let digest = call.head.parameter("mount").and_then(|digest| digest.parse::<Digest>().ok());
        let from = call.head.parameter("from");
        if let (Some(digest), Some(from)) = (digest, from)
            && let Some(bytes) = self.blob(&from, &digest).cloned()
        {
            let repository = &call.repository;
            self.keep(repository, digest.clone(), bytes);
            if manners.notes_mounts {
                let notes = &mut self.repositories.entry(repository.clone()).or_default().notes;
                notes.insert(digest.clone(), format!("{from}/blobs/{digest}"));
            }
            return created(format!("{base}/v2/{repository}/blobs/{digest}"), &digest);
        }
        self.open_session(manners, base, call)
    }

    fn open(&mut self, manners: &Manners, base: &str, call: &Call, body: Vec<u8>) -> Result<Answer, Refusal> {
        if let Some(digest) = call.head.parameter("digest") {
            return self.finish(base, call, &digest, body);
        }
        Ok(self.open_session(manners, base, call))
    }

    fn open_session(&mut self, manners: &Manners, base: &str, call: &Call) -> Answer {
        self.opened += 1;
        let name = format!("session-{}", self.opened);
        let session = Session::default();
        let mut answer = Answer::new(202)
            .with("Location", session.location(base, &call.repository, &name))
            .with("Range", "0-0")
            .with("Docker-Upload-UUID", &name);
        answer.set("OCI-Chunk-Min-Length", manners.chunk_min.map(|size| size.to_string()));
        answer.set("OCI-Chunk-Max-Length", manners.chunk_max.map(|size| size.to_string()));
        self.sessions.insert(name, session);
        answer
    }

    fn patch(&mut self, manners: &Manners, base: &str, call: &Call, body: &[u8]) -> Result<Answer, Refusal> {
        let session = self.current(manners, call)?;
        let size = body.len();
        if let Some((start, end)) = content_range(&call.head) {
            if end + 1 != start + size {
                return Err(Refusal::new(400, "SIZE_INVALID", "Content-Range and Content-Length disagree"));
            }
            if start != session.bytes.len() {
                let stored = session.bytes.len();
                return Err(Refusal::new(
                    416,
                    "RANGE_INVALID",
                    // ECR tells the offset this way and no other (gh:apple/containerization#790).
                    &format!("First byte of the layer part is {start} instead of {stored}"),
                ));
            }
        } else if call.head.header("Content-Range").is_some() {
            return Err(Refusal::new(400, "RANGE_INVALID", "Content-Range is not `first-last`"));
        }
        if manners.chunk_max.is_some_and(|max| size as u64 > max) {
            return Err(Refusal::new(413, "SIZE_INVALID", "the chunk is too large"));
        }
        let first = *session.part.get_or_insert(size);
        if session.ended || manners.equal_parts && size > first {
            return Err(Refusal::new(416, "RANGE_INVALID", "only the last chunk may have another size"));
        }
        session.ended =
            manners.equal_parts && size < first || manners.chunk_min.is_some_and(|min| (size as u64) < min);
        session.bytes.extend(body);
        session.state += 1;
        Ok(session.here(manners.patch_status, base, call))
    }

    fn status(&mut self, manners: &Manners, base: &str, call: &Call) -> Result<Answer, Refusal> {
        match self.sessions.get(&call.name) {
            Some(session) if manners.status => Ok(session.here(204, base, call)),
            _ => Err(Refusal::lost_session()),
        }
    }

    fn cancel(&mut self, call: &Call) -> Result<Answer, Refusal> {
        self.sessions.remove(&call.name).map(|_| Answer::new(204)).ok_or_else(Refusal::lost_session)
    }

    fn commit(
        &mut self,
        manners: &Manners,
        base: &str,
        call: &Call,
        body: Vec<u8>,
    ) -> Result<Answer, Refusal> {
        self.current(manners, call)?;
        if let Some(status) = manners.refuses_whole.filter(|_| !body.is_empty()) {
            return Err(Refusal::new(status, "UNSUPPORTED", "no body is wanted here"));
        }
        let digest = call.head.parameter("digest");
        let digest = digest.ok_or_else(|| Refusal::new(400, "DIGEST_INVALID", "no digest"))?;
        let session = self.sessions.remove(&call.name).unwrap_or_default();
        let mut bytes = session.bytes;
        if manners.keeps_closing_body || bytes.is_empty() {
            bytes.extend(body);
        }
        self.finish(base, call, &digest, bytes)
    }

    fn finish(&mut self, base: &str, call: &Call, digest: &str, bytes: Vec<u8>) -> Result<Answer, Refusal> {
        let digest = digest_of(digest)?;
        let found = hash(&digest, &bytes);
        if found != digest {
            return Err(Refusal::new(
                400,
                "DIGEST_INVALID",
                &format!("the {} bytes hash to {found}", bytes.len()),
            ));
        }
        self.keep(&call.repository, digest.clone(), bytes);
        Ok(created(format!("{base}/v2/{}/blobs/{digest}", call.repository), &digest))
    }

    fn get_manifest(&self, call: &Call) -> Result<Answer, Refusal> {
        let (media_type, bytes) = self
            .manifest(&call.repository, &call.name)
            .ok_or_else(|| Refusal::new(404, "MANIFEST_UNKNOWN", "no such manifest"))?;
        let mut answer = Answer::new(200)
            .with("Content-Length", bytes.len().to_string())
            .with("Content-Type", media_type)
            .with("Docker-Content-Digest", Digest::of(bytes).to_string());
        answer.body.clone_from(bytes);
        Ok(answer)
    }

    fn put_manifest(
        &mut self,
        manners: &Manners,
        base: &str,
        call: &Call,
        body: Vec<u8>,
    ) -> Result<Answer, Refusal> {
        let invalid = |why: &str| Refusal::new(400, "MANIFEST_INVALID", why);
        let document: Value = serde_json::from_slice(&body).map_err(|_| invalid("not JSON"))?;
        let media_type = call.head.header("Content-Type").unwrap_or_default();
        if document["mediaType"].as_str().is_some_and(|own| own != media_type) {
            return Err(invalid("Content-Type is not the manifest's mediaType"));
        }
        let named = call.name.parse::<Digest>().ok();
        let digest = named.as_ref().map_or_else(|| Digest::of(&body), |named| hash(named, &body));
        if named.is_some_and(|named| named != digest) {
            return Err(Refusal::new(400, "DIGEST_INVALID", "the manifest has another digest"));
        }
        for child in children(&document) {
            if !self.has(&call.repository, &child)? {
                if manners.shows_all_blobs {
                    return Err(invalid("Blob asset not found").about(&child));
                }
                return Err(
                    Refusal::new(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry").about(&child)
                );
            }
        }
        let repository = self.repositories.entry(call.repository.clone()).or_default();
        repository.manifests.insert(digest.clone(), (media_type.to_owned(), body));
        if call.name != digest.to_string() {
            repository.tags.insert(call.name.clone(), digest.clone());
        }
        let mut answer = created(format!("{base}/v2/{}/manifests/{digest}", call.repository), &digest);
        let subject = document["subject"]["digest"].as_str().filter(|_| manners.subject);
        answer.set("OCI-Subject", subject.map(str::to_owned));
        Ok(answer)
    }

    fn referrers(&self, manners: &Manners, call: &Call) -> Result<Answer, Refusal> {
        if !manners.subject {
            return Err(Refusal::new(404, "UNSUPPORTED", "no referrers here"));
        }
        let manifests =
            self.repositories.get(&call.repository).into_iter().flat_map(|found| &found.manifests);
        let referring = manifests.filter(|(_, (_, bytes))| {
            let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
            document["subject"]["digest"].as_str() == Some(&call.name)
        });
        let listed: Vec<_> = referring
            .map(|(digest, (media_type, bytes))| {
                json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
            })
            .collect();
        let mut answer = Answer::new(200).with("Content-Type", "application/vnd.oci.image.index.v1+json");
        answer.body = json!({ "schemaVersion": 2, "manifests": listed }).to_string().into();
        Ok(answer)
    }

    /// Returns the session that a writing request goes on with, if its address is the newest.
    fn current(&mut self, manners: &Manners, call: &Call) -> Result<&mut Session, Refusal> {
        let session = self.sessions.get_mut(&call.name).ok_or_else(Refusal::lost_session)?;
        let state = call.head.parameter("_state");
        // Where nobody can ask for the newest address, the old one has to do.
        if manners.status && state != Some(session.state.to_string()) {
            return Err(Refusal::new(404, "BLOB_UPLOAD_INVALID", "this address is not the session's newest"));
        }
        Ok(session)
    }

    fn has(&self, repository: &str, child: &Child) -> Result<bool, Refusal> {
        let digest = digest_of(&child.digest)?;
        let found = self.repositories.get(repository);
        Ok(found.is_some_and(|found| {
            if child.is_manifest {
                found.manifests.contains_key(&digest)
            } else {
                found.blobs.contains(&digest)
            }
        }))
    }

    fn keep(&mut self, repository: &str, digest: Digest, bytes: Vec<u8>) {
        self.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest.clone());
        self.blobs.insert(digest, bytes);
    }
}

impl Session {
    fn location(&self, base: &str, repository: &str, name: &str) -> String {
        format!("{base}/v2/{repository}/blobs/uploads/{name}?_state={}", self.state)
    }

    fn here(&self, status: u16, base: &str, call: &Call) -> Answer {
        Answer::new(status)
            .with("Location", self.location(base, &call.repository, &call.name))
            // distribution has no words for an empty session but these.
            .with("Range", format!("0-{}", self.bytes.len().saturating_sub(1)))
    }
}

/// Something a manifest names.
struct Child {
    digest: String,
    is_manifest: bool,
}

/// Returns what must be there before a manifest: everything but layers that are fetched from elsewhere.
fn children(document: &Value) -> Vec<Child> {
    let list = |field: &str| document[field].as_array().cloned().unwrap_or_default();
    let child = |descriptor: &Value, is_manifest| {
        let digest = descriptor["digest"].as_str()?.to_owned();
        Some(Child { digest, is_manifest })
    };
    let blobs = [vec![document["config"].clone()], list("layers"), list("blobs")].concat();
    let here = blobs.iter().filter(|blob| blob["urls"].is_null());
    let manifests = list("manifests");
    here.filter_map(|blob| child(blob, false))
        .chain(manifests.iter().filter_map(|found| child(found, true)))
        .collect()
}

/// A request that was understood and is not granted.
#[derive(Debug)]
struct Refusal {
    status: u16,
    code: &'static str,
    message: String,
    detail: Value,
}

impl Refusal {
    fn new(status: u16, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), detail: Value::Null }
    }

    fn lost_session() -> Self {
        Self::new(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
    }

    fn about(mut self, child: &Child) -> Self {
        self.detail = serde_json::json!({ "digest": child.digest });
        self
    }

    fn answer(&self, manners: &Manners) -> Answer {
        if manners.html {
            return html(self.status);
        }
        let mut answer = Answer::new(self.status).with("Content-Type", "application/json");
        let error = serde_json::json!({ "code": self.code, "message": self.message, "detail": self.detail });
        answer.body = json!({ "errors": [error] }).to_string().into();
        answer
    }
}

/// A refusal as proxies make them.
pub(super) fn html(status: u16) -> Answer {
    let mut answer = Answer::new(status).with("Content-Type", "text/html").with("Server", "faults/1.0");
    answer.body =
        format!("<html><head><title>{status} Not today</title></head><body><h1>{status}</h1></body></html>")
            .into();
    answer
}

fn created(location: String, digest: &Digest) -> Answer {
    Answer::new(201).with("Location", location).with("Docker-Content-Digest", digest.to_string())
}

fn digest_of(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|_| Refusal::new(400, "DIGEST_INVALID", "not a digest"))
}

/// Hashes by the function that `like` was made with.
fn hash(like: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(like.algorithm());
    hasher.update(bytes);
    hasher.finish()
}

/// Returns first and last byte of a `Content-Range`, in the specification's form and no other.
/// Answers with a list of names, all on one page.
fn listed(key: &str, mut names: Vec<String>) -> Answer {
    names.sort();
    let mut answer = Answer::new(200).with("Content-Type", "application/json");
    answer.body = json!({ key: names }).to_string().into_bytes();
    answer
}

fn content_range(head: &Head) -> Option<(usize, usize)> {
    let (start, end) = head.header("Content-Range")?.split_once('-')?;
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    Some((digits(start)?, digits(end)?))
}
