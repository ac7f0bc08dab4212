//! A document with other descriptors in it: the only way in which a manifest that a source holds ever changes.
//!
//! The text is cut at the descriptors that change and at its own media type; everything else stays byte for
//! byte: unknown fields, annotations, order, white space. Pure: what the new values are is said by the caller.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Digest, Manifest};
use crate::error::{Context as _, Error, ErrorKind, Result};

/// What becomes of one descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// It names other bytes: their digest and size.
    pub target: Option<(Digest, u64)>,
    /// They are of another media type.
    pub media_type: Option<String>,
    /// Annotations with another value.
    pub annotations: BTreeMap<String, String>,
    /// Annotations that no longer hold.
    pub dropped: Vec<String>,
}

/// What becomes of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Its own media type.
    pub media_type: Option<String>,
    /// Its config.
    pub config: Change,
    /// Its layers or, in an index, its manifests, by position.
    pub entries: BTreeMap<usize, Change>,
}

impl Change {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Changes {
    /// Returns whether nothing changes.
    pub fn is_none(&self) -> bool {
        self.media_type.is_none() && self.config.is_none() && self.entries.values().all(Change::is_none)
    }
}

impl Manifest {
    /// Returns the document with these changes; without any, the very same.
    pub fn rewrite(&self, changes: &Changes) -> Result<Self> {
        if changes.is_none() {
            return Ok(self.clone());
        }
        let rewriting = || format!("rewriting manifest {}", self.digest);
        let text = std::str::from_utf8(&self.bytes).context(ErrorKind::Source, rewriting)?;
        let document: Object<'_> = serde_json::from_str(text).context(ErrorKind::Source, rewriting)?;
        let mut cuts = Cuts { text, cuts: Vec::new() };
        if let Some(media_type) = &changes.media_type {
            match document.get("mediaType") {
                Some(old) => cuts.replace(old, quoted(media_type)),
                None => cuts.open(format!("\"mediaType\":{},", quoted(media_type)))?,
            }
        }
        if let (Some(config), false) = (document.get("config"), changes.config.is_none()) {
            cuts.replace(config, changes.config.apply(config).context(ErrorKind::Source, rewriting)?);
        }
        if let Some(entries) = document.get("layers").or_else(|| document.get("manifests")) {
            let entries: Option<Vec<&RawValue>> =
                serde_json::from_str(entries.get()).context(ErrorKind::Source, rewriting)?;
            let entries = entries.unwrap_or_default();
            for (at, change) in changes.entries.iter().filter(|(_, change)| !change.is_none()) {
                let entry = entries.get(*at).ok_or_else(|| Error::internal(rewriting()))?;
                cuts.replace(entry, change.apply(entry).context(ErrorKind::Source, rewriting)?);
            }
        }
        let bytes = cuts.apply().into_bytes();
        let digest = Digest::of(&bytes);
        let declared = changes.media_type.as_deref().unwrap_or(&self.media_type);
        Self::parse(bytes.into(), digest, Some(declared))
    }
}

impl Change {
    /// Writes a descriptor anew: its members in their order, the values of those that stay as they were.
    fn apply(&self, descriptor: &RawValue) -> serde_json::Result<String> {
        let descriptor: Object<'_> = serde_json::from_str(descriptor.get())?;
        let mut members: Vec<(String, String)> = Vec::new();
        for (key, value) in &descriptor.0 {
            let value = match (key.as_str(), &self.target, &self.media_type) {
                // Bytes that are embedded are those it named before.
                ("data", Some(_), _) => continue,
                ("digest", Some((digest, _)), _) => quoted(&digest.to_string()),
                ("size", Some((_, size)), _) => size.to_string(),
                ("mediaType", _, Some(media_type)) => quoted(media_type),
                ("annotations", _, _) => self.annotated(value)?,
                _ => value.get().to_owned(),
            };
            members.push((key.clone(), value));
        }
        if let (None, Some(media_type)) = (descriptor.get("mediaType"), &self.media_type) {
            members.insert(0, ("mediaType".to_owned(), quoted(media_type)));
        }
        Ok(object(&members))
    }

    fn annotated(&self, annotations: &RawValue) -> serde_json::Result<String> {
        let Some(annotations) = serde_json::from_str::<Option<Object<'_>>>(annotations.get())? else {
            return Ok(annotations.get().to_owned());
        };
        let kept = annotations.0.iter().filter(|(key, _)| !self.dropped.contains(key));
        let members = kept.map(|(key, value)| {
            let value = self.annotations.get(key).map_or_else(|| value.get().to_owned(), |text| quoted(text));
            (key.clone(), value)
        });
        Ok(object(&members.collect::<Vec<_>>()))
    }
}

/// The members of a JSON object, in their order, their values as they are written.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(member, _)| member == key).map(|(_, value)| *value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Self)
    }
}

/// Pieces of a text that are replaced.
struct Cuts<'a> {
    text: &'a str,
    cuts: Vec<(usize, usize, String)>,
}

