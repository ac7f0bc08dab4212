//! What went wrong in an exchange, in the words of the innermost cause; the outer ones are the HTTP client's.

use std::io;

use url::Url;

use super::{no_tls::NoTls, proxy_login::wants_login};
use crate::{
    error::Error,
    registry::{body::Meter, one_line::one_line, session::Fault},
};

pub(super) fn fault(error: reqwest::Error, meter: &Meter, url: &Url, base: &Url, place: &str) -> Fault {
    if let Some(error) = meter.failure() {
        return Fault::Fatal(error);
    }
    let (sent, elapsed) = (meter.sent(), meter.elapsed());
    let (connecting, timed_out) = (error.is_connect(), error.is_timeout());
    let error = error.without_url();
    let mut kind = None;
    let mut innermost: &(dyn std::error::Error + 'static) = &error;
    loop {
        if let Some(ours) = innermost.downcast_ref::<Error>() {
            return Fault::Fatal(ours.clone());
        }
        kind = innermost.downcast_ref::<io::Error>().map(io::Error::kind).or(kind);
        match beneath(innermost) {
            Some(cause) => innermost = cause,
            None => break,
        }
    }
    let tls = innermost.downcast_ref().and_then(|error| NoTls::of(error, connecting));
    if let Some(tls) = tls {
        return Fault::Fatal(tls.into_error(url, base));
    }
    // rustls has a link to its own manual here.
    let why = match (kind, innermost.to_string().as_str()) {
        (Some(io::ErrorKind::UnexpectedEof), _) => "the other side hung up".to_owned(),
        // A login that is wrong is not shown again: many proxies lock its account after a few.
        (_, NO_LOGIN) => return Fault::Fatal(wants_login(place)),
        (_, NO_TUNNEL) => "the proxy does not connect us".to_owned(),
        // What hyper makes of a status line that is none: a type that it does not export.
        (_, "invalid HTTP version parsed") => "what it answers is no HTTP".to_owned(),
        (_, words) => one_line(words).unwrap_or_default(),
    };
    match kind {
        _ if connecting && timed_out => Fault::Connect { why: format!("{place} does not take connections") },
        _ if connecting => Fault::Connect { why: format!("{place}: {why}") },
        Some(io::ErrorKind::TimedOut) => Fault::Stalled { sent, elapsed },
        _ => Fault::Reset { sent, elapsed, why },
    }
}

/// What hyper-util makes of a proxy's 407, and of other refusals to connect: a type that it does not export.
const NO_LOGIN: &str = "tunnel error: proxy authorization required";
const NO_TUNNEL: &str = "tunnel error: unsuccessful";

/// An `io::Error` that wraps another error passes over it in `source`.
fn beneath<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a (dyn std::error::Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
