//! The OpenAPI document of the API, for the definition in force.
//!
//! It is made of the same table of parameters that questions are read by, and of the plan's reports: what an answer has
//! depends on the definition, so no document could be written beforehand.

use serde_json::{Map, Value, json};

use crate::plan::Plan;
use crate::plan::reports::{Figure, Report};
use crate::web::problem::PROBLEM_JSON;
use crate::web::question::{Asks, MAX_DAYS_BY_HOUR, MAX_ITEMS, PARAMETERS};
use crate::web::route::visible;

/// Returns the document.
pub fn document(plan: &Plan, personal: bool) -> Value {
    let mut paths = Map::new();
    let name = &plan.definition.name;
    let mut put = |path: &str, operation: Value| drop(paths.insert(path.to_owned(), json!({ "get": operation })));
    put("/api/v1", plain("index", "The reports that there are", "Index", &[]));
    put("/api/v1/freshness", plain("freshness", "The last finished batch: the least to ask for news", "AsOf", &[]));
    let only_with_queue = "Only where the server was started with --queue-url.";
    let mut pipeline = plain("pipeline", "The state of the pipeline", "Pipeline", &["404"]);
    pipeline["description"] = json!(only_with_queue);
    put("/api/v1/pipeline", pipeline);
    put("/api/v1/openapi.json", plain("openapi", "This document", "Document", &[]));
    for report in visible(plan, personal).map(|report| &plan.reports[report]) {
        put(&format!("/api/v1/series/{}", report.name), of_report(report, Asks::Series));
        if report.top.is_some() {
            put(&format!("/api/v1/top/{}", report.name), of_report(report, Asks::Top));
        }
    }
    let mut schemas = common_schemas();
    for report in visible(plan, personal).map(|report| &plan.reports[report]) {
        let (series, top) = schemas_of(report);
        schemas.insert(format!("{}_series", report.name), series);
        if report.top.is_some() {
            schemas.insert(format!("{}_top", report.name), top);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("Figures of {name}"),
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "Figures by day and hour. Days are those of {}; ranges include both ends. Every answer has an ETag of \
                 its figures: ask again with If-None-Match, and a 304 says that they still hold. Ranked lists have no \
                 pages, as they move while they are paged: `truncated` says that there is more.",
                plan.definition.zone.iana_name().unwrap_or("UTC")
            ),
        },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn responses(schema: &str, others: &[&str], tables: bool) -> Value {
    let mut content = json!({ "application/json": { "schema": reference(schema) } });
    if tables {
        content["text/csv"] = json!({ "schema": { "type": "string" } });
        content["application/x-ndjson"] = json!({ "schema": { "type": "string" } });
    }
    let mut responses = json!({
        "200": { "description": "The answer.", "content": content },
        "304": { "description": "The figures are those of the ETag in If-None-Match." },
    });
    let meaning = |status: &str| match status {
        "400" => "A parameter is wrong; `parameter` names it.",
        "404" => "There is nothing of that name.",
        "414" => "The URL is too long.",
        "502" => "The tables do not answer.",
        "504" => "The answer takes too long.",
        _ => "Too many requests at a time, or the tables ask to slow down.",
    };
    for status in ["400", "414", "502", "503", "504"].iter().chain(others) {
        let content = json!({ PROBLEM_JSON: { "schema": reference("Problem") } });
        responses[status] = json!({ "description": meaning(status), "content": content });
    }
    responses
}

fn plain(id: &str, summary: &str, schema: &str, others: &[&str]) -> Value {
    json!({ "operationId": id, "summary": summary, "responses": responses(schema, others, false) })
}

fn of_report(report: &Report, asks: Asks) -> Value {
    let name = &report.name;
    let (kind, summary) = match (asks, &report.key) {
        (Asks::Top, _) => ("top", format!("The greatest items of {name} over days")),
        (_, None) => ("series", format!("{name} over days")),
        (_, Some(_)) => ("series", format!("An item of {name} over days")),
    };
    let parameters = PARAMETERS.iter().filter(|parameter| parameter.of.contains(&asks));
    let has_under = report.top.as_ref().is_some_and(|top| !top.under.is_empty());
    let parameters = parameters.filter(|parameter| parameter.name != "under" || has_under);
    let parameters = parameters.filter(|parameter| parameter.name != "id" || report.key.is_some());
    let parameters: Vec<Value> = parameters
        .map(|parameter| {
            let mut schema = (parameter.schema)();
            let mut about = parameter.about.to_owned();
            match parameter.name {
                "days" if report.is_hourly => schema["maximum"] = json!(MAX_DAYS_BY_HOUR),
                "under" => schema["pattern"] = json!(format!("^({}):[\\s\\S]", under_names(report).join("|"))),
                "limit" => about += &format!(" Rows times days or hours are at most {MAX_ITEMS}."),
                _ => {}
            }
            let is_required = parameter.name == "id";
            json!({
                "name": parameter.name, "in": "query", "required": is_required, "description": about, "schema": schema,
                // As forms send it: it counts as none.
                "allowEmptyValue": !is_required,
            })
        })
        .collect();
    json!({
        "operationId": format!("{kind}_{name}"),
        "summary": summary,
        "parameters": parameters,
        "responses": responses(&format!("{name}_{kind}"), &[], true),
    })
}

/// The attributes that the report has lists under.
fn under_names(report: &Report) -> Vec<&str> {
    let under = report.top.iter().flat_map(|top| &top.under);
    under.filter_map(|&label| report.labels.get(label)).map(|label| label.name.as_str()).collect()
}

fn object(properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn nullable(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

fn common_schemas() -> Map<String, Value> {
    let range = || json!({ "from": date(), "to": date(), "days": { "type": "integer", "minimum": 1 } });
    let schemas = json!({
        "AsOf": object(json!({
            "batch": nullable("integer"),
            "at": nullable("string"),
            "updating": { "type": "boolean", "description": "A batch is being counted: some items have it already." },
        })),
        "Range": object(range()),
        "Problem": object(json!({
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "What is wrong, and what to do." },
        })),
        "Index": { "type": "object", "required": ["name", "version", "reports", "as_of"] },
        "Pipeline": { "type": "object", "required": ["queue", "definition", "recent_batches"] },
        "Document": { "type": "object", "required": ["openapi", "paths"] },
    });
    match schemas {
        Value::Object(schemas) => schemas,
        _ => Map::new(),
    }
}

fn date() -> Value {
    json!({ "type": "string", "format": "date" })
}

/// The measures of a report, and the bounds of its distinct counts.
fn measures(report: &Report, with_bounds: bool) -> Map<String, Value> {
    let mut fields = Map::new();
    for measure in &report.measures {
        let (kind, about) = match measure.figure {
            Figure::Time { .. } => ("string", "A time, UTC."),
            Figure::Distinct { .. } => ("number", "Estimated; over days it is one union, not a sum."),
            Figure::Ratio { .. } => ("number", "The ratio of the sums over all the days."),
            Figure::Number { .. } => ("number", "Exact."),
        };
        let mut schema = nullable(kind);
        schema["description"] = json!(about);
        fields.insert(measure.name.clone(), schema);
        if with_bounds && matches!(measure.figure, Figure::Distinct { .. }) {
            let bounds = json!({
                "type": "array", "items": { "type": "integer" }, "minItems": 2, "maxItems": 2,
                "description": "It lies between these with a probability of 95 %.",
            });
            fields.insert(format!("{}_between", measure.name), bounds);
        }
    }
    fields
}

fn labels(report: &Report) -> Map<String, Value> {
    let schema = |is_many| match is_many {
        true => json!({ "type": "array", "items": { "type": "string" } }),
        false => nullable("string"),
    };
    report.labels.iter().map(|label| (label.name.clone(), schema(label.many.is_some()))).collect()
}

/// The schemas of a report's two answers.
fn schemas_of(report: &Report) -> (Value, Value) {
    let mut point = measures(report, false);
    point.insert(report.period_attribute().to_owned(), json!({ "type": "string" }));
    point.insert("whole".to_owned(), json!({ "type": "boolean", "description": "It is over." }));
    let points = json!({ "type": "array", "items": object(Value::Object(point)) });
    let counted_from = || {
        let mut schema = nullable("string");
        schema["description"] = json!("Earlier days were not counted, as the report is newer than they are.");
        schema
    };
    let change: Map<String, Value> =
        report.measures.iter().map(|measure| (measure.name.clone(), nullable("number"))).collect();
    let against = json!({ "anyOf": [{ "type": "null" }, object(json!({
        "from": date(), "to": date(), "days": { "type": "integer" },
        "totals": object(Value::Object(measures(report, false))),
        "change": { "type": "object", "properties": change,
            "description": "As a fraction of the earlier figure; only days or hours that are over are compared." },
        "points": points,
    }))] });
    let series = object(json!({
        "report": { "type": "string" }, "key": { "type": "string" }, "id": { "type": "string" },
        "labels": { "type": "object", "properties": labels(report) },
        "period": reference("Range"), "whole": { "type": "integer", "description": "The points that are over." },
        "counted_from": counted_from(),
        "totals": { "type": "object", "properties": measures(report, true) },
        "points": points, "against": against, "as_of": reference("AsOf"),
    }));
    let mut item = measures(report, false);
    item.extend(labels(report));
    item.insert("rank".to_owned(), json!({ "type": "integer", "minimum": 1 }));
    item.insert(report.key_attribute.clone(), json!({ "type": "string" }));
    let share =
        "Of the whole that the list is of. Where an item counts under several keys, shares add up to more than 1.";
    item.insert("share".to_owned(), json!({ "type": ["number", "null"], "description": share }));
    item.insert("change".to_owned(), nullable("number"));
    item.insert("points".to_owned(), json!({ "type": "array", "description": "The measure by day or hour." }));
    let top = object(json!({
        "report": { "type": "string" }, "by": { "type": "string" },
        "under": { "type": ["object", "null"] }, "period": reference("Range"),
        "against": { "anyOf": [{ "type": "null" }, reference("Range")] },
        "counted_from": counted_from(),
        "exact": { "type": "boolean", "description": "These are the greatest items, in their order." },
        "missing_at_most": { "type": ["number", "string", "null"],
            "description": "An item that is not here may have this much more than the last one here." },
        "rebuilding": { "type": "boolean" }, "truncated": { "type": "boolean" },
        "items": { "type": "array", "items": object(Value::Object(item)) }, "as_of": reference("AsOf"),
    }));
    (series, top)
}
