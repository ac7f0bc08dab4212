//! Reading layouts: what their two documents say, and the blobs of a folder by digest.
//!
//! The documents are parsed from bytes, so that a folder and an archive are read alike. A digest has been
//! parsed before it becomes a path, and nothing but a regular file is opened.

use std::{io, path::Path};

use serde::Deserialize;

use super::{INDEX, OCI_LAYOUT};
use crate::{
    blob::Blob,
    error::{Error, Result},
    oci::{Descriptor, Digest},
};

/// Some 35,000 tags, which take as much memory as the most entries of an archive: larger lists of images are refused.
pub const INDEX_LIMIT: u64 = 8 << 20;
/// [`OCI_LAYOUT`] holds thirty bytes.
pub const OCI_LAYOUT_LIMIT: u64 = 4 << 10;

/// Checks what [`OCI_LAYOUT`] says: only major version 1 is known.
pub fn check_version(bytes: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        image_layout_version: String,
    }
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| Error::source(format!("`{OCI_LAYOUT}` is not valid")).because(error))?;
    let version = document.image_layout_version;
    if version.starts_with("1.") {
        Ok(())
    } else {
        Err(Error::source(format!("unsupported layout version: `{}`", version.escape_debug())))
    }
}

/// Reads what [`INDEX`] lists. A wrong digest anywhere in it is an error before any file is opened.
pub fn parse_index(bytes: &[u8]) -> Result<Vec<Descriptor>> {
    #[derive(Deserialize)]
    struct Document {
        // Must be there, but may be null: gh:moby/moby#47210.
        #[serde(deserialize_with = "Option::deserialize")]
        manifests: Option<Vec<Descriptor>>,
    }
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| Error::source(format!("`{INDEX}` is not valid")).because(error))?;
    Ok(document.manifests.unwrap_or_default())
}

/// Opens a blob in a folder of blobs, if it is there.
pub fn open_blob(blobs: &Path, digest: &Digest) -> Result<Option<Blob>> {
    open_at(&blobs.join(digest.path()))
}

/// Opens a file, if it is there.
pub fn open_at(path: &Path) -> Result<Option<Blob>> {
    match Blob::open(path) {
        Ok(blob) => Ok(Some(blob)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(_) if rustix::fs::stat(path).err() == Some(rustix::io::Errno::LOOP) => {
            Err(Error::source(format!("`{}` is a loop of symlinks", path.display())))
        }
        Err(error) => Err(error),
    }
}

/// Returns whether something failed because a file is not there.
pub fn is_missing(error: &Error) -> bool {
    error.find::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::layout::{OCI_LAYOUT_CONTENT, write};

    #[test]
    fn only_the_first_version_is_known() {
        check_version(OCI_LAYOUT_CONTENT.as_bytes()).unwrap();
        check_version(b"{ \"imageLayoutVersion\": \"1.1.0\" }\n").unwrap();
        let error = check_version(br#"{"imageLayoutVersion":"2.0.0"}"#).unwrap_err();
        assert_eq!(error.message(), "unsupported layout version: `2.0.0`");
        for text in ["", "{}", "null", "1.0.0"] {
            assert!(check_version(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_index_is_right_as_a_whole_or_wrong() {
        for text in [r#"{"schemaVersion":2,"manifests":[]}"#, r#"{"manifests":null}"#] {
            assert!(parse_index(text.as_bytes()).unwrap().is_empty());
        }
        let deep = "[".repeat(100_000);
        let digest = r#"{"manifests":[{"digest":"sha256:../../etc/passwd","size":1}]}"#;
        for text in ["", "[]", "null", "{}", r#"{"manifests":[],"manifests":[]}"#, &deep, digest] {
            assert!(parse_index(text.as_bytes()).is_err(), "{}", &text[..text.len().min(20)]);
        }
    }

    #[test]
    fn a_blob_is_there_or_missing_or_wrong() {
        let dir = tempfile::tempdir().unwrap();
        write::init(dir.path()).unwrap();
        let blobs = dir.path().join("blobs");
        let digest = Digest::of(b"x");
        assert!(open_blob(&blobs, &digest).unwrap().is_none());
        let path = write::blob_path(dir.path(), &digest);
        symlink("nowhere", &path).unwrap();
        assert!(open_blob(&blobs, &digest).unwrap().is_none());
        fs_err::remove_file(&path).unwrap();
        symlink(digest.hex(), &path).unwrap();
        assert!(open_blob(&blobs, &digest).unwrap_err().message().contains("loop"));
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, b"x").unwrap();
        assert_eq!(open_blob(&blobs, &digest).unwrap().unwrap().size(), 1);
    }
}
