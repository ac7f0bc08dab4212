//! Takes the images of one layout over into another: its blobs move, its entries come beside those that are there.

use std::{collections::HashSet, io, path::Path};

use serde_json::Value;

use super::{BLOBS, INDEX, REF_NAME, write};
use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    lock::Locked,
};

/// Moves everything of the layout `from` into the layout `into`, which is made if there is none; both are on one
/// filesystem. A name that both have goes to the image that comes. Whoever reads `into` meanwhile sees no image
/// without its blobs.
pub fn take_over(from: &Path, into: &Path) -> Result<()> {
    let merging = || format!("writing the OCI layout `{}`", into.display());
    let come = read(from)?;
    write::init(into)?;
    // Two at the same time would each lose what the other one adds.
    let _lock = fs_err::File::open(into).and_then(Locked::wait).context(ErrorKind::Local, merging)?;
    let mut index = read(into)?;
    let come = entries(&come)?.clone();
    let names: HashSet<_> = come.iter().filter_map(name).collect();
    let unnamed: HashSet<_> =
        come.iter().filter(|entry| name(entry).is_none()).map(|entry| entry["digest"].clone()).collect();
    let there = index.get_mut("manifests").ok_or_else(no_list)?;
    // What `parse_index` takes for an empty list.
    if there.is_null() {
        *there = Value::Array(Vec::new());
    }
    let there = there.as_array_mut().ok_or_else(no_list)?;
    there.retain(|entry| match name(entry) {
        Some(name) => !names.contains(name),
        None => !unnamed.contains(&entry["digest"]),
    });
    there.extend(come.iter().cloned());
    let bytes = serde_json::to_vec(&index).context(ErrorKind::Internal, merging)?;
    write::check_index(bytes.len() as u64)?;
    move_blobs(&from.join(BLOBS), &into.join(BLOBS)).context(ErrorKind::Local, merging)?;
    write::write_atomic(&into.join(INDEX), &bytes)
}

fn move_blobs(from: &Path, into: &Path) -> io::Result<()> {
    for algorithm in fs_err::read_dir(from)? {
        let algorithm = algorithm?;
        let folder = into.join(algorithm.file_name());
        fs_err::create_dir_all(&folder)?;
        for blob in fs_err::read_dir(algorithm.path())? {
            let blob = blob?;
            // Also where there is one: whoever was interrupted may have left half of it, and what comes is whole.
            fs_err::rename(blob.path(), folder.join(blob.file_name()))?;
        }
        write::sync(&folder)?;
    }
    Ok(())
}

fn read(dir: &Path) -> Result<Value> {
    let path = dir.join(INDEX);
    let reading = || format!("reading `{}`", path.display());
    let bytes = fs_err::read(&path).context(ErrorKind::Local, reading)?;
    write::check_index(bytes.len() as u64)?;
    serde_json::from_slice(&bytes).context(ErrorKind::Local, reading)
}

fn entries(index: &Value) -> Result<&Vec<Value>> {
    index.get("manifests").and_then(Value::as_array).ok_or_else(no_list)
}

fn no_list() -> Error {
    Error::local(format!("`{INDEX}` lists no manifests"))
}

fn name(entry: &Value) -> Option<&str> {
    entry["annotations"][REF_NAME].as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        layout::{archive::write_archive, read::INDEX_LIMIT},
        oci::Digest,
    };

    fn layout(dir: &Path, entries: &Value, blobs: &[&str]) {
        write::init(dir).unwrap();
        let index = json!({ "schemaVersion": 2, "x": 1, "manifests": entries });
        fs_err::write(dir.join(INDEX), index.to_string()).unwrap();
        for blob in blobs {
            fs_err::write(write::blob_path(dir, &Digest::of(blob.as_bytes())), blob).unwrap();
        }
    }

    fn entry(digest: &str, name: Option<&str>) -> Value {
        match name {
            Some(name) => json!({ "digest": digest, "annotations": { REF_NAME: name } }),
            None => json!({ "digest": digest }),
        }
    }

    #[test]
    fn what_comes_stands_beside_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (from, into) = (dir.path().join("from"), dir.path().join("into"));
        layout(
            &into,
            &json!([entry("a", Some("1")), entry("b", Some("2")), entry("c", None)]),
            &["b", "shared"],
        );
        layout(&from, &json!([entry("d", Some("2")), entry("c", None)]), &["d", "shared"]);
        take_over(&from, &into).unwrap();
        let expected = json!([entry("a", Some("1")), entry("d", Some("2")), entry("c", None)]);
        let index = read(&into).unwrap();
        assert_eq!((&index["manifests"], &index["x"]), (&expected, &json!(1)));
        for blob in ["b", "d", "shared"] {
            let path = write::blob_path(&into, &Digest::of(blob.as_bytes()));
            assert_eq!(fs_err::read_to_string(path).unwrap(), blob);
        }
    }

    #[test]
    fn what_nobody_could_read_again_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let (from, into) = (dir.path().join("from"), dir.path().join("into"));
        let most = (INDEX_LIMIT / 2) as usize;
        layout(&from, &json!([entry(&"a".repeat(most), None)]), &["a"]);
        take_over(&from, &into).unwrap();
        layout(&from, &json!([entry(&"b".repeat(most), None)]), &["b"]);
        let error = take_over(&from, &into).unwrap_err();
        assert!(error.message().contains("over the limit"), "{error}");
        assert_eq!(entries(&read(&into).unwrap()).unwrap().len(), 1);
        assert!(!write::blob_path(&into, &Digest::of(b"b")).exists());
        layout(&from, &json!([entry(&"b".repeat(2 * most), None)]), &["b"]);
        let other = dir.path().join("other");
        for error in [take_over(&from, &other), write_archive(&from, &other)].map(Result::unwrap_err) {
            assert!(error.message().contains("over the limit") && !other.exists(), "{error}");
        }
    }

    #[test]
    fn what_is_left_of_an_interrupted_copy_is_made_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (from, into) = (dir.path().join("from"), dir.path().join("into"));
        layout(&into, &json!([]), &[]);
        let path = write::blob_path(&into, &Digest::of(b"whole"));
        fs_err::write(&path, "wh").unwrap();
        layout(&from, &json!([entry("a", None)]), &["whole"]);
        take_over(&from, &into).unwrap();
        assert_eq!(fs_err::read_to_string(path).unwrap(), "whole");
    }

    #[test]
    fn a_folder_that_is_no_layout_yet_becomes_one() {
        let dir = tempfile::tempdir().unwrap();
        let (from, into) = (dir.path().join("from"), dir.path().join("deep/into"));
        layout(&from, &json!([entry("a", None)]), &["a"]);
        take_over(&from, &into).unwrap();
        assert_eq!(entries(&read(&into).unwrap()).unwrap().len(), 1);
        fs_err::write(into.join(INDEX), r#"{"manifests":null}"#).unwrap();
        layout(&from, &json!([entry("a", None)]), &["a"]);
        take_over(&from, &into).unwrap();
        assert_eq!(entries(&read(&into).unwrap()).unwrap().len(), 1);
        fs_err::write(into.join(INDEX), "{}").unwrap();
        assert!(take_over(&from, &into).unwrap_err().message().contains("lists no manifests"));
    }
}
