//! The JSON Schema of definitions, for editors: they complete keys, show their meanings, and mark what cannot be right.
//!
//! It is made of the tables that the parser reads by, so its keys and values are the parser's. The rules between
//! sections are the parser's alone, and so are messages that say what to write.

use serde_json::{Map, Value, json};

use crate::definition::keys::limits::NAME;
use crate::definition::keys::shape::{Entry, Key, Missing, Section, Shape};
use crate::definition::keys::{SECTIONS, TOP};

/// Returns the schema. Its dialect is draft 7, which is what Taplo and the language servers of editors read.
pub fn schema() -> Value {
    let definitions = SECTIONS.iter().filter(|section| section.name != TOP.name);
    let definitions: Map<String, Value> =
        definitions.map(|section| (section.name.to_owned(), of_section(section))).collect();
    let mut schema = of_section(&TOP);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("The definition of a pipeline: its files, its references and its reports");
    schema["definitions"] = Value::Object(definitions);
    schema
}

fn of_section(section: &Section) -> Value {
    let properties: Map<String, Value> = section.keys.iter().map(|key| (key.name.to_owned(), of_key(key))).collect();
    let required = section.keys.iter().filter(|key| key.missing == Missing::Required && key.only.is_empty());
    let required: Vec<&str> = required.map(|key| key.name).collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    let variants: Vec<Value> = section.keys.iter().filter_map(|key| of_variants(section, key)).collect();
    if !variants.is_empty() {
        schema["allOf"] = json!(variants);
    }
    // The variant is a key that is there: one of those that belong to themselves.
    let kinds = section.keys.iter().filter(|key| key.only == [key.name]).map(|key| json!({ "required": [key.name] }));
    let kinds: Vec<Value> = kinds.collect();
    if !kinds.is_empty() {
        schema["oneOf"] = json!(kinds);
    }
    schema
}

/// The condition under which a key may be there, or has to be.
fn of_variants(section: &Section, key: &Key) -> Option<Value> {
    if key.only.is_empty() || key.only == [key.name] {
        return None;
    }
    let is_variant = match section.variant {
        Some(variant) => json!({ "properties": { variant: { "enum": key.only } }, "required": [variant] }),
        None => json!({ "anyOf": key.only.iter().map(|kind| json!({ "required": [kind] })).collect::<Vec<_>>() }),
    };
    let mut schema = json!({ "if": is_variant, "else": { "properties": { key.name: false } } });
    if key.missing == Missing::Required {
        schema["then"] = json!({ "required": [key.name] });
    }
    Some(schema)
}

fn of_key(key: &Key) -> Value {
    let mut schema = of_shape(&key.shape);
    // Beside a reference draft 7 reads nothing.
    if schema.get("$ref").is_some() {
        schema = json!({ "allOf": [schema] });
    }
    schema["description"] = json!(key.meaning);
    if let Missing::Value(default) = key.missing {
        // What is written as a default reads the same in TOML and in JSON.
        schema["default"] = serde_json::from_str(default).unwrap_or(Value::Null);
    }
    schema
}

fn of_shape(shape: &Shape) -> Value {
    let name = json!({ "type": "string", "pattern": NAME });
    let scalar = json!({ "type": ["string", "number"] });
    match *shape {
        Shape::Name { or_all: false } => name,
        Shape::Name { or_all: true } => json!({ "type": "string", "anyOf": [name, { "const": "*" }] }),
        Shape::Text { min, max, pattern } => {
            let mut schema = json!({ "type": "string", "minLength": min, "maxLength": max });
            if let Some(pattern) = pattern {
                schema["pattern"] = json!(pattern);
            }
            schema
        }
        Shape::OneOf(texts) => json!({ "enum": texts }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::True => json!({ "const": true }),
        Shape::Whole { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::WholeOf(numbers) => json!({ "enum": numbers }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Names { min, max } => {
            json!({ "type": "array", "items": name, "minItems": min, "maxItems": max, "uniqueItems": true })
        }
        Shape::Texts { min, max, bytes } => {
            let text = json!({ "type": "string", "maxLength": bytes });
            json!({ "type": "array", "items": text, "minItems": min, "maxItems": max })
        }
        Shape::Place { or_several } => {
            let one = [json!({ "type": "string", "minLength": 1 }), json!({ "type": "integer", "minimum": 1 })];
            let several = json!({ "type": "array", "items": { "anyOf": one }, "minItems": 2, "maxItems": 4 });
            let places = one.iter().cloned().chain(or_several.then_some(several));
            json!({ "anyOf": places.collect::<Vec<_>>() })
        }
        Shape::Values => json!({ "anyOf": [scalar, { "type": "array", "items": scalar, "minItems": 1 }] }),
        Shape::Section(section) => reference(section),
        Shape::Entries { of, min, max } => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": of_entry(of),
            "minProperties": min,
            "maxProperties": max,
        }),
    }
}

fn reference(section: &Section) -> Value {
    json!({ "$ref": format!("#/definitions/{}", section.name) })
}

fn of_entry(entry: Entry) -> Value {
    let alone = match entry {
        Entry::Column | Entry::Attribute => entry.sections().first().map(|section| alone(section)),
        Entry::Condition => Some(of_shape(&Shape::Values)),
        Entry::Measure => Some(json!({ "const": "count" })),
        Entry::Reference | Entry::Report => None,
    };
    let sections = entry.sections().iter().map(|section| reference(section));
    let several: Vec<Value> = alone.into_iter().chain(sections).collect();
    match several.as_slice() {
        [one] => one.clone(),
        _ => json!({ "anyOf": several }),
    }
}

/// The types that may stand alone: those that need nothing else.
fn alone(section: &Section) -> Value {
    let types = match section.variant.and_then(|variant| section.key(variant)).map(|key| key.shape) {
        Some(Shape::OneOf(types)) => types,
        _ => &[],
    };
    let needs =
        |type_: &str| section.keys.iter().any(|key| key.missing == Missing::Required && key.only.contains(&type_));
    json!({ "enum": types.iter().filter(|type_| !needs(type_)).collect::<Vec<_>>() })
}
