//! The bytes of an entry of an archive, wherever they are.
//!
//! They lie in the archive or in a file of their own, are kept in memory, or were taken over while the archive passed: then
//! there is no more to be had of them than what was learned on the way.

use std::{
    io::{self, Cursor, Read as _},
    path::PathBuf,
};

use bytes::Bytes;

use crate::{
    blob::Blob,
    codec::Compression,
    error::{Context as _, Error, ErrorKind, Result},
    oci::{Algorithm, Digest, Hasher},
    source::Data,
};

/// The bytes of an entry.
#[derive(Clone, Debug)]
pub enum EntryData {
    /// A layer, taken over by whoever read the archive while it passed.
    Absorbed {
        /// The digest of its bytes.
        digest: Digest,
        /// Their number.
        size: u64,
        /// What they are packed in.
        compression: Compression,
    },
    /// In a file of its own, which is opened when it is asked for.
    Closed {
        /// Where it is.
        path: PathBuf,
        /// The number of bytes.
        size: u64,
    },
    /// In memory.
    Kept(Bytes),
    /// In a file, readable by offset.
    Stored(Blob),
}

impl EntryData {
    /// Returns the number of bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Absorbed { size, .. } | Self::Closed { size, .. } => *size,
            Self::Kept(bytes) => bytes.len() as u64,
            Self::Stored(blob) => blob.size(),
        }
    }

    /// Returns what the bytes are packed in.
    pub fn compression(&self) -> Result<Compression> {
        if let Self::Absorbed { compression, .. } = self {
            return Ok(*compression);
        }
        let mut magic = Vec::new();
        self.reader()?
            .take(Compression::MAGIC_LENGTH as u64)
            .read_to_end(&mut magic)
            .context(ErrorKind::Source, || "reading the archive".into())?;
        Ok(Compression::detect(&magic))
    }

    /// Returns the sha256 digest of the bytes, for which they are read.
    pub fn digest(&self) -> Result<Digest> {
        if let Self::Absorbed { digest, .. } = self {
            return Ok(digest.clone());
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        io::copy(&mut self.reader()?, &mut hasher)
            .context(ErrorKind::Source, || "reading the archive".into())?;
        Ok(hasher.finish())
    }

    /// Reads all bytes of a document, for which the caller is prepared up to `limit`.
    pub fn read(&self, limit: u64, what: &str) -> Result<Bytes> {
        if self.size() > limit {
            return Err(Error::source(format!(
                "{what} is over the limit of {limit} bytes: {} bytes",
                self.size()
            )));
        }
        match self {
            // Whoever absorbs keeps all that could be a document.
            Self::Absorbed { .. } => Err(Error::source(format!("{what} is not a JSON document"))),
            Self::Closed { path, .. } => Blob::open(path)?.read_all(limit, what).map(Bytes::from),
            Self::Kept(bytes) => Ok(bytes.clone()),
            Self::Stored(blob) => blob.read_all(limit, what).map(Bytes::from),
        }
    }

    /// Hands the bytes out.
    pub fn into_data(self) -> Result<Data> {
        match self {
            Self::Absorbed { digest, .. } => Ok(Data::Absorbed(digest)),
            Self::Closed { path, .. } => Blob::open(&path).map(Data::Stored),
            Self::Kept(bytes) => Ok(Data::Stream(Box::new(Cursor::new(bytes)))),
            Self::Stored(blob) => Ok(Data::Stored(blob)),
        }
    }

    fn reader(&self) -> Result<Box<dyn io::Read + '_>> {
        match self {
            Self::Absorbed { digest, .. } => {
                Err(Error::internal(format!("an absorbed entry was read again: {digest}")))
            }
            Self::Closed { path, .. } => Ok(Box::new(Blob::open(path)?.reader())),
            Self::Kept(bytes) => Ok(Box::new(bytes.as_ref())),
            Self::Stored(blob) => Ok(Box::new(blob.reader())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_absorbed_is_known_but_not_read_again() {
        let data = EntryData::Absorbed { digest: Digest::of(b"x"), size: 9, compression: Compression::None };
        assert_eq!(data.compression().unwrap(), Compression::None);
        assert_eq!(data.digest().unwrap(), Digest::of(b"x"));
        assert!(data.read(8, "it").unwrap_err().message().contains("limit"));
        assert!(matches!(data.into_data().unwrap(), Data::Absorbed(digest) if digest == Digest::of(b"x")));
    }
}
