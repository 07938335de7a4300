//! Definitions: those that were ever put in force, each by its digest, and the plan of the one that is.
//!
//! A definition is stored before it is put in force, and never changed or deleted: manifests of batches name theirs.
//! The definition in force is named by the [registry](super::registry). Covered by `tests/pipeline`.

use std::sync::Arc;

use crate::aws::error::AwsError;
use crate::aws::item::{text, text_of};
use crate::definition::Definition;
use crate::ledger::{Ledger, PUT, now_text};
use crate::plan::Plan;
use crate::protocol::InForce;

const DEFINITION: &str = "definition";

/// The error that keeps a definition from being used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The ledger cannot be read.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// It is not in the ledger.
    #[error(
        "the definition {digest} is in force or was, and is not in the ledger; put it there again: music-streams \
         definition apply FILE"
    )]
    Gone {
        /// Its digest.
        digest: String,
    },
    /// This program does not understand it.
    #[error("the definition {digest} needs another version of music-streams than this one: {problems}")]
    NotUnderstood {
        /// Its digest.
        digest: String,
        /// What it does not understand.
        problems: String,
    },
}

impl Ledger {
    /// Returns the definition in force, and its plan.
    pub async fn in_force(&self) -> Result<(InForce, Arc<Plan>), DefinitionError> {
        let in_force = self.registry().await?.definition;
        let plan = self.plan_in_force(&in_force).await?;
        Ok((in_force, plan))
    }

    /// Returns the plan of a definition in force, with the periods that it counts.
    pub async fn plan_in_force(&self, in_force: &InForce) -> Result<Arc<Plan>, DefinitionError> {
        let plan = self.plan_of(in_force.digest.as_deref()).await?;
        let digest = plan.digest.clone();
        plan.since(&in_force.since).map(Arc::new).map_err(|error| not_understood(&digest, &error.to_string()))
    }

    /// Returns the plan of the definition with this digest, which counts all periods; of the built-in one without a
    /// digest.
    pub async fn plan_of(&self, digest: Option<&str>) -> Result<Plan, DefinitionError> {
        let built_in =
            Definition::built_in().map_err(|problems| not_understood("built in", &problems.describe("it")))?;
        let definition = match digest {
            Some(digest) if digest != built_in.digest() => self.definition(digest).await?,
            _ => built_in,
        };
        Plan::of(definition).map_err(|error| not_understood(digest.unwrap_or("built in"), &error.to_string()))
    }

    /// Reads a definition.
    async fn definition(&self, digest: &str) -> Result<Definition, DefinitionError> {
        let item = self.get(&key_of(digest), DEFINITION).await?;
        let written = item.and_then(|item| text_of(&item, "text"));
        let written = written.ok_or_else(|| DefinitionError::Gone { digest: digest.to_owned() })?;
        let definition = Definition::parse(written.as_bytes());
        let definition = definition.map_err(|problems| not_understood(digest, &problems.describe("it")))?;
        match definition.digest() {
            same if same == digest => Ok(definition),
            other => Err(not_understood(digest, &format!("it reads it as {other}"))),
        }
    }

    /// Stores a definition, unless it is stored already.
    pub async fn store_definition(&self, definition: &Definition) -> Result<(), AwsError> {
        let pk = key_of(&definition.digest());
        let put = self.put(&pk, DEFINITION).item("text", text(definition.canonical())).item("stored_at", now_text());
        let put = put.condition_expression("attribute_not_exists(pk)");
        self.conditional(PUT, &pk, put.send()).await.map(drop)
    }
}

fn key_of(digest: &str) -> String {
    format!("definition#{digest}")
}

fn not_understood(digest: &str, problems: &str) -> DefinitionError {
    DefinitionError::NotUnderstood { digest: digest.to_owned(), problems: problems.to_owned() }
}
