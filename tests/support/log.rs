//! What a server writes to standard error, followed as it comes.

use std::{
    io::{BufRead as _, BufReader, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

use super::until::PATIENCE;

/// The lines so far. They are read to their end, so that the server never blocks.
#[derive(Clone)]
pub(crate) struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    /// Follows a pipe.
    pub(crate) fn follow(pipe: impl Read + Send + 'static) -> Self {
        let log = Self(Arc::default());
        let writer = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                writer.change(|lines| lines.lines.push(line));
            }
            writer.change(|lines| lines.ended = true);
        });
        log
    }

    /// Waits for a line of which `read` makes something; nothing if the server ends without one.
    #[track_caller]
    pub(crate) fn find<T>(&self, mut read: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let (mut found, mut seen) = (None, 0);
        let (lines, waited) = self
            .0
            .1
            .wait_timeout_while(self.lines(), PATIENCE, |lines| {
                found = lines.lines[seen..].iter().find_map(|line| read(line));
                seen = lines.lines.len();
                found.is_none() && !lines.ended
            })
            .unwrap();
        assert!(!waited.timed_out(), "what is waited for does not come: {:#?}", lines.lines);
        found
    }

    /// Waits for the server's end and returns every line.
    pub(crate) fn all(&self) -> Vec<String> {
        assert_eq!(self.find(|_| None::<()>), None);
        self.lines().lines.clone()
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.lines());
        self.0.1.notify_all();
    }
}
