//! Finds the executables of servers: where a variable points, on PATH, or under `target/tools`.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// The Redis server.
pub const REDIS_SERVER: Tool = Tool { name: "redis-server", env: "REDIS_SERVER_BIN" };

/// The etcd server.
pub const ETCD: Tool = Tool { name: "etcd", env: "ETCD_BIN" };

/// What runs ZooKeeper; [`Installation`](crate::zookeeper::Installation) looks in `JAVA_HOME` before.
pub const JAVA: Tool = Tool { name: "java", env: "JAVA_BIN" };

/// What delays system calls of a server.
pub const STRACE: Tool = Tool { name: "strace", env: "STRACE_BIN" };

/// An executable that tests need and the system may lack.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// The name of the executable.
    pub name: &'static str,
    /// The environment variable that holds its path, if a person wants a certain one.
    pub env: &'static str,
}

/// An executable that was found, and what it needs to run.
#[derive(Clone, Debug)]
pub struct Executable {
    /// Where it is.
    pub path: PathBuf,
    /// The `LD_LIBRARY_PATH` for an executable under [`tools_root`], whose libraries may be there as well.
    pub library_path: Option<OsString>,
}

/// A version as servers print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u64,
    /// The second number.
    pub minor: u64,
    /// The third number.
    pub patch: u64,
}

/// Finds `tool`: first by its environment variable, then on `PATH`, then under [`tools_root`].
///
/// # Errors
///
/// It is in none of these places, or the variable points to something that cannot be executed.
pub fn find(tool: &Tool) -> Result<Executable> {
    let Tool { name, env } = tool;
    if let Some(path) = env::var_os(env).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        ensure!(is_executable(&path), "{env} is set to {}, which is not an executable file", path.display());
        return Executable::at(path);
    }

    let on_path = env::var_os("PATH").unwrap_or_default();
    let unpacked = ["usr/bin", "usr/sbin", "bin"].map(|dir| tools_root().join(dir));
    let found =
        env::split_paths(&on_path).chain(unpacked).map(|dir| dir.join(name)).find(|path| is_executable(path));
    match found {
        Some(path) => Executable::at(path),
        None => bail!(
            "{name} was not found on PATH nor under target/tools; \
             run `cargo xtask setup`, or set {env} to its path"
        ),
    }
}

/// Returns where `cargo xtask setup` unpacks the packages of the distribution: `target/tools/root` of this workspace.
pub fn tools_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate is in crates/")
        .join("target/tools/root")
}

/// Points the links in `root` that lead to absolute paths to where these are below `root`, if they are.
///
/// Packages are made to be unpacked at the root of a system. Debian's Java does not run otherwise: its settings are
/// links to `/etc`.
///
/// # Errors
///
/// A directory cannot be read, or a link not be replaced.
pub fn point_links_inward(root: &Path) -> Result<()> {
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in
            fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?
        {
            let path = entry?.path();
            if !path.is_symlink() {
                left.extend(path.is_dir().then_some(path));
                continue;
            }
            let target = fs::read_link(&path)?;
            let Ok(inner) = target.strip_prefix("/").map(|target| root.join(target)) else { continue };
            if !target.starts_with(root) && inner.symlink_metadata().is_ok() {
                fs::remove_file(&path)
                    .and_then(|()| symlink(&inner, &path))
                    .with_context(|| format!("cannot replace the link {}", path.display()))?;
            }
        }
    }
    Ok(())
}

impl Executable {
    fn at(path: PathBuf) -> Result<Executable> {
        let root = tools_root();
        let library_path = path.starts_with(&root).then(|| library_path(&root)).transpose()?;
        Ok(Executable { path, library_path })
    }

    /// Returns the command line that runs it with `arguments`, as one process.
    pub fn command_line<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Vec<OsString> {
        let mut words = Vec::new();
        if let Some(library_path) = &self.library_path {
            let mut variable = OsString::from("LD_LIBRARY_PATH=");
            variable.push(library_path);
            words.extend(["env".into(), variable]);
        }
        words.push(self.path.clone().into());
        words.extend(arguments.iter().map(Into::into));
        words
    }

    /// Asks it by `--version`.
    ///
    /// # Errors
    ///
    /// It cannot be run, which is often a missing library, or prints no version.
    pub fn version(&self) -> Result<Version> {
        let words = self.command_line(&["--version"]);
        let output = Command::new(&words[0])
            .args(&words[1..])
            .output()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        Version::find(&printed).with_context(|| {
            format!(
                "`{} --version` printed no version; it said: {} {}",
                self.path.display(),
                printed.trim(),
                String::from_utf8_lossy(&output.stderr).trim()
            )
        })
    }
}

impl Version {
    /// Returns the first version in `text`, such as 7.0.15 in `Redis server v=7.0.15 sha=0`.
    pub fn find(text: &str) -> Option<Version> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
            let mut numbers = word.split('.').map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some(Version { major: next()?, minor: next()?, patch: next()? })
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { major, minor, patch } = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Every directory under `root` where a distribution puts libraries, then what the variable held before.
fn library_path(root: &Path) -> Result<OsString> {
    let mut dirs = Vec::new();
    for lib in ["usr/lib", "lib", "usr/lib64", "lib64"].map(|dir| root.join(dir)) {
        let entries = fs::read_dir(&lib).into_iter().flatten().flatten();
        let triplets = entries.filter(|entry| entry.file_name().to_string_lossy().contains("-linux-"));
        dirs.extend(triplets.map(|entry| entry.path()));
        dirs.push(lib);
    }
    let before = env::var_os("LD_LIBRARY_PATH").filter(|before| !before.is_empty());
    dirs.extend(before.iter().flat_map(env::split_paths));
    env::join_paths(dirs)
        .context("the path of this workspace contains a colon, which LD_LIBRARY_PATH cannot hold")
}
