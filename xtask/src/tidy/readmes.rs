//! The front page of each crate that is published: the same five headings, and the same text in its documentation.

use toml::Table;

use super::{File, Tree, Violation};

const HEADINGS: [&str; 5] =
    ["What it promises", "What it does not", "How it works", "Options", "When servers fail"];

const INCLUDED: &str = "#![doc = include_str!(\"../README.md\")]";

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    tree.crates()
        .filter(|name| is_published(tree, name))
        .flat_map(|name| [headings(tree, name), documentation(tree, name)].into_iter().flatten())
        .chain(tree.files.iter().filter(|file| file.path.ends_with("README.md")).flat_map(marks))
        .collect()
}

/// A manifest that is no TOML is reported elsewhere.
pub(super) fn is_published(tree: &Tree, name: &str) -> bool {
    let manifest = tree.find(&format!("crates/{name}/Cargo.toml"));
    let manifest = manifest.and_then(|file| file.text.parse::<Table>().ok());
    manifest.is_some_and(|manifest| {
        let publish = manifest.get("package").and_then(|package| package.get("publish")?.as_bool());
        publish != Some(false)
    })
}

fn headings(tree: &Tree, name: &str) -> Option<Violation> {
    let path = format!("crates/{name}/README.md");
    let wanted = || HEADINGS.map(|heading| format!("`## {heading}`")).join(", ");
    let Some(readme) = tree.find(&path) else {
        let advice = format!("the file is missing: write it under the headings {}", wanted());
        return Some(Violation { path, line: 1, advice });
    };
    let mut in_code = false;
    let found = readme.text.lines().enumerate().filter_map(|(index, line)| {
        in_code ^= line.starts_with("```");
        Some((index + 1, line.strip_prefix("## ").filter(|_| !in_code)?))
    });
    let found: Vec<_> = found.collect();
    if found.iter().map(|(_, heading)| heading).eq(&HEADINGS) {
        return None;
    }
    let differs = found.iter().zip(HEADINGS).find(|((_, heading), wanted)| heading != wanted);
    let line = differs.map(|((line, _), _)| *line).or(found.get(HEADINGS.len()).map(|(line, _)| *line));
    let line = line.unwrap_or_else(|| readme.text.lines().count().max(1));
    Some(readme.violation(line, format!("its headings must be {}, as those of all crates", wanted())))
}

fn documentation(tree: &Tree, name: &str) -> Option<Violation> {
    let lib = tree.find(&format!("crates/{name}/src/lib.rs"))?;
    let is_included = lib.text.lines().any(|line| line == INCLUDED);
    (!is_included).then(|| lib.violation(1, format!("make the README its documentation: {INCLUDED}")))
}

/// Rustdoc's own marks, which the page of the repository shows as they are.
fn marks(file: &File) -> impl Iterator<Item = Violation> {
    let mut language = None;
    file.text.lines().enumerate().filter_map(move |(index, line)| {
        if let Some(fence) = line.strip_prefix("```") {
            language = if language.is_none() { Some(fence) } else { None };
            return None;
        }
        let advice = match language {
            Some(code) if code.starts_with("rust") && (line == "#" || line.starts_with("# ")) => {
                "a hidden line of a program is shown to those who read the file: write whole programs"
            }
            None if line.split("[`").skip(1).any(is_for_rustdoc) => {
                "only rustdoc understands this link: name the item without brackets"
            }
            _ => return None,
        };
        Some(file.violation(index + 1, advice))
    })
}

/// Whether what follows the opening of a link leads to an item, and not to a file or an address.
fn is_for_rustdoc(link: &str) -> bool {
    let target = link.split_once("`]").and_then(|(_, after)| after.strip_prefix('(')?.split(')').next());
    !target.is_some_and(|target| target.contains(['/', '.', '#']))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{places, tree},
        INCLUDED, check,
    };

    const README: &str = "\
# lock-a
## What it promises
```sh
## a comment
```
## What it does not
## How it works
### In detail
## Options
## When servers fail
";

    fn violations(readme: &str, lib: &str) -> Vec<String> {
        let files = [
            ("crates/lock-a/Cargo.toml", "[package]\nname = \"lock-a\"\n"),
            ("crates/lock-a/README.md", readme),
            ("crates/lock-a/src/lib.rs", lib),
            ("crates/tests-only/Cargo.toml", "[package]\npublish = false\n"),
        ];
        places(&check(&tree(&files)))
    }

    #[test]
    fn a_readme_has_the_five_headings_in_their_order() {
        assert!(violations(README, INCLUDED).is_empty());
        for (old, new, line) in [
            ("## Options\n", "", 9),
            ("## Options", "## Settings", 9),
            ("## When servers fail\n", "", 9),
            ("fail\n", "fail\n## More\n", 11),
        ] {
            let place = format!("crates/lock-a/README.md:{line}");
            assert_eq!(violations(&README.replace(old, new), INCLUDED), [place], "{old:?}");
        }
    }

    #[test]
    fn a_published_crate_has_a_readme() {
        let manifest = ("crates/lock-a/Cargo.toml", "[package]\nname = \"lock-a\"\n");
        assert_eq!(places(&check(&tree(&[manifest]))), ["crates/lock-a/README.md:1"]);
    }

    #[test]
    fn the_readme_is_the_front_page_of_the_documentation() {
        assert!(violations(README, &format!("//! A lock.\n//!\n{INCLUDED}\n")).is_empty());
        assert_eq!(violations(README, "//! A lock.\n"), ["crates/lock-a/src/lib.rs:1"]);
    }

    #[test]
    fn a_readme_has_no_marks_that_only_rustdoc_understands() {
        let place = |line: &str| {
            let text = README.replace("## How it works\n", &format!("{line}\n## How it works\n"));
            violations(&text, INCLUDED)
        };
        for link in ["[`Key`]", "[`Key`](crate::Key)", "see [`new`](Self::new) and [`b`](b.md)"] {
            assert_eq!(place(link), ["crates/lock-a/README.md:7"], "{link}");
        }
        assert!(place("[`examples/`](examples/a.rs), [`b`](https://b.example), `c`").is_empty());
        let program = |line: &str| place(&format!("```rust\n{line}\n```"));
        assert_eq!(program("# fn main() {"), ["crates/lock-a/README.md:8"]);
        assert!(program("#[test]").is_empty());
    }
}
