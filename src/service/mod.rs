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
pub mod health;
pub mod sweep;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::pace::Pace;
use crate::aws::retry::Backoff;
use crate::aws::s3::{Bucket, CONCURRENT_OBJECTS};
use crate::aws::sqs::{Backlog, MAX_IN_FLIGHT_MESSAGES, Queue};
use crate::batch::Worker;
use crate::batch::prepare;
use crate::batch::roll_forward::RollForward;
use crate::intake::custody::{Custody, Received};
use crate::intake::notification::{Admission, admit, decode};
use crate::intake::window::{self, Message, Window};
use crate::layout;
use crate::ledger::{LEDGER_TABLE, Ledger};
use crate::memory::Memory;
use crate::process::ecs::ScaleInProtection;
use crate::process::tasks;
use crate::protocol::{BatchNumber, Entry, LeaseWatch, Registry};
use crate::reference::CatalogueSource;
use crate::reports::store::Reports;
use crate::service::config::Settings;
use crate::service::health::Health;
use crate::service::sweep::Sweeper;
use crate::telemetry::export::Telemetry;
use crate::telemetry::metrics::{label, metrics};

/// Overdue batches waiting for this consumer; more are found again at the next look.
const OVERDUE: usize = 16;
/// When a message comes back that nobody can read: soon, so that it reaches the dead-letter queue soon.
const UNREADABLE_DELAY: Duration = Duration::from_secs(5);
/// Looks at the registry within one lease.
const LOOKS_PER_LEASE: u32 = 4;
/// How often the log is told how the pipeline stands, for alarms.
const STATE_INTERVAL: Duration = Duration::from_secs(300);

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

/// How the process is asked to end.
#[derive(Debug)]
pub struct Stopping {
    /// It is about to stop: nothing new is begun, and what is not committed is given up.
    pub shutdown: CancellationToken,
    /// The time to stop is up: what is committed is left to the next consumer.
    deadline: CancellationToken,
}

