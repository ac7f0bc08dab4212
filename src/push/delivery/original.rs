//! A pulled image: its own manifest goes out unchanged, if the registry has what that names.
//!
//! A store keeps the manifest that an image was pulled with and not the encoded layers it names: no encoder
//! would make those bytes again. But the registry may have them, or another of its repositories, from which
//! they can be mounted. Then the image keeps its digest and nothing is encoded.

use std::slice;

use super::{Delivery, if_exists::Names, manifest};
use crate::{
    codec::Recipe,
    error::{Result, chain},
    oci::{Content, Manifest},
    plan::{self, AtHand, Need},
    push::{Format, wanted::named_by},
    source::{ImageContent, Layer},
};

impl Delivery {
    /// Returns the manifest that the image was pulled with, if that is what is to be pushed.
    pub(super) fn original(&self) -> Option<&Manifest> {
        let ImageContent::Layers { original: Some(original), layers, .. } = &self.image.content else {
            return None;
        };
        let stays = self.cargo.options.recipe == Recipe::Keep && self.cargo.options.format == Format::Auto;
        let asked = &self.target.destination.digest;
        let fits = asked.as_ref().is_none_or(|asked| *asked == original.digest);
        (stays && fits && !names_plain(original, layers)).then_some(original)
    }

    /// Returns what that manifest names, none of which the source can open by that name.
    pub(super) fn named_by_original(&self, original: &Manifest) -> Vec<Need> {
        let mut needs = plan::distinct(named_by(original, true));
        self.locate(&mut needs);
        for need in &mut needs {
            need.at_hand = AtHand::Missing(Vec::new());
        }
        needs
    }

    /// Pushes the manifest that the image was pulled with; returns it if that went well, and nothing if the
    /// registry lacks what it names.
    pub(super) async fn push_original(&self, names: &Names) -> Result<Option<Manifest>> {
        let is_allowed = |original: &&Manifest| names.allow(Some(&original.digest)).is_ok();
        let Some(original) = self.original().filter(is_allowed) else { return Ok(None) };
        if self.is_there(&original.digest, &names.tags).await? {
            return Ok(Some(original.clone()));
        }
        let needs = self.named_by_original(original);
        let present = self.present(&needs).await?;
        let uploader = self.uploader();
        for need in needs.iter().filter(|need| !need.is_in(&present)) {
            if uploader.mount_only(need).await.is_err() {
                return Ok(None);
            }
        }
        match self.send_manifests(slice::from_ref(original), &names.tags).await {
            // It lacks what it said it has, and no encoder makes that.
            Err(error) if manifest::misses_blob(&error) => {
                self.cargo.press.warn(format!("{}; encoding the layers instead", chain(&error)));
                Ok(None)
            }
            sent => sent.map(|_| Some(original.clone())),
        }
    }
}

/// Returns whether a manifest names the plain layers: then it was written by whoever wrote the image into the
/// store, and no registry has seen it.
fn names_plain(manifest: &Manifest, layers: &[Layer]) -> bool {
    match &manifest.content {
        Content::Image { layers: named, .. } => {
            let plain = layers.iter().map(|layer| layer.diff_id.as_ref().map(|diff_id| &diff_id.0));
            named.iter().map(|layer| Some(&layer.digest)).eq(plain)
        }
        Content::Index { .. } => false,
    }
}
