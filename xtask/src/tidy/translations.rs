//! A translation says what its original says: the same headings, commands and tables, in the same order.

use std::collections::BTreeSet;

use super::{File, Tree, Violation};

/// Each original and its translation.
const PAIRS: &[(&str, &str)] = &[
    ("README.md", "README.zh-CN.md"),
    ("docs/choosing.md", "docs/choosing.zh-CN.md"),
    ("docs/sharding.md", "docs/sharding.zh-CN.md"),
];

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let pair = |(original, translation): &(&str, &str)| match (tree.find(original), tree.find(translation)) {
        (Some(original), Some(translation)) => difference(original, translation),
        (None, _) => Some(missing(original, "write it, and then its translation")),
        (_, None) => Some(missing(translation, &format!("translate {original}"))),
    };
    PAIRS.iter().filter_map(pair).collect()
}

fn missing(path: &str, advice: &str) -> Violation {
    Violation { path: path.to_owned(), line: 1, advice: format!("the file is missing: {advice}") }
}

/// The first place where they part, since all that follows is shifted.
fn difference(original: &File, translation: &File) -> Option<Violation> {
    let (wanted, found) = (outline(original), outline(translation));
    let index = (0..wanted.len().max(found.len()))
        .find(|&index| wanted.get(index).map(|part| &part.what) != found.get(index).map(|part| &part.what))?;
    let end = |file: &File| Part { line: file.text.lines().count().max(1), what: "no more".to_owned() };
    let Part { line, what } = wanted.into_iter().nth(index).unwrap_or_else(|| end(original));
    let here = found.into_iter().nth(index).unwrap_or_else(|| end(translation));
    let advice =
        format!("here is {}, but {}:{line} has {what}: bring both into step", here.what, original.path);
    Some(translation.violation(here.line, advice))
}

/// What must be alike in every language.
struct Part {
    line: usize,
    what: String,
}

fn outline(file: &File) -> Vec<Part> {
    let mut language = None;
    let mut parts = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let what = match (line.trim().strip_prefix("```"), language) {
            (Some(named), None) => {
                language = Some(named);
                Some(format!("a block of {named:?}"))
            }
            (Some(_), Some(_)) => {
                language = None;
                None
            }
            (None, Some("sh")) => Some(format!("the command `{line}`")),
            // The comments in a program are translated.
            (None, Some(_)) => None,
            (None, None) => part_of_text(line),
        };
        parts.extend(what.map(|what| Part { line: index + 1, what }));
    }
    parts
}

fn part_of_text(line: &str) -> Option<String> {
    if line.starts_with('#') {
        let level = line.chars().take_while(|c| *c == '#').count();
        return Some(format!("a heading of level {level}"));
    }
    let cells = line.strip_prefix('|')?.matches('|').count();
    let names = crates(line).into_iter().collect::<Vec<_>>().join(", ");
    Some(format!("a row of {cells} cells that names {}", if names.is_empty() { "no crate" } else { &names }))
}

/// The names and the link targets of crates, whatever the order of words.
fn crates(line: &str) -> BTreeSet<&str> {
    let names = line.split('`').skip(1).step_by(2).filter(|code| code.starts_with("lock-"));
    let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    names.chain(links.filter(|link| link.contains("crates/"))).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::tree, check};

    const ORIGINAL: &str = "\
# Locks
## Try
```sh
cargo xtask tutorial
```
```rust
lock(); // waits
```
| you have | crate |
|---|---|
| one or two of `lock-a` | [`lock-b`](crates/lock-b) |
";

    fn advice(translation: &str) -> Vec<String> {
        let files = [
            ("README.md", ORIGINAL),
            ("README.zh-CN.md", translation),
            ("docs/choosing.md", ORIGINAL),
            ("docs/choosing.zh-CN.md", ORIGINAL),
            ("docs/sharding.md", ORIGINAL),
            ("docs/sharding.zh-CN.md", ORIGINAL),
        ];
        check(&tree(&files)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn words_may_differ() {
        let translation =
            ORIGINAL.replace("Locks", "锁").replace("waits", "等待").replace("one or two of ", "");
        assert_eq!(advice(&format!("{translation}\n更多\n")), [""; 0]);
    }

    #[test]
    fn headings_commands_and_tables_may_not() {
        for (old, new, line) in [
            ("## Try", "### Try", 2),
            ("tutorial\n", "tutorial 01\n", 4),
            ("cargo xtask tutorial\n", "", 5),
            ("`lock-a`", "`lock-c`", 11),
            ("](crates/lock-b", "](crates/lock-a", 11),
            (" | [`lock-b`](crates/lock-b)", "", 11),
        ] {
            let found = advice(&ORIGINAL.replace(old, new));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(&format!("README.zh-CN.md:{line}: here is ")), "{found:?}");
        }
    }

    #[test]
    fn what_is_left_out_or_added_at_the_end_is_seen() {
        let found = advice("# 锁\n");
        let expected = "README.zh-CN.md:1: here is no more, but README.md:2 has a heading of level 2: bring both into \
                        step";
        assert_eq!(found, [expected]);
        let found = advice(&format!("{ORIGINAL}## 更多\n"));
        assert!(found[0].starts_with("README.zh-CN.md:12: here is a heading"), "{found:?}");
    }

    #[test]
    fn a_translation_must_be_there() {
        let found = check(&tree(&[("README.md", ORIGINAL)]));
        assert_eq!(found[0].to_string(), "README.zh-CN.md:1: the file is missing: translate README.md");
    }
}
