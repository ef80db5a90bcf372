//! The Debian image that the servers are installed into: the engine has it, a registry has it, or debootstrap makes it.

use std::env;

use anyhow::{Context, Result, bail};
use duct::cmd;
use test_cluster::docker::Engine;

use crate::{
    progress::{Progress, tail},
    workspace,
};

/// Where debootstrap gets packages from, unless `DEBIAN_MIRROR` says otherwise.
const MIRROR: &str = "http://deb.debian.org/debian";

/// Fails where [`ensure`] certainly would, and says why. It may pull the base.
pub(super) fn check(engine: &Engine) -> Result<()> {
    let base = Engine::base()?;
    if engine.has(&base) {
        return Ok(());
    }
    let Err(refusal) = engine.docker(["pull", &base]) else { return Ok(()) };
    can_make().with_context(|| {
        format!("the image {base} cannot be pulled ({refusal:#}), and it cannot be made here either")
    })
}

/// Sees to it that the engine has the base.
pub(super) fn ensure(engine: &Engine) -> Result<()> {
    check(engine)?;
    let base = Engine::base()?;
    if engine.has(&base) { Ok(()) } else { make(engine, &base) }
}

fn can_make() -> Result<()> {
    if !runs("debootstrap") {
        bail!("there is no debootstrap; on Debian and Ubuntu: apt-get install debootstrap");
    }
    let user = cmd!("id", "-u").read().context("cannot run id")?;
    if user != "0" {
        bail!("debootstrap takes root; once, as root: cargo xtask docker images");
    }
    Ok(())
}

fn runs(program: &str) -> bool {
    cmd!(program, "--version").stdout_null().stderr_null().run().is_ok()
}

/// A minimal Debian from its own mirror, without the packages' archives, imported under the name `base`.
fn make(engine: &Engine, base: &str) -> Result<()> {
    let home = workspace::target().join("docker");
    let root = home.join("base");
    workspace::empty(&root)?;
    let suite = suite(base)?;
    let mirror = env::var("DEBIAN_MIRROR").ok().filter(|mirror| !mirror.is_empty());
    let mirror = mirror.unwrap_or_else(|| MIRROR.to_owned());
    let archive = home.join("base.tar");
    for (label, command) in [
        ("debootstrap", cmd!("debootstrap", "--variant=minbase", suite, &root, mirror)),
        (
            "packing the base",
            cmd!(
                "tar",
                "-C",
                &root,
                "--exclude=./var/cache/apt/archives/*",
                "--exclude=./var/lib/apt/lists/*",
                "-cf",
                &archive,
                "."
            ),
        ),
    ] {
        let progress = Progress::start(label);
        let log = home.join("base.log");
        let succeeded = progress.run(&command, &log)?;
        progress.finish(succeeded);
        if !succeeded {
            bail!("{label} failed:\n{}", tail(&log));
        }
    }
    engine
        .docker(["import".as_ref(), archive.as_os_str(), base.as_ref()])
        .context("the engine does not take the base")?;
    // A system of its own would confuse whoever searches target/.
    workspace::empty(&home)
}

/// The release in `debian:bookworm-20250520-slim`.
fn suite(base: &str) -> Result<&str> {
    let tag = base.strip_prefix("debian:").with_context(|| format!("{base} is not named after Debian"))?;
    Ok(tag.split('-').next().unwrap_or(tag))
}

#[cfg(test)]
mod tests {
    use test_cluster::docker::Engine;

    use super::suite;

    #[test]
    fn the_base_of_the_dockerfile_names_a_release_of_debian() {
        assert_eq!(suite(&Engine::base().unwrap()).unwrap(), "bookworm");
        assert!(suite("redis:7.4").is_err());
    }
}
