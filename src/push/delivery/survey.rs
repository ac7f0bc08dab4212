//! Collects what a plan is made of: what of an image the registry has, and whether the rest can be read.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    future,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;

use crate::{
    error::{Error, ErrorKind, Result},
    oci::{Descriptor, Digest},
    plan::{AtHand, Need},
    registry::{Client, NO_REGISTRY, Request, is_something_else},
    source::{Data, Missing, Source},
};

/// So many blobs are asked for at once.
pub(crate) const HEADS: usize = 24;

/// The size of each blob that was asked about; nothing of those that the repository does not have.
pub(crate) type Answers = HashMap<Digest, Option<u64>>;

/// Asks about the needed blobs while it is not known yet whether all of this is in vain: once, and in silence. What is
/// not answered clearly can still be asked.
pub(crate) async fn glance(client: &Client, repository: &str, needs: &[Need]) -> Answers {
    let asked: Vec<_> = needs.iter().filter_map(|need| Some(need.question()?.0.clone())).collect();
    stream::iter(asked)
        .map(|digest| async move {
            let request = Request::Exists { digest: digest.clone() };
            let reply = client.ask_ahead(repository, &request).await?;
            let found = match reply.status {
                404 => None,
                _ if is_something_else(&reply.headers, &digest) => return None,
                _ => {
                    let size = reply.headers.get("content-length")?.to_str().ok()?.parse().ok()?;
                    // That of an answer without a body, perhaps.
                    Some(size).filter(|size| *size > 0).map(Some)?
                }
            };
            Some((digest, found))
        })
        .buffer_unordered(HEADS)
        .filter_map(future::ready)
        .collect()
        .await
}

/// Asks the repository which of the needed blobs it has, unless that is among the `answers` already, the largest first.
/// The first that is missing is told of at once, while the others are still asked about.
pub(crate) async fn present(
    client: &Client,
    repository: &str,
    needs: &[Need],
    answers: &Answers,
    first_missing: impl FnOnce(&Need, &Digest) + Send,
) -> Result<HashSet<Digest>> {
    let question =
        |(at, need): (usize, &Need)| need.question().map(|(digest, size)| (at, digest.clone(), size));
    let mut asked: Vec<_> = needs.iter().enumerate().filter_map(question).collect();
    asked.sort_by_key(|(.., size)| Reverse(*size));
    let first_missing = &Mutex::new(Some(first_missing));
    stream::iter(asked)
        .map(|(at, digest, size)| async move {
            let found = match answers.get(&digest) {
                Some(found) => *found,
                None => client.head_blob(repository, &digest).await?,
            };
            match found {
                Some(found) if found == size => Ok(Some(digest)),
                Some(_) if matches!(needs[at].at_hand, AtHand::Shared(_)) => Ok(None),
                Some(found) => {
                    let host = client.host();
                    let words = format!("`{host}` has {digest} with {found} bytes, the image says {size}");
                    Err(Error::new(ErrorKind::Refused, words).with_hint(NO_REGISTRY))
                }
                None => {
                    let tell = first_missing.lock().take();
                    if let Some(tell) = tell {
                        tell(&needs[at], &digest);
                    }
                    Ok(None)
                }
            }
        })
        .buffer_unordered(HEADS)
        .try_filter_map(|digest| async move { Ok(digest) })
        .try_collect()
        .await
}

/// Makes sure that the registry has the children of an index that the source names and does not hold.
pub(crate) async fn require_manifests(
    client: &Client,
    repository: &str,
    absent: &[Descriptor],
) -> Result<()> {
    for child in absent {
        if client.head_manifest(repository, &child.digest.to_string()).await?.is_none() {
            return Err(Error::source(format!(
                "manifest {} is missing in the source, and the registry does not have it",
                child.digest
            ))
            .because(Missing)
            .with_hint("push one platform by `--platform`, or push that image first"));
        }
    }
    Ok(())
}

/// Looks where else at the registry the blobs are that nobody has here: a mount brings them from there, and from nowhere
/// else.
pub(crate) async fn seek(client: &Client, needs: &mut [Need], present: &HashSet<Digest>) {
    let mut sought = Vec::new();
    for (at, need) in needs.iter_mut().enumerate() {
        let Some((digest, size)) = need.identity.clone() else { continue };
        if matches!(need.at_hand, AtHand::Missing(_)) && !present.contains(&digest) {
            sought.push((at, digest, size, std::mem::take(&mut need.origins)));
        }
    }
    let found: Vec<_> = stream::iter(sought)
        .map(|(at, digest, size, origins)| async move {
            for from in origins {
                // A repository that we may not look into cannot be mounted from.
                if client.head_blob(&from, &digest).await.is_ok_and(|found| found == Some(size)) {
                    return Some((at, from));
                }
            }
            None
        })
        .buffer_unordered(HEADS)
        .collect()
        .await;
    for (at, from) in found.into_iter().flatten() {
        needs[at].origins.push(from);
    }
}

/// Returns whether every blob that may have to be sent is there and the source's own, as far as can be told without
/// reading it.
pub(crate) fn is_at_hand(source: &dyn Source, needs: &[Need]) -> bool {
    needs.iter().all(|need| match need.at_hand {
        AtHand::Encoded => match source.open(&need.layer) {
            Ok(Data::Stored(blob)) => !blob.through_link(),
            opened => opened.is_ok(),
        },
        AtHand::Missing(_) => false,
        _ => true,
    })
}

/// Looks at each blob that will have to be sent: a damaged source is found before the first byte leaves. A
/// blob that was reached through a symlink is hashed as a whole.
pub(crate) fn check_at_hand(
    source: &dyn Source,
    needs: &mut [Need],
    present: &HashSet<Digest>,
) -> Result<()> {
    for need in needs {
        let Some((digest, size)) = &need.identity else { continue };
        if need.at_hand != AtHand::Encoded || present.contains(digest) {
            continue;
        }
        match source.open(&need.layer) {
            Ok(Data::Stored(blob)) if blob.through_link() => {
                blob.verify(&Descriptor::new("", digest.clone(), *size))?;
            }
            Ok(_) => {}
            Err(error) if Missing::is_cause_of(&error) => {
                need.at_hand = AtHand::Missing(error.hints().into_iter().map(str::to_owned).collect());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
