//! What a client of one document would trip over in another: a path, operation or answer that is gone, something new
//! that must be sent, something sent that is no longer taken, something answered that is not as it was promised.

use serde_json::{Map, Value};

use crate::schema::{Schema, promises_less, takes_less};

const METHODS: [&str; 3] = ["get", "post", "patch"];

/// One operation with the document that it is of.
#[derive(Clone, Copy)]
struct Operation<'a> {
    document: &'a Value,
    value: &'a Value,
}

/// Everything that breaks, a line each; nothing where clients go on as before.
pub fn breaks(before: &Value, now: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (path, item) in members(&before["paths"]) {
        for method in METHODS.into_iter().filter(|method| item[*method].is_object()) {
            let place = format!("{} {path}", method.to_uppercase());
            let operation_now = &now["paths"][path][method];
            if operation_now.is_object() {
                let before = Operation { document: before, value: &item[method] };
                compare(&place, before, Operation { document: now, value: operation_now }, &mut found);
            } else {
                found.push(format!("{place}: was removed"));
            }
        }
    }
    found
}

fn compare(place: &str, before: Operation<'_>, now: Operation<'_>, found: &mut Vec<String>) {
    if before.value["operationId"] != now.value["operationId"] {
        found.push(format!("{place}: has another operationId, by which generated clients call it"));
    }
    if before.is_open() && !now.is_open() {
        found.push(format!("{place}: must be authorized now"));
    }
    compare_parameters(place, before, now, found);
    compare_bodies(place, before, now, found);
    compare_answers(place, before, now, found);
}

fn compare_parameters(place: &str, before: Operation<'_>, now: Operation<'_>, found: &mut Vec<String>) {
    let (known, known_now) = (before.parameters(), now.parameters());
    let same = |a: &Value, b: &Value| a["name"] == b["name"] && a["in"] == b["in"];
    for old in &known {
        let name = &old["name"];
        match known_now.iter().find(|new| same(old, new)) {
            None => found.push(format!("{place}: parameter {name} was removed")),
            Some(new) => {
                let place = format!("{place}: parameter {name}");
                if new["required"] == true && old["required"] != true {
                    found.push(format!("{place} became required"));
                }
                takes_less(&place, before.schema(&old["schema"]), now.schema(&new["schema"]), found);
            }
        }
    }
    for new in known_now.iter().filter(|new| new["required"] == true) {
        if !known.iter().any(|old| same(old, new)) {
            found.push(format!("{place}: parameter {} is new and required", new["name"]));
        }
    }
}

fn compare_bodies(place: &str, before: Operation<'_>, now: Operation<'_>, found: &mut Vec<String>) {
    let (old, new) = (&before.value["requestBody"], &now.value["requestBody"]);
    if new["required"] == true && old["required"] != true {
        found.push(format!("{place}: a body became required"));
    }
    for (media_type, content) in members(&old["content"]) {
        let content_now = &new["content"][media_type];
        if content_now.is_null() {
            found.push(format!("{place}: no longer takes {media_type}"));
        } else {
            let (old, new) = (before.schema(&content["schema"]), now.schema(&content_now["schema"]));
            takes_less(&format!("{place}: body"), old, new, found);
        }
    }
}

/// Refusals that can no longer happen break nobody.
fn compare_answers(place: &str, before: Operation<'_>, now: Operation<'_>, found: &mut Vec<String>) {
    for (status, old) in members(&before.value["responses"]) {
        let (old, new) = (before.resolved(old), now.resolved(&now.value["responses"][status]));
        let place = format!("{place}: {status}");
        if new.is_null() {
            if status.starts_with('2') {
                found.push(format!("{place} was removed"));
            }
            continue;
        }
        for (header, _) in members(&old["headers"]) {
            if new["headers"][header].is_null() {
                found.push(format!("{place}: header {header} was removed"));
            }
        }
        for (media_type, content) in members(&old["content"]) {
            let content_now = &new["content"][media_type];
            if content_now.is_null() {
                found.push(format!("{place}: is no longer {media_type}"));
            } else {
                let (old, new) = (before.schema(&content["schema"]), now.schema(&content_now["schema"]));
                promises_less(&format!("{place}: body"), old, new, found);
            }
        }
    }
}

