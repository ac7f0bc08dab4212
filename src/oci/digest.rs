//! Digests: of encoded bytes ([`Digest`]) and of a layer's plain tar ([`DiffId`]), two types so that they
//! cannot be swapped. Only sha256 and sha512, only lower-case hex: a parsed digest is safe in a path.

use std::{fmt, io, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{
    Digest as _, Sha256, Sha512,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use crate::error::{Error, Result};

/// A hash function that registries take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Algorithm {
    /// The one everybody uses.
    Sha256,
    /// Legal, rare.
    Sha512,
}

impl Algorithm {
    /// Returns the name as digests spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Finds the one that digests spell so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Returns the digest of `bytes`.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(self);
        hasher.update(bytes);
        hasher.finish()
    }

    const fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// The name of some bytes: `sha256:<64 hex>` or `sha512:<128 hex>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// Returns the sha256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Algorithm::Sha256.digest(bytes)
    }

    /// Returns the hash function.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the hex digits: safe as one component of a path.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Returns `<algorithm>/<hex>`, as layouts and whoever keeps blobs like them call a file.
    pub fn path(&self) -> String {
        format!("{}/{}", self.algorithm.name(), self.hex)
    }

    /// Returns the first twelve hex digits, as people are used to see them.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::source(format!("invalid digest: `{}`", text.escape_debug()));
        let (algorithm, hex) = text.split_once(':').ok_or_else(invalid)?;
        let algorithm = Algorithm::named(algorithm).ok_or_else(invalid)?;
        let right = hex.len() == algorithm.hex_length()
            && hex.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        if right { Ok(Self { algorithm, hex: hex.into() }) } else { Err(invalid()) }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

/// The digest of a layer's plain tar, as an image config lists it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl DiffId {
    /// Says that a layer is another one, as far as can be told: no digest but sha256 is computed of plain bytes.
    pub(crate) fn mismatch(&self, found: &impl fmt::Display) -> Error {
        Error::source(match self.0.algorithm() {
            Algorithm::Sha256 => {
                format!("diff ID mismatch: the image config says {self}, the layer is {found}")
            }
            Algorithm::Sha512 => format!("a diff ID that is no sha256 cannot be checked: {self}"),
        })
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Computes a digest from bytes that come piece by piece.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::default()),
        })
    }

    /// Goes on from a state that [`Hasher::state`] returned; nothing if it is none of this hash function's.
    pub fn resume(algorithm: Algorithm, state: &[u8]) -> Option<Self> {
        Some(Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(thaw(state)?),
            Algorithm::Sha512 => State::Sha512(Box::new(thaw(state)?)),
        }))
    }

    /// Returns the hash function.
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns what another process needs to go on from here.
    pub fn state(&self) -> Vec<u8> {
        match &self.0 {
            State::Sha256(state) => state.serialize().to_vec(),
            State::Sha512(state) => state.serialize().to_vec(),
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// Returns the digest of all bytes taken.
    pub fn finish(self) -> Digest {
        let (algorithm, hex) = match self.0 {
            State::Sha256(state) => (Algorithm::Sha256, hex(&state.finalize())),
            State::Sha512(state) => (Algorithm::Sha512, hex(&state.finalize())),
        };
        Digest { algorithm, hex: hex.into() }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn thaw<T: SerializableState>(state: &[u8]) -> Option<T> {
    let state: &SerializedState<T> = state.try_into().ok()?;
    T::deserialize(state).ok()
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes every write");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_what_it_prints() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        let long = Hasher::new(Algorithm::Sha512).finish();
        assert_eq!(long.to_string().parse::<Digest>().unwrap(), long);
    }

    #[test]
    fn a_hash_goes_on_from_its_state() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut whole = Hasher::new(algorithm);
            // Within a block, at its end, and in the next one.
            for size in [3, 125, 128, 200] {
                let mut resumed = Hasher::resume(algorithm, &whole.state()).unwrap();
                assert_eq!(resumed.algorithm(), algorithm);
                resumed.update(&vec![7; size]);
                whole.update(&vec![7; size]);
                assert_eq!(resumed.finish(), whole.clone().finish());
            }
            assert!(Hasher::resume(algorithm, &whole.state()[1..]).is_none());
        }
        let state = Hasher::new(Algorithm::Sha256).state();
        assert!(Hasher::resume(Algorithm::Sha512, &state).is_none());
    }

    #[test]
    fn what_cannot_be_compared_is_no_mismatch() {
        let words = |algorithm| DiffId(Hasher::new(algorithm).finish()).mismatch(&"another").to_string();
        let sha256 = words(Algorithm::Sha256);
        assert!(sha256.starts_with("diff ID mismatch: ") && sha256.ends_with("another"), "{sha256}");
        assert!(
            words(Algorithm::Sha512).starts_with("a diff ID that is no sha256 cannot be checked: sha512:")
        );
    }

    #[test]
    fn nothing_else_is_a_digest() {
        let hex = &EMPTY[7..];
        let upper = hex.to_uppercase();
        for text in [
            String::new(),
            hex.to_owned(),
            format!("sha256:{upper}"),
            format!("sha256:{}", &hex[1..]),
            format!("md5:{}", &hex[..32]),
            format!("sha512:{hex}"),
            "sha256:/etc/passwd".to_owned(),
            format!("../../etc:{hex}"),
            format!("sha256:{}\0", &hex[1..]),
        ] {
            let error = text.parse::<Digest>().unwrap_err();
            assert!(error.message().starts_with("invalid digest"), "{text}: {error}");
        }
    }
}
