//! The one error type, and who is at fault.
//!
//! Every failure says what was being done ([`Error`]'s message), whose fault it is ([`ErrorKind`], which is
//! also the exit code), what lies beneath (`source`), and, where one is known, a hint with the next step.
//! Modules that know more (the registry's own words) put their typed error beneath as the source.
//! Messages are lower-case fragments without a full stop, literals in backticks, the value last.

mod misfit;

use std::{any::Any, borrow::Cow, error::Error as StdError, fmt, io, sync::Arc};

use rustix::io::Errno;

use self::misfit::Misfit;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: what was being done, who is at fault, why, and what to do next.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    hints: Vec<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The registry did not let us in: missing, wrong or insufficient credentials.
    Denied,
    /// Longshore itself is wrong.
    Internal,
    /// This machine: disk, permissions, a broken configuration file.
    Local,
    /// The network gave up.
    Network,
    /// Some of several images failed.
    Partial,
    /// The registry understood and refused, or misbehaved.
    Refused,
    /// The image or archive to be pushed is damaged, hostile or unsupported.
    Source,
    /// The command as typed cannot be carried out.
    Usage,
}

impl ErrorKind {
    /// Returns the exit code of a process that fails for this reason.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Source => 3,
            Self::Denied => 4,
            Self::Refused => 5,
            Self::Network => 6,
            Self::Partial => 7,
            Self::Local => 8,
        }
    }
}

impl Error {
    /// Creates an error of `kind`; `message` says what was being done or what is wrong.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), hints: Vec::new(), source: None }))
    }

    /// Creates an error that blames what is being pushed.
    pub fn source(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Source, message)
    }

    /// Creates an error that blames the command as typed.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Creates an error that blames this machine.
    pub fn local(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Local, message)
    }

    /// Creates an error that blames ourselves: an invariant did not hold.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds what lies beneath. A source that cannot be opened because too many files are open is not to blame.
    pub fn because(self, source: impl StdError + Send + Sync + 'static) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        if inner.kind == ErrorKind::Source && has_too_many_open(&source) {
            inner.kind = ErrorKind::Local;
        }
        let json = (&source as &dyn Any).downcast_ref().and_then(Misfit::of);
        let source: Arc<dyn StdError + Send + Sync> = match json {
            Some(misfit) => Arc::new(misfit),
            None => Arc::new(source),
        };
        inner.source = Some(source);
        Self(Arc::new(inner))
    }

    /// Adds a hint: the next thing to try, printed on a line of its own.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        inner.hints.push(hint.into());
        Self(Arc::new(inner))
    }

    /// Says what was being done when this error came up; the kind stays.
    pub fn while_doing(self, doing: impl Into<String>) -> Self {
        Self::new(self.kind(), doing).because(self)
    }

    /// Returns who is at fault.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns this error's own message, without its causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the hints of this error and of its causes, outermost first.
    pub fn hints(&self) -> Vec<&str> {
        let mut hints: Vec<&str> = self.0.hints.iter().map(String::as_str).collect();
        let mut cause = self.beneath();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<Self>() {
                hints.extend(error.0.hints.iter().map(String::as_str));
            }
            cause = error.source();
        }
        hints
    }

    /// Returns the first cause of type `T`, if there is one.
    pub fn find<T: StdError + 'static>(&self) -> Option<&T> {
        let mut cause = self.beneath();
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<T>() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }

    fn beneath(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} error: {}", self.0.kind, chain(self))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.beneath()
    }
}

/// Puts a failure of this machine or of a source into our words.
pub trait Context<T> {
    /// Blames `kind` and says what was being done.
    fn context(self, kind: ErrorKind, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: StdError + Send + Sync + 'static> Context<T> for std::result::Result<T, E> {
    fn context(self, kind: ErrorKind, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::new(kind, doing()).because(error))
    }
}

