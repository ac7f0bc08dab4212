//! Joins the parts: reads a request, asks the script what goes wrong, and does or spoils the work.

use std::{
    future, io,
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::{net::TcpListener, sync::Notify};
use tokio_rustls::TlsAcceptor;

use super::{
    auth::{self, Tokens},
    http::{Answer, Body, Head, Wire},
    script::{Fault, Route, Script},
    store::{self, Call, Store},
};

/// What all connections share.
pub(super) struct Shared {
    script: Script,
    /// Scheme and host.
    base: String,
    pub(super) state: Mutex<State>,
    /// A request came or is answered, or the test lets those go on that wait.
    pub(super) moved: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) log: Vec<Exchange>,
    tokens: Tokens,
    /// Nobody waits any more.
    pub(super) released: bool,
}

/// One request, and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) route: Route,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Counted from 1.
    pub(crate) connection: usize,
    /// The scheme of the `Authorization` header.
    pub(crate) authorization: Option<String>,
    pub(crate) content_length: Option<usize>,
    pub(crate) content_range: Option<String>,
    headers: Vec<(String, String)>,
    /// When it came.
    pub(crate) at: Instant,
    /// How many of its route had no answer then, itself among them.
    pub(crate) in_flight: usize,
    /// `Transfer-Encoding: chunked`.
    pub(crate) chunked: bool,
    /// How much of the body was read.
    pub(crate) received: u64,
    /// How much more came after an early answer.
    pub(crate) late: u64,
    /// How much of an answer without end was sent until the client had enough.
    pub(crate) poured: u64,
    /// The status answered, if there was an answer.
    pub(crate) answered: Option<u16>,
}

impl Exchange {
    /// Returns a header of the request; its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What comes after a request.
enum Then {
    /// The next one.
    GoOn,
    Linger,
    Reset,
    /// Nothing, ever.
    Stall,
}

impl Shared {
    pub(super) fn new(script: Script, base: String) -> Self {
        Self { script, base, state: Mutex::default(), moved: Notify::new() }
    }
}

/// Takes connections until the runtime stops.
pub(super) async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    for connection in 1.. {
        let Ok((socket, _)) = listener.accept().await else { return };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            // A connection that breaks is its client's business, which may be what the test is about.
            if let Ok(wire) = Wire::accept(socket, tls).await {
                serve(wire, &shared, connection).await.ok();
            }
        });
    }
}

async fn serve(mut wire: Wire, shared: &Shared, connection: usize) -> io::Result<()> {
    while let Some(head) = wire.head().await? {
        let call = Call::of(head);
        let (log_index, nth) = shared.begin(&call, connection);
        let exchange = Handling { shared, call, log_index };
        match exchange.handle(&mut wire, shared.script.fault(exchange.call.route, nth)).await? {
            Then::GoOn => {}
            Then::Linger => {
                let late = wire.linger().await;
                shared.state.lock().unwrap().log[log_index].late = late;
                return Ok(());
            }
            Then::Reset => {
                wire.reset();
                return Ok(());
            }
            Then::Stall => future::pending().await,
        }
    }
    Ok(())
}

/// One request being handled.
struct Handling<'a> {
    shared: &'a Shared,
    call: Call,
    log_index: usize,
}

