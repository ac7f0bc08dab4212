//! A file tree as a container would see it, to be compared with what another tool unpacked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::CString,
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use longshore::oci::Digest;
use walkdir::WalkDir;

/// Everything below a folder. The folder itself is left out: images rarely speak of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tree(BTreeMap<PathBuf, Node>);

#[derive(Clone, Debug, PartialEq)]
struct Node {
    /// Type and permissions.
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds since 1970. podman knows no time before that.
    modified: (i64, i64),
    attributes: BTreeMap<CString, Vec<u8>>,
    content: Content,
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Device(u64),
    File(Digest, u64),
    Link(PathBuf),
    /// A file with more than one name: the first of them.
    Same(PathBuf),
    Nothing,
}

impl Tree {
    /// Reads what lies below `root`.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut nodes = BTreeMap::new();
        let mut seen = HashMap::new();
        for entry in WalkDir::new(root).min_depth(1).sort_by_file_name() {
            let entry = entry?;
            let path = entry.path();
            let name = path.strip_prefix(root).map_err(io::Error::other)?.to_owned();
            let metadata = entry.metadata()?;
            let kind = metadata.file_type();
            let content = if kind.is_file() {
                match seen.get(&metadata.ino()) {
                    Some(first) => Content::Same(PathBuf::clone(first)),
                    None => Content::File(Digest::of(&fs_err::read(path)?), metadata.len()),
                }
            } else if kind.is_symlink() {
                Content::Link(fs_err::read_link(path)?)
            } else if kind.is_char_device() || kind.is_block_device() {
                Content::Device(metadata.rdev())
            } else {
                Content::Nothing
            };
            seen.entry(metadata.ino()).or_insert_with(|| name.clone());
            let node = Node {
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                modified: if metadata.mtime() < 0 {
                    (0, 0)
                } else {
                    (metadata.mtime(), metadata.mtime_nsec())
                },
                attributes: attributes(path)?,
                content,
            };
            nodes.insert(name, node);
        }
        Ok(Self(nodes))
    }

    /// Returns how many names there are.
    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }

    /// Says how another tree differs, name by name.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let differs = |name: &&&PathBuf| self.0.get(**name) != other.0.get(**name);
        let said = |name: &PathBuf| {
            format!("`{}`: {:?} instead of {:?}", name.display(), other.0.get(name), self.0.get(name))
        };
        names.iter().filter(differs).map(|name| said(name)).collect()
    }
}

/// Returns the extended attributes, less what the machine puts on every file.
fn attributes(path: &Path) -> io::Result<BTreeMap<CString, Vec<u8>>> {
    let mut names = vec![0; 64 << 10];
    let size = rustix::fs::llistxattr(path, &mut names)?;
    let names = names[..size].split(|&byte| byte == 0);
    let names = names.filter(|name| !name.is_empty() && *name != b"security.selinux");
    let attribute = |name: &[u8]| {
        let name = CString::new(name)?;
        let mut value = vec![0; 64 << 10];
        let size = rustix::fs::lgetxattr(path, &name, &mut value)?;
        value.truncate(size);
        Ok((name, value))
    };
    names.map(attribute).collect()
}
