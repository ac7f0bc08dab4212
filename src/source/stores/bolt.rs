//! bbolt databases, read without a lock while their owner may write: containerd keeps the names of images in one.
//!
//! A database is a tree of pages below one of two meta pages, whichever is newer and whole. The owner never
//! writes a page that the newer meta reaches, so what was read holds if that meta is still the newer one
//! afterwards ([`snapshot`]). Nothing in the file is trusted: every number is checked, and since no byte of a
//! sound database is reached twice, no walk may read more than the file has. The format: gh:etcd-io/bbolt, page.go.

use std::{cell::Cell, ops::ControlFlow};

use crate::{
    blob::Blob,
    error::{Context as _, Error, ErrorKind, Result},
};

/// Reads something from the database that `open` opens, as it was at one moment.
pub fn snapshot<T>(open: impl Fn() -> Result<Blob>, read: impl Fn(&Database) -> Result<T>) -> Result<T> {
    for _ in 0..ATTEMPTS {
        let database = Database::new(open()?)?;
        let result = read(&database);
        if Database::new(open()?)?.meta == database.meta {
            return result;
        }
    }
    Err(Error::source("the database changed whenever it was read: containerd is writing")
        .with_hint("try again when it is idle"))
}

/// A database at the moment when it was opened.
#[derive(Debug)]
pub struct Database {
    blob: Blob,
    meta: Meta,
    /// So many bytes may still be looked at.
    budget: Cell<u64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Meta {
    page_size: u64,
    root: u64,
    /// No page has this number or a higher one.
    end: u64,
    transaction: u64,
}

/// A map from keys to values and other buckets.
#[derive(Clone, Copy, Debug)]
pub struct Bucket<'a>(Place<'a>);

#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Page(u64),
    /// A small bucket's only page lies within its parent's.
    Inline(&'a [u8]),
}

