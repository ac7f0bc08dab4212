//! A proxy that passes connections on, counts what clients send, and holds it back on demand: a test then knows
//! in the middle of what it is.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

use super::until::PATIENCE;

/// A proxy that runs as long as the test.
pub(crate) struct Relay {
    host: String,
    line: Arc<Line>,
}

/// What all connections share.
#[derive(Default)]
struct Line {
    flow: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Default)]
struct Flow {
    /// Whom new connections reach.
    target: String,
    /// Bytes of clients that were passed on.
    sent: u64,
    limit: Option<Limit>,
    /// Somebody waits at the limit.
    held: bool,
    open: Vec<TcpStream>,
}

/// What is passed on no more.
enum Limit {
    /// Anything beyond so many bytes.
    Bytes(u64),
    /// The request that comes after so many others with this method.
    Request { method: &'static str, others: usize },
}

impl Relay {
    /// Starts one before a host.
    pub(crate) fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let line = Arc::new(Line::default());
        let relay = Self { host, line: Arc::clone(&line) };
        target.clone_into(&mut line.flow().target);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Without a server the client sees its connection end.
                let target = line.flow().target.clone();
                let Ok(server) = TcpStream::connect(&target) else { continue };
                line.join(&client, &server);
            }
        });
        relay
    }

    /// Leads new connections to another host.
    #[cfg(feature = "buckets")]
    pub(crate) fn lead_to(&self, target: &str) {
        target.clone_into(&mut self.line.flow().target);
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns how many bytes of clients were passed on.
    pub(crate) fn sent(&self) -> u64 {
        self.line.flow().sent
    }

    /// Passes on so many more bytes of clients, and then none.
    pub(crate) fn hold_after(&self, bytes: u64) {
        let mut flow = self.line.flow();
        flow.limit = Some(Limit::Bytes(flow.sent + bytes));
    }

    /// Passes on the first request with this method, and then no other such.
    pub(crate) fn hold_second(&self, method: &'static str) {
        self.line.flow().limit = Some(Limit::Request { method, others: 1 });
    }

    /// Waits until bytes are held back.
    #[track_caller]
    pub(crate) fn wait_until_held(&self) {
        let flow = self.line.flow();
        let (flow, waited) = self.line.changed.wait_timeout_while(flow, PATIENCE, |flow| !flow.held).unwrap();
        assert!(!waited.timed_out(), "only {} bytes were sent", flow.sent);
    }

    /// Drops every connection with what is held back in it, and passes everything on from now on.
    pub(crate) fn cut(&self) {
        let mut flow = self.line.flow();
        for stream in flow.open.drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
        (flow.limit, flow.held) = (None, false);
        self.line.changed.notify_all();
    }
}

impl Line {
    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap()
    }

    fn join(self: &Arc<Self>, client: &TcpStream, server: &TcpStream) {
        let clone = |stream: &TcpStream| stream.try_clone().unwrap();
        self.flow().open.extend([clone(client), clone(server)]);
        for (from, to, counted) in [(client, server, true), (server, client, false)] {
            let (line, from, to) = (Arc::clone(self), clone(from), clone(to));
            thread::spawn(move || {
                line.pass(&from, &to, counted);
                // Whoever is at the other end learns of it, and has nobody to talk to either.
                for stream in [&from, &to] {
                    stream.shutdown(Shutdown::Both).ok();
                }
            });
        }
    }

    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream, counted: bool) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(size @ 1..) = from.read(&mut buffer) {
            if counted {
                self.wait_for_leave(&buffer[..size]);
            }
            if to.write_all(&buffer[..size]).is_err() {
                return;
            }
            if counted {
                self.flow().sent += size as u64;
            }
        }
    }

    fn wait_for_leave(&self, bytes: &[u8]) {
        let mut flow = self.flow();
        if flow.forbids(bytes) {
            flow.held = true;
            self.changed.notify_all();
            drop(self.changed.wait_while(flow, |flow| flow.held).unwrap());
        }
    }
}

impl Flow {
    fn forbids(&mut self, bytes: &[u8]) -> bool {
        match &mut self.limit {
            Some(Limit::Bytes(limit)) => self.sent >= *limit,
            // A client that waits for answers begins to write with a request.
            Some(Limit::Request { method, others }) if bytes.starts_with(method.as_bytes()) => {
                let forbids = *others == 0;
                *others = others.saturating_sub(1);
                forbids
            }
            None | Some(Limit::Request { .. }) => false,
        }
    }
}
