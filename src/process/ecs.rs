//! Amazon ECS: the metadata that it gives to a task, and the protection that a task requests.
//!
//! * The task's identity, for the resource attributes of its telemetry:
//!   <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html>.
//! * Protection from being scaled in, from the commit of a batch to its end, for at most an hour:
//!   <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html>. A task that
//!   is scaled in nevertheless loses nothing; another consumer finishes its batch a lease later.
//!
//! Outside ECS, both have no effect.

use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::process::tasks;

/// Longest wait for an answer of the agent, which runs on the same machine.
const AGENT_TIMEOUT: Duration = Duration::from_secs(2);
/// Duration of a protection that is not withdrawn, and first pause between requests.
const TIMES: Times = Times { protection: Duration::from_secs(3600), first_pause: Duration::from_secs(1) };
/// Longest pause between requests.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ContainerMetadata {
    docker_id: Option<String>,
    name: Option<String>,
    #[serde(rename = "ContainerARN")]
    container_arn: Option<String>,
    log_options: LogOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct LogOptions {
    awslogs_group: Option<String>,
    awslogs_stream: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TaskMetadata {
    cluster: Option<String>,
    #[serde(rename = "TaskARN")]
    task_arn: Option<String>,
    family: Option<String>,
    revision: Option<String>,
    availability_zone: Option<String>,
    launch_type: Option<String>,
}

/// Returns the attributes of this task under OpenTelemetry's names; none outside ECS:
/// <https://opentelemetry.io/docs/specs/semconv/resource/cloud-provider/aws/ecs/>
pub async fn resource_attributes() -> Vec<KeyValue> {
    let Ok(endpoint) = std::env::var("ECS_CONTAINER_METADATA_URI_V4") else { return Vec::new() };
    match (get(&endpoint).await, get(&format!("{endpoint}/task")).await) {
        (Ok(container), Ok(task)) => attributes(container, task),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!("ECS gives no metadata of this task, so telemetry has none either: {error}");
            Vec::new()
        }
    }
}

async fn get<T: for<'de> Deserialize<'de>>(url: &str) -> Result<T, String> {
    let request = agent().map_err(|error| error.to_string())?.get(url).send();
    let body = request.await.and_then(reqwest::Response::error_for_status).map_err(|error| error.to_string())?.bytes();
    serde_json::from_slice(&body.await.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

fn agent() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().timeout(AGENT_TIMEOUT).no_proxy().build()
}

fn attributes(container: ContainerMetadata, task: TaskMetadata) -> Vec<KeyValue> {
    // arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID
    let arn = task.task_arn.clone().unwrap_or_default();
    let part = |position| arn.split(':').nth(position).filter(|part| !part.is_empty()).map(str::to_owned);
    [
        ("cloud.provider", Some("aws".to_owned())),
        ("cloud.platform", Some("aws_ecs".to_owned())),
        ("cloud.region", part(3)),
        ("cloud.account.id", part(4)),
        ("cloud.availability_zone", task.availability_zone),
        ("cloud.resource_id", container.container_arn.clone()),
        ("aws.ecs.cluster.arn", task.cluster),
        ("aws.ecs.container.arn", container.container_arn),
        ("aws.ecs.launchtype", task.launch_type.map(|launch_type| launch_type.to_lowercase())),
        ("aws.ecs.task.arn", task.task_arn),
        ("aws.ecs.task.id", arn.rsplit('/').next().filter(|id| !id.is_empty()).map(str::to_owned)),
        ("aws.ecs.task.family", task.family),
        ("aws.ecs.task.revision", task.revision),
        ("container.id", container.docker_id),
        ("container.name", container.name),
        ("aws.log.group.names", container.log_options.awslogs_group),
        ("aws.log.stream.names", container.log_options.awslogs_stream),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(KeyValue::new(name, value?)))
    .collect()
}

/// Protects the task from being scaled in while a guard is held. The requests run beside the protected work and never
/// delay it.
#[derive(Debug)]
pub struct ScaleInProtection {
    wanted: Option<watch::Sender<bool>>,
    _asking: Option<AbortOnDropHandle<()>>,
}

impl ScaleInProtection {
    /// Creates the protection of this task. It has no effect outside ECS.
    pub fn of_this_task() -> Self {
        let client = std::env::var("ECS_AGENT_URI").ok().and_then(|agent_uri| Some((agent_uri, agent().ok()?)));
        let Some((agent_uri, client)) = client else { return ScaleInProtection { wanted: None, _asking: None } };
        let (wanted, changes) = watch::channel(false);
        let asking = tasks::spawn(
            "scale-in protection",
            ask(client, format!("{agent_uri}/task-protection/v1/state"), changes, TIMES),
        );
        ScaleInProtection { wanted: Some(wanted), _asking: Some(AbortOnDropHandle::new(asking)) }
    }

    /// Protects the task until the returned guard is dropped.
    pub fn hold(&self) -> Protected<'_> {
        self.set(true);
        Protected(self)
    }

    fn set(&self, protected: bool) {
        if let Some(wanted) = &self.wanted {
            wanted.send_replace(protected);
        }
    }
}

