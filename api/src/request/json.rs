//! JSON into what is asked for. A body that is right is parsed once; only one that is wrong is looked at again, to say
//! what is wrong with it.

use memchr::memchr2_iter;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::shape::Object;
use crate::error::{Code, FieldError, Problem};

/// The most levels of arrays and objects.
const DEPTH_MAX: usize = 32;

/// The values of a wrong body that are looked at one by one; the largest body that is right has some seven hundred.
const VALUES_MAX: usize = 1_000;

/// Parses a body that must be an object.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Most bodies do not have so many brackets at all.
    if memchr2_iter(b'{', b'[', body).nth(DEPTH_MAX).is_some() && is_deeper_than(DEPTH_MAX, body) {
        return Err(Problem::because(Code::MalformedRequest, "The body is nested deeper than 32 levels."));
    }
    match serde_json::from_slice::<Object<T>>(body) {
        Ok(Object(value)) => Ok(value),
        Err(_) => Err(explain::<T>(body)),
    }
}

/// Whether arrays and objects are nested deeper than that; brackets within strings do not count.
fn is_deeper_than(max: usize, body: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// What is wrong: it is no JSON at all, or fields of it are unknown or of another type.
fn explain<T: DeserializeOwned>(body: &[u8]) -> Problem {
    let malformed = |why: String| Problem::because(Code::MalformedRequest, why);
    if body.iter().all(u8::is_ascii_whitespace) {
        return malformed("The body is empty.".to_owned());
    }
    if std::str::from_utf8(body).is_err() {
        return malformed("The body is not UTF-8.".to_owned());
    }
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(body) {
        return malformed(format!("The body is not JSON: {error}."));
    }
    let errors = unreadable::<T>(body);
    if errors.is_empty() { malformed("The body is not JSON.".to_owned()) } else { Problem::invalid(errors) }
}

/// All fields that cannot be read; whether others are missing or out of bounds is for [`Checks`](super::Checks).
fn unreadable<T: DeserializeOwned>(body: &[u8]) -> Vec<FieldError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Err(error) = serde_path_to_error::deserialize::<_, Object<T>>(&mut json) else { return Vec::new() };
    let way: Vec<Segment> = error.path().iter().cloned().collect();
    let first = wrong_at(&way, error.inner());
    let mut errors: Vec<FieldError> = Vec::new();
    if let Ok(whole) = serde_json::from_slice::<Value>(body) {
        let mut tries_left = VALUES_MAX;
        try_alone::<T>(&whole, &mut Vec::new(), &mut tries_left, &mut errors);
    }
    // What is there twice can be read wherever it is alone.
    if errors.iter().all(|known| known.pointer != first.pointer) {
        errors.insert(0, first);
    }
    errors
}

/// Tries a value as the only one of a body, and then those that it holds. No value needs another to be read, since every
/// field may be absent as far as reading goes; so each that fails is wrong itself.
fn try_alone<T: DeserializeOwned>(
    value: &Value,
    way: &mut Vec<Segment>,
    tries_left: &mut usize,
    errors: &mut Vec<FieldError>,
) {
    let Some(left) = tries_left.checked_sub(1) else { return };
    *tries_left = left;
    if let Err(error) = serde_json::from_value::<Object<T>>(alone(value, way)) {
        errors.push(wrong_at(way, &error));
        return;
    }
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                way.push(Segment::Map { key: key.clone() });
                try_alone::<T>(value, way, tries_left, errors);
                way.pop();
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                way.push(Segment::Seq { index });
                try_alone::<T>(value, way, tries_left, errors);
                way.pop();
            }
        }
        _ => {}
    }
}

/// A body that has this value and no other, not even those that the value holds.
fn alone(value: &Value, way: &[Segment]) -> Value {
    let hollow = match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        plain => plain.clone(),
    };
    way.iter().rev().fold(hollow, |held, segment| match segment {
        Segment::Map { key } => Value::Object(Map::from_iter([(key.clone(), held)])),
        _ => Value::Array(vec![held]),
    })
}

/// An error at the end of a way.
fn wrong_at(way: &[Segment], error: &serde_json::Error) -> FieldError {
    let mut field = String::new();
    for (at, segment) in way.iter().enumerate() {
        if at > 0 && !matches!(segment, Segment::Seq { .. }) {
            field.push('.');
        }
        field.push_str(&segment.to_string());
    }
    let steps = way.iter().map(|segment| match segment {
        Segment::Map { key } => key.clone(),
        other => other.to_string().trim_matches(['[', ']']).to_owned(),
    });
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    FieldError::at(field, steps, message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::request::Integer;

    /// Where a body cannot be read.
    fn pointers<T: DeserializeOwned>(body: &str) -> Vec<String> {
        unreadable::<T>(body.as_bytes()).into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn every_value_that_cannot_be_read_is_named_once_and_by_its_own_place() {
        type Tables = BTreeMap<String, Vec<Object<BTreeMap<String, Integer>>>>;
        let body = r#"{"a": [{"x": 1}, {"x": "1", "y/": [2, 3]}, 4], "b": {"c": 1, "d": 2}, "e": []}"#;
        let mut found = pointers::<Tables>(body);
        found.sort();
        assert_eq!(found, ["/a/1/x", "/a/1/y~1", "/a/2", "/b"]);
        assert_eq!(pointers::<Tables>("[{}, {}]"), [""]);
        assert_eq!(pointers::<Tables>(r#"{"a": [{"x": 1}]}"#), [""; 0]);
    }

    #[test]
    fn what_a_wrong_body_costs_is_bounded() {
        let members: Vec<String> = (0..3_000).map(|n| format!("\"{n}\": true")).collect();
        let body = format!("{{{}}}", members.join(","));
        assert!(pointers::<BTreeMap<String, Integer>>(&body).len() <= VALUES_MAX);
    }

    #[test]
    fn thirty_two_levels_are_deep_enough() {
        let nested = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        assert!(!is_deeper_than(32, nested(32).as_bytes()));
        assert!(is_deeper_than(32, nested(33).as_bytes()));
        assert!(is_deeper_than(32, "{\"a\":".repeat(33).as_bytes()));
    }

    #[test]
    fn brackets_within_strings_do_not_count() {
        let text = format!(r#"{{"a\"{}": "\\"}}"#, "[".repeat(100));
        assert!(!is_deeper_than(32, text.as_bytes()));
        let after = format!(r#"{{"a": "\\", "b": {}"#, "[".repeat(32));
        assert!(is_deeper_than(32, after.as_bytes()));
    }
}
