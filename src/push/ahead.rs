//! A blob by itself, before the image that it belongs to is known: what comes in piece by piece can leave so too.

use std::sync::Arc;

use super::{
    Options,
    feed::Feed,
    upload::{Uploader, traffic::Traffic},
};
use crate::{
    blob::Blob,
    error::Result,
    event::Reporter,
    oci::{Descriptor, Digest},
    registry::Client,
};

/// Sends a stored blob to a repository, unless that has it. The push of the image finds it there; where this fails, the
/// push tries again, and says why.
pub async fn send_ahead(
    client: &Client,
    repository: &str,
    blob: Blob,
    digest: &Digest,
    options: &Options,
    reporter: Arc<dyn Reporter>,
) -> Result<()> {
    let name = digest.to_string();
    let expected = Descriptor::new("", digest.clone(), blob.size());
    let feed = Feed::stored(blob, expected, name.clone());
    let traffic = Traffic::new(options.jobs);
    let uploader = Uploader::new(client.clone(), repository.to_owned(), options, traffic, reporter);
    let sent = uploader.upload(feed, options.settings(client, true), &name, Some(name.clone())).await;
    options.learn(client, uploader.lesson());
    sent.map(drop)
}

/// Asks a registry to let a repository have a blob of another one there; returns whether it does.
pub async fn mount_ahead(
    client: &Client,
    repository: &str,
    digest: &Digest,
    from: &str,
    options: &Options,
    reporter: Arc<dyn Reporter>,
) -> Result<bool> {
    let traffic = Traffic::new(options.jobs);
    Uploader::new(client.clone(), repository.to_owned(), options, traffic, reporter).mount(digest, from).await
}
