//! Servers in containers that are gone with their handle.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Engine, Topology,
    engine::output,
    topology::{Port, Service},
};
use crate::{eventually, ports};

/// Eleven containers start at once on a busy machine, three of them with a Java machine each.
const READY_BOUND: Duration = Duration::from_secs(120);

/// Lives as long as the pipe on its stdin, and removes all that bears the name of the project.
const WATCHDOG: &str = r#"
trap '' HUP INT QUIT TERM PIPE
read -r _
mine="label=com.docker.compose.project=$1"
docker ps --all --quiet --filter "$mine" | xargs -r docker rm --force --volumes
docker network ls --quiet --filter "$mine" | xargs -r docker network rm
"#;

/// Containers that run by `docker/compose.yaml`, on free ports and in networks of their own.
///
/// Dropping it removes them with their data. The same happens when this process is killed.
#[derive(Debug)]
pub struct Containers {
    engine: Engine,
    project: String,
    ports: HashMap<String, u16>,
    watchdog: Child,
    life: Option<ChildStdin>,
}

impl Containers {
    /// Builds the images that `topologies` need, starts their servers and waits until all serve.
    ///
    /// # Errors
    ///
    /// There is no engine, an image cannot be built, or a server does not start; the error shows its log.
    pub fn start(topologies: &[Topology]) -> Result<Containers> {
        let engine = Engine::find()?;
        let services: Vec<_> = topologies.iter().flat_map(|topology| topology.services()).collect();
        let mut built = Vec::new();
        for Service { image, .. } in &services {
            if !built.contains(image) {
                engine.build(*image)?;
                built.push(*image);
            }
        }
        ports::retry_if_taken(|| {
            let containers = Self::plan(&engine, &services)?;
            containers.up(topologies)?;
            containers.wait_until_they_serve()?;
            Ok(containers)
        })
    }

