//! Who may do what: passwords, rights, and certificates.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use test_cluster::Etcd;
use zookeeper_client::{Acl, Acls, AuthId, CreateMode, Permission};

use super::{
    Backend, E, Etcd as OnEtcd, Expected, REMOTE, RQ, Redlock, Row, Setnx, Z, operators::on_all,
    pauses::lost_within_the_lease,
};
use crate::{
    agent::{Command, TRUSTING},
    event::{How, Invariant},
    lab::{
        Agent, Boot, Kind, Lab, Special,
        agents::Outcome,
        at_zk,
        tls::{Flaw, Front},
        zk_queue,
    },
};

pub(super) const ROWS: &[Row] = &[
    Row::new(35, RIGHTS, RQ, on_redis),
    Row::new(35, RIGHTS, E, on_etcd).boot(Boot::Own).long_leases(),
    Row::new(35, RIGHTS, Z, on_zookeeper),
    // A handshake takes long where cryptography was built without optimization.
    Row::new(36, "TLS that does not fit", REMOTE, tls).long_leases().limits(&[(
        Redlock,
        Expected::Limit(
            &[Invariant::Errors],
            "several servers that speak no TLS look like servers that do not answer",
        ),
    )]),
];

const RIGHTS: &str = "wrong password, rights revoked while held";

fn expect_auth(lab: &Lab<'_>, refused: &Outcome, text: &str) {
    let holds = matches!(refused, Err((kind, message)) if kind == "Auth" && !message.contains("notit"));
    lab.expect(Invariant::Errors, holds, format!("{text} is Auth, and shows no password: {refused:?}"));
}

/// Without the rights to its commands, a holder cannot renew.
fn on_redis(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    on_all(lab, &["ACL", "SETUSER", "clerk", "on", ">pw", "~*", "&*", "+@all"])?;
    let clerk = lab.special_agent(Special { login: Some("clerk:pw"), ..Special::default() })?;
    clerk.hold("kept")?;
    let fault = lab.fault("the user's rights are taken away");
    on_all(lab, &["ACL", "SETUSER", "clerk", "-@all"])?;
    let refused = clerk.acquire("other", How::Try)?;
    fault.fired(format!("an acquire answers {refused:?}"));
    expect_auth(lab, &refused, "an acquire without rights");
    lost_within_the_lease(lab, &clerk, "kept")?;
    let urls = lab.servers.addresses().into_iter().map(|address| format!("redis://clerk:notit@{address}"));
    let urls = Some(urls.collect::<Vec<_>>().join(","));
    let wrong = clerk.ask(Command::Connect { urls, keep: false })?;
    expect_auth(lab, &wrong, "a wrong password");
    on_all(lab, &["ACL", "SETUSER", "clerk", "+@all"])?;
    fault.end();
    clerk.release("kept")?.ok();
    lab.finish(Some(&load))
}

