//! Speaks TLS with clients before servers that do not, with certificates that are as they should be, or are not.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};
use tokio_rustls::TlsAcceptor;

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flaw {
    None,
    /// It was issued by another authority.
    Authority,
    /// It is for another server.
    Name,
    /// It is too old.
    Expired,
}

/// Ends TLS before each of some servers.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whom clients are to trust, as PEM.
    pub(crate) authority: PathBuf,
    _files: TempDir,
    _runtime: Runtime,
}

impl Front {
    pub(crate) fn start(servers: &[SocketAddr], flaw: Flaw) -> Result<Self> {
        let files = tempfile::Builder::new().prefix("fault-lab-").tempdir()?;
        let authority = files.path().join("authority.pem");
        let (trusted, config) = issue(flaw)?;
        std::fs::write(&authority, trusted)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let addresses = servers.iter().map(|server| {
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
            let address = listener.local_addr()?;
            runtime.spawn(serve(listener, acceptor.clone(), *server));
            Ok(address)
        });
        let addresses = addresses.collect::<Result<_>>()?;
        Ok(Self { addresses, authority, _files: files, _runtime: runtime })
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, server: SocketAddr) {
    while let Ok((client, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let mut client = acceptor.accept(client).await?;
            copy_bidirectional(&mut client, &mut TcpStream::connect(server).await?).await
        });
    }
}

/// An authority, and what a server shows to those who trust it.
fn issue(flaw: Flaw) -> Result<(String, ServerConfig)> {
    let authority = || -> Result<_> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = authority.self_signed(&key)?.pem();
        Ok((pem, Issuer::new(authority, key)))
    };
    let ((trusted, issuer), (_, stranger)) = (authority()?, authority()?);
    let name = if flaw == Flaw::Name { "elsewhere.invalid" } else { "127.0.0.1" };
    let mut certificate = CertificateParams::new([name.to_owned()])?;
    if flaw == Flaw::Expired {
        (certificate.not_before, certificate.not_after) =
            (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    }
    let key = KeyPair::generate()?;
    let certificate =
        certificate.signed_by(&key, if flaw == Flaw::Authority { &stranger } else { &issuer })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )?;
    // What clients of etcd ask for; others ask for nothing.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((trusted, config))
}
