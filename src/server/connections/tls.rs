//! TLS, where the registry is to be reached from elsewhere.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::error::{Context as _, Error, ErrorKind, Result};

/// The registry's certificate and its key.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads a certificate with its chain, and its key, as PEM.
    pub fn read(certificates: &Path, key: &Path) -> Result<Self> {
        let reading = |file: &Path| format!("reading the registry's certificate `{}`", file.display());
        let read = |file: &Path| fs_err::read(file).context(ErrorKind::Local, || reading(file));
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(certificates)?)
            .collect::<Result<_, _>>()
            .map_err(|error| Error::local(reading(certificates)).because(error))?;
        // What is wrong with it is nobody's business but the file's.
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|_| Error::local(format!("`{}` holds no private key", key.display())))?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
            .map_err(|error| Error::local(reading(certificates)).because(error))?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Begins to speak with a client, if it does so in time.
    pub(super) async fn accept<S>(&self, stream: S, patience: Duration) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match timeout(patience, self.0.accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!("a client does not get to TLS: {error}");
                None
            }
            Err(_) => None,
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}
