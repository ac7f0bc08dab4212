//! The first look at a repository: does it hold the image already, and if not, what of it?
//!
//! Where this machine has left the image before, that is one question, since the answer is most likely yes. Elsewhere it
//! is most likely no: then the blobs are asked about in the same round trip, and the upload of the largest is opened.

use std::pin::pin;

use futures_util::future::{Either, select};

use super::{
    Delivery,
    survey::{self, Answers},
};
use crate::{
    error::Result,
    oci::Digest,
    push::{upload::Uploader, wanted::Wanted},
};

/// What the registry has of an image.
#[derive(Debug)]
pub(super) enum Look {
    /// All of it, under all its names.
    Complete,
    /// Not that; and this is what it has said of the blobs so far.
    Lacking(Answers),
}

impl Delivery {
    /// Looks for an image and, unless it is most likely there, for its blobs.
    pub(super) async fn look(
        &self,
        uploader: &Uploader,
        wanted: &Wanted,
        image: &Digest,
        tags: &[String],
    ) -> Result<Look> {
        let was_left_here = self.was_left_here(image);
        let answers = async {
            if was_left_here {
                return Answers::new();
            }
            let asked = wanted.needs.iter().filter_map(|need| Some((need, need.question()?)));
            if let Some((need, (digest, _))) = asked.max_by_key(|(_, (_, size))| *size) {
                self.give_head_start(uploader, wanted, need, digest, false);
            }
            survey::glance(&self.target.client, self.target.repository(), &wanted.needs).await
        };
        let (is_there, answers) = match select(pin!(self.is_there(image, tags)), pin!(answers)).await {
            Either::Left((Ok(false), answers)) => (false, answers.await),
            Either::Left((is_there, _)) => (is_there?, Answers::new()),
            Either::Right((answers, is_there)) => (is_there.await?, answers),
        };
        if !is_there {
            return Ok(Look::Lacking(answers));
        }
        if !was_left_here {
            self.note_sightings(wanted, &wanted.encoded(), image);
        }
        Ok(Look::Complete)
    }

    /// Returns whether a push of this machine has seen the image in the repository, or nobody remembers.
    fn was_left_here(&self, image: &Digest) -> bool {
        let here = &self.target.destination.repository;
        let Some(sightings) = &self.cargo.options.sightings else { return true };
        sightings.at(&here.host).get(image) == Some(&here.path)
    }
}
