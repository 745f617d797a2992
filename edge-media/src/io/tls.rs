//! TLS for SIP (RFC 3261 section 26.2, RFC 5922): the edge's certificate for whoever connects,
//! and roots of trust for whomever it connects to. Versions 1.2 and 1.3 alone, which is all
//! that the library has. A far end whose certificate does not show the name that was dialled
//! is not talked to.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An open connection, whoever began it.
pub(super) type TlsStream = tokio_rustls::TlsStream<TcpStream>;

/// Both sides of TLS.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Why certificate and key are not taken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate, or no private key, in PEM.
    #[error("no {0} in PEM in its file")]
    Missing(&'static str),
    /// Certificate and key do not belong together, or are of a kind that is not spoken.
    #[error("the certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

impl Tls {
    /// Takes a certificate with its chain, its key, and further roots beside those of this
    /// machine.
    pub fn of_pem(certificate: &str, key: &str, roots: Option<&str>) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
        let key = key.map_err(|_| TlsError::Missing("private key"))?;
        let server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(roots) = roots {
            trusted.add_parsable_certificates(certificates(roots)?);
        }
        let client = ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    /// The handshake with somebody who connected.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream> {
        Ok(self.acceptor.accept(stream).await?.into())
    }

    /// The handshake with somebody who was dialled by `name`, or by an address where there is
    /// no name.
    pub(super) async fn connect(&self, name: &str, stream: TcpStream) -> io::Result<TlsStream> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(self.connector.connect(name, stream).await?.into())
    }
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::Missing("certificate"))
}
