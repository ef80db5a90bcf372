//! Tutorial 04: a task scheduler of which one instance runs at a time, on ZooKeeper.
//!
//! Three processes want to be *the* scheduler. One holds the lock and works, for as long as it lives; the others wait
//! in line. The running one is killed: its session ends, and the next takes over. Needs a ZooKeeper at `LOCK_TEST_ZK`.

use std::{
    env,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures_util::future::select_all;
use lock_zk::{Options, ZkLocker};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time,
};

const INSTANCES: usize = 3;
const SESSION: Duration = Duration::from_secs(2);

async fn connect(prefix: &str) -> Result<ZkLocker> {
    let servers = env::var("LOCK_TEST_ZK").unwrap_or_else(|_| "127.0.0.1:2181".to_owned());
    Ok(ZkLocker::connect(&servers, Options::default().with_ttl(SESSION).with_prefix(prefix)).await?)
}

/// What each instance does: wait for its turn, then schedule tasks until it is killed or has lost the lock.
async fn be_a_scheduler(prefix: &str) -> Result<()> {
    let locks = connect(prefix).await?;
    println!("waits");
    let guard = locks.lock("scheduler").await?;
    println!("runs with token {}", guard.fencing_token());
    let work = async {
        for task in 1.. {
            println!("starts task {task}");
            time::sleep(Duration::from_millis(100)).await;
        }
    };
    // Loses the lock, stops the work: a scheduler cut off from ZooKeeper must not go on beside its successor.
    Ok(guard.run(work).await?)
}

/// Another process running this program, and what it prints.
struct Instance {
    process: Child,
    says: Lines<BufReader<ChildStdout>>,
}

impl Instance {
    fn start(prefix: &str) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let mut process =
            command.args(["scheduler", prefix]).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let says = BufReader::new(process.stdout.take().context("its output")?).lines();
        Ok(Self { process, says })
    }

    async fn hear(&mut self, word: &str) -> Result<String> {
        loop {
            let line = self.says.next_line().await?.context("an instance ended")?;
            if line.contains(word) {
                return Ok(line);
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    if let Some(prefix) = env::args().nth(2) {
        return be_a_scheduler(&prefix).await;
    }
    let prefix = examples::prefix("tutorial04");
    println!("{INSTANCES} instances of a scheduler start, one after the other.");
    let mut instances = Vec::new();
    for _ in 0..INSTANCES {
        let mut instance = Instance::start(&prefix)?;
        instance.hear("waits").await?;
        instances.push(instance);
    }
    let mut killed: Option<Instant> = None;
    while !instances.is_empty() {
        let heard = instances.iter_mut().map(|instance| Box::pin(instance.hear("runs")));
        let (line, index, _) = select_all(heard).await;
        println!("One of them {}; {} wait.", line?, instances.len() - 1);
        if let Some(killed) = killed {
            println!(
                "  It took over {:.1} s after the one before was killed.",
                killed.elapsed().as_secs_f64()
            );
        }
        let mut running = instances.remove(index);
        println!("  It {}, and is killed.", running.hear("task 3").await?);
        running.process.kill().await?;
        killed = Some(Instant::now());
    }
    println!(
        "=> one scheduler of {INSTANCES} ran at a time; when it was killed, the next took over by itself"
    );
    Ok(())
}
