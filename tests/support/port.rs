//! A port of this machine that is a server's for as long as the test wants, whether the server runs or not.
//!
//! Who asks for any port gets none that somebody has bound, even if nobody listens there; who asks for this one by its
//! number, and lets addresses be used again as servers do, gets it.

use tokio::net::TcpSocket;

/// A port on loopback. While no server listens there, connections are refused.
#[derive(Debug)]
pub(crate) struct Port {
    host: String,
    _bound: TcpSocket,
}

impl Port {
    /// Takes one that nobody else has.
    pub(crate) fn new() -> Self {
        let bound = TcpSocket::new_v4().unwrap();
        bound.set_reuseaddr(true).unwrap();
        bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self { host: bound.local_addr().unwrap().to_string(), _bound: bound }
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}
