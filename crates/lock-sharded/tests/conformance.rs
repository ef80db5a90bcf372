//! The suite over clusters of etcd: its own, or those at `LOCK_TEST_ETCD` and `LOCK_TEST_SECOND_ETCD`.

mod suite;

use std::process::ExitCode;

use anyhow::Result;
use lock_etcd::etcd_client::{Client, GetOptions, SortOrder, SortTarget};
use lock_sharded::{Key, Slot};
use test_cluster::Etcd;

use crate::suite::Kind;

impl Kind for Etcd {
    const NAMES: [&'static str; 2] = ["sharded over 2 etcds", "sharded over 3 etcds"];
    const SCHEME: &'static str = "etcd:";
    const GIVEN: &'static [&'static str] = &["LOCK_TEST_ETCD", "LOCK_TEST_SECOND_ETCD"];

    fn start() -> Result<Self> {
        Self::start()
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.url()]
    }

    fn pause(&self) -> Result<()> {
        Self::pause(self)
    }

    fn resume(&self) -> Result<()> {
        Self::resume(self)
    }

    fn restart(&self) -> Result<()> {
        Self::restart(self)
    }

    fn restart_without_data(&self) -> Result<()> {
        Self::restart_without_data(self)
    }

    async fn places(servers: &[String], prefix: &str, key: &Key) -> Result<Vec<String>> {
        let encoded = key.percent_encoded(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        let queue = format!("{prefix}/{:02x}/{encoded}:", Slot::of(key).index());
        let in_order = GetOptions::new().with_prefix().with_keys_only();
        let in_order = in_order.with_sort(SortTarget::Create, SortOrder::Ascend);
        let mut operator = Client::connect(&servers[..1], None).await?;
        let found = operator.get(queue, Some(in_order)).await?;
        Ok(found.kvs().iter().map(|pair| String::from_utf8_lossy(pair.key()).into_owned()).collect())
    }

    async fn delete(servers: &[String], places: &[String]) -> Result<()> {
        let mut operator = Client::connect(&servers[..1], None).await?;
        for place in places {
            operator.delete(place.as_str(), None).await?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    suite::run::<Etcd>()
}
