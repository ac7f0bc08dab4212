//! `longshore serve`: the embedded registry over a folder, until a signal ends it.

use std::{net::SocketAddr, path::PathBuf};

use longshore::{
    Result,
    push::runtime::{Ending, block_on},
    server::{Options, Server},
};

use super::{Context, ExitStatus};

/// Serve a folder as a registry on loopback
///
/// Each repository below DIR is an OCI image layout that other tools can read. A first version: no TLS, no
/// users, no deletion of blobs; listen on loopback only.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder; made if it is not there
    dir: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    let printer = context.printer;
    let ending = block_on(async move {
        let options = Options { listen: args.listen, ..Options::new(args.dir) };
        let server = Server::start(options).await?;
        printer.result(&format!("http://{}", server.address()))?;
        std::future::pending::<()>().await;
        Result::Ok(())
    })?;
    match ending {
        Ending::Finished(result) => result.map(|()| ExitStatus::Success),
        Ending::Interrupted(signal) => Ok(ExitStatus::Interrupted(signal)),
    }
}
