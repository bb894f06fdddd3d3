//! Whom a client believes over https, and what it shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::config::settings::{Ctl, RestApi};
use crate::rest::{TlsError, tls};

/// Where distributions keep the bundle of trusted CAs.
const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// Whom a client believes, and what it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The CA that certificates must come from; without one, nothing is verified.
    cacert: Option<PathBuf>,
    /// Certificate to show, and its key.
    identity: Option<(PathBuf, PathBuf)>,
}

impl Trust {
    /// Between members: verified if a CA is configured. Without one there is nothing to verify against, and plain TLS is what
    /// Patroni members do, so a cluster with self-signed certificates keeps working.
    #[must_use]
    pub fn members(ctl: &Ctl, restapi: &RestApi) -> Self {
        let cacert = ctl.cacert.clone().or_else(|| restapi.cafile.clone());
        let own = match (&ctl.certfile, &restapi.certfile) {
            (Some(certfile), _) => Some((certfile.clone(), ctl.keyfile.clone())),
            (None, Some(certfile)) => Some((certfile.clone(), restapi.keyfile.clone())),
            (None, None) => None,
        };
        Self {
            cacert: cacert.filter(|_| !ctl.insecure),
            identity: own.map(|(certfile, keyfile)| (certfile.clone(), keyfile.unwrap_or(certfile))),
        }
    }

    /// From the command line: always verified, against the system's CAs if none is configured, unless `ctl.insecure`.
    #[must_use]
    pub fn operator(ctl: &Ctl) -> Self {
        let system = || {
            SYSTEM_BUNDLES
                .iter()
                .find(|path| Path::new(path).exists())
                .map(PathBuf::from)
        };
        let cacert = ctl
            .cacert
            .clone()
            .or_else(system)
            .or_else(|| Some(PathBuf::from(SYSTEM_BUNDLES[0])));
        Self {
            cacert: cacert.filter(|_| !ctl.insecure),
            identity: ctl
                .certfile
                .clone()
                .map(|certfile| (certfile.clone(), ctl.keyfile.clone().unwrap_or(certfile))),
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read or used. A missing CA file is not one until https is spoken for [`Trust::operator`]: a machine without a
    /// bundle can still speak http.
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let builder =
            ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions()?;
        let builder = match &self.cacert {
            Some(cacert)
                if SYSTEM_BUNDLES.iter().any(|bundle| Path::new(bundle) == cacert) && !cacert.exists() =>
            {
                builder.with_root_certificates(rustls::RootCertStore::empty())
            }
            Some(cacert) => builder.with_root_certificates(tls::roots(cacert)?),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(tls::provider()))),
        };
        let mut config = match &self.identity {
            Some((certfile, keyfile)) => {
                builder.with_client_auth_cert(tls::certificates(certfile)?, tls::private_key(keyfile)?)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Believes any certificate; the handshake's signatures are still checked.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
