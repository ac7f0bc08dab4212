//! Whom to trust, and who we are: certificates in the places where podman, docker and OpenSSL have them.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};

use super::{PASSWORD, User, private_registry};
use crate::support::{docker_registry::DockerRegistry, registry::Registry};

/// A certificate and its key, as PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// What `openssl req -x509` makes: a server's certificate that is its own authority.
fn own_authority(names: &[&str]) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut parameters = parameters(names);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Pair { certificate: parameters.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

/// An authority, and what it vouches for: a server here, and a client.
struct Authority {
    certificate: String,
    server: Pair,
    client: Pair,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut authority = parameters(&[]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(authority, key);
        let vouched = |names: &[&str]| {
            let key = KeyPair::generate().unwrap();
            let certificate = parameters(names).signed_by(&key, &issuer).unwrap().pem();
            Pair { certificate, key: key.serialize_pem() }
        };
        Self { certificate, server: vouched(&["localhost", "127.0.0.1"]), client: vouched(&["me"]) }
    }
}

fn parameters(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap()
}

/// Starts docker-registry with TLS; those whom `clients` vouches for are let in only, if it is given.
fn registry(dir: &Path, server: &Pair, clients: Option<&str>) -> DockerRegistry {
    let write = |name: &str, content: &str| {
        fs_err::write(dir.join(name), content).unwrap();
        dir.join(name).display().to_string()
    };
    let (certificate, key) = (write("server.pem", &server.certificate), write("server.key", &server.key));
    let clients = clients.map(|authority| format!(", clientcas: ['{}']", write("clients.pem", authority)));
    let clients = clients.unwrap_or_default();
    private_registry(dir, &format!(", tls: {{certificate: '{certificate}', key: '{key}'{clients}}}"))
}

fn login(user: &User) -> [String; 2] {
    let auths = "run/containers/auth.json";
    ["--authfile".to_owned(), user.path(auths).display().to_string()]
}

#[test]
fn a_certificate_that_is_its_own_authority_is_trusted_wherever_it_is_given() {
    let server = own_authority(&["localhost", "127.0.0.1"]);
    let place = User::new();
    let registry = registry(place.home(), &server, None);
    let host = registry.host();
    let pushes = |user: &User, options: &[&str]| {
        user.log_in(host, PASSWORD, options).said(0, &["logged in"]);
        user.push(&format!("{host}/demo:1"), options).pushed();
    };

    let user = User::new();
    let file = user.write("ca.pem", &server.certificate).display().to_string();
    pushes(&user, &["--ca-file", &file]);
    pushes(&User::new().with("LONGSHORE_CA_FILE", &file), &[]);
    // As `update-ca-certificates` would have it.
    pushes(&User::new().with("SSL_CERT_FILE", &file), &[]);
    let dir = user.write("certificates/any.crt", &server.certificate);
    pushes(&user, &["--cert-dir", dir.parent().unwrap().to_str().unwrap()]);
    for place in [".config/containers/certs.d", ".config/docker/certs.d"] {
        let user = User::new();
        user.write(&format!("{place}/{host}/ca.crt"), &server.certificate);
        pushes(&user, &[]);
    }
    pushes(&User::new(), &["--insecure"]);
    pushes(&User::new(), &["--tls-verify=false"]);

    let hint = "`--ca-file` adds a certificate authority";
    let other = user.write("other.pem", own_authority(&["localhost", "127.0.0.1"]).certificate);
    for options in [vec![], vec!["--ca-file", other.to_str().unwrap()]] {
        let stranger = User::new();
        stranger
            .push(&format!("{host}/demo:1"), &options)
            .said(6, &[hint, "its own authority, and not one that"]);
    }
    // Nor is a folder of another port asked.
    let stranger = User::new();
    stranger.write(".config/containers/certs.d/127.0.0.1/ca.crt", &server.certificate);
    stranger.push(&format!("{host}/demo:1"), &[]).ended(6);
}

#[test]
fn the_name_of_a_trusted_certificate_counts() {
    let server = own_authority(&["registry.example.com"]);
    let user = User::new();
    let registry = registry(user.home(), &server, None);
    let file = user.write("ca.pem", &server.certificate).display().to_string();
    let run = user.push(&format!("{}/demo:1", registry.host()), &["--ca-file", &file]);
    run.said(6, &["not valid for name", "registry.example.com"]);
}

#[test]
fn a_registry_that_wants_to_know_who_we_are_is_shown_it() {
    let authority = Authority::new();
    let user = User::new();
    let registry = registry(user.home(), &authority.server, Some(&authority.certificate));
    let host = registry.host();
    let image = format!("{host}/demo:1");
    let file = user.write("ca.pem", &authority.certificate).display().to_string();
    user.push(&image, &["--ca-file", &file]).said(4, &["wants to know who we are", "`NAME.cert`"]);

    let certs = format!(".config/containers/certs.d/{host}");
    user.write(&format!("{certs}/ca.crt"), &authority.certificate);
    user.write(&format!("{certs}/me.cert"), &authority.client.certificate);
    user.push(&image, &[]).said(8, &["me.cert` has no key"]);
    user.write(&format!("{certs}/me.key"), &authority.server.key);
    let run = user.push(&image, &[]);
    run.said(8, &["me.cert` cannot be used with its key"]);
    user.write(&format!("{certs}/me.key"), &authority.client.key);
    user.log_in(host, PASSWORD, &[]).ended(0);
    user.push(&image, &[]).pushed();
    let chosen = user.path(&certs).display().to_string();
    let kept = login(&user);
    User::new().push(&image, &["--cert-dir", &chosen, &kept[0], &kept[1]]).pushed();
}

/// A server that asks who we are, says whom it was shown, and answers everything by one text.
fn curious(authority: &Authority, answer: String) -> (u16, Arc<Mutex<Vec<bool>>>) {
    let mut roots = RootCertStore::empty();
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    roots.add(certificate(&authority.certificate)).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = PrivateKeyDer::from_pem_slice(authority.server.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
        .with_single_cert(vec![certificate(&authority.server.certificate)], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&shown);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(socket).await else { continue };
                log.lock().unwrap().push(stream.get_ref().1.peer_certificates().is_some());
                // One byte of it is enough: who asks has been let in.
                stream.read_u8().await.ok();
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            }
        });
    });
    (port, shown)
}

