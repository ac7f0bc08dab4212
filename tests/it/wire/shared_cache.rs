//! The shared cache: machines that come and go, a bucket on a real S3 server, and what may be wrong with it.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use longshore::{
    ErrorKind,
    bucket::Bucket,
    codec::{ENCODER_VERSION, Encoding, Recipe},
    error::chain,
    oci::{DiffId, Digest},
    push::Pushed,
    registry::Secret,
};
use serde_json::{Value, json};

use super::{
    Pusher, REPOSITORY, assert_holds,
    image::{Archive, gzip, layer, noise},
    machine::large_archive,
    reuse::encoded,
    story,
};
use crate::support::{
    capability,
    docker_registry::DockerRegistry,
    longshore::Longshore,
    read_back::ReadBack,
    registry::{Registry, Route},
    s3::{Relay, S3, SECRET_KEY},
    samples::Sample,
    until::PATIENCE,
};

/// Two layers that are small, and one that goes to the bucket in parts.
const SIZES: [usize; 3] = [9 << 20, 200_000, 1000];

/// A machine with an empty cache of its own and this bucket.
fn machine(bucket: Bucket) -> Pusher {
    let mut pusher = Pusher::new();
    pusher.options.shared_cache = Some(bucket);
    pusher
}

/// Pushes to a registry of its own what must arrive.
fn push(machine: &Pusher, archive: &Archive) -> (Pushed, Registry) {
    let registry = Registry::honest();
    let pushed = machine.push(&archive.path(), &registry);
    let pushed = pushed.unwrap_or_else(|error| panic!("{}\n{}", chain(&error), story(&registry)));
    assert_holds(&registry, &archive.layers);
    (pushed, registry)
}

/// The files of a cache that hold layers, by their names from its root.
fn kept(root: &Path) -> BTreeSet<PathBuf> {
    let parts = ["blobs", "longshore/encoded"].map(|part| root.join(part));
    parts
        .iter()
        .flat_map(|part| walkdir::WalkDir::new(part).into_iter().map(Result::unwrap))
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().strip_prefix(root).unwrap().to_owned())
        .collect()
}

/// Every entry of the machine's own cache is what it says.
fn assert_sound(machine: &Pusher) {
    for kept in machine.cache.list().unwrap() {
        assert_eq!(machine.cache.verify(&kept).unwrap(), None);
    }
}

/// Where the bucket has a layer's entry.
fn entry_of(folder: &Path, layer: &[u8]) -> PathBuf {
    folder
        .join("longshore/encoded/sha256")
        .join(Digest::of(layer).hex())
        .join(format!("gzip:1-v{ENCODER_VERSION}.json"))
}

fn read_entry(folder: &Path, layer: &[u8]) -> Value {
    serde_json::from_slice(&fs_err::read(entry_of(folder, layer)).unwrap()).unwrap()
}

fn blob_of(folder: &Path, entry: &Value) -> PathBuf {
    let digest: Digest = entry["digest"].as_str().unwrap().parse().unwrap();
    folder.join("blobs/sha256").join(digest.hex())
}

/// Says of a layer that it is another blob, and puts that there.
fn mislead(folder: &Path, layer: &[u8], blob: &[u8], plain_size: usize) -> Digest {
    let digest = Digest::of(blob);
    let entry = json!({ "digest": digest, "size": blob.len(), "plainSize": plain_size });
    fs_err::write(blob_of(folder, &entry), blob).unwrap();
    fs_err::write(entry_of(folder, layer), entry.to_string()).unwrap();
    digest
}

#[test]
fn a_fresh_machine_encodes_nothing_that_another_has_encoded() {
    let (s3, archive) = (S3::start(), Archive::of(&SIZES));
    let first = machine(s3.bucket());
    let (pushed, _registry) = push(&first, &archive);
    assert_eq!(encoded(&first), SIZES.len());
    assert_eq!(kept(&s3.folder()), kept(first.cache.dir()), "the bucket has the cache's shape");

    let second = machine(s3.bucket());
    let (again, _registry) = push(&second, &archive);
    assert_eq!((encoded(&second), second.warnings()), (0, Vec::new()));
    assert_eq!(again, pushed);
    assert_eq!(kept(second.cache.dir()), kept(first.cache.dir()));
    assert_sound(&second);
}

