//! The embedded registry for the time of one command, over a folder or a bucket. Nobody else on this machine can use it:
//! it asks for a password that only this process knows.

use longshore::{
    ErrorKind, Result,
    error::Context as _,
    registry::{Client, ClientOptions, RateLimit},
    server::{Options, Place, Server},
};
use tempfile::TempDir;

use super::random_login::RandomLogin;

/// Lets `work` use a registry over `place`, no faster than it may.
pub(super) async fn with_registry<T>(
    place: impl Into<Place>,
    rate_limit: Option<RateLimit>,
    work: impl AsyncFnOnce(Client) -> Result<T>,
) -> Result<T> {
    let login = RandomLogin::new();
    let server = Server::start(Options { access: login.access(), ..Options::new(place) }).await?;
    let mut options = ClientOptions { rate_limit, ..ClientOptions::default() };
    options.credentials.give("the embedded registry", login.credential());
    let done = work(Client::new(&server.address().to_string(), options)?).await;
    server.stop().await;
    done
}

/// Returns a place that holds nothing, for what is only foreseen.
pub(super) fn empty() -> Result<TempDir> {
    tempfile::tempdir().context(ErrorKind::Local, || "making an empty folder".to_owned())
}

#[cfg(test)]
mod tests {
    use longshore::{
        ErrorKind,
        oci::Digest,
        push::runtime::{Ending, block_on},
    };

    use super::*;

    #[test]
    fn nobody_else_can_use_it() {
        let dir = tempfile::tempdir().unwrap();
        let ending = block_on(with_registry(dir.path(), None, async |client| {
            let stranger = Client::new(client.host(), ClientOptions::default())?;
            let blob = Digest::of(b"none");
            assert_eq!(stranger.head_blob("a", &blob).await.unwrap_err().kind(), ErrorKind::Denied);
            assert_eq!(client.head_blob("a", &blob).await?, None);
            Ok(())
        }));
        let Ending::Finished(result) = ending.unwrap() else { panic!("nobody has interrupted it") };
        result.unwrap();
    }
}
