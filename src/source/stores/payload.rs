//! The files of a layer, where a storage driver unpacked them; opened so that nothing can lead out of the layer.
//!
//! Names come from the layer's tar and links in the folder from whoever made the image: both may point at this
//! machine's own files. The kernel resolves them with the layer as root, whatever they say.

use std::{
    collections::HashMap,
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, OFlags, fstat},
    io::Errno,
};
use serde::Deserialize;

use super::denied;
use crate::{
    error::{Context as _, Error, ErrorKind, Result, printable},
    oci::Digest,
};

/// The folder that a layer is unpacked in.
#[derive(Debug)]
pub struct Payloads {
    folder: OwnedFd,
    path: PathBuf,
    objects: Option<Objects>,
}

/// Files by content, as composefs keeps them: which digest a name in the layer has.
#[derive(Debug)]
pub struct Objects(HashMap<Vec<u8>, Digest>);

impl Payloads {
    /// Opens the folder `layer` below `base`; no link on the way may lead out of `base`.
    pub fn open(base: &Path, layer: &str) -> Result<Self> {
        let path = base.join(layer);
        let folder = beneath::folder(base, layer).map_err(|errno| match errno {
            Errno::ACCESS | Errno::PERM => denied(&format!("`{}`", path.display()), base),
            Errno::NOENT => Error::source(format!("the layer's folder `{}` is missing", path.display())),
            Errno::NOSYS => no_openat2(),
            errno => Error::source(format!("the layer's folder `{}` cannot be opened", path.display()))
                .because(std::io::Error::from(errno)),
        })?;
        Ok(Self { folder, path, objects: None })
    }

    /// Takes files by content instead of by name.
    #[must_use]
    pub fn by_content(self, objects: Objects) -> Self {
        Self { objects: Some(objects), ..self }
    }

    /// Opens the regular file that the layer's tar calls `name`, and returns its size, too.
    pub fn file(&self, name: &[u8]) -> Result<(File, u64)> {
        let path = cleaned(name);
        let path = match &self.objects {
            None => path,
            Some(Objects(objects)) => {
                let digest = objects.get(&path).ok_or_else(|| {
                    Error::source(format!("{} is not in the layer's table of contents", self.named(name)))
                })?;
                let (folder, file) = digest.hex().split_at(2);
                format!("{folder}/{file}").into_bytes()
            }
        };
        // A FIFO would wait for its writer for ever, and no file of a tar was a link when it was unpacked.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = beneath::file(&self.folder, &path, flags).map_err(|errno| self.unopened(name, errno))?;
        let stat = fstat(&file).context(ErrorKind::Local, || format!("looking at {}", self.named(name)))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::source(format!("{} is not a regular file", self.named(name))));
        }
        Ok((file.into(), stat.st_size.try_into().unwrap_or_default()))
    }

    /// Says which file is meant, for messages.
    pub(super) fn named(&self, name: &[u8]) -> String {
        let name = String::from_utf8_lossy(name);
        format!("the file `{}` in `{}`", printable(&name), self.path.display())
    }

    fn unopened(&self, name: &[u8], errno: Errno) -> Error {
        let named = self.named(name);
        match errno {
            Errno::ACCESS | Errno::PERM => denied(&named, &self.path),
            Errno::LOOP => Error::source(format!("{named} is a symlink and no regular file")),
            Errno::NOENT | Errno::NOTDIR => Error::source(format!("{named} is missing"))
                .with_hint("if the image was removed meanwhile, pull it again"),
            Errno::NOSYS => no_openat2(),
            errno => Error::source(format!("{named} cannot be opened")).because(std::io::Error::from(errno)),
        }
    }
}

impl Objects {
    /// Reads the table of contents of a zstd:chunked layer.
    pub fn parse(table: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Table {
            entries: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            name: String,
            #[serde(rename = "type")]
            kind: String,
            digest: Option<String>,
        }
        let table: Table = serde_json::from_slice(table)
            .context(ErrorKind::Source, || "the layer's table of contents is not valid".into())?;
        let regular = table.entries.into_iter().filter(|entry| entry.kind == "reg");
        let objects = regular.filter_map(|entry| {
            let digest = entry.digest.filter(|digest| !digest.is_empty())?.parse();
            Some(digest.map(|digest| (cleaned(entry.name.as_bytes()), digest)))
        });
        objects.collect::<Result<_>>().map(Self)
    }
}

