//! A layer's tar, put together again byte for byte from the files that it was unpacked into.
//!
//! podman and Docker keep, beside each unpacked layer, what an unpacked tar loses (gh:vbatts/tar-split): headers,
//! padding and order, as lines of JSON, with the checksum of every file. The files are read from the storage
//! driver's folder. Each is checked for size and checksum as it passes; that the whole is right shows in the
//! diff ID alone, which whoever reads to the end has to check.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use crc::{CRC_64_GO_ISO, Crc, Table};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use super::payload::Payloads;
use crate::{
    blob::Blob,
    error::{Error, Result, counted},
};

/// Reads a layer's tar.
pub struct TarSplit {
    lines: Box<dyn BufRead + Send>,
    payloads: Payloads,
    piece: Piece,
    /// A line of JSON, kept for its memory, as are a segment's bytes.
    line: Vec<u8>,
    segment: Vec<u8>,
}

/// What the next bytes come from.
enum Piece {
    Segment { at: usize },
    File(Box<Payload>),
}

/// A file that is being read.
struct Payload {
    file: File,
    left: u64,
    crc: crc::Digest<'static, u64, Table<16>>,
    expected: [u8; 8],
    name: Vec<u8>,
}

impl TarSplit {
    /// Reads the tar that `packed`, a `tar-split.gz`, describes.
    pub fn open(packed: &Blob, payloads: Payloads) -> Self {
        Self::new(unpacked(packed), payloads)
    }

    /// Reads the tar that `lines` of JSON describe.
    pub fn new(lines: impl BufRead + Send + 'static, payloads: Payloads) -> Self {
        let (line, segment) = (Vec::new(), Vec::new());
        Self { lines: Box::new(lines), payloads, piece: Piece::Segment { at: 0 }, line, segment }
    }

    /// Returns the size of the tar that `packed` describes; no file of it is looked at.
    pub fn size(packed: &Blob) -> Result<u64> {
        let (mut lines, mut line, mut segment) = (unpacked(packed), Vec::new(), Vec::new());
        let mut total: u64 = 0;
        while let Some(entry) = next(&mut lines, &mut line)? {
            let size = match entry.kind {
                SEGMENT => {
                    segment.clear();
                    entry.segment_into(&mut segment)?;
                    segment.len() as u64
                }
                FILE => entry.size.unwrap_or_default(),
                _ => 0,
            };
            total = total.checked_add(size).ok_or_else(|| invalid("it is larger than any file"))?;
        }
        Ok(total)
    }

    /// Goes on to what the next line describes; returns whether there is one.
    fn advance(&mut self) -> Result<bool> {
        let Some(entry) = next(&mut *self.lines, &mut self.line)? else { return Ok(false) };
        self.segment.clear();
        self.piece = Piece::Segment { at: 0 };
        match (entry.kind, entry.size.unwrap_or_default()) {
            (SEGMENT, _) => entry.segment_into(&mut self.segment)?,
            // Folders, links and whiteouts have nothing but their headers.
            (FILE, 0) => {}
            (FILE, size) => self.piece = Piece::File(Box::new(Payload::open(&entry, size, &self.payloads)?)),
            (kind, _) => return Err(invalid(&format!("unknown type of entry: {kind}"))),
        }
        Ok(true)
    }
}

impl Read for TarSplit {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let read = match &mut self.piece {
                Piece::Segment { at } => {
                    let read = (&self.segment[*at..]).read(buffer)?;
                    *at += read;
                    read
                }
                Piece::File(payload) => payload.read(buffer, &self.payloads).map_err(io::Error::other)?,
            };
            if read > 0 {
                return Ok(read);
            }
            if !self.advance().map_err(io::Error::other)? {
                return Ok(0);
            }
        }
    }
}

impl std::fmt::Debug for TarSplit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarSplit").field("payloads", &self.payloads).finish_non_exhaustive()
    }
}