impl Cuts<'_> {
    /// Replaces a value, which must be a part of the text.
    fn replace(&mut self, old: &RawValue, new: String) {
        let at = old.get().as_ptr() as usize - self.text.as_ptr() as usize;
        self.cuts.push((at, at + old.get().len(), new));
    }

    /// Puts something behind the brace that opens the text.
    fn open(&mut self, new: String) -> Result<()> {
        let at = self.text.find('{').ok_or_else(|| Error::internal("a document without a brace"))? + 1;
        self.cuts.push((at, at, new));
        Ok(())
    }

    fn apply(mut self) -> String {
        self.cuts.sort_unstable();
        let mut result = String::new();
        let mut copied = 0;
        for (start, end, new) in self.cuts {
            result.push_str(&self.text[copied..start]);
            result.push_str(&new);
            copied = end;
        }
        result + &self.text[copied..]
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn object(members: &[(String, String)]) -> String {
    let members: Vec<_> = members.iter().map(|(key, value)| format!("{}:{value}", quoted(key))).collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn parsed(text: &str) -> Manifest {
        Manifest::parse(Bytes::copy_from_slice(text.as_bytes()), Digest::of(text.as_bytes()), None).unwrap()
    }

    fn rewritten(text: &str, changes: &Changes) -> String {
        let manifest = parsed(text).rewrite(changes).unwrap();
        assert_eq!(manifest.digest, Digest::of(&manifest.bytes));
        String::from_utf8(manifest.bytes.to_vec()).unwrap()
    }

    fn target() -> Change {
        Change { target: Some((Digest::of(b"new"), 3)), ..Change::default() }
    }

    #[test]
    fn only_the_descriptor_that_changes_is_written_anew() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let text = format!(
            r#"{{ "x-unknown": [1.0, 1e2],
  "layers": [ {{"digest": "{old}", "size": 1, "mediaType":"a"}} ,
    {{"digest":"{old}","x":{{ "b": 1,"a":2}},"data":"b2xk","size":3}}],
  "config" : {{"mediaType":"c", "digest":"{old}","size":3}}, "annotations": null }}"#
        );
        let changes = Changes { entries: BTreeMap::from([(1, target())]), ..Changes::default() };
        let expected = text.replace(
            &format!(r#"{{"digest":"{old}","x":{{ "b": 1,"a":2}},"data":"b2xk","size":3}}"#),
            &format!(r#"{{"digest":"{new}","x":{{ "b": 1,"a":2}},"size":3}}"#),
        );
        assert_ne!(expected, text);
        assert_eq!(rewritten(&text, &changes), expected);
        assert_eq!(rewritten(&text, &Changes::default()), text);
    }

    #[test]
    fn annotations_are_changed_and_dropped_one_by_one() {
        let old = Digest::of(b"old");
        let text = format!(
            r#"{{"config":{{"digest":"{old}","size":3}},"layers":[{{"digest":"{old}","size":3,"annotations":{{"z":"1","toc":"2","é\"":"3","a":"4"}}}}]}}"#
        );
        let change = Change {
            dropped: vec!["toc".into()],
            annotations: BTreeMap::from([("a".into(), "\n".into()), ("none".into(), "5".into())]),
            media_type: Some("t".into()),
            ..Change::default()
        };
        let changes = Changes { entries: BTreeMap::from([(0, change)]), ..Changes::default() };
        let expected = text
            .replace(r#"{"z":"1","toc":"2","é\"":"3","a":"4"}"#, r#"{"z":"1","é\"":"3","a":"\n"}"#)
            .replace(r#""layers":[{"#, r#""layers":[{"mediaType":"t","#);
        assert_eq!(rewritten(&text, &changes), expected);
    }

    #[test]
    fn a_document_gets_another_media_type_or_its_first() {
        let index = "application/vnd.oci.image.index.v1+json";
        let changes = Changes { media_type: Some(index.into()), ..Changes::default() };
        let list = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[]}"#;
        let expected = format!(r#"{{"schemaVersion":2,"mediaType":"{index}","manifests":[]}}"#);
        assert_eq!(rewritten(list, &changes), expected);
        let expected = format!(r#" {{"mediaType":"{index}", "manifests":[]}}"#);
        assert_eq!(rewritten(r#" { "manifests":[]}"#, &changes), expected);
    }

    #[test]
    fn the_entries_of_an_index_change_alike() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let text =
            format!(r#"{{"manifests":[{{"digest":"{old}","size":9}},{{"digest":"{old}","size":9}}]}}"#);
        let changes = Changes { entries: BTreeMap::from([(0, target())]), ..Changes::default() };
        let expected =
            format!(r#"{{"manifests":[{{"digest":"{new}","size":3}},{{"digest":"{old}","size":9}}]}}"#);
        assert_eq!(rewritten(&text, &changes), expected);
    }
}
