//! What clients ask and are answered over HTTP, and no I/O but a request's body: `routes` takes a path apart into checked
//! `names`, `body` is what comes behind the head, and `reply` what goes back.

mod body;
mod names;
mod reply;
mod routes;

pub(super) use self::{
    body::Body,
    names::{Name, Needed, Target, digest},
    reply::{
        DOCKER_CONTENT_DIGEST, Refusal, Reply, UPLOAD_ID, created, empty, etag, full, json, set, unless_known,
    },
    routes::{HEALTH, METRICS, Route, content_length, parameter, parameters},
};
