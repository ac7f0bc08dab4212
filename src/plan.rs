//! Decides what has to be done before anything is: needs and what is present → steps. Pure: no disk, no network.
//!
//! A [`Need`] is a blob that the image cannot do without, with what the source and the cache say of it. Present is what
//! the registry says it has. The [`PushPlan`] is one [`Step`] per need, largest first.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    fmt,
};

use bytes::Bytes;

use crate::{
    cache::Entry,
    codec::Encoding,
    error::{Error, Result, counted},
    event::{PlannedBlob, Todo},
    oci::Digest,
    source::{Layer, Missing},
};

/// A blob that the image needs at the registry.
#[derive(Clone, Debug)]
pub struct Need {
    /// How its source opens it, and what it calls it.
    pub layer: Layer,
    /// Its digest and size, where they are known before it is read.
    pub identity: Option<(Digest, u64)>,
    /// An upper bound or estimate of its size, for the order of work.
    pub weight: u64,
    /// Where its bytes are.
    pub at_hand: AtHand,
    /// Other repositories of the registry that may have it, the likeliest first.
    pub origins: Vec<String>,
}

/// Where the bytes of a needed blob are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtHand {
    /// In memory: a config.
    Bytes(Bytes),
    /// Encoded, in the cache.
    Cached,
    /// In the source, as they will be sent.
    Encoded,
    /// Elsewhere by the will of its maker (`urls`): not uploaded.
    Foreign,
    /// The source names it and does not hold it; this may help.
    Missing(Vec<String>),
    /// In the source, plain: to be encoded.
    Plain,
    /// At the registry, from an earlier push of whatever image: seen there.
    Registry,
    /// In the shared cache, if what is there is what this entry says: so far it only says so, and the digest and
    /// size are not yet the layer's.
    Shared(Entry),
}

impl Need {
    /// Returns the digest and size that the registry is asked about, if there is something to ask.
    pub fn question(&self) -> Option<(&Digest, u64)> {
        match &self.at_hand {
            AtHand::Foreign | AtHand::Registry => None,
            AtHand::Shared(entry) => Some((&entry.digest, entry.size)),
            _ => self.identity.as_ref().map(|(digest, size)| (digest, *size)),
        }
    }

    /// Returns whether it is known by its digest, and one of these.
    pub(crate) fn is_in(&self, digests: &HashSet<Digest>) -> bool {
        self.identity.as_ref().is_some_and(|(digest, _)| digests.contains(digest))
    }
}

/// What has to be done for one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Download it from the shared cache and check it, sending what has arrived already. If it is not what its
    /// entry says, encode it.
    Fetch {
        /// What the shared cache says of it.
        entry: Entry,
        /// How it is encoded there, and here if need be.
        encoding: Encoding,
        /// Whether the registry has a blob of that digest: then it is checked and not sent. It must be checked,
        /// since nothing else tells that it is this layer.
        present: bool,
    },
    /// Nothing: the registry is not given foreign layers.
    Leave,
    /// Ask for a mount; send it if that is refused.
    Mount {
        /// The repository to mount from.
        from: String,
    },
    /// Nothing: the registry has it.
    Present,
    /// Nothing: the registry has it, as another image's layer.
    Reuse,
    /// Send it as it lies there, while a pass over it finds its digest and checks its diff ID.
    Prove,
    /// Encode it, sending what is encoded already.
    Transcode {
        /// The target.
        encoding: Encoding,
    },
    /// Send it.
    Upload,
}

/// One step for each needed blob.
#[derive(Clone, Debug, Default)]
#[must_use = "a plan does nothing by itself"]
pub struct PushPlan {
    /// The steps, largest blobs first.
    pub steps: Vec<(Need, Step)>,
}

