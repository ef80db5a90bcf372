//! The clusters of `docker/compose.yaml`: which services each has, and how each of them is run.

use std::{fmt, iter};

use super::Image;
use crate::{etcd, redis, zookeeper};

/// Servers that belong together: one profile of `docker/compose.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One Redis.
    Redis,
    /// A Redis with a replica, and a Sentinel that watches them under the name `mymaster`.
    Sentinel,
    /// A Redis Cluster of one node, which serves all slots.
    Cluster,
    /// Five Redis that know nothing of each other and keep what they acknowledged.
    Redlock,
    /// One etcd.
    Etcd1,
    /// Three etcd with a leader.
    Etcd3,
    /// One ZooKeeper.
    Zk1,
    /// Three ZooKeeper with a leader.
    Zk3,
}

/// One server of a topology.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) image: Image,
    /// Where it listens inside, and what variable and default there are for the port of the host.
    pub(super) ports: Vec<Port>,
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<(&'static str, String)>,
    /// What succeeds once it serves; none if it does not.
    pub(super) health: Vec<String>,
    /// Each with the name by which the others of that network know it.
    pub(super) networks: Vec<(String, Option<String>)>,
    /// The service in whose network it lives, instead.
    pub(super) lives_in: Option<String>,
}

#[derive(Debug)]
pub(super) struct Port {
    pub(super) variable: String,
    default: u16,
    inside: Option<u16>,
}

impl Port {
    fn new(service: &str, default: u16, inside: u16) -> Self {
        Self { inside: Some(inside), ..Self::same(service, default) }
    }

    /// A server that tells clients its own port listens on the port of the host.
    fn same(service: &str, default: u16) -> Self {
        Self { variable: format!("{}_PORT", service.to_uppercase().replace('-', "_")), default, inside: None }
    }

    /// The port of the host, as compose understands it.
    pub(super) fn outside(&self) -> String {
        format!("${{{}:-{}}}", self.variable, self.default)
    }

    pub(super) fn inside(&self) -> String {
        self.inside.map_or_else(|| self.outside(), |inside| inside.to_string())
    }
}

impl Topology {
    /// All there are.
    pub const ALL: &[Self] = &[
        Self::Redis,
        Self::Sentinel,
        Self::Cluster,
        Self::Redlock,
        Self::Etcd1,
        Self::Etcd3,
        Self::Zk1,
        Self::Zk3,
    ];

    /// Returns the networks through which members of a cluster reach each other, or clients reach independent servers.
    /// Servers without peers have two, so that clients of one can be cut off while those of the other go on.
    #[must_use]
    pub fn networks(self) -> Vec<String> {
        let names: &[&str] = match self {
            Self::Etcd3 | Self::Zk3 => &["clients", "peers"],
            Self::Redlock => &["east", "west"],
            _ => &["clients"],
        };
        names.iter().map(|name| format!("{self}-{name}")).collect()
    }

    pub(super) fn services(self) -> Vec<Service> {
        match self {
            Self::Redis => vec![self.redis(self.to_string(), 16_379, redis::Persistence::None)],
            Self::Redlock => (0..5)
                .map(|index| self.redis(self.name_of(index), 16_401 + index, redis::Persistence::AofAlways))
                .collect(),
            Self::Cluster => vec![self.cluster()],
            Self::Sentinel => self.sentinel(),
            Self::Etcd1 => self.etcds(1, 12_379),
            Self::Etcd3 => self.etcds(3, 12_381),
            Self::Zk1 => self.zookeepers(1, 12_181),
            Self::Zk3 => self.zookeepers(3, 12_191),
        }
    }

    fn name_of(self, index: u16) -> String {
        format!("{self}-{}", index + 1)
    }

    fn service(self, name: String, image: Image, ports: Vec<Port>) -> Service {
        let networks = self.networks().into_iter().map(|network| (network, None)).collect();
        Service {
            name,
            image,
            ports,
            command: Vec::new(),
            environment: Vec::new(),
            health: Vec::new(),
            networks,
            lives_in: None,
        }
    }

    fn redis(self, name: String, port: u16, keeps: redis::Persistence) -> Service {
        let ports = vec![Port::new(&name, port, 6379)];
        let command = redis_server("6379", keeps.settings());
        Service { command, health: asks("6379", "ping", "PONG"), ..self.service(name, Image::Redis, ports) }
    }

    fn cluster(self) -> Service {
        let port = Port::same("cluster", 16_431);
        let here = port.outside();
        let own = [("cluster-enabled", "yes"), ("cluster-announce-ip", "127.0.0.1")];
        let words = redis_server(&here, &[redis::Persistence::None.settings(), &own].concat());
        let words = words.iter().map(|word| if word.is_empty() { "''" } else { word });
        let server = words.collect::<Vec<_>>().join(" ");
        // Nobody else joins, so it takes all slots itself.
        let ask = format!("redis-cli -p {here} cluster");
        let script = format!(
            "{server} & until {ask} info | grep -q cluster_slots_assigned:16384; \
             do {ask} addslots $$(seq 0 16383) || sleep 0.1; done; wait"
        );
        let health = asks(&here, "cluster info", "cluster_state:ok");
        Service { command: shell(script), health, ..self.service(self.to_string(), Image::Redis, vec![port]) }
    }

