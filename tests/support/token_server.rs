//! A token server as registries have them: whoever shows a user and password gets a signed token (JWT, ES256) that
//! distribution checks by itself.
//!
//! A token is good for what was asked, as far as it is in one namespace; for the rest it is good for nothing, and
//! that is no refusal: the registry's comes later.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SigningKey as _};
use serde_json::{Value, json};

/// A running token server; its thread ends with the process.
pub(crate) struct TokenServer {
    port: u16,
    certificate: String,
    asked: Arc<Mutex<Vec<Vec<String>>>>,
}

/// What its thread needs.
struct Issuer {
    key: KeyPair,
    /// Base64 of DER, as a token's header has it.
    certificate: String,
    /// `Basic …`
    login: String,
    namespace: &'static str,
    asked: Arc<Mutex<Vec<Vec<String>>>>,
}

const SERVICE: &str = "the registry of a test";
const ISSUER: &str = "the token server of a test";

impl TokenServer {
    /// Starts one for one user, whose repositories are those below `namespace`.
    pub(crate) fn start(user: &str, password: &str, namespace: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        let asked = Arc::default();
        let issuer = Issuer {
            key,
            certificate: BASE64_STANDARD.encode(certificate.der()),
            login: format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))),
            namespace,
            asked: Arc::clone(&asked),
        };
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                // Who goes away before the answer has his reasons.
                issuer.serve(connection).ok();
            }
        });
        Self { port, certificate: certificate.pem(), asked }
    }

    /// Returns the settings of a docker-registry that believes this server; its certificate is kept at `bundle`.
    pub(crate) fn settings(&self, bundle: &std::path::Path) -> String {
        fs_err::write(bundle, &self.certificate).unwrap();
        format!(
            "auth: {{token: {{realm: 'http://127.0.0.1:{}/token', service: '{SERVICE}', issuer: '{ISSUER}', \
             rootcertbundle: '{}'}}}}\n",
            self.port,
            bundle.display()
        )
    }

    /// Returns the scopes of each request.
    pub(crate) fn asked(&self) -> Vec<Vec<String>> {
        self.asked.lock().unwrap().clone()
    }
}

impl Issuer {
    fn serve(&self, mut connection: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(connection.try_clone()?).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        let mut login = None;
        for line in lines {
            let line = line?;
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                    login = Some(value.to_owned());
                }
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        let (status, body) = if login.as_ref() == Some(&self.login) {
            ("200 OK", json!({ "token": self.token(&request), "expires_in": 300 }))
        } else {
            ("401 Unauthorized", json!({ "details": "incorrect username or password" }))
        };
        let body = body.to_string();
        let length = body.len();
        write!(connection, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    }

    fn token(&self, request: &str) -> String {
        let query = request.split(' ').nth(1).and_then(|target| target.split_once('?')).unwrap_or_default().1;
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        let scopes: Vec<_> =
            pairs.filter(|(key, _)| key == "scope").map(|(_, value)| value.into_owned()).collect();
        let access: Vec<Value> = scopes.iter().filter_map(|scope| self.right(scope)).collect();
        self.asked.lock().unwrap().push(scopes);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": ISSUER, "sub": "me", "aud": SERVICE, "jti": "1", "access": access,
            "iat": now, "nbf": now - 10, "exp": now + 300,
        });
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = raw(&self.key.sign(signed.as_bytes()).unwrap());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    fn right(&self, scope: &str) -> Option<Value> {
        let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
        let actions: Vec<_> = actions.split(',').collect();
        name.starts_with(self.namespace)
            .then(|| json!({ "type": "repository", "name": name, "actions": actions }))
    }
}

/// Brings a signature from DER (two integers) to what a JWT has: two times 32 bytes.
fn raw(der: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let (integer, more) = rest[2..].split_at(usize::from(rest[1]));
        let digits = &integer[integer.iter().take_while(|byte| **byte == 0).count()..];
        raw.extend(vec![0; 32 - digits.len()]);
        raw.extend(digits);
        rest = more;
    }
    raw
}
