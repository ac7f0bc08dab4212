//! The login that a proxy's address may hold, and what comes of showing it.
//!
//! Many a proxy locks an account after a few wrong passwords. So one request shows the login before all others, and
//! once it was refused no other of this process does for a while: a gateway lives long, and proxies are mended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::{sync::Mutex as Turn, time::Instant};
use url::Url;

use crate::{
    error::{Error, ErrorKind},
    registry::{
        proxies::{PROXY_LOGIN, Proxies},
        session::Fault,
    },
};

/// Four attempts an hour lock no account.
const REFUSAL_LASTS: Duration = Duration::from_secs(15 * 60);

/// What has come of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shown {
    #[default]
    NotYet,
    LetIn,
    Refused(Instant),
}

/// By the addresses of proxies.
static SHOWN: Mutex<BTreeMap<Url, Arc<Turn<Shown>>>> = Mutex::new(BTreeMap::new());

/// Makes a request for `url`, which `is_refused` by the proxy or is not, unless that would be in vain.
pub(super) async fn introduce<T>(
    proxies: &Proxies,
    url: &Url,
    request: impl Future<Output = Result<T, Fault>>,
    is_refused: impl FnOnce(&Result<T, Fault>) -> bool,
    place: impl FnOnce() -> String,
) -> Result<T, Fault> {
    let has_login = |proxy: &&Url| !proxy.username().is_empty() || proxy.password().is_some();
    let Some(proxy) = proxies.of(url).filter(has_login) else { return request.await };
    let shown = Arc::clone(SHOWN.lock().entry(proxy.clone()).or_default());
    let mut first = Some(shown.lock().await).filter(|shown| **shown != Shown::LetIn);
    if let Some(Shown::Refused(at)) = first.as_deref()
        && at.elapsed() < REFUSAL_LASTS
    {
        return Err(Fault::Fatal(wants_login(&place())));
    }
    let outcome = request.await;
    let refused = is_refused(&outcome);
    if refused && first.is_none() {
        first = Some(shown.lock().await);
    }
    if let Some(mut first) = first {
        *first = if refused { Shown::Refused(Instant::now()) } else { Shown::LetIn };
    }
    outcome
}

/// Returns whether it is a proxy that has refused a request for `url`.
pub(super) fn is_refusal(url: &Url, outcome: Result<StatusCode, &Fault>) -> bool {
    match outcome {
        // Through a tunnel it is the registry that answers.
        Ok(status) => url.scheme() == "http" && status == StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        Err(Fault::Fatal(error)) => error.hints().contains(&PROXY_LOGIN),
        Err(_) => false,
    }
}

/// Says that the proxy on the way to a place has refused us.
pub(super) fn wants_login(place: &str) -> Error {
    let words = format!("{place}: the proxy wants a login, or another one");
    Error::new(ErrorKind::Refused, words).with_hint(PROXY_LOGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refused_login_is_shown_again_after_a_while() {
        let proxy = Some("http://me:wrong@proxy.example:1".parse().unwrap());
        let proxies = Proxies { http: proxy.clone(), https: proxy, ..Proxies::default() };
        let url = "https://registry.example/v2/".parse().unwrap();
        let ask = async |answer: u16| {
            let request = async move { Ok(answer) };
            let refused = |answer: &Result<u16, Fault>| matches!(answer, Ok(407));
            introduce(&proxies, &url, request, refused, String::new).await.ok()
        };
        assert_eq!(ask(407).await, Some(407));
        assert_eq!(ask(200).await, None, "it is not asked");
        tokio::time::advance(REFUSAL_LASTS).await;
        assert_eq!((ask(200).await, ask(407).await), (Some(200), Some(407)));
        assert_eq!(ask(200).await, None);
    }
}
