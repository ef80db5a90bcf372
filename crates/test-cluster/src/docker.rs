//! The same clusters in containers: what `docker/compose.yaml` says, and servers that run by it.

mod compose;
mod containers;
mod engine;
mod topology;

use std::path::PathBuf;

pub use compose::compose_file;
pub use containers::Containers;
pub use engine::Engine;
pub use topology::Topology;

/// What a container is made of: a stage of `docker/Dockerfile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// `redis-server` and `redis-cli`.
    Redis,
    /// `etcd` and `etcdctl`.
    Etcd,
    /// `zkServer.sh`.
    ZooKeeper,
}

impl Image {
    /// All there are.
    pub const ALL: &[Self] = &[Self::Redis, Self::Etcd, Self::ZooKeeper];

    /// Returns the stage of `docker/Dockerfile`.
    #[must_use]
    pub fn stage(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Etcd => "etcd",
            Self::ZooKeeper => "zookeeper",
        }
    }

    /// Returns the name that the built image has.
    fn name(self) -> String {
        format!("lock-test-{}", self.stage())
    }

    /// Names another image to take instead.
    fn variable(self) -> String {
        format!("{}_IMAGE", self.stage().to_uppercase())
    }
}

/// What the build of an image takes from the environment beside: how to reach a registry and Debian's packages.
const BUILD_VARIABLES: [&str; 4] = ["DEBIAN_MIRROR", "http_proxy", "https_proxy", "no_proxy"];

/// Returns the directory of `compose.yaml` and of `Dockerfile`.
#[must_use]
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docker")
}
