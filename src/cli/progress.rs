//! Turns events into lines on stderr.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use indicatif::{HumanBytes, HumanDuration};
use longshore::event::{Event, How, Reporter};

use super::output::Printer;

/// One plain line for everything worth one.
#[derive(Debug)]
pub(super) struct Lines {
    printer: Printer,
    /// What was warned of already: six blobs may meet the same trouble.
    warned: Mutex<HashSet<String>>,
}

impl Lines {
    /// Creates a reporter that prints.
    pub(super) fn new(printer: Printer) -> Self {
        Self { printer, warned: Mutex::default() }
    }

    fn warn(&self, message: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(message.to_owned()) {
            self.printer.warning(message);
        }
    }
}

impl Reporter for Lines {
    fn event(&self, event: Event) {
        match event {
            Event::Planned { present, reuse, fetch, mount, upload, transcode, bytes } => {
                let mut parts = Vec::new();
                for (count, what) in [
                    (present, "present"),
                    (reuse, "reused"),
                    (mount, "to mount"),
                    (upload, "to send"),
                    (fetch, "to fetch and send"),
                    (transcode, "to encode and send"),
                ] {
                    if count > 0 {
                        parts.push(format!("{count} {what}"));
                    }
                }
                self.printer.status(&format!("blobs: {} ({})", parts.join(", "), HumanBytes(bytes)));
                if reuse > 0 {
                    let layers = if reuse == 1 { "layer" } else { "layers" };
                    self.printer.status(&format!("reused {reuse} {layers} of the image that is there"));
                }
            }
            Event::Confirmed { blob, how, size } => {
                let how = match how {
                    How::Mounted => "mounted",
                    How::Present => "present",
                    How::Reused => "reused",
                    _ => "sent",
                };
                self.printer.status(&format!("{how:8} {blob} {}", HumanBytes(size)));
            }
            Event::Manifest { reference, digest } => {
                self.printer.status(&format!("manifest {digest} as `{reference}`"));
            }
            Event::Waiting { blob, pause, why } => {
                // Pauses of a moment are nobody's business.
                if pause.as_millis() >= 500 {
                    self.printer.status(&format!(
                        "waiting {} before going on with {blob}: {why}",
                        HumanDuration(pause)
                    ));
                } else {
                    self.printer.detail(&format!("again: {blob}: {why}"));
                }
            }
            Event::Warning { message } => self.warn(&message),
            Event::Acknowledged { blob, offset, size } => {
                let of = size.map_or_else(String::new, |size| format!(" of {}", HumanBytes(size)));
                self.printer.detail(&format!("{blob}: {}{of} acknowledged", HumanBytes(offset)));
            }
            _ => {}
        }
    }
}
