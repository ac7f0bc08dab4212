//! Who may use the registry, and for what: whoever knows a name and a password, and those who do not log in as far as
//! they may.
//!
//! Passwords are not kept. What bcrypt has found right once is known by the digest of `name:password`: bcrypt is slow
//! on purpose, and clients show the same password with every request. How long two digests take to be compared says
//! nothing about a password. bcrypt runs for one guess at a time, so that guessers wait for each other and not everybody
//! for them. A file of users is read again when it has changed, as docker-registry does; one that cannot be read changes
//! nothing.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method, StatusCode, header};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    protocol::{METRICS, Refusal},
    tasks::blocking,
};
use crate::{
    error::{Context as _, Error, ErrorKind, Result, chain},
    oci::Digest,
};

/// Who may use the registry.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Where none can log in, nobody has to.
    users: Option<Arc<Users>>,
    /// Those who do not log in may pull, and no more.
    guests_pull: bool,
}

/// Those who can log in.
struct Users {
    /// What lists them.
    file: Option<PathBuf>,
    known: Mutex<Known>,
    guesses: Semaphore,
}

/// What is known of them.
#[derive(Default)]
struct Known {
    /// bcrypt's hashes of their passwords.
    hashes: HashMap<String, String>,
    /// The digests of `name:password` that were right.
    proven: HashSet<Digest>,
    /// How the file looked that says so.
    look: Option<Look>,
}

/// When a file was written, and its size.
type Look = (SystemTime, u64);

impl Access {
    /// Lets in whoever shows this name and password.
    pub fn basic(user: &str, password: &str) -> Self {
        let proven = HashSet::from([Digest::of(format!("{user}:{password}").as_bytes())]);
        Self::of(None, Known { proven, ..Known::default() })
    }

    /// Lets in the users of a file as `htpasswd -B` writes it.
    pub fn htpasswd(file: &Path) -> Result<Self> {
        Ok(Self::of(Some(file.to_owned()), Known::read(file, look(file))?))
    }

    /// Lets those who do not log in pull, and no more.
    pub fn or_read_only(self) -> Self {
        Self { guests_pull: true, ..self }
    }

    fn of(file: Option<PathBuf>, known: Known) -> Self {
        let users = Users { file, known: Mutex::new(known), guesses: Semaphore::new(1) };
        Self { users: Some(Arc::new(users)), guests_pull: false }
    }

    /// Refuses a request that does not show what is asked for.
    pub(super) async fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        if let Some(users) = &self.users
            && let Some(shown) = Shown::of(headers)
        {
            return if users.know(shown).await? { Ok(()) } else { Err(unauthorized()) };
        }
        // Clients look here whether they have to log in, and show no password later if they need none.
        let greets = matches!(path, "/v2" | "/v2/");
        let reads = matches!(*method, Method::GET | Method::HEAD);
        // How busy a registry is concerns who runs it.
        let pulls = reads && !greets && path != METRICS;
        match &self.users {
            Some(_) if self.guests_pull && pulls => Ok(()),
            Some(_) => Err(unauthorized()),
            None if reads || !self.guests_pull => Ok(()),
            None => Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", "this registry is read-only")),
        }
    }
}

impl Users {
    async fn know(self: &Arc<Self>, shown: Shown) -> Result<bool, Refusal> {
        if let Some(file) = self.file.clone() {
            let users = Arc::clone(self);
            blocking(move || {
                users.look_again(&file);
                Ok::<_, Refusal>(())
            })
            .await?;
        }
        let digest = Digest::of(format!("{}:{}", shown.user, shown.password).as_bytes());
        let hash = {
            let known = self.known.lock();
            if known.proven.contains(&digest) {
                return Ok(true);
            }
            known.hashes.get(&shown.user).cloned()
        };
        let Some(hash) = hash else { return Ok(false) };
        let _turn = self.guesses.acquire().await;
        let users = Arc::clone(self);
        blocking(move || {
            let right = bcrypt::verify(&shown.password, &hash).unwrap_or(false);
            let mut known = users.known.lock();
            // The password may have been changed meanwhile.
            if right && known.hashes.get(&shown.user) == Some(&hash) {
                known.proven.insert(digest);
            }
            Ok(right)
        })
        .await
    }

    /// Reads the file again, if it has changed.
    fn look_again(&self, file: &Path) {
        let look = look(file);
        let mut known = self.known.lock();
        if known.look == look {
            return;
        }
        known.look = look;
        match Known::read(file, look) {
            Ok(now) => *known = now,
            Err(error) => tracing::error!("who may log in stays as it was: {}", chain(&error)),
        }
    }
}

impl Known {
    /// Reads a file that looked so before.
    fn read(file: &Path, look: Option<Look>) -> Result<Self> {
        let reading = || format!("reading the users in `{}`", file.display());
        let text = fs_err::read_to_string(file).context(ErrorKind::Local, reading)?;
        let hashes = parse(&text).map_err(|error| error.while_doing(reading()))?;
        Ok(Self { hashes, proven: HashSet::new(), look })
    }
}

/// Returns how a file looks; a pipe, which can be read once, like nothing.
fn look(file: &Path) -> Option<Look> {
    let file = fs_err::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    Some((file.modified().ok()?, file.len()))
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Users")
    }
}

/// What an `Authorization` header shows.
struct Shown {
    user: String,
    password: String,
}