impl Payload {
    /// Opens the file that an entry describes, which must be as long as it was.
    fn open(entry: &Entry<'_>, size: u64, payloads: &Payloads) -> Result<Self> {
        let name = entry.name()?;
        let mut expected = [0; 8];
        if BASE64.decode_slice(entry.payload(), &mut expected).ok() != Some(expected.len()) {
            return Err(invalid(&format!("no checksum of {}", payloads.named(&name))));
        }
        let (file, found) = payloads.file(&name)?;
        if found != size {
            let named = payloads.named(&name);
            return Err(Error::source(format!(
                "{named} was changed: it had {} and has {found}",
                counted(size, "byte")
            )));
        }
        Ok(Self { file, left: size, crc: CRC64.digest(), expected, name })
    }

    /// Reads on; 0 means that the file has ended as it should.
    fn read(&mut self, buffer: &mut [u8], payloads: &Payloads) -> Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = loop {
            match self.file.read(&mut buffer[..wanted]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let named = || payloads.named(&self.name);
        let read =
            read.map_err(|error| Error::source(format!("{} cannot be read", named())).because(error))?;
        if read == 0 {
            return Err(Error::source(format!("{} became shorter while it was read", named())));
        }
        self.crc.update(&buffer[..read]);
        self.left -= read as u64;
        if self.left == 0 && self.crc.clone().finalize().to_be_bytes() != self.expected {
            return Err(Error::source(format!("{} was changed: its checksum is another", named())));
        }
        Ok(read)
    }
}

/// One line.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    /// Base64, where the name is not UTF-8.
    #[serde(borrow)]
    name_raw: Option<Text<'a>>,
    size: Option<u64>,
    /// Base64: a segment's bytes, or a file's checksum.
    #[serde(borrow)]
    payload: Option<Text<'a>>,
}

/// Text that is not copied unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Entry<'_> {
    fn name(&self) -> Result<Vec<u8>> {
        match (&self.name_raw, &self.name) {
            (Some(Text(raw)), _) if !raw.is_empty() => {
                BASE64.decode(raw.as_bytes()).map_err(|error| invalid("a name is not valid").because(error))
            }
            (_, Some(Text(name))) => Ok(name.as_bytes().to_vec()),
            (_, None) => Err(invalid("a file has no name")),
        }
    }

    fn payload(&self) -> &str {
        self.payload.as_ref().map_or("", |Text(text)| text)
    }

    /// Appends a segment's bytes to what there is.
    fn segment_into(&self, segment: &mut Vec<u8>) -> Result<()> {
        let decoded = BASE64.decode_vec(self.payload(), segment);
        decoded.map_err(|error| invalid("a segment is not valid").because(error))
    }
}

fn unpacked(packed: &Blob) -> impl BufRead + Send + use<> {
    let lines = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, packed.reader()));
    BufReader::with_capacity(BUFFER, lines)
}

/// Reads the entry on the next line that is not empty into `line`; nothing at the end.
fn next<'a>(lines: &mut dyn BufRead, line: &'a mut Vec<u8>) -> Result<Option<Entry<'a>>> {
    while line_into(lines, line)? {
        if !line.trim_ascii().is_empty() {
            let entry = serde_json::from_slice(line);
            return entry.map(Some).map_err(|error| invalid("a line is no entry").because(error));
        }
    }
    Ok(None)
}

fn line_into(lines: &mut dyn BufRead, line: &mut Vec<u8>) -> Result<bool> {
    line.clear();
    let read = lines.take(LINE_LIMIT).read_until(b'\n', line);
    match read.map_err(|error| invalid("it is damaged").because(error))? {
        read if read as u64 == LINE_LIMIT => {
            Err(invalid(&format!("a line is over the limit of {LINE_LIMIT} bytes")))
        }
        read => Ok(read > 0),
    }
}

fn invalid(why: &str) -> Error {
    Error::source(format!("the layer's tar-split is not valid: {why}"))
}

const FILE: u8 = 1;
const SEGMENT: u8 = 2;

/// Padding comes in segments of up to 1 MiB; this is far more.
const LINE_LIMIT: u64 = 16 << 20;

/// Large enough for dozens of entries at a time.
const BUFFER: usize = 64 << 10;

