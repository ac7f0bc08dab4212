//! What `cosign save` writes into a layout, and Hauler after it: images, and behind them their signatures, attestations and
//! SBOMs.
//!
//! Nothing but an annotation says what an entry is. At a registry such ones have tags by which cosign finds them.

use crate::oci::Descriptor;

/// The annotation that says what an entry is.
const KIND: &str = "kind";

/// Returns whether `cosign save` has written an entry as an image, or an index of some.
pub(super) fn is_image(descriptor: &Descriptor) -> bool {
    descriptor.annotation(KIND).is_some_and(|kind| kind.ends_with("/image") || kind.ends_with("/imageIndex"))
}

/// Returns whether `cosign save` or Hauler has written an entry because of another one.
pub(super) fn is_companion(descriptor: &Descriptor) -> bool {
    let is_referrer = |kind: &str| kind.starts_with("dev.hauler/referrers");
    suffix(descriptor).is_some() || descriptor.annotation(KIND).is_some_and(is_referrer)
}

/// Returns how the tag ends of what `cosign save` has written beside an image.
fn suffix(descriptor: &Descriptor) -> Option<&'static str> {
    let kind = descriptor.annotation(KIND)?;
    let suffixes = [("/sigs", ".sig"), ("/atts", ".att"), ("/sboms", ".sbom")];
    suffixes.iter().find(|(what, _)| kind.ends_with(what)).map(|(_, suffix)| *suffix)
}

/// Returns the tag under which cosign keeps and looks for a companion of an image.
pub(super) fn tag(companion: &Descriptor, image: &Descriptor) -> Option<String> {
    let (image, suffix) = (&image.digest, suffix(companion)?);
    Some(format!("{}-{}{suffix}", image.algorithm().name(), image.hex()))
}
