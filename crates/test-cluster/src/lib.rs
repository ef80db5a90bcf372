//! Starts, kills, pauses and cuts off real servers for tests and examples.
//!
//! A [`Redis`] is a real `redis-server` on a free loopback port with throw-away data. It is gone when its
//! handle is dropped, and also when the process that holds the handle is killed. A [`Proxy`] stands between
//! a client and a server and breaks the network between them. Nothing here knows what a lock is.
//!
//! All calls block and are meant for the thread of a test. Those that wait do so with a bound and say, when
//! it has passed, what they waited for and what they saw last; see [`eventually`].
//!
//! # Examples
//!
//! ```
//! use test_cluster::{Persistence, Redis, resp::Value};
//!
//! # fn main() -> anyhow::Result<()> {
//! let redis = Redis::builder().persistence(Persistence::AofAlways).start()?;
//! redis.command(&["SET", "greeting", "hello"])?;
//!
//! redis.kill()?;
//! redis.restart()?;
//! assert_eq!(redis.command(&["GET", "greeting"])?, Value::Bulk(b"hello".to_vec()));
//!
//! redis.restart_without_data()?;
//! assert_eq!(redis.command(&["GET", "greeting"])?, Value::Nil);
//! # Ok(()) }
//! ```

pub mod docker;
pub mod etcd;
pub mod given;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod resp;
pub mod tools;
pub mod wait;
pub mod zookeeper;

mod ports;

pub use etcd::{Etcd, EtcdBuilder, EtcdCluster};
pub use proxy::{Behaviour, Direction, Proxy};
pub use redis::{Persistence, Redis, RedisBuilder, Sentinel};
pub use wait::eventually;
pub use zookeeper::{ZooKeeper, ZooKeeperBuilder, ZooKeeperCluster};
