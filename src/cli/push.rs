//! `longshore push`: what was typed becomes what the library needs.

use std::{io::Read as _, path::PathBuf, sync::Arc, time::Duration};

use bytesize::ByteSize;
use clap::builder::FalseyValueParser;
use longshore::{
    Error, Result,
    cache::Cache,
    codec::Encoding,
    oci::{Platform, Reference, reference::check_tag},
    push::{
        Options, Press, Push, Pushed,
        runtime::{Ending, block_on},
    },
    registry::{Client, ClientOptions, Credential, Credentials, Secret},
    server::{self, Access, Server},
    source::{
        Input, SourceSpec,
        detect::{self, SourceOptions},
    },
};
use rand::Rng as _;

use super::{Context, ExitStatus, progress::Lines, source::SourceArgs};

/// Push an image to a registry
///
/// Prints `registry/repository@sha256:…` on standard output and nothing else there. Nothing is tagged before
/// the registry has confirmed every blob.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches are what a command line has")]
#[command(after_help = "Examples:
  longshore push ./layout registry.example.com/demo:1
  longshore push image.tar registry.example.com/demo:1 --tag latest
  longshore push docker-archive:images.tar:@1 localhost:5000/demo:1
  longshore push containers-storage:localhost/demo:1 registry.example.com/demo:1
  longshore push image.tar demo:1 --into ./registry")]
pub(super) struct Args {
    /// A folder or archive that holds images, or podman's, Docker's or containerd's own storage:
    /// PATH[:REF|@DIGEST|:@N], or with a transport in front
    #[arg(value_name = "SOURCE")]
    source: String,
    /// registry/repository[:tag][@digest]; without a tag, `latest`
    #[arg(value_name = "DEST")]
    destination: String,
    /// One more tag for the image; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Push only this platform of a multi-platform image: OS/ARCH[/VARIANT]
    #[arg(long, env = "LONGSHORE_PLATFORM")]
    platform: Option<Platform>,
    /// Push through the embedded registry into this folder: no registry needed
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Write the manifest's digest to this file
    #[arg(long, value_name = "FILE", alias = "digestfile")]
    digest_file: Option<PathBuf>,

    /// Large blobs sent at once
    #[arg(long, value_name = "N", default_value_t = 6, env = "LONGSHORE_JOBS", help_heading = "Transfer")]
    jobs: usize,
    /// Send chunks of this size, like `8MiB`
    #[arg(long, value_name = "SIZE", env = "LONGSHORE_CHUNK_SIZE", help_heading = "Transfer")]
    chunk_size: Option<ByteSize>,
    /// Attempts without progress before giving up
    #[arg(long, value_name = "N", default_value_t = 5, env = "LONGSHORE_RETRIES", help_heading = "Transfer")]
    retries: u32,
    /// Give up on a connection that takes no byte for so long, like `60s`
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "60s",
        env = "LONGSHORE_TIMEOUT",
        help_heading = "Transfer"
    )]
    timeout: humantime::Duration,
    /// A repository of the same registry that may have the blobs already
    #[arg(long, value_name = "REPOSITORY", help_heading = "Transfer")]
    mount_from: Option<String>,
    /// Encode every layer that the cache does not hold, whatever the destination has
    #[arg(long, env = "LONGSHORE_NO_REUSE", value_parser = FalseyValueParser::new(), help_heading = "Transfer")]
    no_reuse: bool,

    /// Keep no encoded layers
    #[arg(long, env = "LONGSHORE_NO_CACHE", value_parser = FalseyValueParser::new(), help_heading = "Cache")]
    no_cache: bool,
    /// Keep encoded layers here
    #[arg(long, value_name = "DIR", env = "LONGSHORE_CACHE_DIR", help_heading = "Cache")]
    cache_dir: Option<PathBuf>,

    #[command(flatten)]
    source_options: SourceArgs,
    /// Upload foreign layers too, such as the bases of Windows images
    #[arg(long, help_heading = "Source")]
    allow_nondistributable: bool,

    /// The user to log in as; the password comes by `--password-stdin`
    #[arg(
        long,
        value_name = "USER",
        env = "LONGSHORE_CREDS",
        requires = "password_stdin",
        help_heading = "Access"
    )]
    creds: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "creds", help_heading = "Access")]
    password_stdin: bool,
    /// Look for credentials in this file only
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    authfile: Option<PathBuf>,
    /// Trust the certificate authorities in this file too
    #[arg(long, value_name = "FILE", env = "LONGSHORE_CA_FILE", help_heading = "Access")]
    ca_file: Option<PathBuf>,
    /// Do not check the registry's certificate
    #[arg(long, env = "LONGSHORE_INSECURE", value_parser = FalseyValueParser::new(), help_heading = "Access")]
    insecure: bool,
    /// Speak plain HTTP (the default on loopback)
    #[arg(long, env = "LONGSHORE_PLAIN_HTTP", value_parser = FalseyValueParser::new(), help_heading = "Access")]
    plain_http: bool,
}

