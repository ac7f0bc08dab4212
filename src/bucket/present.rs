//! Objects by name at S3, Google Cloud Storage or Azure, or in a folder, through object_store.
//!
//! Every verb ends in bounded time: a bucket that does not answer, or slower than encoding anew would be, is a
//! failure like any other. What lets us in comes from the variables that the clouds' own tools read, handed down by
//! the caller. Errors say why in a few words, and never hold a secret: the clouds' own answers are long and quote
//! what was signed.

use std::{error::Error as StdError, fmt, future::Future, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryFutureExt as _};
use http::HeaderValue;
use object_store::{
    Certificate, ClientOptions, Error as StoreError, GetResult, ObjectStore, ObjectStoreExt as _,
    ObjectStoreScheme, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, multipart::MultipartStore, path::Path,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use url::Url;

use crate::{
    blob::Blob,
    error::{Context as _, Error, ErrorKind, Result, counted, printable},
    registry::Secret,
};

/// How long a question may take, and how long a transfer may stand still.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes per second below which encoding anew is better on any machine.
const SLOWEST: u64 = 1 << 20;
/// A large object goes in parts of this size, one at a time: S3 takes no smaller ones than 5 MiB.
const PART: u64 = 8 << 20;
/// S3 takes so many parts.
const PARTS: u64 = 10_000;

/// A place for objects that many machines can reach: a bucket, and a prefix in it.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// The same, for objects in parts that are named one by one; a folder has none.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "only the embedded registry has such"))]
    multipart: Option<Arc<dyn MultipartStore>>,
    prefix: String,
    name: String,
    patience: Duration,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.name)
    }
}

