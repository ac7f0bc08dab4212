//! A repository's `index.json`: which manifests it lists, and under which tags.
//!
//! A manifest is listed once for each of its tags, or once without a name. Children of an index need no
//! entry of their own: the index leads to them. What other tools wrote into the file stays there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::{Context as _, ErrorKind, Result},
    layout::REF_NAME,
    oci::{Digest, Manifest, reference},
};

/// What a repository lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Index {
    manifests: Vec<Entry>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// One line of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<String>,
    pub(super) digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Index {
    /// Reads the file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).context(ErrorKind::Local, || "the index is damaged".into())
    }

    /// Returns what to write.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are always JSON")
    }

    /// Returns the tags, sorted.
    pub(super) fn tags(&self) -> BTreeSet<&str> {
        let names = self.manifests.iter().filter_map(Entry::name);
        names.filter(|name| reference::check_tag(name).is_ok()).collect()
    }

    /// Finds what a tag names.
    pub(super) fn tagged(&self, tag: &str) -> Option<&Entry> {
        self.manifests.iter().find(|entry| entry.name() == Some(tag))
    }

    /// Finds a manifest.
    pub(super) fn listed(&self, digest: &Digest) -> Option<&Entry> {
        self.manifests.iter().find(|entry| entry.digest == *digest)
    }

    /// Returns every manifest once.
    pub(super) fn manifests(&self) -> BTreeMap<&Digest, &Entry> {
        self.manifests.iter().map(|entry| (&entry.digest, entry)).collect()
    }

    /// Lists a manifest under a tag, which is taken from whatever had it.
    pub(super) fn tag(&mut self, manifest: &Manifest, tag: &str) {
        if self.tagged(tag).is_some_and(|entry| entry.digest == manifest.digest) {
            return;
        }
        self.untag(tag);
        self.adopt(&manifest.digest);
        self.manifests.push(Entry::new(manifest, Some(tag)));
    }

    /// Lists a manifest without a name, unless it is listed.
    pub(super) fn list(&mut self, manifest: &Manifest) {
        if self.listed(&manifest.digest).is_none() {
            self.manifests.push(Entry::new(manifest, None));
        }
    }

    /// Takes a tag away; the manifest stays listed. Returns whether there was such a tag.
    pub(super) fn untag(&mut self, tag: &str) -> bool {
        let mut found = false;
        // Other tools may have given a name twice.
        while let Some(at) = self.manifests.iter().position(|entry| entry.name() == Some(tag)) {
            found = true;
            let mut entry = self.manifests.remove(at);
            if self.listed(&entry.digest).is_none() {
                entry.annotations.get_or_insert_default().remove(REF_NAME);
                self.manifests.push(entry);
            }
        }
        found
    }

    /// Takes a manifest and all its tags away. Returns whether it was listed.
    pub(super) fn remove(&mut self, digest: &Digest) -> bool {
        let before = self.manifests.len();
        self.manifests.retain(|entry| entry.digest != *digest);
        self.manifests.len() < before
    }

    /// Drops the entry of a manifest that something else leads to, if it has no name.
    pub(super) fn adopt(&mut self, child: &Digest) {
        self.manifests.retain(|entry| entry.digest != *child || entry.name().is_some());
    }
}

impl Entry {
    fn new(manifest: &Manifest, tag: Option<&str>) -> Self {
        Self {
            media_type: Some(manifest.media_type.clone()),
            digest: manifest.digest.clone(),
            size: manifest.bytes.len() as u64,
            annotations: tag.map(|tag| BTreeMap::from([(REF_NAME.to_owned(), tag.to_owned())])),
            rest: Map::new(),
        }
    }

    fn name(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(REF_NAME).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &'static str) -> Manifest {
        Manifest::parse(text.into(), Digest::of(text.as_bytes()), None).unwrap()
    }

    fn empty() -> Index {
        Index::parse(br#"{"schemaVersion":2,"manifests":[]}"#).unwrap()
    }

    #[test]
    fn a_manifest_is_listed_once_for_each_name_or_once_without() {
        let (one, two) = (manifest(r#"{"manifests":[]}"#), manifest(r#"{"manifests":[] }"#));
        let mut index = empty();
        index.list(&one);
        index.list(&one);
        assert_eq!(index.manifests.len(), 1);
        index.tag(&one, "a");
        index.tag(&one, "b");
        index.tag(&one, "b");
        index.list(&one);
        assert_eq!(index.manifests.len(), 2);

        index.tag(&two, "a");
        index.tag(&two, "b");
        assert_eq!(index.tagged("a").unwrap().digest, two.digest);
        assert_eq!(index.tags(), BTreeSet::from(["a", "b"]));
        assert_eq!(index.listed(&one.digest).unwrap().name(), None);
        assert_eq!(index.manifests.len(), 3);

        assert!(index.untag("a"));
        assert!(!index.untag("a"));
        assert_eq!(index.manifests.len(), 2);
        assert!(index.remove(&two.digest));
        assert!(!index.remove(&two.digest));
        assert!(index.tags().is_empty());
    }

    #[test]
    fn a_child_keeps_its_names_only() {
        let (one, two) = (manifest(r#"{"manifests":[]}"#), manifest(r#"{"manifests":[] }"#));
        let mut index = empty();
        index.list(&one);
        index.tag(&two, "a");
        index.adopt(&one.digest);
        index.adopt(&two.digest);
        assert!(index.listed(&one.digest).is_none());
        assert!(index.listed(&two.digest).is_some());
    }

    #[test]
    fn what_others_wrote_stays() {
        let text = format!(
            r#"{{"schemaVersion":2,"x":[1],"manifests":[{{"digest":"{}","size":0,"annotations":null,"platform":{{"os":"linux"}}}}]}}"#,
            Digest::of(b"")
        );
        let mut index = Index::parse(text.as_bytes()).unwrap();
        index.tag(&manifest(r#"{"manifests":[]}"#), "a");
        let written: Value = serde_json::from_slice(&index.to_bytes()).unwrap();
        assert_eq!(written["x"][0], 1);
        assert_eq!(written["schemaVersion"], 2);
        assert_eq!(written["manifests"][0]["platform"]["os"], "linux");
        assert_eq!(written["manifests"][1]["annotations"][REF_NAME], "a");
        assert!(Index::parse(b"{}").is_err());
    }
}
