//! The stages of one push, in the order that keeps a tag from moving early.

use std::{collections::HashSet, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Delivery,
    if_exists::Names,
    look::Look,
    manifest, root,
    send::DamagedEntry,
    survey::{self, Answers},
};
use crate::{
    error::{self, Error, ErrorKind, Result},
    event::{Event, How},
    oci::{Digest, Manifest},
    plan::{self, AtHand, Need, PushPlan, Step},
    push::{
        Pushed,
        press::transcode::Job,
        runtime::blocking,
        upload::Uploader,
        wanted::{
            Wanted,
            draft::{Encodings, Finished},
            encodings,
        },
    },
};

/// So many blobs wait for their turn at once.
const WAITING: usize = 1024;

/// Beneath an error: a layer that was to be used again is not there after all.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a layer of another image cannot be used again")]
struct NotReusable;

impl Delivery {
    /// Delivers the image; encodes layers again whose cache entries were damaged, or that the registry had promised.
    pub(super) async fn run(&self) -> Result<Pushed> {
        let mut reuse = self.cargo.options.reuse;
        // Damage is seldom alone, but what was dropped and is damaged again is not made better a third time.
        let mut damaged = HashSet::new();
        let pushed = loop {
            match self.attempt(reuse).await {
                Err(error)
                    if error.find::<DamagedEntry>().is_some()
                        && damaged.insert(error.message().to_owned()) =>
                {
                    self.cargo.press.warn(format!("{}; looking at the layer again", error.message()));
                }
                Err(error) if error.find::<NotReusable>().is_some() && reuse => {
                    self.cargo.press.warn(format!("{}; using no layer again", error.message()));
                    reuse = false;
                }
                result => break result,
            }
        };
        pushed.map_err(|error| match error.kind() {
            ErrorKind::Source => error.while_doing(format!("reading {}", self.cargo.source.name())),
            _ => error,
        })
    }

    async fn attempt(&self, reuse: bool) -> Result<Pushed> {
        let names = self.target.names(self.cargo.options.if_exists).await?;
        if let Some(skipped) = self.target.skipped(&names).await? {
            return Ok(skipped);
        }
        if let Some(original) = self.push_original(&names).await? {
            return Ok(pushed(&original, original.digest.clone(), names));
        }
        let mut wanted = self.wanted().await?;
        let reused = if reuse { self.recall(&mut wanted).await? + self.reuse(&mut wanted).await? } else { 0 };
        self.cargo.ask_shared_cache(&mut wanted.needs).await;
        let uploader = self.uploader();
        let mut answers = Answers::new();
        if let Some(root) = self.known_root(&wanted, &names)? {
            match self.look(&uploader, &wanted, &root.digest, &names.tags).await {
                Ok(Look::Lacking(glanced)) => answers = glanced,
                looked => {
                    uploader.give_back().await;
                    looked?;
                    self.stay_listed(&root).await;
                    return Ok(pushed(&root, root.digest.clone(), names));
                }
            }
        }
        let encoded = self.bring(&uploader, &mut wanted, &answers).await;
        uploader.give_back().await;
        let encoded = encoded?;
        let Finished { manifests, notes } = wanted.complete(&encoded)?;
        let root = root(&manifests)?;
        self.check_destination(&root.digest)?;
        for note in notes {
            self.cargo.press.warn(note);
        }
        let digest = match self.send_manifests(&manifests, &names.tags).await {
            Err(error) if manifest::misses_blob(&error) && reused > 0 => {
                return Err(Error::new(error.kind(), error::chain(&error)).because(NotReusable));
            }
            Err(error) if manifest::misses_blob(&error) => {
                self.heal(&mut wanted, &encoded, &error).await?;
                self.send_manifests(&manifests, &names.tags).await?
            }
            result => result?,
        };
        self.note_sightings(&wanted, &encoded, &root.digest);
        Ok(pushed(root, digest, names))
    }

    /// Returns the manifest that the push is about, if its digest is known before anything is encoded; an image that must
    /// not go there is refused.
    pub(super) fn known_root(&self, wanted: &Wanted, names: &Names) -> Result<Option<Manifest>> {
        let finished = wanted.finish(&wanted.encoded())?;
        let known = finished.as_ref().map(|finished| root(&finished.manifests)).transpose()?;
        if let Some(root) = known {
            self.check_destination(&root.digest)?;
        }
        names.allow(known.map(|root| &root.digest))?;
        Ok(known.cloned())
    }

    pub(super) async fn wanted(&self) -> Result<Wanted> {
        let wanted = self.listed().await?;
        self.cargo.check_companions(&wanted).await?;
        Ok(wanted)
    }

    pub(super) async fn listed(&self) -> Result<Wanted> {
        let push = self.clone();
        blocking(move || {
            let mut wanted = push.cargo.list(&push.image)?;
            push.locate(&mut wanted.needs);
            Ok(wanted)
        })
        .await
    }

    /// Finds out what the registry lacks, beyond what it has answered already, and brings that.
    async fn bring(&self, uploader: &Uploader, wanted: &mut Wanted, answers: &Answers) -> Result<Encodings> {
        let (client, repository) = (&self.target.client, self.target.repository());
        survey::require_manifests(client, repository, &wanted.absent).await?;
        let first = |need: &Need, digest: &Digest| self.give_head_start(uploader, wanted, need, digest, true);
        let present = survey::present(client, repository, &wanted.needs, answers, first).await?;
        self.deliver(uploader, wanted, present).await
    }

    /// Asks the repository which of the needed blobs it has.
    pub(super) async fn present(&self, needs: &[Need]) -> Result<HashSet<Digest>> {
        let (client, repository) = (&self.target.client, self.target.repository());
        survey::present(client, repository, needs, &Answers::new(), |_, _| {}).await
    }

