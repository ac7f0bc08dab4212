//! What goes on, told to the outside: one enum, one trait.
//!
//! The library never prints. Whoever runs a push hands in a [`Reporter`] and turns events into bars, lines
//! or JSON. Progress is always an absolute, acknowledged offset: a restart needs no negative numbers.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Something that happened during a push. `blob` is the name of a layer or config in its source, the same from the
/// first event about it to the last; a blob that a manifest names is called by its digest.
///
/// As JSON an event is an object with the fields below in camelCase, and its kind as `event`:
/// `{"event":"acknowledged","blob":"sha256:…","offset":16777216,"size":73400320}`. Sizes and offsets are bytes. Fields
/// and kinds may be added; those that are there stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Event {
    /// The registry acknowledged bytes. The offset may fall when a session is lost.
    Acknowledged {
        /// Of this blob.
        blob: String,
        /// All bytes before this one.
        offset: u64,
        /// Of so many, if that is known yet.
        size: Option<u64>,
    },
    /// A blob is confirmed by the registry.
    Confirmed {
        /// The blob.
        blob: String,
        /// Its digest.
        digest: String,
        /// How it came to be there.
        how: How,
        /// Its size.
        size: u64,
    },
    /// A layer is being encoded.
    Encoded {
        /// The layer.
        blob: String,
        /// So many plain bytes are done.
        plain: u64,
        /// So many bytes they became.
        encoded: u64,
    },
    /// A blob that is stored as it will be sent is read, to find its digest and what it decodes to.
    Hashed {
        /// The blob.
        blob: String,
        /// So many of its bytes are done.
        bytes: u64,
    },
    /// A manifest was accepted.
    Manifest {
        /// Under this tag or digest.
        reference: String,
        /// Its digest.
        digest: String,
    },
    /// What is about to be done.
    Planned {
        /// Blobs that are at the registry already.
        present: usize,
        /// Layers of another image at the registry, which serve this one too.
        reuse: usize,
        /// Layers to be fetched from the shared cache, to be checked and sent.
        fetch: usize,
        /// Blobs to be asked for by mount.
        mount: usize,
        /// Blobs to be sent as they are.
        upload: usize,
        /// Layers to be encoded and sent.
        transcode: usize,
        /// Bytes to be sent as they are.
        bytes: u64,
        /// Each of them, largest first.
        blobs: Vec<PlannedBlob>,
    },
    /// Bytes were handed to the network, whether or not the registry will acknowledge them.
    Sent {
        /// The last of them were this blob's.
        blob: String,
        /// So many in this push so far, over all blobs, repeats included.
        bytes: u64,
    },
    /// A request will be tried again after a pause.
    Waiting {
        /// For this blob.
        blob: String,
        /// So long; in JSON a number of seconds, `pauseSeconds`.
        #[serde(rename = "pauseSeconds", with = "seconds")]
        pause: Duration,
        /// Because of this.
        why: String,
    },
    /// Something the user should know, which stops nothing.
    Warning {
        /// In one line.
        message: String,
    },
    /// A file grows.
    Written {
        /// The file.
        file: String,
        /// So many bytes of it are written.
        bytes: u64,
        /// Of so many.
        size: u64,
    },
}

/// What is to be done for one blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedBlob {
    /// The blob.
    pub blob: String,
    /// Its digest, if that is known before it is read.
    pub digest: Option<String>,
    /// Its size at the registry, if that is known before it is encoded.
    pub size: Option<u64>,
    /// The size of a layer to be encoded as it lies in its source, if that is known.
    pub source_size: Option<u64>,
    /// What is to be done.
    pub step: Todo,
    /// How it is to be encoded, or was: `gzip:1`.
    pub encoding: Option<String>,
    /// The repository it may be mounted from.
    pub from: Option<String>,
}

/// What is to be done, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Todo {
    /// Fetch it from the shared cache and check it; it need not be sent.
    Check,
    /// Encode it and send it.
    Encode,
    /// Fetch it from the shared cache, check it and send it.
    Fetch,
    /// Nothing: foreign layers are not sent.
    Leave,
    /// Have it mounted from another repository; if that is refused, send it.
    Mount,
    /// Nothing: the registry has it.
    Present,
    /// Nothing: the registry has it, as another image's layer.
    Reuse,
    /// Send it as it lies there.
    Send,
}

/// How a blob came to be at the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum How {
    /// Mounted from another repository.
    Mounted,
    /// It was there already.
    Present,
    /// It was there already, as a layer of another image.
    Reused,
    /// Sent.
    Uploaded,
}

/// Hears what goes on. Called from any thread, often: must be quick.
pub trait Reporter: Send + Sync {
    /// Takes note of one event.
    fn event(&self, event: Event);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event) {}
}

impl fmt::Debug for dyn Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

/// A duration as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(pause: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(pause.as_secs_f64())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_as_documented() {
        let planned = PlannedBlob {
            blob: "layer.tar".to_owned(),
            digest: None,
            size: None,
            source_size: Some(9),
            step: Todo::Encode,
            encoding: Some("gzip:1".to_owned()),
            from: None,
        };
        for (event, expected) in [
            (
                Event::Acknowledged { blob: "sha256:1".into(), offset: 16, size: Some(70) },
                r#"{"event":"acknowledged","blob":"sha256:1","offset":16,"size":70}"#,
            ),
            (
                Event::Waiting { blob: "b".into(), pause: Duration::from_millis(1500), why: "x".into() },
                r#"{"event":"waiting","blob":"b","pauseSeconds":1.5,"why":"x"}"#,
            ),
            (
                Event::Planned {
                    present: 0,
                    reuse: 0,
                    fetch: 0,
                    mount: 0,
                    upload: 0,
                    transcode: 1,
                    bytes: 0,
                    blobs: vec![planned],
                },
                r#"{"event":"planned","present":0,"reuse":0,"fetch":0,"mount":0,"upload":0,"transcode":1,"bytes":0,"blobs":[{"blob":"layer.tar","digest":null,"size":null,"sourceSize":9,"step":"encode","encoding":"gzip:1","from":null}]}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&event).unwrap(), expected);
            assert_eq!(serde_json::from_str::<Event>(expected).unwrap(), event);
        }
    }
}
