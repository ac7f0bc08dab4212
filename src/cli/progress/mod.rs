//! Progress of a push on standard error: bars at a terminal, plain lines elsewhere, JSON for machines.
//!
//! `track` keeps the numbers, `rows` and `screen` draw them, `lines` writes what is said in passing, `json` all of it.

mod json;
mod lines;
mod rows;
mod screen;
mod track;

use std::{
    io::{self, IsTerminal as _},
    sync::Arc,
};

use clap::ValueEnum;
use longshore::event::Reporter;

use self::{json::Json, lines::Lines};
use super::Context;

/// How progress is shown.
#[derive(Debug, clap::Args)]
pub(super) struct ProgressArgs {
    /// How progress is shown on standard error: `auto` is bars at a terminal and plain lines elsewhere
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "Output")]
    progress: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Auto,
    Bars,
    Json,
    None,
    Plain,
}

impl ProgressArgs {
    /// Returns whether standard error is for machines.
    pub(super) fn is_json(&self) -> bool {
        self.progress == Mode::Json
    }

    /// Begins to show progress, until what is returned is dropped.
    pub(super) fn begin(&self, context: &Context) -> Progress {
        let dumb = context.environment.var("TERM").is_none_or(|term| term == "dumb");
        let printer = context.printer;
        let mode = match self.progress {
            Mode::Json => return Progress { reporter: Arc::new(Json::new(printer)), lines: None },
            _ if printer.is_quiet() => Mode::None,
            Mode::Auto if io::stderr().is_terminal() && !dumb => Mode::Bars,
            Mode::Auto => Mode::Plain,
            mode => mode,
        };
        let lines = Arc::new(match mode {
            Mode::Bars => Lines::with_bars(printer),
            Mode::None => Lines::warnings_only(printer),
            _ => Lines::plain(printer),
        });
        Progress { reporter: Arc::clone(&lines) as Arc<dyn Reporter>, lines: Some(lines) }
    }
}

/// Progress that is being shown.
#[must_use = "bars are taken away when it is dropped"]
pub(super) struct Progress {
    reporter: Arc<dyn Reporter>,
    lines: Option<Arc<Lines>>,
}

impl Progress {
    /// Returns whom to tell.
    pub(super) fn reporter(&self) -> Arc<dyn Reporter> {
        Arc::clone(&self.reporter)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(lines) = &self.lines {
            lines.end();
        }
    }
}
