//! Connections: so many at once, each of them taken as it is meant, and its requests answered until it ends or the server
//! is told to stop.

mod patience;
mod tls;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use self::patience::Patient;
pub use self::tls::Tls;
use super::{Registry, protocol::Reply, tasks::broken_down};

/// A client that cannot get its headers out in this time is cut.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most of a request that is read ahead, and so the largest piece that a body comes in.
const READ_BUFFER: usize = 32 << 10;
/// Others wait until one of these ends.
const MOST_CONNECTIONS: usize = 1024;

/// Takes connections until told to stop, then waits for those that are open.
pub(super) async fn accept(
    listener: TcpListener,
    registry: Arc<Registry>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = told(&mut stopped) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(begin(stream, peer, Arc::clone(&registry), stopped.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: asking again at once would spin.
                    tracing::warn!("a connection could not be taken: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Takes one connection as it is meant.
async fn begin(stream: TcpStream, peer: SocketAddr, registry: Arc<Registry>, stopped: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("the connection is gone already: {error}");
        return;
    }
    let stream = Patient::new(stream, registry.options.patience, Arc::clone(&registry.metrics.traffic));
    let Some(tls) = &registry.options.tls else { return converse(stream, peer, registry, stopped).await };
    if let Some(stream) = tls.accept(stream, HEADER_TIMEOUT).await {
        converse(stream, peer, registry, stopped).await;
    }
}

/// Answers the requests of one connection.
async fn converse<S>(stream: S, peer: SocketAddr, registry: Arc<Registry>, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = service_fn(|request: http::Request<Incoming>| {
        let registry = Arc::clone(&registry);
        // As a task of its own: one whose connection is gone still saves what has come, or ends what it began.
        let answering = tokio::spawn(async move { registry.answer(peer, request).await });
        async move { Ok::<Reply, Infallible>(answering.await.unwrap_or_else(|error| broken_down(error).reply())) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(READ_BUFFER)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection broke: {}", crate::error::chain(&error));
    }
}

/// Waits until the server is told to stop, or is gone.
async fn told(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stopped| *stopped).await);
}