/// A push as it will be done.
struct Prepared {
    input: Input,
    spec: SourceSpec,
    press: Press,
    options: Options,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    args.tags.iter().try_for_each(|tag| check_tag(tag))?;
    if args.password_stdin && args.source == "-" {
        return Err(Error::usage("standard input cannot be the archive and the password")
            .with_hint("log in by a file: `--authfile FILE`"));
    }
    // A destination that cannot be is said before an archive of 50 GB is indexed.
    let destination = match &args.into {
        Some(_) => Reference::at("127.0.0.1", &args.destination)?,
        None => args.destination.parse()?,
    };
    // Before the password is read: standard input can be read once.
    let (spec, source_options) = args.source_options.locate(&args.source, &context.environment)?;
    let credentials = credentials(args, context)?;
    let prepared = prepare(args, spec, &source_options, context)?;
    let ending = block_on(async {
        if let Some(dir) = &args.into {
            return push_into(args, dir, destination, prepared).await;
        }
        let options = client_options(args, context, credentials)?;
        let client = Client::new(&destination.repository.host, options)?;
        let name = destination.repository.to_string();
        prepared.to(args, client, destination).run().await.map(|pushed| (name, pushed))
    })?;
    let (name, pushed) = match ending {
        Ending::Finished(result) => result?,
        Ending::Interrupted(signal) => return Ok(ExitStatus::Interrupted(signal)),
    };
    if let Some(file) = &args.digest_file {
        fs_err::write(file, pushed.digest.to_string())
            .map_err(|error| Error::local("writing the digest file").because(error))?;
    }
    context.printer.result(&format!("{name}@{}", pushed.digest))?;
    Ok(ExitStatus::Success)
}

fn prepare(
    args: &Args,
    spec: SourceSpec,
    source_options: &SourceOptions,
    context: &Context,
) -> Result<Prepared> {
    let options = Options {
        allow_nondistributable: args.allow_nondistributable,
        chunk_size: args.chunk_size.map(|size| size.as_u64()),
        encoding: Encoding::default(),
        jobs: args.jobs,
        mount_from: args.mount_from.clone(),
        platform: args.platform.clone(),
        reuse: !args.no_reuse,
        retries: args.retries,
        ..Options::default()
    };
    let input = detect::open(&spec, source_options)?;
    let press = Press::new(cache(args, context)?, Arc::new(Lines::new(context.printer)));
    Ok(Prepared { input, spec, press, options })
}

impl Prepared {
    fn to(self, args: &Args, client: Client, destination: Reference) -> Push {
        let Self { input, spec, press, options } = self;
        Push { input, spec, destination, tags: args.tags.clone(), client, press, options }
    }
}

/// Starts the embedded registry for the time of one push. Nobody else on this machine can use it: it asks for
/// a password that only this process knows.
async fn push_into(
    args: &Args,
    dir: &std::path::Path,
    mut destination: Reference,
    prepared: Prepared,
) -> Result<(String, Pushed)> {
    let user = "longshore";
    let password = random_password();
    let server = Server::start(server::Options {
        access: Access::basic(user, &password),
        ..server::Options::new(dir)
    })
    .await?;
    destination.repository.host = server.address().to_string();
    let mut options = ClientOptions::default();
    let login = Credential::Login { user: user.to_owned(), password: Secret::new(password) };
    options.credentials.give("the embedded registry", login);
    let client = Client::new(&destination.repository.host, options)?;
    let name = dir.join(&destination.repository.path).display().to_string();
    let pushed = prepared.to(args, client, destination).run().await;
    server.stop().await;
    pushed.map(|pushed| (name, pushed))
}

fn random_password() -> String {
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(32).map(char::from).collect()
}

fn cache(args: &Args, context: &Context) -> Result<Cache> {
    let dir = args.cache_dir.clone().or_else(|| context.environment.cache_dir());
    let temp = || Cache::scratch(&std::env::temp_dir());
    let Some(dir) = dir else { return Ok(temp()) };
    if args.no_cache {
        fs_err::create_dir_all(&dir)
            .map_err(|error| Error::local("making the cache folder").because(error))?;
        return Ok(Cache::scratch(&dir));
    }
    match Cache::open(&dir) {
        // A folder somebody asked for must do; the one nobody asked for may be unusable.
        Err(error) if args.cache_dir.is_none() => {
            context.printer.warning(&format!("no cache: {}", longshore::error::chain(&error)));
            Ok(temp())
        }
        cache => cache,
    }
}

fn credentials(args: &Args, context: &Context) -> Result<Credentials> {
    let mut credentials = Credentials::default();
    if let Some(user) = &args.creds {
        if user.contains(':') {
            return Err(Error::usage(
                "a password on the command line can be read by every user of this machine",
            )
            .with_hint("give the user only: `--creds USER --password-stdin`"));
        }
        let mut password = String::new();
        std::io::stdin()
            .read_to_string(&mut password)
            .map_err(|error| Error::local("reading the password from standard input").because(error))?;
        let password = Secret::new(password.trim_end_matches(['\r', '\n']));
        credentials.give("--creds", Credential::Login { user: user.clone(), password });
    } else if let Some(token) = context.environment.var("LONGSHORE_TOKEN") {
        credentials.give("LONGSHORE_TOKEN", Credential::Token(Secret::new(token)));
    } else {
        for file in context.environment.auth_files(args.authfile.as_deref()) {
            credentials.give_file(&file)?;
        }
    }
    Ok(credentials)
}

fn client_options(args: &Args, context: &Context, credentials: Credentials) -> Result<ClientOptions> {
    Ok(ClientOptions {
        credentials,
        plain_http: args.plain_http,
        insecure: args.insecure,
        ca_file: args.ca_file.clone(),
        timeout: Duration::from(args.timeout),
        retries: args.retries,
        proxies: context.environment.proxies()?,
        ..ClientOptions::default()
    })
}
