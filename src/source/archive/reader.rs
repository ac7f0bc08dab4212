//! The entries of a tar archive that passes by, one after the other.
//!
//! Nothing is extracted. An archive that is shorter than its headers say is called truncated.

use std::io::{self, Read};

use super::{
    entry::{EntryHead, read_head},
    header::{padding, truncated},
};
use crate::error::{Context as _, ErrorKind, Result};

/// The entries of an archive that can be read once.
///
/// The iterator yields the heads; reading yields the payload of the last one, and what is left of it is
/// skipped. The end of the iteration is the end of the input, so that a decoder beneath has checked its sums.
#[derive(Debug)]
pub struct Entries<R> {
    input: R,
    offset: u64,
    payload: u64,
    padding: u64,
    ended: bool,
}

impl<R: Read> Entries<R> {
    /// Reads the archive in `input` from its first byte.
    pub const fn new(input: R) -> Self {
        Self { input, offset: 0, payload: 0, padding: 0, ended: false }
    }

    fn advance(&mut self) -> Result<Option<EntryHead>> {
        let left = self.payload + self.padding;
        let skipped = io::copy(&mut self.input.by_ref().take(left), &mut io::sink())
            .context(ErrorKind::Source, || "reading the archive".into())?;
        self.offset += skipped;
        if skipped < left {
            return Err(truncated(self.offset));
        }
        let Some((head, length)) = read_head(&mut self.input, self.offset)? else {
            // Where nothing came before, nothing is checked by what follows, and that may never end.
            if self.offset > 0 {
                io::copy(&mut self.input, &mut io::sink())
                    .context(ErrorKind::Source, || "reading the archive to its end".into())?;
            }
            return Ok(None);
        };
        self.offset += length;
        self.payload = head.size;
        self.padding = padding(head.size);
        Ok(Some(head))
    }
}