/// Decides the step for each need, where the repository has what is `present` and plain layers get this encoding. What is
/// neither in the source nor at the registry is named, all of it.
pub(crate) fn plan(needs: Vec<Need>, present: &HashSet<Digest>, encoding: Encoding) -> Result<PushPlan> {
    let is_nowhere = |need: &&Need| {
        matches!(need.at_hand, AtHand::Missing(_)) && need.origins.is_empty() && !need.is_in(present)
    };
    let nowhere: Vec<&Need> = needs.iter().filter(is_nowhere).collect();
    if !nowhere.is_empty() {
        return Err(missing(&nowhere));
    }
    let with_step = |need: Need| {
        let step = step(&need, present, encoding);
        (need, step)
    };
    let mut steps: Vec<_> = needs.into_iter().map(with_step).collect();
    steps.sort_by_key(|(need, _)| Reverse(need.weight));
    Ok(PushPlan { steps })
}

/// Decides for a need that is somewhere.
fn step(need: &Need, present: &HashSet<Digest>, encoding: Encoding) -> Step {
    match (&need.at_hand, &need.identity) {
        (AtHand::Foreign, _) => Step::Leave,
        (AtHand::Registry, _) => Step::Reuse,
        (AtHand::Shared(entry), _) => {
            Step::Fetch { entry: entry.clone(), encoding, present: present.contains(&entry.digest) }
        }
        (AtHand::Plain, None) => Step::Transcode { encoding },
        (_, None) => Step::Prove,
        (_, Some(_)) if need.is_in(present) => Step::Present,
        (_, Some(_)) => match need.origins.first() {
            Some(from) => Step::Mount { from: from.clone() },
            None => Step::Upload,
        },
    }
}

/// Says that blobs are neither in the source nor at the registry.
pub fn missing(needs: &[&Need]) -> Error {
    let names: Vec<_> = needs.iter().map(|need| format!("`{}`", need.layer.name)).collect();
    let words = match names.as_slice() {
        [name] => format!("blob {name} is missing in the source, and the registry does not have it"),
        names => {
            let (count, names) = (names.len(), names.join(", "));
            format!("{count} blobs are missing in the source, and the registry does not have them: {names}")
        }
    };
    let mut hints: Vec<&String> = Vec::new();
    for need in needs {
        let AtHand::Missing(more) = &need.at_hand else { continue };
        hints.extend(more.iter().filter(|hint| !hints.contains(hint)).collect::<Vec<_>>());
    }
    hints.into_iter().fold(Error::source(words).because(Missing), Error::with_hint)
}

impl PushPlan {
    /// Counts the steps of each kind, and the bytes to send as far as they are known.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (need, step) in &self.steps {
            match step {
                Step::Leave => totals.left += 1,
                Step::Present => totals.present += 1,
                Step::Reuse => totals.reuse += 1,
                Step::Mount { .. } => totals.mount += 1,
                Step::Upload | Step::Prove => {
                    totals.upload += 1;
                    totals.bytes = totals.bytes.saturating_add(need.weight);
                }
                Step::Fetch { present, .. } => {
                    totals.fetch += 1;
                    // What it weighs is hearsay.
                    let weight = if *present { 0 } else { need.weight };
                    totals.bytes = totals.bytes.saturating_add(weight);
                }
                Step::Transcode { .. } => totals.transcode += 1,
            }
        }
        totals
    }

    /// Tells of each blob what is to be done.
    pub fn blobs(&self) -> Vec<PlannedBlob> {
        self.steps.iter().map(|(need, step)| told(need, step)).collect()
    }
}

