//! What a bundle leaves out, because the site it goes to has it: a file of the archive that other tools pass over.
//!
//! `longshore.json`: `{"version":1,"leftOut":[{"digest":"sha256:…","size":1234,"repositories":["team/app"]}]}`. The
//! repositories are where the site has a blob, without the registry's host, which may have several names. Keys may be
//! added; those that are there stay.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    oci::Digest,
};

/// The name of the file.
pub const LEFT_OUT: &str = "longshore.json";
/// Some hundred thousand blobs.
pub const LEFT_OUT_LIMIT: u64 = 64 << 20;

/// What a bundle leaves out: blobs that its images name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    version: u64,
    /// In the order of their digests.
    #[serde(rename = "leftOut")]
    blobs: Vec<Absent>,
}

/// A blob that a bundle leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// Where the site has it, as far as that is known.
    #[serde(default)]
    pub repositories: Vec<String>,
}

impl LeftOut {
    /// Lists these blobs.
    pub fn new(mut blobs: Vec<Absent>) -> Self {
        blobs.sort_by(|one, other| one.digest.cmp(&other.digest));
        Self { version: VERSION, blobs }
    }

    /// Lists what another bundle leaves out too.
    pub fn extend(&mut self, other: &Self) {
        *self = Self::new(self.blobs.iter().chain(&other.blobs).cloned().collect());
    }

    /// Returns what is known of a blob, if it was left out.
    pub fn find(&self, digest: &Digest) -> Option<&Absent> {
        let at = self.blobs.binary_search_by(|absent| absent.digest.cmp(digest)).ok()?;
        self.blobs.get(at)
    }

    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let read: Self = serde_json::from_slice(bytes)
            .context(ErrorKind::Source, || format!("`{LEFT_OUT}` is not valid"))?;
        if read.version == VERSION {
            Ok(Self::new(read.blobs))
        } else {
            let words = format!("unsupported version of `{LEFT_OUT}`: {}", read.version);
            Err(Error::source(words).with_hint("a newer longshore reads it"))
        }
    }

    /// Returns what to write: no more than would be read.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.to_bytes_within(LEFT_OUT_LIMIT)
    }

    fn to_bytes_within(&self, limit: u64) -> Result<Vec<u8>> {
        let bytes =
            serde_json::to_vec(self).context(ErrorKind::Internal, || format!("writing `{LEFT_OUT}`"))?;
        if bytes.len() as u64 <= limit {
            return Ok(bytes);
        }
        let words = format!("more is left out than one bundle can list: `{LEFT_OUT}` is over {limit} bytes");
        Err(Error::usage(words).with_hint("make several bundles"))
    }
}

/// What this program reads and writes.
const VERSION: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_documented() {
        let absent = Absent { digest: Digest::of(b""), size: 3, repositories: vec!["team/app".to_owned()] };
        let list = LeftOut::new(vec![absent]);
        let text = format!(
            r#"{{"version":1,"leftOut":[{{"digest":"{}","size":3,"repositories":["team/app"]}}]}}"#,
            Digest::of(b"")
        );
        assert_eq!(list.to_bytes().unwrap(), text.as_bytes());
        assert_eq!(LeftOut::parse(text.as_bytes()).unwrap(), list);
        assert!(list.to_bytes_within(text.len() as u64).is_ok());
        let error = list.to_bytes_within(text.len() as u64 - 1).unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.message().contains("more is left out"), "{error}");
        assert_eq!(list.find(&Digest::of(b"")).unwrap().size, 3);
        assert_eq!(list.find(&Digest::of(b"x")), None);
        // Others may write it in another order.
        let absent = |text: &[u8]| Absent { digest: Digest::of(text), size: 1, repositories: Vec::new() };
        let mut blobs = [absent(b"a"), absent(b"b"), absent(b"c")].to_vec();
        blobs.sort_by(|one, other| other.digest.cmp(&one.digest));
        let text = serde_json::to_vec(&LeftOut { version: VERSION, blobs }).unwrap();
        let read = LeftOut::parse(&text).unwrap();
        assert!([b"a", b"b", b"c"].iter().all(|name| read.find(&Digest::of(&name[..])).is_some()));
        for (wrong, words) in [("{}", "not valid"), (r#"{"version":2,"leftOut":[]}"#, "version of")] {
            let error = LeftOut::parse(wrong.as_bytes()).unwrap_err();
            assert!(error.kind() == ErrorKind::Source && error.message().contains(words), "{error}");
        }
    }
}
