//! What a small file of a cache holds: what it says, and a seal, the digest of that together with the file's own name. So
//! another layer's entry, or one that was edited, is none.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::{Context as _, ErrorKind, Result},
    oci::Digest,
};

/// Returns the bytes of the file `name`.
pub(crate) fn sealed<T: Serialize>(name: &str, value: &T) -> Result<Vec<u8>> {
    let sealed = Sealed { value, seal: seal_of(name, value)? };
    serde_json::to_vec(&sealed).context(ErrorKind::Internal, || format!("writing `{name}`"))
}

/// Returns what the file `name` says, unless these are not the bytes that were written there.
pub(super) fn unsealed<T: Serialize + DeserializeOwned>(name: &str, bytes: &[u8]) -> Option<T> {
    let Sealed { value, seal } = serde_json::from_slice(bytes).ok()?;
    (seal_of(name, &value).ok()? == seal).then_some(value)
}

#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    #[serde(flatten)]
    value: T,
    seal: Digest,
}

fn seal_of<T: Serialize>(name: &str, value: &T) -> Result<Digest> {
    let value = serde_json::to_string(value).context(ErrorKind::Internal, || format!("sealing `{name}`"))?;
    Ok(Digest::of(format!("{name}\n{value}").as_bytes()))
}
