//! A registry in a bucket in memory: what two processes do to each other, and what one leaves that dies.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::*;
use crate::{
    oci::{Algorithm, Manifest},
    server::{
        protocol::Target,
        storage::{Removal, session::Session},
    },
};

const MIB: usize = 1 << 20;

struct Fixture {
    bucket: Bucket,
    name: Name,
}

impl Fixture {
    fn new() -> Self {
        Self { bucket: Bucket::in_memory(), name: "a/b".parse().unwrap() }
    }

    /// Opens what another process over the same bucket has.
    async fn replica(&self) -> Objects {
        Objects::open(self.bucket.clone()).await.unwrap()
    }

    async fn begin(&self) -> Session {
        self.replica().await.begin(self.name.clone(), Algorithm::Sha256).await.unwrap()
    }

    async fn take(&self, session: &Session) -> Upload {
        self.replica().await.take(session.clone()).await.unwrap()
    }

    async fn find(&self, session: &Session) -> Result<u64, Refusal> {
        let found = self.replica().await.find(session.clone()).await;
        found.map(|(session, _)| session.offset)
    }

    async fn append(&self, session: &Session, bytes: &[u8]) -> Result<u64, Refusal> {
        let mut upload = self.take(session).await;
        appended(&mut upload, bytes).await?;
        Ok(upload.session().offset)
    }

    async fn read(&self, digest: &Digest) -> Option<Vec<u8>> {
        let blob = self.replica().await.blob(self.name.clone(), digest.clone()).await.unwrap()?;
        Some(collected(&blob, 0..blob.size()).await)
    }

    /// Returns what lies below a key.
    async fn below(&self, key: &str) -> Vec<String> {
        let found = self.replica().await.store.list(key).await.unwrap();
        found.into_iter().map(|(name, _)| name).collect()
    }
}

async fn appended(upload: &mut Upload, bytes: &[u8]) -> Result<(), Refusal> {
    upload.make_room().await?;
    upload.append(vec![Bytes::copy_from_slice(bytes)]).await?;
    upload.save().await
}

async fn collected(blob: &Stored, range: Range<u64>) -> Vec<u8> {
    use futures_util::TryStreamExt as _;
    let pieces: Vec<Bytes> = blob.bytes(range).try_collect().await.unwrap();
    pieces.concat()
}

