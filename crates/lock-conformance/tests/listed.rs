//! What the source of the groups must look like, so that no property is forgotten.

use std::{collections::BTreeSet, fs, path::Path};

use lock_conformance::{MemoryFixture, properties};

/// Every public function of a group is a property that runs, and states its promise in the line above it.
#[test]
fn every_property_is_listed_and_states_its_promise() {
    let listed: BTreeSet<_> = properties::<MemoryFixture>()
        .iter()
        .map(|property| format!("{}::{}", property.group(), property.name()))
        .collect();
    let mut written = BTreeSet::new();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/groups")).unwrap() {
        let path = file.unwrap().path();
        let (group, source) =
            (path.file_stem().unwrap().to_string_lossy(), fs::read_to_string(&path).unwrap());
        let lines: Vec<_> = source.lines().collect();
        for pair in lines.windows(2) {
            let Some(function) = pair[1].strip_prefix("pub async fn ") else { continue };
            let name = function.split('(').next().unwrap_or_default();
            assert!(pair[0].starts_with("/// "), "{group}::{name} does not state its promise");
            assert!(written.insert(format!("{group}::{name}")), "{group}::{name} is there twice");
        }
    }
    assert_eq!(written, listed, "written, but not listed with properties!, or the other way round");
}
