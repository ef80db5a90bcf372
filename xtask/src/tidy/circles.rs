//! No circles of files in a published crate: whoever reads one reads on in one direction.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, Tree, Violation, readmes::is_published};

/// An error names its key, and what is no key is an error.
const ALLOWED: [&[&str]; 1] = [&["error", "key"]];

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let published = tree.crates().filter(|name| is_published(tree, name));
    published.flat_map(|name| circles(&Sources::of(tree, name))).collect()
}

/// The files of one crate, by the names of their modules; that of the root is empty.
struct Sources<'a> {
    files: BTreeMap<String, (&'a File, String)>,
    /// In which file each item stands, by its name; a name that stands in several is none.
    items: BTreeMap<String, Option<String>>,
}

impl<'a> Sources<'a> {
    fn of(tree: &'a Tree, name: &str) -> Self {
        let source = format!("crates/{name}/src/");
        let mut files = BTreeMap::new();
        for file in &tree.files {
            if let Some(path) = file.path.strip_prefix(&source).and_then(|path| path.strip_suffix(".rs")) {
                let module = path.strip_suffix("/mod").unwrap_or(path);
                let module = if ["lib", "main"].contains(&module) { "" } else { module };
                files.insert(module.to_owned(), (file, code(&file.text)));
            }
        }
        let mut items = BTreeMap::new();
        for (module, (_, code)) in &files {
            for item in code.lines().filter_map(item) {
                let place = Some(module.clone());
                items.entry(item.to_owned()).and_modify(|known| *known = None).or_insert(place);
            }
        }
        Self { files, items }
    }

    /// The files that one uses: where the items stand that it names by a path within the crate.
    fn used_by(&self, module: &str) -> BTreeSet<&str> {
        let code = &self.files[module].1;
        let paths = code.match_indices("crate::").filter(|(at, _)| !is_passed_on(&code[..*at]));
        let paths = paths.flat_map(|(at, found)| flatten(&code[at + found.len()..]));
        paths.filter_map(|path| self.file_of(&path)).filter(|used| *used != module).collect()
    }

    fn file_of(&self, path: &str) -> Option<&str> {
        let mut module = String::new();
        for part in path.split("::") {
            let deeper = if module.is_empty() { part.to_owned() } else { format!("{module}/{part}") };
            if !self.files.contains_key(&deeper) {
                let stands = self.items.get(part).and_then(Option::as_deref);
                return stands.or_else(|| self.files.get_key_value(&module).map(|(known, _)| known.as_str()));
            }
            module = deeper;
        }
        self.files.get_key_value(&module).map(|(known, _)| known.as_str())
    }
}

/// The code without comments and tests.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.map(|line| line.split("//").next().unwrap_or_default()).flat_map(|line| [line, "\n"]).collect()
}

/// The name of what a line begins to define at the outermost level.
fn item(line: &str) -> Option<&str> {
    let mut words = line.split([' ', '(', ')']).filter(|word| !["pub", "crate", "async", ""].contains(word));
    let kinds = ["struct", "enum", "trait", "fn", "const", "static", "type"];
    let is_outermost = !line.starts_with([' ', '}', '#']);
    words.next().filter(|word| is_outermost && kinds.contains(word))?;
    let name = words.next()?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// Whether what follows is made public under another path, and not used.
fn is_passed_on(before: &str) -> bool {
    let line = before.rsplit(['\n', ';']).next().unwrap_or_default().trim();
    line.starts_with("pub") && line.ends_with("use") || line.ends_with('$')
}

/// The paths in what begins with a path, or with a tree of them in braces.
fn flatten(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && !"_:".contains(c)).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let Some(inside) = rest.strip_prefix('{') else { return vec![path.to_owned()] };
    let (mut paths, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let branch = inside[start..at].trim();
                let branches = flatten(branch).into_iter().filter(|_| !branch.is_empty());
                paths.extend(branches.map(|branch| format!("{path}{branch}")));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    paths
}

/// Each pair of files of which either leads to the other, once.
fn circles(sources: &Sources<'_>) -> Vec<Violation> {
    let uses: BTreeMap<_, _> =
        sources.files.keys().map(|module| (module.as_str(), sources.used_by(module))).collect();
    let reached = |from: &str| {
        let (mut reached, mut next) = (BTreeSet::new(), uses[from].clone());
        while let Some(file) = next.pop_first() {
            if reached.insert(file) {
                next.extend(&uses[file]);
            }
        }
        reached
    };
    let mut violations = Vec::new();
    for (module, (file, _)) in &sources.files {
        let back = reached(module).into_iter().filter(|other| reached(other).contains(module.as_str()));
        let others: Vec<_> = back.filter(|other| *other > module.as_str()).collect();
        let is_allowed =
            |other: &&str| ALLOWED.iter().any(|pair| pair.contains(&module.as_str()) && pair.contains(other));
        if others.iter().any(|other| !is_allowed(other)) {
            let advice = format!("it uses {}, which use it: give them one direction", others.join(", "));
            violations.push(file.violation(1, advice));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{places, tree},
        check, flatten,
    };

    fn violations(files: &[(&str, &str)]) -> Vec<String> {
        let manifest = [("crates/a/Cargo.toml", "[package]\nname = \"a\"\n")];
        places(&check(&tree(&[&manifest, files].concat())))
    }

    #[test]
    fn a_circle_is_reported_also_through_a_module_that_passes_on() {
        let lib = ("crates/a/src/lib.rs", "mod b;\nmod c;\npub use crate::{b::B, c::C};\n");
        let c = ("crates/a/src/c.rs", "pub struct C;\n");
        let b = ("crates/a/src/b.rs", "use crate::{fmt, C};\npub struct B(C);\n");
        assert!(violations(&[lib, b, c]).is_empty());
        let back = ("crates/a/src/c.rs", "pub struct C;\nfn f(b: crate::B) {}\n");
        assert_eq!(violations(&[lib, b, back]), ["crates/a/src/b.rs:1"]);
        let in_text =
            ("crates/a/src/c.rs", "/// See [`B`](crate::B).\npub struct C;\n#[cfg(test)]\nuse crate::B;\n");
        assert!(violations(&[lib, b, in_text]).is_empty());
    }

    #[test]
    fn a_circle_of_three_is_one() {
        let files = [("b", "c::C"), ("c", "d::D"), ("d", "b::B")].map(|(name, used)| {
            let path = format!("crates/a/src/{name}.rs");
            (path, format!("use crate::{used};\npub struct {};\n", name.to_uppercase()))
        });
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        assert_eq!(violations(&files), ["crates/a/src/b.rs:1", "crates/a/src/c.rs:1"]);
    }

    #[test]
    fn trees_of_paths_are_flattened() {
        assert_eq!(flatten("b::{c::{D, E}, F};"), ["b::c::D", "b::c::E", "b::F"]);
        assert_eq!(flatten("b::c(1)"), ["b::c"]);
    }
}
