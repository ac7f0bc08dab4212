//! One file as several: parts of one size, the last one shorter, and the list that says what each must be.
//!
//! The list is what `sha256sum` writes, under a line of ours, so that parts can be checked where there is no Longshore
//! (`sha256sum -c FILE.parts`) and put together by `cat`. Whoever reads parts is told first which are missing or
//! damaged, all of them at once.

use std::{collections::BTreeMap, ffi::OsStr, fmt::Write as _, num::NonZero, path::Path, thread};

use parking_lot::Mutex;

use super::{read, write};
use crate::{
    blob::Blob,
    error::{Context as _, Error, ErrorKind, Result, counted, printable},
    oci::{Descriptor, Digest},
};

/// The parts of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The size of the file.
    pub size: u64,
    /// The size of each part but the last.
    pub each: u64,
    /// The parts, in order.
    pub parts: Vec<Part>,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The name of its file, which lies beside the list.
    pub name: String,
    /// The digest of its bytes.
    pub digest: Digest,
}

impl Parts {
    /// Returns what a part of `file` is called.
    pub fn name(file: &str, number: usize) -> String {
        format!("{file}.{number:03}")
    }

    /// Returns what the list of the parts of `file` is called.
    pub fn list_name(file: &str) -> String {
        format!("{file}.parts")
    }

    /// Returns whether a file that begins so is a list.
    pub fn begins(head: &[u8]) -> bool {
        head.starts_with(MARK.as_bytes())
    }

    /// Reads a list.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let wrong = || Error::source("the list of parts is damaged").with_hint("copy it once more");
        str::from_utf8(text).ok().and_then(Self::read).ok_or_else(wrong)
    }

    fn read(text: &str) -> Option<Self> {
        let (sizes, lines) = text.strip_prefix(MARK)?.split_once('\n')?;
        let (size, each) = sizes.strip_suffix(" each")?.split_once(" bytes, ")?;
        let part = |line: &str| {
            let (hex, name) = line.split_once("  ")?;
            let is_name = !name.is_empty() && !name.contains('/') && !matches!(name, "." | "..");
            let digest = format!("sha256:{hex}").parse().ok()?;
            is_name.then(|| Part { name: name.to_owned(), digest })
        };
        let parts: Vec<_> = lines.lines().map(part).collect::<Option<_>>()?;
        let (size, each): (u64, NonZero<u64>) = (size.parse().ok()?, each.parse().ok()?);
        let whole = size > 0 && size.div_ceil(each.get()) == parts.len() as u64;
        whole.then_some(Self { size, each: each.get(), parts })
    }

    /// Writes the list to `path`, and takes away the parts of an earlier list there that this one does not have.
    pub fn replace(&self, path: &Path) -> Result<()> {
        let earlier = fs_err::read(path).ok().and_then(|text| Self::parse(&text).ok());
        let mut text = format!("{MARK}{} bytes, {} each\n", self.size, self.each);
        for Part { name, digest } in &self.parts {
            writeln!(text, "{}  {name}", digest.hex())
                .context(ErrorKind::Internal, || "writing a list of parts".to_owned())?;
        }
        write::write_atomic(path, text.as_bytes())?;
        let list = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let stale = earlier.into_iter().flat_map(|earlier| earlier.parts).filter(|old| {
            // Whatever the earlier list names besides, it is not ours to take away.
            is_part(&old.name, list) && self.parts.iter().all(|part| part.name != old.name)
        });
        for Part { name, .. } in stale {
            // What stays is in nobody's way.
            fs_err::remove_file(path.with_file_name(name)).ok();
        }
        Ok(())
    }

    /// Reads every part in `dir` once, and returns the file that they are.
    pub fn open(&self, dir: &Path) -> Result<Blob> {
        let queue = Mutex::new(self.parts.iter().enumerate());
        let checked = Mutex::new(BTreeMap::new());
        let next = || queue.lock().next();
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
                scope.spawn(|| {
                    while let Some((number, part)) = next() {
                        let result = self.check(number, part, dir);
                        checked.lock().insert(number, result);
                    }
                });
            }
        });
        let (mut blobs, mut problems) = (Vec::new(), Vec::new());
        for result in checked.into_inner().into_values() {
            match result {
                Ok(blob) => blobs.push(blob),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            return Ok(Blob::row(blobs));
        }
        let (bad, all) = (problems.len(), self.parts.len());
        Err(Error::source(format!(
            "{bad} of {} cannot be used: {}",
            counted(all, "part"),
            problems.join(", ")
        ))
        .with_hint("copy them once more: the others are right"))
    }

    /// Opens a part, or says what is wrong with it.
    fn check(&self, number: usize, part: &Part, dir: &Path) -> Result<Blob, String> {
        let name = printable(&part.name);
        let size = self.each.min(self.size - self.each * number as u64);
        match read::open_at(&dir.join(&part.name)) {
            Ok(None) => Err(format!("`{name}` is missing")),
            Ok(Some(blob)) if blob.size() != size => {
                Err(format!("`{name}` has {} instead of {size}", counted(blob.size(), "byte")))
            }
            Ok(Some(blob)) => match blob.verify(&Descriptor::new("", part.digest.clone(), size)) {
                Ok(()) => Ok(blob),
                Err(error) if error.find::<std::io::Error>().is_some() => {
                    Err(format!("`{name}` cannot be read"))
                }
                Err(_) => Err(format!("`{name}` is damaged")),
            },
            Err(error) => Err(error.message().to_owned()),
        }
    }
}

