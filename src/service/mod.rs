//! The pipeline: which tasks there are, how they are connected, and in which order they stop.
//!
//! ```text
//!  receivers (n) ──messages, bounded──▶ this task: window ─▶ batch
//!       │                                     ▲
//!       └── custody (1): visibility,          ├── sweep (1): objects that no message announces
//!           delete, give back                 └── lease watch (1): batches of silent consumers
//! ```
//!
//! This task owns the window that fills and the batch that runs, and there is never a third: while both are full it takes
//! no message, the channel fills, the receivers stop receiving, and the events wait in SQS. That is the whole backpressure.
//!
//! Stop, on SIGTERM or Ctrl-C: receivers finish their poll and give back what it brings; buffered messages are given back; a
//! batch that is not committed is given up; one that is committed goes on until it is done or the time is up.

pub mod config;
mod flow;
pub mod health;
mod leases;
mod observer;
mod receiver;
mod shutdown;
mod start;
pub mod sweep;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::aws::Clients;
use crate::aws::pace::Pace;
use crate::aws::s3::{Bucket, CONCURRENT_OBJECTS};
use crate::aws::sqs::{Custody, Queue};
use crate::batch::Worker;
use crate::batch::prepare;
use crate::batch::roll_forward::RollForward;
use crate::intake::window::{self, Window};
use crate::ledger::{LEDGER_TABLE, Ledger};
use crate::memory::Memory;
use crate::process::ecs::ScaleInProtection;
use crate::process::tasks;
use crate::reference::catalogue::CatalogueSource;
use crate::reports::store::Reports;
use crate::service::config::Settings;
use crate::service::flow::Flow;
use crate::service::health::Health;
use crate::service::leases::watch_leases;
use crate::service::observer::observe;
use crate::service::receiver::Receiver;
pub use crate::service::shutdown::Stopping;
use crate::service::start::{check_ledger, consumer_name};
use crate::service::sweep::Sweeper;
use crate::telemetry::export::Telemetry;

/// Overdue batches waiting for this consumer; more are found again at the next look.
const OVERDUE: usize = 16;

/// Why the consumer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Resources cannot be used; each is named with what is wrong.
    #[error("{0}")]
    Resources(String),
    /// Nothing can be answered at the address for health.
    #[error("--health-address {address} cannot be used: {error}; give one that is free")]
    HealthAddress {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// The operating system refuses signal handlers.
    #[error("signals cannot be handled: {0}")]
    Signals(std::io::Error),
}

