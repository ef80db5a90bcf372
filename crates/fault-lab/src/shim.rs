//! The clock of a process, set from outside: a small library that is loaded before all others.

use std::{
    env, fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::{NamedTempFile, TempPath};

const SOURCE: &str = include_str!("shim.c");

/// The setting of one process's clock, which it reads at each look at its clock.
#[derive(Debug)]
pub(crate) struct Shim {
    file: TempPath,
}

impl Shim {
    /// Makes one that shows the true time until it is [set](Self::set).
    pub(crate) fn new() -> Result<Self> {
        let shim = Self { file: NamedTempFile::with_prefix("fault-lab-clock-")?.into_temp_path() };
        fs::write(&shim.file, [0; 24])?;
        shim.set(Duration::ZERO, false, 1.0)?;
        Ok(shim)
    }

    /// Returns the variables under which a process has this clock.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", library().to_owned()), ("FAULT_LAB_CLOCK", self.file.to_path_buf())]
    }

    /// Sets the wall clock off by `offset`, backwards if so, and from now on lets it run at `rate`.
    pub(crate) fn set(&self, offset: Duration, backwards: bool, rate: f64) -> Result<()> {
        let nanos = i64::try_from(offset.as_nanos())?;
        let nanos = if backwards { -nanos } else { nanos };
        let started = i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_nanos())?;
        let file = fs::OpenOptions::new().write(true).open(&self.file)?;
        let bytes = [nanos.to_ne_bytes(), started.to_ne_bytes(), rate.to_ne_bytes()].concat();
        file.write_all_at(&bytes, 0).context("cannot set a clock")
    }
}

/// The library, compiled once by [`prepare`].
fn library() -> &'static Path {
    LIBRARY.get().expect("the lab prepares before it starts servers")
}

static LIBRARY: OnceLock<PathBuf> = OnceLock::new();

/// Compiles the library.
///
/// # Errors
///
/// There is no C compiler: the error says so.
pub(crate) fn prepare(directory: &Path) -> Result<()> {
    let (source, library) = (directory.join("shim.c"), directory.join("shim.so"));
    fs::write(&source, SOURCE)?;
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .with_context(|| {
            format!("cannot run the C compiler {compiler:?}, which the clock of Redis takes; install one, or set CC")
        })?;
    if !output.status.success() {
        bail!("the clock shim does not compile:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    LIBRARY.get_or_init(|| library);
    Ok(())
}
