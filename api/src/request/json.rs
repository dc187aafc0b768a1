//! JSON into what is asked for. A body that is right is parsed once; only one that is wrong is looked at again, to say
//! what is wrong with it.

use memchr::memchr2_iter;
use serde::de::{DeserializeOwned, IgnoredAny};

use serde_path_to_error::{Path, Segment};

use super::shape::Object;
use crate::error::{Code, FieldError, Problem};

/// The most levels of arrays and objects.
const DEPTH_MAX: usize = 32;

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

/// What is wrong: it is no JSON at all, or a field of it is missing, unknown or of another type.
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
    let mut json = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, Object<T>>(&mut json) {
        Ok(_) => malformed("The body is not JSON.".to_owned()),
        Err(error) => {
            let path = error.path().to_string();
            let message = error.inner().to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            let field = if path == "." { String::new() } else { path };
            Problem::invalid(vec![FieldError::at(field, steps(error.path()), message)])
        }
    }
}

/// The names and positions that lead to a field.
fn steps(path: &Path) -> impl Iterator<Item = String> {
    path.iter().map(|segment| match segment {
        Segment::Map { key } => key.clone(),
        other => other.to_string().trim_matches(['[', ']']).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
