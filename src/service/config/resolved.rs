//! The settings as resolved from flags, environment and defaults, for `music-streams check-config`.
//!
//! The tests are in tests/process.rs.

use bytesize::ByteSize;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::memory::Memory;

/// One setting as resolved.
#[derive(Debug, serde::Serialize)]
pub struct Resolved {
    /// The flag, or the name of the variable.
    pub setting: String,
    /// The value.
    pub value: String,
    /// The source of the value.
    pub source: String,
}

/// Every setting with its value and its source, in the order of the help.
pub fn resolved(command: &Command, matches: &ArgMatches) -> Vec<Resolved> {
    let setting = |argument: &clap::Arg| {
        let flag = argument.get_long()?;
        let variable = argument.get_env()?.to_string_lossy().into_owned();
        let source = match matches.value_source(argument.get_id().as_str()) {
            Some(ValueSource::CommandLine) => format!("flag --{flag}"),
            Some(ValueSource::EnvVariable) => format!("environment {variable}"),
            Some(_) => "default".to_owned(),
            None if flag == "max-memory" => "limit of the container, or 2 GiB".to_owned(),
            None => "not set".to_owned(),
        };
        let value = match matches.get_raw(argument.get_id().as_str()) {
            Some(values) => values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(" "),
            None if flag == "max-memory" => ByteSize(Memory::of(None).bytes()).to_string(),
            None => String::new(),
        };
        Some(Resolved { setting: format!("--{flag}"), value, source })
    };
    let aws =
        ["AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL_DYNAMODB"]
            .into_iter()
            .filter_map(|name| {
                let value = std::env::var(name).ok()?;
                Some(Resolved { setting: name.to_owned(), value, source: "environment".to_owned() })
            });
    command.get_arguments().filter_map(setting).chain(aws).collect()
}
