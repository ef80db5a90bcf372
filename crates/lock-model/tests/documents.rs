//! The traces in the documentation are those that are kept and replayed.

use std::{fs, path::Path};

use lock_model::{catalogue, kept};

const MARK: &str = "<!-- trace: ";

#[test]
fn each_trace_in_the_documentation_is_a_kept_one() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let text = fs::read_to_string(docs.join("models.md")).expect("docs/models.md tells what the models show");
    let shown: Vec<_> = text.split(MARK).skip(1).collect();
    assert!(!shown.is_empty(), "no trace is shown");
    for part in shown {
        let (title, rest) = part.split_once(" -->\n```text\n").expect("a block of text follows the mark");
        let (id, property) = title.split_once(' ').expect("the mark names model and property");
        let trace = kept(id, property).expect("the trace is kept");
        let block = rest.split("```").next().unwrap_or_default();
        assert_eq!(block, trace.to_string(), "{title}: copy the kept trace");
    }
}

#[test]
fn each_model_is_told_of() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let text = fs::read_to_string(docs.join("models.md")).expect("docs/models.md tells what the models show");
    for entry in catalogue() {
        let row = format!("| {} | {} |", entry.id, entry.title);
        assert!(text.contains(&row), "the table lacks {}: run `lock-model all` and copy its table", entry.id);
    }
}