/// A guard: the task is protected until it is dropped.
#[derive(Debug)]
pub struct Protected<'a>(&'a ScaleInProtection);

impl Drop for Protected<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// The duration of a protection, and the first pause between requests to the agent.
#[derive(Debug, Clone, Copy)]
struct Times {
    protection: Duration,
    first_pause: Duration,
}

/// Sends every change of the wanted protection to the agent, and repeats the request until it succeeds. Protection
/// lasts for an hour after it was requested and is not renewed: a batch that takes longer is stuck, and must not keep a
/// deployment with a fix from replacing its task.
async fn ask(client: reqwest::Client, url: String, mut changes: watch::Receiver<bool>, times: Times) {
    let (mut since, mut pause, mut is_said) = (Instant::now(), times.first_pause, false);
    let mut wait = Duration::MAX;
    loop {
        match tokio::time::timeout(wait, changes.changed()).await {
            Ok(Ok(())) => (since, pause, is_said) = (Instant::now(), times.first_pause, false),
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        let is_wanted = *changes.borrow_and_update();
        let left = times.protection.saturating_sub(since.elapsed());
        if is_wanted && left.is_zero() {
            tracing::warn!(
                "a batch is unfinished an hour after its commit; ECS may stop this task, and another consumer \
                 finishes the batch"
            );
            wait = Duration::MAX;
            continue;
        }
        let body = if is_wanted {
            serde_json::json!({"ProtectionEnabled": true, "ExpiresInMinutes": left.as_secs().div_ceil(60).max(1)})
        } else {
            serde_json::json!({"ProtectionEnabled": false})
        };
        let request = client.put(&url).header("content-type", "application/json").body(body.to_string());
        wait = match request.send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) if is_wanted => left,
            Ok(_) => Duration::MAX,
            Err(error) => {
                if !std::mem::replace(&mut is_said, true) {
                    tracing::warn!(
                        "ECS does not change the scale-in protection of this task: {error} (give its role \
                         ecs:UpdateTaskProtection); \
                         repeating the request until it does"
                    );
                }
                let this = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                this
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_described_in_the_words_of_opentelemetry() {
        let container = serde_json::from_str(
            r#"{"DockerId": "abc-1", "Name": "consumer",
                "ContainerARN": "arn:aws:ecs:eu-west-1:111122223333:container/c/1",
                "LogOptions": {"awslogs-group": "/music-streams", "awslogs-stream": "consumer/1"},
                "Limits": {"CPU": 2}}"#,
        );
        let task = serde_json::from_str(
            r#"{"Cluster": "arn:aws:ecs:eu-west-1:111122223333:cluster/c", "Family": "music-streams", "Revision": "7",
                "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/c/158d1c", "LaunchType": "FARGATE"}"#,
        );
        let attributes = attributes(container.unwrap(), task.unwrap());
        let find = |name: &str| {
            attributes
                .iter()
                .find(|attribute| attribute.key.as_str() == name)
                .map(|attribute| attribute.value.to_string())
        };
        assert_eq!(find("cloud.region").as_deref(), Some("eu-west-1"));
        assert_eq!(find("cloud.account.id").as_deref(), Some("111122223333"));
        assert_eq!(find("aws.ecs.task.id").as_deref(), Some("158d1c"));
        assert_eq!(find("aws.ecs.launchtype").as_deref(), Some("fargate"));
        assert_eq!(find("aws.log.group.names").as_deref(), Some("/music-streams"));
        assert_eq!(find("cloud.availability_zone"), None);
    }

    /// Starts an agent that refuses the first `refusals` requests. Returns the requests that it receives.
    async fn asked(
        refusals: usize,
        times: Times,
    ) -> (ScaleInProtection, tokio::sync::mpsc::UnboundedReceiver<String>, AbortOnDropHandle<()>) {
        let (say, said) = tokio::sync::mpsc::unbounded_channel();
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let agent_state = axum::routing::put(async move |body: String| {
            let _ = say.send(body);
            let number = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if number < refusals { axum::http::StatusCode::BAD_REQUEST } else { axum::http::StatusCode::OK }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/state", listener.local_addr().unwrap());
        let served = axum::serve(listener, axum::Router::new().route("/state", agent_state)).into_future();
        let served = AbortOnDropHandle::new(tokio::spawn(async { served.await.unwrap() }));
        let (wanted, changes) = watch::channel(false);
        let asking = AbortOnDropHandle::new(tokio::spawn(ask(agent().unwrap(), url, changes, times)));
        (ScaleInProtection { wanted: Some(wanted), _asking: Some(asking) }, said, served)
    }

    const PROTECTED: &str = r#"{"ExpiresInMinutes":60,"ProtectionEnabled":true}"#;
    const UNPROTECTED: &str = r#"{"ProtectionEnabled":false}"#;
    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn protection_lasts_an_hour_from_each_commit_and_is_taken_back_at_the_end() {
        let times = Times { first_pause: Duration::from_millis(20), ..TIMES };
        let (protection, mut said, _served) = asked(0, times).await;
        let mut said = async || tokio::time::timeout(PATIENCE, said.recv()).await.unwrap().unwrap();
        for _ in 0..2 {
            let protected = protection.hold();
            assert_eq!(said().await, PROTECTED);
            drop(protected);
            assert_eq!(said().await, UNPROTECTED);
        }
    }

    #[tokio::test]
    async fn what_the_agent_refused_is_asked_for_again_until_it_is_done() {
        let times = Times { first_pause: Duration::from_millis(10), ..TIMES };
        let (protection, mut said, _served) = asked(3, times).await;
        let mut said = async || tokio::time::timeout(PATIENCE, said.recv()).await.unwrap().unwrap();
        let protected = protection.hold();
        assert_eq!([said().await, said().await], [PROTECTED, PROTECTED]);
        drop(protected);
        // The third and last refusal may still be of the first request.
        let mut last = said().await;
        while last == PROTECTED {
            last = said().await;
        }
        assert_eq!(last, UNPROTECTED);
    }

    #[tokio::test]
    async fn what_takes_protection_back_is_asked_for_again() {
        let times = Times { first_pause: Duration::from_millis(10), ..TIMES };
        let (protection, mut said, _served) = asked(3, times).await;
        drop(protection.hold());
        let mut said = async || tokio::time::timeout(PATIENCE, said.recv()).await.unwrap().unwrap();
        assert_eq!([said().await, said().await, said().await, said().await], [UNPROTECTED; 4]);
    }

    #[tokio::test]
    async fn protection_is_not_renewed() {
        let times = Times { protection: Duration::from_millis(100), first_pause: Duration::from_millis(10) };
        let (protection, mut said, _served) = asked(0, times).await;
        let _protected = protection.hold();
        assert!(said.recv().await.unwrap().contains(r#""ProtectionEnabled":true"#));
        assert!(tokio::time::timeout(5 * times.protection, said.recv()).await.is_err(), "it runs out");
    }
}
