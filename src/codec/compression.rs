//! Which encoding some bytes are in, told by their first bytes alone, and the decoder for it.
//!
//! Names and media types are never asked: producers call zstd layers `.tar.gz` and the reverse. Every decoder
//! reads its input to the very end, through as many gzip members, zstd frames, xz streams and bzip2 streams
//! as there are, so that a bad checksum or a cut is an error at the end of the plain bytes, and whoever
//! hashes the input while it is decoded has hashed all of it.

use std::io::{self, BufRead, BufReader, Read};

use bzip2::read::MultiBzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::{read::XzDecoder, stream};

use crate::error::Error;

/// An encoding that layers and archives are found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Read only.
    Bzip2,
    /// RFC 1952, any number of members.
    Gzip,
    /// Plain bytes.
    None,
    /// Read only.
    Xz,
    /// RFC 8878, any number of frames, skippable ones included.
    Zstd,
}

impl Compression {
    /// As many first bytes as [`Compression::detect`] looks at.
    pub const MAGIC_LENGTH: usize = 10;

    /// Recognises the encoding by the first bytes; fewer than [`Self::MAGIC_LENGTH`] mean that there are no
    /// more.
    pub fn detect(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // The block's own magic too (or the end's, of an empty file): a tar may begin with a file `BZh1`.
            [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..]
                if rest.starts_with(b"1AY&SY") || rest.starts_with(b"\x17rE8P\x90") =>
            {
                Self::Bzip2
            }
            _ => Self::None,
        }
    }

    /// Returns what people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bzip2 => "bzip2",
            Self::Gzip => "gzip",
            Self::None => "none",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// Returns a reader of the plain bytes.
    pub fn decoder(self, input: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        let buffered = |input| BufReader::with_capacity(BUFFER, input);
        Ok(match self {
            Self::Bzip2 => Box::new(MultiBzDecoder::new(input)),
            Self::Gzip => Box::new(GzipReader::new(input, false)),
            Self::None => input,
            Self::Xz => {
                let stream = stream::Stream::new_stream_decoder(XZ_MEMORY, stream::CONCATENATED)?;
                Box::new(XzDecoder::new_stream(input, stream))
            }
            Self::Zstd => Box::new(::zstd::Decoder::with_buffer(buffered(input))?),
        })
    }

    /// Returns the same for bytes that others will have to decode: what most of them refuse is an error.
    pub fn exact_decoder(self, input: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        match self {
            Self::Gzip => Ok(Box::new(GzipReader::new(input, true))),
            other => other.decoder(input),
        }
    }
}

/// Enough input at a time that no decoder waits for system calls.
const BUFFER: usize = 64 << 10;
/// `xz -9` needs 65 MiB to decode; the format would allow 4 GiB.
const XZ_MEMORY: u64 = 80 << 20;

/// Decodes gzip member by member. What follows the last one and is none is ignored, as gzip(1) does, but read; Go's
/// compress/gzip, by which images are unpacked, takes nothing there, not even zeros.
struct GzipReader {
    member: Option<GzDecoder<BufReader<Box<dyn Read + Send>>>>,
    exact: bool,
}

impl GzipReader {
    fn new(input: Box<dyn Read + Send>, exact: bool) -> Self {
        let member = GzDecoder::new(BufReader::with_capacity(BUFFER, input));
        Self { member: Some(member), exact }
    }
}

impl Read for GzipReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(ended) = self.member.take() else { break };
            let mut input = ended.into_inner();
            match input.fill_buf()?.first() {
                Some(&0x1f) => self.member = Some(GzDecoder::new(input)),
                Some(_) if self.exact => return Err(io::Error::other(loose_end())),
                _ => drain(input)?,
            }
        }
        Ok(0)
    }
}

fn loose_end() -> Error {
    Error::source("there are bytes after the last gzip member, and most clients would refuse the layer")
        .with_hint("encode it anew: `--compression gzip --force-compression`")
}

