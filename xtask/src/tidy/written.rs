//! Rules for what a command writes: it is as the command would write it now.

use test_cluster::docker;

use super::{Tree, Violation};

const COMPOSE: &str = "docker/compose.yaml";

pub(super) fn check(tree: &Tree) -> Option<Violation> {
    let wanted = docker::compose_file();
    let found = tree.find(COMPOSE).map_or("", |file| file.text.as_str());
    if found == wanted {
        return None;
    }
    let same = found.lines().zip(wanted.lines()).take_while(|(found, wanted)| found == wanted).count();
    let advice = "it is not what test-cluster says: run `cargo xtask docker write`".to_owned();
    Some(Violation { path: COMPOSE.to_owned(), line: same + 1, advice })
}

#[cfg(test)]
mod tests {
    use test_cluster::docker;

    use super::{super::tests::tree, COMPOSE, check};

    #[test]
    fn a_compose_file_that_was_edited_or_is_missing_is_reported_where_it_differs() {
        let text = docker::compose_file();
        assert_eq!(check(&tree(&[(COMPOSE, &text)])), None);
        let edited = text.replacen("services:", "service:", 1);
        let line = text.lines().position(|line| line == "services:").unwrap() + 1;
        assert_eq!(check(&tree(&[(COMPOSE, &edited)])).unwrap().line, line);
        assert_eq!(check(&tree(&[])).unwrap().line, 1);
    }
}
