//! What was committed before, by git.

use std::process::Command;

use serde_json::Value;

const PATH: &str = "docs/openapi.json";

/// An earlier version of the document.
pub struct Before {
    pub commit: String,
    pub document: Value,
}

/// The newest committed version that is another than `now`; where there is none, as in a shallow clone of a commit
/// that left the document alone, the one that is committed.
pub fn before(now: &str) -> Option<Before> {
    let commits = git(&["log", "--format=%h", "--", PATH]);
    let versions = commits.lines().map(|commit| (commit, git(&["show", &format!("{commit}:{PATH}")])));
    // Its very first version was a placeholder.
    let mut versions = versions.filter(|(_, text)| text.contains("\"openapi\"")).peekable();
    let newest = versions.peek().cloned();
    let (commit, text) = versions.find(|(_, text)| text != now).or(newest)?;
    Some(Before { commit: commit.to_owned(), document: serde_json::from_str(&text).unwrap() })
}

fn git(arguments: &[&str]) -> String {
    let checkout = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let output = Command::new("git").arg("-C").arg(checkout).args(arguments).output();
    let output = output.expect("git is needed to see what was committed");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
