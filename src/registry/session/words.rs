//! What registries tell only in prose: the offset they wait for, and how large a body may be.
//!
//! Pure text to number, for sentences that have been seen. A sentence that is not understood is no answer.

/// Reads the offset that a registry waits for.
///
/// ECR: `First byte of the layer part is 0 instead of 11304960` (gh:apple/containerization#790).
pub(super) fn expected_offset(message: &str) -> Option<u64> {
    let (_, rest) = message.split_once("instead of ")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

/// Returns whether a registry complains of the size of a body.
///
/// GHCR does so by 416, `… exceeds the maximum permissible limit of 4.00MiB`
/// (gh:oras-project/rust-oci-client#37).
pub(super) fn says_too_large(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["too large", "exceeds the maximum"].iter().any(|words| message.contains(words))
}

/// Reads the size, in bytes, that a body may have.
pub(super) fn body_limit(message: &str) -> Option<u64> {
    let message = message.to_ascii_lowercase();
    let (_, rest) = message.split_once("limit of ")?;
    let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = rest.split_at(digits);
    // `a limit of 5242880.` ends a sentence.
    let number: f64 = number.trim_end_matches('.').parse().ok()?;
    let unit = unit.trim_start();
    let letters = unit.bytes().take_while(u8::is_ascii_alphabetic).count();
    let scale: u64 = match &unit[..letters] {
        "" | "b" | "byte" | "bytes" => 1,
        "kb" | "kbytes" | "kilobyte" | "kilobytes" => 1_000,
        "kib" | "k" => 1 << 10,
        "mb" | "mbytes" | "megabyte" | "megabytes" => 1_000_000,
        "mib" | "m" => 1 << 20,
        "gb" | "gbytes" | "gigabyte" | "gigabytes" => 1_000_000_000,
        "gib" | "g" => 1 << 30,
        // It limits something else.
        _ => return None,
    };
    #[expect(clippy::cast_precision_loss, reason = "the scales are small powers")]
    let bytes = number * scale as f64;
    #[expect(clippy::cast_sign_loss, reason = "digits have no sign, and `as` saturates")]
    let bytes = bytes as u64;
    (bytes > 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_offset_that_ecr_waits_for_is_read() {
        let ecr = "First byte of the layer part is 0 instead of 11304960";
        assert_eq!(expected_offset(ecr), Some(11_304_960));
        assert_eq!(expected_offset("is 5 instead of 7."), Some(7));
        for message in ["", "instead of ", "instead of x", "instead of 99999999999999999999999"] {
            assert_eq!(expected_offset(message), None, "{message}");
        }
    }

    #[test]
    fn a_limit_is_read_in_any_unit() {
        for (message, limit) in [
            ("content length exceeds the maximum permissible limit of 4.00MiB", Some(4 << 20)),
            ("Request body too large: limit of 100 MB", Some(100_000_000)),
            ("limit of 5242880.", Some(5_242_880)),
            ("limit of 5242880 bytes", Some(5_242_880)),
            ("limit of 512k", Some(512 << 10)),
            ("The body is over the limit of 32 Megabytes.", Some(32_000_000)),
            ("limit of 1 gigabyte", Some(1_000_000_000)),
            ("limit of 64 KBytes", Some(64_000)),
            ("limit of 100 requests", None),
            ("limit of 0", None),
            ("limit of ", None),
            ("limit of 1.2.3 MiB", None),
            ("413 Request Entity Too Large", None),
        ] {
            assert_eq!(body_limit(message), limit, "{message}");
        }
    }

    #[test]
    fn too_large_is_told_from_misplaced() {
        assert!(says_too_large("chunk exceeds the maximum permissible limit of 4.00MiB"));
        assert!(says_too_large("Request Entity Too Large"));
        assert!(!says_too_large("invalid content range"));
    }

    proptest! {
        #[test]
        fn no_words_make_it_panic(message in "\\PC{0,20}((limit|instead) of )?[0-9.]{0,30} ?\\PC{0,5}") {
            prop_assert!(body_limit(&message) != Some(0));
            prop_assert!(expected_offset(&message).is_none() || message.contains("instead of "));
        }
    }
}