impl<R: Read> Iterator for Entries<R> {
    type Item = Result<EntryHead>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let head = self.advance();
        self.ended = !matches!(head, Ok(Some(_)));
        head.transpose()
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, truncated(self.offset)));
        }
        self.payload -= read as u64;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::archive::{entry::EntryKind, header::BLOCK};

    fn heads(bytes: &[u8]) -> Result<Vec<EntryHead>> {
        Entries::new(bytes).collect()
    }

    /// A header of our own making, for what the tar crate would not write.
    fn header(name: &str, flag: u8, size: &[u8; 12]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..136].copy_from_slice(size);
        block[156] = flag;
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum::<u64>() + 8 * u64::from(b' ');
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn extended(flag: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = header("x", flag, format!("{:011o}\0", payload.len()).as_bytes().try_into().unwrap());
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len() + padding(payload.len() as u64) as usize, 0);
        bytes
    }

    fn built(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn append(builder: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    }

    #[test]
    fn payloads_are_read_or_skipped() {
        let long = "d/".repeat(200) + "f";
        let bytes = built(|builder| {
            append(builder, "a", b"one");
            append(builder, &long, &[7; 600]);
            append(builder, "c", b"");
        });
        let mut entries = Entries::new(bytes.as_slice());
        assert_eq!(entries.next().unwrap().unwrap().name, "a");
        assert_eq!(
            entries.next().unwrap().unwrap(),
            EntryHead { name: long, kind: EntryKind::File, size: 600 }
        );
        let mut payload = Vec::new();
        entries.read_to_end(&mut payload).unwrap();
        assert_eq!(payload, [7; 600]);
        assert_eq!(entries.next().unwrap().unwrap().size, 0);
        assert!(entries.next().is_none());
        assert!(entries.next().is_none());
    }

    #[test]
    fn pax_records_win_over_the_header() {
        let record = b"13 size=1025\n12 path=a/b\n15 linkpath=to\n";
        let bytes = [extended(b'x', record), header("z", b'2', b"00000000000\0")].concat();
        let head = &heads(&bytes).unwrap()[0];
        assert_eq!((head.name.as_str(), &head.kind), ("a/b", &EntryKind::Symlink("to".into())));
        let bytes = [extended(b'x', record), header("z", b'0', b"00000000000\0")].concat();
        let (head, _) = read_head(&mut bytes.as_slice(), 0).unwrap().unwrap();
        assert_eq!(head.size, 1025);
        for broken in ["", "1", "x path=a\n", "99 path=a\n", "8 path=a\n", "4 =\n5", "12 size=-1\n\n\n"] {
            let bytes = [extended(b'x', broken.as_bytes()), header("z", b'0', b"00000000000\0")].concat();
            assert_eq!(heads(&bytes).is_err(), !broken.is_empty(), "{broken:?}");
        }
    }

    #[test]
    fn of_several_extended_headers_the_last_one_counts() {
        let (size, comment) = (&b"9 size=0\n"[..], &b"13 comment=x\n"[..]);
        let file = header("f", b'0', b"00000000003\0");
        for bytes in [
            [extended(b'x', size), extended(b'x', comment), file.clone()].concat(),
            [extended(b'x', size), extended(b'g', comment), file.clone()].concat(),
            [extended(b'L', b"other\0"), extended(b'g', comment), file.clone()].concat(),
        ] {
            let (head, _) = read_head(&mut bytes.as_slice(), 0).unwrap().unwrap();
            assert_eq!((head.name.as_str(), head.size), ("f", 3));
        }
        let bytes = [extended(b'L', b"other\0"), extended(b'x', comment), file].concat();
        assert_eq!(read_head(&mut bytes.as_slice(), 0).unwrap().unwrap().0.name, "other");
    }

    #[test]
    fn a_record_without_a_value_says_nothing() {
        let bytes =
            [extended(b'x', b"13 size=1025\n8 size=\n8 path=\n"), header("f", b'0', b"00000000003\0")]
                .concat();
        let (head, _) = read_head(&mut bytes.as_slice(), 0).unwrap().unwrap();
        assert_eq!((head.name.as_str(), head.size), ("f", 3));
    }

    #[test]
    fn a_sparse_file_is_called_as_its_records_say() {
        const NAME: &str = "27 GNU.sparse.name=a/layer\n";
        const ONE: &str = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n";
        for (records, sparse) in [
            (format!("{ONE}{NAME}"), true),
            (format!("{ONE}{NAME}12 path=a/b\n"), true),
            (format!("22 GNU.sparse.map=0,1\n{NAME}"), true),
            (NAME.to_owned(), false),
            (format!("22 GNU.sparse.major=2\n{NAME}"), false),
        ] {
            let own = header("GNUSparseFile.0/layer", b'0', b"00000000000\0");
            let head = heads(&[extended(b'x', records.as_bytes()), own].concat()).unwrap().remove(0);
            let expected = if sparse {
                ("a/layer", EntryKind::Sparse)
            } else {
                ("GNUSparseFile.0/layer", EntryKind::File)
            };
            assert_eq!((head.name.as_str(), head.kind), expected, "{records}");
        }
    }

    #[test]
    fn an_empty_long_name_is_none() {
        for payload in [&b""[..], b"\0"] {
            let own = header("f", b'2', b"00000000000\0");
            let bytes = [extended(b'L', payload), extended(b'K', payload), own].concat();
            let head = heads(&bytes).unwrap().remove(0);
            assert_eq!((head.name.as_str(), head.kind), ("f", EntryKind::Symlink(String::new())));
        }
        let bytes =
            [extended(b'x', b"12 path=f/g\n"), extended(b'L', b""), header("f", b'0', b"00000000000\0")];
        assert_eq!(heads(&bytes.concat()).unwrap()[0].name, "f/g");
    }

    #[test]
    fn a_name_begins_in_another_field_only_where_there_is_one() {
        for (magic, beginning, end, name) in [
            (&b"ustar\x0000"[..], &b"d"[..], &b""[..], "d/f"),
            (b"ustar\x0000", &[b'd'; 131], b"tar\0", &("d".repeat(131) + "/f")),
            // What stands behind star's field are times.
            (b"ustar\x0000", &[b'd'; 140], b"tar\0", &("d".repeat(131) + "/f")),
            (b"ustar  \0", b"00000000001", b"", "f"),
            (b"ustar  \0", b"d", b"", "d/f"),
            (b"ustar  \0", b"\xff\xff\xff", b"", "f"),
            (b"\0\0\0\0\0\0\0\0", b"d", b"", "f"),
        ] {
            let mut block = header("f", b'0', b"00000000000\0");
            block[257..265].copy_from_slice(magic);
            block[345..345 + beginning.len()].copy_from_slice(beginning);
            block[BLOCK - end.len()..].copy_from_slice(end);
            block[148..156].fill(b' ');
            let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            assert_eq!(heads(&block).unwrap()[0].name, name, "{magic:?} {beginning:?}");
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_errors() {
        let huge = b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff";
        for (size, word) in [
            (huge, "truncated"),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "out of range"),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "negative"),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "out of range"),
            (b"77777777777\0", "truncated"),
            (b"1234567890a\0", "octal"),
            (b"00001 000009", "octal"),
        ] {
            let error = heads(&header("f", b'0', size)).unwrap_err();
            assert!(error.message().contains(word), "{error}");
        }
        let record = b"29 size=18446744073709551615\n";
        let bytes = [extended(b'x', record), header("f", b'0', b"00000000000\0")].concat();
        assert!(heads(&bytes).unwrap_err().message().contains("not a number"));
        for flag in [b'L', b'K', b'x', b'g'] {
            let error = heads(&header("f", flag, b"10000000000\0")).unwrap_err();
            assert!(error.message().contains("limit"), "{error}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_said_where_it_is() {
        let mut bytes = built(|builder| {
            append(builder, "a", b"one");
            append(builder, "b", b"two");
        });
        bytes[1024] ^= 1;
        let error = heads(&bytes).unwrap_err();
        assert_eq!(error.message(), "tar header at byte 1024: wrong checksum");
    }

    #[test]
    fn the_end_may_be_zeros_or_nothing_and_what_follows_is_read() {
        let whole = built(|builder| append(builder, "a", b"one"));
        for (bytes, count) in
            [(&whole[..1024], 1), (&whole[..1536], 1), (&[whole.as_slice(), &whole].concat(), 1), (&[], 0)]
        {
            let mut input = bytes;
            assert_eq!(Entries::new(&mut input).count(), count);
            assert!(input.is_empty());
        }
        let endless = io::repeat(0).take(1 << 30);
        let mut entries = Entries::new(endless);
        assert!(entries.next().is_none());
        assert!(entries.input.limit() > 1 << 29, "zeros alone are no archive to be read to its end");
        for end in [1, 511, 512, 514, 1023] {
            let error = heads(&whole[..end]).unwrap_err();
            assert!(error.message().contains("truncated"), "{end}: {error}");
        }
    }

    #[test]
    fn gnu_sparse_files_are_told_apart_and_skipped_with_their_map() {
        let mut sparse = header("s", b'S', b"00000000000\0");
        sparse[482] = 1;
        let sum = sparse.iter().map(|&byte| u64::from(byte)).sum::<u64>()
            - sparse[148..156].iter().map(|&byte| u64::from(byte)).sum::<u64>()
            + 8 * u64::from(b' ');
        sparse[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let bytes = [sparse, vec![0; BLOCK], header("f", b'0', b"00000000000\0")].concat();
        let heads = heads(&bytes).unwrap();
        assert_eq!(heads[0].kind, EntryKind::Sparse);
        assert_eq!(heads[1].name, "f");
    }

    proptest! {
        #[test]
        fn no_header_panics_and_no_payload_is_made_up(
            headers in proptest::collection::vec(
                ("[a-z/]{0,90}", prop_oneof![any::<u8>(), Just(b'x'), Just(b'0')], any::<[u8; 4]>()), 0..4),
            payload in proptest::collection::vec(any::<u8>(), 0..1024),
        ) {
            let mut bytes = Vec::new();
            for (name, flag, size) in headers {
                // Half of the sizes are small octal numbers.
                let mut field = *b"00000000000\0";
                if size[0] & 1 == 0 {
                    field[..4].copy_from_slice(&size);
                } else {
                    field[9..11].copy_from_slice(&[b'0' + size[1] % 8, b'0' + size[2] % 8]);
                }
                bytes.extend(header(&name, flag, &field));
                bytes.extend(&payload);
            }
            let heads: Vec<_> = Entries::new(bytes.as_slice()).map_while(Result::ok).collect();
            let claimed: u64 = heads.iter().rev().skip(1).map(|head| head.size).sum();
            prop_assert!(claimed <= bytes.len() as u64);
        }

        #[test]
        fn the_reference_reader_sees_the_same(
            files in proptest::collection::vec(("[a-z/]{0,150}[a-z]", 0_usize..1500), 0..8)
        ) {
            let bytes = built(|builder| {
                for (name, size) in &files {
                    append(builder, name.trim_start_matches('/'), &vec![1; *size]);
                }
            });
            let own = heads(&bytes).unwrap();
            let mut reference = tar::Archive::new(bytes.as_slice());
            let theirs = reference.entries().unwrap().map(|entry| {
                let entry = entry.unwrap();
                let name = entry.path().unwrap().to_str().unwrap().to_owned();
                EntryHead { name, kind: EntryKind::File, size: entry.size() }
            });
            prop_assert_eq!(own, theirs.collect::<Vec<_>>());
        }
    }
}
