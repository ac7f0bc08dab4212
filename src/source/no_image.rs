//! What a path is that holds no image this version can read: found out only to say so.
//!
//! People point at the wrong folder, at a page that a proxy sent in place of an archive, at the root file
//! system that `docker export` wrote. The error names what was found, what was looked for, and the next step.

use std::path::Path;

use super::{archive::Index, formats::docker_archive::MANIFEST};
use crate::{
    error::Error,
    layout::{BLOBS, INDEX, OCI_LAYOUT},
};

/// Says what a folder is, if not an OCI layout.
pub(super) fn folder(dir: &Path) -> Error {
    let name = dir.display();
    let has = |file: &str| dir.join(file).exists();
    if has(OCI_LAYOUT) {
        return Error::source(format!("`{name}` is an OCI layout without `{INDEX}`"));
    }
    if has(INDEX) {
        return Error::source(format!("`{name}` is an OCI layout without `{BLOBS}`"))
            .with_hint("name the folder of blobs that it shares with others: `--blob-dir DIR`");
    }
    if has("image") && has("containers") && has("volumes") {
        return Error::source(format!(
            "`{name}` is Docker's storage, and Docker keeps its images in containerd"
        ))
        .with_hint("read those: `containerd:moby/NAME`");
    }
    Error::source(format!("`{name}` holds no images: neither `{OCI_LAYOUT}` nor `{INDEX}` is in it"))
}

/// Says what a file is that begins with `head`, if not an archive.
pub(super) fn file(head: &[u8], name: &str) -> Error {
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start();
    let starts =
        |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let found = |what: &str| Error::source(format!("{name} is {what} and no image archive"));
    if starts("#!") {
        return found("a script")
            .with_hint("Nix's `streamLayeredImage` makes one: push what it writes by `--from-command`");
    }
    if starts("{") || starts("[") {
        return if text.contains("\"schemaVersion\"") {
            found("a manifest without its blobs").with_hint("name the folder or archive that it belongs to")
        } else {
            found("a JSON document")
        };
    }
    if starts("<!doctype html") || starts("<html") || starts("<?xml") {
        return found("a web page").with_hint("the download of the archive went wrong");
    }
    match head {
        [0x7f, b'E', b'L', b'F', ..] => found("a program"),
        [b'P', b'K', 3, 4, ..] => found("a zip file"),
        [b'h', b's', b'q', b's', ..] => found("a squashfs file system"),
        [b'Q', b'F', b'I', 0xfb, ..] => found("a virtual disk"),
        _ => Error::source(format!("{name} is no tar archive")),
    }
}

/// Says what an archive is that has neither list of images.
pub(super) fn archive(index: &Index) -> Error {
    let lacks = |what: &str| Error::source(format!("the archive has no `{MANIFEST}` and no `{INDEX}`{what}"));
    let any = |test: &dyn Fn(&str) -> bool| index.names().any(test);
    if index.names().next().is_none() {
        return Error::source("it is no image archive: it begins with zeros, as a tar of nothing does");
    }
    let mut elsewhere: Vec<&str> =
        index.names().filter(|name| matches!(name.rsplit_once('/'), Some((_, MANIFEST | INDEX)))).collect();
    elsewhere.sort_unstable();
    if let Some(found) = elsewhere.first() {
        return lacks(&format!(" at its root, but `{}`", found.escape_debug()))
            .with_hint("pack the folder's content: `tar -C FOLDER -cf image.tar .`");
    }
    if index.contains(OCI_LAYOUT) {
        return lacks(", although it says that it is an OCI layout");
    }
    if index.contains("repositories") && any(&|name| name.ends_with("/layer.tar")) {
        return lacks(": it was written by docker before 1.10")
            .with_hint("load it into Docker up to 28 and save it again");
    }
    if any(&|name| name.ends_with("/layer.tar")) || any(&|name| name.starts_with("blobs/sha256/")) {
        return lacks(": what there is of it comes from an image, so the archive may be cut off");
    }
    let folders = ["bin", "dev", "etc", "lib", "proc", "sbin", "sys", "usr", "var"];
    let is_root = |folder: &&str| {
        index.contains(folder)
            || any(&|name: &str| name.strip_prefix(*folder).is_some_and(|rest| rest.starts_with('/')))
    };
    if folders.iter().filter(|folder| is_root(folder)).count() > 1 {
        return lacks(": it looks like a root filesystem, as `docker export` writes it")
            .with_hint("an image is written by `docker save` or `podman save`");
    }
    lacks("")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::error::chain;

    fn said(entries: &[&str]) -> String {
        let mut index = Index::default();
        for name in entries {
            index.put((*name).to_owned(), Bytes::new()).unwrap();
        }
        archive(&index).message().to_owned()
    }

    #[test]
    fn an_archive_without_images_is_told_apart() {
        for (entries, words) in [
            (&[][..], "begins with zeros"),
            (&["/manifest.json", "/c.json"], "but `/manifest.json`"),
            (&["image/blobs/x", "image/index.json"], "but `image/index.json`"),
            (&["repositories", "ab/json", "ab/layer.tar"], "before 1.10"),
            (&["ab/json", "ab/layer.tar"], "cut off"),
            (&["etc/passwd", "./usr/bin/env"], "root filesystem"),
            (&["etc/passwd"], "no `manifest.json` and no `index.json`"),
        ] {
            assert!(said(entries).contains(words), "{entries:?}: {}", said(entries));
        }
    }

    #[test]
    fn a_file_that_is_no_archive_is_told_apart() {
        for (head, words) in [
            (&b"#!/nix/store/x"[..], "script"),
            (b"{\"schemaVersion\":2}", "manifest without its blobs"),
            (b"\n<!DOCTYPE html>", "web page"),
            (b"\x7fELF\x02", "program"),
            (b"", "no tar archive"),
            (b"\xff\xfe\xfd", "no tar archive"),
        ] {
            assert!(file(head, "it").message().contains(words), "{head:?}");
        }
    }

    #[test]
    fn a_folder_of_another_kind_is_told_apart() {
        for (files, words) in [
            (&[("index.json", "")][..], "without `blobs`"),
            (&[("x", "")], "neither `oci-layout` nor `index.json`"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = dir.path().join(name);
                fs_err::create_dir_all(path.parent().unwrap()).unwrap();
                fs_err::write(path, text).unwrap();
            }
            let error = folder(dir.path());
            assert!(chain(&error).contains(words), "{error}");
        }
    }
}
