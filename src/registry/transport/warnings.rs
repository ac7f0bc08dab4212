//! The `Warning` headers of a host, each told once.
//!
//! A registry announces by them what it will not do for ever (distribution-spec); whatever else may come so is left alone.

use std::collections::BTreeSet;

use http::{HeaderMap, header};
use parking_lot::Mutex;

use crate::registry::{confidential::Confidential, one_line::one_line};

/// A registry may repeat its warnings with every answer, differently each time; nobody reads more.
const WARNINGS: usize = 20;

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct Warnings(Mutex<BTreeSet<String>>);

impl Warnings {
    /// Tells the user what an answer warns of, without what it repeats of what was said in confidence.
    pub(super) fn tell(&self, headers: &HeaderMap, confidential: &Confidential) {
        for warning in headers.get_all(header::WARNING).into_iter().filter_map(|value| value.to_str().ok()) {
            // distribution-spec: `299 - "text"`, and nothing else is for the user.
            let text = warning.strip_prefix("299 ").and_then(|rest| rest.trim().split_once('"'));
            let Some(text) = text.and_then(|(_, rest)| rest.strip_suffix('"')) else { continue };
            let Some(words) = one_line(&confidential.hide(&text.replace(r#"\""#, "\""))) else { continue };
            let mut warned = self.0.lock();
            if warned.len() < WARNINGS && warned.insert(words.clone()) {
                tracing::warn!("the registry says: {words}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_shown_once() {
        let warnings = Warnings::default();
        for warning in [
            r#"299 - "old API""#,
            r#"299 - "old API""#,
            r#"299 registry "new \"API\"""#,
            "299 - unquoted",
            r#"199 - "other""#,
            r#"299 - """#,
        ] {
            let headers = HeaderMap::from_iter([(header::WARNING, warning.parse().unwrap())]);
            warnings.tell(&headers, &Confidential::default());
        }
        assert_eq!(warnings.0.lock().iter().collect::<Vec<_>>(), [r#"new "API""#, "old API"]);
    }
}
