//! How the values of options are read, and what shells complete them to.

use std::{ffi::OsStr, fmt::Display, marker::PhantomData, str::FromStr};

use bytesize::ByteSize;
use clap::{
    Arg, Command,
    builder::{PossibleValue, TypedValueParser},
    error::{ContextKind, ContextValue},
};
use longshore::{Error, error::similar, oci::Repository};

/// Reads the value of an option; what may help stands behind what is wrong.
pub(in crate::cli) fn typed<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: Error| in_words(&error))
}

fn in_words(error: &Error) -> String {
    let words = std::iter::once(error.message()).chain(error.hints());
    words.collect::<Vec<_>>().join("; ")
}

/// Reads the path of a repository at a registry that is named elsewhere.
pub(in crate::cli) fn repository(text: &str) -> Result<String, String> {
    Repository::new("", text).map(|repository| repository.path).map_err(|error| in_words(&error))
}

/// Reads the value of an option that makes no sense as 0.
pub(in crate::cli) fn more_than_nothing<T>(text: &str) -> Result<T, String>
where
    T: FromStr<Err: Display> + Default + PartialEq,
{
    text.parse().map_err(|error: T::Err| error.to_string()).and_then(something)
}

fn something<T: Default + PartialEq>(value: T) -> Result<T, String> {
    if value == T::default() { Err("it has to be more than nothing".to_owned()) } else { Ok(value) }
}

/// Reads a size.
pub(in crate::cli) fn size(text: &str) -> Result<ByteSize, String> {
    // The parser's own words speak of its insides.
    text.parse().map_err(|_| "not a size; `100000`, `10MB` and `8MiB` are".to_owned())
}

/// Reads a size that makes no sense as 0.
pub(in crate::cli) fn size_of_something(text: &str) -> Result<ByteSize, String> {
    size(text).and_then(something)
}

/// Reads the value of an option that is one of these words, or begins with one and a colon. The help of the option
/// names them.
pub(in crate::cli) const fn one_of<T>(words: &'static [&'static str]) -> OneOf<T> {
    OneOf { words, what: PhantomData }
}

/// Has shells complete its words, and asks back who mistypes one.
#[derive(Debug)]
pub(in crate::cli) struct OneOf<T> {
    words: &'static [&'static str],
    what: PhantomData<fn() -> T>,
}

impl<T> Clone for OneOf<T> {
    fn clone(&self) -> Self {
        one_of(self.words)
    }
}

impl<T: FromStr<Err = Error> + Clone + Send + Sync + 'static> TypedValueParser for OneOf<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, option: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        typed::<T>.parse_ref(command, option, value).map_err(|mut error| {
            let asked = value.to_string_lossy();
            let word = asked.split(':').next().unwrap_or_default();
            if let Some(meant) = meant(word, self.words.iter().copied()) {
                error.insert(ContextKind::SuggestedValue, ContextValue::String(meant.to_owned()));
            }
            error
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.words.iter().map(|word| PossibleValue::new(*word))))
    }
}

/// Returns which of the words was meant by one that is none of them.
pub(in crate::cli) fn meant<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    similar(word, words).filter(|meant| *meant != word)
}