impl Handling<'_> {
    async fn handle(&self, wire: &mut Wire, fault: Option<&Fault>) -> io::Result<Then> {
        let manners = &self.shared.script.manners;
        match fault {
            Some(Fault::Early { after, answer, reset }) => {
                wire.go_on(&self.call.head).await?;
                self.read(wire, *after).await;
                self.send(wire, closing(answer.clone())).await?;
                return Ok(if *reset { Then::Reset } else { Then::Linger });
            }
            Some(Fault::Cut { after }) => {
                wire.go_on(&self.call.head).await?;
                self.read(wire, *after).await;
                return Ok(Then::Reset);
            }
            Some(Fault::Stall { after }) => {
                wire.go_on(&self.call.head).await?;
                self.read(wire, *after).await;
                return Ok(Then::Stall);
            }
            _ => {}
        }
        if let (Some(limit), Some(length)) = (manners.body_limit, self.call.head.content_length())
            && length as u64 > limit
        {
            self.send(wire, closing(store::html(413))).await?;
            return Ok(Then::Linger);
        }
        wire.go_on(&self.call.head).await?;
        if let (Some(most), Some(length)) = (manners.reset_over, self.call.head.content_length())
            && length > most
        {
            self.read(wire, most).await;
            return Ok(Then::Reset);
        }
        let Some(mut body) = self.read(wire, usize::MAX).await else { return Ok(Then::Reset) };
        match fault {
            Some(Fault::Answer(answer)) => {
                let mut answer = answer.clone();
                for (_, value) in &mut answer.headers {
                    *value = self.filled_in(value, &self.call.head.target);
                }
                self.send(wire, answer).await?;
                return Ok(Then::GoOn);
            }
            Some(Fault::Reflect(status)) => {
                let request = self.call.head.in_one_line();
                let body = String::from_utf8_lossy(&body).into_owned();
                let mut answer = Answer::new(*status)
                    .with("Content-Type", "text/plain")
                    .with("Server", request.clone())
                    .with("Warning", format!("299 - \"{request}\""));
                answer.body = format!("{request} {body}").into_bytes();
                self.send(wire, answer).await?;
                return Ok(Then::GoOn);
            }
            Some(Fault::Endless(status)) => {
                let head = format!("HTTP/1.1 {status} Endless\r\n\r\n");
                return self.pour(wire, &head, "x").await;
            }
            Some(Fault::EndlessHead) => {
                return self.pour(wire, "HTTP/1.1 200 Endless\r\n", "X-More: x\r\n").await;
            }
            Some(Fault::Await { route, calls }) => self.shared.wait_for(*route, *calls).await,
            Some(Fault::Unauthorized) => {
                let answer = auth::unauthorized(&manners.auth, &self.shared.base, &self.call);
                self.send(wire, answer).await?;
                return Ok(Then::GoOn);
            }
            Some(Fault::AcceptOnly(bytes)) => {
                let answer = self.accept_only(&mut body, *bytes);
                self.send(wire, answer).await?;
                return Ok(Then::GoOn);
            }
            _ => {}
        }
        let chunk = body.len();
        let mut answer = self.answer(fault, body);
        if matches!(fault, Some(Fault::LoseAnswer)) {
            return Ok(Then::Reset);
        }
        if let Some(Fault::Belie(status)) = fault {
            answer = Answer::new(*status);
        }
        self.bend(fault, &mut answer, chunk);
        self.send(wire, answer).await?;
        Ok(Then::GoOn)
    }

    /// Reads the body up to `limit`; `None` if not all of it came, and then the session may keep its part.
    async fn read(&self, wire: &mut Wire, limit: usize) -> Option<Vec<u8>> {
        let Body { bytes, whole } = wire.body(&self.call.head, limit).await;
        let mut state = self.shared.state.lock().unwrap();
        state.log[self.log_index].received = bytes.len() as u64;
        if whole && limit == usize::MAX {
            return Some(bytes);
        }
        if self.call.route == Route::Patch && self.shared.script.manners.keeps_partial {
            state.store.take_partial(&self.call, &bytes);
        }
        None
    }

    /// Answers until the client has enough.
    async fn pour(&self, wire: &mut Wire, beginning: &str, more: &str) -> io::Result<Then> {
        let poured = wire.pour(beginning, more).await;
        self.shared.state.lock().unwrap().log[self.log_index].poured = poured;
        Ok(Then::Reset)
    }

    /// Does the work, after what the fault does to the registry itself.
    fn answer(&self, fault: Option<&Fault>, body: Vec<u8>) -> Answer {
        let Shared { script, base, state, .. } = self.shared;
        let mut state = state.lock().unwrap();
        match fault {
            Some(Fault::ExpireTokens) => state.tokens.expire(),
            Some(Fault::LoseSession | Fault::DigestMismatch) => state.store.forget_session(&self.call.name),
            _ => {}
        }
        if self.call.route == Route::Token {
            return state.tokens.give(&script.manners.auth, &self.call.head);
        }
        if let Some(refusal) = state.tokens.refusal(&script.manners.auth, base, &self.call) {
            return refusal;
        }
        if matches!(fault, Some(Fault::DigestMismatch)) {
            let mut answer = Answer::new(400).with("Content-Type", "application/json");
            answer.body =
                br#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}"#
                    .into();
            return answer;
        }
        state.store.answer(&script.manners, base, &self.call, body)
    }

    /// Keeps the first bytes of a chunk and says so, as if it had been no larger.
    fn accept_only(&self, body: &mut Vec<u8>, bytes: usize) -> Answer {
        body.truncate(bytes);
        let mut call = self.call.clone();
        call.head.shorten_content_range(body.len());
        let Shared { script, base, state, .. } = self.shared;
        state.lock().unwrap().store.answer(&script.manners, base, &call, std::mem::take(body))
    }

    /// Spoils the headers of an honest answer.
    fn bend(&self, fault: Option<&Fault>, answer: &mut Answer, chunk: usize) {
        let went_well = answer.status < 300;
        let always = self.shared.script.manners.range.as_ref().filter(|_| self.call.route == Route::Patch);
        let lie = match fault {
            Some(Fault::Range(lie)) => Some(lie),
            _ => always,
        };
        if let Some(lie) = lie.filter(|_| went_well) {
            let size = self.shared.state.lock().unwrap().store.session_size(&self.call.name);
            answer.set("Range", lie.tell(size, chunk));
        }
        if let Some(Fault::Location(template)) = fault
            && let Some(right) = answer.header("Location")
        {
            let path = right.strip_prefix(&self.shared.base).unwrap_or(right).to_owned();
            answer.set("Location", template.as_ref().map(|template| self.filled_in(template, &path)));
        }
        if let Some(Fault::Header(name, value)) = fault {
            answer.set(name, Some((*value).to_owned()));
        }
    }

    fn filled_in(&self, template: &str, path: &str) -> String {
        let port = self.shared.base.rsplit(':').next().unwrap_or_default();
        template.replace("{path}", path).replace("{port}", port)
    }

    async fn send(&self, wire: &mut Wire, answer: Answer) -> io::Result<()> {
        tokio::time::sleep(self.shared.script.manners.latency).await;
        self.shared.state.lock().unwrap().log[self.log_index].answered = Some(answer.status);
        self.shared.moved.notify_waiters();
        wire.send(&answer, &self.call.head).await
    }
}

