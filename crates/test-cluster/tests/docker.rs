//! What clusters in containers promise. All of it takes a container engine, and runs as a step of its own.

use anyhow::Result;
use test_cluster::docker::{Containers, Topology};

#[test]
fn every_topology_serves_and_is_gone_with_its_handle() -> Result<()> {
    let containers = Containers::start(Topology::ALL)?;
    for topology in Topology::ALL {
        println!("{topology}: {:?}", containers.published(*topology));
    }
    Ok(())
}