impl<'a> Operation<'a> {
    fn schema(self, value: &'a Value) -> Schema<'a> {
        Schema { document: self.document, value }
    }

    fn resolved(self, value: &'a Value) -> &'a Value {
        let reference = value["$ref"].as_str();
        reference.map_or(value, |to| self.document.pointer(&to[1..]).expect("a reference leads somewhere"))
    }

    fn parameters(self) -> Vec<&'a Value> {
        let list = self.value["parameters"].as_array();
        list.into_iter().flatten().map(|parameter| self.resolved(parameter)).collect()
    }

    /// Whether it may be called by anyone.
    fn is_open(self) -> bool {
        let own = &self.value["security"];
        let ways = if own.is_null() { &self.document["security"] } else { own };
        ways.as_array().is_none_or(|ways| ways.is_empty() || ways.contains(&Value::Object(Map::new())))
    }
}

fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A small document with a bit of everything.
    fn document() -> Value {
        json!({
            "security": [{}, {"bearer": []}],
            "paths": {"/v1/things": {
                "get": {"operationId": "list", "responses": {"200": {"description": ""}}},
                "post": {
                    "operationId": "make",
                    "parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 9}}],
                    "requestBody": {"required": true, "content": {"application/json": {"schema": {
                        "type": "object",
                        "properties": {
                            "name": {"type": ["string", "null"], "maxLength": 9},
                            "kind": {"type": "string", "enum": ["a", "b"]},
                        },
                        "required": ["kind"],
                    }}}},
                    "responses": {
                        "201": {
                            "description": "",
                            "headers": {"Location": {"schema": {"type": "string"}}},
                            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                        },
                        "409": {"description": "", "content": {"application/problem+json": {"schema": {
                            "type": "object", "properties": {"code": {"type": "string", "enum": ["sold_out"]}},
                        }}}},
                    },
                },
            }},
            "components": {"schemas": {"Thing": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "parts": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["id", "kind"],
            }}},
        })
    }

    const POST: &str = "/paths/~1v1~1things/post";
    const BODY: &str = "/paths/~1v1~1things/post/requestBody/content/application~1json/schema";
    const THING: &str = "/components/schemas/Thing";

    /// What breaks where the value at a place becomes another.
    fn broken_by(place: &str, member: &str, value: Value) -> Vec<String> {
        let mut now = document();
        now.pointer_mut(place).unwrap()[member] = value;
        breaks(&document(), &now)
    }

    #[track_caller]
    fn one(found: &[String], said: &str) {
        assert!(found.len() == 1 && found[0].contains(said), "{found:?} should be one that says {said:?}");
    }

    #[test]
    fn the_same_document_breaks_nothing() {
        assert_eq!(breaks(&document(), &document()), [""; 0]);
    }

    #[test]
    fn what_is_gone_breaks() {
        one(&broken_by("/paths/~1v1~1things", "get", Value::Null), "GET /v1/things: was removed");
        one(&broken_by(POST, "operationId", json!("create")), "operationId");
        one(&broken_by(POST, "parameters", json!([])), "\"limit\" was removed");
        one(&broken_by(&format!("{POST}/responses"), "201", Value::Null), "201 was removed");
        one(&broken_by(&format!("{POST}/responses/201"), "headers", json!({})), "header Location");
        one(&broken_by(&format!("{POST}/responses/201"), "content", json!({})), "no longer application/json");
        one(&broken_by(&format!("{THING}/properties"), "parts", json!({"type": "null"})), "may be null");
        one(&broken_by(THING, "required", json!(["id"])), "kind is no longer always there");
    }

    #[test]
    fn what_must_be_sent_in_addition_breaks() {
        let required = json!([
            {"name": "limit", "in": "query", "required": true, "schema": {"type": "integer", "maximum": 9}}
        ]);
        one(&broken_by(POST, "parameters", required), "became required");
        one(&broken_by(BODY, "required", json!(["kind", "name"])), "name became required");
        one(&broken_by("", "security", json!([{"bearer": []}]))[..1], "must be authorized");
    }

    #[test]
    fn what_is_no_longer_taken_breaks() {
        let properties = format!("{BODY}/properties");
        one(&broken_by(&format!("{properties}/name"), "type", json!("string")), "no longer takes null");
        one(&broken_by(&format!("{properties}/name"), "minLength", json!(1))[..1], "minLength was raised");
        one(&broken_by(&format!("{properties}/name"), "maxLength", json!(8))[..1], "maxLength was lowered");
        one(&broken_by(&format!("{properties}/kind"), "enum", json!(["a"])), "takes only [\"a\"]");
        one(&broken_by(&format!("{properties}/kind"), "pattern", json!("^a$")), "pattern became");
    }

    #[test]
    fn what_is_answered_otherwise_breaks() {
        one(
            &broken_by(&format!("{THING}/properties/kind"), "enum", json!(["a", "b", "c"])),
            "may be \"c\" now",
        );
        one(&broken_by(&format!("{THING}/properties/id"), "type", json!(["string", "null"])), "may be null");
        one(
            &broken_by(&format!("{THING}/properties/parts/items"), "type", json!("string")),
            "parts[]: may be string",
        );
    }

    #[test]
    fn additions_and_refusals_less_break_nothing() {
        let nothing = [""; 0];
        assert_eq!(broken_by("/paths", "/v1/more", json!({"get": {}})), nothing);
        assert_eq!(broken_by(&format!("{THING}/properties"), "more", json!({"type": "string"})), nothing);
        assert_eq!(broken_by(&format!("{BODY}/properties"), "more", json!({"type": "string"})), nothing);
        assert_eq!(broken_by(&format!("{BODY}/properties/kind"), "enum", json!(["a", "b", "c"])), nothing);
        assert_eq!(broken_by(&format!("{POST}/responses"), "409", Value::Null), nothing);
        let code = format!("{POST}/responses/409/content/application~1problem+json/schema/properties/code");
        assert_eq!(broken_by(&code, "enum", json!(["sold_out", "new_code"])), nothing);
    }
}
