#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]
#![expect(unreachable_pub, reason = "a test binary has no outside")]
//! The contract stays what clients were written against: `docs/openapi.json` is held against the version of it that
//! was committed before. Rules of our own, because the tools that know more of them cannot be had everywhere that the
//! tests run.

mod breaks;
mod committed;
mod schema;

use breaks::breaks;
use serde_json::Value;

const NOW: &str = include_str!("../../../docs/openapi.json");

/// What breaks nobody although the rules say so, and why not.
const ACCEPTED: [(&str, &str); 3] = [
    (
        "pattern became \"^[^\\\\x00-\\\\x1f\\\\x7f-\\\\x9f]+$\"",
        "control characters were always refused, as the words beside it said",
    ),
    ("\"cursor\": pattern became", "a cursor comes from an answer, and those had this form all along"),
    (": must be authorized now", "keys and tokens were announced from the start, with 401, 403 and `bearer`"),
];

#[test]
fn the_contract_breaks_nothing_that_was_committed_before() {
    let now: Value = serde_json::from_str(NOW).unwrap();
    let before = committed::before(NOW).expect("docs/openapi.json was never committed before");
    let mut found = breaks(&before.document, &now);
    found.retain(|broken| !ACCEPTED.iter().any(|(accepted, _)| broken.contains(accepted)));
    assert!(
        found.is_empty(),
        "docs/openapi.json breaks clients of the version in commit {}; that needs a new version of the API:\n{}",
        before.commit,
        found.join("\n")
    );
}
