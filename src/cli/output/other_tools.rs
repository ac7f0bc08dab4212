//! What the users of skopeo, crane, regctl, podman and docker type, and what it is called here.
//!
//! clap guesses by spelling; who comes from elsewhere has spelt it right.

use clap::{
    Error,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Says what another tool's word is called here, in the place of what clap guesses.
pub(super) fn translated(mut error: Error) -> Error {
    let (invalid, guess, words) = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            (ContextKind::InvalidSubcommand, ContextKind::SuggestedSubcommand, COMMANDS)
        }
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, ContextKind::SuggestedArg, OPTIONS),
        _ => return error,
    };
    let Some(ContextValue::String(typed)) = error.get(invalid) else { return error };
    if let Some((_, here)) = words.iter().find(|(words, _)| words.contains(&typed.as_str())) {
        error.remove(guess);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(*here)]));
    }
    error
}

type Words = &'static [(&'static [&'static str], &'static str)];

const COMMANDS: Words = &[
    (&["auth"], "there are `longshore login` and `longshore logout`"),
    (&["catalog", "list", "list-tags", "ls", "repo"], "`longshore inventory REGISTRY` lists what is there"),
    (&["copy", "cp", "image", "sync", "upload"], "`longshore push SOURCE DEST` pushes what lies on disk"),
    (&["delete", "rm", "rmi"], "longshore deletes nothing"),
    (&["digest", "images", "validate"], "`longshore inspect SOURCE` shows what lies on disk"),
    (&["append", "index", "manifest"], "`longshore push --index SOURCE… DEST` makes an index"),
    (&["export", "load", "pull", "save"], "longshore pushes, and does not pull"),
    (&["tag"], "`longshore push SOURCE DEST --tag TAG` sets more than one tag"),
    (&["version"], "`longshore --version`"),
];

const OPTIONS: Words = &[
    (&["-a", "--all-tags"], "`longshore push --all` pushes all images of SOURCE"),
    (&["-t", "--additional-tag"], "`longshore push` has `--tag TAG`"),
    (
        &["-u", "-p", "--username", "--password"],
        "`--creds USER --password-stdin`, or `longshore login` before",
    ),
    (&["--blob-chunk"], "`longshore push` has `--chunk-size SIZE`"),
    (
        &["--compress", "--compression-format", "--dest-compress", "--dest-compress-format"],
        "`longshore push` has `--compression gzip` and `zstd`",
    ),
    (
        &["--compression-level", "--dest-compress-level"],
        "`--compression` takes the level too, like `zstd:19`",
    ),
    (&["--debug"], "`-v` says more, and `-vv` every request"),
    (&["--image-refs", "--iidfile"], "`longshore push` has `--digest-file FILE` and `--metadata-file FILE`"),
    (
        &["--multi-arch", "--override-arch", "--override-os"],
        "all platforms are the default; `--platform OS/ARCH` takes one",
    ),
    (
        &["--preserve-digests"],
        "that is the default: what a manifest names is altered only if that is asked for",
    ),
    (&["--retry", "--retry-times", "--max-retries"], "`longshore push` has `--retries N`"),
    (
        &["--sign-by", "--sign-by-sigstore"],
        "longshore signs nothing; `--referrers` pushes signatures that are there",
    ),
];