/// What Go's `hash/crc64` computes with its ISO table.
static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// For the tests of the stores: a layer of one file, `hello`.
#[cfg(test)]
pub(super) mod hello {
    use std::io::{Read as _, Write as _};

    use crate::{
        error::{Error, Result},
        source::{Choice, Data, ImageContent, Source, choose},
    };

    /// Its tar, in which the file lies between two bytes.
    pub(crate) const TAR: &[u8] = b"<hello>";

    /// Returns what a store keeps of it beside the file.
    pub(crate) fn packed() -> Vec<u8> {
        let lines = r#"{"type":2,"payload":"PA=="}
{"type":1,"name":"hello","size":5,"payload":"PD7u4tgQAAA="}
{"type":2,"payload":"Pg=="}
"#;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(lines.as_bytes()).unwrap();
        packed.finish().unwrap()
    }

    /// Rebuilds the layers of an image.
    pub(crate) fn read(storage: &dyn Source, choice: &Choice) -> Result<Vec<Vec<u8>>> {
        let image = choose(storage, choice, None)?;
        let layers = match image.content {
            ImageContent::Broken { error, .. } => return Err(error),
            ImageContent::Layers { layers, .. } => layers,
            content => panic!("{content:?}"),
        };
        let mut tars = Vec::new();
        for layer in layers {
            let Data::Stream(mut stream) = storage.open(&layer)? else { panic!("not a stream") };
            let mut tar = Vec::new();
            stream.read_to_end(&mut tar).map_err(|error| error.downcast::<Error>().unwrap())?;
            tars.push(tar);
        }
        Ok(tars)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use proptest::prelude::*;

    use super::*;

    /// What a line is made of.
    #[derive(Clone, Debug)]
    enum Part {
        Segment(Vec<u8>),
        File(Vec<u8>),
    }

    fn part() -> impl Strategy<Value = Part> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..3000);
        prop_oneof![bytes().prop_map(Part::Segment), bytes().prop_map(Part::File)]
    }

    fn checksum(bytes: &[u8]) -> String {
        BASE64.encode(CRC64.checksum(bytes).to_be_bytes())
    }

    fn layer() -> (tempfile::TempDir, Payloads) {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("diff")).unwrap();
        let payloads = Payloads::open(dir.path(), "diff").unwrap();
        (dir, payloads)
    }

    fn rebuilt(lines: &str, payloads: Payloads) -> io::Result<Vec<u8>> {
        let mut tar = Vec::new();
        TarSplit::new(Cursor::new(lines.as_bytes().to_vec()), payloads).read_to_end(&mut tar)?;
        Ok(tar)
    }

    /// Rebuilds what one file, `f` of 3 bytes, and one line make.
    fn with_line(line: &str) -> Result<Vec<u8>> {
        let (dir, payloads) = layer();
        fs_err::write(dir.path().join("diff/f"), "abc").unwrap();
        rebuilt(line, payloads).map_err(|error| error.downcast().unwrap())
    }

    #[test]
    fn the_checksum_is_that_of_go() {
        assert_eq!(CRC64.checksum(b"123456789"), 0xb909_56c7_75a4_1001);
    }

    #[test]
    fn lines_are_read_as_tar_split_writes_them() {
        let crc = checksum(b"abc");
        for line in [
            format!(r#"{{"type":1,"name":"f","size":3,"payload":"{crc}","position":0}}"#),
            format!(r#"{{"type":1,"name":"./f","size":3,"payload":"{crc}"}}"#),
            format!(r#"{{"type":1,"name_raw":"Zg==","size":3,"payload":"{crc}","position":7}}"#),
            format!(r#"{{"type":1,"name":"\u0066","size":3,"payload":"{crc}"}}"#),
            r#"{"type":2,"payload":"YWJj"}"#.into(),
            format!(
                "\n{}\n\n{}",
                r#"{"type":1,"name":"dir/","payload":null}"#, r#"{"type":2,"payload":"YWJj"}"#
            ),
        ] {
            assert_eq!(with_line(&line).unwrap(), b"abc", "{line}");
        }
        assert_eq!(with_line("").unwrap(), b"");
    }

    #[test]
    fn what_is_not_as_it_was_is_an_error() {
        let crc = checksum(b"abc");
        for (line, words) in [
            (format!(r#"{{"type":1,"name":"f","size":2,"payload":"{crc}"}}"#), "had 2 bytes and has 3"),
            (format!(r#"{{"type":1,"name":"f","size":4,"payload":"{crc}"}}"#), "had 4 bytes and has 3"),
            (
                format!(r#"{{"type":1,"name":"f","size":3,"payload":"{}"}}"#, checksum(b"")),
                "checksum is another",
            ),
            (r#"{"type":1,"name":"f","size":3,"payload":null}"#.into(), "no checksum"),
            (r#"{"type":1,"name":"f","size":3,"payload":"AAAA"}"#.into(), "no checksum"),
            (format!(r#"{{"type":1,"name":"g","size":3,"payload":"{crc}"}}"#), "missing"),
            (format!(r#"{{"type":1,"size":3,"payload":"{crc}"}}"#), "no name"),
            (format!(r#"{{"type":1,"name":"f","size":-1,"payload":"{crc}"}}"#), "no entry"),
            (r#"{"type":2,"payload":"?"}"#.into(), "segment"),
            (r#"{"type":3}"#.into(), "type of entry: 3"),
            ("[".into(), "no entry"),
        ] {
            let error = with_line(&line).unwrap_err();
            assert!(error.message().contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let (_dir, payloads) = layer();
        let endless = BufReader::new(io::repeat(b' '));
        let error = io::copy(&mut TarSplit::new(endless, payloads), &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("limit"), "{error}");
    }

    proptest! {
        #[test]
        fn what_was_taken_apart_is_put_together(parts in proptest::collection::vec(part(), 0..20)) {
            let (dir, payloads) = layer();
            let (mut lines, mut expected) = (Vec::new(), Vec::new());
            for (at, part) in parts.iter().enumerate() {
                let (Part::Segment(bytes) | Part::File(bytes)) = part;
                expected.extend(bytes.iter().copied());
                lines.push(match part {
                    Part::Segment(bytes) => {
                        format!(r#"{{"type":2,"payload":"{}","position":{at}}}"#, BASE64.encode(bytes))
                    }
                    Part::File(bytes) => {
                        fs_err::write(dir.path().join(format!("diff/{at}")), bytes).unwrap();
                        let (size, crc) = (bytes.len(), checksum(bytes));
                        format!(r#"{{"type":1,"name":"{at}","size":{size},"payload":"{crc}"}}"#)
                    }
                });
            }
            let lines = lines.join("\n");
            prop_assert_eq!(&rebuilt(&lines, payloads).unwrap(), &expected);
            let packed = dir.path().join("x.tar-split.gz");
            let mut encoder = flate2::write::GzEncoder::new(fs_err::File::create(&packed).unwrap(), flate2::Compression::fast());
            encoder.write_all(lines.as_bytes()).unwrap();
            encoder.finish().unwrap();
            let payloads = Payloads::open(dir.path(), "diff").unwrap();
            let mut tar = Vec::new();
            TarSplit::open(&Blob::open(&packed).unwrap(), payloads).read_to_end(&mut tar).unwrap();
            prop_assert_eq!(tar, expected);
        }

        #[test]
        fn no_line_panics(lines in proptest::collection::vec(
            prop_oneof![
                r#"\{"type":[0-3],("name":"[./f\\n]{0,4}",)?("name_raw":"[A-Za-z=]{0,4}",)?("size":-?[0-9]{1,20},)?"payload":("[A-Za-z0-9+/=]{0,12}"|null)\}"#,
                ".{0,40}",
            ],
            0..6,
        )) {
            let (dir, payloads) = layer();
            fs_err::write(dir.path().join("diff/f"), "abc").unwrap();
            if let Err(error) = rebuilt(&lines.join("\n"), payloads) {
                let error = error.downcast::<Error>().unwrap();
                prop_assert_eq!(error.kind(), crate::ErrorKind::Source);
            }
        }
    }
}