#[test]
fn what_a_machine_without_a_cache_of_its_own_encodes_is_shared_too() {
    let (s3, archive) = (S3::start(), Archive::of(&[200_000, 1000]));
    let mut first = machine(s3.bucket());
    first.cache = longshore::cache::Cache::scratch(first.cache.dir()).into();
    push(&first, &archive);
    let second = machine(s3.bucket());
    push(&second, &archive);
    assert_eq!((encoded(&first), encoded(&second)), (2, 0));
}

#[test]
fn what_was_encoded_while_an_archive_passed_is_shared_too() {
    let (s3, archive) = (S3::start(), Archive::of(&[200_000, 1000]));
    let first = machine(s3.bucket());
    first.push(&archive.compressed(), &Registry::honest()).unwrap();
    let second = machine(s3.bucket());
    push(&second, &archive);
    assert_eq!((encoded(&first), encoded(&second)), (2, 0));
}

#[test]
fn what_was_not_encoded_here_is_not_shared() {
    let s3 = S3::start();
    let packed = gzip(&layer(&noise(1, 5000)));
    push(&machine(s3.bucket()), &Archive::of_layers(vec![packed], |_| {}));
    assert!(!s3.folder().exists());
}

#[test]
fn each_encoding_is_shared_by_itself() {
    let (s3, archive) = (S3::start(), Archive::of(&[200_000, 1000]));
    push(&machine(s3.bucket()), &archive);
    for fresh in [2, 0] {
        let mut zstd = machine(s3.bucket());
        zstd.options.recipe = Recipe::Encode { encoding: Encoding::Zstd { level: 3 }, force: false };
        push(&zstd, &archive);
        assert_eq!(encoded(&zstd), fresh);
    }
}

#[test]
fn a_layer_that_the_registry_has_is_checked_and_not_sent() {
    let (s3, archive) = (S3::start(), Archive::of(&[200_000, 1000]));
    let (_, registry) = push(&machine(s3.bucket()), &archive);
    let sent = |registry: &Registry| registry.bytes(Route::Patch) + registry.bytes(Route::Commit);
    let before = sent(&registry);
    let mut second = machine(s3.bucket());
    second.options.reuse = false;
    second.push_to(&archive.path(), &registry.host(), &format!("{REPOSITORY}:2")).unwrap();
    assert_eq!((encoded(&second), sent(&registry)), (0, before), "{}", story(&registry));
    assert_eq!(second.cache.list().unwrap().len(), 2);
    assert_sound(&second);
}

#[test]
fn an_entry_that_the_registry_contradicts_costs_a_warning() {
    let (s3, archive) = (S3::start(), Archive::of(&[200_000, 1000]));
    let (pushed, registry) = push(&machine(s3.bucket()), &archive);
    let mut entry = read_entry(&s3.folder(), &archive.layers[0]);
    entry["size"] = json!(1000);
    fs_err::write(entry_of(&s3.folder(), &archive.layers[0]), entry.to_string()).unwrap();
    let mut second = machine(s3.bucket());
    second.options.reuse = false;
    let destination = format!("{REPOSITORY}:2");
    let again = second.push_to(&archive.path(), &registry.host(), &destination).unwrap();
    assert_eq!((again.digest, encoded(&second), second.warnings().len()), (pushed.digest, 1, 1));
}

