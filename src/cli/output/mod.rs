//! The only way out: results to stdout, everything else to stderr, foreign text made safe for a terminal.

pub(super) mod line;
mod other_tools;
pub(super) mod table;

use std::{
    error::Error as _,
    fmt,
    io::{self, ErrorKind as IoErrorKind, Write as _},
    os::fd::AsFd,
    process::ExitCode,
};

use indicatif::ProgressBar;
use longshore::{
    Error, ErrorKind,
    error::{chain, printable},
    event::Event,
};
use parking_lot::Mutex;
use tracing::{Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use self::{line::Line, other_tools::translated};
use super::ExitStatus;

/// Prints as much as was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Printer {
    quiet: bool,
    verbose: u8,
    /// Standard error is for machines: [`Line`]s and nothing else.
    json: bool,
}

impl Printer {
    /// Creates a printer that says less or more, to people or machines.
    pub(super) const fn new(quiet: bool, verbose: u8, json: bool) -> Self {
        Self { quiet, verbose, json }
    }

    /// Returns the same printer, only that it says less.
    pub(super) const fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    pub(super) const fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Prints a result.
    pub(super) fn result(self, line: &str) -> Result<(), Error> {
        self.document(format!("{}\n", printable(line)).as_bytes()).map(drop)
    }

    /// Prints a result for machines.
    pub(super) fn json(self, document: &serde_json::Value) -> Result<(), Error> {
        self.result(&ascii(&document.to_string()))
    }

    /// Returns how many columns a result has, where it is read on a terminal.
    #[expect(clippy::unused_self, reason = "all ways out are the printer's")]
    pub(super) fn columns(self) -> Option<usize> {
        columns_of(io::stdout())
    }

    /// Returns how many columns there are for what is told on the way, where it is read on a terminal.
    #[expect(clippy::unused_self, reason = "all ways out are the printer's")]
    pub(super) fn status_columns(self) -> Option<usize> {
        columns_of(io::stderr())
    }

    /// Prints a text of our own. A reader that has gone away is no failure.
    #[expect(clippy::unused_self, reason = "all ways out are the printer's")]
    pub(super) fn document(self, text: &[u8]) -> Result<ExitStatus, Error> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != IoErrorKind::BrokenPipe => Err(unwritten(error)),
            _ => Ok(ExitStatus::Success),
        }
    }

    /// Tells what goes on.
    pub(super) fn status(self, line: &str) {
        if self.says_status() {
            stderr(line);
        }
    }

    /// Returns whether anybody hears what goes on.
    pub(super) const fn says_status(self) -> bool {
        !self.quiet && !self.json
    }

    /// Tells what goes on, to those who want to know it all.
    pub(super) fn detail(self, line: &str) {
        if self.verbose > 0 && !self.json {
            stderr(line);
        }
    }

    /// Warns.
    pub(super) fn warning(self, line: &str) {
        if self.json {
            self.line(&Line::event(&Event::Warning { message: line.to_owned() }));
        } else {
            stderr(&format!("warning: {line}"));
        }
    }

    /// Tells that a signal ended it.
    pub(super) fn interrupted(self) {
        if self.json {
            self.line(&Line::interrupted());
        }
        self.status("interrupted");
    }

    /// Tells a machine.
    #[expect(clippy::unused_self, reason = "all ways out are the printer's")]
    pub(super) fn line(self, line: &Line<'_>) {
        match serde_json::to_string(line) {
            Ok(json) => stderr(&ascii(&json)),
            Err(error) => tracing::debug!("an event cannot be written: {error}"),
        }
    }

    /// Tells why a command failed and what may help; returns the exit code.
    pub(super) fn failure(self, error: &Error) -> ExitCode {
        let code = ExitCode::from(error.kind().exit_code());
        let mut causes = Vec::new();
        let mut said = error.message().to_owned();
        let mut cause = error.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !said.contains(&words) {
                causes.push(words.clone());
            }
            said = words;
            cause = error.source();
        }
        if self.json {
            self.line(&Line::failed(error, causes));
            return code;
        }
        stderr(&format!("error: {}", error.message()));
        for cause in causes {
            stderr(&format!("  caused by: {cause}"));
        }
        for hint in error.hints() {
            stderr(&format!("hint: {hint}"));
        }
        if error.kind() == ErrorKind::Internal {
            stderr(&format!("this is a bug in longshore; please report it: {}", chain(error)));
        }
        code
    }

    /// Lets the library's log through: warnings always, `-v` for its doings, `-vv` for every request.
    pub(super) fn log(self) {
        let level = match self.verbose {
            0 => "longshore=warn",
            1 => "longshore=info",
            _ => "longshore=debug",
        };
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(level))
            .with_writer(|| AboveBars)
            .event_format(LogLine { json: self.json })
            .init();
    }
}

/// A line of the log looks like every other line.
struct LogLine {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for LogLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        context.format_fields(Writer::new(&mut line), event)?;
        if self.json {
            let level = event.metadata().level();
            // To who reads it, a warning is one whoever of us says it.
            let json = if *level <= Level::WARN {
                serde_json::to_string(&Line::event(&Event::Warning { message: line }))
            } else {
                serde_json::to_string(&Line::log(&level.as_str().to_lowercase(), &line))
            };
            return writeln!(writer, "{}", ascii(&json.map_err(|_| fmt::Error)?));
        }
        let label = match *event.metadata().level() {
            Level::ERROR | Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        writeln!(writer, "{label}: {}", printable(&line))
    }
}

fn unwritten(error: io::Error) -> Error {
    Error::local("writing to standard output").because(error)
}

fn columns_of(terminal: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    Some(size.ws_col.into()).filter(|columns| *columns > 0)
}

/// Prints what clap has to say: help and version as results, everything else as errors.
pub(super) fn usage(error: clap::Error) -> ExitCode {
    let unreadable = std::env::args_os().find(|argument| argument.to_str().is_none());
    if let (clap::error::ErrorKind::InvalidUtf8, Some(argument)) = (error.kind(), unreadable) {
        // clap does not say which.
        let words = format!("no text in UTF-8: `{}`", argument.to_string_lossy());
        return Printer::default().failure(
            &Error::usage(words)
                .with_hint("a link by another name leads there, and `-` reads standard input"),
        );
    }
    let error = translated(error);
    match error.print() {
        _ if error.use_stderr() => ExitCode::from(ErrorKind::Usage.exit_code()),
        // A closed pipe (`longshore --help | head -1`) is no failure.
        Err(error) if error.kind() != IoErrorKind::BrokenPipe => {
            Printer::default().failure(&unwritten(error))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The bars, while there are some.
static BARS: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Keeps bars below everything that is printed from now on; none any more by `None`.
pub(super) fn keep_below(bars: Option<ProgressBar>) {
    *BARS.lock() = bars;
}

/// Standard error, above the bars.
struct AboveBars;

impl io::Write for AboveBars {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let bars = BARS.lock().clone();
        let write = || io::stderr().lock().write_all(text).map(|()| text.len());
        bars.map_or_else(write, |bars| bars.suspend(write))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Nothing can be said about a stderr that is gone.
fn stderr(line: &str) {
    AboveBars.write_all(format!("{}\n", printable(line)).as_bytes()).unwrap_or_default();
}

/// Writes JSON in ASCII, so that nothing of it can be mistaken for a terminal's commands.
pub(super) fn ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && !c.is_ascii_control() {
            ascii.push(c);
        } else {
            let mut units = [0; 2];
            ascii.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    ascii
}
