//! Executables are found, and a missing one is explained.

use test_cluster::tools::{REDIS_SERVER, Tool, Version, find, point_links_inward};

#[test]
fn redis_is_found_and_says_its_version() {
    let version = find(&REDIS_SERVER).unwrap().version().unwrap();
    assert!(version >= Version { major: 5, minor: 0, patch: 0 }, "{version}");
}

#[test]
fn a_missing_executable_is_explained_in_a_sentence() {
    let tool = Tool { name: "no-such-server", env: "NO_SUCH_SERVER_BIN" };
    assert_eq!(
        find(&tool).unwrap_err().to_string(),
        "no-such-server was not found on PATH nor under target/tools; \
         run `cargo xtask setup`, or set NO_SUCH_SERVER_BIN to its path"
    );
}

#[test]
fn a_variable_that_points_nowhere_is_an_error() {
    // This variable is always set, and to a list of directories.
    let tool = Tool { name: "redis-server", env: "PATH" };
    let error = find(&tool).unwrap_err().to_string();
    assert!(error.starts_with("PATH is set to "), "{error}");
    assert!(error.ends_with("which is not an executable file"), "{error}");
}

#[test]
fn a_version_is_found_in_what_servers_print() {
    let seven = Version { major: 7, minor: 0, patch: 15 };
    assert_eq!(
        Version::find("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"),
        Some(seven)
    );
    assert_eq!(Version::find("no version, not even 7.0"), None);
}

#[test]
fn links_of_unpacked_packages_are_pointed_inward() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let path = |path: &str| root.path().join(path);
    std::fs::create_dir_all(path("etc/java"))?;
    std::fs::create_dir_all(path("usr/lib"))?;
    std::fs::write(path("etc/java/settings"), "inside")?;
    for (link, target) in
        [("settings", "/etc/java/settings"), ("outside", "/etc/hosts"), ("beside", "settings")]
    {
        std::os::unix::fs::symlink(target, path("usr/lib").join(link))?;
    }
    for _ in 0..2 {
        point_links_inward(root.path())?;
        assert_eq!(std::fs::read_link(path("usr/lib/settings"))?, path("etc/java/settings"));
        assert_eq!(std::fs::read_link(path("usr/lib/outside"))?.to_str(), Some("/etc/hosts"));
        assert_eq!(std::fs::read_to_string(path("usr/lib/beside"))?, "inside");
    }
    Ok(())
}