/// Runs the consumer until it is asked to stop. `started` is when the process was.
pub async fn run(
    settings: &Settings,
    stopping: Stopping,
    clients: Clients,
    telemetry: &Telemetry,
    started: Instant,
) -> Result<(), StartError> {
    let Stopping { shutdown, deadline } = stopping;
    let health = Health::new(clients.requests, shutdown.clone(), settings.unready_after, settings.stuck_after);
    let _answering = match settings.health_address {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|error| StartError::HealthAddress { address, error })?;
            Some(AbortOnDropHandle::new(tasks::spawn("health", health.clone().answer(listener))))
        }
        None => None,
    };

    let memory = Memory::of(settings.max_memory);
    let queue = Queue::new(clients.sqs, settings.queue_url.clone(), settings.visibility_timeout);
    let bucket = Bucket::new(clients.s3, settings.bucket.clone());
    let ledger =
        Ledger::new(clients.dynamodb.clone(), format!("{}{LEDGER_TABLE}", settings.table_prefix), consumer_name());
    let limiter = |rate: Option<std::num::NonZeroU32>| {
        rate.map(|rate| Arc::new(RateLimiter::direct(Quota::per_second(rate))) as Arc<DefaultDirectRateLimiter>)
    };
    let writes = limiter(settings.max_writes_per_second);
    let progress = health.progress.clone();
    let prefix = settings.table_prefix.clone();
    let reports = Reports::new(clients.dynamodb, prefix, settings.write_concurrency, writes, progress.clone());

    let checks = async {
        futures::join!(
            queue.check(),
            bucket.check(ledger.owner()),
            check_ledger(&ledger, &bucket),
            reports.check(),
            CatalogueSource::load(bucket.clone(), ledger.clone(), memory.catalogue())
        )
    };
    let Some((queue_answers, bucket_problems, ledger_answers, reports_answer, catalogue)) =
        shutdown.run_until_cancelled(checks).await
    else {
        tracing::info!("stopped before it was ready");
        return Ok(());
    };
    // All that is wrong is said at once: permissions are rarely missing one at a time.
    let problems: Vec<String> = [queue_answers, ledger_answers, reports_answer]
        .into_iter()
        .filter_map(Result::err)
        .chain(bucket_problems)
        .map(|error| error.to_string())
        .chain(catalogue.as_ref().err().map(|error| error.to_string()))
        .collect();
    let (Ok(catalogue), true) = (catalogue, problems.is_empty()) else {
        return Err(StartError::Resources(problems.join("\n")));
    };
    health.started();

    let (custody, custodian) = Custody::keep(queue.clone());
    let (messages_in, messages) = mpsc::channel(settings.receivers);
    let mut sources: Vec<_> = (0..settings.receivers)
        .map(|_| {
            let receiver = Receiver {
                queue: queue.clone(),
                custody: custody.clone(),
                bucket: settings.bucket.clone(),
                poll_wait: settings.poll_wait,
                messages: messages_in.clone(),
                shutdown: shutdown.clone(),
            };
            tasks::spawn_until(&shutdown, "receiver", receiver.run())
        })
        .collect();
    if !settings.sweep_interval.is_zero() {
        let sweeper = Sweeper {
            bucket: bucket.clone(),
            ledger: ledger.clone(),
            custody: custody.clone(),
            messages: messages_in.clone(),
            interval: settings.sweep_interval,
            age: settings.sweep_age,
            shutdown: shutdown.clone(),
        };
        sources.push(tasks::spawn_until(&shutdown, "sweep", sweeper.run()));
    }
    drop(messages_in);
    let _observing = telemetry
        .interval()
        .map(|interval| AbortOnDropHandle::new(tasks::spawn("observer", observe(queue.clone(), interval))));
    let (overdue_in, overdue) = mpsc::channel(OVERDUE);
    let watching = watch_leases(ledger.clone(), settings.lease, overdue_in, shutdown.clone());
    let watch = tasks::spawn_until(&shutdown, "lease watch", watching);

    let worker = Worker {
        roll_forward: RollForward { ledger: ledger.clone(), bucket, reports, progress, deadline: deadline.clone() },
        custody: custody.clone(),
        catalogue,
        limits: prepare::PreparationLimits {
            object_bytes: settings.max_object_size.as_u64(),
            report_items: settings.max_report_items,
            memory,
            rows: limiter(settings.max_rows_per_second),
        },
        lease: settings.lease,
        overdue,
        claims: Pace::new(CONCURRENT_OBJECTS),
        protection: ScaleInProtection::of_this_task(),
        shutdown: shutdown.clone(),
    };
    let limits = window::Limits {
        objects: settings.max_objects,
        bytes: settings.max_bytes.as_u64(),
        messages: settings.max_messages,
    };
    let window = Window::new(settings.window, limits, window::offset(ledger.owner(), settings.window));
    tracing::info!(
        consumer = ledger.owner(),
        bucket = settings.bucket,
        queue = settings.queue_url,
        window = %humantime::format_duration(settings.window),
        startup_ms = started.elapsed().as_millis() as u64,
        "ready"
    );
    let flow =
        Flow { window, messages, idle_limit: settings.exit_when_idle, custody, shutdown, deadline: deadline.clone() };
    flow.run(Box::new(worker)).await;

    let stopped = async {
        for source in sources {
            let _ = source.await;
        }
        watch.abort();
        // Every way into custody is dropped by now, so the custodian ends after its last command.
        let _ = custodian.await;
    };
    let _ = deadline.run_until_cancelled(stopped).await;
    tracing::info!("stopped");
    Ok(())
}

/// Time since the Unix epoch: the clock that windows are aligned to.
fn unix_time() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