    /// Returns all in one network with one address, so that what Sentinel tells clients of the host is what it uses
    /// itself. One that does nothing holds the network, so that any of the others can be killed.
    fn sentinel(self) -> Vec<Service> {
        let ports = [("sentinel-master", 16_421), ("sentinel-replica", 16_422), ("sentinel", 16_423)];
        let [master, replica, own] = ports.map(|(name, port)| Port::same(name, port).outside());
        let ports = ports.map(|(name, port)| Port::same(name, port)).into();
        let holder = self.service("sentinel-network".to_owned(), Image::Redis, ports);
        let inside = |name: &str, command, health| Service {
            command,
            health,
            networks: Vec::new(),
            lives_in: Some(holder.name.clone()),
            ..self.service(name.to_owned(), Image::Redis, Vec::new())
        };
        let keeps = redis::Persistence::None.settings();
        let address = format!("127.0.0.1 {master}");
        let replicates = [keeps, &[("replicaof", address.as_str())]].concat();
        let lines = [format!("port {own}"), "dir /data".to_owned(), "protected-mode no".to_owned()];
        let lines: Vec<_> = lines.into_iter().chain(redis::watch("mymaster", &master)).collect();
        let lines = lines.join("\\n");
        let script = format!(
            "printf '{lines}\\n' > /data/sentinel.conf; exec redis-server /data/sentinel.conf --sentinel"
        );
        let servers = vec![
            inside("sentinel-master", redis_server(&master, keeps), asks(&master, "ping", "PONG")),
            inside(
                "sentinel-replica",
                redis_server(&replica, &replicates),
                asks(&replica, "info replication", "master_link_status:up"),
            ),
            inside("sentinel", shell(script), asks(&own, "sentinel replicas mymaster", "name")),
        ];
        let holder = Service { command: shell("exec sleep infinity".to_owned()), ..holder };
        iter::once(holder).chain(servers).collect()
    }

    fn etcds(self, size: u16, port: u16) -> Vec<Service> {
        let name = |index| if size == 1 { self.to_string() } else { self.name_of(index) };
        let peer = |index| format!("http://{}-peer:2380", name(index));
        let all: Vec<_> = (0..size).map(|index| format!("{}={}", name(index), peer(index))).collect();
        let service = |index| {
            let own = name(index);
            let command = [
                "etcd".to_owned(),
                format!("--name={own}"),
                "--data-dir=/data".to_owned(),
                "--listen-client-urls=http://0.0.0.0:2379".to_owned(),
                format!("--advertise-client-urls=http://{own}:2379"),
                "--listen-peer-urls=http://0.0.0.0:2380".to_owned(),
                format!("--initial-advertise-peer-urls={}", peer(index)),
                format!("--initial-cluster={}", all.join(",")),
            ];
            let health = ["CMD", "etcdctl", "endpoint", "health"].map(str::to_owned).into();
            let ports = vec![Port::new(&own, port + index, 2379)];
            Service {
                command: command.into_iter().chain(etcd::timing()).collect(),
                environment: vec![("ETCDCTL_API", "3".to_owned())],
                health,
                networks: self.networks_of_peer(&own),
                ..self.service(own, Image::Etcd, ports)
            }
        };
        (0..size).map(service).collect()
    }

    fn zookeepers(self, size: u16, port: u16) -> Vec<Service> {
        let name = |index| if size == 1 { self.to_string() } else { self.name_of(index) };
        let server = |index: u16| format!("server.{}={}-peer:2888:3888", index + 1, name(index));
        let servers = (0..size).filter(|_| size > 1).map(server);
        let lines = [
            "clientPort=2181".to_owned(),
            "dataDir=/data".to_owned(),
            "quorumListenOnAllIPs=true".to_owned(),
        ];
        let lines: Vec<_> =
            zookeeper::TIMING.lines().map(str::to_owned).chain(lines).chain(servers).collect();
        let config = lines.join("\\n");
        let service = |index: u16| {
            let own = name(index);
            let script = format!(
                "printf {} > /data/myid; printf '{config}\\n' > /data/zoo.cfg; \
                 exec zkServer.sh start-foreground /data/zoo.cfg",
                index + 1
            );
            // A server without a quorum answers, but tells no mode.
            let probe = "exec 3<>/dev/tcp/127.0.0.1/2181; printf srvr >&3; grep -q ^Mode <&3";
            let ports = vec![Port::new(&own, port + index, 2181)];
            Service {
                command: shell(script),
                environment: vec![("SERVER_JVMFLAGS", zookeeper::FLAGS.join(" "))],
                health: ["CMD", "bash", "-c", probe].map(str::to_owned).into(),
                networks: self.networks_of_peer(&own),
                ..self.service(own, Image::ZooKeeper, ports)
            }
        };
        (0..size).map(service).collect()
    }

    /// Its peers know it by a name that only the network of peers has.
    fn networks_of_peer(self, name: &str) -> Vec<(String, Option<String>)> {
        let networks = self.networks();
        let alone = networks.len() == 1;
        let alias = |network: &String| (alone || network.ends_with("-peers")).then(|| format!("{name}-peer"));
        networks.iter().map(|network| (network.clone(), alias(network))).collect()
    }
}

/// The name of the profile.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
            Self::Redlock => "redlock",
            Self::Etcd1 => "etcd1",
            Self::Etcd3 => "etcd3",
            Self::Zk1 => "zk1",
            Self::Zk3 => "zk3",
        })
    }
}

fn shell(script: String) -> Vec<String> {
    vec!["sh".to_owned(), "-ec".to_owned(), script]
}

fn redis_server(port: &str, settings: &[(&str, &str)]) -> Vec<String> {
    let mut words = vec!["redis-server".to_owned()];
    let own = [("port", port), ("dir", "/data"), ("protected-mode", "no")];
    for (name, value) in own.iter().chain(settings) {
        words.push(format!("--{name}"));
        words.extend(value.split(' ').map(str::to_owned));
    }
    words
}

fn asks(port: &str, question: &str, answer: &str) -> Vec<String> {
    vec!["CMD-SHELL".to_owned(), format!("redis-cli -p {port} {question} | grep -q {answer}")]
}
