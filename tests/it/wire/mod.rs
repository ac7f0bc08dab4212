//! The rules of the wire, each by the number it has in the project's notes on how registries really behave: the
//! whole stack pushes images made here to a registry that misbehaves, and the registry's log says what it did.
//!
//! [`Pusher`] is one user's machine: a cache and options. Pauses take no time.

mod auth;
mod choices;
mod chunks;
mod connections;
mod hostile;
pub(crate) mod image;
mod limits;
mod locations;
mod machine;
mod manifests;
mod originals;
mod pipes;
mod promises;
mod random;
mod rate;
mod recall;
mod recipes;
mod resume;
mod reuse;
mod rules;
mod sessions;
#[cfg(feature = "buckets")]
mod shared_cache;
mod words;

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use longshore::{
    Error, Result,
    cache::Cache,
    error::chain,
    event::{Event, Reporter},
    oci::Digest,
    push::{Options, Press, Push, Pushed, Target},
    registry::{Client, ClientOptions, Proxies, retry::Pace},
    source::detect::{self, SourceOptions},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use self::image::{Layout, plain};
use crate::support::{
    registry::{Exchange, Fault, Registry, Route, Script},
    until::PATIENCE,
};

/// Chunks in these tests, unless a test says otherwise.
const CHUNK: u64 = 64 << 10;

/// Where everything is pushed to.
const REPOSITORY: &str = "team/demo";

/// Pushes, and hears what goes on.
struct Pusher {
    options: Options,
    client: ClientOptions,
    tags: Vec<String>,
    cache: Arc<Cache>,
    workers: usize,
    events: Arc<Events>,
    _home: TempDir,
}

/// Remembers every event, and lets a test act on one.
struct Events {
    heard: Mutex<Vec<Event>>,
    act: Box<dyn Fn(&Event) + Send + Sync>,
}

impl Reporter for Events {
    fn event(&self, event: Event) {
        (self.act)(&event);
        self.heard.lock().unwrap().push(event);
    }
}

impl Pusher {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let options = Options { chunk_size: Some(CHUNK), pace: Pace::INSTANT, ..Options::default() };
        let client = ClientOptions { pace: Pace::INSTANT, timeout: PATIENCE, ..ClientOptions::default() };
        let cache = Arc::new(Cache::open(&home.path().join("cache")).unwrap());
        Self {
            options,
            client,
            tags: Vec::new(),
            cache,
            workers: 2,
            events: Events::new(|_| {}),
            _home: home,
        }
    }

    /// Calls `act` with every event, where it happens.
    fn acting(self, act: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { events: Events::new(act), ..self }
    }

    /// Pushes what lies at `path`, tagged `1`.
    fn push(&self, path: &Path, registry: &Registry) -> Result<Pushed> {
        self.push_to(path, &registry.host(), &format!("{REPOSITORY}:1"))
    }

    /// Pushes what lies at `path` to a host.
    fn push_to(&self, path: &Path, host: &str, destination: &str) -> Result<Pushed> {
        let (push, runtime) = self.prepare(path, host, destination)?;
        let pushed = runtime.block_on(async { tokio::time::timeout(PATIENCE, push.run()).await });
        pushed.unwrap_or_else(|_| Err(Error::internal("the push hangs")))?.remove(0)
    }

    /// Returns a push, and what it can run on.
    fn prepare(&self, path: &Path, host: &str, destination: &str) -> Result<(Push, Runtime)> {
        let spec = path.to_str().unwrap().parse()?;
        let mut press = Press::new((*self.cache).clone(), Arc::clone(&self.events) as Arc<dyn Reporter>);
        press.workers = self.workers;
        let push = Push {
            input: detect::open(&spec, &SourceOptions::default())?,
            spec,
            targets: vec![Target {
                destination: format!("{host}/{destination}").parse()?,
                tags: self.tags.clone(),
                client: Client::new(host, self.client.clone())?,
            }],
            press,
            options: self.options.clone(),
        };
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Ok((push, runtime))
    }

    fn events(&self) -> Vec<Event> {
        self.events.heard.lock().unwrap().clone()
    }

    fn warnings(&self) -> Vec<String> {
        let warning = |event| if let Event::Warning { message } = event { Some(message) } else { None };
        self.events().into_iter().filter_map(warning).collect()
    }
}

