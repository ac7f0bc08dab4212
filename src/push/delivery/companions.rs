//! What becomes of what a source holds about an image ([`crate::push::referrers`]).

use std::{collections::HashSet, sync::Arc};

use super::Delivery;
use crate::{
    error::{Error, Result},
    oci::Digest,
    push::{Cargo, Companions, Pushed, Target, referrers::Companion, runtime::blocking, wanted::Wanted},
};

impl Delivery {
    /// Delivers the image, and what is about it where that travels along.
    pub(super) async fn run_accompanied(&self) -> Result<Pushed> {
        let pushed = self.run().await?;
        if self.cargo.options.companions != Companions::Travel || pushed.was_left_alone() {
            return Ok(pushed);
        }
        let mut referrers = Vec::new();
        for companion in self.companions().await? {
            let name = companion.name();
            let beside = Self {
                target: Target::of(
                    &companion.image,
                    &self.target.destination.repository,
                    &companion.tags(),
                    &self.target.client,
                ),
                image: companion.image,
                cargo: self.cargo.unaltered(),
            };
            let arrived = Box::pin(beside.run()).await;
            let arrived = arrived.map_err(|error| {
                error.while_doing(format!("pushing {name}, which is about {}", companion.subject))
            })?;
            referrers.push(arrived.digest);
        }
        Ok(Pushed { referrers, ..pushed })
    }

    /// Finds what is about the documents that are pushed as they are.
    async fn companions(&self) -> Result<Vec<Companion>> {
        self.cargo.about(self.kept().await?).await
    }

    /// Finds out which documents are pushed as they are.
    pub(in crate::push) async fn kept(&self) -> Result<HashSet<Digest>> {
        Ok(self.listed().await?.kept_and_changed()?.0)
    }
}

impl Cargo {
    /// Refuses an image that is made anew while the source holds something about it.
    pub(in crate::push) async fn check_companions(&self, wanted: &Wanted) -> Result<()> {
        let (_, changed) = wanted.kept_and_changed()?;
        if changed.is_empty() || self.options.companions == Companions::Forget {
            return Ok(());
        }
        let stale = self.about(changed).await?;
        if stale.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = stale.iter().map(Companion::name).collect();
        Err(Error::usage(format!(
            "the image would be made anew, and what the source holds about it would not hold for it: {}",
            names.join(", ")
        ))
        .with_hint("leave out `--compression` and `--format` to push it as it is")
        .with_hint("`--remove-signatures` pushes the new one alone"))
    }

    /// Finds what the source holds about these documents.
    async fn about(&self, documents: HashSet<Digest>) -> Result<Vec<Companion>> {
        let (source, referrers) = (Arc::clone(&self.source), self.referrers.clone());
        blocking(move || referrers.about(&*source, documents)).await
    }
}
