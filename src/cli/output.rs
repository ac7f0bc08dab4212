//! The only way out: results to stdout, everything else to stderr, foreign text made safe for a terminal.

use std::{
    error::Error as _,
    fmt,
    io::{self, ErrorKind as IoErrorKind, Write as _},
    process::ExitCode,
};

use longshore::{
    Error, ErrorKind,
    error::{chain, printable},
};
use tracing::{Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Prints as much as was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printer {
    quiet: bool,
    verbose: u8,
}

impl Printer {
    /// Creates a printer that says less or more.
    pub(super) const fn new(quiet: bool, verbose: u8) -> Self {
        Self { quiet, verbose }
    }

    #[expect(clippy::unused_self, reason = "all ways out are the printer's")]
    /// Prints a result. A reader that has gone away is no failure.
    pub(super) fn result(self, line: &str) -> Result<(), Error> {
        let mut stdout = io::stdout().lock();
        match writeln!(stdout, "{}", printable(line)).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != IoErrorKind::BrokenPipe => {
                Err(Error::local("writing to standard output").because(error))
            }
            _ => Ok(()),
        }
    }

    /// Tells what goes on.
    pub(super) fn status(self, line: &str) {
        if !self.quiet {
            stderr(line);
        }
    }

    /// Tells what goes on, to those who want to know it all.
    pub(super) fn detail(self, line: &str) {
        if self.verbose > 0 {
            stderr(line);
        }
    }

    /// Warns.
    #[expect(clippy::unused_self, reason = "all ways out are the printer's")]
    pub(super) fn warning(self, line: &str) {
        stderr(&format!("warning: {line}"));
    }

    /// Tells why a command failed and what may help; returns the exit code.
    #[expect(clippy::unused_self, reason = "all ways out are the printer's")]
    pub(super) fn failure(self, error: &Error) -> ExitCode {
        stderr(&format!("error: {}", error.message()));
        let mut said = error.message().to_owned();
        let mut cause = error.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !said.contains(&words) {
                stderr(&format!("  caused by: {words}"));
            }
            said = words;
            cause = error.source();
        }
        for hint in error.hints() {
            stderr(&format!("hint: {hint}"));
        }
        if error.kind() == ErrorKind::Internal {
            stderr(&format!("this is a bug in longshore; please report it: {}", chain(error)));
        }
        ExitCode::from(error.kind().exit_code())
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
            .with_writer(io::stderr)
            .event_format(LogLine)
            .init();
    }
}

/// A line of the log looks like every other line.
struct LogLine;

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
        let label = match *event.metadata().level() {
            Level::ERROR | Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        writeln!(writer, "{label}: {}", printable(&line))
    }
}

/// Prints what clap has to say: help and version as results, everything else as errors.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe (`longshore --help | head -1`) is no failure.
    if error.print().is_err() {
        tracing::debug!("nobody reads the usage");
    }
    ExitCode::from(if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 })
}

/// Nothing can be said about a stderr that is gone.
fn stderr(line: &str) {
    writeln!(io::stderr().lock(), "{}", printable(line)).unwrap_or_default();
}