#[test]
fn who_we_are_is_nobody_elses_business() {
    let authority = Authority::new();
    let (elsewhere, shown_elsewhere) =
        curious(&authority, "HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into());
    let away = format!(
        "HTTP/1.1 307 There\r\nLocation: https://localhost:{elsewhere}/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let (port, shown) = curious(&authority, away);
    let user = User::new();
    let host = format!("127.0.0.1:{port}");
    for (name, content) in [
        ("ca.crt", &authority.certificate),
        ("me.cert", &authority.client.certificate),
        ("me.key", &authority.client.key),
    ] {
        user.write(&format!(".config/containers/certs.d/{host}/{name}"), content);
    }
    user.push(&format!("{host}/demo:1"), &[]).ended(4);
    let (shown, elsewhere) = (shown.lock().unwrap(), shown_elsewhere.lock().unwrap());
    assert!(!shown.is_empty() && shown.iter().all(|shown| *shown), "{shown:?}");
    assert!(!elsewhere.is_empty() && elsewhere.iter().all(|shown| !shown), "{elsewhere:?}");
}

#[test]
fn podmans_configuration_makes_registries_insecure_or_blocks_them() {
    let server = own_authority(&["registry.example.com"]);
    let place = User::new();
    let (tls, plain) = (registry(place.home(), &server, None), Registry::honest());
    let user = User::new();
    let conf = |name: &str, host: &str, says: &str| {
        user.write(
            &format!(".config/containers/{name}"),
            format!("[[registry]]\nlocation = '{host}'\n{says} = true\n"),
        )
    };
    let image = |host: &str| format!("{host}/demo:1");
    user.log_in(tls.host(), PASSWORD, &[]).said(6, &["no TLS connection"]);
    conf("registries.conf", tls.host(), "insecure");
    // It may have any certificate, or no TLS at all.
    conf("registries.conf.d/plain.conf", &plain.host(), "insecure");
    user.log_in(tls.host(), PASSWORD, &[]).ended(0);
    user.push(&image(tls.host()), &[]).pushed();
    user.push(&image(&plain.host()), &[]).pushed();
    user.push(&image(tls.host()), &["--tls-verify=true"]).ended(6);

    let blocked = conf("registries.conf.d/plain.conf", &plain.host(), "blocked");
    let before = plain.log().len();
    let words = format!("`{}` is blocked in `{}`", plain.host(), blocked.display());
    user.push(&image(&plain.host()), &[]).said(8, &[&words]);
    user.log_in(&plain.host(), PASSWORD, &[]).said(8, &[&words]);
    assert_eq!(plain.log().len(), before, "it was spoken to");
    let other = user.write("other.conf", "");
    // A chosen main file leaves the small ones in place.
    let chosen = user.with("CONTAINERS_REGISTRIES_CONF", other);
    chosen.push(&image(&plain.host()), &[]).said(8, &[&words]);
    chosen.push(&image(tls.host()), &[]).ended(6);
}

#[test]
fn a_machine_without_certificates_trusts_mozillas_authorities_and_ours() {
    let authority = Authority::new();
    let place = User::new();
    let registry = registry(place.home(), &authority.server, None);
    let user = User::new().with("SSL_CERT_FILE", "/none").with("SSL_CERT_DIR", "/none");
    let image = format!("{}/demo:1", registry.host());
    let run = user.push(&image, &["-vv"]);
    run.said(6, &["nobody whom this machine trusts vouches for its certificate", "using Mozilla's"]);
    let file = user.write("ca.pem", &authority.certificate).display().to_string();
    user.log_in(registry.host(), PASSWORD, &["--ca-file", &file]).ended(0);
    user.push(&image, &["--ca-file", &file]).pushed();
    // Without TLS none of them is looked for.
    let plain = Registry::honest();
    let run = user.push(&format!("{}/demo:1", plain.host()), &["-vv"]);
    run.pushed();
    assert!(!run.stderr.contains("Mozilla"), "{run:?}");
}

#[test]
fn broken_files_are_named_before_anything_is_asked() {
    let plain = Registry::honest();
    let user = User::new();
    let image = format!("{}/demo:1", plain.host());
    let odd: PathBuf = user.write("odd.pem", "no PEM");
    user.push(&image, &["--ca-file", odd.to_str().unwrap()]).said(8, &["odd.pem` holds no PEM certificate"]);
    user.push(&image, &["--cert-dir", "/none"]).said(8, &["/none"]);
    user.write(".config/containers/registries.conf", "[[registry]\n");
    user.push(&image, &[]).said(8, &["registries.conf"]);
    assert!(plain.log().is_empty());
}
