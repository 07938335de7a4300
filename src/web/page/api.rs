//! The page of the API, out of its OpenAPI document.

use maud::{Markup, html};
use serde_json::Value;

use crate::web::page::Frame;
use crate::web::page::frame::{Tab, document};
use crate::web::page::text::told;

/// The page of the API. `base` is the address of this server as its callers write it.
pub fn api(frame: &Frame, description: &Value, base: &str) -> String {
    let paths: Vec<(&String, &Value)> =
        description["paths"].as_object().into_iter().flatten().filter(|(_, path)| path["get"].is_object()).collect();
    let root = &frame.root;
    let main = html! {
        div #head.head {
            div.title { h1 { "API" } }
            p.days-line {
                (text(&description["info"]["description"]))
                " All of it is GET. Programs read the "
                a href={ (root) "api/v1/openapi.json" } { "OpenAPI document" } "."
            }
        }
        @for (path, item) in paths { (operation(frame, path, &item["get"], description, base)) }
    };
    document(frame, Tab::Api, "API", &main)
}

fn text(value: &Value) -> String {
    value.as_str().map_or(String::new(), told)
}

/// Follows a reference within the document.
fn resolved<'a>(value: &'a Value, description: &'a Value) -> &'a Value {
    let reference = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| description.pointer(pointer)).unwrap_or(value)
}

fn operation(frame: &Frame, path: &str, operation: &Value, description: &Value, base: &str) -> Markup {
    let id = format!("op-{}", path.trim_matches('/').replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    let parameters: Vec<&Value> =
        operation["parameters"].as_array().into_iter().flatten().map(|it| resolved(it, description)).collect();
    let example = example(path, &parameters);
    html! {
        section.panel.operation id=(id) aria-labelledby={ (id) "-title" } {
            h2 id={ (id) "-title" } { span.method { "GET" } " " code { (told(path)) } }
            p { strong { (text(&operation["summary"])) } }
            @if operation["description"] != operation["summary"] { p { (text(&operation["description"])) } }
            @if !parameters.is_empty() { (parameter_table(path, &parameters, description)) }
            @if let Some(example) = example {
                div.example {
                    pre tabindex="0" { code { "curl '" (base.trim_end_matches('/')) (example) "'" } }
                    @if !frame.is_standalone {
                        a href={ (frame.root) (example.trim_start_matches('/')) } {
                            "Try it" span.hidden { ": " (path) }
                        }
                    }
                }
            }
        }
    }
}

fn parameter_table(path: &str, parameters: &[&Value], description: &Value) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label={ "Parameters of " (path) } {
            table.parameters {
                thead { tr { th scope="col" { "Parameter" } th scope="col" { "Values" } th scope="col" { "Meaning" } } }
                tbody {
                    @for parameter in parameters {
                        tr {
                            th scope="row" {
                                code { (text(&parameter["name"])) }
                                @if parameter["required"] == true { span.small { "required" } }
                            }
                            td { (values(resolved(&parameter["schema"], description))) }
                            td { (text(&parameter["description"])) }
                        }
                    }
                }
            }
        }
    }
}

/// The values of a parameter, as its schema has them.
fn values(schema: &Value) -> Markup {
    let texts = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let type_ = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|it| *it != "null").unwrap_or_default(),
        other => other.as_str().unwrap_or_default(),
    };
    let texts: Vec<&str> = texts.collect();
    html! {
        @if texts.is_empty() {
            (told(schema["format"].as_str().unwrap_or(type_)))
            @if let (Some(least), Some(most)) = (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
                ", " (least) " to " (most)
            }
        } @else {
            @for (index, text) in texts.iter().enumerate() { @if index > 0 { ", " } code { (told(text)) } }
        }
        @match &schema["default"] {
            Value::Null => {}
            Value::String(text) => span.small { "default " (told(text)) },
            other => span.small { "default " (other) },
        }
    }
}

/// A question to copy: the path with its examples filled in, and the parameters that have one. `None` if a part of the
/// path has no example.
fn example(path: &str, parameters: &[&Value]) -> Option<String> {
    let of = |parameter: &Value| match [&parameter["example"], &parameter["schema"]["example"]]
        .into_iter()
        .find(|it| !it.is_null())?
    {
        Value::String(text) => Some(super::text::encoded(text)),
        other => Some(other.to_string()),
    };
    let mut filled = path.to_owned();
    for parameter in parameters.iter().filter(|parameter| parameter["in"] == "path") {
        let name = parameter["name"].as_str()?;
        filled = filled.replace(&format!("{{{name}}}"), &of(parameter)?);
    }
    // One that has to be there, and of which no example is known.
    if parameters.iter().any(|parameter| parameter["required"] == true && of(parameter).is_none()) {
        return None;
    }
    let query = parameters.iter().filter(|parameter| parameter["in"] == "query");
    let query: Vec<String> =
        query.filter_map(|parameter| Some(format!("{}={}", parameter["name"].as_str()?, of(parameter)?))).collect();
    let is_filled = !filled.contains('{');
    is_filled.then(|| if query.is_empty() { filled } else { format!("{filled}?{}", query.join("&")) })
}