/// Larger lists are none: there are at most a thousand parts.
pub const LIST_LIMIT: u64 = 1 << 20;
/// How a list begins: a comment for `sha256sum`.
const MARK: &str = "# longshore parts 1: ";

/// Returns whether a file is called as a part of this list is.
fn is_part(name: &str, list: &str) -> bool {
    let number = list.strip_suffix(".parts").and_then(|file| name.strip_prefix(file)?.strip_prefix('.'));
    number.is_some_and(|number| number.len() >= 3 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(dir: &Path, bytes: &[u8], each: usize) -> Parts {
        let parts = bytes.chunks(each).enumerate().map(|(number, part)| {
            let name = Parts::name("f", number);
            fs_err::write(dir.join(&name), part).unwrap();
            Part { name, digest: Digest::of(part) }
        });
        let parts = Parts { size: bytes.len() as u64, each: each as u64, parts: parts.collect() };
        parts.replace(&dir.join("f.parts")).unwrap();
        parts
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let parts = parts(dir.path(), b"0123456789", 4);
        let text = fs_err::read(dir.path().join("f.parts")).unwrap();
        assert!(text.starts_with(b"# longshore parts 1: 10 bytes, 4 each\n"));
        assert_eq!(Parts::parse(&text).unwrap(), parts);
        assert!(Parts::begins(&text) && !Parts::begins(b"# of something"));
        let text = String::from_utf8(text).unwrap();
        for wrong in [
            text.replace("f.001", "../f.001"),
            text.replace("f.001", ""),
            text.replace("10 bytes", "13 bytes"),
            text.replace("4 each", "0 each"),
            text.lines().take(3).collect::<Vec<_>>().join("\n"),
            text[..text.len() / 2].to_owned(),
        ] {
            assert!(Parts::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_new_list_takes_away_parts_of_the_old_one_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("f.parts");
        parts(dir.path(), b"0123456789", 4);
        fs_err::write(dir.path().join("mine"), "mine").unwrap();
        let text = fs_err::read_to_string(&list).unwrap().replace("f.001", "mine");
        fs_err::write(&list, text).unwrap();
        parts(dir.path(), b"0123", 4);
        let left = |name: &str| dir.path().join(name).exists();
        assert_eq!(["f.000", "f.002", "mine"].map(left), [true, false, true]);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let parts = parts(dir.path(), b"0123456789abcdef!", 4);
        assert_eq!(parts.open(dir.path()).unwrap().size(), 17);
        fs_err::write(dir.path().join("f.000"), "0x23").unwrap();
        fs_err::remove_file(dir.path().join("f.002")).unwrap();
        fs_err::write(dir.path().join("f.003"), "cde").unwrap();
        let error = parts.open(dir.path()).unwrap_err();
        assert_eq!(
            error.message(),
            "3 of 5 parts cannot be used: `f.000` is damaged, `f.002` is missing, `f.003` has 3 bytes instead of 4"
        );
    }
}
