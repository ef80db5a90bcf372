//! Rules for Rust files: a first line that says what the file is for, a size, a width, and no blind sleeping in tests.

use super::{File, Tree, Violation};

const LONG: usize = 500;
const TOO_LONG: usize = 800;
const WIDTH: usize = 120;

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    rust_files(tree)
        .flat_map(|file| [first_line(file), length(file)].into_iter().flatten().chain(sleeps(file)))
        .chain(tree.files.iter().filter(|file| !is_generated(file)).flat_map(wide))
        .collect()
}

/// What is no violation yet.
pub(super) fn notes(tree: &Tree) -> Vec<String> {
    let lengths = rust_files(tree).map(|file| (file, file.text.lines().count()));
    let long = lengths.filter(|(_, lines)| (LONG + 1..=TOO_LONG).contains(lines));
    long.map(|(file, lines)| format!("{} has {lines} lines; think of splitting it", file.path)).collect()
}

fn rust_files(tree: &Tree) -> impl Iterator<Item = &File> {
    tree.files.iter().filter(|file| file.path.ends_with(".rs"))
}

fn first_line(file: &File) -> Option<Violation> {
    let is_said = ["//! ", "#![doc = include_str!("].iter().any(|start| file.text.starts_with(start));
    (!is_said).then(|| file.violation(1, "begin the file with a line `//! …` that says what it is for"))
}

fn length(file: &File) -> Option<Violation> {
    let lines = file.text.lines().count();
    (lines > TOO_LONG)
        .then(|| file.violation(lines, format!("{lines} lines are more than {TOO_LONG}: split the file")))
}

/// The compose file, which `cargo xtask docker write` makes.
fn is_generated(file: &File) -> bool {
    file.path.ends_with(".yaml")
}

/// Lines that do not fit beside each other on a screen. A table, an address or quoted data cannot be broken.
fn wide(file: &File) -> impl Iterator<Item = Violation> {
    let is_prose = file.path.ends_with(".md");
    let lines = file.text.lines().enumerate().filter(move |(_, line)| {
        // A character of Chinese is as wide as two of English.
        let width: usize =
            line.chars().map(|c| if ('\u{2e80}'..='\u{ffef}').contains(&c) { 2 } else { 1 }).sum();
        let is_whole = if is_prose {
            line.starts_with('|') || line.contains("](")
        } else {
            line.contains("{\"") || line.contains("\\\"")
        };
        width > WIDTH && !is_whole && !line.contains("://")
    });
    lines.map(|(index, _)| {
        file.violation(index + 1, format!("break the line: it is wider than {WIDTH} characters"))
    })
}

/// A test that sleeps hopes that the other side is done by then: it is slow when it is right, and wrong at times.
fn sleeps(file: &File) -> impl Iterator<Item = Violation> {
    let is_test = file.path.split('/').any(|part| part == "tests" || part == "tests.rs");
    let lines: Vec<_> = file.text.lines().collect();
    let first = if is_test { Some(0) } else { lines.iter().position(|line| line.trim() == "#[cfg(test)]") };
    let range = first.unwrap_or(lines.len())..lines.len();
    let blind = range.filter(move |&index| {
        let is_explained = |line: &str| line.contains("// why:");
        calls_sleep(lines[index])
            && !is_explained(lines[index])
            && !(index > 0 && is_explained(lines[index - 1]))
    });
    blind.map(|index| {
        file.violation(
            index + 1,
            "wait for a condition with a bound; where only time will do, say so: `// why: …`",
        )
    })
}

fn calls_sleep(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("sleep(")
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{places, tree},
        check, notes,
    };

    fn violations(path: &str, text: &str) -> Vec<String> {
        places(&check(&tree(&[(path, text)])))
    }

    #[test]
    fn a_file_begins_with_its_purpose() {
        assert!(violations("examples/a.rs", "//! What it is for.\n").is_empty());
        assert_eq!(violations("examples/a.rs", "use std::fs;\n"), ["examples/a.rs:1"]);
        assert_eq!(violations("examples/a.rs", ""), ["examples/a.rs:1"]);
        assert!(violations("src/lib.rs", "#![doc = include_str!(\"../README.md\")]\n").is_empty());
        assert!(violations("README.md", "# Locks\n").is_empty());
    }

    #[test]
    fn a_long_file_is_noted_and_a_very_long_one_refused() {
        let lines = |count: usize| format!("//! Long.\n{}", "\n".repeat(count - 1));
        assert!(notes(&tree(&[("a.rs", &lines(500))])).is_empty());
        assert_eq!(notes(&tree(&[("a.rs", &lines(501))])), ["a.rs has 501 lines; think of splitting it"]);
        assert!(violations("a.rs", &lines(800)).is_empty());
        assert_eq!(violations("a.rs", &lines(801)), ["a.rs:801"]);
    }

    #[test]
    fn a_line_fits_on_a_screen_unless_it_cannot_be_broken() {
        let long = "x".repeat(121);
        let places = |path: &str, line: &str| violations(path, &format!("//! A text.\n{line}\n"));
        assert!(places("a.rs", &long[1..]).is_empty());
        assert_eq!(places("a.rs", &long), ["a.rs:2"]);
        assert_eq!(places("a.md", &long), ["a.md:2"]);
        assert_eq!(places("a.md", &"锁".repeat(61)), ["a.md:2"]);
        for unbroken in [format!("| {long} |"), format!("[{long}](a.md)"), format!("https://{long}")] {
            assert!(places("a.md", &unbroken).is_empty(), "{unbroken}");
        }
    }

    #[test]
    fn a_test_says_why_it_sleeps() {
        // why: these are texts to check, nothing here sleeps.
        let blind = "//! A test.\nthread::sleep(SECOND);\n";
        assert_eq!(violations("crates/a/tests/b.rs", blind), ["crates/a/tests/b.rs:2"]);
        assert!(violations("crates/a/src/b.rs", blind).is_empty());
        assert_eq!(
            violations("src/b.rs", &blind.replace("A test.", "A test.\n#[cfg(test)]")),
            ["src/b.rs:3"]
        );
        for explained in [
            blind.replace("thread", "// why: the lease must end\nthread"),
            blind.replace(";", "; // why: the lease must end"),
            blind.replace("thread", "// thread"),
            blind.replace("thread::", "oversleep_or_"),
        ] {
            assert!(violations("tests/b.rs", &explained).is_empty(), "{explained}");
        }
    }
}
