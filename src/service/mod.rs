//! The service: the tasks of a consumer, how they are connected, and the order in which they start and stop.
//!
//! ```text
//!  receivers (n) ──messages, bounded──▶ flow: window ─▶ batch
//!       │                                     ▲
//!       └── custody (1): visibility,          ├── sweep (1): objects that no message announces
//!           delete, give back                 ├── lease watch (1): batches of silent consumers
//!                                             └── keeper of the table (1): curated files as a table
//! ```
//!
//! [`run`] is the consumer's life from start to stop, and reads top to bottom. The main task is the flow, which owns
//! the window that fills and the batch that runs. There is never a third: while both are occupied it takes no message,
//! the channel fills, the receivers stop receiving, and the events wait in SQS. That is the whole backpressure.
//!
//! Stop, on SIGTERM or Ctrl-C: receivers finish their poll and return the messages it brings; buffered messages are
//! returned; a batch that is not committed is abandoned; one that is committed continues until it is done or the time
//! is up.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the steps of a consumer's life |
//! | `start.rs` | the resources, and the checks that they work |
//! | `flow.rs` | the window that fills and the batch that runs |
//! | `receiver.rs` | from the queue to messages for the window |
//! | [`sweep`] | objects that no message announces |
//! | `leases.rs` | batches of silent consumers, and the state of the pipeline for alarms |
//! | `table.rs` | the table of the curated files |
//! | `observer.rs` | metrics that no other task updates |
//! | [`health`] | answers to orchestrators |
//! | `shutdown.rs` | signals and the deadline |
//! | [`config`] | the settings |
//!
//! The tests are tests/pipeline (health, telemetry, edges) and tests/process.rs.

pub mod config;
mod flow;
pub mod health;
mod leases;
mod observer;
mod receiver;
mod shutdown;
mod start;
pub mod sweep;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::aws::Clients;
use crate::aws::pace::{Pace, rate_limiter};
use crate::aws::s3::CONCURRENT_OBJECTS;
use crate::batch::Worker;
use crate::batch::company::Company;
use crate::batch::prepare::PreparationLimits;
use crate::batch::roll_forward::RollForward;
use crate::intake::custody::Custody;
use crate::intake::window::{self, Message, Window};
use crate::lake::Lake;
use crate::plan::Plan;
use crate::process::ecs::ScaleInProtection;
use crate::process::tasks;
use crate::protocol::{BatchNumber, Entry};
use crate::reference::CatalogueSource;
use crate::service::config::{Compact, Settings};
use crate::service::flow::Flow;
use crate::service::health::Health;
use crate::service::receiver::Receiver;
pub use crate::service::shutdown::Shutdown;
use crate::service::start::Resources;
use crate::service::sweep::Sweeper;
use crate::service::table::{OfTable, TableKeeper};
use crate::telemetry::export::Telemetry;
use crate::telemetry::progress::Progress;

/// Overdue batches waiting for this consumer; if there are more, the next look at the registry finds them again.
const OVERDUE_BATCHES: usize = 16;

/// The error that keeps the consumer from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Resources cannot be used; each is named with its fault.
    #[error("{0}")]
    Resources(String),
    /// Health questions cannot be answered at the configured address.
    #[error("--health-address {address} cannot be used: {error}; give one that is free")]
    HealthAddress {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The operating system refuses signal handlers.
    #[error("signals cannot be handled: {0}")]
    Signals(std::io::Error),
}

/// Runs the consumer until it is asked to stop. `started` is the time at which the process started.
pub async fn run(
    settings: &Settings,
    shutdown: Shutdown,
    clients: Clients,
    plan: Arc<Plan>,
    telemetry: &Telemetry,
    started: Instant,
) -> Result<(), StartError> {
    let Shutdown { requested, deadline } = &shutdown;
    let requests = clients.requests.clone();
    let health = Health::new(requests, requested.clone(), settings.unready_after, settings.stuck_after);
    let _answering = health.listen(settings.health_address).await?;

    let mut resources = Resources::new(settings, clients, plan, &health.progress);
    let Some(checked) = requested.run_until_cancelled(resources.check()).await else {
        tracing::info!("stopped before it was ready");
        return Ok(());
    };
    let catalogue = checked?;
    health.started();

    let (custody, custodian) = Custody::start(resources.queue.clone());
    let (messages, sources) = start_sources(settings, &shutdown, &resources, &custody);
    let _observing = telemetry.interval().map(|interval| {
        AbortOnDropHandle::new(tasks::spawn("observer", observer::observe(resources.queue.clone(), interval)))
    });
    let (overdue_in, overdue) = mpsc::channel(OVERDUE_BATCHES);
    let watching = leases::watch_leases(resources.ledger.clone(), settings.lease, overdue_in, requested.clone());
    let watch = tasks::spawn_until(requested, "lease watch", watching);

    let (table, keeping) = start_keeper(settings, requested, &resources);

    let window = new_window(settings);
    let offset = window::offset(resources.ledger.owner(), settings.window);
    let offset_with_company = settings.window_offset.is_none().then_some(offset);
    tracing::info!(
        consumer = resources.ledger.owner(),
        bucket = settings.bucket,
        queue = settings.queue_url,
        window = %humantime::format_duration(settings.window),
        startup_ms = started.elapsed().as_millis() as u64,
        "ready"
    );
    let worker =
        new_worker(settings, &shutdown, resources, health.progress.clone(), custody.clone(), catalogue, overdue);
    let flow = Flow {
        window,
        offset_with_company,
        messages,
        idle_limit: settings.exit_when_idle,
        custody,
        table,
        shutdown: shutdown.clone(),
    };
    flow.run(Box::new(worker)).await;

    let stopped = async {
        for source in sources {
            let _ = source.await;
        }
        watch.abort();
        let _ = keeping.await;
        // By now every sender of custody commands is dropped, so the custodian ends after the last command.
        let _ = custodian.await;
    };
    let _ = deadline.run_until_cancelled(stopped).await;
    tracing::info!("stopped");
    Ok(())
}

