//! How many random cases a property is tried with.

use proptest::test_runner::Config;

/// Settings of a property whose cases take servers and processes: so many, unless `PROPTEST_CASES` says otherwise.
pub(crate) fn cases(usual: u32) -> Config {
    let cases =
        std::env::var("PROPTEST_CASES").map_or(usual, |cases| cases.parse().expect("a number of cases"));
    Config { cases, max_shrink_iters: 200, failure_persistence: None, ..Config::default() }
}
