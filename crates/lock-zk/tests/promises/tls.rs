//! TLS, spoken with what ends it right before a real ZooKeeper.

use std::{net::SocketAddr, sync::Arc};

use crate::common::soon;
use anyhow::Result;
use lock_zk::{ErrorKind, Options, Target, Tls, ZkLocker};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use test_cluster::ZooKeeper;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// An authority, as PEM, and what a server for 127.0.0.1 needs to be trusted by those who trust it.
fn issue() -> Result<(String, ServerConfig)> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let pem = authority.self_signed(&authority_key)?.pem();
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?
        .signed_by(&key, &Issuer::new(authority, authority_key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )?;
    Ok((pem, config))
}

/// Ends TLS on a port of its own, and hands on what was said to `server`.
async fn ends_tls(config: ServerConfig, server: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await?;
                copy_bidirectional(&mut client, &mut TcpStream::connect(server).await?).await
            });
        }
    });
    Ok(address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_work_over_tls_and_strangers_are_not_trusted() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let (authority, config) = issue()?;
    let address = ends_tls(config, zookeeper.address()).await?.to_string();

    let trusting = |pem: &str| anyhow::Ok(Target::new(&address)?.with_tls(Tls::trusting(pem)?));
    let locks = soon("connecting", ZkLocker::connect(trusting(&authority)?, Options::default())).await??;
    let guard = locks.lock("orders/42").await?;
    guard.verify().await?;
    assert!(locks.try_lock("orders/42").await?.is_none());
    guard.release().await?;

    let (stranger, _) = issue()?;
    let refused = soon("connecting", ZkLocker::connect(trusting(&stranger)?, Options::default())).await?;
    assert_eq!(refused.expect_err("nobody vouches for this server").kind(), ErrorKind::Unavailable);
    Ok(())
}