fn told(need: &Need, step: &Step) -> PlannedBlob {
    let (todo, encoding) = match step {
        Step::Fetch { present: true, encoding, .. } => (Todo::Check, Some(encoding)),
        Step::Fetch { present: false, encoding, .. } => (Todo::Fetch, Some(encoding)),
        Step::Leave => (Todo::Leave, None),
        Step::Mount { .. } => (Todo::Mount, None),
        Step::Present => (Todo::Present, None),
        Step::Prove | Step::Upload => (Todo::Send, None),
        Step::Reuse => (Todo::Reuse, None),
        Step::Transcode { encoding } => (Todo::Encode, Some(encoding)),
    };
    // The weight of what is a stream is unknown.
    let weight = (need.weight < u64::MAX).then_some(need.weight);
    let encode = todo == Todo::Encode;
    PlannedBlob {
        blob: need.layer.name.clone(),
        digest: need.identity.as_ref().map(|(digest, _)| digest.to_string()),
        size: need.identity.as_ref().map(|(_, size)| *size).or(weight.filter(|_| !encode)),
        source_size: weight.filter(|_| encode),
        step: todo,
        encoding: encoding.map(ToString::to_string),
        from: need.origins.first().filter(|_| matches!(todo, Todo::Encode | Todo::Mount)).cloned(),
    }
}

/// How many blobs have which step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// To be fetched from the shared cache.
    pub fetch: usize,
    /// Foreign layers that are not uploaded.
    pub left: usize,
    /// At the registry already.
    pub present: usize,
    /// At the registry already, as layers of another image.
    pub reuse: usize,
    /// To be asked for by mount.
    pub mount: usize,
    /// To be sent as they are.
    pub upload: usize,
    /// To be encoded and sent.
    pub transcode: usize,
    /// Bytes to send as they are.
    pub bytes: u64,
}

impl fmt::Display for PushPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (need, step) in &self.steps {
            let verb = match step {
                Step::Fetch { present: true, .. } => "fetch and check".to_owned(),
                Step::Fetch { present: false, .. } => "fetch, check and send".to_owned(),
                Step::Leave => "leave".to_owned(),
                Step::Mount { from } => format!("mount from {from}"),
                Step::Present => "present".to_owned(),
                Step::Prove => "check and send".to_owned(),
                Step::Reuse => "reuse".to_owned(),
                Step::Transcode { encoding } => format!("encode as {encoding} and send"),
                Step::Upload => "send".to_owned(),
            };
            match &need.identity {
                Some((digest, size)) => writeln!(f, "{digest} {size} {verb}")?,
                None => writeln!(f, "`{}` {} {verb}", need.layer.name, need.weight)?,
            }
        }
        Ok(())
    }
}

/// Makes sure that nobody names one blob with two sizes: only one of them would be looked at.
pub fn require_one_size(needs: &[Need]) -> Result<()> {
    let mut sizes = HashMap::new();
    for (digest, size) in needs.iter().filter_map(|need| need.identity.as_ref()) {
        let first = *sizes.entry(digest).or_insert(*size);
        if first != *size {
            let (first, size) = (counted(first, "byte"), counted(*size, "byte"));
            return Err(Error::source(format!(
                "size mismatch in `{digest}`: it is named with {first} and with {size}"
            )));
        }
    }
    Ok(())
}

