//! Tarballs of images: recognised by their content, listed where they lie, or decoded for one pass.
//!
//! A plain tar in a file is read in place. What is compressed or comes through a pipe can be read once, and is handed
//! out as a plain tar for whoever absorbs it, who comes back with an index of what has passed ([`from_index`]).

use std::{
    io::{self, Cursor, Read},
    path::Path,
    sync::Arc,
};

use super::{
    Pass, Source,
    archive::{Index, is_tar, normalized},
    formats::{
        docker_archive::{self, DockerArchive, MANIFEST},
        hybrid::Hybrid,
        imgpkg,
        oci_layout::OciLayout,
    },
    no_image,
    spec::Transport,
};
use crate::{
    blob::Blob,
    codec::Compression,
    error::{Context as _, Error, ErrorKind, Result},
    layout::{
        INDEX, OCI_LAYOUT,
        left_out::{LEFT_OUT, LEFT_OUT_LIMIT},
        parts::{LIST_LIMIT, Parts},
        read::INDEX_LIMIT,
    },
    oci::manifest::MANIFEST_LIMIT,
};

/// One tar header; every other magic is shorter.
pub(super) const HEAD: usize = 512;

/// Returns how large an entry of this name may be and still be read as a document, whether it lies in an archive or
/// passes by in one.
pub fn document_limit(name: &str) -> u64 {
    match normalized(name).as_str() {
        MANIFEST => docker_archive::MANIFEST_LIMIT,
        INDEX => INDEX_LIMIT,
        LEFT_OUT => LEFT_OUT_LIMIT,
        _ => MANIFEST_LIMIT,
    }
}

/// Makes a source of an archive's index, where the bytes of its entries may lie anywhere. `name` is what
/// messages call the archive, like "`x.tar`"; without a `transport` its content says what it is.
pub fn from_index(index: Index, name: &str, transport: Option<Transport>) -> Result<Box<dyn Source>> {
    let index = match only_layout(&index) {
        Some(folder) => index.below(&folder),
        None => index,
    };
    if let (None, Some(list)) = (transport, imgpkg::list(&index)) {
        let layout =
            || OciLayout::archive(Arc::new(list.into_layout(index)?), format!("imgpkg's archive {name}"));
        return Ok(Box::new(layout().map_err(|error| error.while_doing(format!("reading {name}")))?));
    }
    let index = Arc::new(index);
    let oci = || OciLayout::archive(Arc::clone(&index), format!("OCI archive {name}"));
    let docker = || DockerArchive::new(Arc::clone(&index), format!("docker archive {name}"));
    let made = || -> Result<Box<dyn Source>> {
        Ok(match (transport, index.contains(INDEX), index.contains(MANIFEST)) {
            (None | Some(Transport::DockerArchive), false, true)
            | (Some(Transport::DockerArchive), _, true) => Box::new(docker()?),
            (None, true, true) => Box::new(Hybrid::new(oci()?, docker()?)?),
            (None | Some(Transport::Oci | Transport::OciArchive), true, _) => Box::new(oci()?),
            (Some(Transport::Containerd | Transport::Dir), ..) => {
                return Err(Error::usage("it is an archive and no folder"));
            }
            (Some(Transport::DockerArchive), true, false) => {
                return Err(Error::usage(format!("it is an OCI archive and has no `{MANIFEST}`")));
            }
            (Some(Transport::Oci | Transport::OciArchive), false, true) => {
                return Err(Error::usage(format!("it is a docker archive and has no `{INDEX}`")));
            }
            (_, false, false) => return Err(no_image::archive(&index)),
            (Some(Transport::ContainersStorage | Transport::DockerStorage), ..) => {
                return Err(Error::usage("it is an archive and no storage"));
            }
        })
    };
    made().map_err(|error| error.while_doing(format!("reading {name}")))
}

/// Returns the folder of the one OCI layout in an archive that holds it beside other things: Zarf has it in `images`, and
/// who packs a folder by its name in that.
fn only_layout(index: &Index) -> Option<String> {
    if index.contains(INDEX) || index.contains(MANIFEST) {
        return None;
    }
    let marked = index.names().filter_map(|name| name.strip_suffix(OCI_LAYOUT)?.strip_suffix('/'));
    let mut layouts = marked.filter(|folder| index.contains(&format!("{folder}/{INDEX}")));
    let only = layouts.next()?.to_owned();
    layouts.next().is_none().then_some(only)
}

/// Lists what a plain archive holds, which may lie in parts beside `file`; nothing, if that is none.
pub(super) fn indexed(file: &Blob, name: &str) -> Result<Option<Index>> {
    let head = file.head(HEAD)?;
    let index = if Parts::begins(&head) {
        let parts = Parts::parse(&file.read_all(LIST_LIMIT, name)?);
        let whole = parts.and_then(|parts| parts.open(file.path().parent().unwrap_or(Path::new(""))));
        whole.and_then(|whole| Index::of(&whole))
    } else if is_tar(&head) {
        Index::of(file)
    } else {
        return Ok(None);
    };
    index.map(Some).map_err(|error| error.while_doing(format!("reading {name}")))
}

/// Decodes an archive that can be read once, and makes sure that it is one.
pub(super) fn pass(input: Box<dyn Read + Send>, name: &str) -> Result<Pass> {
    let reading = || format!("reading {name}");
    let (head, input) = peek(input).context(ErrorKind::Source, reading)?;
    if head.is_empty() {
        return Err(Error::source(format!("{name} is empty")));
    }
    let compression = Compression::detect(&head);
    let decoding = || format!("decoding {name}, which is packed with {}", compression.name());
    let tar = compression.decoder(input).context(ErrorKind::Source, decoding)?;
    let (head, tar) = peek(tar).context(ErrorKind::Source, decoding)?;
    let twice = Compression::detect(&head);
    if twice != Compression::None {
        return Err(Error::source(format!(
            "{name} is compressed twice: {} in {}",
            twice.name(),
            compression.name()
        ))
        .with_hint("unpack the outer one"));
    }
    if !is_tar(&head) {
        return Err(no_image::file(&head, name));
    }
    Ok(Pass { name: name.to_owned(), tar })
}

/// Reads the first bytes, and puts them back.
fn peek(mut input: Box<dyn Read + Send>) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut head = Vec::new();
    input.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let whole = Cursor::new(head.clone()).chain(input);
    Ok((head, Box::new(whole)))
}