/// Returns the messages of an error and its causes in one line, outermost first.
pub fn chain(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Libraries like to repeat their cause in their own message.
        if !line.ends_with(&words) {
            line.push_str(": ");
            line.push_str(&words);
        }
        cause = error.source();
    }
    line
}

/// Returns whether something failed because this process, or this machine, has as many files open as it may. It is known by
/// its words: the number of an error is not to be had from what names the file.
fn has_too_many_open(error: &dyn StdError) -> bool {
    let words = chain(error);
    [Errno::MFILE, Errno::NFILE].map(io::Error::from).iter().any(|lack| words.ends_with(&lack.to_string()))
}

/// Says a number of bytes by its unit where that is exact, since one byte may be what is too much.
pub fn sized(bytes: u64) -> String {
    match bytes {
        1024.. if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        1024.. if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => counted(bytes, "byte"),
    }
}

/// Says how many of something there are: `1 layer`, `2 layers`.
pub fn counted(count: impl fmt::Display + From<u8> + PartialEq + Copy, what: &str) -> String {
    let ending = if count == 1.into() { "" } else { "s" };
    format!("{count} {what}{ending}")
}

/// Says in one line where a text is not the TOML that is wanted, and why; the parser's own words are a drawing.
pub fn no_toml(text: &str, error: &toml::de::Error) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    Error::local(format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
}

/// Returns which of the words that would do is meant by one that does not, if one is like it.
pub fn similar<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |word: &str| strsim::normalized_damerau_levenshtein(asked, word);
    let words =
        known.into_iter().map(|word| (likeness(word), word)).filter(|(likeness, _)| *likeness >= LIKE);
    words.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, word)| word)
}

/// A typing mistake in a word of four letters is as like as 0.75.
const LIKE: f64 = 0.6;

/// Makes foreign text (a registry's words, a file name) safe for a terminal: control characters, escape
/// codes and bidirectional overrides become `\u{…}` escapes.
pub fn printable(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(hostile) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if hostile(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_reads_from_what_was_done_to_why() {
        let disk = io::Error::other("no space left");
        let error = Error::local("writing the cache").because(disk).while_doing("encoding layer 3");
        assert_eq!(chain(&error), "encoding layer 3: writing the cache: no space left");
        assert_eq!(error.kind(), ErrorKind::Local);
        assert!(error.find::<io::Error>().is_some());
    }

    #[test]
    fn a_source_is_not_to_blame_for_too_many_open_files() {
        let open = |errno: Errno| {
            let named = io::Error::other(format!("failed to open file `x`: {}", io::Error::from(errno)));
            Error::source("`x` cannot be opened").because(named).while_doing("reading it").kind()
        };
        assert_eq!([Errno::MFILE, Errno::NFILE].map(open), [ErrorKind::Local; 2]);
        assert_eq!(open(Errno::IO), ErrorKind::Source);
    }

    #[test]
    fn hints_survive_more_context() {
        let error = Error::usage("no tag").with_hint("add `:latest`").while_doing("reading DEST");
        assert_eq!(error.hints(), ["add `:latest`"]);
    }

    #[test]
    fn a_typing_mistake_is_like_what_was_meant() {
        let known = ["dir", "docker-archive", "oci", "oci-archive", "tiny"];
        for (asked, meant) in [
            ("oci-archiv", Some("oci-archive")),
            ("docker-arhcive", Some("docker-archive")),
            ("tny", Some("tiny")),
            ("image", None),
            ("", None),
        ] {
            assert_eq!(similar(asked, known), meant, "{asked}");
        }
    }

    #[test]
    fn one_of_a_kind_is_no_plural() {
        assert_eq!(
            [0, 1, 2].map(|count: usize| counted(count, "layer")),
            ["0 layers", "1 layer", "2 layers"]
        );
        assert_eq!(counted(1_u64, "diff ID"), "1 diff ID");
    }

    #[test]
    fn escape_codes_do_not_reach_a_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\u{202e}"), "a\\u{1b}[31mb\\u{202e}");
        assert_eq!(printable("plain – ok"), "plain – ok");
    }
}