#[test]
fn a_hostile_blob_behind_an_honest_diff_id_is_named_by_nothing() {
    let (s3, archive) = (S3::start(), Archive::of(&[300_000, 1000]));
    push(&machine(s3.bucket()), &archive);
    let evil = layer(&noise(666, 300_000));
    let hostile = mislead(&s3.folder(), &archive.layers[0], &gzip(&evil), evil.len());
    for there_already in [true, false] {
        let registry = Registry::honest();
        if there_already {
            registry.seed(REPOSITORY, &gzip(&evil));
        }
        let victim = machine(s3.bucket());
        victim.push(&archive.path(), &registry).unwrap();
        assert_holds(&registry, &archive.layers);
        assert_eq!(registry.blob(REPOSITORY, &hostile).is_some(), there_already);
        assert!(victim.cache.list().unwrap().iter().all(|kept| kept.entry.digest != hostile));
        assert!(!victim.cache.dir().join("blobs/sha256").join(hostile.hex()).exists());
        assert_sound(&victim);
        let [warning] = &victim.warnings()[..] else { panic!("{:?}", victim.warnings()) };
        let expected = "layer `0/layer.tar` in the shared cache `s3://fleet/cache/v1` is not used: \
                        its blob is another layer";
        assert!(warning.starts_with(expected), "{warning}");
        assert_eq!(encoded(&victim), 1);

        // The truth has taken its place.
        let next = machine(s3.bucket());
        push(&next, &archive);
        assert_eq!((encoded(&next), next.warnings()), (0, Vec::new()));
        mislead(&s3.folder(), &archive.layers[0], &gzip(&evil), evil.len());
    }
}

/// What the warning says, and what was done to the bucket.
type Damage<'a> = (&'a str, &'a dyn Fn());

#[test]
fn what_is_damaged_is_encoded_and_replaced() {
    let (s3, archive) = (S3::start(), Archive::of(&[300_000, 1000]));
    let (pushed, _registry) = push(&machine(s3.bucket()), &archive);
    let folder = s3.folder();
    let plain = &archive.layers[0];
    let entry = read_entry(&folder, plain);
    let honest = fs_err::read(blob_of(&folder, &entry)).unwrap();
    let put = |entry: &Value| fs_err::write(entry_of(&folder, plain), entry.to_string()).unwrap();
    let with = |field: &str, value: Value| {
        let mut changed = entry.clone();
        changed[field] = value;
        put(&changed);
    };
    let damages: [Damage<'_>; 10] = [
        ("its entry makes no sense", &|| fs_err::write(entry_of(&folder, plain), "{").unwrap()),
        ("its entry makes no sense", &|| {
            fs_err::write(entry_of(&folder, plain), format!("{entry}{}", " ".repeat(5000))).unwrap();
        }),
        ("its blob is missing", &|| fs_err::remove_file(blob_of(&folder, &entry)).unwrap()),
        ("its blob has 100000 bytes, not", &|| {
            fs_err::write(blob_of(&folder, &entry), &honest[..100_000]).unwrap();
        }),
        ("its blob has", &|| with("size", json!(u64::MAX))),
        ("its blob decodes to more than its entry says", &|| with("plainSize", json!(plain.len() - 1))),
        ("its blob is not sha256:", &|| with("plainSize", json!(plain.len() + 1))),
        ("decoding the layer as gzip", &|| {
            mislead(&folder, plain, &honest[..100_000], plain.len());
        }),
        ("its blob is zstd, not gzip:1", &|| {
            mislead(&folder, plain, &zstd::encode_all(&plain[..], 3).unwrap(), plain.len());
        }),
        ("its blob is not sha256:", &|| {
            let mut other = honest.clone();
            // The operating system that a gzip header names: it changes the digest alone.
            other[9] ^= 1;
            fs_err::write(blob_of(&folder, &entry), other).unwrap();
        }),
    ];
    for (why, damage) in damages {
        damage();
        let victim = machine(s3.bucket());
        let (again, _registry) = push(&victim, &archive);
        assert_eq!((again, encoded(&victim)), (pushed.clone(), 1), "{why}");
        let [warning] = &victim.warnings()[..] else { panic!("{why}: {:?}", victim.warnings()) };
        assert!(warning.contains(why) && warning.contains(&S3::url()), "{why}: {warning}");
        assert_sound(&victim);
        assert_eq!(read_entry(&folder, plain), entry, "{why}");
        assert!(fs_err::read(blob_of(&folder, &entry)).unwrap() == honest, "{why}");
    }
}

