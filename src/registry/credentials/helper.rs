//! Credential helpers: programs called `docker-credential-NAME` that keep secrets in a keychain or make them up.
//!
//! A verb is their argument, a registry stands on their standard input, and the answer is JSON on their standard
//! output, where they say what is wrong as well. They are given some time, and their words an end. What they say
//! while all goes well is nobody's business.

use std::{io, process::Stdio, time::Duration};

use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use super::{
    auth_file::Key,
    credential::{Credential, Secret},
};
use crate::{
    error::{Error, Result},
    registry::one_line::one_line,
};

/// A keychain answers at once; a prompt for its password is gone after that.
pub(in crate::registry) const PATIENCE: Duration = Duration::from_secs(10);

/// Tokens with long lists of rights are a few KiB.
const LIMIT: u64 = 64 << 10;

/// What helpers say that have nothing (docker/docker-credential-helpers:credentials/error.go).
const NOT_FOUND: &str = "credentials not found in native keychain";

/// A question to a helper.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::registry) struct Question {
    /// The program.
    pub(in crate::registry) helper: String,
    /// As the helper knows the registry.
    server: String,
    /// What names the helper, for messages.
    named_by: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    username: String,
    secret: String,
}

impl Question {
    /// `name` is what configuration files say after `docker-credential-`.
    pub(in crate::registry) fn new(name: &str, host: &str, named_by: &str) -> Self {
        Self {
            helper: format!("docker-credential-{name}"),
            server: Key::of(host).written().to_owned(),
            named_by: named_by.to_owned(),
        }
    }

    /// Gets the credential that the helper has for the registry, if it has one.
    pub(in crate::registry) async fn get(&self, patience: Duration) -> Result<Option<Credential>> {
        let mut answer = self.ask("get", self.server.as_bytes(), patience).await?;
        let key = Key::of(&self.server).to_string();
        if answer.is_none() && key != self.server {
            // docker's name of its Hub, which podman does not use.
            answer = self.ask("get", key.as_bytes(), patience).await?;
        }
        let Some(answer) = answer else { return Ok(None) };
        // What cannot be read may be a secret: the parser's words stay here.
        let entry: Entry = serde_json::from_slice(&answer)
            .map_err(|_| self.failed("answered with something that is no credential"))?;
        Ok(Credential::of(&entry.username, &entry.secret))
    }

    /// Has the helper keep a credential for the registry.
    pub(in crate::registry) async fn store(
        &self,
        user: &str,
        password: &Secret,
        patience: Duration,
    ) -> Result<()> {
        let entry = json!({ "ServerURL": self.server, "Username": user, "Secret": password.reveal() });
        self.ask("store", entry.to_string().as_bytes(), patience).await.map(drop)
    }

    /// Has the helper forget the registry's credential; returns whether it had one.
    pub(in crate::registry) async fn erase(&self, patience: Duration) -> Result<bool> {
        Ok(self.ask("erase", self.server.as_bytes(), patience).await?.is_some())
    }

    /// Runs the helper; `None` if it knows nothing of the registry.
    async fn ask(&self, verb: &str, input: &[u8], patience: Duration) -> Result<Option<Vec<u8>>> {
        match tokio::time::timeout(patience, self.run(verb, input)).await {
            Ok(answer) => answer,
            // Dropped, and so killed.
            Err(_) => Err(self.failed(&format!("did not answer within {patience:?}"))),
        }
    }

    async fn run(&self, verb: &str, input: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut child = Command::new(&self.helper)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => self.failed("is not installed"),
                _ => self.failed("cannot be run").because(error),
            })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // One that does not want to know is free not to read.
                stdin.write_all(input).await.unwrap_or_default();
            }
        };
        let ((), said, complained) = tokio::join!(feed, read(stdout), read(stderr));
        let (Some(said), Some(complained)) = (said, complained) else {
            return Err(self.failed("does not stop talking"));
        };
        let status = child.wait().await.map_err(|error| self.failed("cannot be run").because(error))?;
        if status.success() {
            return Ok(Some(said));
        }
        let words = |text: &[u8]| one_line(&String::from_utf8_lossy(text));
        match words(&said).filter(|words| !words.starts_with('{')).or_else(|| words(&complained)) {
            Some(words) if words.starts_with(NOT_FOUND) => Ok(None),
            Some(words) => Err(self.failed(&format!("failed: {words}"))),
            None => Err(self.failed(&format!("failed: {status}"))),
        }
    }

    fn failed(&self, why: &str) -> Error {
        let Self { helper, named_by, .. } = self;
        Error::local(format!("the credential helper `{}` {why}", helper.escape_debug()))
            .with_hint(format!("it is named by {named_by}"))
    }
}

