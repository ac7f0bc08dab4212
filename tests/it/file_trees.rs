//! What tells file trees apart in the tests does tell them apart.

use std::{
    os::unix::fs::{PermissionsExt, lchown, symlink},
    path::Path,
};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, setxattr, utimensat,
};

use crate::support::{capability, tree::Tree};

type Change = fn(&Path);

/// What is done to a tree, and the one name in it that differs then.
const CHANGES: &[(&str, Change)] = &[
    ("a", |root| rewrite(&root.join("a"), "CONTENT")),
    ("a", |root| rewrite(&root.join("a"), "content, and more")),
    ("a", |root| fs_err::set_permissions(root.join("a"), PermissionsExt::from_mode(0o4755)).unwrap()),
    ("a", |root| set_time(&root.join("a"), 1)),
    ("a", |root| lchown(root.join("a"), Some(1), None).unwrap()),
    ("a", |root| lchown(root.join("a"), None, Some(1)).unwrap()),
    ("a", |root| setxattr(root.join("a"), "trusted.it", b"1", XattrFlags::empty()).unwrap()),
    ("b", |root| {
        fs_err::remove_file(root.join("b")).unwrap();
        rewrite(&root.join("b"), "content");
    }),
    ("device", |root| make_device(&root.join("device"), 2)),
    ("folder", |root| {
        fs_err::remove_dir(root.join("folder")).unwrap();
        rewrite(&root.join("folder"), "");
    }),
    ("link", |root| {
        fs_err::remove_file(root.join("link")).unwrap();
        make_link(&root.join("link"), "b");
    }),
    ("new", |root| rewrite(&root.join("new"), "")),
    ("single", |root| fs_err::remove_file(root.join("single")).unwrap()),
];

#[test]
fn one_difference_between_two_trees_is_found() {
    if capability::is_unavailable("root") {
        return;
    }
    let same = changed(|_| ());
    assert_eq!(same.differences(&changed(|_| ())), Vec::<String>::new());
    for (number, (name, change)) in CHANGES.iter().enumerate() {
        let differences = same.differences(&changed(change));
        // Names of one file have it all in common.
        let differences: Vec<_> =
            differences.iter().filter(|said| *name == "b" || !said.starts_with("`b`")).collect();
        assert!(
            matches!(&differences[..], [only] if only.starts_with(&format!("`{name}`"))),
            "change {number}: {differences:?}"
        );
    }
}

/// Makes a tree, and does something to it.
fn changed(change: impl Fn(&Path)) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    rewrite(&root.join("a"), "content");
    fs_err::hard_link(root.join("a"), root.join("b")).unwrap();
    rewrite(&root.join("single"), "");
    make_device(&root.join("device"), 1);
    make_link(&root.join("link"), "a");
    fs_err::create_dir(root.join("folder")).unwrap();
    set_time(&root.join("folder"), 0);
    change(root);
    Tree::read(root).unwrap()
}

fn rewrite(path: &Path, content: &str) {
    fs_err::write(path, content).unwrap();
    set_time(path, 0);
}

fn make_device(path: &Path, minor: u32) {
    // One may be there already.
    fs_err::remove_file(path).ok();
    let number = rustix::fs::makedev(1, minor);
    mknodat(CWD, path, FileType::CharacterDevice, Mode::from(0o644), number).unwrap();
    set_time(path, 0);
}

fn make_link(path: &Path, target: &str) {
    symlink(target, path).unwrap();
    set_time(path, 0);
}

fn set_time(path: &Path, nanoseconds: i64) {
    let time = Timespec { tv_sec: 1, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
