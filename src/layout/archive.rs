//! Writes a layout as one file, an OCI archive: the same bytes for the same layout.

use std::{io::Write as _, path::Path};

use tar::{Builder, EntryType, Header};

use super::{BLOBS, INDEX, OCI_LAYOUT, write};
use crate::error::{Context as _, ErrorKind, Result};

/// Writes the layout in `dir` to `file`, whole or not at all. The small documents come first, so that a reader of a
/// pipe knows what follows; owners and times are nobody's and none.
pub fn write_archive(dir: &Path, file: &Path) -> Result<()> {
    let writing = || format!("writing `{}`", file.display());
    let beside = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temp = write::readable().tempfile_in(beside).context(ErrorKind::Local, writing)?;
    let mut names = vec![OCI_LAYOUT.to_owned(), INDEX.to_owned()];
    let mut blobs = Vec::new();
    for algorithm in fs_err::read_dir(dir.join(BLOBS)).context(ErrorKind::Local, writing)? {
        let algorithm = algorithm.context(ErrorKind::Local, writing)?;
        for blob in fs_err::read_dir(algorithm.path()).context(ErrorKind::Local, writing)? {
            let blob = blob.context(ErrorKind::Local, writing)?;
            let [algorithm, blob] = [algorithm.file_name(), blob.file_name()];
            blobs.push(format!("{BLOBS}/{}/{}", algorithm.display(), blob.display()));
        }
    }
    blobs.sort();
    names.extend(blobs);
    let mut archive = Builder::new(std::io::BufWriter::with_capacity(1 << 20, temp.as_file_mut()));
    for name in names {
        let source = fs_err::File::open(dir.join(&name)).context(ErrorKind::Local, writing)?;
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(source.metadata().context(ErrorKind::Local, writing)?.len());
        archive.append_data(&mut header, &name, source).context(ErrorKind::Local, writing)?;
    }
    archive.into_inner().and_then(|mut buffer| buffer.flush()).context(ErrorKind::Local, writing)?;
    write::persist(temp, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn one_layout_makes_one_archive_whenever_and_wherever_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let archives = ["a", "b"].map(|name| {
            let layout = dir.path().join(name);
            write::init(&layout).unwrap();
            let mut blobs = [&b"one"[..], b"two", b"three"];
            if name == "b" {
                blobs.reverse();
            }
            for blob in blobs {
                fs_err::write(write::blob_path(&layout, &Digest::of(blob)), blob).unwrap();
            }
            let file = dir.path().join(format!("{name}.tar"));
            write_archive(&layout, &file).unwrap();
            fs_err::read(file).unwrap()
        });
        assert_eq!(archives[0], archives[1]);
        let mut archive = tar::Archive::new(&archives[0][..]);
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names.len(), 5);
        assert_eq!(names[..2], [OCI_LAYOUT, INDEX]);
    }
}
