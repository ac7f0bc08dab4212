//! The table of contents of a tar archive: by name, what is there and where.
//!
//! Built in one pass over the headers of a file ([`Index::of`]), or entry by entry while an archive is
//! absorbed ([`Index::add`]). Names are keys, compared with the names that manifests hold, and never joined
//! to a path of this machine; links lead to other keys. Two entries of one name that differ are an error as
//! soon as that name is asked for: Docker takes the last and the containers libraries the first.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
};

use bytes::Bytes;
use walkdir::WalkDir;

use super::{
    entry::{EntryHead, EntryKind, read_head},
    entry_data::EntryData,
    header::{padding, truncated},
};
use crate::{
    blob::Blob,
    error::{Context as _, Error, ErrorKind, Result},
    source::Missing,
};

/// What an archive holds, by name.
#[derive(Debug, Default)]
pub struct Index {
    names: HashMap<Box<str>, Named>,
    count: usize,
}

/// What an archive has under one name.
#[derive(Debug)]
struct Named {
    first: Node,
    later: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    File(EntryData),
    Link(Box<str>),
    Unsupported(&'static str),
}

impl Index {
    /// Reads the headers of the archive in `blob`, which must reach as far as they say.
    pub fn of(blob: &Blob) -> Result<Self> {
        let mut index = Self::default();
        let mut offset = 0;
        while let Some(rest) = blob.size().checked_sub(offset) {
            let rest = blob.slice(offset, rest).ok_or_else(|| truncated(offset))?;
            let Some((head, length)) = read_head(&mut rest.reader(), offset)? else { return Ok(index) };
            let start = offset + length;
            let data = blob.slice(start, head.size).ok_or_else(|| truncated(start))?;
            offset = start + head.size + padding(head.size);
            index.add(head, EntryData::Stored(data))?;
        }
        Err(truncated(blob.size()))
    }

    /// Lists the files of an archive that was unpacked into `dir`. Links lead to other files of it, as they do
    /// in the archive.
    pub fn of_folder(dir: &Path) -> Result<Self> {
        let mut index = Self::default();
        let listing = || format!("listing `{}`", dir.display());
        for entry in WalkDir::new(dir).min_depth(1).max_depth(FOLDER_DEPTH).sort_by_file_name() {
            let entry = entry.context(ErrorKind::Source, listing)?;
            let size = entry.metadata().context(ErrorKind::Source, listing)?.len();
            let kind = match entry.file_type() {
                kind if kind.is_file() => EntryKind::File,
                kind if kind.is_symlink() => {
                    let target = fs_err::read_link(entry.path()).context(ErrorKind::Source, listing)?;
                    EntryKind::Symlink(target.to_string_lossy().into_owned())
                }
                _ => EntryKind::Other,
            };
            let path = entry.into_path();
            let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
            index.add(EntryHead { name, kind, size }, EntryData::Closed { path, size })?;
        }
        Ok(index)
    }

    /// Adds the next entry. `data` is what a regular file holds, and is not looked at for other kinds.
    pub fn add(&mut self, head: EntryHead, data: EntryData) -> Result<()> {
        self.count += 1;
        if self.count > ENTRY_LIMIT {
            return Err(Error::source(format!("the archive is over the limit of {ENTRY_LIMIT} entries")));
        }
        let name = normalized(&head.name);
        let node = match head.kind {
            EntryKind::File => Node::File(data),
            EntryKind::Hardlink(target) => Node::Link(normalized(&target).into()),
            EntryKind::Symlink(target) => Node::Link(joined(&name, &target).into()),
            EntryKind::Sparse => Node::Unsupported("a GNU sparse file"),
            EntryKind::Other => Node::Unsupported("not a regular file"),
        };
        match self.names.entry(name.into()) {
            Entry::Occupied(taken) => taken.into_mut().later.push(node),
            Entry::Vacant(free) => drop(free.insert(Named { first: node, later: Vec::new() })),
        }
        Ok(())
    }

    /// Adds a file that is in no archive.
    pub(in crate::source) fn put(&mut self, name: String, bytes: Bytes) -> Result<()> {
        let head = EntryHead { name, kind: EntryKind::File, size: bytes.len() as u64 };
        self.add(head, EntryData::Kept(bytes))
    }

    /// Returns the content of a folder as an archive of its own; links that lead out of it lead nowhere.
    pub(in crate::source) fn below(self, folder: &str) -> Self {
        let inside = |name: &str| name.strip_prefix(folder)?.strip_prefix('/').map(Box::from);
        let moved = |node| match node {
            Node::Link(target) => {
                Node::Link(inside(&target).unwrap_or_else(|| format!("../{target}").into()))
            }
            node => node,
        };
        let names = self.names.into_iter().filter_map(|(name, Named { first, later })| {
            let named = Named { first: moved(first), later: later.into_iter().map(moved).collect() };
            Some((inside(&name)?, named))
        });
        Self { names: names.collect(), count: self.count }
    }

    /// Returns whether there is an entry of this name, of any kind.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains_key(normalized(name).as_str())
    }

