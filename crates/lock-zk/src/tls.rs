//! TLS, by PEM texts.

use std::fmt;

use lock_core::{Error, ErrorKind, Result};
use rustls::crypto::CryptoProvider;
use zookeeper_client::TlsOptions;

/// Whom to trust, and who to be, when [TLS](crate::Target::with_tls) is spoken.
#[derive(Clone, Default)]
pub struct Tls(pub(crate) TlsOptions);

impl Tls {
    /// Trusts servers whose certificate this authority issued, given as PEM.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: this is no PEM text of a certificate.
    pub fn trusting(authority: &str) -> Result<Self> {
        TlsOptions::new().with_pem_ca(authority).map(Self).map_err(not_pem)
    }

    /// Shows the servers a certificate, given as PEM with its private key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: these are no PEM texts of a certificate and a key.
    pub fn with_identity(self, certificate: &str, key: &str) -> Result<Self> {
        self.0.with_pem_identity(certificate, key).map(Self).map_err(not_pem)
    }
}

// The library's own text is left out: it may show a part of a key.
fn not_pem(_: zookeeper_client::Error) -> Error {
    Error::new(ErrorKind::InvalidInput, "not a PEM text of what was wanted").without_effect()
}

/// rustls, which the client library asks for the program's choice, panics if more than one provider of cryptography is
/// built in and none was chosen; which are built in depends on all crates of the program together.
pub(crate) fn choose_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // An error means that another thread was first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
