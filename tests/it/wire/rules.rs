//! The rules themselves: each has a test that is named after it.

use std::{collections::BTreeSet, path::Path};

use walkdir::WalkDir;

/// How many there are.
const RULES: u32 = 41;

#[test]
fn each_rule_has_a_test_named_after_it() {
    let mut found = BTreeSet::new();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for file in WalkDir::new(tests).into_iter().map(Result::unwrap).filter(|file| file.file_type().is_file())
    {
        let text = fs_err::read_to_string(file.path()).unwrap();
        for (line, next) in text.lines().zip(text.lines().skip(1)) {
            let name = next.strip_prefix("fn rule_").filter(|_| line == "#[test]");
            found.extend(name.and_then(|name| name.split('_').next()?.parse::<u32>().ok()));
        }
    }
    let missing: Vec<u32> = (1..=RULES).filter(|rule| !found.contains(rule)).collect();
    assert_eq!(missing, [0_u32; 0]);
    assert!(found.iter().all(|rule| (1..=RULES).contains(rule)), "{found:?}");
}