/// Reads to the end; `None` if there is none within the limit.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(LIMIT + 1).read_to_end(&mut bytes).await.ok()?;
    }
    (bytes.len() as u64 <= LIMIT).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::{ErrorKind, chain};

    /// Nothing in these tests takes so long.
    const LONG: Duration = Duration::from_secs(30);

    /// A question to a shell script.
    fn question(dir: &Path, script: &str) -> Question {
        let program = dir.join("helper");
        crate::program::install(&program, script);
        let question = Question::new("x", "r.example.com", "`a file`");
        Question { helper: program.display().to_string(), ..question }
    }

    #[tokio::test]
    async fn what_a_helper_has_is_a_credential() {
        let dir = tempfile::tempdir().unwrap();
        let says =
            |json: &str| format!("[ \"$1\" = get ] && [ \"$(cat)\" = r.example.com ] && echo '{json}'");
        for (json, expected) in [
            (
                r#"{"ServerURL":"r","Username":"bob","Secret":"x:y"}"#,
                Some(Credential::Login { user: "bob".into(), password: Secret::new("x:y") }),
            ),
            (r#"{"Username":"<token>","Secret":"t"}"#, Some(Credential::Identity(Secret::new("t")))),
            (r#"{"Username":"","Secret":""}"#, None),
        ] {
            assert_eq!(question(dir.path(), &says(json)).get(LONG).await.unwrap(), expected, "{json}");
        }
    }

    #[tokio::test]
    async fn the_hub_is_asked_for_by_both_its_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["https://index.docker.io/v1/", "docker.io"] {
            let script = format!(
                r#"[ "$(cat)" = {name} ] && echo '{{"Username":"bob","Secret":"x"}}' && exit
                echo 'credentials not found in native keychain'; exit 1"#
            );
            let hub = Question {
                server: Key::of("docker.io").written().to_owned(),
                ..question(dir.path(), &script)
            };
            assert!(hub.get(LONG).await.unwrap().is_some(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_helper_may_have_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for script in [
            "echo 'credentials not found in native keychain'; exit 1",
            "cat >/dev/null; echo 'credentials not found in native keychain' >&2; exit 1",
        ] {
            let question = question(dir.path(), script);
            assert_eq!(question.get(LONG).await.unwrap(), None);
            assert!(!question.erase(LONG).await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_helper_that_fails_is_named_and_its_secrets_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for (script, words) in [
            ("echo 'the keychain is locked'; exit 1", "failed: the keychain is locked"),
            ("printf 'no\\033[2J' >&2; exit 1", "failed: no\\u{1b}[2J"),
            ("exit 3", "failed: exit status: 3"),
            ("kill -9 $$", "failed: signal: 9"),
            ("echo xyzzy", "answered with something that is no credential"),
            (r#"echo '{"Secret":"xyzzy"}'"#, "answered with something that is no credential"),
            (r#"echo '{"Secret":"xyzzy"}'; exit 1"#, "failed: exit status: 1"),
            ("exec cat /dev/zero", "does not stop talking"),
            ("exec cat /dev/zero >&2", "does not stop talking"),
        ] {
            let error = question(dir.path(), script).get(LONG).await.unwrap_err();
            let said = chain(&error);
            assert_eq!(error.kind(), ErrorKind::Local);
            assert!(said.contains("helper`") && said.contains(words), "{script}: {said}");
            assert!(!said.contains("xyzzy"), "{said}");
            assert_eq!(error.hints(), ["it is named by `a file`"]);
        }
        let missing = Question::new("longshore-has-none", "h", "`a file`").get(LONG).await.unwrap_err();
        assert!(chain(&missing).contains("`docker-credential-longshore-has-none` is not installed"));
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("echo $$ >{}; exec sleep 1000", pid.display());
        let question = question(dir.path(), &script);
        // It is killed while it hangs, not before it has begun to.
        let mut patience = Duration::from_millis(50);
        let started = || fs_err::read_to_string(&pid).is_ok_and(|pid| !pid.is_empty());
        while !started() {
            let error = question.get(patience).await.unwrap_err();
            assert!(error.message().contains("did not answer within"), "{error}");
            patience *= 2;
        }
        let pid = fs_err::read_to_string(pid).unwrap();
        let alive = || {
            let stat = fs_err::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while alive() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_secret_goes_in_by_standard_input() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("cd '{}'; echo $# \"$@\" >arguments; cat >input", dir.path().display());
        question(dir.path(), &script).store("bob", &Secret::new("xyzzy"), LONG).await.unwrap();
        let read = |name: &str| fs_err::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("arguments"), "1 store\n");
        let input: serde_json::Value = serde_json::from_str(&read("input")).unwrap();
        assert_eq!(input, json!({ "ServerURL": "r.example.com", "Username": "bob", "Secret": "xyzzy" }));
        assert!(question(dir.path(), "cat >/dev/null").erase(LONG).await.unwrap());
        // docker's helpers know the Hub by this name.
        assert_eq!(Question::new("x", "docker.io", "").server, "https://index.docker.io/v1/");
    }
}
