//! What can be chosen about etcd servers before they start.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    EtcdCluster, gateway,
    member::{Etcd, Settings},
};
use crate::{
    Proxy, ports,
    process::{DATA, Detached, Watched, detached},
    tools::{self, ETCD, Executable, Version},
};

const OLDEST: Version = Version { major: 3, minor: 4, patch: 0 };

/// Quick to notice a dead leader, and still ten times longer than a busy machine delays a heartbeat.
const HEARTBEAT: Duration = Duration::from_millis(20);
const ELECTION: Duration = Duration::from_millis(200);

const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Chooses how etcd runs; see [`Etcd::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "nothing runs before `start`"]
pub struct EtcdBuilder {
    port: Option<u16>,
    password: Option<String>,
    tls: Option<Tls>,
    proxied_peers: bool,
    extra: Vec<OsString>,
    of_members: Vec<(usize, OsString)>,
}

#[derive(Clone, Debug)]
struct Tls {
    cert: PathBuf,
    key: PathBuf,
}

impl EtcdBuilder {
    /// Listens on `port` instead of any free one; for a server alone.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Turns authentication on, with the user `root` and this password.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Speaks TLS to clients, with a certificate and its key in PEM files. [`Etcd::call`] uses a second port without.
    pub fn tls(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls = Some(Tls { cert: cert.into(), key: key.into() });
        self
    }

    /// Puts a [`Proxy`] before the peer port of each member: see [`EtcdCluster::peer_proxy`].
    pub fn proxied_peers(mut self) -> Self {
        self.proxied_peers = true;
        self
    }

    /// Adds a flag to the command line, such as `--quota-backend-bytes=16777216`.
    pub fn flag(mut self, flag: impl Into<OsString>) -> Self {
        self.extra.push(flag.into());
        self
    }

    /// Adds a flag to the command line of member `index` alone: a cluster that is being reconfigured one by one.
    pub fn member_flag(mut self, index: usize, flag: impl Into<OsString>) -> Self {
        self.of_members.push((index, flag.into()));
        self
    }

    /// Starts one server alone and waits until it serves.
    ///
    /// # Errors
    ///
    /// There is no `etcd`, it is older than 3.4, or it does not start; the error shows its log.
    pub fn start(self) -> Result<Etcd> {
        let mut members = self.start_cluster(1)?.members;
        Ok(members.pop().expect("one was asked for"))
    }

    /// Starts a cluster and waits until its members agree on a leader.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn start_cluster(self, members: usize) -> Result<EtcdCluster> {
        let (executable, version) = executable()?;
        let cluster = ports::retry_if_taken(|| {
            let plans = self.plan(members)?;
            let peers = initial_cluster(&plans);
            let members = plans
                .iter()
                .map(|plan| {
                    let server = self.watched(&executable, plan, &peers)?;
                    Ok(Etcd::new(server, plan.settings.clone(), version))
                })
                .collect::<Result<_>>()?;
            let peer_proxies = plans.into_iter().filter_map(|plan| plan.peer_proxy).collect();
            let cluster = EtcdCluster { members, peers, peer_proxies };
            cluster.boot()?;
            cluster.leader()?;
            Ok(cluster)
        })?;
        self.enable_password(&cluster[0].settings)?;
        let members = cluster.members.into_iter().map(|member| self.with_password(member)).collect();
        Ok(EtcdCluster { members, ..cluster })
    }

    /// Starts a member that joins `cluster` as a learner, which takes no part in votes and refuses most requests.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start), and if the cluster does not let it in.
    pub(super) fn start_learner(self, cluster: &EtcdCluster) -> Result<Etcd> {
        let (executable, version) = executable()?;
        let plan = Plan { name: "learner".to_owned(), ..self.plan(1)?.remove(0) };
        let learner = format!(r#"{{"peerURLs": ["{}"], "isLearner": true}}"#, plan.peer_url());
        cluster[0].call("/v3/cluster/member/add", &learner)?;
        let peers = format!("{},{}", cluster.peers, initial_cluster([&plan]));
        let server = self.flag("--initial-cluster-state=existing").watched(&executable, &plan, &peers)?;
        let learner = Etcd::new(server, plan.settings, version);
        learner.spawn()?;
        learner.wait_until_ready()?;
        Ok(learner)
    }

    /// Starts a server alone that outlives this process, with its data in `directory`, and waits until it serves.
    ///
    /// [`stop_detached`](crate::process::stop_detached) stops it.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn detached(self, directory: &Path) -> Result<Detached> {
        let mut members = self.detached_cluster(&[directory.to_owned()])?;
        Ok(members.pop().expect("one was asked for"))
    }

    /// Starts a cluster that outlives this process, one member with its data in each of `directories`.
    ///
    /// Each is stopped as one that is alone.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn detached_cluster(self, directories: &[PathBuf]) -> Result<Vec<Detached>> {
        let (executable, _) = executable()?;
        let directories = detached::prepare(directories)?;
        let (plans, pids) = ports::retry_if_taken(|| {
            let plans = self.plan(directories.len())?;
            let command = |(directory, plan): (&PathBuf, &Plan)| {
                let arguments = self.arguments(plan, &initial_cluster(&plans), &directory.join(DATA));
                (directory.clone(), executable.command_line(&arguments))
            };
            let servers: Vec<_> = directories.iter().zip(&plans).map(command).collect();
            let ready = |index: usize, pid| {
                plans[index].settings.wait_until_ready(pid, &directories[index]).map(|_| ())
            };
            let pids = detached::start(&servers, ready)?;
            Ok((plans, pids))
        })?;
        self.enable_password(&plans[0].settings)?;
        Ok(pids
            .into_iter()
            .zip(plans)
            .map(|(pid, plan)| Detached { pid, port: plan.settings.port })
            .collect())
    }

    /// Chooses the ports of all members, which each must know of the others.
    fn plan(&self, members: usize) -> Result<Vec<Plan>> {
        ensure!(members > 0, "a cluster has at least one member");
        ensure!(self.port.is_none() || members == 1, "a port can be chosen for a server alone");
        let plan = |index| {
            let port = self.port.map_or_else(ports::free, Ok)?;
            let plain_port = if self.tls.is_some() { ports::free()? } else { port };
            // Authentication is turned on later, by requests that need no password yet.
            let settings = Settings { port, plain_port, tls: self.tls.is_some(), password: None };
            let peer_port = ports::free()?;
            let peer_proxy =
                self.proxied_peers.then(|| Proxy::start(ports::loopback(peer_port))).transpose()?;
            Ok(Plan { index, name: format!("member{index}"), peer_port, peer_proxy, settings })
        };
        (0..members).map(plan).collect()
    }

    fn watched(&self, executable: &Executable, plan: &Plan, peers: &str) -> Result<Watched> {
        let directory = tempfile::Builder::new().prefix("test-etcd-").tempdir()?;
        let data = directory.path().join(DATA);
        fs::create_dir(&data)?;
        Watched::new(directory, &executable.command_line(&self.arguments(plan, peers, &data)))
    }

    fn arguments(&self, plan: &Plan, peers: &str, data: &Path) -> Vec<OsString> {
        let Plan { index, name, peer_port, settings, .. } = plan;
        let mut clients = settings.url();
        if settings.plain_port != settings.port {
            clients += &format!(",http://127.0.0.1:{}", settings.plain_port);
        }
        let peer = format!("http://127.0.0.1:{peer_port}");
        let mut arguments: Vec<OsString> = [
            format!("--name={name}"),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={}", plan.peer_url()),
            format!("--initial-cluster={peers}"),
        ]
        .map(OsString::from)
        .into();
        arguments.extend(timing().map(OsString::from));
        let with_path = |flag: &str, path: &Path| {
            let mut flag = OsString::from(flag);
            flag.push(path);
            flag
        };
        arguments.push(with_path("--data-dir=", data));
        if let Some(Tls { cert, key }) = &self.tls {
            arguments.extend([with_path("--cert-file=", cert), with_path("--key-file=", key)]);
        }
        arguments.extend(self.extra.iter().cloned());
        let own = self.of_members.iter().filter(|(member, _)| member == index);
        arguments.extend(own.map(|(_, flag)| flag.clone()));
        arguments
    }

    fn enable_password(&self, settings: &Settings) -> Result<()> {
        let Some(password) = &self.password else { return Ok(()) };
        let user = format!(r#"{{"name": "root", "password": {}}}"#, gateway::quoted(password));
        for (path, body) in [
            ("/v3/auth/user/add", user.as_str()),
            ("/v3/auth/role/add", r#"{"name": "root"}"#),
            ("/v3/auth/user/grant", r#"{"user": "root", "role": "root"}"#),
            ("/v3/auth/enable", "{}"),
        ] {
            settings.call(path, body, LOGIN_TIMEOUT).context("cannot turn authentication on")?;
        }
        Ok(())
    }

    fn with_password(&self, mut member: Etcd) -> Etcd {
        member.settings.password = self.password.clone();
        member
    }
}

/// The name and the ports of one member.
struct Plan {
    index: usize,
    name: String,
    peer_port: u16,
    peer_proxy: Option<Proxy>,
    settings: Settings,
}

impl Plan {
    /// Returns where the other members reach it.
    fn peer_url(&self) -> String {
        let port = self.peer_proxy.as_ref().map_or(self.peer_port, Proxy::port);
        format!("http://127.0.0.1:{port}")
    }
}

/// The flags for a leader that is soon missed.
pub(crate) fn timing() -> [String; 2] {
    [
        format!("--heartbeat-interval={}", HEARTBEAT.as_millis()),
        format!("--election-timeout={}", ELECTION.as_millis()),
    ]
}

/// Names all members to each, as the flag `--initial-cluster` wants it.
fn initial_cluster<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> String {
    let named = plans.into_iter().map(|plan| format!("{}={}", plan.name, plan.peer_url()));
    named.collect::<Vec<_>>().join(",")
}

fn executable() -> Result<(Executable, Version)> {
    let executable = tools::find(&ETCD)?;
    let version = executable.version()?;
    ensure!(
        version >= OLDEST,
        "{} is etcd {version}, but etcd {OLDEST} or newer is needed; set {} to a newer one",
        executable.path.display(),
        ETCD.env,
    );
    Ok((executable, version))
}