/// Reads what follows the last gzip member to the end. Zeros are the padding of tapes.
fn drain(mut input: impl BufRead) -> io::Result<()> {
    let mut garbage = 0;
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        if garbage > 0 || bytes.iter().any(|&byte| byte != 0) {
            garbage += bytes.len();
        }
        let length = bytes.len();
        input.consume(length);
    }
    if garbage > 0 {
        tracing::warn!("{garbage} bytes after the last gzip member were ignored");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use parking_lot::Mutex;

    use super::*;

    const ALL: [Compression; 4] = [Compression::Bzip2, Compression::Gzip, Compression::Xz, Compression::Zstd];

    fn encoded(compression: Compression, plain: &[u8]) -> Vec<u8> {
        match compression {
            Compression::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Compression::None => plain.to_vec(),
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
                encoder.include_checksum(true).unwrap();
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn decoded(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Compression::detect(bytes)
            .decoder(Box::new(io::Cursor::new(bytes.to_vec())))?
            .read_to_end(&mut plain)
            .map(|_| plain)
    }

    /// Neither constant nor compressible to nothing.
    fn noise(length: u32) -> Vec<u8> {
        (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    #[test]
    fn every_encoding_is_recognised_and_decoded_through_all_its_parts() {
        for compression in ALL {
            for plain in [noise(0), noise(200_000)] {
                let mut bytes = encoded(compression, &plain);
                assert_eq!(Compression::detect(&bytes), compression);
                assert_eq!(decoded(&bytes).unwrap(), plain, "{compression:?}");
                bytes.extend(encoded(compression, b"and more"));
                let both = [plain.as_slice(), b"and more"].concat();
                assert_eq!(decoded(&bytes).unwrap(), both, "{compression:?}");
            }
        }
        assert_eq!(decoded(b"plain").unwrap(), b"plain");
        assert_eq!(Compression::detect(b""), Compression::None);
    }

    #[test]
    fn a_cut_anywhere_is_an_error() {
        for compression in ALL {
            let bytes = encoded(compression, &noise(2000));
            for end in [bytes.len() - 1, bytes.len() - 9, bytes.len() / 2, Compression::MAGIC_LENGTH] {
                assert!(decoded(&bytes[..end]).is_err(), "{compression:?} cut at {end}");
            }
        }
    }

    #[test]
    fn a_wrong_checksum_is_an_error_at_the_end() {
        for compression in ALL {
            let mut bytes = encoded(compression, &noise(2000));
            let at = match compression {
                Compression::Gzip => bytes.len() - 8,
                Compression::Zstd => bytes.len() - 1,
                _ => bytes.len() - 40,
            };
            bytes[at] ^= 1;
            assert!(decoded(&bytes).is_err(), "{compression:?}");
        }
    }

    #[test]
    fn zstd_skips_frames_that_hold_no_data() {
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frame = encoded(Compression::Zstd, b"plain");
        for bytes in [[&skippable[..], &frame].concat(), [&frame[..], &skippable].concat()] {
            assert_eq!(decoded(&bytes).unwrap(), b"plain");
        }
    }

    #[test]
    fn what_follows_the_last_gzip_member_is_ignored_but_read() {
        for tail in [vec![0; 100_000], b"garbage".repeat(20_000)] {
            let bytes = [encoded(Compression::Gzip, b"plain"), tail].concat();
            let length = bytes.len() as u64;
            let input = std::sync::Arc::new(Mutex::new(io::Cursor::new(bytes)));
            let mut plain = Vec::new();
            let mut decoder =
                Compression::Gzip.decoder(Box::new(Shared(std::sync::Arc::clone(&input)))).unwrap();
            decoder.read_to_end(&mut plain).unwrap();
            assert_eq!(plain, b"plain");
            assert_eq!(input.lock().position(), length);
        }
    }

    #[test]
    fn a_file_named_like_a_magic_is_plain() {
        assert_eq!(Compression::detect(b"BZh1.txt\0\0\0\0"), Compression::None);
        assert_eq!(Compression::detect(b"PK"), Compression::None);
    }

    struct Shared(std::sync::Arc<Mutex<io::Cursor<Vec<u8>>>>);

    impl Read for Shared {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.lock().read(buffer)
        }
    }
}
