//! `longshore serve`: the embedded registry over a folder, until a signal ends it.

mod gateway;
mod images;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use longshore::{
    Error, Result,
    bucket::Bucket,
    server::{self, Access, Options, Place, Tls},
};

pub(super) use self::gateway::under_upstream;
use self::{
    gateway::{CLIENTS, GatewayArgs, place},
    images::ServedImages,
};
use super::{
    Context, ExitStatus,
    options::{
        cache::CacheArgs,
        source::SourceArgs,
        value::{more_than_nothing, size, size_of_something},
    },
    progress::ProgressArgs,
    random_login::RandomLogin,
};

/// Serve a folder or bucket as a registry
///
/// Each repository below the folder DIR is an OCI image layout that other tools can read. Several processes may serve one
/// folder, and any number, on any machines, one bucket (takes the feature `buckets`). Prints the registry's address on
/// standard output once it listens.
///
/// With `--upstream` it is a gateway: what any tool pushes into it goes on to another registry, in chunks that every proxy
/// lets through, and the answer to the push is that registry's.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  longshore serve ./registry
  longshore serve ./registry images.tar demo:2=other.tar
  longshore serve s3://bucket/registry
  longshore serve ./registry --tls-cert cert.pem --tls-key key.pem
  longshore serve ./registry --listen 0.0.0.0:5000 --htpasswd users
  longshore serve ./gateway --upstream registry.example.com/team")]
pub(super) struct Args {
    /// The folder, made if it is not there, or a bucket: s3://BUCKET/PREFIX, gs://… or az://…
    dir: PathBuf,
    /// Images to serve besides what is there: [NAME[:TAG]=]SOURCE. Without a name, all images of SOURCE under the
    /// names that they have in it, less their hosts
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// The largest body of an upload; clients that know OCI-Chunk-Max-Length keep to it
    #[arg(long, value_name = "SIZE", value_parser = size_of_something)]
    chunk_max: Option<ByteSize>,
    /// Announce that chunks should not be smaller
    #[arg(long, value_name = "SIZE", value_parser = size)]
    chunk_min: Option<ByteSize>,
    /// Uploads that may be open at once
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = more_than_nothing::<usize>)]
    most_uploads: usize,
    /// Give up uploads that nobody has touched for so long
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    #[arg(value_parser = more_than_nothing::<humantime::Duration>)]
    upload_lifetime: humantime::Duration,
    /// Cut clients that send next to nothing, or take nothing, for so long; a bucket is waited for no longer either
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    #[arg(value_parser = more_than_nothing::<humantime::Duration>)]
    patience: humantime::Duration,

    /// Who may log in: a file that `htpasswd -B` writes
    #[arg(long, value_name = "FILE", help_heading = CLIENTS)]
    htpasswd: Option<PathBuf>,
    /// Who does not log in may pull, and no more
    #[arg(long, help_heading = CLIENTS)]
    read_only: bool,
    /// One more name that clients may call this registry by, besides `localhost` and its address; may be repeated. A
    /// gateway, and what listens on loopback, refuses others: web pages of strangers could come by them
    #[arg(long = "name", value_name = "HOST", help_heading = CLIENTS)]
    names: Vec<String>,
    /// Speak TLS with this certificate and its chain, as PEM
    #[arg(long, value_name = "FILE", help_heading = CLIENTS)]
    tls_cert: Option<PathBuf>,
    /// The certificate's key
    #[arg(long, value_name = "FILE", help_heading = CLIENTS)]
    tls_key: Option<PathBuf>,

    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    pub(super) progress: ProgressArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    source: SourceArgs,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitStatus> {
    // What is wrong with the configuration is said before archives are read.
    let login = args.gateway.login(args.htpasswd.is_some(), args.read_only, context)?;
    let options = options(args, login.as_ref(), context)?;
    let images = ServedImages::open(&args.images, &args.source, context)?;
    if let ExitStatus::Interrupted(signal) =
        images.push_into(options.place.clone(), &args.cache, &args.progress, context)?
    {
        return Ok(ExitStatus::Interrupted(signal));
    }
    if !args.listen.ip().is_loopback() && args.htpasswd.is_none() && !args.read_only && login.is_none() {
        context.printer.warning(&format!(
            "whoever can reach {} may push: `--htpasswd FILE` asks for a login, `--read-only` refuses",
            args.listen
        ));
    }
    let has_tls = args.tls_cert.is_some();
    let scheme = if has_tls { "https" } else { "http" };
    server::run(options, |address| {
        if let Some(login) = &login {
            args.gateway.tell(login, &place(&args.names, address), has_tls, context)?;
        }
        context.printer.result(&format!("{scheme}://{address}"))
    })?;
    Ok(ExitStatus::Success)
}

fn options(args: &Args, login: Option<&RandomLogin>, context: &Context) -> Result<Options> {
    let access = match (&args.htpasswd, login) {
        (Some(file), _) => Access::htpasswd(file)?,
        (None, Some(login)) => login.access(),
        (None, None) => Access::default(),
    };
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::read(certificate, key)?),
        (None, None) => None,
        _ => return Err(Error::usage("`--tls-cert` and `--tls-key` belong together")),
    };
    if let Some(name) = args.names.iter().find(|name| name.contains([':', '/'])) {
        return Err(Error::usage(format!("`--name` takes a host without a port: `{}`", name.escape_debug())));
    }
    if args.chunk_min.zip(args.chunk_max).is_some_and(|(least, most)| least > most) {
        return Err(Error::usage(
            "`--chunk-min` is more than `--chunk-max`: nobody could push a large layer",
        ));
    }
    Ok(Options {
        listen: args.listen,
        access: if args.read_only { access.or_read_only() } else { access },
        names: args.names.clone(),
        chunk_min: args.chunk_min.map(|size| size.as_u64()),
        chunk_max: args.chunk_max.map(|size| size.as_u64()),
        most_uploads: args.most_uploads,
        patience: args.patience.into(),
        tls,
        upstream: args.gateway.upstream(args.listen, context)?,
        upload_lifetime: args.upload_lifetime.into(),
        ..Options::new(folder_or_bucket(&args.dir, args.patience.into(), context)?)
    })
}

/// Tells a bucket's address from the path of a folder.
fn folder_or_bucket(typed: &Path, patience: Duration, context: &Context) -> Result<Place> {
    let address = typed.to_str().filter(|text| {
        text.split_once("://")
            .is_some_and(|(scheme, _)| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    });
    Ok(match address {
        Some(address) => {
            Bucket::open(address, &context.environment.cloud_variables())?.with_patience(patience).into()
        }
        None => typed.into(),
    })
}
