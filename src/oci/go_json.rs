//! JSON as Go programs write it: `null` or an empty text for what they do not say.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// `null` is an empty map, list or text.
pub(super) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// An empty text says nothing.
pub(super) fn empty_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// The texts of a map may be `null` too.
pub(super) fn texts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let texts: BTreeMap<String, Option<String>> = null_is_empty(deserializer)?;
    Ok(texts.into_iter().map(|(key, text)| (key, text.unwrap_or_default())).collect())
}
