//! Documents that follow from the code, and rules that hold for all of it.
//!
//! The tables of metrics and settings are generated here: `UPDATE_DOCUMENTS=1 make test` writes them again. The rest is
//! only checked: the Grafana dashboard, the formats ([`format`]), and the layout and language of the code ([`house`]).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod definition;
mod format;
mod house;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use music_streams::service::config::Settings;
use music_streams::telemetry::metrics::{Metric, TABLE};
use promql_parser::label::MatchOp;
use promql_parser::parser::{Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

fn document(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares the generated part of a document, behind the mark, with the table.
fn is_current(path: &str, table: &str) {
    const MARK: &str = "<!-- From here on made from the code: UPDATE_DOCUMENTS=1 make test -->\n";
    let text = std::fs::read_to_string(document(path)).unwrap();
    let (head, found) = text.split_once(MARK).unwrap();
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        std::fs::write(document(path), format!("{head}{MARK}\n{table}")).unwrap();
    } else {
        assert!(found.trim() == table.trim(), "{path} differs from the code; UPDATE_DOCUMENTS=1 make test updates it");
    }
}

#[test]
fn the_metrics_are_documented() {
    let mut table = String::from("| name | unit | kind | labels | meaning |\n|---|---|---|---|---|\n");
    for Metric { name, unit, kind, labels, meaning } in TABLE {
        let labels = labels.iter().map(|(label, values)| match values {
            [] => format!("`{label}`"),
            values => format!("`{label}`: {}", values.join(", ")),
        });
        let labels: Vec<String> = labels.collect();
        writeln!(table, "| `{name}` | {unit} | {kind} | {} | {meaning} |", labels.join("; ")).unwrap();
    }
    is_current("docs/metrics.md", &table);
}

#[test]
fn the_settings_are_documented() {
    let command = Settings::augment_args(clap::Command::new("run"));
    let mut reference = String::new();
    let mut headings: Vec<&str> = Vec::new();
    for argument in command.get_arguments() {
        let heading = argument.get_help_heading().unwrap_or("Required");
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        writeln!(reference, "## {heading}\n").unwrap();
        writeln!(reference, "| setting | environment | default | meaning |\n|---|---|---|---|").unwrap();
        for argument in command.get_arguments() {
            if argument.get_help_heading().unwrap_or("Required") != heading {
                continue;
            }
            let value = argument.get_value_names().map(|names| names[0].as_str()).unwrap_or_default();
            let defaults: Vec<_> = argument.get_default_values().iter().map(|it| it.to_string_lossy()).collect();
            let default = match defaults.join(" ") {
                _ if argument.is_required_set() => "required".to_owned(),
                // Its help says what happens if it is not set.
                text if text.is_empty() => "–".to_owned(),
                text => format!("`{text}`"),
            };
            let help = argument.get_long_help().or(argument.get_help()).unwrap().to_string();
            let help = help.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join(". ");
            let variable = argument.get_env().unwrap().to_string_lossy();
            let flag = argument.get_long().unwrap();
            writeln!(reference, "| `--{flag} {value}` | `{variable}` | {default} | {help} |").unwrap();
        }
        reference.push('\n');
    }
    is_current("docs/configuration.md", &reference);
}

/// The names that Prometheus gives the series of a metric:
/// <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#otlp-metric-points-to-prometheus>
fn prometheus_names(metric: &Metric) -> Vec<String> {
    let unit = match (metric.unit, metric.kind) {
        ("s", _) => "_seconds",
        ("By", _) => "_bytes",
        ("1", "gauge") => "_ratio",
        _ => "",
    };
    let name = format!("{}{unit}", metric.name.replace('.', "_"));
    match metric.kind {
        "counter" => vec![format!("{name}_total")],
        "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec(),
        _ => vec![name],
    }
}

/// Finds the series in an expression.
#[derive(Default)]
struct Selectors(Vec<VectorSelector>);

impl ExprVisitor for Selectors {
    type Error = String;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, String> {
        match expression {
            Expr::VectorSelector(selector) => self.0.push(selector.clone()),
            Expr::MatrixSelector(selector) => self.0.push(selector.vs.clone()),
            _ => {}
        }
        Ok(true)
    }
}

#[test]
fn the_grafana_dashboard_shows_every_metric_and_no_other() {
    let dashboard = std::fs::read(document("deploy/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_slice(&dashboard).unwrap();
    for name in ["title", "uid"] {
        assert!(!dashboard[name].as_str().unwrap().is_empty());
    }
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    let mut shown = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: an id of its own");
        assert!(["stat", "timeseries"].contains(&panel["type"].as_str().unwrap()));
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is wider than the grid");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} covers another panel");
            }
        }
        for target in panel["targets"].as_array().unwrap() {
            // What Grafana puts in.
            let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m").replace("$job", "x");
            let parsed = promql_parser::parser::parse(&expression).unwrap_or_else(|error| panic!("{title}: {error}"));
            let mut selectors = Selectors::default();
            walk_expr(&mut selectors, &parsed).unwrap();
            assert!(!selectors.0.is_empty(), "{title}");
            for selector in selectors.0 {
                let name = selector.name.unwrap();
                let metric = TABLE.iter().find(|metric| prometheus_names(metric).contains(&name));
                let metric = metric.unwrap_or_else(|| panic!("{title}: there is no {name}"));
                shown.insert(metric.name);
                for matcher in selector.matchers.matchers.iter().filter(|matcher| matcher.name != "job") {
                    let label = metric.labels.iter().find(|(label, _)| label.replace('.', "_") == matcher.name);
                    let (_, values) = label.unwrap_or_else(|| panic!("{title}: {name} has no {}", matcher.name));
                    let wanted: Vec<_> = match matcher.op {
                        MatchOp::Equal => vec![matcher.value.as_str()],
                        _ => matcher.value.split('|').collect(),
                    };
                    assert!(wanted.iter().all(|value| values.contains(value)), "{title}: {matcher}");
                }
            }
        }
    }
    let all: BTreeSet<_> = TABLE.iter().map(|metric| metric.name).collect();
    assert_eq!(shown, all);
}