    fn plan(engine: &Engine, services: &[Service]) -> Result<Self> {
        let project = format!("lock-test-{:08x}", rand::random::<u32>());
        let variables = services.iter().flat_map(|service| &service.ports);
        let ports = variables.map(|Port { variable, .. }| Ok((variable.clone(), ports::free()?)));
        let ports = ports.collect::<Result<_>>()?;
        let mut watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "test-cluster-watchdog", &project])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot run /bin/sh")?;
        let life = watchdog.stdin.take();
        Ok(Self { engine: engine.clone(), project, ports, watchdog, life })
    }

    fn up(&self, topologies: &[Topology]) -> Result<()> {
        let mut command = self.engine.compose();
        command.envs(self.ports.iter().map(|(variable, port)| (variable, port.to_string())));
        command.args(["--project-name", &self.project]);
        for topology in topologies {
            command.args(["--profile", &topology.to_string()]);
        }
        output(command.args(["up", "--detach", "--no-build"]))
            .context("the containers do not start")
            .map(|_| ())
    }

    /// Returns the name that all containers and networks of this handle bear.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Returns the addresses of a topology's servers on the host, in their order, as clients of the host know them.
    ///
    /// Of a Sentinel and its servers, that of Sentinel comes last.
    #[must_use]
    pub fn published(&self, topology: Topology) -> Vec<SocketAddr> {
        let services = topology.services();
        let ports = services.iter().flat_map(|service| &service.ports);
        ports.filter_map(|port| self.ports.get(&port.variable)).map(|port| ports::loopback(*port)).collect()
    }

    /// Returns the address of a topology's server `index` in `network`, at the port on which it listens there.
    ///
    /// # Errors
    ///
    /// There is no such server, or it is cut off from that network.
    pub fn address(&self, topology: Topology, index: usize, network: &str) -> Result<SocketAddr> {
        let container = self.container(topology, index)?;
        let format = format!(
            "{{{{with index .NetworkSettings.Networks {:?}}}}}{{{{.IPAddress}}}}{{{{end}}}}",
            self.full(network)
        );
        let address = self.engine.docker(["inspect", "--format", &format, &container])?;
        let address: IpAddr = address.parse().with_context(|| format!("it is not in {network}"))?;
        let services = topology.services();
        let port = services[index].ports.first().context("it listens to nobody")?.inside();
        Ok((address, port.parse().context("it listens on a port of the host")?).into())
    }

    /// Takes a server out of `network`: what it still sends there, and what others send it, is lost without a word.
    ///
    /// # Errors
    ///
    /// It is not in that network.
    pub fn disconnect(&self, topology: Topology, index: usize, network: &str) -> Result<()> {
        let container = self.container(topology, index)?;
        self.engine.docker(["network", "disconnect", "--force", &self.full(network), &container]).map(|_| ())
    }

    /// Puts a server back into `network`, under the name that its peers know and an address that may be another.
    ///
    /// # Errors
    ///
    /// It is in that network already.
    pub fn connect(&self, topology: Topology, index: usize, network: &str) -> Result<()> {
        let container = self.container(topology, index)?;
        let services = topology.services();
        let alias =
            services[index].networks.iter().find_map(|(name, alias)| (name == network).then_some(alias));
        let alias = alias.and_then(Option::as_deref).unwrap_or(&services[index].name);
        self.engine
            .docker(["network", "connect", "--alias", alias, &self.full(network), &container])
            .map(|_| ())
    }

    /// Freezes a server: connections stay open and nobody answers.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn pause(&self, topology: Topology, index: usize) -> Result<()> {
        self.engine.docker(["pause", &self.container(topology, index)?]).map(|_| ())
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    ///
    /// It is not frozen.
    pub fn resume(&self, topology: Topology, index: usize) -> Result<()> {
        self.engine.docker(["unpause", &self.container(topology, index)?]).map(|_| ())
    }

    /// Kills a server by SIGKILL.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn kill(&self, topology: Topology, index: usize) -> Result<()> {
        self.engine.docker(["kill", &self.container(topology, index)?]).map(|_| ())
    }

    /// Returns the name that compose gave a network.
    fn full(&self, network: &str) -> String {
        format!("{}_{network}", self.project)
    }

    fn container(&self, topology: Topology, index: usize) -> Result<String> {
        let services = topology.services();
        let name = &services.get(index).with_context(|| format!("{topology} has no server {index}"))?.name;
        let service = format!("label=com.docker.compose.service={name}");
        let id = self.listed(&["--filter", &service])?;
        ensure!(!id.is_empty(), "{name} was not started");
        Ok(id)
    }

    fn listed(&self, filter: &[&str]) -> Result<String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let words = ["ps", "--all", "--quiet", "--filter", &project];
        self.engine.docker(words.iter().chain(filter))
    }

    fn wait_until_they_serve(&self) -> Result<()> {
        let ids = self.listed(&[])?;
        let format =
            "{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}}";
        let waited = eventually("the servers in the containers to serve", READY_BOUND, || {
            let states = self
                .engine
                .docker(["inspect", "--format", format].into_iter().chain(ids.split_whitespace()))?;
            let ended = states.lines().find(|state| !state.contains(" running "));
            if let Some(ended) = ended {
                return Ok(Err(ended.to_owned()));
            }
            match states.lines().find(|state| !state.ends_with(" healthy")) {
                Some(state) => bail!("{state}"),
                None => Ok(Ok(())),
            }
        });
        let waited =
            waited.and_then(|ended| ended.map_err(|state| anyhow::anyhow!("one has ended: {state}")));
        waited.with_context(|| format!("the logs:\n{}\nwhat happened", self.logs(&ids)))
    }

    /// Returns the ends of all logs.
    fn logs(&self, ids: &str) -> String {
        let log = |id| {
            let both = format!("docker logs --tail 15 {id} 2>&1");
            format!("{id}\n{}", output(Command::new("/bin/sh").args(["-c", &both])).unwrap_or_default())
        };
        ids.split_whitespace().map(log).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        self.life = None;
        if let Err(error) = self.watchdog.wait() {
            eprintln!("cannot wait for the watchdog of containers: {error}");
        }
    }
}
