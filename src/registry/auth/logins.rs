//! What we can show to a registry: its credentials, and what helpers have said that were asked for them.
//!
//! Helpers are asked once, and once more when what they gave is refused.

use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::{
    error::{Result, chain},
    registry::credentials::{Answers, Credentials, Login},
};

/// The logins for the repositories of one registry.
#[derive(Debug)]
pub(super) struct Logins {
    /// As the user wrote it.
    pub(super) host: String,
    credentials: Credentials,
    /// What credential helpers have said.
    answers: Mutex<Answers>,
    /// One helper is asked at a time, and each question once.
    asking: AsyncMutex<()>,
}

impl Logins {
    /// Fails if a file of logins is broken that would count: that is told before anything is sent, though nobody may ask
    /// for a login.
    pub(super) fn new(host: &str, credentials: Credentials) -> Result<Self> {
        credentials.find(host, "", &Answers::new())?;
        let (answers, asking) = (Mutex::default(), AsyncMutex::default());
        Ok(Self { host: host.to_owned(), credentials, answers, asking })
    }

    /// Finds what is to be shown for a repository; asks helpers for it.
    pub(super) async fn find(&self, repository: &str) -> Result<Login> {
        let mut failure = None;
        loop {
            let login = self.known(repository)?;
            let Some(question) = login.next else {
                if let (Some(error), Some(_)) = (failure, &login.credential) {
                    tracing::warn!("{}; going on with {}", chain(&error), login.source);
                }
                return Ok(login);
            };
            let _asking = self.asking.lock().await;
            if !self.answers.lock().contains_key(&question) {
                let answer = question.get(self.credentials.helper_timeout).await;
                failure = failure.or(answer.as_ref().err().cloned());
                self.answers.lock().insert(question, answer);
            }
        }
    }

    /// Asks a helper whose credential was refused once more: those that make tokens may have a new one. Returns
    /// whether it has.
    pub(super) async fn renew(&self, login: &Login) -> bool {
        let Some(question) = &login.helper else { return false };
        let _asking = self.asking.lock().await;
        let Ok(answer) = question.get(self.credentials.helper_timeout).await else { return false };
        let is_new = answer.is_some() && answer != login.credential;
        if is_new {
            self.answers.lock().insert(question.clone(), Ok(answer));
        }
        is_new
    }

    /// Finds what is to be shown for a repository, as far as it is known without asking anybody.
    pub(super) fn known(&self, repository: &str) -> Result<Login> {
        self.credentials.find(&self.host, repository, &self.answers.lock())
    }
}