impl Stopping {
    /// The first SIGTERM or Ctrl-C asks to stop; a second one, or the time limit, ends the wait for a committed batch.
    pub fn on_signals(limit: Duration) -> Result<Self, StartError> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
        let stopping = Stopping { shutdown: CancellationToken::new(), deadline: CancellationToken::new() };
        let (shutdown, deadline) = (stopping.shutdown.clone(), stopping.deadline.clone());
        tasks::spawn("signals", async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = shutdown.cancelled() => {}
            }
            shutdown.cancel();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = tokio::time::sleep(limit) => {}
            }
            deadline.cancel();
        });
        Ok(stopping)
    }
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

    let (custody, custodian) = Custody::start(queue.clone());
    let (messages_in, messages) = mpsc::channel(settings.receivers);
    let mut sources: Vec<_> = (0..settings.receivers)
        .map(|_| {
            let receiver = Receiver {
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
        limits: prepare::Limits {
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

async fn check_ledger(ledger: &Ledger, bucket: &Bucket) -> Result<(), AwsError> {
    ledger.check().await?;
    skip_taken_numbers(ledger, bucket).await
}

/// Tells a ledger that was lost, or restored to an earlier time, which numbers are taken: the bucket knows.
async fn skip_taken_numbers(ledger: &Ledger, bucket: &Bucket) -> Result<(), AwsError> {
    let last = ledger.registry().await?.last;
    let number = |key: &str| layout::batch_of_folder(key, 1);
    let Some(taken) = bucket.last_key_after(layout::BATCHES, layout::key_after_batch(last), number).await? else {
        return Ok(());
    };
    // Another consumer may have taken it between the two looks.
    let last = ledger.registry().await?.last;
    if taken <= last {
        return Ok(());
    }
    tracing::warn!(last, taken, "the ledger has forgotten batches that the bucket knows; their numbers are skipped");
    ledger.skip_to(taken).await
}

/// The worker, or the batch that it is at.
enum Slot {
    Idle(Box<Worker>),
    Busy(LocalBoxFuture<'static, Box<Worker>>),
}

/// The window that fills, and what fills and empties it.
struct Flow {
    window: Window,
    messages: mpsc::Receiver<Vec<Message>>,
    idle_limit: Option<Duration>,
    custody: Custody,
    shutdown: CancellationToken,
    deadline: CancellationToken,
}

impl Flow {
    async fn run(mut self, worker: Box<Worker>) {
        let mut hand = Slot::Idle(worker);
        let mut last_activity = Instant::now();
        // Windows and recoveries take turns: neither keeps the other waiting for longer than one of it takes.
        let mut is_windows_turn = false;
        loop {
            let is_idle = matches!(hand, Slot::Idle(_));
            metrics().window_objects.record(self.window.objects() as u64, &[]);
            metrics().window_fill.record(self.window.fill(), &[]);
            let due_in = self.window.due_in(Instant::now());
            let is_due = due_in.is_some_and(|due_in| due_in.is_zero());
            let idle_for = match self.idle_limit {
                Some(limit) if is_idle && self.window.is_empty() => Some(limit.saturating_sub(last_activity.elapsed())),
                _ => None,
            };
            hand = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                next = next_of(&mut hand), if !(is_idle && is_due && is_windows_turn) => match (next, hand) {
                    (Next::Done(worker), _) => {
                        last_activity = Instant::now();
                        Slot::Idle(worker)
                    }
                    (Next::Overdue(batch, entry), Slot::Idle(mut worker)) => {
                        is_windows_turn = true;
                        Slot::Busy(Box::pin(async move {
                            worker.recover(batch, entry).await;
                            worker
                        }))
                    }
                    (Next::Overdue(..), busy) => busy,
                },
                () = sleep_if(due_in), if is_idle => match (hand, self.window.close()) {
                    (Slot::Idle(mut worker), Some(window)) => {
                        is_windows_turn = false;
                        Slot::Busy(Box::pin(async move {
                            tracing::info!(objects = window.objects.len(), messages = window.messages.len(), "window closed");
                            worker.run(window).await;
                            worker
                        }))
                    }
                    (hand, _) => hand,
                },
                Some(messages) = self.messages.recv(), if !self.window.is_full() => {
                    last_activity = Instant::now();
                    for message in messages {
                        // One call's messages are taken together; the window's limits are overstepped by ten at most.
                        if let Err(message) = self.window.offer(message, now(), Instant::now()) {
                            self.custody.release(vec![message.id], Duration::ZERO).await;
                        }
                    }
                    hand
                }
                () = sleep_if(idle_for) => {
                    tracing::info!("idle; stopping as configured");
                    self.shutdown.cancel();
                    hand
                }
            };
        }
        let deadline = self.deadline.clone();
        let batch = async {
            if let Slot::Busy(batch) = hand {
                batch.await;
            }
        };
        // Dropping both at the end of the time is as safe as a crash.
        let _ = deadline.run_until_cancelled(futures::future::join(self.give_back(), batch)).await;
    }

    /// Gives every buffered message back to the queue.
    async fn give_back(&mut self) {
        tracing::info!("stopping");
        let mut ids: Vec<_> =
            self.window.close().into_iter().flat_map(|window| window.messages).map(|message| message.id).collect();
        self.messages.close();
        while let Some(messages) = self.messages.recv().await {
            ids.extend(messages.into_iter().map(|message| message.id));
        }
        let given_back = ids.len();
        self.custody.release(ids, Duration::ZERO).await;
        tracing::info!(given_back, "buffered messages are back in the queue");
    }
}

/// What happens next to the worker.
enum Next {
    /// The batch under way has come to its end.
    Done(Box<Worker>),
    /// A batch of a silent owner was found while it is idle.
    Overdue(BatchNumber, Entry),
}

/// Waits for the batch under way, or, when there is none, for one to recover.
async fn next_of(hand: &mut Slot) -> Next {
    match hand {
        Slot::Busy(batch) => Next::Done(batch.await),
        Slot::Idle(worker) => match worker.overdue.recv().await {
            Some((batch, entry)) => Next::Overdue(batch, entry),
            None => std::future::pending().await,
        },
    }
}

/// Sleeps; for ever when there is nothing to wait for.
async fn sleep_if(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Time since the Unix epoch: the clock that windows are aligned to.
fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// A receiver: polls, decodes, passes on.
struct Receiver {
    custody: Custody,
    bucket: String,
    poll_wait: Duration,
    messages: mpsc::Sender<Vec<Message>>,
    shutdown: CancellationToken,
}

impl Receiver {
    async fn run(self) {
        let mut backoff = Backoff::default();
        loop {
            // No place downstream, no poll: what cannot be taken stays in the queue for others.
            let place = tokio::select! {
                place = self.messages.reserve() => place,
                () = self.shutdown.cancelled() => return,
            };
            let Ok(place) = place else { return };
            let received = match self.custody.receive(self.poll_wait).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::error!("{error}; trying again");
                    if !backoff.pause(&self.shutdown).await {
                        return;
                    }
                    continue;
                }
            };
            backoff = Backoff::default();
            if self.shutdown.is_cancelled() {
                self.custody.release(received.iter().map(|message| message.id).collect(), Duration::ZERO).await;
                return;
            }
            let messages = self.understand(received).await;
            if !messages.is_empty() {
                place.send(messages);
            }
        }
    }

    async fn understand(&self, received: Vec<Received>) -> Vec<Message> {
        let mut messages = Vec::with_capacity(received.len());
        let (mut finished, mut unreadable) = (Vec::new(), Vec::new());
        for Received { id, message_id, body, receive_count } in received {
            let admission = admit(decode(&body), &self.bucket);
            tell(&admission, &message_id, receive_count);
            let is_readable = admission.unreadable.is_empty();
            if !is_readable {
                unreadable.push(id);
            } else if admission.events.is_empty() {
                finished.push(id);
            }
            if !admission.events.is_empty() {
                // What can be read of a message that goes its own way is worked on without it, as what a sweep finds.
                let id = if is_readable { id } else { self.custody.untracked_id() };
                messages.push(Message { id, events: admission.events });
            }
        }
        if !finished.is_empty() {
            self.custody.delete(finished).await;
        }
        if !unreadable.is_empty() {
            self.custody.release(unreadable, UNREADABLE_DELAY).await;
        }
        messages
    }
}

/// Counts what a message announces, and says what of it nobody acts upon.
fn tell(admission: &Admission, message_id: &str, receive_count: u32) {
    let Admission { events, refused, ignored, unreadable } = admission;
    let outcomes = [
        ("accepted", events.len()),
        ("ignored", ignored.len()),
        ("refused", refused.len()),
        ("unreadable", unreadable.len()),
    ];
    for (outcome, count) in outcomes {
        metrics().events.add(count as u64, &label("outcome", outcome));
    }
    if let Some(kind) = ignored.first() {
        tracing::info!(message_id, events = ignored.len(), kind, "announces no new object; ignored");
    }
    if let Some(key) = refused.first() {
        tracing::warn!(
            message_id,
            events = refused.len(),
            key,
            "announced, but not a file under the incoming prefix; not read"
        );
    }
    // It comes back again and again, and says nothing new.
    if let Some(reason) = unreadable.first()
        && receive_count <= 1
    {
        tracing::warn!(
            message_id,
            events = unreadable.len(),
            "message cannot be read: {reason}; left for the dead-letter queue"
        );
    }
}

/// Looks for batches whose owners are silent and passes them on.
async fn watch_leases(
    ledger: Ledger,
    lease: Duration,
    overdue: mpsc::Sender<(BatchNumber, Entry)>,
    shutdown: CancellationToken,
) {
    let mut watch = LeaseWatch::new(lease);
    let mut told_at: Option<Instant> = None;
    while shutdown.run_until_cancelled(tokio::time::sleep(lease / LOOKS_PER_LEASE)).await.is_some() {
        match ledger.registry().await {
            Ok(registry) => {
                for (batch, entry) in watch.observe(&registry, Instant::now()) {
                    // No place: it is still overdue at the next look.
                    if overdue.try_send((batch, entry)).is_ok() {
                        watch.recovering(batch, Instant::now());
                    }
                }
                if told_at.is_none_or(|told_at| told_at.elapsed() >= STATE_INTERVAL) {
                    told_at = Some(Instant::now());
                    tell_state(&ledger, &registry).await;
                }
            }
            Err(error) => tracing::warn!("{error}; looking again"),
        }
    }
}

/// Says how the pipeline stands: what alarms are made of.
async fn tell_state(ledger: &Ledger, registry: &Registry) {
    let aside = match ledger.count_aside().await {
        Ok(aside) => aside,
        Err(error) => return tracing::warn!("{error}; what is set aside is not told"),
    };
    let oldest = registry.batches.values().map(|entry| entry.since).min();
    let oldest_unfinished_s = oldest.map_or(0, |since| now().as_secs().saturating_sub(since));
    let unfinished_batches = registry.batches.len() as u64;
    metrics().unfinished_batches.record(unfinished_batches, &[]);
    metrics().oldest_unfinished.record(oldest_unfinished_s, &[]);
    metrics().aside.record(aside, &[]);
    tracing::info!(unfinished_batches, oldest_unfinished_s, aside, "state of the pipeline");
}

/// Tells what nothing else comes across, again and again.
async fn observe(queue: Queue, interval: Duration) {
    let mut tick = tokio::time::interval(interval);
    loop {
        tick.tick().await;
        metrics().memory.record(resident_bytes().unwrap_or(0), &[]);
        match queue.backlog().await {
            Ok(Backlog { waiting, in_flight, delayed }) => {
                for (state, messages) in [("waiting", waiting), ("in_flight", in_flight), ("delayed", delayed)] {
                    metrics().queue_messages.record(messages, &label("state", state));
                }
                metrics().in_flight_share.record(in_flight as f64 / MAX_IN_FLIGHT_MESSAGES as f64, &[]);
            }
            Err(error) => tracing::warn!("{error}; the backlog is not told"),
        }
    }
}

/// <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// A name that no other process has had: host, process and start.
fn consumer_name() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| "consumer".to_owned());
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), now());
    format!("{host}-{}-{random:016x}", std::process::id())
}
