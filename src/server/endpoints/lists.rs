//! What a registry lists, sorted and in pages: its repositories, and the tags of one.

use http::{StatusCode, header::LINK, request::Parts};

use crate::server::{
    Registry,
    protocol::{Name, Refusal, Reply, json, parameter, set},
};

impl Registry {
    /// `GET /v2/_catalog`, all of it or `n` repositories after `last`.
    pub(super) async fn get_catalog(&self, head: &Parts) -> Result<Reply, Refusal> {
        let page = Page::parse(head)?;
        // What has been pushed through a gateway is the least of what there is.
        let names = if self.gateway.is_some() { None } else { self.storage.repositories().await? };
        let names = names.ok_or_else(|| {
            Refusal::not_found("UNSUPPORTED", "this registry lists no repositories: ask for them by name")
        })?;
        let (names, next) = page.of(&names);
        let reply = json(StatusCode::OK, &serde_json::json!({ "repositories": names }));
        Ok(with_next(reply, "/v2/_catalog", next))
    }

    /// `GET /v2/<name>/tags/list`, all of it or `n` tags after `last`.
    pub(super) async fn get_tags(&self, name: Name, head: &Parts) -> Result<Reply, Refusal> {
        let page = Page::parse(head)?;
        let tags = self.storage.tags(name.clone()).await?.ok_or_else(Refusal::no_repository)?;
        let (tags, next) = page.of(&tags);
        let reply = json(StatusCode::OK, &serde_json::json!({ "name": name.to_string(), "tags": tags }));
        Ok(with_next(reply, &format!("/v2/{name}/tags/list"), next))
    }
}

/// What part of a list is asked for.
struct Page {
    most: usize,
    last: String,
}

impl Page {
    fn parse(head: &Parts) -> Result<Self, Refusal> {
        let most = match parameter(head, "n").map(|n| n.parse::<usize>()) {
            None => usize::MAX,
            Some(Ok(most)) => most,
            Some(Err(_)) => return Err(Refusal::bad_request("UNSUPPORTED", "`n` is a number")),
        };
        Ok(Self { most, last: parameter(head, "last").unwrap_or_default() })
    }

    /// Returns this part of sorted names, and the query of the next one.
    fn of<'a>(&self, names: &'a [String]) -> (Vec<&'a str>, Option<String>) {
        let names = names.iter().map(String::as_str);
        let mut names: Vec<&str> = names.filter(|name| **name > *self.last).collect();
        let more = names.len() > self.most;
        names.truncate(self.most);
        let next = names.last().filter(|_| more).map(|last| format!("n={}&last={last}", self.most));
        (names, next)
    }
}

/// Links to the next part, if there is one.
fn with_next(mut reply: Reply, path: &str, next: Option<String>) -> Reply {
    if let Some(query) = next {
        set(reply.headers_mut(), LINK, &format!("<{path}?{query}>; rel=\"next\""));
    }
    reply
}