/// etcd lets anybody keep a lease alive, so that a holder stays one without rights.
fn on_etcd(lab: &mut Lab<'_>) -> Result<()> {
    // A login would otherwise keep a processor busy for longer than a request may take.
    let etcd = Etcd::builder().password("secret").flag("--bcrypt-cost=4").start()?;
    let of =
        |login| Special { servers: Some(vec![etcd.address()]), login: Some(login), ..Special::default() };
    let range = format!(
        r#""key": "{}", "range_end": "{}""#,
        BASE64.encode(format!("{}/", lab.prefix)),
        BASE64.encode(format!("{}0", lab.prefix))
    );
    let give = || {
        let permission = format!(r#"{{"name": "locks", "perm": {{"permType": "READWRITE", {range}}}}}"#);
        etcd.call("/v3/auth/role/grant", &permission)
    };
    etcd.call("/v3/auth/role/add", r#"{"name": "locks"}"#)?;
    give()?;
    etcd.call("/v3/auth/user/add", r#"{"name": "clerk", "password": "pw"}"#)?;
    etcd.call("/v3/auth/user/grant", r#"{"user": "clerk", "role": "locks"}"#)?;
    let load = lab.load_with(|| of("root:secret"))?;
    let clerk = lab.special_agent(of("clerk:pw"))?;
    clerk.hold("kept")?;
    let fault = lab.fault("the user's rights are taken away");
    etcd.call("/v3/auth/role/revoke", &format!(r#"{{"role": "locks", {range}}}"#))?;
    let before = connections(&clerk);
    let refused = clerk.acquire("other", How::Try)?;
    fault.fired(format!("an acquire answers {refused:?}"));
    expect_auth(lab, &refused, "an acquire without rights");
    let urls = Some(format!("http://clerk:notit@{}", etcd.address()));
    let wrong = clerk.ask(Command::Connect { urls, keep: false })?;
    expect_auth(lab, &wrong, "a wrong password");
    lab.let_pass(lab.ttl * 2);
    lab.expect(Invariant::Progress, clerk.is_held("kept")?, "a session is kept alive without rights");
    let made = connections(&clerk) - before;
    lab.expect(Invariant::Errors, made < 10, format!("nobody logs in again and again: {made} connections"));
    give()?;
    fault.end();
    let released = clerk.release("kept")?;
    lab.expect(Invariant::Owner, released.is_ok(), format!("with rights it is released: {released:?}"));
    lab.finish_with(Some(&load), || of("root:secret"))
}

fn connections(agent: &Agent) -> u64 {
    agent.process.proxies.iter().map(|proxy| proxy.connections()).sum()
}

/// ZooKeeper's rights are those to a node; a session needs none.
fn on_zookeeper(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let of = |login| Special { login: Some(login), ..Special::default() };
    let (clerk, stranger) = (lab.special_agent(of("clerk:pw"))?, lab.special_agent(of("clerk:notit"))?);
    clerk.hold("kept")?;
    let Kind::Zk(ensemble) = &lab.servers.kind else { bail!("a cell for ZooKeeper runs on something else") };
    let server = ensemble.node(ensemble.leader()?).address();
    let (kept, other) = (zk_queue(&lab.prefix, "kept")?, zk_queue(&lab.prefix, "other")?);
    let fault = lab.fault("the user's rights to two queues are taken away");
    let set = |rights: Permission| {
        at_zk(server, async |client| {
            client.auth("digest", b"clerk:pw").await?;
            client.mkdir(&other, &CreateMode::Container.with_acls(Acls::creator_all())).await?;
            // The right to give rights stays.
            let acl = [Acl::new(rights | Permission::ADMIN, AuthId::new("world", "anyone"))];
            for queue in [&kept, &other] {
                client.set_acl(queue, &acl, None).await?;
            }
            Ok(())
        })
    };
    let refused = stranger.acquire("kept", How::Try)?;
    expect_auth(lab, &refused, "a wrong password");
    set(Permission::NONE)?;
    let refused = clerk.acquire("other", How::Try)?;
    fault.fired(format!("an acquire answers {refused:?}"));
    expect_auth(lab, &refused, "an acquire without rights");
    lab.let_pass(lab.ttl * 2);
    lab.expect(Invariant::Progress, clerk.is_held("kept")?, "a session is kept alive without rights");
    set(Permission::ALL)?;
    fault.end();
    let released = clerk.release("kept")?;
    lab.expect(Invariant::Owner, released.is_ok(), format!("with rights it is released: {released:?}"));
    lab.finish(Some(&load))
}

/// Only one side speaks TLS, or a certificate is not to be trusted.
fn tls(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let client = lab.agent()?;
    let plain = lab.servers.addresses();
    let secure = match lab.backend.soil() {
        Setnx | Redlock => "rediss://",
        OnEtcd => "https://",
        _ => "",
    };
    let sound = Front::start(&plain, Flaw::None)?;
    let fault = lab.fault("TLS that does not fit");
    let fits = connect(&client, secure, &sound.addresses, Some(&sound.authority))?;
    // Without this, the refusals below would show nothing.
    lab.expect(Invariant::Valid, fits.is_ok(), format!("a client speaks TLS where all fits: {fits:?}"));
    let mut refusals =
        vec![("a server without TLS", connect(&client, secure, &plain, Some(&sound.authority))?)];
    for (what, flaw) in [
        ("a certificate of an unknown authority", Flaw::Authority),
        ("a certificate for another name", Flaw::Name),
        ("a certificate that is over", Flaw::Expired),
    ] {
        let front = Front::start(&plain, flaw)?;
        refusals.push((what, connect(&client, secure, &front.addresses, Some(&front.authority))?));
    }
    let insecure = match lab.backend.soil() {
        Setnx | Redlock => "redis://",
        OnEtcd => "http://",
        _ => "",
    };
    let without = connect(&client, insecure, &sound.addresses, None)?;
    fault.fired(format!("{} clients were refused, and one without TLS: {without:?}", refusals.len()));
    fault.end();
    // What a server that wants TLS answers to others is its own affair.
    lab.expect(
        Invariant::Errors,
        matches!(&without, Err((kind, _)) if kind == "Unavailable" || kind == "Unexpected"),
        format!("a client without TLS is told: {without:?}"),
    );
    for (what, refused) in refusals {
        let tells = |message: &str| !tells_of_tls(lab.backend) || message.contains("TLS");
        lab.expect(
            Invariant::Errors,
            matches!(&refused, Err((kind, message)) if kind == "Unavailable" && tells(message)),
            format!("{what} is Unavailable, and TLS is named: {refused:?}"),
        );
    }
    lab.finish(Some(&load))
}

/// Whether an error of connecting names TLS.
fn tells_of_tls(backend: Backend) -> bool {
    backend.soil() != Backend::Zk
}

fn connect(
    client: &Agent,
    scheme: &str,
    addresses: &[SocketAddr],
    authority: Option<&Path>,
) -> Result<Outcome> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let urls = addresses.iter().map(|address| format!("{scheme}{address}")).collect::<Vec<_>>().join(",");
    let trusting = authority.map(|path| format!("{TRUSTING}{}", path.display())).unwrap_or_default();
    client.order(Command::Connect { urls: Some(urls + &trusting), keep: false })?.wait_for(PATIENCE)
}
