//! Writing layouts: every file by temp file, fsync and rename, so that a reader never sees half of one and a
//! kill at any moment leaves either the old file or the new.

use std::{
    fs::Permissions,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf, absolute},
};

use tempfile::{Builder, NamedTempFile};

use super::{BLOBS, INDEX, OCI_LAYOUT, OCI_LAYOUT_CONTENT, read::INDEX_LIMIT};
use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    oci::Digest,
};

/// Makes `dir` an OCI layout, if it is none yet.
pub fn init(dir: &Path) -> Result<()> {
    let making = || format!("making the OCI layout `{}`", dir.display());
    fs_err::create_dir_all(dir.join(BLOBS).join("sha256")).context(ErrorKind::Local, making)?;
    if !dir.join(INDEX).exists() {
        write_atomic(&dir.join(INDEX), br#"{"schemaVersion":2,"manifests":[]}"#)?;
    }
    if !dir.join(OCI_LAYOUT).exists() {
        write_atomic(&dir.join(OCI_LAYOUT), OCI_LAYOUT_CONTENT.as_bytes())?;
    }
    Ok(())
}

/// Returns where the layout in `dir` keeps a blob.
pub fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(blob_name(digest))
}

/// Returns where a layout keeps a blob, from its root.
pub fn blob_name(digest: &Digest) -> String {
    format!("{BLOBS}/{}", digest.path())
}

/// Refuses to write an index that is too large to be read again.
pub fn check_index(size: u64) -> Result<()> {
    if size > INDEX_LIMIT {
        let words = format!("`{INDEX}` would be over the limit of {INDEX_LIMIT} bytes: {size} bytes");
        return Err(Error::usage(words).with_hint("so many images and tags need several layouts"));
    }
    Ok(())
}

/// Writes a small file whole or not at all.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let writing = || format!("writing `{}`", path.display());
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut temp = readable().tempfile_in(dir).context(ErrorKind::Local, writing)?;
    temp.write_all(bytes).context(ErrorKind::Local, writing)?;
    persist(temp, path)
}

/// Returns where a file is put that is asked for at `place`: what is no file there, like a device, would be lost.
pub fn replaceable(place: &Path) -> Result<PathBuf> {
    let place = behind_links(place)?;
    match fs_err::metadata(&place) {
        Ok(there) if there.is_dir() => Err(Error::usage(format!("`{}` is a folder", place.display()))),
        Ok(there) if !there.is_file() => Err(Error::usage(format!("`{}` is no file", place.display()))),
        Err(_) if place.parent().is_some_and(|dir| dir.try_exists().is_ok_and(|there| !there)) => {
            Err(Error::local(format!("there is no folder for `{}`", place.display())))
        }
        _ => Ok(place),
    }
}

/// Returns the absolute path to which a link leads: a rename would put a file in the place of the link, and that may be
/// `/dev/stdout`.
pub fn behind_links(place: &Path) -> Result<PathBuf> {
    if place == Path::new("-") {
        return Err(Error::usage("standard output takes no file that is written whole")
            .with_hint("a file of that name is `./-`"));
    }
    let finding = || format!("finding `{}`", place.display());
    let place = absolute(place).context(ErrorKind::Local, finding)?;
    // A pipe behind `/dev/stdout` has no path of its own.
    if !place.is_symlink() || fs_err::metadata(&place).is_ok_and(|there| !there.is_file()) {
        return Ok(place);
    }
    fs_err::canonicalize(&place).context(ErrorKind::Local, finding)
}

/// Makes temp files that are readable by whom the umask lets: layouts are made for other tools too.
pub fn readable() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.permissions(Permissions::from_mode(0o666));
    builder
}

/// Gives a finished temp file its name: fsync of the file, rename, fsync of the folder.
pub fn persist(temp: NamedTempFile, path: &Path) -> Result<()> {
    let writing = || format!("writing `{}`", path.display());
    temp.as_file().sync_all().context(ErrorKind::Local, writing)?;
    temp.persist(path).map_err(|error| error.error).context(ErrorKind::Local, writing)?;
    sync(path.parent().unwrap_or(Path::new("."))).context(ErrorKind::Local, writing)
}

/// Makes what a folder lists survive a loss of power.
pub fn sync(dir: &Path) -> io::Result<()> {
    fs_err::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        write_atomic(&dir.path().join(INDEX), b"mine").unwrap();
        init(dir.path()).unwrap();
        assert_eq!(fs_err::read(dir.path().join(INDEX)).unwrap(), b"mine");
        assert_eq!(fs_err::read_to_string(dir.path().join(OCI_LAYOUT)).unwrap(), OCI_LAYOUT_CONTENT);
    }
}
