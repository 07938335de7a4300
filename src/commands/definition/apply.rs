//! `music-streams definition apply`: puts a definition in force, like a migration: compares first, says what each
//! change means, looks at the tables, and switches by one conditional write.
//!
//! A report that is new counts from the first period on that no row can have been counted in before: rows may be ahead
//! of the clock, so that this is some time from now. A rebuild fills the past. Covered by
//! `tests/pipeline/definitions.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{KeyType, ScalarAttributeType};
use clap::Args;

use crate::aws::Clients;
use crate::aws::error::{AwsError, aws_error};
use crate::calendar::MICROS_PER_DAY;
use crate::commands::definition::{DefinitionError, changes_text, good, refused};
use crate::commands::format::print;
use crate::commands::resources::Tables;
use crate::definition::change::{Change, Class, changes};
use crate::definition::reports::Period as Every;
use crate::plan::Plan;
use crate::plan::period::{MICROS_PER_HOUR, Period};
use crate::plan::reports::Report;
use crate::protocol::InForce;

/// The arguments of `music-streams definition apply`.
#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The definition
    file: PathBuf,

    #[command(flatten)]
    tables: Tables,

    /// Make changes after which days that were counted before mean something else than later ones
    #[arg(long)]
    old_days_stay: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Apply {
    /// Puts the definition in force.
    pub(super) async fn run(&self, clients: &Clients) -> Result<(), DefinitionError> {
        let definition = good(&self.file)?;
        let plan = Arc::new(Plan::of(definition.clone())?);
        let ledger = self.tables.ledger(clients, "");
        let in_use = |error: crate::ledger::DefinitionError| DefinitionError::Bad(error.to_string());
        let registry = ledger.registry().await?;
        let before = registry.definition;
        let plan_before = ledger.plan_in_force(&before).await.map_err(in_use)?;
        if plan_before.digest == plan.digest {
            print(&format!("{} is in force already", plan.digest));
            return Ok(());
        }
        // Where nothing was ever counted there is nothing to compare with, and every report counts all.
        let is_new = registry.last == 0;
        let changes = if is_new { Vec::new() } else { changes(&plan_before.definition, &definition) };
        if !changes.is_empty() {
            print(&changes_text(&changes));
        }
        self.check(&changes)?;
        let gone = gone(&before, &plan_before, &plan, is_new)?;
        self.check_tables(clients, &plan).await?;
        let since = if is_new { BTreeMap::new() } else { since(&before, &plan_before, &plan) };
        for report in &plan.reports {
            let begins = since.get(&report.table).filter(|period| before.since.get(&report.table) != Some(period));
            if let Some(period) = begins {
                let fills = "music-streams replay --rebuild fills earlier days";
                print(&format!("{} counts from {period} on; {fills}", report.with_table()));
            }
        }
        self.confirm(&plan)?;
        ledger.store_definition(&definition).await?;
        let filling = before.filling.clone();
        let next = InForce { change: before.change + 1, digest: Some(plan.digest.clone()), since, filling, gone };
        if !ledger.redefine(&before, &next).await? {
            return Err(DefinitionError::Bad("another definition has come into force meanwhile; try again".to_owned()));
        }
        print(&format!("{} is in force: {}", definition.name, plan.digest));
        Ok(())
    }

    /// Checks that all changes can be made, or are wanted.
    fn check(&self, changes: &[Change]) -> Result<(), DefinitionError> {
        refused(changes)?;
        if !self.old_days_stay && changes.iter().any(|change| change.class == Class::OldDaysStay) {
            let advice = "days that were counted before would mean something else than later ones; if that is \
                          intended, add --old-days-stay, and rebuild the days that are to follow";
            return Err(DefinitionError::Bad(advice.to_owned()));
        }
        Ok(())
    }

    /// Checks that every report has its table, with the right keys.
    async fn check_tables(&self, clients: &Clients, plan: &Arc<Plan>) -> Result<(), DefinitionError> {
        let reports = self.tables.reports(clients, plan, 1, None);
        let mut problems = Vec::new();
        for (index, report) in plan.reports.iter().enumerate() {
            let keys = [(report.key_attribute.as_str(), KeyType::Hash), (report.period_attribute(), KeyType::Range)];
            let expected = keys.map(|(name, type_)| (name.to_owned(), type_));
            let table = reports.table(index);
            match keys_of(clients, &table).await? {
                Some(keys) if keys == expected => {}
                Some(keys) => {
                    let keys: Vec<String> = keys.into_iter().map(|(name, _)| name).collect();
                    problems.push(format!(
                        "{table} has the keys {}, and {} needs {} and {}; give the report another table",
                        keys.join(" and "),
                        report.name,
                        expected[0].0,
                        expected[1].0
                    ));
                }
                None => problems.push(format!(
                    "{table} is not there; deploy the template first: music-streams definition template"
                )),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(DefinitionError::Bad(problems.join("\n"))) }
    }

    fn confirm(&self, plan: &Plan) -> Result<(), DefinitionError> {
        if self.yes {
            return Ok(());
        }
        let said_no = || Err(DefinitionError::Bad("nothing has changed".to_owned()));
        if !std::io::stdin().is_terminal() {
            return Err(DefinitionError::Bad("nothing has changed: nobody can be asked; add --yes".to_owned()));
        }
        let mut error = std::io::stderr();
        if write!(error, "Put {} in force? [y/N] ", plan.definition.name).and_then(|()| error.flush()).is_err() {
            return said_no();
        }
        let mut answer = String::new();
        match std::io::stdin().read_line(&mut answer) {
            Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
            _ => said_no(),
        }
    }
}

/// Returns the keys of a table, the partition key first; `None` if there is no such table. A key that is no text counts
/// as none.
async fn keys_of(clients: &Clients, table: &str) -> Result<Option<Vec<(String, KeyType)>>, AwsError> {
    let described = match clients.dynamodb.describe_table().table_name(table).send().await {
        Ok(described) => described,
        Err(error) if error.as_service_error().is_some_and(DescribeTableError::is_resource_not_found_exception) => {
            return Ok(None);
        }
        Err(error) => return Err(aws_error("dynamodb:DescribeTable", table)(error)),
    };
    let Some(table) = described.table() else { return Ok(None) };
    let is_text = |name: &str| {
        let of_name = |it: &&aws_sdk_dynamodb::types::AttributeDefinition| it.attribute_name() == name;
        table.attribute_definitions().iter().find(of_name).map(|it| it.attribute_type())
            == Some(&ScalarAttributeType::S)
    };
    let keys = table.key_schema().iter().filter(|key| is_text(key.attribute_name()));
    let mut keys: Vec<(String, KeyType)> =
        keys.map(|key| (key.attribute_name().to_owned(), key.key_type().clone())).collect();
    keys.sort_by_key(|(_, type_)| *type_ == KeyType::Range);
    Ok(Some(keys))
}

/// Returns the measures that were ever taken away from a table that is still used. One that comes again is refused:
/// items that were not changed meanwhile would go on from their old figures.
fn gone(before: &InForce, plan_before: &Plan, plan: &Plan, is_new: bool) -> Result<BTreeSet<String>, DefinitionError> {
    let measures = |plan: &Plan| -> BTreeSet<String> {
        let of_report = |report: &Report| {
            report.measures.iter().map(|it| format!("{}.{}", report.table, it.name)).collect::<Vec<_>>()
        };
        plan.reports.iter().flat_map(of_report).collect()
    };
    let (old, new) = (measures(plan_before), measures(plan));
    if let Some(again) = before.gone.iter().find(|it| new.contains(*it)) {
        let message = format!(
            "{again} was taken away before, and items still have the figures that they had then; give the measure \
             another name"
        );
        return Err(DefinitionError::Bad(message));
    }
    if is_new {
        return Ok(BTreeSet::new());
    }
    Ok(before.gone.iter().cloned().chain(old.difference(&new).cloned()).collect())
}

/// Returns the first period that each report counts: those that it had, and for a new report the first one that no row
/// can have been counted in.
fn since(before: &InForce, plan_before: &Plan, plan: &Plan) -> BTreeMap<String, String> {
    let now = jiff::Timestamp::now().as_microsecond();
    let ahead = i64::try_from(plan_before.definition.future.as_micros()).unwrap_or(MICROS_PER_DAY);
    let last = now.saturating_add(ahead);
    let mut since = BTreeMap::new();
    for (report, written) in plan.reports.iter().zip(&plan.definition.reports) {
        let is_known = plan_before.reports.iter().any(|known| known.table == report.table);
        let first = match (before.since.get(&report.table), written.every) {
            (Some(first), _) if is_known => Some(first.clone()),
            _ if is_known => None,
            (_, Every::Hour) => Some(Period::hour_of(last.saturating_add(MICROS_PER_HOUR)).to_string()),
            (_, Every::Day) => Some(Period::Day(plan.zone.days().day_of(last).saturating_add(1)).to_string()),
        };
        since.extend(first.map(|first| (report.table.clone(), first)));
    }
    since
}
