//! What a push would do: the stages of a delivery up to its plan. The registry is asked by HEAD and GET only, so
//! what it would mount is not known before it is asked for that.

use std::collections::BTreeMap;

use super::{Delivery, if_exists::Names, survey};
use crate::{
    error::Result,
    event::PlannedBlob,
    oci::Digest,
    plan::{PushPlan, Totals},
    push::{Cargo, Intent, Push, Pushed, Target},
    source::{Image, Missing},
};

/// What a push to one repository would do.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// The digest of the manifest or index, where no layer has to be encoded before it is known.
    pub digest: Option<Digest>,
    /// The tags that it would be given.
    pub tags: Vec<String>,
    /// The tags that would be left as they are, and what they stand for.
    pub skipped: BTreeMap<String, Digest>,
    /// The registry has the image under all its names: nothing would be done.
    pub is_there: bool,
    /// What would be done for each blob, largest first.
    pub blobs: Vec<PlannedBlob>,
    /// How many blobs have which step, and the bytes that would be sent as they are.
    pub totals: Totals,
    /// The size of chunks in the beginning; none where only whole blobs are taken.
    pub chunk: Option<u64>,
    /// Why they are that large.
    pub why: String,
}

impl Push {
    /// Says what [`Push::run`] would do at each target, and does nothing there. An archive that can be read only once
    /// is encoded into the cache as it passes, as it is then.
    pub async fn forecast(mut self) -> Result<Vec<Result<Forecast>>> {
        // Whatever is encoded as it passes is not given.
        let _giving = self.press.use_shared(self.options.shared_cache.take());
        let (cargo, image, targets) = self.load(Intent::Ask).await?;
        Ok(cargo.forecast(&image, targets).await)
    }
}

impl Cargo {
    /// Says what would become of an image at each target.
    pub(in crate::push) async fn forecast(
        &self,
        image: &Image,
        targets: Vec<Target>,
    ) -> Vec<Result<Forecast>> {
        let mut forecasts = Vec::new();
        for target in targets {
            forecasts.push(Box::pin(self.delivery(image, target).forecast()).await);
        }
        forecasts
    }
}

impl Delivery {
    async fn forecast(&self) -> Result<Forecast> {
        let names = self.target.names(self.cargo.options.if_exists).await?;
        if let Some(Pushed { digest, .. }) = self.target.skipped(&names).await? {
            return Ok(self.told(Some(digest), names, None));
        }
        if let Some(original) = self.original().filter(|original| names.allow(Some(&original.digest)).is_ok())
        {
            let digest = Some(original.digest.clone());
            if self.is_there(&original.digest, &names.tags).await? {
                return Ok(self.told(digest, names, None));
            }
            let needs = self.named_by_original(original);
            let present = self.present(&needs).await?;
            // Without all of it, the layers are encoded.
            match self.plan(needs, present).await {
                Err(error) if Missing::is_cause_of(&error) => {}
                plan => return Ok(self.told(digest, names, Some(&plan?))),
            }
        }
        let mut wanted = self.wanted().await?;
        if self.cargo.options.reuse {
            self.recall(&mut wanted).await?;
            self.reuse(&mut wanted).await?;
        }
        self.cargo.ask_shared_cache(&mut wanted.needs).await;
        let digest = self.known_root(&wanted, &names)?.map(|root| root.digest);
        if let Some(digest) = &digest
            && self.is_there(digest, &names.tags).await?
        {
            return Ok(self.told(Some(digest.clone()), names, None));
        }
        survey::require_manifests(&self.target.client, self.target.repository(), &wanted.absent).await?;
        let present = self.present(&wanted.needs).await?;
        Ok(self.told(digest, names, Some(&self.plan(wanted.needs, present).await?)))
    }

    fn told(&self, digest: Option<Digest>, names: Names, plan: Option<&PushPlan>) -> Forecast {
        let Names { tags, skipped, .. } = names;
        let settings = self.cargo.options.settings(&self.target.client, false);
        let (chunk, why) = settings.first_chunk();
        Forecast {
            digest,
            tags,
            skipped,
            is_there: plan.is_none(),
            blobs: plan.map(PushPlan::blobs).unwrap_or_default(),
            totals: plan.map(PushPlan::totals).unwrap_or_default(),
            chunk,
            why,
        }
    }
}
