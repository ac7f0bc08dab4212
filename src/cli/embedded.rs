//! The embedded registry for the time of one command, over a folder. Nobody else on this machine can use it: it asks for
//! a password that only this process knows.

use std::path::Path;

use longshore::{
    Result,
    registry::{Client, ClientOptions, Credential, RateLimit, Secret},
    server::{Access, Options, Server},
};
use rand::RngExt as _;

/// Lets `work` use a registry over `dir`, no faster than it may.
pub(super) async fn with_registry<T>(
    dir: &Path,
    rate_limit: Option<RateLimit>,
    work: impl AsyncFnOnce(Client) -> Result<T>,
) -> Result<T> {
    let user = "longshore";
    let password: String =
        rand::rng().sample_iter(rand::distr::Alphanumeric).take(32).map(char::from).collect();
    let access = Access::basic(user, &password);
    let server = Server::start(Options { access, ..Options::new(dir) }).await?;
    let mut options = ClientOptions { rate_limit, ..ClientOptions::default() };
    let login = Credential::Login { user: user.to_owned(), password: Secret::new(password) };
    options.credentials.give("the embedded registry", login);
    let done = work(Client::new(&server.address().to_string(), options)?).await;
    server.stop().await;
    done
}
