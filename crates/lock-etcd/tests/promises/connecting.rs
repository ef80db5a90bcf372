//! What a person sees whose servers, names or certificates are not right.

use lock_core::backend::Effect;
use std::{
    io::{Read, Write},
    net::TcpListener,
    pin::pin,
    task::Poll,
    thread,
    time::Duration,
};

use crate::common::{poll_once, soon};
use anyhow::Result;
use lock_etcd::{Error, ErrorKind, EtcdLocker, Options, Target};
use test_cluster::Etcd;

/// The error of connecting to `target`, which must come soon, name the server, and not the password.
async fn check_refused(target: Target, kind: ErrorKind, text: &str) -> Result<()> {
    let options = Options::default().with_ttl(Duration::from_secs(6));
    let error: Error = soon("the refusal", EtcdLocker::connect(target, options)).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains(text), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    Ok(())
}

#[test]
fn a_locker_cannot_be_made_outside_a_runtime() {
    let connecting = pin!(EtcdLocker::connect("127.0.0.1:1", Options::default()));
    let Poll::Ready(Err(error)) = poll_once(connecting) else { panic!("it waits for something") };
    assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
}

#[tokio::test]
async fn nobody_listens() -> Result<()> {
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    check_refused(Target::new([free.to_string()])?, ErrorKind::Unavailable, "nothing listens there").await
}

#[tokio::test]
async fn somebody_listens_and_never_answers() -> Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    check_refused(Target::new([silent.local_addr()?.to_string()])?, ErrorKind::Unavailable, "within").await
}

#[tokio::test]
async fn a_web_server_listens() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        }
    });
    check_refused(Target::new([address.to_string()])?, ErrorKind::Unavailable, "does etcd listen there").await
}

#[tokio::test]
async fn the_login_is_wrong_or_missing_or_not_wanted() -> Result<()> {
    let closed = Etcd::builder().password("secret").start()?;
    let target = Target::try_from(closed.url())?;
    let wrong = target.clone().with_user("root", "another secret");
    check_refused(wrong, ErrorKind::Auth, "the user or the password is wrong").await?;
    check_refused(target.clone(), ErrorKind::Auth, "wants a user and a password").await?;
    let locks = EtcdLocker::connect(target.with_user("root", "secret"), Options::default()).await?;
    locks.lock("a").await?.release().await?;

    let etcd = Etcd::start()?;
    let target = Target::try_from(etcd.url())?.with_user("root", "secret");
    check_refused(target, ErrorKind::Auth, "no authentication").await
}

#[cfg(feature = "tls")]
mod tls {
    use std::fs;

    use lock_etcd::etcd_client::{Certificate, TlsOptions};
    use tempfile::TempDir;

    use super::*;

    struct Authority {
        certificate: String,
        etcd: Etcd,
        _files: TempDir,
    }

    /// An etcd with a certificate of its own, for `localhost`.
    fn etcd_with_tls() -> Result<Authority> {
        let files = tempfile::tempdir()?;
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let (cert_file, key_file) = (files.path().join("cert.pem"), files.path().join("key.pem"));
        fs::write(&cert_file, cert.pem())?;
        fs::write(&key_file, signing_key.serialize_pem())?;
        let etcd = Etcd::builder().tls(&cert_file, &key_file).start()?;
        Ok(Authority { certificate: cert.pem(), etcd, _files: files })
    }

    fn trusting(certificate: &str) -> TlsOptions {
        TlsOptions::new().ca_certificate(Certificate::from_pem(certificate))
    }

    #[tokio::test]
    async fn locks_work_over_tls() -> Result<()> {
        let Authority { certificate, etcd, _files } = etcd_with_tls()?;
        let target = Target::try_from(etcd.url())?.with_tls(trusting(&certificate));
        let locks = EtcdLocker::connect(target, Options::default()).await?;
        Ok(locks.lock("a").await?.release().await?)
    }

    #[tokio::test]
    async fn one_side_wants_tls_or_does_not_trust_the_other() -> Result<()> {
        let Authority { etcd, _files, .. } = etcd_with_tls()?;
        let plain = Target::new([format!("http://127.0.0.1:{}", etcd.port())])?;
        check_refused(plain, ErrorKind::Unavailable, "TLS").await?;
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()])?.cert.pem();
        let mistrusting = Target::try_from(etcd.url())?.with_tls(trusting(&other));
        check_refused(mistrusting, ErrorKind::Unavailable, "TLS").await?;

        let without = Etcd::start()?;
        let eager =
            Target::new([format!("https://127.0.0.1:{}", without.port())])?.with_tls(trusting(&other));
        check_refused(eager, ErrorKind::Unavailable, "TLS").await
    }
}