    /// Returns all names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(AsRef::as_ref)
    }

    /// Returns the bytes of the regular file of this name, through links. [`Missing`] if there is none.
    pub fn find(&self, name: &str) -> Result<&EntryData> {
        let asked = normalized(name);
        let mut key = asked.clone();
        for _ in 0..=LINK_LIMIT {
            key = match self.node(&key)? {
                Some(Node::File(data)) => return Ok(data),
                Some(Node::Link(target)) if self.names.contains_key(target) => target.to_string(),
                // Absolute targets start at the root of the archive.
                Some(Node::Link(target)) => target.trim_start_matches('/').to_owned(),
                None if asked.is_empty() => return Err(Error::source("the manifest names an empty path")),
                None => {
                    let links = if key == asked {
                        String::new()
                    } else {
                        format!(", to which `{}` links,", asked.escape_debug())
                    };
                    return Err(Error::source(format!(
                        "`{}`{links} is missing from the archive",
                        key.escape_debug()
                    ))
                    .because(Missing));
                }
                Some(Node::Unsupported(what)) => {
                    return Err(Error::source(format!(
                        "unsupported entry: `{}` is {what}",
                        key.escape_debug()
                    )));
                }
            };
        }
        Err(Error::source(format!("`{}` is a loop of links in the archive", asked.escape_debug())))
    }

    /// Returns what is under a name, if that is one thing.
    fn node(&self, key: &str) -> Result<Option<&Node>> {
        let Some(Named { first, later }) = self.names.get(key) else { return Ok(None) };
        // Whoever unpacks the archive has one file for both.
        let absolute = self.names.get(format!("/{key}").as_str()).map(|named| &named.first);
        for other in later.iter().chain(absolute) {
            if !first.equals(other)? {
                return Err(Error::source(format!(
                    "duplicate entry: `{}` occurs twice in the archive, with different content",
                    key.escape_debug()
                )));
            }
        }
        Ok(Some(first))
    }

    /// Reads a small document. [`Missing`] if there is none of this name.
    pub fn read(&self, name: &str, limit: u64) -> Result<Bytes> {
        self.find(name)?.read(limit, &format!("`{}`", name.escape_debug()))
    }
}

impl Node {
    fn equals(&self, other: &Self) -> Result<bool> {
        Ok(match (self, other) {
            (Self::File(one), Self::File(other)) => {
                one.size() == other.size() && one.digest()? == other.digest()?
            }
            (Self::Link(one), Self::Link(other)) => one == other,
            (Self::Unsupported(one), Self::Unsupported(other)) => one == other,
            _ => false,
        })
    }
}

/// An archive of images has as many entries as layers and configs; even a huge mirror stays far below.
const ENTRY_LIMIT: usize = 1_000_000;
/// Docker nests its files three deep.
const FOLDER_DEPTH: usize = 8;
/// Docker follows links through whole chains; nobody writes longer ones.
const LINK_LIMIT: usize = 10;

/// Spells a name without what has no meaning: `./`, doubled and trailing slashes, `..` behind something. A leading `/` and
/// any other `..` stay, so that a name which leads out of the archive is only ever equal to itself.
pub(in crate::source) fn normalized(name: &str) -> String {
    resolved("", name)
}

/// Returns where a symlink called `name` leads.
fn joined(name: &str, target: &str) -> String {
    match name.rfind('/') {
        Some(slash) if !target.starts_with('/') => resolved(&name[..=slash], target),
        _ => normalized(target),
    }
}