impl Events {
    fn new(act: impl Fn(&Event) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { heard: Mutex::default(), act: Box::new(act) })
    }
}

/// Puts the registry behind a proxy, so that it is known by any name; its locations say none.
fn under_another_name(pusher: &mut Pusher, script: Script) -> Registry {
    let relative = || Fault::Location(Some("{path}".to_owned()));
    let registry = Registry::start(script.always(Route::Open, relative()).always(Route::Patch, relative()));
    let http = Some(format!("http://{}", registry.host()).parse().unwrap());
    pusher.client.plain_http = true;
    pusher.client.proxies = Proxies { http, ..Proxies::default() };
    registry
}

/// Pushes a layout by default means, which must succeed, and returns the registry for its log.
fn pushed(layout: &Layout, script: Script) -> Registry {
    pushed_by(&Pusher::new(), layout, script)
}

fn pushed_by(pusher: &Pusher, layout: &Layout, script: Script) -> Registry {
    let registry = Registry::start(script);
    if let Err(error) = pusher.push(layout.path(), &registry) {
        panic!("{}\n{}", chain(&error), story(&registry));
    }
    assert_arrived(layout, &registry);
    registry
}

/// Everything of a layout is there, byte for byte, and tagged.
fn assert_arrived(layout: &Layout, registry: &Registry) {
    for digest in &layout.blobs {
        assert!(registry.blob(REPOSITORY, digest).as_ref() == Some(&layout.read(digest)), "{digest}");
    }
    for document in &layout.children {
        let found = registry.manifest(REPOSITORY, &document.digest.to_string());
        assert_eq!(found, Some((document.media_type.to_owned(), document.bytes.clone())));
    }
    let root = registry.manifest(REPOSITORY, "1");
    assert_eq!(root, Some((layout.root.media_type.to_owned(), layout.root.bytes.clone())));
}

/// The image tagged `1` has these layers, encoded in whatever way.
fn assert_holds(registry: &Registry, layers: &[Vec<u8>]) {
    let (_, manifest) = registry.manifest(REPOSITORY, "1").expect("a tagged manifest");
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let descriptors = manifest["layers"].as_array().unwrap();
    assert_eq!(descriptors.len(), layers.len());
    for (descriptor, layer) in descriptors.iter().zip(layers) {
        let digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        let blob = registry.blob(REPOSITORY, &digest).expect("a layer");
        assert_eq!((Digest::of(&blob), descriptor["size"].as_u64()), (digest, Some(blob.len() as u64)));
        assert!(plain(&blob) == plain(layer));
    }
}

/// Tells what the registry saw, one request a line, for messages and for assertions on the whole of it.
fn story(registry: &Registry) -> String {
    registry.log().iter().map(|exchange| line(exchange) + "\n").collect()
}

fn line(exchange: &Exchange) -> String {
    let Exchange { route, content_range, content_length, answered, .. } = exchange;
    let detail = match (route, content_range) {
        (_, Some(range)) => format!(" {range}"),
        (Route::Commit, None) => format!(" {}", content_length.unwrap_or_default()),
        _ => String::new(),
    };
    let answered = answered.map_or("-".to_owned(), |status| status.to_string());
    format!("{route:?}{detail} {answered}")
}

/// Returns the lines of the story that are about an upload: open, patch, status, commit.
fn upload_story(registry: &Registry) -> Vec<String> {
    let about = |exchange: &&Exchange| {
        matches!(exchange.route, Route::Open | Route::Mount | Route::Patch | Route::Status | Route::Commit)
    };
    registry.log().iter().filter(about).map(line).collect()
}
