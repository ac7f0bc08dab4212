//! The one pass over a stored layer that learns what it is: the digest of its bytes as they lie there, and
//! of what they decode to.
//!
//! The decoder pulls, what it pulls is hashed on the way in, what it gives is hashed and forgotten: memory
//! is the decoder's window, however much a few bytes expand to. Every stored byte is hashed, also what a
//! decoder has no use for. Bytes that no decoder knows are plain, and both digests the same.

use std::{
    io::{self, Cursor, Read},
    ops::ControlFlow,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{Compression, Encoded, Progress, Stopped, blame};
use crate::{
    blob::Blob,
    error::{ErrorKind, Result},
    oci::{Algorithm, DiffId, Digest, Hasher},
};

/// Reads a whole layer, whatever it is encoded in, and computes both digests.
///
/// `progress` hears how many stored bytes have been hashed, so that an upload may follow behind; when it
/// breaks, the pass ends with [`Stopped`].
pub fn prove(blob: &Blob, progress: &dyn Fn(Progress) -> ControlFlow<()>) -> Result<Encoded> {
    pass(Box::new(blob.reader()), Compression::exact_decoder, progress).map(|(_, encoded)| encoded)
}

/// Does the same for what can be read once, and says what it is encoded in. What it is for is not known, so that bytes
/// after a gzip member are no error.
pub fn prove_stream(
    input: Box<dyn Read + Send>,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<(Compression, Encoded)> {
    pass(input, Compression::decoder, progress)
}

type Decoder = fn(Compression, Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>>;

fn pass(
    mut input: Box<dyn Read + Send>,
    decoder: Decoder,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<(Compression, Encoded)> {
    let mut magic = Vec::new();
    let head = input.by_ref().take(Compression::MAGIC_LENGTH as u64).read_to_end(&mut magic);
    head.map_err(blame(ErrorKind::Source, "reading the layer"))?;
    let compression = Compression::detect(&magic);
    let doing = match compression {
        Compression::None => "reading the layer".to_owned(),
        encoded => format!("decoding the layer as {}", encoded.name()),
    };
    let decoding = || blame(ErrorKind::Source, &doing);

    let stored = Stored::new(Box::new(Cursor::new(magic).chain(input)));
    let mut plain = decoder(compression, Box::new(stored.clone())).map_err(decoding())?;
    let mut plain_hasher = (compression != Compression::None).then(|| Hasher::new(Algorithm::Sha256));
    let mut plain_size = 0;
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match plain.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(decoding()(error)),
        };
        if let Some(hasher) = &mut plain_hasher {
            hasher.update(&buffer[..read]);
        }
        plain_size += read as u64;
        let (encoded, prefix) = stored.0.lock().so_far();
        if progress(Progress { plain: plain_size, encoded, prefix }).is_break() {
            return Err(Stopped.into());
        }
    }
    // Whatever the decoder left unread is part of the blob all the same.
    io::copy(&mut stored.clone(), &mut io::sink()).map_err(decoding())?;

    let (size, digest) = stored.0.lock().so_far();
    let diff_id = DiffId(plain_hasher.map_or_else(|| digest.clone(), Hasher::finish));
    Ok((compression, Encoded { diff_id, digest, size, plain_size }))
}

/// The stored bytes, hashed as they are read. Shared, because a decoder keeps its input for itself.
#[derive(Clone)]
struct Stored(Arc<Mutex<Reading>>);

struct Reading {
    input: Box<dyn Read + Send>,
    offset: u64,
    hasher: Hasher,
}

impl Reading {
    /// Returns how many bytes were read, and their digest.
    fn so_far(&self) -> (u64, Digest) {
        (self.offset, self.hasher.clone().finish())
    }
}

impl Stored {
    fn new(input: Box<dyn Read + Send>) -> Self {
        let hasher = Hasher::new(Algorithm::Sha256);
        Self(Arc::new(Mutex::new(Reading { input, offset: 0, hasher })))
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut reading = self.0.lock();
        let read = reading.input.read(buffer)?;
        reading.hasher.update(&buffer[..read]);
        reading.offset += read as u64;
        Ok(read)
    }
}

/// Large enough that hashing and decoding are all that counts.
const BUFFER: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::error::chain;

    const GO_ON: &dyn Fn(Progress) -> ControlFlow<()> = &|_| ControlFlow::Continue(());

    fn blob(bytes: &[u8]) -> Blob {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Blob::from_file(Arc::new(fs_err::File::from_parts(file, "layer")), bytes.len() as u64)
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn noise(size: u32) -> Vec<u8> {
        (0..size).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    #[test]
    fn both_digests_are_found_whatever_the_encoding() {
        let plain = noise(700_000);
        let zstd = || zstd::encode_all(&plain[..], 1).unwrap();
        let (half, rest) = plain.split_at(300_000);
        for stored in [plain.clone(), gzip(&plain), [gzip(half), gzip(rest)].concat(), zstd()] {
            let proven = prove(&blob(&stored), GO_ON).unwrap();
            let expected = Encoded {
                diff_id: DiffId(Digest::of(&plain)),
                digest: Digest::of(&stored),
                size: stored.len() as u64,
                plain_size: plain.len() as u64,
            };
            assert_eq!(proven, expected);
        }
    }

    #[test]
    fn no_bytes_are_a_plain_layer() {
        let proven = prove(&blob(b""), GO_ON).unwrap();
        assert_eq!((proven.digest, proven.plain_size), (Digest::of(b""), 0));
    }

    #[test]
    fn damage_is_the_sources_fault_in_the_decoders_words() {
        let whole = gzip(&noise(100_000));
        let cut = &whole[..whole.len() / 2];
        let mut bad_sum = whole.clone();
        let sum = bad_sum.len() - 8;
        bad_sum[sum] ^= 1;
        let zstd = zstd::encode_all(&noise(100_000)[..], 1).unwrap();
        for (stored, decoder) in [(cut, "gzip"), (&bad_sum, "gzip"), (&zstd[..zstd.len() - 1], "zstd")] {
            let error = prove(&blob(stored), GO_ON).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source);
            assert_eq!(error.message(), format!("decoding the layer as {decoder}"));
            assert!(chain(&error).len() > error.message().len() + 2, "says why: {error:?}");
        }
    }

    #[test]
    fn what_follows_the_last_gzip_member_is_no_layer() {
        for tail in [&[0; 512][..], &[0], b"garbage"] {
            let error = prove(&blob(&[&gzip(b"plain"), tail].concat()), GO_ON).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source);
            assert!(error.message().contains("after the last gzip member"), "{error}");
            assert!(error.hints().concat().contains("--force-compression"), "{error:?}");
        }
        let stored = [&gzip(b"plain"), &b"garbage"[..]].concat();
        let (_, proven) = prove_stream(Box::new(Cursor::new(stored.clone())), GO_ON).unwrap();
        assert_eq!((proven.diff_id.0, proven.digest), (Digest::of(b"plain"), Digest::of(&stored)));
    }

    #[test]
    fn a_bomb_is_never_held() {
        let stored = gzip(&vec![0; 32 << 20]);
        let heard = Mutex::new(vec![0]);
        let proven = prove(&blob(&stored), &|progress| {
            heard.lock().push(progress.plain);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!((proven.plain_size, proven.size), (32 << 20, stored.len() as u64));
        let heard = heard.into_inner();
        assert!(heard.windows(2).all(|steps| steps[1] - steps[0] <= BUFFER as u64));
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let file = fs_err::File::from_parts(tempfile::tempfile().unwrap(), "layer");
        let error = prove(&Blob::from_file(Arc::new(file), 100), GO_ON).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Source, "reading the layer"));
    }

    #[test]
    fn progress_ends_at_the_stored_size_and_can_stop_the_pass() {
        let stored = gzip(&noise(3 << 20));
        let heard = Mutex::new(Vec::new());
        let proven = prove(&blob(&stored), &|progress| {
            heard.lock().push(progress);
            ControlFlow::Continue(())
        })
        .unwrap();
        let heard = heard.into_inner();
        assert!(heard.is_sorted_by(|a, b| a.plain < b.plain && a.encoded <= b.encoded));
        let last = Progress { plain: proven.plain_size, encoded: proven.size, prefix: proven.digest };
        assert_eq!(heard.last(), Some(&last));

        let error = prove(&blob(&stored), &|_| ControlFlow::Break(())).unwrap_err();
        assert!(error.find::<Stopped>().is_some());
    }
}
