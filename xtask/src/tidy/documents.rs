//! Rules for what people read: the map names what is there, and the commands of the README work.

use clap::Parser;

use super::{File, Tree, Violation};
use crate::Cli;

const README_LIMIT: usize = 200;

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    match tree.find("ARCHITECTURE.md") {
        Some(map) => violations.extend(map_is_true(tree, map)),
        None => violations.push(missing("ARCHITECTURE.md", "write the map of the workspace")),
    }
    match tree.find("README.md") {
        Some(readme) => {
            violations.extend(length(readme));
            violations.extend(commands(readme).filter_map(|(line, command)| {
                let objection = objection(tree, command)?;
                Some(readme.violation(line, format!("`{command}`: {objection}")))
            }));
        }
        None => violations.push(missing("README.md", "say what this is and how it is used")),
    }
    violations
}

fn missing(path: &str, advice: &str) -> Violation {
    Violation { path: path.to_owned(), line: 1, advice: format!("the file is missing: {advice}") }
}

/// The map names every crate, and no crate that does not exist.
fn map_is_true(tree: &Tree, map: &File) -> Vec<Violation> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut violations = Vec::new();
    for name in tree.crates() {
        if !map.text.split(|c| !is_word(c)).any(|word| word == name) {
            violations.push(map.violation(1, format!("say what crates/{name} is for")));
        }
    }
    for (index, line) in map.text.lines().enumerate() {
        // After a slash it is part of an address, such as that of a crate in a registry.
        let in_paths = line
            .match_indices("crates/")
            .filter(|(at, _)| !line[..*at].ends_with('/'))
            .map(|(at, found)| line[at + found.len()..].split(|c| !is_word(c)).next().unwrap_or_default());
        let quoted = line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|code| code.starts_with("lock-") && code.chars().all(is_word));
        for name in in_paths.chain(quoted).filter(|name| !name.is_empty()) {
            if !tree.crates().any(|known| known == name) {
                violations.push(map.violation(
                    index + 1,
                    format!("there is no crate {name}: correct the name or remove it"),
                ));
            }
        }
    }
    violations
}

fn length(readme: &File) -> Option<Violation> {
    let lines = readme.text.lines().count();
    (lines >= README_LIMIT).then(|| {
        readme.violation(lines, format!("keep it under {README_LIMIT} lines: link to what goes deeper"))
    })
}

/// The calls of cargo in blocks of shell, each with its line.
fn commands(readme: &File) -> impl Iterator<Item = (usize, &str)> {
    let mut in_shell = false;
    readme.text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            in_shell = ["sh", "bash", "shell", "console"].contains(&language);
            return None;
        }
        let command = line.strip_prefix("$ ").unwrap_or(line);
        (in_shell && command.starts_with("cargo ")).then_some((index + 1, command))
    })
}

/// Why a reader who types `command` would be disappointed.
fn objection(tree: &Tree, command: &str) -> Option<String> {
    let words: Vec<_> = command.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
    match words.as_slice() {
        ["cargo", "xtask", ..] => {
            let error = Cli::try_parse_from(&words[1..]).err().filter(|error| error.use_stderr())?;
            Some(format!("this is not understood: {}", error.to_string().lines().next().unwrap_or_default()))
        }
        ["cargo", "run", options @ ..] => {
            let name = options.iter().skip_while(|option| **option != "--example").nth(1);
            let Some(name) = name else {
                return Some("only examples are run: add --example NAME".to_owned());
            };
            let file = format!("/{name}.rs");
            let exists = tree
                .files
                .iter()
                .any(|known| known.path.starts_with("examples/") && known.path.ends_with(&file));
            (!exists).then(|| format!("there is no {name}.rs in examples/"))
        }
        ["cargo", "add", name, ..] => {
            let exists = !name.starts_with("lock-") || tree.crates().any(|known| known == *name);
            (!exists).then(|| format!("there is no crate {name}"))
        }
        _ => Some("no test runs it: use `cargo xtask`, `cargo run --example` or `cargo add`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{places, tree},
        check,
    };

    const MAP: &str =
        "# Map\n\n- `crates/lock-a`: waits, unlike `lock_api` (https://crates.io/crates/lock_api).\n";

    fn violations(map: &str, readme: &str) -> Vec<String> {
        let files = [
            ("ARCHITECTURE.md", map),
            ("README.md", readme),
            ("crates/lock-a/Cargo.toml", ""),
            ("examples/01_local.rs", ""),
        ];
        places(&check(&tree(&files)))
    }

    #[test]
    fn every_crate_is_on_the_map() {
        assert!(violations(MAP, "").is_empty());
        assert_eq!(violations("# Map\n", ""), ["ARCHITECTURE.md:1"]);
        assert_eq!(
            violations("`crates/lock-a-b` is not it\n", ""),
            ["ARCHITECTURE.md:1", "ARCHITECTURE.md:1"]
        );
    }

    #[test]
    fn the_map_names_no_crate_that_does_not_exist() {
        assert_eq!(
            violations(&format!("{MAP}and `lock-b`\nand crates/c/src, in crates/*, lock-free\n"), ""),
            ["ARCHITECTURE.md:4", "ARCHITECTURE.md:5"]
        );
    }

    #[test]
    fn the_commands_of_the_readme_work() {
        let readme = "\
```console
$ cargo xtask tutorial 01
$ cargo xtask conformance --backend local # or another
$ cargo run --example 01_local
$ cargo add lock-a
```
cargo in the text
```rust
cargo fly
```
```sh
cargo xtask tutorial 77
cargo xtask fly
cargo run --example 77_none
cargo run
cargo add lock-b
cargo install everything
```
";
        let broken: Vec<_> = (12..=17).map(|line| format!("README.md:{line}")).collect();
        assert_eq!(violations(MAP, readme), broken);
    }

    #[test]
    fn the_readme_is_short() {
        assert!(violations(MAP, &"\n".repeat(199)).is_empty());
        assert_eq!(violations(MAP, &"\n".repeat(200)), ["README.md:200"]);
    }

    #[test]
    fn both_documents_must_be_there() {
        assert_eq!(places(&check(&tree(&[]))), ["ARCHITECTURE.md:1", "README.md:1"]);
    }
}