    /// Brings every needed blob to the registry; returns the digest and size of each layer by diff ID.
    async fn deliver(
        &self,
        uploader: &Uploader,
        wanted: &mut Wanted,
        present: HashSet<Digest>,
    ) -> Result<Encodings> {
        let plan = self.plan(wanted.needs.clone(), present).await?;
        self.announce(&plan);
        let sent = self.execute(uploader, plan, wanted).await?;
        Ok(encodings(wanted.needs.iter().chain(&sent)))
    }

    /// Decides what is to be done.
    pub(super) async fn plan(&self, mut needs: Vec<Need>, present: HashSet<Digest>) -> Result<PushPlan> {
        let source = Arc::clone(&self.cargo.source);
        let (mut needs, present) = blocking(move || {
            survey::check_at_hand(&*source, &mut needs, &present)?;
            Ok((needs, present))
        })
        .await?;
        survey::seek(&self.target.client, &mut needs, &present).await;
        plan::plan(needs, &present, self.cargo.options.recipe.encoding())
    }

    /// Makes sure that what the source leaves out is at the registry.
    pub(in crate::push) async fn require_left_out(&self) -> Result<()> {
        let Some(left_out) = self.cargo.source.left_out() else { return Ok(()) };
        let mut needs = self.wanted().await?.needs;
        needs
            .retain(|need| need.identity.as_ref().is_some_and(|(digest, _)| left_out.find(digest).is_some()));
        let present = self.present(&needs).await?;
        self.plan(needs, present).await.map(drop)
    }

    /// Does what was decided, and returns what was sent with the digests that it has.
    async fn execute(&self, uploader: &Uploader, plan: PushPlan, wanted: &Wanted) -> Result<Vec<Need>> {
        let mut jobs = Vec::new();
        let mut uploads = Vec::new();
        for (need, step) in plan.steps {
            let job = match &step {
                Step::Leave | Step::Present | Step::Reuse => {
                    self.note_present(&need);
                    continue;
                }
                Step::Mount { .. } | Step::Upload => None,
                Step::Fetch { entry, encoding, .. } => {
                    Some(Job::fetch(need.layer.clone(), entry.clone(), *encoding))
                }
                Step::Prove => Some(Job::prove(need.layer.clone())),
                Step::Transcode { encoding } => Some(Job::encode(need.layer.clone(), *encoding)),
            };
            let feed = job.map(|(job, feed)| {
                jobs.push(job);
                feed
            });
            uploads.push((need, step, feed));
        }
        let working = self.cargo.start(jobs)?;
        let sent: Result<Vec<_>> = stream::iter(uploads)
            .map(|(need, step, feed)| async move {
                let sealed = self.send(uploader, &need, &step, feed, wanted).await?;
                Ok(Need { identity: Some(sealed), ..need })
            })
            .buffer_unordered(WAITING)
            .try_collect()
            .await;
        self.cargo.options.learn(&self.target.client, uploader.lesson());
        // With the uploads gone the producers stop; their temp files go with them.
        blocking(move || working.join()).await?;
        sent
    }

    /// The registry refused a manifest because of a blob that it had said it has: believes nothing, looks
    /// again, sends what is missing; if nothing seems to be, what is named, or everything. Once.
    async fn heal(&self, wanted: &mut Wanted, encoded: &Encodings, error: &Error) -> Result<()> {
        self.cargo.press.warn(format!("{}; looking again for what is missing", error::chain(error)));
        self.cargo.traffic.forget();
        tokio::time::sleep(self.cargo.options.pace.pause(manifest::SETTLE)).await;
        // What was encoded in this run is in the cache now.
        *wanted = self.wanted().await?;
        // What goes out as it lies is known by now. A plain layer that no cache kept has to be encoded again.
        for need in wanted.needs.iter_mut().filter(|need| need.at_hand == AtHand::Encoded) {
            if let (None, Some(diff_id)) = (&need.identity, &need.layer.diff_id) {
                need.identity = encoded.get(diff_id).cloned();
            }
        }
        let mut present = self.present(&wanted.needs).await?;
        let is_missing =
            |need: &Need| need.at_hand != AtHand::Foreign && need.identity.is_some() && !need.is_in(&present);
        if !wanted.needs.iter().any(is_missing) {
            let words = error::chain(error);
            let named =
                manifest::names_all(error) && present.iter().any(|digest| words.contains(digest.hex()));
            present.retain(|digest| named && !words.contains(digest.hex()));
        }
        self.deliver(&self.uploader(), wanted, present).await.map(drop)
    }

    fn announce(&self, plan: &PushPlan) {
        let totals = plan.totals();
        self.cargo.press.reporter.event(Event::Planned {
            present: totals.present,
            reuse: totals.reuse,
            fetch: totals.fetch,
            mount: totals.mount,
            upload: totals.upload,
            transcode: totals.transcode,
            bytes: totals.bytes,
            blobs: plan.blobs(),
        });
    }

    fn note_present(&self, need: &Need) {
        if let (Some((digest, size)), false) = (&need.identity, need.at_hand == AtHand::Foreign) {
            let how = if need.at_hand == AtHand::Registry { How::Reused } else { How::Present };
            self.confirmed(&need.layer.name, digest, how, *size);
        }
    }
}

fn pushed(root: &Manifest, digest: Digest, names: Names) -> Pushed {
    let Names { tags, skipped, .. } = names;
    let (media_type, size) = (root.media_type.clone(), root.bytes.len() as u64);
    // Who listens (tally.rs) knows better.
    let (how, bytes_sent) = (How::Uploaded, 0);
    Pushed { digest, media_type, size, tags, skipped, referrers: Vec::new(), how, bytes_sent }
}
