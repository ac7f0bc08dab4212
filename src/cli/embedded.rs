//! The embedded registry for the time of one command, over a folder. Nobody else on this machine can use it: it asks for
//! a password that only this process knows.

use std::path::Path;

use longshore::{
    Result,
    registry::{Client, ClientOptions, RateLimit},
    server::{Options, Server},
};

use super::random_login::RandomLogin;

/// Lets `work` use a registry over `dir`, no faster than it may.
pub(super) async fn with_registry<T>(
    dir: &Path,
    rate_limit: Option<RateLimit>,
    work: impl AsyncFnOnce(Client) -> Result<T>,
) -> Result<T> {
    let login = RandomLogin::new();
    let server = Server::start(Options { access: login.access(), ..Options::new(dir) }).await?;
    let mut options = ClientOptions { rate_limit, ..ClientOptions::default() };
    options.credentials.give("the embedded registry", login.credential());
    let done = work(Client::new(&server.address().to_string(), options)?).await;
    server.stop().await;
    done
}
