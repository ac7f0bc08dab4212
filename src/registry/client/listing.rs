//! The verbs that list: the repositories of a registry and the tags of a repository, page by page.
//!
//! Of the link to the next page only the query is taken: it leads nowhere but on.

use std::collections::{HashMap, HashSet};

use http::{HeaderMap, Method, header};
use serde_json::value::RawValue;
use url::Url;

use super::{Call, Client};
use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    oci::{Repository, reference::check_tag},
    registry::RegistryError,
};

/// So many names are asked for at a time.
const PAGE: usize = 1000;
/// Some registries send everything at once.
const PAGE_LIMIT: usize = 16 << 20;
/// The largest registries have some hundred thousand; more is an attack.
const NAME_LIMIT: usize = 1_000_000;
/// Some registries filter a page after it was cut; so many in a row that hold nothing lead nowhere.
const EMPTY_PAGES: usize = 100;

impl Client {
    /// Returns all repositories, if the registry lists them.
    pub async fn repositories(&self) -> Result<Option<Vec<String>>> {
        let doing = || format!("listing the repositories of `{}`", self.host());
        let names = self.list("", self.url("_catalog"), "repositories").await;
        let names = names.map_err(|error| error.while_doing(doing()))?;
        Ok(names.map(|names| sane(names, |name| Repository::new("", name).is_ok())))
    }

    /// Returns the tags of a repository, if there is one.
    pub async fn tags(&self, repository: &str) -> Result<Option<Vec<String>>> {
        let doing = || format!("listing the tags of `{}/{repository}`", self.host());
        let names = self.list(repository, self.url(&format!("{repository}/tags/list")), "tags").await;
        let names = names.map_err(|error| error.while_doing(doing()))?;
        Ok(names.map(|names| sane(names, |name| check_tag(name).is_ok())))
    }

    async fn list(&self, repository: &str, mut url: Url, key: &str) -> Result<Option<Vec<String>>> {
        let refused = |words: &str| Error::new(ErrorKind::Refused, words);
        url.set_query(Some(&format!("n={PAGE}")));
        let mut names = Vec::new();
        let (mut asked, mut empty) = (HashSet::new(), 0);
        for page_number in 0..NAME_LIMIT {
            let mut call = Call::new(Method::GET, repository, url.clone());
            call.request.limit = PAGE_LIMIT;
            let answer = match self.find(call, || "asking for a page".to_owned()).await {
                // distribution gives fewer where it is told to, and no smaller page in the place of a larger one.
                Err(error) if page_number == 0 && is_bad_request(&error) => {
                    url.set_query(None);
                    continue;
                }
                answer => answer?,
            };
            let Some(answer) = answer else { return Ok(None) };
            if !answer.whole {
                return Err(refused(&format!("a page is larger than {PAGE_LIMIT} bytes, or was cut off")));
            }
            let page = page(&answer.body, key)?;
            empty = if page.is_empty() { empty + 1 } else { 0 };
            names.extend(page);
            if names.len() > NAME_LIMIT {
                return Err(refused(&format!("the list is over the limit of {NAME_LIMIT} names")));
            }
            let Some(query) = next(&answer.headers, &answer.url) else { return Ok(Some(names)) };
            if empty == EMPTY_PAGES || !asked.insert(query.clone()) {
                break;
            }
            url.set_query(Some(&query));
        }
        Err(refused("the list has no end"))
    }
}

fn is_bad_request(error: &Error) -> bool {
    error.find::<RegistryError>().is_some_and(|refusal| refusal.status == 400)
}

/// Reads the list under a key, which may be null where it is empty; whatever else a registry tells is passed over.
fn page(body: &[u8], key: &str) -> Result<Vec<String>> {
    let reading = || format!("the registry sent no list of {key}");
    let fields: HashMap<String, &RawValue> =
        serde_json::from_slice(body).context(ErrorKind::Refused, reading)?;
    let list = fields.get(key).ok_or_else(|| Error::new(ErrorKind::Refused, reading()))?;
    let names: Option<Vec<String>> = serde_json::from_str(list.get()).context(ErrorKind::Refused, reading)?;
    Ok(names.unwrap_or_default())
}

/// Leaves out what cannot be asked for, and what was told before.
fn sane(mut names: Vec<String>, is_sane: impl Fn(&str) -> bool) -> Vec<String> {
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names.retain(|name| {
        let sane = is_sane(name);
        if !sane {
            tracing::warn!("the registry lists what is no name: `{}`", name.escape_debug());
        }
        sane
    });
    names
}

/// Returns the query of the next page (RFC 8288), which begins after the one at `url`.
fn next(headers: &HeaderMap, url: &Url) -> Option<String> {
    let links = headers.get_all(header::LINK).into_iter().filter_map(|value| value.to_str().ok());
    links.flat_map(|links| links.split('<').skip(1)).find_map(|link| {
        let (target, parameters) = link.split_once('>')?;
        let parameters = parameters.split(',').next().unwrap_or_default().to_ascii_lowercase();
        let is_next = parameters.contains("rel=\"next\"") || parameters.contains("rel=next");
        url.join(target).ok().filter(|_| is_next)?.query().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_next_page_is_a_query_and_nothing_else() {
        let url = Url::parse("https://r.example/v2/_catalog?n=2").unwrap();
        for (link, expected) in [
            (r#"</v2/_catalog?last=b&n=2>; rel="next""#, Some("last=b&n=2")),
            (r#"<https://elsewhere.example/steal?last=b>; rel="next""#, Some("last=b")),
            (r#"</a?x=1>; rel="prev", </v2/_catalog?last=c,d>; rel=next"#, Some("last=c,d")),
            (r#"<?last=b>;rel="next""#, Some("last=b")),
            (r#"</v2/_catalog>; rel="next""#, None),
            (r#"</v2/_catalog?last=b>; rel="prev""#, None),
            ("nonsense", None),
        ] {
            let headers = HeaderMap::from_iter([(header::LINK, HeaderValue::from_static(link))]);
            assert_eq!(next(&headers, &url).as_deref(), expected, "{link}");
        }
        assert_eq!(next(&HeaderMap::new(), &url), None);
    }

    #[test]
    fn a_page_may_hold_more_and_be_empty() {
        let names = |text: &str| page(text.as_bytes(), "tags");
        assert_eq!(names(r#"{"name":"a","tags":["1","2"],"child":[],"x":{"y":1}}"#).unwrap(), ["1", "2"]);
        assert!(names(r#"{"name":"a","tags":null}"#).unwrap().is_empty());
        for wrong in ["[]", "{}", r#"{"tags":[1]}"#, r#"{"tags":["1"]"#, "<html>"] {
            assert_eq!(names(wrong).unwrap_err().kind(), ErrorKind::Refused, "{wrong}");
        }
        assert_eq!(sane(vec!["1".into(), "../x".into(), "1".into()], |tag| check_tag(tag).is_ok()), ["1"]);
    }
}
