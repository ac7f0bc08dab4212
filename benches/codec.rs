//! How fast layers are encoded and proven: MB of plain bytes per second, per gzip level and number of workers.
//!
//! `cargo bench --bench codec [-- FILE]`: FILE is a plain layer; without one, 256 MiB of words are made up.

#![expect(clippy::print_stdout, reason = "a bench prints its results")]

use std::{ops::ControlFlow, path::PathBuf, thread, time::Instant};

use longshore::{
    Result,
    blob::Blob,
    cache::Cache,
    codec::{Encoded, Encoding, Progress, prove::prove, transcode::transcode},
    error::{Context as _, ErrorKind},
};

fn main() -> Result<()> {
    let dir = tempfile::tempdir().context(ErrorKind::Local, || "making a folder".to_owned())?;
    let argument = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let layer = argument.map_or_else(|| dir.path().join("layer"), PathBuf::from);
    if layer.starts_with(dir.path()) {
        fs_err::write(&layer, words(256 << 20)).context(ErrorKind::Local, || "making a layer".to_owned())?;
    }
    let layer = Blob::open(&layer)?;
    let scratch = Cache::scratch(dir.path());
    let cores = thread::available_parallelism().map_or(1, Into::into);
    for level in [1, 2, 6] {
        let encoding = Encoding::Gzip { level };
        for workers in [1, cores] {
            let mut writer = scratch.writer()?;
            let encoded = timed(&format!("encode {encoding}, workers: {workers}"), || {
                transcode(&mut layer.reader(), encoding, workers, &mut writer, &go_on)
            })?;
            if workers == cores {
                let blob = writer.commit(&encoded, encoding)?;
                timed(&format!("prove {encoding}"), || prove(&blob, &go_on))?;
            }
        }
    }
    timed("prove a plain layer", || prove(&layer, &go_on))?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "speeds are rounded anyway")]
fn timed(what: &str, pass: impl FnOnce() -> Result<Encoded>) -> Result<Encoded> {
    let start = Instant::now();
    let encoded = pass()?;
    let speed = encoded.plain_size as f64 / start.elapsed().as_secs_f64() / 1e6;
    let share = 100.0 * encoded.size as f64 / encoded.plain_size as f64;
    println!("{what:<32} {speed:>6.0} MB/s {share:>6.1} %");
    Ok(encoded)
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Makes bytes that compress about as well as a layer does.
fn words(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (word, length) = ((state >> 33) % 256, (state >> 60) as usize % 5 + 4);
        bytes.extend_from_slice(&word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[..length]);
    }
    bytes
}
