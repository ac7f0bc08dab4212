//! How TLS is spoken: whom to believe who they are, and what to show who asks us.
//!
//! Trusted are the machine's authorities (`SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set, as OpenSSL has it),
//! or Mozilla's where the machine has none, and those that were given. Names, dates and signatures are webpki's
//! business; the one thing added here is the usual certificate of a private registry, which is its own authority.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::no_tls::OWN_AUTHORITY;
use crate::{
    error::{Context as _, ErrorKind, Result},
    registry::{
        certificates::{Certificates, Identity},
        options::ClientOptions,
    },
};

/// Returns the settings for connections that trust whom the user trusts, and show `identity`.
pub(super) fn config(options: &ClientOptions, identity: Option<&Identity>) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if options.insecure {
        Arc::new(Anybody(Arc::clone(&provider)))
    } else {
        Arc::new(Known::new(&options.certificates, &provider)?)
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context(ErrorKind::Internal, || "choosing versions of TLS".into())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { file, chain, key }) => builder
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .context(ErrorKind::Local, || format!("`{}` cannot be used with its key", file.display()))?,
    };
    config.alpn_protocols.extend(options.http2.then(|| b"h2".to_vec()));
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(config)
}

/// Believes those whom somebody known vouches for.
#[derive(Debug)]
struct Known {
    trusted: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl Known {
    fn new(certificates: &Certificates, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let machine = rustls_native_certs::load_native_certs();
        let mut trusted = machine.certs;
        if trusted.is_empty() {
            tracing::debug!("this machine has no certificates ({:?}): using Mozilla's", machine.errors);
            trusted = webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
        }
        trusted.extend(certificates.authorities.iter().cloned());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let chains = chains.build().context(ErrorKind::Local, || "reading certificates".into())?;
        Ok(Self { trusted, chains })
    }

    /// `openssl req -x509` makes certificates that are their own authority, which webpki refuses as a server's, after
    /// it has looked at the dates and before it looks at the name.
    fn is_its_own_authority(&self, certificate: &CertificateDer<'_>, refusal: &rustls::Error) -> bool {
        let rustls::Error::InvalidCertificate(CertificateError::Other(why)) = refusal else { return false };
        why.to_string().contains(OWN_AUTHORITY) && self.trusted.contains(certificate)
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict =
            self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            Err(refusal) if self.is_its_own_authority(end_entity, &refusal) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Believes everybody, as `--insecure` wants it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    use url::Url;

    use super::{super::NoTls, *};

    /// A certificate for `r.example.com` that is its own authority, good until the end of `year`.
    fn own_authority(year: i32) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::new(["r.example.com".to_owned()]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.not_before = date_time_ymd(2020, 1, 1);
        parameters.not_after = date_time_ymd(year, 12, 31);
        parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    /// What those say who were given `given` and meet `shown` at a host.
    fn verdict(
        given: &[&CertificateDer<'static>],
        shown: &CertificateDer<'static>,
        host: &str,
    ) -> Result<(), rustls::Error> {
        let authorities = given.iter().map(|&certificate| certificate.clone()).collect();
        let certificates = Certificates { authorities, identity: None };
        let known = Known::new(&certificates, &Arc::new(aws_lc_rs::default_provider())).unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        known.verify_server_cert(shown, &[], &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn a_given_certificate_that_is_its_own_authority_is_believed_for_its_name_and_time() {
        let [good, other, expired] = [2999, 2999, 2021].map(own_authority);
        verdict(&[&good], &good, "r.example.com").unwrap();
        verdict(&[&other, &good], &good, "r.example.com").unwrap();
        let base = Url::parse("https://r.example.com").unwrap();
        for (given, shown, host, words, helps) in [
            (&good, &good, "q.example.com", "not valid for name", false),
            (&expired, &expired, "r.example.com", "its certificate has expired: ", false),
            (&other, &good, "r.example.com", "not one that this machine trusts", true),
            (&expired, &good, "r.example.com", "not one that this machine trusts", true),
        ] {
            let refusal = verdict(&[given], shown, host).unwrap_err();
            let said = NoTls::of(&refusal, true).unwrap();
            assert!(said.to_string().contains(words), "{host}: {said}");
            let error = said.into_error(&base, &base);
            assert_eq!(error.hints()[0].contains("--ca-file"), helps, "{error:?}");
        }
        verdict(&[], &good, "r.example.com").unwrap_err();
    }

    #[test]
    fn http2_is_offered_where_it_is_wanted() {
        for (http2, offered) in [(false, &[&b"http/1.1"[..]][..]), (true, &[b"h2", b"http/1.1"])] {
            let options = ClientOptions { http2, ..ClientOptions::default() };
            assert_eq!(config(&options, None).unwrap().alpn_protocols, offered);
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ends = || rcgen::generate_simple_self_signed(["me".to_owned()]).unwrap();
        let identity = |certificate: rcgen::Certificate, key: &KeyPair| Identity {
            file: "me.cert".into(),
            chain: vec![certificate.der().clone()],
            key: Arc::new(key.serialize_der().try_into().unwrap()),
        };
        let (mine, other) = (ends(), ends());
        let right = identity(mine.cert, &mine.signing_key);
        let wrong = identity(other.cert, &mine.signing_key);
        let options = ClientOptions { insecure: true, ..ClientOptions::default() };
        config(&options, Some(&right)).unwrap();
        let error = config(&options, Some(&wrong)).unwrap_err();
        assert!(error.message().contains("`me.cert`"), "{error:?}");
    }
}
