//! The one pass over a plain layer: cut into blocks, hash, encode, hash again, append.
//!
//! Every worker does the same: takes the next block and its ticket from the intake, encodes it on its own,
//! and hands it in at the outlet, which appends blocks in the order of their tickets and puts by the few that are
//! early. The two hashes, which must see all bytes in order, sit behind the two locks; only encoding, which is
//! nearly all of the work, is done by many at once. What comes out depends on the plain bytes, the encoding and
//! `ENCODER_VERSION`, never on the number of workers or on how the input hands out its bytes. Memory is three
//! blocks per worker.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use parking_lot::{Condvar, Mutex};

use super::{Encoded, Encoding, Progress, Stopped, blame, encoder::Encoder};
use crate::{
    error::{Error, ErrorKind, Result},
    oci::{Algorithm, DiffId, Hasher},
};

/// Encodes all plain bytes of `input` into `output`, on this thread and `workers - 1` more.
///
/// A failing input is the source's fault, a failing output this machine's, unless their `io::Error` carries
/// an [`Error`] that knows better. `progress` hears of every block after the write of it returned, in order;
/// when it breaks, the pass ends with [`Stopped`].
pub fn transcode(
    input: &mut (dyn Read + Send),
    encoding: Encoding,
    workers: usize,
    output: &mut (dyn Write + Send),
    progress: &(dyn Fn(Progress) -> ControlFlow<()> + Sync),
) -> Result<Encoded> {
    let pass = Pass {
        encoding,
        workers,
        intake: Mutex::new(Intake {
            input,
            hasher: Hasher::new(Algorithm::Sha256),
            tickets: 0,
            size: 0,
            ended: false,
        }),
        outlet: Mutex::new(Outlet::new(output, progress)),
        turned: Condvar::new(),
    };
    thread::scope(|scope| {
        for _ in 1..workers {
            let worker = thread::Builder::new().name("encoder".to_owned());
            // Where no more threads are to be had, fewer do the same.
            if worker.spawn_scoped(scope, || pass.work()).is_err() {
                break;
            }
        }
        pass.work();
    });
    pass.finish()
}

struct Pass<'a> {
    encoding: Encoding,
    workers: usize,
    intake: Mutex<Intake<'a>>,
    outlet: Mutex<Outlet<'a>>,
    /// Rings when the outlet's turn, or its failure, changed.
    turned: Condvar,
}

impl Pass<'_> {
    /// Works until nothing is left or somebody failed. A worker that panics must not leave the others
    /// waiting for its ticket; what it left behind is never used.
    fn work(&self) {
        let result = catch_unwind(AssertUnwindSafe(|| self.encode_blocks()))
            .unwrap_or_else(|_| Err(Error::internal("encoding panicked")));
        if let Err(error) = result {
            self.outlet.lock().failure.get_or_insert(error);
            self.turned.notify_all();
        }
    }

    fn encode_blocks(&self) -> Result<()> {
        let mut encoder = Encoder::new(self.encoding)?;
        let mut block = vec![0; encoder.block_size()];
        loop {
            let Some((ticket, size)) = self.intake.lock().next(&mut block)? else { return Ok(()) };
            let encoded = encoder.encode(&block[..size])?;
            let mut outlet = self.outlet.lock();
            self.turned.wait_while(&mut outlet, |outlet| outlet.is_full_for(ticket, self.workers));
            if outlet.failure.is_none() {
                outlet.failure = outlet.take(ticket, size, encoded).err();
            }
            let has_failed = outlet.failure.is_some();
            drop(outlet);
            self.turned.notify_all();
            if has_failed {
                return Ok(());
            }
        }
    }

    fn finish(self) -> Result<Encoded> {
        let intake = self.intake.into_inner();
        let outlet = self.outlet.into_inner();
        match outlet.failure {
            Some(failure) => Err(failure),
            None => Ok(Encoded {
                diff_id: DiffId(intake.hasher.finish()),
                digest: outlet.hasher.finish(),
                size: outlet.encoded,
                plain_size: intake.size,
            }),
        }
    }
}

