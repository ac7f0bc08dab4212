//! Which folders are used: those that nobody else can have put blobs into, and that hold no images, since what no entry
//! names would be swept out of them.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    layout,
};

/// Refuses a folder in which somebody else could have put blobs.
pub(super) fn must_be_ours(dir: &Path) -> Result<()> {
    let name = dir.display();
    let folder = fs_err::metadata(dir).context(ErrorKind::Local, || format!("opening the cache `{name}`"))?;
    // Whoever owns what we make there is who we are.
    let ours = tempfile::tempfile_in(dir)
        .and_then(|file| file.metadata())
        .context(ErrorKind::Local, || format!("writing to the cache `{name}`"))?;
    match distrust(folder.mode(), folder.uid(), ours.uid()) {
        Some(why) => Err(Error::local(format!("{why}: `{name}`")).because(Distrusted)),
        None => Ok(()),
    }
}

/// Refuses a layout whose index names something: a cache's names nothing.
pub(super) fn must_hold_no_images(dir: &Path) -> Result<()> {
    let index = layout::read::open_at(&dir.join(layout::INDEX)).ok().flatten();
    let bytes = index.and_then(|index| index.read_all(layout::read::INDEX_LIMIT, layout::INDEX).ok());
    match bytes.and_then(|bytes| layout::read::parse_index(&bytes).ok()) {
        Some(named) if !named.is_empty() => {
            Err(Error::usage(format!("`{}` holds images: it is no cache", dir.display()))
                .with_hint("name another folder with `--cache-dir`"))
        }
        _ => Ok(()),
    }
}

/// Beneath the error about a folder in which somebody else could have put blobs.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it is not used")]
pub(super) struct Distrusted;

fn distrust(mode: u32, owner: u32, us: u32) -> Option<&'static str> {
    if owner != us {
        Some("the cache folder belongs to another user")
    } else if mode & 0o022 != 0 {
        Some("others may write to the cache folder")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_we_may_own_and_write_it() {
        for (mode, owner, trusted) in
            [(0o700, 7, true), (0o755, 7, true), (0o720, 7, false), (0o702, 7, false), (0o700, 0, false)]
        {
            assert_eq!(distrust(mode, owner, 7).is_none(), trusted, "{mode:o} of {owner}");
        }
    }
}