#[test]
fn a_bucket_that_does_not_answer_costs_one_warning() {
    let archive = Archive::of(&[200_000, 1000]);
    let refusing = SocketAddr::from(([127, 0, 0, 1], 1));
    // The system takes the connections, and nobody reads from them.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent = listener.local_addr().unwrap();
    let s3 = S3::start();
    let (patient, impatient) = (PATIENCE, Duration::from_millis(100));
    let cases: [(SocketAddr, &str, Duration, &str); 3] = [
        (refusing, SECRET_KEY, patient, "onnection refused"),
        (silent, SECRET_KEY, impatient, "no answer within"),
        (s3.address(), "a+wrong/secret", patient, "access denied"),
    ];
    for (address, secret, patience, why) in cases {
        let machine = machine(S3::bucket_at(address, secret).with_patience(patience));
        push(&machine, &archive);
        assert_eq!(encoded(&machine), 2);
        let [warning] = &machine.warnings()[..] else { panic!("{why}: {:?}", machine.warnings()) };
        assert!(warning.starts_with(&format!("the shared cache `{}` is left alone", S3::url())), "{warning}");
        assert!(warning.contains(why) && !warning.contains(secret), "{warning}");
    }
}

#[test]
fn a_bucket_that_falls_silent_in_the_middle_of_a_layer_costs_one_warning() {
    let (s3, archive) = (S3::start(), Archive::of(&[2 << 20, 1 << 20]));
    push(&machine(s3.bucket()), &archive);
    let relay = Relay::before(s3.address(), 300_000);
    // Entries have to be answered, by however busy a machine.
    let bucket = S3::bucket_at(relay.address(), SECRET_KEY).with_patience(Duration::from_secs(10));
    let victim = machine(bucket);
    push(&victim, &archive);
    assert_eq!(encoded(&victim), 2);
    let [warning] = &victim.warnings()[..] else { panic!("{:?}", victim.warnings()) };
    assert!(
        warning.contains("is left alone: fetching layer `") && warning.contains("no answer"),
        "{warning}"
    );
    assert_sound(&victim);
}

#[test]
fn a_bucket_that_takes_nothing_costs_one_warning() {
    let archive = Archive::of(&[200_000, 1000]);
    // Nobody makes a folder there.
    let machine = machine(Bucket::open("file:///proc/longshore", &[]).unwrap());
    push(&machine, &archive);
    assert_eq!(encoded(&machine), 2);
    let [warning] = &machine.warnings()[..] else { panic!("{:?}", machine.warnings()) };
    assert!(
        warning.starts_with("nothing more is put into the shared cache `file:///proc/longshore`: "),
        "{warning}"
    );
}

#[test]
fn a_folder_is_a_bucket_and_a_cache() {
    let archive = Archive::of(&[200_000, 1000]);
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("shared folder");
    let url = format!("file://{}", shared.display());
    let bucket = || Bucket::open(&url, &[]).unwrap();
    let first = machine(bucket());
    push(&first, &archive);
    let second = machine(bucket());
    push(&second, &archive);
    assert_eq!((encoded(&first), encoded(&second)), (2, 0));
    let cache = longshore::cache::Cache::open(&shared).unwrap();
    let diff_id = DiffId(Digest::of(&archive.layers[0]));
    assert!(cache.lookup(&diff_id, Encoding::default()).unwrap().is_some());
}

