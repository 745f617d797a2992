//! TLS for SIP (RFC 3261 section 26.2, RFC 5922): the edge's certificate for whoever connects,
//! and roots of trust for whomever it connects to. Versions 1.2 and 1.3 alone, which is all
//! that the library has. A far end whose certificate does not show the name that was dialled
//! is not talked to. Where there is a list of authorities for them, whoever connects is asked
//! for a certificate as well, and a bad one ends the handshake; whose trunk a good one is is
//! decided elsewhere. Browsers are never asked.

use std::io;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use webpki::EndEntityCert;

/// An open connection, whoever began it.
pub(super) type TlsStream = tokio_rustls::TlsStream<TcpStream>;

/// Both sides of TLS.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    /// The same without a question: a browser would ask its user for a certificate.
    of_browsers: TlsAcceptor,
    connector: TlsConnector,
}

/// What TLS is made of, in PEM.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pem<'a> {
    /// The edge's certificate with its chain.
    pub certificate: &'a str,
    /// Its private key.
    pub key: &'a str,
    /// Roots beside those of this machine, for whomever is dialled.
    pub roots: Option<&'a str>,
    /// Authorities that vouch for whoever connects, and nobody else does.
    pub clients: Option<&'a str>,
    /// Whoever connects shows a certificate, or the handshake is over.
    pub clients_required: bool,
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
    /// None of the authorities for whoever connects can be used.
    #[error("no authority for clients can be used: {0}")]
    Clients(#[from] rustls::server::VerifierBuilderError),
}

impl Tls {
    /// Takes all of it, or says what is missing.
    pub fn of_pem(pem: Pem<'_>) -> Result<Self, TlsError> {
        let chain = certificates(pem.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes());
        let key = key.map_err(|_| TlsError::Missing("private key"))?;
        let open =
            ServerConfig::builder().with_no_client_auth().with_single_cert(chain.clone(), key.clone_key())?;
        let asking = match pem.clients {
            None => open.clone(),
            Some(clients) => {
                let mut authorities = RootCertStore::empty();
                authorities.add_parsable_certificates(certificates(clients)?);
                let verifier = WebPkiClientVerifier::builder(Arc::new(authorities));
                let verifier = if pem.clients_required { verifier } else { verifier.allow_unauthenticated() };
                ServerConfig::builder()
                    .with_client_cert_verifier(verifier.build()?)
                    .with_single_cert(chain.clone(), key.clone_key())?
            }
        };
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(roots) = pem.roots {
            trusted.add_parsable_certificates(certificates(roots)?);
        }
        let client = ClientConfig::builder().with_root_certificates(trusted);
        let own = Own::new(CertifiedKey::from_der(chain, key, client.crypto_provider())?);
        let client = client.with_client_cert_resolver(Arc::new(own));
        Ok(Self {
            acceptor: Arc::new(asking).into(),
            of_browsers: Arc::new(open).into(),
            connector: Arc::new(client).into(),
        })
    }

    /// The handshake with somebody who connected.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream> {
        Ok(self.acceptor.accept(stream).await?.into())
    }

    /// The handshake with a browser.
    pub(super) async fn accept_browser(&self, stream: TcpStream) -> io::Result<TlsStream> {
        Ok(self.of_browsers.accept(stream).await?.into())
    }

    /// The handshake with somebody who was dialled by `name`, or by an address where there is
    /// no name.
    pub(super) async fn connect(&self, name: &str, stream: TcpStream) -> io::Result<TlsStream> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(self.connector.connect(name, stream).await?.into())
    }
}

/// The edge's certificate for whomever it dials and who asks for one.
#[derive(Debug)]
struct Own {
    key: Arc<CertifiedKey>,
    /// Who vouches for it, as distinguished names.
    issuers: Vec<DistinguishedName>,
}

impl Own {
    fn new(key: CertifiedKey) -> Self {
        let issuer = |certificate: &CertificateDer<'_>| {
            let parsed = EndEntityCert::try_from(certificate).ok()?;
            Some(DistinguishedName::in_sequence(parsed.issuer()))
        };
        Self { issuers: key.cert.iter().filter_map(issuer).collect(), key: Arc::new(key) }
    }
}

impl ResolvesClientCert for Own {
    /// Shown to whoever names one of its issuers, or none at all (RFC 8446 section 4.2.4): a far
    /// end that asks without insisting would refuse a certificate that it cannot judge.
    fn resolve(&self, wanted: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let known = wanted.is_empty()
            || self.issuers.iter().any(|issuer| wanted.iter().any(|name| *name == issuer.as_ref()));
        known.then(|| Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The names that the certificate of the far end shows: those of hosts, and of `sip:` URIs
/// without a user (RFC 5922 section 7.1). It has been verified by the handshake.
pub(super) fn names(stream: &TlsStream) -> Vec<String> {
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let Some(certificate) = shown.and_then(|shown| EndEntityCert::try_from(shown).ok()) else {
        return Vec::new();
    };
    let domains = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix("sip:"));
    let domains = domains.filter(|domain| !domain.contains(['@', ';', '?'])).map(str::to_owned);
    domains.chain(certificate.valid_dns_names().map(str::to_owned)).collect()
}

/// What is wrong with the certificate that ended a handshake; `None` where it was something else.
pub(super) fn certificate_fault(error: &io::Error) -> Option<String> {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())?;
    if let rustls::Error::InvalidCertificate(why) = fault {
        return Some(format!("{why:?}"));
    }
    (*fault == rustls::Error::NoCertificatesPresented).then(|| "it shows none".to_owned())
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::Missing("certificate"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A client that shows its certificate to anybody, as some do.
    pub(in crate::io) fn shows_whatever_is_asked(certificate: &str, key: &str, roots: &str) -> Tls {
        let pem = Pem { certificate, key, roots: Some(roots), ..Pem::default() };
        let mut tls = Tls::of_pem(pem).unwrap();
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(certificates(roots).unwrap());
        let client = ClientConfig::builder()
            .with_root_certificates(trusted)
            .with_client_auth_cert(
                certificates(certificate).unwrap(),
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        tls.connector = Arc::new(client).into();
        tls
    }
}
