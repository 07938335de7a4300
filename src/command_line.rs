//! The command line: its commands, the runtime that they are carried out on, logging and exit status. Covered by
//! tests/process.rs and tests/pipeline/cli.rs.
//!
//! It is in the library, as whoever waits for an asynchronous function compiles it, with all that it waits for.

use std::fmt::Display;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::aws::Clients;
use crate::commands::aside::AsideQuery;
use crate::commands::compact::CompactQuery;
use crate::commands::dead_letters::DeadLettersQuery;
use crate::commands::definition::DefinitionQuery;
use crate::commands::format::{output_error, print};
use crate::commands::health::HealthQuery;
use crate::commands::quarantine::QuarantineQuery;
use crate::commands::replay::ReplayQuery;
use crate::commands::report::Query;
use crate::commands::resources::Tables;
use crate::commands::serve::ServeQuery;
use crate::commands::status::StatusQuery;
use crate::commands::verify::VerifyQuery;
use crate::plan::Plan;
use crate::process::environment;
use crate::process::log;
use crate::process::tasks;
use crate::service::config::{self, Settings};
use crate::service::{self, Shutdown};
use crate::telemetry::export::Telemetry;

/// The longest wait at exit until standard error has taken the last lines of the log.
const LAST_LINES: Duration = Duration::from_secs(2);
/// The longest time that the server takes to stop.
const STOP_SERVING: Duration = Duration::from_secs(15);

/// Turns raw events into reports, within minutes and exactly once.
///
/// Small CSV files arrive under incoming/ of an S3 bucket, and an SQS queue announces them. The consumer gathers them
/// into micro-batch windows, and turns each window into curated Parquet, figures in DynamoDB and archived originals.
#[derive(Debug, Parser)]
#[command(
    name = "music-streams",
    version,
    max_term_width = 110,
    arg_required_else_help = true,
    args_override_self = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the consumer, until SIGTERM or Ctrl-C
    ///
    /// Any number of consumers may run on one queue. It is safe to stop one at any time, and a crash is safe too: the
    /// next consumer continues the unfinished work, and nothing is counted twice.
    Run(Run),
    /// Show the figures of the report tables
    Report(Query),
    /// Serve the figures as a page for people and an API for programs
    ///
    /// Reads the tables with the credentials of whoever starts it, and writes nothing. At home it is for this machine
    /// alone; for others it runs behind a load balancer with a login, or as a Lambda function. With --once it writes
    /// one page or answer and ends.
    Serve(Serve),
    /// Show batches at work, finished batches and waiting messages; or the history of one file
    Status(StatusQuery),
    /// Check a day's reports against its curated and archived files, and list every difference
    ///
    /// Recomputes the reports from the curated Parquet and the curated rows from the archived originals, and checks
    /// that each file lies in one place. The exit status is 0 if all agree, and 1 on any difference. Writes nothing,
    /// and may run beside consumers.
    Verify(VerifyQuery),
    /// Restore a day's reports from its archived files, or rebuild them
    ///
    /// Applies every batch of the day again, from the archived originals. An item keeps the batches that it has, and
    /// gets back those that it has lost. Nothing is ever counted twice. With --rebuild, items and curated files are
    /// replaced instead.
    Replay(ReplayQuery),
    /// Make large files of small ones in the table of the curated files
    ///
    /// Consumers do the same between batches, unless they run with --compact never. Readers see every row once, before
    /// and after. Deletes what no reader needs any more, after a week.
    Compact(CompactQuery),
    /// Show what was refused permanently and set aside, with the reason; or bring it back
    ///
    /// Files that cannot be read, report items that cannot be written, counted files that cannot be moved: each is set
    /// aside by itself and holds nothing else up. With --retry, all of it is tried again. Nothing is ever counted
    /// twice.
    Aside(AsideQuery),
    /// Show the files that could not be counted, with the reason; or bring them back under their own names
    ///
    /// With --retry they return to where they came from, and the next batch reads them again: after a limit was raised,
    /// say.
    Quarantine(QuarantineQuery),
    /// Show the messages that could not be processed, with the reason; or send them back
    DeadLetters(DeadLettersQuery),
    /// Check or show a definition: the file that says what files are like, what is looked up and what is reported
    Definition(DefinitionQuery),
    /// Ask a running consumer if it is alive, or ready; for health checks of containers
    ///
    /// The exit status is 0 if so, and 1 if not, with the reason.
    Health(HealthQuery),
    /// Print every setting of the pipeline with its value and source, and report errors
    CheckConfig(CheckConfig),
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    settings: Settings,

    /// Format of the log: text for people, json for programs; auto is text at a terminal and json elsewhere
    ///
    /// RUST_LOG selects what is logged (default: info).
    #[arg(long, env = "MUSIC_STREAMS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    #[arg(help_heading = "Process")]
    log_format: LogFormat,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    query: ServeQuery,

    /// Format of the log: text for people, json for programs; auto is text at a terminal and json elsewhere
    #[arg(long, env = "MUSIC_STREAMS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
}

#[derive(Debug, Args)]
struct CheckConfig {
    #[command(flatten)]
    settings: Settings,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Auto,
    Text,
    Json,
}

/// Carries out what the arguments of the process say. Returns its exit status.
pub fn run() -> ExitCode {
    tasks::end_on_panic();
    // For tests of crashes: the variable FAILPOINTS says what happens at which point, and a panic ends the process.
    #[cfg(feature = "failpoints")]
    std::mem::forget(fail::FailScenario::setup());
    let status = match environment::clean() {
        Ok(()) => carry_out(),
        Err(problem) => failed(&problem),
    };
    log::flush(LAST_LINES);
    status
}

