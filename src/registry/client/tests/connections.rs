//! Through whom a registry is reached, and whether by TLS.

use tokio_rustls::{TlsAcceptor, rustls};

use super::*;
use crate::registry::{certificates::Certificates, proxies::Proxies};

#[tokio::test]
async fn loopback_is_never_proxied() {
    let server = Server::start(|_| say(404, &[], "")).await;
    let nobody: Url = "http://127.0.0.1:1/".parse().unwrap();
    let proxies = Proxies { http: Some(nobody.clone()), https: Some(nobody), exempt: String::new() };
    for host in ["127.0.0.1", "localhost"] {
        let options = ClientOptions { proxies: proxies.clone(), ..options() };
        let client = Client::new(&format!("{host}:{}", server.port), options).unwrap();
        assert_eq!(client.head_manifest("demo", "1").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_proxy_is_told_who_asks_and_the_registry_is_not() {
    let proxy =
        Server::start(|seen| if seen.is("CONNECT") { say(403, &[], "") } else { say(404, &[], "") }).await;
    let url: Url = format!("http://me:xyzzy@127.0.0.1:{}", proxy.port).parse().unwrap();
    let proxies = |exempt: &str| Proxies {
        http: Some(url.clone()),
        https: Some(url.clone()),
        exempt: exempt.to_owned(),
    };
    let plain = ClientOptions { plain_http: true, proxies: proxies(""), ..options() };
    let client = Client::new("registry.example.com", plain).unwrap();
    assert_eq!(client.head_manifest("demo", "1").await.unwrap(), None);
    let client = Client::new("registry.example.com", ClientOptions { proxies: proxies(""), ..options() });
    let error = client.unwrap().head_manifest("demo", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    let seen = proxy.seen();
    assert_eq!(seen[0].line, "HEAD http://registry.example.com/v2/demo/manifests/1");
    assert_eq!(seen[1].line, "CONNECT registry.example.com:443");
    // me:xyzzy
    assert!(seen.iter().all(|seen| seen.header("proxy-authorization") == Some("Basic bWU6eHl6enk=")));
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()));

    // An exempt one is looked for itself: the name is nobody's.
    let exempt = ClientOptions { plain_http: true, proxies: proxies(".invalid"), ..options() };
    Client::new("registry.invalid", exempt).unwrap().head_manifest("demo", "1").await.unwrap_err();
    assert_eq!(proxy.count("HEAD"), 1);

    let odd = Proxies { http: Some("gopher://me:xyzzy@proxy".parse().unwrap()), ..Proxies::default() };
    let error = Client::new("r.example.com", ClientOptions { proxies: odd, ..options() }).unwrap_err();
    assert!(error.message().contains("`gopher://proxy` is no proxy"), "{error:?}");
    assert!(!chain(&error).contains("xyzzy"), "{error:?}");
}

/// A registry with TLS and a certificate of its own making, which is returned as PEM.
async fn tls_server() -> (u16, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let Ok(mut connection) = acceptor.accept(connection).await else { continue };
            tokio::spawn(async move {
                while read_head(&mut connection).await.is_some() {
                    connection.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                }
            });
        }
    });
    (port, cert.pem())
}

#[tokio::test]
async fn on_loopback_tls_is_found_out() {
    let (port, pem) = tls_server().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    fs_err::write(&file, pem).unwrap();
    let mut certificates = Certificates::default();
    certificates.trust_file(&file).unwrap();
    let host = format!("127.0.0.1:{port}");

    let trusting = ClientOptions { certificates: certificates.clone(), ..options() };
    let trusting = Client::new(&host, trusting).unwrap();
    assert_eq!(trusting.head_manifest("demo", "1").await.unwrap(), None);
    let careless = Client::new(&host, ClientOptions { insecure: true, ..options() }).unwrap();
    assert_eq!(careless.head_manifest("demo", "1").await.unwrap(), None);

    let wary = Client::new(&host, options()).unwrap();
    let error = wary.head_manifest("demo", "1").await.unwrap_err();
    assert!(chain(&error).contains("vouches for its certificate"), "{error:?}");
    assert!(error.hints()[0].contains("`--ca-file`"), "{error:?}");

    // The other way round: TLS is expected, and the server has none.
    let plain = Server::start(|_| say(404, &[], "")).await;
    let client = plain.client(ClientOptions { certificates, ..options() });
    assert_eq!(client.head_manifest("demo", "1").await.unwrap(), None);
    assert_eq!(plain.seen().len(), 1);
}

#[tokio::test]
async fn whoever_waits_while_tls_is_found_out_is_answered_as_well() {
    let digest = Digest::of(b"x");
    let ask = async |client: &Client| {
        let asked = futures_util::future::join_all((0..100).map(|_| client.head_blob("demo", &digest))).await;
        for found in asked {
            assert_eq!(found.unwrap(), None);
        }
    };
    let plain = Server::start(|seen| match seen.header("authorization") {
        Some(BOB) => say(404, &[], ""),
        _ => say(401, &["WWW-Authenticate: Basic realm=\"x\""], ""),
    });
    ask(&plain.await.client(ClientOptions { insecure: true, ..bob() })).await;
}
