//! When one JSON schema takes less than another, or promises less. It knows what this document uses: references,
//! types and null, alternatives, objects, arrays, enumerations and bounds; `additionalProperties` only as false.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A schema within its document, which its references are looked up in.
#[derive(Clone, Copy)]
pub struct Schema<'a> {
    pub document: &'a Value,
    pub value: &'a Value,
}

/// Bounds where a smaller number takes more, and bounds where a larger number does.
const LOWER: [&str; 3] = ["minimum", "minLength", "minItems"];
const UPPER: [&str; 3] = ["maximum", "maxLength", "maxItems"];

impl<'a> Schema<'a> {
    fn at(self, value: &'a Value) -> Self {
        Self { value, ..self }
    }

    /// Each type that a value may have, with what is said of values of that type.
    fn alternatives(self) -> BTreeMap<String, Self> {
        if let Some(reference) = self.value["$ref"].as_str() {
            let found = self.document.pointer(&reference[1..]);
            return self.at(found.unwrap_or_else(|| panic!("{reference} is nowhere"))).alternatives();
        }
        for of in ["oneOf", "anyOf"] {
            if let Some(list) = self.value[of].as_array() {
                return list.iter().flat_map(|one| self.at(one).alternatives()).collect();
            }
        }
        match &self.value["type"] {
            Value::String(one) => BTreeMap::from([(one.clone(), self)]),
            Value::Array(types) => types.iter().map(|one| (one.as_str().unwrap().to_owned(), self)).collect(),
            _ => BTreeMap::from([("anything".to_owned(), self)]),
        }
    }

    fn properties(self) -> impl Iterator<Item = (&'a str, Self)> {
        let properties = self.value["properties"].as_object();
        properties.into_iter().flat_map(Map::iter).map(move |(name, value)| (name.as_str(), self.at(value)))
    }

    fn property(self, name: &str) -> Option<Self> {
        self.value["properties"].get(name).map(|value| self.at(value))
    }

    fn words(self, keyword: &str) -> Vec<&'a str> {
        self.value[keyword].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn number(self, keyword: &str) -> Option<f64> {
        self.value[keyword].as_f64()
    }
}

/// Where a request that `before` took is refused by `now`.
pub fn takes_less(place: &str, before: Schema<'_>, now: Schema<'_>, found: &mut Vec<String>) {
    let now_by_type = now.alternatives();
    for (of, before) in before.alternatives() {
        match now_by_type.get(&of).or_else(|| now_by_type.get("anything")) {
            None => found.push(format!("{place}: no longer takes {of}")),
            Some(now) => takes_less_of_type(place, &of, before, *now, found),
        }
    }
}

fn takes_less_of_type(place: &str, of: &str, before: Schema<'_>, now: Schema<'_>, found: &mut Vec<String>) {
    let mut say = |what: String| found.push(format!("{place}: {what}"));
    if of == "null" {
        return;
    }
    for bound in LOWER {
        if now.number(bound).is_some_and(|n| before.number(bound).is_none_or(|b| n > b)) {
            say(format!("{bound} was raised"));
        }
    }
    for bound in UPPER {
        if now.number(bound).is_some_and(|n| before.number(bound).is_none_or(|b| n < b)) {
            say(format!("{bound} was lowered"));
        }
    }
    for keyword in ["pattern", "format", "const"] {
        let now = &now.value[keyword];
        // An integer's format only names a type that has room for its bounds.
        let is_note = keyword == "format" && of == "integer";
        if !is_note && !now.is_null() && *now != before.value[keyword] {
            say(format!("{keyword} became {now}"));
        }
    }
    let (words, words_now) = (before.words("enum"), now.words("enum"));
    if !words_now.is_empty() && (words.is_empty() || words.iter().any(|word| !words_now.contains(word))) {
        say(format!("takes only {words_now:?}"));
    }
    for name in now.words("required") {
        if !before.words("required").contains(&name) {
            say(format!("{name} became required"));
        }
    }
    for (name, before) in before.properties() {
        match now.property(name) {
            Some(now) => takes_less(&format!("{place}.{name}"), before, now, found),
            None => found.push(format!("{place}: {name} was removed")),
        }
    }
    if before.value["items"].is_object() && now.value["items"].is_object() {
        let (before, now) = (before.at(&before.value["items"]), now.at(&now.value["items"]));
        takes_less(&format!("{place}[]"), before, now, found);
    }
}

/// Where an answer of `now` is not one that `before` promised.
pub fn promises_less(place: &str, before: Schema<'_>, now: Schema<'_>, found: &mut Vec<String>) {
    let before_by_type = before.alternatives();
    for (of, now) in now.alternatives() {
        match before_by_type.get(&of).or_else(|| before_by_type.get("anything")) {
            None => found.push(format!("{place}: may be {of} now")),
            Some(before) => promises_less_of_type(place, &of, *before, now, found),
        }
    }
}

fn promises_less_of_type(
    place: &str,
    of: &str,
    before: Schema<'_>,
    now: Schema<'_>,
    found: &mut Vec<String>,
) {
    if of == "null" {
        return;
    }
    let (words, words_now) = (before.words("enum"), now.words("enum"));
    // The contract says that codes may be added.
    if !words.is_empty() && !place.ends_with(".code") {
        for word in words_now.iter().filter(|word| !words.contains(word)) {
            found.push(format!("{place}: may be {word:?} now"));
        }
        if words_now.is_empty() {
            found.push(format!("{place}: may be any word now"));
        }
    }
    for name in before.words("required") {
        if !now.words("required").contains(&name) {
            found.push(format!("{place}: {name} is no longer always there"));
        }
    }
    for (name, before) in before.properties() {
        match now.property(name) {
            Some(now) => promises_less(&format!("{place}.{name}"), before, now, found),
            None => found.push(format!("{place}: {name} was removed")),
        }
    }
    if before.value["items"].is_object() && now.value["items"].is_object() {
        let (before, now) = (before.at(&before.value["items"]), now.at(&now.value["items"]));
        promises_less(&format!("{place}[]"), before, now, found);
    }
}
