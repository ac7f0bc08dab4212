//! The login that a proxy's address may hold, and what comes of showing it.
//!
//! Many a proxy locks an account after a few wrong passwords. So one request shows the login before all others, and
//! once it was refused no other of this process does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Mutex as Turn;
use url::Url;

use super::{
    proxies::{PROXY_LOGIN, Proxies},
    session::Fault,
};
use crate::error::{Error, ErrorKind};

/// What has come of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shown {
    #[default]
    NotYet,
    LetIn,
    Refused,
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
    let shown =
        Arc::clone(SHOWN.lock().unwrap_or_else(PoisonError::into_inner).entry(proxy.clone()).or_default());
    let mut first = Some(shown.lock().await).filter(|shown| **shown != Shown::LetIn);
    if first.as_deref() == Some(&Shown::Refused) {
        return Err(Fault::Fatal(wants_login(&place())));
    }
    let outcome = request.await;
    let refused = is_refused(&outcome);
    if refused && first.is_none() {
        first = Some(shown.lock().await);
    }
    if let Some(mut first) = first {
        *first = if refused { Shown::Refused } else { Shown::LetIn };
    }
    outcome
}

/// Says that the proxy on the way to a place has refused us.
pub(super) fn wants_login(place: &str) -> Error {
    let words = format!("{place}: the proxy wants a login, or another one");
    Error::new(ErrorKind::Refused, words).with_hint(PROXY_LOGIN)
}
