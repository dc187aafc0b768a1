//! Every answer that any of these tests gets is held against the contract: its status, its fields, and the code of its
//! problem.

use std::sync::LazyLock;

use serde_json::Value;

use crate::http::Reply;

static PATHS: LazyLock<Value> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
    document["paths"].clone()
});

/// What any address answers to a method that it does not have, or where there is nothing.
const EVERYWHERE: [&str; 2] = ["method_not_allowed", "not_found"];

/// Fields of HTTP's own and those that protect whoever reads an answer in a browser, which no call has to itself.
const GENERAL: [&str; 10] = [
    "cache-control",
    "connection",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "referrer-policy",
    "strict-transport-security",
    "transfer-encoding",
    "x-content-type-options",
];

/// Asserts that some operation at the address documents the answer. Methods are not told apart: a response does not
/// name the one that it answers.
#[track_caller]
pub fn assert(path: &str, reply: &Reply) {
    let code = problem_code(reply);
    if reply.status == 204 || code.as_deref().is_some_and(|code| EVERYWHERE.contains(&code)) {
        return;
    }
    let Some((_, item)) = PATHS.as_object().unwrap().iter().find(|(template, _)| matches(template, path))
    else {
        return;
    };
    let status = reply.status.to_string();
    let answers: Vec<&Value> = item
        .as_object()
        .unwrap()
        .values()
        .map(|operation| &operation["responses"][&status])
        .filter(|answer| !answer.is_null())
        .collect();
    assert!(!answers.is_empty(), "{path} answered {status}, which the contract does not say: {reply:?}");
    if let Some(code) = code {
        let said = answers
            .iter()
            .any(|answer| answer["content"]["application/problem+json"]["examples"].get(&code).is_some());
        assert!(said, "{path} answered {status} {code}, which the contract does not say");
    }
    for (name, value) in &reply.headers {
        let name = name.as_str();
        // Where other sites may call, every answer varies by who asks.
        let is_of_cors = name.starts_with("access-control-")
            || name == "vary" && value.to_str().unwrap().contains("Origin");
        let said = |answer: &Value| {
            let headers = answer["headers"].as_object();
            headers.is_some_and(|headers| headers.keys().any(|said| said.eq_ignore_ascii_case(name)))
        };
        assert!(
            is_of_cors || GENERAL.contains(&name) || answers.iter().copied().any(said),
            "{path} answered {status} with {name}, which the contract does not say"
        );
    }
}

fn problem_code(reply: &Reply) -> Option<String> {
    if reply.header("content-type") != Some("application/problem+json") || reply.body.is_empty() {
        return None;
    }
    reply.json()["code"].as_str().map(str::to_owned)
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    let same = |(step, sent): (&&str, &&str)| step.starts_with('{') || step == sent;
    template.len() == path.len() && template.iter().zip(&path).all(same)
}
