//! The `Range` header by which a registry tells how many bytes of an upload it holds.
//!
//! Pure text to number. The specification wants `0-<last byte>`; registries also write `bytes=0-9`,
//! `bytes 0-9/*`, and `0--1` for nothing. Whether the number is true is for the session to judge.

use http::{HeaderMap, header};

/// What a `Range` header claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// So many bytes are held, read as the specification means it.
    pub count: u64,
    /// It was written `bytes=…`.
    pub bytes_form: bool,
}

impl Stored {
    /// Reads the header, if there is a sensible one.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        parse(headers.get(header::RANGE)?.to_str().ok()?)
    }

    /// Returns the count as the answer to a status request means it.
    ///
    /// Quay answers a status GET by `bytes=0-<count>`, one too many, while `0-<last>` after a PATCH is right
    /// (quay/quay:endpoints/v2/blob.py).
    pub(crate) const fn in_status(self) -> u64 {
        if self.bytes_form { self.count.saturating_sub(1) } else { self.count }
    }
}

/// Parses the value of a `Range` header.
pub fn parse(value: &str) -> Option<Stored> {
    let value = value.trim();
    let unit = value.get(..5).filter(|unit| unit.eq_ignore_ascii_case("bytes"));
    let rest = unit.map_or(value, |unit| &value[unit.len()..]);
    let bytes_form = unit.is_some() && rest.starts_with('=');
    let span = if unit.is_some() { rest.strip_prefix(['=', ' '])? } else { rest };
    let span = span.split_once('/').map_or(span, |(span, _)| span).trim();
    let (first, last) = span.split_once('-')?;
    let first = number(first)?;
    // An empty upload has no last byte; `0--1` is what several registries make of it:
    // gh:opencontainers/distribution-spec#578.
    let count = if last == "-1" { 0 } else { number(last)?.checked_add(1)? };
    (count == 0 || first < count).then_some(Stored { count, bytes_form })
}

fn number(digits: &str) -> Option<u64> {
    // `parse` alone would take a sign.
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_means_its_count() {
        for (value, count, bytes_form) in [
            ("0-0", 1, false),
            ("0-1023", 1024, false),
            (" 0-1023 ", 1024, false),
            ("bytes=0-1023", 1024, true),
            ("Bytes=0-1023", 1024, true),
            ("bytes 0-1023/*", 1024, false),
            ("bytes 0-1023/4096", 1024, false),
            ("0--1", 0, false),
            ("bytes=0--1", 0, true),
            ("16-31", 32, false),
        ] {
            assert_eq!(parse(value), Some(Stored { count, bytes_form }), "{value}");
        }
    }

    #[test]
    fn nonsense_is_no_range() {
        for value in [
            "",
            "-",
            "0",
            "0-",
            "-5",
            "bytes",
            "bytes=",
            "bytes0-5",
            "0-+5",
            "+0-5",
            "0--2",
            "5-3",
            "0-5,7-9",
            "0-x",
            "a-b",
            "0-18446744073709551615",
            "0-99999999999999999999999",
            "ünits=0-5",
            "byteß0-5",
        ] {
            assert_eq!(parse(value), None, "{value}");
        }
    }

    #[test]
    fn quay_counts_one_too_many_in_a_status() {
        assert_eq!(parse("bytes=0-1024").unwrap().in_status(), 1024);
        assert_eq!(parse("bytes=0-0").unwrap().in_status(), 0);
        assert_eq!(parse("bytes=0--1").unwrap().in_status(), 0);
        assert_eq!(parse("0-1023").unwrap().in_status(), 1024);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(value in "\\PC{0,40}|(bytes[= ])?[0-9]{0,22}-{1,3}[0-9]{0,22}(/[0-9*]*)?") {
            if let Some(stored) = parse(&value) {
                prop_assert!(stored.in_status() <= stored.count);
            }
        }
    }
}
