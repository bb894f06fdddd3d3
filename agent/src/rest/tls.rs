//! Certificates of the REST API, read from files at start and on each reload.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::settings::{RestApi, VerifyClient};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of that kind.
    #[error("cannot read a {what} from {}: check that the file exists, is readable and holds PEM", path.display())]
    File {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the reader says.
        #[source]
        source: pem::Error,
    },
    /// The file was read and holds no certificate.
    #[error("there is no certificate in {}", path.display())]
    NoCertificate {
        /// Where.
        path: PathBuf,
    },
    /// The CA is needed to verify clients.
    #[error(
        "restapi.verify_client needs restapi.cafile: name the file with the CA of the clients' certificates"
    )]
    NoCa,
    /// A certificate of the CA file cannot be used.
    #[error("the CA certificates of {} cannot be used", path.display())]
    Ca {
        /// Where.
        path: PathBuf,
        /// What the verifier says.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
    /// Key and certificate do not fit, or are of a kind that is not supported.
    #[error("the certificate and the key cannot be used together")]
    Unusable(#[from] rustls::Error),
}

/// The crypto that all TLS of the agent runs on.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The acceptor for `restapi`; `None` if it has no certificate, which means plain HTTP.
pub(super) fn acceptor(settings: &RestApi) -> Result<Option<TlsAcceptor>, TlsError> {
    let Some(certfile) = &settings.certfile else {
        return Ok(None);
    };
    let chain = certificates(certfile)?;
    let key = private_key(settings.keyfile.as_ref().unwrap_or(certfile))?;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match settings.verify_client {
        VerifyClient::None => builder.with_no_client_auth(),
        mode => {
            let cafile = settings.cafile.as_ref().ok_or(TlsError::NoCa)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(cafile)?), provider());
            let verifier = match mode {
                VerifyClient::Required => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|source| TlsError::Ca {
                path: cafile.clone(),
                source,
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file_error = |source| TlsError::File {
        what: "certificate",
        path: path.to_owned(),
        source,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(file_error)?
        .collect::<Result<_, _>>()
        .map_err(file_error)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

/// The first private key of a PEM file.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::File {
        what: "private key",
        path: path.to_owned(),
        source,
    })
}

/// The certificates of a PEM file as trusted roots.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    // Bundles of a system hold some that cannot be used; one that can is enough.
    let (usable, _) = store.add_parsable_certificates(certificates(path)?);
    if usable == 0 {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(store)
}