/// Says that no other request will be read on this connection: a client that had sent all of its body already
/// would otherwise go on with it.
fn closing(answer: Answer) -> Answer {
    answer.with("Connection", "close")
}

impl Shared {
    /// Returns when a route was called so often, or the test has let everybody go.
    pub(super) async fn wait_for(&self, route: Route, calls: usize) {
        let came = |state: &State| state.log.iter().filter(|exchange| exchange.route == route).count();
        self.wait_until(|state| state.released || came(state) >= calls).await;
    }

    /// Returns when so many calls of a route were answered, whether or not anybody was there to hear it.
    pub(super) async fn wait_for_answers(&self, route: Route, answers: usize) {
        let is_answer = |exchange: &&Exchange| exchange.route == route && exchange.answered.is_some();
        self.wait_until(|state| state.log.iter().filter(is_answer).count() >= answers).await;
    }

    async fn wait_until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let moved = self.moved.notified();
            if is_so(&self.state.lock().unwrap()) {
                return;
            }
            moved.await;
        }
    }

    /// Writes a request into the log; returns its place there, and which call of its route it is.
    fn begin(&self, call: &Call, connection: usize) -> (usize, usize) {
        let Head { method, target, .. } = &call.head;
        let header = |name: &str| call.head.header(name).map(str::to_owned);
        let scheme = |value: String| value.split(' ').next().map(str::to_owned);
        let mut exchange = Exchange {
            route: call.route,
            method: method.clone(),
            target: target.clone(),
            connection,
            authorization: header("Authorization").and_then(scheme),
            content_length: call.head.content_length(),
            content_range: header("Content-Range"),
            headers: call.head.headers.clone(),
            at: Instant::now(),
            in_flight: 1,
            chunked: call.head.is_chunked(),
            received: 0,
            late: 0,
            poured: 0,
            answered: None,
        };
        let mut state = self.state.lock().unwrap();
        let under_way = |other: &&Exchange| other.route == call.route && other.answered.is_none();
        exchange.in_flight += state.log.iter().filter(under_way).count();
        state.log.push(exchange);
        let nth = state.log.iter().filter(|exchange| exchange.route == call.route).count();
        self.moved.notify_waiters();
        (state.log.len() - 1, nth)
    }
}
