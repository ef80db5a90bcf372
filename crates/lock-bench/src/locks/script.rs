//! Peers in other languages: a small program each, which is told what to do and notes when things happened.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures_util::future::BoxFuture;
use serde_json::json;
use test_cluster::{tools, zookeeper::Installation};

use crate::{
    load::{Keys, Shape},
    lock::{Clients, Make, Subject},
    results::Absent,
    sample::Record,
    setup::Setup,
};

/// A program gets warm first: languages that compile while they run are slow at the beginning.
const WARM_UP: Duration = Duration::from_secs(1);

/// Returns the peers in other languages that can run here, and those that cannot.
#[must_use]
pub fn peers(setup: Setup, urls: &[String]) -> (Vec<Subject>, Vec<Absent>) {
    let found = match setup {
        Setup::Local | Setup::Redlock => Vec::new(),
        Setup::Setnx => vec![python("redis-py", "redis", "redis_py.py", urls)],
        Setup::Etcd | Setup::Etcd3 => vec![go_mutex(urls)],
        Setup::Zk | Setup::Zk3 => vec![python("kazoo", "kazoo", "kazoo_lock.py", urls), curator(urls)],
    };
    let (mut subjects, mut absent) = (Vec::new(), Vec::new());
    for one in found {
        match one {
            Ok(script) => subjects.push(Subject::program(script.name, Box::new(script))),
            Err(reason) => absent.push(reason),
        }
    }
    (subjects, absent)
}

/// How a program is called.
#[derive(Clone, Debug)]
struct Script {
    name: &'static str,
    words: Vec<String>,
    urls: Vec<String>,
    /// Whether it reads words, one for each thing, and not JSON.
    reads_words: bool,
}

fn home() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))
}

/// Where `cargo xtask bench --peers` puts what it fetches.
fn fetched() -> PathBuf {
    home().ancestors().nth(3).expect("this crate is in crates/").join("target/bench")
}

fn python(name: &'static str, module: &str, file: &str, urls: &[String]) -> Result<Script, Absent> {
    let own = fetched().join("venv/bin/python3").display().to_string();
    let runs = |python: &String| {
        let import = format!("import {module}");
        Command::new(python)
            .args(["-c", &import])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|ended| ended.success())
    };
    let python = [own, "python3".to_owned()].into_iter().find(runs).ok_or_else(|| Absent {
        name: name.to_owned(),
        reason: format!(
            "no python3 here has the module {module}: `cargo xtask bench --peers` fetches it from PyPI, and Debian \
            has it as python3-{module}"
        ),
    })?;
    let words = vec![python, home().join(file).display().to_string()];
    Ok(Script { name, words, urls: urls.to_vec(), reads_words: false })
}

fn go_mutex(urls: &[String]) -> Result<Script, Absent> {
    let (name, program) = ("etcd's Go Mutex", fetched().join("etcd_mutex"));
    if !program.exists() {
        let reason = "its program is not built: `cargo xtask bench --peers` does that where Go and its etcd library \
                      are installed, Debian's golang-go and golang-etcd-server-dev";
        return Err(Absent { name: name.to_owned(), reason: reason.to_owned() });
    }
    Ok(Script { name, words: vec![program.display().to_string()], urls: urls.to_vec(), reads_words: false })
}

fn curator(urls: &[String]) -> Result<Script, Absent> {
    let absent = |reason: String| Absent { name: "Curator".to_owned(), reason };
    let jars = [tools::tools_root().join("usr/share/java"), PathBuf::from("/usr/share/java")]
        .into_iter()
        .find(|jars| jars.join("curator-recipes.jar").exists())
        .ok_or_else(|| {
            absent(
                "its classes are in Debian's package libcurator-recipes-java, which is not installed"
                    .to_owned(),
            )
        })?;
    let java = Installation::find().map_err(|error| absent(format!("{error:#}")))?;
    let named = ["curator-recipes", "curator-framework", "curator-client", "guava", "failureaccess"];
    let own = named.map(|name| jars.join(format!("{name}.jar")).display().to_string()).join(":");
    let classes = format!("{own}:{}", java.class_path().display());
    let words = vec![
        java.java().display().to_string(),
        // Else the tables are lost among what it tells of its connections.
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned(),
        "-cp".to_owned(),
        classes,
        home().join("Curator.java").display().to_string(),
    ];
    Ok(Script { name: "Curator", words, urls: urls.to_vec(), reads_words: true })
}

impl Make for Script {
    fn clients(&self, count: usize) -> BoxFuture<'_, Result<Box<dyn Clients>>> {
        let clients: Box<dyn Clients> = Box::new(Running { script: self.clone(), clients: count });
        Box::pin(std::future::ready(Ok(clients)))
    }
}

struct Running {
    script: Script,
    clients: usize,
}

impl Clients for Running {
    fn drive<'a>(&'a self, shape: &'a Shape, time: Duration) -> BoxFuture<'a, Result<Record>> {
        let (script, shape, clients) = (self.script.clone(), shape.clone(), self.clients);
        Box::pin(async move {
            let name = script.name;
            let ran = tokio::task::spawn_blocking(move || script.run(&shape, clients, time)).await?;
            ran.with_context(|| format!("{name} failed"))
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl Script {
    fn run(&self, shape: &Shape, clients: usize, time: Duration) -> Result<Record> {
        let (one_key, hold) = (shape.keys == Keys::One, shape.hold.as_millis() as u64);
        let orders = if self.reads_words {
            [
                self.urls[0].clone(),
                shape.tasks.to_string(),
                clients.to_string(),
                one_key.to_string(),
                hold.to_string(),
            ]
            .to_vec()
        } else {
            let all = json!({
                "urls": self.urls, "tasks": shape.tasks, "clients": clients, "one_key": one_key, "hold_ms": hold
            });
            vec![all.to_string()]
        };
        let child = Command::new(&self.words[0])
            .args(&self.words[1..])
            .args(orders)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut child = Killed(child);
        let mut commands = child.0.stdin.take().context("it is piped")?;
        let mut lines = BufReader::new(child.0.stdout.take().context("it is piped")?).lines();
        let mut next = || lines.next().context("it ended too early, see above")?.context("it wrote no text");
        let ready = next()?;
        ensure!(ready == "ready", "it said {ready:?} and not that it is ready");
        writeln!(commands, "{}", WARM_UP.as_millis())?;
        next()?;
        writeln!(commands, "{}", time.as_millis())?;
        Ok(serde_json::from_str(&next()?)?)
    }
}

/// A process that goes when this does.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // They fail if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
