//! What is wrong with a JSON document, in our words.
//!
//! serde names Rust's types and our structs, which say nothing to those who have the document. What our own types say of a
//! value stays as it is.

use serde_json::error::Category;

/// A JSON document that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misfit(String);

impl Misfit {
    /// Reads what serde says; nothing, if the document could not be read at all.
    pub(super) fn of(error: &serde_json::Error) -> Option<Self> {
        let (line, column) = (error.line(), error.column());
        let said = error.to_string();
        let said = said.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&said);
        let words = match error.classify() {
            Category::Io => return None,
            Category::Eof => "it ends too early".to_owned(),
            Category::Syntax => format!("it is not JSON: {said}"),
            Category::Data => words(said),
        };
        Some(Self(match line {
            0 => words,
            _ => format!("line {line}, column {column}: {words}"),
        }))
    }
}

/// Says it without serde's words.
fn words(said: &str) -> String {
    if let Some(field) = said.strip_prefix("missing field ") {
        return format!("{field} is missing");
    }
    if let Some(field) = said.strip_prefix("duplicate field ") {
        return format!("{field} is there twice");
    }
    let unfit = ["invalid type: ", "invalid value: ", "invalid length "];
    let unfit = unfit.iter().find_map(|kind| said.strip_prefix(kind)?.split_once(", expected "));
    match unfit {
        Some((found, wanted)) => format!("there is {} where {} should be", there(found), should_be(wanted)),
        None => said.to_owned(),
    }
}

fn there(found: &str) -> String {
    let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
    match kind {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        "string" => format!("the text `{}`", value.trim_matches('"')),
        "integer" | "floating" => format!("the number {}", value.trim_start_matches("point ")),
        "boolean" => value.to_owned(),
        "null" => "`null`".to_owned(),
        // A list's length, which is that of no struct.
        length if length.bytes().all(|byte| byte.is_ascii_digit()) => "a list".to_owned(),
        _ => found.to_owned(),
    }
}

fn should_be(wanted: &str) -> &str {
    match wanted.split(' ').next().unwrap_or_default() {
        "struct" | "map" => "an object",
        "tuple" => "a list",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        _ => match wanted {
            "a map" => "an object",
            "a sequence" | "a tuple" => "a list",
            "a string" | "a borrowed string" => "a text",
            "a boolean" => "`true` or `false`",
            own => own,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, de::DeserializeOwned};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(try_from = "String")]
    struct Odd;

    impl TryFrom<String> for Odd {
        type Error = String;

        fn try_from(text: String) -> Result<Self, String> {
            Err(format!("not odd: `{text}`"))
        }
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is only read")]
    struct Document {
        name: Option<String>,
        size: u64,
        is: Option<bool>,
        list: Option<Vec<String>>,
        map: Option<BTreeMap<String, i32>>,
        below: Option<Box<Self>>,
    }

    fn said<T: DeserializeOwned + std::fmt::Debug>(json: &str) -> String {
        Misfit::of(&serde_json::from_str::<T>(json).unwrap_err()).unwrap().to_string()
    }

    #[test]
    fn what_is_wrong_is_said_without_the_names_of_types() {
        for (json, words) in [
            ("[]", "line 1, column 2: there is a list where an object should be"),
            ("{", "line 1, column 1: it ends too early"),
            ("{}", "line 1, column 2: `size` is missing"),
            ("{\"size\":1,\n\"size\":1}", "line 2, column 6: `size` is there twice"),
            ("{\"size\":1}x", "line 1, column 11: it is not JSON: trailing characters"),
            (
                "{\"size\":-1}",
                "line 1, column 10: there is the number `-1` where a whole number from 0 on should be",
            ),
            (
                "{\"size\":{}}",
                "line 1, column 8: there is an object where a whole number from 0 on should be",
            ),
            (
                "{\"size\":null}",
                "line 1, column 12: there is `null` where a whole number from 0 on should be",
            ),
            (
                "{\"size\":\"1\"}",
                "line 1, column 11: there is the text `1` where a whole number from 0 on should be",
            ),
            (
                "{\"size\":1.5}",
                "line 1, column 11: there is the number `1.5` where a whole number from 0 on should be",
            ),
            ("{\"name\":true}", "line 1, column 12: there is `true` where a text should be"),
            ("{\"is\":1}", "line 1, column 7: there is the number `1` where `true` or `false` should be"),
            ("{\"list\":{}}", "line 1, column 8: there is an object where a list should be"),
            ("{\"map\":\"a\"}", "line 1, column 10: there is the text `a` where an object should be"),
            ("{\"below\":7}", "line 1, column 10: there is the number `7` where an object should be"),
        ] {
            assert_eq!(said::<Document>(json), words, "{json}");
        }
    }

    #[test]
    fn what_our_types_say_stays() {
        assert_eq!(said::<Vec<Odd>>("[\"x\"]"), "line 1, column 5: not odd: `x`");
        let error = serde_json::from_value::<u8>(serde_json::json!([])).unwrap_err();
        assert_eq!(
            Misfit::of(&error).unwrap().to_string(),
            "there is a list where a whole number from 0 on should be"
        );
        let broken = std::io::Error::other("no disk");
        assert!(Misfit::of(&serde_json::Error::io(broken)).is_none());
    }
}