fn status(refusal: Refusal) -> StatusCode {
    refusal.reply().status()
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[tokio::test]
async fn chunks_of_any_length_are_one_blob() {
    let fixture = Fixture::new();
    let bytes = noise(45 * MIB + 7);
    let session = fixture.begin().await;
    let mut at = 0;
    for length in [1, 1, 5 * MIB - 1, 3 * MIB, 1, 17 * MIB + 3, 8 * MIB, 8 * MIB - 1, 2, 4 * MIB] {
        assert_eq!(fixture.append(&session, &bytes[at..at + length]).await.unwrap(), (at + length) as u64);
        at += length;
        assert_eq!(fixture.find(&session).await.unwrap(), at as u64);
    }
    let mut upload = fixture.take(&session).await;
    appended(&mut upload, &bytes[at..]).await.unwrap();
    let digest = Digest::of(&bytes);
    upload.commit(digest.clone()).await.unwrap();
    assert!(fixture.read(&digest).await.unwrap() == bytes);
    assert_eq!(status(fixture.find(&session).await.unwrap_err()), StatusCode::NOT_FOUND);
    // Short objects were replaced by longer ones, and nothing is left of them.
    let pieces = fixture.below(&format!("_data/{}", session.id())).await;
    assert!(pieces.len() <= 5, "{pieces:?}");
    assert_eq!(fixture.below("_uploads").await, [""; 0]);
    let blob = fixture.replica().await.blob(fixture.name.clone(), digest).await.unwrap().unwrap();
    let lengths: Vec<_> = blob.body.pieces.iter().map(|piece| piece.size).collect();
    let (last, others) = lengths.split_last().unwrap();
    assert!(*last > 0 && others.iter().all(|&length| length >= parts::PART as u64), "{lengths:?}");
    for range in [0..1, 5..20 * MIB as u64, 8 * MIB as u64 - 1..8 * MIB as u64 + 1, 45 << 20..(45 << 20) + 7]
    {
        let expected = &bytes[range.start as usize..range.end as usize];
        assert!(collected(&blob, range).await == expected);
    }
}

#[tokio::test]
async fn of_two_writers_one_goes_on() {
    let fixture = Fixture::new();
    // Short ones, and ones that are written in parts.
    for length in [100, 20 * MIB] {
        let bytes = noise(length);
        let session = fixture.begin().await;
        let (mut first, mut second) = (fixture.take(&session).await, fixture.take(&session).await);
        for upload in [&mut first, &mut second] {
            upload.make_room().await.unwrap();
        }
        appended(&mut second, &bytes).await.unwrap();
        let late = appended(&mut first, b"other bytes").await.unwrap_err();
        assert_eq!(status(late), StatusCode::RANGE_NOT_SATISFIABLE);
        // Nothing of it is saved later.
        first.save().await.unwrap();
        assert_eq!(fixture.find(&session).await.unwrap(), length as u64);
        let digest = Digest::of(&bytes);
        second.commit(digest.clone()).await.unwrap();
        assert!(fixture.read(&digest).await.unwrap() == bytes);
        drop(first);
    }
}

#[tokio::test]
async fn who_was_overtaken_is_told_so_whatever_it_was_at() {
    let fixture = Fixture::new();
    let bytes = noise(20 * MIB);
    let session = fixture.begin().await;
    // What is read back first is gone.
    fixture.append(&session, b"ab").await.unwrap();
    let mut late = fixture.take(&session).await;
    fixture.append(&session, b"c").await.unwrap();
    let refusal = late.make_room().await.unwrap_err();
    assert_eq!(status(refusal), StatusCode::RANGE_NOT_SATISFIABLE);
    // The object it was writing is thrown away.
    let mut late = fixture.take(&session).await;
    late.make_room().await.unwrap();
    late.append(vec![bytes.clone().into()]).await.unwrap();
    fixture.append(&session, b"d").await.unwrap();
    assert_eq!(status(late.save().await.unwrap_err()), StatusCode::RANGE_NOT_SATISFIABLE);
    fixture.take(&session).await.commit(Digest::of(b"abcd")).await.unwrap();
}

#[tokio::test]
async fn what_a_dead_process_has_not_saved_is_as_if_it_had_never_come() {
    let fixture = Fixture::new();
    let bytes = noise(30 * MIB);
    let session = fixture.begin().await;
    fixture.append(&session, &bytes[..MIB]).await.unwrap();
    let mut dead = fixture.take(&session).await;
    dead.make_room().await.unwrap();
    dead.append(vec![noise(20 * MIB).into()]).await.unwrap();
    drop(dead);
    assert_eq!(fixture.find(&session).await.unwrap(), MIB as u64);
    let mut upload = fixture.take(&session).await;
    appended(&mut upload, &bytes[MIB..]).await.unwrap();
    let digest = Digest::of(&bytes);
    upload.commit(digest.clone()).await.unwrap();
    assert!(fixture.read(&digest).await.unwrap() == bytes);
}

#[tokio::test]
async fn an_end_that_was_begun_is_brought_about_by_the_next() {
    let fixture = Fixture::new();
    let digest = Digest::of(b"bytes");
    let session = fixture.begin().await;
    fixture.append(&session, b"bytes").await.unwrap();
    // Killed when it had just written down how the upload ends.
    let replica = fixture.replica().await;
    let (_, mut state, version) = replica.look_up(session.clone()).await.unwrap();
    state.ending = Some(sessions::Ending::Committed(digest.clone()));
    replica.replace(&state, &version).await.unwrap().unwrap();
    assert!(fixture.read(&digest).await.is_none());
    assert_eq!(status(fixture.find(&session).await.unwrap_err()), StatusCode::NOT_FOUND);
    assert_eq!(fixture.read(&digest).await.unwrap(), b"bytes");
    assert_eq!(fixture.below("_uploads").await, [""; 0]);
    // A stale one is no different.
    let session = fixture.begin().await;
    let (_, mut state, version) = replica.look_up(session.clone()).await.unwrap();
    state.ending = Some(sessions::Ending::Committed(Digest::of(b"")));
    replica.replace(&state, &version).await.unwrap().unwrap();
    while !fixture.below("_uploads").await.is_empty() {
        replica.clear(Duration::ZERO).await.unwrap();
    }
    assert_eq!(fixture.read(&Digest::of(b"")).await.unwrap(), b"");
}

#[tokio::test]
async fn wrong_bytes_and_cancelled_ones_leave_nothing() {
    let fixture = Fixture::new();
    let wrong = fixture.begin().await;
    fixture.append(&wrong, b"bytes").await.unwrap();
    let refusal = fixture.take(&wrong).await.commit(Digest::of(b"else")).await.unwrap_err();
    assert_eq!(status(refusal), StatusCode::BAD_REQUEST);
    let cancelled = fixture.begin().await;
    fixture.append(&cancelled, b"bytes").await.unwrap();
    let mut late = fixture.take(&cancelled).await;
    let replica = fixture.replica().await;
    replica.cancel(cancelled.clone()).await.unwrap();
    assert_eq!(status(appended(&mut late, b"more").await.unwrap_err()), StatusCode::NOT_FOUND);
    assert_eq!(fixture.below("_uploads").await, [""; 0]);
    assert_eq!(fixture.below(&format!("_data/{}", wrong.id())).await, [""; 0]);
    assert!(fixture.read(&Digest::of(b"bytes")).await.is_none());
}

#[tokio::test]
async fn only_stale_uploads_are_given_up() {
    let fixture = Fixture::new();
    let session = fixture.begin().await;
    fixture.append(&session, &noise(9 * MIB)).await.unwrap();
    let replica = fixture.replica().await;
    replica.clear(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(fixture.find(&session).await.unwrap(), 9 * MIB as u64);
    // The clock has to move on.
    while fixture.find(&session).await.is_ok() {
        replica.clear(Duration::ZERO).await.unwrap();
    }
    assert_eq!(fixture.below("_uploads").await, [""; 0]);
    assert_eq!(fixture.below("_data").await, [""; 0]);
}

#[tokio::test]
async fn a_blob_lies_there_once_and_for_as_long_as_anybody_wants_it() {
    let fixture = Fixture::new();
    let bytes = noise(9 * MIB);
    let digest = Digest::of(&bytes);
    for _ in 0..2 {
        let session = fixture.begin().await;
        fixture.append(&session, &bytes).await.unwrap();
        fixture.take(&session).await.commit(digest.clone()).await.unwrap();
    }
    assert_eq!(fixture.below("_data").await.len(), 1);
    let (replica, other) = (fixture.replica().await, "c".parse::<Name>().unwrap());
    let missing =
        replica.mount(other.clone(), Digest::of(b"none"), Some(fixture.name.clone())).await.unwrap();
    assert!(!missing);
    assert!(!replica.mount(other.clone(), digest.clone(), Some("d".parse().unwrap())).await.unwrap());
    assert!(!replica.mount(other.clone(), digest.clone(), None).await.unwrap());
    let from = Some(fixture.name.clone());
    assert!(replica.mount(other.clone(), digest.clone(), from).await.unwrap());
    assert!(replica.remove_blob(fixture.name.clone(), digest.clone()).await.unwrap());
    assert!(!replica.remove_blob(fixture.name.clone(), digest.clone()).await.unwrap());
    assert!(fixture.read(&digest).await.is_none());
    assert_eq!(replica.blob(other, digest).await.unwrap().unwrap().size(), bytes.len() as u64);
}

#[tokio::test]
async fn a_digest_of_another_function_is_computed_from_what_lies_there() {
    let fixture = Fixture::new();
    let bytes = noise(9 * MIB);
    let digest = Algorithm::Sha512.digest(&bytes);
    let session = fixture.begin().await;
    fixture.append(&session, &bytes).await.unwrap();
    fixture.take(&session).await.commit(digest.clone()).await.unwrap();
    assert!(fixture.read(&digest).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_manifest_keeps_its_type_and_goes_with_its_tags() {
    let fixture = Fixture::new();
    let (replica, name) = (fixture.replica().await, fixture.name.clone());
    let docker = "application/vnd.docker.distribution.manifest.list.v2+json";
    let bytes = Bytes::from_static(b"{\"schemaVersion\":2,\"manifests\":[]}");
    let digest = Digest::of(&bytes);
    let manifest = Manifest::parse(bytes.clone(), digest.clone(), Some(docker)).unwrap();
    assert_eq!(replica.tags(name.clone()).await.unwrap(), None);
    let tags = ["b", "a", "c"].map(str::to_owned).to_vec();
    replica.put_manifest(name.clone(), tags, manifest).await.unwrap();
    let found = replica.manifest(name.clone(), Target::Tag("b".into())).await.unwrap().unwrap();
    assert_eq!((found.bytes, &*found.media_type), (bytes, docker));
    assert_eq!(replica.tags(name.clone()).await.unwrap().unwrap(), ["a", "b", "c"]);
    let untagged = replica.remove_manifest(name.clone(), Target::Tag("b".into())).await.unwrap();
    assert_eq!(untagged, Removal::Done);
    assert_eq!(replica.tags(name.clone()).await.unwrap().unwrap(), ["a", "c"]);
    let removed = replica.remove_manifest(name.clone(), Target::Digest(digest.clone())).await.unwrap();
    assert_eq!(removed, Removal::Done);
    assert!(replica.manifest(name.clone(), Target::Digest(digest)).await.unwrap().is_none());
    assert_eq!(fixture.below("a/b").await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_slowly_is_saved_all_the_same() {
    let fixture = Fixture::new();
    let session = fixture.begin().await;
    let mut upload = fixture.take(&session).await;
    for saved in [0, 0, 3, 3, 5] {
        upload.make_room().await.unwrap();
        upload.append(vec![Bytes::from_static(b"a")]).await.unwrap();
        assert_eq!(fixture.find(&session).await.unwrap(), saved);
        tokio::time::advance(Duration::from_secs(31)).await;
    }
    upload.commit(Digest::of(b"aaaaa")).await.unwrap();
    assert_eq!(fixture.read(&Digest::of(b"aaaaa")).await.unwrap(), b"aaaaa");
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_gives_its_memory_to_who_waits() {
    let fixture = Fixture::new();
    let replica = fixture.replica().await;
    let mut slow = Vec::new();
    for _ in 0..parts::PARTS {
        let session = fixture.begin().await;
        let mut upload = replica.take(session.clone()).await.unwrap();
        upload.make_room().await.unwrap();
        upload.append(vec![Bytes::from_static(b"a")]).await.unwrap();
        slow.push((session, upload));
    }
    let session = fixture.begin().await;
    let mut quick = replica.take(session.clone()).await.unwrap();
    let (patient, upload) = slow.first_mut().unwrap();
    let silence = upload.wait_for(std::future::pending::<()>());
    tokio::select! {
        _ = silence => panic!("nothing came"),
        made = quick.make_room() => made.unwrap(),
    }
    // What it had counts, and it goes on where it was.
    assert_eq!(fixture.find(patient).await.unwrap(), 1);
    drop(quick);
    appended(upload, b"b").await.unwrap();
    assert_eq!(fixture.find(patient).await.unwrap(), 2);
    let patient = patient.clone();
    drop(slow);
    let digest = Digest::of(b"ab");
    fixture.take(&patient).await.commit(digest.clone()).await.unwrap();
    assert_eq!(fixture.read(&digest).await.unwrap(), b"ab");
}