/// Starts the tasks that find objects: the receivers and the sweep. Returns the channel of their messages, and the
/// tasks.
fn start_sources(
    settings: &Settings,
    shutdown: &Shutdown,
    resources: &Resources,
    custody: &Custody,
) -> (mpsc::Receiver<Vec<Message>>, Vec<JoinHandle<()>>) {
    let requested = &shutdown.requested;
    let (messages_in, messages) = mpsc::channel(settings.receivers);
    let mut sources: Vec<_> = (0..settings.receivers)
        .map(|_| {
            let receiver = Receiver {
                custody: custody.clone(),
                bucket: settings.bucket.clone(),
                poll_wait: settings.poll_wait,
                messages: messages_in.clone(),
                shutdown: requested.clone(),
            };
            tasks::spawn_until(requested, "receiver", receiver.run())
        })
        .collect();
    if !settings.sweep_interval.is_zero() {
        let sweeper = Sweeper {
            bucket: resources.bucket.clone(),
            ledger: resources.ledger.clone(),
            custody: custody.clone(),
            messages: messages_in,
            interval: settings.sweep_interval,
            age: settings.sweep_age,
            shutdown: requested.clone(),
        };
        sources.push(tasks::spawn_until(requested, "sweep", sweeper.run()));
    }
    (messages, sources)
}

/// Starts the keeper of the table. Returns the flow's side of it, and the task.
fn start_keeper(
    settings: &Settings,
    requested: &CancellationToken,
    resources: &Resources,
) -> (OfTable, JoinHandle<()>) {
    let (commissions_in, commissions) = mpsc::channel(1);
    let batch_ended = Arc::new(Notify::new());
    let keeper = TableKeeper {
        lake: Lake::new(resources.bucket.clone(), resources.ledger.clone()),
        ledger: resources.ledger.clone(),
        batch_ended: Arc::clone(&batch_ended),
        interval: settings.lease / leases::LOOKS_PER_LEASE,
        commissions: commissions_in,
        compacts: settings.compact == Compact::Auto,
        tried: BTreeMap::new(),
    };
    let keeping = tasks::spawn_until(requested, "keeper of the table", keeper.run());
    (OfTable { commissions, batch_ended }, keeping)
}

fn new_window(settings: &Settings) -> Window {
    let limits = window::Limits {
        objects: settings.max_objects,
        bytes: settings.max_bytes.as_u64(),
        messages: settings.max_messages,
    };
    Window::new(settings.window, limits, settings.window_offset.unwrap_or_default())
}

fn new_worker(
    settings: &Settings,
    shutdown: &Shutdown,
    resources: Resources,
    progress: Progress,
    custody: Custody,
    catalogue: CatalogueSource,
    overdue: mpsc::Receiver<(BatchNumber, Entry)>,
) -> Worker {
    let Resources { bucket, ledger, reports, memory, definition, .. } = resources;
    Worker {
        roll_forward: RollForward { ledger, bucket, reports, progress, deadline: shutdown.deadline.clone() },
        custody,
        definition,
        catalogue,
        limits: PreparationLimits {
            object_bytes: settings.max_object_size.as_u64(),
            report_items: settings.max_report_items,
            memory,
            rows: rate_limiter(settings.max_rows_per_second),
        },
        lease: settings.lease,
        overdue,
        claims: Pace::new(CONCURRENT_OBJECTS),
        company: Company::default(),
        protection: ScaleInProtection::of_this_task(),
        shutdown: shutdown.requested.clone(),
    }
}

/// The time since the Unix epoch: the clock to which windows are aligned.
fn unix_time() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