/// What a key leads to.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// A bucket within the bucket.
    Bucket(Bucket<'a>),
    /// A value.
    Value(&'a [u8]),
}

/// Hears of one key; breaks when no more are wanted.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], Item<'_>) -> Result<ControlFlow<()>>;

impl Database {
    /// Reads the newer of the two meta pages.
    pub fn new(blob: Blob) -> Result<Self> {
        let first = Meta::at(&blob, 0);
        // Where the first one is damaged, the second's place is not known either.
        let sizes = match &first {
            Some(meta) => meta.page_size..=meta.page_size,
            None => SMALLEST_PAGE..=LARGEST_PAGE,
        };
        let second = std::iter::successors(Some(*sizes.start()), |size| Some(size * 2))
            .take_while(|size| sizes.contains(size))
            .find_map(|size| Meta::at(&blob, size).filter(|meta| meta.page_size == size));
        let meta = first.into_iter().chain(second).max_by_key(|meta| meta.transaction);
        let meta = meta.ok_or_else(|| damaged("neither meta page is whole"))?;
        let budget = Cell::new(blob.size().saturating_mul(2));
        Ok(Self { blob, meta, budget })
    }

    /// Returns the bucket that holds all others.
    pub fn root(&self) -> Bucket<'static> {
        Bucket(Place::Page(self.meta.root))
    }

    /// Visits the keys of a bucket in their order.
    pub fn visit(&self, bucket: Bucket<'_>, visit: Visit<'_>) -> Result<()> {
        match bucket.0 {
            Place::Page(number) => self.visit_page(number, 0, visit).map(drop),
            Place::Inline(bytes) => {
                let page = Page::new(bytes)?;
                if !page.is(LEAF) {
                    return Err(damaged("an inline bucket is no leaf"));
                }
                self.visit_leaf(&page, visit).map(drop)
            }
        }
    }

    /// Hands the bucket of this name within `bucket` to `then`, if there is one.
    pub fn within(
        &self,
        bucket: Bucket<'_>,
        name: &[u8],
        then: &mut dyn FnMut(Bucket<'_>) -> Result<()>,
    ) -> Result<()> {
        self.visit(bucket, &mut |key, item| match item {
            Item::Bucket(found) if key == name => then(found).map(ControlFlow::Break),
            _ => Ok(ControlFlow::Continue(())),
        })
    }

    /// Visits the buckets within a bucket.
    pub(super) fn buckets(
        &self,
        bucket: Bucket<'_>,
        mut each: impl FnMut(&[u8], Bucket<'_>) -> Result<()>,
    ) -> Result<()> {
        self.visit(bucket, &mut |name, item| {
            if let Item::Bucket(found) = item {
                each(name, found)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Visits the keys of a bucket that have values.
    pub(super) fn values(
        &self,
        bucket: Bucket<'_>,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.visit(bucket, &mut |key, item| {
            if let Item::Value(value) = item {
                each(key, value)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn visit_page(&self, number: u64, depth: usize, visit: Visit<'_>) -> Result<ControlFlow<()>> {
        if depth > DEPTH_LIMIT {
            return Err(damaged("its tree is too deep"));
        }
        let bytes = self.read_page(number)?;
        let page = Page::new(&bytes)?;
        if page.is(LEAF) {
            return self.visit_leaf(&page, visit);
        }
        if !page.is(BRANCH) {
            return Err(damaged("a page is neither branch nor leaf"));
        }
        for at in 0..page.count {
            self.spend(ELEMENT)?;
            let child = u64_at(page.bytes, element(at) + 8)?;
            if self.visit_page(child, depth + 1, visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn visit_leaf(&self, page: &Page<'_>, visit: Visit<'_>) -> Result<ControlFlow<()>> {
        for at in 0..page.count {
            self.spend(ELEMENT)?;
            let element = element(at);
            let field = |at: usize| u32_at(page.bytes, element + at);
            let (flags, key_at, key) = (field(0)?, element + field(4)? as usize, field(8)? as usize);
            let value = part(page.bytes, key_at + key, field(12)? as usize)?;
            let key = part(page.bytes, key_at, key)?;
            let item =
                if flags & BUCKET == 0 { Item::Value(value) } else { Item::Bucket(Bucket::new(value)?) };
            if visit(key, item)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads a page with those it runs over into.
    fn read_page(&self, number: u64) -> Result<Vec<u8>> {
        let outside = || damaged("a page lies outside");
        if number >= self.meta.end {
            return Err(outside());
        }
        let size = self.meta.page_size;
        let offset = number.checked_mul(size).ok_or_else(outside)?;
        let reading = || "reading the database".to_owned();
        let head = self.blob.slice(offset, HEAD as u64).ok_or_else(outside)?;
        let head = head.read_all(HEAD as u64, "a page")?;
        if u64_at(&head, 0)? != number {
            return Err(damaged("a page has another one's number"));
        }
        let length = size * (u64::from(u32_at(&head, 12)?) + 1);
        self.spend(length)?;
        let page = self.blob.slice(offset, length).ok_or_else(outside)?;
        let mut bytes = vec![0; length as usize];
        page.read_exact_at(&mut bytes, 0).context(ErrorKind::Source, reading)?;
        Ok(bytes)
    }

    fn spend(&self, bytes: u64) -> Result<()> {
        let left = self.budget.get().checked_sub(bytes);
        self.budget.set(left.ok_or_else(|| damaged("its pages are used more than once"))?);
        Ok(())
    }
}

impl Meta {
    fn at(blob: &Blob, offset: u64) -> Option<Self> {
        let mut bytes = [0; HEAD + META];
        blob.slice(offset, bytes.len() as u64)?.read_exact_at(&mut bytes, 0).ok()?;
        let meta = &bytes[HEAD..];
        let sum = fnv(&meta[..META - 8]);
        let sound = u32_at(meta, 0).ok()? == MAGIC
            && u32_at(meta, 4).ok()? == VERSION
            && u64_at(meta, META - 8).ok()? == sum;
        let page_size = u64::from(u32_at(meta, 8).ok()?);
        if !sound || !page_size.is_power_of_two() || !(SMALLEST_PAGE..=LARGEST_PAGE).contains(&page_size) {
            return None;
        }
        Some(Self {
            page_size,
            root: u64_at(meta, 16).ok()?,
            end: u64_at(meta, 40).ok()?,
            transaction: u64_at(meta, 48).ok()?,
        })
    }
}

impl<'a> Bucket<'a> {
    fn new(value: &'a [u8]) -> Result<Self> {
        Ok(Self(match u64_at(value, 0)? {
            0 => Place::Inline(value.get(BUCKET_HEAD..).ok_or_else(|| damaged("a bucket is cut off"))?),
            page => Place::Page(page),
        }))
    }
}

/// A page's bytes, which begin with its number, kind, count of elements and overflow.
struct Page<'a> {
    bytes: &'a [u8],
    flags: u16,
    count: usize,
}

impl<'a> Page<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self> {
        let flags = u16::from_le_bytes(array(bytes, 8)?);
        let count = usize::from(u16::from_le_bytes(array(bytes, 10)?));
        Ok(Self { bytes, flags, count })
    }

    const fn is(&self, kind: u16) -> bool {
        self.flags & kind != 0
    }
}

/// Returns where in its page an element's description is.
const fn element(at: usize) -> usize {
    HEAD + at * ELEMENT as usize
}

fn part(bytes: &[u8], start: usize, length: usize) -> Result<&[u8]> {
    let end = start.checked_add(length);
    end.and_then(|end| bytes.get(start..end))
        .ok_or_else(|| damaged("a key or value lies outside of its page"))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.copied().ok_or_else(|| damaged("a page is cut off"))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// FNV-1a of 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn damaged(what: &str) -> Error {
    Error::source(format!("the database is damaged: {what}"))
}

/// A write takes milliseconds; who writes more often than that is busy.
const ATTEMPTS: usize = 5;
/// With two keys a page, the least that bbolt allows, 2^32 keys would be as deep.
const DEPTH_LIMIT: usize = 32;
const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
const HEAD: usize = 16;
const META: usize = 64;
const ELEMENT: u64 = 16;
const BUCKET_HEAD: usize = 16;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// The flag of an element whose value is a bucket.
const BUCKET: u32 = 1;
/// bbolt takes the page size of the machine that made the file.
const SMALLEST_PAGE: u64 = 1 << 10;
const LARGEST_PAGE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, io::Write as _, sync::Arc};

    use proptest::prelude::*;

    use super::*;

    const SIZE: usize = 1024;

    /// A page's payload: an element is flags, key and value, in a branch the child's number and nothing.
    fn page(number: u64, kind: u16, elements: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
        let mut page =
            [&number.to_le_bytes()[..], &kind.to_le_bytes(), &(elements.len() as u16).to_le_bytes()].concat();
        let data: usize = elements.iter().map(|(_, key, value)| key.len() + value.len()).sum();
        let length = HEAD + elements.len() * 16 + data;
        page.extend((length.div_ceil(SIZE) as u32 - 1).to_le_bytes());
        let mut data_at = (elements.len() * 16) as u32;
        for (flags, key, value) in elements {
            if kind == BRANCH {
                page.extend([data_at, key.len() as u32].map(u32::to_le_bytes).concat());
                page.extend(u64::from(*flags).to_le_bytes());
            } else {
                let fields = [*flags, data_at, key.len() as u32, value.len() as u32];
                page.extend(fields.map(u32::to_le_bytes).concat());
            }
            // The next one counts from its own description.
            data_at = data_at + (key.len() + value.len()) as u32 - 16;
        }
        for (_, key, value) in elements {
            page.extend([*key, if kind == BRANCH { &[] } else { *value }].concat());
        }
        page
    }

    fn meta(transaction: u64, root: u64) -> Vec<u8> {
        let mut meta = [MAGIC, VERSION, SIZE as u32, 0].map(u32::to_le_bytes).concat();
        meta.extend([root, 0, 0, 100, transaction].map(u64::to_le_bytes).concat());
        let sum = fnv(&meta);
        [&[0; HEAD][..], &meta, &sum.to_le_bytes()].concat()
    }

    /// A database of two metas and pages from number 2 on, the second of which may run over into the next.
    fn file(metas: [&[u8]; 2], pages: &[Vec<u8>]) -> Vec<u8> {
        let mut file = Vec::new();
        for page in metas.into_iter().chain(pages.iter().map(Vec::as_slice)) {
            file.extend(page);
            file.resize(file.len().next_multiple_of(SIZE), 0);
        }
        file
    }

    fn blob(bytes: &[u8]) -> Blob {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Blob::from_file(Arc::new(fs_err::File::from_parts(file, "database")), bytes.len() as u64)
    }

    fn inline(elements: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
        [&[0; BUCKET_HEAD][..], &page(0, LEAF, elements)].concat()
    }

    fn paged(number: u64) -> Vec<u8> {
        [number, 0].map(u64::to_le_bytes).concat()
    }

    /// A branch above two leaves, one with an inline bucket and one with a bucket whose page runs over.
    fn sound() -> Vec<u8> {
        let inner = inline(&[(0, b"x", b"1")]);
        let long = vec![b'y'; 1500];
        let pages = [
            page(2, BRANCH, &[(3, b"a", b""), (4, b"c", b"")]),
            page(3, LEAF, &[(BUCKET, b"a", &inner), (0, b"b", b"2")]),
            page(4, LEAF, &[(BUCKET, b"c", &paged(5))]),
            page(5, LEAF, &[(0, b"long", &long)]),
        ];
        file([&meta(8, 2), &meta(7, 3)], &pages)
    }

    fn listed(bytes: &[u8]) -> Result<String> {
        fn list(database: &Database, bucket: Bucket<'_>, text: &mut String) -> Result<()> {
            database.visit(bucket, &mut |key, item| {
                text.push_str(&String::from_utf8_lossy(key));
                match item {
                    Item::Bucket(bucket) => {
                        text.push('{');
                        list(database, bucket, text)?;
                        text.push('}');
                    }
                    Item::Value(value) => write!(text, "={} ", value.len()).unwrap(),
                }
                Ok(ControlFlow::Continue(()))
            })
        }
        let database = Database::new(blob(bytes))?;
        let mut text = String::new();
        list(&database, database.root(), &mut text).map(|()| text)
    }

    #[test]
    fn pages_branches_and_inline_buckets_are_walked() {
        assert_eq!(listed(&sound()).unwrap(), "a{x=1 }b=1 c{long=1500 }");
        let database = Database::new(blob(&sound())).unwrap();
        let mut found = 0;
        for name in [&b"a"[..], b"b", b"c", b"d"] {
            let then = &mut |_: Bucket<'_>| {
                found += 1;
                Ok(())
            };
            database.within(database.root(), name, then).unwrap();
        }
        assert_eq!(found, 2);
    }

    #[test]
    fn the_newer_whole_meta_counts() {
        let mut bytes = sound();
        // Without the newer one, the root is one of the leaves.
        bytes[HEAD] ^= 1;
        assert_eq!(listed(&bytes).unwrap(), "a{x=1 }b=1 ");
        bytes[SIZE + HEAD + 20] ^= 1;
        assert!(listed(&bytes).unwrap_err().message().contains("meta"));
        assert!(listed(b"").is_err());
    }

    #[test]
    fn what_is_reached_twice_or_lies_outside_is_damage() {
        let children: Vec<(u32, &[u8], &[u8])> = vec![(2, b"a", b""); 50];
        let long = [0x80; 16];
        for (pages, word) in [
            (vec![page(2, BRANCH, &children)], "more than once"),
            (vec![page(2, BRANCH, &[(99, b"a", b"")])], "outside"),
            (vec![page(2, BRANCH, &[(100, b"a", b"")])], "outside"),
            (vec![page(3, LEAF, &[])], "number"),
            (vec![page(2, 16, &[])], "neither branch nor leaf"),
            (vec![page(2, LEAF, &[(BUCKET, b"a", b"short")])], "cut off"),
            (vec![page(2, LEAF, &[(BUCKET, b"a", &long)])], "outside"),
        ] {
            let error = listed(&file([&meta(1, 2), &[0]], &pages)).unwrap_err();
            assert!(error.message().contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_database_that_changes_is_read_again() {
        let at = |transaction| file([&meta(transaction, 2), &[0]], &[page(2, LEAF, &[])]);
        let opened = Cell::new(0);
        let read = |changes: u64| {
            opened.set(0);
            let open = || {
                opened.set(opened.get() + 1);
                Ok(blob(&at(opened.get().min(changes))))
            };
            snapshot(open, |database| Ok(database.meta.transaction))
        };
        assert_eq!(read(1).unwrap(), 1);
        assert_eq!(read(4).unwrap(), 4);
        assert!(read(u64::MAX).unwrap_err().message().contains("writing"));
        assert_eq!(opened.get(), 10);
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic_or_hang(at in 0..6 * SIZE, byte: u8, more in 0..6 * SIZE, other: u8) {
            let mut bytes = sound();
            bytes[at] = byte;
            bytes[more] = other;
            drop(listed(&bytes));
        }
    }
}