/// Returns what a name means in a folder.
fn resolved(folder: &str, name: &str) -> String {
    let root = if folder.starts_with('/') || name.starts_with('/') { "/" } else { "" };
    let mut path: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." if path.last().is_some_and(|&last| last != "..") => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    format!("{root}{}", path.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{oci::Digest, source::Data};

    fn head(name: &str, kind: EntryKind) -> EntryHead {
        EntryHead { name: name.into(), kind, size: 0 }
    }

    fn file(index: &mut Index, name: &str, text: &'static str) {
        index.put(name.into(), text.into()).unwrap();
    }

    fn link(index: &mut Index, name: &str, kind: EntryKind) {
        index.add(head(name, kind), EntryData::Kept(Bytes::new())).unwrap();
    }

    fn read(index: &Index, name: &str) -> Result<Bytes> {
        index.read(name, 100)
    }

    #[test]
    fn a_file_is_indexed_and_read_by_offset() {
        let mut builder = tar::Builder::new(tempfile::NamedTempFile::new().unwrap());
        for (name, text) in [("./a", "one"), ("b//c", "two")] {
            let mut header = tar::Header::new_ustar();
            header.set_path(name).unwrap();
            header.set_size(3);
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        let archive = builder.into_inner().unwrap();
        let index = Index::of(&Blob::open(archive.path()).unwrap()).unwrap();
        assert_eq!(read(&index, "a").unwrap(), "one");
        assert_eq!(read(&index, "./b/c").unwrap(), "two");
        assert!(index.read("a", 2).unwrap_err().message().contains("limit"));
        for (length, whole) in [(1535, false), (1024, true), (514, false), (3, false)] {
            archive.as_file().set_len(length).unwrap();
            match Index::of(&Blob::open(archive.path()).unwrap()) {
                Ok(index) => assert!(whole && index.names().eq(["a"]), "{length}"),
                Err(error) => assert!(!whole && error.message().contains("truncated"), "{error}"),
            }
        }
    }

    #[test]
    fn a_folder_is_an_archive_of_its_own() {
        let mut index = Index::default();
        for (name, text) in
            [("x", "outside"), ("dir/x", "1"), ("./dir/x", "2"), ("dir/in/y", "3"), ("dirx", "4")]
        {
            file(&mut index, name, text);
        }
        link(&mut index, "dir/in/inside", EntryKind::Symlink("y".into()));
        link(&mut index, "dir/hard", EntryKind::Hardlink("dir/in/y".into()));
        link(&mut index, "dir/outside", EntryKind::Symlink("../x".into()));
        let index = index.below("dir");
        for name in ["in/y", "in/inside", "hard"] {
            assert_eq!(read(&index, name).unwrap(), "3", "{name}");
        }
        assert!(read(&index, "x").unwrap_err().message().contains("duplicate"));
        assert!(Missing::is_cause_of(&read(&index, "outside").unwrap_err()));
        assert_eq!(index.names().count(), 5);
    }

    #[test]
    fn an_unpacked_archive_is_read_like_a_packed_one() {
        let dir = tempfile::tempdir().unwrap();
        let out = tempfile::NamedTempFile::new().unwrap();
        fs_err::create_dir(dir.path().join("x")).unwrap();
        fs_err::write(dir.path().join("x/layer.tar"), "layer").unwrap();
        let link =
            |target: &Path, name: &str| std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
        link(Path::new("x/layer.tar"), "in");
        link(out.path(), "out");
        link(Path::new("/x/layer.tar"), "absolute");
        let index = Index::of_folder(dir.path()).unwrap();
        for name in ["x/layer.tar", "in", "absolute"] {
            assert_eq!(read(&index, name).unwrap(), "layer");
        }
        let data = index.find("in").unwrap();
        assert_eq!((data.size(), data.digest().unwrap()), (5, Digest::of(b"layer")));
        assert!(matches!(data.clone().into_data().unwrap(), Data::Stored(_)));
        assert!(Missing::is_cause_of(&read(&index, "out").unwrap_err()));
        assert!(read(&index, "x").unwrap_err().message().contains("unsupported"));
    }

    #[test]
    fn links_lead_to_other_entries_and_nowhere_else() {
        let mut index = Index::default();
        file(&mut index, "x/layer.tar", "layer");
        link(&mut index, "y/layer.tar", EntryKind::Symlink("../x/layer.tar".into()));
        link(&mut index, "hard", EntryKind::Hardlink("./y/layer.tar".into()));
        link(&mut index, "absolute", EntryKind::Symlink("/x/layer.tar".into()));
        link(&mut index, "out", EntryKind::Symlink("../../etc/passwd".into()));
        link(&mut index, "loop", EntryKind::Symlink("loop".into()));
        link(&mut index, "sparse", EntryKind::Sparse);
        for name in ["y/layer.tar", "hard", "absolute"] {
            assert_eq!(read(&index, name).unwrap(), "layer", "{name}");
        }
        let error = read(&index, "out").unwrap_err();
        assert_eq!(error.message(), "`../../etc/passwd`, to which `out` links, is missing from the archive");
        assert!(Missing::is_cause_of(&error));
        assert!(read(&index, "loop").unwrap_err().message().contains("loop"));
        assert!(read(&index, "sparse").unwrap_err().message().contains("unsupported"));
        assert!(Missing::is_cause_of(&read(&index, "nothing").unwrap_err()));
        assert_eq!(read(&index, "").unwrap_err().message(), "the manifest names an empty path");
    }

    #[test]
    fn names_are_keys_and_not_paths() {
        let mut index = Index::default();
        file(&mut index, "/manifest.json", "absolute");
        file(&mut index, "../evil", "up");
        assert!(read(&index, "manifest.json").is_err());
        assert!(read(&index, "evil").is_err());
        assert_eq!(read(&index, "/manifest.json").unwrap(), "absolute");
        assert_eq!(read(&index, "../evil").unwrap(), "up");
    }

    #[test]
    fn a_name_has_many_spellings() {
        for name in ["d/f", "./d/f", "d//f", "d/f/", "x/../d/f", "d/x/.././f", "/d/f"] {
            let mut index = Index::default();
            file(&mut index, name, "one");
            if !name.starts_with('/') {
                assert_eq!(read(&index, "x/..//d/f").unwrap(), "one", "{name}");
            }
            file(&mut index, "d/f", "other");
            assert!(read(&index, "d/f").unwrap_err().message().contains("duplicate"), "{name}");
        }
    }

    #[test]
    fn two_of_one_name_must_be_equal() {
        let mut index = Index::default();
        for text in ["same", "same"] {
            file(&mut index, "a", text);
        }
        for text in ["one", "two"] {
            file(&mut index, "./b", text);
        }
        assert_eq!(read(&index, "a").unwrap(), "same");
        assert!(read(&index, "b").unwrap_err().message().contains("duplicate"));
    }
}
