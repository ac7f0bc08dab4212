//! What becomes of an image on its way, alike for every command that makes something of one.

use longshore::{
    Error, Result,
    codec::{Encoding, Recipe},
    push::Format,
};

use super::value::one_of;

/// Options of how layers are encoded and what manifests are.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct RecipeArgs {
    /// keep, gzip[:LEVEL], zstd[:LEVEL] or none: how layers are encoded
    ///
    /// `keep` alters nothing that a manifest in the source names, and makes other plain layers gzip.
    #[arg(long, value_name = "HOW", default_value = "keep", hide_possible_values = true)]
    #[arg(value_parser = one_of::<Recipe>(&["keep", "gzip", "zstd", "none"]))]
    pub(in crate::cli) compression: Recipe,
    /// Encode layers too that are in that encoding already
    #[arg(long)]
    pub(in crate::cli) force_compression: bool,
    /// auto, oci or docker: the manifest's family; `auto` keeps the source's
    #[arg(long, value_name = "FORMAT", default_value = "auto", hide_possible_values = true)]
    #[arg(value_parser = one_of::<Format>(&["auto", "oci", "docker"]))]
    pub(in crate::cli) format: Format,
}

impl RecipeArgs {
    /// Returns how layers are encoded.
    pub(in crate::cli) fn recipe(&self) -> Result<Recipe> {
        let recipe = match self.compression {
            Recipe::Encode { encoding, .. } => Recipe::Encode { encoding, force: self.force_compression },
            Recipe::Keep if self.force_compression => {
                return Err(Error::usage("`--force-compression` does not say how")
                    .with_hint("say it by `--compression gzip` or `--compression zstd`"));
            }
            Recipe::Keep => Recipe::Keep,
        };
        if self.format == Format::Docker && matches!(recipe.encoding(), Encoding::Zstd { .. }) {
            return Err(Error::usage("Docker's manifests have no zstd layers")
                .with_hint("leave `--format docker` out, or say `--compression gzip`"));
        }
        Ok(recipe)
    }
}
