//! One request from its first header to its answer: may they, what do they ask for, who does it. The endpoints lie beside
//! this file.

mod blobs;
mod lists;
mod manifests;
mod referrers;
mod uploads;

use std::{net::SocketAddr, time::Instant};

use http::{Method, Request, StatusCode, header::EXPECT, request::Parts};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

pub(super) use self::manifests::MOST_LARGE;
use super::{
    Registry,
    protocol::{HEALTH, Refusal, Reply, Route, json, unless_known},
};

/// How much of a refused request's body is read and thrown away before the connection is cut.
const DRAIN_LIMIT: usize = 64 << 20;

impl Registry {
    /// Answers a request, whatever it is.
    pub(super) async fn answer(&self, peer: SocketAddr, request: Request<Incoming>) -> Reply {
        let (begun, (head, mut body)) = (Instant::now(), request.into_parts());
        let reply = match self.dispatch(&head, &mut body).await {
            Ok(reply) => unless_known(reply, &head.headers),
            Err(refusal) => {
                tracing::debug!(method = %head.method, path = head.uri.path(), ?refusal, "refused");
                refusal.reply()
            }
        };
        let route = Route::parse(head.uri.path()).map_or("none", |route| route.kind());
        let took = begun.elapsed();
        self.metrics.count(&head.method, route, reply.status(), took);
        let (status, milliseconds) = (reply.status().as_u16(), took.as_millis());
        tracing::info!(%peer, method = %head.method, path = head.uri.path(), status, milliseconds, "answered");
        // A connection that is closed with bytes unread is reset, and the reset overtakes the answer: a client
        // in the middle of its body would see a broken pipe and not why (RFC 9112, 9.6). One that waits to be
        // told to go on sends no body after a refusal (RFC 9110, 10.1.1).
        if !body.is_end_stream() && !head.headers.contains_key(EXPECT) {
            tokio::spawn(tokio::time::timeout(self.options.patience, drain(body)));
        }
        reply
    }

    async fn dispatch(&self, head: &Parts, body: &mut Incoming) -> Result<Reply, Refusal> {
        let (headers, path) = (&head.headers, head.uri.path());
        if let Some(gate) = &self.gate {
            gate.check(&head.uri, headers)?;
        }
        // Whoever watches over processes has no password.
        if path != HEALTH {
            self.options.access.check(&head.method, path, headers).await?;
        }
        let route = Route::parse(path)?;
        if let Some(reply) = self.relayed(&route, head).await? {
            return Ok(reply);
        }
        let methods = route.methods();
        // hyper sends the head alone of what answers HEAD.
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        match (route, method) {
            (Route::Health, &Method::GET) => self.health().await,
            (Route::Metrics, &Method::GET) => self.get_metrics().await,
            (Route::Root, &Method::GET) => Ok(json(StatusCode::OK, &serde_json::json!({}))),
            (Route::Blob(name, digest), &Method::GET) => self.get_blob(name, digest, head).await,
            (Route::Blob(name, digest), &Method::DELETE) => self.delete_blob(name, digest).await,
            (Route::Uploads(name), &Method::POST) => self.post_upload(name, head, body).await,
            (Route::Upload(name, id), &Method::PATCH) => self.patch_upload(name, id, head, body).await,
            (Route::Upload(name, id), &Method::PUT) => self.put_upload(name, id, head, body).await,
            (Route::Upload(name, id), &Method::GET) => self.get_upload(name, id).await,
            (Route::Upload(name, id), &Method::DELETE) => self.delete_upload(name, id).await,
            (Route::Manifest(name, target), &Method::GET) => self.get_manifest(name, target).await,
            (Route::Manifest(name, target), &Method::PUT) => {
                self.put_manifest(name, target, head, body).await
            }
            (Route::Manifest(name, target), &Method::DELETE) => self.delete_manifest(name, target).await,
            (Route::Catalog, &Method::GET) => self.get_catalog(head).await,
            (Route::Tags(name), &Method::GET) => self.get_tags(name, head).await,
            (Route::Referrers(name, digest), &Method::GET) => self.get_referrers(name, digest, head).await,
            _ => Err(Refusal::wrong_method(methods, "this cannot be done with this path")),
        }
    }

    /// `GET /healthz`: is the folder or bucket there?
    async fn health(&self) -> Result<Reply, Refusal> {
        let uploads = self.storage.count_uploads().await?;
        Ok(json(StatusCode::OK, &serde_json::json!({"status": "ok", "uploads": uploads})))
    }
}

/// Reads what a client still sends.
async fn drain(mut body: Incoming) {
    let mut drained = 0;
    while let Some(Ok(frame)) = body.frame().await {
        drained += frame.data_ref().map_or(0, bytes::Bytes::len);
        if drained > DRAIN_LIMIT {
            break;
        }
    }
}