/// Where plain bytes come from.
struct Intake<'a> {
    input: &'a mut (dyn Read + Send),
    hasher: Hasher,
    tickets: u64,
    size: u64,
    ended: bool,
}

impl Intake<'_> {
    /// Fills `block` as far as there is input; returns its ticket and its size. The first block exists even
    /// without input, since no bytes are no gzip file.
    fn next(&mut self, block: &mut [u8]) -> Result<Option<(u64, usize)>> {
        if self.ended {
            return Ok(None);
        }
        let size =
            fill(self.input, block).map_err(blame(ErrorKind::Source, "reading the bytes to encode"))?;
        self.ended = size < block.len();
        let ticket = self.tickets;
        if size == 0 && ticket > 0 {
            return Ok(None);
        }
        self.hasher.update(&block[..size]);
        self.size += size as u64;
        self.tickets += 1;
        Ok(Some((ticket, size)))
    }
}

/// Where encoded bytes go.
struct Outlet<'a> {
    output: &'a mut (dyn Write + Send),
    hasher: Hasher,
    /// The ticket of the block that is appended next.
    turn: u64,
    plain: u64,
    encoded: u64,
    progress: &'a (dyn Fn(Progress) -> ControlFlow<()> + Sync),
    /// Blocks handed in before their turn: sizes of their plain bytes, and their encoded bytes.
    early: BTreeMap<u64, (usize, Vec<u8>)>,
    /// Memory of blocks that were early.
    spare: Vec<Vec<u8>>,
    /// The first one; nothing is appended after it.
    failure: Option<Error>,
}

impl<'a> Outlet<'a> {
    fn new(
        output: &'a mut (dyn Write + Send),
        progress: &'a (dyn Fn(Progress) -> ControlFlow<()> + Sync),
    ) -> Self {
        Self {
            output,
            hasher: Hasher::new(Algorithm::Sha256),
            turn: 0,
            plain: 0,
            encoded: 0,
            progress,
            early: BTreeMap::new(),
            spare: Vec::new(),
            failure: None,
        }
    }

    /// Returns whether the block of `ticket` must be waited with: one whose turn it is never must.
    fn is_full_for(&self, ticket: u64, most: usize) -> bool {
        ticket != self.turn && self.early.len() >= most && self.failure.is_none()
    }

    /// Appends a block, and those that it kept waiting, or puts it by until its turn comes.
    fn take(&mut self, ticket: u64, plain: usize, encoded: &[u8]) -> Result<()> {
        if ticket != self.turn {
            let mut kept = self.spare.pop().unwrap_or_default();
            kept.extend_from_slice(encoded);
            self.early.insert(ticket, (plain, kept));
            return Ok(());
        }
        self.append(plain, encoded)?;
        while let Some((plain, mut kept)) = self.early.remove(&self.turn) {
            self.append(plain, &kept)?;
            kept.clear();
            self.spare.push(kept);
        }
        Ok(())
    }

    fn append(&mut self, plain: usize, encoded: &[u8]) -> Result<()> {
        self.hasher.update(encoded);
        self.output.write_all(encoded).map_err(blame(ErrorKind::Local, "writing the encoded bytes"))?;
        self.turn += 1;
        self.plain += plain as u64;
        self.encoded += encoded.len() as u64;
        let prefix = self.hasher.clone().finish();
        let progress = Progress { plain: self.plain, encoded: self.encoded, prefix };
        if (self.progress)(progress).is_break() { Err(Stopped.into()) } else { Ok(()) }
    }
}

