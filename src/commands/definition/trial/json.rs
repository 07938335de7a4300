//! The answer for programs, which a test of a definition can compare.

use serde_json::{Value, json};

use crate::batch::prepare::ObjectOutcome;
use crate::commands::definition::trial::{Trial, Tried};
use crate::commands::report::text::visible;

/// Returns everything that a trial found.
pub(super) fn answer(trial: &Trial) -> String {
    let Trial { plan, files, references, seen, rejected, reports } = trial;
    let columns = plan.curated.iter().map(|curated| &curated.column.name);
    let row = |values: &Vec<Value>| Value::Object(columns.clone().cloned().zip(values.iter().cloned()).collect());
    let reports = reports.iter().map(|found| {
        let report = &plan.reports[found.report];
        let first = found.first.iter().map(visible).collect::<Vec<_>>();
        json!({ "report": report.name, "table": report.table, "items": found.items, "first": first })
    });
    let answer = json!({
        "definition": plan.definition.name,
        "digest": plan.digest,
        "files": files.iter().map(file).collect::<Vec<_>>(),
        "references": references,
        "rows": seen.rows,
        "first_rows": seen.first.iter().map(row).collect::<Vec<_>>(),
        "columns_without_values": seen.empty_columns(),
        "rejected": rejected,
        "rejected_rows": seen.rejected,
        "reports": reports.collect::<Vec<_>>(),
    });
    format!("{answer:#}")
}

fn file(tried: &Tried) -> Value {
    let mut file = json!({ "file": tried.file.path.to_string_lossy(), "key": tried.file.key });
    if let Some(recognized) = &tried.recognized {
        file["format"] = recognized.format.into();
        file["compression"] = recognized.compression.map(|compression| compression.to_string()).into();
        file["columns"] = json!(recognized.columns);
    }
    match &tried.outcome {
        ObjectOutcome::Counted { rows, rejected, passed_over } => {
            (file["rows"], file["rejected"], file["passed_over"]) =
                ((*rows).into(), (*rejected).into(), (*passed_over).into());
        }
        _ => file["problem"] = tried.problem().into(),
    }
    file
}
