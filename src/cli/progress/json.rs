//! `--progress json`: each event is a [`Line`].

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use longshore::event::{Event, Reporter};
use parking_lot::Mutex;

use crate::cli::output::{Printer, line::Line};

/// Writes events down.
#[derive(Debug)]
pub(super) struct Json {
    printer: Printer,
    /// When what comes often was told last.
    told: Mutex<HashMap<(&'static str, String), Instant>>,
}

/// What comes often is told as often as this.
const OFTEN: Duration = Duration::from_secs(1);

impl Json {
    pub(super) fn new(printer: Printer) -> Self {
        Self { printer, told: Mutex::default() }
    }

    fn is_due(&self, kind: &'static str, blob: &str) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock();
        let before = told.get(&(kind, blob.to_owned()));
        let due = before.is_none_or(|before| now.saturating_duration_since(*before) >= OFTEN);
        if due {
            told.insert((kind, blob.to_owned()), now);
        }
        due
    }
}

impl Reporter for Json {
    fn event(&self, event: Event) {
        let due = match &event {
            Event::Encoded { blob, .. } => self.is_due("encoded", blob),
            Event::Hashed { blob, .. } => self.is_due("hashed", blob),
            Event::Sent { blob, .. } => self.is_due("sent", blob),
            Event::Written { file, .. } => self.is_due("written", file),
            _ => true,
        };
        if due {
            self.printer.line(&Line::event(&event));
        }
    }
}
