//! Rules for the manifests of packages: the lints of the workspace, and no `anyhow` in a library.

use toml::Table;

use super::{File, Tree, Violation};

/// May use `anyhow`, since only tests depend on them, or nothing.
const TEST_LIBRARIES: &[&str] = &["lock-bench", "lock-conformance", "lock-model"];

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let manifests = tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    manifests
        .flat_map(|file| match file.text.parse::<Table>() {
            Ok(manifest) => [lints(file, &manifest), errors(file, &manifest)].into_iter().flatten().collect(),
            Err(error) => vec![file.violation(1, format!("this is no TOML: {}", error.message()))],
        })
        .collect()
}

fn lints(file: &File, manifest: &Table) -> Option<Violation> {
    let is_shared = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool()) == Some(true);
    (!is_shared).then(|| file.violation(1, "take the lints of the workspace: [lints] workspace = true"))
}

fn errors(file: &File, manifest: &Table) -> Option<Violation> {
    let name = manifest.get("package")?.get("name")?.as_str()?;
    if !name.starts_with("lock-") || TEST_LIBRARIES.contains(&name) {
        return None;
    }
    let platforms =
        manifest.get("target").and_then(|target| target.as_table()).into_iter().flat_map(Table::values);
    let tables = [manifest.get("dependencies")]
        .into_iter()
        .chain(platforms.map(|platform| platform.get("dependencies")));
    let is_used = tables.flatten().any(|dependencies| dependencies.get("anyhow").is_some());
    is_used.then(|| {
        let line = file.text.lines().position(|line| line.starts_with("anyhow")).unwrap_or(0) + 1;
        file.violation(line, "a library has an error type of its own: move anyhow to [dev-dependencies]")
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{places, tree},
        check,
    };

    const GOOD: &str = "[package]\nname = \"lock-a\"\n[dev-dependencies]\nanyhow.workspace = true\n[lints]\nworkspace = true\n";

    fn violations(text: &str) -> Vec<String> {
        places(&check(&tree(&[("crates/lock-a/Cargo.toml", text)])))
    }

    #[test]
    fn a_package_takes_the_lints_of_the_workspace() {
        assert!(violations(GOOD).is_empty());
        assert!(violations("lints.workspace = true\n").is_empty());
        assert_eq!(
            violations(&GOOD.replace("true\n[lints]", "true\n[other]")),
            ["crates/lock-a/Cargo.toml:1"]
        );
    }

    #[test]
    fn a_library_has_no_anyhow_except_in_its_tests() {
        for table in ["[dependencies]", "[target.'cfg(unix)'.dependencies]"] {
            assert_eq!(
                violations(&GOOD.replace("[dev-dependencies]", table)),
                ["crates/lock-a/Cargo.toml:4"]
            );
        }
        let suite =
            GOOD.replace("[dev-dependencies]", "[dependencies]").replace("lock-a", "lock-conformance");
        assert!(violations(&suite).is_empty());
    }

    #[test]
    fn a_broken_manifest_is_named() {
        assert_eq!(violations("[package\n"), ["crates/lock-a/Cargo.toml:1"]);
    }
}
