//! What a source remembers of registries: a layer that lies unpacked in a store, and that a registry has encoded,
//! is not encoded again.
//!
//! Docker notes under which digest it pulled or pushed a layer, podman what it unpacked one from. Where the
//! destination has that blob, or another of its repositories from which it can be mounted, it is used, in whatever
//! way its maker encoded it: config and diff IDs stay what they are, the manifest's digest is another than
//! without. Nobody here decodes the blob; whoever noted its digest has (see [`Origin`]), as with a manifest that
//! the source vouches for.

use std::{slice, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Delivery, survey::HEADS};
use crate::{
    codec::Compression,
    error::{ErrorKind, Result, chain},
    oci::Digest,
    push::{Intent, runtime::blocking, wanted::Wanted},
    source::{Layer, Origin},
};

/// So many forms of one layer are asked for. Who pushes to many registries has one for each.
const FORMS: usize = 4;

impl Delivery {
    /// Finds layers at the registry that would have to be encoded otherwise, and notes where they are; returns how
    /// many.
    pub(super) async fn recall(&self, wanted: &mut Wanted) -> Result<usize> {
        let layers: Vec<Layer> = wanted.plain_layers().cloned().collect();
        let source = Arc::clone(&self.cargo.source);
        let remembered = blocking(move || {
            let remembered = layers.into_iter().map(|layer| (source.origins(&layer), layer));
            Ok(remembered.filter(|(origins, _)| !origins.is_empty()).collect::<Vec<_>>())
        });
        let found: Result<Vec<_>> = stream::iter(remembered.await?)
            .map(|(origins, layer)| async move { Ok((layer, self.find(&origins).await?)) })
            .buffer_unordered(HEADS)
            .try_collect()
            .await;
        let mut recalled = 0;
        for (layer, found) in found? {
            let Some(diff_id) = &layer.diff_id else { continue };
            if let Some(identity) = found {
                wanted.reuse(diff_id, &identity);
                recalled += 1;
            } else if self.cargo.intent == Intent::Ask {
                for from in self.origins(&self.cargo.source.origins(&layer), None) {
                    wanted.may_come_from(diff_id, &from);
                }
            }
        }
        Ok(recalled)
    }

    /// Returns the digest and size of the first form that the repository has or is given.
    async fn find(&self, origins: &[Origin]) -> Result<Option<(Digest, u64)>> {
        let forms = &origins[..origins.len().min(FORMS)];
        for Origin { digest, .. } in forms {
            if let Some(size) = self.fitting(digest).await? {
                return Ok(Some((digest.clone(), size)));
            }
        }
        if self.cargo.intent == Intent::Ask {
            return Ok(None);
        }
        let uploader = self.uploader();
        for form in forms {
            for from in self.origins(slice::from_ref(form), None) {
                if uploader.mount(&form.digest, &from).await.is_ok_and(|granted| granted)
                    && let Some(size) = self.fitting(&form.digest).await?
                {
                    return Ok(Some((form.digest.clone(), size)));
                }
            }
        }
        Ok(None)
    }

    /// Returns the size of a blob that the repository has, if it is encoded as we would encode it: nobody has
    /// noted that, and the manifest has to say it.
    async fn fitting(&self, digest: &Digest) -> Result<Option<u64>> {
        let wanted = Compression::from(self.cargo.options.recipe.encoding());
        match self.target.client.peek_blob(self.target.repository(), digest).await {
            Ok(Some((size, head))) if Compression::detect(&head) == wanted => Ok(Some(size)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Network => Err(error),
            Err(error) => {
                tracing::debug!("{}, taken for missing", chain(&error));
                Ok(None)
            }
        }
    }
}