/// Reads until `block` is full or the input ends.
fn fill(input: &mut (dyn Read + Send), block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match input.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use flate2::read::MultiGzDecoder;
    use proptest::{prelude::*, sample::Index};

    use super::*;
    use crate::{codec::ENCODER_VERSION, oci::Digest};

    const MIB: usize = 1 << 20;

    /// Stretches of text, noise and zeros, the same for the same seed.
    fn mixed(size: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut bytes = Vec::with_capacity(size + (64 << 10));
        while bytes.len() < size {
            let end = bytes.len() + (random() % (64 << 10)) as usize;
            match random() % 3 {
                0 => bytes.resize(end, 0),
                1 => {
                    let noise = std::iter::repeat_with(|| random().to_le_bytes()).flatten();
                    bytes.extend(noise.take(end - bytes.len()));
                }
                _ => {
                    while bytes.len() < end {
                        bytes.extend(
                            [&b"layer "[..], b"usr/lib/", b"\n", b"longshore"][random() as usize % 4],
                        );
                    }
                }
            }
        }
        bytes.truncate(size);
        bytes
    }

    /// Hands out its bytes in pieces of the given sizes, over and over.
    struct Pieces<'a> {
        bytes: &'a [u8],
        sizes: std::iter::Cycle<std::vec::IntoIter<usize>>,
    }

    impl<'a> Pieces<'a> {
        fn new(bytes: &'a [u8], sizes: Vec<usize>) -> Self {
            Self { bytes, sizes: sizes.into_iter().cycle() }
        }
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.sizes.next().unwrap_or(usize::MAX) {
                0 => Err(io::ErrorKind::Interrupted.into()),
                size => {
                    let size = size.min(buffer.len());
                    self.bytes.read(&mut buffer[..size])
                }
            }
        }
    }

    const GZIP: Encoding = Encoding::Gzip { level: 1 };
    const ZSTD: Encoding = Encoding::Zstd { level: 3 };

    fn encode(mut input: impl Read + Send, encoding: Encoding, workers: usize) -> (Encoded, Vec<u8>) {
        let mut output = Vec::new();
        let encoded =
            transcode(&mut input, encoding, workers, &mut output, &|_| ControlFlow::Continue(())).unwrap();
        (encoded, output)
    }

    fn decode(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            MultiGzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
        } else {
            plain = ::zstd::decode_all(bytes).unwrap();
        }
        plain
    }

    fn assert_tells_the_truth(encoded: &Encoded, plain: &[u8], output: &[u8]) {
        assert_eq!(encoded.diff_id, DiffId(Digest::of(plain)));
        assert_eq!(encoded.plain_size, plain.len() as u64);
        assert_eq!(encoded.digest, Digest::of(output));
        assert_eq!(encoded.size, output.len() as u64);
    }

    /// When this fails and is meant to, bump `ENCODER_VERSION`: caches hold the old bytes.
    #[test]
    fn the_bytes_of_this_encoder_version_never_change() {
        let plain = mixed(3 * MIB + MIB / 2 + 17, 2);
        assert_eq!(
            Digest::of(&plain).to_string(),
            "sha256:dc181438f42300683ee66a42eb7945a93da230b9065d2b62c51893505badffcb",
        );
        for (recipe, digest) in [
            ("gzip:1", "sha256:18afd96ea734a672bebb64937e12018f35be3c35da4eb457738ca77509a19d68"),
            ("gzip:2", "sha256:cebd7c0ea9156eb6cfb75713a7007bbe9de29703f6356d35551762688948079d"),
            ("gzip:6", "sha256:49adb09a3a691e2a04a3a05e11083e95f98018750e5f64309c01c81b8c0b9896"),
        ] {
            let (encoded, _) = encode(&plain[..], recipe.parse().unwrap(), 2);
            assert_eq!((ENCODER_VERSION, encoded.digest.to_string().as_str()), (4, digest), "{recipe}");
        }
        let plain = mixed(9 * MIB + 17, 2);
        for (recipe, digest) in [
            ("zstd:1", "sha256:bb3e2da318e0cdd7ec1aaa99bebf78486e2fd12b02b1c906c336f6289c6f92a0"),
            ("zstd:3", "sha256:4f7608ecff52fbe60f8aabd0ca2a66ac20c7812dd78ec6a42f948fb91f48128e"),
            ("zstd:19", "sha256:01817876d2e132f5d1be57d0d50a1e5edf73d293592d1389173cef8fc9235197"),
            ("none", "sha256:a1c667a0715b8a6fb739630a9e568633757c4c10763c1493794f6f4d3e0cb99b"),
        ] {
            let (encoded, _) = encode(&plain[..], recipe.parse().unwrap(), 2);
            assert_eq!((ENCODER_VERSION, encoded.digest.to_string().as_str()), (4, digest), "{recipe}");
        }
    }

    #[test]
    fn blocks_that_are_early_wait_for_their_turn_and_only_so_many() {
        let mut output = Vec::new();
        let told = Mutex::new(Vec::new());
        let progress = |progress: Progress| {
            told.lock().push((progress.plain, progress.encoded));
            ControlFlow::Continue(())
        };
        let mut outlet = Outlet::new(&mut output, &progress);
        outlet.take(2, 30, b"three").unwrap();
        assert!(!outlet.is_full_for(1, 2));
        outlet.take(1, 20, b"two").unwrap();
        assert!(outlet.is_full_for(3, 2), "no more are put by");
        assert!(!outlet.is_full_for(0, 2), "the one that all wait for never waits");
        assert_eq!(*told.lock(), []);
        outlet.take(0, 10, b"one").unwrap();
        assert_eq!(*told.lock(), [(10, 3), (30, 6), (60, 11)]);
        assert!(!outlet.is_full_for(4, 2));
        assert_eq!(outlet.hasher.clone().finish(), Digest::of(b"onetwothree"));
        assert_eq!(output, b"onetwothree");
    }

    #[test]
    fn sizes_around_the_border_of_a_block_survive() {
        let plain = mixed(2 * MIB + 1, 3);
        for (size, members) in [
            (0, 1),
            (1, 1),
            (MIB - 1, 1),
            (MIB, 1),
            (MIB + 1, 2),
            (2 * MIB - 1, 2),
            (2 * MIB, 2),
            (2 * MIB + 1, 3),
        ] {
            let calls = AtomicU64::new(0);
            let mut output = Vec::new();
            let encoded = transcode(&mut &plain[..size], Encoding::default(), 2, &mut output, &|_| {
                calls.fetch_add(1, Ordering::Relaxed);
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(calls.into_inner(), members, "{size} bytes");
            assert_eq!(decode(&output), plain[..size]);
            assert_tells_the_truth(&encoded, &plain[..size], &output);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn bytes_depend_on_nothing_but_the_input(
            size in 0..9 * MIB,
            seed: u64,
            zstd: bool,
            pieces in prop::collection::vec(0..300_000_usize, 1..8),
        ) {
            let encoding = if zstd { ZSTD } else { GZIP };
            let plain = mixed(size, seed);
            let (encoded, output) = encode(&plain[..], encoding, 1);
            prop_assert!(decode(&output) == plain);
            assert_tells_the_truth(&encoded, &plain, &output);
            for workers in 1..=4 {
                let sizes = [&[100_000], &pieces[..]].concat();
                let (again, same) = encode(Pieces::new(&plain, sizes), encoding, workers);
                prop_assert_eq!(&again, &encoded);
                prop_assert!(same == output, "{} workers made other bytes", workers);
            }
        }

        #[test]
        fn whoever_fails_is_named_and_all_stop(at: Index, workers in 1..=4_usize, reading: bool) {
            let plain = mixed(3 * MIB, 5);
            let (_, whole) = encode(&plain[..], GZIP, 1);
            let (mut input, mut output) = (FailsAt::new(&plain[..], usize::MAX), FailsAt::new(Vec::new(), usize::MAX));
            if reading {
                input.left = at.index(plain.len());
            } else {
                output.left = at.index(whole.len());
            }
            let go_on = |_| ControlFlow::Continue(());
            let error =
                transcode(&mut input, Encoding::default(), workers, &mut output, &go_on).unwrap_err();
            prop_assert_eq!(error.kind(), if reading { ErrorKind::Source } else { ErrorKind::Local });
            prop_assert_eq!(error.find::<io::Error>().unwrap().kind(), io::ErrorKind::StorageFull);
            prop_assert!(whole.starts_with(&output.inner));
        }
    }

    /// Reads or writes so many bytes and fails then.
    struct FailsAt<T> {
        inner: T,
        left: usize,
    }

    impl<T> FailsAt<T> {
        fn new(inner: T, left: usize) -> Self {
            Self { inner, left }
        }

        fn take(&mut self, wanted: usize) -> io::Result<usize> {
            if self.left == 0 {
                return Err(io::Error::from_raw_os_error(28)); // ENOSPC
            }
            let size = wanted.min(self.left);
            self.left -= size;
            Ok(size)
        }
    }

    impl<T: Read> Read for FailsAt<T> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.take(buffer.len())?;
            self.inner.read(&mut buffer[..size])
        }
    }

    impl<T: Write> Write for FailsAt<T> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let size = self.take(bytes.len())?;
            self.inner.write(&bytes[..size])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn progress_grows_block_by_block_to_the_end() {
        let plain = mixed(3 * MIB + 5, 7);
        let heard = Mutex::new(Vec::new());
        let mut output = Vec::new();
        let encoded = transcode(&mut &plain[..], Encoding::default(), 3, &mut output, &|progress| {
            heard.lock().push(progress);
            ControlFlow::Continue(())
        })
        .unwrap();
        let heard = heard.into_inner();
        assert_eq!(heard.len(), 4);
        assert!(heard.is_sorted_by(|a, b| a.plain < b.plain && a.encoded < b.encoded));
        let last = Progress { plain: encoded.plain_size, encoded: encoded.size, prefix: encoded.digest };
        assert_eq!(heard[3], last);
        for Progress { plain: done, encoded, prefix } in heard {
            assert_eq!(Digest::of(&output[..encoded as usize]), prefix);
            assert_eq!(decode(&output[..encoded as usize]), plain[..done as usize], "whole members");
        }
    }

    #[test]
    fn no_more_is_held_than_two_blocks_per_worker() {
        struct Counted<'a>(&'a AtomicU64);
        impl Read for Counted<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.fetch_add(buffer.len() as u64, Ordering::SeqCst);
                io::repeat(9).read(buffer)
            }
        }
        let (read, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut input = Counted(&read).take(20 * MIB as u64);
        let workers = 3;
        transcode(&mut input, Encoding::default(), workers, &mut io::sink(), &|progress| {
            // The block that was just appended is still its worker's.
            let held = read.load(Ordering::SeqCst) + MIB as u64 - progress.plain;
            most.fetch_max(held, Ordering::SeqCst);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(read.into_inner(), 20 * MIB as u64);
        assert!(most.into_inner() <= 2 * (workers * MIB) as u64, "one in hand, and as many put by");
    }

    #[test]
    fn a_pass_that_nobody_waits_for_stops() {
        for workers in [1, 3] {
            let mut output = Vec::new();
            let error =
                transcode(&mut io::repeat(7), Encoding::default(), workers, &mut output, &|progress| {
                    if progress.plain < 3 * MIB as u64 {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                })
                .unwrap_err();
            assert!(error.find::<Stopped>().is_some(), "{error:?}");
            assert_eq!(decode(&output).len(), 3 * MIB, "nothing is appended after the break");
        }
    }

    #[test]
    fn an_input_that_panics_is_a_failure_and_no_hang() {
        struct Panics;
        impl Read for Panics {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("a panic made for a test")
            }
        }
        let mut input = io::repeat(1).take(5 * MIB as u64).chain(Panics);
        let go_on = |_| ControlFlow::Continue(());
        let error = transcode(&mut input, Encoding::default(), 3, &mut io::sink(), &go_on).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    #[test]
    fn our_own_words_in_an_io_error_are_kept() {
        struct Ours;
        impl Read for Ours {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other(Error::local("the disk is gone")))
            }
        }
        let go_on = |_| ControlFlow::Continue(());
        let error = transcode(&mut Ours, Encoding::default(), 1, &mut io::sink(), &go_on).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Local, "the disk is gone"));
    }

    #[test]
    fn a_level_out_of_range_is_refused() {
        let go_on = |_| ControlFlow::Continue(());
        let encoding = Encoding::Gzip { level: 13 };
        let error = transcode(&mut io::empty(), encoding, 2, &mut io::sink(), &go_on).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
}