/// Returns a name without anything but names of folders and files in it; `..` ends at the root.
fn cleaned(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

fn no_openat2() -> Error {
    Error::local("this system cannot open files inside a folder safely")
        .with_hint("storages can be read on Linux since 5.6")
}

/// `openat2`, which only Linux has.
mod beneath {
    use super::{Errno, OFlags, OwnedFd, Path};

    #[cfg(target_os = "linux")]
    use rustix::fs::{Mode, ResolveFlags, open, openat2};

    /// Opens what is below `base` and nothing else.
    #[cfg(target_os = "linux")]
    pub(super) fn folder(base: &Path, path: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base = open(base, flags, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(base, path, flags | OFlags::NOFOLLOW, Mode::empty(), resolve)
    }

    /// Opens what `path` means to whoever has `root` for a root.
    #[cfg(target_os = "linux")]
    pub(super) fn file(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            match openat2(root, path, flags, Mode::empty(), resolve) {
                // Something on this machine was renamed while the kernel looked.
                Err(Errno::AGAIN) if attempts < 1000 => attempts += 1,
                result => return result,
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn folder(_: &Path, _: &str) -> Result<OwnedFd, Errno> {
        Err(Errno::NOSYS)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn file(_: &OwnedFd, _: &[u8], _: OFlags) -> Result<OwnedFd, Errno> {
        Err(Errno::NOSYS)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::fs::symlink};

    use super::*;

    fn layer() -> (tempfile::TempDir, Payloads) {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(dir.path().join("id/diff/real")).unwrap();
        fs_err::write(dir.path().join("id/diff/real/x"), "inside").unwrap();
        fs_err::write(dir.path().join("outside"), "outside").unwrap();
        let payloads = Payloads::open(dir.path(), "id/diff").unwrap();
        (dir, payloads)
    }

    fn text(payloads: &Payloads, name: &str) -> Result<String> {
        let (mut file, size) = payloads.file(name.as_bytes())?;
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text.len() as u64, size);
        Ok(text)
    }

    #[test]
    fn every_spelling_of_a_name_is_found() {
        let (dir, payloads) = layer();
        symlink("/real", dir.path().join("id/diff/link")).unwrap();
        symlink("../../../../real", dir.path().join("id/diff/up")).unwrap();
        for name in ["real/x", "./real/x", "/real//x", "y/../real/x", "../../real/x", "link/x", "up/x"] {
            assert_eq!(text(&payloads, name).unwrap(), "inside", "{name}");
        }
    }

    #[test]
    fn nothing_leads_out() {
        let (dir, payloads) = layer();
        let diff = dir.path().join("id/diff");
        symlink(dir.path(), diff.join("away")).unwrap();
        symlink("/proc/self/root", diff.join("magic")).unwrap();
        symlink("real/x", diff.join("last")).unwrap();
        let outside = dir.path().join("outside").display().to_string();
        for name in
            ["../../outside", &outside, "away/outside", &format!("magic{outside}"), "last", "real", ""]
        {
            let error = text(&payloads, name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source, "{name}: {error:?}");
            assert!(error.message().contains("id/diff"), "{name}: {error:?}");
        }
        symlink(dir.path(), dir.path().join("id/link")).unwrap();
        symlink("/", dir.path().join("root")).unwrap();
        for folder in ["id/link", "root/tmp", "../", "none", "outside"] {
            Payloads::open(dir.path(), folder).unwrap_err();
        }
    }

    #[test]
    fn files_by_content_are_found_by_name() {
        let (dir, payloads) = layer();
        let digest = Digest::of(b"content");
        let (folder, file) = digest.hex().split_at(2);
        fs_err::create_dir(dir.path().join("id/diff").join(folder)).unwrap();
        fs_err::write(dir.path().join("id/diff").join(folder).join(file), "content").unwrap();
        let table = format!(
            r#"{{"entries":[{{"type":"dir","name":"a/"}},{{"type":"reg","name":"a/b","digest":"{digest}"}},{{"type":"reg","name":"empty"}}]}}"#
        );
        let payloads = payloads.by_content(Objects::parse(table.as_bytes()).unwrap());
        assert_eq!(text(&payloads, "./a/b").unwrap(), "content");
        assert!(text(&payloads, "real/x").unwrap_err().message().contains("table of contents"));
        let hostile = table.replace(&digest.to_string(), "sha256:../../outside");
        assert!(Objects::parse(hostile.as_bytes()).is_err());
    }
}
