//! A client that does exactly what it is told, byte by byte: the fault registry's own tests speak through it.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

use super::until::PATIENCE;

/// One connection to a server.
pub(crate) struct Raw {
    stream: TcpStream,
    host: String,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    /// Connects to `host:port`.
    pub(crate) fn connect(host: &str) -> Self {
        Self::try_connect(host).unwrap()
    }

    /// Connects to `host:port`, where somebody may listen.
    pub(crate) fn try_connect(host: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(host)?;
        // No test shall hang for ever where the server should have answered.
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, host: host.to_owned() })
    }

    /// Sends a request with the length of its body and reads the answer.
    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Reply> {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        headers.push(("Content-Length", &length));
        self.write_head(method, target, &headers)?;
        self.stream.write_all(body)?;
        self.reply(method)
    }

    /// Sends the first part of a request only.
    pub(crate) fn write_head(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<()> {
        let target = target.strip_prefix(&format!("http://{}", self.host)).unwrap_or(target);
        let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(self.stream, "{method} {target} HTTP/1.1\r\nHost: {}\r\n{}\r\n", self.host, headers.concat())
    }

    /// Sends bytes of a body.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads the answer to a request.
    pub(crate) fn reply(&mut self, method: &str) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(length) = response.parse(&bytes).map_err(io::Error::other)? {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let mut reply = Reply {
                    status: response.code.unwrap_or_default(),
                    headers: response.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect(),
                    body: bytes.split_off(length),
                };
                let size = reply.header("Content-Length").and_then(|size| size.parse().ok()).unwrap_or(0);
                while method != "HEAD" && reply.body.len() < size {
                    self.read_into(&mut reply.body)?;
                }
                return Ok(reply);
            }
            self.read_into(&mut bytes)?;
        }
    }

    fn read_into(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut buffer = [0; 8 << 10];
        let size = self.stream.read(&mut buffer)?;
        if size == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend(&buffer[..size]);
        Ok(())
    }
}

impl Reply {
    /// Returns a header; its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