fn carry_out() -> ExitCode {
    let matches = CommandLine::command().get_matches();
    let line = match CommandLine::from_arg_matches(&matches) {
        Ok(line) => line,
        Err(error) => error.exit(),
    };
    // The window and its batch run on this thread. Everything that waits for the network runs on the workers.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start threads: {error}")),
    };
    let done = runtime.block_on(async {
        match line.command {
            Command::Run(run) => run_consumer(&run).await,
            Command::Report(query) => query.run(clients().await).await.map_err(|error| error.to_string()),
            Command::Serve(serve) => run_server(serve).await,
            Command::Status(query) => show(query.answer(clients().await).await),
            Command::Verify(query) => {
                let (clients, plan) = in_force(query.tables()).await?;
                query.run(clients, plan).await.map_err(|error| error.to_string())
            }
            Command::Replay(query) => {
                let (clients, plan) = in_force(query.tables()).await?;
                query.run(clients, plan).await.map_err(|error| error.to_string())
            }
            Command::Compact(query) => {
                let (clients, plan) = in_force(query.tables()).await?;
                query.run(clients, plan).await.map_err(|error| error.to_string())
            }
            Command::Aside(query) => {
                let (clients, plan) = in_force(query.tables()).await?;
                query.run(clients, plan).await.map_err(|error| error.to_string())
            }
            Command::Quarantine(query) => query.run(clients().await).await.map_err(|error| error.to_string()),
            Command::DeadLetters(query) => show(query.answer(clients().await).await),
            Command::Definition(query) => query.run(clients()).await.map_err(|error| error.to_string()),
            Command::Health(query) => query.ask().await.map(|said| print(&said)),
            Command::CheckConfig(check) => check_config(&check, &matches),
        }
    });
    // Do not wait for bodies that are still being read ahead.
    runtime.shutdown_background();
    match (done, output_error()) {
        (Err(error), _) => failed(&error),
        (Ok(()), Some(error)) => failed(&format!("standard output cannot be written: {error}")),
        (Ok(()), None) => ExitCode::SUCCESS,
    }
}

/// Returns the clients, and the plan of the definition that is in force in the pipeline with these tables.
async fn in_force(tables: &Tables) -> Result<(Clients, Arc<Plan>), String> {
    let clients = clients().await;
    let (_, plan) = tables.ledger(&clients, "").in_force().await.map_err(|error| error.to_string())?;
    Ok((clients, plan))
}

async fn clients() -> Clients {
    Clients::from_environment().await
}

fn show(answer: Result<String, impl Display>) -> Result<(), String> {
    answer.map(|answer| print(&answer)).map_err(|error| error.to_string())
}

fn failed(error: &str) -> ExitCode {
    log::line(&format!("music-streams: {error}"));
    ExitCode::FAILURE
}

async fn run_consumer(run: &Run) -> Result<(), String> {
    let started = Instant::now();
    let plan = Plan::built_in().map_err(|error| error.to_string())?;
    let problems = run.settings.problems();
    if !problems.is_empty() {
        return Err(problems.join("\nmusic-streams: "));
    }
    start_logging(run.log_format);
    let shutdown = Shutdown::on_signals(run.settings.shutdown_timeout).map_err(|error| error.to_string())?;
    // Both may query the metadata of the machine.
    let starting = futures::future::join(Telemetry::start(), clients());
    let Some((telemetry, clients)) = shutdown.requested.run_until_cancelled(starting).await else {
        tracing::info!("stopped before it was ready");
        return Ok(());
    };
    let telemetry = telemetry.map_err(|error| format!("telemetry: {error} (check the OTEL_ variables)"))?;
    let done = service::run(&run.settings, shutdown, clients, plan, &telemetry, started).await;
    let done = done.map_err(|error| error.to_string());
    telemetry.shutdown().await;
    done
}

async fn run_server(Serve { query, log_format }: Serve) -> Result<(), String> {
    if query.is_once() {
        return query.run(clients().await, CancellationToken::new()).await;
    }
    start_logging(log_format);
    let shutdown = Shutdown::on_signals(STOP_SERVING).map_err(|error| error.to_string())?;
    let telemetry =
        Telemetry::start().await.map_err(|error| format!("telemetry: {error} (check the OTEL_ variables)"))?;
    let done = query.run(clients().await, shutdown.requested.clone()).await;
    telemetry.shutdown().await;
    done
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| log::Lines).log_internal_errors(false);
    match format {
        LogFormat::Json => logs.json().flatten_event(true).with_span_list(false).init(),
        LogFormat::Auto if !is_terminal => {
            logs.json().flatten_event(true).with_span_list(false).init();
        }
        LogFormat::Auto | LogFormat::Text => logs.with_target(false).with_ansi(is_terminal).init(),
    }
}

fn check_config(check: &CheckConfig, matches: &clap::ArgMatches) -> Result<(), String> {
    let command = CommandLine::command();
    let resolved = match (command.find_subcommand("check-config"), matches.subcommand_matches("check-config")) {
        (Some(command), Some(matches)) => config::resolved(command, matches),
        _ => Vec::new(),
    };
    if check.json {
        print(&format!("{:#}", serde_json::json!(resolved)));
    } else {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["SETTING", "VALUE", "SOURCE"]);
        table.add_rows(resolved.iter().map(|setting| [&setting.setting, &setting.value, &setting.source]));
        print(&table.to_string());
    }
    let problems = check.settings.problems();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\nmusic-streams: ")) }
}