#[test]
fn a_folder_that_never_answers_does_not_keep_the_process() {
    let (archive, dir) = (Archive::of(&[1000]), tempfile::tempdir().unwrap());
    let entry = entry_of(dir.path(), &archive.layers[0]);
    fs_err::create_dir_all(entry.parent().unwrap()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &entry, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let (url, into) = (format!("file://{}", dir.path().display()), dir.path().join("registry"));
    let (source, into) = (archive.path(), into.to_str().unwrap());
    let arguments = ["push", source.to_str().unwrap(), "demo:1", "--into", into, "--cache", &url];
    let run = Longshore::new().run(arguments);
    run.pushed().unwrap();
    assert!(run.stderr.contains("is left alone: no answer within 5s"), "{}", run.stderr);
}

#[test]
fn what_is_no_bucket_is_refused_without_a_word_about_secrets() {
    for url in [
        "fleet",
        "https://fleet.s3.amazonaws.com/x",
        "memory:///x",
        "s3://",
        "file://relative",
        "s3://id:s3cret@fleet",
        "s3://fleet/x?token=s3cret",
        "s3://fleet/x#s3cret",
        "s3cret://x",
    ] {
        let error = Bucket::open(url, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{url}");
        let allowed = url.starts_with("s3cret");
        assert!(allowed || !format!("{error:?} {:?}", error.hints()).contains("s3cret"), "{url}: {error:?}");
        assert!(!error.hints().is_empty(), "{url}");
    }
    let words = |url| Bucket::open(url, &[]).unwrap_err().message().to_owned();
    for nowhere in ["s3://", "s3:///x", "file://relative"] {
        assert!(words(nowhere).ends_with("names no bucket"), "{nowhere}: {}", words(nowhere));
    }
    for odd in ["s3://fleet/a//b", "s3://fleet/a%00b", "file:///a//b"] {
        assert!(words(odd).contains("has a prefix of which a part is empty"), "{odd}: {}", words(odd));
    }
    let account = ("AZURE_STORAGE_ACCOUNT_NAME", "account");
    for (url, variables) in [
        ("az://fleet/x", [account, ("AZURE_STORAGE_ACCOUNT_KEY", "s3cret, and no base64")]),
        ("gs://fleet/x", [account, ("GOOGLE_SERVICE_ACCOUNT_KEY", "\"s3cret\"")]),
    ] {
        let variables = variables.map(|(name, value)| (name.to_owned(), Secret::new(value)));
        let error = Bucket::open(url, &variables).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Local);
        assert!(error.message().contains(url) && !format!("{error:?}").contains("s3cret"), "{error:?}");
    }
    let bucket = S3::bucket_at(([127, 0, 0, 1], 1).into(), "s3cret");
    assert_eq!(format!("{bucket:?}"), "Bucket(s3://fleet/cache/v1)");
}

#[test]
fn a_real_registry_gets_what_a_real_bucket_has() {
    let (s3, archive) = (S3::start(), Sample::open("docker-archive/podman-save.tar"));
    let mut digests = Vec::new();
    for encodes in [true, false] {
        let (registry, machine) = (DockerRegistry::start(), machine(s3.bucket()));
        let pushed = machine.push_to(&archive.path, registry.host(), "demo:1");
        digests.push(pushed.unwrap_or_else(|error| panic!("{}", chain(&error))).digest);
        assert_eq!((encoded(&machine) > 0, machine.warnings()), (encodes, Vec::new()));
        let there = ReadBack::of(&format!("{}/demo:1", registry.host())).unwrap();
        assert_eq!(there.digest(), digests[0].to_string());
    }
    assert_eq!(digests[0], digests[1]);
}

/// A user's machine that knows where the bucket is.
fn on_a_fresh_machine(s3: &S3) -> Longshore {
    let variables = S3::variables(s3.address(), SECRET_KEY).into_iter();
    variables.fold(Longshore::new(), |longshore, (name, value)| longshore.with_env(&name, &value))
}

#[test]
fn promise_6_memory_is_no_function_of_a_layer_that_is_shared() {
    if capability::is_unavailable("time") {
        return;
    }
    let s3 = S3::start();
    let dir = tempfile::tempdir().unwrap();
    let archive = large_archive(dir.path(), 128 << 20, 64 << 20);
    let url = S3::url();
    for verb in ["encode", "fetch"] {
        let registry = Registry::honest();
        let destination = format!("{}/large:1", registry.host());
        let run =
            on_a_fresh_machine(&s3).run(["push", archive.to_str().unwrap(), &destination, "--cache", &url]);
        run.pushed().unwrap();
        assert!(run.stderr.contains(&format!("1 to {verb} and send")), "{}", run.stderr);
        assert!(run.peak < 48 << 10, "{verb}: {} KiB", run.peak);
    }
}