impl Shown {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let header = headers.get(header::AUTHORIZATION)?;
        let basic = || {
            let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
            let decoded =
                STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
            let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
            Some(Self { user: user.to_owned(), password: password.to_owned() })
        };
        // What cannot be read is nobody's password.
        let shown = basic().unwrap_or(Self { user: String::new(), password: "?".into() });
        // skopeo shows these where it has none.
        (!shown.user.is_empty() || !shown.password.is_empty()).then_some(shown)
    }
}

/// Reads `name:hash` lines.
fn parse(text: &str) -> Result<HashMap<String, String>> {
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let hashes = lines.map(|(number, line)| match line.split_once(':') {
        Some((user, hash)) if hash.parse::<bcrypt::HashParts>().is_ok() => {
            Ok((user.to_owned(), hash.to_owned()))
        }
        _ => Err(Error::local(format!("line {} holds no name and bcrypt hash", number + 1))
            .with_hint("`htpasswd -B` writes such lines")),
    });
    hashes.collect()
}

fn unauthorized() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
        .with(header::WWW_AUTHENTICATE, "Basic realm=\"longshore\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn status(access: &Access, method: Method, path: &str, authorization: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        }
        match access.check(&method, path, &headers).await {
            Ok(()) => 200,
            Err(refusal) => refusal.reply().status().as_u16(),
        }
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    fn users(lines: &str) -> Result<Access> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), lines).unwrap();
        Access::htpasswd(file.path())
    }

    fn hash(password: &str) -> String {
        bcrypt::hash(password, 4).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_name_and_password_open() {
        let file = users(&format!("# people\n\nme:{}\nyou:{}\n", hash("secret"), hash("other"))).unwrap();
        for access in [Access::basic("me", "secret"), file] {
            for right in [basic("me:secret"), basic("me:secret").replace("Basic", "basic")] {
                // The second time it is known.
                for _ in 0..2 {
                    assert_eq!(status(&access, Method::PUT, "/v2/a", Some(&right)).await, 200, "{right}");
                }
            }
            for wrong in [
                None,
                Some("Basic"),
                Some("Basic !"),
                Some("Bearer x"),
                Some(&*basic("me:secrets")),
                Some(&*basic("you:secret")),
                Some(&*basic("nobody:secret")),
                Some(&*basic("me")),
                Some(&*basic(":")),
            ] {
                assert_eq!(status(&access, Method::GET, "/v2/a", wrong).await, 401, "{wrong:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |lines: &str| fs_err::write(file.path(), lines).unwrap();
        write(&format!("me:{}\n", hash("secret")));
        let access = Access::htpasswd(file.path()).unwrap();
        let opens =
            async |login: &str| status(&access, Method::PUT, "/v2/a", Some(&basic(login))).await == 200;
        assert!(opens("me:secret").await && !opens("you:other").await);
        // No two of these are equally long: times may be coarse.
        write(&format!("me:{}\nyou:{}\n", hash("changed"), hash("other")));
        assert!(!opens("me:secret").await && opens("me:changed").await && opens("you:other").await);
        write("me");
        assert!(opens("me:changed").await, "what cannot be read changes nothing");
        write(&format!("you:{}\n# and nobody else\n", hash("other")));
        assert!(!opens("me:changed").await && opens("you:other").await);
        fs_err::remove_file(file.path()).unwrap();
        assert!(opens("you:other").await);
    }

    #[tokio::test]
    async fn who_does_not_log_in_may_pull() {
        let access = Access::basic("me", "secret").or_read_only();
        for (method, path, authorization, expected) in [
            (Method::GET, "/v2/a/manifests/1", None, 200),
            (Method::HEAD, "/v2/a/manifests/1", None, 200),
            (Method::HEAD, "/v2/a/manifests/1", Some(basic(":")), 200),
            (Method::HEAD, "/v2/a/manifests/1", Some(basic("me:wrong")), 401),
            (Method::POST, "/v2/a/blobs/uploads/", None, 401),
            (Method::DELETE, "/v2/a/manifests/1", None, 401),
            (Method::DELETE, "/v2/a/manifests/1", Some(basic("me:secret")), 200),
            // Or a client would never show its password.
            (Method::GET, "/v2/", None, 401),
            (Method::GET, "/metrics", None, 401),
            (Method::GET, "/metrics", Some(basic("me:secret")), 200),
        ] {
            let found = status(&access, method.clone(), path, authorization.as_deref()).await;
            assert_eq!(found, expected, "{method} {path} {authorization:?}");
        }
        let nobody = Access::default().or_read_only();
        assert_eq!(status(&nobody, Method::GET, "/v2/", None).await, 200);
        assert_eq!(status(&nobody, Method::GET, "/metrics", None).await, 200);
        assert_eq!(status(&nobody, Method::PUT, "/v2/a/manifests/1", None).await, 403);
    }

    #[test]
    fn what_is_no_bcrypt_hash_is_named_by_its_line() {
        let error = users("me:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n").unwrap_err();
        assert!(error.message().starts_with("reading the users"), "{error}");
        assert!(chain(&error).contains("line 1"), "{error:?}");
        assert!(users("# nobody\nme\n").is_err());
    }

    #[test]
    fn passwords_are_not_shown() {
        assert!(!format!("{:?}", Access::basic("me", "secret")).contains("secret"));
    }
}