impl Bucket {
    /// Prepares for the bucket at `url`: `s3://BUCKET[/PREFIX]`, `gs://…`, `az://…` or `file:///FOLDER`. The
    /// variables are those named `AWS_…`, `GOOGLE_…` and `AZURE_…`. Nothing is asked yet.
    pub fn open(url: &str, variables: &[(String, Secret)]) -> Result<Self> {
        // What is no bucket's address may be a secret.
        let unfit = |why: &str| {
            Error::usage(format!("the address of the bucket {why}")).with_hint(
                "write `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `file:///FOLDER`",
            )
        };
        let url: Url = url.parse().map_err(|_| unfit("is no URL"))?;
        if !matches!(url.scheme(), "s3" | "gs" | "az" | "file") {
            return Err(unfit(&format!("begins with `{}:`", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().or(url.fragment()).is_some()
        {
            return Err(unfit("holds more than a bucket and a prefix")
                .with_hint("what lets you in comes from the variables AWS_…, GOOGLE_… and AZURE_…"));
        }
        if url.has_host() == (url.scheme() == "file") {
            return Err(unfit("names no bucket"));
        }
        let (_, prefix) = ObjectStoreScheme::parse(&url)
            .map_err(|_| unfit("has a prefix of which a part is empty or no plain text"))?;
        let clients = ClientOptions::new()
            .with_timeout_disabled()
            .with_user_agent(HeaderValue::from_static(concat!("longshore/", env!("CARGO_PKG_VERSION"))));
        let store = connect(&url, variables, &clients);
        // As in registry/transport: a machine may trust nobody.
        let store = store.or_else(|_| connect(&url, variables, &trusting_mozilla(clients)));
        let (store, multipart) = store.map_err(|error| {
            Error::local(format!("setting up the bucket `{url}`: {}", words(&error)))
                .with_hint("look at the variables AWS_…, GOOGLE_… or AZURE_…")
        })?;
        Ok(Self { store, multipart, prefix: prefix.to_string(), name: url.to_string(), patience: PATIENCE })
    }

    /// Makes one in memory.
    #[cfg(all(test, feature = "server"))]
    pub(crate) fn in_memory() -> Self {
        let store = Arc::new(object_store::memory::InMemory::new());
        let multipart = Some(Arc::clone(&store) as Arc<dyn MultipartStore>);
        Self { store, multipart, prefix: String::new(), name: "memory".into(), patience: PATIENCE }
    }

    /// Sets how long a question may take, and how long a transfer may stand still.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Returns what messages call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Does what may take no longer than one question.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.within(self.patience, work).await
    }

    /// Reads a small object, if it is there. One over `limit` is as good as empty.
    pub(crate) async fn read(&self, key: &str, limit: u64) -> Result<Option<Bytes>> {
        self.in_time(async {
            match self.find(key).await? {
                Some(found) if found.meta.size > limit => Ok(Some(Bytes::new())),
                Some(found) => found.bytes().await.map(Some).map_err(failed),
                None => Ok(None),
            }
        })
        .await
    }

    /// Hands over the bytes of an object that should have this size, or why they end. A fault of the object is the
    /// source's, one of the bucket the network's.
    pub(crate) async fn download(&self, key: &str, size: u64, frames: mpsc::Sender<Result<Bytes>>) {
        let end = Instant::now() + self.allowance(size);
        let hand_over = async {
            let found = self.in_time(self.find(key)).await?;
            let found = found.ok_or_else(|| Error::source("its blob is missing"))?;
            if found.meta.size != size {
                let found = found.meta.size;
                return Err(Error::source(format!("its blob has {}, not {size}", counted(found, "byte"))));
            }
            let mut stream = found.into_stream();
            loop {
                let frame = self.in_time(async { Ok(stream.next().await) }).await?;
                let Some(frame) = frame else { return Ok(()) };
                if Instant::now() > end {
                    return Err(Error::new(ErrorKind::Network, "it is too slow"));
                }
                if frames.send(Ok(frame.map_err(failed)?)).await.is_err() {
                    // Nobody wants them any more.
                    return Ok(());
                }
            }
        };
        if let Err(error) = hand_over.await {
            frames.send(Err(error)).await.unwrap_or_default();
        }
    }

    /// Writes a small object.
    pub(crate) async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let limit = self.allowance(bytes.len() as u64);
        let path = self.path(key)?;
        self.within(limit, self.store.put(&path, bytes.into()).map_err(failed)).await.map(drop)
    }

    /// Writes a blob, whole or not at all. Memory is one part.
    pub(crate) async fn put_blob(&self, key: &str, blob: &Blob) -> Result<()> {
        if blob.size() <= PART {
            return self.put(key, part(blob, 0, BytesMut::new()).await?).await;
        }
        if blob.size() > PART * PARTS {
            return Err(Error::source(format!("{} bytes are too many for one object", blob.size())));
        }
        let path = self.path(key)?;
        let mut upload = self.in_time(self.store.put_multipart(&path).map_err(failed)).await?;
        let sent: Result<()> = async {
            // One buffer for all parts: each thread's allocator would keep one.
            let (mut offset, mut buffer) = (0, BytesMut::new());
            while offset < blob.size() {
                let part = part(blob, offset, buffer).await?;
                offset += part.len() as u64;
                let sending = upload.put_part(part.clone().into()).map_err(failed);
                self.within(self.allowance(PART), sending).await?;
                buffer = part.try_into_mut().unwrap_or_default();
            }
            self.within(self.allowance(blob.size()), upload.complete().map_err(failed)).await.map(drop)
        }
        .await;
        if sent.is_err() {
            // Parts that nobody wants cost their owner money.
            if let Err(error) = self.in_time(upload.abort().map_err(failed)).await {
                tracing::debug!("parts of `{key}` are left in the bucket: {error}");
            }
        }
        sent
    }

    async fn find(&self, key: &str) -> Result<Option<GetResult>> {
        match self.store.get(&self.path(key)?).await {
            Err(StoreError::NotFound { .. }) => Ok(None),
            found => found.map(Some).map_err(failed),
        }
    }

    /// Returns the objects, by the paths of [`Bucket::path`].
    #[cfg(feature = "server")]
    pub(crate) fn objects(&self) -> &dyn ObjectStore {
        &*self.store
    }

    /// Returns what puts objects in parts, if that can be done here.
    #[cfg(feature = "server")]
    pub(crate) fn multipart(&self) -> Option<&Arc<dyn MultipartStore>> {
        self.multipart.as_ref()
    }

    /// Returns where an object lies.
    pub(crate) fn path(&self, key: &str) -> Result<Path> {
        Path::parse(format!("{}/{key}", self.prefix))
            .context(ErrorKind::Usage, || format!("`{}` has a prefix that cannot be", self.name))
    }

    /// Returns how long the transfer of so many bytes may take.
    pub(crate) fn allowance(&self, size: u64) -> Duration {
        self.patience + Duration::from_secs(size / SLOWEST)
    }

    /// Does what may take so long.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let late = || Error::new(ErrorKind::Network, format!("no answer within {limit:?}"));
        timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
    }
}

/// A store's objects, and what puts them in parts.
type Store = (Arc<dyn ObjectStore>, Option<Arc<dyn MultipartStore>>);

fn connect(url: &Url, variables: &[(String, Secret)], clients: &ClientOptions) -> Result<Store, StoreError> {
    /// The builders are alike and share no trait. Each takes what is its own of the variables.
    macro_rules! built {
        ($builder:ty) => {{
            let retries = RetryConfig { max_retries: 2, retry_timeout: PATIENCE, ..RetryConfig::default() };
            let builder = <$builder>::new()
                .with_url(url.as_str())
                .with_client_options(clients.clone())
                .with_retry(retries);
            let builder = variables.iter().fold(builder, |builder, (name, value)| {
                match name.to_ascii_lowercase().parse() {
                    Ok(key) => builder.with_config(key, value.reveal()),
                    Err(_) => builder,
                }
            });
            let store = Arc::new(builder.build()?);
            (Arc::clone(&store) as Arc<dyn ObjectStore>, Some(store as Arc<dyn MultipartStore>))
        }};
    }
    Ok(match url.scheme() {
        "s3" => built!(AmazonS3Builder),
        "gs" => built!(GoogleCloudStorageBuilder),
        "az" => built!(MicrosoftAzureBuilder),
        _ => (Arc::new(LocalFileSystem::new()), None),
    })
}

fn trusting_mozilla(clients: ClientOptions) -> ClientOptions {
    let mozilla = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter_map(|certificate| Certificate::from_der(certificate).ok());
    mozilla.fold(clients.with_no_system_certificates(true), ClientOptions::with_root_certificate)
}

async fn part(blob: &Blob, offset: u64, mut part: BytesMut) -> Result<Bytes> {
    let blob = blob.clone();
    let reading = tokio::task::spawn_blocking(move || {
        part.resize(PART.min(blob.size() - offset) as usize, 0);
        blob.read_exact_at(&mut part, offset)
            .context(ErrorKind::Local, || format!("reading `{}` at {offset}", blob.path().display()))?;
        Ok(part.freeze())
    });
    reading.await.context(ErrorKind::Internal, || "a reader broke down".into())?
}

/// Returns a failure of the bucket.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn failed(error: StoreError) -> Error {
    Error::new(ErrorKind::Network, words(&error))
}

/// Says what went wrong in the words of the innermost cause, less what those quote and the document that a cloud
/// adds: it may be a secret.
fn words(error: &StoreError) -> String {
    match error {
        StoreError::PermissionDenied { .. } => return "access denied".to_owned(),
        StoreError::Unauthenticated { .. } => return "the credentials are not accepted".to_owned(),
        _ => {}
    }
    let mut innermost: &dyn StdError = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let text = innermost.to_string();
    let said = text.split(['<', '\n', '"', '`']).next().unwrap_or_default().trim_end_matches([' ', ':']);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split('<').next());
    // An object may be missing, and an object's parts: that is said by their codes.
    if matches!(error, StoreError::NotFound { .. }) && code.is_none_or(|code| code == "NoSuchBucket") {
        return "there is no such bucket".to_owned();
    }
    let words = code.map_or_else(|| said.to_owned(), |code| format!("{said}: {code}"));
    printable(&words).into_owned()
}