/// Returns each need once: by digest, or where that is not known yet, by diff ID. Of a blob that is also what a layer is
/// encoded to, its diff ID stays known.
pub fn distinct(needs: Vec<Need>) -> Vec<Need> {
    let mut seen = HashMap::new();
    let mut distinct: Vec<Need> = Vec::new();
    for need in needs {
        let key = match (&need.identity, &need.layer.diff_id) {
            (Some((digest, _)), _) => Some((true, digest.clone())),
            (None, Some(diff_id)) => Some((false, diff_id.0.clone())),
            (None, None) => None,
        };
        let at = key.map_or(distinct.len(), |key| *seen.entry(key).or_insert(distinct.len()));
        match distinct.get_mut(at) {
            Some(first) => first.layer.diff_id = first.layer.diff_id.take().or(need.layer.diff_id),
            None => distinct.push(need),
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::DiffId;

    fn need(name: &str, size: u64, known: bool, at_hand: AtHand) -> Need {
        let digest = Digest::of(name.as_bytes());
        Need {
            layer: Layer { name: name.to_owned(), descriptor: None, diff_id: Some(DiffId(digest.clone())) },
            identity: known.then_some((digest, size)),
            weight: size,
            at_hand,
            origins: Vec::new(),
        }
    }

    fn entry(blob: &str) -> Entry {
        Entry { digest: Digest::of(blob.as_bytes()), size: 5, plain_size: 10 }
    }

    #[test]
    fn every_state_has_its_step() {
        let needs = vec![
            need("config", 10, true, AtHand::Bytes(Bytes::new())),
            need("there", 700, true, AtHand::Encoded),
            need("stored", 500, true, AtHand::Encoded),
            need("plain", 900, false, AtHand::Plain),
            need("gzip", 400, false, AtHand::Encoded),
            need("cached", 300, true, AtHand::Cached),
            need("windows", 200, true, AtHand::Foreign),
            need("reused", 100, true, AtHand::Registry),
            need("shared", 90, false, AtHand::Shared(entry("shared blob"))),
            need("shared and there", 80, false, AtHand::Shared(entry("there"))),
        ];
        let plan = plan(needs, &HashSet::from([Digest::of(b"there")]), Encoding::default()).unwrap();
        insta::assert_snapshot!(plan, @r"
        `plain` 900 encode as gzip:1 and send
        sha256:e244f187f696561d5fd7e00f618e7ba641dc52e3c137380f6fa23a854b773aac 700 present
        sha256:87b04e58961f9a99d853d4046a0b5b793e7c3e4bbd21f5aca8fb17c20cdb1d8b 500 send
        `gzip` 400 check and send
        sha256:3673014e72b67383be302485694555a57ad393afdebaed6ded110a775bd0556d 300 send
        sha256:340d600392818df2413382dc7d8325c360d83ea49a262d31760348484bbc10b5 200 leave
        sha256:7ad47c54939ef72323893e6c952c5f3a118c34cc76b31d9903d3ea0a4955e874 100 reuse
        `shared` 90 fetch, check and send
        `shared and there` 80 fetch and check
        sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910 10 send
        ");
        let Totals { upload, fetch, bytes, .. } = plan.totals();
        assert_eq!((upload, fetch, bytes), (4, 2, 500 + 400 + 300 + 90 + 10));
    }

    #[test]
    fn what_is_nowhere_ends_the_push_before_it_begins() {
        let gone = need("gone", 1, true, AtHand::Missing(vec!["fetch it".into()]));
        let error = plan(vec![gone.clone()], &HashSet::new(), Encoding::default()).unwrap_err();
        assert!(error.message().contains("missing"), "{error}");
        assert!(Missing::is_cause_of(&error));
        assert_eq!(error.hints(), ["fetch it"]);
        let also = need("also gone", 1, true, AtHand::Missing(vec!["fetch it".into()]));
        let error = plan(vec![gone.clone(), also], &HashSet::new(), Encoding::default()).unwrap_err();
        assert!(error.message().ends_with("does not have them: `gone`, `also gone`"), "{error}");
        assert_eq!(error.hints(), ["fetch it"]);
        let gone = Need { origins: vec!["base".into(), "other".into()], ..gone };
        let steps = plan(vec![gone], &HashSet::new(), Encoding::default()).unwrap().steps;
        assert_eq!(steps[0].1, Step::Mount { from: "base".into() });
    }

    #[test]
    fn one_blob_has_one_size() {
        let one = need("a", 1, true, AtHand::Encoded);
        assert!(require_one_size(&[one.clone(), need("b", 2, true, AtHand::Encoded), one.clone()]).is_ok());
        let (digest, size) = one.identity.clone().unwrap();
        let lying = Need { identity: Some((digest, size + 1)), ..one.clone() };
        let error = require_one_size(&[one, lying]).unwrap_err();
        assert!(error.message().contains("size mismatch"), "{error}");
    }

    #[test]
    fn a_layer_used_twice_is_needed_once() {
        let needs = vec![
            need("a", 1, false, AtHand::Plain),
            need("a", 1, false, AtHand::Plain),
            need("a", 1, true, AtHand::Cached),
        ];
        assert_eq!(distinct(needs).len(), 2);
    }
}
